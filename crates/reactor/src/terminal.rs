//! Terminals: how large the window is.

use std::{io, os::fd::AsFd};

use crate::sys::window_size;

/// The size of a terminal's window in characters. Both are 0 where nobody has set it, as on a serial line.
///
/// ```
/// let size = reactor::TerminalSize { columns: 80, rows: 24 };
/// assert!(size.columns > size.rows);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TerminalSize {
    /// How many characters a row has.
    pub columns: u16,
    /// How many rows there are.
    pub rows: u16,
}

impl TerminalSize {
    /// Asks for the size of the terminal's window. A call that does not block; a change of the size is announced to
    /// the terminal's foreground processes by the signal SIGWINCH, after which it is asked for again.
    ///
    /// # Errors
    /// ENOTTY for what is no terminal.
    ///
    /// ```
    /// use reactor::TerminalSize;
    /// match TerminalSize::of(&std::io::stdout()) {
    ///     Ok(size) => println!("{} columns", size.columns),
    ///     Err(_) => println!("no terminal"),
    /// }
    /// ```
    pub fn of(terminal: &impl AsFd) -> io::Result<TerminalSize> {
        let (columns, rows) = window_size(terminal.as_fd())?;
        Ok(TerminalSize { columns, rows })
    }
}
