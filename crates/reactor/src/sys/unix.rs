//! Unix calls that socket2 lacks: those with pointers, and descriptors kept by number.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
};

use crate::engine::{Source, Transport};

/// A watched descriptor of another owner, who keeps it open until it is unwatched.
#[derive(Clone, Copy)]
pub(crate) struct Watched(RawFd);

impl Watched {
    /// Remembers the source's descriptor. A virtual source has none.
    pub(crate) fn new(source: Source<'_>) -> Option<Watched> {
        source.descriptor().map(|descriptor| Watched(descriptor.as_raw_fd()))
    }

    /// Lends the source to `read`, which may pass it to a poll and to nothing else.
    pub(crate) fn with<T>(self, read: impl FnOnce(Source<'_>) -> T) -> T {
        // SAFETY: the engine's contract makes the owner unwatch a descriptor before closing it, and that
        // removes the table entry with `self`. If an owner breaks this, a poll gets a wrong number, and the
        // kernel answers with EBADF or ENOENT. Memory is never at stake.
        let descriptor = unsafe { BorrowedFd::borrow_raw(self.0) };
        read(Source::of(&descriptor))
    }
}

/// A descriptor held in reserve, for when the process has no others left.
pub(crate) struct Reserve {
    /// Held only to be closed.
    _held: OwnedFd,
}

impl Reserve {
    /// Takes a descriptor, if one is left.
    pub(crate) fn take() -> Option<Reserve> {
        File::open("/dev/null").ok().map(|file| Reserve { _held: file.into() })
    }
}

/// Makes a transport of a descriptor that somebody else opened: non-blocking and CLOEXEC.
pub(crate) fn adopt(descriptor: OwnedFd) -> io::Result<Transport> {
    let Some(medium) = super::file::medium(descriptor.as_fd())? else {
        let why = "a file, folder or disk cannot be waited for";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    };
    super::file::make_ours(descriptor.as_fd())?;
    Ok(Transport::of(descriptor, medium))
}

/// Returns whether the process or the system has no descriptor left.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Calls read(2) once.
#[inline]
pub(crate) fn read_descriptor(from: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of one live, exclusively borrowed slice.
    let count = unsafe { libc::read(from.as_raw_fd(), into.as_mut_ptr().cast(), into.len()) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Calls recv(2) once. It does not wait, even if others share the socket and left it in blocking mode.
#[inline(always)]
pub(crate) fn receive_descriptor(from: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of one live, exclusively borrowed slice.
    let count =
        unsafe { libc::recv(from.as_raw_fd(), into.as_mut_ptr().cast(), into.len(), libc::MSG_DONTWAIT) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Calls send(2) once, with these flags.
#[inline(always)]
pub(crate) fn send_descriptor(to: BorrowedFd<'_>, bytes: &[u8], flags: libc::c_int) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of one live slice.
    let count = unsafe { libc::send(to.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Returns how many bytes wait in a pipe or a device; 0 if the system does not say.
pub(super) fn unread(of: BorrowedFd<'_>) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one number, which lives through the call.
    let result = unsafe { libc::ioctl(of.as_raw_fd(), libc::FIONREAD, &mut count) };
    if result == 0 { usize::try_from(count).unwrap_or(0) } else { 0 }
}

/// Writes a line of at most PIPE_BUF bytes to standard error, unless there is no room or no reader. Returns
/// whether it was written.
pub(crate) fn print_error(line: &[u8]) -> bool {
    let mut entry = [libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 }];
    // Without a reader, a write would raise SIGPIPE.
    if !poll(&mut entry, 0).is_ok_and(|_| entry[0].revents == libc::POLLOUT) {
        return false;
    }
    // SAFETY: the pointer and the length are those of one live slice.
    let count = unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
    usize::try_from(count).is_ok_and(|count| count == line.len())
}

/// Returns the peer of a socket whose connection is lost, where getpeername(2) fails.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn lost_peer(socket: BorrowedFd<'_>) -> io::Result<socket2::SockAddr> {
    // The kernel refuses a length greater than that of the address.
    let ask = |size: usize| {
        let fill = |storage: *mut socket2::SockAddrStorage, length: *mut libc::socklen_t| {
            let (socket, name) = (socket.as_raw_fd(), libc::SO_PEERNAME);
            // SAFETY: the caller passes a pointer to a live number.
            unsafe { *length = size as libc::socklen_t };
            // SAFETY: the storage has room for any address, so also for `size` bytes, which is the given
            // length.
            let result = unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, name, storage.cast(), length) };
            if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        };
        // SAFETY: `fill` writes an address to the storage and its length, or fails.
        unsafe { socket2::SockAddr::try_init(fill) }.map(|((), address)| address)
    };
    ask(size_of::<libc::sockaddr_in6>()).or_else(|_| ask(size_of::<libc::sockaddr_in>()))
}

/// Calls poll(2) once, and returns the number of entries with events.
pub(crate) fn poll(entries: &mut [libc::pollfd], timeout_ms: i32) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of one live, exclusively borrowed slice.
    let count = unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, timeout_ms) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}
