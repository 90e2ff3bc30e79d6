//! Calls of services: an event to its handler, a message to its receiver, and a fault to its service.

use std::{any::Any, collections::VecDeque, mem};

use crate::{
    error::Fault,
    file::Answered,
    guard::{self, Kept},
    id::{Id, Key},
    message::{Finished, Offloaded},
    resource::Resource,
    runtime::{Context, Handle, LoopState, Receive, Service},
};

/// A call of a service, as an observer sees it. See [`Runtime::observe`](crate::Runtime::observe).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Call {
    /// The runtime calls a handler with an event.
    Handle {
        /// The service, counted from 0 in the order added.
        service: u16,
        /// The resource.
        resource: Key,
    },
    /// The runtime calls a receiver with a message of a service, a timer or a command.
    Receive {
        /// The service.
        service: u16,
    },
    /// A resource has ended.
    Closed {
        /// The service.
        service: u16,
        /// The resource.
        resource: Key,
    },
    /// The runtime calls a service at the end of a turn, because the service asked for that.
    EndOfTurn {
        /// The service.
        service: u16,
    },
}

/// The function that observes each call.
pub(crate) type Observer = Box<dyn FnMut(Call)>;

/// Takes the next message off a typed queue, and passes it to the service if that still exists.
pub(crate) type DeliverFn = fn(&mut dyn Any, Option<(&mut LoopState, &mut dyn Any)>, u16);

/// A service that handles an event. Only a panic of its handler drops it.
struct Called<'a>(&'a mut LoopState);

impl Drop for Called<'_> {
    #[cold]
    fn drop(&mut self) {
        self.0.has_handler_panicked = true;
    }
}

/// Hands an event to the service. Returns `false` if the handler refused, and the resource is closing.
#[inline(always)]
pub(crate) fn emit<S: Handle<R>, R: Resource>(
    core: &mut LoopState,
    service: &mut S,
    key: Key,
    index: u16,
    event: R::Event<'_>,
) -> bool {
    core.spend();
    core.observe(Call::Handle { service: index, resource: key });
    let called = Called(&mut *core);
    let result = service.handle(&mut Context::new(called.0, index), Id::new(key), event);
    mem::forget(called);
    match result {
        Ok(()) => true,
        Err(failure) => {
            core.refuse(key, failure);
            false
        }
    }
}

/// Returns the service behind the erased type.
#[inline]
pub(crate) fn service<S: 'static>(service: &mut dyn Any) -> &mut S {
    service.downcast_mut().expect("a table is only used with the service it was made for")
}

/// Passes a message to its service. An error becomes a fault.
pub(crate) fn receive<S: Receive<M>, M>(core: &mut LoopState, erased: &mut dyn Any, index: u16, message: M) {
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
pub(crate) fn fault<S: Service>(core: &mut LoopState, to: &mut S, index: u16, fault: Fault) {
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
    to: Option<(&mut LoopState, &mut dyn Any)>,
    index: u16,
) {
    let queue: &mut VecDeque<Kept<M>> =
        queue.downcast_mut().expect("a typed queue keeps the type it was made for");
    let Some(message) = queue.pop_front() else { return };
    if let Some((core, erased)) = to {
        core.counters.commands += 1;
        receive::<S, M>(core, erased, index, message.into_inner());
    }
}

/// Delivers the result of a job.
pub(crate) fn deliver_job<S: Receive<M>, M: Send + 'static>(
    queue: &mut dyn Any,
    to: Option<(&mut LoopState, &mut dyn Any)>,
    index: u16,
) {
    let queue: &mut VecDeque<Finished<M>> =
        queue.downcast_mut().expect("a typed queue keeps the type it was made for");
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
fn is_of_this_life(core: &mut LoopState, index: u16, life: u32) -> bool {
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
    to: Option<(&mut LoopState, &mut dyn Any)>,
    index: u16,
) {
    let queue: &mut VecDeque<Answered<M>> =
        queue.downcast_mut().expect("a typed queue keeps the type it was made for");
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

impl LoopState {
    /// Counts a call of a handler. After many calls, or long ones, the turn writes the queued output.
    #[inline]
    pub(crate) fn spend(&mut self) {
        self.counters.handled += 1;
        if self.handlers.spend() {
            self.look_at_clock();
        }
    }

    #[cold]
    fn look_at_clock(&mut self) {
        self.handlers.look(self.engine.host().now());
    }

    /// Reports a call to the observer, right before it happens.
    #[inline]
    pub(crate) fn observe(&mut self, call: Call) {
        if self.observer.is_some() {
            self.call_observer(call);
        }
    }

    /// Calls the observer. After a panic it gets no more calls, because the observed services must not suffer
    /// from it.
    #[cold]
    fn call_observer(&mut self, call: Call) {
        let Some(observer) = &mut self.observer else { return };
        if let Err(text) = guard::call(|| observer(call)) {
            crate::log::observer_panicked(&text);
            guard::discard(self.observer.take(), "the observer");
        }
    }
}
