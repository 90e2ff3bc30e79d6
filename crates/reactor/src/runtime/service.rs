//! Services, which the user writes: they handle resources and receive messages.

use crate::{
    address::Address,
    error::{Closed, Error, Fault, Result},
    guard,
    id::Id,
    panics::{AfterPanic, Panic},
    resource::{Accept, Connection, Driver, Listener, Resource, Vtable, listener},
    runtime::{
        Context,
        dispatch::{self, DeliverFn},
        typed_queues::{self, DeliverLocalFn},
    },
};

/// Business logic: plain state behind `&mut self`, called by one runtime, never re-entered.
///
/// A service owns resources of different kinds. It implements [`Handle`] once for each kind, and [`Receive`]
/// once for each type of message. It need not be `Send`. The runtime makes all its calls from one thread, one
/// after the other, and carries out the requests that a call makes of the [`Context`] after the call has
/// returned.
///
/// A panic in any of its calls ends this service and its resources (without `closed`), unless
/// [`panicked`](Service::panicked) decides otherwise. The other services continue, and the receipt names this
/// one.
///
/// ```
/// use reactor::{Context, Receive, Result, Service};
/// use std::time::Duration;
///
/// struct Once;
/// struct Tick(&'static str);
///
/// impl Service for Once {
///     fn start(&mut self, cx: &mut Context<Self>) -> Result {
///         cx.after(Duration::from_millis(1), Tick("now"));
///         Ok(())
///     }
/// }
///
/// impl Receive<Tick> for Once {
///     fn receive(&mut self, _: &mut Context<Self>, Tick(text): Tick) -> Result {
///         assert_eq!(text, "now");
///         Ok(())
///     }
/// }
///
/// // Nothing is left to do when the timer has fired, so it returns.
/// reactor::run(Once)?;
/// # Ok::<(), reactor::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a service",
    label = "`{Self}` does not implement `Service`",
    note = "add `impl Service for {Self} {{}}`: each of its methods has a default"
)]
pub trait Service: Sized + 'static {
    /// Starts the service: the place to listen and connect. Called once, before any other call.
    ///
    /// # Errors
    /// An error ends the service and its resources. `add`, `run` and `spawn` return the error.
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let _ = cx;
        Ok(())
    }

    /// Ends the service's work when a graceful stop begins. Called once. The listeners are closed by then,
    /// and the runtime has accepted the connections in their backlogs.
    ///
    /// The runtime ends when no resource is left and nothing is [outstanding](Context::stop), or at the end
    /// of the grace. The default closes all resources.
    fn stop(&mut self, cx: &mut Context<Self>) {
        cx.close_all();
    }

    /// Finishes a turn: called after all its handlers and before its writes, if the service requested it with
    /// [`Context::at_end_of_turn`].
    ///
    /// A service gets one call however often it makes the request. This is the place to write in one batch
    /// what the handlers collected. Everything sent here leaves with the rest of the turn. Messages to
    /// services and file operations go their usual way. When a stop executes the last commands, one last call
    /// follows them. No resource is left then.
    ///
    /// ```
    /// use reactor::{Context, IdMap, Receive, Result, Service, Shared, Stream};
    ///
    /// /// Sends all updates of a turn to each subscriber as one piece.
    /// #[derive(Default)]
    /// struct Ticker {
    ///     updates: Vec<u8>,
    ///     subscribers: IdMap<Stream, ()>,
    /// }
    ///
    /// struct Update(Vec<u8>);
    ///
    /// impl Receive<Update> for Ticker {
    ///     fn receive(&mut self, cx: &mut Context<Self>, Update(bytes): Update) -> Result {
    ///         self.updates.extend(bytes);
    ///         cx.at_end_of_turn();
    ///         Ok(())
    ///     }
    /// }
    ///
    /// impl Service for Ticker {
    ///     fn end_of_turn(&mut self, cx: &mut Context<Self>) {
    ///         let updates = Shared::from(std::mem::take(&mut self.updates));
    ///         for id in self.subscribers.ids() {
    ///             cx.send_shared(id, &updates);
    ///         }
    ///     }
    /// }
    /// # impl reactor::Handle<Stream> for Ticker {
    /// #     fn handle(&mut self, _: &mut Context<Self>, _: reactor::Id<Stream>, _: reactor::Event<reactor::Bytes>) -> Result {
    /// #         Ok(())
    /// #     }
    /// # }
    /// ```
    fn end_of_turn(&mut self, cx: &mut Context<Self>) {
        let _ = cx;
    }

    /// Handles an error that passes, or that has no live resource. The runtime has counted it already, and
    /// put it into the receipt.
    ///
    /// A service that overrides this handles its own faults. By default, each is an error of the service:
    /// [`Receipt::check`](crate::Receipt::check) and [`run`](crate::run) report it, and the runtime writes
    /// one line about it to standard error. With the feature `tracing` and a subscriber that receives
    /// warnings, it is a warning instead. The lines are bounded: 16 at once, then one a second, each of at
    /// most 500 bytes. If standard error has no room, the runtime leaves a line out rather than wait. The
    /// next line reports how many were left out.
    fn fault(&mut self, cx: &mut Context<Self>, fault: Fault) {
        cx.note_error(guard::text(&fault));
    }

    /// Decides, after a panic in a call of this service or in a codec, a layer or a resource of it, whether
    /// the service lives on. The runtime does not ask after a panic in `start`.
    ///
    /// By default the service ends, because `self` may be half changed: the work of the call is not finished,
    /// and a later call would build on that. A service may answer [`AfterPanic::EndResource`] if it keeps its
    /// state whole between any two statements that may panic, or mends it here. A bug that one peer provokes
    /// then costs only that peer's connection:
    ///
    /// * The [resource](Panic::resource) whose event was handled is reset: its input and output are dropped,
    ///   and counted as dropped. Its `closed` follows with [`Closed::Panicked`]. A resource whose own code
    ///   panicked while this handler sent to it ends in the same way, and nothing of the half item leaves.
    /// * A panic in the receiver of last words ([`Context::deadline_with`]) resets the resource whose deadline
    ///   had passed.
    /// * A panic in `closed` ends nothing more.
    /// * If no resource is to blame, nothing ends. The argument of the call is lost: a message, a command, the
    ///   message of a timer that is no deadline, or a connection to accept (it is reset, and the listener
    ///   continues).
    ///   [`fault`](Service::fault) gets [`Fault::Panicked`].
    /// * A panic in `stop`, `fault` or `end_of_turn` is reported only here.
    ///
    /// A panic in this function ends the service. A service that ends can be made again:
    /// [`Runtime::add_supervised`](crate::Runtime::add_supervised). The runtime counts each panic in
    /// [`Counters::panics`](crate::Counters::panics) and in the [receipt](crate::ServiceReceipt::panics), and
    /// writes it to standard error as [`fault`](Service::fault) describes.
    ///
    /// ```
    /// use reactor::{AfterPanic, Bytes, Closed, Context, Event, Handle, Id, Panic, Result, Service, Stream};
    ///
    /// /// Has nothing to be half changed.
    /// struct Echo;
    ///
    /// impl Service for Echo {
    ///     fn panicked(&mut self, _: &mut Context<Self>, _: &Panic) -> AfterPanic {
    ///         AfterPanic::EndResource
    ///     }
    /// }
    ///
    /// impl Handle<Stream> for Echo {
    ///     fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
    ///         if let Event::Received(bytes) = event {
    ///             assert!(bytes[0] != 0, "a bug");
    ///             cx.send(id, bytes);
    ///         }
    ///         Ok(())
    ///     }
    ///
    ///     fn closed(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Stream, why: Closed) {
    ///         if let Closed::Panicked(panic) = why {
    ///             assert_eq!(panic.message, "a bug");
    ///         }
    ///     }
    /// }
    /// ```
    fn panicked(&mut self, cx: &mut Context<Self>, panic: &Panic) -> AfterPanic {
        let _ = (cx, panic);
        AfterPanic::EndService
    }
}

