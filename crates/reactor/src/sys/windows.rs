//! Windows: only sockets can be watched, and descriptors do not run out.
#![allow(unsafe_code)]

use std::{
    io::{self, Read as _},
    os::windows::io::{AsRawSocket as _, BorrowedSocket, OwnedSocket, RawSocket},
};

use socket2::SockRef;

use crate::engine::{Source, Transport};

/// A watched socket of another owner, who keeps it open until it is unwatched.
#[derive(Clone, Copy)]
pub(crate) struct Watched(RawSocket);

impl Watched {
    /// Remembers the source's socket. A virtual source has none.
    pub(crate) fn new(source: Source<'_>) -> Option<Watched> {
        source.descriptor().map(|socket| Watched(socket.as_raw_socket()))
    }

    /// Lends the source to `read`, which may pass it to a poll and to nothing else.
    pub(crate) fn with<T>(self, read: impl FnOnce(Source<'_>) -> T) -> T {
        // SAFETY: the engine's contract makes the owner unwatch a socket before closing it, and that removes
        // the table entry with `self`.
        let socket = unsafe { BorrowedSocket::borrow_raw(self.0) };
        read(Source::of(&socket))
    }
}

/// Holds nothing, because only memory limits the number of handles.
pub(crate) struct Reserve;

impl Reserve {
    /// Returns `None`, because no reserve is needed.
    pub(crate) fn take() -> Option<Reserve> {
        None
    }
}

/// Makes a transport of a socket that somebody else opened: non-blocking and not inherited.
pub(crate) fn adopt(descriptor: OwnedSocket) -> io::Result<Transport> {
    let socket = socket2::Socket::from(descriptor);
    socket.set_nonblocking(true)?;
    socket.set_no_inherit(true)?;
    Ok(Transport::new(socket))
}

/// Returns false, because descriptors do not run out.
pub(crate) fn is_out_of_descriptors(_: &io::Error) -> bool {
    false
}

/// Does nothing, because a write raises no signal here.
pub(crate) fn block_write_signals() {}

/// Calls recv(2) once.
pub(crate) fn receive_descriptor(from: BorrowedSocket<'_>, into: &mut [u8]) -> io::Result<usize> {
    (&*SockRef::from(&from)).read(into)
}
pub(crate) use self::receive_descriptor as read_descriptor;

/// Calls send(2) once, with these flags.
pub(crate) fn send_descriptor(to: BorrowedSocket<'_>, bytes: &[u8], flags: i32) -> io::Result<usize> {
    SockRef::from(&to).send_with_flags(bytes, flags)
}

/// Writes a line to standard error, and returns whether that worked.
pub(crate) fn print_error(line: &[u8]) -> bool {
    io::Write::write_all(&mut io::stderr(), line).is_ok()
}
