//! What socket2 lacks on Unix: the calls with pointers, and descriptors kept by number.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
    ptr,
};

use crate::engine::{Source, Transport};

/// A descriptor that is watched and belongs to somebody else, who keeps it open until it is unwatched.
#[derive(Clone, Copy)]
pub(crate) struct Watched(RawFd);

impl Watched {
    /// Remembers the source's descriptor; a virtual source has none.
    pub(crate) fn new(source: Source<'_>) -> Option<Watched> {
        source.descriptor().map(|descriptor| Watched(descriptor.as_raw_fd()))
    }

    /// The source, to be told to a poll and to nobody else.
    pub(crate) fn with<T>(self, tell: impl FnOnce(Source<'_>) -> T) -> T {
        // SAFETY: the engine's contract has the owner unwatch a descriptor before it closes it, and an
        // entry of the table that holds `self` ends there. An owner who breaks this reaches a poll's
        // set with a wrong number, which the kernel answers with EBADF or ENOENT: no memory is at stake.
        let descriptor = unsafe { BorrowedFd::borrow_raw(self.0) };
        tell(Source::of(&descriptor))
    }
}

/// A descriptor held back for the moment when there are no more.
pub(crate) struct Reserve {
    /// Only there to be closed.
    _held: OwnedFd,
}

impl Reserve {
    /// Takes one, if there is one.
    pub(crate) fn take() -> Option<Reserve> {
        File::open("/dev/null").ok().map(|file| Reserve { _held: file.into() })
    }
}

/// Makes a stream's transport of a socket that somebody else opened: non-blocking and CLOEXEC.
pub(crate) fn adopt(descriptor: OwnedFd) -> io::Result<Transport> {
    let socket = socket2::Socket::from(descriptor);
    socket.set_nonblocking(true)?;
    socket.set_cloexec(true)?;
    Ok(Transport::new(socket))
}

/// Whether the error says that the process or the system has no descriptor left.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// read(2), once.
#[inline]
pub(crate) fn read_descriptor(from: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of one live, exclusively borrowed slice.
    let count = unsafe { libc::read(from.as_raw_fd(), into.as_mut_ptr().cast(), into.len()) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// recv(2), once.
#[inline]
pub(crate) fn receive_descriptor(from: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of one live, exclusively borrowed slice.
    let count = unsafe { libc::recv(from.as_raw_fd(), into.as_mut_ptr().cast(), into.len(), 0) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// poll(2), once; how many entries tell something.
pub(crate) fn poll(entries: &mut [libc::pollfd], timeout_ms: i32) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of one live, exclusively borrowed slice.
    let count = unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, timeout_ms) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// writev(2), once, for what is no socket. SIGPIPE is held back for the moment of the call, so that the
/// program need not ignore it.
pub(super) fn write_without_signal(to: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let pipe = signal_set(Some(libc::SIGPIPE));
    let was_pending = is_pipe_pending();
    let mut before = signal_set(None);
    // SAFETY: both sets are initialised and live; the mask concerns this thread only.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &pipe, &mut before) };
    // SAFETY: `IoSlice` is documented to have the layout of iovec, and the slices live through the call.
    let count = unsafe { libc::writev(to.as_raw_fd(), slices.as_ptr().cast(), slices.len() as i32) };
    let result = usize::try_from(count).map_err(|_| io::Error::last_os_error());
    if !was_pending && matches!(&result, Err(e) if e.kind() == io::ErrorKind::BrokenPipe) {
        take_pipe_signal(&pipe);
    }
    // SAFETY: `before` was filled by the first call and is live.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut()) };
    result
}

fn signal_set(signal: Option<libc::c_int>) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: the pointer is to a live set, which the call initialises.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    if let Some(signal) = signal {
        // SAFETY: the set was initialised above, and the signal's number is one of the platform's.
        unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    }
    // SAFETY: sigemptyset initialised it.
    unsafe { set.assume_init() }
}

fn is_pipe_pending() -> bool {
    let mut pending = signal_set(None);
    // SAFETY: the pointer is to a live set.
    unsafe { libc::sigpending(&mut pending) };
    // SAFETY: the set is initialised.
    unsafe { libc::sigismember(&pending, libc::SIGPIPE) == 1 }
}

/// Takes the signal which the broken pipe left pending, so that it is not delivered when the mask goes.
fn take_pipe_signal(pipe: &libc::sigset_t) {
    // An ignored signal was never made pending, and waiting for it would not end.
    if is_pipe_pending() {
        let mut taken = 0;
        // SAFETY: both pointers are to live values; the signal is pending, so this does not block.
        unsafe { libc::sigwait(pipe, &mut taken) };
    }
}
