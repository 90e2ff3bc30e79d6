//! The steps against a shortage of bytes: which resources rest, which services get a fault, and which
//! resources end.
//!
//! Bytes are short above three quarters of [`Limits::bytes`](crate::Limits::bytes). Services that hold more
//! than their share rest: the runtime does not read their streams with output, and their listeners do not
//! accept. After [`Limits::shortage`](crate::Limits::shortage), or at once when the limit itself is passed,
//! the runtime ends the streams that hold most, beginning with those that made no progress for longest. It
//! looks at all live resources once for each shortage, once for each of its periods, and once for each
//! sixteenth of the limit or more that it frees, but never once a turn.

use std::cmp::Reverse;

use crate::{
    engine::Ending,
    error::{Closed, Fault},
    id::Key,
    runtime::{Due, LoopState},
};

/// The memory of a resource, as the budget counts it.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Holding {
    pub(crate) bytes: usize,
    /// The period in which it last made progress. `None` means that the runtime never ends it for its memory.
    pub(crate) moved: Option<u16>,
}

/// A resource that the runtime may end for its memory.
struct Holder {
    key: Key,
    service: u16,
    bytes: usize,
    /// How many periods it has made no progress, up to [`AGE_MAX`].
    age: u16,
}

/// A greater age makes no difference.
const AGE_MAX: u16 = 2;

impl LoopState {
    /// Handles the start of pressure, which may belong to a shortage that already lasts.
    #[cold]
    pub(crate) fn begin_shortage(&mut self) {
        if self.budget.begin_shortage() {
            self.counters.shortages += 1;
            self.survey();
            self.await_next_period();
        }
        self.mark_listeners();
    }

    /// Handles the end of a shortage's period. Ends resources that made no progress in it, until bytes are no
    /// longer short.
    #[cold]
    pub(crate) fn shortage_due(&mut self) {
        if !self.budget.is_tight() {
            return self.budget.end_shortage();
        }
        let holders = self.survey();
        self.shed(holders, 1);
        self.budget.next_period();
        self.await_next_period();
        // Another service may hold more than its share now.
        self.wake_resting();
    }

    fn await_next_period(&mut self) {
        let at = self.now + self.limits.shortage;
        // The wheel keeps a place for this timer.
        let _ = self.timers.set(at, Due::Shortage);
    }

    /// Ends the resources that hold most if the limit is passed. Returns `false` if it stays passed, because
    /// no other resource may be ended.
    pub(crate) fn make_room(&mut self) -> bool {
        self.budget.is_within() || !self.budget.is_hopeless() && self.shed_now()
    }

    #[cold]
    fn shed_now(&mut self) -> bool {
        let holders = self.survey();
        self.shed(holders, 0);
        self.budget.has_looked();
        self.budget.is_within()
    }

    /// Counts the memory of each resource, sends a fault to services that hold more than their share, and
    /// returns the resources that may be ended, in the order in which to end them.
    fn survey(&mut self) -> Vec<Holder> {
        let mut held = vec![0; self.alive.len()];
        let mut holders = Vec::new();
        for key in self.registry.keys(None) {
            let Some(slot) = self.registry.get_mut(key) else { continue };
            let (service, table) = (slot.service, slot.table);
            let Holding { bytes, moved } = (table.holding)(self, key);
            if let Some(held) = held.get_mut(service as usize) {
                *held += bytes;
            }
            if let Some(moved) = moved.filter(|_| bytes > 0) {
                let age = self.budget.period().wrapping_sub(moved).min(AGE_MAX);
                holders.push(Holder { key, service, bytes, age });
            }
        }
        let services = self.alive.iter().filter(|alive| **alive).count();
        for service in self.budget.note_shares(held, services) {
            let (used, limit) = (self.budget.used(), self.budget.limit());
            self.faults_due.push(service, Fault::BytesShort { used, limit });
        }
        holders.sort_by_key(|holder| Reverse((holder.age, holder.bytes)));
        holders
    }

    /// Ends holders that made no progress for at least this many periods, until bytes are no longer short.
    /// Ends holders that made progress only until there is some room below the limit.
    fn shed(&mut self, holders: Vec<Holder>, age_min: u16) {
        for Holder { key, service, bytes, age } in holders {
            if age < age_min || self.budget.has_room(age > 0) {
                return;
            }
            // End no resource because of another service's memory.
            if self.budget.is_greedy(service) {
                self.budget.let_go(service, bytes);
                self.counters.evicted += 1;
                self.end(key, Closed::OverBudget, Ending::Reset);
            }
        }
    }
}
