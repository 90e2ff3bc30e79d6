//! What socket2 lacks on Unix: the calls with pointers, and descriptors kept by number.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
};

use crate::engine::{Source, Transport};

/// A descriptor that is watched and belongs to somebody else, who keeps it open until it is unwatched.
#[derive(Clone, Copy)]
pub(crate) struct Watched(RawFd);

impl Watched {
    /// Remembers the source's descriptor; a virtual source has none.
    pub(crate) fn new(source: Source<'_>) -> Option<Watched> {
        source.descriptor().map(|descriptor| Watched(descriptor.as_raw_fd()))
    }

    /// The source, to be told to a poll and to nobody else.
    pub(crate) fn with<T>(self, tell: impl FnOnce(Source<'_>) -> T) -> T {
        // SAFETY: the engine's contract has the owner unwatch a descriptor before it closes it, and an
        // entry of the table that holds `self` ends there. An owner who breaks this reaches a poll's
        // set with a wrong number, which the kernel answers with EBADF or ENOENT: no memory is at stake.
        let descriptor = unsafe { BorrowedFd::borrow_raw(self.0) };
        tell(Source::of(&descriptor))
    }
}

/// A descriptor held back for the moment when there are no more.
pub(crate) struct Reserve {
    /// Only there to be closed.
    _held: OwnedFd,
}

impl Reserve {
    /// Takes one, if there is one.
    pub(crate) fn take() -> Option<Reserve> {
        File::open("/dev/null").ok().map(|file| Reserve { _held: file.into() })
    }
}

/// Makes a stream's transport of what somebody else opened: non-blocking and CLOEXEC.
pub(crate) fn adopt(descriptor: OwnedFd) -> io::Result<Transport> {
    let Some(medium) = super::file::medium(descriptor.as_fd())? else {
        let why = "a file, folder or disk cannot be waited for";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    };
    super::file::make_ours(descriptor.as_fd())?;
    Ok(Transport::of(descriptor, medium))
}

/// Whether the error says that the process or the system has no descriptor left.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// read(2), once.
#[inline]
pub(crate) fn read_descriptor(from: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of one live, exclusively borrowed slice.
    let count = unsafe { libc::read(from.as_raw_fd(), into.as_mut_ptr().cast(), into.len()) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// recv(2), once. It does not wait, also where others share the socket and left it blocking.
#[inline]
pub(crate) fn receive_descriptor(from: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of one live, exclusively borrowed slice.
    let count =
        unsafe { libc::recv(from.as_raw_fd(), into.as_mut_ptr().cast(), into.len(), libc::MSG_DONTWAIT) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Writes a line of at most PIPE_BUF bytes to standard error, if there is room for it and somebody who may read it.
/// Whether it was written.
pub(crate) fn print_error(line: &[u8]) -> bool {
    let mut entry = [libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 }];
    // Without a reader a write would be a signal.
    if !poll(&mut entry, 0).is_ok_and(|_| entry[0].revents == libc::POLLOUT) {
        return false;
    }
    // SAFETY: the pointer and the length are those of one live slice.
    let count = unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
    usize::try_from(count).is_ok_and(|count| count == line.len())
}

/// The peer of a socket whose connection is lost, of which getpeername(2) does not tell any more.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn lost_peer(socket: BorrowedFd<'_>) -> io::Result<socket2::SockAddr> {
    // The kernel refuses a length that is more than the address has.
    let ask = |size: usize| {
        let fill = |storage: *mut socket2::SockAddrStorage, length: *mut libc::socklen_t| {
            let (socket, name) = (socket.as_raw_fd(), libc::SO_PEERNAME);
            // SAFETY: the length is a live number of the caller's.
            unsafe { *length = size as libc::socklen_t };
            // SAFETY: the storage has room for any address, so for `size` bytes, and the length says so many.
            let result = unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, name, storage.cast(), length) };
            if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        };
        // SAFETY: `fill` writes an address to the storage and its length, or fails.
        unsafe { socket2::SockAddr::try_init(fill) }.map(|((), address)| address)
    };
    ask(size_of::<libc::sockaddr_in6>()).or_else(|_| ask(size_of::<libc::sockaddr_in>()))
}

/// poll(2), once; how many entries tell something.
pub(crate) fn poll(entries: &mut [libc::pollfd], timeout_ms: i32) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of one live, exclusively borrowed slice.
    let count = unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, timeout_ms) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}
