//! Ends: frees a descriptor's number only when nothing in the kernel refers to it any more.
//!
//! While a receive is parked in the kernel, close(2) would not send the peer an end. So a close cancels the
//! operations in flight, by their tags and never by the descriptor, waits for the last completion of each,
//! and only then closes. The same holds for memory: the engine frees none that the kernel may still write to
//! or read from.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::Duration,
};

use super::{
    IoUring,
    operation::{Kind, Tag},
    table::{CLOSING, DETACHING, Entry, EntryRef, InputState, LATE, OutputState},
};
use crate::{
    engine::{
        Ending, Event, Sent, Transport,
        entry::{EntryKind, Ownership, forget_queued},
    },
    id::Key,
    sys,
};

impl IoUring {
    pub(super) fn close_key(&mut self, key: Key, how: Ending) {
        self.batches.forget(key);
        let is_reset = forget_queued(&mut self.queued, key, how == Ending::Reset);
        let Some(index) = self.table.find(key) else { return };
        let Some(entry) = self.table.get_mut(index) else { return };
        if entry.kind == EntryKind::Watched {
            return self.forget_watched(key);
        }
        entry.set(CLOSING, true);
        if entry.kind == EntryKind::Listener {
            let place = EntryRef { index, life: entry.life };
            // Reset accepted connections that were not handed over, as the kernel does with those in the
            // backlog.
            self.accepted.retain(|(of, accepted)| {
                if let (true, Ok(accepted)) = (*of == place, accepted) {
                    sys::reset_at_close(sys::borrow(accepted));
                }
                *of != place
            });
        }
        if is_reset && let Some(descriptor) = entry.owned() {
            sys::reset_at_close(sys::borrow(descriptor));
            self.count_call();
        }
        if self.table.get(index).is_some_and(|entry| entry.has(LATE)) {
            self.late.forget(index);
        }
        self.table.forget(key);
        self.cancel_all_of(index);
        self.settle(index);
        self.stir();
    }

    pub(super) fn detach_key(&mut self, key: Key) {
        self.batches.forget(key);
        let Some(index) = self.table.find(key) else { return };
        let Some(entry) = self.table.get_mut(index).filter(|entry| entry.owned().is_some()) else { return };
        entry.set(DETACHING, true);
        self.queue_all_late(index);
        self.cancel_all_of(index);
        self.settle(index);
        self.stir();
    }

    fn cancel_all_of(&mut self, index: u32) {
        self.cancel_input(index);
        self.cancel_output(index);
        self.cancel_hangup(index);
    }

    /// Cancels the operation in flight for an entry's input.
    pub(super) fn cancel_input(&mut self, index: u32) {
        let Some(entry) = self.table.get_mut(index) else { return };
        let kind = match (entry.input, entry.kind) {
            (InputState::Multishot, EntryKind::Listener) => Kind::Accept,
            (InputState::Multishot, EntryKind::Datagrams) => Kind::RecvMsg,
            (InputState::Multishot, _) => Kind::Receive,
            (InputState::Polling, EntryKind::Watched) => Kind::Watch,
            (InputState::Polling, _) => Kind::Readable,
            (InputState::Idle | InputState::Cancelled | InputState::Ended, _) => return,
        };
        entry.input = InputState::Cancelled;
        self.ring.cancel(Tag::new(kind, entry.life, index));
    }

    fn cancel_output(&mut self, index: u32) {
        let Some(entry) = self.table.get_mut(index) else { return };
        let kind = match entry.output {
            OutputState::Sending => Kind::Send,
            OutputState::Polling => Kind::Writable,
            OutputState::Idle | OutputState::Cancelled => return,
        };
        entry.output = OutputState::Cancelled;
        self.ring.cancel(Tag::new(kind, entry.life, index));
    }

    /// Removes an entry that is closing or detaching, once no operation is in flight for it.
    pub(super) fn settle(&mut self, index: u32) {
        let Some(entry) = self.table.get(index).filter(|entry| !entry.is_out()) else { return };
        let place = EntryRef { index, life: entry.life };
        if entry.has(CLOSING) {
            if let Some(Entry { descriptor: Ownership::Owned(descriptor), queue, .. }) =
                self.table.remove(index)
            {
                // The peer must not mistake a part of the output for the whole.
                if queue.is_some_and(|queue| !queue.is_empty()) {
                    sys::reset_at_close(sys::borrow(&descriptor));
                    self.count_call();
                }
                drop(descriptor);
                self.count_call();
            }
        } else if entry.has(DETACHING)
            && let Some(Entry { key, queue, descriptor: Ownership::Owned(descriptor), medium, .. }) =
                self.table.remove(index)
        {
            self.flush_accepted(place, key);
            if let Some(queue) = queue {
                self.queued.push_back((key, Event::Sent(Sent { queue, result: Ok(0) })));
            }
            self.queued.push_back((key, Event::Detached(Transport::of(descriptor, medium))));
        }
    }
}

