//! Time: one monotonic scale for the whole library, and the only module that reads the system's clocks.
//!
//! A [`Time`] is a number of nanoseconds since an origin that means nothing outside the process. A simulation
//! provides virtual time, so all other code takes the time as an argument: only engines that run on a real
//! system call [`monotonic`] and [`wall`]. Arithmetic on times saturates and can neither panic nor wrap, so
//! adding any duration is safe.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

/// A moment on the monotonic scale: nanoseconds since an arbitrary origin.
///
/// Times of one runtime can be compared with each other, but not with those of another process. The default
/// is [`Time::ZERO`], the origin. The scale ends after 584 years, at [`Time::NEVER`].
///
/// ```
/// use reactor::Time;
/// use std::time::Duration;
///
/// let start = Time::from_nanos(5);
/// let later = start + Duration::from_secs(1);
/// assert!(later > start);
/// assert_eq!(later - start, Duration::from_secs(1));
/// assert_eq!(start - later, Duration::ZERO);
/// assert_eq!(start + Duration::MAX, Time::NEVER);
/// assert_eq!(format!("{later:?}"), "1.000000005s");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The origin of the scale, and the earliest moment.
    pub const ZERO: Time = Time(0);

    /// The moment that never comes, later than all others.
    pub const NEVER: Time = Time(u64::MAX);

    /// Makes the moment `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Time {
        Time(nanos)
    }

    /// Returns the nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns how long this moment is after `earlier`, or zero if it is not after it.
    pub const fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    /// Moves forward by `duration`, to [`Time::NEVER`] at most.
    fn add(self, duration: Duration) -> Time {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Time(self.0.saturating_add(nanos))
    }
}

impl Sub for Time {
    type Output = Duration;

    /// Returns the same as [`Time::since`].
    fn sub(self, earlier: Time) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Debug for Time {
    /// Prints seconds with nine digits of fraction, or `never`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Time::NEVER => f.write_str("never"),
            Time(nanos) => write!(f, "{}.{:09}s", nanos / NANOS_PER_SECOND, nanos % NANOS_PER_SECOND),
        }
    }
}

/// Reads the monotonic clock of the system.
///
/// The origin is the first call in this process, on any thread. Adjustments of the wall clock have no effect.
/// The system decides whether time counts while the machine is suspended.
pub(crate) fn monotonic() -> Time {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    Time::ZERO + ORIGIN.get_or_init(Instant::now).elapsed()
}

/// Reads the system's wall clock. It may jump in both directions, so the runtime schedules nothing by it.
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addition_saturates_at_never() {
        let nanos = Duration::from_nanos;
        assert_eq!(Time::from_nanos(u64::MAX - 2) + nanos(1), Time::from_nanos(u64::MAX - 1));
        assert_eq!(Time::from_nanos(u64::MAX - 2) + nanos(2), Time::NEVER);
        assert_eq!(Time::from_nanos(u64::MAX - 2) + nanos(3), Time::NEVER);
        assert_eq!(Time::ZERO + Duration::MAX, Time::NEVER);
        assert_eq!(Time::NEVER + Duration::ZERO, Time::NEVER);
    }

    #[test]
    fn difference_saturates_at_zero() {
        let (early, late) = (Time::from_nanos(10), Time::from_nanos(11));
        assert_eq!(late.since(early), Duration::from_nanos(1));
        assert_eq!(early.since(early), Duration::ZERO);
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(late - early, late.since(early));
    }

    #[test]
    fn debug_prints_seconds_with_fraction() {
        assert_eq!(format!("{:?}", Time::default()), "0.000000000s");
        assert_eq!(format!("{:?}", Time::from_nanos(61_000_000_001)), "61.000000001s");
        assert_eq!(format!("{:?}", Time::NEVER), "never");
    }

    #[test]
    fn monotonic_agrees_between_threads() {
        let here = monotonic();
        let there = std::thread::spawn(monotonic).join().expect("the reading thread does not panic");
        assert!(there >= here);
        assert!(monotonic() >= there);
    }
}
