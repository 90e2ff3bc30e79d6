//! Byte streams: a codec over layers over any transport. This file holds the types that a user sees.

mod after;
mod attempt;
mod change;
mod close;
mod conn;
mod feed;
mod input;
mod item;
mod link;
mod loose;
mod options;
mod output;
mod pressure;

use std::{any::Any, fmt, io, marker::PhantomData, sync::Arc, time::Duration};

use session::{Bytes, Codec, Layer, Session, Shared};

pub(crate) use self::loose::Losses;
pub use self::options::StreamOptions;
pub(crate) use self::{
    attempt::is_passing,
    change::{Undelivered, map_codec, map_layer},
    feed::SendPath,
    input::with_layer,
};
use self::{conn::Conn, link::Link, loose::Loose};
use super::{Driver, Output, OutputDriver, Resource, Served, Vtable};
use crate::{
    address::Address,
    credentials::Credentials,
    engine::Transport,
    error::{Error, Result},
    id::Key,
    options::ConnectOptions,
    runtime::{Handle, LoopState},
};

/// A byte stream over TCP, a Unix socket, the two ends of a pipe or a simulated link. Its type does not name
/// the transport.
///
/// `C` cuts the bytes into items. `L` stands between the codec and the wire, for example TLS or a proxy
/// handshake; `()` is no layer. `Role` distinguishes two uses of the same stack, so that a service can handle
/// its public and its administrative connections by two `Handle` impls.
///
/// The service makes a stream, and [`listen`](crate::Context::listen), [`connect`](crate::Context::connect)
/// or [`add`](crate::Context::add) brings it to life. Its life is `Open, (Received | Drained)*, End?`, then
/// `closed`.
///
/// If any accepted output does not leave, for whatever reason, a TCP peer sees a reset and not an orderly
/// end, and a layer does not announce its own end. This also holds for a stream that was released and then
/// dropped. Unix sockets and pipes have no reset: their peer sees an end, and can recognize truncated output
/// only by the bytes themselves, for example by a length or an end mark.
///
/// ```
/// use reactor::{Lines, Stream};
/// struct Admin;
/// let public = Stream::new(Lines::new());
/// let admin: Stream<Lines, (), Admin> = Stream::new(Lines::new()).role();
/// # let _ = (public, admin);
/// ```
pub struct Stream<C = Bytes, L = (), Role = ()> {
    codec: C,
    session: Session<L>,
    options: Option<Arc<StreamOptions>>,
    half_open: bool,
    outbound: bool,
    /// The state of a stream outside of a runtime.
    carried: Option<Box<Carried>>,
    role: PhantomData<fn() -> Role>,
}

