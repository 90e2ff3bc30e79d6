//! Layers between the wire and the codec: TLS, Noise, SOCKS5, yours.
//!
//! A [`Layer`] is sans-IO: it is lent input and buffers and does no I/O itself, reads no clock and starts no thread.
//! [`Session`](crate::Session) drives it. Layers compose: the tuple `(A, B)` runs `B` once a transparent `A` is
//! through, and [`Stack`] runs `B` inside an `A` that changes bytes. [`Either`] is one of two layers and [`Boxed`] is any
//! layer, chosen while the program runs. [`kit`](crate::kit) tests a layer in memory.
//!
//! ```text
//! Idle -start-> Handshake -ready-> Open -closing and clear empty: finish-> Finished
//! ```

use std::any::type_name;
use std::error::Error;
use std::fmt;

use crate::failure::{Result, Truncated};
use crate::outgoing::Outgoing;
use crate::pool::Pool;

mod choice;
mod stack;

pub use crate::outgoing::grow;
pub use choice::{Boxed, Either};
pub use stack::Stack;

/// What a layer is lent for one call. Everything is appended to, nothing is looked at or taken away.
#[derive(Debug)]
pub struct Io<'a> {
    /// Clear bytes, on their way to the codec.
    pub up: &'a mut Vec<u8>,
    /// Sealed bytes, on their way to the wire.
    pub down: &'a mut Outgoing,
    /// Buffers for what the layer must keep between calls; it gives them back when they are empty.
    pub pool: &'a mut Pool,
}

/// What one call of [`Layer::open`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// How many bytes of the input were used.
    pub used: usize,
    /// When to call again.
    pub next: Next,
}

/// When [`Layer::open`] is to be called again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// At once, with what is left, even if nothing is left.
    Again,
    /// When there is more input.
    Wait,
    /// Never: the peer ended its side, authentically.
    End,
}

/// Changes the bytes of one connection between the wire and the codec.
///
/// The driver calls `start` once, then `open` with what arrives, and once the layer is ready `seal` with what is to be
/// sent. It keeps the input that `open` did not use and offers it again, as the layer left it, with what is new behind
/// it; it is never shorter. So decryption happens in place and no input hides in a layer.
///
/// An error of any method is fatal to the connection. What the failed call put into `up` is discarded, what it put into
/// `down`, an alert, still leaves; queued clear bytes are dropped. What earlier calls put into `up` was delivered: a
/// layer opens one record a call, so a bad record does not take the good ones before it along. After an error no method
/// is called again.
///
/// A layer that breaks this contract in a way that the driver sees ends its connection by [`LayerError::Contract`], and no
/// other.
///
/// Not promised: that input is cut where the peer cut it, that every call of `open` has new input, that `seal` follows
/// `ready`, that `finish` or `end` are called at all.
pub trait Layer: 'static {
    /// Says that once ready, bytes pass unchanged both ways and no method but `ready` is called again: a proxy
    /// handshake, a preamble.
    const TRANSPARENT: bool = false;

    /// The most input that may be left after [`Next::Wait`], in bytes; more is the peer's error.
    const INPUT_MAX: usize;

    /// Returns whether this very layer is transparent. A type may hold transparent layers and others ([`Either`],
    /// [`Boxed`]); then `TRANSPARENT` is `false`, and the layer must pass bytes unchanged if a driver calls it after it
    /// became ready. The answer never changes.
    #[inline]
    fn transparent(&self) -> bool {
        Self::TRANSPARENT
    }

    /// Returns the most input that this very layer may leave after [`Next::Wait`], in bytes.
    #[inline]
    fn input_max(&self) -> usize {
        Self::INPUT_MAX
    }

    /// Called once, when what is below is up: queues the first flight, if this side speaks first.
    ///
    /// # Errors
    /// Fatal.
    fn start(&mut self, io: &mut Io<'_>) -> Result {
        let _ = io;
        Ok(())
    }

    /// Says whether clear bytes may be sealed. Turns true once, inside `start` or `open` only, and stays so.
    fn ready(&self) -> bool;

    /// Opens at most one record, or handles one message of the handshake; the input may be changed in place.
    ///
    /// After [`Next::Again`] the driver calls once more at once, even with nothing left; after [`Next::Wait`] when
    /// there is more input; after [`Next::End`] never.
    ///
    /// # Errors
    /// The input is not what the protocol allows. Fatal.
    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step>;

    /// Seals at least one byte and at most one record of `clear`, which is never empty, and says how many bytes it
    /// took. It puts at least as many into `down`, unless it [shrinks](Layer::shrinks) them. Called only when ready, and
    /// not while 64 KiB of sealed bytes wait for the wire.
    ///
    /// # Errors
    /// Fatal.
    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize>;

    /// Returns whether a record may be shorter than the clear bytes in it: the layer compresses. Of any other layer the
    /// driver takes such a record for a loss of bytes, and ends the connection.
    fn shrinks(&self) -> bool {
        false
    }

    /// Queues the authentic end of our side. Called once, after the last `seal`; before `ready` only when there was
    /// nothing to seal. Input may still follow.
    ///
    /// # Errors
    /// Fatal.
    fn finish(&mut self, io: &mut Io<'_>) -> Result {
        let _ = io;
        Ok(())
    }

    /// Called once, when the transport ended and `left` was not used, unless `open` returned [`Next::End`] before.
    ///
    /// # Errors
    /// [`Truncated`] unless the end is authentic. Without an override an end is taken for one when the layer is ready
    /// and nothing is left, which is right only for protocols that do not mark their end.
    fn end(&mut self, left: &[u8]) -> Result {
        if self.ready() && left.is_empty() { Ok(()) } else { Err(Truncated.into()) }
    }

    /// Returns how many bytes of memory the layer holds for input it was given; counted with the connection's buffers.
    fn held(&self) -> usize {
        0
    }
}

