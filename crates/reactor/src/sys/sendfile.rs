//! sendfile(2): a part of a file into a socket.
#![allow(unsafe_code)]

use std::{fs::File, io};

use super::Borrowed;

/// Whether there is a sendfile(2) that is used here.
pub(crate) const HAS_SENDFILE: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Moves at most so many bytes from this place on, in a thread for files, where SIGPIPE is blocked; says how many were moved. Fewer: the socket is
/// full, or the file has ended. None: it has ended before.
///
/// # Errors
/// As sendfile(2): EAGAIN when the socket was full already; EINTR is not seen.
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

/// Cuts a stream's socket off from its peer, for everybody who holds a descriptor of it: a TCP peer sees a reset.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn sever(socket: Borrowed<'_>) {
    use std::os::fd::AsRawFd;
    let nobody = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let length = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the descriptor is borrowed for this call, and the pointer and the length are those of a live address.
    let is_reset = unsafe { libc::connect(socket.as_raw_fd(), &nobody, length) } == 0;
    if !is_reset {
        // Not TCP: such a peer knows no resets.
        let _ = socket2::SockRef::from(&socket).shutdown(std::net::Shutdown::Both);
    }
}

/// Cuts nothing off: nobody asks where [`HAS_SENDFILE`] is false.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn sever(_: Borrowed<'_>) {}

/// Moves nothing: nobody asks where [`HAS_SENDFILE`] is false.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn send_file(_: Borrowed<'_>, _: &File, _: u64, _: u64) -> io::Result<u64> {
    Err(io::ErrorKind::Unsupported.into())
}
