//! Datagrams: sent by calls, many at once; received by calls if the kernel does not receive by itself.

use std::{cell::Cell, collections::VecDeque};

use super::{
    IoUring,
    operation::{Kind, Tag},
    recvmsg::RecvMsg,
    table::{CALLED_INPUT, Entry, IS_UNIX, InputState, OutputState, STARVED, TOGETHER},
};
use crate::{
    engine::{DatagramQueue, Event, datagram::syscalls, entry::EntryKind},
    id::Key,
    sys::{self, datagram::Facts},
};

impl Entry {
    pub(super) fn set_facts(&mut self, facts: Facts) {
        self.set(IS_UNIX, facts.is_unix);
        self.set(TOGETHER, facts.together);
    }

    pub(super) fn facts(&self) -> Facts {
        Facts { is_unix: self.has(IS_UNIX), together: self.has(TOGETHER) }
    }
}

impl IoUring {
    /// Makes buffers for the first socket for datagrams.
    pub(super) fn make_mail(&mut self) {
        if self.recvmsg.is_none() && self.recvmsg_buffers > 0 {
            self.recvmsg = RecvMsg::open(&self.ring, self.recvmsg_buffers);
        }
    }

    /// Lets a socket receive longer datagrams than the shared buffers can hold, by calls.
    pub(super) fn receive_long(&mut self, key: Key, bytes: usize) {
        let Some(entry) = self.table.find(key).and_then(|index| self.table.get_mut(index)) else { return };
        entry.set(CALLED_INPUT, true);
        self.batches.set_longest(key, bytes);
    }

    /// Queues reports, if the poll announced some, and receives one batch.
    pub(super) fn call_receive_batch(&mut self, index: u32, has_reports: bool) -> Option<Event> {
        let IoUring { table, batches, calls, queued, .. } = self;
        let entry = table.get_mut(index)?;
        entry.set(STARVED, false);
        let (key, socket) = (entry.key, sys::borrow(entry.owned()?));
        if has_reports {
            queue_reports(key, socket, calls, queued);
        }
        let event = match syscalls::receive((key, socket), batches, calls) {
            syscalls::Arrival::Got(batch, _) => Some(Event::Datagrams(batch)),
            syscalls::Arrival::Nothing => None,
            syscalls::Arrival::Undelivered(to, error) => Some(Event::Undelivered(to, error)),
            syscalls::Arrival::Broken(error) => {
                entry.input = InputState::Ended;
                return Some(Event::Broken(error));
            }
        };
        self.list(index);
        event
    }

    /// Sends as many datagrams as there is room for.
    pub(super) fn depart(&mut self, key: Key, queue: &mut DatagramQueue) -> usize {
        let Some(index) = self.table.find(key) else { return 0 };
        let IoUring { table, queued, calls, ring, .. } = self;
        let Some(entry) = table.get_mut(index).filter(|entry| entry.kind == EntryKind::Datagrams) else {
            return 0;
        };
        let Some(descriptor) = entry.owned() else { return 0 };
        let departure = syscalls::send(sys::borrow(descriptor), entry.facts(), queue, calls, |to, error| {
            queued.push_back((key, Event::Undelivered(to, error)));
        });
        // Handle here the reports that the send has met, because the receive in flight sees only those that
        // it meets itself.
        if departure.has_report {
            queue_reports(key, sys::borrow(descriptor), calls, queued);
        }
        if departure.is_blocked && entry.output == OutputState::Idle {
            ring.start(entry.poll_output(), Tag::new(Kind::Writable, entry.life, index));
        }
        self.stir();
        departure.taken
    }
}

/// Queues reports about datagrams that were sent. Returns whether there was one.
pub(super) fn queue_reports(
    key: Key,
    socket: sys::Borrowed<'_>,
    calls: &Cell<u64>,
    queued: &mut VecDeque<(Key, Event)>,
) -> bool {
    let before = queued.len();
    for _ in 0..REPORTS_MAX {
        let Some((to, error)) = syscalls::undelivered(socket, calls) else { break };
        queued.push_back((key, Event::Undelivered(to, error)));
    }
    queued.len() > before
}

/// The most reports that one call queues for a socket.
const REPORTS_MAX: u32 = 16;
