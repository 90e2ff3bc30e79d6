//! Sans-IO codecs and protocol layers: bytes in, bytes out, no socket, no clock, no thread.
//!
//! The modules are in the order of the data. A [`Layer`] turns bytes of the wire into clear bytes and back. A
//! [`Session`] drives one stack of layers on one connection. A [`Codec`] cuts the clear bytes into items.
//! [`Outgoing`] queues the bytes to write. [`kit`] runs any layer in memory through every cut, flip and
//! truncation.
#![forbid(unsafe_code)]

pub mod layer;
mod session;

pub mod codec;

mod outgoing;
mod pool;
mod shared;

mod failure;
pub mod kit;
pub mod proxy;

pub use codec::{Bytes, Codec, CodecError, Decoded, Delimited, Lines, Prefix, U16, U32, Varint};
pub use failure::{Failure, Result, Truncated};
pub use layer::{Boxed, Either, Io, Layer, LayerError, Next, Stack, Step};
pub use outgoing::{Mark, Outgoing};
pub use pool::Pool;
pub use session::{Phase, Session};
pub use shared::Shared;
