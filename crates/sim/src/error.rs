//! The errors of the world. They have Linux's numbers, so that they are the same on every system.

use std::io::{Error, ErrorKind};

pub(crate) const NO_ENTRY: i32 = 2;
pub(crate) const IO: i32 = 5;
pub(crate) const BAD_DESCRIPTOR: i32 = 9;
#[cfg(unix)]
pub(crate) const NO_PROCESS: i32 = 3;
pub(crate) const AGAIN: i32 = 11;
pub(crate) const PERMISSION: i32 = 13;
pub(crate) const EXISTS: i32 = 17;
pub(crate) const INVALID: i32 = 22;
pub(crate) const TOO_MANY_FILES: i32 = 24;
pub(crate) const NO_SPACE: i32 = 28;
pub(crate) const BROKEN_PIPE: i32 = 32;
pub(crate) const NOT_SOCKET: i32 = 88;
pub(crate) const NO_DESTINATION: i32 = 89;
pub(crate) const MESSAGE_SIZE: i32 = 90;
pub(crate) const ADDRESS_IN_USE: i32 = 98;
pub(crate) const ADDRESS_NOT_AVAILABLE: i32 = 99;
pub(crate) const CONNECTION_RESET: i32 = 104;
pub(crate) const NOT_CONNECTED: i32 = 107;
pub(crate) const TIMED_OUT: i32 = 110;
pub(crate) const CONNECTION_REFUSED: i32 = 111;

/// Makes the error of a number.
pub(crate) fn os(number: i32) -> Error {
    if cfg!(target_os = "linux") {
        return Error::from_raw_os_error(number);
    }
    let kind = match number {
        NO_ENTRY => ErrorKind::NotFound,
        AGAIN => ErrorKind::WouldBlock,
        PERMISSION => ErrorKind::PermissionDenied,
        EXISTS => ErrorKind::AlreadyExists,
        INVALID => ErrorKind::InvalidInput,
        NO_SPACE => ErrorKind::StorageFull,
        BROKEN_PIPE => ErrorKind::BrokenPipe,
        ADDRESS_IN_USE => ErrorKind::AddrInUse,
        ADDRESS_NOT_AVAILABLE => ErrorKind::AddrNotAvailable,
        CONNECTION_RESET => ErrorKind::ConnectionReset,
        NOT_CONNECTED => ErrorKind::NotConnected,
        TIMED_OUT => ErrorKind::TimedOut,
        CONNECTION_REFUSED => ErrorKind::ConnectionRefused,
        _ => ErrorKind::Other,
    };
    kind.into()
}

/// Makes the error for a real descriptor.
pub(crate) fn no_descriptors() -> Error {
    Error::new(ErrorKind::Unsupported, "a simulated engine has no descriptors")
}
