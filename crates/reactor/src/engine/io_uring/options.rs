//! Options of a ring: its sizes, and the operations that the kernel performs.

/// Sizes and operations of an [`IoUring`](super::IoUring). Start with the default, and change single fields.
///
/// The shared buffers take at most `buffers * buffer_bytes` of memory, 4 MiB by default. Those for datagrams
/// take 2 MiB once there is a socket that needs them. The queues take 68 bytes for each entry and 16 for each
/// completion, 136 KiB in all. In addition there are two buffers for calls, of 64 KiB, and copies of input
/// that arrived after reading was switched off, at most a quarter of the shared buffers. All of it counts
/// against [`Limits::bytes`](crate::Limits::bytes) from the start, although only used memory is real. Make
/// the ring smaller for a runtime with a lower limit.
/// real: for a runtime that may hold less, make the ring smaller.
///
/// ```no_run
/// use reactor::engine::{Engine, IoUring, IoUringOptions};
///
/// let mut options = IoUringOptions::default();
/// options.buffers = 256;
/// options.buffer_bytes = 16 * 1024;
/// assert_eq!(IoUring::with_options(options)?.name(), "io_uring");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct IoUringOptions {
    /// Entries of the submission queue; 1,024. Rounded up to a power of two, at least 2. More operations in
    /// one turn cost another call.
    pub entries: u32,
    /// Entries of the completion queue; 4,096. Rounded up to a power of two, at least twice `entries`. The
    /// kernel keeps completions that do not fit.
    pub completions: u32,
    /// Buffers that all streams share; 1,024. Rounded up to a power of two, at most 32,768.
    pub buffers: u16,
    /// Bytes of one shared buffer; 4,096, at least one. If buffers are not used in
    /// [pieces](Operations::pieces), this is the most that one [`Event::Got`](super::super::Event::Got)
    /// delivers.
    pub buffer_bytes: usize,
    /// Buffers for datagrams, each a little over 64 KiB; 32. Rounded up to a power of two, at most 4,096. The
    /// first socket for datagrams makes them. With 0, the engine waits for each batch and receives it by a
    /// call, as it also does for a socket that receives longer datagrams.
    pub datagram_buffers: u16,
    /// The operations that the kernel performs; all by default.
    pub operations: Operations,
}

with_changes!(IoUringOptions);

impl Default for IoUringOptions {
    fn default() -> IoUringOptions {
        IoUringOptions {
            entries: 1024,
            completions: 4096,
            buffers: 1024,
            buffer_bytes: 4096,
            datagram_buffers: 32,
            operations: Operations::default(),
        }
    }
}

/// The operations that the kernel performs. For all others, the ring waits for readiness and the engine makes
/// the call. It does the same for each operation that the kernel turns out not to have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Operations {
    /// Multishot accept: Linux 5.19.
    pub accept: bool,
    /// Multishot receive into shared buffers: Linux 6.0.
    pub receive: bool,
    /// Shared buffers that are used up piece by piece: Linux 6.12. Up to sixteen are then joined into one.
    pub pieces: bool,
    /// Send and sendmsg.
    pub send: bool,
    /// Multishot read of pipes into shared buffers: Linux 6.7.
    pub read: bool,
    /// Operations on regular files and on names, each if the kernel has it: Linux 5.6 to 6.9. The runtime's
    /// [threads](crate::Limits::file_threads) perform the others.
    pub files: bool,
}

impl Default for Operations {
    fn default() -> Operations {
        Operations { accept: true, receive: true, pieces: true, send: true, read: true, files: true }
    }
}
use crate::options::with_changes;
