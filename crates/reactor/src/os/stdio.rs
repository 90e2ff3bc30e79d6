//! Standard input, output and error as transports of streams. Unix.
//!
//! ```no_run
//! use reactor::{Bytes, Context, Event, Handle, Id, Result, Service, Stream};
//!
//! /// Copies its input to its output, as cat(1).
//! struct Cat(Option<Id<Stream<Bytes, (), Out>>>);
//! struct Out;
//!
//! impl Service for Cat {
//!     fn start(&mut self, cx: &mut Context<Self>) -> Result {
//!         let input = Stream::new(Bytes).through(cx.stdin()?);
//!         let output = Stream::new(Bytes).role::<Out>().through(cx.stdout()?);
//!         let (input, output) = (cx.add(input)?, cx.add(output)?);
//!         // The input pauses while the output is full, and its end is passed on.
//!         cx.pair(input, output)?;
//!         self.0 = Some(output);
//!         Ok(())
//!     }
//! }
//!
//! impl Handle<Stream> for Cat {
//!     fn handle(&mut self, cx: &mut Context<Self>, _: Id<Stream>, event: Event<Bytes>) -> Result {
//!         if let (Event::Received(bytes), Some(output)) = (event, self.0) {
//!             cx.send(output, bytes);
//!         }
//!         Ok(())
//!     }
//! }
//!
//! impl Handle<Stream<Bytes, (), Out>> for Cat {
//!     fn handle(
//!         &mut self,
//!         _: &mut Context<Self>,
//!         _: Id<Stream<Bytes, (), Out>>,
//!         _: Event<Bytes>,
//!     ) -> Result {
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> Result {
//!     reactor::run(Cat(None))?;
//!     Ok(())
//! }
//! ```
//!
//! # Guarantees
//!
//! **Other users of the same open file notice nothing.** O_NONBLOCK belongs to the open file, not to the
//! descriptor. Set on a terminal, it would affect the shell and outlast this process. So the library never
//! sets it on an inherited descriptor. It opens a pipe or terminal again, through `/proc/self/fd`, to get an
//! open file of its own. Where that fails (another user's terminal, no `/proc`, not Linux), it uses the
//! inherited open file in blocking mode: it performs one operation after poll(2) has reported that it would
//! not block, and writes at most PIPE_BUF bytes. Sockets need none of this, because their calls take a flag
//! for not waiting.
//!
//! **Files work too, although nothing can poll them.** A thread reads a file or `/dev/null` into a local socket,
//! which bounds the input. The stream ends at the end of the file. At a read error it closes as
//! [`Closed::Failed`](crate::Closed::Failed) with ECONNRESET, because the thread cannot pass the file's own error
//! through the socket (on Linux; elsewhere such a socket cannot fail, and the stream ends). Output to a file is
//! written at the end of the turn, and takes as long as the disk does.
//!
//! **No signals.** When the reader of standard output has left, the stream gets
//! [`Event::End`](crate::Event::End), and a write then fails with EPIPE, whether SIGPIPE is ignored or not.
//! Using a terminal from the background does not stop the process (SIGTTIN, SIGTTOU), and writing to it
//! succeeds.
//!
//! **Reading a terminal from the background fails**, as it does for any process that ignores SIGTTIN or is in
//! an orphaned process group. The stream closes as [`Closed::Failed`](crate::Closed::Failed) with EIO, and
//! other resources are unaffected. The typed input stays there for the foreground process. A terminal that
//! has hung up is a different case: the stream gets [`Event::End`](crate::Event::End). To go on reading when
//! the shell brings the process to the foreground (`fg`), wait for
//! [`Signal::CONT`](crate::signals::Signal::CONT). If [`is_foreground`](crate::terminal::is_foreground) then
//! returns true, add a new stream over `cx.stdin()`.
//!
//! Descriptors 0, 1 and 2 stay open, so the reader of standard output sees the end only when the process
//! ends. The streams bypass the buffers of `print!` and `std::io::stdin`, so use either these or those.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use socket2::{Domain, Socket, Type};

use crate::{
    engine::{Medium, Transport},
    sys,
};

/// Returns standard input, for a read-only stream.
///
/// # Errors
/// As fstat(2), open(2), dup(2) and socketpair(2). EISDIR for a directory. An error if the system has no thread
/// for reading a file.
pub fn stdin() -> io::Result<Transport> {
    input_from(io::stdin().as_fd())
}

/// Returns standard output, for a write-only stream.
///
/// # Errors
/// As fstat(2), open(2) and dup(2).
pub fn stdout() -> io::Result<Transport> {
    output_to(io::stdout().as_fd())
}

/// Returns standard error, for a write-only stream.
///
/// # Errors
/// As fstat(2), open(2) and dup(2).
pub fn stderr() -> io::Result<Transport> {
    output_to(io::stderr().as_fd())
}

/// Keeps a terminal in raw mode while it lives: each key arrives at once, without echo, and `^C` is a byte.
///
/// The previous mode is restored when this is dropped, also during a panic. It is also restored where nothing
/// is dropped: by [`exit`](std::process::exit), at the end of `main`, and before a panic aborts a program
/// built with `panic = "abort"`. It is not restored if a signal or [`abort`](std::process::abort) ends the
/// process, so a program that should survive SIGTERM stops by [`Graceful`](crate::signals::Graceful).
/// Restoring works from the background, too.
///
/// A child of fork(2) leaves its parent's terminal as it is, whether it drops the copy of this or exits.
///
/// ```no_run
/// use reactor::stdio::Raw;
/// let raw = Raw::enter(std::io::stdin())?;
/// // A stream over `cx.stdin()` now gets each key.
/// raw.leave()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Raw {
    change: sys::terminal::RawChange,
}