/// A service's handler for one kind of resource: one `impl` for each kind the service uses.
///
/// For one resource the calls are `handle` with each event in order, then `closed` once. They come from the
/// runtime's thread and never nest. Nothing is promised about the order between two resources.
///
/// ```
/// use reactor::{Closed, Context, Event, Handle, Id, Lines, Result, Service, Stream};
///
/// struct Shout {
///     ended: u64,
/// }
///
/// impl Service for Shout {}
///
/// impl Handle<Stream<Lines>> for Shout {
///     fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream<Lines>>, event: Event<Lines>) -> Result {
///         if let Event::Received(line) = event {
///             cx.send(id, &line.to_uppercase());
///         }
///         Ok(())
///     }
///
///     fn closed(&mut self, _: &mut Context<Self>, _: Id<Stream<Lines>>, _: Stream<Lines>, why: Closed) {
///         self.ended += u64::from(why.is_clean());
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "service `{Self}` does not handle resources of type `{R}`",
    label = "`{Self}` needs a handler for `{R}`",
    note = "add `impl Handle<{R}> for {Self} {{ fn handle(&mut self, cx: &mut Context<Self>, id: Id<{R}>, event: ..) -> Result {{ .. }} }}`"
)]
pub trait Handle<R: Resource>: Service {
    /// Handles one event of a resource of this kind. Events of one resource come in order.
    ///
    /// The event borrows the runtime's buffer for this call. The service may send to the resource, close it,
    /// release it or look at it meanwhile. The runtime carries all of that out after the call.
    ///
    /// # Errors
    /// An error ends this resource gracefully. Output sent before still leaves, and then
    /// [`closed`](Handle::closed) gets the error as [`Closed::Refused`], even if a stop, a deadline or the peer
    /// ends the resource before all output has left.
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<R>, event: R::Event<'_>) -> Result;

