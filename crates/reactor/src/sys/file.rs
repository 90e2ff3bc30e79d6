//! Descriptors that are not sockets: pipes, terminals and files. How to detect their kind, and how to read
//! and write them.
//!
//! **A broken pipe never raises a signal.** The library may run in a program that does not ignore SIGPIPE.
//! Linux has a flag for this on a single write, from 6.18 on. Without the flag, the write blocks the signal
//! in this thread, and discards it if the write left one pending.
//!
//! **A file at its size limit never raises a signal.** A write beyond RLIMIT_FSIZE raises SIGXFSZ and also
//! fails with EFBIG. No flag suppresses the signal, so a write to a file blocks it. The threads of the
//! library's pools block both signals all the time ([`block_write_signals`]), so their writes need no extra
//! call.
//!
//! **A terminal never stops the process.** Reading it in the background raises SIGTTIN, and writing it may
//! raise SIGTTOU. Both are blocked in the same way. Such a read then fails with EIO, and such a write
//! succeeds.
#![allow(unsafe_code)]

use std::{
    fs,
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd as _, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    ptr,
};

use session::Outgoing;

use super::{
    again_if_interrupted,
    io::{SLICES_MAX, Written},
    read_descriptor,
};
use crate::engine::Medium;

fn stat(of: BorrowedFd<'_>) -> io::Result<libc::stat> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the pointer is to a live value of the type that the call fills.
    if unsafe { libc::fstat(of.as_raw_fd(), stat.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeroes is a valid stat, and the call filled it.
    Ok(unsafe { stat.assume_init() })
}

/// Returns whether the descriptor is a pipe, named or not.
pub(crate) fn is_pipe(descriptor: BorrowedFd<'_>) -> bool {
    stat(descriptor).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFIFO)
}

/// Opens the descriptor's file once more, non-blocking, so that no other process shares the new open file.
///
/// # Errors
/// As open(2). `Unsupported` if the system cannot do this.
pub(crate) fn open_again(descriptor: BorrowedFd<'_>, medium: Medium) -> io::Result<OwnedFd> {
    // On other systems /dev/fd only duplicates the descriptor, and the open file stays shared.
    if cfg!(not(any(target_os = "linux", target_os = "android"))) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    let mut options = fs::OpenOptions::new();
    options.read(medium.has_input()).write(medium.has_output());
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).map(OwnedFd::from)
}

/// Determines what a descriptor can do. Returns `None` for a regular file, a directory or a disk, because
/// poll(2) cannot wait for them.
///
/// # Errors
/// As fstat(2) and fcntl(2).
pub(crate) fn medium(of: BorrowedFd<'_>) -> io::Result<Option<Medium>> {
    let mode = stat(of)?.st_mode;
    let directions = match flags(of)? & libc::O_ACCMODE {
        libc::O_RDONLY => Medium::READER,
        libc::O_WRONLY => Medium::WRITER,
        _ => Medium::DUPLEX,
    };
    Ok(match mode & libc::S_IFMT {
        libc::S_IFSOCK => Some(Medium::SOCKET),
        libc::S_IFREG | libc::S_IFDIR | libc::S_IFBLK => None,
        libc::S_IFCHR if is_terminal(of) => Some(directions.terminal()),
        _ => Some(directions),
    })
}

