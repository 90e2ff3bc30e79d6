//! Waiting with the crate polling: Windows (AFD and completion ports), and epoll, kqueue or poll(2) elsewhere.
//!
//! Everything is watched level-triggered. Its edges would not do: on Linux it does not ask for EPOLLRDHUP, so
//! an end that arrives between two reads would be an edge that a short read has already used up. A level tells
//! of it again. Each of its waits costs more calls of the system than one (on Linux five), which is counted
//! here as one operation. So a wait takes many events, and tells them in pieces: the streams of a piece are
//! still in the caches when they are written to.
//!
//! It tells a hang-up as input and room, whether these are there or not, and a resource that rests after a
//! hang-up must know: so on Unix poll(2) is asked once about each source that reports one.
//!
//! On Windows polling waits for itself, for ever, when a watched socket is closed before it is unwatched (3.11: it
//! takes the socket's lock twice). Whoever watches a socket there unwatches it first, as the contract says.
#![allow(unsafe_code)]

use std::{
    io,
    num::NonZeroUsize,
    sync::{Arc, Weak},
    task::{Wake, Waker},
    time::Duration,
};

use polling::{Event, Events, PollMode, Poller};

use super::{Interest, Poll, Ready, Rest, Source, Trigger};
#[cfg(unix)]
use crate::growth::reach;
use crate::id::Key;

/// The poller of polling and its batch of events.
pub struct Polling {
    poller: Arc<Poller>,
    events: Events,
    /// How many events of the last wait were told.
    told: usize,
    signal: Arc<Signal>,
    birthplace: crate::sys::Birthplace,
    /// What is watched, by slot: to ask about it.
    #[cfg(unix)]
    watched: Vec<Option<(Key, crate::sys::Watched)>>,
    calls: u64,
}

/// What wakes the poller, and does not keep it: a waker may outlive its engine.
struct Signal(Weak<Poller>);

impl Polling {
    /// Creates one that takes up to 256 events a wait.
    ///
    /// # Errors
    /// What the system refused, and `Unsupported` where polling knows no levels (illumos, Solaris).
    pub fn new() -> io::Result<Polling> {
        Polling::with_capacity(EVENTS)
    }

    /// Creates one that takes up to `events` events a wait of the system, and at least one; [`wait`](Poll::wait) tells
    /// up to 32 of them each time, and asks the system again when all are told.
    ///
    /// # Errors
    /// As [`Polling::new`].
    pub fn with_capacity(events: usize) -> io::Result<Polling> {
        let poller = Arc::new(Poller::new()?);
        if !poller.supports_level() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "polling knows no levels here"));
        }
        let capacity = NonZeroUsize::new(events.clamp(1, EVENTS_MAX)).unwrap_or(NonZeroUsize::MIN);
        let signal = Arc::new(Signal(Arc::downgrade(&poller)));
        Ok(Polling {
            poller,
            events: Events::with_capacity(capacity),
            told: 0,
            signal,
            birthplace: crate::sys::Birthplace::here(),
            #[cfg(unix)]
            watched: Vec::new(),
            calls: 0,
        })
    }

    #[cfg(unix)]
    fn note(&mut self, key: Key, watched: Option<crate::sys::Watched>) {
        let slot = key.slot();
        if watched.is_some() {
            reach(&mut self.watched, slot, || None);
        }
        if let Some(place) = self.watched.get_mut(slot) {
            *place = watched.map(|watched| (key, watched));
        }
    }

    /// What holds after a hang-up or an error, in place of what was told.
    #[cfg(unix)]
    fn asked(&self, key: Key, told: Ready) -> Ready {
        let Some(Some((of, watched))) = self.watched.get(key.slot()) else { return told };
        if *of != key {
            return told;
        }
        watched
            .with(|source| source.descriptor().and_then(|descriptor| super::poll::ask(descriptor).ok()))
            .unwrap_or(told)
    }

    #[cfg(windows)]
    fn asked(&self, _: Key, told: Ready) -> Ready {
        told
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        if !self.birthplace.is_here() {
            // Its drop takes descriptors out of the set that this child of a fork shares with its parent.
            std::mem::forget(Arc::clone(&self.poller));
        }
    }
}

