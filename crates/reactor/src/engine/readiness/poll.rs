//! Waiting with poll(2), on every Unix.
//!
//! The work of a wait grows with the number of watched descriptors, not of ready ones. So it suits few
//! descriptors, or systems with nothing else. If a descriptor is closed while it is watched, the poll reports
//! it once, as an error, and removes it from the set.

use std::{
    fmt, io,
    os::fd::{AsRawFd as _, RawFd},
    sync::Arc,
    task::Waker,
    time::Duration,
};

use super::{Poll, Rest, Trigger};
use crate::{
    engine::{Interest, Ready, Source, timeout},
    id::Key,
    sys,
    waker::WakeSignal,
};

/// The set of descriptors of poll(2) and the signal that wakes it.
///
/// ```
/// use reactor::{Runtime, engine::{Calls, PollCall}};
///
/// let runtime = Runtime::with_engine(Calls::new(PollCall::new()?));
/// assert_eq!(runtime.engine_name(), "poll");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct PollCall {
    /// The entries for the system. The first is the signal's.
    entries: Vec<libc::pollfd>,
    /// The key of each entry, at the same position.
    keys: Vec<Key>,
    /// The position of each descriptor, by its number. Zero, the signal's position, means that there is none.
    positions: Vec<u32>,
    signal: Arc<WakeSignal>,
    calls: u64,
}

impl fmt::Debug for PollCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollCall").field("watched", &self.keys.len()).finish_non_exhaustive()
    }
}

impl PollCall {
    /// Creates one that watches nothing.
    ///
    /// # Errors
    /// As eventfd(2) or socketpair(2).
    pub fn new() -> io::Result<PollCall> {
        let signal = Arc::new(WakeSignal::new()?);
        let first = libc::pollfd { fd: signal.fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let nobody = Key::from_bits(u64::MAX);
        Ok(PollCall { entries: vec![first], keys: vec![nobody], positions: Vec::new(), signal, calls: 0 })
    }

    fn position(&self, key: Key, source: Source<'_>) -> io::Result<usize> {
        match self.positions.get(number(source)?) {
            Some(&position) if position != 0 && self.keys[position as usize] == key => Ok(position as usize),
            _ => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        }
    }

    /// Removes an entry. The last one moves into its place.
    fn remove(&mut self, position: usize) {
        let removed = self.entries.swap_remove(position);
        self.keys.swap_remove(position);
        self.positions[removed.fd as usize] = 0;
        if let Some(moved) = self.entries.get(position) {
            self.positions[moved.fd as usize] = position as u32;
        }
    }
}

impl Poll for PollCall {
    fn name(&self) -> &'static str {
        "poll"
    }

    fn trigger(&self) -> Trigger {
        Trigger::Level
    }

    fn watch(
        &mut self,
        key: Key,
        source: Source<'_>,
        interest: Interest,
        trigger: Trigger,
    ) -> io::Result<()> {
        debug_assert_eq!(trigger, Trigger::Level, "poll(2) knows no edges");
        let number = number(source)?;
        let mut entry = libc::pollfd { fd: number as RawFd, events: mask(interest), revents: 0 };
        self.calls += 1;
        // Refuse here what the other mechanisms refuse at once, instead of finding it in the next wait. A
        // signal can interrupt even a call that does not wait.
        sys::again_if_interrupted(|| sys::poll(std::slice::from_mut(&mut entry), 0))?;
        if entry.revents & libc::POLLNVAL != 0 {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        if self.positions.len() <= number {
            self.positions.resize(number + 1, 0);
        }
        if self.positions[number] != 0 {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        // A process has at most 2^31 descriptors.
        self.positions[number] = self.entries.len() as u32;
        self.entries.push(entry);
        self.keys.push(key);
        Ok(())
    }

    fn rewatch(&mut self, key: Key, source: Source<'_>, interest: Interest, _: Trigger) -> io::Result<()> {
        let position = self.position(key, source)?;
        self.entries[position].events = mask(interest);
        Ok(())
    }

    fn rest(&mut self, key: Key, source: Source<'_>, rest: Rest) -> io::Result<bool> {
        let position = self.position(key, source)?;
        let room = if rest.room { libc::POLLOUT } else { 0 };
        let ends = if rest.ends { READ_HANGUP } else { 0 };
        self.entries[position].events = room | ends;
        Ok(true)
    }

    fn reports_ends(&self) -> bool {
        READ_HANGUP != 0
    }

    fn unwatch(&mut self, key: Key, source: Source<'_>) -> io::Result<()> {
        let position = self.position(key, source)?;
        self.remove(position);
        Ok(())
    }

    fn wait(&mut self, ready: &mut Vec<(Key, Ready)>, timeout: Option<Duration>) -> io::Result<()> {
        self.calls += 1;
        let mut left = match sys::poll(&mut self.entries, timeout::millis(timeout)) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        };
        if self.entries[0].revents != 0 {
            self.calls += 1;
            self.signal.clear();
            left -= 1;
        }
        // Go backwards, so that an entry that moves into the place of a removed one has been seen already.
        for position in (1..self.entries.len()).rev() {
            if left == 0 {
                break;
            }
            let events = self.entries[position].revents;
            if events == 0 {
                continue;
            }
            left -= 1;
            ready.push((self.keys[position], readiness(events)));
            if events & libc::POLLNVAL != 0 {
                self.remove(position);
            }
        }
        Ok(())
    }

    fn waker(&self) -> Waker {
        Arc::clone(&self.signal).into()
    }

    fn calls(&self) -> u64 {
        self.calls
    }
}

/// Returns the present readiness of a descriptor, by one call.
///
/// # Errors
/// As poll(2).
#[cfg(all(feature = "polling", target_pointer_width = "64"))]
pub(super) fn ask(descriptor: std::os::fd::BorrowedFd<'_>) -> io::Result<Ready> {
    let events = mask(Interest::Both);
    let mut entry = libc::pollfd { fd: descriptor.as_raw_fd(), events, revents: 0 };
    sys::again_if_interrupted(|| sys::poll(std::slice::from_mut(&mut entry), 0))?;
    Ok(readiness(entry.revents))
}

fn number(source: Source<'_>) -> io::Result<usize> {
    usize::try_from(source.real()?.as_raw_fd()).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))
}

fn mask(interest: Interest) -> libc::c_short {
    let read = if interest.is_read() { libc::POLLIN | READ_HANGUP } else { 0 };
    let write = if interest.is_write() { libc::POLLOUT } else { 0 };
    read | write
}

fn readiness(events: libc::c_short) -> Ready {
    Ready {
        readable: events & libc::POLLIN != 0,
        writable: events & libc::POLLOUT != 0,
        hangup: events & (libc::POLLHUP | READ_HANGUP) != 0,
        error: events & (libc::POLLERR | libc::POLLNVAL) != 0,
    }
}

// Other systems report the peer's end as input, and a read finds it.
#[cfg(any(target_os = "linux", target_os = "android"))]
const READ_HANGUP: libc::c_short = libc::POLLRDHUP;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const READ_HANGUP: libc::c_short = 0;
