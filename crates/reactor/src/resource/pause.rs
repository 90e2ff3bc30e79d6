//! Pauses between the tries of what the system refuses for now.

use std::{io, time::Duration};

/// The pause until the next try. Each further one is twice as long, up to the longest: a listener that is only busy is
/// asked again soon, and one that stands still costs its clients little.
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

/// Returns whether the system refuses to send for a reason that passes by itself, and of which nothing tells: more
/// descriptors of this user are in flight than its processes may have open (ETOOMANYREFS, unix(7)).
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
