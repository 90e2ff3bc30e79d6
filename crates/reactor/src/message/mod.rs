//! Messages: timers, messages between services, commands of other threads, and results of jobs.
//!
//! A service gets them all through [`Receive`]. They travel in typed lanes, one for each pair of service and
//! message type, so that no message is boxed. A list beside the lanes keeps the order over all types.

mod jobs;
mod lanes;
mod mailbox;
#[cfg(all(test, not(loom)))]
mod mailbox_tests;
#[cfg(all(test, loom))]
mod models;
mod pending;

use std::{any::Any, collections::VecDeque};

pub(crate) use self::{
    jobs::{Job, Jobs, Left},
    lanes::{Hand, Lanes, hand},
    mailbox::{Held, Inbox, Mailbox, Outside},
};
pub use self::{
    lanes::TimerId,
    mailbox::Refused,
    pending::{Pending, Reply, Unanswered},
};
use crate::{
    context::Context,
    core::{Call, Core},
    error::Fault,
    file::Answered,
    guard::{self, Kept},
    resource::service,
    service::{Receive, Service},
};

/// Takes the next message off a lane's queue, and passes it to the service if that still exists.
pub(crate) type Deliver = fn(&mut dyn Any, Option<(&mut Core, &mut dyn Any)>, u16);

/// Passes a message to its service. An error becomes a fault.
pub(crate) fn receive<S: Receive<M>, M>(core: &mut Core, erased: &mut dyn Any, index: u16, message: M) {
    let to = service::<S>(erased);
    core.spend();
    core.observe(Call::Receive { service: index });
    if let Err(failure) = to.receive(&mut Context::new(core, index), message) {
        fault(core, to, index, Fault::Receive(failure));
    }
}

/// The most faults of a service whose texts the receipt keeps.
const FAULTS_KEPT: usize = 8;

/// Counts a fault, records it for the receipt, and reports it to the service.
pub(crate) fn fault<S: Service>(core: &mut Core, to: &mut S, index: u16, fault: Fault) {
    let count = if let Fault::More(count) = fault { count } else { 1 };
    core.counters.faults += count;
    if let Some(record) = core.records.get_mut(index as usize) {
        record.faults += count;
        if record.first_faults.len() < FAULTS_KEPT {
            record.first_faults.push(guard::text(&fault));
        }
    }
    to.fault(&mut Context::new(core, index), fault);
}

/// Delivers a command from another thread.
pub(crate) fn deliver_command<S: Receive<M>, M: Send + 'static>(
    queue: &mut dyn Any,
    to: Option<(&mut Core, &mut dyn Any)>,
    index: u16,
) {
    let queue: &mut VecDeque<Kept<M>> = queue.downcast_mut().expect("a lane keeps the type it was made for");
    let Some(message) = queue.pop_front() else { return };
    if let Some((core, erased)) = to {
        core.counters.commands += 1;
        receive::<S, M>(core, erased, index, message.into_inner());
    }
}

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

/// Delivers the result of a job.
pub(crate) fn deliver_job<S: Receive<M>, M: Send + 'static>(
    queue: &mut dyn Any,
    to: Option<(&mut Core, &mut dyn Any)>,
    index: u16,
) {
    let queue: &mut VecDeque<Finished<M>> =
        queue.downcast_mut().expect("a lane keeps the type it was made for");
    let Some(result) = queue.pop_front() else { return };
    let Some((core, erased)) = to else { return };
    if !is_of_this_life(core, index, result.life) {
        return;
    }
    if let Some(record) = core.records.get_mut(index as usize) {
        record.jobs = record.jobs.saturating_sub(1);
    }
    match result.what {
        Offloaded::Done(message) => receive::<S, M>(core, erased, index, message.into_inner()),
        Offloaded::Panicked(text) => fault(core, service::<S>(erased), index, Fault::Job(text)),
    }
}

/// Whether an answer is for the life of the service that lives now. One for an earlier life is counted.
fn is_of_this_life(core: &mut Core, index: u16, life: u32) -> bool {
    let is_it = core.records.get(index as usize).is_some_and(|record| record.life == life);
    if !is_it {
        core.counters.stale += 1;
        core.steps += 1;
    }
    is_it
}

/// Delivers the answer to an operation on files.
pub(crate) fn deliver_file<S: Receive<M>, M: Send + 'static>(
    queue: &mut dyn Any,
    to: Option<(&mut Core, &mut dyn Any)>,
    index: u16,
) {
    let queue: &mut VecDeque<Answered<M>> =
        queue.downcast_mut().expect("a lane keeps the type it was made for");
    let Some(answered) = queue.pop_front() else { return };
    let Some((core, erased)) = to else { return };
    if !is_of_this_life(core, index, answered.life) {
        return;
    }
    match answered.what {
        Offloaded::Done(message) => receive::<S, M>(core, erased, index, message.into_inner()),
        Offloaded::Panicked(text) => fault(core, service::<S>(erased), index, Fault::Job(text)),
    }
}