/// The transport of a stream outside of a runtime, and the bytes that belong to it.
#[derive(Default)]
struct Carried {
    /// Taken whenever the stream enters a runtime.
    loose: Option<Loose>,
    unread: Vec<u8>,
    raw: Vec<u8>,
    /// The codec has seen all of `unread`, and needs more.
    partial: bool,
    /// How many queued bytes the stream's own input caused.
    caused: usize,
    /// Bytes that the engine had, and that the kernel had not taken when the transport closed.
    lost: usize,
    /// How far its earlier life had come.
    conn: Conn,
    /// The error that ended the input, if the service has not got it yet.
    error: Option<(&'static str, io::Error)>,
    /// The time that was left until the service's deadline.
    deadline: Option<Duration>,
    /// The target of the transport's connect, while that is under way.
    target: Option<Address>,
}

impl<C: Codec> Stream<C> {
    /// Creates a stream with this codec and without layers.
    pub fn new(codec: C) -> Stream<C> {
        Stream::over(codec, ())
    }
}

impl<C: Codec, L: Layer> Stream<C, L> {
    /// Creates a stream with this codec over this layer or stack of layers.
    pub fn over(codec: C, layer: L) -> Stream<C, L> {
        Stream {
            codec,
            session: Session::new(layer),
            options: None,
            half_open: false,
            outbound: false,
            carried: None,
            role: PhantomData,
        }
    }
}

impl<C: Codec, L: Layer, R: 'static> Stream<C, L, R> {
    /// Returns the same stream in another role.
    pub fn role<Other: 'static>(self) -> Stream<C, L, Other> {
        Stream {
            codec: self.codec,
            session: self.session,
            options: self.options,
            half_open: self.half_open,
            outbound: self.outbound,
            carried: self.carried,
            role: PhantomData,
        }
    }

    /// Sets marks, limits and deadlines. All streams may share one set.
    #[must_use]
    pub fn options(mut self, options: impl Into<Arc<StreamOptions>>) -> Stream<C, L, R> {
        self.options = Some(options.into());
        self
    }

    /// Keeps the stream open after the peer has ended its side, until the service closes it.
    ///
    /// A peer that ends only its write side (`shutdown(SHUT_WR)`, as `nc -N` does at the end of its input)
    /// looks the same as a peer that is gone. Without half-open streams both are an end: after [`Event::End`]
    /// the stream closes, and an answer that the service sends later is dropped. Output that the handler
    /// sends during that call still leaves.
    #[must_use]
    pub fn half_open(mut self, half_open: bool) -> Stream<C, L, R> {
        self.half_open = half_open;
        self
    }

    /// Gives the stream a connected socket, an end of a pipe or a device, for [`add`](crate::Context::add).
    ///
    /// # Errors
    /// As [`Transport::adopt`].
    #[cfg(unix)]
    pub fn on(self, descriptor: impl Into<std::os::fd::OwnedFd>) -> io::Result<Stream<C, L, R>> {
        self.on_descriptor(descriptor.into())
    }

    /// Gives the stream a connected transport, for [`add`](crate::Context::add).
    ///
    /// # Errors
    /// The socket cannot be made non-blocking.
    #[cfg(windows)]
    pub fn on(self, socket: impl Into<std::os::windows::io::OwnedSocket>) -> io::Result<Stream<C, L, R>> {
        self.on_descriptor(socket.into())
    }

    fn on_descriptor(self, descriptor: crate::sys::Owned) -> io::Result<Stream<C, L, R>> {
        Ok(self.through(Transport::adopt(descriptor)?))
    }

    /// Gives the stream this transport, for [`add`](crate::Context::add). It may be standard input, a pipe of
    /// a child process, or a transport of a simulated world.
    ///
    /// The stream can do only what its transport can; see [`Medium`](crate::engine::Medium). A *read-only*
    /// stream answers a `send` with [`Flow::Gone`], and closes at once, because it has nothing to flush. A
    /// *write-only* stream has no input. Its service gets [`Event::End`] when its reader has left. Its reader
    /// sees the end when the stream closes or is [`finish`](crate::Context::finish)ed. A write without a
    /// reader ends the stream as [`Closed::Failed`](crate::Closed::Failed) with EPIPE, never with a signal.
    #[must_use]
    pub fn through(mut self, transport: Transport) -> Stream<C, L, R> {
        let unsent = self.session.queued();
        self.carried.get_or_insert_default().loose = Some(Loose::new(transport).with(unsent, false));
        self
    }

    /// Gives the stream a socket whose connect to `target` is under way, for [`add`](crate::Context::add).
    /// `Open` or `closed` then follows as after [`Context::connect`](crate::Context::connect), under the same
    /// deadline. The socket becomes non-blocking and CLOEXEC.
    ///
    /// Use it if a connect needs something that [`ConnectOptions`] lacks, for example an option that must be
    /// set before it. Do not give a socket that was not asked to connect, because it costs turns until the
    /// deadline.
    ///
    /// # Errors
    /// As [`Transport::adopt`].
    pub fn connecting(
        self,
        socket: impl Into<crate::sys::Owned>,
        target: Address,
    ) -> io::Result<Stream<C, L, R>> {
        let mut stream = self.through(Transport::adopt(socket)?);
        stream.carried.get_or_insert_default().target = Some(target);
        Ok(stream)
    }

    /// Queues an item in a stream outside of a runtime. It leaves first. Use it for example for the last
    /// words of [`Accept::Dismiss`](crate::Accept::Dismiss).
    ///
    /// # Errors
    /// The codec's error for an item that it cannot encode. None of the item is queued then.
    pub fn queue(mut self, item: C::Out<'_>) -> Result<Self> {
        let out = self.session.out(&mut session::Pool::new());
        let mark = out.mark();
        let encoded = self.codec.encode(item, out);
        if encoded.is_err() {
            out.rollback(mark);
        }
        let unsent = self.unsent();
        if let Some(loose) = self.carried.as_mut().and_then(|carried| carried.loose.as_mut()) {
            loose.unsent = unsent;
        }
        encoded.map(|()| self)
    }

    /// Returns the codec.
    pub fn codec(&self) -> &C {
        &self.codec
    }

    /// Returns the codec, to change it. The changed codec cuts the next item.
    pub fn codec_mut(&mut self) -> &mut C {
        &mut self.codec
    }

    /// Returns the layer, to read its state. For operations that need its buffers, use
    /// [`Context::layer`](crate::Context::layer).
    pub fn layer(&self) -> &L {
        self.session.layer()
    }

    /// Returns whether this end connected (and did not accept).
    pub fn is_outbound(&self) -> bool {
        self.outbound
    }

    /// Returns how many bytes the kernel has not taken: queued now, or lost when the stream ended.
    pub fn unsent(&self) -> usize {
        self.session.queued() + self.carried.as_ref().map_or(0, |carried| carried.lost)
    }

    /// Returns bytes that arrived and that no handler saw. There may be some if the stream was released, or
    /// if its connection failed while the service paused it.
    pub fn unread(&self) -> &[u8] {
        self.carried.as_ref().map_or(&[], |carried| &carried.unread)
    }

    /// Returns the transport of a released stream, to use it in another way or to pass it to another process.
    /// Unread and unsent bytes are dropped, and the caller decides how the transport ends.
    pub fn into_transport(self) -> Option<Transport> {
        self.carried.and_then(|carried| carried.loose).and_then(Loose::take)
    }

    fn settings(&self) -> &StreamOptions {
        self.options.as_deref().unwrap_or(&StreamOptions::DEFAULT)
    }
}

