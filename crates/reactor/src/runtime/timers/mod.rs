//! The timer wheel: it finds the next deadline, and the due timers in the order of (deadline, sequence of
//! setting).
//!
//! # Contract
//!
//! A timer fires in the first batch that is opened at or after its exact deadline, to the nanosecond, and
//! never before. [`Wheel::expire`] opens a batch, and [`Wheel::pop_due`] returns its timers one by one: by
//! deadline, and those of the same instant in the order in which they were set.
//!
//! The caller may set, cancel or reset timers between two pops. A timer of the batch that is cancelled or
//! moved before its turn does not fire. A timer that is set or moved while the batch is open is never part of
//! it, even if its deadline has passed: it fires in the next batch. Timers beyond the limit of a batch stay
//! due, and compete by their deadline in the next batch. A full batch is not refilled when some of its timers
//! are cancelled.
//!
//! [`Wheel::next`] returns when to open the next batch. That is never later than the earliest deadline.
//! Opening a batch then makes progress: it either fires a timer, or empties a slot that was remembered for a
//! timer since cancelled or moved. So if nothing is cancelled or moved, every wake-up fires a timer.
//! Otherwise there is at most one idle wake-up for each timer cancelled or moved. A timer at [`Time::NEVER`]
//! takes up an entry and never wakes the loop.
//!
//! Setting, cancelling and moving take constant time, except for timers of the current tick, which live in a
//! heap. Time may jump by any distance. The cost depends only on the timers met on the way, each of which is
//! refiled at most once per level. A key names one life of a timer. After that life the key is stale, and
//! harmless.
//!
//! # How it works
//!
//! Time is divided into ticks of 2^18 ns, 262 µs. A slot is a doubly linked list of entries in one slab.
//! Level 0 has one slot for each of the 64 ticks of the current block, level 1 has one for each of the 64
//! blocks of the current block of blocks, and so on. A timer is filed at the level of the highest six bits in
//! which its tick differs from the current one. Eight levels cover all bits of a tick, so there is no
//! horizon.
//!
//! Everything in a lower level is earlier than everything in a higher one. A bitmap for each level marks the
//! occupied slots, so finding the earliest slot takes two instructions. When a slot's time has come, it is
//! emptied and its timers are filed again at lower levels. Timers that have reached their tick go to the heap
//! `near`, which puts them into their exact order. So the length of a tick affects no deadline. With 262 µs,
//! three levels cover a minute, and with a hundred thousand timers spread over that minute, a tick holds less
//! than one on average.
//!
//! Each slot remembers the earliest deadline that it was given, and the loop wakes at that time, not at the
//! slot's beginning. This also makes it nearly free to move a deadline into the future, as idle timeouts do
//! with every message: the entry stays in its slot, and only its deadline changes. When the slot is emptied,
//! the entry is filed where it belongs.

mod check;
mod near;
#[cfg(test)]
mod tests;

use self::near::{Near, NearTimer};
use crate::clock::Time;

/// The pending timers of a runtime, each with a small payload.
#[derive(Debug)]
pub(crate) struct Wheel<T> {
    entries: Vec<Timer<T>>,
    slots: Box<[WheelSlot; SLOTS]>,
    occupied: [u64; LEVELS + 1],
    near: Near,
    /// The tick up to which slots are empty. It lags behind `now` only if a limit stopped the emptying.
    tick: u64,
    now: u64,
    sequence: u64,
    batch_left: usize,
    free: u32,
    len: usize,
    limit: usize,
}

/// The name of one life of a timer, in eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TimerKey {
    index: u32,
    generation: u32,
}

impl Default for TimerKey {
    fn default() -> TimerKey {
        TimerKey::NONE
    }
}

impl TimerKey {
    /// Names no timer, because an entry with this generation is retired.
    pub(crate) const NONE: TimerKey = TimerKey { index: u32::MAX, generation: u32::MAX };
}

/// The payload for which there was no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full<T>(pub(crate) T);

#[derive(Debug)]
struct Timer<T> {
    at: u64,
    sequence: u64,
    /// The neighbours in the slot. In `near`, `prev` is the position there. In a free entry, `next` is the
    /// next free entry.
    prev: u32,
    next: u32,
    generation: u32,
    place: u16,
    payload: T,
}

#[derive(Debug, Clone, Copy)]
struct WheelSlot {
    /// A lower bound of the deadlines in the slot. It is exact until an entry is removed or moved.
    soonest: u64,
    head: u32,
}

impl<T: Copy> Wheel<T> {
    /// Makes an empty wheel at [`Time::ZERO`] for at most `limit` timers, or 2^31 if that is less.
    pub(crate) fn new(limit: usize) -> Self {
        Wheel {
            entries: Vec::new(),
            slots: Box::new([EMPTY; SLOTS]),
            occupied: [0; LEVELS + 1],
            near: Near::default(),
            tick: 0,
            now: 0,
            sequence: 0,
            batch_left: 0,
            free: NIL,
            len: 0,
            limit: limit.min(LIMIT_MAX),
        }
    }

