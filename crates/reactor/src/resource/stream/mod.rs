//! Byte streams: a codec over layers over any transport. This file says what a user sees of one.

mod attempt;
mod change;
mod close;
mod drive;
mod feed;
mod item;
mod link;
mod loose;
mod options;
mod pressure;
mod write;

use std::{any::Any, fmt, io, marker::PhantomData, sync::Arc, time::Duration};

use session::{Bytes, Codec, Layer, Session, Shared};

pub(crate) use self::loose::Losses;
pub use self::options::StreamOptions;
pub(crate) use self::{
    attempt::is_passing,
    change::{Rest, map_codec, map_layer},
    drive::with_layer,
    feed::Way,
};
use self::{link::Link, loose::Loose};
use super::{Output, Resource, Table};
use crate::{
    address::Address,
    core::Core,
    credentials::Credentials,
    engine::{Interest, Outgoing, Ready, Source, Transport},
    error::{Error, Result},
    id::Key,
    options::ConnectOptions,
    resource::Io,
    service::Handle,
};

/// A byte stream over TCP, a Unix socket, a pipe's two ends or a simulated link: the transport is not in
/// the type.
///
/// `C` cuts the bytes into items, `L` is what lies between the codec and the wire (TLS, a proxy
/// handshake, ..; `()` is nothing), and `Role` tells two uses of the same stack apart, so that a service
/// can handle its public and its administrative connections by two `Handle` impls.
///
/// Made by the service, it comes to life by [`listen`](crate::Context::listen),
/// [`connect`](crate::Context::connect) or [`add`](crate::Context::add). Its life is
/// `Open, (Received | Drained)*, End?`, then `closed`.
///
/// Whenever output that was accepted does not leave whole, whatever the reason, a TCP peer sees a reset and no end in
/// order, and a layer tells no end of its own. This holds for a stream that was released and is dropped, too. A Unix socket and a pipe know no reset: their peer sees an end, and can tell
/// a part from the whole only by what the bytes themselves say, for example by a length or a mark at the end.
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
    /// What a stream owns outside of a runtime.
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
    /// Bytes of the queue that its own input caused.
    caused: usize,
    /// Handed to the engine, and not taken by the kernel when it was closed.
    lost: usize,
    /// `Open` was told.
    opened: bool,
    paused: bool,
    /// The service was told to hold back, and not yet to go on.
    high: bool,
    ended: bool,
    end_told: bool,
    /// The service has got `HungUp`.
    hung_up: bool,
    shut: bool,
    /// Why the input ended, which was not told yet.
    error: Option<(&'static str, io::Error)>,
    /// How much of the service's deadline was left.
    deadline: Option<Duration>,
    /// Where the transport's connect, which is under way, leads.
    target: Option<Address>,
}

impl<C: Codec> Stream<C> {
    /// Creates a stream of this codec without layers.
    pub fn new(codec: C) -> Stream<C> {
        Stream::over(codec, ())
    }
}

impl<C: Codec, L: Layer> Stream<C, L> {
    /// Creates a stream of this codec over this layer (or stack of layers).
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
    /// The same stream in another role.
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

    /// Sets marks, limits and deadlines; one set may be shared by all streams.
    pub fn options(mut self, options: impl Into<Arc<StreamOptions>>) -> Stream<C, L, R> {
        self.options = Some(options.into());
        self
    }

    /// Keeps the stream open when the peer has ended: it closes when the service closes it.
    ///
    /// A peer that ends only its write side (`shutdown(SHUT_WR)`, as `nc -N` does at the end of its input) looks the same as
    /// a peer that is gone. Without half-open streams both are an end: after [`Event::End`] the stream closes, and
    /// an answer that the service sends later is dropped. What the handler sends during that call still leaves.
    pub fn half_open(mut self, half_open: bool) -> Stream<C, L, R> {
        self.half_open = half_open;
        self
    }

    /// Gives the stream a connected socket, an end of a pipe or a device: `add` takes it then.
    ///
    /// # Errors
    /// As [`Transport::adopt`].
    #[cfg(unix)]
    pub fn on(self, descriptor: impl Into<std::os::fd::OwnedFd>) -> io::Result<Stream<C, L, R>> {
        self.on_descriptor(descriptor.into())
    }

    /// Gives the stream a connected transport: `add` takes it then.
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

