//! A small driver for engines under test: keys, events with copied bytes, and a guard against hanging.
#![allow(dead_code)] // Each test binary uses a part of it.

use std::{
    io,
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use reactor::{
    Address, Key,
    engine::{Calls, Engine, Event, Outgoing, PollCall, Ready, Role, Sent, Transport},
};

/// An event with a copy of its bytes, so that the engine gets its buffer back.
#[derive(Debug)]
pub(crate) enum Seen {
    Ready(Ready),
    Accepted(Transport, Address),
    NotAccepted(io::Error),
    Connected(io::Result<()>),
    Got(Vec<u8>),
    End,
    Broken(io::Error),
    HungUp(Option<io::Error>),
    Sent(Sent),
    Detached(Transport),
}

pub(crate) struct Driver {
    pub(crate) engine: Box<dyn Engine>,
    /// How many bytes one read takes.
    pub(crate) buffer_bytes: usize,
    slots: u32,
}

impl Driver {
    pub(crate) fn new(engine: Box<dyn Engine>, buffer_bytes: usize) -> Driver {
        Driver { engine, buffer_bytes, slots: 0 }
    }

    pub(crate) fn key(&mut self) -> Key {
        self.slots += 1;
        Key::new(self.slots - 1, 0, 3)
    }

    pub(crate) fn attach(&mut self, transport: Transport, role: Role) -> Key {
        let key = self.key();
        self.engine.attach(key, transport, role).expect("it is attached");
        key
    }

    /// Adds a stream to the engine, and returns its key and the blocking other end.
    pub(crate) fn unix(&mut self) -> (Key, UnixStream) {
        let (ours, theirs) = unix_pair();
        (self.attach(ours, Role::Stream), theirs)
    }

    pub(crate) fn tcp(&mut self) -> (Key, TcpStream) {
        let (ours, theirs) = tcp_pair();
        ours.set_nonblocking(true).expect("it is set");
        (self.attach(Transport::new(ours), Role::Stream), theirs)
    }

    pub(crate) fn next(&mut self) -> Option<(Key, Seen)> {
        let (key, event) = self.engine.next()?;
        let seen = match event {
            Event::Got(mut chunk) => {
                let bytes = chunk.bytes().to_vec();
                self.engine.give(chunk);
                Seen::Got(bytes)
            }
            Event::Ready(ready) => Seen::Ready(ready),
            Event::Accepted(transport, peer) => Seen::Accepted(transport, peer),
            Event::NotAccepted(error) => Seen::NotAccepted(error),
            Event::Connected(result) => Seen::Connected(result),
            Event::End => Seen::End,
            Event::Broken(error) => Seen::Broken(error),
            Event::HungUp(error) => Seen::HungUp(error),
            Event::Sent(sent) => Seen::Sent(sent),
            Event::Detached(transport) => Seen::Detached(transport),
            // The conformance suite tests these events.
            other @ (Event::Datagrams(_) | Event::Undelivered(..) | Event::Room) => panic!("told {other:?}"),
        };
        Some((key, seen))
    }

    /// Makes turns until `on` has seen enough. Later events of that turn stay in the engine.
    pub(crate) fn until(&mut self, mut on: impl FnMut(&mut Driver, Key, Seen) -> bool) {
        let began = Instant::now();
        loop {
            while let Some((key, seen)) = self.next() {
                if on(self, key, seen) {
                    return;
                }
            }
            assert!(began.elapsed() < GUARD, "the engine makes no progress");
            self.engine.wait(Some(GUARD)).expect("the engine is whole");
        }
    }

    /// Returns the events of one wait that does not block.
    pub(crate) fn now(&mut self) -> Vec<(Key, Seen)> {
        self.engine.wait(Some(Duration::ZERO)).expect("the engine is whole");
        std::iter::from_fn(|| self.next()).collect()
    }

    /// Asserts that the engine reports nothing, and sleeps instead of spinning.
    pub(crate) fn assert_idle(&mut self) {
        let (began, mut waits) = (Instant::now(), 0);
        while began.elapsed() < IDLE {
            self.engine.wait(Some(IDLE)).expect("the engine is whole");
            waits += 1;
            if let Some(seen) = self.next() {
                panic!("{seen:?} when nothing should be told");
            }
        }
        assert!(waits <= 4, "{waits} waits in {IDLE:?}: the engine spins");
    }
}

pub(crate) fn unix_pair() -> (Transport, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    ours.set_nonblocking(true).expect("it is set");
    (Transport::new(ours), theirs)
}

/// Returns two connected TCP sockets, both blocking.
pub(crate) fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let theirs = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    (listener.accept().expect("it connected").0, theirs)
}

