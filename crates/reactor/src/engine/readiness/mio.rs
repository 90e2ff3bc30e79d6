//! Waiting with the crate mio, one interface over epoll, kqueue and event ports.
//!
//! mio has only edges. Streams are registered with an edge, once. Users' resources need a level, so each is
//! registered again right after each report. The system then checks it again in the next wait, and reports it
//! only if it is still ready. So a level costs one call for each report, and a stream's edge costs none. On
//! Windows, mio watches only its own kind of sockets.
#![allow(unsafe_code)]

use std::{
    fmt, io,
    os::fd::{AsRawFd as _, BorrowedFd, RawFd},
    sync::Arc,
    task::{Wake, Waker},
    time::Duration,
};

use mio::{Events, Token, event::Event, unix::SourceFd};

use super::{Poll, Trigger};
use crate::{
    engine::{Interest, Ready, Source},
    id::Key,
};

/// mio's poll, its batch of events, and its waker.
///
/// ```
/// use reactor::{Runtime, engine::{Calls, Mio}};
///
/// let runtime = Runtime::with_engine(Calls::new(Mio::new()?));
/// assert_eq!(runtime.engine_name(), "mio");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Mio {
    poll: mio::Poll,
    events: Events,
    signal: Arc<MioWaker>,
    /// The sources that are watched level-triggered, by slot.
    levels: Vec<Option<Level>>,
    calls: u64,
}

impl fmt::Debug for Mio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mio").finish_non_exhaustive()
    }
}

/// A source that is registered again after each report.
#[derive(Clone, Copy)]
struct Level {
    key: Key,
    descriptor: RawFd,
    interest: Interest,
}

struct MioWaker(mio::Waker);

impl Mio {
    /// Creates one that takes up to 32 events per wait, as [`Epoll`](super::Epoll) does.
    ///
    /// # Errors
    /// As epoll_create1(2), kqueue(2), port_create(3C); eventfd(2) or pipe(2).
    pub fn new() -> io::Result<Mio> {
        Mio::with_capacity(EVENTS)
    }

    /// Creates one that takes up to `events` events per wait, and at least one.
    ///
    /// # Errors
    /// As [`Mio::new`].
    pub fn with_capacity(events: usize) -> io::Result<Mio> {
        let poll = mio::Poll::new()?;
        let signal = Arc::new(MioWaker(mio::Waker::new(poll.registry(), WAKE)?));
        let events = Events::with_capacity(events.clamp(1, EVENTS_MAX));
        Ok(Mio { poll, events, signal, levels: Vec::new(), calls: 0 })
    }

    /// Records how the source is watched from now on.
    fn note(&mut self, key: Key, level: Option<Level>) {
        if let Some(place) = self.levels.get_mut(key.slot()) {
            *place = level;
        } else if level.is_some() {
            self.levels.resize(key.slot() + 1, None);
            self.levels[key.slot()] = level;
        }
    }
}

impl Poll for Mio {
    fn name(&self) -> &'static str {
        "mio"
    }

    fn trigger(&self) -> Trigger {
        Trigger::Edge
    }

    fn watch(
        &mut self,
        key: Key,
        source: Source<'_>,
        interest: Interest,
        trigger: Trigger,
    ) -> io::Result<()> {
        let descriptor = number(source)?;
        self.calls += 1;
        self.poll.registry().register(&mut SourceFd(&descriptor), token(key), wanted(interest))?;
        self.note(key, (trigger == Trigger::Level).then_some(Level { key, descriptor, interest }));
        Ok(())
    }

    fn rewatch(
        &mut self,
        key: Key,
        source: Source<'_>,
        interest: Interest,
        trigger: Trigger,
    ) -> io::Result<()> {
        let descriptor = number(source)?;
        self.calls += 1;
        let result =
            self.poll.registry().reregister(&mut SourceFd(&descriptor), token(key), wanted(interest));
        let is_level = trigger == Trigger::Level && result.is_ok();
        self.note(key, is_level.then_some(Level { key, descriptor, interest }));
        result
    }

    fn unwatch(&mut self, key: Key, source: Source<'_>) -> io::Result<()> {
        self.note(key, None);
        self.calls += 1;
        self.poll.registry().deregister(&mut SourceFd(&number(source)?))
    }

    fn wait(&mut self, ready: &mut Vec<(Key, Ready)>, timeout: Option<Duration>) -> io::Result<()> {
        self.calls += 1;
        match self.poll.poll(&mut self.events, timeout) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        for event in self.events.iter().filter(|event| event.token() != WAKE) {
            let key = Key::from_bits(event.token().0 as u64);
            if let Some(Some(level)) = self.levels.get(key.slot())
                && level.key == key
            {
                self.calls += 1;
                // Fails only if the owner has closed the source. The system has then forgotten it, as it
                // should.
                let _ = self.poll.registry().reregister(
                    &mut SourceFd(&level.descriptor),
                    event.token(),
                    wanted(level.interest),
                );
            }
            ready.push((key, readiness(event)));
        }
        Ok(())
    }

    fn waker(&self) -> Waker {
        Arc::clone(&self.signal).into()
    }

    fn calls(&self) -> u64 {
        self.calls
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: the poll owns this descriptor and outlives the borrow, which is of `self`.
        Some(unsafe { BorrowedFd::borrow_raw(self.poll.as_raw_fd()) })
    }
}

impl Wake for MioWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Fails only if the system has no memory for an event. Nobody can act on that.
        let _ = self.0.wake();
    }
}

fn number(source: Source<'_>) -> io::Result<RawFd> {
    source.real().map(|descriptor| descriptor.as_raw_fd())
}

fn token(key: Key) -> Token {
    Token(key.to_bits() as usize)
}

fn wanted(interest: Interest) -> mio::Interest {
    match interest {
        Interest::Read => mio::Interest::READABLE,
        Interest::Write => mio::Interest::WRITABLE,
        Interest::Both => mio::Interest::READABLE.add(mio::Interest::WRITABLE),
    }
}

fn readiness(event: &Event) -> Ready {
    Ready {
        readable: event.is_readable(),
        writable: event.is_writable(),
        hangup: event.is_read_closed() || event.is_write_closed(),
        error: event.is_error(),
    }
}

/// The default number of events per wait.
const EVENTS: usize = 32;
/// Far more than a wait ever reports.
const EVENTS_MAX: usize = 1 << 16;
/// As a key, it would be the last life of the last slot of the last runtime that a process can have.
const WAKE: Token = Token(usize::MAX);