impl Poll for Polling {
    fn name(&self) -> &'static str {
        "polling"
    }

    fn trigger(&self) -> Trigger {
        Trigger::Level
    }

    fn watch(&mut self, key: Key, source: Source<'_>, interest: Interest, _: Trigger) -> io::Result<()> {
        let borrowed = source.real()?;
        self.calls += 1;
        // SAFETY: polling asks for its removal before it is closed. The adapter unwatches every transport of a
        // level-triggered poll before it closes it, and a user's resource is unwatched by its owner; an owner
        // who breaks this leaves a number in the set which the system answers with an error: no memory is at
        // stake.
        unsafe { self.poller.add_with_mode(&borrowed, wanted(key, interest), PollMode::Level) }?;
        #[cfg(unix)]
        self.note(key, crate::sys::Watched::new(source));
        Ok(())
    }

    fn rewatch(&mut self, key: Key, source: Source<'_>, interest: Interest, _: Trigger) -> io::Result<()> {
        self.calls += 1;
        self.poller.modify_with_mode(source.real()?, wanted(key, interest), PollMode::Level)
    }

    fn rest(&mut self, key: Key, source: Source<'_>, rest: Rest) -> io::Result<bool> {
        self.calls += 1;
        // What it is not asked for it tells all the same on Unix: that both sides have ended, and errors.
        let wanted = Event::new(key.to_bits() as usize, false, rest.room);
        self.poller.modify_with_mode(source.real()?, wanted, PollMode::Level).map(|()| true)
    }

    fn unwatch(&mut self, key: Key, source: Source<'_>) -> io::Result<()> {
        #[cfg(unix)]
        self.note(key, None);
        #[cfg(windows)]
        let _ = key;
        self.calls += 1;
        self.poller.delete(source.real()?)
    }

    fn wait(&mut self, ready: &mut Vec<(Key, Ready)>, timeout: Option<Duration>) -> io::Result<()> {
        if self.told >= self.events.len() {
            self.calls += 1;
            self.told = 0;
            self.events.clear();
            // Far in the future it would not fit the system's clock.
            self.poller.wait(&mut self.events, timeout.map(|timeout| timeout.min(WAIT_MAX)))?;
        }
        for event in self.events.iter().skip(self.told).take(TOLD_MAX) {
            self.told += 1;
            let (key, told) = (Key::from_bits(event.key as u64), readiness(event));
            let is_over = told.hangup || told.error;
            self.calls += u64::from(cfg!(unix) && is_over);
            ready.push((key, if is_over { self.asked(key, told) } else { told }));
        }
        Ok(())
    }

    fn waker(&self) -> Waker {
        Arc::clone(&self.signal).into()
    }

    fn calls(&self) -> u64 {
        self.calls
    }

    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple", target_os = "freebsd"))]
    fn fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        Some(std::os::fd::AsFd::as_fd(&*self.poller))
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(poller) = self.0.upgrade() {
            // Fails only when the system has no memory for an event. There is nobody to tell.
            let _ = poller.notify();
        }
    }
}

fn wanted(key: Key, interest: Interest) -> Event {
    Event::new(key.to_bits() as usize, interest.is_read(), interest.is_write())
}

fn readiness(event: Event) -> Ready {
    Ready {
        readable: event.readable,
        writable: event.writable,
        hangup: event.is_interrupt(),
        error: event.is_err().unwrap_or(false),
    }
}

/// What one wait takes by default.
const EVENTS: usize = 256;
/// What is told at a time.
const TOLD_MAX: usize = 32;
/// Far more than a wait ever tells.
const EVENTS_MAX: usize = 1 << 16;
/// Some 68 years.
const WAIT_MAX: Duration = Duration::from_secs(i32::MAX as u64);
