//! inotify(7): its three calls. What its descriptor says is read and parsed elsewhere.
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

/// inotify_init1(2): non-blocking and CLOEXEC.
pub(crate) fn inotify_open() -> io::Result<OwnedFd> {
    // SAFETY: inotify_init1 takes no pointer.
    let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above gave this descriptor to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// inotify_add_watch(2): the watch's number, an old one where the file behind the path is watched already.
pub(crate) fn inotify_add(to: BorrowedFd<'_>, path: &Path, mask: u32) -> io::Result<i32> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path ends with a NUL and lives through the call.
    let number = unsafe { libc::inotify_add_watch(to.as_raw_fd(), path.as_ptr(), mask) };
    if number < 0 { Err(io::Error::last_os_error()) } else { Ok(number) }
}

/// inotify_rm_watch(2).
pub(crate) fn inotify_remove(from: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    // SAFETY: inotify_rm_watch takes no pointer.
    let result = unsafe { libc::inotify_rm_watch(from.as_raw_fd(), number) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
