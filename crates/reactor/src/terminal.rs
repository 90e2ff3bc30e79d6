//! Terminals: how large the window is, and whom it listens to. Unix.

use std::{io, os::fd::AsFd};

use crate::sys;

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
/// A change is announced to the terminal's foreground processes by a signal, after which it is asked for again:
///
/// ```
/// use reactor::{
///     Context, Handle, Id, Result, Service,
///     signals::{Arrived, Signal, Signals},
///     terminal,
/// };
///
/// struct Screen(Option<terminal::Size>);
///
/// impl Service for Screen {
///     fn start(&mut self, cx: &mut Context<Self>) -> Result {
///         cx.signals([Signal::WINCH])?;
///         self.0 = terminal::size(std::io::stdout()).ok();
/// #       cx.stop(std::time::Duration::ZERO);
///         Ok(())
///     }
/// }
///
/// impl Handle<Signals> for Screen {
///     fn handle(&mut self, _: &mut Context<Self>, _: Id<Signals>, _: Arrived) -> Result {
///         self.0 = terminal::size(std::io::stdout()).ok();
///         Ok(())
///     }
/// }
/// # reactor::run(Screen(None))?;
/// # Ok::<(), reactor::Error>(())
/// ```
///
/// # Errors
/// ENOTTY for what is no terminal.
pub fn size(terminal: impl AsFd) -> io::Result<Size> {
    let (columns, rows) = sys::window_size(terminal.as_fd())?;
    Ok(Size { columns, rows })
}

/// Whether this process is in the foreground of its terminal: only then does a read of it bring what is typed
/// (tcgetpgrp(3)). A call that does not block.
///
/// ```
/// use reactor::terminal;
/// // What is no terminal of ours is not taken from us either.
/// let is_typed_at = terminal::is_foreground(std::io::stdin()).unwrap_or(true);
/// # let _ = is_typed_at;
/// ```
///
/// # Errors
/// ENOTTY for what is not the terminal that controls this process.
pub fn is_foreground(terminal: impl AsFd) -> io::Result<bool> {
    sys::is_foreground(terminal.as_fd())
}
