//! The registry: a slot for each live resource, found by its key. A key of another life finds nothing.
//!
//! Slots are reused first-in-first-out, so that a stale key meets its slot's next tenant as late as possible.
//! A slot whose generations are used up is retired. A slot becomes free only after `closed` was called,
//! because until then side tables by slot still hold the old life.

use std::{
    any::Any,
    collections::VecDeque,
    ops::{Deref, DerefMut},
};

use super::{
    state::Due,
    timers::{TimerKey, Wheel},
};
use crate::{
    clock::Time,
    growth::grow,
    id::Key,
    resource::{Look, Vtable, rest::RestReason},
};

/// The life of a resource, in one cache line, because with ten thousand connections each line is a miss.
#[repr(align(64))]
pub(crate) struct Slot {
    pub(crate) head: Head,
    pub(crate) resource: Option<Box<dyn Any>>,
}

/// A slot without its resource.
pub(crate) struct Head {
    /// The key of the live resource. An ended or free slot has its dead form, which no key equals.
    live: Key,
    pub(crate) service: u16,
    state: SlotState,
    /// It is on the list of streams to flush.
    pub(crate) dirty: bool,
    /// It is in the resume queue.
    pub(crate) again: bool,
    /// The runtime does not read it while bytes are short, and wakes it afterwards.
    pub(crate) resting: bool,
    pub(crate) deadline_state: DeadlineState,
    pub(crate) table: &'static Vtable,
    /// Set by the service.
    pub(crate) deadline: Time,
    /// Set by the runtime: connect, handshake, stall, close.
    pub(crate) internal_deadline: Time,
    pub(crate) timer: TimerKey,
}

impl Deref for Slot {
    type Target = Head;

    #[inline(always)]
    fn deref(&self) -> &Head {
        &self.head
    }
}

impl DerefMut for Slot {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Head {
        &mut self.head
    }
}

impl Head {
    /// Notes that the stream only waits for the peer's end.
    pub(crate) fn linger(&mut self) {
        self.state = SlotState::Lingering;
    }

    /// Arms the wheel for the earlier of both deadlines. A deadline that moved later costs nothing: its timer
    /// fires early, and is armed again.
    pub(crate) fn arm(&mut self, key: Key, timers: &mut Wheel<Due>) {
        let deadline = if self.deadline_state == DeadlineState::Set { self.deadline } else { Time::NEVER };
        let at = deadline.min(self.internal_deadline);
        if at == Time::NEVER {
            return;
        }
        let later = timers.deadline(self.timer).is_none_or(|armed| armed > at);
        if later && !timers.reset(self.timer, at) {
            self.timer = timers.set(at, Due::Resource(key)).unwrap_or(TimerKey::NONE);
        }
    }
}

const _: () = assert!(size_of::<Slot>() <= 64, "a slot is one line of the cache");

/// The state of a resource's deadline that the service set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DeadlineState {
    /// `deadline` is the moment, or never.
    Set,
    /// The service set it in this turn. `deadline` holds the duration, which counts from the end of the turn.
    Fresh,
    /// It has passed, and the runtime tries one more read.
    Grace,
    /// It has passed, and the service received its message.
    Notified,
    /// It has passed, and the resource leaves. Nothing waits for it any more.
    Passed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SlotState {
    Free,
    Live,
    /// It is alive, and has sent its end. It only waits for the peer's end.
    Lingering,
    /// Its end is queued. Only `closed` follows.
    Ended,
}

pub(crate) struct Registry {
    slots: Vec<Slot>,
    free: VecDeque<u32>,
    runtime: u16,
    limit: usize,
    occupied: usize,
}

impl Registry {
    pub(crate) fn new(runtime: u16, limit: usize) -> Registry {
        let limit = limit.min(Key::SLOTS_MAX as usize);
        Registry { slots: Vec::new(), free: VecDeque::new(), runtime, limit, occupied: 0 }
    }

