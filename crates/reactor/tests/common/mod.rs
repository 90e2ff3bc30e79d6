//! Shared by the tests of the runtime's behaviour: every engine, a service that records events, and plain
//! sockets as peers.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use reactor::{
    Bytes, Closed, Codec, Context, Event, Fault, Handle, Id, Layer, Limits, Receive, Result, Runtime,
    RuntimeOptions, Service, ServiceId, Stream, StreamOptions, engine::Candidates,
};

#[cfg(unix)]
use std::os::fd::OwnedFd as Owned;
#[cfg(windows)]
use std::os::windows::io::OwnedSocket as Owned;

/// A short time. Expected events take less, and the tests' timers take this long.
pub const SHORT: Duration = Duration::from_millis(20);
/// The limit for an expected event.
pub const LONG: Duration = Duration::from_secs(20);

/// An engine, by its name. Makes runtimes.
#[derive(Clone, Copy, Debug)]
pub struct Engine(pub &'static str);

impl Engine {
    pub fn runtime(self) -> Runtime {
        self.with(|_| ())
    }

    pub fn with(self, change: impl FnOnce(&mut Limits)) -> Runtime {
        let mut options = RuntimeOptions::default();
        options.engine = Some(self.0.to_owned());
        change(&mut options.limits);
        Runtime::with_options(options).expect("the engine opens")
    }

    /// Makes a runtime whose streams may hold this many bytes, in addition to the engine's own memory.
    pub fn with_stream_bytes(self, bytes: usize) -> Runtime {
        let engine = Candidates::default().open(Some(self.0)).expect("the engine opens");
        self.with(|limits| limits.bytes = bytes + engine.memory())
    }
}

/// Runs a test on each engine.
pub fn for_each_engine(test: impl Fn(Engine)) {
    for name in Candidates::default().names() {
        eprintln!("engine {name}");
        test(Engine(name));
    }
}

/// Drives the runtime until the condition holds.
#[track_caller]
pub fn until(runtime: &mut Runtime, mut done: impl FnMut(&mut Runtime) -> bool) {
    let end = Instant::now() + LONG;
    while !done(runtime) {
        assert!(Instant::now() < end, "it did not happen in {LONG:?}");
        runtime.turn(Some(Duration::from_millis(5))).expect("the engine is whole");
    }
}

/// The same by turns that wait for as long as it takes: what nobody wakes the loop for does not happen.
#[track_caller]
pub fn until_woken(runtime: &mut Runtime, mut done: impl FnMut(&mut Runtime) -> bool) {
    let end = Instant::now() + LONG;
    while !done(runtime) {
        runtime.turn(Some(LONG)).expect("the engine is whole");
        assert!(Instant::now() < end, "it did not happen in {LONG:?}");
    }
}

/// Makes so many turns that the runtime has nothing left to do.
pub fn settle(runtime: &mut Runtime) {
    for _ in 0..64 {
        runtime.turn(Some(Duration::from_millis(1))).expect("the engine is whole");
    }
}

/// An event of a stream, as a [`Probe`] records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Open,
    Got(Vec<u8>),
    End,
    Drained,
    HungUp,
    Closed(String),
}

impl Seen {
    pub fn got(text: &str) -> Seen {
        Seen::Got(text.as_bytes().to_vec())
    }

    pub fn closed(text: &str) -> Seen {
        Seen::Closed(text.to_owned())
    }
}

pub type Act<C, L> = Box<dyn FnMut(&mut Context<Probe<C, L>>, Id<Stream<C, L>>, &Seen) -> Result>;
pub type OnMessage<C, L> = Box<dyn FnMut(&mut Context<Probe<C, L>>, u64) -> Result>;

/// A closed stream, as its service got it.
pub type Gone<C, L> = (Id<Stream<C, L>>, Stream<C, L>, Closed);

/// A service that records all events, and then runs the test's code.
pub struct Probe<C: Codec = Bytes, L: Layer = ()> {
    pub seen: Vec<(Id<Stream<C, L>>, Seen)>,
    pub closed: Vec<Gone<C, L>>,
    pub messages: Vec<u64>,
    pub faults: Vec<String>,
    pub act: Act<C, L>,
    pub on_message: OnMessage<C, L>,
}

