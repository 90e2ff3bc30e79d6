//! The operations that the runtime lends to a resource for one step. The runtime sees their results.

use std::{fmt, io::Result};

#[cfg(unix)]
use crate::engine::{Delivery, Descriptor};
use crate::engine::{Engine, Outgoing, Source};

/// Reads and writes for a [`Resource`](crate::Resource) through the engine.
///
/// A resource that does its I/O here also works in a simulated world, where its source is virtual, and the
/// runtime learns when the input is drained.
pub struct Io<'a> {
    engine: &'a mut dyn Engine,
    first: bool,
    drained: bool,
    ended: bool,
    over: bool,
    bytes_in: u64,
    bytes_out: u64,
}

impl fmt::Debug for Io<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Io")
            .field("drained", &self.drained)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl<'a> Io<'a> {
    pub(crate) fn new(engine: &'a mut dyn Engine, first: bool) -> Io<'a> {
        Io { engine, first, drained: true, ended: false, over: false, bytes_in: 0, bytes_out: 0 }
    }

    /// Reads available bytes, as read(2). Repeats an interrupted call.
    ///
    /// `Ok(0)` for a buffer that is not empty is the end of the input. The runtime then stops waiting for
    /// input until [`resume`](crate::Context::resume).
    ///
    /// # Errors
    /// The errors of read(2). `WouldBlock` if there is no input.
    pub fn read(&mut self, source: Source<'_>, into: &mut [u8]) -> Result<usize> {
        let result = self.engine.read(source, into);
        if let Ok(count) = result {
            self.drained = count < into.len();
            self.ended |= count == 0 && !into.is_empty();
            self.bytes_in += count as u64;
        }
        result
    }

    /// Writes the front of a queue, as writev(2). The caller advances the queue. A broken pipe is an error,
    /// never a signal.
    ///
    /// # Errors
    /// The errors of writev(2). `WouldBlock` if there is no room.
    pub fn write(&mut self, source: Source<'_>, from: &Outgoing) -> Result<usize> {
        let result = self.engine.write(source, from);
        if let Ok(count) = result {
            self.bytes_out += count as u64;
        }
        result
    }

    /// Returns whether this is the first step since the resource became ready.
    pub fn is_first(&self) -> bool {
        self.first
    }

    /// Notes that there may be more input, for a resource that reads without [`Io::read`].
    pub fn may_have_more(&mut self) {
        self.drained = false;
    }

    /// Ends the resource with this step. The service still gets the step's event, if there is one, and then
    /// [`Closed::End`](crate::Closed::End).
    pub fn close(&mut self) {
        self.over = true;
    }

    /// Sends bytes through a Unix socket, and descriptors with the first of them, as [`Engine::pass`].
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

    /// Receives bytes and descriptors from a Unix socket, as [`Engine::receive`].
    #[cfg(unix)]
    pub(crate) fn receive(&mut self, from: Source<'_>, into: &mut [u8]) -> Result<Delivery> {
        let result = self.engine.receive(from, into);
        if let Ok(got) = &result {
            self.bytes_in += got.bytes as u64;
        }
        result
    }

    /// Notes that the input ended, for a resource that reads without [`Io::read`].
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

/// The results of the operations of one step.
pub(crate) struct Outcome {
    /// There is no more input, because the last read was short or there was none.
    pub(crate) drained: bool,
    pub(crate) ended: bool,
    /// The resource ends after this step.
    pub(crate) over: bool,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}