    pub(crate) fn runtime(&self) -> u16 {
        self.runtime
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Returns how many slots are not free: live, or waiting for `closed`.
    pub(crate) fn occupied(&self) -> usize {
        self.occupied
    }

    /// Puts a resource into a free slot. Gives it back at the limit.
    pub(crate) fn insert(
        &mut self,
        service: u16,
        table: &'static Vtable,
        resource: Box<dyn Any>,
    ) -> Result<Key, Box<dyn Any>> {
        if self.occupied >= self.limit {
            return Err(resource);
        }
        let Some(index) = self.free.pop_front().or_else(|| self.grow(table)) else { return Err(resource) };
        let slot = &mut self.slots[index as usize];
        let key = Key::new(index, slot.live.generation(), self.runtime);
        slot.head = Head { live: key, service, state: SlotState::Live, ..Slot::free(key, table).head };
        slot.resource = Some(resource);
        self.occupied += 1;
        Ok(key)
    }

    fn grow(&mut self, table: &'static Vtable) -> Option<u32> {
        let len = self.slots.len();
        if len == Key::SLOTS_MAX as usize {
            return None;
        }
        grow(&mut self.slots, len);
        self.slots.push(Slot::free(Key::new(len as u32, 0, self.runtime), table));
        Some(len as u32)
    }

    fn ended(&mut self, key: Key) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(key.slot())?;
        (slot.live == key.dead() && slot.state == SlotState::Ended).then_some(slot)
    }

    /// Returns the slot of the live resource with this key, mutably.
    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Slot> {
        self.slots.get_mut(key.slot()).filter(|slot| slot.live == key)
    }

    /// Returns the slot of the live resource with this key.
    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<&Slot> {
        self.slots.get(key.slot()).filter(|slot| slot.live == key)
    }

    /// Marks a live resource as ended. After that only [`Registry::take_ended`] finds it.
    pub(crate) fn end(&mut self, key: Key) -> Option<&mut Slot> {
        let slot = self.get_mut(key)?;
        slot.state = SlotState::Ended;
        slot.live = key.dead();
        Some(slot)
    }

    /// Returns the service of an ended resource.
    pub(crate) fn service_of_ended(&mut self, key: Key) -> Option<u16> {
        self.ended(key).map(|slot| slot.service)
    }

    /// Returns the service of a resource that is alive or waits for its `closed`.
    pub(crate) fn service_of(&mut self, key: Key) -> Option<u16> {
        self.get(key).map(|slot| slot.service).or_else(|| self.service_of_ended(key))
    }

    /// Takes an ended resource out for its `closed`.
    pub(crate) fn take_ended(&mut self, key: Key) -> Option<(u16, &'static Vtable, Box<dyn Any>)> {
        let slot = self.ended(key)?;
        Some((slot.service, slot.table, slot.resource.take()?))
    }

    /// Frees the slot of an ended resource, after its `closed`.
    pub(crate) fn free(&mut self, key: Key) {
        let Some(slot) = self.ended(key) else { return };
        slot.state = SlotState::Free;
        slot.resource = None;
        let generation = key.generation();
        if generation < Key::GENERATION_MAX {
            slot.live = Key::new(0, generation + 1, key.runtime()).dead();
            self.free.push_back(key.slot() as u32);
        }
        self.occupied -= 1;
    }

    /// Takes back a resource of which no service has heard, and frees its slot.
    pub(crate) fn take_back(&mut self, key: Key) -> Option<Box<dyn Any>> {
        self.end(key)?;
        let (.., back) = self.take_ended(key)?;
        self.free(key);
        Some(back)
    }

    /// Returns the keys of all live resources, or of one service's. It looks at every slot, so it is only for
    /// rare moments.
    pub(crate) fn keys(&self, service: Option<u16>) -> Vec<Key> {
        let of = |slot: &Slot| {
            matches!(slot.state, SlotState::Live | SlotState::Lingering)
                && service.is_none_or(|n| slot.service == n)
        };
        let all = self.slots.iter().filter(|slot| of(slot));
        all.map(|slot| slot.live).collect()
    }

