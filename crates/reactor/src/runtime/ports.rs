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
        let Slot { head, resource } = registry.get_mut(key)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{engine::Candidates, runtime::limits::Limits};

    fn state() -> (LoopState, Key) {
        let engine = Candidates::default().open(None).expect("an engine opens");
        let (mut core, _) = LoopState::new(engine, 0, Limits::default());
        let key = core.registry.insert(0, crate::resource::tests::table(), Box::new(7_u8)).expect("room");
        (core, key)
    }

    #[test]
    fn a_resource_is_found_by_its_key_and_its_type() {
        let (mut core, key) = state();
        assert!(core.enter::<u16>(key).is_none(), "it has another type");
        let (found, ports) = core.enter::<u8>(key).expect("it is there");
        assert_eq!((*found, ports.key), (7, key));
        core.registry.end(key);
        assert!(core.enter::<u8>(key).is_none(), "it has ended");
    }

    #[test]
    fn a_resource_is_on_each_list_once() {
        let (mut core, key) = state();
        let (_, mut ports) = core.enter::<u8>(key).expect("it is there");
        for _ in 0..2 {
            ports.mark();
            ports.drive_again();
        }
        assert_eq!((&core.dirty[..], &core.again[..]), (&[key][..], &[key][..]));
    }

    #[test]
    fn the_internal_deadline_is_armed_at_once_or_later() {
        let (mut core, key) = state();
        let second = Duration::from_secs(1);
        let now = core.now;
        let (_, mut ports) = core.enter::<u8>(key).expect("it is there");
        ports.set_internal_deadline_later(second);
        assert_eq!(ports.head.internal_deadline, now + second);
        assert_eq!((core.timers.next(), core.unarmed_next), (None, now + second));
        let (_, mut ports) = core.enter::<u8>(key).expect("it is there");
        ports.set_internal_deadline_later(2 * second);
        assert_eq!(core.unarmed_next, now + second, "the earlier one");
        let (_, mut ports) = core.enter::<u8>(key).expect("it is there");
        ports.set_internal_deadline(Some(second));
        assert!(core.timers.next().is_some(), "it is in the wheel");
        let (_, mut ports) = core.enter::<u8>(key).expect("it is there");
        ports.set_internal_deadline(None);
        assert_eq!(ports.head.internal_deadline, Time::NEVER);
        core.set_deadline(key, Some(second));
        let (_, mut ports) = core.enter::<u8>(key).expect("it is there");
        ports.forget_deadline();
        assert_eq!((ports.head.deadline, ports.head.deadline_state), (Time::NEVER, DeadlineState::Set));
        assert_eq!(core.deadline_left(key), None);
    }
}