impl<C: fmt::Debug, L, R> fmt::Debug for Stream<C, L, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("codec", &self.codec).field("outbound", &self.outbound).finish()
    }
}

/// An event of a stream.
pub enum Event<'a, C: Codec> {
    /// The stream is connected, and every layer has finished its handshake. It is the first event, and comes
    /// once.
    Open,
    /// An item arrived. It borrows the runtime's buffer for the call.
    Received(C::In<'a>),
    /// The peer sends no more. After this call the stream closes gracefully, unless it is
    /// [`half_open`](Stream::half_open) or paired. The event also comes while the stream is
    /// [paused](crate::Context::pause), if there is no unread input before it.
    End,
    /// The write queue was above its high mark, and is below its low mark again.
    Drained,
    /// The stream is [paused](crate::Context::pause), and the peer has ended its side behind input that no
    /// handler has seen. After a resume, [`End`](Event::End) follows that input. This event comes at most
    /// once. The peer has probably gone, but a peer that waits for an answer before it closes looks the same.
    HungUp,
}

impl<'a, C: Codec<In<'a>: fmt::Debug>> fmt::Debug for Event<'a, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Open => f.write_str("Open"),
            Event::Received(item) => f.debug_tuple("Received").field(item).finish(),
            Event::End => f.write_str("End"),
            Event::Drained => f.write_str("Drained"),
            Event::HungUp => f.write_str("HungUp"),
        }
    }
}

/// The result of a `send`. It is no `Result`, because a `?` in a broadcast would end the wrong connection.
///
/// ```
/// use reactor::{Bytes, Context, Event, Flow, Handle, Id, Result, Service, Stream};
///
/// /// Sends each client as much as it takes.
/// struct Source;
///
/// impl Source {
///     fn send(&mut self, cx: &mut Context<Self>, id: Id<Stream>) {
///         // `High` and `Gone` both end the loop. `Drained` continues it, and `closed` follows a `Gone`.
///         while cx.send(id, &[b'x'; 4096]) == Flow::Queued {}
///     }
/// }
///
/// impl Service for Source {}
///
/// impl Handle<Stream> for Source {
///     fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
///         if matches!(event, Event::Open | Event::Drained) {
///             self.send(cx, id);
///         }
///         Ok(())
///     }
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// The item is queued, and leaves at the end of the turn.
    Queued,
    /// The item is queued, and the queue is above its high mark. Hold back until [`Event::Drained`].
    High,
    /// The item is dropped. Either the resource no longer exists, or this item ended it, or it is a read-only
    /// stream. Or the resource is closing, because the service closed or finished it, or for another reason.
    /// Then its `closed` follows, and does not mention the item.
    Gone,
    /// The queue has no room, and the item is dropped. Only [`Datagrams`](crate::Datagrams) answer so,
    /// because a stream without room ends. Hold back until
    /// [`DatagramEvent::Drained`](crate::DatagramEvent::Drained).
    Full,
}

/// A connection that listeners accept and `connect` makes.
///
/// Only [`Stream`] and, on Unix, `Descriptors` implement it.
pub trait Connection: Resource + Output + sealed::Connecting {}

/// A stream with any codec, layers and role.
///
/// Only [`Stream`] implements it.
pub trait AnyStream: Connection + sealed::Streaming {}

