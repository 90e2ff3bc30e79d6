//! Terminals and serial ports, apart from their bytes: the size of the window, exclusive use, and the raw mode
//! with the previous attributes, which are restored at the exit of the process at the latest. A child of
//! fork(2) restores only what it has changed itself: its parent's terminal stays raw.
#![allow(unsafe_code)]

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{Birthplace, again_if_interrupted, file::holding};

/// Names one change of a terminal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawChange {
    number: u64,
    birthplace: Birthplace,
}

/// A raw terminal, with its previous attributes.
struct Changed {
    change: RawChange,
    terminal: OwnedFd,
    before: libc::termios,
}

/// All terminals that are raw now, in the order of the changes.
static CHANGED: Mutex<Vec<Changed>> = Mutex::new(Vec::new());

/// The next number. Numbers are unique, so restoring late or twice cannot affect another change.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Makes a terminal raw. The result names the change for [`restore`].
///
/// # Errors
/// As tcgetattr(3) and tcsetattr(3): ENOTTY if it is not a terminal. An error if there is no descriptor left.
pub(crate) fn make_raw(terminal: BorrowedFd<'_>) -> io::Result<RawChange> {
    let terminal = terminal.try_clone_to_owned()?;
    let before = attributes(terminal.as_fd())?;
    let mut raw = before;
    // SAFETY: the pointer is to a live value that tcgetattr has filled.
    unsafe { libc::cfmakeraw(&mut raw) };
    restore_at_exit();
    let change = RawChange { number: NEXT.fetch_add(1, Ordering::Relaxed), birthplace: Birthplace::here() };
    let mut changed = CHANGED.lock().unwrap_or_else(PoisonError::into_inner);
    set_attributes(terminal.as_fd(), &raw)?;
    changed.push(Changed { change, terminal, before });
    Ok(change)
}

/// Restores a terminal's previous attributes.
///
/// # Errors
/// As tcsetattr(3). An error in a child of the process that made the change.
pub(crate) fn restore(change: RawChange) -> io::Result<()> {
    // Checked before the lock, which another thread of the parent may have held.
    change.birthplace.check()?;
    let mut changed = CHANGED.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(at) = changed.iter().position(|changed| changed.change.number == change.number) else {
        return Ok(());
    };
    let Changed { terminal, before, .. } = changed.remove(at);
    set_attributes(terminal.as_fd(), &before)
}

/// Restores all terminals that this process has changed, the latest change first, as their guards would do.
fn restore_all() {
    // Do not wait for the lock: a signal handler may have called exit(3) on the very thread that holds it.
    let Ok(mut changed) = CHANGED.try_lock() else { return };
    while let Some(Changed { change, terminal, before }) = changed.pop() {
        if change.birthplace.is_here() {
            let _ = set_attributes(terminal.as_fd(), &before);
        }
    }
}

extern "C" fn at_exit() {
    restore_all();
}

/// Arranges for everything to be restored by exit(3), and before a panic ends the process without unwinding.
fn restore_at_exit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the function is one of ours that lives as long as the process, and does not unwind.
        unsafe { libc::atexit(at_exit) };
        if cfg!(panic = "abort") {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore_all();
                before(info);
            }));
        }
    });
}

fn attributes(terminal: BorrowedFd<'_>) -> io::Result<libc::termios> {
    let mut attributes = MaybeUninit::<libc::termios>::zeroed();
    // SAFETY: the pointer is to a live value of the type that the call fills.
    if unsafe { libc::tcgetattr(terminal.as_raw_fd(), attributes.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeroes is a valid termios, and the call filled it.
    Ok(unsafe { attributes.assume_init() })
}

/// Sets the attributes at once. Works in the background, too, where SIGTTOU would otherwise stop the process.
fn set_attributes(terminal: BorrowedFd<'_>, attributes: &libc::termios) -> io::Result<()> {
    let set = || {
        // SAFETY: the pointer is to a live value that tcgetattr has filled.
        match unsafe { libc::tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, attributes) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    holding(&[libc::SIGTTOU], || again_if_interrupted(set))
}

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