/// No layer: bytes pass as they are.
impl Layer for () {
    const TRANSPARENT: bool = true;
    const INPUT_MAX: usize = 0;

    fn ready(&self) -> bool {
        true
    }

    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        io.up.extend_from_slice(input);
        Ok(Step { used: input.len(), next: Next::Wait })
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        io.down.put(clear);
        Ok(clear.len())
    }
}

/// First `A` over the wire until it is ready, then `B` alone, in place: no buffer, no copy, no allocation.
///
/// `A` must be transparent, or the program does not compile; for an `A` that changes bytes there is [`Stack`].
///
/// ```compile_fail
/// use session::{Pool, Session, kit::Toy};
///
/// let mut session = Session::new((Toy::client(1), ()));
/// session.start(&mut Pool::new());
/// ```
impl<A: Layer, B: Layer> Layer for (A, B) {
    const TRANSPARENT: bool = {
        assert!(A::TRANSPARENT, "the outer layer changes bytes: use Stack::new(outer, inner)");
        B::TRANSPARENT
    };
    const INPUT_MAX: usize = if A::INPUT_MAX > B::INPUT_MAX { A::INPUT_MAX } else { B::INPUT_MAX };

    fn transparent(&self) -> bool {
        // Names the constant, so that the compiler runs its check on `A` wherever a session asks this.
        Self::TRANSPARENT || self.1.transparent()
    }

    fn input_max(&self) -> usize {
        if self.0.ready() { self.1.input_max() } else { self.0.input_max() }
    }

    fn start(&mut self, io: &mut Io<'_>) -> Result {
        self.0.start(io)?;
        if self.0.ready() { self.1.start(io) } else { Ok(()) }
    }

    fn ready(&self) -> bool {
        self.0.ready() && self.1.ready()
    }

    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        if self.0.ready() {
            return open_once(&mut self.1, input, io);
        }
        let step = open_once(&mut self.0, input, io)?;
        if !self.0.ready() {
            return Ok(step);
        }
        self.1.start(io)?;
        // What came in the same read behind the last message of A is B's.
        Ok(Step { used: step.used, next: Next::Again })
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        seal_once(&mut self.1, clear, io)
    }

    fn shrinks(&self) -> bool {
        self.1.shrinks()
    }

    fn finish(&mut self, io: &mut Io<'_>) -> Result {
        if self.0.ready() { self.1.finish(io) } else { self.0.finish(io) }
    }

    fn end(&mut self, left: &[u8]) -> Result {
        if self.0.ready() { self.1.end(left) } else { self.0.end(left).and(Err(Truncated.into())) }
    }

    fn held(&self) -> usize {
        self.0.held() + self.1.held()
    }
}

