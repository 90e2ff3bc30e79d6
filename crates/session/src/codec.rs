//! Framing: where one item ends and the next begins.
//!
//! A [`Codec`] cuts clear input into items and turns items into bytes. It does no I/O and keeps no input. The
//! runtime keeps the unused input and offers it again, with new input appended.

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
/// The runtime calls [`decode`](Codec::decode) with the unused input, again and again until the codec returns
/// [`Decoded::More`], and then keeps the rest. It lends at most 64 KiB at first, and after `More` all of the
/// input that has arrived. The input is never empty. The codec may change it in place, for example unmask or
/// decrypt it.
///
/// After `More`, the next input begins with the same bytes as the codec left them, so a codec may remember
/// how far it has looked. Usually there are more bytes by then, but after a pause the runtime may offer the
/// same input again. A codec rejects any item longer than its largest, so it never asks for more without end.
/// After an error the runtime does not call it again. [`kit::codec`](crate::kit::codec) tests a codec in
/// memory.
///
/// An item may borrow from the input but never from the codec, because the handler may send on the same
/// stream while it holds the item, and sending calls the codec. An item that is assembled from several parts
/// owns its bytes: the codec returns [`Decoded::Skip`] for each part that it keeps.
///
/// Not promised: that input is cut where the peer cut it, that a write follows a call of `encode`, or any
/// order between `decode` and `encode`.
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
    /// An item that arrives. It may borrow from the input.
    type In<'a>;
    /// An item to send.
    type Out<'a>;

    /// Takes the first item off the input, or bytes that belong to no item. It must use at least one byte and
    /// at most the lent ones. If a codec reports anything else, the runtime ends its connection.
    ///
    /// # Errors
    /// The input violates the protocol. The connection ends.
    fn decode<'a>(&mut self, input: &'a mut [u8]) -> Result<Decoded<Self::In<'a>>>;

    /// Queues one item. After an error, the caller removes the bytes that were already queued for it.
    ///
    /// # Errors
    /// The protocol cannot express the item.
    fn encode(&mut self, item: Self::Out<'_>, out: &mut Outgoing) -> Result;

    /// Handles the end of the peer's input. Called once, with the bytes that `decode` left, possibly none.
    /// May return a last item.
    ///
    /// # Errors
    /// [`Truncated`] if the input must not end here. By default, that is if any bytes are left.
    fn end<'a>(&mut self, left: &'a mut [u8]) -> Result<Option<Self::In<'a>>> {
        if left.is_empty() { Ok(None) } else { Err(Truncated.into()) }
    }
}

/// The result of decoding the front of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded<T> {
    /// An item, and how many bytes it used.
    Item(usize, T),
    /// How many bytes to skip. They are padding, a comment, or a part of an item that the codec keeps.
    Skip(usize),
    /// The item is incomplete.
    More,
}

/// `None` becomes [`Decoded::More`], because `get` and `first_chunk` return `None` for a slice that is too
/// short.
impl<T> From<Option<(usize, T)>> for Decoded<T> {
    #[inline]
    fn from(found: Option<(usize, T)>) -> Self {
        match found {
            Some((used, item)) => Decoded::Item(used, item),
            None => Decoded::More,
        }
    }
}

/// Passes bytes on as they arrive, without framing.
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

/// The reason why a codec of this crate rejected input or an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodecError {
    /// The item is longer than the limit.
    TooLong {
        /// The limit, in bytes.
        limit: usize,
        /// The announced length. If nothing announces it, the least possible length.
        len: usize,
    },
    /// A line is not UTF-8.
    NotUtf8(Utf8Error),
    /// The protocol does not allow this form of a length.
    Malformed(&'static str),
    /// A line to be sent contains a newline.
    Newline,
    /// The codec broke its contract: it used no bytes for an item, or more than it was lent.
    Contract {
        /// The codec's type.
        codec: &'static str,
        /// The violation.
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