    /// Gives the stream this transport: standard input, a pipe of a child process, or one that a simulated
    /// world made. `add` takes it then.
    ///
    /// What the transport cannot do the stream cannot either; see [`Medium`](crate::engine::Medium). A
    /// *read-only* stream answers a `send` with [`Flow::Gone`], and closes at once, since it has nothing to
    /// flush. A *write-only* one has no input; it is told [`Event::End`] when its reader has left, and when it
    /// closes or is [`finish`](crate::Context::finish)ed its reader sees the end. A write that meets no reader any
    /// more ends it as [`Closed::Failed`](crate::Closed::Failed) with EPIPE, never with a signal.
    pub fn through(mut self, transport: Transport) -> Stream<C, L, R> {
        let unsent = self.session.queued();
        self.carried.get_or_insert_default().loose = Some(Loose::new(transport).with(unsent, false));
        self
    }

    /// Gives the stream a socket whose connect to `target` is under way: `add` takes it then, and `Open` or `closed`
    /// follows as after [`Context::connect`](crate::Context::connect), under the same deadline. The socket becomes
    /// non-blocking and CLOEXEC.
    ///
    /// For a connect that needs what [`ConnectOptions`] lacks, for example an option that is set before it. A socket
    /// that was not asked to connect must not be given: it costs turns until the deadline.
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

    /// Queues an item in a stream outside of a runtime: it is the first to leave. For the last words of
    /// [`Accept::Dismiss`](crate::Accept::Dismiss), for example.
    ///
    /// # Errors
    /// What the codec says of an item that it cannot encode; nothing of it is queued.
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

    /// The codec.
    pub fn codec(&self) -> &C {
        &self.codec
    }

    /// The codec, to be changed: the next item is cut by what it is then.
    pub fn codec_mut(&mut self) -> &mut C {
        &mut self.codec
    }

    /// The layer, to ask what it learned. What needs its buffers goes through
    /// [`Context::layer`](crate::Context::layer).
    pub fn layer(&self) -> &L {
        self.session.layer()
    }

    /// Whether this end connected (and did not accept).
    pub fn is_outbound(&self) -> bool {
        self.outbound
    }

    /// Bytes that the kernel has not taken: queued now, or lost when the stream ended.
    pub fn unsent(&self) -> usize {
        self.session.queued() + self.carried.as_ref().map_or(0, |carried| carried.lost)
    }

    /// Bytes that arrived and that no handler saw, of a stream that was released, or whose connection failed while the
    /// service paused it.
    pub fn unread(&self) -> &[u8] {
        self.carried.as_ref().map_or(&[], |carried| &carried.unread)
    }

    /// The transport of a stream that was released: to go on with it in another way, or to pass it to another
    /// process. What was unread or unsent is dropped, and how the transport ends is up to the caller.
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

/// What happens to a stream.
pub enum Event<'a, C: Codec> {
    /// It is connected, and every layer has finished its handshake. Comes first, and once.
    Open,
    /// An item arrived. It borrows the runtime's buffer for the call.
    Received(C::In<'a>),
    /// The peer sends no more. After this call the stream closes gracefully, unless it is
    /// [`half_open`](Stream::half_open) or coupled. It also comes while the stream is
    /// [paused](crate::Context::pause), if no unread input is before it.
    End,
    /// The write queue was above its high mark, and is below its low mark again.
    Drained,
    /// The stream is [paused](crate::Context::pause), and the peer has ended its side behind input that no handler has seen.
    /// [`End`](Event::End) comes behind that input, after a resume. This event comes at most once. The peer has probably
    /// gone, but a peer that waits for an answer before it closes looks the same.
    HungUp,
}

/// What became of a `send`. Not a `Result`: a `?` in a broadcast would end the wrong connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// Queued; leaves at the end of the turn.
    Queued,
    /// Queued, and the queue is above its high mark: hold back until [`Event::Drained`].
    High,
    /// The item is dropped: there is no such resource any more, this item ended it, or it is a stream that is only read. Or
    /// the resource is closing: because the service closed or finished it, or for any other reason whose `closed` is on its
    /// way. That `closed` does not mention the item.
    Gone,
    /// The queue has no room, and the item is dropped: an answer of [`Datagrams`](crate::Datagrams) only,
    /// since a stream without room ends. Hold back until [`DatagramEvent::Drained`](crate::DatagramEvent::Drained).
    Full,
}

