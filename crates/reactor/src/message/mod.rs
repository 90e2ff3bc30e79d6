//! Messages from other threads: commands and results of jobs, and the answers to commands.
//!
//! A service gets them through [`Receive`](crate::Receive). They travel in typed queues, one for each pair of
//! service and message type, so that no message is boxed. A list beside the queues keeps the order over all
//! types.

mod mailbox;
#[cfg(all(test, not(loom)))]
mod mailbox_tests;
#[cfg(all(test, loom))]
mod models;
mod pending;

pub(crate) use self::mailbox::{Inbox, Mailbox, RemoteSender, WorkGuard};
pub use self::{
    mailbox::Refused,
    pending::{Pending, Reply, Unanswered},
};
use crate::guard::{self, Kept};

/// The result of a job on its way to a service, and to which of its lives.
pub(crate) struct Finished<M> {
    pub(crate) life: u32,
    pub(crate) what: Offloaded<M>,
}

/// The outcome of an offloaded job.
pub(crate) enum Offloaded<M> {
    Done(Kept<M>),
    Panicked(String),
}

impl<M> Offloaded<M> {
    /// Runs users' code that makes a message, in whichever thread calls this.
    pub(crate) fn of(users: impl FnOnce() -> M) -> Offloaded<M> {
        match guard::call(users) {
            Ok(message) => Offloaded::Done(Kept::new(message)),
            Err(text) => Offloaded::Panicked(text),
        }
    }
}
