//! The virtual clock, and the events that are due at its times.

use std::time::{Duration, SystemTime};

use reactor::Time;

use crate::{
    net::link::nanos,
    world::{queue::Queue, state::Scheduled},
};

/// The clock of a world, in nanoseconds. It never goes back: an event that was scheduled for a past time
/// happens now.
pub(crate) struct Clock {
    now: u64,
    queue: Queue<Scheduled>,
    /// The time that each turn of a runtime takes.
    pub(crate) turn_cost: u64,
}

impl Clock {
    pub(crate) fn new(turn_cost: Duration) -> Clock {
        Clock { now: ORIGIN, queue: Queue::new(), turn_cost: nanos(turn_cost).max(1) }
    }

    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    pub(crate) fn time(&self) -> Time {
        Time::from_nanos(self.now)
    }

    /// Returns the time since the world began.
    pub(crate) fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.now - ORIGIN)
    }

    /// Returns the moment that is this long from now.
    pub(crate) fn after(&self, time: Duration) -> u64 {
        self.now.saturating_add(nanos(time))
    }

    /// Schedules an event.
    #[inline]
    pub(crate) fn schedule(&mut self, at: u64, what: Scheduled) {
        self.queue.put(at, what);
    }

    /// Returns the time of the next event.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.queue.next_at()
    }

    /// Returns whether an event is due at this moment or before.
    pub(crate) fn is_due(&self, end: u64) -> bool {
        self.next_at().is_some_and(|at| at <= end)
    }

    /// Takes the next event with the time for which it was scheduled, and moves the clock there.
    pub(crate) fn advance(&mut self) -> Option<(u64, Scheduled)> {
        let (at, what) = self.queue.pop()?;
        self.move_to(at);
        Some((at, what))
    }

    /// Moves the clock to a moment, unless it is there already.
    pub(crate) fn move_to(&mut self, at: u64) {
        self.now = self.now.max(at);
    }

    /// Returns the number of scheduled events.
    pub(crate) fn pending(&self) -> usize {
        self.queue.len()
    }
}

/// Returns the wall time at a moment of the world's clock. The wall clock of a host may be set to a time
/// before the world began.
pub(crate) fn wall_time(nanos: i64) -> SystemTime {
    let (origin, by) = (SystemTime::UNIX_EPOCH + WALL_ORIGIN, Duration::from_nanos(nanos.unsigned_abs()));
    let wall = if nanos < 0 { origin.checked_sub(by) } else { origin.checked_add(by) };
    wall.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A day in November 2023.
const WALL_ORIGIN: Duration = Duration::from_secs(1_700_000_000);
/// The time at which a world begins. It is not zero, so that a time that was never set shows as one long ago.
const ORIGIN: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{HostId, Id as _};

    #[test]
    fn the_clock_never_goes_back() {
        let mut clock = Clock::new(Duration::ZERO);
        assert_eq!((clock.turn_cost, clock.elapsed()), (1, Duration::ZERO));
        clock.move_to(ORIGIN + 5);
        clock.move_to(ORIGIN + 3);
        assert_eq!(clock.now(), ORIGIN + 5);
        let run = |index| Scheduled::Run { node: HostId::new(index) };
        clock.schedule(ORIGIN + 1, run(1));
        clock.schedule(ORIGIN + 9, run(2));
        assert_eq!(clock.advance(), Some((ORIGIN + 1, run(1))));
        assert_eq!(clock.elapsed(), Duration::from_nanos(5), "a past event happens now");
        assert!(!clock.is_due(ORIGIN + 8) && clock.is_due(ORIGIN + 9));
        assert_eq!((clock.advance(), clock.now()), (Some((ORIGIN + 9, run(2))), ORIGIN + 9));
        assert_eq!((clock.advance(), clock.pending()), (None, 0));
    }
}
