//! Readiness: the pluggable poll system call, from which the adapter makes an engine.

mod adapter;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod epoll;
#[cfg(all(unix, feature = "mio", target_pointer_width = "64"))]
mod mio;
#[cfg(unix)]
mod poll;
#[cfg(all(feature = "polling", target_pointer_width = "64"))]
mod polling;

use std::{io, time::Duration};

pub use self::adapter::Calls;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use self::epoll::Epoll;
#[cfg(all(unix, feature = "mio", target_pointer_width = "64"))]
pub use self::mio::Mio;
#[cfg(unix)]
pub use self::poll::PollCall;
#[cfg(all(feature = "polling", target_pointer_width = "64"))]
pub use self::polling::Polling;
use crate::{
    engine::{Interest, Ready, Source},
    id::Key,
};

/// Whether a poll reports readiness once when it begins, or repeatedly while it holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Trigger {
    /// Reported in each wait while it holds.
    Level,
    /// Reported when it begins, and again only after an operation found that it had ended.
    Edge,
}

/// The reports of a level-triggered poll about a stream that the engine does not read, besides hang-ups and
/// errors.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rest {
    /// Room for output.
    pub room: bool,
    /// A peer that has ended its own side, as a hang-up.
    pub ends: bool,
}

/// The pluggable poll system call: readiness and nothing else. [`Calls`] makes an
/// [`Engine`](crate::engine::Engine) from it.
///
/// Contract: [`wait`](Poll::wait) appends `(key, ready)` with the key given to `watch`. A poll may report
/// more readiness than is true, and may report a key that was unwatched earlier in the same batch, because
/// the adapter copes with both. A poll may report hang-ups and errors of a watched source whatever its
/// interest is.
pub trait Poll {
    /// Returns the name that selects this poll.
    fn name(&self) -> &'static str;

    /// Returns how the engine watches streams. With [`Trigger::Edge`] it requests input once and for all, and
    /// room from the first write that found none. With [`Trigger::Level`] it updates the interest before each
    /// wait.
    fn trigger(&self) -> Trigger;

    /// Begins to watch. The engine requests edges only of a poll whose [`trigger`](Poll::trigger) is `Edge`.
    ///
    /// # Errors
    /// The system refused. EEXIST if the source is already watched.
    fn watch(&mut self, key: Key, source: Source<'_>, interest: Interest, trigger: Trigger)
    -> io::Result<()>;

    /// Changes the interest of a source. The trigger is the one with which it is watched. An edge-triggered
    /// poll reports the present readiness again.
    ///
    /// # Errors
    /// ENOENT if the source is not watched.
    fn rewatch(
        &mut self,
        key: Key,
        source: Source<'_>,
        interest: Interest,
        trigger: Trigger,
    ) -> io::Result<()>;

    /// Watches a source, which is already watched, only for hang-ups, errors and the parts of `rest`. The
    /// trigger is `Level`. Returns whether the poll still watches the source: the default ends watching
    /// unless `rest` asks for room.
    ///
    /// # Errors
    /// ENOENT if the source is not watched.
    fn rest(&mut self, key: Key, source: Source<'_>, rest: Rest) -> io::Result<bool> {
        match rest.room {
            true => self.rewatch(key, source, Interest::Write, Trigger::Level).map(|()| true),
            false => self.unwatch(key, source).map(|()| false),
        }
    }

    /// Returns whether [`rest`](Poll::rest) reports [ends](Rest::ends). If not, the engine watches a stream
    /// that it does not read for input until there is some, so that it finds an end that has no input before
    /// it.
    fn reports_ends(&self) -> bool {
        false
    }

    /// Ends watching.
    ///
    /// # Errors
    /// ENOENT if the source is not watched.
    fn unwatch(&mut self, key: Key, source: Source<'_>) -> io::Result<()>;

    /// Waits, and appends the ready sources. EINTR is an empty batch.
    ///
    /// # Errors
    /// The poll is broken.
    fn wait(&mut self, ready: &mut Vec<(Key, Ready)>, timeout: Option<Duration>) -> io::Result<()>;

    /// Returns the waker with which another thread ends a wait.
    fn waker(&self) -> std::task::Waker;

    /// Returns the number of system calls so far.
    fn calls(&self) -> u64 {
        0
    }

    /// Returns a descriptor that is readable when [`wait`](Poll::wait) would return.
    #[cfg(unix)]
    fn fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }
}
