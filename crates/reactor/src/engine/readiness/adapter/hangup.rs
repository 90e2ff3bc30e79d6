//! Streams at rest, which the engine does not read: is the peer gone, and is input before the end?
//!
//! A look costs a call. So the adapter looks only after the poll has reported a hang-up or an error. If the
//! poll does not distinguish an end from input, it also looks after reported input.

use std::io;

use super::{
    AHEAD, Calls, ENDED, EntryKind, FAILED, HANGUP, READABLE, READING, REPORTED_ALL, REPORTED_END,
    stream::error_number,
};
use crate::{
    engine::{Event, Poll, Trigger},
    id::Key,
    sys,
};

impl<P: Poll> Calls<P> {
    /// Looks at a stream at rest, if the poll has reported news of its peer, and queues the resulting event.
    /// Returning it would give the caller a second source of events, and each read would pay for a copy.
    #[cold]
    #[inline(never)]
    pub(super) fn look(&mut self, key: Key) {
        if let Some(event) = self.news(key) {
            self.post(key, event);
        }
    }

    fn news(&mut self, key: Key) -> Option<Event> {
        let is_level = self.poll.trigger() == Trigger::Level;
        let is_reported_as_input = is_level && !self.poll.reports_ends();
        let entry = self.table.get_mut(key)?;
        if entry.kind != EntryKind::Stream
            || entry.has(READING)
            || entry.has(ENDED)
            || entry.has(REPORTED_ALL)
        {
            return None;
        }
        let is_due = entry.has(HANGUP) && !entry.has(REPORTED_END)
            || entry.has(FAILED)
            || is_reported_as_input && entry.has(READABLE) && !entry.has(AHEAD);
        if !is_due {
            return None;
        }
        let result = sys::has_input(sys::borrow(entry.owned()?), entry.medium);
        self.calls.set(self.calls.get() + 1);
        match result {
            Ok(true) => self.report_hangup(key),
            Ok(false) => self.read(key),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                entry.set(ENDED, true);
                self.mark_changed(key);
                Some(Event::Broken(error))
            }
            // The poll reported more than a read finds. The next time that reading is off, the adapter looks
            // again.
            Err(_) => {
                // A level-triggered poll would report it forever.
                entry.set(REPORTED_ALL, is_level && entry.has(HANGUP));
                [READABLE, HANGUP, FAILED].into_iter().for_each(|bit| entry.set(bit, false));
                self.mark_changed(key);
                None
            }
        }
    }

    /// Reports that the peer is gone behind input, unless it has been reported.
    fn report_hangup(&mut self, key: Key) -> Option<Event> {
        let is_level = self.poll.trigger() == Trigger::Level;
        let entry = self.table.get_mut(key)?;
        let (is_failed, is_news) = (entry.has(FAILED), entry.has(HANGUP) && !entry.has(REPORTED_END));
        entry.set(AHEAD, true);
        entry.set(FAILED, false);
        if is_failed {
            self.calls.set(self.calls.get() + 1);
            if let Some(error) = sys::take_error(sys::borrow(entry.owned()?)) {
                // The system does not report it again, and a read after the input would find an end.
                entry.failed = error_number(Some(&error));
            }
        }
        let event = match i32::from(entry.failed) {
            0 if is_news => Some(Event::HungUp(None)),
            0 => None,
            number => Some(Event::HungUp(Some(io::Error::from_raw_os_error(number)))),
        };
        if event.is_some() {
            entry.set(REPORTED_END, true);
        }
        // A level-triggered poll would report it forever.
        if entry.failed != 0 || is_failed && !is_news && is_level {
            entry.set(REPORTED_ALL, true);
        }
        self.mark_changed(key);
        event
    }
}
