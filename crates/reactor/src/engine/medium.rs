//! The abilities of a transport's descriptor, detected once, so that no operation finds them out by trial.

use std::fmt;

/// Which directions a transport has, and by which calls they are used.
///
/// A socket has both. A pipe's end has one: a stream over it is *read-only* (it takes no output: a `send`
/// answers [`Flow::Gone`](crate::Flow::Gone)) or *write-only* (it has no input, and its
/// [`Event::End`](crate::Event::End) says that the reader has left).
///
/// ```
/// use reactor::engine::{Medium, Transport};
/// # #[cfg(unix)] {
/// let (reader, _writer) = std::io::pipe()?;
/// let transport = Transport::adopt(reader)?;
/// assert!(transport.medium().has_input() && !transport.medium().has_output());
/// assert_ne!(transport.medium(), Medium::SOCKET);
/// # }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Medium(u8);

impl Medium {
    /// A stream socket.
    pub const SOCKET: Medium = Medium(SOCKET | INPUT | OUTPUT);
    /// A device, or a named pipe opened for both directions: read and written, but not a socket.
    pub const DUPLEX: Medium = Medium(INPUT | OUTPUT);
    /// The read end of a pipe.
    pub const READER: Medium = Medium(INPUT);
    /// The write end of a pipe.
    pub const WRITER: Medium = Medium(OUTPUT);

    /// Returns whether recv(2), send(2) and shutdown(2) work on it.
    #[inline]
    pub fn is_socket(self) -> bool {
        self.0 & SOCKET != 0
    }

    /// Returns whether it has input.
    #[inline]
    pub fn has_input(self) -> bool {
        self.0 & INPUT != 0
    }

    /// Returns whether it takes output.
    #[inline]
    pub fn has_output(self) -> bool {
        self.0 & OUTPUT != 0
    }

    /// Returns whether the runtime waits only for room. A file takes all the bytes that it is given, and only
    /// a write shows what has become of its other side.
    #[inline]
    pub fn is_unwaited(self) -> bool {
        self.0 & UNWAITED != 0
    }
}

#[cfg(unix)]
impl Medium {
    /// Returns whether an operation may block, because other processes share the open file description. The
    /// engine then checks the readiness before each operation.
    pub(crate) fn is_shared(self) -> bool {
        self.0 & SHARED != 0
    }

    /// Returns whether an operation may stop a process in the background.
    pub(crate) fn is_terminal(self) -> bool {
        self.0 & TERMINAL != 0
    }

    /// Keeps only this direction.
    pub(crate) fn only(self, direction: Medium) -> Medium {
        Medium(self.0 & !(INPUT | OUTPUT) | direction.0 & (INPUT | OUTPUT))
    }

    pub(crate) fn shared(self) -> Medium {
        Medium(self.0 | SHARED)
    }

    pub(crate) fn terminal(self) -> Medium {
        Medium(self.0 | TERMINAL)
    }

    pub(crate) fn unwaited(self) -> Medium {
        Medium(self.0 | UNWAITED)
    }
}

impl fmt::Debug for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            (SOCKET, "socket"),
            (INPUT, "input"),
            (OUTPUT, "output"),
            (UNWAITED, "unwaited"),
            (SHARED, "shared"),
            (TERMINAL, "terminal"),
        ];
        let mut set = f.debug_set();
        for (bit, name) in all {
            if self.0 & bit != 0 {
                set.entry(&format_args!("{name}"));
            }
        }
        set.finish()
    }
}

const SOCKET: u8 = 1 << 0;
const INPUT: u8 = 1 << 1;
const OUTPUT: u8 = 1 << 2;
const UNWAITED: u8 = 1 << 3;
const SHARED: u8 = 1 << 4;
const TERMINAL: u8 = 1 << 5;
