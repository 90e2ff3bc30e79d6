//! How a ring is made: its sizes, and which operations are asked of the kernel.

/// Sizes and operations of an [`IoUring`](super::IoUring). Begin with the default, and set what should be
/// otherwise.
///
/// The shared buffers take at most `buffers * buffer_bytes` of memory, 4 MiB by default, those for datagrams 2 MiB once
/// there is a socket for these, and the queues 68 bytes for each entry and 16 for each completion, 136 KiB. Two buffers
/// for calls, of 64 KiB, and copies of input that came after reading was switched off, a quarter of the shared buffers at
/// most, come on top. All of it counts against [`Limits::bytes`](crate::Limits::bytes) from the beginning, although only what was ever used of it is
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
    /// Entries of the submission queue; 1,024. Rounded up to a power of two, at least 2. More operations than
    /// these in one turn cost a further call.
    pub entries: u32,
    /// Entries of the completion queue; 4,096. Rounded up to a power of two, at least twice `entries`. The
    /// kernel keeps what does not fit.
    pub completions: u32,
    /// Buffers that all streams share; 1,024. Rounded up to a power of two, at most 32,768.
    pub buffers: u16,
    /// Bytes of one shared buffer, the most that one [`Event::Got`](super::super::Event::Got) brings where buffers
    /// are not used in [pieces](Operations::pieces); 4,096, at least one.
    pub buffer_bytes: usize,
    /// Buffers for datagrams, of 64 KiB and a little each; 32. Rounded up to a power of two, at most 4,096. They are
    /// made with the first socket for datagrams; with 0 each batch is waited for and received by a call, as it is for a socket
    /// that receives longer datagrams.
    pub datagram_buffers: u16,
    /// Which operations are left to the kernel; all by default.
    pub operations: Operations,
}

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

/// Which operations are left to the kernel. For one that is not, the ring waits for readiness and the
/// engine makes the call, as it also does for each operation the kernel turns out not to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Operations {
    /// Multishot accept: Linux 5.19.
    pub accept: bool,
    /// Multishot receive into shared buffers: Linux 6.0.
    pub receive: bool,
    /// Shared buffers that are used up piece by piece: Linux 6.12. Up to sixteen are made one then.
    pub pieces: bool,
    /// Send and sendmsg.
    pub send: bool,
    /// Multishot read of pipes into shared buffers: Linux 6.7.
    pub read: bool,
    /// Operations on regular files and on names, each that the kernel knows: Linux 5.6 to 6.9. Those that are not left
    /// to it are done by the runtime's [threads](crate::Limits::file_threads).
    pub files: bool,
}

impl Default for Operations {
    fn default() -> Operations {
        Operations { accept: true, receive: true, pieces: true, send: true, read: true, files: true }
    }
}
