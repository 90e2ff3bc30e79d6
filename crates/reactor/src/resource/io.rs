//! The operations lent to a resource for one step: so the runtime sees what they found.

use std::io::Result;

#[cfg(unix)]
use crate::engine::{Delivery, Descriptor};
use crate::engine::{Engine, Outgoing, Source};

/// Reads and writes for a [`Resource`](crate::Resource): through the engine, so that a resource whose source is virtual
/// works in a simulated world, and so that the runtime knows when the input is drained.
pub struct Io<'a> {
    engine: &'a mut dyn Engine,
    first: bool,
    drained: bool,
    ended: bool,
    over: bool,
    bytes_in: u64,
    bytes_out: u64,
}

impl<'a> Io<'a> {
    pub(crate) fn new(engine: &'a mut dyn Engine, first: bool) -> Io<'a> {
        Io { engine, first, drained: true, ended: false, over: false, bytes_in: 0, bytes_out: 0 }
    }

    /// Reads what is there, as read(2). An interrupted call is repeated.
    ///
    /// `Ok(0)` for a buffer that is not empty is the end of the input: the runtime then waits for input no
    /// more, until [`resume`](crate::Context::resume).
    ///
    /// # Errors
    /// As read(2); `WouldBlock` when there is nothing.
    pub fn read(&mut self, source: Source<'_>, into: &mut [u8]) -> Result<usize> {
        let result = self.engine.read(source, into);
        if let Ok(count) = result {
            self.drained = count < into.len();
            self.ended |= count == 0 && !into.is_empty();
            self.bytes_in += count as u64;
        }
        result
    }

    /// Writes the front of a queue, as writev(2); the caller advances it. A broken pipe is an error, never
    /// a signal.
    ///
    /// # Errors
    /// As writev(2); `WouldBlock` when there is no room.
    pub fn write(&mut self, source: Source<'_>, from: &Outgoing) -> Result<usize> {
        let result = self.engine.write(source, from);
        if let Ok(count) = result {
            self.bytes_out += count as u64;
        }
        result
    }

    /// Whether this is the first step since the resource became ready.
    pub fn is_first(&self) -> bool {
        self.first
    }

    /// Says that there may be more, for a resource that reads without [`Io::read`].
    pub fn may_have_more(&mut self) {
        self.drained = false;
    }

    /// Says that the resource is over with this step: after its event, if there is one, it ends as
    /// [`Closed::End`](crate::Closed::End).
    pub fn close(&mut self) {
        self.over = true;
    }

    /// Sends bytes through a Unix socket, and descriptors with the first of them: as [`Engine::pass`].
    #[cfg(unix)]
    pub(crate) fn pass(
        &mut self,
        to: Source<'_>,
        bytes: &[std::io::IoSlice<'_>],
        with: &mut Vec<Descriptor>,
    ) -> Result<usize> {
        let result = self.engine.pass(to, bytes, with);
        if let Ok(count) = result {
            self.bytes_out += count as u64;
        }
        result
    }

    /// Receives from a Unix socket, with the descriptors that came: as [`Engine::receive`].
    #[cfg(unix)]
    pub(crate) fn receive(&mut self, from: Source<'_>, into: &mut [u8]) -> Result<Delivery> {
        let result = self.engine.receive(from, into);
        if let Ok(got) = &result {
            self.bytes_in += got.bytes as u64;
        }
        result
    }

    /// Says that the input ended, for a resource that reads without [`Io::read`].
    #[cfg(unix)]
    pub(crate) fn input_ended(&mut self) {
        self.ended = true;
    }

    pub(crate) fn outcome(self) -> Outcome {
        Outcome {
            drained: self.drained,
            ended: self.ended,
            over: self.over,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
        }
    }
}

/// What a step's operations found.
pub(crate) struct Outcome {
    /// Nothing more is there: a short read, or none.
    pub(crate) drained: bool,
    /// The input ended.
    pub(crate) ended: bool,
    /// The resource is over.
    pub(crate) over: bool,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}
