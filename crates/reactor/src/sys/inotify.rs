//! The three calls of inotify(7). Other modules read and parse the events.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// Calls inotify_init1(2): non-blocking and CLOEXEC.
pub(crate) fn inotify_open() -> io::Result<OwnedFd> {
    // SAFETY: inotify_init1 takes no pointer.
    let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above gave this descriptor to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Calls inotify_add_watch(2), and returns the watch's number. If the file is watched already, that watch's
/// number is returned.
pub(crate) fn inotify_add(to: BorrowedFd<'_>, path: &Path, mask: u32) -> io::Result<i32> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path ends with a NUL and lives through the call.
    let number = unsafe { libc::inotify_add_watch(to.as_raw_fd(), path.as_ptr(), mask) };
    if number < 0 { Err(io::Error::last_os_error()) } else { Ok(number) }
}

/// Calls inotify_rm_watch(2).
pub(crate) fn inotify_remove(from: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    // SAFETY: inotify_rm_watch takes no pointer.
    let result = unsafe { libc::inotify_rm_watch(from.as_raw_fd(), number) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
