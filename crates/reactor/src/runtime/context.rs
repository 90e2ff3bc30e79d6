//! The runtime as one service sees it during one call.

use std::{
    any::type_name,
    fmt, io,
    marker::PhantomData,
    time::{Duration, SystemTime},
};

use session::{Codec, Layer, Shared};

use crate::{
    address::{Address, ToAddress},
    clock::Time,
    engine::Ending,
    error::{Closed, Error, Fault, Phase, Result},
    guard::{self, Kept},
    id::{Id, Key},
    message::{Finished, Held, Offloaded, Refused},
    options::ConnectOptions,
    resource::{AnyStream, Connection, Flow, Output, Resource, Stream, Table, is_passing},
    runtime::{Controller, Core, Fresh, Handled, Hold, Received, Service, ServiceId, TimerId},
};

/// The interface of a service to its runtime, lent for one call. No request made here calls a handler before
/// the present call has returned.
///
/// Time, wall clock, randomness, network and blocking work reach a service only through its context, so the
/// same service runs in a simulated world.
///
/// Every call treats a stale id, or one of another service or runtime, as gone, which is harmless.
pub struct Context<'a, S> {
    pub(crate) core: &'a mut Core,
    pub(crate) index: u16,
    of: PhantomData<fn(S)>,
}

impl<S> fmt::Debug for Context<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context of {}", crate::log::short(type_name::<S>()))
    }
}

/// The error of a resource that could not be added: the resource comes back with the cause.
///
/// `?` in a handler turns it into a [`Failure`](crate::Failure) of the cause, and drops the resource.
///
/// The resource needs no `Debug`: `Rejected` names its type.
///
/// ```
/// struct Secret;
/// fn must<T>(added: Result<T, reactor::Rejected<Secret>>) -> T {
///     added.expect("there is room")
/// }
/// assert_eq!(must(Ok(7)), 7);
/// ```
pub struct Rejected<R> {
    /// The resource, unchanged.
    pub resource: R,
    /// The cause.
    pub error: Error,
}

impl<R> fmt::Debug for Rejected<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = crate::log::short(type_name::<R>());
        f.debug_struct("Rejected")
            .field("resource", &format_args!("{name}"))
            .field("error", &self.error)
            .finish()
    }
}

impl<R> From<Rejected<R>> for Box<dyn std::error::Error + Send + Sync> {
    fn from(rejected: Rejected<R>) -> Self {
        rejected.error.into()
    }
}

