//! Pauses between attempts after the system refused an operation for now.

use std::{io, time::Duration};

/// The pause until the next attempt. Each pause is twice as long as the last, up to a maximum. So a busy
/// listener gets the next attempt soon, and a listener that stands still costs its clients little.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Pause(Duration);

const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(64);

impl Pause {
    /// Returns the next pause.
    pub(super) fn next(&mut self) -> Duration {
        self.0 = (self.0 * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        self.0
    }
}

/// Returns whether the system refuses to send for a temporary reason whose end it does not report. This is
/// ETOOMANYREFS: more descriptors of this user are in flight than its processes may have open (unix(7)).
pub(super) fn is_passing_send(error: &io::Error) -> bool {
    #[cfg(unix)]
    return error.raw_os_error() == Some(libc::ETOOMANYREFS);
    #[cfg(not(unix))]
    return {
        let _ = error;
        false
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pause_is_twice_the_last_up_to_the_longest() {
        let mut pause = Pause::default();
        let pauses = [(); 9].map(|()| pause.next().as_millis());
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
    }
}
