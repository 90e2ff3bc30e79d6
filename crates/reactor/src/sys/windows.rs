//! What differs on Windows: only sockets are watched, and descriptors do not run out.
#![allow(unsafe_code)]

use std::{
    io::{self, Read as _},
    os::windows::io::{AsRawSocket as _, BorrowedSocket, OwnedSocket, RawSocket},
};

use socket2::SockRef;

use crate::engine::{Source, Transport};

/// A socket that is watched and belongs to somebody else, who keeps it open until it is unwatched.
#[derive(Clone, Copy)]
pub(crate) struct Watched(RawSocket);

impl Watched {
    /// Remembers the source's socket; a virtual source has none.
    pub(crate) fn new(source: Source<'_>) -> Option<Watched> {
        source.descriptor().map(|socket| Watched(socket.as_raw_socket()))
    }

    /// The source, to be told to a poll and to nobody else.
    pub(crate) fn with<T>(self, tell: impl FnOnce(Source<'_>) -> T) -> T {
        // SAFETY: the engine's contract has the owner unwatch a socket before it closes it, and an entry
        // of the table that holds `self` ends there.
        let socket = unsafe { BorrowedSocket::borrow_raw(self.0) };
        tell(Source::of(&socket))
    }
}

/// Nothing: handles are limited by memory only.
pub(crate) struct Reserve;

impl Reserve {
    /// There is none to take.
    pub(crate) fn take() -> Option<Reserve> {
        None
    }
}

/// Makes a stream's transport of a socket that somebody else opened: non-blocking and not inherited.
pub(crate) fn adopt(descriptor: OwnedSocket) -> io::Result<Transport> {
    let socket = socket2::Socket::from(descriptor);
    socket.set_nonblocking(true)?;
    socket.set_no_inherit(true)?;
    Ok(Transport::new(socket))
}

/// Whether the error says that the process has no descriptor left.
pub(crate) fn is_out_of_descriptors(_: &io::Error) -> bool {
    false
}

/// Does nothing: a write raises no signal here.
pub(crate) fn block_write_signals() {}

/// recv(2), once.
pub(crate) fn receive_descriptor(from: BorrowedSocket<'_>, into: &mut [u8]) -> io::Result<usize> {
    (&*SockRef::from(&from)).read(into)
}
pub(crate) use self::receive_descriptor as read_descriptor;

/// Writes a line to standard error. Whether it was written.
pub(crate) fn print_error(line: &[u8]) -> bool {
    io::Write::write_all(&mut io::stderr(), line).is_ok()
}
