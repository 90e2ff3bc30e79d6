//! The scheduled events in the order of their times. A heap makes a step cost the logarithm of their number.

use std::{cmp::Ordering, collections::BinaryHeap};

/// A queue in which events of one moment keep their order of insertion.
pub(crate) struct Queue<T> {
    heap: BinaryHeap<Timed<T>>,
    sequence: u64,
}

struct Timed<T> {
    at: u64,
    sequence: u64,
    what: T,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Queue<T> {
        Queue { heap: BinaryHeap::new(), sequence: 0 }
    }

    /// Schedules an event at a time in nanoseconds.
    pub(crate) fn put(&mut self, at: u64, what: T) {
        self.sequence += 1;
        self.heap.push(Timed { at, sequence: self.sequence, what });
    }

    /// Returns the time of the next event.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|timed| timed.at)
    }

    pub(crate) fn pop(&mut self) -> Option<(u64, T)> {
        self.heap.pop().map(|timed| (timed.at, timed.what))
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }
}

impl<T> Ord for Timed<T> {
    fn cmp(&self, other: &Timed<T>) -> Ordering {
        // The heap returns its greatest timed, so the order is reversed.
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}
impl<T> PartialOrd for Timed<T> {
    fn partial_cmp(&self, other: &Timed<T>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> PartialEq for Timed<T> {
    fn eq(&self, other: &Timed<T>) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl<T> Eq for Timed<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_equals_in_the_order_put() {
        let mut queue = Queue::new();
        for (at, what) in [(5, "d"), (1, "a"), (3, "b"), (3, "c")] {
            queue.put(at, what);
        }
        assert_eq!((queue.next_at(), queue.len()), (Some(1), 4));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [(1, "a"), (3, "b"), (3, "c"), (5, "d")]);
    }
}
