//! sendfile(2): sends a part of a file to a socket.
#![allow(unsafe_code)]

use std::{fs::File, io};

use super::Borrowed;

/// Whether this system has a sendfile(2) that the library uses.
pub(crate) const HAS_SENDFILE: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Sends at most `most` bytes from `offset` on, and returns how many were sent. Runs in a thread for files,
/// where SIGPIPE is blocked. Fewer bytes mean that the socket is full or the file has ended. Zero means that
/// the file ended before `offset`.
///
/// # Errors
/// As sendfile(2). EAGAIN if the socket was full already. EINTR is retried.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn send_file(to: Borrowed<'_>, from: &File, offset: u64, most: u64) -> io::Result<u64> {
    use std::os::fd::AsRawFd;
    let (to, from) = (to.as_raw_fd(), from.as_raw_fd());
    let mut at = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let count = usize::try_from(most).unwrap_or(usize::MAX);
    loop {
        // SAFETY: both descriptors are borrowed for this call, and the place is a live variable.
        let moved = unsafe { libc::sendfile(to, from, &mut at, count) };
        if let Ok(moved) = u64::try_from(moved) {
            return Ok(moved);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Returns whether a TCP connection has failed: by a reset, or because its peer does not answer. The system reports the
/// cause once, to whichever call comes first, and also to one that then reports the bytes that it moved before.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn is_cut_off(socket: Borrowed<'_>) -> bool {
    let peer = socket2::SockRef::from(&socket).peer_addr();
    peer.is_err_and(|error| error.kind() == io::ErrorKind::NotConnected)
}

/// Returns false. It is never called where [`HAS_SENDFILE`] is false.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn is_cut_off(_: Borrowed<'_>) -> bool {
    false
}

/// Cuts a stream socket off from its peer, for every holder of a descriptor of it. A TCP peer sees a reset.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn sever(socket: Borrowed<'_>) {
    use std::os::fd::AsRawFd;
    let nobody = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let length = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the descriptor is borrowed for this call. The pointer and the length describe a live address.
    let is_reset = unsafe { libc::connect(socket.as_raw_fd(), &nobody, length) } == 0;
    if !is_reset {
        // This is not TCP, so there are no resets.
        let _ = socket2::SockRef::from(&socket).shutdown(std::net::Shutdown::Both);
    }
}

/// Does nothing. It is never called where [`HAS_SENDFILE`] is false.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn sever(_: Borrowed<'_>) {}

/// Fails. It is never called where [`HAS_SENDFILE`] is false.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn send_file(_: Borrowed<'_>, _: &File, _: u64, _: u64) -> io::Result<u64> {
    Err(io::ErrorKind::Unsupported.into())
}
