//! The write queue: bytes in the order in which they are sent.
//!
//! It is a rope. Small items are copied together, so that a thousand answers are one write. Large and shared
//! ones are queued as they are. In the common case, a small item is put into an empty queue and written
//! whole. That uses one buffer, which stays, and allocates nothing. The queue has no limit of its own, so
//! callers check [`Outgoing::len`].

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};

use crate::shared::Shared;

/// The bytes to write, in order.
///
/// ```
/// use session::Outgoing;
///
/// let mut out = Outgoing::new();
/// out.put(b"hello ");
/// out.put(b"world");
/// out.advance(6);
/// assert_eq!(out.front(), b"world");
/// ```
#[derive(Default)]
pub struct Outgoing {
    /// The first bytes. While `parts` is empty, small items are appended here.
    front: Vec<u8>,
    /// How many bytes of `front` have been sent.
    at: usize,
    /// The bytes after `front`. No part is ever empty.
    parts: VecDeque<Segment>,
    /// The memory of `parts`: their bytes, and the table itself.
    beside: usize,
    /// The memory in use at the last count.
    counted: usize,
    /// All bytes ever put, minus those rolled back.
    appended: u64,
    /// All bytes that have been sent.
    gone: u64,
}

/// A position in a queue to which [`Outgoing::rollback`] can return.
#[derive(Debug, Clone, Copy)]
pub struct Mark(u64);

impl Outgoing {
    /// Creates an empty queue that owns no memory.
    pub fn new() -> Self {
        Outgoing::default()
    }

    /// Returns how many bytes wait, including shared ones.
    #[inline]
    pub fn len(&self) -> usize {
        // The difference is held in memory, so it fits a usize.
        (self.appended - self.gone) as usize
    }

