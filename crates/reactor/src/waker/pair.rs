//! The signal on other Unix systems: a byte in a socket pair.

use std::{
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
    task::Wake,
};

/// Both ends of a socket pair. The reading end lives as long as the writing end, so a wake never meets a
/// broken pipe.
pub(crate) struct WakeSignal {
    reader: UnixStream,
    writer: UnixStream,
}

impl WakeSignal {
    /// Creates a signal that is not woken.
    ///
    /// # Errors
    /// As socketpair(2).
    pub(crate) fn new() -> io::Result<WakeSignal> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        Ok(WakeSignal { reader, writer })
    }

    /// Returns the descriptor that becomes readable.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// Makes it unreadable until the next wake.
    pub(crate) fn clear(&self) {
        // Read until the pair is empty. This may also take a wake that comes during the loop. That is fine,
        // because the caller looks for the reason of the wake after this call.
        let mut bytes = [0; 1024];
        while matches!((&self.reader).read(&mut bytes), Ok(count) if count == bytes.len()) {}
    }
}

impl Wake for WakeSignal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // The write fails only if the pair is full, and then the descriptor is readable already.
        let _ = (&self.writer).write(&[1]);
    }
}