impl Raw {
    /// Switches a terminal to raw mode, as cfmakeraw(3) does.
    ///
    /// # Errors
    /// As tcsetattr(3). ENOTTY if this is not a terminal.
    pub fn enter(terminal: impl AsFd) -> io::Result<Raw> {
        Ok(Raw { change: sys::terminal::make_raw(terminal.as_fd())? })
    }

    /// Restores the previous mode, and reports whether that worked.
    ///
    /// # Errors
    /// As tcsetattr(3). EIO if the terminal is gone. In a child of the process that entered it nothing is restored.
    pub fn leave(self) -> io::Result<()> {
        sys::terminal::restore(self.change)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // This fails if the terminal is gone, or in a child of this process. Then there is nothing to restore.
        let _ = sys::terminal::restore(self.change);
    }
}

/// Opens input from a descriptor that may share its open file with other processes, and may be a file; see
/// [`stdin`].
///
/// # Errors
/// As [`stdin`].
pub fn input_from(shared: BorrowedFd<'_>) -> io::Result<Transport> {
    let Some(medium) = sys::file::medium(shared)? else { return pumped(shared) };
    let medium = medium.only(Medium::READER);
    if medium.is_socket() {
        return Ok(Transport::of(shared.try_clone_to_owned()?, medium));
    }
    if !can_be_waited_for(shared, medium) {
        return pumped(shared);
    }
    match sys::file::open_again(shared, medium) {
        // A named pipe that is opened again after its last writer has left never reports the hang-up. The
        // inherited descriptor does.
        Ok(ours) if !sys::file::is_hung_up(shared) => Ok(Transport::of(ours, medium)),
        _ => Ok(Transport::of(shared.try_clone_to_owned()?, medium.shared())),
    }
}

/// Opens output to a descriptor that may share its open file with other processes, and may be a file; see
/// [`stdout`].
///
/// # Errors
/// As [`stdout`].
pub fn output_to(shared: BorrowedFd<'_>) -> io::Result<Transport> {
    let medium = sys::file::medium(shared)?.unwrap_or(Medium::WRITER.unwaited()).only(Medium::WRITER);
    if medium.is_socket() || !can_be_waited_for(shared, medium) {
        // On a write-only socket the input belongs to somebody else, so it must not be watched.
        return Ok(Transport::of(shared.try_clone_to_owned()?, medium.unwaited()));
    }
    match sys::file::open_again(shared, medium) {
        Ok(ours) => Ok(Transport::of(ours, medium)),
        Err(_) => Ok(Transport::of(shared.try_clone_to_owned()?, medium.shared())),
    }
}

/// Returns whether poll(2) says more about this than "always ready": true for a pipe or a terminal, false for
/// `/dev/null`.
fn can_be_waited_for(descriptor: BorrowedFd<'_>, medium: Medium) -> bool {
    medium.is_terminal() || sys::file::is_pipe(descriptor)
}

/// Starts a thread that reads something that cannot be polled, and writes it into a local socket.
///
/// A socket and not a pipe, because a pipe has only one end, and the end of a file and a read error must not look
/// alike. The kernel resets the peer of a local socket that is closed with unread input. So there is one byte of
/// input, which the thread takes only at the end of the file. A thread that dies does not take it either.
fn pumped(from: BorrowedFd<'_>) -> io::Result<Transport> {
    // Fail now if this cannot be read at all. Otherwise the service would see an empty file.
    sys::read(crate::Source::of(&from), &mut [])?;
    let from = from.try_clone_to_owned()?;
    let (reader, writer) = Socket::pair(Domain::UNIX, Type::STREAM, None)?;
    reader.set_nonblocking(true)?;
    reader.send(&[0])?;
    let work = move || {
        if pump(&from, &writer) {
            // If the reader has left, nobody is left who could be misled.
            let _ = sys::read(crate::Source::of(&writer), &mut [0]);
        }
        // Close the file before the socket, so that a service that sees the end finds the file closed.
        drop(from);
        drop(writer);
    };
    std::thread::Builder::new().name("reactor-stdin".to_owned()).spawn(work)?;
    Ok(Transport::of(reader, Medium::SOCKET.only(Medium::READER)))
}

/// Copies until either side ends, and returns whether that was the end of the file. A socket whose peer is gone is
/// an error, so the thread ends with its reader.
fn pump(from: &OwnedFd, to: &Socket) -> bool {
    let mut buffer = vec![0; PUMP_BYTES];
    loop {
        let mut left = match sys::read(crate::Source::of(from), &mut buffer) {
            Ok(0) => return true,
            Ok(count) => &buffer[..count],
            Err(_) => return false,
        };
        while !left.is_empty() {
            match sys::send_waiting(to.as_fd(), left) {
                Ok(taken) => left = &left[taken..],
                Err(_) => return false,
            }
        }
    }
}

/// How many bytes the thread reads at once.
const PUMP_BYTES: usize = 64 * 1024;
