//! Notices from a service to its supervisor.

use std::time::Duration;

use crate::engine::Descriptor;

/// A notice from a service to its supervisor: sd_notify(3).
///
/// ```
/// use reactor::systemd::Notice;
/// use std::time::Duration;
///
/// let notice = Notice::ready().and(Notice::status("serving 3 tables"));
/// assert_eq!(notice.text(), "READY=1\nSTATUS=serving 3 tables\n");
/// assert_eq!(Notice::extend(Duration::from_millis(5)).text(), "EXTEND_TIMEOUT_USEC=5000\n");
/// ```
#[derive(Debug, Default)]
pub struct Notice {
    text: String,
    descriptors: Vec<Descriptor>,
    /// Whether the timestamp is added on sending.
    is_timed: bool,
}

impl Notice {
    fn of(name: &str, value: &str) -> Notice {
        Notice { text: format!("{name}={value}\n"), ..Notice::default() }
    }

    /// Reports that the service has started, or has reloaded its configuration.
    pub fn ready() -> Notice {
        Notice::of("READY", "1")
    }

    /// Reports that the service begins to reload its configuration. A [`Notice::ready`] must follow. The
    /// notice carries its timestamp, as `Type=notify-reload` requires.
    pub fn reloading() -> Notice {
        Notice { is_timed: true, ..Notice::of("RELOADING", "1") }
    }

    /// Reports that the service begins to stop. [`Supervised`](super::Supervised) sends this by itself.
    pub fn stopping() -> Notice {
        Notice::of("STOPPING", "1")
    }

    /// Describes the service's state for people, in one line. Line breaks become spaces, and text after 1,024
    /// bytes is cut off.
    pub fn status(text: &str) -> Notice {
        let end = (0..=text.len().min(STATUS_MAX)).rev().find(|at| text.is_char_boundary(*at));
        Notice::of("STATUS", &text[..end.unwrap_or(0)].replace(['\n', '\r'], " "))
    }

    /// Reports that the service is alive. [`Supervised`](super::Supervised) sends this by itself.
    pub fn watchdog() -> Notice {
        Notice::of("WATCHDOG", "1")
    }

    /// Names the service's main process from now on.
    pub fn main_process(process: u32) -> Notice {
        Notice::of("MAINPID", &process.to_string())
    }

    /// Asks for more time for the current step (start, reload or stop), counted from now.
    pub fn extend(time: Duration) -> Notice {
        Notice::of("EXTEND_TIMEOUT_USEC", &time.as_micros().to_string())
    }

    /// Stores a descriptor with the supervisor, so that it survives a restart of the service. The new process
    /// finds it by this name among the [`activated`](super::activated) ones. Each character that is not
    /// allowed in a name, for example a control character or a colon, becomes a hyphen. A name is cut off
    /// after 255 characters.
    pub fn store(name: &str, descriptor: impl Into<Descriptor>) -> Notice {
        let stored = Notice::of("FDSTORE", "1").and(Notice::of("FDNAME", &name_of(name)));
        Notice { descriptors: vec![descriptor.into()], ..stored }
    }

    /// Removes all descriptors that were stored by this name.
    pub fn forget(name: &str) -> Notice {
        Notice::of("FDSTOREREMOVE", "1").and(Notice::of("FDNAME", &name_of(name)))
    }

    /// Combines two notices into one message. Descriptors that are stored by one message all get the last
    /// name.
    #[must_use]
    pub fn and(mut self, other: Notice) -> Notice {
        self.text.push_str(&other.text);
        self.descriptors.extend(other.descriptors);
        self.is_timed |= other.is_timed;
        self
    }

    /// Returns the text of the message, without the timestamp of [`Notice::reloading`].
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the message as sent at this time of the system's monotonic clock.
    pub(super) fn at(mut self, micros: u64) -> (String, Vec<Descriptor>) {
        if self.is_timed {
            self.text.push_str(&format!("MONOTONIC_USEC={micros}\n"));
        }
        (self.text, self.descriptors)
    }
}

/// Replaces all characters that systemd does not allow in a name. It allows ASCII without control characters
/// and colons.
fn name_of(name: &str) -> String {
    let is_fine =
        |character: &char| character.is_ascii() && !character.is_ascii_control() && *character != ':';
    name.chars().take(NAME_MAX).map(|character| if is_fine(&character) { character } else { '-' }).collect()
}

const STATUS_MAX: usize = 1024;
const NAME_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_line_and_cut_at_its_limit() {
        assert_eq!(Notice::status("a\nREADY=1\r").text(), "STATUS=a READY=1 \n");
        for (length, kept) in [(1023, 1023), (1024, 1024), (1025, 1024)] {
            assert_eq!(Notice::status(&"x".repeat(length)).text().len(), "STATUS=\n".len() + kept);
        }
        // Not inside a character.
        let text = format!("{}ü", "x".repeat(1023));
        assert_eq!(Notice::status(&text).text().len(), "STATUS=\n".len() + 1023);
    }

    #[test]
    fn a_name_has_what_a_name_may_have() {
        assert_eq!(Notice::forget("a:b\nü").text(), "FDSTOREREMOVE=1\nFDNAME=a-b--\n");
        for (length, kept) in [(254, 254), (255, 255), (256, 255)] {
            assert_eq!(name_of(&"n".repeat(length)).len(), kept);
        }
    }

    #[test]
    fn only_reloading_has_its_moment() {
        assert_eq!(Notice::ready().at(7).0, "READY=1\n");
        let both = Notice::reloading().and(Notice::status("s"));
        assert_eq!(both.at(7).0, "RELOADING=1\nSTATUS=s\nMONOTONIC_USEC=7\n");
    }
}
