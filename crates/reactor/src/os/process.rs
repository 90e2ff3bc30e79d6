//! Child processes. Their pipes are streams, and their exit is a separate event. Unix.
//!
//! [`Context::spawn`](crate::Context::spawn) starts the program of a standard library [`Command`] and returns
//! a [`Child`]. It holds a [`Process`], which reports the exit, and a transport for each piped stream, over
//! which the service adds streams with codecs of its choice.
//!
//! ```no_run
//! use reactor::process::{Process, SpawnOptions};
//! use reactor::{Context, Event, Handle, Id, Lines, Result, Service, Stream};
//! use std::process::{Command, ExitStatus};
//!
//! struct Lister;
//!
//! impl Service for Lister {
//!     fn start(&mut self, cx: &mut Context<Self>) -> Result {
//!         let child = cx.spawn(Command::new("ls").arg("/"), &SpawnOptions::default())?;
//!         cx.add(child.process)?;
//!         if let Some(stdout) = child.stdout {
//!             cx.add(Stream::new(Lines::new()).through(stdout))?;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! impl Handle<Process> for Lister {
//!     fn handle(&mut self, _: &mut Context<Self>, _: Id<Process>, status: ExitStatus) -> Result {
//!         println!("it ended: {status}");
//!         Ok(())
//!     }
//! }
//!
//! impl Handle<Stream<Lines>> for Lister {
//!     fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream<Lines>>, event: Event<Lines>) -> Result {
//!         if let Event::Received(line) = event {
//!             println!("there is {line}");
//!         }
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> Result {
//!     reactor::run(Lister)?;
//!     Ok(())
//! }
//! ```
//!
//! # Guarantees
//!
//! **Exit and end of output are two events**, in any order. A child may close its output and live on, and a
//! grandchild may hold the pipe open after the child has exited.
//!
//! **The library waits only for its own children**: by a pidfd on Linux 5.4 and later, elsewhere by one
//! thread for each child. It does not use SIGCHLD, and takes no exit status of another library's child.
//!
//! **An unknown status is an error.** If SIGCHLD is ignored, the kernel keeps no status; a library that calls
//! wait(-1) takes ours. The child runs and exits all the same. Its [`Process`] then ends as `Failed` instead
//! of delivering its event, with an error of the kind `NotFound` that gives the reason. In that case
//! `kill_rest` has no effect, because another group may already have the number.
//!
//! **No zombies.** The library reaps a child when it delivers the exit. A [`Process`] may be dropped before,
//! by `closed`, with the runtime or by a panic. The library then kills the child if
//! [`kill_on_close`](SpawnOptions::kill_on_close) is set, and a thread waits for it. One thread serves all
//! such children, and ends with the last of them.
//!
//! **Children inherit only descriptors 0, 1 and 2**, because the library opens all others with CLOEXEC. A
//! child starts with no signal blocked and with the default action for SIGPIPE, whatever this process has
//! set. That is how [`Command`] works.
//!
//! **A program that cannot be executed** (ENOENT, EACCES) is an error of `spawn`, and leaves no child.
//! `spawn` blocks until the kernel has executed the program: some hundred microseconds, or longer if the
//! program lies on a slow disk.

use crate::options::with_changes;
use std::{
    fmt, io,
    os::unix::process::ExitStatusExt as _,
    process::{Command, ExitStatus, Stdio},
};

#[cfg(target_os = "linux")]
use crate::sys::process::Pidfd;
use crate::{
    engine::{Ready, Source, Transport},
    resource::{Io, Pollable},
};

/// How to set up one of a child's three standard streams.
///
/// [`SpawnOptions`] has an example.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Standard {
    /// A pipe to this process.
    #[default]
    Piped,
    /// Inherited from this process.
    Inherited,
    /// `/dev/null`.
    Null,
}

impl Standard {
    pub(crate) fn stdio(self) -> Stdio {
        match self {
            Standard::Piped => Stdio::piped(),
            Standard::Inherited => Stdio::inherit(),
            Standard::Null => Stdio::null(),
        }
    }
}

/// How to start a child, beyond the settings of its [`Command`].
///
/// ```
/// use reactor::process::{SpawnOptions, Standard};
/// let mut options = SpawnOptions::default();
/// options.stdin = Standard::Null;
/// options.group = true;
/// options.kill_on_close = true;
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SpawnOptions {
    /// The child's standard input. Piped by default. Overrides the setting of the command.
    pub stdin: Standard,
    /// The child's standard output. Piped by default.
    pub stdout: Standard,
    /// The child's standard error. Piped by default.
    pub stderr: Standard,
    /// Makes the child the leader of a new process group; each signal then goes to the whole group. Off by
    /// default.
    pub group: bool,
    /// Kills the rest of the group when the child has exited. Works only with `group`. Off by default.
    pub kill_rest: bool,
    /// Kills the child (with `group`, the whole group) if its [`Process`] is dropped before the child has
    /// exited. Off by default: the child lives on.
    pub kill_on_close: bool,
}

with_changes!(SpawnOptions);

impl SpawnOptions {
    pub(crate) fn ends_group(&self) -> bool {
        self.group && self.kill_rest
    }
}