impl<C: Codec, L: Layer> Probe<C, L>
where
    for<'a> C::In<'a>: AsRef<[u8]>,
{
    /// Makes one that only records.
    pub fn quiet() -> Self {
        Probe::new(|_, _, _| Ok(()))
    }

    pub fn new(
        act: impl FnMut(&mut Context<Probe<C, L>>, Id<Stream<C, L>>, &Seen) -> Result + 'static,
    ) -> Self {
        Probe {
            seen: Vec::new(),
            closed: Vec::new(),
            messages: Vec::new(),
            faults: Vec::new(),
            act: Box::new(act),
            on_message: Box::new(|_, _| Ok(())),
        }
    }

    pub fn messages(
        mut self,
        on_message: impl FnMut(&mut Context<Probe<C, L>>, u64) -> Result + 'static,
    ) -> Self {
        self.on_message = Box::new(on_message);
        self
    }

    /// Returns the events of all streams.
    pub fn all(&self) -> Vec<Seen> {
        self.seen.iter().map(|(_, seen)| seen.clone()).collect()
    }

    /// Returns all bytes that arrived on one stream.
    pub fn bytes(&self, id: Id<Stream<C, L>>) -> Vec<u8> {
        let got = self.seen.iter().filter(|(of, _)| *of == id);
        got.filter_map(|(_, seen)| if let Seen::Got(bytes) = seen { Some(&bytes[..]) } else { None })
            .collect::<Vec<_>>()
            .concat()
    }

    pub fn saw(&self, what: &Seen) -> bool {
        self.seen.iter().any(|(_, seen)| seen == what)
    }

    pub fn count(&self, what: &Seen) -> usize {
        self.seen.iter().filter(|(_, seen)| seen == what).count()
    }
}

impl<C: Codec, L: Layer> Service for Probe<C, L>
where
    for<'a> C::In<'a>: AsRef<[u8]>,
{
    fn fault(&mut self, _: &mut Context<Self>, fault: Fault) {
        self.faults.push(fault.to_string());
    }
}

impl<C: Codec, L: Layer> Handle<Stream<C, L>> for Probe<C, L>
where
    for<'a> C::In<'a>: AsRef<[u8]>,
{
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream<C, L>>, event: Event<'_, C>) -> Result {
        let seen = match event {
            Event::Open => Seen::Open,
            Event::Received(item) => Seen::Got(item.as_ref().to_vec()),
            Event::End => Seen::End,
            Event::Drained => Seen::Drained,
            Event::HungUp => Seen::HungUp,
        };
        self.seen.push((id, seen.clone()));
        (self.act)(cx, id, &seen)
    }

    fn closed(&mut self, cx: &mut Context<Self>, id: Id<Stream<C, L>>, stream: Stream<C, L>, why: Closed) {
        let text = format!("{why:?}");
        let seen = Seen::Closed(text.split([' ', '(']).next().unwrap_or_default().to_owned());
        self.seen.push((id, seen.clone()));
        self.closed.push((id, stream, why));
        (self.act)(cx, id, &seen).expect("nobody takes an error of closed");
    }
}

impl<C: Codec, L: Layer> Receive<u64> for Probe<C, L>
where
    for<'a> C::In<'a>: AsRef<[u8]>,
{
    fn receive(&mut self, cx: &mut Context<Self>, message: u64) -> Result {
        self.messages.push(message);
        (self.on_message)(cx, message)
    }
}

/// A runtime with one probe, and one stream of it whose other end is a socket of the standard library.
pub struct World<C: Codec = Bytes, L: Layer = ()> {
    pub runtime: Runtime,
    pub service: ServiceId<Probe<C, L>>,
    pub id: Id<Stream<C, L>>,
    pub peer: TcpStream,
}

impl<C: Codec, L: Layer> World<C, L>
where
    for<'a> C::In<'a>: AsRef<[u8]>,
{
    pub fn new(runtime: Runtime, probe: Probe<C, L>, stream: Stream<C, L>) -> Self {
        let (ours, peer) = tcp_pair();
        World::over(runtime, probe, stream, ours, peer)
    }

    pub fn over(
        mut runtime: Runtime,
        probe: Probe<C, L>,
        stream: Stream<C, L>,
        ours: TcpStream,
        peer: TcpStream,
    ) -> Self {
        let service = runtime.add(probe).expect("it starts");
        let id = add(&mut runtime, service, stream, ours);
        World { runtime, service, id, peer }
    }

    pub fn probe(&self) -> &Probe<C, L> {
        self.runtime.service(self.service).expect("the service lives")
    }

    pub fn all(&self) -> Vec<Seen> {
        self.probe().all()
    }

    pub fn with<T>(&mut self, f: impl FnOnce(&mut Context<Probe<C, L>>, Id<Stream<C, L>>) -> T) -> T {
        let id = self.id;
        self.runtime.with(self.service, |_, cx| f(cx, id)).expect("the service lives")
    }

    #[track_caller]
    pub fn until_seen(&mut self, what: Seen) {
        let service = self.service;
        until(&mut self.runtime, |runtime| runtime.service(service).is_some_and(|probe| probe.saw(&what)));
    }

    #[track_caller]
    pub fn until_bytes(&mut self, count: usize) {
        let (service, id) = (self.service, self.id);
        until(&mut self.runtime, |runtime| {
            runtime.service(service).expect("it lives").bytes(id).len() >= count
        });
    }

    #[track_caller]
    pub fn until_closed(&mut self) -> &Closed {
        let service = self.service;
        until(&mut self.runtime, |runtime| !runtime.service(service).expect("it lives").closed.is_empty());
        &self.probe().closed[0].2
    }

    /// Reads the runtime's output while driving it, until this many bytes have come, or the end.
    #[track_caller]
    pub fn read(&mut self, count: usize) -> Vec<u8> {
        let World { runtime, peer, .. } = self;
        read(runtime, peer, count)
    }
}

