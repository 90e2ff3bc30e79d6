//! What a process has besides its sockets and files: children, standard streams, signals, a supervisor,
//! terminals, serial ports, watched directories, and descriptors that it sends over a Unix socket.

mod descriptors;
pub mod process;
#[cfg(feature = "serial")]
pub mod serial;
pub mod signals;
pub mod stdio;
pub mod systemd;
pub mod terminal;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub mod watch;

pub use self::descriptors::{Descriptors, Message, Passed};
