//! Input: arms and cancels operations as the wishes require, and handles their completions.
//!
//! A multishot is armed in one place: before the wait, after the shared buffers were shown to the kernel. If
//! the kernel does not have an operation, or has no buffer for it, the ring waits for readiness and the
//! engine makes the call.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd},
};

use io_uring::{cqueue, opcode, types::Fd};

use super::{
    IoUring,
    operation::{Kind, Tag},
    output::error_number,
    ring::{Completion, GROUP},
    table::{
        CALLED_INPUT, CLOSING, DETACHING, EntryRef, FED, GREEDY, InputState, LATE, LISTED, READING, STARVED,
    },
};
use crate::{
    address::Address,
    engine::{Chunk, Event, Medium, Role, Transport, entry::EntryKind},
    id::Key,
    sys,
};

impl IoUring {
    /// Lists the entry, so that it is brought in step before the next wait.
    pub(super) fn list(&mut self, index: u32) {
        let Some(entry) = self.table.get_mut(index).filter(|entry| !entry.has(LISTED)) else { return };
        entry.set(LISTED, true);
        self.due.push(EntryRef { index, life: entry.life });
        self.stir();
    }

    /// Puts the entry into the line for a buffer. If it received input since it was last armed, it goes
    /// behind all others in the line. If it received none, it goes before entries that came to the line
    /// later.
    fn starve(&mut self, index: u32) {
        let Some(entry) = self.table.get_mut(index).filter(|entry| !entry.has(LISTED)) else { return };
        if entry.has(LATE) {
            // It is armed once it has no more late input.
            return;
        }
        entry.set(LISTED, true);
        let place = EntryRef { index, life: entry.life };
        if entry.has(FED) {
            // It would take all buffers that there are. Stopping it here bounds the input of a turn.
            self.starved.push_back(place);
        } else {
            self.pool.grow();
            self.starved.insert(self.passed_over, place);
            self.passed_over += 1;
        }
        self.stir();
    }

    /// Arms operations that are wanted and not in flight, and cancels operations that are in flight and no
    /// longer wanted.
    pub(super) fn arm_all(&mut self) {
        self.pool.publish();
        if let Some(recvmsg) = &self.recvmsg {
            recvmsg.publish();
        }
        self.arm_starved();
        for at in 0..self.due.len() {
            let place = self.due[at];
            let Some(entry) = self.table.at(place) else { continue };
            entry.set(LISTED, false);
            self.sync(place.index);
        }
        self.due.clear();
    }

    /// Arms the entries that found no buffer, before all others, because the first armed take the buffers.
    fn arm_starved(&mut self) {
        // Arm as many as can find a buffer. If none is left, the holders may hold them forever. Then the
        // engine waits for the readiness of all others, and receives by calls into separate memory.
        self.passed_over = 0;
        if self.starved.is_empty() {
            return;
        }
        let mut free = self.pool.free();
        while let Some(place) = self.starved.pop_front() {
            let Some(entry) = self.table.at(place) else { continue };
            entry.set(LISTED, false);
            entry.set(STARVED, self.pool.free() == 0);
            self.sync(place.index);
            free = free.saturating_sub(1);
            if free == 0 && self.pool.free() > 0 {
                return;
            }
        }
    }

    /// Brings the operation for the entry's input in step with the wish.
    fn sync(&mut self, index: u32) {
        let Some(entry) = self.table.get(index) else { return };
        if entry.has(CLOSING) || entry.has(DETACHING) {
            return;
        }
        let is_wanted = match entry.kind {
            EntryKind::Watched => return self.sync_watched(index),
            EntryKind::Refused => false,
            EntryKind::Connecting => true,
            EntryKind::Listener if self.accepted.len() >= ACCEPTED_MAX => {
                self.crowded.push(EntryRef { index, life: entry.life });
                false
            }
            EntryKind::Stream if !entry.has(READING) => return self.sync_rest(index),
            EntryKind::Stream if entry.has(LATE) => return self.queue_late(index),
            EntryKind::Listener | EntryKind::Stream | EntryKind::Datagrams => entry.has(READING),
        };
        match entry.input {
            InputState::Idle if is_wanted => self.arm(index),
            InputState::Multishot | InputState::Polling if !is_wanted => self.cancel_input(index),
            _ => {}
        }
    }

    /// Returns whether the kernel reads a transport by itself that is not a socket: only a pipe. A terminal
    /// may stop the process, and not every device copes with a read that does not wait.
    pub(super) fn is_read(&self, role: Role, descriptor: &sys::Owned, medium: Medium) -> bool {
        if role != Role::Stream || medium.is_socket() || !medium.has_input() || medium.is_terminal() {
            return false;
        }
        if !(self.operations.read && self.operations.receive) {
            return false;
        }
        self.count_call();
        sys::file::is_pipe(sys::borrow(descriptor))
    }

