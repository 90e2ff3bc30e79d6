//! Runs one layer inside another that changes bytes.
//!
//! Bytes that the outer layer has opened and the inner one has not used wait in one buffer from the pool. A
//! call of `open` runs one of the two layers: the inner one as long as it may have more, otherwise the outer
//! one. So each call handles one record of one layer, and an error does not take previously opened bytes
//! along.

use std::fmt;

use super::{Io, Layer, LayerError, Next, Step, check_left, open_once, seal_all, seal_once};
use crate::failure::{Result, Truncated};

/// Runs `B` inside an `A` that changes bytes. For a transparent `A`, use the tuple `(A, B)`: it is cheaper,
/// and a stack does not compile.
///
/// An end is authentic if the inner layer saw its own end, or if the outer layer's end is authentic and the
/// inner layer accepts it.
pub struct Stack<A, B> {
    outer: A,
    inner: B,
    /// Bytes that the outer layer opened. The first `at` of them are used.
    mid: Vec<u8>,
    at: usize,
    /// The inner layer may produce more without more input.
    inner_again: bool,
    /// The same for the outer layer.
    outer_again: bool,
    /// The outer layer ended, with an authentic end.
    outer_ended: bool,
}

impl<A: Layer, B: Layer> Stack<A, B> {
    /// Puts `inner` inside `outer`.
    pub fn new(outer: A, inner: B) -> Self {
        Stack {
            outer,
            inner,
            mid: Vec::new(),
            at: 0,
            inner_again: false,
            outer_again: false,
            outer_ended: false,
        }
    }

    /// Returns the layer next to the wire.
    pub fn outer(&self) -> &A {
        &self.outer
    }

    /// Returns the layer next to the codec.
    pub fn inner(&self) -> &B {
        &self.inner
    }

    /// Returns the layer next to the wire, for a later request. The bytes that it puts into `down` go to the
    /// wire unchanged.
    pub fn outer_mut(&mut self) -> &mut A {
        &mut self.outer
    }

