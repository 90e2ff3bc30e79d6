//! Terminals: the size of the window, and which process group is in the foreground. Unix.

use std::{io, os::fd::AsFd};

use crate::sys;

/// The size of a terminal's window in characters. Both are 0 if nobody has set them, for example on a serial
/// line.
///
/// ```
/// let size = reactor::terminal::Size { columns: 80, rows: 24 };
/// assert!(size.columns > size.rows);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Size {
    /// How many characters fit in a row.
    pub columns: u16,
    /// How many rows there are.
    pub rows: u16,
}

/// Asks for the size of a terminal's window, without blocking.
///
/// When the size changes, the terminal signals its foreground processes. A service then asks again:
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
/// ENOTTY if this is not a terminal.
pub fn size(terminal: impl AsFd) -> io::Result<Size> {
    let (columns, rows) = sys::window_size(terminal.as_fd())?;
    Ok(Size { columns, rows })
}

/// Returns whether this process is in its terminal's foreground, because only then does it read typed input
/// (tcgetpgrp(3)). Does not block.
///
/// ```
/// use reactor::terminal;
/// // A descriptor that is not our terminal cannot be taken away from us either.
/// let is_typed_at = terminal::is_foreground(std::io::stdin()).unwrap_or(true);
/// # let _ = is_typed_at;
/// ```
///
/// # Errors
/// ENOTTY if this is not the controlling terminal of this process.
pub fn is_foreground(terminal: impl AsFd) -> io::Result<bool> {
    sys::is_foreground(terminal.as_fd())
}
