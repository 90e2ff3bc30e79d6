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

use std::{
    io,
    os::unix::process::ExitStatusExt as _,
    process::{Command, ExitStatus},
};

use crate::{
    engine::{Ready, Source},
    host::child::ChildBacking,
    resource::{Io, Pollable},
};

pub use crate::host::child::{Child, Hosted, Process, SpawnOptions, Standard};

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

/// Makes the error for a child that has exited and that waitid(2) does not know (ECHILD).
fn status_unknown() -> io::Error {
    let why = "it has ended and nobody knows how: SIGCHLD is ignored, or somebody else has waited for it";
    io::Error::new(io::ErrorKind::NotFound, why)
}

/// Returns the command's program, for error messages.
pub(crate) fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}
