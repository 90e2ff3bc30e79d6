//! Messages with descriptors, over a Unix socket.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, IoSlice},
    os::fd::OwnedFd,
    time::Duration,
};

use socket2::{SockRef, Type};

use super::{Connection, Io, Output, Resource, StreamOptions, Table, custom};
use crate::{
    address::Address,
    core::Core,
    credentials::Credentials,
    engine::{Delivery, Descriptor, Engine, Interest, Outgoing, Ready, Source, Transport},
    error::{Error, Failure, Result},
    id::Key,
    options::ConnectOptions,
    service::Handle,
    sys::rights,
};

/// A Unix socket as a resource over which descriptors pass.
///
/// Made by the service, it comes to life by [`listen`](crate::Context::listen) or
/// [`connect`](crate::Context::connect) over a Unix stream, or by [`on`](Descriptors::on) and
/// [`add`](crate::Context::add) over any connected Unix socket: a stream, sequenced packets or datagrams. What is
/// sent are [`Message`]s, what is told are [`Passed`]s: `Open` first, and `End` last.
///
/// # What stays together
///
/// Between packets, and between datagrams, the boundaries are kept: each is one event. Of one that is longer
/// than 64 KiB the rest is lost, and the event says that it is truncated.
///
/// A stream has no boundaries, and its bytes are cut and joined at will. The descriptors of a message come in
/// the event that has its first byte; bytes of earlier messages may be in front of that, but no event has the
/// descriptors of two messages (unix(7) has an example). So a protocol says in its bytes where a message ends
/// and how many descriptors it has; the receiver queues those that come, and takes them from the front: they
/// are in the order sent, and never later than the bytes that speak of them.
///
/// # Bounds
///
/// A message has at most [`per_message`](Descriptors::per_message) descriptors, 16 by default: one with more
/// does not leave, and one that arrives with more is told as [`Passed::Refused`], with its descriptors closed.
/// At most 1,024 descriptors wait to be sent, and at most 4,096 messages: packets, or such as came with
/// descriptors; one more ends the resource. The bytes are bounded as for any [`Output`].
///
/// # Who owns what
///
/// A descriptor that is sent is closed here once it has left. One that did not leave before the resource ended
/// is still in it ([`unsent`](Descriptors::unsent)), and is closed with it. One that arrives belongs to whoever
/// takes the event, and is CLOEXEC.
///
/// In a simulated world a descriptor is whatever has a transport there: an end of a connection, a listener. The
/// service is the same.
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
    /// What is asked for a connection, as long as it refuses one for now.
    target: Option<Box<(Address, ConnectOptions)>>,
    /// That it is open is still to be told.
    is_new: bool,
    per_message: usize,
    /// Apart, so that what is handed over is small.
    queue: Box<Queue>,
}

/// Which of the queued bytes have descriptors, and how long they may make no progress.
struct Queue {
    write_stall: Option<Duration>,
    /// Messages that wait and whose beginning matters, in order.
    waiting: VecDeque<Waiting>,
    /// How many descriptors these have together.
    unsent: usize,
    /// Bytes queued since it began, and those of them that have left.
    put: u64,
    gone: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Stream,
    /// Sequenced packets, or datagrams, which have no end.
    Packets {
        have_end: bool,
    },
}

impl Default for Queue {
    fn default() -> Queue {
        Queue { write_stall: Some(WRITE_STALL), waiting: VecDeque::new(), unsent: 0, put: 0, gone: 0 }
    }
}

struct Waiting {
    /// Where its first byte is, counted as `put` is.
    begin: u64,
    descriptors: Vec<Descriptor>,
}

/// What is sent over [`Descriptors`].
#[derive(Debug)]
pub struct Message<'a> {
    /// At least one byte.
    pub bytes: &'a [u8],
    /// They leave with the first byte.
    pub descriptors: Vec<Descriptor>,
}