    fn arm(&mut self, index: u32) {
        let IoUring { table, ring, operations, recvmsg, .. } = self;
        let Some(entry) = table.get_mut(index) else { return };
        let descriptor = Fd(entry.number());
        let is_called = entry.has(CALLED_INPUT) || entry.has(STARVED) || entry.has(GREEDY);
        let recvmsg = recvmsg.as_mut().filter(|_| entry.kind == EntryKind::Datagrams && !is_called);
        let (kind, operation) = match (entry.kind, recvmsg) {
            (EntryKind::Datagrams, Some(recvmsg)) => (Kind::RecvMsg, recvmsg.receive(descriptor)),
            (EntryKind::Listener, _) if operations.accept && !is_called => {
                let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
                (Kind::Accept, opcode::AcceptMulti::new(descriptor).flags(flags).build())
            }
            (EntryKind::Stream, _) if operations.receive && !is_called => {
                let operation = match entry.medium.is_socket() {
                    true => opcode::RecvMulti::new(descriptor, GROUP).build(),
                    // Reads as many bytes as the buffer can hold.
                    false => opcode::ReadMulti::new(descriptor, 0, GROUP).build(),
                };
                (Kind::Receive, operation)
            }
            (kind, _) => {
                let mask = if kind == EntryKind::Connecting {
                    libc::POLLOUT
                } else {
                    libc::POLLIN | libc::POLLRDHUP
                };
                (Kind::Readable, opcode::PollAdd::new(descriptor, mask as u32).build())
            }
        };
        entry.set(FED, false);
        entry.input = if kind == Kind::Readable { InputState::Polling } else { InputState::Multishot };
        ring.start(operation, Tag::new(kind, entry.life, index));
    }

    /// Handles one completion of a multishot receive.
    #[inline]
    pub(super) fn received(&mut self, index: u32, completion: Completion) -> Option<(Key, Event)> {
        let Completion { result, flags, .. } = completion;
        // Take the buffer first, so that it goes back in every case.
        let buffer = cqueue::buffer_select(flags);
        let provided =
            buffer.map(|buffer| self.pool.lend(buffer, result.max(0) as usize, cqueue::buffer_more(flags)));
        let entry = self.table.get_mut(index)?;
        if result > 0
            && cqueue::more(flags)
            && !entry.has(CLOSING)
            && let Some(provided) = provided
        {
            entry.set(FED, true);
            return self.hand_over(index, Chunk::provided(provided));
        }
        let is_last = !cqueue::more(flags);
        if is_last {
            self.ring.ended();
            entry.input = InputState::Idle;
        }
        let event = if entry.has(CLOSING) {
            None
        } else {
            match (provided, result) {
                (Some(provided), 1..) => {
                    self.list(index);
                    self.hand_over(index, Chunk::provided(provided))
                }
                (_, 0..) => self.ended(index, None).and_then(|end| self.report_behind(index, end)),
                (_, error) => self.not_received(index, -error).and_then(|end| self.report_behind(index, end)),
            }
        };
        if is_last {
            self.settle(index);
        }
        event
    }

    /// Handles a receive that ended without input.
    fn not_received(&mut self, index: u32, error: i32) -> Option<Event> {
        match error {
            libc::ENOBUFS => self.starve(index),
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => self.list(index),
            // It is neither a socket nor a pipe, or the kernel has no multishot. The call will return the
            // error.
            libc::ENOTSOCK | libc::EBADFD | libc::EINVAL | libc::EOPNOTSUPP => {
                if let Some(entry) = self.table.get_mut(index) {
                    entry.set(CALLED_INPUT, true);
                }
                self.list(index);
            }
            error => return self.ended(index, Some(io::Error::from_raw_os_error(error))),
        }
        None
    }

    /// Ends the read side.
    pub(super) fn ended(&mut self, index: u32, error: Option<io::Error>) -> Option<Event> {
        let entry = self.table.get_mut(index)?;
        entry.input = InputState::Ended;
        Some(match error {
            Some(error) => Event::Broken(error),
            None if entry.failed == 0 => Event::End,
            // The system reports an error once. A send received it, so now it looks like an end.
            None => Event::Broken(io::Error::from_raw_os_error(i32::from(entry.failed))),
        })
    }