    /// Returns the keys of all lingering streams. It looks at every slot, so it is only for a lack of
    /// descriptors.
    pub(crate) fn lingering(&self) -> Vec<Key> {
        let all = self.slots.iter().filter(|slot| slot.state == SlotState::Lingering);
        all.map(|slot| slot.live).collect()
    }

    /// Returns how many slots there are, used or free.
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Returns all live resources with their keys. It looks at every slot.
    pub(crate) fn all_live(&self) -> impl Iterator<Item = (Key, &Slot)> {
        let is_live = |slot: &&Slot| matches!(slot.state, SlotState::Live | SlotState::Lingering);
        self.slots.iter().filter(is_live).map(|slot| (slot.live, slot))
    }

    /// Returns the live resource in a slot.
    pub(crate) fn live_at(&self, index: usize) -> Option<(Key, &Slot)> {
        let slot = self.slots.get(index)?;
        matches!(slot.state, SlotState::Live | SlotState::Lingering).then_some((slot.live, slot))
    }

    /// Returns whether this resource waits for its `closed`.
    pub(crate) fn has_ended(&self, key: Key) -> bool {
        let slot = self.slots.get(key.slot());
        slot.is_some_and(|slot| slot.live == key.dead() && slot.state == SlotState::Ended)
    }

    /// Returns how many resources wait for their `closed`. It looks at every slot.
    pub(crate) fn ended_count(&self) -> usize {
        self.slots.iter().filter(|slot| slot.state == SlotState::Ended).count()
    }

