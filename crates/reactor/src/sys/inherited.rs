//! Descriptors that this process was started with.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd, RawFd},
};

/// Takes all descriptors with these numbers, or none. They are CLOEXEC from then on. The caller ensures that
/// each is taken once, and that no other code has taken it.
///
/// # Errors
/// As fcntl(2), for example EBADF if one is not open. `InvalidData` if this program opened one itself: a
/// descriptor that is CLOEXEC was not inherited.
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
    // SAFETY: the descriptor is open and inherited, as checked above. The caller ensures that nobody has
    // taken it.
    let all = numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) }).collect::<Vec<_>>();
    all.iter().try_for_each(super::rights::close_on_exec)?;
    Ok(all)
}

/// Returns the system's monotonic clock in microseconds, as other processes see it.
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
