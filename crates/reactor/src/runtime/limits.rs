//! The limits of a runtime, all finite.

use std::time::Duration;

/// How much of everything a runtime holds. At a limit the answer is `Full`, a fault or an end, never growth.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Resources alive at once; 65,536 by default, at most 16,777,215.
    pub resources: usize,
    /// Commands of other threads that wait; 65,536.
    pub commands: usize,
    /// Messages between services that wait; 65,536.
    pub messages: usize,
    /// Timers pending, and messages for deadlines; 1,048,576.
    pub timers: usize,
    /// Offloaded jobs that wait for a thread; 1,024.
    pub jobs: usize,
    /// Threads for offloaded jobs; 4. None is started before the first job.
    pub job_threads: usize,
    /// Operations on files that are out; 1,024. With 0 every one is refused.
    pub file_operations: usize,
    /// Threads for operations on files that the engine does not perform itself; 4. None is started before the first of
    /// these.
    pub file_threads: usize,
    /// Bytes of the operations on files that are out: to be read, or to be written; 64 MiB.
    pub file_bytes: usize,
    /// Memory of the queues and buffers of all resources, used or not, and of what the engine holds for itself
    /// ([`Engine::memory`](crate::engine::Engine::memory)); 512 MiB.
    ///
    /// A sixteenth, at most 8 MiB, is for empty buffers that are kept for reuse. Shared bytes count on each stream that
    /// holds them. An engine that would leave nothing for streams does not open.
    /// When more is asked for, those end who hold most: see [`Limits::shortage`].
    pub bytes: usize,
    /// How long bytes may be short, which they are above three quarters of [`Limits::bytes`]; 5 s.
    ///
    /// Meanwhile services that hold more than their share (three quarters, divided by the number of services) accept
    /// nobody and do not read streams that have output, and learn of it by
    /// [`Fault::BytesShort`](crate::Fault::BytesShort). Then, and again after each such time, streams that hold most
    /// and made no progress meanwhile end as [`Closed::OverBudget`](crate::Closed::OverBudget), until bytes are no
    /// longer short.
    pub shortage: Duration,
    /// Commands, timers and messages taken in one turn, of each kind; 1,024. With 0 one is taken all the same: a loop
    /// that took none would never be done.
    pub per_turn: usize,
    /// How long to look for events without sleeping before each wait, adaptively; none by default. Pays for
    /// one busy connection on a core of its own, and costs processor time.
    pub busy_poll: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            resources: 1 << 16,
            commands: 1 << 16,
            messages: 1 << 16,
            timers: 1 << 20,
            jobs: 1 << 10,
            job_threads: 4,
            file_operations: 1 << 10,
            file_threads: 4,
            file_bytes: 64 << 20,
            bytes: 512 << 20,
            shortage: Duration::from_secs(5),
            per_turn: 1 << 10,
            busy_poll: None,
        }
    }
}