    /// Handles one completion of a multishot accept.
    pub(super) fn on_accepted(&mut self, index: u32, completion: Completion) {
        let Completion { result, flags, .. } = completion;
        // SAFETY: the kernel gives each accepted descriptor to one completion, and each completion is handled
        // once.
        let descriptor = (result >= 0).then(|| unsafe { OwnedFd::from_raw_fd(result) });
        let is_last = !cqueue::more(flags);
        let Some(entry) = self.table.get_mut(index) else { return };
        if is_last {
            self.ring.ended();
            entry.input = InputState::Idle;
        }
        let place = EntryRef { index, life: entry.life };
        // Reset a connection that was accepted while the listener was being cancelled, as the kernel does
        // with those in a backlog.
        if entry.has(CLOSING) {
            if let Some(descriptor) = descriptor {
                sys::reset_at_close(sys::borrow(&descriptor));
            }
        } else if let Some(descriptor) = descriptor {
            entry.failed = 0;
            self.accepted.push_back((place, Ok(descriptor)));
            if is_last || self.accepted.len() >= ACCEPTED_MAX {
                self.list(index);
            }
        } else if let Some(error) = self.not_accepted(index, io::Error::from_raw_os_error(-result)) {
            self.accepted.push_back((place, Err(error)));
        }
        if is_last {
            self.settle(index);
        }
    }

    /// Returns the next connection, if this batch may have more.
    ///
    /// A multishot accept cannot return addresses, so the engine asks for them. A peer that has reset its
    /// connection meanwhile has none any more.
    pub(super) fn next_accepted(&mut self) -> Option<(Key, Event)> {
        if self.accepted.is_empty() || self.accepts_left == 0 {
            return None;
        }
        self.accepts_left -= 1;
        let (place, accepted) = self.accepted.pop_front()?;
        while self.accepted.len() < ACCEPTED_MAX
            && let Some(place) = self.crowded.pop()
        {
            if self.table.at(place).is_some() {
                self.list(place.index);
            }
        }
        // The connections of a listener that is gone go with it.
        let key = self.table.at(place)?.key;
        Some((key, self.welcome(accepted)))
    }

    fn welcome(&self, accepted: io::Result<OwnedFd>) -> Event {
        match accepted {
            Ok(descriptor) => {
                self.count_call();
                let peer = sys::peer(sys::borrow(&descriptor)).unwrap_or(Address::Unnamed);
                Event::Accepted(Transport::new(descriptor), peer)
            }
            Err(error) => Event::NotAccepted(error),
        }
    }

    /// Queues the events of all connections of a listener that is about to be given back.
    pub(super) fn flush_accepted(&mut self, of: EntryRef, key: Key) {
        for _ in 0..self.accepted.len() {
            match self.accepted.pop_front() {
                Some((place, accepted)) if place == of => {
                    let event = self.welcome(accepted);
                    self.queued.push_back((key, event));
                }
                Some(other) => self.accepted.push_back(other),
                None => {}
            }
        }
    }

    /// Handles a failed accept. Returns the error if the listener has failed.
    fn not_accepted(&mut self, index: u32, error: io::Error) -> Option<io::Error> {
        let entry = self.table.get_mut(index)?;
        match error.raw_os_error() {
            Some(libc::ECANCELED | libc::EAGAIN) => {}
            Some(libc::EINVAL | libc::EOPNOTSUPP) if !entry.has(CALLED_INPUT) => {
                entry.set(CALLED_INPUT, true)
            }
            // The error concerns only one connection, unless the listener yields nothing but errors.
            _ if sys::is_passing(&error) && entry.failed < FAILURES_MAX => entry.failed += 1,
            _ => {
                entry.failed = 0;
                entry.set(READING, false);
                return Some(error);
            }
        }
        self.list(index);
        None
    }

    /// Accepts one connection with the descriptor held in reserve, and closes it.
    pub(super) fn close_one(&mut self, key: Key) -> bool {
        let Some(index) = self.table.find(key) else { return false };
        if self.reserve.take().is_none() {
            return false;
        }
        self.calls.set(self.calls.get() + 4);
        let listener = self.table.get(index).and_then(|entry| entry.owned());
        let has_closed = listener.is_some_and(|listener| sys::accept(sys::borrow(listener)).is_ok());
        self.reserve = sys::Reserve::take();
        has_closed
    }

