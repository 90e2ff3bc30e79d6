//! Wakes: the read by which the waker ends a wait, and the wake of an outside loop that drives the runtime.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    sync::{Arc, OnceLock},
    task::Wake,
};

use io_uring::{opcode, types::Fd};

use super::{
    IoUring,
    operation::{Kind, Tag},
};
use crate::{engine::Event, id::Key, waker::WakeSignal};

/// The target of the waker: a read in the ring, and an outside loop, if one drives the runtime.
///
/// A wake writes to both, because Linux 6.18 reports a completion caused by one eventfd(2) through a second
/// eventfd only once, and never again.
pub(super) struct RingWaker {
    counter: Arc<WakeSignal>,
    outside: OnceLock<Arc<WakeSignal>>,
}

impl RingWaker {
    /// Creates one that nobody has rung.
    ///
    /// # Errors
    /// As eventfd(2).
    pub(super) fn new() -> io::Result<RingWaker> {
        Ok(RingWaker { counter: Arc::new(WakeSignal::new()?), outside: OnceLock::new() })
    }

    /// Returns the descriptor that the ring reads.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.counter.fd()
    }

    /// Returns the signal that an outside loop waits for, if there is one.
    #[inline]
    pub(super) fn outside(&self) -> Option<&Arc<WakeSignal>> {
        self.outside.get()
    }

    /// Wakes an outside loop as well, from now on.
    pub(super) fn add_outside(&self, signal: Arc<WakeSignal>) -> &Arc<WakeSignal> {
        self.outside.get_or_init(|| signal)
    }
}

impl Wake for RingWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.counter.wake_by_ref();
        if let Some(outside) = self.outside.get() {
            outside.wake_by_ref();
        }
    }
}

impl IoUring {
    /// Wakes the outside loop, because the next wait has something to do.
    #[inline]
    pub(super) fn stir(&mut self) {
        if let Some(outside) = self.signal.outside()
            && !self.is_stirred
        {
            self.is_stirred = true;
            outside.wake_by_ref();
            self.count_call();
        }
    }

    /// Wakes the outside loop for events that a turn left to the next one. The kernel has already reported
    /// them, and does not signal them again.
    #[inline]
    pub(super) fn stir_for_rest(&mut self) {
        if self.signal.outside().is_some() && self.has_events() {
            self.stir();
        }
    }

    /// Resets the wake of the outside loop. A completion that comes during a wait wakes the loop once more,
    /// which may then find nothing.
    pub(super) fn settle_down(&mut self) {
        self.is_stirred = false;
        if let Some(outside) = self.signal.outside() {
            outside.clear();
            self.count_call();
        }
    }

    /// Arms the read that ends a wait at the next wake, or at one that was not noticed yet.
    pub(super) fn read_waker(&mut self) {
        if std::mem::replace(&mut self.is_waker_read, true) {
            return;
        }
        let descriptor = Fd(self.signal.fd().as_raw_fd());
        let read = opcode::Read::new(descriptor, self.counter.as_mut_ptr(), self.counter.len() as u32);
        self.ring.start(read.build(), Tag::new(Kind::Wake, 0, 0));
    }

    /// Handles the completion of the waker's read.
    pub(super) fn noticed_wake(&mut self) -> Option<(Key, Event)> {
        self.ring.ended();
        (self.is_waker_read, self.is_woken) = (false, true);
        if self.signal.outside().is_some() {
            // Nobody may enter the ring before the next wake, so submit now.
            self.read_waker();
            self.ring.submit();
        }
        None
    }
}
