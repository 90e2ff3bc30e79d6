//! Users' resources: for each, a wait for readiness that is requested again before every wait of the engine.
//!
//! Each new wait reports the present readiness, which makes it level-triggered. It costs no call, because it
//! goes with the next one. A multishot would report only changes. The kernel keeps a file open as long as an
//! operation waits for it, even after its owner has closed it. So each wait consists of two linked
//! operations. When the first finds the resource ready, the second looks the descriptor up again, and reports
//! its state then.

use std::io;

use io_uring::{opcode, types::Fd};

use super::{
    IoUring,
    operation::{Kind, Tag},
    ring::Completion,
    table::{CLOSING, HUNG_UP, InputState},
};
use crate::{
    engine::{
        Event, Interest, Ready, Source,
        entry::{EntryKind, Ownership},
    },
    id::Key,
    sys,
};

impl IoUring {
    /// Sets the interest in a resource.
    ///
    /// # Errors
    /// EBADF, EEXIST as epoll_ctl(2), and those of poll(2).
    pub(super) fn set_watched(
        &mut self,
        key: Key,
        source: Source<'_>,
        interest: Option<Interest>,
    ) -> io::Result<()> {
        let watched = sys::Watched::new(source).ok_or(io::ErrorKind::Unsupported)?;
        let known = self.table.find(key);
        let is_ours =
            known.and_then(|index| self.table.get(index)).is_some_and(|e| e.kind == EntryKind::Watched);
        if !is_ours && !self.table.is_vacant(key) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let checked = match interest {
            Some(_) => self.check_watched(source, known),
            None => Ok(()),
        };
        if let Err(error) = checked {
            self.forget_watched(key);
            return Err(error);
        }
        let index =
            known.unwrap_or_else(|| self.table.insert(key, Ownership::Watched(watched), EntryKind::Watched));
        let Some(entry) = self.table.get_mut(index) else { return Ok(()) };
        let (before, asked) = (entry.number(), entry.interest());
        entry.descriptor = Ownership::Watched(watched);
        entry.set_interest(interest);
        entry.set(HUNG_UP, false);
        let number = entry.number();
        let is_changed = before != number || asked != interest;
        if before != number || interest.is_none() {
            self.release_number(before, index);
        }
        if interest.is_some() {
            self.numbers.insert(number, index);
        }
        if is_changed {
            self.queued.retain(|(of, event)| *of != key || !matches!(event, Event::Ready(_)));
            self.cancel_input(index);
        }
        self.list(index);
        Ok(())
    }

