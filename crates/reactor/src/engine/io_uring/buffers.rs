//! Buffers that all streams share: the kernel takes one when there is input for it, and gets it back when the
//! chunk goes.
//!
//! The memory is mapped once, is not inherited by a fork, and lives as long as the engine or a chunk of it.
//! Not all buffers circulate: the kernel takes the one that was given back first, so as many as there are
//! pass through the caches. A few circulate at the beginning, and twice as many each time a stream found none
//! because others had them all.
//!
//! Where the kernel knows how (Linux 6.12), a buffer is used up piece by piece: what comes next is put behind what
//! came before, for whomever it is, and the buffer goes back to the ring when it is full and all its pieces are.
//! Then several are made one: small input lies close together, and large input comes in large chunks. The kernel
//! does not say where a piece begins; it does tell of all pieces in the order in which it cut them, for as long as
//! it works for this ring in one thread only. So pieces are left out where it may do otherwise.
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

/// The shared buffers, and the ring by which the kernel is given them.
pub(super) struct Pool {
    ring: Mapping,
    memory: Mapping,
    /// No other process has these mappings.
    birthplace: Birthplace,
    buffers: u16,
    buffer_bytes: usize,
    /// How many of the buffers circulate: are in the ring or lent.
    circulating: Cell<u16>,
    /// How many of them at first, and each stands for how many streams' input.
    circulating_min: u16,
    pieces: u16,
    /// Where the next one goes; the kernel learns of it by [`Pool::publish`].
    tail: Cell<u16>,
    /// What is lent of each.
    uses: Box<[Cell<Use>]>,
    /// How many are full, and lent.
    away: Cell<u16>,
    /// How many chunks are lent.
    lent: Cell<usize>,
}

/// How one buffer is used.
#[derive(Clone, Copy, Default)]
struct Use {
    /// How much of it is used up.
    filled: u32,
    /// How many chunks are in it.
    chunks: u32,
    /// Nothing more will be put into it.
    is_full: bool,
}

impl Pool {
    /// Maps the buffers and shows the ring to the kernel; what that does not take is among the operations no more.
    ///
    /// # Errors
    /// As mmap(2).
    pub(super) fn open(
        ring: &Ring,
        of: &IoUringOptions,
        operations: &mut Operations,
    ) -> io::Result<Rc<Pool>> {
        let buffers = of.buffers.clamp(1, BUFFERS_MAX).next_power_of_two();
        let buffer_bytes = of.buffer_bytes.clamp(1, BUFFER_BYTES_MAX);
        operations.pieces &= operations.receive;
        if operations.pieces {
            // Joined, they hold no more than a stream may hand over at once.
            let within = u16::try_from(AT_ONCE / buffer_bytes).unwrap_or(PIECES_MAX).clamp(1, PIECES_MAX);
            let pieces = (buffers / JOINED_MIN).clamp(1, within);
            let pool = Pool::new(buffers / pieces, buffer_bytes * usize::from(pieces), pieces)?;
            if ring.register_buffers(&pool, true).is_ok() {
                return Ok(pool);
            }
            operations.pieces = false;
        }
        let pool = Pool::new(buffers, buffer_bytes, 1)?;
        operations.receive &= ring.register_buffers(&pool, false).is_ok();
        Ok(pool)
    }

