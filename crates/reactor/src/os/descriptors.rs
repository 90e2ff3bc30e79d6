//! Messages with descriptors, over a Unix socket.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, IoSlice},
    os::fd::OwnedFd,
    time::Duration,
};

use socket2::{SockRef, Type};

use crate::{
    address::Address,
    credentials::Credentials,
    engine::{Delivery, Descriptor, Engine, Interest, Outgoing, Ready, Source, Transport},
    error::{Error, Failure, Result},
    id::Key,
    options::ConnectOptions,
    resource::{Connecting, Connection, Io, Pollable, StreamOptions, Vtable, Writable, polled},
    runtime::{Handle, LoopState},
    sys::rights,
};

/// A Unix socket as a resource over which descriptors pass.
///
/// The service makes it. [`listen`](crate::Context::listen) or [`connect`](crate::Context::connect) brings it
/// to life over a Unix stream. With [`on`](Descriptors::on), [`add`](crate::Context::add) brings it to life
/// over any connected Unix socket: a stream, sequenced packets or datagrams. The service sends [`Message`]s
/// and gets [`Passed`] events: `Open` first, and `End` last.
///
/// # What stays together
///
/// Packets and datagrams keep their boundaries: each is one event. If one is longer than 64 KiB, the rest is
/// lost, and the event reports that it is truncated.
///
/// A stream has no boundaries, and the kernel may cut and join its bytes anywhere. The descriptors of a
/// message come in the event that has its first byte. Bytes of earlier messages may precede that byte, but no
/// event has the descriptors of two messages (unix(7) has an example). So a protocol must encode in its bytes
/// where a message ends and how many descriptors it has. The receiver queues the descriptors that arrive, and
/// takes them from the front. They are in the order sent, and never later than the bytes that refer to them.
///
/// # Bounds
///
/// A message has at most [`per_message`](Descriptors::per_message) descriptors, 16 by default. A message with
/// more does not leave. A message that arrives with more becomes [`Passed::Refused`], with its descriptors
/// closed. At most 1,024 descriptors wait to be sent, and at most 4,096 messages that are packets or have
/// descriptors. One more ends the resource. The bytes are bounded as for any [`Output`](crate::Output).
///
/// # Who owns what
///
/// A sent descriptor is closed here once it has left. If it has not left when the resource ends, it stays in
/// the resource ([`unsent`](Descriptors::unsent)), and is closed with it. A descriptor that arrives is
/// CLOEXEC, and belongs to the code that takes the event.
///
/// In a simulated world, anything that has a transport there can pass as a descriptor, for example an end of
/// a connection or a listener. The service needs no change.
///
/// ```
/// use reactor::{Context, Descriptor, Descriptors, Handle, Id, Message, Passed, Result, Service};
/// use std::{fs::File, io::Read, os::unix::net::UnixStream};
///
/// /// Reads what the files contain that are passed to it, and ends with the peer.
/// struct Reader(Option<UnixStream>, String);
///
/// impl Service for Reader {
///     fn start(&mut self, cx: &mut Context<Self>) -> Result {
///         if let Some(socket) = self.0.take() {
///             cx.add(Descriptors::new().on(socket)?)?;
///         }
///         Ok(())
///     }
/// }
///
/// impl Handle<Descriptors> for Reader {
///     fn handle(&mut self, cx: &mut Context<Self>, id: Id<Descriptors>, event: Passed<'_>) -> Result {
///         match event {
///             Passed::Received { descriptors, .. } => {
///                 for descriptor in descriptors {
///                     File::from(descriptor.into_fd()?).read_to_string(&mut self.1)?;
///                 }
///             }
///             Passed::Open => (),
///             Passed::Refused { .. } | Passed::End => cx.close(id),
///         }
///         Ok(())
///     }
/// }
/// # let (ours, theirs) = UnixStream::pair()?;
/// # let mut runtime = reactor::Runtime::new()?;
/// # let id = runtime.add(Reader(Some(theirs), String::new()))?;
/// # struct Writer(Option<UnixStream>);
/// # impl Service for Writer {
/// #     fn start(&mut self, cx: &mut Context<Self>) -> Result {
/// #         let id = cx.add(Descriptors::new().on(self.0.take().expect("it is there"))?)?;
/// let descriptors = vec![Descriptor::new(File::open("/dev/null")?)];
/// cx.send(id, Message { bytes: b"look at this", descriptors });
/// #         cx.close(id);
/// #         Ok(())
/// #     }
/// # }
/// # impl Handle<Descriptors> for Writer {
/// #     fn handle(&mut self, _: &mut Context<Self>, _: Id<Descriptors>, _: Passed<'_>) -> Result { Ok(()) }
/// # }
/// # runtime.add(Writer(Some(ours)))?;
/// # runtime.run()?.check()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Descriptors {
    socket: Option<Descriptor>,
    kind: Kind,
    /// The target and options of a connect that the system refuses for now.
    target: Option<Box<(Address, ConnectOptions)>>,
    /// The service has not got `Open` yet.
    is_new: bool,
    per_message: usize,
    /// Boxed, so that a handed-over resource is small.
    queue: Box<MessageQueue>,
}

