//! The loop.
mod message;
mod sync;

pub use message::mailbox::Refused;
pub use message::pending::{Pending, Reply, Unanswered};