    /// Refuses at once what other engines refuse at once.
    fn check_watched(&mut self, source: Source<'_>, known: Option<u32>) -> io::Result<()> {
        self.count_call();
        let Some(descriptor) = source.descriptor() else { return Err(io::ErrorKind::Unsupported.into()) };
        let number = std::os::fd::AsRawFd::as_raw_fd(&descriptor);
        let mut entry = [libc::pollfd { fd: number, events: 0, revents: 0 }];
        sys::again_if_interrupted(|| sys::poll(&mut entry, 0))?;
        if number < 0 || entry[0].revents & libc::POLLNVAL != 0 {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        match self.numbers.get(&number) {
            Some(other) if Some(*other) != known => Err(io::Error::from_raw_os_error(libc::EEXIST)),
            _ => Ok(()),
        }
    }

    /// Ends watching. The entry stays until no operation waits for it any more.
    pub(super) fn forget_watched(&mut self, key: Key) {
        let Some(index) = self.table.find(key) else { return };
        let Some(entry) = self.table.get_mut(index).filter(|entry| entry.kind == EntryKind::Watched) else {
            return;
        };
        entry.set(CLOSING, true);
        let number = entry.number();
        self.release_number(number, index);
        self.queued.retain(|(of, _)| *of != key);
        self.table.forget(key);
        self.cancel_input(index);
        self.settle(index);
    }

    fn release_number(&mut self, number: i32, index: u32) {
        if self.numbers.get(&number) == Some(&index) {
            self.numbers.remove(&number);
        }
    }

    /// Requests the readiness of a resource, if it is wanted and no request is in flight.
    pub(super) fn sync_watched(&mut self, index: u32) {
        let IoUring { table, ring, .. } = self;
        let Some(entry) = table.get_mut(index) else { return };
        let Some(interest) = entry.interest().filter(|_| !entry.has(HUNG_UP)) else { return };
        if entry.input != InputState::Idle {
            return;
        }
        let wait = || opcode::PollAdd::new(Fd(entry.number()), mask(interest)).build();
        ring.start_linked(wait(), wait(), Tag::new(Kind::Watch, entry.life, index));
        entry.input = InputState::Polling;
    }

    /// Handles the end of a wait for a resource.
    pub(super) fn watched(&mut self, index: u32, completion: Completion) -> Option<(Key, Event)> {
        self.ring.ended();
        let entry = self.table.get_mut(index)?;
        let key = entry.key;
        entry.input = InputState::Idle;
        if entry.has(CLOSING) {
            self.settle(index);
            return None;
        }
        // A handler may have set it to rest after the kernel looked.
        let interest = entry.interest()?;
        if matches!(-completion.result, libc::ECANCELED | libc::EINTR | libc::EAGAIN) {
            self.list(index);
            return None;
        }
        let ready = readiness(completion.result).masked(interest);
        if !(ready.readable || ready.writable) {
            if !(ready.hangup || ready.error) {
                self.list(index);
                return None;
            }
            // It would be reported forever, because no read would silence it.
            entry.set(HUNG_UP, true);
            let number = entry.number();
            self.release_number(number, index);
            return Some((key, Event::Ready(ready)));
        }
        self.list(index);
        Some((key, Event::Ready(ready)))
    }
}

fn mask(interest: Interest) -> u32 {
    let read = if interest.is_read() { libc::POLLIN | libc::POLLRDHUP } else { 0 };
    let write = if interest.is_write() { libc::POLLOUT } else { 0 };
    (read | write) as u32
}

/// Decodes the kernel's answer. An error of the wait itself counts as one of the descriptor.
fn readiness(result: i32) -> Ready {
    let bits = if result < 0 { libc::POLLERR } else { result as libc::c_short };
    Ready {
        readable: bits & libc::POLLIN != 0,
        writable: bits & libc::POLLOUT != 0,
        hangup: bits & (libc::POLLHUP | libc::POLLRDHUP) != 0,
        error: bits & (libc::POLLERR | libc::POLLNVAL) != 0,
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::unix::net::UnixStream};

    use super::*;
    use crate::engine::Engine as _;

    /// Returns an engine that has found a resource readable and has not reported it yet.
    fn found() -> (IoUring, Key, UnixStream, UnixStream) {
        let mut engine = IoUring::new().expect("this kernel has io_uring");
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        theirs.write_all(b"x").expect("there is room");
        let key = Key::new(0, 0, 0);
        engine.watch(key, Source::of(&ours), Some(Interest::Read)).expect("it is open");
        engine.wait(None).expect("the engine is whole");
        assert_eq!(engine.queued.len(), 1);
        (engine, key, ours, theirs)
    }

    #[test]
    fn what_was_found_before_the_interest_changed_is_not_reported() {
        for interest in [None, Some(Interest::Write)] {
            let (mut engine, key, ours, _theirs) = found();
            engine.watch(key, Source::of(&ours), interest).expect("it is open");
            assert!(engine.next().is_none(), "{interest:?}");
            if interest.is_some() {
                engine.wait(None).expect("the engine is whole");
                let Some((_, Event::Ready(ready))) = engine.next() else { panic!("it has room") };
                assert!(ready.writable && !ready.readable);
            }
        }
        let (mut engine, key, ours, _theirs) = found();
        engine.watch(key, Source::of(&ours), Some(Interest::Read)).expect("it is open");
        assert!(engine.next().is_some(), "nothing has changed");
    }

    #[test]
    fn what_was_found_before_the_watch_ended_is_not_reported() {
        let (mut engine, key, ours, _theirs) = found();
        engine.unwatch(key, Source::of(&ours));
        assert!(engine.next().is_none());
    }
}