/// The messages behind the queued bytes, and the time within which they must make progress.
struct MessageQueue {
    write_stall: Option<Duration>,
    /// Waiting messages whose first byte matters, in order.
    waiting: VecDeque<WaitingMessage>,
    /// The number of their descriptors.
    unsent: usize,
    /// The count of all bytes queued, and of those that have left.
    put: u64,
    gone: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Stream,
    /// Sequenced packets, or datagrams. Datagrams have no end.
    Packets {
        have_end: bool,
    },
}

impl Default for MessageQueue {
    fn default() -> MessageQueue {
        MessageQueue { write_stall: Some(WRITE_STALL), waiting: VecDeque::new(), unsent: 0, put: 0, gone: 0 }
    }
}

struct WaitingMessage {
    /// The position of its first byte, counted like `put`.
    begin: u64,
    descriptors: Vec<Descriptor>,
}

/// A message to send over [`Descriptors`].
///
/// [`Descriptors`] has an example.
#[derive(Debug)]
pub struct Message<'a> {
    /// The bytes, at least one.
    pub bytes: &'a [u8],
    /// The descriptors. They leave with the first byte.
    pub descriptors: Vec<Descriptor>,
}

/// An event of [`Descriptors`].
///
/// [`Descriptors`] has an example.
#[derive(Debug)]
pub enum Passed<'a> {
    /// The socket is connected. This event is the first, and comes once.
    Open,
    /// Bytes arrived, with their descriptors.
    Received {
        /// The bytes. They are empty only for an empty datagram.
        bytes: &'a [u8],
        /// The descriptors in the order sent. Dropping one closes it.
        descriptors: Vec<Descriptor>,
        /// Whether the packet was longer than the buffer. Then `bytes` is its beginning, and the rest is
        /// lost. Always false for a stream.
        truncated: bool,
    },
    /// Bytes arrived with more descriptors than the resource takes, or than this process may open. All of the
    /// descriptors are closed. The resource continues.
    Refused {
        /// As in [`Passed::Received`].
        bytes: &'a [u8],
        /// As in [`Passed::Received`].
        truncated: bool,
    },
    /// The peer sends no more.
    End,
}

impl Descriptors {
    /// Creates a resource without a socket, for [`listen`](crate::Context::listen) and
    /// [`connect`](crate::Context::connect).
    pub fn new() -> Descriptors {
        Descriptors {
            socket: None,
            target: None,
            kind: Kind::Stream,
            is_new: true,
            per_message: PER_MESSAGE,
            queue: Box::default(),
        }
    }