/// What the runtime does with connections. The traits are out of reach, so nobody else implements them, and their
/// methods may name types of the loop.
pub(crate) mod sealed {
    use super::*;

    pub trait Connecting: Resource + Output {
        /// Registers it with its transport, which is connected or connecting to `target`.
        fn attach(
            self,
            core: &mut LoopState,
            service: u16,
            table: &'static Vtable,
            transport: Transport,
            target: Option<&Address>,
        ) -> Result<Key, (Self, Error)>;

        /// Registers it while the system refuses the connect to `target` for now. The runtime tries again until
        /// the connect's deadline.
        fn attempt(
            self,
            core: &mut LoopState,
            service: u16,
            table: &'static Vtable,
            target: &Address,
            options: &ConnectOptions,
        ) -> Result<Key, (Self, Error)>;

        /// Starts an accepted stream, whose transport is up.
        fn up<S: Handle<Self>>(core: &mut LoopState, service: &mut S, key: Key);

        /// Returns the credentials of the peer.
        fn credentials(core: &LoopState, key: Key) -> io::Result<Credentials>;
    }

    pub trait Streaming: Connecting {
        /// Notes that the stream has a partner.
        fn pair(core: &mut LoopState, key: Key);

        /// Returns whether it is being released.
        fn is_leaving(core: &mut LoopState, key: Key) -> bool;

        /// Queues shared bytes.
        fn share(core: &mut LoopState, index: u16, key: Key, bytes: &Shared) -> Flow;

        /// Queues bytes with their memory.
        fn give(core: &mut LoopState, index: u16, key: Key, bytes: Vec<u8>) -> Flow;

        /// Binds it to a transfer, unless it is closing or bound already.
        fn begin_feed(core: &mut LoopState, key: Key) -> bool;

        /// Queues a part of a transfer's file.
        fn feed(core: &mut LoopState, index: u16, key: Key, bytes: Vec<u8>) -> Flow;

        /// Returns how the bytes of a file reach it.
        fn send_path(core: &mut LoopState, key: Key) -> SendPath;

        /// Requests a call when the queue is low.
        fn await_low(core: &mut LoopState, key: Key);

        /// Requests a call when the transport has room.
        fn await_room(core: &mut LoopState, key: Key) -> bool;

        /// Ends its transfer.
        fn end_feed(core: &mut LoopState, key: Key, is_whole: bool);

        /// Ends it, because its transfer could not write.
        fn fail_feed(core: &mut LoopState, key: Key, error: io::Error);

        /// Returns how long it may wait for a part that a thread moves.
        fn patience(core: &mut LoopState, key: Key) -> Duration;
    }
}

impl<C: Codec, L: Layer, R: 'static> Resource for Stream<C, L, R> {
    type Event<'a> = Event<'a, C>;
    type Driver = Served;
}

impl<C: Codec, L: Layer, R: 'static> Driver<Stream<C, L, R>> for Served {
    fn table<S: Handle<Stream<C, L, R>>>() -> &'static Vtable {
        link::table::<S, C, L, R>()
    }

    fn view(slot: &dyn Any) -> Option<&Stream<C, L, R>> {
        slot.downcast_ref::<Link<C, L, R>>().map(|link| &link.stream)
    }

    fn view_mut(slot: &mut dyn Any) -> Option<&mut Stream<C, L, R>> {
        slot.downcast_mut::<Link<C, L, R>>().map(|link| &mut link.stream)
    }

    fn enroll(
        mut stream: Stream<C, L, R>,
        core: &mut LoopState,
        service: u16,
        table: &'static Vtable,
    ) -> Result<Key, (Stream<C, L, R>, Error)> {
        let loose = stream.carried.as_mut().and_then(|carried| carried.loose.take());
        let is_cut = loose.as_ref().is_some_and(|loose| loose.is_cut);
        match loose.and_then(Loose::take) {
            Some(transport) => {
                let deadline = stream.carried.as_ref().and_then(|carried| carried.deadline);
                let target = stream.carried.as_mut().and_then(|carried| carried.target.take());
                let key = match sealed::Connecting::attach(
                    stream,
                    core,
                    service,
                    table,
                    transport,
                    target.as_ref(),
                ) {
                    Ok(key) => key,
                    Err((mut back, error)) => {
                        let carried = back.carried.get_or_insert_default();
                        (carried.deadline, carried.target) = (deadline, target);
                        if let Some(loose) = &mut carried.loose {
                            loose.is_cut = is_cut;
                        }
                        return Err((back, error));
                    }
                };
                if target.is_some() {
                    return Ok(key);
                }
                // The next turn starts the stream, or continues from the point of its release.
                if let Some(link) = link::find::<C, L, R>(core, key) {
                    link.conn.start_later();
                    if is_cut {
                        link.rare().is_cut = true;
                    }
                }
                if deadline.is_some() {
                    core.set_deadline(key, deadline);
                }
                core.drive_again(key);
                // The flush then stops the engine from reading a paused stream meanwhile.
                core.mark(key);
                Ok(key)
            }
            None => Err((
                stream,
                Error::Misuse {
                    operation: "add",
                    why: "the stream has no transport: use listen, connect or on",
                },
            )),
        }
    }
}

