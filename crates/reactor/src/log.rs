//! Reports of errors that nobody handles: `tracing` events, or a limited number of lines on standard error.
//!
//! This is the only module that knows `tracing`. Without that feature its reporting functions are empty. The
//! runtime writes a line only if no subscriber hears warnings.
//!
//! Writing never waits. A line that standard error has no room for is counted and dropped, and so is a line
//! beyond the rate. So a peer that causes errors can neither fill a log nor stop the loop.

use std::time::Duration;

use crate::{clock::Time, error::Closed, id::Key, resource::rest::RestReasons};

/// The most lines that may be written at once.
const LINES_MAX: u32 = 16;
/// The time after which one more line may be written.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// The most bytes of a line. A write of this length to a pipe is atomic (PIPE_BUF is at least 512).
const LINE_BYTES_MAX: usize = 500;

/// Reports that an engine was opened.
#[inline]
pub(crate) fn engine(name: &str) {
    #[cfg(feature = "tracing")]
    tracing::debug!(engine = name, "runtime opened");
    #[cfg(not(feature = "tracing"))]
    let _ = name;
}

/// Reports that an engine did not open, and that the runtime tries the next one.
pub(crate) fn engine_passed(name: &str, error: &std::io::Error) {
    #[cfg(feature = "tracing")]
    let _ = crate::guard::call(|| tracing::warn!(engine = name, %error, "engine passed over"));
    #[cfg(not(feature = "tracing"))]
    let _ = (name, error);
}

/// Reports an error that a service did not handle. Returns whether a subscriber heard it; if not, the caller
/// writes a line.
pub(crate) fn error(service: &str, error: &str) -> bool {
    #[cfg(feature = "tracing")]
    return crate::guard::call(|| {
        tracing::warn!(service, error, "error");
        tracing::event_enabled!(tracing::Level::WARN)
    })
    .unwrap_or(false);
    #[cfg(not(feature = "tracing"))]
    {
        let _ = (service, error);
        false
    }
}

/// Reports that a resource ended, and why it was not read before. The guard is needed because printing the
/// reason may run users' code.
#[inline]
pub(crate) fn closed(service: &str, key: Key, why: &Closed, rests: impl FnOnce() -> RestReasons) {
    #[cfg(feature = "tracing")]
    let _ = crate::guard::call(|| {
        if why.is_clean() {
            tracing::trace!(service, ?key, %why, "closed");
        } else {
            tracing::debug!(service, ?key, %why, rests = %rests(), "closed");
        }
    });
    #[cfg(not(feature = "tracing"))]
    let _ = (service, key, why, rests);
}

/// Reports that the runtime stops reading a stream or reads it again, and why it does not.
#[inline]
pub(crate) fn reading(key: Key, reads: bool, rests: RestReasons) {
    #[cfg(feature = "tracing")]
    tracing::trace!(?key, reads, %rests, "reading");
    #[cfg(not(feature = "tracing"))]
    let _ = (key, reads, rests);
}

/// Reports that a user's value panicked while the library dropped it, where no service is to blame.
pub(crate) fn drop_panicked(what: &str, message: &str) {
    #[cfg(feature = "tracing")]
    tracing::error!(what, message, "panic in a drop");
    #[cfg(not(feature = "tracing"))]
    let _ = (what, message);
}

/// Reports that the observer panicked. The runtime does not call it again.
pub(crate) fn observer_panicked(message: &str) {
    #[cfg(feature = "tracing")]
    tracing::error!(message, "panic of the observer");
    #[cfg(not(feature = "tracing"))]
    let _ = message;
}

/// Reports that the runtime begins to stop.
pub(crate) fn stop(resources: usize) {
    #[cfg(feature = "tracing")]
    tracing::debug!(resources, "stop begins");
    #[cfg(not(feature = "tracing"))]
    let _ = resources;
}

/// Limits the rate of lines: [`LINES_MAX`] at once, then one for each [`LINE_EVERY`].
pub(crate) struct LineLimit {
    left: u32,
    /// The time of the last refill.
    since: Time,
    /// How many lines were dropped since the last written one.
    kept_back: u64,
}

impl LineLimit {
    pub(crate) fn new(now: Time) -> LineLimit {
        LineLimit { left: LINES_MAX, since: now, kept_back: 0 }
    }

