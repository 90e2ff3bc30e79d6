//! The resources that wait for a place among the operations in flight, in the order of their attempts.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::id::Key;

/// The line of those who wait. The first of them decides who goes next, so an operation that needs many bytes is not
/// overtaken for ever by smaller ones.
#[derive(Default)]
pub(super) struct Line {
    /// By number of attempt: a resource, and how many bytes its operation needs.
    waiting: BTreeMap<u64, (Key, usize)>,
    /// The number of each of them.
    numbers: HashMap<Key, u64>,
    attempts: u64,
    /// Those for whom there is room in this turn. One that does not use its call has lost it, and whoever is
    /// first then is called in the next turn.
    called: HashSet<Key>,
}

/// What is left for operations.
#[derive(Clone, Copy)]
pub(super) struct Room {
    pub(super) operations: usize,
    pub(super) bytes: usize,
}

impl Line {
    /// Returns whether a resource may take a place now.
    #[inline]
    pub(super) fn lets(&self, key: Key) -> bool {
        self.is_idle() || self.called.contains(&key)
    }

    /// Adds a resource at the end, if it is not in the line.
    pub(super) fn join(&mut self, key: Key, bytes: usize) {
        self.called.remove(&key);
        let number = *self.numbers.entry(key).or_insert_with(|| {
            self.attempts += 1;
            self.attempts
        });
        self.waiting.insert(number, (key, bytes));
    }

    /// Removes a resource that has its place, or needs none any more.
    #[inline]
    pub(super) fn leave(&mut self, key: Key) {
        if !self.called.is_empty() {
            self.called.remove(&key);
        }
        if !self.waiting.is_empty()
            && let Some(number) = self.numbers.remove(&key)
        {
            self.waiting.remove(&number);
        }
    }

    /// Returns whether there is room for the first.
    #[inline]
    pub(super) fn is_due(&self, room: impl FnOnce() -> Room) -> bool {
        match self.waiting.first_key_value() {
            None => false,
            Some((_, (_, bytes))) => room().fits(*bytes),
        }
    }

    /// Returns whether nobody waits and nobody was called.
    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.called.is_empty()
    }

    /// Forgets who was called before.
    pub(super) fn begin(&mut self) {
        self.called.clear();
    }

    /// Calls the first if there is room for it, and takes its part of the room. In one turn it calls a limited number.
    pub(super) fn call(&mut self, room: &mut Room) -> Option<Key> {
        let first = self.waiting.first_entry()?;
        let (key, bytes) = *first.get();
        if self.called.len() >= CALLED_MAX || !room.fits(bytes) {
            return None;
        }
        first.remove();
        self.numbers.remove(&key);
        *room = Room { operations: room.operations - 1, bytes: room.bytes - bytes };
        self.called.insert(key);
        Some(key)
    }
}

impl Room {
    pub(super) fn fits(self, bytes: usize) -> bool {
        self.operations > 0 && bytes <= self.bytes
    }
}

/// The most resources to call in one turn.
const CALLED_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Room = Room { operations: 0, bytes: 0 };

    fn key(slot: u32) -> Key {
        Key::new(slot, 0, 0)
    }

    fn called(line: &mut Line, operations: usize, bytes: usize) -> Vec<Key> {
        let mut room = Room { operations, bytes };
        line.begin();
        std::iter::from_fn(|| line.call(&mut room)).collect()
    }

    #[test]
    fn the_first_goes_first_and_nobody_overtakes_it() {
        let mut line = Line::default();
        assert!(line.lets(key(1)));
        [(1, 100), (2, 10), (3, 10)].into_iter().for_each(|(slot, bytes)| line.join(key(slot), bytes));
        assert!(!line.lets(key(1)) && !line.lets(key(4)));
        assert_eq!(called(&mut line, 9, 99), []);
        assert_eq!(called(&mut line, 0, 999), []);
        assert_eq!(called(&mut line, 9, 110), [key(1), key(2)]);
        assert!(line.lets(key(1)) && line.lets(key(2)) && !line.lets(key(3)) && !line.lets(key(4)));
    }

    #[test]
    fn a_call_that_is_not_used_passes_on() {
        let mut line = Line::default();
        [1, 2].into_iter().for_each(|slot| line.join(key(slot), 1));
        assert_eq!(called(&mut line, 1, 1), [key(1)]);
        assert!(line.is_due(|| Room { operations: 1, bytes: 1 }) && !line.is_due(|| NONE));
        assert_eq!(called(&mut line, 1, 1), [key(2)]);
        assert!(!line.lets(key(1)));
        assert_eq!(called(&mut line, 1, 1), []);
        assert!(line.lets(key(1)), "nobody waits any more");
    }

    #[test]
    fn who_asks_again_keeps_its_place_and_who_leaves_has_none() {
        let mut line = Line::default();
        [1, 2, 3].into_iter().for_each(|slot| line.join(key(slot), 5));
        line.join(key(1), 7);
        line.leave(key(2));
        assert_eq!((line.waiting.len(), line.numbers.len()), (2, 2), "nothing of it is kept");
        assert_eq!(called(&mut line, 1, 6), []);
        assert_eq!(called(&mut line, 1, 7), [key(1)]);
        line.leave(key(1));
        assert!(!line.lets(key(1)) && line.called.is_empty());
        assert_eq!(called(&mut line, 1, 5), [key(3)]);
    }

    #[test]
    fn one_turn_calls_so_many_and_no_more() {
        for waiting in [CALLED_MAX - 1, CALLED_MAX, CALLED_MAX + 1] {
            let mut line = Line::default();
            (0..waiting as u32).for_each(|slot| line.join(key(slot), 0));
            assert_eq!(called(&mut line, 1_000, 0).len(), waiting.min(CALLED_MAX));
            assert_eq!(line.is_due(|| Room { operations: 1, bytes: 0 }), waiting > CALLED_MAX);
        }
    }
}
