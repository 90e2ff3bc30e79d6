//! The runtime: one engine, several services, one thread.

pub(crate) mod budget;
mod check;
pub(crate) mod context;
mod controller;
mod deadlines;
pub(crate) mod dispatch;
mod empty;
mod ends;
pub(crate) mod faults;
mod flush;
mod hold;
pub(crate) mod limits;
mod number;
mod panics;
pub(crate) mod ports;
pub(crate) mod pressure;
mod reactor;
mod records;
pub(crate) mod registry;
mod restart;
mod service;
mod shutdown;
mod state;
pub(crate) mod timers;
mod turn;
pub(crate) mod turn_ends;
pub(crate) mod typed_queues;

use crate::options::with_changes;
use std::{
    any::{Any, type_name},
    fmt, io,
    marker::PhantomData,
    mem,
    sync::Arc,
    time::Duration,
};

pub use self::{
    context::{Context, Rejected},
    controller::{Controller, Sender},
    dispatch::Call,
    hold::Hold,
    limits::Limits,
    reactor::Reactor,
    restart::Restart,
    service::{Handle, Handled, Receive, Received, Service, ServiceId},
    shutdown::{Receipt, ServiceReceipt},
    typed_queues::TimerId,
};
use self::{
    dispatch::{DeliverFn, fault},
    registry::Registry,
    restart::RestartPlan,
    typed_queues::TypedQueues,
};
pub(crate) use self::{
    records::ServiceRecord,
    state::{Due, Fresh, LoopState},
};
use crate::{
    clock::Time,
    engine::{Candidates, Ending, Engine, Event},
    error::{Closed, Error, Fault},
    guard,
    id::Key,
    message::Inbox,
    metrics::Metrics,
    panics::{AfterPanic, Blame, During, Panic},
    sys::Birthplace,
};

/// The event loop over one engine. It lives in one thread: it is not `Send`.
///
/// It also belongs to one process. In a child of fork(2), and so after daemon(3), each call returns an error
/// or finds nothing. The drop closes the child's copies of descriptors and runs no user code, so the parent
/// continues unharmed. The child can make a runtime of its own. On io_uring, if a handler forks, the child
/// does not have the bytes of its event.
///
/// Most programs use [`run`] or [`Reactor::spawn`]. Programs that own the
/// thread call [`turn`](Runtime::turn). A foreign loop waits until [`fd`](Runtime::fd) is readable or
/// [`next_deadline`](Runtime::next_deadline) has passed, and then calls `turn(Some(Duration::ZERO))`.
///
/// ```
/// use reactor::{Runtime, Service};
/// use std::time::Duration;
///
/// struct Idle;
/// impl Service for Idle {}
///
/// let mut runtime = Runtime::new()?;
/// let idle = runtime.add(Idle)?;
/// // One turn that does not wait; nothing was there to be handled.
/// assert!(!runtime.turn(Some(Duration::ZERO))?);
/// runtime.controller(idle).stop(Duration::from_secs(1));
/// let receipt = runtime.run()?.check()?;
/// assert_eq!(receipt.services.len(), 1);
/// # Ok::<(), reactor::Error>(())
/// ```
pub struct Runtime {
    birthplace: Birthplace,
    core: LoopState,
    inbox: Inbox<DeliverFn>,
    services: Vec<ServiceEntry>,
    metrics: Arc<Metrics>,
    /// An event taken while spinning.
    first: Option<(Key, Event)>,
    /// An emptied list, kept for its memory.
    driving: Vec<Key>,
    pace: check::Pace,
    /// The end of the last turn. The next wait counts from here.
    turned: Time,
    /// The number of failed waits in a row.
    wait_errors: u32,
    empty: empty::Empty,
    spin: turn::Spin,
    stop_by: Option<Time>,
    /// The number of turns in a row of a stop in which only messages between services were left.
    talk_turns: u32,
    drain: Option<shutdown::Drain>,
    bytes_out_at_stop: u64,
    not_send: PhantomData<*const ()>,
}

struct ServiceEntry {
    name: &'static str,
    service: Option<Box<dyn Any>>,
    stop: fn(&mut LoopState, &mut dyn Any, u16),
    fault: fn(&mut LoopState, &mut dyn Any, u16, Fault),
    end_of_turn: fn(&mut LoopState, &mut dyn Any, u16),
    panicked: fn(&mut LoopState, &mut dyn Any, u16, &Panic) -> AfterPanic,
    /// The message of the panic that ended the service.
    panic: Option<String>,
    /// How to restart it after a panic, if it is supervised.
    supervised: Option<RestartPlan>,
}