    /// Sets a timer. It fires in the first batch opened at or after `at`, but not in the open one.
    ///
    /// # Errors
    /// [`Full`] with the payload if the wheel already holds `limit` timers.
    pub(crate) fn set(&mut self, at: Time, payload: T) -> Result<TimerKey, Full<T>> {
        if self.len >= self.limit {
            return Err(Full(payload));
        }
        self.len += 1;
        let index = self.allocate(at.as_nanos(), payload);
        self.file(index);
        Ok(TimerKey { index, generation: self.entries[index as usize].generation })
    }

    /// Removes a timer and returns its payload, or `None` if the key is stale.
    pub(crate) fn cancel(&mut self, key: TimerKey) -> Option<T> {
        self.entry(key)?;
        self.detach(key.index);
        Some(self.release(key.index))
    }

    /// Moves a timer to `at`, as if it were set now. Returns false if the key is stale.
    pub(crate) fn reset(&mut self, key: TimerKey, at: Time) -> bool {
        let Some(entry) = self.entry(key) else { return false };
        let (place, at) = (entry.place, at.as_nanos());
        // The slot will be emptied in time for this deadline, too, and then the entry is filed where it
        // belongs.
        let stays = place < FRESH && at >= self.slots[place as usize].soonest && at != NEVER;
        if !stays {
            self.detach(key.index);
        }
        let sequence = self.sequence_next();
        let entry = &mut self.entries[key.index as usize];
        entry.at = at;
        entry.sequence = sequence;
        if !stays {
            self.file(key.index);
        }
        true
    }

    /// Returns the deadline of a timer, or `None` if the key is stale.
    pub(crate) fn deadline(&self, key: TimerKey) -> Option<Time> {
        self.entry(key).map(|entry| Time::from_nanos(entry.at))
    }

    /// Returns when to open the next batch, which may have passed already. `None` means that there is nothing
    /// to wait for.
    pub(crate) fn next(&self) -> Option<Time> {
        let at = if self.occupied[LEVELS] != 0 {
            self.now
        } else if let Some(first) = self.near.first() {
            first.at
        } else {
            self.slots[self.earliest()?].soonest
        };
        Some(Time::from_nanos(at))
    }

    /// Opens a batch of at most `limit` timers whose deadlines are not after `now`.
    ///
    /// Timers left over from the previous batch compete in this one. If `now` is earlier than in a previous
    /// call, that call's time is used instead.
    pub(crate) fn expire(&mut self, now: Time, limit: usize) {
        self.now = self.now.max(now.as_nanos());
        self.batch_left = limit;
        self.empty(FRESH as usize);
        let target = self.now >> TICK_BITS;
        // All timers in `near` are earlier than those in the slots, so a full batch needs no more of them.
        while self.near.len() < limit {
            let earliest = self.earliest().map(|place| (place, self.beginning(place)));
            let Some((place, tick)) = earliest.filter(|&(_, tick)| tick <= target) else {
                self.tick = target;
                break;
            };
            self.tick = tick;
            self.empty(place);
        }
    }

    /// Takes the next timer of the open batch, or returns `None` if the batch is used up.
    pub(crate) fn pop_due(&mut self) -> Option<(TimerKey, T)> {
        let first = self.near.first().filter(|first| self.batch_left > 0 && first.at <= self.now)?;
        self.batch_left -= 1;
        self.near.remove(&mut self.entries, 0);
        let key = TimerKey { index: first.index, generation: self.entries[first.index as usize].generation };
        Some((key, self.release(first.index)))
    }

