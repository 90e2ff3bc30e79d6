//! Buffers, lent while bytes are in them.
//!
//! An idle connection owns no buffer: it takes one with the first byte and gives it back with the last. The pool is
//! bounded by bytes and not by count, so that a burst of large buffers does not stay; what is given beyond the bound
//! is freed. Taking never fails: when the pool is empty a new buffer is made and counted as a miss.

use crate::outgoing::Outgoing;

/// Keeps empty buffers for reuse, at most so many bytes of them.
///
/// ```
/// use session::Pool;
///
/// let mut pool = Pool::new();
/// let buffer = pool.take();
/// pool.give(buffer);
/// assert!(pool.kept() > 0);
/// assert_eq!(pool.misses(), 1);
/// ```
#[derive(Debug)]
pub struct Pool {
    buffers: Vec<Vec<u8>>,
    /// With what each counts, so that it is not found out twice.
    queues: Vec<(Box<Outgoing>, usize)>,
    kept: usize,
    limit: usize,
    misses: u64,
}

impl Pool {
    /// Creates a pool that keeps at most 8 MiB.
    pub fn new() -> Self {
        Pool::with_limit(LIMIT)
    }

    /// Creates a pool that keeps at most `bytes` of empty buffers.
    pub fn with_limit(bytes: usize) -> Self {
        Pool { buffers: Vec::new(), queues: Vec::new(), kept: 0, limit: bytes, misses: 0 }
    }

    /// Lends an empty buffer; its capacity is at least 1 unless the giver's was less.
    pub fn take(&mut self) -> Vec<u8> {
        match self.buffers.pop() {
            Some(buffer) => {
                self.kept -= buffer_cost(&buffer);
                buffer
            }
            None => {
                self.misses += 1;
                Vec::with_capacity(BUFFER_NEW)
            }
        }
    }

    /// Takes a buffer back and discards what is in it. One of more than 256 KiB, or beyond the limit, is freed.
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        let cost = buffer_cost(&buffer);
        if buffer.capacity() > 0 && buffer.capacity() <= BUFFER_MAX && self.kept + cost <= self.limit {
            self.kept += cost;
            self.buffers.push(buffer);
        }
    }

    /// Lends an empty write queue.
    #[inline]
    pub fn take_outgoing(&mut self) -> Box<Outgoing> {
        match self.queues.pop() {
            Some((queue, cost)) => {
                self.kept -= cost;
                queue
            }
            None => {
                self.misses += 1;
                Box::default()
            }
        }
    }

    /// Takes a write queue back and discards what is in it. A buffer that grew over 64 KiB in it is freed.
    #[inline(always)]
    pub fn give_outgoing(&mut self, mut queue: Box<Outgoing>) {
        queue.reset(QUEUE_MAX);
        let cost = queue_cost(&queue);
        if self.kept + cost <= self.limit {
            self.kept += cost;
            self.queues.push((queue, cost));
        }
    }

    /// Returns how many bytes the pool keeps, headers included: never more than the limit.
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// Returns how often a buffer or queue had to be made because none was kept.
    pub fn misses(&self) -> u64 {
        self.misses
    }
}

impl Default for Pool {
    fn default() -> Self {
        Pool::new()
    }
}

// Headers count, or a great many tiny buffers would pass for nothing.
fn buffer_cost(buffer: &Vec<u8>) -> usize {
    buffer.capacity() + size_of::<Vec<u8>>()
}

#[inline]
fn queue_cost(queue: &Outgoing) -> usize {
    queue.memory() + size_of::<Box<Outgoing>>()
}

/// What a pool keeps unless told otherwise.
const LIMIT: usize = 8 << 20;
/// The capacity of a new buffer.
const BUFFER_NEW: usize = 1 << 10;
/// A larger buffer is not kept.
const BUFFER_MAX: usize = 256 << 10;
/// A larger buffer inside a queue is not kept.
const QUEUE_MAX: usize = 64 << 10;
