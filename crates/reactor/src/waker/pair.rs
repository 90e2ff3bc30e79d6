//! The signal of any Unix: a byte in a pair of sockets.

use std::{
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
    task::Wake,
};

/// Both ends of a pair of sockets. The reading end lives as long as the writing end, so no wake is ever
/// a broken pipe.
pub(crate) struct Signal {
    reader: UnixStream,
    writer: UnixStream,
}

impl Signal {
    /// Creates a signal that is not woken.
    ///
    /// # Errors
    /// As socketpair(2).
    pub(crate) fn new() -> io::Result<Signal> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        Ok(Signal { reader, writer })
    }

    /// What becomes readable.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// Makes it unreadable until the next wake.
    pub(crate) fn clear(&self) {
        // Ends when the pair is empty; a wake during the loop may be swallowed, which is right, since
        // whoever clears looks at what it was woken for afterwards.
        let mut bytes = [0; 1024];
        while matches!((&self.reader).read(&mut bytes), Ok(count) if count == bytes.len()) {}
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // The write fails only when the pair is full: then it is readable already.
        let _ = (&self.writer).write(&[1]);
    }
}