    /// Makes a line of a text, unless the rate is exceeded.
    pub(crate) fn line(&mut self, now: Time, text: &str) -> Option<String> {
        let earned = now.since(self.since).as_nanos() / LINE_EVERY.as_nanos();
        if let Some(earned) = u32::try_from(earned).ok().filter(|earned| *earned > 0) {
            self.left = self.left.saturating_add(earned).min(LINES_MAX);
            self.since = self.since + LINE_EVERY * earned;
        }
        if self.left == 0 {
            self.kept_back += 1;
            return None;
        }
        self.left -= 1;
        Some(line(text, std::mem::take(&mut self.kept_back)))
    }

    /// Counts a line that [`LineLimit::line`] made but standard error did not take.
    pub(crate) fn keep_back(&mut self) {
        self.kept_back += 1;
    }

    /// Makes the last line, if lines were dropped since the last written one.
    pub(crate) fn last(&mut self) -> Option<String> {
        let kept_back = std::mem::take(&mut self.kept_back);
        (kept_back > 0).then(|| line("no more was written", kept_back))
    }
}

/// Makes exactly one line of any text, because a text from a peer must not pass for another line.
fn line(text: &str, kept_back: u64) -> String {
    let mut line = String::from("reactor: ");
    let end = if kept_back > 0 { format!(" ({kept_back} lines were left out)\n") } else { "\n".to_owned() };
    let room = LINE_BYTES_MAX - end.len() - CUT.len();
    for character in text.chars() {
        let before = line.len();
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
        if line.len() > room {
            line.truncate(before);
            line += CUT;
            break;
        }
    }
    line + &end
}

/// Marks a line that was cut.
const CUT: &str = "..";

/// Strips the paths from a type's name, so that it reads as its author writes it: `Stream<Http>`.
pub(crate) fn short(name: &str) -> String {
    let mut short = String::with_capacity(name.len());
    // Where the current path begins in `short`.
    let mut begin = 0;
    let mut rest = name;
    while let Some(character) = rest.chars().next() {
        if let Some(behind) = rest.strip_prefix("::") {
            short.truncate(begin);
            rest = behind;
            continue;
        }
        short.push(character);
        if !character.is_alphanumeric() && character != '_' {
            begin = short.len();
        }
        rest = &rest[character.len_utf8()..];
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_without_its_paths() {
        assert_eq!(short("app::Http"), "Http");
        assert_eq!(
            short("reactor::resource::stream::Stream<app::http::Codec, (), app::Role<alloc::vec::Vec<u8>>>"),
            "Stream<Codec, (), Role<Vec<u8>>>"
        );
        assert_eq!(short("u8"), "u8");
    }

    #[test]
    fn so_many_lines_are_written_at_once_and_then_one_a_second() {
        let start = Time::ZERO + Duration::from_secs(7);
        let mut lines = LineLimit::new(start);
        let mut count = |at: Time, tries: usize| (0..tries).filter_map(|_| lines.line(at, "x")).count();
        assert_eq!(count(start, LINES_MAX as usize - 1), LINES_MAX as usize - 1);
        assert_eq!(count(start, 1), 1, "the limit");
        assert_eq!(count(start, 100), 0, "beyond the limit");
        assert_eq!(count(start + (LINE_EVERY - Duration::from_nanos(1)), 1), 0);
        assert_eq!(count(start + LINE_EVERY, 2), 1);
        assert_eq!(count(start + LINE_EVERY * 3, 5), 2);
        assert_eq!(count(start + LINE_EVERY * 1000, 100), LINES_MAX as usize);
        // Written lines have reported the 105 drops before the last 84.
        assert_eq!(lines.last().as_deref(), Some("reactor: no more was written (84 lines were left out)\n"));
        assert_eq!(lines.last(), None);
    }

    #[test]
    fn a_line_is_one_line_of_a_bounded_length() {
        assert_eq!(line("a\nb\u{1b}[31m", 0), "reactor: a\\nb\\u{1b}[31m\n");
        assert_eq!(line("a", 3), "reactor: a (3 lines were left out)\n");
        for text in ["\u{fc}".repeat(400), "\n".repeat(400), "x".repeat(LINE_BYTES_MAX)] {
            let line = line(&text, u64::MAX);
            assert!(
                line.len() <= LINE_BYTES_MAX && line.ends_with("out)\n") && line.contains(".. ("),
                "{line}"
            );
        }
        let longest = LINE_BYTES_MAX - "reactor: ".len() - "\n".len() - CUT.len();
        assert!(!line(&"x".repeat(longest), 0).contains(CUT));
        assert!(line(&"x".repeat(longest + 1), 0).contains(CUT));
    }
}
