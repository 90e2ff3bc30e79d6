//! The errors of the double, with a kernel's errno if there is one.

use std::io::{Error, ErrorKind};

/// Builds an error of this kind as the system reports it.
#[cfg(unix)]
pub(crate) fn error(kind: ErrorKind) -> Error {
    let number = match kind {
        ErrorKind::ConnectionRefused => libc::ECONNREFUSED,
        ErrorKind::ConnectionReset => libc::ECONNRESET,
        ErrorKind::BrokenPipe => libc::EPIPE,
        ErrorKind::NotConnected => libc::ENOTCONN,
        ErrorKind::AddrInUse => libc::EADDRINUSE,
        ErrorKind::AddrNotAvailable => libc::EADDRNOTAVAIL,
        ErrorKind::WouldBlock => libc::EAGAIN,
        ErrorKind::AlreadyExists => libc::EEXIST,
        ErrorKind::InvalidInput => libc::EINVAL,
        _ => return kind.into(),
    };
    Error::from_raw_os_error(number)
}

/// Builds an error of this kind.
#[cfg(not(unix))]
pub(crate) fn error(kind: ErrorKind) -> Error {
    kind.into()
}

/// Builds the error for a source or transport that does not exist, or no longer exists.
pub(crate) fn bad_descriptor() -> Error {
    Error::from_raw_os_error(libc::EBADF)
}

/// Builds the error for one transport too many.
pub(crate) fn too_many() -> Error {
    Error::from_raw_os_error(libc::EMFILE)
}

/// Builds the error for a datagram that is too long.
pub(crate) fn too_long() -> Error {
    Error::from_raw_os_error(libc::EMSGSIZE)
}

/// Builds the error for a datagram without an address.
pub(crate) fn no_destination() -> Error {
    Error::from_raw_os_error(libc::EDESTADDRREQ)
}

/// Builds the error for a real descriptor.
pub(crate) fn no_descriptors() -> Error {
    Error::new(ErrorKind::Unsupported, "a virtual engine has no descriptors")
}