    /// Handles the end of a wait for input, or for a connect.
    pub(super) fn readable(&mut self, index: u32, completion: Completion) -> Option<(Key, Event)> {
        self.ring.ended();
        let entry = self.table.get_mut(index)?;
        let key = entry.key;
        entry.input = InputState::Idle;
        let is_passing = matches!(-completion.result, libc::ECANCELED | libc::EINTR | libc::EAGAIN);
        let event = match entry.kind {
            _ if entry.has(CLOSING) || entry.has(DETACHING) => None,
            _ if is_passing => {
                self.list(index);
                None
            }
            // If something is wrong with the descriptor, the call returns the error.
            EntryKind::Connecting => self.connected(index),
            EntryKind::Listener if entry.has(READING) => self.call_accept(index),
            EntryKind::Stream if entry.has(READING) => self.call_receive(index),
            EntryKind::Datagrams if entry.has(READING) => {
                self.call_receive_batch(index, completion.result & i32::from(libc::POLLERR) != 0)
            }
            EntryKind::Stream => {
                // The stream rests now, so the engine waits for its hang-up.
                self.list(index);
                None
            }
            _ => None,
        };
        self.settle(index);
        event.map(|event| (key, event))
    }

    fn connected(&mut self, index: u32) -> Option<Event> {
        self.calls.set(self.calls.get() + 2);
        let entry = self.table.get_mut(index)?;
        let key = entry.key;
        let result = match sys::is_connected(sys::borrow(entry.owned()?)) {
            Ok(sys::Connect::Up(failure)) => {
                entry.kind = EntryKind::Stream;
                // Reported after input that may still be there.
                entry.failed = error_number(failure.as_ref());
                // The runtime requested a send while the connect was in progress.
                if entry.queue.is_some()
                    && let Some(sent) = self.launch(index)
                {
                    self.queued.push_back((key, Event::Sent(sent)));
                }
                Ok(())
            }
            Ok(sys::Connect::Waits) => {
                self.list(index);
                return None;
            }
            Err(error) => {
                entry.kind = EntryKind::Refused;
                Err(error)
            }
        };
        self.list(index);
        Some(Event::Connected(result))
    }

    pub(super) fn call_receive(&mut self, index: u32) -> Option<Event> {
        self.count_call();
        let entry = self.table.get_mut(index)?;
        entry.set(STARVED, false);
        let mut buffer = self.spare.pop().unwrap_or_else(|| vec![0; self.call_bytes].into());
        let event = match sys::receive(sys::borrow(entry.owned()?), entry.medium, &mut buffer) {
            Ok(count @ 1..) => {
                if count < buffer.len() / GREEDY_SHARE {
                    entry.set(GREEDY, false);
                }
                self.list(index);
                return Some(Event::Got(Chunk::new(buffer, count)));
            }
            Ok(0) => self.ended(index, None),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                entry.set(GREEDY, false);
                self.list(index);
                None
            }
            Err(e) => self.ended(index, Some(e)),
        };
        self.spare.push(buffer);
        event
    }

    /// Accepts waiting connections, up to a limit.
    fn call_accept(&mut self, index: u32) -> Option<Event> {
        let key = self.table.get(index)?.key;
        let mut first = None;
        for _ in 0..ACCEPTS_MAX {
            self.count_call();
            let entry = self.table.get_mut(index)?;
            let event = match sys::accept(sys::borrow(entry.owned()?)) {
                Ok((descriptor, peer)) => {
                    entry.failed = 0;
                    Event::Accepted(Transport::new(descriptor), peer)
                }
                Err(error) => match self.not_accepted(index, error) {
                    Some(error) => Event::NotAccepted(error),
                    None => return first,
                },
            };
            let is_over = !matches!(event, Event::Accepted(..));
            match first {
                None => first = Some(event),
                Some(_) => self.queued.push_back((key, event)),
            }
            if is_over {
                return first;
            }
        }
        self.list(index);
        first
    }
}

/// The number of passing errors in a row before the engine reports that the listener failed.
const FAILURES_MAX: u16 = 16;
/// With this many unreported connections, the engine accepts no more.
const ACCEPTED_MAX: usize = 256;
/// If a call fills less than this share of its buffer, the kernel may receive for the greedy stream again.
const GREEDY_SHARE: usize = 16;
/// The most connections that one round of calls accepts.
const ACCEPTS_MAX: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::entry::Ownership;

    #[test]
    fn who_had_no_buffer_so_far_stands_before_who_had_some_each_in_the_order_it_came() {
        let mut engine = IoUring::new().expect("this kernel has io_uring");
        let mut line = Vec::new();
        for (slot, is_fed) in [(0, true), (1, false), (2, true), (3, false)] {
            let descriptor = std::fs::File::open("/dev/null").expect("it opens").into();
            let index =
                engine.table.insert(Key::new(slot, 0, 0), Ownership::Owned(descriptor), EntryKind::Stream);
            let entry = engine.table.get_mut(index).expect("it was inserted");
            entry.set(FED, is_fed);
            line.push(EntryRef { index, life: entry.life });
            engine.starve(index);
            // It is in the line already.
            engine.starve(index);
        }
        assert_eq!(Vec::from(engine.starved.clone()), [line[1], line[3], line[0], line[2]]);
    }
}