    /// Returns whether no bytes wait.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.appended == self.gone
    }

    /// Queues a copy of the bytes. More than 64 KiB go into a part of exactly their size.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        if bytes.len() > CHUNK {
            self.push(SegmentBytes::Own(bytes.to_vec()), 0);
        } else if !bytes.is_empty() {
            self.tail(bytes.len()).extend_from_slice(bytes);
        }
        self.appended += bytes.len() as u64;
    }

    /// Returns how many bytes were queued since this queue made the mark.
    pub fn since(&self, mark: Mark) -> usize {
        self.appended.saturating_sub(mark.0) as usize
    }

    /// Queues the bytes without a copy. Fewer than 512 bytes are copied, because that is cheaper.
    pub fn share(&mut self, bytes: Shared) {
        if bytes.len() < SHARED_MIN {
            return self.put(&bytes);
        }
        self.appended += bytes.len() as u64;
        self.push(SegmentBytes::Shared(bytes), 0);
    }

    /// Queues the bytes together with their memory, which then belongs to the queue. Fewer than 512 bytes are
    /// copied. If the memory is larger than five quarters of the bytes, the excess goes back to the
    /// allocator.
    ///
    /// ```
    /// let mut out = session::Outgoing::new();
    /// out.put(b"head ");
    /// out.give(vec![7; 4096]);
    /// assert_eq!((out.len(), out.front()), (4101, &b"head "[..]));
    /// ```
    pub fn give(&mut self, mut bytes: Vec<u8>) {
        if bytes.len() < SHARED_MIN {
            return self.put(&bytes);
        }
        if bytes.capacity() - bytes.len() > bytes.len() / 4 {
            bytes.shrink_to_fit();
        }
        self.appended += bytes.len() as u64;
        self.push(SegmentBytes::Own(bytes), 0);
    }

    /// Appends bytes that `write` puts into a zeroed slice of `room` bytes. It returns how many of them
    /// count.
    ///
    /// A cipher can seal straight into the queue this way. A return value above `room` counts as `room`.
    ///
    /// # Errors
    /// The error of `write`. Nothing is appended then.
    pub fn grow<E>(
        &mut self,
        room: usize,
        write: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        if room == 0 {
            return write(&mut []).map(|_| 0);
        }
        let mark = self.mark();
        let result = grow(self.tail(room), room, write);
        self.appended += *result.as_ref().unwrap_or(&0) as u64;
        if self.appended == mark.0 {
            // `tail` may have opened a part, but `write` gave no bytes for it.
            if self.parts.back().is_some_and(|part| part.rest().is_empty())
                && let Some(part) = self.parts.pop_back()
            {
                self.beside -= part.bytes.held();
            }
        }
        result
    }

    /// Moves all waiting bytes of `other` to the end of this queue. Large parts are not copied.
    pub fn append(&mut self, other: &mut Outgoing) {
        if self.is_empty() {
            self.clear();
            std::mem::swap(&mut self.front, &mut other.front);
            std::mem::swap(&mut self.at, &mut other.at);
            std::mem::swap(&mut self.parts, &mut other.parts);
            std::mem::swap(&mut self.beside, &mut other.beside);
        } else {
            if other.front.len() - other.at > COPY_MAX {
                let front = std::mem::take(&mut other.front);
                self.push(SegmentBytes::Own(front), other.at);
            } else if other.front.len() > other.at {
                let rest = &other.front[other.at..];
                self.tail(rest.len()).extend_from_slice(rest);
            }
            for part in other.parts.drain(..) {
                let rest = part.rest();
                let large = match part.bytes {
                    SegmentBytes::Own(_) => rest.len() > COPY_MAX,
                    SegmentBytes::Shared(_) => rest.len() >= SHARED_MIN,
                };
                if large {
                    self.push(part.bytes, part.at);
                } else {
                    self.tail(rest.len()).extend_from_slice(rest);
                }
            }
            other.beside = other.table();
        }
        self.appended += other.appended - other.gone;
        other.clear();
    }

    /// Returns the first contiguous bytes. They are empty only if the queue is.
    #[inline]
    pub fn front(&self) -> &[u8] {
        if self.front.len() > self.at {
            return &self.front[self.at..];
        }
        self.parts.front().map_or(&[], Segment::rest)
    }

    /// Fills `into` with the first bytes, for one vectored write, and returns how many slices it has set.
    pub fn slices<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let front = &self.front[self.at..];
        let first = (!front.is_empty()).then_some(front);
        let mut set = 0;
        for (slot, bytes) in
            into.iter_mut().zip(first.into_iter().chain(self.parts.iter().map(Segment::rest)))
        {
            *slot = IoSlice::new(bytes);
            set += 1;
        }
        set
    }

    /// Removes the first `count` bytes, because they were written.
    ///
    /// # Panics
    /// If `count` is more than [`Outgoing::len`], because no more bytes can have been written.
    #[inline]
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.len(), "advance by {count} bytes in a queue of {}", self.len());
        self.gone += count as u64;
        let in_front = self.front.len() - self.at;
        if count < in_front {
            self.at += count;
            return;
        }
        self.front.clear();
        self.at = 0;
        if count > in_front {
            self.advance_parts(count - in_front);
        }
    }

    /// Returns the current end of the queue, so that a failed encode can be undone.
    #[inline]
    pub fn mark(&self) -> Mark {
        Mark(self.appended)
    }

    /// Removes the bytes that were queued since this queue made the mark, except those that have been sent
    /// since.
    ///
    /// With the mark of another queue, it removes an unspecified number of bytes.
    pub fn rollback(&mut self, mark: Mark) {
        let mut excess = self.appended.saturating_sub(mark.0).min(self.len() as u64) as usize;
        while excess > 0 {
            let Some(part) = self.parts.back_mut() else {
                self.front.truncate(self.front.len() - excess);
                self.appended -= excess as u64;
                if self.is_empty() {
                    // The sent bytes in `front` no longer precede anything.
                    self.clear();
                }
                break;
            };
            let rest = part.rest().len();
            match &mut part.bytes {
                SegmentBytes::Own(bytes) if rest > excess => {
                    bytes.truncate(bytes.len() - excess);
                    self.appended -= excess as u64;
                    break;
                }
                // A mark never falls inside shared bytes, because one call queued them all.
                held @ (SegmentBytes::Own(_) | SegmentBytes::Shared(_)) => {
                    self.beside -= held.held();
                    self.parts.pop_back();
                    self.appended -= rest as u64;
                    excess = excess.saturating_sub(rest);
                }
            }
        }
    }

    /// Removes all bytes and keeps one buffer.
    #[inline]
    pub fn clear(&mut self) {
        self.gone = self.appended;
        self.front.clear();
        self.at = 0;
        if !self.parts.is_empty() {
            self.parts.clear();
            self.beside = self.table();
        }
    }

    /// Returns the bytes of heap memory that the queue keeps alive, used or not.
    ///
    /// Shared bytes count in full in each queue that holds them, because the last holder keeps them alive
    /// alone. For a [slice](Shared::slice), only the slice counts.
    #[inline(always)]
    pub fn capacity(&self) -> usize {
        self.front.capacity() + self.beside
    }

    /// Returns how much the queue in its box has grown since the last count, and counts it.
    ///
    /// A negative difference wraps around, so add it to a sum with a wrapping addition.
    #[inline(always)]
    pub fn count(&mut self) -> usize {
        let memory = self.memory();
        memory.wrapping_sub(std::mem::replace(&mut self.counted, memory))
    }

    /// Returns [`Outgoing::capacity`] plus the size of the queue itself, because a lent queue is on the heap.
    #[inline(always)]
    pub fn memory(&self) -> usize {
        self.capacity() + size_of::<Outgoing>()
    }

    /// Returns a copy of all waiting bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len());
        all.extend_from_slice(&self.front[self.at..]);
        self.parts.iter().for_each(|part| all.extend_from_slice(part.rest()));
        all
    }

    /// Returns memory to the allocator that the queue hardly uses. A buffer that is less than a quarter full
    /// shrinks to `keep` bytes.
    pub(crate) fn trim(&mut self, keep: usize) {
        if self.front.len() < self.front.capacity() / 4 {
            self.front.shrink_to(keep);
        }
        if self.parts.len() < self.parts.capacity() / 4 {
            let table = self.table();
            self.parts.shrink_to(TABLE_KEPT);
            self.beside -= table - self.table();
        }
    }

    /// Empties the queue, and frees memory that has grown beyond `keep` bytes.
    #[inline(always)]
    pub(crate) fn reset(&mut self, keep: usize) {
        self.clear();
        self.counted = 0;
        if self.front.capacity() > keep || self.parts.capacity() > TABLE_KEPT {
            self.shrink(keep);
        }
    }

    #[cold]
    fn shrink(&mut self, keep: usize) {
        if self.front.capacity() > keep {
            self.front = Vec::new();
        }
        self.parts.shrink_to(TABLE_KEPT);
        self.beside = self.table();
    }

    /// Returns the memory of the table of parts.
    fn table(&self) -> usize {
        self.parts.capacity() * size_of::<Segment>()
    }

    /// Returns the buffer to which `room` more bytes may be appended.
    #[inline]
    fn tail(&mut self, room: usize) -> &mut Vec<u8> {
        if self.parts.is_empty() && (self.front.is_empty() || self.front.len() + room <= CHUNK) {
            return &mut self.front;
        }
        self.tail_part(room)
    }

    fn tail_part(&mut self, room: usize) -> &mut Vec<u8> {
        let (joins, least) = match self.parts.back().map(|part| &part.bytes) {
            Some(SegmentBytes::Own(bytes)) if bytes.len() + room <= CHUNK => (true, 0),
            // After small items, more of them are likely to follow. After shared bytes, the item may be tiny.
            Some(SegmentBytes::Own(_)) | None => (false, PART_MIN),
            Some(SegmentBytes::Shared(_)) => (false, SEPARATOR_MIN),
        };
        if !joins {
            // An empty front gives its buffer away, so that a queue that never runs empty need not allocate.
            let bytes = if self.front.is_empty() { std::mem::take(&mut self.front) } else { Vec::new() };
            self.push(SegmentBytes::Own(bytes), 0);
        }
        let Some(SegmentBytes::Own(bytes)) = self.parts.back_mut().map(|part| &mut part.bytes) else {
            unreachable!("the last part was checked or pushed above")
        };
        let had = bytes.capacity();
        if had - bytes.len() < room {
            let wanted = (2 * had).min(CHUNK).max(bytes.len() + room).max(least);
            bytes.reserve_exact(wanted - bytes.len());
            self.beside += bytes.capacity() - had;
        }
        bytes
    }

    fn push(&mut self, bytes: SegmentBytes, at: usize) {
        let table = self.table();
        self.beside += bytes.held();
        self.parts.push_back(Segment { bytes, at });
        self.beside += self.table() - table;
    }

    fn advance_parts(&mut self, mut count: usize) {
        while count > 0 {
            let head = self.parts.front_mut().expect("the length counts what the parts hold");
            let rest = head.rest().len();
            if count < rest {
                head.at += count;
                return;
            }
            count -= rest;
            let Some(part) = self.parts.pop_front() else { return };
            self.beside -= part.bytes.held();
            if let SegmentBytes::Own(mut bytes) = part.bytes
                && self.front.capacity() == 0
                && bytes.capacity() <= CHUNK
            {
                bytes.clear();
                self.front = bytes;
            }
        }
    }
}

