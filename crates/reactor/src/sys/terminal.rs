//! A terminal's attributes: raw, and what they were, restored at the latest when the process exits.
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

use super::{again_if_interrupted, file::holding};

/// A terminal that is raw, and what it was.
struct Changed {
    number: u64,
    terminal: OwnedFd,
    before: libc::termios,
}

/// All that are raw now, the last one last.
static CHANGED: Mutex<Vec<Changed>> = Mutex::new(Vec::new());

/// The next number. None is given twice: who restores late, or twice, names nobody else's.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Makes a terminal raw; the number names it to [`restore`].
///
/// # Errors
/// As tcgetattr(3) and tcsetattr(3): ENOTTY for what is none; no room for a descriptor.
pub(crate) fn make_raw(terminal: BorrowedFd<'_>) -> io::Result<u64> {
    let terminal = terminal.try_clone_to_owned()?;
    let before = attributes(terminal.as_fd())?;
    let mut raw = before;
    // SAFETY: the pointer is to a live value that tcgetattr has filled.
    unsafe { libc::cfmakeraw(&mut raw) };
    restore_at_exit();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut changed = CHANGED.lock().unwrap_or_else(PoisonError::into_inner);
    set_attributes(terminal.as_fd(), &raw)?;
    changed.push(Changed { number, terminal, before });
    Ok(number)
}

/// Makes a terminal what it was.
///
/// # Errors
/// As tcsetattr(3).
pub(crate) fn restore(number: u64) -> io::Result<()> {
    let mut changed = CHANGED.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(at) = changed.iter().position(|changed| changed.number == number) else { return Ok(()) };
    let Changed { terminal, before, .. } = changed.remove(at);
    set_attributes(terminal.as_fd(), &before)
}

/// Makes all terminals what they were: the last that was changed first, as their guards would.
fn restore_all() {
    // Not waited for: who holds the lock may be the very thread that exits, in a handler of a signal.
    let Ok(mut changed) = CHANGED.try_lock() else { return };
    while let Some(Changed { terminal, before, .. }) = changed.pop() {
        let _ = set_attributes(terminal.as_fd(), &before);
    }
}

extern "C" fn at_exit() {
    restore_all();
}

/// Has everything be restored by exit(3), and before a panic ends the process without unwinding.
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

/// At once, and also from the background, where SIGTTOU would stop the process.
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
