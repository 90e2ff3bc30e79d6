//! Resources during their lives: their state, pauses, deadlines and ends.

use std::time::Duration;

use super::Context;
use crate::{
    clock::Time,
    engine::Ending,
    error::Closed,
    id::{Id, Key},
    resource::{Driver, Resource},
    runtime::Received,
};

/// # Look at a resource, pause it, bound its life, end it
///
/// Every id stays valid until `closed`, and every call with a later one does nothing.
impl<S> Context<'_, S> {
    /// Returns a resource. `None` once it has ended or was aborted.
    pub fn get<R: Resource>(&self, id: Id<R>) -> Option<&R> {
        let slot = self.core.registry.get(id.key()).filter(|slot| slot.service == self.index)?;
        <R::Driver as Driver<R>>::view(&**slot.resource.as_ref()?)
    }

    /// Returns a mutable resource. For a stream this reaches the codec, layer and settings, but never the
    /// transport.
    pub fn get_mut<R: Resource>(&mut self, id: Id<R>) -> Option<&mut R> {
        let index = self.index;
        self.core.mark(id.key());
        let slot = self.core.registry.get_mut(id.key()).filter(|slot| slot.service == index)?;
        <R::Driver as Driver<R>>::view_mut(&mut **slot.resource.as_mut()?)
    }

    /// Hands over no input (from a listener: no connections) until [`resume`](Context::resume).
    ///
    /// The runtime still notifies the service if the peer of a paused stream is gone:
    ///
    /// * If the connection fails, for example because the peer resets it, the stream ends at once, and
    ///   `closed` gives the reason. [`Stream::unread`](crate::Stream::unread) has the input that arrived
    ///   before, up to [`StreamOptions::unread`](crate::StreamOptions::unread) bytes.
    /// * If the peer ends its side and all its input was handed over, [`Event::End`](crate::Event::End) comes
    ///   at once. The stream then closes, unless it is [`half_open`](crate::Stream::half_open). A service
    ///   that pauses a stream while it works on an answer needs half-open streams, if a client may end its
    ///   side before it reads the answer.
    /// * If the peer ends its side behind unread input, [`Event::HungUp`](crate::Event::HungUp) comes at
    ///   once, and `End` comes in its order after a resume. The unread input may be a further command, or the
    ///   last record of a layer.
    ///
    /// The runtime does not notice:
    ///
    /// * a peer that disappears without a word, because its machine or the network failed. Set a deadline or
    ///   [`SocketOptions::keepalive`](crate::SocketOptions::keepalive) for that.
    /// * an end that cannot arrive, because the peer's bytes before it fill the receive window: a client sends
    ///   1 MB and then closes, say. The runtime reads nothing ahead of a paused stream, so
    ///   [`StreamOptions::unread`](crate::StreamOptions::unread) does not bound this. Only a deadline does.
    /// * on the engine `polling`, the end of a TCP peer's side while the kernel has unread input of this
    ///   peer.
    ///
    /// The runtime does not watch a paused resource that is not a stream: a serial port, `Descriptors`, or a
    /// resource of your own.
    ///
    /// A resource is either paused or not. A service that has several reasons for a pause must count them
    /// itself. The runtime also has its own reasons not to read a stream, such as a full queue. A resume does
    /// not overrule them, and when they end, a paused stream stays paused.
    ///
    /// ```
    /// use reactor::{Closed, Context, Event, Handle, Id, Lines, Result, Service, Stream};
    ///
    /// /// Gives lines to clients that ask for one with `pop`, in the order in which they asked.
    /// #[derive(Default)]
    /// struct Store {
    ///     waiting: Vec<Id<Stream<Lines>>>,
    /// }
    ///
    /// impl Service for Store {}
    ///
    /// impl Handle<Stream<Lines>> for Store {
    ///     fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream<Lines>>, event: Event<Lines>) -> Result {
    ///         match event {
    ///             Event::Received("pop") => {
    ///                 self.waiting.push(id);
    ///                 cx.pause(id);
    ///             }
    ///             Event::Received(line) if !self.waiting.is_empty() => {
    ///                 let client = self.waiting.remove(0);
    ///                 cx.send(client, line);
    ///                 cx.resume(client);
    ///             }
    ///             // The client has left, so it gets no line that another client waits for.
    ///             Event::End | Event::HungUp => {
    ///                 self.waiting.retain(|client| *client != id);
    ///                 cx.close(id);
    ///             }
    ///             _ => (),
    ///         }
    ///         Ok(())
    ///     }
    ///
    ///     fn closed(&mut self, _: &mut Context<Self>, id: Id<Stream<Lines>>, _: Stream<Lines>, _: Closed) {
    ///         self.waiting.retain(|client| *client != id);
    ///     }
    /// }
    /// ```
    pub fn pause<R: Resource>(&mut self, id: Id<R>) {
        self.set_paused(id.key(), true);
    }

    /// Continues where [`pause`](Context::pause) stopped. Nothing in between is lost.
    pub fn resume<R: Resource>(&mut self, id: Id<R>) {
        self.set_paused(id.key(), false);
    }

    /// Sets or moves the resource's deadline, counted from the end of this turn, or removes it (`None`). When
    /// it passes, the runtime tries one more read, and then the resource ends with [`Closed::Deadline`]. A
    /// move costs next to nothing, so you can move the deadline with each message. A message of
    /// [`deadline_with`](Context::deadline_with) stays with the deadline, and is dropped with it.
    pub fn deadline<R: Resource>(&mut self, id: Id<R>, after: impl Into<Option<Duration>>) {
        if self.owns(id.key()) {
            self.core.set_deadline(id.key(), after.into());
        }
    }

    /// Sets or moves the resource's deadline like [`deadline`](Context::deadline), with last words: when the
    /// deadline passes, the service receives `message` while the resource is still alive, may send, and then
    /// the resource closes gracefully.
    ///
    /// * The runtime first tries one more read, as for every deadline, and the handler gets the input. If a
    ///   handler moves the deadline meanwhile, the message waits for the new deadline.
    /// * When [`receive`](crate::Receive::receive) has returned, the resource [closes](Context::close) with
    ///   [`Closed::Deadline`]. Output sent before leaves, bounded by
    ///   [`StreamOptions::close`](crate::StreamOptions::close). A listener ends at once.
    /// * If `receive` sets a deadline again, or removes it with `None`, the resource lives on. The message is
    ///   used up: call `deadline_with` again for the next one. If `receive` closes, aborts or releases the
    ///   resource, that is what happens.
    /// * Move the deadline with [`deadline`](Context::deadline), which keeps the message and costs next to
    ///   nothing. Another `deadline_with` replaces the message. The message is dropped when the deadline is
    ///   removed, and when the resource closes, ends or is released.
    /// * The resource lives until `closed`, up to `StreamOptions::close` after the message. A service that
    ///   counts its clients counts this one until then.
    /// * A waiting message counts as a timer. At the limit of timers it is dropped, the service gets
    ///   [`Fault::TimersFull`](crate::Fault::TimersFull), and the deadline has no last words.
    ///
    /// ```
    /// use reactor::{Context, Event, Handle, Id, Lines, Receive, Result, Service, Stream};
    /// use std::time::Duration;
    ///
    /// const IDLE: Duration = Duration::from_secs(300);
    ///
    /// struct Server;
    /// struct Idle(Id<Stream<Lines>>);
    ///
    /// impl Service for Server {}
    ///
    /// impl Handle<Stream<Lines>> for Server {
    ///     fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream<Lines>>, event: Event<Lines>) -> Result {
    ///         match event {
    ///             Event::Open => cx.deadline_with(id, IDLE, Idle(id)),
    ///             Event::Received(_) => cx.deadline(id, IDLE),
    ///             _ => (),
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// impl Receive<Idle> for Server {
    ///     fn receive(&mut self, cx: &mut Context<Self>, Idle(id): Idle) -> Result {
    ///         cx.send(id, "421 you said nothing for five minutes");
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn deadline_with<R: Resource, M: Received<S>>(&mut self, id: Id<R>, after: Duration, message: M) {
        let key = id.key();
        if !self.owns(key) {
            return;
        }
        self.core.set_deadline(key, Some(after));
        self.core.drop_last_words(key);
        match self.core.typed_queues.set(self.index, message, M::deliver_local()) {
            Some(message) => self.core.keep_last_words(key, message),
            None => self.timers_are_full(),
        }
    }

    /// Begins a graceful close: the runtime sends queued output, ends its side, and waits for the peer's end,
    /// all under one deadline ([`StreamOptions::close`](crate::StreamOptions::close)). Only `closed` follows.
    /// If the deadline passes while output is queued, a TCP peer sees a reset, so that it does not mistake a
    /// part for the whole. A file that is [in progress](Context::send_file) on a stream leaves completely
    /// before that deadline begins. The resource takes no output from now on:
    /// [`send`](Context::send) drops the item and answers [`Flow::Gone`](crate::Flow::Gone).
    pub fn close<R: Resource>(&mut self, id: Id<R>) {
        if self.owns(id.key()) {
            self.core.close(id.key(), Closed::Done);
        }
    }

    /// Ends a resource at once. The runtime drops queued output, and a TCP peer sees a reset. `closed`
    /// follows.
    pub fn abort<R: Resource>(&mut self, id: Id<R>) {
        if self.owns(id.key()) {
            self.core.end(id.key(), Closed::Aborted, Ending::Reset);
        }
    }

    /// Begins a graceful close of all resources of this service.
    pub fn close_all(&mut self) {
        for key in self.core.registry.keys(Some(self.index)) {
            self.core.close(key, Closed::Done);
        }
    }

    /// Begins a graceful stop of the whole runtime. Resources that remain after `grace` are cut off. The
    /// earliest of several deadlines wins.
    ///
    /// In the next turns, the runtime first accepts the connections in the listeners' backlogs. Then it
    /// closes the listeners, and calls [`Service::stop`](crate::Service::stop). The stop is over when only background resources
    /// remain, and no job, file operation, message between services or [`Hold`](crate::Hold) is outstanding. If only
    /// messages between services remain, the runtime waits for them for at most 1,024 turns, because a
    /// service that always sends itself another one would never finish.
    pub fn stop(&mut self, grace: Duration) {
        self.core.mailbox.stop((Time::ZERO + grace).as_nanos());
    }

    fn set_paused(&mut self, key: Key, paused: bool) {
        if let Some(table) = self.table_of(key) {
            (table.pause)(self.core, key, paused);
        }
    }
}
