//! Datagrams: the ring waits for readiness, and calls move many of them at once.

use std::{io, os::fd::AsRawFd as _};

use io_uring::{opcode, types::Fd};

use super::{
    IoUring,
    operation::{Kind, Tag},
    table::{CLOSING, DETACHING, Entry, IS_UNIX, Input, Output, Part, TOGETHER},
};
use crate::{
    engine::{DatagramQueue, Event, letters},
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

impl IoUring {
    /// Has a socket tell what is to be known of its datagrams.
    pub(super) fn prepare(&self, descriptor: &sys::Owned) -> io::Result<Facts> {
        self.count_call();
        sys::datagram::prepare(sys::borrow(descriptor))
    }

    /// Tells of reports, if some were announced, and receives one batch.
    pub(super) fn call_receive_batch(&mut self, index: u32, has_reports: bool) -> Option<Event> {
        let IoUring { table, batches, calls, told, .. } = self;
        let entry = table.get_mut(index)?;
        let (key, socket) = (entry.key, sys::borrow(entry.owned()?));
        for _ in 0..if has_reports { REPORTS_MAX } else { 0 } {
            let Some((to, error)) = letters::undelivered(socket, calls) else { break };
            told.push_back((key, Event::Undelivered(to, error)));
        }
        let event = match letters::receive(socket, batches, calls) {
            letters::Arrival::Got(batch, _) => Some(Event::Datagrams(batch)),
            letters::Arrival::Nothing => None,
            letters::Arrival::Undelivered(to, error) => Some(Event::Undelivered(to, error)),
            letters::Arrival::Broken(error) => {
                entry.input = Input::Ended;
                return Some(Event::Broken(error));
            }
        };
        self.list(index);
        event
    }

    /// Sends what there is room for.
    pub(super) fn depart(&mut self, key: Key, queue: &mut DatagramQueue) -> usize {
        let Some(index) = self.table.find(key) else { return 0 };
        let IoUring { table, told, calls, ring, .. } = self;
        let Some(entry) = table.get_mut(index).filter(|entry| entry.part == Part::Datagrams) else {
            return 0;
        };
        let Some(descriptor) = entry.owned() else { return 0 };
        let number = descriptor.as_raw_fd();
        let departure = letters::send(sys::borrow(descriptor), entry.facts(), queue, calls, |to, error| {
            told.push_back((key, Event::Undelivered(to, error)));
        });
        if departure.is_blocked && entry.output == Output::Idle {
            let operation = opcode::PollAdd::new(Fd(number), libc::POLLOUT as u32).build();
            entry.output = Output::Polling;
            ring.start(operation, Tag::new(Kind::Writable, entry.life, index));
        }
        // What waits for a report is told by the poll for input, which sees it, too.
        self.stir();
        departure.taken
    }

    /// The end of a wait for room for datagrams.
    pub(super) fn has_room(&mut self, index: u32) -> Option<(Key, Event)> {
        let entry = self.table.get_mut(index)?;
        entry.output = Output::Idle;
        let key = entry.key;
        if entry.has(CLOSING) || entry.has(DETACHING) {
            self.settle(index);
            return None;
        }
        Some((key, Event::Room))
    }
}

/// How many reports one socket tells in one go.
const REPORTS_MAX: u32 = 16;