/// What arrives at [`Descriptors`].
#[derive(Debug)]
pub enum Passed<'a> {
    /// It is connected. Comes first, and once.
    Open,
    /// Bytes, and the descriptors that came with them.
    Received {
        /// Never empty, but for an empty datagram.
        bytes: &'a [u8],
        /// In the order sent. Dropping one closes it.
        descriptors: Vec<Descriptor>,
        /// The packet was longer than the buffer: `bytes` is its beginning, and the rest is gone. Never of a
        /// stream.
        truncated: bool,
    },
    /// The same, but more descriptors came than are taken, or than this process may open. All of them are
    /// closed. It goes on.
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
    /// Creates one without a socket, for [`listen`](crate::Context::listen) and
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

    /// Gives it a connected Unix socket, which becomes non-blocking and CLOEXEC: `add` takes it then.
    ///
    /// # Errors
    /// `InvalidInput` for what is no Unix socket of a kind that messages can be sent through; as fcntl(2).
    pub fn on(self, socket: impl Into<OwnedFd>) -> io::Result<Descriptors> {
        self.over(Descriptor::new(socket))
    }

    /// Gives it a connected transport, of a Unix socket or of a simulated world: `add` takes it then.
    ///
    /// # Errors
    /// As [`on`](Descriptors::on).
    pub fn through(self, transport: Transport) -> io::Result<Descriptors> {
        self.over(transport.into())
    }

    /// Makes it new for another life: what waited is dropped.
    fn begin(&mut self) {
        self.is_new = true;
        *self.queue = Queue { write_stall: self.queue.write_stall, ..Queue::default() };
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

    /// The same over what a virtual world has in place of a socket for datagrams.
    pub(crate) fn through_packets(transport: Transport) -> Descriptors {
        let (socket, kind) = (Some(transport.into()), Kind::Packets { have_end: false });
        Descriptors { socket, kind, ..Descriptors::new() }
    }

    /// Sets how many descriptors a message may have, in either direction: at most 253, the limit of Linux.
    pub fn per_message(mut self, most: usize) -> Descriptors {
        self.per_message = most.min(rights::DESCRIPTORS_MAX);
        self
    }

    /// Sets how long queued messages may make no progress before the resource ends as
    /// [`Closed::Stalled`](crate::Closed::Stalled): a minute by default, because a peer that never reads would keep the
    /// descriptors open. `None`: for ever.
    pub fn write_stall(mut self, most: Option<Duration>) -> Descriptors {
        self.queue.write_stall = most;
        self
    }

    /// Takes the descriptors that have not left, in the order sent. Of a live resource their messages leave
    /// without them.
    pub fn unsent(&mut self) -> Vec<Descriptor> {
        self.queue.unsent = 0;
        self.queue.waiting.iter_mut().flat_map(|waiting| std::mem::take(&mut waiting.descriptors)).collect()
    }

    /// Gives the socket back, if it has one; what waits to be sent is dropped.
    pub fn into_socket(self) -> Option<Descriptor> {
        self.socket
    }

    fn is_packets(&self) -> bool {
        self.kind != Kind::Stream
    }

    /// Whether it matters where its first byte is.
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

    /// Sends the front of the queue once; how many bytes left.
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

impl Resource for Descriptors {
    type Event<'a> = Passed<'a>;

    fn source(&self) -> Source<'_> {
        source_of(self.socket.as_ref())
    }

    fn interest(&self) -> Option<Interest> {
        // That it is connected shows as room.
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
        // A short read of a stream may have ended where the descriptors of another message begin.
        io.may_have_more();
        let Delivery { bytes, descriptors, is_cut, truncated } = got;
        let bytes = &buffer[..bytes];
        if is_cut || descriptors.len() > self.per_message {
            return Ok(Some(Passed::Refused { bytes, truncated }));
        }
        Ok(Some(Passed::Received { bytes, descriptors, truncated }))
    }

    fn reconnect(&mut self, engine: &mut dyn Engine) -> io::Result<()> {
        let Some((target, options)) = self.target.as_deref() else { return Ok(()) };
        let transport = engine.connect(target, options)?;
        self.target = None;
        self.take(transport.into())
    }

    fn enroll(mut self, core: &mut Core, service: u16, table: &'static Table) -> Result<Key, (Self, Error)> {
        if self.socket.is_none() {
            let why = "it has no socket: use listen, connect or on";
            return Err((self, Error::Misuse { operation: "add", why }));
        }
        // What an earlier life did not send is not of this one's queue.
        self.begin();
        custom::enroll(self, core, service, table)
    }
}

impl Connection for Descriptors {
    fn attach(
        self,
        core: &mut Core,
        service: u16,
        table: &'static Table,
        transport: Transport,
        target: Option<&Address>,
    ) -> Result<Key, (Self, Error)> {
        core.counters.connects += u64::from(target.is_some());
        match self.through(transport) {
            Ok(descriptors) => descriptors.enroll(core, service, table),
            Err(error) => Err((Descriptors::new(), Error::os("attach", "descriptors", error))),
        }
    }

    fn attempt(
        mut self,
        core: &mut Core,
        service: u16,
        table: &'static Table,
        target: &Address,
        options: &ConnectOptions,
    ) -> Result<Key, (Self, Error)> {
        self.begin();
        self.target = Some(Box::new((target.clone(), options.clone())));
        custom::attempt(self, core, service, table, CONNECT_MAX)
    }

    fn up<S: Handle<Self>>(_: &mut Core, _: &mut S, _: Key) {
        // It says so by itself, as soon as it is watched.
    }

    fn credentials(core: &Core, key: Key) -> io::Result<Credentials> {
        let slot = core.registry.peek(key).and_then(|slot| slot.resource.as_deref());
        let descriptors = slot.and_then(Descriptors::view).ok_or(io::ErrorKind::NotFound)?;
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

// Who forgets an `impl` of their own is not helped by hearing of this one.
#[diagnostic::do_not_recommend]
impl Output for Descriptors {
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
            self.queue.waiting.push_back(Waiting { begin: self.queue.put, descriptors: message.descriptors });
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
/// How long queued messages may make no progress, by default.
const WRITE_STALL: Duration = Duration::from_secs(60);
/// How long a listener is asked again whose queue is full, as by a stream.
const CONNECT_MAX: Duration = StreamOptions::DEFAULT.connect;
/// What waits to be sent keeps descriptors of this process open.
const QUEUED_MAX: usize = 1024;
/// A message that waits takes memory of its own, however short it is.
const WAITING_MAX: usize = 4096;
/// What the receiver's buffer has room for.
const PACKET_MAX: usize = 64 << 10;
/// Parts of the queue in one send: a packet has at most three.
const SLICES_MAX: usize = 16;
/// Sends of one turn; the next ones come in the next.
const SENDS_MAX: usize = 64;
