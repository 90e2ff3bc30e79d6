//! Streams: the end of a connect, one read, and one write.

use std::{cell::Cell, io};

use session::Outgoing;

use super::{
    BLOCKED, Calls, ENDED, EntryKind, HANGUP, READABLE, READING, WRITABLE, interest::set_interest,
    table::Entry,
};
use crate::{
    engine::{Chunk, Event, Interest, Poll, Sent, Trigger},
    id::Key,
    sys,
};

impl<P: Poll> Calls<P> {
    /// Finds out how the connect ended, if it has.
    pub(super) fn step_connecting(&mut self, key: Key) -> Option<Event> {
        let entry = self.table.get_mut(key).filter(|entry| entry.has(WRITABLE))?;
        let result = sys::is_connected(sys::borrow(entry.owned()?));
        self.calls.set(self.calls.get() + 2);
        let result = match result {
            Ok(sys::Connect::Up(failure)) => {
                entry.kind = EntryKind::Stream;
                // Reported after input that may still be there.
                entry.failed = error_number(failure.as_ref());
                Ok(())
            }
            Ok(sys::Connect::Waits) => {
                entry.set(WRITABLE, false);
                return None;
            }
            Err(error) => {
                entry.kind = EntryKind::Refused;
                Err(error)
            }
        };
        self.mark_changed(key);
        Some(Event::Connected(result))
    }

    /// Reports room or writes the parked queue, then reads once.
    pub(super) fn step_stream(&mut self, key: Key) -> Option<Event> {
        let entry = self.table.get_mut(key)?;
        if entry.has(WRITABLE) && entry.has(BLOCKED) {
            return self.report_room(key);
        }
        if entry.has(WRITABLE)
            && let Some(queue) = entry.parked.take()
        {
            match send_once(entry, &self.calls, queue) {
                Ok(sent) => {
                    self.mark_changed(key);
                    return Some(Event::Sent(sent));
                }
                Err(queue) => self.park(key, queue),
            }
        }
        self.driven = None;
        self.receive(key)
    }

    /// Reads once, if the runtime wants input and there may be some.
    #[inline(always)]
    pub(super) fn receive(&mut self, key: Key) -> Option<Event> {
        let entry = self.table.get_mut(key)?;
        if !(entry.has(READING) && entry.has(READABLE)) || entry.has(ENDED) {
            self.look(key);
            return None;
        }
        self.read(key)
    }

    /// Reads once.
    #[inline(always)]
    pub(super) fn read(&mut self, key: Key) -> Option<Event> {
        let entry = self.table.get_mut(key)?;
        let mut buffer = self.spare.take().unwrap_or_else(|| vec![0; self.buffer_bytes].into());
        let result = sys::receive(sys::borrow(entry.owned()?), entry.medium, &mut buffer);
        self.calls.set(self.calls.get() + 1);
        let end = match result {
            Ok(0) if entry.failed == 0 => Event::End,
            // The system reports an error once. A send received it, so now it looks like an end.
            Ok(0) => Event::Broken(io::Error::from_raw_os_error(i32::from(entry.failed))),
            Ok(count) => {
                // A terminal returns one line per read, even if more is waiting. So only a short read of a
                // socket means that nothing is left.
                if count < buffer.len() && !entry.has(HANGUP) && entry.medium.is_socket() {
                    entry.set(READABLE, false);
                } else {
                    self.queue_again(key);
                }
                return Some(Event::Got(Chunk::new(buffer, count)));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                entry.set(READABLE, false);
                entry.set(HANGUP, false);
                self.spare = Some(buffer);
                return None;
            }
            Err(e) => Event::Broken(e),
        };
        entry.set(ENDED, true);
        self.spare = Some(buffer);
        self.mark_changed(key);
        Some(end)
    }

    /// Sends once: at once if there may be room, otherwise as soon as there is.
    #[inline(always)]
    pub(super) fn send_or_park(&mut self, key: Key, queue: Box<Outgoing>) -> Option<Sent> {
        let Some(entry) = self.table.get_mut(key) else { return refused(queue, io::ErrorKind::NotFound) };
        if entry.kind != EntryKind::Stream || entry.parked.is_some() || queue.is_empty() {
            return self.send_elsewhere(key, queue);
        }
        let queue = match entry.has(WRITABLE) {
            true => match send_once(entry, &self.calls, queue) {
                Ok(sent) => return Some(sent),
                Err(queue) => queue,
            },
            false => queue,
        };
        self.park(key, queue);
        None
    }

    /// Handles a send in any other case than a connected stream with something to send.
    #[cold]
    fn send_elsewhere(&mut self, key: Key, queue: Box<Outgoing>) -> Option<Sent> {
        let Some(entry) = self.table.get(key) else { return refused(queue, io::ErrorKind::NotFound) };
        match entry.kind {
            EntryKind::Listener | EntryKind::Refused => refused(queue, io::ErrorKind::NotConnected),
            EntryKind::Watched | EntryKind::Datagrams => refused(queue, io::ErrorKind::InvalidInput),
            _ if entry.parked.is_some() => refused(queue, io::ErrorKind::InvalidInput),
            _ if queue.is_empty() => Some(Sent { queue, result: Ok(0) }),
            EntryKind::Connecting | EntryKind::Stream => {
                self.park(key, queue);
                None
            }
        }
    }

    fn park(&mut self, key: Key, queue: Box<Outgoing>) {
        if let Some(entry) = self.table.get_mut(key) {
            entry.parked = Some(queue);
            // Room is watched only from the first write that found none, because watching for it costs the
            // poll something.
            if self.poll.trigger() == Trigger::Edge
                && let Err(error) = set_interest(&mut self.poll, entry, Some(Interest::Both), Trigger::Edge)
            {
                return self.lose(key, error);
            }
            self.mark_changed(key);
        }
    }
}

/// Writes the front of the queue once. If there is no room, the queue comes back as the error.
#[inline(always)]
fn send_once(entry: &mut Entry, calls: &Cell<u64>, mut queue: Box<Outgoing>) -> Result<Sent, Box<Outgoing>> {
    let Some(descriptor) = entry.owned() else { return Err(queue) };
    let result = sys::offer(sys::borrow(descriptor), entry.medium, &queue);
    calls.set(calls.get() + 1);
    let result = match result {
        Ok(written) => {
            // A file that takes a part still has room, or its next write returns the error.
            if written.taken < written.offered && !entry.medium.is_unwaited() {
                entry.set(WRITABLE, false);
            }
            queue.advance(written.taken);
            Ok(written.taken)
        }
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
            entry.set(WRITABLE, false);
            return Err(queue);
        }
        Err(e) => {
            // A broken pipe does not concern the read side. Any other error is the stream's end.
            if e.kind() != io::ErrorKind::BrokenPipe {
                entry.failed = error_number(Some(&e));
            }
            Err(e)
        }
    };
    Ok(Sent { queue, result })
}

/// Returns the system's number of an error, or zero if there is none.
pub(super) fn error_number(error: Option<&io::Error>) -> u16 {
    error.and_then(io::Error::raw_os_error).and_then(|number| u16::try_from(number).ok()).unwrap_or(0)
}

fn refused(queue: Box<Outgoing>, kind: io::ErrorKind) -> Option<Sent> {
    Some(Sent { queue, result: Err(kind.into()) })
}