/// Queues the written bytes and never fails. For encoders and libraries that need a writer.
impl io::Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Appends bytes that `write` puts into a zeroed slice of `room` bytes to `bytes`. It returns how many of
/// them count.
///
/// A return value above `room` counts as `room`.
///
/// # Errors
/// The error of `write`. Nothing is appended then.
pub fn grow<E>(
    bytes: &mut Vec<u8>,
    room: usize,
    write: impl FnOnce(&mut [u8]) -> Result<usize, E>,
) -> Result<usize, E> {
    let had = bytes.len();
    bytes.resize(had + room, 0);
    let mut grown = Grown { bytes, len: had };
    let result = write(&mut grown.bytes[had..]).map(|written| written.min(room));
    grown.len += *result.as_ref().unwrap_or(&0);
    result
}

/// Bytes that end at this length, whatever was to be written behind it: also when that panics.
struct Grown<'a> {
    bytes: &'a mut Vec<u8>,
    len: usize,
}

impl Drop for Grown<'_> {
    fn drop(&mut self) {
        self.bytes.truncate(self.len);
    }
}

/// Shows lengths, and not the bytes.
impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("len", &self.len())
            .field("parts", &self.parts.len())
            .field("sent", &self.gone)
            .finish_non_exhaustive()
    }
}

