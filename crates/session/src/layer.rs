//! Layers between the wire and the codec: TLS, Noise, SOCKS5, or your own.
//!
//! A [`Layer`] is sans-IO: it borrows input and buffers, does no I/O, reads no clock and starts no thread.
//! [`Session`](crate::Session) drives it. Layers compose. The tuple `(A, B)` runs `B` after a transparent `A`
//! is done, and [`Stack`] runs `B` inside an `A` that changes bytes. [`Either`] is one of two layers and
//! [`Boxed`] is any layer, chosen at run time. [`kit`](crate::kit) tests a layer in memory.
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

/// The buffers that a layer borrows for one call. It may only append to them, and must neither read nor
/// remove their contents.
pub struct Io<'a> {
    /// Clear bytes, on their way to the codec.
    pub up: &'a mut Vec<u8>,
    /// Sealed bytes, on their way to the wire.
    pub down: &'a mut Outgoing,
    /// Buffers for bytes that the layer must keep between calls. It returns them when they are empty.
    pub pool: &'a mut Pool,
}

/// Shows lengths, and not the bytes.
impl fmt::Debug for Io<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Io")
            .field("up", &self.up.len())
            .field("down", &self.down.len())
            .field("pool", &self.pool)
            .finish()
    }
}

/// The outcome of one call of [`Layer::open`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// How many bytes of the input the layer used.
    pub used: usize,
    /// When to call again.
    pub next: Next,
}

/// When the driver must call [`Layer::open`] again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// At once, with the rest of the input, even if it is empty.
    Again,
    /// When there is more input.
    Wait,
    /// Never, because the peer ended its side with an authentic end.
    End,
}

/// Changes the bytes of one connection between the wire and the codec.
///
/// The driver calls `start` once, then `open` with input, and once the layer is ready, `seal` with the bytes
/// to send. The driver keeps the input that `open` did not use. It offers that input again as the layer left
/// it, with new input appended, so it is never shorter. This lets a layer decrypt in place, and no input
/// hides in a layer.
///
/// An error of any method is fatal to the connection. The driver discards any bytes that the failed call put
/// into `up`. It still sends any bytes that the call put into `down`, because they are an alert. It drops
/// queued clear bytes. Bytes that earlier calls put into `up` were delivered: because a layer opens one
/// record in each call, a bad record does not take the good ones before it along. After an error the driver
/// calls no method again.
///
/// If a layer breaks this contract in a way that the driver can see, [`LayerError::Contract`] ends its
/// connection, and no other.
///
/// Not promised: that input is cut where the peer cut it, that every call of `open` has new input, that
/// `seal` follows `ready`, or that `finish` and `end` are called at all.
pub trait Layer: 'static {
    /// Whether bytes pass unchanged both ways once the layer is ready, and no method but `ready` is called
    /// again. This is so for a proxy handshake or a preamble.
    const TRANSPARENT: bool = false;

    /// The most bytes of input that may be left after [`Next::Wait`]. More is the peer's error.
    const INPUT_MAX: usize;

    /// Returns whether this particular layer is transparent. A type such as [`Either`] or [`Boxed`] may hold
    /// either kind of layer. Then `TRANSPARENT` is `false`, and the layer must pass bytes unchanged if a
    /// driver calls it after it became ready. The answer never changes. A session asks at most once, when
    /// the layer is ready.
    #[inline]
    fn transparent(&self) -> bool {
        Self::TRANSPARENT
    }

    /// Returns the most bytes of input that this particular layer may leave after [`Next::Wait`].
    #[inline]
    fn input_max(&self) -> usize {
        Self::INPUT_MAX
    }

    /// Starts the handshake. Called once, when the transport or the layer below is up. Queues the first
    /// flight if this side speaks first.
    ///
    /// # Errors
    /// Fatal.
    fn start(&mut self, io: &mut Io<'_>) -> Result {
        let _ = io;
        Ok(())
    }

    /// Returns whether clear bytes may be sealed. Becomes true once, inside `start` or `open` only, and stays
    /// so.
    fn ready(&self) -> bool;

    /// Opens at most one record, or handles one handshake message. It may change the input in place.
    ///
    /// After [`Next::Again`] the driver calls once more at once, even if no input is left. After
    /// [`Next::Wait`] it calls when there is more input, and after [`Next::End`] never.
    ///
    /// # Errors
    /// The input violates the protocol. Fatal.
    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step>;

    /// Seals at least one byte and at most one record of `clear`, which is never empty, and returns how many
    /// bytes it took. It puts at least as many into `down`, unless it [shrinks](Layer::shrinks) them. Called
    /// only when ready, and not while 64 KiB of sealed bytes wait for the wire.
    ///
    /// # Errors
    /// Fatal.
    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize>;

    /// Returns whether a record may be shorter than the clear bytes in it, because the layer compresses. For
    /// any other layer, the driver treats such a record as a loss of bytes and ends the connection.
    fn shrinks(&self) -> bool {
        false
    }

    /// Queues the authentic end of our side. Called once, after the last `seal`. Called before `ready` only
    /// if there was nothing to seal. Input may still follow.
    ///
    /// # Errors
    /// Fatal.
    fn finish(&mut self, io: &mut Io<'_>) -> Result {
        let _ = io;
        Ok(())
    }

    /// Checks the end of the transport, with unused input in `left`. Called once, unless `open` has returned
    /// [`Next::End`].
    ///
    /// # Errors
    /// [`Truncated`] unless the end is authentic. By default an end counts as authentic if the layer is ready
    /// and no input is left. That is right only for protocols that do not mark their end.
    fn end(&mut self, left: &[u8]) -> Result {
        if self.ready() && left.is_empty() { Ok(()) } else { Err(Truncated.into()) }
    }

    /// Returns how many bytes of memory the layer holds for input. The runtime counts them with the
    /// connection's buffers.
    fn held(&self) -> usize {
        0
    }
}