/// A child that was started, in parts.
///
/// The [module](crate::process) has an example.
#[derive(Debug)]
pub struct Child {
    /// Reports the exit, and sends signals.
    pub process: Process,
    /// The child's standard input, if it is piped: for a write-only stream.
    pub stdin: Option<Transport>,
    /// The child's standard output, if it is piped: for a read-only stream.
    pub stdout: Option<Transport>,
    /// The child's standard error, if it is piped: for a read-only stream.
    pub stderr: Option<Transport>,
}

/// A child process as a resource. Its one event is the exit status; then it closes itself, as `Closed::End`.
///
/// See the [module](self) for an example and for the guarantees.
///
/// The [module](crate::process) has an example.
pub struct Process {
    held: Option<ChildBacking>,
    pid: u32,
    kill_on_close: bool,
    status: Option<ExitStatus>,
}

enum ChildBacking {
    #[cfg(target_os = "linux")]
    Pidfd(Pidfd),
    Hosted(Box<dyn Hosted>),
}

/// The engine's part of a [`Process`]: in a simulated world, or on a system without pidfds.
pub trait Hosted {
    /// Returns a source from which the four bytes of the wait status can be read, in the machine's byte
    /// order, once the process has exited.
    fn source(&self) -> Source<'_>;

    /// Sends a signal.
    ///
    /// # Errors
    /// As kill(2). ESRCH if the process has exited.
    fn signal(&self, number: i32) -> io::Result<()>;
}

impl Process {
    #[cfg(target_os = "linux")]
    pub(crate) fn by_pidfd(mut pidfd: Pidfd, pid: u32, options: &SpawnOptions) -> Process {
        (pidfd.of_group, pidfd.ends_group) = (options.group, options.ends_group());
        let kill_on_close = options.kill_on_close;
        Process { held: Some(ChildBacking::Pidfd(pidfd)), pid, kill_on_close, status: None }
    }

    /// Wraps a process that the engine watches.
    pub fn hosted(by: Box<dyn Hosted>, pid: u32, options: &SpawnOptions) -> Process {
        let kill_on_close = options.kill_on_close;
        Process { held: Some(ChildBacking::Hosted(by)), pid, kill_on_close, status: None }
    }

    /// Returns the process number. After the exit it may belong to another process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the exit status, once it was delivered.
    pub fn status(&self) -> Option<ExitStatus> {
        self.status
    }

    /// Sends a signal by number (for example `libc::SIGHUP`), to the whole group if the child leads one.
    ///
    /// # Errors
    /// As kill(2). ESRCH once the exit was delivered, or if somebody else has waited for the child. It never
    /// hits another process. It may hit another group, if somebody else waits for the leader at this very
    /// moment, because a group has no descriptor.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        match &self.held {
            _ if self.status.is_some() => Err(io::Error::from_raw_os_error(libc::ESRCH)),
            #[cfg(target_os = "linux")]
            Some(ChildBacking::Pidfd(pidfd)) => pidfd.signal(number),
            Some(ChildBacking::Hosted(hosted)) => hosted.signal(number),
            None => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    }

    /// Asks the child to end, by SIGTERM.
    ///
    /// # Errors
    /// As [`Process::signal`].
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(libc::SIGTERM)
    }

    /// Ends the child, by SIGKILL.
    ///
    /// # Errors
    /// As [`Process::signal`].
    pub fn kill(&self) -> io::Result<()> {
        self.signal(libc::SIGKILL)
    }
}

impl Pollable for Process {
    type Event<'a> = ExitStatus;

    fn source(&self) -> Source<'_> {
        match &self.held {
            #[cfg(target_os = "linux")]
            Some(ChildBacking::Pidfd(pidfd)) => Source::of(pidfd.descriptor()),
            Some(ChildBacking::Hosted(hosted)) => hosted.source(),
            None => Source::hosted(u64::MAX),
        }
    }

    fn step(&mut self, _: Ready, io: &mut Io<'_>, _: &mut [u8]) -> io::Result<Option<ExitStatus>> {
        let status = match &self.held {
            #[cfg(target_os = "linux")]
            Some(ChildBacking::Pidfd(pidfd)) => pidfd.reap().map_err(|error| match error.raw_os_error() {
                Some(libc::ECHILD) => status_unknown(),
                _ => error,
            })?,
            Some(ChildBacking::Hosted(hosted)) => {
                let mut raw = [0; 4];
                match io.read(hosted.source(), &mut raw)? {
                    4 => ExitStatus::from_raw(i32::from_ne_bytes(raw)),
                    // The thread that waited for the child got ECHILD.
                    _ => return Err(status_unknown()),
                }
            }
            None => return Ok(None),
        };
        self.status = Some(status);
        io.close();
        Ok(Some(status))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status.is_none() && self.kill_on_close {
            // This fails if the child has just exited, which is fine.
            let _ = self.kill();
        }
        #[cfg(target_os = "linux")]
        if let Some(ChildBacking::Pidfd(pidfd)) = self.held.take()
            && self.status.is_none()
        {
            crate::sys::process::hand_on(pidfd);
        }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("pid", &self.pid).field("status", &self.status).finish()
    }
}

/// Makes the error for a child that has exited and that waitid(2) does not know (ECHILD).
fn status_unknown() -> io::Error {
    let why = "it has ended and nobody knows how: SIGCHLD is ignored, or somebody else has waited for it";
    io::Error::new(io::ErrorKind::NotFound, why)
}

/// Returns the command's program, for error messages.
pub(crate) fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}