    /// Gives it a connected Unix socket, for [`add`](crate::Context::add). The socket becomes non-blocking
    /// and CLOEXEC.
    ///
    /// # Errors
    /// `InvalidInput` if it is no Unix socket of a type that carries messages. Otherwise the errors of
    /// fcntl(2).
    pub fn on(self, socket: impl Into<OwnedFd>) -> io::Result<Descriptors> {
        self.over(Descriptor::new(socket))
    }

    /// Gives it a connected transport of a Unix socket or of a simulated world, for
    /// [`add`](crate::Context::add).
    ///
    /// # Errors
    /// As [`on`](Descriptors::on).
    pub fn through(self, transport: Transport) -> io::Result<Descriptors> {
        self.over(transport.into())
    }

    /// Resets it for another life. Drops the waiting messages.
    fn begin(&mut self) {
        self.is_new = true;
        *self.queue = MessageQueue { write_stall: self.queue.write_stall, ..MessageQueue::default() };
    }

    fn over(mut self, socket: Descriptor) -> io::Result<Descriptors> {
        self.take(socket)?;
        Ok(self)
    }

    fn take(&mut self, socket: Descriptor) -> io::Result<()> {
        if let Some(descriptor) = socket.fd() {
            let descriptor = SockRef::from(&descriptor);
            if !descriptor.local_addr()?.is_unix() {
                let why = "descriptors pass through Unix sockets only";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
            self.kind = match descriptor.r#type()? {
                Type::STREAM => Kind::Stream,
                other => Kind::Packets { have_end: other != Type::DGRAM },
            };
            descriptor.set_nonblocking(true)?;
            descriptor.set_cloexec(true)?;
            #[cfg(target_vendor = "apple")]
            descriptor.set_nosigpipe(true)?;
        }
        self.socket = Some(socket);
        Ok(())
    }

    /// Creates one over a virtual world's substitute for a datagram socket.
    pub(crate) fn through_packets(transport: Transport) -> Descriptors {
        let (socket, kind) = (Some(transport.into()), Kind::Packets { have_end: false });
        Descriptors { socket, kind, ..Descriptors::new() }
    }

    /// Sets how many descriptors a message may have in either direction, at most 253, the limit of Linux.
    #[must_use]
    pub fn per_message(mut self, most: usize) -> Descriptors {
        self.per_message = most.min(rights::DESCRIPTORS_MAX);
        self
    }

    /// Sets how long queued messages may make no progress before the resource ends as
    /// [`Closed::Stalled`](crate::Closed::Stalled). The default is a minute, because a peer that never reads
    /// would keep the descriptors open. `None` is without limit.
    #[must_use]
    pub fn write_stall(mut self, most: Option<Duration>) -> Descriptors {
        self.queue.write_stall = most;
        self
    }

    /// Takes the descriptors that have not left, in the order sent. If the resource is live, their messages
    /// leave without them.
    pub fn unsent(&mut self) -> Vec<Descriptor> {
        self.queue.unsent = 0;
        self.queue.waiting.iter_mut().flat_map(|waiting| std::mem::take(&mut waiting.descriptors)).collect()
    }

    /// Gives the socket back, if there is one. Drops the messages that wait.
    pub fn into_socket(self) -> Option<Descriptor> {
        self.socket
    }

    fn is_packets(&self) -> bool {
        self.kind != Kind::Stream
    }

    /// Returns whether the position of the message's first byte matters.
    fn has_begin(&self, message: &Message<'_>) -> bool {
        self.is_packets() || !message.descriptors.is_empty()
    }

