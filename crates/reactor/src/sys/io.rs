//! Reads and writes on any descriptor: one operation for each call.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
};

use session::Outgoing;
use socket2::SockRef;

use super::{Borrowed, read_descriptor, receive_descriptor, send_descriptor};
use crate::engine::{Medium, Source};

/// The outcome of one write.
pub(crate) struct Written {
    /// How many bytes the system took.
    pub(crate) taken: usize,
    /// How many bytes it was offered. The system takes fewer only if it has no more room.
    pub(crate) offered: usize,
}

/// Reads once.
///
/// # Errors
/// As read(2); `Unsupported` for a virtual source.
#[inline]
pub(crate) fn read(source: Source<'_>, into: &mut [u8]) -> io::Result<usize> {
    let descriptor = source.real()?;
    again_if_interrupted(|| read_descriptor(descriptor, into))
}

/// Receives once from a stream. Uses recv(2) on a socket, because it costs less than read(2), and read(2)
/// otherwise.
///
/// # Errors
/// As recv(2) and read(2).
#[inline(always)]
pub(crate) fn receive(from: Borrowed<'_>, medium: Medium, into: &mut [u8]) -> io::Result<usize> {
    #[cfg(unix)]
    if !medium.is_socket() {
        return super::file::receive(from, medium, into);
    }
    #[cfg(not(unix))]
    let _ = medium;
    // Do not retry after an error. The system reports it only once, and a second call would look like an end.
    match receive_descriptor(from, into) {
        Err(e) if e.kind() == io::ErrorKind::Interrupted => {
            again_if_interrupted(|| receive_descriptor(from, into))
        }
        #[cfg(unix)]
        Err(e) if e.raw_os_error() == Some(libc::ENOTSOCK) => {
            again_if_interrupted(|| read_descriptor(from, into))
        }
        result => result,
    }
}

/// Returns whether a stream whose peer is gone has unread input. `false`: a read finds the end.
///
/// # Errors
/// `WouldBlock`: a read finds neither. Others as recv(2), if the connection has failed and no input is before that; the
/// system does not report such an error again.
pub(crate) fn has_input(of: Borrowed<'_>, medium: Medium) -> io::Result<bool> {
    #[cfg(unix)]
    if !medium.is_socket() {
        return Ok(medium.has_input() && super::unix::unread(of) > 0);
    }
    #[cfg(not(unix))]
    let _ = medium;
    let socket = SockRef::from(&of);
    let peek = || socket.recv_with_flags(&mut [MaybeUninit::uninit()], PEEK);
    match again_if_interrupted(peek) {
        #[cfg(unix)]
        Err(e) if e.raw_os_error() == Some(libc::ENOTSOCK) => Ok(super::unix::unread(of) > 0),
        result => result.map(|count| count > 0),
    }
}

/// Takes the error that a socket has failed with. The system reports it once.
pub(crate) fn take_error(of: Borrowed<'_>) -> Option<io::Error> {
    SockRef::from(&of).take_error().ok().flatten()
}

/// Writes the front of the queue once; the caller advances the queue.
///
/// # Errors
/// As [`offer`]; `Unsupported` for a virtual source.
pub(crate) fn write(source: Source<'_>, from: &Outgoing) -> io::Result<usize> {
    offer(source.real()?, Medium::SOCKET, from).map(|written| written.taken)
}

/// Offers up to [`SLICES_MAX`] parts from the front of the queue to the system, once.
///
/// # Errors
/// As sendmsg(2) or writev(2). `WriteZero` if the system takes nothing and reports no error.
#[inline(always)]
pub(crate) fn offer(to: Borrowed<'_>, medium: Medium, from: &Outgoing) -> io::Result<Written> {
    #[cfg(unix)]
    if !medium.is_socket() {
        return super::file::offer(to, medium, from);
    }
    #[cfg(not(unix))]
    let _ = medium;
    let front = from.front();
    if front.len() < from.len() {
        return offer_parts(to, from);
    }
    match send_descriptor(to, front, FLAGS) {
        Ok(taken) if taken > 0 => Ok(Written { taken, offered: front.len() }),
        // The system reports a socket's error only once, so return it. Retry only errors that say nothing
        // about the socket.
        Err(e) if !is_retried(&e) => Err(e),
        _ => offer_slices(to, &[IoSlice::new(front)]),
    }
}

fn is_retried(error: &io::Error) -> bool {
    #[cfg(unix)]
    if error.raw_os_error() == Some(libc::ENOTSOCK) {
        return true;
    }
    error.kind() == io::ErrorKind::Interrupted
}

