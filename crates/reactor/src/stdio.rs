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
//!         // The input rests while the output is full, and its end is passed on.
//!         cx.couple(input, output)?;
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
//!     fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream<Bytes, (), Out>>, _: Event<Bytes>) -> Result {
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
//! # What is promised
//!
//! **Others who share the open file notice nothing.** O_NONBLOCK belongs to the open file and not to the
//! descriptor: set on a terminal it would reach the shell, and stay behind. So it is never set on what was
//! inherited. A pipe or terminal is opened anew through `/proc/self/fd`, which gives an open file of our own.
//! Where that is refused (another user's terminal, no `/proc`, not Linux) the inherited one is used as it is, blocking,
//! one operation after poll(2) said that it would not block, and a write of at most PIPE_BUF bytes. Sockets
//! are used by calls that do not wait.
//!
//! **What cannot be waited for works too.** Input from a file or `/dev/null` is read by a thread into a pipe, which
//! bounds it; the end of the file is the end of the stream, and a read error as well. Output to a file is written at
//! the end of the turn, and takes as long as the disk does.
//!
//! **No signal.** When the reader of standard output has left the stream is told [`Event::End`](crate::Event::End),
//! and a write then fails with EPIPE, whether SIGPIPE is ignored or not. A terminal that is used from the
//! background does not stop the process (SIGTTIN, SIGTTOU), and writing to it succeeds.
//!
//! **Reading a terminal from the background fails**, as it does for any process that ignores SIGTTIN, and in a group
//! that nobody controls (an orphaned one): the stream closes as [`Closed::Failed`](crate::Closed::Failed) with EIO, and
//! the other resources go on. What was typed is still there, for whom it is meant. A terminal that has hung up is not
//! taken for that: it ends, by [`Event::End`](crate::Event::End). Whoever wants to read on when the shell brings
//! the process to the front (`fg`) waits for [`Signal::CONT`](crate::signals::Signal::CONT), and then, if
//! [`is_foreground`](crate::terminal::is_foreground) says so, adds a new stream over `cx.stdin()`.
//!
//! The descriptors 0, 1 and 2 stay open: the reader of standard output sees the end when the process has ended.
//! Bytes that `print!` and `std::io::stdin` keep in buffers of their own are not seen here, so a program uses
//! either these or those.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use crate::{
    context::Context,
    engine::{Medium, StandIn, Transport},
    error::Error,
    sys,
};

impl<S> Context<'_, S> {
    /// Standard input, for a stream that is only read; see [`stdio`](crate::stdio). In a simulated world, what
    /// is typed there.
    ///
    /// # Errors
    /// As [`stdio::stdin`](crate::stdio::stdin).
    pub fn stdin(&mut self) -> Result<Transport, Error> {
        self.standard(StandIn::Stdin, "stdin", stdin)
    }

    /// Standard output, for a stream that is only written.
    ///
    /// # Errors
    /// As [`stdio::stdout`](crate::stdio::stdout).
    pub fn stdout(&mut self) -> Result<Transport, Error> {
        self.standard(StandIn::Stdout, "stdout", stdout)
    }

    /// Standard error, for a stream that is only written.
    ///
    /// # Errors
    /// As [`stdio::stderr`](crate::stdio::stderr).
    pub fn stderr(&mut self) -> Result<Transport, Error> {
        self.standard(StandIn::Stderr, "stderr", stderr)
    }

    fn standard(
        &mut self,
        of: StandIn,
        name: &'static str,
        own: impl FnOnce() -> io::Result<Transport>,
    ) -> Result<Transport, Error> {
        let result = self.engine().stand_in(of).unwrap_or_else(own);
        result.map_err(|error| Error::os("open", name, error))
    }
}

/// Standard input, for a stream that is only read.
///
/// # Errors
/// As fstat(2), open(2) and dup(2); EISDIR for a folder; the system has no thread for a file.
pub fn stdin() -> io::Result<Transport> {
    input_from(io::stdin().as_fd())
}

/// Standard output, for a stream that is only written.
///
/// # Errors
/// As fstat(2), open(2) and dup(2).
pub fn stdout() -> io::Result<Transport> {
    output_to(io::stdout().as_fd())
}

/// Standard error, for a stream that is only written.
///
/// # Errors
/// As fstat(2), open(2) and dup(2).
pub fn stderr() -> io::Result<Transport> {
    output_to(io::stderr().as_fd())
}