/// Adds a stream over a socket.
pub fn add<C: Codec, L: Layer>(
    runtime: &mut Runtime,
    service: ServiceId<Probe<C, L>>,
    stream: Stream<C, L>,
    socket: impl Into<Owned>,
) -> Id<Stream<C, L>>
where
    for<'a> C::In<'a>: AsRef<[u8]>,
{
    let stream = stream.on(socket).expect("a socket");
    runtime.with(service, |_, cx| cx.add(stream).map_err(|e| e.error).expect("room")).expect("it lives")
}

/// Reads from a peer while driving the runtime, until this many bytes have come, the end, or a reset.
#[track_caller]
pub fn read(runtime: &mut Runtime, peer: &mut TcpStream, count: usize) -> Vec<u8> {
    peer.set_nonblocking(true).expect("a socket");
    let mut all = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    until(runtime, |_| {
        while all.len() < count {
            match peer.read(&mut buffer) {
                Ok(0) => return true,
                Ok(n) => all.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    acknowledge(peer);
                    return false;
                }
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return true,
                Err(e) => panic!("the peer's read: {e}"),
            }
        }
        true
    });
    all
}

/// Makes the kernel acknowledge received bytes at once. Otherwise it may wait for 40 ms, and so would a
/// sender with a small buffer.
pub fn acknowledge(peer: &TcpStream) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket2::SockRef::from(peer).set_tcp_quickack(true).expect("TCP");
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = peer;
}

/// Writes to a peer's socket while driving the runtime.
#[track_caller]
pub fn write(runtime: &mut Runtime, peer: &mut TcpStream, mut bytes: &[u8]) {
    peer.set_nonblocking(true).expect("a socket");
    until(runtime, |_| {
        while !bytes.is_empty() {
            match peer.write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
                Err(e) => panic!("the peer's write: {e}"),
            }
        }
        true
    });
}

/// Returns whether a peer has seen the end, after it has read all bytes.
pub fn is_ended(peer: &mut TcpStream) -> bool {
    peer.set_nonblocking(true).expect("a socket");
    matches!(peer.read(&mut [0; 16]), Ok(0))
}

/// Returns whether the peer sees a reset, and nothing before it.
pub fn is_reset(peer: &mut TcpStream) -> bool {
    peer.set_nonblocking(true).expect("a socket");
    peer.read(&mut [0; 16]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

/// Returns two connected TCP sockets.
pub fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let one = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (other, _) = listener.accept().expect("one waits");
    for socket in [&one, &other] {
        socket.set_nodelay(true).expect("TCP");
    }
    (one, other)
}

/// Makes closing this socket a reset.
pub fn reset_at_close(socket: &TcpStream) {
    socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO)).expect("TCP");
}

/// Sets both kernel buffers of a socket as small as they get.
pub fn small_buffers(socket: &TcpStream) {
    let socket = socket2::SockRef::from(socket);
    socket.set_send_buffer_size(4 << 10).expect("a socket");
    socket.set_recv_buffer_size(4 << 10).expect("a socket");
}

/// Listens on a free port.
pub fn listen<C: Codec, L: Layer>(
    runtime: &mut Runtime,
    service: ServiceId<Probe<C, L>>,
    mut make: impl FnMut() -> Option<Stream<C, L>> + 'static,
) -> SocketAddr
where
    for<'a> C::In<'a>: AsRef<[u8]>,
{
    runtime
        .with(service, |_, cx| {
            let id = cx.listen("127.0.0.1:0", move |_| make()).expect("a port");
            cx.local(id).expect("bound").ip().expect("IP")
        })
        .expect("the service lives")
}

/// Returns options with a short limit for a graceful close, for peers that never end their side.
pub fn quick_close() -> StreamOptions {
    StreamOptions::with(|options| options.close = 2 * SHORT)
}

/// Returns bytes that reveal a wrong position.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(31) ^ (at >> 8) ^ (at >> 16)) as u8).collect()
}
