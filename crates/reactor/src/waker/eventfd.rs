//! The signal on Linux: an eventfd(2), which is eight bytes in the kernel.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    sync::Arc,
    task::Wake,
};

/// A counter in the kernel that is readable while it is not zero.
pub(crate) struct WakeSignal(File);

impl WakeSignal {
    /// Creates a signal that is not woken.
    ///
    /// # Errors
    /// As eventfd(2).
    pub(crate) fn new() -> io::Result<WakeSignal> {
        // SAFETY: eventfd takes no pointer.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above gave this descriptor to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(WakeSignal(fd.into()))
    }

    /// Returns the descriptor that becomes readable.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Makes it unreadable until the next wake.
    pub(crate) fn clear(&self) {
        // This fails if there was no wake, which is fine.
        let _ = (&self.0).read(&mut [0; 8]);
    }
}

impl Wake for WakeSignal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // The write fails only if the counter is full, and then the descriptor is readable already.
        let _ = (&self.0).write(&1_u64.to_ne_bytes());
    }
}
