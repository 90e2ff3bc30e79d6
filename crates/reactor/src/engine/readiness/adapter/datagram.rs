//! Datagrams: received in batches, sent from a queue, with reports about those that were sent.

use super::{
    BLOCKED, Calls, ENDED, EntryKind, HANGUP, IS_UNIX, READABLE, READING, TOGETHER, WRITABLE, table::Entry,
};
use crate::{
    engine::{DatagramQueue, Event, Poll, datagram::syscalls},
    id::Key,
    sys::{self, datagram::Facts},
};

impl Entry {
    pub(super) fn set_facts(&mut self, facts: Facts) {
        self.set(IS_UNIX, facts.is_unix);
        self.set(TOGETHER, facts.together);
    }

    fn facts(&self) -> Facts {
        Facts { is_unix: self.has(IS_UNIX), together: self.has(TOGETHER) }
    }
}

impl<P: Poll> Calls<P> {
    /// Reports room, then a report about a sent datagram, then one batch.
    pub(super) fn step_datagrams(&mut self, key: Key) -> Option<Event> {
        let entry = self.table.get_mut(key)?;
        if entry.has(BLOCKED) && entry.has(WRITABLE) {
            return self.report_room(key);
        }
        if entry.has(HANGUP) {
            let driven = self.driven.as_mut()?;
            if driven.accepts_left == 0 {
                self.queue_again(key);
            } else if let Some((to, error)) = syscalls::undelivered(sys::borrow(entry.owned()?), &self.calls)
            {
                driven.accepts_left -= 1;
                return Some(Event::Undelivered(to, error));
            } else {
                entry.set(HANGUP, false);
            }
        }
        self.driven = None;
        self.receive_batch(key)
    }

    fn receive_batch(&mut self, key: Key) -> Option<Event> {
        let Calls { table, batches, calls, .. } = self;
        let entry = table.get_mut(key)?;
        if !(entry.has(READING) && entry.has(READABLE)) || entry.has(ENDED) {
            return None;
        }
        match syscalls::receive((key, sys::borrow(entry.owned()?)), batches, calls) {
            syscalls::Arrival::Got(batch, has_more) => {
                entry.set(READABLE, has_more);
                if has_more {
                    self.queue_again(key);
                }
                Some(Event::Datagrams(batch))
            }
            syscalls::Arrival::Nothing => {
                entry.set(READABLE, false);
                None
            }
            syscalls::Arrival::Undelivered(to, error) => {
                entry.set(HANGUP, true);
                self.queue_again(key);
                Some(Event::Undelivered(to, error))
            }
            syscalls::Arrival::Broken(error) => {
                entry.set(ENDED, true);
                self.mark_changed(key);
                Some(Event::Broken(error))
            }
        }
    }

    /// Sends as many datagrams as there is room for.
    pub(super) fn depart(&mut self, key: Key, queue: &mut DatagramQueue) -> usize {
        let Calls { table, queued, calls, .. } = self;
        let Some(entry) = table.get_mut(key).filter(|entry| entry.kind == EntryKind::Datagrams) else {
            return 0;
        };
        let Some(descriptor) = entry.owned() else { return 0 };
        let (before, facts) = (queued.len(), entry.facts());
        let departure = syscalls::send(sys::borrow(descriptor), facts, queue, calls, |to, error| {
            queued.push_back((key, Event::Undelivered(to, error)));
        });
        let has_queued = queued.len() > before;
        if departure.is_blocked {
            self.block(key);
        }
        if departure.has_report
            && let Some(entry) = self.table.get_mut(key)
        {
            entry.set(HANGUP, true);
            self.queue_again(key);
        }
        if has_queued {
            self.wake_outside();
        }
        departure.taken
    }
}
