//! The ring itself: queued operations, the one call of a turn, and completions.
//!
//! No queued operation is ever lost. Operations that find no place go to a backlog, and those that the kernel
//! does not take now (EBUSY, EAGAIN) stay queued. A queued operation is never taken back either, only
//! cancelled.
#![allow(unsafe_code)]

use std::{
    collections::VecDeque,
    io,
    mem::ManuallyDrop,
    os::fd::{AsRawFd as _, BorrowedFd},
    time::Duration,
};

use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue, types};

use super::{
    buffers::{self, SharedBuffers},
    operation::{Kind, Tag},
    recvmsg,
};
use crate::{engine::timeout, sys::Birthplace};

/// The kernel's answer for one operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub(super) user_data: u64,
    pub(super) result: i32,
    pub(super) flags: u32,
}

/// The result of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Entered {
    /// It succeeded.
    Done,
    /// A signal interrupted it.
    Interrupted,
    /// The kernel takes nothing now: it has no memory, or requires that its completions are handled first.
    Busy,
}

/// The queues shared with the kernel.
pub(super) struct Ring {
    ring: ManuallyDrop<IoUring>,
    /// A child of a fork has the ring's descriptor without its mappings, and must leave the ring alone.
    birthplace: Birthplace,
    /// Operations that found no place, each with whether it is linked to the next.
    backlog: VecDeque<(squeue::Entry, bool)>,
    /// The number of operations whose last completion has not been handled, including queued ones.
    out: usize,
    calls: u64,
}

impl Ring {
    pub(super) fn new(ring: IoUring) -> Ring {
        Ring {
            ring: ManuallyDrop::new(ring),
            birthplace: Birthplace::here(),
            backlog: VecDeque::new(),
            out: 0,
            calls: 0,
        }
    }

    /// Queues an operation. [`Ring::ended`] counts its last completion.
    ///
    /// The memory that the entry points to must live until then.
    #[inline]
    pub(super) fn start(&mut self, entry: squeue::Entry, tag: Tag) {
        self.out += 1;
        self.push(entry.user_data(tag.to_bits()));
    }

    /// Queues two operations. The second begins when the first has succeeded, and that success has no
    /// completion. Together they have one last completion.
    pub(super) fn start_linked(&mut self, first: squeue::Entry, second: squeue::Entry, tag: Tag) {
        let flags = squeue::Flags::IO_LINK | squeue::Flags::SKIP_SUCCESS;
        let pair = [first.flags(flags).user_data(tag.to_bits()), second.user_data(tag.to_bits())];
        self.out += 1;
        if !self.birthplace.is_here() {
            return;
        }
        // A link ends where a submission does, so both must go at once.
        let capacity = self.ring.submission().capacity();
        if self.backlog.is_empty() && self.ring.submission().len() + pair.len() > capacity {
            self.submit();
        }
        // SAFETY: these operations point to no memory: see the callers, all of which wait for readiness.
        if self.backlog.is_empty() && unsafe { self.ring.submission().push_multiple(&pair) }.is_ok() {
            return;
        }
        let [first, second] = pair;
        self.backlog.extend([(first, true), (second, false)]);
    }

    /// Requests the end of an operation, which still has its last completion.
    pub(super) fn cancel(&mut self, tag: Tag) {
        let entry = opcode::AsyncCancel::new(tag.to_bits()).build().flags(squeue::Flags::SKIP_SUCCESS);
        self.push(entry.user_data(Tag::new(Kind::Cancel, 0, 0).to_bits()));
    }

    /// Requests the end of every operation.
    pub(super) fn cancel_all(&mut self) {
        let entry = opcode::AsyncCancel2::new(types::CancelBuilder::any()).build();
        self.push(entry.user_data(Tag::new(Kind::Cancel, 0, 0).to_bits()));
    }

    /// Counts a last completion.
    #[inline]
    pub(super) fn ended(&mut self) {
        self.out -= 1;
    }

    /// Returns the number of operations in flight.
    pub(super) fn out(&self) -> usize {
        self.out
    }

    /// Returns whether the kernel has taken all queued operations, and so has read the memory that only a
    /// submission points to.
    pub(super) fn is_taken(&mut self) -> bool {
        !self.birthplace.is_here() || self.backlog.is_empty() && self.ring.submission().is_empty()
    }

    /// Returns whether the backlog is not empty.
    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Returns the number of bytes in the queues shared with the kernel.
    pub(super) fn memory(&self) -> usize {
        let parameters = self.ring.params();
        let (entries, completions) = (parameters.sq_entries() as usize, parameters.cq_entries() as usize);
        let queues = HEADER_BYTES + completions * size_of::<cqueue::Entry>() + entries * size_of::<u32>();
        buffers::whole_pages(queues) + buffers::whole_pages(entries * size_of::<squeue::Entry>())
    }

    /// Returns the number of calls so far.
    pub(super) fn calls(&self) -> u64 {
        self.calls
    }

    #[inline]
    fn push(&mut self, entry: squeue::Entry) {
        if !self.birthplace.is_here() {
            return;
        }
        if self.backlog.is_empty() && self.has_pushed(&entry) {
            return;
        }
        self.push_to_full(entry);
    }

    #[cold]
    fn push_to_full(&mut self, entry: squeue::Entry) {
        if self.backlog.is_empty() {
            self.submit();
            if self.has_pushed(&entry) {
                return;
            }
        }
        self.backlog.push_back((entry, false));
    }

