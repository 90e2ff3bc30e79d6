//! What a user writes: services, which handle resources and receive messages.

use crate::{
    address::Address,
    context::Context,
    error::{Closed, Error, Fault, Result},
    guard,
    id::Id,
    message::{self, Deliver, Hand},
    panics::{AfterPanic, Panic},
    resource::{Accept, Connection, Listener, Resource, Table, listener},
};

/// Business logic: plain state behind `&mut self`, called by one runtime, never re-entered.
///
/// A service owns a set of resources of different kinds; it implements [`Handle`] once for each kind
/// and [`Receive`] once for each type of message. It needs not be `Send`. All its calls come from the
/// runtime's thread, one after the other; what a call asks of the [`Context`] is done after it returned.
///
/// A panic in any of its calls ends this service and its resources (without `closed`), unless
/// [`panicked`](Service::panicked) says otherwise; the others go on, and the receipt names it.
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
    /// Called once, before any other call: the place to listen and connect.
    ///
    /// # Errors
    /// An error ends the service with what it has registered; `add`, `run` and `spawn` return it.
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let _ = cx;
        Ok(())
    }

    /// Called once when a graceful stop begins. The listeners are closed already; what waited in their backlogs was accepted
    /// before.
    ///
    /// The runtime ends when no resource is left and nothing is [outstanding](Context::stop), or at the end of the grace.
    /// By default closes all.
    fn stop(&mut self, cx: &mut Context<Self>) {
        cx.close_all();
    }

    /// Called at the end of a turn, after all its handlers and before its writes, if the service asked for it by
    /// [`Context::at_end_of_turn`].
    ///
    /// However often a service asks, it gets one call. This is the place to write in one batch what the handlers collected.
    /// Everything that is sent here leaves with the rest of the turn. What is told here, or asked of files, takes the usual
    /// way. Where a stop executes the last commands, one last call follows them. No resource is left then.
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

    /// Called for an error that passes, or that has no live resource. It is counted already, and part of
    /// the receipt.
    ///
    /// A service that overrides this deals with its faults. By default nobody does: each is an error of the service, of
    /// which [`Receipt::check`](crate::Receipt::check) and [`run`](crate::run) tell, and one line on standard error says
    /// what it was. With the feature `tracing` and a subscriber that hears warnings it is a warning instead. The lines
    /// are bounded: 16 at once, then one a second; each has at most 500 bytes, and is left out rather than waited for
    /// if standard error has no room. How many were left out is said by the next line.
    fn fault(&mut self, cx: &mut Context<Self>, fault: Fault) {
        cx.note_error(guard::text(&fault));
    }

    /// Called after a panic in any call of this service but `start`, or in a codec, a layer or a resource of it: says
    /// whether the service lives on.
    ///
    /// By default it ends, because `self` may be half changed: whatever the call had begun is not finished, and a later
    /// call would work with that. A service that keeps its state whole between any two statements that may panic, or
    /// mends it here, may answer [`AfterPanic::EndResource`]. Then a bug that one peer provokes costs that peer's
    /// connection:
    ///
    /// * The [resource](Panic::resource) whose event was handled is reset: its input and output are dropped, and counted
    ///   as such. Its `closed` follows with [`Closed::Panicked`]. One whose own code panicked while this handler sent to
    ///   it ends in the same way; nothing of the half item leaves.
    /// * A panic in `closed` ends nothing more.
    /// * Where no resource is to blame nothing ends. What the call was made with is lost, and [`fault`](Service::fault) is
    ///   told so by [`Fault::Panicked`]: a message, a command, a timer's message, a connection that was to be accepted
    ///   (it is reset; the listener goes on).
    /// * A panic in `stop`, `fault` or `end_of_turn` is told here only.
    ///
    /// A panic in here ends the service. One that ends may be made again:
    /// [`Runtime::add_supervised`](crate::Runtime::add_supervised). Each panic is counted, in [`Counters::panics`](crate::Counters::panics) and in
    /// the [receipt](crate::ServiceReceipt::panics), and written to standard error as [`fault`](Service::fault) says.
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
    /// Called with each event of each resource of this kind, in the order of the events.
    ///
    /// The event borrows the runtime's buffer for this call. The resource may be sent to, closed,
    /// released or looked at meanwhile; all that is done after the call.
    ///
    /// # Errors
    /// An error ends this resource gracefully: what was sent before still leaves, then
    /// [`closed`](Handle::closed) gets it as [`Closed::Refused`].
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<R>, event: R::Event<'_>) -> Result;

    /// Called for each connection of a listener of [`Context::listen_asking`], before it becomes a resource. `listener` may
    /// be closed or paused here.
    ///
    /// By default each is refused, and [`Service::fault`] is told [`Fault::Accept`]: the service listens so and has no answer.
    fn accept(&mut self, cx: &mut Context<Self>, listener: Id<Listener<R>>, peer: &Address) -> Accept<R>
    where
        R: Connection,
    {
        let _ = (listener, peer);
        let why = "the service has no Handle::accept for these connections";
        cx.core.faults_due.push(cx.index, Fault::Accept(Error::Misuse { operation: "accept", why }));
        Accept::Refuse
    }

    /// Called exactly once for each resource, as the last call for its id, and gives it back.
    ///
    /// By default it is dropped. Two reasons are then errors that nobody takes, and told as those of
    /// [`Service::fault`]: [`handle`](Handle::handle) returned an error, or a connection that the service wanted was not
    /// made. What a peer does is no error of the service.
    fn closed(&mut self, cx: &mut Context<Self>, id: Id<R>, resource: R, why: Closed) {
        cx.ended_unheard(id.key(), &why);
        drop(resource);
    }
}

