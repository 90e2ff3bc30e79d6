//! Descriptors that this process was started with.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd, RawFd},
};

/// Takes descriptors by their numbers: all, CLOEXEC from here on, or none. The caller sees to it that each is
/// taken once, and that nobody else has taken one.
///
/// # Errors
/// As fcntl(2): EBADF for one that is not open. `InvalidData` for one that was opened by this program: what is
/// CLOEXEC was not inherited.
pub(crate) fn take(numbers: std::ops::Range<RawFd>) -> io::Result<Vec<OwnedFd>> {
    for number in numbers.clone() {
        // SAFETY: fcntl with F_GETFD takes no pointer.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
        if flags < 0 {
            return Err(io::Error::last_os_error());
        }
        if flags & libc::FD_CLOEXEC != 0 {
            let why = format!("descriptor {number} was not inherited: this program opened it");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
    }
    // SAFETY: it is open and was inherited, as seen above, and nobody has taken it: the caller says so.
    let all = numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) }).collect::<Vec<_>>();
    all.iter().try_for_each(super::rights::close_on_exec)?;
    Ok(all)
}

/// The system's monotonic clock, in microseconds, as other processes see it.
///
/// # Errors
/// As clock_gettime(2).
pub(crate) fn monotonic_micros() -> io::Result<u64> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to one live value.
    match unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) } {
        0 => Ok(now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000),
        _ => Err(io::Error::last_os_error()),
    }
}
