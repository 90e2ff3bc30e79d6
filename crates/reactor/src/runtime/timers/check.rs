//! The check of a wheel's own invariants, for builds with debug assertions.

use super::{ASIDE, EMPTY, NIL, SLOT_BITS, SLOT_MASK, SLOTS, Wheel};

impl<T: Copy> Wheel<T> {
    /// Returns how many entries there are, used or free.
    pub(crate) fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Returns a description of the first invariant that does not hold: each timer is in one list, which knows
    /// it from both sides, and every other entry is free or retired.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut listed = self.near.len();
        for place in 0..SLOTS {
            listed += self.check_slot(place)?;
        }
        let free = self.check_free()?;
        let retired = self.entries.iter().filter(|entry| entry.generation == u32::MAX).count();
        if free + retired + self.len != self.entries.len() {
            let all = self.entries.len();
            return Err(format!("of {all} timers {} are set, {free} free and {retired} retired", self.len));
        }
        // Timers that never fire are in no list. A free entry keeps its last place.
        let aside = self.entries.iter().filter(|entry| entry.place == ASIDE).count();
        if !(listed..=listed + aside).contains(&self.len) {
            return Err(format!("of {} timers that are set {listed} are in lists", self.len));
        }
        self.near.check(&self.entries)
    }

    /// Walks the timers of a slot. Returns how many there are.
    fn check_slot(&self, place: usize) -> Result<usize, String> {
        let slot = &self.slots[place];
        let bit = self.occupied[place >> SLOT_BITS] >> (place as u64 & SLOT_MASK) & 1;
        if (slot.head != NIL) != (bit == 1) {
            return Err(format!("slot {place} of the timers is marked wrongly"));
        }
        if slot.head == NIL && slot.soonest != EMPTY.soonest {
            return Err(format!("slot {place} of the timers is empty, and has a deadline"));
        }
        let (mut at, mut before, mut count) = (slot.head, NIL, 0);
        while at != NIL {
            let entry = self.entries.get(at as usize).ok_or_else(|| format!("timer {at} does not exist"))?;
            if entry.prev != before || usize::from(entry.place) != place || entry.at < slot.soonest {
                return Err(format!("timer {at} in slot {place} has links or a deadline of another one"));
            }
            count += 1;
            if count > self.entries.len() {
                return Err(format!("the timers of slot {place} form a circle"));
            }
            (before, at) = (at, entry.next);
        }
        Ok(count)
    }

    /// Walks the free entries. Returns how many there are.
    fn check_free(&self) -> Result<usize, String> {
        let (mut at, mut count) = (self.free, 0);
        while at != NIL {
            let entry = self.entries.get(at as usize).ok_or_else(|| format!("timer {at} does not exist"))?;
            count += 1;
            if count > self.entries.len() {
                return Err("the free timers form a circle".to_owned());
            }
            at = entry.next;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Time;

    /// Breaks a wheel with timers in a slot, in the heap, aside and free, and returns what the check says.
    fn broken(spoil: impl FnOnce(&mut Wheel<u8>)) -> String {
        let mut wheel = Wheel::new(10);
        let at = Time::from_nanos;
        let keys =
            [1, 1 << 30, (1 << 30) + 1, 1 << 40].map(|nanos| wheel.set(at(nanos), 0).expect("there is room"));
        wheel.set(Time::NEVER, 0).expect("there is room");
        wheel.cancel(keys[3]);
        assert_eq!(wheel.check(), Ok(()));
        spoil(&mut wheel);
        wheel.check().expect_err("it is broken")
    }

    #[test]
    fn a_timer_that_is_in_no_list_or_has_another_ones_links_is_noticed() {
        let place =
            |wheel: &Wheel<u8>| wheel.slots.iter().position(|slot| slot.head != NIL).expect("one is in use");
        let lost = broken(|wheel| {
            let place = place(wheel);
            wheel.slots[place] = EMPTY;
            wheel.occupied[place >> SLOT_BITS] = 0;
        });
        assert_eq!(lost, "of 4 timers that are set 1 are in lists");
        let unmarked = broken(|wheel| wheel.occupied = Default::default());
        assert!(unmarked.ends_with("is marked wrongly"), "{unmarked}");
        let linked = broken(|wheel| {
            let place = place(wheel);
            wheel.entries[wheel.slots[place].head as usize].prev = 0;
        });
        assert!(linked.ends_with("has links or a deadline of another one"), "{linked}");
    }

    #[test]
    fn a_wrong_count_a_lost_entry_and_a_disorder_are_noticed() {
        assert_eq!(broken(|wheel| wheel.len += 1), "of 5 timers 5 are set, 1 free and 0 retired");
        assert_eq!(broken(|wheel| wheel.free = NIL), "of 5 timers 4 are set, 0 free and 0 retired");
        let moved = broken(|wheel| wheel.entries[0].prev = 7);
        assert_eq!(moved, "the timer at place 0 of the heap does not know it");
    }
}
