//! Timers, time and chance.

use std::time::{Duration, SystemTime};

use super::Context;
use crate::{
    clock::Time,
    runtime::{Received, TimerId, state::Fresh},
};

/// # Set timers, read the time
///
/// A timer is a message that arrives later.
impl<S> Context<'_, S> {
    /// Sets a timer: the service receives `message` when `after` has passed, counted from the end of this
    /// turn. It never comes early, and never in the turn that set it. Two timers of one instant fire in the
    /// order in which they were set.
    ///
    /// At the limit of timers the runtime drops the message, and the service gets [`Fault::TimersFull`](crate::Fault::TimersFull).
    pub fn after<M: Received<S>>(&mut self, after: Duration, message: M) -> TimerId {
        match self.core.typed_queues.set(self.index, message, M::deliver_local()) {
            Some(id) => {
                let TimerId { queue, index, generation } = id;
                self.core.fresh.push(Fresh::Timer { queue, index, generation, after });
                id
            }
            None => {
                self.timers_are_full();
                TimerId::NONE
            }
        }
    }

    /// Cancels a timer. Returns `true` if it was still pending: its message will not come, even if it is due
    /// in this very turn.
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        let cancelled = self.core.typed_queues.cancel(self.index, timer);
        if let Some(Some(key)) = cancelled {
            self.core.timers.cancel(key);
        }
        cancelled.is_some()
    }

    /// Returns the monotonic time, which is fixed for one turn.
    pub fn now(&self) -> Time {
        self.core.now
    }

    /// Returns the wall-clock time, for people and protocols. It may jump.
    pub fn wall(&self) -> SystemTime {
        self.core.engine.host().wall()
    }

    /// Returns a random number for jitter and sampling, seeded under simulation. It is not for cryptography.
    pub fn random(&mut self) -> u64 {
        self.core.next_random()
    }
}
