//! Concurrent I/O in plain synchronous Rust.

pub mod address;
pub mod clock;
pub mod engine;
pub mod id;
pub mod options;
mod sys;
#[cfg(unix)]
mod waker;

pub use address::{Address, NotAnAddress, ToAddress};
pub use id::{Id, IdMap};
