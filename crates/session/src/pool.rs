//! Buffers that connections borrow while they have bytes.
//!
//! An idle connection owns no buffer. It takes one with the first byte and returns it with the last. The pool
//! limits bytes, not the number of buffers, so that it does not keep a burst of large ones. It frees any
//! buffer beyond the limit. Taking a buffer never fails. If the pool is empty, it allocates a new one and
//! counts a miss.

use std::fmt;

use crate::outgoing::Outgoing;

/// Keeps empty buffers for reuse, up to a limit in bytes.
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
pub struct Pool {
    buffers: Vec<Vec<u8>>,
    /// Each queue with its cost, so that the cost is not computed twice.
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

    /// Creates a pool that keeps at most `bytes` bytes of empty buffers.
    pub fn with_limit(bytes: usize) -> Self {
        Pool { buffers: Vec::new(), queues: Vec::new(), kept: 0, limit: bytes, misses: 0 }
    }

    /// Lends an empty buffer. Its capacity is at least 1.
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

    /// Takes a buffer back and discards its contents. Frees it if it has more than 256 KiB or exceeds the
    /// limit.
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

    /// Takes a write queue back and discards its contents. Frees its buffer if that has grown beyond 64 KiB.
    #[inline(always)]
    pub fn give_outgoing(&mut self, mut queue: Box<Outgoing>) {
        queue.reset(QUEUE_MAX);
        let cost = queue_cost(&queue);
        if self.kept + cost <= self.limit {
            self.kept += cost;
            self.queues.push((queue, cost));
        }
    }

    /// Returns how many bytes the pool keeps, including headers. This never exceeds the limit.
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// Returns how often a buffer or queue was allocated because the pool had none.
    pub fn misses(&self) -> u64 {
        self.misses
    }
}

impl Default for Pool {
    fn default() -> Self {
        Pool::new()
    }
}

/// Shows numbers, and not the buffers.
impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("buffers", &self.buffers.len())
            .field("queues", &self.queues.len())
            .field("kept", &self.kept)
            .field("limit", &self.limit)
            .field("misses", &self.misses)
            .finish()
    }
}

// Count the headers, because otherwise a great number of tiny buffers would cost nothing.
fn buffer_cost(buffer: &Vec<u8>) -> usize {
    buffer.capacity() + size_of::<Vec<u8>>()
}

#[inline]
fn queue_cost(queue: &Outgoing) -> usize {
    queue.memory() + size_of::<Box<Outgoing>>()
}

/// The default limit, in bytes.
const LIMIT: usize = 8 << 20;
/// The capacity of a new buffer.
const BUFFER_NEW: usize = 1 << 10;
/// The largest buffer to keep.
const BUFFER_MAX: usize = 256 << 10;
/// The largest buffer to keep inside a queue.
const QUEUE_MAX: usize = 64 << 10;
