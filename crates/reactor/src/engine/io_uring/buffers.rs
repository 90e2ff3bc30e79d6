//! Buffers that all streams share: the kernel takes one when there is input for it, and gets it back when the
//! chunk goes.
//!
//! The memory is mapped once, is not inherited by a fork, and lives as long as the engine or a chunk of it.
//! Not all buffers circulate: the kernel takes the one that was given back first, so as many as there are
//! pass through the caches. A few circulate at the beginning, and twice as many each time a stream found none
//! because others had them all.
#![allow(unsafe_code)]

use std::{
    cell::Cell,
    io, ptr,
    rc::Rc,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::types::BufRingEntry;

/// The shared buffers, and the ring by which the kernel is given them.
pub(super) struct Pool {
    ring: Mapping,
    memory: Mapping,
    buffers: u16,
    buffer_bytes: usize,
    /// How many of the buffers circulate: are in the ring or lent.
    circulating: Cell<u16>,
    /// Where the next one goes; the kernel learns of it by [`Pool::publish`].
    tail: Cell<u16>,
    lent: Cell<u16>,
}

impl Pool {
    /// Maps as many buffers, a power of two and at most 32,768.
    ///
    /// # Errors
    /// As mmap(2).
    pub(super) fn new(buffers: u16, buffer_bytes: usize) -> io::Result<Rc<Pool>> {
        let too_large = || io::Error::from(io::ErrorKind::InvalidInput);
        let memory_bytes = usize::from(buffers).checked_mul(buffer_bytes).ok_or_else(too_large)?;
        let pool = Pool {
            ring: Mapping::new(usize::from(buffers) * size_of::<BufRingEntry>())?,
            memory: Mapping::new(memory_bytes)?,
            buffers,
            buffer_bytes,
            circulating: Cell::new(0),
            tail: Cell::new(0),
            lent: Cell::new(0),
        };
        pool.circulate(CIRCULATING_MIN);
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
        whole_pages(self.ring.bytes) + whole_pages(self.memory.bytes)
    }

    /// How many of those that circulate are not lent.
    pub(super) fn free(&self) -> u16 {
        self.circulating.get() - self.lent.get()
    }

    /// How many are lent.
    pub(super) fn lent(&self) -> u16 {
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

    /// Takes over the buffer that the kernel filled up to `len`.
    #[inline]
    pub(super) fn lend(self: &Rc<Pool>, buffer: u16, len: usize) -> Provided {
        debug_assert!(buffer < self.circulating.get() && len <= self.buffer_bytes, "as the kernel was told");
        self.lent.set(self.lent.get() + 1);
        Provided { pool: Rc::clone(self), buffer, len: len.min(self.buffer_bytes) as u32 }
    }
}

/// One shared buffer with input in it. Its drop gives it back to the ring.
pub(in crate::engine) struct Provided {
    pool: Rc<Pool>,
    buffer: u16,
    len: u32,
}

impl Provided {
    #[inline]
    pub(in crate::engine) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the buffer lies within the mapping, which the pool keeps; the kernel has given it up with
        // its completion, and nobody else has it until it is put back by the drop.
        unsafe { std::slice::from_raw_parts_mut(self.pool.start_of(self.buffer), self.len as usize) }
    }
}

impl Drop for Provided {
    #[inline]
    fn drop(&mut self) {
        self.pool.put(self.buffer);
        self.pool.lent.set(self.pool.lent.get() - 1);
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

/// So many bytes as a mapping takes them: in whole pages.
pub(super) fn whole_pages(bytes: usize) -> usize {
    // SAFETY: the call concerns no memory.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    bytes.next_multiple_of(usize::try_from(page).unwrap_or(PAGE_BYTES).max(1))
}

/// The size of a page where the system does not tell.
const PAGE_BYTES: usize = 4096;
/// How many buffers circulate at first.
const CIRCULATING_MIN: u16 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_free_again_even_after_the_engine() {
        let pool = Pool::new(4, 64).expect("memory");
        assert_eq!((pool.free(), pool.lent()), (4, 0));
        let mut one = pool.lend(3, 64);
        let two = pool.lend(0, 5);
        assert_eq!((pool.free(), pool.lent()), (2, 2));
        one.bytes().fill(7);
        drop(two);
        assert_eq!((pool.free(), pool.lent(), pool.tail.get()), (3, 1, 5));
        drop(pool);
        assert_eq!(one.bytes(), [7; 64], "the memory lives as long as the buffer");
    }

    #[test]
    fn more_buffers_circulate_when_they_run_out_and_never_more_than_there_are() {
        for (buffers, expected) in [(16, [16, 16, 16]), (32, [32, 32, 32]), (128, [32, 64, 128])] {
            let pool = Pool::new(buffers, 16).expect("memory");
            let mut seen = vec![pool.free()];
            for _ in 0..2 {
                pool.grow();
                seen.push(pool.free());
            }
            assert_eq!(seen, expected, "of {buffers}");
            pool.grow();
            assert_eq!(pool.free(), buffers);
        }
    }
}
