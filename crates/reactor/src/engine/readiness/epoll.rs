//! Waiting with epoll(7), on Linux.
//!
//! Streams are watched edge-triggered, users' resources level-triggered. A closed descriptor leaves the set
//! by itself, unless a duplicate of it exists elsewhere. Its events then go on, under a key that is no longer
//! in use.
#![allow(unsafe_code)]

use std::{
    fmt, io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    ptr,
    sync::Arc,
    task::Waker,
    time::Duration,
};

use super::{Poll, Trigger};
use crate::{
    engine::{Interest, Ready, Source, timeout},
    id::Key,
    waker::WakeSignal,
};

/// The epoll instance, its batch of events, and the eventfd that wakes it.
///
/// ```
/// use reactor::{Runtime, engine::{Calls, Epoll}};
///
/// let runtime = Runtime::with_engine(Calls::new(Epoll::new()?));
/// assert_eq!(runtime.engine_name(), "epoll");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Epoll {
    epoll: OwnedFd,
    /// As many as the batch is large. The kernel fills the front.
    events: Vec<libc::epoll_event>,
    signal: Arc<WakeSignal>,
    /// Cleared when the kernel has no epoll_pwait2(2), which is of Linux 5.11.
    has_nanos: bool,
    calls: u64,
}

impl fmt::Debug for Epoll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epoll").field("epoll", &self.epoll).finish_non_exhaustive()
    }
}

impl Epoll {
    /// Creates one that takes up to 32 events per wait. With few events, the bytes that a turn reads are
    /// still in the caches when the turn writes them.
    ///
    /// # Errors
    /// As epoll_create1(2), eventfd(2).
    pub fn new() -> io::Result<Epoll> {
        Epoll::with_capacity(EVENTS)
    }

    /// Creates one that takes up to `events` events per wait, and at least one. Events beyond that come first
    /// in the next wait.
    ///
    /// # Errors
    /// As [`Epoll::new`].
    pub fn with_capacity(events: usize) -> io::Result<Epoll> {
        // SAFETY: epoll_create1 takes no pointer.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above returned this descriptor, and nothing else owns it.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        let signal = Arc::new(WakeSignal::new()?);
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; events.clamp(1, EVENTS_MAX)];
        let mut this = Epoll { epoll, events, signal: Arc::clone(&signal), has_nanos: true, calls: 0 };
        // Edge-triggered, the eventfd reports each wake once, so nobody needs to read it.
        let mask = libc::EPOLLIN as u32 | libc::EPOLLET as u32;
        this.control(libc::EPOLL_CTL_ADD, signal.fd(), WAKE, mask)?;
        Ok(this)
    }

    fn control(&mut self, operation: i32, fd: BorrowedFd<'_>, data: u64, mask: u32) -> io::Result<()> {
        self.calls += 1;
        let mut event = libc::epoll_event { events: mask, u64: data };
        // SAFETY: `event` lives through the call, and the kernel copies it.
        let result =
            unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd.as_raw_fd(), &mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn wait_in_kernel(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        if let Some(timeout) = timeout.filter(|timeout| self.has_nanos && !timeout.is_zero()) {
            match self.wait_nanos(timeout) {
                // A sandbox may answer an unknown call with EPERM.
                Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                    self.has_nanos = false;
                }
                result => return result,
            }
        }
        self.calls += 1;
        // SAFETY: pointer and length are those of the live, exclusively borrowed vector.
        let count = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                self.events.len() as i32,
                timeout::millis(timeout),
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    fn wait_nanos(&mut self, timeout: Duration) -> io::Result<usize> {
        // The kernel's own timespec has 64 bits in both fields on every architecture.
        let (seconds, nanos) = timeout::seconds_and_nanos(timeout);
        let spec = [seconds, nanos];
        self.calls += 1;
        // SAFETY: the pointers are to the live vector, with its length, and to the live timespec; a null
        // signal mask leaves the mask alone.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                self.events.len() as i32,
                spec.as_ptr(),
                ptr::null::<libc::sigset_t>(),
                0_usize,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}

impl Poll for Epoll {
    fn name(&self) -> &'static str {
        "epoll"
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
        self.control(libc::EPOLL_CTL_ADD, source.real()?, key.to_bits(), mask(interest) | edge(trigger))
    }

    fn rewatch(
        &mut self,
        key: Key,
        source: Source<'_>,
        interest: Interest,
        trigger: Trigger,
    ) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, source.real()?, key.to_bits(), mask(interest) | edge(trigger))
    }

    fn unwatch(&mut self, key: Key, source: Source<'_>) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, source.real()?, key.to_bits(), 0)
    }

    fn wait(&mut self, ready: &mut Vec<(Key, Ready)>, timeout: Option<Duration>) -> io::Result<()> {
        let count = match self.wait_in_kernel(timeout) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
            result => result?,
        };
        let events = self.events[..count].iter().filter(|event| event.u64 != WAKE);
        ready.extend(events.map(|event| (Key::from_bits(event.u64), readiness(event.events))));
        Ok(())
    }

    fn waker(&self) -> Waker {
        Arc::clone(&self.signal).into()
    }

    fn calls(&self) -> u64 {
        self.calls
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(std::os::fd::AsFd::as_fd(&self.epoll))
    }
}

fn edge(trigger: Trigger) -> u32 {
    if trigger == Trigger::Edge { libc::EPOLLET as u32 } else { 0 }
}

fn mask(interest: Interest) -> u32 {
    let read = if interest.is_read() { libc::EPOLLIN | libc::EPOLLRDHUP } else { 0 };
    let write = if interest.is_write() { libc::EPOLLOUT } else { 0 };
    (read | write) as u32
}

fn readiness(events: u32) -> Ready {
    let has = |mask: i32| events & mask as u32 != 0;
    Ready {
        readable: has(libc::EPOLLIN),
        writable: has(libc::EPOLLOUT),
        hangup: has(libc::EPOLLHUP | libc::EPOLLRDHUP),
        error: has(libc::EPOLLERR),
    }
}

/// The default number of events per wait. With more, the first streams would have left the caches by the time
/// they are written.
const EVENTS: usize = 32;
/// The kernel refuses a larger buffer.
const EVENTS_MAX: usize = i32::MAX as usize / size_of::<libc::epoll_event>();
/// The kernel's data for the eventfd. As a key, it would be the last life of the last slot of the last
/// runtime that a process can have.
const WAKE: u64 = u64::MAX;
