//! Signals of the process as a resource: which signal arrived, and how often.
//!
//! [`Context::signals`](crate::Context::signals) waits for a set of signals; [`Signals::of_process`] does so
//! before there is a runtime. [`Graceful`] is the service that most programs need: the first SIGTERM or
//! SIGINT stops the runtime gracefully, the second one at once.
//!
//! # Guarantees
//!
//! - A signal of the set that the kernel delivers to the process, or to any of its threads, reaches every
//!   [`Signals`] that waits for it, in every runtime of the process.
//! - It arrives at least once. Several signals of one kind may arrive as one event ([`Arrived::times`]),
//!   because the kernel itself keeps at most one pending of each kind below `SIGRTMIN`. Signals of different
//!   kinds arrive in no particular order.
//! - When the last [`Signals`] for a kind is dropped, the previous disposition is restored (sigaction(2)). A
//!   handler from before is called as well, after ours. If other code installs a handler over ours, that
//!   handler stays and must call ours.
//! - The signal mask is never changed. A signal that every thread blocks stays pending until one thread
//!   unblocks it, and arrives then.
//! - System calls of other code are resumed after a signal (`SA_RESTART`), where signal(7) says that they can
//!   be.
//!
//! In a child, signals that were handled here have their default disposition, because execve(2) resets
//! handlers. Ignored and blocked signals stay so. After a fork(2) without exec, no runtime receives the
//! child's signals.
//!
//! SIGKILL and SIGSTOP cannot be handled. SIGSEGV and its kind are faults of the program's own instructions,
//! and returning from their handler repeats the fault. So none of these is a [`Signal`].

mod graceful;
mod resource;

pub use self::{
    graceful::Graceful,
    resource::{Arrived, Signals},
};
pub use crate::host::signal::{Signal, SignalSet};
use crate::{
    error::Error,
    host::{Host, StandIn},
};

/// Waits for signals of the process, or of the host's virtual world.
pub(crate) fn open(host: &mut dyn Host, signals: impl IntoIterator<Item = Signal>) -> Result<Signals, Error> {
    let set = resource::not_empty(signals)?;
    match host.stand_in(StandIn::Signals(set)) {
        None => Signals::of_process(set.iter()),
        Some(Ok(transport)) => Ok(Signals::stand_in(set, transport)),
        Some(Err(error)) => Err(Error::os("signals", format!("{set:?}"), error)),
    }
}
