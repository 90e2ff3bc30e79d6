//! Progress on stderr: on a terminal one line that is overwritten, otherwise one line a second.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use reactor::Time;

pub(crate) struct Progress {
    terminal: bool,
    next: Time,
}

impl Progress {
    pub(crate) fn new() -> Progress {
        Progress { terminal: io::stderr().is_terminal(), next: Time::ZERO }
    }

    /// Shows the progress as a bar, from 0 to 1, and in words.
    pub(crate) fn show(&mut self, now: Time, done: f64, words: &str) {
        if now < self.next {
            return;
        }
        self.next = now + if self.terminal { Duration::ZERO } else { LINE_EVERY };
        let full = (done.clamp(0.0, 1.0) * BAR as f64) as usize;
        let bar = format!("[{:<BAR$}] {words}", "#".repeat(full));
        // A standard error that is closed is no reason to stop.
        let _ = match self.terminal {
            true => write!(io::stderr(), "\r{bar}\x1b[K"),
            false => writeln!(io::stderr(), "{bar}"),
        };
    }

    /// Clears the progress from the terminal's line before other output.
    pub(crate) fn clear(&self) {
        if self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// The width of the bar, in characters.
const BAR: usize = 30;

const LINE_EVERY: Duration = Duration::from_secs(1);