impl<C: Codec, L: Layer, R: 'static> Output for Stream<C, L, R> {
    type Item<'a> = C::Out<'a>;
}

impl<C: Codec, L: Layer, R: 'static> OutputDriver<Stream<C, L, R>> for Served {
    #[inline]
    fn post(core: &mut LoopState, index: u16, key: Key, item: C::Out<'_>) -> Flow {
        output::post::<C, L, R>(core, index, key, |codec, out| codec.encode(item, out))
    }
}

impl<C: Codec, L: Layer, R: 'static> Connection for Stream<C, L, R> {}

impl<C: Codec, L: Layer, R: 'static> sealed::Connecting for Stream<C, L, R> {
    fn attach(
        self,
        core: &mut LoopState,
        service: u16,
        table: &'static Vtable,
        transport: Transport,
        target: Option<&Address>,
    ) -> Result<Key, (Self, Error)> {
        link::attach(self, core, service, table, transport, target)
    }

    fn attempt(
        self,
        core: &mut LoopState,
        service: u16,
        table: &'static Vtable,
        target: &Address,
        options: &ConnectOptions,
    ) -> Result<Key, (Self, Error)> {
        link::attempt(self, core, service, table, target, options)
    }

    fn up<S: Handle<Self>>(core: &mut LoopState, service: &mut S, key: Key) {
        input::up::<S, C, L, R>(core, service, key);
    }

    fn credentials(core: &LoopState, key: Key) -> io::Result<Credentials> {
        core.engine.peer_credentials(key)
    }
}

impl<C: Codec, L: Layer, R: 'static> AnyStream for Stream<C, L, R> {}

impl<C: Codec, L: Layer, R: 'static> sealed::Streaming for Stream<C, L, R> {
    fn pair(core: &mut LoopState, key: Key) {
        if link::find::<C, L, R>(core, key).is_some_and(|link| link.conn.pair()) {
            // Drive it again after the handler has returned, because the handler may still send the output
            // that it kept.
            core.drive_again(key);
        }
        core.mark(key);
    }

    fn is_leaving(core: &mut LoopState, key: Key) -> bool {
        link::find::<C, L, R>(core, key).is_some_and(|link| link.conn.is_releasing())
    }

    fn share(core: &mut LoopState, index: u16, key: Key, bytes: &Shared) -> Flow {
        output::post::<C, L, R>(core, index, key, |_, out| {
            out.share(bytes.clone());
            Ok(())
        })
    }

    fn give(core: &mut LoopState, index: u16, key: Key, bytes: Vec<u8>) -> Flow {
        output::post::<C, L, R>(core, index, key, |_, out| {
            out.give(bytes);
            Ok(())
        })
    }

    fn begin_feed(core: &mut LoopState, key: Key) -> bool {
        feed::begin::<C, L, R>(core, key)
    }

    fn feed(core: &mut LoopState, index: u16, key: Key, bytes: Vec<u8>) -> Flow {
        feed::feed::<C, L, R>(core, index, key, bytes)
    }

    fn send_path(core: &mut LoopState, key: Key) -> SendPath {
        feed::send_path::<C, L, R>(core, key)
    }

    fn await_low(core: &mut LoopState, key: Key) {
        feed::await_low::<C, L, R>(core, key);
    }

    fn await_room(core: &mut LoopState, key: Key) -> bool {
        feed::await_room::<C, L, R>(core, key)
    }

    fn fail_feed(core: &mut LoopState, key: Key, error: io::Error) {
        output::write_failed::<C, L, R>(core, key, error);
    }

    fn end_feed(core: &mut LoopState, key: Key, is_whole: bool) {
        feed::end::<C, L, R>(core, key, is_whole);
    }

    fn patience(core: &mut LoopState, key: Key) -> Duration {
        let link = link::find::<C, L, R>(core, key);
        link.map_or(StreamOptions::DEFAULT.close, |link| link.options().close)
    }
}
