//! One look-up: a resource that was found, beside the tables that its steps may use.
//!
//! The entry of a vtable finds the resource once, with its type, and passes it down together with its
//! [`Ports`]. What a step leaves to do that concerns other resources, or ends this one, is its caller's. So
//! a resource is found again only after a handler or another resource has had the tables.

use std::{collections::HashMap, time::Duration};

use session::Pool;

use super::{
    budget::ByteBudget,
    registry::{DeadlineState, Head, Slot},
    state::{Due, ItemDeadline, LoopState},
    timers::Wheel,
};
use crate::{clock::Time, engine::Engine, id::Key, metrics::Counters};

/// The tables of the loop that a resource may use while it is borrowed.
pub(crate) struct Ports<'a> {
    pub(crate) key: Key,
    /// The resource's slot, without the resource.
    pub(crate) head: &'a mut Head,
    pub(crate) engine: &'a mut dyn Engine,
    pub(crate) pool: &'a mut Pool,
    pub(crate) budget: &'a mut ByteBudget,
    pub(crate) counters: &'a mut Counters,
    pub(crate) items: &'a mut HashMap<Key, ItemDeadline>,
    pub(crate) timers: &'a mut Wheel<Due>,
    pub(crate) now: Time,
    dirty: &'a mut Vec<Key>,
    again: &'a mut Vec<Key>,
    unarmed: &'a mut Vec<Key>,
    unarmed_next: &'a mut Time,
}

impl LoopState {
    /// Finds the live resource of this type.
    #[inline(always)]
    pub(crate) fn enter<T: 'static>(&mut self, key: Key) -> Option<(&mut T, Ports<'_>)> {
        let LoopState { registry, engine, pool, budget, counters, items, timers, .. } = self;
        let Slot { head, resource } = registry.live(key)?;
        let resource = resource.as_mut()?.downcast_mut()?;
        let ports = Ports {
            key,
            head,
            engine: &mut **engine,
            pool,
            budget,
            counters,
            items,
            timers,
            now: self.now,
            dirty: &mut self.dirty,
            again: &mut self.again,
            unarmed: &mut self.unarmed,
            unarmed_next: &mut self.unarmed_next,
        };
        Some((resource, ports))
    }
}

impl Ports<'_> {
    /// Puts the resource on the list to flush, once.
    #[inline]
    pub(crate) fn mark(&mut self) {
        if !std::mem::replace(&mut self.head.dirty, true) {
            self.dirty.push(self.key);
        }
    }

    /// Puts the resource on the list to drive again in the next turn, once.
    #[inline]
    pub(crate) fn drive_again(&mut self) {
        if !std::mem::replace(&mut self.head.again, true) {
            self.again.push(self.key);
        }
    }

    /// Sets the internal deadline of the resource, counted from this turn's time.
    pub(crate) fn set_internal_deadline(&mut self, after: Option<Duration>) {
        self.set_internal_deadline_at(after.map_or(Time::NEVER, |after| self.now + after));
    }

    /// Sets the internal deadline of the resource to this moment.
    pub(crate) fn set_internal_deadline_at(&mut self, at: Time) {
        if self.head.internal_deadline != at {
            self.head.internal_deadline = at;
            self.head.arm(self.key, self.timers);
        }
    }

    /// Drops the deadline that the service has set.
    pub(crate) fn forget_deadline(&mut self) {
        (self.head.deadline, self.head.deadline_state) = (Time::NEVER, DeadlineState::Set);
        // while the deadline was in its grace, no timer was armed.
        self.head.arm(self.key, self.timers);
    }

    /// Sets the internal deadline for something that is likely to finish by the next turn. The deadline
    /// enters the wheel only if it does not.
    #[inline]
    pub(crate) fn set_internal_deadline_later(&mut self, after: Duration) {
        let at = self.now + after;
        self.head.internal_deadline = at;
        self.unarmed.push(self.key);
        *self.unarmed_next = at.min(*self.unarmed_next);
    }
}
