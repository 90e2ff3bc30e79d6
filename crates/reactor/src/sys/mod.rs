//! System calls below the engines: sockets, reads and writes, with typed arguments and `io::Error`s.
//!
//! Every new descriptor is CLOEXEC and non-blocking from the start. No call returns EINTR, and a broken pipe
//! is an error and never a signal. socket2 makes most of the calls. The few calls that it lacks are the only
//! unsafe code here, and stand in files of their own.

mod address;
mod bind;
pub(crate) mod datagram;
#[cfg(unix)]
pub(crate) mod file;
mod fork;
#[cfg(unix)]
pub(crate) mod inherited;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod inotify;
mod io;
#[cfg(unix)]
mod names;
#[cfg(unix)]
pub(crate) mod process;
mod regular;
#[cfg(unix)]
pub(crate) mod rights;
mod sendfile;
#[cfg(unix)]
pub(crate) mod signals;
mod socket;
#[cfg(all(target_os = "linux", feature = "io-uring"))]
mod statx;
#[cfg(unix)]
pub(crate) mod terminal;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use std::os::fd::{BorrowedFd as Borrowed, OwnedFd as Owned};
#[cfg(windows)]
pub(crate) use std::os::windows::io::{BorrowedSocket as Borrowed, OwnedSocket as Owned};

#[cfg(unix)]
pub(crate) use self::file::block_write_signals;
#[cfg(all(target_os = "linux", feature = "io-uring"))]
pub(crate) use self::file::has_file_size_limit;
pub(crate) use self::fork::Birthplace;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use self::inotify::{inotify_add, inotify_open, inotify_remove};
#[cfg(unix)]
pub(crate) use self::io::again_if_interrupted;
#[cfg(unix)]
pub(crate) use self::io::send_waiting;
#[cfg(unix)]
pub(crate) use self::names::interface;
#[cfg(all(target_os = "linux", feature = "io-uring"))]
pub(crate) use self::regular::{beneath_only, open_flags};
#[cfg(unix)]
pub(crate) use self::socket::connect_datagram;
#[cfg(all(target_os = "linux", feature = "io-uring"))]
pub(crate) use self::statx::{
    STATX_MASK, is_always_ready, is_plain, make_waiting, metadata_of, stat_known, statx_record,
};
#[cfg(all(unix, feature = "serial"))]
pub(crate) use self::terminal::make_exclusive;
#[cfg(unix)]
pub(crate) use self::terminal::{is_foreground, window_size};
#[cfg(any(target_os = "linux", target_os = "android"))]
use self::unix::lost_peer;
#[cfg(unix)]
pub(crate) use self::unix::{
    Reserve, Watched, adopt, is_out_of_descriptors, poll, print_error, read_descriptor, receive_descriptor,
    send_descriptor,
};
#[cfg(windows)]
pub(crate) use self::windows::{
    Reserve, Watched, adopt, block_write_signals, is_out_of_descriptors, print_error, read_descriptor,
    receive_descriptor, send_descriptor,
};
pub(crate) use self::{
    io::{has_input, offer, read, receive, take_error, write},
    regular::{Positioned, open, open_beneath, sync_directory, writes},
    sendfile::{HAS_SENDFILE, is_cut_off, send_file, sever},
    socket::{
        Connect, accept, connect, is_connected, is_passing, listen, listener, local, peer, reset_at_close,
        shutdown_write,
    },
};

/// Borrows the descriptor for one call.
pub(crate) fn borrow(owned: &Owned) -> Borrowed<'_> {
    #[cfg(unix)]
    return std::os::fd::AsFd::as_fd(owned);
    #[cfg(windows)]
    return std::os::windows::io::AsSocket::as_socket(owned);
}
