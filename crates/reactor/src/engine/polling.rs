//! Waiting with the crate polling: Windows (AFD and completion ports), and epoll, kqueue or poll(2) elsewhere.
//!
//! Everything is watched level-triggered. Its edges would not do: on Linux it does not ask for EPOLLRDHUP, so
//! an end that arrives between two reads would be an edge that a short read has already used up. A level tells
//! of it again. Each of its waits costs more calls of the system than one (on Linux five), which is counted
//! here as one operation.
#![allow(unsafe_code)]

use std::{
    io,
    num::NonZeroUsize,
    sync::{Arc, Weak},
    task::{Wake, Waker},
    time::Duration,
};

use polling::{Event, Events, PollMode, Poller};

use super::{Interest, Poll, Ready, Source, Trigger};
use crate::{id::Key, sys::Borrowed};

/// The poller of polling and its batch of events.
pub struct Polling {
    poller: Arc<Poller>,
    events: Events,
    signal: Arc<Signal>,
    calls: u64,
}

/// What wakes the poller, and does not keep it: a waker may outlive its engine.
struct Signal(Weak<Poller>);

impl Polling {
    /// Creates one that takes up to 32 events a wait.
    ///
    /// # Errors
    /// What the system refused, and `Unsupported` where polling knows no levels (illumos, Solaris).
    pub fn new() -> io::Result<Polling> {
        Polling::with_capacity(EVENTS)
    }

    /// Creates one that takes up to `events` events a wait, and at least one.
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
        Ok(Polling { poller, events: Events::with_capacity(capacity), signal, calls: 0 })
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
        let source = descriptor(source)?;
        self.calls += 1;
        // SAFETY: polling asks for its removal before it is closed. The adapter unwatches every transport of a
        // level-triggered poll before it closes it, and a user's resource is unwatched by its owner; an owner
        // who breaks this leaves a number in the set which the system answers with an error: no memory is at
        // stake.
        unsafe { self.poller.add_with_mode(&source, wanted(key, interest), PollMode::Level) }
    }

    fn rewatch(&mut self, key: Key, source: Source<'_>, interest: Interest, _: Trigger) -> io::Result<()> {
        self.calls += 1;
        self.poller.modify_with_mode(descriptor(source)?, wanted(key, interest), PollMode::Level)
    }

    fn unwatch(&mut self, _: Key, source: Source<'_>) -> io::Result<()> {
        self.calls += 1;
        self.poller.delete(descriptor(source)?)
    }

    fn wait(&mut self, ready: &mut Vec<(Key, Ready)>, timeout: Option<Duration>) -> io::Result<()> {
        self.calls += 1;
        self.events.clear();
        // Far in the future it would not fit the system's clock.
        self.poller.wait(&mut self.events, timeout.map(|timeout| timeout.min(WAIT_MAX)))?;
        ready.extend(self.events.iter().map(|event| (Key::from_bits(event.key as u64), readiness(event))));
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

fn descriptor(source: Source<'_>) -> io::Result<Borrowed<'_>> {
    source.descriptor().ok_or(io::ErrorKind::Unsupported.into())
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
const EVENTS: usize = 32;
/// Far more than a wait ever tells.
const EVENTS_MAX: usize = 1 << 16;
/// Some 68 years.
const WAIT_MAX: Duration = Duration::from_secs(i32::MAX as u64);
