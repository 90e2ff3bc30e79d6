//! Child processes: their pipes are streams, and their end is an event of its own. Unix.
//!
//! [`Context::spawn`](crate::Context::spawn) starts a program described by the standard library's
//! [`Command`], and gives a [`Child`]: a [`Process`], which tells how it ended, and a transport for each
//! piped stream, over which the service puts streams with codecs of its choice.
//!
//! ```no_run
//! use reactor::{Context, Event, Handle, Id, Lines, Result, Service, Stream, process::{Process, SpawnOptions}};
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
//! # What is promised
//!
//! **Exit and end of output are two events**, in any order. A child that closed its output may live on, and what it
//! started may hold the pipe when it has ended.
//!
//! **Only our children are waited for**: by a pidfd on Linux from 5.4 on, elsewhere by a thread for each that waits for
//! that one. SIGCHLD is not used, and no exit of another library's child is taken.
//!
//! **A status that nobody knows is an error.** Where SIGCHLD is ignored the kernel keeps no status, and a library that
//! calls wait(-1) takes ours. The child runs and ends all the same. Its [`Process`] then ends as `Failed`, with an
//! error of the kind `NotFound` that says so, instead of an event. `kill_rest` has no effect then, because the number
//! of the group may already be another's.
//!
//! **No zombie.** A child is reaped when its end is told. One whose [`Process`] is dropped before, by `closed`, with
//! the runtime or by a panic, is killed first if [`kill_on_close`](SpawnOptions::kill_on_close) asks for it, and
//! then waited for by a thread: one for all such children, which ends with the last of them.
//!
//! **Nothing is inherited** but descriptors 0, 1 and 2: all that the library opens is CLOEXEC. The child begins with
//! no signal blocked and with SIGPIPE as by default, whatever this process does with it (which is what
//! [`Command`] does).
//!
//! **A program that cannot be executed** (ENOENT, EACCES) is an error of `spawn`, and leaves no child. `spawn` waits
//! until the program has been executed, some hundred microseconds; it does not search a slow disk for less.

use std::{
    fmt, io,
    os::unix::process::ExitStatusExt as _,
    process::{Command, ExitStatus, Stdio},
};

#[cfg(target_os = "linux")]
use crate::sys::process::Pidfd;
use crate::{
    context::Context,
    engine::{Ready, Source, Transport},
    error::Error,
    resource::{Io, Resource},
};

impl<S> Context<'_, S> {
    /// Starts a program; see [`process`](crate::process). What is in the [`Child`](Child) is then
    /// added.
    ///
    /// # Errors
    /// The program cannot be executed (ENOENT, EACCES, ..), or the system has no more processes or
    /// descriptors; no child is left then.
    pub fn spawn(&mut self, command: &mut Command, options: &SpawnOptions) -> Result<Child, Error> {
        let child = self.engine().spawn(command, options);
        child.map_err(|error| Error::os("spawn", program(command), error))
    }
}

/// What one of a child's three standard streams is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Standard {
    /// A pipe to this process.
    #[default]
    Piped,
    /// The same as this process's.
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

/// How a child is started, beside what its [`Command`] says.
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
    /// Its input; piped by default. Takes the place of what was set in the command.
    pub stdin: Standard,
    /// Its output; piped by default.
    pub stdout: Standard,
    /// Its errors; piped by default.
    pub stderr: Standard,
    /// Whether it leads a process group of its own; then each signal goes to the whole group. Off by default.
    pub group: bool,
    /// Whether what is left of its group is killed when it has ended. Only with `group`; off by default.
    pub kill_rest: bool,
    /// Whether it is killed (with `group`: all of the group) when its [`Process`] is dropped before it has ended.
    /// Off by default: then it lives on.
    pub kill_on_close: bool,
}

impl SpawnOptions {
    pub(crate) fn ends_group(&self) -> bool {
        self.group && self.kill_rest
    }
}

/// A child that was started.
#[derive(Debug)]
pub struct Child {
    /// Tells how it ends, and takes signals.
    pub process: Process,
    /// Its input, if it is piped: for a stream that is only written.
    pub stdin: Option<Transport>,
    /// Its output, if it is piped: for a stream that is only read.
    pub stdout: Option<Transport>,
    /// Its errors, if they are piped: for a stream that is only read.
    pub stderr: Option<Transport>,
}

