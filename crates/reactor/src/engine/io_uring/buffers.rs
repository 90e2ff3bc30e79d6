//! Buffers that all streams share. The kernel takes one when it has input for it, and gets it back when the
//! chunk is dropped.
//!
//! The memory is mapped once, is not inherited by a fork, and lives as long as the engine or any chunk of it.
//! Not all buffers circulate: the kernel takes the buffer that was given back first, so all that circulate
//! pass through the caches. A few circulate at first. Each time a stream finds none because others hold them
//! all, the number doubles.
//!
//! If the kernel supports it (Linux 6.12), it uses a buffer up piece by piece. It puts the next input behind
//! the previous, for any stream. The buffer goes back to the ring when it is full and all its pieces are
//! back. In this mode several buffers are joined into one, so that small input lies close together, and large
//! input comes in large chunks. The kernel does not report where a piece begins. It does report all pieces in
//! the order in which it cut them, as long as it works for this ring in only one thread. So the engine does
//! not use pieces where the kernel may do otherwise.
#![allow(unsafe_code)]

use std::{
    cell::Cell,
    io, ptr,
    rc::Rc,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::types::BufRingEntry;

use super::{
    late::AT_ONCE,
    options::{IoUringOptions, Operations},
    ring::Ring,
};
use crate::sys::Birthplace;

/// The shared buffers, and the ring that hands them to the kernel.
pub(super) struct SharedBuffers {
    ring: Mapping,
    memory: Mapping,
    /// The process that made the mappings. No other process has them.
    birthplace: Birthplace,
    buffers: u16,
    buffer_bytes: usize,
    /// The number of buffers that circulate: that are in the ring or lent.
    circulating: Cell<u16>,
    /// The initial number of these, and the number of streams that one buffer can serve.
    circulating_min: u16,
    pieces: u16,
    /// The position for the next buffer. [`SharedBuffers::publish`] shows it to the kernel.
    tail: Cell<u16>,
    /// The use of each buffer.
    uses: Box<[Cell<Use>]>,
    /// The number of buffers that are full and lent.
    away: Cell<u16>,
    /// The number of chunks that are lent.
    lent: Cell<usize>,
}

/// How one buffer is used.
#[derive(Clone, Copy, Default)]
struct Use {
    /// The number of bytes used up.
    filled: u32,
    /// The number of lent chunks in it.
    chunks: u32,
    /// The kernel puts nothing more into it.
    is_full: bool,
}

impl SharedBuffers {
    /// Maps the buffers and registers their ring. Turns off each operation for which the kernel refuses it.
    ///
    /// # Errors
    /// As mmap(2).
    pub(super) fn open(
        ring: &Ring,
        of: &IoUringOptions,
        operations: &mut Operations,
    ) -> io::Result<Rc<SharedBuffers>> {
        let buffers = of.buffers.clamp(1, BUFFERS_MAX).next_power_of_two();
        let buffer_bytes = of.buffer_bytes.clamp(1, BUFFER_BYTES_MAX);
        operations.pieces &= operations.receive;
        if operations.pieces {
            // Joined buffers hold no more than a stream may hand over at once.
            let within = u16::try_from(AT_ONCE / buffer_bytes).unwrap_or(PIECES_MAX).clamp(1, PIECES_MAX);
            let pieces = (buffers / JOINED_MIN).clamp(1, within);
            let pool = SharedBuffers::new(buffers / pieces, buffer_bytes * usize::from(pieces), pieces)?;
            if ring.register_buffers(&pool, true).is_ok() {
                return Ok(pool);
            }
            operations.pieces = false;
        }
        let pool = SharedBuffers::new(buffers, buffer_bytes, 1)?;
        operations.receive &= ring.register_buffers(&pool, false).is_ok();
        Ok(pool)
    }

    /// Maps this many buffers, a power of two and at most 32,768, each for this many pieces.
    ///
    /// # Errors
    /// As mmap(2).
    pub(super) fn new(buffers: u16, buffer_bytes: usize, pieces: u16) -> io::Result<Rc<SharedBuffers>> {
        let too_large = || io::Error::from(io::ErrorKind::InvalidInput);
        let memory_bytes = usize::from(buffers).checked_mul(buffer_bytes).ok_or_else(too_large)?;
        let pool = SharedBuffers {
            ring: Mapping::new(usize::from(buffers) * size_of::<BufRingEntry>())?,
            memory: Mapping::new(memory_bytes)?,
            birthplace: Birthplace::here(),
            buffers,
            buffer_bytes,
            circulating: Cell::new(0),
            circulating_min: (CIRCULATING_MIN / pieces).max(2),
            pieces,
            tail: Cell::new(0),
            uses: vec![Cell::default(); usize::from(buffers)].into(),
            away: Cell::new(0),
            lent: Cell::new(0),
        };
        pool.circulate(pool.circulating_min);
        pool.publish();
        Ok(Rc::new(pool))
    }

    /// Returns the address of the ring, for its registration.
    pub(super) fn address(&self) -> u64 {
        self.ring.start as u64
    }

    /// Returns the number of buffers.
    pub(super) fn buffers(&self) -> u16 {
        self.buffers
    }

    /// Returns the number of mapped bytes. Memory that never circulated takes no real memory yet.
    pub(super) fn memory(&self) -> usize {
        mapped(self.buffers, self.buffer_bytes)
    }

    /// Returns the number of bytes in all buffers.
    pub(super) fn bytes(&self) -> usize {
        usize::from(self.buffers) * self.buffer_bytes
    }

    /// Returns the number of streams for which there is a buffer, or a piece of one.
    pub(super) fn free(&self) -> usize {
        usize::from(self.circulating.get() - self.away.get()) * usize::from(self.pieces)
    }

    /// Returns the number of lent chunks.
    pub(super) fn lent(&self) -> usize {
        self.lent.get()
    }

    /// Doubles the number of circulating buffers, as far as there are more.
    pub(super) fn grow(&self) {
        self.circulate(self.circulating.get());
    }

    /// Adds up to `count` unused buffers.
    fn circulate(&self, count: u16) {
        let from = self.circulating.get();
        let to = from.saturating_add(count).min(self.buffers);
        for buffer in from..to {
            self.put(buffer);
        }
        self.circulating.set(to);
    }

    /// Shows the kernel all buffers that were put since the last call.
    pub(super) fn publish(&self) {
        // SAFETY: the mapping begins with an entry, zeroed or written by `put`.
        let tail = unsafe { BufRingEntry::tail(self.ring.start.cast::<BufRingEntry>()) };
        // SAFETY: the field is aligned, lives as long as the mapping, and only the kernel reads it.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail.get(), Ordering::Release);
    }

    fn put(&self, buffer: u16) {
        let tail = self.tail.get();
        let at = usize::from(tail & (self.buffers - 1));
        // SAFETY: `at` is below the number of entries that were mapped.
        let entry = unsafe { self.ring.start.cast::<BufRingEntry>().add(at) };
        // SAFETY: the kernel reads only entries before the published tail, and this one lies behind it. At
        // most as many buffers circulate as there are entries, so the tail does not lap.
        let entry = unsafe { &mut *entry };
        entry.set_addr(self.start_of(buffer) as u64);
        // A buffer is no longer than its mapping was allowed to be.
        entry.set_len(self.buffer_bytes as u32);
        entry.set_bid(buffer);
        self.tail.set(tail.wrapping_add(1));
    }

    fn start_of(&self, buffer: u16) -> *mut u8 {
        // SAFETY: a buffer's number is below the number of mapped buffers.
        unsafe { self.memory.start.add(usize::from(buffer) * self.buffer_bytes) }
    }

    /// Lends the next `len` bytes of a buffer, which the kernel filled. `goes_on`: the kernel will put more
    /// into it.
    #[inline]
    pub(super) fn lend(self: &Rc<SharedBuffers>, buffer: u16, len: usize, goes_on: bool) -> Provided {
        let of = &self.uses[usize::from(buffer)];
        let Use { filled, chunks, is_full } = of.get();
        let left = self.buffer_bytes - filled as usize;
        debug_assert!(!is_full && len <= left, "as the kernel was told");
        let len = len.min(left) as u32;
        of.set(Use { filled: filled + len, chunks: chunks + 1, is_full: !goes_on });
        self.away.set(self.away.get() + u16::from(!goes_on));
        self.lent.set(self.lent.get() + 1);
        Provided { pool: Rc::clone(self), buffer, from: filled, len }
    }

    /// Takes a chunk back. If it was the last of a full buffer, puts the buffer into the ring again.
    #[inline]
    fn take_back(&self, buffer: u16) {
        if !self.birthplace.is_here() {
            return;
        }
        let of = &self.uses[usize::from(buffer)];
        let used = of.get();
        let chunks = used.chunks - 1;
        self.lent.set(self.lent.get() - 1);
        if chunks > 0 || !used.is_full {
            return of.set(Use { chunks, ..used });
        }
        of.set(Use::default());
        self.away.set(self.away.get() - 1);
        self.put(buffer);
    }
}

/// A shared buffer with input, or a piece of one. It goes back on drop.
pub(in crate::engine) struct Provided {
    pool: Rc<SharedBuffers>,
    buffer: u16,
    from: u32,
    len: u32,
}

impl Provided {
    #[inline]
    pub(in crate::engine) fn bytes(&mut self) -> &mut [u8] {
        let start = self.pool.start_of(self.buffer);
        // SAFETY: the piece lies within its buffer: see `lend`.
        let start = unsafe { start.add(self.from as usize) };
        // SAFETY: the buffer lies within the mapping, which the pool keeps. The kernel gave the piece up with
        // its completion, and nobody else has it until the buffer is put back after its drop.
        unsafe { std::slice::from_raw_parts_mut(start, self.len as usize) }
    }
}

impl Drop for Provided {
    #[inline]
    fn drop(&mut self) {
        self.pool.take_back(self.buffer);
    }
}

impl std::fmt::Debug for Provided {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Provided({} bytes in buffer {})", self.len, self.buffer)
    }
}