/// Says what a driver of layers found wrong, with the peer or with a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayerError {
    /// The peer's message is longer than [`Layer::INPUT_MAX`] allows.
    TooLong {
        /// The largest allowed, in bytes.
        limit: usize,
        /// What was left unused.
        len: usize,
    },
    /// The layer broke its contract: it says that it used more than it was lent, it sealed less than it took, or it took
    /// away bytes of others.
    Contract {
        /// The type of the layer.
        layer: &'static str,
        /// What it did.
        what: &'static str,
    },
    /// The session is not in a phase that allows the call.
    Misuse(&'static str),
    /// Clear bytes came before the layer was changed, and would have been read as if they had come under the new one.
    Early {
        /// How many.
        len: usize,
    },
}

impl fmt::Display for LayerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LayerError::TooLong { limit, len } => {
                write!(f, "a message of {len} bytes or more, where at most {limit} are allowed")
            }
            LayerError::Contract { layer, what } => write!(f, "the layer {layer} broke its contract: {what}"),
            LayerError::Misuse(what) => write!(f, "misuse of a session: {what}"),
            LayerError::Early { len } => {
                write!(
                    f,
                    "{len} clear bytes came before the layer changed, behind the item that asked for it"
                )
            }
        }
    }
}

impl Error for LayerError {}

/// The layer broke its contract in this way.
#[cold]
fn broken<L>(what: &'static str) -> LayerError {
    LayerError::Contract { layer: type_name::<L>(), what }
}

/// Seals everything in `clear`, record by record, without a limit: `clear` is what one call of an inner layer made.
fn seal_all<L: Layer>(layer: &mut L, clear: &mut Outgoing, io: &mut Io<'_>) -> Result {
    while !clear.is_empty() {
        seal_front(layer, clear, io)?;
    }
    Ok(())
}

/// Seals one record off the front of `clear`.
pub(crate) fn seal_front<L: Layer>(layer: &mut L, clear: &mut Outgoing, io: &mut Io<'_>) -> Result {
    let taken = seal_once(layer, clear.front(), io)?;
    clear.advance(taken);
    Ok(())
}

/// Lets a layer seal one record, and checks that what it says it took is there.
fn seal_once<L: Layer>(layer: &mut L, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
    let (mark, had) = (io.down.mark(), io.down.len());
    let taken = layer.seal(clear, io)?;
    let what = match io.down.len().checked_sub(had) {
        _ if taken == 0 => "it sealed nothing",
        _ if taken > clear.len() => "it sealed more than it was lent",
        Some(put) if put >= taken || put > 0 && layer.shrinks() => return Ok(taken),
        Some(_) => "it put less on the wire than it took",
        None => "it took sealed bytes away",
    };
    // No alert, but half a record.
    io.down.rollback(mark);
    Err(broken::<L>(what).into())
}

/// Lets a layer open its input, and checks the answer.
pub(crate) fn open_once<L: Layer>(layer: &mut L, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
    let (had_up, had_down) = (io.up.len(), io.down.len());
    let step = layer.open(input, io)?;
    if step.used > input.len() {
        return Err(broken::<L>("it used more than it was lent").into());
    }
    if io.up.len() < had_up || io.down.len() < had_down {
        return Err(broken::<L>("it took bytes away that others had queued").into());
    }
    Ok(step)
}

/// Refuses more input left after a wait than the layer allows.
pub(crate) fn check_left<L: Layer>(layer: &L, left: usize) -> Result<(), LayerError> {
    let limit = layer.input_max();
    if left > limit { Err(LayerError::TooLong { limit, len: left }) } else { Ok(()) }
}