    /// Makes a later request of the layer next to the codec. The outer layer seals the bytes that it puts
    /// into `down`.
    ///
    /// # Errors
    /// The error of `call` or of the outer layer. [`LayerError::Misuse`] before the outer layer is ready.
    pub fn with_inner<T>(
        &mut self,
        io: &mut Io<'_>,
        call: impl FnOnce(&mut B, &mut Io<'_>) -> Result<T>,
    ) -> Result<T> {
        if !self.outer.ready() {
            return Err(LayerError::Misuse("the outer layer is not ready").into());
        }
        self.inside(io, |inner, _, io| call(inner, io))
    }

    /// Returns whether the inner layer is done and must not be called any more.
    fn through(&self) -> bool {
        self.inner.transparent() && self.inner.ready()
    }

    /// Runs the inner layer with a lent queue as its wire, then seals that queue into the outer layer. It
    /// does so after an error as well, because the inner layer may have queued an alert.
    fn inside<T>(
        &mut self,
        io: &mut Io<'_>,
        call: impl FnOnce(&mut B, &mut [u8], &mut Io<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut down = io.pool.take_outgoing();
        let mut inner_io = Io { up: io.up, down: &mut down, pool: io.pool };
        let result = call(&mut self.inner, &mut self.mid[self.at..], &mut inner_io);
        let sealed = seal_all(&mut self.outer, &mut down, io);
        io.pool.give_outgoing(down);
        let value = result?;
        sealed?;
        Ok(value)
    }

    fn open_inner(&mut self, more_input: bool, io: &mut Io<'_>) -> Result<Step> {
        let next = if self.through() {
            io.up.extend_from_slice(&self.mid[self.at..]);
            self.at = self.mid.len();
            Next::Wait
        } else {
            let step = self.inside(io, open_once::<B>)?;
            self.at += step.used;
            // A transparent layer that has just become ready leaves the bytes after its last message.
            if self.through() { Next::Again } else { step.next }
        };
        let left = self.mid.len() - self.at;
        if left == 0 {
            io.pool.give(std::mem::take(&mut self.mid));
            self.at = 0;
        }
        if next != Next::Wait {
            return Ok(Step { used: 0, next });
        }
        check_left(&self.inner, left)?;
        self.inner_again = false;
        if self.outer_ended {
            self.end_inner()?;
            return Ok(Step { used: 0, next: Next::End });
        }
        Ok(Step { used: 0, next: if self.outer_again || more_input { Next::Again } else { Next::Wait } })
    }

    fn open_outer(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        if self.through() {
            return open_once(&mut self.outer, input, io);
        }
        self.mid.drain(..std::mem::take(&mut self.at));
        if self.mid.capacity() == 0 {
            self.mid = io.pool.take();
        }
        let (was_ready, had) = (self.outer.ready(), self.mid.len());
        let mut outer_io = Io { up: &mut self.mid, down: io.down, pool: io.pool };
        let step = open_once(&mut self.outer, input, &mut outer_io)?;
        if self.outer.ready() && !was_ready {
            self.inside(io, |inner, _, io| inner.start(io))?;
        }
        let ready = self.outer.ready();
        self.inner_again = ready && self.mid.len() > if was_ready { had } else { 0 };
        self.outer_again = step.next == Next::Again;
        self.outer_ended = step.next == Next::End;
        if self.outer_ended && !ready {
            return Err(Truncated.into());
        }
        if self.mid.is_empty() {
            io.pool.give(std::mem::take(&mut self.mid));
        }
        if self.inner_again || self.outer_ended {
            // When the outer layer ends, ask the inner one once more, because it may react to that end.
            self.inner_again = true;
            return Ok(Step { used: step.used, next: Next::Again });
        }
        Ok(step)
    }

    fn end_inner(&mut self) -> Result {
        let left = &self.mid[self.at..];
        match self.inner.ready() {
            true if self.inner.transparent() && left.is_empty() => Ok(()),
            true => self.inner.end(left),
            false => Err(Truncated.into()),
        }
    }
}

impl<A: Layer, B: Layer> Layer for Stack<A, B> {
    const TRANSPARENT: bool = {
        assert!(!A::TRANSPARENT, "the outer layer is transparent: use the tuple (outer, inner)");
        false
    };
    const INPUT_MAX: usize = A::INPUT_MAX;

    fn input_max(&self) -> usize {
        self.outer.input_max()
    }

    fn start(&mut self, io: &mut Io<'_>) -> Result {
        self.outer.start(io)?;
        if self.outer.ready() { self.inside(io, |inner, _, io| inner.start(io)) } else { Ok(()) }
    }

    fn ready(&self) -> bool {
        self.outer.ready() && self.inner.ready()
    }

    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        if self.inner_again { self.open_inner(!input.is_empty(), io) } else { self.open_outer(input, io) }
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        if self.through() {
            return seal_once(&mut self.outer, clear, io);
        }
        self.inside(io, |inner, _, io| seal_once(inner, clear, io))
    }

    fn shrinks(&self) -> bool {
        self.outer.shrinks() || self.inner.shrinks()
    }

    fn finish(&mut self, io: &mut Io<'_>) -> Result {
        if self.outer.ready() && !self.through() {
            self.inside(io, |inner, _, io| inner.finish(io))?;
        }
        self.outer.finish(io)
    }

    fn end(&mut self, left: &[u8]) -> Result {
        self.outer.end(left)?;
        self.end_inner()
    }

    fn held(&self) -> usize {
        self.mid.capacity() + self.outer.held() + self.inner.held()
    }
}

/// Shows the layers and lengths, and not the bytes between the layers.
impl<A: fmt::Debug, B: fmt::Debug> fmt::Debug for Stack<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack")
            .field("outer", &self.outer)
            .field("inner", &self.inner)
            .field("mid", &(self.mid.len() - self.at))
            .field("outer_ended", &self.outer_ended)
            .finish_non_exhaustive()
    }
}