/// A child process as a resource: its event is how it ended, then it closes by itself, as `Closed::End`.
///
/// See the [module](self) for an example and for what is promised.
pub struct Process {
    held: Option<Held>,
    pid: u32,
    kill_on_close: bool,
    status: Option<ExitStatus>,
}

enum Held {
    #[cfg(target_os = "linux")]
    Pidfd(Pidfd),
    Hosted(Box<dyn Hosted>),
}

/// What stands behind a process that an engine tells of: of a simulated world, or of a system without pidfds.
pub trait Hosted {
    /// Gives the four bytes of its wait status, in the machine's order, when it has ended.
    fn source(&self) -> Source<'_>;

    /// Sends a signal.
    ///
    /// # Errors
    /// As kill(2); ESRCH when it has ended.
    fn signal(&self, number: i32) -> io::Result<()>;
}

impl Process {
    #[cfg(target_os = "linux")]
    pub(crate) fn by_pidfd(mut pidfd: Pidfd, pid: u32, options: &SpawnOptions) -> Process {
        (pidfd.of_group, pidfd.ends_group) = (options.group, options.ends_group());
        let kill_on_close = options.kill_on_close;
        Process { held: Some(Held::Pidfd(pidfd)), pid, kill_on_close, status: None }
    }

    /// A process whose engine tells of it.
    pub fn hosted(by: Box<dyn Hosted>, pid: u32, options: &SpawnOptions) -> Process {
        let kill_on_close = options.kill_on_close;
        Process { held: Some(Held::Hosted(by)), pid, kill_on_close, status: None }
    }

    /// Its number. Another process's, perhaps, once it has ended.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, once that was told.
    pub fn status(&self) -> Option<ExitStatus> {
        self.status
    }

    /// Sends a signal by its number (`libc::SIGHUP`, ..), to the whole group if it leads one.
    ///
    /// # Errors
    /// As kill(2); ESRCH once its end was told, or somebody else has waited for it: no other process is hit. (But
    /// perhaps another group, if somebody else waits for its leader just then: a group has no descriptor.)
    pub fn signal(&self, number: i32) -> io::Result<()> {
        match &self.held {
            _ if self.status.is_some() => Err(io::Error::from_raw_os_error(libc::ESRCH)),
            #[cfg(target_os = "linux")]
            Some(Held::Pidfd(pidfd)) => pidfd.signal(number),
            Some(Held::Hosted(hosted)) => hosted.signal(number),
            None => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    }

    /// Asks it to end: SIGTERM.
    ///
    /// # Errors
    /// As [`Process::signal`].
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(libc::SIGTERM)
    }

    /// Ends it: SIGKILL.
    ///
    /// # Errors
    /// As [`Process::signal`].
    pub fn kill(&self) -> io::Result<()> {
        self.signal(libc::SIGKILL)
    }
}

impl Resource for Process {
    type Event<'a> = ExitStatus;

    fn source(&self) -> Source<'_> {
        match &self.held {
            #[cfg(target_os = "linux")]
            Some(Held::Pidfd(pidfd)) => Source::of(pidfd.descriptor()),
            Some(Held::Hosted(hosted)) => hosted.source(),
            None => Source::hosted(u64::MAX),
        }
    }

    fn step(&mut self, _: Ready, io: &mut Io<'_>, _: &mut [u8]) -> io::Result<Option<ExitStatus>> {
        let status = match &self.held {
            #[cfg(target_os = "linux")]
            Some(Held::Pidfd(pidfd)) => pidfd.reap().map_err(|error| match error.raw_os_error() {
                Some(libc::ECHILD) => status_unknown(),
                _ => error,
            })?,
            Some(Held::Hosted(hosted)) => {
                let mut raw = [0; 4];
                match io.read(hosted.source(), &mut raw)? {
                    4 => ExitStatus::from_raw(i32::from_ne_bytes(raw)),
                    // The thread that waited for it found that there was nothing to wait for.
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
            // It may have ended meanwhile, which is as good.
            let _ = self.kill();
        }
        #[cfg(target_os = "linux")]
        if let Some(Held::Pidfd(pidfd)) = self.held.take()
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

/// The child has ended, and waitid(2) does not know it (ECHILD).
fn status_unknown() -> io::Error {
    let why = "it has ended and nobody knows how: SIGCHLD is ignored, or somebody else has waited for it";
    io::Error::new(io::ErrorKind::NotFound, why)
}

/// The program of a command, for messages.
fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}