/// The options of a runtime. Begin with the default, and set the fields that you want to change.
///
/// ```
/// use reactor::{Runtime, RuntimeOptions};
///
/// let mut options = RuntimeOptions::default();
/// options.engine = Some("poll".to_owned());
/// options.limits.resources = 20_000;
/// assert_eq!(Runtime::with_options(options)?.engine_name(), "poll");
/// # Ok::<(), reactor::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RuntimeOptions {
    /// The engine's name. By default the environment variable `REACTOR_ENGINE` names it. Without the
    /// variable, the runtime takes the first candidate that opens.
    pub engine: Option<String>,
    /// The available engines, in order of preference.
    pub candidates: Candidates,
    /// The limits of the runtime.
    pub limits: Limits,
}

with_changes!(RuntimeOptions);

impl Runtime {
    /// Creates a runtime with the engine that `REACTOR_ENGINE` names, or else the best one that opens.
    ///
    /// # Errors
    /// [`Error::Engine`] if the requested engine is unknown or cannot be opened, or if no engine can. The
    /// runtime never replaces a requested engine silently. An engine whose own memory would leave nothing of
    /// [`Limits::bytes`] does not open.
    pub fn new() -> Result<Runtime, Error> {
        Runtime::with_options(RuntimeOptions::default())
    }

    /// Creates a runtime with these options.
    ///
    /// # Errors
    /// As [`Runtime::new`].
    pub fn with_options(options: RuntimeOptions) -> Result<Runtime, Error> {
        let engine = match &options.engine {
            Some(name) => options.candidates.open_within(Some(name), options.limits.bytes)?,
            None => options.candidates.open_from_environment(options.limits.bytes)?,
        };
        Ok(Runtime::assemble(engine, options.limits))
    }

    /// Creates a runtime over this engine and ignores the environment.
    pub fn with_engine(engine: impl Engine + 'static) -> Runtime {
        Runtime::assemble(Box::new(engine), Limits::default())
    }

    /// Creates a runtime over this engine with these limits.
    ///
    /// If the engine's own [memory](Engine::memory) leaves nothing of [`Limits::bytes`], each stream that
    /// queues a byte ends as [`OverBudget`](crate::Closed::OverBudget).
    pub fn assemble(engine: Box<dyn Engine>, mut limits: Limits) -> Runtime {
        crate::log::engine(engine.name());
        let number = number::take();
        limits.per_turn = limits.per_turn.max(1);
        let spin = turn::Spin::new(limits.busy_poll);
        let (core, inbox) = LoopState::new(engine, number, limits);
        Runtime {
            turned: core.now,
            birthplace: Birthplace::here(),
            core,
            inbox,
            services: Vec::new(),
            metrics: Arc::default(),
            first: None,
            driving: Vec::new(),
            pace: check::Pace::default(),
            wait_errors: 0,
            empty: empty::Empty::default(),
            spin,
            stop_by: None,
            talk_turns: 0,
            drain: None,
            bytes_out_at_stop: 0,
            not_send: PhantomData,
        }
    }

    /// Adds a service, and starts it.
    ///
    /// # Errors
    /// [`Error::Start`] with the service's own error, or [`Error::Panicked`]. The runtime then closes the
    /// resources that the service had registered.
    pub fn add<S: Service>(&mut self, service: S) -> Result<ServiceId<S>, Error> {
        self.enter(service)
    }