impl<'a, S> Context<'a, S> {
    pub(crate) fn new(core: &'a mut Core, index: u16) -> Context<'a, S> {
        core.calling = index;
        Context { core, index, of: PhantomData }
    }

    /// Returns the machine that the service runs on.
    #[cfg(unix)]
    pub(crate) fn host(&mut self) -> &mut dyn crate::host::Host {
        self.core.engine.host_mut()
    }

    /// Records an error that the service did not take.
    pub(crate) fn note_error(&mut self, text: String) {
        self.core.note_error(self.index, text);
    }

    /// Records why a resource ended, if the reason is an error that the service did not take.
    pub(crate) fn ended_unheard(&mut self, key: Key, why: &Closed) {
        let is_connect = match why {
            Closed::Failed(Error::Os { operation, .. }) => *operation == "connect",
            Closed::TimedOut(phase) => *phase == Phase::Connect,
            _ => false,
        };
        if let Some(text) = self.core.refused.remove(&key) {
            self.note_error(text);
        } else if is_connect {
            self.note_error(guard::text(why));
        }
    }

    /// Returns whether the key names a live resource of this service.
    #[inline]
    pub(crate) fn owns(&self, key: Key) -> bool {
        self.core.registry.peek(key).is_some_and(|slot| slot.service == self.index)
    }

    /// Checks that the key names a live resource of this service, for operations that need one.
    pub(crate) fn find(&self, key: Key) -> io::Result<()> {
        if self.owns(key) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Returns the number of the service's present life.
    pub(crate) fn life(&self) -> u32 {
        self.core.records.get(self.index as usize).map_or(0, |record| record.life)
    }

    fn table_of(&self, key: Key) -> Option<&'static Table> {
        self.core.registry.peek(key).filter(|slot| slot.service == self.index).map(|slot| slot.table)
    }

    // Time and chance.

    /// Returns the monotonic time, which is fixed for one turn.
    pub fn now(&self) -> Time {
        self.core.now
    }

    /// Returns the wall-clock time, for people and protocols. It may jump.
    pub fn wall(&self) -> SystemTime {
        self.core.engine.host().wall()
    }

    /// Returns a random number for jitter and sampling, seeded under simulation. It is not for cryptography.
    pub fn random(&mut self) -> u64 {
        self.core.next_random()
    }

    // Any resource.

    /// Returns a resource. `None` once it has ended or was aborted.
    pub fn get<R: Resource>(&self, id: Id<R>) -> Option<&R> {
        let slot = self.core.registry.peek(id.key()).filter(|slot| slot.service == self.index)?;
        R::view(&**slot.resource.as_ref()?)
    }

    /// Returns a mutable resource. For a stream this reaches the codec, layer and settings, but never the
    /// transport.
    pub fn get_mut<R: Resource>(&mut self, id: Id<R>) -> Option<&mut R> {
        let index = self.index;
        self.core.mark(id.key());
        let slot = self.core.registry.live(id.key()).filter(|slot| slot.service == index)?;
        R::view_mut(&mut **slot.resource.as_mut()?)
    }

    /// Begins a graceful close: the runtime sends queued output, ends its side, and waits for the peer's end,
    /// all under one deadline ([`StreamOptions::close`](crate::StreamOptions::close)). Only `closed` follows.
    /// If the deadline passes while output is queued, a TCP peer sees a reset, so that it does not mistake a
    /// part for the whole. A file that is [in progress](Context::send_file) on a stream leaves completely
    /// before that deadline begins. The resource takes no output from now on:
    /// [`send`](Context::send) drops the item and answers [`Flow::Gone`].
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

    /// Stops reading. Once nothing of the resource is in flight, gives it back through `closed`, with
    /// [`Closed::Released`]. It can be added again, here or in another runtime.
    ///
    /// A stream continues in its next life as it was: with its transport, codec and layer, the unread bytes,
    /// the unsent bytes (including those sent between this call and `closed`), and the rest of its deadline.
    /// If it was paused or between its marks, it still is. The runtime does not repeat `Open` and `End`. A
    /// stream that still connects is given back once it is connected.
    ///
    /// * A [transfer](Context::send_file) ends before its stream is given back, also as `Released`, and
    ///   reports the unsent rest.
    /// * The other stream of a [couple](Context::couple) stays open, and is no longer coupled.
    /// * A [`FileWriter`](crate::file::FileWriter) first writes everything that was sent to it, and so does a
    ///   resource of your own. Neither takes more output.
    /// * If the resource is not a stream, its deadline and its pause end with the id, and so does the message
    ///   of [`deadline_with`](Context::deadline_with).
    ///
    /// # Errors
    /// [`Error::Misuse`] if it is closing already, because `closed` then comes with another reason, and if it
    /// is a listener, because listeners are not given back. An id that is gone is no error: its `closed` was
    /// called, or will be soon.
    pub fn release<R: Resource>(&mut self, id: Id<R>) -> Result<(), Error> {
        match self.table_of(id.key()) {
            Some(table) => (table.release)(self.core, id.key())?,
            None => return Ok(()),
        }
        self.core.release_deadline(id.key());
        Ok(())
    }

    /// Begins a graceful close of all resources of this service.
    pub fn close_all(&mut self) {
        for key in self.core.registry.keys(Some(self.index)) {
            self.core.close(key, Closed::Done);
        }
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

    fn set_paused(&mut self, key: Key, paused: bool) {
        if let Some(table) = self.table_of(key) {
            (table.pause)(self.core, key, paused);
        }
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
    ///   [`Fault::TimersFull`], and the deadline has no last words.
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
        match self.core.lanes.set(self.index, message, M::hand()) {
            Some(message) => self.core.keep_last_words(key, message),
            None => self.timers_are_full(),
        }
    }

    /// Adds a resource.
    ///
    /// # Errors
    /// [`Rejected`] gives it back if the engine cannot watch it, if a limit is reached, or if it is a stream
    /// without a transport.
    pub fn add<R: Resource + Handled<S>>(&mut self, resource: R) -> Result<Id<R>, Rejected<R>> {
        match resource.enroll(self.core, self.index, R::table_for()) {
            Ok(key) => Ok(Id::new(key)),
            Err((resource, error)) => Err(Rejected { resource, error }),
        }
    }

    /// Receives the process's signals. They no longer end the process, and the service gets them as events
    /// instead.
    ///
    /// # Errors
    /// As [`Signals::of_process`](crate::signals::Signals::of_process), and as [`add`](Context::add).
    #[cfg(unix)]
    pub fn signals(
        &mut self,
        signals: impl IntoIterator<Item = crate::os::signals::Signal>,
    ) -> Result<Id<crate::os::signals::Signals>, Error>
    where
        crate::os::signals::Signals: Handled<S>,
    {
        let signals = crate::os::signals::open(self.host(), signals)?;
        self.add(signals).map_err(|rejected| rejected.error)
    }

    /// Keeps a resource in the background from now on: when nothing else is left to do, the runtime closes it
    /// and ends.
    pub fn background<R: Resource>(&mut self, id: Id<R>) {
        if self.owns(id.key()) {
            self.core.keep_in_background(id.key());
        }
    }

    // Output.

    /// Queues an item. All items of a turn leave at its end in one write. Never blocks, never calls a
    /// handler, and returns no error. The runtime drops an item in two cases:
    ///
    /// * It finds no room, or the codec refuses it. The resource then ends, and its `closed` gives the reason.
    ///   ([`Datagrams`](crate::Datagrams) live on, and answer [`Flow::Full`].)
    /// * The resource is gone or closing already, for example because of [`close`](Context::close). The answer
    ///   is [`Flow::Gone`], and `closed` does not mention this item. So bytes that are sent to a closing
    ///   [`FileWriter`](crate::file::FileWriter) do not reach the file, and only the answer tells.
    #[inline]
    pub fn send<R: Output>(&mut self, id: Id<R>, item: R::Item<'_>) -> Flow {
        R::post(self.core, self.index, id.key(), item)
    }

    /// Queues bytes as they are, past the codec, and takes their memory: without a copy, unless they are
    /// fewer than 512.
    pub fn send_owned<R: AnyStream>(&mut self, id: Id<R>, bytes: Vec<u8>) -> Flow {
        R::give(self.core, self.index, id.key(), bytes)
    }

    /// Queues bytes that were encoded once for many streams ([`Shared::encode`]), or a [slice](Shared::slice)
    /// of those, without a copy.
    pub fn send_shared<R: AnyStream>(&mut self, id: Id<R>, bytes: &Shared) -> Flow {
        R::share(self.core, self.index, id.key(), bytes)
    }

    /// Ends the write side after queued output. Reading continues until the peer ends its side.
    pub fn finish<R: AnyStream>(&mut self, id: Id<R>) {
        if self.owns(id.key()) {
            self.core.finish(id.key());
        }
    }

    /// Makes a proxy of two streams. Reads of one rest while the other's queue is above its high mark. An end
    /// of one is passed on as a half-close of the other. When one has closed, the other closes: in order if
    /// the first did, and otherwise with a reset once the output passed on so far has left
    /// ([`Closed::Partner`]). Both streams belong to this service. Nothing happens if one is gone.
    ///
    /// The runtime passes no bytes. The handler gets them as before, and sends them to the other stream.
    ///
    /// An end that the runtime reported before the service coupled the two is passed on, too, after this
    /// handler. Until then the service may send the other stream the bytes that it has kept. A stream that
    /// may end before it is coupled must be [`half_open`](Stream::half_open), because otherwise it closes at
    /// its end.
    ///
    /// ```
    /// # use reactor::{Bytes, Context, Event, Handle, Id, IdMap, Result, Service, Stream};
    /// /// The example `proxy` has the rest: `start`, and `closed`, which removes from the map.
    /// struct Proxy(String, IdMap<Stream, Id<Stream>>);
    /// # impl Service for Proxy {}
    /// impl Handle<Stream> for Proxy {
    ///     fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
    ///         match event {
    ///             Event::Open if !cx.get(id).is_some_and(Stream::is_outbound) => {
    ///                 let other = cx.connect(&self.0, Stream::new(Bytes))?;
    ///                 cx.couple(id, other)?;
    ///                 _ = (self.1.insert(id, other), self.1.insert(other, id));
    ///             }
    ///             Event::Received(bytes) => _ = self.1.get(id).map(|other| cx.send(*other, bytes)),
    ///             _ => (),
    ///         }
    ///         Ok(())
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::Misuse`] if one of them is coupled, is being released or has a transfer already, or if both
    /// are the same. Nothing changes then.
    pub fn couple<A: AnyStream, B: AnyStream>(&mut self, a: Id<A>, b: Id<B>) -> Result<(), Error> {
        let (a, b) = (a.key(), b.key());
        if !self.owns(a) || !self.owns(b) {
            return Ok(());
        }
        if a == b {
            return Err(Error::Misuse { operation: "couple", why: "both are the same stream" });
        }
        if [a, b].iter().any(|key| self.core.couples.contains_key(key)) {
            return Err(Error::Misuse { operation: "couple", why: "one is coupled, or has a transfer" });
        }
        if A::is_leaving(self.core, a) || B::is_leaving(self.core, b) {
            return Err(Error::Misuse { operation: "couple", why: "one is being released" });
        }
        self.core.couples.insert(a, b);
        self.core.couples.insert(b, a);
        A::couple(self.core, a);
        B::couple(self.core, b);
        for key in [a, b] {
            if self.core.registry.peek(key).is_some_and(|slot| slot.high) {
                self.core.hold_partner(key, true);
            }
        }
        Ok(())
    }

    /// Calls a function of a stream's layer that needs the layer's buffers, for example for a key update.
    /// Bytes that it puts on the wire leave at the end of the turn. `None` when the stream is gone.
    pub fn layer<C: Codec, L: Layer, R: 'static, T>(
        &mut self,
        id: Id<Stream<C, L, R>>,
        ask: impl FnOnce(&mut L, &mut session::Io<'_>) -> Result<T>,
    ) -> Option<Result<T>> {
        if !self.owns(id.key()) {
            return None;
        }
        crate::resource::with_layer::<C, L, R, T>(self.core, id.key(), ask)
    }

    /// Replaces a stream's codec, for example when HTTP becomes WebSocket. `make` borrows the old one.
    ///
    /// The connection, its layer, queue, deadline and pause stay, and no event reports the change. Output
    /// sent before leaves in its old form. The new codec cuts the unread input into items, including the rest
    /// of the input that the calling handler is being called for, and they go to the handler of the new type.
    /// The old id no longer finds the stream in calls that know its type, for example [`get`](Context::get)
    /// and [`send`](Context::send). `closed` comes for the new type.
    ///
    /// # Errors
    /// [`Error::Os`] with `NotFound` if it is gone. [`Error::Misuse`] if it is closing, is released, has
    /// ended, or is bound to a file or another stream. The stream is then unchanged, and `make` was not
    /// called.
    pub fn map_codec<C: Codec, L: Layer, R: 'static, D: Codec>(
        &mut self,
        id: Id<Stream<C, L, R>>,
        make: impl FnOnce(&mut C) -> D,
    ) -> Result<Id<Stream<D, L, R>>, Error>
    where
        Stream<D, L, R>: Handled<S>,
    {
        self.find(id.key()).map_err(|error| Error::os("map_codec", name_of(id), error))?;
        crate::resource::map_codec::<C, L, R, D>(
            self.core,
            id.key(),
            <Stream<D, L, R> as Handled<S>>::table_for(),
            make,
        )?;
        Ok(Id::new(id.key()))
    }

    /// Replaces a stream's layer, for example for STARTTLS. `make` borrows the old one, and must not break
    /// it.
    ///
    /// Output sent before leaves first, sealed by the old layer. The handshake of the new layer follows,
    /// under the stream's deadline for handshakes. [`Event::Open`](crate::Event::Open) notifies the handler
    /// of the new type when it has finished. Items sent meanwhile wait. For the ids see
    /// [`map_codec`](Context::map_codec).
    ///
    /// Clear bytes that came before the change never pass for bytes of the new layer, because an attacker on
    /// the path may have put them there. If any follow in the input that the calling handler is being called
    /// for, the stream ends as [`Closed::Refused`] with [`LayerError::Early`](session::LayerError::Early). If
    /// you expect such bytes, [`release`](Context::release) the stream, [take](Stream::take_unread) them, and
    /// use [`Stream::map_layer`].
    ///
    /// # Errors
    /// As [`map_codec`](Context::map_codec), and [`Error::Misuse`] if clear bytes are unread, or the old
    /// layer is in its handshake.
    pub fn map_layer<C: Codec, L: Layer, R: 'static, M: Layer>(
        &mut self,
        id: Id<Stream<C, L, R>>,
        make: impl FnOnce(&mut L) -> M,
    ) -> Result<Id<Stream<C, M, R>>, Error>
    where
        Stream<C, M, R>: Handled<S>,
    {
        self.find(id.key()).map_err(|error| Error::os("map_layer", name_of(id), error))?;
        crate::resource::map_layer::<C, L, R, M>(
            self.core,
            id.key(),
            <Stream<C, M, R> as Handled<S>>::table_for(),
            make,
        )?;
        Ok(Id::new(id.key()))
    }

    // Sockets.

    /// Begins to connect. `Open` or `closed` follows. Items may be sent at once, and wait.
    ///
    /// A refusal that passes by itself is not an error: while the accept queue of a Unix listener is full
    /// (Linux), the runtime tries again until the deadline of the connect (for `Descriptors`: 30 s). All
    /// other refusals are final, because the system does not distinguish those that pass.
    ///
    /// # Errors
    /// The address is invalid (names are not resolved), or the system refuses at once.
    pub fn connect<R: Connection + Handled<S>>(
        &mut self,
        address: impl ToAddress,
        stream: R,
    ) -> Result<Id<R>, Error> {
        self.connect_with(address, &ConnectOptions::default(), stream)
    }

    /// Begins to connect with these options.
    ///
    /// # Errors
    /// As [`connect`](Context::connect).
    pub fn connect_with<R: Connection + Handled<S>>(
        &mut self,
        address: impl ToAddress,
        options: &ConnectOptions,
        stream: R,
    ) -> Result<Id<R>, Error> {
        let address = to_address("connect", &address)?;
        let key = match self.core.engine.connect(&address, options) {
            Ok(transport) => stream.attach(self.core, self.index, R::table_for(), transport, Some(&address)),
            Err(error) if is_passing(&error) => {
                stream.attempt(self.core, self.index, R::table_for(), &address, options)
            }
            Err(error) => return Err(Error::os("connect", &address, error)),
        };
        key.map(Id::new).map_err(|(_, error)| error)
    }

    /// Returns the local address of a stream or listener. A service learns its listener's port from it.
    ///
    /// # Errors
    /// [`Error::Os`], as getsockname(2); `NotFound` when it is gone.
    pub fn local<R: Resource>(&self, id: Id<R>) -> Result<Address, Error> {
        let answer = self.find(id.key()).and_then(|()| self.core.engine.local(id.key()));
        answer.map_err(|error| Error::os("local", name_of(id), error))
    }

    /// Returns the peer's address of a stream.
    ///
    /// # Errors
    /// [`Error::Os`], as getpeername(2); `NotFound` when it is gone.
    pub fn peer<R: Resource>(&self, id: Id<R>) -> Result<Address, Error> {
        let answer = self.find(id.key()).and_then(|()| self.core.engine.peer(id.key()));
        answer.map_err(|error| Error::os("peer", name_of(id), error))
    }

    /// Returns the credentials of the peer of a Unix socket, as the system recorded them at the connect.
    ///
    /// # Errors
    /// [`Error::Os`], as `Credentials::of_peer`; `NotFound` when it is gone.
    pub fn peer_credentials<R: Connection>(&self, id: Id<R>) -> Result<crate::Credentials, Error> {
        let answer = self.find(id.key()).and_then(|()| R::credentials(self.core, id.key()));
        answer.map_err(|error| Error::os("peer credentials", name_of(id), error))
    }

    // Messages.

    /// Sets a timer: the service receives `message` when `after` has passed, counted from the end of this
    /// turn. It never comes early, and never in the turn that set it. Two timers of one instant fire in the
    /// order in which they were set.
    ///
    /// At the limit of timers the runtime drops the message, and the service gets [`Fault::TimersFull`].
    pub fn after<M: Received<S>>(&mut self, after: Duration, message: M) -> TimerId {
        match self.core.lanes.set(self.index, message, M::hand()) {
            Some(id) => {
                let TimerId { lane, index, generation } = id;
                self.core.fresh.push(Fresh::Timer { lane, index, generation, after });
                id
            }
            None => {
                self.timers_are_full();
                TimerId::NONE
            }
        }
    }

    fn timers_are_full(&mut self) {
        let limit = self.core.limits.timers;
        self.core.faults_due.push(self.index, Fault::TimersFull(limit));
    }

    /// Cancels a timer. Returns `true` if it was still pending: its message will not come, even if it is due
    /// in this very turn.
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        let cancelled = self.core.lanes.cancel(self.index, timer);
        if let Some(Some(key)) = cancelled {
            self.core.timers.cancel(key);
        }
        cancelled.is_some()
    }

    /// Sends a message to a service of this runtime, perhaps to this one. It arrives after this call, in the
    /// order sent.
    ///
    /// # Errors
    /// [`Refused`] gives the message back if too many wait, or the service is gone.
    pub fn tell<T, M: Received<T>>(&mut self, to: ServiceId<T>, message: M) -> Result<(), Refused<M>> {
        let known = to.runtime == self.core.registry.runtime();
        if !known || !self.core.is_reachable(to.index) {
            return Err(Refused::Gone(message));
        }
        self.core.lanes.tell(self.index, to.index, message, M::hand())
    }

    /// Runs blocking work on a thread of the runtime's small pool. The service receives its result as a
    /// message. It gets a panic of the job as [`Fault::Job`].
    ///
    /// # Errors
    /// [`Refused::Full`] gives the job back if too many wait.
    pub fn offload<M, F>(&mut self, job: F) -> Result<(), Refused<F>>
    where
        M: Received<S> + Send,
        F: FnOnce() -> M + Send + 'static,
    {
        let index = self.index as usize;
        let outstanding: u32 = self.core.records.iter().map(|record| record.jobs).sum();
        if outstanding as usize >= self.core.limits.jobs {
            return Err(Refused::Full(job));
        }
        let (mailbox, service, life) = (self.core.mailbox.clone(), self.index, self.life());
        let job = Kept::new(job);
        let run = move || {
            let result = Finished { life, what: Offloaded::of(|| job.into_inner()()) };
            // A service that is gone needs no result.
            let _ = mailbox.send_reserved(service, result, M::deliver_job());
        };
        let job = self.core.engine.host_mut().run_blocking(Box::new(run));
        if let Some(record) = self.core.records.get_mut(index) {
            record.jobs += 1;
        }
        // Room was checked above. The only remaining failure is the system's refusal of the first thread.
        if let Some(Err(refused)) = job.map(|job| self.core.jobs.run(job)) {
            let fault = Fault::Job(refused.to_string());
            self.core.faults_due.push(self.index, fault);
            if let Some(record) = self.core.records.get_mut(index) {
                record.jobs -= 1;
            }
        }
        Ok(())
    }

    // The runtime.

    /// Requests one call of [`Service::end_of_turn`] at the end of this turn. Further requests before the
    /// call change nothing.
    ///
    /// A request from a handler that runs after that, namely [`closed`](crate::Handle::closed), or from
    /// outside a turn ([`Service::start`], [`Runtime::with`](crate::Runtime::with)), is met at the end of the
    /// next turn, which then does not wait.
    ///
    /// A request from within `end_of_turn` is also met at the end of the next turn, but does not cause one.
    /// So a service that makes a request in each call gets one call in each turn, and an idle loop still
    /// rests. A service that has more to do at once should [send](Context::tell) itself a message instead.
    pub fn at_end_of_turn(&mut self) {
        self.core.turn_ends.ask(self.index);
    }

    /// Returns the id of this service, with which others can send it messages.
    pub fn me(&self) -> ServiceId<S> {
        ServiceId::new(self.core.registry.runtime(), self.index)
    }

    /// Returns a handle by which other threads reach this service. While one lives, `run` does not end by
    /// itself.
    pub fn controller(&self) -> Controller<S>
    where
        S: Service,
    {
        Controller::new(self.index, &self.core.mailbox)
    }

    /// Keeps the runtime from ending by itself, and a stop from finishing before its grace, until the
    /// returned value is dropped. See [`Hold`] for the cases that need none.
    pub fn hold(&self) -> Hold {
        Hold::new(Held::new(&self.core.mailbox))
    }

    /// Begins a graceful stop of the whole runtime. Resources that remain after `grace` are cut off. The
    /// earliest of several deadlines wins.
    ///
    /// In the next turns, the runtime first accepts the connections in the listeners' backlogs. Then it
    /// closes the listeners, and calls [`Service::stop`]. The stop is over when only background resources
    /// remain, and no job, file operation, message between services or [`Hold`] is outstanding. If only
    /// messages between services remain, the runtime waits for them for at most 1,024 turns, because a
    /// service that always sends itself another one would never finish.
    pub fn stop(&mut self, grace: Duration) {
        self.core.mailbox.stop((Time::ZERO + grace).as_nanos());
    }
}

pub(crate) fn to_address(operation: &'static str, address: &impl ToAddress) -> Result<Address, Error> {
    address.to_address().map_err(|error| Error::os(operation, "address", error))
}

/// Returns the name of a resource for errors.
pub(crate) fn name_of<R: Resource>(id: Id<R>) -> String {
    format!("{} {id:?}", crate::log::short(type_name::<R>()))
}
