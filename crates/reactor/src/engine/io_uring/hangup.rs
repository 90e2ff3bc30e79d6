//! Streams at rest, which the engine does not read: is the peer gone, and is input before the end?
//!
//! When a stream rests for the first time, the engine arms a multishot wait for its hang-up, and leaves it
//! armed until the stream goes. So a stream that rests and reads in turns costs one operation for all its
//! rests. The kernel reports only changes, so the engine records the report, and looks at the stream by a
//! call. It does so only when no operation is in flight for the stream's input, because earlier input may
//! still be on its way through the ring.

use std::io;

use io_uring::{cqueue, opcode, types::Fd};

use super::{
    IoUring,
    operation::{Kind, Tag},
    output::error_number,
    ring::Completion,
    table::{CLOSING, DETACHING, HANGUP_OUT, HUNG_UP, InputState, LATE, READING, SEEN_FAILED, SEEN_GONE},
};
use crate::{
    engine::{Event, entry::EntryKind},
    sys,
};

impl IoUring {
    /// Cancels the input of a stream that begins to rest, then waits for its hang-up.
    pub(super) fn sync_rest(&mut self, index: u32) {
        match self.table.get(index).map(|entry| entry.input) {
            Some(InputState::Multishot | InputState::Polling) => self.cancel_input(index),
            _ => self.watch_hangup(index),
        }
    }

    /// Waits for the hang-up of a stream at rest, or looks at the stream if the kernel has reported one.
    fn watch_hangup(&mut self, index: u32) {
        let IoUring { table, ring, late, .. } = self;
        let Some(entry) = table.get_mut(index) else { return };
        if entry.has(HUNG_UP) && !entry.has(SEEN_FAILED) {
            return;
        }
        match entry.input {
            InputState::Ended => {
                let queued = late.end_of(index).and_then(|end| match end {
                    Event::End => Some(Event::HungUp(None)),
                    Event::Broken(error) => Some(Event::HungUp(error.raw_os_error().map(from_number))),
                    _ => None,
                });
                if let Some(event) = queued {
                    entry.set(HUNG_UP, true);
                    entry.set(SEEN_FAILED, false);
                    self.queued.push_back((entry.key, event));
                }
            }
            InputState::Idle if entry.has(SEEN_GONE) => self.look(index),
            InputState::Idle if !entry.has(HANGUP_OUT) => {
                entry.set(HANGUP_OUT, true);
                let mask = libc::POLLRDHUP as u32;
                let wait = opcode::PollAdd::new(Fd(entry.number()), mask).multi(true).build();
                ring.start(wait, Tag::new(Kind::HungUp, entry.life, index));
            }
            _ => {}
        }
    }

    /// One completion of the wait for a hang-up.
    pub(super) fn noticed_hangup(&mut self, index: u32, completion: Completion) {
        let Completion { result, flags, .. } = completion;
        let is_last = !cqueue::more(flags);
        let Some(entry) = self.table.get_mut(index) else { return };
        if is_last {
            self.ring.ended();
            entry.set(HANGUP_OUT, false);
        }
        let is_over = entry.has(CLOSING) || entry.has(DETACHING) || entry.kind != EntryKind::Stream;
        if result > 0 && !is_over {
            entry.set(SEEN_GONE, true);
            if result & i32::from(libc::POLLERR) != 0 {
                entry.set(SEEN_FAILED, true);
            }
            if !entry.has(READING) {
                self.list(index);
            }
        } else if result < 0 && !is_over {
            // The kernel has no such wait. The next time that reading is off, the engine tries again.
            entry.set(HUNG_UP, true);
        }
        if is_last {
            self.settle(index);
        }
    }

    /// Looks at a stream at rest. No operation is out for its input.
    #[cold]
    fn look(&mut self, index: u32) {
        let Some(entry) = self.table.get_mut(index) else { return };
        let key = entry.key;
        let is_news = !entry.has(HUNG_UP);
        let is_failed = entry.has(SEEN_FAILED);
        entry.set(SEEN_FAILED, false);
        let (is_late, medium) = (entry.has(LATE), entry.medium);
        let Some(descriptor) = entry.owned() else { return };
        let result = if is_late { Ok(true) } else { sys::has_input(sys::borrow(descriptor), medium) };
        self.calls.set(self.calls.get() + u64::from(!is_late));
        let event = match result {
            Ok(true) => {
                let Some(entry) = self.table.get_mut(index) else { return };
                if is_failed && let Some(descriptor) = entry.owned() {
                    self.calls.set(self.calls.get() + 1);
                    if let Some(error) = sys::take_error(sys::borrow(descriptor)) {
                        // The system does not report it again, and a read after the input would find an end.
                        entry.failed = error_number(Some(&error));
                    }
                }
                entry.set(HUNG_UP, true);
                match i32::from(entry.failed) {
                    0 if !is_news => None,
                    0 => Some(Event::HungUp(None)),
                    number => Some(Event::HungUp(Some(from_number(number)))),
                }
            }
            Ok(false) => self.call_receive(index),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => self.ended(index, Some(error)),
            Err(_) => {
                // The kernel reported more than a read finds. The next time that reading is off, the engine
                // looks again.
                if let Some(entry) = self.table.get_mut(index) {
                    entry.set(SEEN_GONE, false);
                    entry.set(HUNG_UP, true);
                }
                None
            }
        };
        if let Some(event) = event {
            self.queued.push_back((key, event));
        }
    }

    /// Cancels the wait for the hang-up of a stream that goes.
    pub(super) fn cancel_hangup(&mut self, index: u32) {
        if let Some(entry) = self.table.get(index)
            && entry.kind == EntryKind::Stream
            && entry.has(HANGUP_OUT)
        {
            self.ring.cancel(Tag::new(Kind::HungUp, entry.life, index));
        }
    }
}

fn from_number(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}
