//! Marks, limits and deadlines of a stream, all finite.

use crate::options::with_changes;
use std::time::Duration;

/// The sizes and times within which a stream works.
///
/// ```
/// use reactor::{Bytes, Stream, StreamOptions};
/// use std::{sync::Arc, time::Duration};
///
/// let patient = Arc::new(StreamOptions::with(|options| options.write_stall = Some(Duration::from_secs(300))));
/// let stream = Stream::new(Bytes).options(patient.clone());
/// # let _ = stream;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamOptions {
    /// The queue length in bytes above which `send` answers `High`; 64 KiB. Above the same number of bytes of
    /// output that the stream's own input caused, the stream rests: the runtime does not read its input.
    pub high: usize,
    /// The queue length in bytes at which `Drained` comes; 16 KiB. At the same number of bytes of the output
    /// for which it rests, a stream reads on.
    pub low: usize,
    /// The queue length in bytes above which the stream ends as `Overflow`; 4 MiB.
    pub cap: usize,
    /// The largest item that may enter an empty queue even if it passes `cap`; 16 MiB. The same limit holds
    /// for all output of one call of a handler for its input, if the queue was not high when the call began.
    /// Behind either there is room for `cap` more bytes.
    pub item: usize,
    /// The number of read bytes, seen by no handler, above which the stream ends as `Unread`; 32 MiB. Such
    /// bytes wait for the rest of their item, or were read before the service paused the stream. The runtime
    /// does not read ahead of a paused stream, so bytes that the peer sends meanwhile wait in the kernel and
    /// do not count. If the connection of a paused stream fails, the runtime takes at most this many bytes
    /// from the kernel, for [`Stream::unread`](crate::Stream::unread).
    pub unread: usize,
    /// Whether the stream rests while too much output waits that its own input caused, or more than half of
    /// `cap` from any cause; on. A paired stream rests for its partner's queue in any case.
    pub backpressure: bool,
    /// How long a stream rests while its output makes no progress at all; 1 s. Then it reads on until its
    /// input has caused `high` more bytes of output, twice as many the next time, and never more than half of
    /// `cap` in total. So two peers that both rest free each other, and a peer that never reads still stalls.
    pub rest: Duration,
    /// The longest time for connecting; 30 s.
    pub connect: Duration,
    /// The longest time for the handshake of the layers; 10 s.
    pub handshake: Duration,
    /// How long a graceful close may make no progress; 5 s. The time starts again with each byte that leaves,
    /// and with the stream's own end, while the runtime waits for the peer's end. If the transport is no
    /// socket, `write_stall` applies instead while output is queued.
    pub close: Duration,
    /// How many bytes a second must leave during a graceful close; 0 by default, and then any byte counts. A
    /// limit keeps a peer that takes a byte now and then from holding the close open. Each byte then extends
    /// the deadline by its part of a second, up to `close`.
    pub close_speed: u32,
    /// How long a queue may make no progress. `None`, the default, means 60 s on a socket. On other
    /// transports (standard streams, terminals, pipes, the input of a child) it means no limit, because there
    /// a reader may pause.
    pub write_stall: Option<Duration>,
    /// How long a peer behind a socket may take for an item that it has begun; 5 minutes.
    ///
    /// The time starts with the first byte of the item, or with the end of the item before. Bytes that arrive
    /// later do not extend it, because otherwise a peer that sends a byte now and then would hold the memory
    /// of half an item for ever. For example, an item of 16 MiB needs 0.5 Mbit/s to arrive within the
    /// default. The deadline does not count while the stream is paused or rests for its own output.
    pub unfinished: Duration,
}

with_changes!(StreamOptions);

impl StreamOptions {
    /// The defaults.
    pub const DEFAULT: StreamOptions = StreamOptions {
        high: 64 << 10,
        low: 16 << 10,
        cap: 4 << 20,
        item: 16 << 20,
        unread: 32 << 20,
        backpressure: true,
        rest: Duration::from_secs(1),
        connect: Duration::from_secs(30),
        handshake: Duration::from_secs(10),
        close: Duration::from_secs(5),
        close_speed: 0,
        write_stall: None,
        unfinished: Duration::from_secs(300),
    };
}

impl Default for StreamOptions {
    fn default() -> StreamOptions {
        StreamOptions::DEFAULT
    }
}
