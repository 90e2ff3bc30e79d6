//! Bounds of a socket for datagrams, all finite.

use std::time::Duration;

/// How many datagrams a socket holds, and what happens to one too many.
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
    /// How many datagrams may wait to leave; 4,096. Above half of it `send` answers `High`.
    pub queue: usize,
    /// How many bytes they may have together; 4 MiB. Above half of it `send` answers `High`.
    pub queue_bytes: usize,
    /// Which one is dropped when there would be more.
    pub when_full: WhenFull,
    /// How long a datagram is received whole, in bytes; 64 KiB, which no datagram of UDP reaches. Of a longer one the
    /// beginning arrives, and [`Datagram::truncated`](crate::Datagram::truncated) says so. Less than 64 KiB means that, and
    /// more than 2 MiB means 2 MiB. How long a datagram a Unix socket sends is bounded by its
    /// [`send_buffer`](crate::BindOptions::send_buffer).
    pub longest: usize,
    /// How many bytes that arrived are kept while the socket is paused, and 128 more for each datagram; 4 MiB.
    /// The later ones are dropped.
    /// What the system itself keeps is bounded by SO_RCVBUF.
    pub unread: usize,
    /// How long a graceful close may take to send what is queued; 5 s.
    pub close: Duration,
}

/// Which datagram is dropped when the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The one that comes: `send` answers [`Flow::Full`](crate::Flow::Full), so who wants to keep it can.
    RefuseNewest,
    /// Those that wait longest, until there is room for the one that comes: for what is soon out of date. One
    /// that would not fit into an empty queue is refused all the same.
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