impl Drop for IoUring {
    fn drop(&mut self) {
        if !self.birthplace.is_here() {
            // The ring, its operations and its memory belong to the parent. Leave all of it alone.
            self.leak();
            return self.files.forget_answers();
        }
        // No users' code runs before the kernel has given everything back, or before the engine has leaked
        // what the kernel kept. If anything panics nevertheless, nobody knows what the kernel still has.
        let is_reaped = catch_unwind(AssertUnwindSafe(|| self.reap_all())).unwrap_or(false);
        if !is_reaped {
            self.leak();
        }
        self.answer_files();
    }
}

impl IoUring {
    /// Reaps until no operation is in flight for a closing entry. Each was cancelled, and the kernel answers
    /// a cancel at once.
    pub(super) fn reap_closing(&mut self) {
        for _ in 0..CLOSING_REAPS_MAX {
            while let Some(completion) = self.batch.pop_front() {
                let event = self.complete(completion);
                self.queued.extend(event);
            }
            let is_closing = |index: &u32| self.table.get(*index).is_some_and(|entry| entry.has(CLOSING));
            let is_done = !self.table.indexes().iter().any(is_closing);
            // The next wait reports a ring that fails.
            if is_done || self.ring.enter(Some(REAP_STEP)).is_err() {
                return;
            }
            self.reap();
        }
    }

    /// Cancels and reaps all operations in flight, and takes the shared buffers away from the kernel. Returns
    /// whether the kernel gave everything back.
    fn reap_all(&mut self) -> bool {
        self.queued.clear();
        for index in self.table.indexes() {
            if let Some(entry) = self.table.get_mut(index) {
                entry.set(CLOSING, true);
            }
        }
        self.files.begin_end();
        let mut failures = 0;
        for round in 0..REAPS_MAX {
            self.batch.append(&mut self.greedy);
            while let Some(completion) = self.batch.pop_front() {
                drop(self.complete(completion));
            }
            self.queued.clear();
            // Do not wait as long for a disk that hangs. The kernel always gives back the other operations at
            // once.
            let hangs = self.ring.out() == self.files.out() && round >= FILE_REAPS_MAX;
            if self.ring.out() == 0 || hangs || failures >= FAILURES_MAX {
                break;
            }
            // A cancel has a completion of its own, which would end a wait at once. So cancels and waits take
            // turns.
            let patience = if round % 2 == 0 {
                self.ring.cancel_all();
                Duration::ZERO
            } else {
                REAP_STEP
            };
            // After a failed call, the next one tries again. A ring that fails again and again is broken.
            failures += u32::from(self.ring.enter(Some(patience)).is_err());
            self.reap();
        }
        self.ring.unregister_buffers();
        if self.recvmsg.is_some() {
            self.ring.unregister_mail();
        }
        self.ring.out() == 0
    }

    /// Leaks all memory that the kernel may still use, so that it is never freed while the kernel does.
    fn leak(&mut self) {
        mem::forget(Rc::clone(&self.pool));
        if let Some(recvmsg) = self.recvmsg.take() {
            recvmsg.leak();
        }
        mem::forget(mem::take(&mut self.counter));
        self.headers.leak();
        self.files.leak();
        for index in self.table.indexes() {
            if let Some(queue) = self.table.get_mut(index).and_then(|entry| entry.queue.take()) {
                mem::forget(queue);
            }
        }
    }
}

/// The most attempts to reap the operations of closing entries while the engine goes on.
const CLOSING_REAPS_MAX: u32 = 500;
/// The most rounds of cancelling and waiting at the end.
const REAPS_MAX: u32 = 2000;
/// The most rounds if only file operations are in flight.
const FILE_REAPS_MAX: u32 = 1000;
/// The most failed calls in these rounds.
const FAILURES_MAX: u32 = 100;
/// The longest time of each of these waits.
const REAP_STEP: Duration = Duration::from_millis(2);