    fn refusal(&self, message: &Message<'_>) -> Option<String> {
        let count = message.descriptors.len();
        if message.bytes.is_empty() {
            Some("a message needs a byte for its descriptors to come with".to_owned())
        } else if count > self.per_message {
            Some(format!("{count} descriptors in a message that may have {}", self.per_message))
        } else if self.is_packets() && message.bytes.len() > PACKET_MAX {
            Some(format!("{} bytes in a packet that may have {PACKET_MAX}", message.bytes.len()))
        } else if self.queue.unsent + count > QUEUED_MAX {
            Some(format!("more than {QUEUED_MAX} descriptors wait to be sent"))
        } else if self.has_begin(message) && self.queue.waiting.len() >= WAITING_MAX {
            Some(format!("more than {WAITING_MAX} messages wait to be sent"))
        } else {
            None
        }
    }

    /// Sends once from the front of the queue.
    fn send_front(&mut self, io: &mut Io<'_>, out: &mut Outgoing) -> io::Result<()> {
        let queued = out.len();
        let begins = self.queue.waiting.front().is_some_and(|first| first.begin == self.queue.gone);
        let next = self.queue.waiting.get(usize::from(begins)).map_or(self.queue.put, |next| next.begin);
        let mut left = usize::try_from(next - self.queue.gone).map_or(queued, |length| length.min(queued));
        let mut all = [IoSlice::new(&[]); SLICES_MAX];
        let count = out.slices(&mut all);
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut used = 0;
        for part in &all[..count] {
            let length = part.len().min(left);
            if length == 0 {
                break;
            }
            slices[used] = IoSlice::new(&part[..length]);
            (left, used) = (left - length, used + 1);
        }
        let mut none = Vec::new();
        let source = source_of(self.socket.as_ref());
        let with = match self.queue.waiting.front_mut() {
            Some(first) if begins => &mut first.descriptors,
            _ => &mut none,
        };
        let with_count = with.len();
        let taken = io.pass(source, &slices[..used], with)?;
        if begins && taken > 0 {
            self.queue.unsent -= with_count;
            self.queue.waiting.pop_front();
        }
        out.advance(taken);
        self.queue.gone += taken as u64;
        Ok(())
    }
}

impl Pollable for Descriptors {
    type Event<'a> = Passed<'a>;

    fn source(&self) -> Source<'_> {
        source_of(self.socket.as_ref())
    }

    fn interest(&self) -> Option<Interest> {
        // Writability shows that the socket is connected.
        Some(if self.is_new { Interest::Both } else { Interest::Read })
    }

    fn step<'a>(
        &mut self,
        ready: Ready,
        io: &mut Io<'_>,
        buffer: &'a mut [u8],
    ) -> io::Result<Option<Passed<'a>>> {
        if self.is_new && !ready.error {
            self.is_new = false;
            if ready.can_read() {
                io.may_have_more();
            }
            return Ok(Some(Passed::Open));
        }
        let got = io.receive(self.source(), buffer)?;
        if got.bytes == 0 && got.descriptors.is_empty() && self.kind != (Kind::Packets { have_end: false }) {
            io.input_ended();
            return Ok(Some(Passed::End));
        }
        // A short read of a stream may have ended at the descriptors of another message.
        io.may_have_more();
        let Delivery { bytes, descriptors, is_cut, truncated } = got;
        let bytes = &buffer[..bytes];
        if is_cut || descriptors.len() > self.per_message {
            return Ok(Some(Passed::Refused { bytes, truncated }));
        }
        Ok(Some(Passed::Received { bytes, descriptors, truncated }))
    }

    fn prepare(&mut self) -> Result<(), Error> {
        if self.socket.is_none() {
            let why = "it has no socket: use listen, connect or on";
            return Err(Error::Misuse { operation: "add", why });
        }
        // The queue of an earlier life does not belong to this life.
        self.begin();
        Ok(())
    }
}

/// Tries again to connect after the system refused for now.
fn reconnect(descriptors: &mut Descriptors, engine: &mut dyn Engine) -> io::Result<()> {
    let Some((target, options)) = descriptors.target.as_deref() else { return Ok(()) };
    let transport = engine.connect(target, options)?;
    descriptors.target = None;
    descriptors.take(transport.into())
}

