//! What happens when bytes run short: who rests, who is told, and who goes.
//!
//! Above three quarters of [`Limits::bytes`](crate::Limits::bytes) bytes are short. Services that hold more than their
//! share rest: their streams with output are not read, and their listeners do not accept. When this has lasted for
//! [`Limits::shortage`](crate::Limits::shortage), or at once when the limit itself is passed, streams that hold most go,
//! those first that made no progress for longest. All live resources are looked at once for each shortage, once for each
//! of its periods, and once for each quarter of the limit that was freed: never once a turn.

use std::cmp::Reverse;

use crate::{
    core::{Core, Due},
    engine::Ending,
    error::{Closed, Fault},
    id::Key,
};

/// What a resource holds, as the budget counts it.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Holding {
    pub(crate) bytes: usize,
    /// The period in which it last made progress; `None`: it is never ended for what it holds.
    pub(crate) moved: Option<u16>,
}

/// A resource that may be ended for what it holds.
struct Holder {
    key: Key,
    service: u16,
    bytes: usize,
    /// How many periods it has made no progress, as far as it matters.
    age: u16,
}

/// Older than this is as old as anything.
const AGE_MAX: u16 = 2;

impl Core {
    /// Bytes run short, perhaps again in the same shortage.
    #[cold]
    pub(crate) fn begin_shortage(&mut self) {
        if self.budget.begin_shortage() {
            self.counters.shortages += 1;
            self.survey();
            self.await_next_period();
        }
        self.mark_listeners();
    }

    /// A period of a shortage is over: those who made no progress in it go, until bytes are no longer short.
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
        // There is a place for it in the wheel.
        let _ = self.timers.set(at, Due::Shortage);
    }

    /// The limit is passed: ends those who hold most. `false`: it is passed still, because what is left may not be ended.
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

    /// Looks at what each resource holds, notes which services hold more than their share and tells them so, and
    /// returns the resources that may be ended, those to end first in front.
    fn survey(&mut self) -> Vec<Holder> {
        let mut held = vec![0; self.alive.len()];
        let mut holders = Vec::new();
        for key in self.registry.keys(None) {
            let Some(slot) = self.registry.live(key) else { continue };
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

    /// Ends holders that made no progress for at least so many periods, until bytes are no longer short; those that made
    /// progress only until there is some room below the limit.
    fn shed(&mut self, holders: Vec<Holder>, age_min: u16) {
        for Holder { key, service, bytes, age } in holders {
            if age < age_min || self.budget.has_room(age > 0) {
                return;
            }
            // Nobody goes for what another service holds.
            if self.budget.is_greedy(service) {
                self.budget.let_go(service, bytes);
                self.counters.evicted += 1;
                self.end(key, Closed::OverBudget, Ending::Reset);
            }
        }
    }
}