    #[inline]
    fn has_pushed(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: the engine keeps an operation's memory (a queue, a header, the waker's counter) until its
        // last completion, and nobody frees it if that never comes.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    /// Hands queued operations to the kernel without handling completions, to gain place. Those that the
    /// kernel does not take stay queued.
    pub(super) fn submit(&mut self) {
        if !self.birthplace.is_here() {
            return;
        }
        let queued = self.ring.submission().len() as u32;
        self.calls += 1;
        // SAFETY: no argument is passed.
        let _ = unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued, 0, 0, None) };
    }

    /// Moves operations that now have place out of the backlog, pairs together.
    fn refill(&mut self) {
        while let Some((_, is_linked)) = self.backlog.front() {
            let count = if *is_linked { 2 } else { 1 };
            let queue = self.ring.submission();
            if queue.capacity() - queue.len() < count {
                return;
            }
            drop(queue);
            for (entry, _) in self.backlog.drain(..count) {
                // SAFETY: as in `has_pushed`. There is place for it.
                let _ = unsafe { self.ring.submission().push(&entry) };
            }
        }
    }

    /// Hands queued operations to the kernel, and waits until there is a completion or `timeout` is over.
    ///
    /// # Errors
    /// The ring is broken.
    pub(super) fn enter(&mut self, timeout: Option<Duration>) -> io::Result<Entered> {
        if !self.backlog.is_empty() {
            self.refill();
        }
        let queued = self.ring.submission().len() as u32;
        let (wanted, timeout) = match timeout {
            Some(Duration::ZERO) => (0, None),
            // The rest of the backlog still needs place.
            _ if !self.backlog.is_empty() => (0, None),
            timeout => (1, timeout),
        };
        // Without this flag, the kernel does not do deferred work in a call that does not wait.
        let flags = EnterFlags::GETEVENTS;
        self.calls += 1;
        let result = match timeout {
            None => {
                // SAFETY: no argument is passed.
                unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued, wanted, flags.bits(), None) }
            }
            Some(timeout) => {
                let (seconds, nanos) = timeout::seconds_and_nanos(timeout);
                let time = types::Timespec::new().sec(seconds as u64).nsec(nanos as u32);
                let arguments = types::SubmitArgs::new().timespec(&time);
                let flags = (flags | EnterFlags::EXT_ARG).bits();
                // SAFETY: the arguments are of the type that the flag announces, and live through the call.
                unsafe { self.ring.submitter().enter(queued, wanted, flags, Some(&arguments)) }
            }
        };
        match result.map_err(|error| (error.raw_os_error(), error)) {
            Ok(_) | Err((Some(libc::ETIME), _)) => Ok(Entered::Done),
            Err((Some(libc::EINTR), _)) => Ok(Entered::Interrupted),
            Err((Some(libc::EBUSY | libc::EAGAIN), _)) => Ok(Entered::Busy),
            Err((_, error)) => Err(error),
        }
    }

    /// Takes all completions, and separates accepts from the others.
    pub(super) fn reap(&mut self, into: &mut VecDeque<Completion>, accepts: &mut Vec<Completion>) {
        for entry in self.ring.completion() {
            let (user_data, result, flags) = (entry.user_data(), entry.result(), entry.flags());
            let completion = Completion { user_data, result, flags };
            if Tag::is_of(Kind::Accept, user_data) {
                accepts.push(completion);
            } else {
                into.push_back(completion);
            }
        }
    }

    /// Registers the ring of the shared buffers, for use piece by piece or as whole buffers.
    ///
    /// # Errors
    /// As io_uring_register(2): EINVAL before Linux 5.19, and before 6.12 for pieces.
    pub(super) fn register_buffers(&self, pool: &SharedBuffers, in_pieces: bool) -> io::Result<()> {
        let flags = if in_pieces { types::IOU_PBUF_RING_INC as u16 } else { 0 };
        let submitter = self.ring.submitter();
        // SAFETY: the pool keeps the ring mapped for longer than this ring lives.
        unsafe { submitter.register_buf_ring_with_flags(pool.address(), pool.buffers(), GROUP, flags) }
    }

    /// Takes the shared buffers away from the kernel.
    pub(super) fn unregister_buffers(&self) {
        // Fails only if there is nothing to take away.
        let _ = self.ring.submitter().unregister_buf_ring(GROUP);
    }

    /// Registers the ring of the buffers for datagrams.
    ///
    /// # Errors
    /// As io_uring_register(2).
    pub(super) fn register_mail(&self, address: u64, buffers: u16) -> io::Result<()> {
        // SAFETY: the engine keeps the ring of these buffers mapped for longer than this ring lives.
        unsafe { self.ring.submitter().register_buf_ring_with_flags(address, buffers, recvmsg::GROUP, 0) }
    }

    /// Takes the buffers for datagrams away from the kernel.
    pub(super) fn unregister_mail(&self) {
        // Fails only if there is nothing to take away.
        let _ = self.ring.submitter().unregister_buf_ring(recvmsg::GROUP);
    }

    /// Registers an eventfd(2) that counts completions, and also work put off for this thread that will cause
    /// some.
    ///
    /// # Errors
    /// As io_uring_register(2).
    pub(super) fn register_counter(&self, counter: BorrowedFd<'_>) -> io::Result<()> {
        self.birthplace.check()?;
        self.ring.submitter().register_eventfd(counter.as_raw_fd())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.birthplace.is_here() {
            // SAFETY: the ring is dropped only here, and never used again.
            unsafe { ManuallyDrop::drop(&mut self.ring) };
            return;
        }
        // In this process, the addresses of its mappings belong to somebody else.
        // SAFETY: the number is this process's own copy, and nobody closes it again, because the ring is
        // never dropped.
        unsafe { libc::close(self.ring.as_raw_fd()) };
    }
}

/// The kernel's header before the two queues, rounded up: heads, tails and flags.
const HEADER_BYTES: usize = 320;
/// The number of the group of the shared buffers.
pub(super) const GROUP: u16 = 0;
