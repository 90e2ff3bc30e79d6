//! Raw mode of a terminal for as long as a guard lives.

use std::{io, os::fd::AsFd};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Puts the terminal's settings back when it is dropped: at the end, after an error, after a panic.
pub(crate) struct Raw<T: AsFd> {
    terminal: T,
    before: Termios,
}

impl<T: AsFd> Raw<T> {
    /// Sets raw mode: each key arrives as it is, at once, and is not shown.
    pub(crate) fn new(terminal: T) -> io::Result<Raw<T>> {
        let before = tcgetattr(&terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&terminal, OptionalActions::Now, &raw)?;
        Ok(Raw { terminal, before })
    }
}

impl<T: AsFd> Drop for Raw<T> {
    fn drop(&mut self) {
        // A terminal that was hung up has no settings any more.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}
