//! The limits of a runtime, all finite.

use crate::options::with_changes;
use std::time::Duration;

/// The limits of a runtime. At a limit the runtime answers `Full`, reports a fault or ends a resource, but
/// never grows.
///
/// ```
/// use reactor::{Limits, Runtime, RuntimeOptions};
///
/// let limits = Limits::with(|limits| {
///     limits.resources = 20_000;
///     limits.bytes = 1 << 30;
/// });
/// let runtime = Runtime::with_options(RuntimeOptions::with(|options| options.limits = limits))?;
/// # let _ = runtime;
/// # Ok::<(), reactor::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Resources alive at once; 65,536 by default, at most 16,777,215.
    pub resources: usize,
    /// Waiting commands from other threads; 65,536.
    pub commands: usize,
    /// Waiting messages between services; 65,536.
    pub messages: usize,
    /// Pending timers and messages for deadlines; 1,048,576.
    pub timers: usize,
    /// Offloaded jobs that wait for a thread; 1,024.
    pub jobs: usize,
    /// Threads for offloaded jobs; 4. The first job starts the first thread.
    pub job_threads: usize,
    /// Operations on files in flight; 1,024. With 0 the runtime refuses each of them.
    pub file_operations: usize,
    /// Threads for operations on files that the engine does not perform itself; 4. The first such operation
    /// starts the first thread.
    pub file_threads: usize,
    /// Bytes that the operations on files in flight are to read or write; 64 MiB.
    pub file_bytes: usize,
    /// Memory of the queues and buffers of all resources, used or not, and of the engine itself
    /// ([`Engine::memory`](crate::engine::Engine::memory)); 512 MiB.
    ///
    /// A sixteenth, at most 8 MiB, is for empty buffers that the runtime keeps for reuse. Shared bytes count
    /// on each stream that holds them. An engine that would leave nothing for streams does not open. If more
    /// is needed, the runtime ends the resources that hold most: see [`Limits::shortage`].
    pub bytes: usize,
    /// How long bytes may be short, that is, above three quarters of [`Limits::bytes`]; 5 s.
    ///
    /// Meanwhile services that hold more than their share (three quarters, divided by the number of services)
    /// accept no connections and do not read streams that have output. They get
    /// [`Fault::BytesShort`](crate::Fault::BytesShort). After this time, and again after each further one,
    /// the runtime ends streams as [`Closed::OverBudget`](crate::Closed::OverBudget) until bytes are no
    /// longer short. It begins with those that hold most and made no progress meanwhile.
    pub shortage: Duration,
    /// Commands, timers and messages in one turn, of each kind; 1,024. With 0 the runtime still takes one,
    /// because a loop that took none would never finish.
    pub per_turn: usize,
    /// How long the runtime polls for events without sleeping before each wait, adaptively; none by default.
    /// It helps if one busy connection has a core of its own, and costs processor time.
    pub busy_poll: Option<Duration>,
}

with_changes!(Limits);

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