/// What listeners accept and `connect` takes.
///
/// Implemented by [`Stream`] and, on Unix, by `Descriptors` alone.
pub trait Connection: Resource + Output + sealed::Sealed {
    /// Registers it with its transport: connected, or on its way to `target`.
    #[doc(hidden)]
    fn attach(
        self,
        core: &mut Core,
        service: u16,
        table: &'static Table,
        transport: Transport,
        target: Option<&Address>,
    ) -> Result<Key, (Self, Error)>;

    /// Registers it on its way to `target`, which refuses it for now: it is asked again until the connect's deadline.
    #[doc(hidden)]
    fn attempt(
        self,
        core: &mut Core,
        service: u16,
        table: &'static Table,
        target: &Address,
        options: &ConnectOptions,
    ) -> Result<Key, (Self, Error)>;

    /// Starts an accepted stream, whose transport is up.
    #[doc(hidden)]
    fn up<S: Handle<Self>>(core: &mut Core, service: &mut S, key: Key);

    /// Who is at the other end.
    #[doc(hidden)]
    fn credentials(core: &Core, key: Key) -> io::Result<Credentials>;
}

/// A stream, whatever its codec, layers and role.
///
/// Implemented by [`Stream`] alone.
pub trait AnyStream: Connection {
    #[doc(hidden)]
    fn couple(core: &mut Core, key: Key);

    #[doc(hidden)]
    fn is_leaving(core: &mut Core, key: Key) -> bool;

    #[doc(hidden)]
    fn share(core: &mut Core, index: u16, key: Key, bytes: &Shared) -> Flow;

    #[doc(hidden)]
    fn give(core: &mut Core, index: u16, key: Key, bytes: Vec<u8>) -> Flow;

    #[doc(hidden)]
    fn begin_feed(core: &mut Core, key: Key) -> bool;

    #[doc(hidden)]
    fn feed(core: &mut Core, index: u16, key: Key, bytes: Vec<u8>) -> Flow;

    #[doc(hidden)]
    fn way(core: &mut Core, key: Key) -> Way;

    #[doc(hidden)]
    fn await_low(core: &mut Core, key: Key);

    #[doc(hidden)]
    fn await_room(core: &mut Core, key: Key) -> bool;

    #[doc(hidden)]
    fn end_feed(core: &mut Core, key: Key, is_whole: bool);

    #[doc(hidden)]
    fn fail_feed(core: &mut Core, key: Key, error: io::Error);

    #[doc(hidden)]
    fn patience(core: &mut Core, key: Key) -> Duration;
}

mod sealed {
    pub trait Sealed {}
    impl<C, L, R> Sealed for super::Stream<C, L, R> {}
    #[cfg(unix)]
    impl Sealed for crate::resource::Descriptors {}
}

