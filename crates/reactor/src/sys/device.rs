//! Terminals and serial ports, apart from their bytes: the window's size, and exclusive use.
#![allow(unsafe_code)]

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd as _, BorrowedFd},
};

/// Returns the columns and rows of a terminal's window: TIOCGWINSZ of ioctl_tty(2).
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

/// Returns whether this process's group is the terminal's foreground group: tcgetpgrp(3).
pub(crate) fn is_foreground(of: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: the call takes no pointer.
    let foreground = unsafe { libc::tcgetpgrp(of.as_raw_fd()) };
    if foreground < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call takes nothing, and cannot fail.
    Ok(foreground == unsafe { libc::getpgrp() })
}

/// Gives this process exclusive use of the terminal: TIOCEXCL of ioctl_tty(2).
#[cfg(feature = "serial")]
pub(crate) fn make_exclusive(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // The integer type of a request differs between systems, hence the cast.
    // SAFETY: this request takes no argument.
    match unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCEXCL as _) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