impl Connection for Descriptors {}

impl Connecting for Descriptors {
    fn attach(
        self,
        core: &mut LoopState,
        service: u16,
        table: &'static Vtable,
        transport: Transport,
        target: Option<&Address>,
    ) -> Result<Key, (Self, Error)> {
        core.counters.connects += u64::from(target.is_some());
        match self.through(transport) {
            Ok(descriptors) => polled::enroll(descriptors, core, service, table),
            Err(error) => Err((Descriptors::new(), Error::os("attach", "descriptors", error))),
        }
    }

    fn attempt(
        mut self,
        core: &mut LoopState,
        service: u16,
        table: &'static Vtable,
        target: &Address,
        options: &ConnectOptions,
    ) -> Result<Key, (Self, Error)> {
        self.begin();
        self.target = Some(Box::new((target.clone(), options.clone())));
        polled::attempt(self, core, service, table, (CONNECT_MAX, reconnect))
    }

    fn up<S: Handle<Self>>(_: &mut LoopState, _: &mut S, _: Key) {
        // The resource reports it by itself, as soon as it is watched.
    }

    fn credentials(core: &LoopState, key: Key) -> io::Result<Credentials> {
        let slot = core.registry.get(key).and_then(|slot| slot.resource.as_deref());
        let descriptors = slot.and_then(polled::view::<Descriptors>).ok_or(io::ErrorKind::NotFound)?;
        match descriptors.socket.as_ref().and_then(Descriptor::fd) {
            Some(socket) => Credentials::of_peer(socket),
            None => core.engine.peer_credentials(key),
        }
    }
}

impl Default for Descriptors {
    fn default() -> Descriptors {
        Descriptors::new()
    }
}

fn source_of(socket: Option<&Descriptor>) -> Source<'_> {
    socket.map_or(Source::hosted(u64::MAX), Descriptor::source)
}

// A hint at this `impl` would not help a user who forgot one of their own.
#[diagnostic::do_not_recommend]
impl Writable for Descriptors {
    type Item<'a> = Message<'a>;

    fn write_stall(&self) -> Option<Duration> {
        self.queue.write_stall
    }

    fn encode(&mut self, message: Message<'_>, out: &mut Outgoing) -> Result {
        if let Some(why) = self.refusal(&message) {
            return Err(Failure::from(why));
        }
        if self.has_begin(&message) {
            self.queue.unsent += message.descriptors.len();
            self.queue
                .waiting
                .push_back(WaitingMessage { begin: self.queue.put, descriptors: message.descriptors });
        }
        self.queue.put += message.bytes.len() as u64;
        out.put(message.bytes);
        Ok(())
    }

    fn flush(&mut self, io: &mut Io<'_>, out: &mut Outgoing) -> io::Result<()> {
        for _ in 0..SENDS_MAX {
            if out.is_empty() {
                break;
            }
            self.send_front(io, out)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Descriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Descriptors")
            .field("socket", &self.socket)
            .field("kind", &self.kind)
            .field("per_message", &self.per_message)
            .finish_non_exhaustive()
    }
}

const PER_MESSAGE: usize = 16;
/// The default time within which queued messages must make progress.
const WRITE_STALL: Duration = Duration::from_secs(60);
/// How long to retry a connect to a listener whose queue is full. It is the same as for a stream.
const CONNECT_MAX: Duration = StreamOptions::DEFAULT.connect;
/// A bound, because waiting descriptors stay open in this process.
const QUEUED_MAX: usize = 1024;
/// A bound, because each waiting message takes memory of its own, however short it is.
const WAITING_MAX: usize = 4096;
/// The space in the receiver's buffer.
const PACKET_MAX: usize = 64 << 10;
/// The most parts of the queue in one send. A packet has at most three.
const SLICES_MAX: usize = 16;
/// The most sends of one turn. Further ones follow in the next turn.
const SENDS_MAX: usize = 64;
