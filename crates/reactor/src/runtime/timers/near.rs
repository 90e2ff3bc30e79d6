//! The timers of the current tick: a heap that knows the position of each entry.
//!
//! The wheel sorts only down to a tick. Timers that reach their tick move here, and leave in the exact order
//! of (deadline, sequence of setting). Each entry stores its position in the heap, in a link that it does not
//! need while it is here. So an entry can really be removed from the middle, and nothing stale stays behind.
//! The heap holds copies of the keys, so that comparing does not touch the slab.

use super::Timer;

/// The timers that are due or nearly due, earliest first.
#[derive(Debug, Default)]
pub(super) struct Near {
    heap: Vec<NearTimer>,
}

/// One timer: its sort key, and its entry's index in the slab.
#[derive(Debug, Clone, Copy)]
pub(super) struct NearTimer {
    pub(super) at: u64,
    pub(super) sequence: u64,
    pub(super) index: u32,
}

impl NearTimer {
    fn key(&self) -> (u64, u64) {
        (self.at, self.sequence)
    }
}

impl Near {
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(super) fn first(&self) -> Option<NearTimer> {
        self.heap.first().copied()
    }

    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        self.heap.capacity() * size_of::<NearTimer>()
    }

    /// Appends a timer out of order. Only `append` may be called until [`Near::settle`].
    pub(super) fn append(&mut self, item: NearTimer) {
        self.heap.push(item);
    }

    /// Restores the order after appends to a heap of `settled` timers.
    pub(super) fn settle<T>(&mut self, entries: &mut [Timer<T>], settled: usize) {
        if settled > 0 {
            for position in settled..self.heap.len() {
                self.up(entries, position);
            }
            return;
        }
        // A sorted array is a heap, and one sort is cheaper than as many insertions.
        self.heap.sort_unstable_by_key(NearTimer::key);
        for (position, item) in self.heap.iter().enumerate() {
            entries[item.index as usize].prev = position as u32;
        }
    }

    /// Removes the timer at `position`.
    pub(super) fn remove<T>(&mut self, entries: &mut [Timer<T>], position: usize) {
        self.heap.swap_remove(position);
        if position < self.heap.len() {
            let position = self.up(entries, position);
            self.down(entries, position);
        } else if self.heap.is_empty() {
            // Do not keep the memory of one crowded tick for ever.
            self.heap.shrink_to(KEPT);
        }
    }

    /// Returns a description of a timer that is before an earlier one, or that does not know its position.
    pub(super) fn check<T>(&self, entries: &[Timer<T>]) -> Result<(), String> {
        for (position, item) in self.heap.iter().enumerate() {
            let parent = &self.heap[position.saturating_sub(1) / ARITY];
            if parent.key() > item.key() {
                return Err(format!(
                    "the timer at place {position} of the heap is earlier than the one above it"
                ));
            }
            let entry = entries.get(item.index as usize);
            if entry.is_none_or(|entry| (entry.at, entry.prev) != (item.at, position as u32)) {
                return Err(format!("the timer at place {position} of the heap does not know it"));
            }
        }
        Ok(())
    }

    fn place<T>(&mut self, entries: &mut [Timer<T>], position: usize, item: NearTimer) {
        self.heap[position] = item;
        entries[item.index as usize].prev = position as u32;
    }

    fn up<T>(&mut self, entries: &mut [Timer<T>], mut position: usize) -> usize {
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

    fn down<T>(&mut self, entries: &mut [Timer<T>], mut position: usize) {
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

/// How many children a node has. Four children share one or two cache lines, and halve the depth.
const ARITY: usize = 4;

/// How many timers an empty heap keeps room for.
const KEPT: usize = 1024;
