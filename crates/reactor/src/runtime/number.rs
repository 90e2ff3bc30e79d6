//! The numbers in ids that distinguish runtimes.
//!
//! An id has 16 bits for its runtime. Runtimes that live at the same time have different numbers, as long as
//! there are no more than 65,536 of them. A number is reused after its runtime has gone, and the number that
//! has been free for longest comes first. So an id of a dropped runtime finds nothing until 65,536 further
//! runtimes were made.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

/// The numbers of one process.
struct Numbers {
    /// The first number that was never used; 65,536 when all were.
    next: u32,
    free: VecDeque<u16>,
}

impl Numbers {
    const fn new() -> Numbers {
        Numbers { next: 0, free: VecDeque::new() }
    }

    fn take(&mut self) -> u16 {
        let fresh = u16::try_from(self.next).ok();
        self.next += u32::from(fresh.is_some());
        // If more runtimes are alive than there are numbers, some share the last number.
        fresh.or_else(|| self.free.pop_front()).unwrap_or(u16::MAX)
    }

    fn give_back(&mut self, number: u16) {
        // Shared numbers come back more than once, so bound the list.
        if self.free.len() <= usize::from(u16::MAX) {
            self.free.push_back(number);
        }
    }
}

/// Takes a number for a new runtime.
pub(super) fn take() -> u16 {
    NUMBERS.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Gives back the number of a dropped runtime.
pub(super) fn give_back(number: u16) {
    NUMBERS.lock().unwrap_or_else(PoisonError::into_inner).give_back(number);
}

static NUMBERS: Mutex<Numbers> = Mutex::new(Numbers::new());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_used_twice_while_its_runtime_lives() {
        let mut numbers = Numbers::new();
        let first = numbers.take();
        // Runtimes come and go, one after the other, more often than there are numbers.
        for _ in 0..3 * 65_536 {
            let number = numbers.take();
            assert_ne!(number, first);
            numbers.give_back(number);
        }
    }

    #[test]
    fn a_number_rests_for_as_many_runtimes_as_there_are_numbers() {
        let mut numbers = Numbers::new();
        let first = numbers.take();
        numbers.give_back(first);
        let again = (1_u32..).find(|_| {
            let number = numbers.take();
            numbers.give_back(number);
            number == first
        });
        assert_eq!(again, Some(65_536));
    }

    #[test]
    fn as_many_as_there_are_numbers_have_different_ones() {
        let mut numbers = Numbers::new();
        let mut all: Vec<u16> = (0..65_536).map(|_| numbers.take()).collect();
        all.dedup();
        assert_eq!(all.len(), 65_536, "limit");
        assert_eq!(numbers.take(), u16::MAX, "one more shares");
    }
}
