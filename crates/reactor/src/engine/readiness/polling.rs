//! Waiting with the crate polling: AFD and completion ports on Windows; epoll, kqueue or poll(2) elsewhere.
//!
//! Every source is watched level-triggered. The crate's edges would not work: on Linux it does not request
//! EPOLLRDHUP, so an end that arrives between two reads would be an edge that a short read has already used
//! up. A level reports it again. Each wait of the crate costs several system calls (five on Linux), which
//! count here as one operation. So a wait takes many events, and reports them in pieces, because the streams
//! of one piece are still in the caches when they are written to.
//!
//! The crate reports a hang-up as input and room, whether or not there are any. A resource that rests after a
//! hang-up must know which. So on Unix, poll(2) checks each source that reports a hang-up, once per report.
//!
//! On Windows, polling deadlocks with itself if a watched socket is closed before it is unwatched (in version
//! 3.11 it takes the socket's lock twice). So the owner of a watched socket must unwatch it first, as the
//! contract says.
#![allow(unsafe_code)]

use std::{
    fmt, io,
    num::NonZeroUsize,
    sync::{Arc, Weak},
    task::{Wake, Waker},
    time::Duration,
};

use polling::{Event, Events, PollMode, Poller};

use super::{Poll, Rest, Trigger};
use crate::engine::{Interest, Ready, Source};
#[cfg(unix)]
use crate::growth::reach;
use crate::id::Key;

/// The crate's poller and its batch of events.
///
/// ```
/// use reactor::{Runtime, engine::{Calls, Polling}};
///
/// let runtime = Runtime::with_engine(Calls::new(Polling::new()?));
/// assert_eq!(runtime.engine_name(), "polling");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Polling {
    poller: Arc<Poller>,
    events: Events,
    /// The number of events of the last wait that have been reported.
    reported: usize,
    signal: Arc<PollerWaker>,
    birthplace: crate::sys::Birthplace,
    /// The watched sources, by slot, so that poll(2) can check them.
    #[cfg(unix)]
    watched: Vec<Option<(Key, crate::sys::Watched)>>,
    calls: u64,
}

impl fmt::Debug for Polling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Polling").finish_non_exhaustive()
    }
}

/// Wakes the poller without keeping it alive, because a waker may outlive its engine.
struct PollerWaker(Weak<Poller>);

impl Polling {
    /// Creates one that takes up to 256 events per wait.
    ///
    /// # Errors
    /// As the system refuses it, and `Unsupported` where polling has no levels (illumos, Solaris).
    pub fn new() -> io::Result<Polling> {
        Polling::with_capacity(EVENTS)
    }

    /// Creates one that takes up to `events` events per wait of the system, and at least one.
    /// [`wait`](Poll::wait) reports up to 32 of them each time, and waits for the system again once all are
    /// reported.
    ///
    /// # Errors
    /// As [`Polling::new`].
    pub fn with_capacity(events: usize) -> io::Result<Polling> {
        let poller = Arc::new(Poller::new()?);
        if !poller.supports_level() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "polling knows no levels here"));
        }
        let capacity = NonZeroUsize::new(events.clamp(1, EVENTS_MAX)).unwrap_or(NonZeroUsize::MIN);
        let signal = Arc::new(PollerWaker(Arc::downgrade(&poller)));
        Ok(Polling {
            poller,
            events: Events::with_capacity(capacity),
            reported: 0,
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

    /// Returns the present readiness after a hang-up or an error, instead of the reported one.
    #[cfg(unix)]
    fn asked(&self, key: Key, ready: Ready) -> Ready {
        let Some(Some((of, watched))) = self.watched.get(key.slot()) else { return ready };
        if *of != key {
            return ready;
        }
        watched
            .with(|source| source.descriptor().and_then(|descriptor| super::poll::ask(descriptor).ok()))
            .unwrap_or(ready)
    }

    #[cfg(windows)]
    fn asked(&self, _: Key, ready: Ready) -> Ready {
        ready
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        if !self.birthplace.is_here() {
            // Its drop would remove descriptors from the set, which this child of a fork shares with its
            // parent.
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
        // SAFETY: polling requires that a source is removed before it is closed. The adapter unwatches every
        // transport of a level-triggered poll before it closes it, and the owner of a user's resource
        // unwatches it. If an owner breaks this rule, a number stays in the set that the system answers with
        // an error; no memory is at stake.
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
        // On Unix it reports errors, and the end of both sides, without being asked.
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
        if self.reported >= self.events.len() {
            self.calls += 1;
            self.reported = 0;
            self.events.clear();
            // A timeout far in the future would not fit the system's clock.
            self.poller.wait(&mut self.events, timeout.map(|timeout| timeout.min(WAIT_MAX)))?;
        }
        for event in self.events.iter().skip(self.reported).take(REPORTS_MAX) {
            self.reported += 1;
            let (key, found) = (Key::from_bits(event.key as u64), readiness(event));
            let is_over = found.hangup || found.error;
            self.calls += u64::from(cfg!(unix) && is_over);
            ready.push((key, if is_over { self.asked(key, found) } else { found }));
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

impl Wake for PollerWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(poller) = self.0.upgrade() {
            // Fails only if the system has no memory for an event. Nobody can act on that.
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

/// The default number of events per wait of the system.
const EVENTS: usize = 256;
/// The number of events that one wait reports at most.
const REPORTS_MAX: usize = 32;
/// Far more than a wait ever reports.
const EVENTS_MAX: usize = 1 << 16;
/// About 68 years.
const WAIT_MAX: Duration = Duration::from_secs(i32::MAX as u64);