/// Offers several parts. This is a separate function so that the common case does not pay for the table of
/// slices.
#[inline(never)]
fn offer_parts(to: Borrowed<'_>, from: &Outgoing) -> io::Result<Written> {
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let count = from.slices(&mut slices);
    offer_slices(to, &slices[..count])
}

fn offer_slices(to: Borrowed<'_>, slices: &[IoSlice<'_>]) -> io::Result<Written> {
    let offered = slices.iter().map(|slice| slice.len()).sum();
    match again_if_interrupted(|| send(to, slices))? {
        0 if offered > 0 => Err(io::ErrorKind::WriteZero.into()),
        taken => Ok(Written { taken, offered }),
    }
}

fn send(to: Borrowed<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let socket = SockRef::from(&to);
    let result = match slices {
        [one] => socket.send_with_flags(one, FLAGS),
        many => socket.send_vectored_with_flags(many, FLAGS),
    };
    #[cfg(unix)]
    if matches!(&result, Err(e) if e.raw_os_error() == Some(libc::ENOTSOCK)) {
        return super::file::write_any(to, slices);
    }
    result
}

/// Repeats an operation that a signal interrupted before it had any effect.
pub(crate) fn again_if_interrupted<T>(mut operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match operation() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Sends once to a socket in blocking mode, and waits for room. A peer that is gone is an error and never a signal.
///
/// # Errors
/// As send(2).
#[cfg(unix)]
pub(crate) fn send_waiting(to: Borrowed<'_>, bytes: &[u8]) -> io::Result<usize> {
    let socket = SockRef::from(&to);
    again_if_interrupted(|| socket.send_with_flags(bytes, FLAGS & !libc::MSG_DONTWAIT))
}

/// The most parts of a queue in one write. The kernel needs one page for their addresses, and a turn rarely
/// queues that many.
pub(super) const SLICES_MAX: usize = 64;

// Apple's systems lack MSG_NOSIGNAL; socket2 sets a socket option for it instead. MSG_DONTWAIT covers sockets
// that others share and left in blocking mode.
#[cfg(all(unix, not(target_vendor = "apple")))]
const FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
#[cfg(target_vendor = "apple")]
const FLAGS: i32 = libc::MSG_DONTWAIT;
#[cfg(not(unix))]
const FLAGS: i32 = 0;
// It does not wait either.
#[cfg(unix)]
const PEEK: i32 = libc::MSG_PEEK | libc::MSG_DONTWAIT;
/// MSG_PEEK of Winsock.
#[cfg(not(unix))]
const PEEK: i32 = 2;

#[cfg(all(test, unix))]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::UnixStream,
    };

    use session::Shared;

    use super::*;

    #[test]
    fn one_part_and_many_parts_arrive_in_order_up_to_the_limit() {
        for parts in [1, 2, SLICES_MAX - 1, SLICES_MAX, SLICES_MAX + 1] {
            let (ours, mut theirs) = UnixStream::pair().expect("a pair");
            let mut queue = Outgoing::new();
            for part in 0..parts {
                queue.share(Shared::from(vec![part as u8; 600]));
            }
            let written =
                offer(std::os::fd::AsFd::as_fd(&ours), Medium::SOCKET, &queue).expect("there is room");
            let expected = parts.min(SLICES_MAX) * 600;
            assert_eq!((written.offered, written.taken), (expected, expected), "{parts} parts");
            let mut bytes = vec![0; expected];
            theirs.read_exact(&mut bytes).expect("what was written");
            assert!(bytes.chunks(600).enumerate().all(|(part, chunk)| chunk == [part as u8; 600]));
        }
    }

    #[test]
    fn a_pipe_is_read_and_written_and_its_break_is_an_error() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let mut queue = Outgoing::new();
        queue.put(b"through a pipe");
        assert_eq!(write(Source::of(&writer), &queue).expect("there is room"), 14);
        let mut bytes = [0; 64];
        assert_eq!(reader.read(&mut bytes[..7]).expect("input"), 7);
        assert_eq!(read(Source::of(&reader), &mut bytes).expect("input"), 7);
        assert_eq!(&bytes[..7], b" a pipe");
        drop(reader);
        let error = write(Source::of(&writer), &queue).expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_closed_end_is_an_error_and_a_virtual_source_is_not_supported() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        theirs.write_all(b"x").expect("there is room");
        drop(theirs);
        let mut queue = Outgoing::new();
        queue.put(b"late");
        let error = write(Source::of(&ours), &queue).expect_err("the peer is gone");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        let error = read(Source::hosted(1), &mut [0; 1]).expect_err("there is no descriptor");
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    }
}
