//! sendfile(2): a part of a file into a socket.
#![allow(unsafe_code)]

use std::{fs::File, io};

use super::Borrowed;

/// Whether there is a sendfile(2) that is used here.
pub(crate) const HAS_SENDFILE: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Moves at most so many bytes from this place on, in a thread for files; says how many were moved. Fewer: the socket is
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
    hold_back_pipe_signal();
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

/// Blocks SIGPIPE in this thread, for its life: it is one of the runtime's own, which of a user's runs only what makes messages, and a signal
/// that is pending there for ever harms nobody. A library may run in a program that does not ignore the signal.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn hold_back_pipe_signal() {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: the pointer is to a live set, which the call initialises.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set was initialised above, and the signal's number is one of the platform's.
    unsafe { libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE) };
    // SAFETY: the set is initialised and live; the mask concerns this thread only.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) };
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
