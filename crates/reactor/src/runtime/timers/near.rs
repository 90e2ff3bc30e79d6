//! The timers of the current tick: a heap that knows where each of its entries is.
//!
//! The wheel sorts only down to a tick. What has reached its tick comes here and leaves in the exact
//! order of (deadline, sequence of setting). Each entry carries its position in the heap, in the link
//! it does not need while it is here, so that taking one out of the middle is a true removal and
//! nothing stale is ever left behind. The keys are copied into the heap: comparing does not touch the
//! slab.

use super::Entry;

/// Holds what is due or about to be, earliest first.
#[derive(Debug, Default)]
pub(super) struct Near {
    heap: Vec<Item>,
}

/// Is one timer: what it is sorted by, and the place of its entry in the slab.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    pub(super) at: u64,
    pub(super) sequence: u64,
    pub(super) index: u32,
}

impl Item {
    fn key(&self) -> (u64, u64) {
        (self.at, self.sequence)
    }
}

impl Near {
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(super) fn first(&self) -> Option<Item> {
        self.heap.first().copied()
    }

    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        self.heap.capacity() * size_of::<Item>()
    }

    /// Appends a timer out of order: nothing but `append` may follow until [`Near::settle`].
    pub(super) fn append(&mut self, item: Item) {
        self.heap.push(item);
    }

    /// Puts what was appended since the heap had `settled` timers into its order.
    pub(super) fn settle<T>(&mut self, entries: &mut [Entry<T>], settled: usize) {
        if settled > 0 {
            for position in settled..self.heap.len() {
                self.up(entries, position);
            }
            return;
        }
        // A sorted array is a heap, and one sort is cheaper than as many insertions.
        self.heap.sort_unstable_by_key(Item::key);
        for (position, item) in self.heap.iter().enumerate() {
            entries[item.index as usize].prev = position as u32;
        }
    }

    /// Takes out the timer at `position`.
    pub(super) fn remove<T>(&mut self, entries: &mut [Entry<T>], position: usize) {
        self.heap.swap_remove(position);
        if position < self.heap.len() {
            let position = self.up(entries, position);
            self.down(entries, position);
        } else if self.heap.is_empty() {
            // One crowded tick does not hold its memory for ever.
            self.heap.shrink_to(KEPT);
        }
    }

    fn place<T>(&mut self, entries: &mut [Entry<T>], position: usize, item: Item) {
        self.heap[position] = item;
        entries[item.index as usize].prev = position as u32;
    }

    fn up<T>(&mut self, entries: &mut [Entry<T>], mut position: usize) -> usize {
        let item = self.heap[position];
        while position > 0 {
            let parent = (position - 1) / ARITY;
            let above = self.heap[parent];
            if above.key() <= item.key() {
                break;
            }
            self.place(entries, position, above);
            position = parent;
        }
        self.place(entries, position, item);
        position
    }

    fn down<T>(&mut self, entries: &mut [Entry<T>], mut position: usize) {
        let item = self.heap[position];
        loop {
            let children = (position * ARITY + 1)..(position * ARITY + 1 + ARITY).min(self.heap.len());
            let Some(child) = children.min_by_key(|&child| self.heap[child].key()) else { break };
            let below = self.heap[child];
            if below.key() >= item.key() {
                break;
            }
            self.place(entries, position, below);
            position = child;
        }
        self.place(entries, position, item);
    }
}

/// How many children a node has: four share a cache line or two, and halve the depth.
const ARITY: usize = 4;

/// How many timers the heap keeps room for when it is empty.
const KEPT: usize = 1024;