    /// Decides on a connection of a listener of [`Context::listen_asking`], before it becomes a resource.
    /// `listener` may be closed or paused here.
    ///
    /// The connection has no id yet. If it is [taken](Accept::Take) and has no layer, the next call of this
    /// service is [`handle`](Handle::handle) with its `Open`. With a layer, `Open` comes after the handshake,
    /// and other calls come before. No `Open` comes if the runtime has no room for one more resource
    /// ([`Fault::Register`]). To count the taken ones, count in `Open` and not here, and count down in `closed`
    /// only for ids that were counted: a handshake that fails brings `closed` without `Open`, and so does a
    /// [dismissed](Accept::Dismiss) stream. [`Context::listen_asking`] has an example: a limit for each address.
    ///
    /// By default it refuses each, and [`Service::fault`] gets [`Fault::Accept`], because a service that
    /// listens in this way must have an answer.
    fn accept(&mut self, cx: &mut Context<Self>, listener: Id<Listener<R>>, peer: &Address) -> Accept<R>
    where
        R: Connection,
    {
        let _ = (listener, peer);
        let why = "the service has no Handle::accept for these connections";
        cx.core.faults_due.push(cx.index, Fault::Accept(Error::Misuse { operation: "accept", why }));
        Accept::Refuse
    }

    /// Takes a resource back that has ended. Called exactly once for each resource, as the last call for its
    /// id.
    ///
    /// The id finds nothing any more: [`Context::get`] returns `None`, and [`Context::peer`] fails with
    /// `NotFound`. A service that needs the peer's address here notes it at `Open`.
    ///
    /// The default drops it. Two reasons are then errors that no code takes, and the runtime reports them
    /// like those of [`Service::fault`]: [`handle`](Handle::handle) returned an error, or a connection that
    /// the service requested was not made. The actions of a peer are no errors of the service.
    fn closed(&mut self, cx: &mut Context<Self>, id: Id<R>, resource: R, why: Closed) {
        cx.ended_unheard(id.key(), &why);
        drop(resource);
    }
}

/// A service's receiver for one type of message: the payload of a timer, a command from another thread, the
/// result of offloaded work, or a message from another service.
///
/// ```
/// use reactor::{Context, Receive, Result, Runtime, Service};
/// use std::time::Duration;
///
/// /// Counts to three.
/// struct Clock(u32);
///
/// struct Tick;
///
/// impl Service for Clock {
///     fn start(&mut self, cx: &mut Context<Self>) -> Result {
///         cx.after(Duration::ZERO, Tick);
///         Ok(())
///     }
/// }
///
/// impl Receive<Tick> for Clock {
///     fn receive(&mut self, cx: &mut Context<Self>, _: Tick) -> Result {
///         self.0 += 1;
///         if self.0 < 3 {
///             cx.after(Duration::from_millis(1), Tick);
///         }
///         Ok(())
///     }
/// }
///
/// let mut runtime = Runtime::new()?;
/// let clock = runtime.add(Clock(0))?;
/// runtime.run()?;
/// assert_eq!(runtime.service(clock).expect("it lives").0, 3);
/// # Ok::<(), reactor::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "service `{Self}` does not receive messages of type `{M}`",
    label = "`{Self}` needs a receiver for `{M}`",
    note = "add `impl Receive<{M}> for {Self} {{ fn receive(&mut self, cx: &mut Context<Self>, message: {M}) -> Result {{ .. }} }}`"
)]
pub trait Receive<M>: Service {
    /// Receives one message. Messages of one sender come in the order sent.
    ///
    /// # Errors
    /// [`Service::fault`] gets the error.
    fn receive(&mut self, cx: &mut Context<Self>, message: M) -> Result;
}