/// Keeps a terminal raw while it lives: each key comes as it is pressed, nothing is echoed, and `^C` is a byte.
///
/// What the terminal was before is restored when this is dropped, also by a panic; by
/// [`exit`](std::process::exit) and the end of `main`, although nothing is dropped then; and before a panic
/// aborts, where the program was built to abort. Not by a signal that ends the process, and not by
/// [`abort`](std::process::abort): a program that should survive SIGTERM stops by
/// [`Graceful`](crate::signals::Graceful). Restoring works from the background, too.
///
/// ```no_run
/// use reactor::stdio::Raw;
/// let raw = Raw::enter(std::io::stdin())?;
/// // .. a stream over `cx.stdin()` gets each key now.
/// raw.leave()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Raw {
    number: u64,
}

impl Raw {
    /// Makes a terminal raw, as cfmakeraw(3) does.
    ///
    /// # Errors
    /// As tcsetattr(3); ENOTTY for what is no terminal.
    pub fn enter(terminal: impl AsFd) -> io::Result<Raw> {
        Ok(Raw { number: sys::terminal::make_raw(terminal.as_fd())? })
    }

    /// Restores what was before, and says whether that worked.
    ///
    /// # Errors
    /// As tcsetattr(3): EIO when the terminal is gone.
    pub fn leave(self) -> io::Result<()> {
        sys::terminal::restore(self.number)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = sys::terminal::restore(self.number);
    }
}

/// Input from a descriptor whose open file others may share, and which may be a file: as [`stdin`].
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
        // A named pipe that was opened anew after its last writer had left never reports that; the inherited one
        // does.
        Ok(ours) if !sys::file::is_hung_up(shared) => Ok(Transport::of(ours, medium)),
        _ => Ok(Transport::of(shared.try_clone_to_owned()?, medium.shared())),
    }
}

/// Output to a descriptor whose open file others may share, and which may be a file: as [`stdout`].
///
/// # Errors
/// As [`stdout`].
pub fn output_to(shared: BorrowedFd<'_>) -> io::Result<Transport> {
    let medium = sys::file::medium(shared)?.unwrap_or(Medium::WRITER.unwaited()).only(Medium::WRITER);
    if medium.is_socket() || !can_be_waited_for(shared, medium) {
        // Of a socket that is only written the input is somebody else's, and not looked at.
        return Ok(Transport::of(shared.try_clone_to_owned()?, medium.unwaited()));
    }
    match sys::file::open_again(shared, medium) {
        Ok(ours) => Ok(Transport::of(ours, medium)),
        Err(_) => Ok(Transport::of(shared.try_clone_to_owned()?, medium.shared())),
    }
}

/// Whether a poll can tell more of it than that it is always ready: a pipe or a terminal, but not `/dev/null`.
fn can_be_waited_for(descriptor: BorrowedFd<'_>, medium: Medium) -> bool {
    medium.is_terminal() || sys::file::is_pipe(descriptor)
}

/// Has a thread read what cannot be waited for into a pipe.
fn pumped(from: BorrowedFd<'_>) -> io::Result<Transport> {
    // What cannot be read at all is said now, and not taken for an empty file.
    sys::read(crate::Source::of(&from), &mut [])?;
    let from = from.try_clone_to_owned()?;
    let (reader, writer) = io::pipe()?;
    let transport = Transport::adopt(reader)?;
    let work = move || {
        pump(&from, writer.as_fd());
        // First, so that who sees the end finds the file closed.
        drop(from);
        drop(writer);
    };
    std::thread::Builder::new().name("reactor-stdin".to_owned()).spawn(work)?;
    Ok(transport)
}

/// Copies until one of the two is over. Ends with its reader: a pipe that nobody reads is an error.
fn pump(from: &OwnedFd, to: BorrowedFd<'_>) {
    let mut buffer = vec![0; PUMP_BYTES];
    while let Ok(count @ 1..) = sys::read(crate::Source::of(from), &mut buffer) {
        let mut left = &buffer[..count];
        while !left.is_empty() {
            match sys::file::write_waiting(to, left) {
                Ok(taken) => left = &left[taken..],
                Err(_) => return,
            }
        }
    }
}

/// How much the thread reads at once.
const PUMP_BYTES: usize = 64 * 1024;
