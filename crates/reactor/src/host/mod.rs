//! Host: the machine around an engine. Time, chance, files, processes, signals and the supervisor.
//!
//! # The contract
//!
//! A runtime asks the outside world in two ways. Through its [`Engine`](crate::engine::Engine) it waits and
//! moves bytes. Through the engine's [`Host`] it asks for everything else. So every fact that comes from
//! outside passes one of these two traits, and whoever stands between them and the runtime sees all of it.
//!
//! **Who implements it.** [`Machine`] is the real machine, and the methods' defaults are its answers. An
//! engine that performs some of this itself overrides those methods, as `io_uring` does for file operations.
//! The engine of a virtual world overrides all of them, so that nothing real enters the world. A wrapper
//! forwards all of them. Put `#[deny(clippy::missing_trait_methods)]` above such an `impl`: then clippy
//! refuses one that forgets a method, also a method that a later version adds.
//!
//! **Who calls, and when.** Only the runtime's thread does. The runtime calls [`now`](Host::now) when a wait
//! has ended and at the end of each turn, and in between once in 128 calls of handlers.
//! [`left_file`](Host::left_file) comes with each flush while file operations are in flight,
//! [`entropy`](Host::entropy) once in a runtime's life, and the others when a service asks, within the call
//! of the service.
//!
//! **How long they take.** All but [`spawn`](Host::spawn) return at once. `spawn` returns when the system has
//! executed the program, or has failed to.
//!
//! **Answers.** Blocking work and file operations are answered later, by the job itself, once. A job that is
//! dropped counts as answered with an error. The other methods answer with their result.
//!
//! **Not promised.** Two calls of `now` in one turn may return one time. [`wall`](Host::wall) may jump in
//! both directions. Jobs run in any order, unless the host says otherwise.
//!
//! **Faults.** No method panics because of the system. In a child of fork(2), a host does what it does
//! elsewhere, because nothing here is shared with the parent but what the engine shares.

#[cfg(unix)]
pub(crate) mod activated;
#[cfg(unix)]
pub(crate) mod child;
pub(crate) mod file;
#[cfg(unix)]
pub(crate) mod signal;

use std::time::SystemTime;
#[cfg(unix)]
use std::{io, process::Command};

use self::file::FileJob;
#[cfg(unix)]
use self::{
    activated::Activated,
    child::{Child, SpawnOptions},
    signal::SignalSet,
};
#[cfg(unix)]
use crate::engine::Transport;
use crate::{
    clock::{self, Time},
    sys,
};

/// A piece of blocking work that runs on another thread, or at a moment that a simulator chooses.
pub type Job = Box<dyn FnOnce() + Send>;

/// The machine around an engine. The module's documentation is the contract.
///
/// Each default is the answer of the real machine, with the threads of the runtime for what blocks.
pub trait Host {
    /// Returns the monotonic time, which is virtual under simulation. It never goes back.
    fn now(&self) -> Time {
        clock::monotonic()
    }

    /// Returns the wall-clock time, which is virtual under simulation.
    fn wall(&self) -> SystemTime {
        clock::wall()
    }

    /// Returns a seed for the runtime's random numbers, which are not for cryptography. The runtime asks
    /// once.
    fn entropy(&mut self) -> u64 {
        use std::hash::{BuildHasher, Hasher};
        std::collections::hash_map::RandomState::new().build_hasher().finish()
    }

    /// Writes one line to standard error if there is room for it, and never waits. Returns whether it wrote
    /// the line.
    fn print_error(&mut self, line: &str) -> bool {
        sys::print_error(line.as_bytes())
    }

    /// Takes a job that the host wants to run itself, as a simulator does at a seeded moment. Otherwise gives
    /// it back for the runtime's own threads.
    fn run_blocking(&mut self, job: Job) -> Option<Job> {
        Some(job)
    }

    /// Takes a file operation that the host wants to perform itself. Otherwise gives it back for the
    /// runtime's own threads. See [`file`](crate::file).
    fn run_file(&mut self, job: FileJob) -> Option<FileJob> {
        Some(job)
    }

    /// Gives back a file operation that the host took but cannot perform, for the runtime's threads. While
    /// operations are in flight, the runtime calls it whenever it flushes output, and so at the end of each
    /// turn, until it returns `None`.
    fn left_file(&mut self) -> Option<FileJob> {
        None
    }

    /// Starts a child process, with its pipes.
    ///
    /// # Errors
    /// As fork(2) and execve(2), for example ENOENT or EACCES. No child is left then.
    #[cfg(unix)]
    fn spawn(&mut self, command: &mut Command, options: &SpawnOptions) -> io::Result<Child> {
        sys::process::spawn(command, options)
    }

    /// Returns the descriptors that the supervisor of a virtual world opened for a program before it started.
    /// `None`, the default, tells the runtime to take the process's own.
    #[cfg(unix)]
    fn activated(&mut self) -> Option<Vec<Activated>> {
        None
    }

    /// Opens a virtual world's replacement for something that the process has. The runtime watches, reads and
    /// writes its source. `None`, the default, tells the runtime to take the process's own.
    ///
    /// # Errors
    /// The world has a replacement, but cannot open another.
    #[cfg(unix)]
    fn stand_in(&mut self, of: StandIn) -> Option<io::Result<Transport>> {
        let _ = of;
        None
    }
}

/// The real machine: the clocks, the files and the processes of this system.
///
/// ```
/// use reactor::host::{Host, Machine};
///
/// let before = Machine.now();
/// assert!(Machine.now() >= before);
/// ```
#[derive(Clone, Copy, Default, Debug)]
pub struct Machine;

impl Host for Machine {}

/// A thing of the process that a resource uses, and that a virtual world may replace.
#[cfg(unix)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StandIn {
    /// These signals. Each read returns one pending kind, in the format of
    /// [`Signals::record`](crate::signals::Signals::record).
    Signals(SignalSet),
    /// The supervisor that the environment names; `NotFound` if there is none. The first read returns the
    /// watchdog's interval: eight bytes of microseconds, lowest first, 0 if there is no watchdog.
    /// [Passing](crate::engine::Engine::pass) sends notices, each whole, together with the descriptors to
    /// store.
    Supervisor,
    /// Standard input, as a read-only transport.
    Stdin,
    /// Standard output, as a write-only transport.
    Stdout,
    /// Standard error, as a write-only transport.
    Stderr,
}
