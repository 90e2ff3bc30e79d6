//! Wakes: the read by which the waker ends a wait, and how who drives this from outside is woken.

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
use crate::{engine::Event, id::Key, waker::Signal};

/// What wakes the engine: a read in the ring, and who drives it from outside.
///
/// It is written to both: Linux 6.18 tells of a completion that an eventfd(2) brought by a second eventfd once, and
/// never again.
pub(super) struct Bell {
    counter: Arc<Signal>,
    outside: OnceLock<Arc<Signal>>,
}

impl Bell {
    /// Creates one that nobody has rung.
    ///
    /// # Errors
    /// As eventfd(2).
    pub(super) fn new() -> io::Result<Bell> {
        Ok(Bell { counter: Arc::new(Signal::new()?), outside: OnceLock::new() })
    }

    /// What the ring reads.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.counter.fd()
    }

    /// What who drives this from outside waits for, if somebody does.
    #[inline]
    pub(super) fn outside(&self) -> Option<&Arc<Signal>> {
        self.outside.get()
    }

    /// Wakes who drives this from outside, too, from now on.
    pub(super) fn add_outside(&self, signal: Arc<Signal>) -> &Arc<Signal> {
        self.outside.get_or_init(|| signal)
    }
}

impl Wake for Bell {
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
    /// Wakes who drives this from outside, since the next wait has something to do.
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

    /// Wakes who drives this from outside for what a turn has left to the next: the kernel has told of it already, and
    /// does not ring for it again.
    #[inline]
    pub(super) fn stir_for_rest(&mut self) {
        if self.signal.outside().is_some() && self.has_events() {
            self.stir();
        }
    }

    /// Begins anew with waking who drives this from outside. What comes while a wait lasts wakes once more, and what it
    /// finds then may be nothing.
    pub(super) fn settle_down(&mut self) {
        self.is_stirred = false;
        if let Some(outside) = self.signal.outside() {
            outside.clear();
            self.count_call();
        }
    }

    /// Has the next wake, or one that was not noticed yet, end a wait.
    pub(super) fn read_waker(&mut self) {
        if std::mem::replace(&mut self.is_waker_read, true) {
            return;
        }
        let descriptor = Fd(self.signal.fd().as_raw_fd());
        let read = opcode::Read::new(descriptor, self.counter.as_mut_ptr(), self.counter.len() as u32);
        self.ring.start(read.build(), Tag::new(Kind::Wake, 0, 0));
    }

    /// The waker was used.
    pub(super) fn noticed_wake(&mut self) -> Option<(Key, Event)> {
        self.ring.ended();
        (self.is_waker_read, self.is_woken) = (false, true);
        if self.signal.outside().is_some() {
            // Nobody may enter the ring before the next wake.
            self.read_waker();
            self.ring.submit();
        }
        None
    }
}
