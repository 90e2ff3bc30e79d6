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
/// The runtime calls [`decode`](Codec::decode) with what arrived and was not used yet, again and again until it answers
/// [`Decoded::More`], then keeps the rest. It lends at most 64 KiB at first, and after `More` everything that arrived. The
/// input is never empty, and the codec may change it in place: unmask it, decrypt it, write there what it made of it. After
/// `More` the input begins with the same bytes, as the codec left them, so a codec may remember how far it has looked; it
/// has grown by then, or is offered again unchanged after a pause. A codec refuses what is longer than its largest item; it
/// never asks for more without end. After an error it is not called again. [`kit::codec`](crate::kit::codec) tests a codec
/// in memory.
///
/// An item may borrow the input and never the codec, because the handler that is lent an item may send on the same
/// stream, and sending calls the codec. Items that are put together of several parts own their bytes: the codec answers
/// [`Decoded::Skip`] for each part that it keeps.
///
/// Not promised: that input is cut where the peer cut it, that a call of `encode` is followed by a write, or any order
/// between `decode` and `encode`.
///
/// ```
/// use session::{Codec, Decoded, Outgoing, Result};
///
/// /// Items of exactly four bytes.
/// struct Fours;
///
/// impl Codec for Fours {
///     type In<'a> = [u8; 4];
///     type Out<'a> = [u8; 4];
///
///     fn decode(&mut self, input: &mut [u8]) -> Result<Decoded<[u8; 4]>> {
///         Ok(input.first_chunk().map(|four| (4, *four)).into())
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

    /// Takes the first item off the input, or bytes that are none. What it used is at least one byte and at most what it
    /// was lent; a codec that says otherwise ends its connection.
    ///
    /// # Errors
    /// The input is not what the protocol allows. The connection ends.
    fn decode<'a>(&mut self, input: &'a mut [u8]) -> Result<Decoded<Self::In<'a>>>;

    /// Queues one item. What was queued before an error is taken back by the caller.
    ///
    /// # Errors
    /// The item cannot be said in this protocol.
    fn encode(&mut self, item: Self::Out<'_>, out: &mut Outgoing) -> Result;

    /// Called once, when the peer's input has ended and `decode` left `left`, possibly nothing. May yield a last item.
    ///
    /// # Errors
    /// [`Truncated`] when the input may not end here: unless overridden, when anything is left.
    fn end<'a>(&mut self, left: &'a mut [u8]) -> Result<Option<Self::In<'a>>> {
        if left.is_empty() { Ok(None) } else { Err(Truncated.into()) }
    }
}

/// What a codec made of the front of its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded<T> {
    /// An item, of so many bytes.
    Item(usize, T),
    /// So many bytes without an item: padding, a comment, or a part of an item that the codec keeps.
    Skip(usize),
    /// The item is not whole yet.
    More,
}

/// `None` is [`Decoded::More`], as `get` and `first_chunk` answer for a slice that is too short.
impl<T> From<Option<(usize, T)>> for Decoded<T> {
    #[inline]
    fn from(found: Option<(usize, T)>) -> Self {
        match found {
            Some((used, item)) => Decoded::Item(used, item),
            None => Decoded::More,
        }
    }
}

/// Passes whatever arrived, as it arrived: no framing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bytes;

impl Codec for Bytes {
    type In<'a> = &'a [u8];
    type Out<'a> = &'a [u8];

    #[inline]
    fn decode<'a>(&mut self, input: &'a mut [u8]) -> Result<Decoded<&'a [u8]>> {
        Ok(Decoded::Item(input.len(), input))
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
    /// The codec broke its contract: it used nothing for an item, or more than it was lent.
    Contract {
        /// The type of the codec.
        codec: &'static str,
        /// What it did.
        what: &'static str,
    },
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
            CodecError::Contract { codec, what } => write!(f, "the codec {codec} broke its contract: {what}"),
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
