//! A child process: how it is started, and what a host gives for it. [`crate::process`] shows it to users.

use std::{
    fmt, io,
    process::{ExitStatus, Stdio},
};

use crate::{
    engine::{Source, Transport},
    options::with_changes,
};

#[cfg(target_os = "linux")]
use crate::sys::process::Pidfd;

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

/// How to start a child, beyond the settings of its [`Command`](std::process::Command).
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
/// See the [module](crate::process) for an example and for the guarantees.
pub struct Process {
    pub(crate) held: Option<ChildBacking>,
    pid: u32,
    kill_on_close: bool,
    pub(crate) status: Option<ExitStatus>,
}

pub(crate) enum ChildBacking {
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