/// Private memory with pages of its own.
struct Mapping {
    start: *mut u8,
    bytes: usize,
}

impl Mapping {
    fn new(bytes: usize) -> io::Result<Mapping> {
        // SAFETY: a new anonymous mapping concerns no memory that exists.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapping = Mapping { start: start.cast(), bytes };
        // A child that wrote to pages which the kernel fills would have the parent read stale copies.
        // SAFETY: the range is the mapping just made.
        if unsafe { libc::madvise(start, bytes, libc::MADV_DONTFORK) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(mapping)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping, and nothing refers to it any more.
        unsafe { libc::munmap(self.start.cast(), self.bytes) };
    }
}

/// Returns the number of bytes mapped for these buffers and their ring.
pub(super) fn mapped(buffers: u16, buffer_bytes: usize) -> usize {
    let buffers = usize::from(buffers);
    whole_pages(buffers * size_of::<BufRingEntry>()) + whole_pages(buffers * buffer_bytes)
}

/// Rounds up to whole pages, as a mapping does.
pub(super) fn whole_pages(bytes: usize) -> usize {
    // SAFETY: the call concerns no memory.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    bytes.next_multiple_of(usize::try_from(page).unwrap_or(PAGE_BYTES).max(1))
}

/// The size of a page if the system does not report it.
const PAGE_BYTES: usize = 4096;
/// The most shared buffers that a kernel takes.
const BUFFERS_MAX: u16 = 1 << 15;
/// The most bytes of one buffer, before several are joined.
const BUFFER_BYTES_MAX: usize = 1 << 24;
/// The most buffers that are joined for use piece by piece.
const PIECES_MAX: u16 = 16;
/// The fewest joined buffers, so that others are free while one is lent.
const JOINED_MIN: u16 = 4;
/// The number of buffers that circulate at first.
const CIRCULATING_MIN: u16 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_free_again_even_after_the_engine() {
        let pool = SharedBuffers::new(4, 64, 1).expect("memory");
        assert_eq!((pool.free(), pool.lent()), (4, 0));
        let mut one = pool.lend(3, 64, false);
        let two = pool.lend(0, 5, false);
        assert_eq!((pool.free(), pool.lent()), (2, 2));
        one.bytes().fill(7);
        drop(two);
        assert_eq!((pool.free(), pool.lent(), pool.tail.get()), (3, 1, 5));
        drop(pool);
        assert_eq!(one.bytes(), [7; 64], "the memory lives as long as the buffer");
    }

