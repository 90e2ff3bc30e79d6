//! Terminals: how large the window is. Unix.

use std::{io, os::fd::AsFd};

use crate::sys::window_size;

/// The size of a terminal's window in characters. Both are 0 where nobody has set it, as on a serial line.
///
/// ```
/// let size = reactor::terminal::Size { columns: 80, rows: 24 };
/// assert!(size.columns > size.rows);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Size {
    /// How many characters a row has.
    pub columns: u16,
    /// How many rows there are.
    pub rows: u16,
}

/// Asks for the size of a terminal's window: a call that does not block.
///
/// A change is announced to the terminal's foreground processes by the signal SIGWINCH: ask again then.
///
/// # Errors
/// ENOTTY for what is no terminal.
///
/// ```
/// match reactor::terminal::size(std::io::stdout()) {
///     Ok(size) => println!("{} columns", size.columns),
///     Err(_) => println!("no terminal"),
/// }
/// ```
pub fn size(terminal: impl AsFd) -> io::Result<Size> {
    let (columns, rows) = window_size(terminal.as_fd())?;
    Ok(Size { columns, rows })
}
