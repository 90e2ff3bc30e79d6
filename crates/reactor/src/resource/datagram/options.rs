//! Bounds of a socket for datagrams, all finite.

use std::time::Duration;

/// The most datagrams that a socket holds, and the choice of the dropped one.
///
/// ```
/// use reactor::{DatagramOptions, Datagrams, WhenFull};
///
/// let newest = DatagramOptions { when_full: WhenFull::DropOldest, queue: 16, ..DatagramOptions::DEFAULT };
/// let video = Datagrams::new().options(newest);
/// # let _ = video;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatagramOptions {
    /// The most datagrams that may wait to leave; 4,096. Above half of it `send` answers `High`.
    pub queue: usize,
    /// The most bytes that they may have together; 4 MiB. Above half of it `send` answers `High`.
    pub queue_bytes: usize,
    /// The datagram to drop when the queue is full.
    pub when_full: WhenFull,
    /// The most bytes of a datagram that the socket receives whole; 64 KiB, which no UDP datagram reaches. Of
    /// a longer datagram only the beginning arrives, and [`Datagram::truncated`](crate::Datagram::truncated)
    /// is set. A value below 64 KiB means 64 KiB, and a value above 2 MiB means 2 MiB.
    /// [`send_buffer`](crate::BindOptions::send_buffer) bounds the datagrams that a Unix socket sends.
    pub longest: usize,
    /// The most bytes that a paused socket keeps, where each datagram counts 128 more; 4 MiB. The runtime
    /// drops later datagrams. SO_RCVBUF bounds the kernel's own queue.
    pub unread: usize,
    /// How long a graceful close may take to send the queue; 5 s.
    pub close: Duration,
}

/// The datagram to drop when the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The new datagram. `send` answers [`Flow::Full`](crate::Flow::Full), so that the caller can keep it.
    RefuseNewest,
    /// The oldest datagrams, until there is room for the new one. Use it for data that is soon out of date. A
    /// datagram that would not fit into an empty queue is still refused.
    DropOldest,
}

impl DatagramOptions {
    /// The defaults.
    pub const DEFAULT: DatagramOptions = DatagramOptions {
        queue: 4096,
        queue_bytes: 4 << 20,
        when_full: WhenFull::RefuseNewest,
        longest: 64 << 10,
        unread: 4 << 20,
        close: Duration::from_secs(5),
    };
}

impl Default for DatagramOptions {
    fn default() -> DatagramOptions {
        DatagramOptions::DEFAULT
    }
}
