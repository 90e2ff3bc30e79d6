//! Timeouts: durations in the units of a system call, never shorter than the original.
//!
//! If a wait ended early, its caller would come back and wait again, in a tight loop for the rest of a unit.
//! So every timeout is rounded up, and one that does not fit becomes the longest possible wait.

use std::time::Duration;

/// Converts to whole milliseconds, for poll(2) and epoll_wait(2): rounded up, at most `i32::MAX`, and -1 for
/// no timeout.
pub(crate) fn millis(timeout: Option<Duration>) -> i32 {
    let Some(timeout) = timeout else { return -1 };
    i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}

/// Converts to seconds and nanoseconds, for epoll_pwait2(2): at most `i32::MAX` seconds, which every kernel
/// accepts.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn seconds_and_nanos(timeout: Duration) -> (i64, i64) {
    let seconds = timeout.as_secs().min(i32::MAX as u64);
    (seconds as i64, i64::from(timeout.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_rounded_up_and_clamped() {
        assert_eq!(millis(None), -1);
        assert_eq!(millis(Some(Duration::ZERO)), 0);
        assert_eq!(millis(Some(Duration::from_nanos(1))), 1);
        assert_eq!(millis(Some(Duration::from_nanos(999_999))), 1);
        assert_eq!(millis(Some(Duration::from_millis(1))), 1);
        assert_eq!(millis(Some(Duration::from_nanos(1_000_001))), 2);
        let longest = Duration::from_millis(i32::MAX as u64);
        assert_eq!(millis(Some(longest - Duration::from_millis(1))), i32::MAX - 1);
        assert_eq!(millis(Some(longest)), i32::MAX);
        assert_eq!(millis(Some(longest + Duration::from_nanos(1))), i32::MAX);
        assert_eq!(millis(Some(Duration::MAX)), i32::MAX);
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    fn seconds_and_nanoseconds_are_exact_and_clamped() {
        assert_eq!(seconds_and_nanos(Duration::ZERO), (0, 0));
        assert_eq!(seconds_and_nanos(Duration::from_nanos(1)), (0, 1));
        assert_eq!(seconds_and_nanos(Duration::new(3, 999_999_999)), (3, 999_999_999));
        let longest = i64::from(i32::MAX);
        assert_eq!(seconds_and_nanos(Duration::from_secs(longest as u64 - 1)), (longest - 1, 0));
        assert_eq!(seconds_and_nanos(Duration::from_secs(longest as u64)), (longest, 0));
        assert_eq!(seconds_and_nanos(Duration::from_secs(longest as u64 + 1)), (longest, 0));
        assert_eq!(seconds_and_nanos(Duration::MAX), (longest, 999_999_999));
    }
}