/// A service's receiver for one type of message: timer payloads, commands of other threads, results of
/// offloaded work, and what other services tell.
#[diagnostic::on_unimplemented(
    message = "service `{Self}` does not receive messages of type `{M}`",
    label = "`{Self}` needs a receiver for `{M}`",
    note = "add `impl Receive<{M}> for {Self} {{ fn receive(&mut self, cx: &mut Context<Self>, message: {M}) -> Result {{ .. }} }}`"
)]
pub trait Receive<M>: Service {
    /// Called with each message; those of one sender come in the order they were sent.
    ///
    /// # Errors
    /// An error is told to [`Service::fault`].
    fn receive(&mut self, cx: &mut Context<Self>, message: M) -> Result;
}

/// Mirrors [`Handle`] from the resource's side: implemented for whatever `S` handles, and by nobody else.
///
/// A bound `S: Handle<R>` on a method would let the compiler guess `R` from the service's only handler,
/// and then report a mismatch far from the mistake; a bound on `R` lets it report the missing handler.
/// What such a method needs of the handler it gets from here.
pub trait Handled<S>: Resource {
    #[doc(hidden)]
    fn table_for() -> &'static Table;

    #[doc(hidden)]
    fn listener_table() -> &'static Table
    where
        Self: Connection;
}

impl<S: Handle<R>, R: Resource> Handled<S> for R {
    fn table_for() -> &'static Table {
        R::table::<S>()
    }

    fn listener_table() -> &'static Table
    where
        R: Connection,
    {
        listener::table::<S, R>()
    }
}

/// Mirrors [`Receive`] from the message's side, for the reason that [`Handled`] tells.
pub trait Received<S>: Sized + 'static {
    #[doc(hidden)]
    fn hand() -> Hand;

    #[doc(hidden)]
    fn deliver_command() -> Deliver
    where
        Self: Send;

    #[doc(hidden)]
    fn deliver_job() -> Deliver
    where
        Self: Send;

    #[doc(hidden)]
    fn deliver_file() -> Deliver
    where
        Self: Send;
}

impl<S: Receive<M>, M: 'static> Received<S> for M {
    fn hand() -> Hand {
        message::hand::<S, M>
    }

    fn deliver_command() -> Deliver
    where
        M: Send,
    {
        message::deliver_command::<S, M>
    }

    fn deliver_job() -> Deliver
    where
        M: Send,
    {
        message::deliver_job::<S, M>
    }

    fn deliver_file() -> Deliver
    where
        M: Send,
    {
        message::deliver_file::<S, M>
    }
}

/// Names a service of a runtime by its type, for `tell` and for controllers.
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
