//! Streams that are not read: whether the peer is gone, and what is before its end.
//!
//! A look costs a call, so it is made only when the poll has reported a hang-up or an error, or input by a poll that does
//! not tell an end apart from it.

use std::io;

use super::{
    AHEAD, Calls, ENDED, FAILED, HANGUP, Part, READABLE, READING, TOLD_ALL, TOLD_END, stream::error_number,
};
use crate::{
    engine::{Event, Poll, Trigger},
    id::Key,
    sys,
};

impl<P: Poll> Calls<P> {
    /// Finds out what became of the peer of a stream that is not read, if there is news of it.
    #[cold]
    #[inline(never)]
    pub(super) fn look(&mut self, key: Key) -> Option<Event> {
        let is_level = self.poll.trigger() == Trigger::Level;
        let is_told_as_input = is_level && !self.poll.tells_ends();
        let entry = self.table.get_mut(key)?;
        if entry.part != Part::Stream || entry.has(READING) || entry.has(ENDED) || entry.has(TOLD_ALL) {
            return None;
        }
        let is_due = entry.has(HANGUP) && !entry.has(TOLD_END)
            || entry.has(FAILED)
            || is_told_as_input && entry.has(READABLE) && !entry.has(AHEAD);
        if !is_due {
            return None;
        }
        let result = sys::has_input(sys::borrow(entry.owned()?), entry.medium);
        self.calls.set(self.calls.get() + 1);
        match result {
            Ok(true) => self.tell_hangup(key),
            Ok(false) if entry.has(HANGUP) || entry.medium.is_socket() => self.read(key),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                entry.set(ENDED, true);
                self.mark_changed(key);
                Some(Event::Broken(error))
            }
            // Neither input nor its end, whatever was reported: the next pause looks again.
            _ => {
                // Level-triggered it would be reported for ever.
                entry.set(TOLD_ALL, is_level && entry.has(HANGUP));
                [READABLE, HANGUP, FAILED].into_iter().for_each(|bit| entry.set(bit, false));
                self.mark_changed(key);
                None
            }
        }
    }

    /// Tells that the peer is gone, behind input.
    fn tell_hangup(&mut self, key: Key) -> Option<Event> {
        let is_level = self.poll.trigger() == Trigger::Level;
        let entry = self.table.get_mut(key)?;
        let (is_failed, is_news) = (entry.has(FAILED), entry.has(HANGUP) && !entry.has(TOLD_END));
        entry.set(AHEAD, true);
        entry.set(FAILED, false);
        if is_failed {
            self.calls.set(self.calls.get() + 1);
            if let Some(error) = sys::take_error(sys::borrow(entry.owned()?)) {
                // It is kept for the read behind the input, which the system would answer with an end.
                entry.failed = error_number(Some(&error));
            }
        }
        let event = match i32::from(entry.failed) {
            0 if is_news => Some(Event::HungUp(None)),
            0 => None,
            number => Some(Event::HungUp(Some(io::Error::from_raw_os_error(number)))),
        };
        if event.is_some() {
            entry.set(TOLD_END, true);
        }
        // What is no news would be reported again and again where it is not an edge.
        if entry.failed != 0 || is_failed && !is_news && is_level {
            entry.set(TOLD_ALL, true);
        }
        self.mark_changed(key);
        event
    }
}