    /// Adds a service that `make` makes, and starts it. When a panic ends the service, `make` makes another
    /// one, which the runtime starts in its place. `restart` sets the number of restarts and the waits before
    /// them.
    ///
    /// The new life keeps from the old one:
    ///
    /// * The name. [`ServiceId`]s and [`Controller`]s stay valid.
    /// * Listeners. They stay open meanwhile, and clients that connect wait in the backlog. In
    ///   [`Service::start`] the service gets an old listener back when it listens again by
    ///   [`listen`](Context::listen), `listen_with` or `listen_asking`, with the address that was requested
    ///   for that listener (even with port 0) or that it has. It is the same socket with its original
    ///   options, port and id. When `start` returns, the runtime closes the listeners that the service did
    ///   not request again, and those of [`listen_on`](Context::listen_on).
    /// * Messages that it has not received: commands from other threads, and messages from other services.
    ///   They wait, and count against the queues' limits. The message whose receiver panicked is lost.
    ///
    /// All else ends with the old life. Its connections are reset. Other resources end without
    /// [`closed`](crate::Handle::closed). The runtime drops its timers and its messages to itself. It drops
    /// answers to its jobs and operations on files when they arrive, and counts them in
    /// [`Counters::stale`](crate::Counters::stale).
    ///
    /// A life that cannot start counts as one that panicked. When the restarts are used up, the service ends
    /// like any other that panicked, and a line on standard error and the receipt report it. A stop does not
    /// wait for a restart. [`ServiceReceipt::restarts`] counts the restarts.
    ///
    /// ```
    /// use reactor::{Context, Receive, Restart, Result, Runtime, Service};
    /// use std::time::Duration;
    ///
    /// #[derive(Default)]
    /// struct Fragile;
    /// impl Service for Fragile {}
    /// impl Receive<u32> for Fragile {
    ///     fn receive(&mut self, cx: &mut Context<Self>, number: u32) -> Result {
    ///         assert!(number != 1, "a bug");
    ///         cx.stop(Duration::ZERO);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut runtime = Runtime::new()?;
    /// let fragile = runtime.add_supervised(Fragile::default, Restart::default())?;
    /// let controller = runtime.controller(fragile);
    /// // The first one costs a life, and the next life receives the second.
    /// controller.send(1)?;
    /// controller.send(2)?;
    /// let receipt = runtime.run()?.check()?;
    /// assert_eq!((receipt.services[0].restarts, receipt.services[0].panics), (1, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`add`](Runtime::add), for the first life, which is not restarted. Also [`Error::Panicked`] if
    /// `make` panics.
    pub fn add_supervised<S: Service>(
        &mut self,
        mut make: impl FnMut() -> S + 'static,
        restart: Restart,
    ) -> Result<ServiceId<S>, Error> {
        let service = guard::call(&mut make);
        let service = service.map_err(|message| Error::Panicked { service: type_name::<S>(), message })?;
        let id = self.enter(service)?;
        self.services[id.index as usize].supervised = Some(RestartPlan::new(make, restart));
        Ok(id)
    }

    fn enter<S: Service>(&mut self, service: S) -> Result<ServiceId<S>, Error> {
        self.check_process("add a service to")?;
        let Ok(index) = u16::try_from(self.services.len()) else {
            return Err(Error::Full { what: "services", limit: u16::MAX as usize });
        };
        self.services.push(ServiceEntry {
            name: type_name::<S>(),
            service: Some(Box::new(service)),
            stop: |core, erased, index| {
                dispatch::service::<S>(erased).stop(&mut Context::new(core, index));
            },
            fault: |core, erased, index, what| fault(core, dispatch::service::<S>(erased), index, what),
            panicked: |core, erased, index, panic| {
                dispatch::service::<S>(erased).panicked(&mut Context::new(core, index), panic)
            },
            end_of_turn: end_of_turn::<S>,
            panic: None,
            supervised: None,
        });
        self.core.records.push(ServiceRecord { name: type_name::<S>(), ..ServiceRecord::default() });
        self.core.alive.push(true);
        let mut failure = None;
        self.core.now = self.core.engine.host().now();
        self.call(index, Blame::none(During::Start), |core, erased| {
            failure = start::<S>(core, erased, index).err();
        });
        self.core.give_files();
        if let Some(failure) = failure {
            // The caller gets the error, so write nothing to standard error.
            self.core.record_error(index, format!("could not start: {}", guard::text(&failure)));
            self.end_service(index);
            return Err(Error::Start { service: type_name::<S>(), failure });
        }
        if let Some(message) = self.services[index as usize].panic.clone() {
            return Err(Error::Panicked { service: type_name::<S>(), message });
        }
        self.flush();
        self.start_fresh();
        Ok(ServiceId::new(self.core.registry.runtime(), index))
    }

    /// Returns a service, to look at it between turns. `None` if it has ended.
    pub fn service<S: Service>(&self, id: ServiceId<S>) -> Option<&S> {
        self.entry(id)?.service.as_ref()?.downcast_ref()
    }

