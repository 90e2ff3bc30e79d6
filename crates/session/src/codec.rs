//! Framing: where one item ends and the next begins.
//!
//! A [`Codec`] cuts clear input into items and turns items into bytes. It does no I/O and keeps no input: the runtime
//! keeps what was not used and offers it again, with more behind it.

use std::error::Error;
use std::fmt;
use std::str::Utf8Error;

use crate::failure::{Result, Truncated};
use crate::outgoing::Outgoing;

mod delimited;
mod lines;

pub use delimited::{Delimited, Prefix, U16, U32, Varint};
pub use lines::Lines;

/// Cuts clear input into items and turns items into bytes, for one connection.
///
/// The runtime calls [`decode`](Codec::decode) with everything that arrived and was not used yet, again and again until
/// it answers `None`, then keeps the rest. The input is never empty. After `None` it begins with the same bytes, so a codec
/// may remember how far it has looked; it has grown by then, or is offered again unchanged after a pause. A codec
/// refuses what is longer than its largest item; it never asks for more without end. After an error it is not called
/// again.
///
/// Not promised: that input is cut where the peer cut it, that a call of `encode` is followed by a write, or any order
/// between `decode` and `encode`.
///
/// ```
/// use session::{Codec, Outgoing, Result};
///
/// /// Items of exactly four bytes.
/// struct Fours;
///
/// impl Codec for Fours {
///     type In<'a> = [u8; 4];
///     type Out<'a> = [u8; 4];
///
///     fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Option<(usize, [u8; 4])>> {
///         Ok(input.first_chunk().map(|four| (4, *four)))
///     }
///
///     fn encode(&mut self, item: [u8; 4], out: &mut Outgoing) -> Result {
///         out.put(&item);
///         Ok(())
///     }
/// }
/// ```
pub trait Codec: 'static {
    /// What arrives; it may borrow the input.
    type In<'a>;
    /// What is sent.
    type Out<'a>;

    /// Takes the first item off the input: how many bytes it used, never none, and the item. `None` needs more.
    ///
    /// # Errors
    /// The input is not what the protocol allows. The connection ends.
    fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Option<(usize, Self::In<'a>)>>;

    /// Queues one item. What was queued before an error is taken back by the caller.
    ///
    /// # Errors
    /// The item cannot be said in this protocol.
    fn encode(&mut self, item: Self::Out<'_>, out: &mut Outgoing) -> Result;

    /// Called once, when the peer's input has ended and `decode` left `left`, possibly nothing. May yield a last item.
    ///
    /// # Errors
    /// [`Truncated`] when the input may not end here: unless overridden, when anything is left.
    fn end<'a>(&mut self, left: &'a [u8]) -> Result<Option<Self::In<'a>>> {
        if left.is_empty() { Ok(None) } else { Err(Truncated.into()) }
    }
}

/// Passes whatever arrived, as it arrived: no framing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bytes;

impl Codec for Bytes {
    type In<'a> = &'a [u8];
    type Out<'a> = &'a [u8];

    #[inline]
    fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Option<(usize, &'a [u8])>> {
        Ok(Some((input.len(), input)))
    }

    #[inline]
    fn encode(&mut self, item: &[u8], out: &mut Outgoing) -> Result {
        out.put(item);
        Ok(())
    }
}

/// Says why a codec of this crate refused input or an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodecError {
    /// The item is longer than the codec's largest.
    TooLong {
        /// The largest length, in bytes.
        limit: usize,
        /// The announced length, or the least it can be when nothing announces it.
        len: usize,
    },
    /// A line is not UTF-8.
    NotUtf8(Utf8Error),
    /// A length is written in a way the protocol forbids.
    Malformed(&'static str),
    /// A line that was to be sent contains a newline.
    Newline,
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CodecError::TooLong { limit, len } => {
                write!(f, "an item of {len} bytes or more, where at most {limit} are allowed")
            }
            CodecError::NotUtf8(_) => f.write_str("a line is not UTF-8"),
            CodecError::Malformed(what) => write!(f, "malformed length: {what}"),
            CodecError::Newline => f.write_str("a line to be sent contains a newline"),
        }
    }
}

impl Error for CodecError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            CodecError::NotUtf8(error) => Some(error),
            _ => None,
        }
    }
}
