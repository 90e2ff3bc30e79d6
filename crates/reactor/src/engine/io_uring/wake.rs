//! Wakes: the read by which the waker ends a wait, and how the ring's descriptor is made readable.

use std::{os::fd::AsRawFd as _, task::Wake as _};

use io_uring::{opcode, types::Fd};

use super::{
    IoUring,
    operation::{Kind, Tag},
};
use crate::{engine::Event, id::Key};

impl IoUring {
    /// Makes the ring's descriptor readable, since the next wait has something to do.
    #[inline]
    pub(super) fn stir(&mut self) {
        if self.is_driven_from_outside.get() && !self.is_stirred {
            self.is_stirred = true;
            self.count_call();
            self.signal.wake_by_ref();
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
        if self.is_driven_from_outside.get() {
            // Nobody may enter the ring before the next wake.
            self.read_waker();
            self.ring.submit();
        }
        None
    }
}