/// No layer: bytes pass unchanged.
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

/// Runs `A` over the wire until it is ready, then `B` alone, in place: no buffer, no copy, no allocation.
///
/// `A` must be transparent, or the program does not compile. For an `A` that changes bytes there is
/// [`Stack`].
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
        // Uses the constant, so that the compiler runs its check of `A` wherever a session calls this.
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
        // Input after the last message of A belongs to B.
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

/// A fault that a driver of layers found, of the peer or of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayerError {
    /// The peer's message is longer than [`Layer::INPUT_MAX`].
    TooLong {
        /// The limit, in bytes.
        limit: usize,
        /// How many bytes were left unused.
        len: usize,
    },
    /// The layer broke its contract: it claims to have used more than it was lent, it put less on the wire
    /// than it took, or it removed bytes that others had queued.
    Contract {
        /// The layer's type.
        layer: &'static str,
        /// The violation.
        what: &'static str,
    },
    /// The session is not in a phase that allows the call.
    Misuse(&'static str),
    /// Clear bytes arrived before the layer changed. They would be read as if they had come through the new
    /// one.
    Early {
        /// How many bytes.
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

/// Makes the error for a layer that broke its contract.
#[cold]
fn broken<L>(what: &'static str) -> LayerError {
    LayerError::Contract { layer: type_name::<L>(), what }
}

/// Seals everything in `clear`, record by record. There is no limit, because one call of an inner layer
/// produced it all.
fn seal_all<L: Layer>(layer: &mut L, clear: &mut Outgoing, io: &mut Io<'_>) -> Result {
    while !clear.is_empty() {
        seal_front(layer, clear, io)?;
    }
    Ok(())
}

/// Seals one record from the front of `clear`.
pub(crate) fn seal_front<L: Layer>(layer: &mut L, clear: &mut Outgoing, io: &mut Io<'_>) -> Result {
    let taken = seal_once(layer, clear.front(), io)?;
    clear.advance(taken);
    Ok(())
}

/// Lets a layer seal one record, and checks that the result is plausible.
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
    // Remove these bytes, because they are half a record and not an alert.
    io.down.rollback(mark);
    Err(broken::<L>(what).into())
}

/// Lets a layer open its input, and checks the result.
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

/// Returns an error if more input is left after a wait than the layer allows.
pub(crate) fn check_left<L: Layer>(layer: &L, left: usize) -> Result<(), LayerError> {
    let limit = layer.input_max();
    if left > limit { Err(LayerError::TooLong { limit, len: left }) } else { Ok(()) }
}