    /// Returns a description of the first invariant that does not hold: each slot is live, ended, on the free
    /// list, or retired.
    pub(crate) fn check(&self) -> Result<(), String> {
        for index in &self.free {
            match self.slots.get(*index as usize).map(|slot| slot.state) {
                Some(SlotState::Free) => (),
                Some(state) => return Err(format!("slot {index} is {state:?}, and on the free list")),
                None => return Err(format!("slot {index} is on the free list, and does not exist")),
            }
        }
        let (mut occupied, mut free, mut spent) = (0, 0, 0);
        for (index, slot) in self.slots.iter().enumerate() {
            match slot.state {
                SlotState::Free if slot.live.generation() >= Key::GENERATION_MAX => spent += 1,
                SlotState::Free => free += 1,
                SlotState::Live | SlotState::Lingering
                    if slot.resource.is_none() || slot.live.slot() != index =>
                {
                    return Err(format!("slot {index} is {:?}, without its resource or its key", slot.state));
                }
                SlotState::Live | SlotState::Lingering | SlotState::Ended => occupied += 1,
            }
        }
        let listed = self.free.len();
        if occupied != self.occupied || !(free..=free + spent).contains(&listed) {
            let counted = self.occupied;
            return Err(format!(
                "{counted} and {listed} slots are counted, {occupied} occupied and {free} free"
            ));
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn spoil(&mut self, key: Key) {
        self.free.push_back(key.slot() as u32);
    }

    #[cfg(test)]
    pub(crate) fn set_generation(&mut self, index: usize, generation: u32) {
        self.slots[index].live = Key::new(0, generation, self.runtime).dead();
    }
}

impl Slot {
    /// Returns what can be seen of the resource without its type.
    pub(crate) fn look(&self) -> Look {
        let look = self.resource.as_deref().map(self.table.look).unwrap_or_default();
        Look { rests: look.rests.with(RestReason::Shortage, self.resting), ..look }
    }

    fn free(key: Key, table: &'static Vtable) -> Slot {
        let head = Head {
            live: key.dead(),
            service: 0,
            state: SlotState::Free,
            dirty: false,
            again: false,
            resting: false,
            deadline_state: DeadlineState::Set,
            table,
            deadline: Time::NEVER,
            internal_deadline: Time::NEVER,
            timer: TimerKey::NONE,
        };
        Slot { head, resource: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(limit: usize) -> (Registry, &'static Vtable) {
        (Registry::new(9, limit), crate::resource::tests::table())
    }

    fn leave(registry: &mut Registry, key: Key) {
        registry.end(key).expect("it is live");
        assert!(registry.take_ended(key).is_some());
        registry.free(key);
    }

    #[test]
    fn a_slot_is_free_only_after_closed_and_then_names_another_life() {
        let (mut registry, table) = registry(8);
        let first = registry.insert(0, table, Box::new(1)).expect("room");
        registry.end(first).expect("it is live");
        assert!(registry.get_mut(first).is_none() && registry.end(first).is_none());
        let second = registry.insert(0, table, Box::new(2)).expect("room");
        assert_ne!(first.slot(), second.slot());
        assert!(registry.take_ended(first).is_some() && registry.take_ended(first).is_none());
        registry.free(first);
        let third = registry.insert(0, table, Box::new(3)).expect("room");
        assert_eq!((third.slot(), third.generation()), (first.slot(), 1));
        assert!(registry.get_mut(first).is_none() && registry.get_mut(third).is_some());
        registry.free(first); // stale: harmless
        assert!(registry.get_mut(third).is_some());
    }

    #[test]
    fn slots_are_reused_first_in_first_out() {
        let (mut registry, table) = registry(8);
        let keys: Vec<Key> = (0..3).map(|n| registry.insert(0, table, Box::new(n)).expect("room")).collect();
        for slot in [1, 0, 2] {
            leave(&mut registry, keys[slot]);
        }
        let again: Vec<usize> =
            (0..3).map(|n| registry.insert(0, table, Box::new(n)).expect("room").slot()).collect();
        assert_eq!(again, [1, 0, 2]);
    }

    #[test]
    fn a_slot_without_generations_left_is_retired() {
        let (mut registry, table) = registry(8);
        let key = registry.insert(0, table, Box::new(0)).expect("room");
        leave(&mut registry, key);
        registry.set_generation(0, Key::GENERATION_MAX - 1);
        for generation in [Key::GENERATION_MAX - 1, Key::GENERATION_MAX] {
            let key = registry.insert(0, table, Box::new(0)).expect("room");
            assert_eq!((key.slot(), key.generation()), (0, generation));
            leave(&mut registry, key);
        }
        assert_eq!(registry.insert(0, table, Box::new(0)).expect("room").slot(), 1);
    }

    #[test]
    fn the_limit_gives_the_resource_back() {
        let (mut registry, table) = registry(2);
        let first = registry.insert(0, table, Box::new(1)).expect("limit - 1");
        registry.insert(0, table, Box::new(2)).expect("limit");
        let back = registry.insert(0, table, Box::new(3)).expect_err("limit + 1");
        assert_eq!(back.downcast_ref(), Some(&3));
        leave(&mut registry, first);
        registry.insert(0, table, Box::new(4)).expect("room again");
    }

    #[test]
    fn a_key_of_another_runtime_finds_nothing() {
        let (mut registry, table) = registry(2);
        let key = registry.insert(0, table, Box::new(1)).expect("room");
        let foreign = Key::new(key.slot() as u32, key.generation(), 10);
        assert!(registry.get_mut(foreign).is_none() && registry.get(foreign).is_none());
    }

    #[test]
    fn a_lingering_stream_is_live_and_known_as_such() {
        let (mut registry, table) = registry(2);
        let [first, second] =
            [0, 1].map(|service| registry.insert(service, table, Box::new(service)).expect("room"));
        assert!(registry.lingering().is_empty());
        registry.get_mut(second).expect("it is live").linger();
        assert_eq!(registry.lingering(), [second]);
        assert_eq!(registry.keys(None), [first, second]);
        leave(&mut registry, second);
        assert!(registry.lingering().is_empty());
    }
}