    /// Maps as many buffers, a power of two and at most 32,768, each for so many pieces.
    ///
    /// # Errors
    /// As mmap(2).
    pub(super) fn new(buffers: u16, buffer_bytes: usize, pieces: u16) -> io::Result<Rc<Pool>> {
        let too_large = || io::Error::from(io::ErrorKind::InvalidInput);
        let memory_bytes = usize::from(buffers).checked_mul(buffer_bytes).ok_or_else(too_large)?;
        let pool = Pool {
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

    /// Where the ring is, for its registration.
    pub(super) fn address(&self) -> u64 {
        self.ring.start as u64
    }

    /// How many buffers there are.
    pub(super) fn buffers(&self) -> u16 {
        self.buffers
    }

    /// How many bytes are mapped; what never circulated is not real yet.
    pub(super) fn memory(&self) -> usize {
        mapped(self.buffers, self.buffer_bytes)
    }

    /// How many bytes all buffers have together.
    pub(super) fn bytes(&self) -> usize {
        usize::from(self.buffers) * self.buffer_bytes
    }

    /// For how many streams there is a buffer, or a piece of one.
    pub(super) fn free(&self) -> usize {
        usize::from(self.circulating.get() - self.away.get()) * usize::from(self.pieces)
    }

    /// How many chunks are lent.
    pub(super) fn lent(&self) -> usize {
        self.lent.get()
    }

    /// Lets twice as many circulate, if there are more.
    pub(super) fn grow(&self) {
        self.circulate(self.circulating.get());
    }

    /// Adds up to `count` buffers that were never used.
    fn circulate(&self, count: u16) {
        let from = self.circulating.get();
        let to = from.saturating_add(count).min(self.buffers);
        for buffer in from..to {
            self.put(buffer);
        }
        self.circulating.set(to);
    }

    /// Shows the kernel all that was put since the last time.
    pub(super) fn publish(&self) {
        // SAFETY: the mapping begins with an entry, zeroed or written by `put`.
        let tail = unsafe { BufRingEntry::tail(self.ring.start.cast::<BufRingEntry>()) };
        // SAFETY: the field is aligned, lives as long as the mapping, and is read by the kernel only.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail.get(), Ordering::Release);
    }

    fn put(&self, buffer: u16) {
        let tail = self.tail.get();
        let at = usize::from(tail & (self.buffers - 1));
        // SAFETY: `at` is below the number of entries that were mapped.
        let entry = unsafe { self.ring.start.cast::<BufRingEntry>().add(at) };
        // SAFETY: the kernel reads entries before the published tail only, and this one lies behind it; at
        // most as many as there are entries circulate, so it does not lap.
        let entry = unsafe { &mut *entry };
        entry.set_addr(self.start_of(buffer) as u64);
        // A buffer is at most as long as its mapping was allowed to be.
        entry.set_len(self.buffer_bytes as u32);
        entry.set_bid(buffer);
        self.tail.set(tail.wrapping_add(1));
    }

    fn start_of(&self, buffer: u16) -> *mut u8 {
        // SAFETY: a buffer's number is below how many were mapped.
        unsafe { self.memory.start.add(usize::from(buffer) * self.buffer_bytes) }
    }

    /// Takes over the next `len` bytes of a buffer, which the kernel filled, and says whether it goes on there.
    #[inline]
    pub(super) fn lend(self: &Rc<Pool>, buffer: u16, len: usize, goes_on: bool) -> Provided {
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

    /// Takes a chunk back; the ring has the buffer again when that was the last of one that is full.
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

/// One shared buffer, or a piece of it, with input in it. Its drop gives it back.
pub(in crate::engine) struct Provided {
    pool: Rc<Pool>,
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
        // SAFETY: the buffer lies within the mapping, which the pool keeps; the kernel has given the piece up with
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

/// Private memory of its own pages.
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

/// How many bytes are mapped for so many buffers and their ring.
pub(super) fn mapped(buffers: u16, buffer_bytes: usize) -> usize {
    let buffers = usize::from(buffers);
    whole_pages(buffers * size_of::<BufRingEntry>()) + whole_pages(buffers * buffer_bytes)
}

/// So many bytes as a mapping takes them: in whole pages.
pub(super) fn whole_pages(bytes: usize) -> usize {
    // SAFETY: the call concerns no memory.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    bytes.next_multiple_of(usize::try_from(page).unwrap_or(PAGE_BYTES).max(1))
}

/// The size of a page where the system does not tell.
const PAGE_BYTES: usize = 4096;
/// The most shared buffers a kernel takes.
const BUFFERS_MAX: u16 = 1 << 15;
/// The most bytes of one of them, before several are made one.
const BUFFER_BYTES_MAX: usize = 1 << 24;
/// How many are made one where it is used piece by piece.
const PIECES_MAX: u16 = 16;
/// And how many are left at least: while one is lent, others are there.
const JOINED_MIN: u16 = 4;
/// How many buffers circulate at first.
const CIRCULATING_MIN: u16 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_free_again_even_after_the_engine() {
        let pool = Pool::new(4, 64, 1).expect("memory");
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
        let pool = Pool::new(2, 64, 16).expect("memory");
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
            let pool = Pool::new(buffers, 16, pieces).expect("memory");
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