    /// Returns how many timers are pending, including those of the open batch and those at [`Time::NEVER`].
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns whether no timer is pending.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the bytes of heap memory in use.
    #[cfg(test)]
    pub(crate) fn heap_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Timer<T>>()
            + self.near.heap_bytes()
            + size_of::<[WheelSlot; SLOTS]>()
    }

    /// Finds the live entry of a key. Releasing an entry changes its generation, so comparing that is enough.
    fn entry(&self, key: TimerKey) -> Option<&Timer<T>> {
        self.entries.get(key.index as usize).filter(|entry| entry.generation == key.generation)
    }

    fn sequence_next(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    fn allocate(&mut self, at: u64, payload: T) -> u32 {
        let sequence = self.sequence_next();
        if self.free != NIL {
            let index = self.free;
            let entry = &mut self.entries[index as usize];
            self.free = entry.next;
            (entry.at, entry.sequence, entry.payload) = (at, sequence, payload);
            return index;
        }
        let count = self.entries.len();
        if count == self.entries.capacity() {
            let wanted = (count / GROWTH).max(GROWTH_MIN);
            self.entries.reserve_exact(wanted.min(self.limit.saturating_sub(count)).max(1));
        }
        self.entries.push(Timer { at, sequence, prev: NIL, next: NIL, generation: 0, place: ASIDE, payload });
        // Entries are not reused once their generations are used up. There are few of them, so this stays
        // close to the limit.
        count as u32
    }

    /// Ends the life of an entry. The entry must not be in a list.
    fn release(&mut self, index: u32) -> T {
        self.len -= 1;
        let entry = &mut self.entries[index as usize];
        entry.generation += 1;
        // An entry retires when its generations are used up. No key was ever made with the last one.
        if entry.generation != u32::MAX {
            entry.next = self.free;
            self.free = index;
        }
        entry.payload
    }

    /// Files a timer that was just set or moved.
    fn file(&mut self, index: u32) {
        let at = self.entries[index as usize].at;
        if at == NEVER {
            self.entries[index as usize].place = ASIDE;
        } else if at <= self.now {
            // Not into `near`, because the open batch would find it there.
            self.link(index, FRESH);
        } else {
            let settled = self.near.len();
            self.sort(index);
            if self.near.len() != settled {
                self.near.settle(&mut self.entries, settled);
            }
        }
    }

    /// Puts an entry into its slot. If its tick has come, appends it to `near` instead, which must be settled
    /// later.
    fn sort(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        let tick = entry.at >> TICK_BITS;
        if tick <= self.tick {
            entry.place = NEAR;
            self.near.append(NearTimer { at: entry.at, sequence: entry.sequence, index });
            return;
        }
        let level = (tick ^ self.tick).ilog2() / SLOT_BITS;
        let slot = (tick >> (level * SLOT_BITS)) & SLOT_MASK;
        self.link(index, (level as u16) << SLOT_BITS | slot as u16);
    }

    /// Empties a slot and files its entries again.
    fn empty(&mut self, place: usize) {
        let mut index = self.slots[place].head;
        self.slots[place] = EMPTY;
        self.occupied[place >> SLOT_BITS] &= !(1 << (place as u64 & SLOT_MASK));
        let settled = self.near.len();
        while index != NIL {
            let next = self.entries[index as usize].next;
            self.sort(index);
            index = next;
        }
        self.near.settle(&mut self.entries, settled);
    }

    fn link(&mut self, index: u32, place: u16) {
        let slot = &mut self.slots[place as usize];
        let entry = &mut self.entries[index as usize];
        let head = slot.head;
        (entry.prev, entry.next, entry.place) = (NIL, head, place);
        slot.head = index;
        slot.soonest = slot.soonest.min(entry.at);
        if head == NIL {
            self.occupied[place as usize >> SLOT_BITS] |= 1 << (u64::from(place) & SLOT_MASK);
        } else {
            self.entries[head as usize].prev = index;
        }
    }

    /// Removes an entry from its list or from the heap.
    fn detach(&mut self, index: u32) {
        let Timer { prev, next, place, .. } = self.entries[index as usize];
        match place {
            ASIDE => return,
            NEAR => return self.near.remove(&mut self.entries, prev as usize),
            _ => {}
        }
        if next != NIL {
            self.entries[next as usize].prev = prev;
        }
        if prev != NIL {
            self.entries[prev as usize].next = next;
        } else if next != NIL {
            self.slots[place as usize].head = next;
        } else {
            self.slots[place as usize] = EMPTY;
            self.occupied[place as usize >> SLOT_BITS] &= !(1 << (u64::from(place) & SLOT_MASK));
        }
    }

    /// Finds the earliest occupied slot.
    fn earliest(&self) -> Option<usize> {
        let level = self.occupied[..LEVELS].iter().position(|&bits| bits != 0)?;
        Some(level << SLOT_BITS | self.occupied[level].trailing_zeros() as usize)
    }

    /// Returns the first tick of an occupied slot. All occupied slots lie ahead, in the current block of
    /// their level.
    fn beginning(&self, place: usize) -> u64 {
        let shift = (place as u32 >> SLOT_BITS) * SLOT_BITS;
        let block = self.tick >> (shift + SLOT_BITS) << (shift + SLOT_BITS);
        block | (place as u64 & SLOT_MASK) << shift
    }
}

/// The length of a tick, as a power of two of nanoseconds.
const TICK_BITS: u32 = 18;
const SLOT_BITS: u32 = 6;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;
/// The number of levels that can distinguish any two ticks.
const LEVELS: usize = (u64::BITS - TICK_BITS).div_ceil(SLOT_BITS) as usize;

/// The list of timers that were set or moved to a time that had passed. It follows the levels.
const FRESH: u16 = (LEVELS as u16) << SLOT_BITS;
const SLOTS: usize = FRESH as usize + 1;
/// The heap of the current tick.
const NEAR: u16 = FRESH + 1;
/// In no list, because the timer never fires.
const ASIDE: u16 = FRESH + 2;

const NIL: u32 = u32::MAX;
const NEVER: u64 = Time::NEVER.as_nanos();
const EMPTY: WheelSlot = WheelSlot { soonest: NEVER, head: NIL };
const LIMIT_MAX: usize = 1 << 31;

/// The slab grows by this fraction, because doubling it would take twice the memory in use.
const GROWTH: usize = 8;
const GROWTH_MIN: usize = 64;
