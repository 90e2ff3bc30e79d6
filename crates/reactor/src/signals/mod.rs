//! Signals of the process as a resource: which came, and how often.
//!
//! [`Context::signals`](crate::Context::signals) waits for a set of them; [`Signals::of_process`] does so
//! before there is a runtime. [`Graceful`] is the service that most programs want: SIGTERM and SIGINT stop
//! the runtime, a second one does it now.
//!
//! # What is promised
//!
//! - A signal of the set that is delivered to the process, or to any of its threads, is told to each
//!   [`Signals`] that waits for it, of every runtime of the process, and whatever other threads there are.
//! - It is told at least once. Several of one kind may be told as one event ([`Arrived::times`]): the kernel
//!   itself keeps at most one of each kind below `SIGRTMIN` pending. Between two kinds there is no order.
//! - While nobody waits for a kind any more its disposition is what it was before (sigaction(2)). A handler
//!   from before is called too, after ours. One that somebody else installs over ours stays, and has to call
//!   on.
//! - The signal mask is left alone: a signal that every thread blocks is pending until one of them does not,
//!   and is told then.
//! - System calls of other code that a signal interrupts are resumed (`SA_RESTART`), where signal(7) says
//!   that they can be.
//!
//! A child begins with the default disposition of what was handled here, since execve(2) resets handlers; an
//! ignored signal stays ignored there, and so does a blocked one. After a fork(2) without exec the child's
//! signals are told to nobody.
//!
//! SIGKILL and SIGSTOP cannot be handled. SIGSEGV and others of their kind are faults of the program's own
//! instructions: a handler that returns to these has them come again. So neither is a [`Signal`].

mod graceful;
mod resource;

use std::fmt;

pub use self::{
    graceful::Graceful,
    resource::{Arrived, Signals},
};
use crate::{
    engine::{Engine, StandIn},
    error::Error,
    sys::signals as system,
};

/// Waits for signals where the engine's world has them.
pub(crate) fn open(
    engine: &mut dyn Engine,
    signals: impl IntoIterator<Item = Signal>,
) -> Result<Signals, Error> {
    let set = resource::not_empty(signals)?;
    match engine.stand_in(StandIn::Signals(set)) {
        None => Signals::of_process(set.iter()),
        Some(Ok(transport)) => Ok(Signals::stand_in(set, transport)),
        Some(Err(error)) => Err(Error::os("signals", format!("{set:?}"), error)),
    }
}

/// A signal that can be waited for.
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
pub struct Signal(u32);

impl Signal {
    /// The terminal hung up; by custom: read the configuration again.
    pub const HUP: Signal = Signal(libc::SIGHUP as u32);
    /// Interrupt from the keyboard (Ctrl-C).
    pub const INT: Signal = Signal(libc::SIGINT as u32);
    /// Quit from the keyboard (Ctrl-\\).
    pub const QUIT: Signal = Signal(libc::SIGQUIT as u32);
    /// Asks to end.
    pub const TERM: Signal = Signal(libc::SIGTERM as u32);
    /// For the program's own use.
    pub const USR1: Signal = Signal(libc::SIGUSR1 as u32);
    /// For the program's own use.
    pub const USR2: Signal = Signal(libc::SIGUSR2 as u32);
    /// A timer of alarm(2) or setitimer(2).
    pub const ALRM: Signal = Signal(libc::SIGALRM as u32);
    /// A child ended, stopped or went on.
    pub const CHLD: Signal = Signal(libc::SIGCHLD as u32);
    /// Goes on after a stop.
    pub const CONT: Signal = Signal(libc::SIGCONT as u32);
    /// Stop from the keyboard (Ctrl-Z).
    pub const TSTP: Signal = Signal(libc::SIGTSTP as u32);
    /// The size of the terminal changed.
    pub const WINCH: Signal = Signal(libc::SIGWINCH as u32);

    /// The signal of this number, as signal(7) has them: for those that have no name here.
    ///
    /// # Errors
    /// [`Error::Misuse`] for what is none, and for what cannot be waited for.
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

    /// Its number on this system: for kill(2).
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

/// Some signals. May be empty; nobody can wait for an empty one.
///
/// ```
/// use reactor::signals::{Signal, SignalSet};
///
/// let set = SignalSet::from_iter([Signal::TERM, Signal::INT]);
/// assert!(set.contains(Signal::INT) && !set.contains(Signal::HUP));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SignalSet(u64);

impl SignalSet {
    /// Whether the signal is one of them.
    pub fn contains(self, signal: Signal) -> bool {
        self.iter().any(|one| one == signal)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each of them, the lowest number first.
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