impl<C: Codec, L: Layer, R: 'static> Resource for Stream<C, L, R> {
    type Event<'a> = Event<'a, C>;

    fn source(&self) -> Source<'_> {
        // Only a stream outside of a runtime has its transport; the runtime never asks.
        let loose = self.carried.as_ref().and_then(|carried| carried.loose.as_ref());
        loose.and_then(Loose::source).unwrap_or(Source::hosted(u64::MAX))
    }

    fn step<'a>(&mut self, _: Ready, _: &mut Io<'_>, _: &'a mut [u8]) -> io::Result<Option<Event<'a, C>>> {
        Ok(None)
    }

    fn interest(&self) -> Option<Interest> {
        None
    }

    fn table<S: Handle<Self>>() -> &'static Table {
        link::table::<S, C, L, R>()
    }

    fn view(slot: &dyn Any) -> Option<&Self> {
        slot.downcast_ref::<Link<C, L, R>>().map(|link| &link.stream)
    }

    fn view_mut(slot: &mut dyn Any) -> Option<&mut Self> {
        slot.downcast_mut::<Link<C, L, R>>().map(|link| &mut link.stream)
    }

    fn enroll(mut self, core: &mut Core, service: u16, table: &'static Table) -> Result<Key, (Self, Error)> {
        let loose = self.carried.as_mut().and_then(|carried| carried.loose.take());
        let is_cut = loose.as_ref().is_some_and(|loose| loose.is_cut);
        match loose.and_then(Loose::take) {
            Some(transport) => {
                let deadline = self.carried.as_ref().and_then(|carried| carried.deadline);
                let target = self.carried.as_mut().and_then(|carried| carried.target.take());
                let key = match self.attach(core, service, table, transport, target.as_ref()) {
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
                // It starts, or goes on from where it was released, in the next turn.
                if let Some(link) = link::find::<C, L, R>(core, key) {
                    link.open_due = true;
                    if is_cut {
                        link.rare().is_cut = true;
                    }
                }
                if deadline.is_some() {
                    core.set_deadline(key, deadline);
                }
                core.drive_again(key);
                // A stream that was paused is not read meanwhile.
                core.mark(key);
                Ok(key)
            }
            None => Err((
                self,
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

    fn encode(&mut self, item: C::Out<'_>, out: &mut Outgoing) -> Result {
        self.codec.encode(item, out)
    }

    #[inline]
    fn post(core: &mut Core, index: u16, key: Key, item: C::Out<'_>) -> Flow {
        write::post::<C, L, R>(core, index, key, |codec, out| codec.encode(item, out))
    }
}

impl<C: Codec, L: Layer, R: 'static> Connection for Stream<C, L, R> {
    fn attach(
        self,
        core: &mut Core,
        service: u16,
        table: &'static Table,
        transport: Transport,
        target: Option<&Address>,
    ) -> Result<Key, (Self, Error)> {
        link::attach(self, core, service, table, transport, target)
    }

    fn attempt(
        self,
        core: &mut Core,
        service: u16,
        table: &'static Table,
        target: &Address,
        options: &ConnectOptions,
    ) -> Result<Key, (Self, Error)> {
        link::attempt(self, core, service, table, target, options)
    }

    fn up<S: Handle<Self>>(core: &mut Core, service: &mut S, key: Key) {
        drive::up::<S, C, L, R>(core, service, key);
    }

    fn credentials(core: &Core, key: Key) -> io::Result<Credentials> {
        core.engine.peer_credentials(key)
    }
}

impl<C: Codec, L: Layer, R: 'static> AnyStream for Stream<C, L, R> {
    fn couple(core: &mut Core, key: Key) {
        if let Some(link) = link::find::<C, L, R>(core, key) {
            link.coupled = true;
            if link.end_told {
                // It is passed on when the handler has returned, which may still send what it has kept.
                core.drive_again(key);
            }
        }
        core.mark(key);
    }

    fn is_leaving(core: &mut Core, key: Key) -> bool {
        link::find::<C, L, R>(core, key).is_some_and(|link| link.releasing)
    }

    fn share(core: &mut Core, index: u16, key: Key, bytes: &Shared) -> Flow {
        write::post::<C, L, R>(core, index, key, |_, out| {
            out.share(bytes.clone());
            Ok(())
        })
    }

    fn give(core: &mut Core, index: u16, key: Key, bytes: Vec<u8>) -> Flow {
        write::post::<C, L, R>(core, index, key, |_, out| {
            out.give(bytes);
            Ok(())
        })
    }

    fn begin_feed(core: &mut Core, key: Key) -> bool {
        feed::begin::<C, L, R>(core, key)
    }

    fn feed(core: &mut Core, index: u16, key: Key, bytes: Vec<u8>) -> Flow {
        feed::feed::<C, L, R>(core, index, key, bytes)
    }

    fn way(core: &mut Core, key: Key) -> Way {
        feed::way::<C, L, R>(core, key)
    }

    fn await_low(core: &mut Core, key: Key) {
        feed::await_low::<C, L, R>(core, key);
    }

    fn await_room(core: &mut Core, key: Key) -> bool {
        feed::await_room::<C, L, R>(core, key)
    }

    fn fail_feed(core: &mut Core, key: Key, error: io::Error) {
        write::write_failed::<C, L, R>(core, key, error);
    }

    fn end_feed(core: &mut Core, key: Key, is_whole: bool) {
        feed::end::<C, L, R>(core, key, is_whole);
    }

    fn patience(core: &mut Core, key: Key) -> Duration {
        let link = link::find::<C, L, R>(core, key);
        link.map_or(StreamOptions::DEFAULT.close, |link| link.options().close)
    }
}
