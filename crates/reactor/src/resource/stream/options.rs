//! Marks, limits and deadlines of a stream, all finite.

use std::time::Duration;

/// How much a stream queues, and how long it waits.
///
/// ```
/// use reactor::{Bytes, Stream, StreamOptions};
/// use std::{sync::Arc, time::Duration};
///
/// let patient = Arc::new(StreamOptions { write_stall: Some(Duration::from_secs(300)), ..StreamOptions::DEFAULT });
/// let stream = Stream::new(Bytes).options(patient.clone());
/// # let _ = stream;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// Above so many queued bytes `send` answers `High`; 64 KiB. Above so many bytes of output that the stream's own input
    /// caused, the stream rests: its input is not read.
    pub high: usize,
    /// At so many queued bytes `Drained` comes; 16 KiB. At so many bytes of the output that it rests for, a stream reads
    /// on.
    pub low: usize,
    /// Above so many queued bytes the stream ends as `Overflow`; 4 MiB.
    pub cap: usize,
    /// One item up to this size may enter an empty queue, also above the cap; 16 MiB. The same holds for all that one call
    /// of a handler sends for its input, if the queue was not high when the call began. Behind either there is room
    /// for `cap` more bytes.
    pub item: usize,
    /// Above so many bytes that were read and that no handler has seen, the stream ends as `Unread`; 32 MiB. They wait for
    /// the rest of their item, or were read before the service paused the stream. The runtime does not read ahead of a
    /// paused stream, so what the peer sends meanwhile waits in the kernel and does not count. If the connection of a paused stream
    /// fails, the runtime takes up to so many bytes from the kernel, for [`Stream::unread`](crate::Stream::unread).
    pub unread: usize,
    /// Whether the stream rests while too much output waits that its own input caused, or more than half of `cap` by
    /// anyone; on. A coupled stream rests for its partner's queue, whatever this says.
    pub backpressure: bool,
    /// How long a stream rests while its output makes no progress at all; 1 s. Then it reads on until its input has caused
    /// `high` more bytes of output, twice as much the next time, and never more than half of `cap` in total: so two
    /// peers that both rest free each other, and a peer that never reads is stalled all the same.
    pub rest: Duration,
    /// How long connecting may take; 30 s.
    pub connect: Duration,
    /// How long the handshake of the layers may take; 10 s.
    pub handshake: Duration,
    /// How long a graceful close may stand still: it counts again from each byte that leaves, and from the end on while
    /// the peer's end is waited for; 5 s. What is no socket is bounded by `write_stall` instead while output is queued.
    pub close: Duration,
    /// How many bytes a second have to leave during a graceful close, so that a peer that takes a byte now and then does
    /// not hold it open; each byte then buys its part of a second, up to `close`. 0, the default: any byte will do.
    pub close_speed: u32,
    /// How long a queue may make no progress. `None`, the default, is 60 s on a socket, and without limit on what is none
    /// (standard streams, terminals, pipes, the input of a child), where a reader that pauses is no fault.
    pub write_stall: Option<Duration>,
    /// How long a peer behind a socket may take for an item that it has begun; 5 minutes.
    ///
    /// It counts from the first byte of the item, or from the end of the item before, and not from the last byte that
    /// arrived: otherwise a peer that sends a byte now and then holds the memory of half an item for ever. Within the
    /// default an item of 16 MiB arrives at 0.5 Mbit/s. The deadline does not count while the stream is paused or
    /// rests for its own output.
    pub unfinished: Duration,
}

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