    /// Returns a service, to change it between turns.
    pub fn service_mut<S: Service>(&mut self, id: ServiceId<S>) -> Option<&mut S> {
        self.entry(id)?;
        self.services[id.index as usize].service.as_mut()?.downcast_mut()
    }

    /// Calls a service with its context between turns, to start an action from outside. `None` if it has
    /// ended.
    pub fn with<S: Service, T>(
        &mut self,
        id: ServiceId<S>,
        f: impl FnOnce(&mut S, &mut Context<S>) -> T,
    ) -> Option<T> {
        self.entry(id).filter(|_| self.birthplace.is_here())?;
        let index = id.index;
        let mut result = None;
        self.core.now = self.core.engine.host().now();
        self.was_not_empty();
        self.call(index, Blame::none(During::With), |core, erased| {
            result = Some(f(dispatch::service::<S>(erased), &mut Context::new(core, index)));
        });
        self.end_panicked();
        self.core.give_files();
        self.start_fresh();
        result
    }

    /// Starts the deadlines and timers that were set outside of a turn.
    fn start_fresh(&mut self) {
        self.turned = self.core.engine.host().now();
        self.core.start_fresh(self.turned);
    }

    fn entry<S>(&self, id: ServiceId<S>) -> Option<&ServiceEntry> {
        (id.runtime == self.core.registry.runtime()).then(|| self.services.get(id.index as usize))?
    }

    /// Returns a handle by which other threads reach a service.
    pub fn controller<S: Service>(&self, id: ServiceId<S>) -> Controller<S> {
        Controller::new(id.index, &self.core.mailbox)
    }

    /// Returns the counters, for any thread.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// Calls `observer` just before each call of a service, for example to trace or to compare runs. A later
    /// observer replaces an earlier one. Without an observer it costs nothing.
    ///
    /// ```
    /// use reactor::{Call, Context, Receive, Result, Runtime, Service};
    /// use std::{cell::Cell, rc::Rc, time::Duration};
    ///
    /// struct Once;
    /// impl Service for Once {
    ///     fn start(&mut self, cx: &mut Context<Self>) -> Result {
    ///         cx.after(Duration::ZERO, ());
    ///         Ok(())
    ///     }
    /// }
    /// impl Receive<()> for Once {
    ///     fn receive(&mut self, _: &mut Context<Self>, (): ()) -> Result {
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut runtime = Runtime::new()?;
    /// let seen = Rc::new(Cell::new(0));
    /// let count = seen.clone();
    /// runtime.observe(move |call| count.set(count.get() + u32::from(call == Call::Receive { service: 0 })));
    /// runtime.add(Once)?;
    /// runtime.run()?;
    /// assert_eq!(seen.get(), 1);
    /// # Ok::<(), reactor::Error>(())
    /// ```
    pub fn observe(&mut self, observer: impl FnMut(Call) + 'static) {
        self.core.observer = Some(Box::new(observer));
    }

