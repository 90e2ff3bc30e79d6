//! The names of signals, and sets of them. [`crate::signals`] shows them to users.

use std::fmt;

use crate::{error::Error, sys::signals as system};

/// A signal that a service can wait for.
///
/// ```
/// use reactor::signals::Signal;
///
/// assert_eq!(Signal::TERM.to_string(), "SIGTERM");
/// assert_eq!(Signal::numbered(Signal::HUP.number())?, Signal::HUP);
/// assert!(Signal::numbered(9).is_err(), "SIGKILL cannot be handled");
/// # Ok::<(), reactor::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(pub(crate) u32);

impl Signal {
    /// The terminal hung up. By convention a request to reload the configuration.
    pub const HUP: Signal = Signal(libc::SIGHUP as u32);
    /// Interrupt from the keyboard (Ctrl-C).
    pub const INT: Signal = Signal(libc::SIGINT as u32);
    /// Quit from the keyboard (Ctrl-\\).
    pub const QUIT: Signal = Signal(libc::SIGQUIT as u32);
    /// A request to end.
    pub const TERM: Signal = Signal(libc::SIGTERM as u32);
    /// For the program's own use.
    pub const USR1: Signal = Signal(libc::SIGUSR1 as u32);
    /// For the program's own use.
    pub const USR2: Signal = Signal(libc::SIGUSR2 as u32);
    /// A timer of alarm(2) or setitimer(2) expired.
    pub const ALRM: Signal = Signal(libc::SIGALRM as u32);
    /// A child exited, stopped or continued.
    pub const CHLD: Signal = Signal(libc::SIGCHLD as u32);
    /// The process continues after a stop.
    pub const CONT: Signal = Signal(libc::SIGCONT as u32);
    /// Stop from the keyboard (Ctrl-Z).
    pub const TSTP: Signal = Signal(libc::SIGTSTP as u32);
    /// The size of the terminal changed.
    pub const WINCH: Signal = Signal(libc::SIGWINCH as u32);

    /// Returns the signal with this number of signal(7), for signals without a name here.
    ///
    /// # Errors
    /// [`Error::Misuse`] if there is no such signal, or if a service cannot wait for it.
    pub fn numbered(number: i32) -> Result<Signal, Error> {
        let misuse = |why| Err(Error::Misuse { operation: "signal", why });
        match number {
            libc::SIGKILL | libc::SIGSTOP => misuse("SIGKILL and SIGSTOP cannot be handled"),
            libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL | libc::SIGTRAP | libc::SIGSYS => {
                misuse("a fault of the program's own instructions cannot be waited for")
            }
            libc::SIGABRT => misuse("SIGABRT ends the process whatever its handler does"),
            _ => match u32::try_from(number) {
                Ok(number @ 1..=system::NUMBER_MAX) => Ok(Signal(number)),
                _ => misuse("there is no signal of this number"),
            },
        }
    }

    /// Returns the signal's number on this system, for kill(2).
    pub fn number(self) -> i32 {
        self.0 as i32
    }

    fn name(self) -> Option<&'static str> {
        Some(match self {
            Signal::HUP => "SIGHUP",
            Signal::INT => "SIGINT",
            Signal::QUIT => "SIGQUIT",
            Signal::TERM => "SIGTERM",
            Signal::USR1 => "SIGUSR1",
            Signal::USR2 => "SIGUSR2",
            Signal::ALRM => "SIGALRM",
            Signal::CHLD => "SIGCHLD",
            Signal::CONT => "SIGCONT",
            Signal::TSTP => "SIGTSTP",
            Signal::WINCH => "SIGWINCH",
            _ => return None,
        })
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "signal {}", self.0),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A set of signals. It may be empty, but nothing can wait for an empty set.
///
/// ```
/// use reactor::signals::{Signal, SignalSet};
///
/// let set = SignalSet::from_iter([Signal::TERM, Signal::INT]);
/// assert!(set.contains(Signal::INT) && !set.contains(Signal::HUP));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SignalSet(pub(crate) u64);

impl SignalSet {
    /// Returns whether the set contains the signal.
    pub fn contains(self, signal: Signal) -> bool {
        self.iter().any(|one| one == signal)
    }

    /// Returns whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Iterates over the signals, lowest number first.
    pub fn iter(self) -> impl Iterator<Item = Signal> {
        system::numbers(self.0).map(Signal)
    }
}

impl FromIterator<Signal> for SignalSet {
    fn from_iter<I: IntoIterator<Item = Signal>>(signals: I) -> SignalSet {
        SignalSet(signals.into_iter().fold(0, |set, signal| set | 1 << (signal.0 - 1)))
    }
}

impl fmt::Debug for SignalSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_waited_for_is_refused_with_its_reason() {
        let why = |number| Signal::numbered(number).expect_err("it is refused").to_string();
        for number in [libc::SIGKILL, libc::SIGSTOP] {
            assert_eq!(why(number), "signal: SIGKILL and SIGSTOP cannot be handled");
        }
        for number in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL] {
            assert_eq!(why(number), "signal: a fault of the program's own instructions cannot be waited for");
        }
        for number in [i32::MIN, -1, 0, system::NUMBER_MAX as i32 + 1, i32::MAX] {
            assert_eq!(why(number), "signal: there is no signal of this number");
        }
    }

    #[test]
    fn a_set_has_what_was_put_into_it_up_to_the_highest_number() {
        let highest = Signal::numbered(system::NUMBER_MAX as i32).expect("the limit is one");
        let set = SignalSet::from_iter([highest, Signal::HUP, Signal::HUP]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [Signal::HUP, highest]);
        assert!(set.contains(highest) && !set.contains(Signal::TERM));
        assert!(SignalSet::default().is_empty() && !set.is_empty());
    }
}
