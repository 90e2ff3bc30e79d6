//! What is asked of terminals and serial ports besides bytes: the window's size, exclusive use.
#![allow(unsafe_code)]

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd as _, BorrowedFd},
};

/// Columns and rows of a terminal's window: TIOCGWINSZ of ioctl_tty(2).
pub(crate) fn window_size(of: BorrowedFd<'_>) -> io::Result<(u16, u16)> {
    let mut size = MaybeUninit::<libc::winsize>::zeroed();
    // SAFETY: the pointer is to a live value of the type that this request fills.
    if unsafe { libc::ioctl(of.as_raw_fd(), libc::TIOCGWINSZ as _, size.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeroes is a valid winsize, and the call filled it.
    let size = unsafe { size.assume_init() };
    Ok((size.ws_col, size.ws_row))
}

/// Whether this process's group is the one that the terminal listens to: tcgetpgrp(3).
pub(crate) fn is_foreground(of: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: takes no pointer.
    let foreground = unsafe { libc::tcgetpgrp(of.as_raw_fd()) };
    if foreground < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes nothing, and cannot fail.
    Ok(foreground == unsafe { libc::getpgrp() })
}

/// Refuses the terminal to others: TIOCEXCL of ioctl_tty(2).
#[cfg(feature = "serial")]
pub(crate) fn make_exclusive(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // The type of a request is not the same on all systems.
    // SAFETY: this request takes no argument.
    match unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCEXCL as _) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