    #[test]
    fn a_buffer_used_piece_by_piece_goes_back_after_the_last_of_them() {
        let pool = SharedBuffers::new(2, 64, 16).expect("memory");
        assert_eq!((pool.free(), pool.tail.get()), (32, 2));
        let mut first = pool.lend(0, 10, true);
        let mut second = pool.lend(0, 50, true);
        first.bytes().fill(1);
        second.bytes().fill(2);
        assert_eq!((first.bytes().len(), second.bytes().len()), (10, 50));
        drop(first);
        assert_eq!((pool.free(), pool.lent(), pool.tail.get()), (32, 1, 2), "there is room for 4 bytes");
        let third = pool.lend(0, 4, false);
        assert_eq!((pool.free(), pool.lent()), (16, 2), "it is full");
        drop(third);
        assert_eq!((pool.free(), pool.tail.get()), (16, 2), "one of its chunks is out");
        assert_eq!(second.bytes(), [2; 50], "and nobody wrote over it");
        drop(second);
        assert_eq!((pool.free(), pool.lent(), pool.tail.get()), (32, 0, 3));
        drop(pool.lend(0, 64, false));
        assert_eq!((pool.free(), pool.tail.get()), (32, 4), "from its beginning again");
    }

    #[test]
    fn more_buffers_circulate_when_they_run_out_and_never_more_than_there_are() {
        for (buffers, pieces, expected) in
            [(16, 1, [16, 16, 16]), (32, 1, [32, 32, 32]), (128, 1, [32, 64, 128]), (64, 16, [2, 4, 8])]
        {
            let pool = SharedBuffers::new(buffers, 16, pieces).expect("memory");
            let mut seen = vec![pool.circulating.get()];
            for _ in 0..2 {
                pool.grow();
                seen.push(pool.circulating.get());
            }
            assert_eq!(seen, expected, "of {buffers}");
            (0..10).for_each(|_| pool.grow());
            assert_eq!(pool.free(), usize::from(buffers * pieces));
        }
    }
}