/// Mirrors [`Handle`] from the resource's side: implemented for all resources that `S` handles, and by
/// nothing else.
///
/// A bound `S: Handle<R>` on a method would let the compiler guess `R` from the service's only handler, and
/// then report a mismatch far from the mistake. A bound on `R` lets it report the missing handler. Methods
/// with such a bound use the handler through this trait.
// Its methods are hidden, because they name types of the loop. The trait itself is public, because bounds name
// it, and has no supertrait for them, because the compiler would report that instead of the missing handler.
pub trait Handled<S>: Resource {
    #[doc(hidden)]
    fn table_for() -> &'static Vtable;

    #[doc(hidden)]
    fn listener_table() -> &'static Vtable
    where
        Self: Connection;
}

impl<S: Handle<R>, R: Resource> Handled<S> for R {
    fn table_for() -> &'static Vtable {
        <R::Driver as Driver<R>>::table::<S>()
    }

    fn listener_table() -> &'static Vtable
    where
        R: Connection,
    {
        listener::table::<S, R>()
    }
}

/// Mirrors [`Receive`] from the message's side, for the same reason as [`Handled`].
// Its methods are hidden for the same reason.
pub trait Received<S>: Sized + 'static {
    #[doc(hidden)]
    fn deliver_local() -> DeliverLocalFn;

    #[doc(hidden)]
    fn deliver_command() -> DeliverFn
    where
        Self: Send;

    #[doc(hidden)]
    fn deliver_job() -> DeliverFn
    where
        Self: Send;

    #[doc(hidden)]
    fn deliver_file() -> DeliverFn
    where
        Self: Send;
}

impl<S: Receive<M>, M: 'static> Received<S> for M {
    fn deliver_local() -> DeliverLocalFn {
        typed_queues::deliver_local::<S, M>
    }

    fn deliver_command() -> DeliverFn
    where
        M: Send,
    {
        dispatch::deliver_command::<S, M>
    }

    fn deliver_job() -> DeliverFn
    where
        M: Send,
    {
        dispatch::deliver_job::<S, M>
    }

    fn deliver_file() -> DeliverFn
    where
        M: Send,
    {
        dispatch::deliver_file::<S, M>
    }
}

/// The id of a service in a runtime, with its type, for `tell` and for controllers.
///
/// ```
/// use reactor::{Context, Receive, Result, Runtime, Service, ServiceId};
///
/// struct Log(Vec<String>);
///
/// impl Service for Log {}
///
/// impl Receive<String> for Log {
///     fn receive(&mut self, _: &mut Context<Self>, line: String) -> Result {
///         self.0.push(line);
///         Ok(())
///     }
/// }
///
/// struct Worker(ServiceId<Log>);
///
/// impl Service for Worker {
///     fn start(&mut self, cx: &mut Context<Self>) -> Result {
///         cx.tell(self.0, "it begins".to_owned())?;
///         Ok(())
///     }
/// }
///
/// let mut runtime = Runtime::new()?;
/// let log = runtime.add(Log(Vec::new()))?;
/// runtime.add(Worker(log))?;
/// runtime.run()?;
/// assert_eq!(runtime.service(log).expect("it lives").0, ["it begins"]);
/// # Ok::<(), reactor::Error>(())
/// ```
pub struct ServiceId<S> {
    pub(crate) runtime: u16,
    pub(crate) index: u16,
    of: std::marker::PhantomData<fn(S)>,
}

impl<S> ServiceId<S> {
    pub(crate) fn new(runtime: u16, index: u16) -> ServiceId<S> {
        ServiceId { runtime, index, of: std::marker::PhantomData }
    }
}

impl<S> Clone for ServiceId<S> {
    fn clone(&self) -> ServiceId<S> {
        *self
    }
}
impl<S> Copy for ServiceId<S> {}
impl<S> std::fmt::Debug for ServiceId<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}#{}", std::any::type_name::<S>(), self.index)
    }
}
