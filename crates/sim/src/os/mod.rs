//! The parts of a host's system besides the network: its disk, child processes, standard streams, signals,
//! and supervisor.

#[cfg(unix)]
pub(crate) mod child;
#[cfg(unix)]
pub(crate) mod console;
pub(crate) mod disk;
#[cfg(unix)]
pub(crate) mod signals;
#[cfg(unix)]
pub(crate) mod supervisor;