/// Returns the flags of the open file.
fn flags(of: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    // SAFETY: the descriptor is open, and the command takes no argument.
    let flags = unsafe { libc::fcntl(of.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 { Err(io::Error::last_os_error()) } else { Ok(flags) }
}

/// Makes the open file non-blocking and the descriptor CLOEXEC.
pub(super) fn make_ours(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let flags = flags(descriptor)? | libc::O_NONBLOCK;
    // SAFETY: the descriptor is open, and the argument is the number that the command takes.
    if unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_SETFL, flags) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    if unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Returns whether the descriptor is a terminal.
pub(crate) fn is_terminal(descriptor: BorrowedFd<'_>) -> bool {
    io::IsTerminal::is_terminal(&descriptor)
}

/// Returns the current events of poll(2), without waiting.
pub(crate) fn look(at: BorrowedFd<'_>, events: libc::c_short) -> io::Result<libc::c_short> {
    let mut entry = [libc::pollfd { fd: at.as_raw_fd(), events, revents: 0 }];
    again_if_interrupted(|| super::poll(&mut entry, 0))?;
    Ok(entry[0].revents)
}

/// Reads once. For a write-only descriptor, it only detects the end, that is, that the reader has left.
///
/// # Errors
/// As read(2). `WouldBlock` also if a shared open file has no input.
pub(crate) fn receive(from: BorrowedFd<'_>, medium: Medium, into: &mut [u8]) -> io::Result<usize> {
    if !medium.has_input() {
        let is_gone = look(from, 0)? & (libc::POLLERR | libc::POLLHUP) != 0;
        return if is_gone { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
    }
    if medium.is_shared() && look(from, libc::POLLIN)? == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let mut read = || again_if_interrupted(|| read_descriptor(from, into));
    if !medium.is_terminal() {
        return read();
    }
    match holding(&[libc::SIGTTIN], read) {
        // The other side of a pseudo-terminal has closed. Linux reports that as an error.
        Err(e) if e.raw_os_error() == Some(libc::EIO) && is_hung_up(from) => Ok(0),
        result => result,
    }
}

/// Returns whether the other side has closed. There may still be input to read.
pub(crate) fn is_hung_up(descriptor: BorrowedFd<'_>) -> bool {
    look(descriptor, libc::POLLIN).is_ok_and(|events| events & libc::POLLHUP != 0)
}

/// Offers the front of the queue once. The caller advances the queue.
///
/// # Errors
/// As writev(2). EBADF for a read-only descriptor. `WouldBlock` also if a shared open file has no room.
pub(crate) fn offer(to: BorrowedFd<'_>, medium: Medium, from: &Outgoing) -> io::Result<Written> {
    if !medium.has_output() {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    if medium.is_shared() {
        return offer_shared(to, medium, from.front());
    }
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let count = from.slices(&mut slices);
    offer_slices(to, medium, &slices[..count])
}

/// Writes at most PIPE_BUF bytes, because a writable descriptor in blocking mode takes that much without
/// blocking.
fn offer_shared(to: BorrowedFd<'_>, medium: Medium, front: &[u8]) -> io::Result<Written> {
    if look(to, libc::POLLOUT)? == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let front = &front[..front.len().min(libc::PIPE_BUF)];
    offer_slices(to, medium, &[IoSlice::new(front)])
}

fn offer_slices(to: BorrowedFd<'_>, medium: Medium, slices: &[IoSlice<'_>]) -> io::Result<Written> {
    let offered = slices.iter().map(|slice| slice.len()).sum();
    let write = || {
        if medium.is_terminal() {
            holding(&[libc::SIGPIPE, libc::SIGTTOU], || write_vectored(to, slices))
        } else if medium.is_unwaited() {
            write_file(to, slices)
        } else {
            write_without_signal(to, slices)
        }
    };
    match again_if_interrupted(write)? {
        0 if offered > 0 => Err(io::ErrorKind::WriteZero.into()),
        taken => Ok(Written { taken, offered }),
    }
}

/// Calls writev(2) once on a descriptor that is not a socket. A broken pipe is an error and never a signal.
pub(super) fn write_without_signal(to: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    match flagged::write(to, slices) {
        Some(result) => result,
        None => holding(&[libc::SIGPIPE], || write_vectored(to, slices)),
    }
}

/// Calls writev(2) once on a descriptor of any kind except a socket, and raises no signal.
pub(super) fn write_any(to: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    match stat(to) {
        Ok(stat) if stat.st_mode & libc::S_IFMT == libc::S_IFREG => write_file(to, slices),
        _ => write_without_signal(to, slices),
    }
}

/// Calls writev(2) once on a descriptor that may be a regular file. At the size limit it fails with EFBIG,
/// and raises no signal.
fn write_file(to: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    holding(WRITE_SIGNALS, || write_vectored(to, slices))
}

/// Blocks, in this thread and for its whole life, the signals that a write may raise. The thread belongs to
/// the library, so a signal that stays pending there does no harm.
pub(crate) fn block_write_signals() {
    let set = signal_set(WRITE_SIGNALS);
    // SAFETY: the set is initialised and live; the mask concerns this thread only.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut()) };
}

/// Returns whether this process has a limit on the size of files, so that a write may raise SIGXFSZ.
#[cfg(all(target_os = "linux", feature = "io-uring"))]
pub(crate) fn has_file_size_limit() -> bool {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live value of the type that the call fills.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) };
    result < 0 || limit.rlim_cur != libc::RLIM_INFINITY
}

/// The signals that a write may raise in addition to its error.
const WRITE_SIGNALS: &[libc::c_int] = &[libc::SIGPIPE, libc::SIGXFSZ];

fn write_vectored(to: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: `IoSlice` is documented to have the layout of iovec, and the slices live through the call.
    let count = unsafe { libc::writev(to.as_raw_fd(), slices.as_ptr().cast(), slices.len() as i32) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// A write with a flag that suppresses the signal.
#[cfg(target_os = "linux")]
mod flagged {
    use std::{
        io::{self, IoSlice},
        os::fd::{AsRawFd as _, BorrowedFd},
        sync::atomic::{AtomicBool, Ordering::Relaxed},
    };

    /// RWF_NOSIGNAL, since Linux 6.18.
    const NO_SIGNAL: libc::c_int = 0x100;
    static IS_KNOWN: AtomicBool = AtomicBool::new(true);

    /// Writes once, or returns `None` if the kernel or the file does not take the flag.
    pub(super) fn write(to: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> Option<io::Result<usize>> {
        if !IS_KNOWN.load(Relaxed) {
            return None;
        }
        let (fd, at, count) = (to.as_raw_fd(), slices.as_ptr(), slices.len());
        // No offset: the write goes to the current position, if the file has one.
        let offset: libc::c_long = -1;
        // SAFETY: `IoSlice` is documented to have the layout of iovec, and the slices live through the call.
        let taken = unsafe { libc::syscall(libc::SYS_pwritev2, fd, at, count, offset, offset, NO_SIGNAL) };
        let result = usize::try_from(taken).map_err(|_| io::Error::last_os_error());
        match result {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL)) => {
                // EINVAL means that this file takes no flags. The other two mean that the kernel never will.
                IS_KNOWN.store(e.raw_os_error() == Some(libc::EINVAL), Relaxed);
                None
            }
            result => Some(result),
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod flagged {
    use std::{
        io::{self, IoSlice},
        os::fd::BorrowedFd,
    };

    pub(super) fn write(_: BorrowedFd<'_>, _: &[IoSlice<'_>]) -> Option<io::Result<usize>> {
        None
    }
}

/// Runs an operation while these signals are blocked in this thread. A signal that the operation raised is
/// discarded. A signal that was blocked and pending before stays pending.
pub(super) fn holding<T>(signals: &[libc::c_int], operation: impl FnOnce() -> T) -> T {
    let held = signal_set(signals);
    let mut before = signal_set(&[]);
    // SAFETY: both sets are initialised and live; the mask concerns this thread only.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &held, &mut before) };
    let result = operation();
    for signal in signals {
        // A signal that was blocked before is somebody else's, pending or not.
        if !is_in(&before, *signal) && is_pending(*signal) {
            take_signal(*signal);
        }
    }
    // SAFETY: `before` was filled by the first call and is live.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut()) };
    result
}

fn signal_set(signals: &[libc::c_int]) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: the pointer is to a live set, which the call initialises.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in signals {
        // SAFETY: the set was initialised above, and the signal's number is one of the platform's.
        unsafe { libc::sigaddset(set.as_mut_ptr(), *signal) };
    }
    // SAFETY: sigemptyset initialised it.
    unsafe { set.assume_init() }
}

fn is_in(set: &libc::sigset_t, signal: libc::c_int) -> bool {
    // SAFETY: the set is initialised.
    unsafe { libc::sigismember(set, signal) == 1 }
}

fn is_pending(signal: libc::c_int) -> bool {
    let mut pending = signal_set(&[]);
    // SAFETY: the pointer is to a live set.
    unsafe { libc::sigpending(&mut pending) };
    is_in(&pending, signal)
}

/// Consumes a pending signal, so that restoring the mask does not deliver it. An ignored signal is never
/// pending.
fn take_signal(signal: libc::c_int) {
    let (set, mut taken) = (signal_set(&[signal]), 0);
    // SAFETY: both pointers are to live values; the signal is pending, so this does not block.
    unsafe { libc::sigwait(&set, &mut taken) };
}

#[cfg(test)]
mod tests;
