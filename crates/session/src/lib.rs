//! Sans-IO codecs and protocol layers: bytes in, bytes out, no socket, no clock, no thread.
//!
//! The modules stand in the order of the data. A [`layer::Layer`] turns what the wire carries into clear bytes and
//! back; a [`session::Session`] drives one stack of layers on one connection; a [`codec::Codec`] cuts the clear bytes
//! into items; [`outgoing::Outgoing`] holds what is to be written. [`kit`] runs any layer in memory through every
//! cut, flip and truncation.
#![forbid(unsafe_code)]

pub mod layer;
pub mod session;

pub mod codec;

pub mod outgoing;
pub mod pool;
pub mod shared;

pub mod failure;
pub mod kit;

pub use codec::{Bytes, Codec, CodecError, Delimited, Lines, Prefix, U16, U32, Varint};
pub use failure::{Failure, Result, Truncated};
pub use layer::{Io, Layer, LayerError, Next, Stack, Step};
pub use outgoing::{Mark, Outgoing};
pub use pool::Pool;
pub use session::{Phase, Session};
pub use shared::Shared;