    /// Returns the engine's name.
    pub fn engine_name(&self) -> &'static str {
        self.core.engine.name()
    }

    /// Returns a descriptor that is readable when a turn has work. Use it to drive the runtime from another
    /// loop, together with [`next_deadline`](Runtime::next_deadline). `None` if the engine has none.
    #[cfg(unix)]
    pub fn fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.core.engine.fd()
    }

    /// Returns how long a foreign loop may wait from now before it must call [`turn`](Runtime::turn). `None`
    /// if only events count. Call it before each wait, because after this call a command from another thread
    /// makes [`fd`](Runtime::fd) readable.
    pub fn next_deadline(&self) -> Option<Duration> {
        match self.patience(self.core.engine.host().now()) {
            Some(Duration::ZERO) => Some(Duration::ZERO),
            _ if !self.inbox.sleep() => Some(Duration::ZERO),
            patience => patience,
        }
    }

    /// Runs until the stop is complete, or until no service has a resource, timer, message, job, operation on
    /// files or [hold](crate::Hold) left and no controller lives outside.
    ///
    /// A runtime may run again, with its earlier services and with those added meanwhile. The end of a run
    /// has lasting effects:
    ///
    /// * It closes each resource, also listeners and resources in the [background](Context::background). So
    ///   [`Graceful`](crate::signals::Graceful) gets no more signals until you add it again.
    /// * The runtime refuses commands from other threads. An [offloaded](Context::offload) job fails as
    ///   [`Fault::Job`], and operations on files, readers, writers and transfers are
    ///   refused.
    /// * A stop stays in force: a stopped runtime opens no listener, and the next run ends as soon as it may.
    ///
    /// Timers, messages between services, connections and new listeners work as before. For all else make a
    /// new runtime.
    ///
    /// The receipt reports failed services, and [`Receipt::check`] makes an error of them.
    ///
    /// # Errors
    /// The engine's error, if it is broken. The services are stopped then, too.
    pub fn run(&mut self) -> Result<Receipt, Error> {
        self.check_process("run")?;
        while !self.is_over() {
            if let Err(error) = self.next_turn(None) {
                self.check_process("run")?;
                self.finish();
                return Err(error);
            }
        }
        Ok(self.finish())
    }

    /// Returns an error in a child of the process that made this runtime.
    pub(super) fn check_process(&self, operation: &'static str) -> Result<(), Error> {
        self.birthplace.check().map_err(|error| Error::os(operation, "runtime", error))
    }

    /// Leaks everything that belongs to users, and everything whose drop would act on state that this child
    /// of a fork shares with its parent.
    fn leave_to_parent(&mut self) {
        mem::forget(mem::take(&mut self.services));
        mem::forget(mem::replace(&mut self.core.registry, Registry::new(0, 0)));
        mem::forget(mem::replace(&mut self.core.typed_queues, TypedQueues::new(0, 0)));
        mem::forget(mem::take(&mut self.core.ended));
        mem::forget(self.core.observer.take());
        mem::forget(self.first.take());
    }

    /// Calls a service. A panic ends the service or the resource to blame. The others continue.
    #[inline(always)]
    fn call(&mut self, index: u16, blame: Blame, f: impl FnOnce(&mut LoopState, &mut dyn Any)) {
        let Runtime { core, services, .. } = self;
        let Some(service) = services.get_mut(index as usize).and_then(|entry| entry.service.as_mut()) else {
            return;
        };
        core.calling = index;
        if let Err(text) = guard::call(|| f(core, &mut **service)) {
            self.panicked(index, text, blame);
        }
    }
}

/// Starts a service.
fn start<S: Service>(core: &mut LoopState, erased: &mut dyn Any, index: u16) -> session::Result {
    dispatch::service::<S>(erased).start(&mut Context::new(core, index))
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if !self.birthplace.is_here() {
            return self.leave_to_parent();
        }
        number::give_back(self.core.registry.runtime());
        for key in self.core.registry.keys(None) {
            self.core.end(key, Closed::Stopped, Ending::Orderly);
        }
        for (key, why) in mem::take(&mut self.core.ended) {
            guard::discard(why, "an end");
            if let Some((service, _, resource)) = self.core.registry.take_ended(key) {
                guard::discard(resource, self.services[service as usize].name);
            }
        }
        for entry in &mut self.services {
            guard::discard(entry.service.take(), entry.name);
        }
        guard::discard(self.core.observer.take(), "the observer");
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services: Vec<&str> = self.services.iter().map(|entry| entry.name).collect();
        f.debug_struct("Runtime").field("engine", &self.engine_name()).field("services", &services).finish()
    }
}

/// Runs one service in this thread until it stops.
///
/// # Errors
/// No engine opens, the start fails or the engine is broken. Also [`Error::Failed`] if the service panicked,
/// or had an error that no code took ([`Receipt::check`]).
pub fn run<S: Service>(service: S) -> Result<Receipt, Error> {
    let mut runtime = Runtime::new()?;
    runtime.add(service)?;
    runtime.run()?.check()
}

/// Calls a service at the end of a turn, at its own request.
fn end_of_turn<S: Service>(core: &mut LoopState, erased: &mut dyn Any, index: u16) {
    core.spend();
    core.observe(Call::EndOfTurn { service: index });
    dispatch::service::<S>(erased).end_of_turn(&mut Context::new(core, index));
}

/// How many waits in a row may fail before the loop gives up.
const WAIT_ERRORS_MAX: u32 = 3;

fn broken(engine: &str, error: io::Error) -> Error {
    Error::os("wait", format!("engine {engine}"), error)
}
