//! Accepting: a few connections in each batch, and failures for want of descriptors.

use std::io;

use super::{Calls, READABLE, READING, table::Entry};
use crate::{
    engine::{Event, Poll, Transport},
    id::Key,
    sys,
};

impl<P: Poll> Calls<P> {
    /// Accepts one connection, if one waits and the budget allows it.
    pub(super) fn step_listener(&mut self, key: Key) -> Option<Event> {
        loop {
            let entry = self.table.get_mut(key)?;
            if !(entry.has(READING) && entry.has(READABLE)) {
                return None;
            }
            let driven = self.driven.as_mut()?;
            if driven.accepts_left == 0 {
                self.queue_again(key);
                return None;
            }
            driven.accepts_left -= 1;
            let is_hopeless = driven.accepts_left == 0 && !driven.accepted;
            let result = sys::accept(sys::borrow(entry.owned()?));
            self.calls.set(self.calls.get() + 1);
            match result {
                Ok((descriptor, peer)) => {
                    driven.accepted = true;
                    return Some(Event::Accepted(Transport::new(descriptor), peer));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    entry.set(READABLE, false);
                    return None;
                }
                // The error concerns only one connection, unless the listener yields nothing but errors.
                Err(e) if sys::is_passing(&e) && !is_hopeless => {}
                Err(e) => {
                    entry.set(READING, false);
                    self.mark_changed(key);
                    return Some(Event::NotAccepted(e));
                }
            }
        }
    }

    /// Accepts one connection with the descriptor held in reserve, and closes it.
    pub(super) fn close_one(&mut self, key: Key) -> bool {
        if self.reserve.take().is_none() {
            return false;
        }
        self.calls.set(self.calls.get() + 4);
        let listener = self.table.get(key).and_then(Entry::owned);
        let has_closed = listener.is_some_and(|listener| sys::accept(sys::borrow(listener)).is_ok());
        self.reserve = sys::Reserve::take();
        has_closed
    }
}
