//! Items with a length prefix.

use std::fmt;
use std::marker::PhantomData;

use super::{Codec, CodecError, Decoded};
use crate::failure::Result;
use crate::outgoing::Outgoing;

/// Cuts input into items, each after its length in the format `P`.
///
/// The codec rejects a length over the limit as soon as it has read it, before it keeps any byte of the item.
/// The limit applies in both directions. It counts bytes without the prefix. An item may be empty.
///
/// ```
/// use session::{Codec, Decoded, Delimited, U16};
///
/// let mut codec = Delimited::<U16>::new();
/// assert_eq!(codec.decode(&mut b"\x00\x02hi\x00".to_vec())?, Decoded::Item(4, &b"hi"[..]));
/// assert_eq!(codec.decode(&mut [0])?, Decoded::More);
/// # Ok::<(), session::Failure>(())
/// ```
pub struct Delimited<P> {
    max: usize,
    prefix: PhantomData<fn() -> P>,
}

/// A format for the length of an item.
pub trait Prefix: 'static {
    /// The largest length that this format can express.
    const LEN_MAX: usize;

    /// Reads a length. Returns the number of bytes used and the length, or `None` if it needs more input.
    ///
    /// # Errors
    /// The format does not allow this encoding of the length.
    fn read(input: &[u8]) -> Result<Option<(usize, usize)>, CodecError>;

    /// Writes a length of at most [`Prefix::LEN_MAX`].
    fn write(len: usize, out: &mut Outgoing);
}

/// A length in two bytes, most significant first.
#[derive(Debug, Clone, Copy)]
pub struct U16;

/// A length in four bytes, most significant first.
#[derive(Debug, Clone, Copy)]
pub struct U32;

/// A length in one to five bytes of seven bits, least significant first, as in protocol buffers. It has at
/// most 32 bits, and must use as few bytes as possible.
#[derive(Debug, Clone, Copy)]
pub struct Varint;

impl<P: Prefix> Delimited<P> {
    /// Creates a codec for items of at most 1 MiB, or the prefix's maximum if that is less.
    pub fn new() -> Self {
        Self::max(ITEM_MAX)
    }

    /// Creates a codec for items of at most `bytes`, or the prefix's maximum if that is less.
    pub fn max(bytes: usize) -> Self {
        Delimited { max: bytes.min(P::LEN_MAX), prefix: PhantomData }
    }

    fn check(&self, len: usize) -> Result<(), CodecError> {
        if len > self.max { Err(CodecError::TooLong { limit: self.max, len }) } else { Ok(()) }
    }
}

impl<P: Prefix> Codec for Delimited<P> {
    type In<'a> = &'a [u8];
    type Out<'a> = &'a [u8];

    fn decode<'a>(&mut self, input: &'a mut [u8]) -> Result<Decoded<&'a [u8]>> {
        let Some((head, len)) = P::read(input)? else { return Ok(Decoded::More) };
        self.check(len)?;
        Ok(input[head..].get(..len).map(|item| (head + len, item)).into())
    }

    fn encode(&mut self, item: &[u8], out: &mut Outgoing) -> Result {
        self.check(item.len())?;
        P::write(item.len(), out);
        out.put(item);
        Ok(())
    }
}

impl<P: Prefix> Default for Delimited<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P> Clone for Delimited<P> {
    fn clone(&self) -> Self {
        Delimited { max: self.max, prefix: PhantomData }
    }
}

impl<P> fmt::Debug for Delimited<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delimited").field("max", &self.max).finish()
    }
}

impl Prefix for U16 {
    const LEN_MAX: usize = u16::MAX as usize;

    fn read(input: &[u8]) -> Result<Option<(usize, usize)>, CodecError> {
        Ok(input.first_chunk().map(|bytes| (2, u16::from_be_bytes(*bytes) as usize)))
    }

    fn write(len: usize, out: &mut Outgoing) {
        out.put(&(len as u16).to_be_bytes());
    }
}

impl Prefix for U32 {
    const LEN_MAX: usize = u32::MAX as usize;

    fn read(input: &[u8]) -> Result<Option<(usize, usize)>, CodecError> {
        Ok(input.first_chunk().map(|bytes| (4, u32::from_be_bytes(*bytes) as usize)))
    }

    fn write(len: usize, out: &mut Outgoing) {
        out.put(&(len as u32).to_be_bytes());
    }
}

impl Prefix for Varint {
    const LEN_MAX: usize = u32::MAX as usize;

    fn read(input: &[u8]) -> Result<Option<(usize, usize)>, CodecError> {
        let mut len = 0;
        for (at, byte) in input.iter().take(VARINT_BYTES).enumerate() {
            if at == VARINT_BYTES - 1 && *byte > VARINT_LAST {
                return Err(CodecError::Malformed("a varint of more than 32 bits"));
            }
            len |= ((byte & 0x7f) as usize) << (7 * at);
            if byte & 0x80 == 0 {
                if *byte == 0 && at > 0 {
                    return Err(CodecError::Malformed("a varint longer than it needs to be"));
                }
                return Ok(Some((at + 1, len)));
            }
        }
        Ok(None)
    }

    fn write(mut len: usize, out: &mut Outgoing) {
        let mut bytes = [0; VARINT_BYTES];
        let mut at = 0;
        while len >= 0x80 && at < VARINT_BYTES - 1 {
            bytes[at] = len as u8 | 0x80;
            len >>= 7;
            at += 1;
        }
        bytes[at] = len as u8;
        out.put(&bytes[..=at]);
    }
}

/// The default for the largest item, in bytes.
const ITEM_MAX: usize = 1 << 20;
/// The most bytes of a 32-bit varint.
const VARINT_BYTES: usize = 5;
/// The largest last byte of a varint: four bits, and no continuation bit.
const VARINT_LAST: u8 = 0x0f;