pub(crate) fn queue(bytes: &[u8]) -> Box<Outgoing> {
    let mut queue = Outgoing::new();
    queue.put(bytes);
    Box::new(queue)
}

/// Returns bytes that differ from their neighbours at every distance that a mistake is likely to have.
pub(crate) fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn epoll() -> Driver {
    Driver::new(Box::new(Calls::new(reactor::engine::Epoll::new().expect("epoll"))), 65_536)
}
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn epoll_tight() -> Driver {
    let poll = reactor::engine::Epoll::with_capacity(2).expect("epoll");
    Driver::new(Box::new(Calls::new(poll).with_buffer(64)), 64)
}
pub(crate) fn poll() -> Driver {
    Driver::new(Box::new(Calls::new(PollCall::new().expect("poll"))), 65_536)
}
pub(crate) fn poll_tight() -> Driver {
    Driver::new(Box::new(Calls::new(PollCall::new().expect("poll")).with_buffer(64)), 64)
}
#[cfg(feature = "mio")]
pub(crate) fn mio() -> Driver {
    Driver::new(Box::new(Calls::new(reactor::engine::Mio::new().expect("mio"))), 65_536)
}
#[cfg(feature = "mio")]
pub(crate) fn mio_tight() -> Driver {
    let poll = reactor::engine::Mio::with_capacity(2).expect("mio");
    Driver::new(Box::new(Calls::new(poll).with_buffer(64)), 64)
}
#[cfg(feature = "polling")]
pub(crate) fn polling() -> Driver {
    Driver::new(Box::new(Calls::new(reactor::engine::Polling::new().expect("polling"))), 65_536)
}
#[cfg(feature = "polling")]
pub(crate) fn polling_tight() -> Driver {
    let poll = reactor::engine::Polling::with_capacity(2).expect("polling");
    Driver::new(Box::new(Calls::new(poll).with_buffer(64)), 64)
}

/// Runs each test with each engine, in its usual and in a tight size. Holds the value of `$before` while a
/// test runs.
#[macro_export]
macro_rules! for_each_engine {
    (before: $before:ident; $($test:ident),* $(,)?) => {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        for_each_engine!(@ epoll $before $($test)*);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        for_each_engine!(@ epoll_tight $before $($test)*);
        for_each_engine!(@ poll $before $($test)*);
        for_each_engine!(@ poll_tight $before $($test)*);
        #[cfg(feature = "mio")]
        for_each_engine!(@ mio $before $($test)*);
        #[cfg(feature = "mio")]
        for_each_engine!(@ mio_tight $before $($test)*);
        #[cfg(feature = "polling")]
        for_each_engine!(@ polling $before $($test)*);
        #[cfg(feature = "polling")]
        for_each_engine!(@ polling_tight $before $($test)*);
    };
    (@ $engine:ident $before:ident $($test:ident)*) => {
        mod $engine {
            $(#[test] fn $test() {
                let _held = super::$before();
                super::$test(super::driver::$engine());
            })*
        }
    };
}

/// The guard of tests that need not run alone.
pub(crate) struct Nothing;

pub(crate) fn nothing() -> Nothing {
    Nothing
}

/// The longest wait before the test fails.
const GUARD: Duration = Duration::from_secs(20);
/// How long the test watches an engine for idleness.
const IDLE: Duration = Duration::from_millis(20);