/// Contiguous bytes, and how many of them have been sent.
struct Segment {
    bytes: SegmentBytes,
    at: usize,
}

enum SegmentBytes {
    Own(Vec<u8>),
    Shared(Shared),
}

impl SegmentBytes {
    /// Returns the memory that this keeps alive.
    fn held(&self) -> usize {
        match self {
            SegmentBytes::Own(bytes) => bytes.capacity(),
            SegmentBytes::Shared(bytes) => bytes.len() + Shared::HEADER,
        }
    }
}

impl Segment {
    fn rest(&self) -> &[u8] {
        match &self.bytes {
            SegmentBytes::Own(bytes) => &bytes[self.at..],
            SegmentBytes::Shared(bytes) => &bytes[self.at..],
        }
    }
}

/// The size limit of a buffer into which small items are copied together.
const CHUNK: usize = 64 << 10;
/// Shared bytes shorter than this are copied.
const SHARED_MIN: usize = 512;
/// Own parts up to this size are copied when queues are joined.
const COPY_MAX: usize = 4 << 10;
/// The least that a new part reserves after a part that is full of small items.
const PART_MIN: usize = 4 << 10;
/// The least that a new part reserves after shared bytes.
const SEPARATOR_MIN: usize = 64;
/// The size of the table of parts that an emptied queue keeps.
const TABLE_KEPT: usize = 16;
