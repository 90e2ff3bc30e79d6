//! Readiness: the pluggable poll system call, of which an adapter makes an engine.

use std::{io, time::Duration};

use super::{Interest, Ready, Source};
use crate::id::Key;

/// Whether a readiness is told once when it begins, or again and again while it holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Trigger {
    /// Told in each wait while it holds.
    Level,
    /// Told when it begins; told again after an operation found it ended.
    Edge,
}

/// What a level-triggered poll reports of a stream that the engine does not read, besides hang-ups and errors.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rest {
    /// Room for output.
    pub room: bool,
    /// A peer that has ended its own side, as a hang-up.
    pub ends: bool,
}

/// The pluggable poll system call: readiness and nothing else. [`Calls`](super::Calls) makes an
/// [`Engine`](super::Engine) of it.
///
/// Contract: [`wait`](Poll::wait) appends `(key, ready)` with the key given by `watch`. A poll is free to
/// report more than is true, and a key that was unwatched earlier in the same batch: the adapter sorts
/// it out. Hang-ups and errors may be reported whatever the interest says, for sources that are watched.
pub trait Poll {
    /// The name by which it is chosen.
    fn name(&self) -> &'static str;

    /// How streams are watched: [`Trigger::Edge`] for input once and for all, and for room too from the first
    /// write that found none; or [`Trigger::Level`], with the interest kept in step once a turn.
    fn trigger(&self) -> Trigger;

    /// Begins to watch. Only a poll whose [`trigger`](Poll::trigger) is `Edge` is asked for edges.
    ///
    /// # Errors
    /// The system refused; EEXIST when the source is already watched.
    fn watch(&mut self, key: Key, source: Source<'_>, interest: Interest, trigger: Trigger)
    -> io::Result<()>;

    /// Changes the interest of a source; the trigger is the one it is watched with. An edge-triggered poll
    /// tells anew what holds.
    ///
    /// # Errors
    /// ENOENT when the source is not watched.
    fn rewatch(
        &mut self,
        key: Key,
        source: Source<'_>,
        interest: Interest,
        trigger: Trigger,
    ) -> io::Result<()>;

    /// Watches a source, which is watched already, only for hang-ups, for errors and for what `rest` asks for. The trigger
    /// is `Level`. Returns whether the poll still watches the source: the default ends watching unless `rest` asks for
    /// room.
    ///
    /// # Errors
    /// ENOENT when the source is not watched.
    fn rest(&mut self, key: Key, source: Source<'_>, rest: Rest) -> io::Result<bool> {
        match rest.room {
            true => self.rewatch(key, source, Interest::Write, Trigger::Level).map(|()| true),
            false => self.unwatch(key, source).map(|()| false),
        }
    }

    /// Returns whether [`rest`](Poll::rest) reports [ends](Rest::ends). If not, the engine watches a stream that it does not
    /// read for input until there is some, so that it finds an end that has no input before it.
    fn tells_ends(&self) -> bool {
        false
    }

    /// Ends watching.
    ///
    /// # Errors
    /// ENOENT when the source is not watched.
    fn unwatch(&mut self, key: Key, source: Source<'_>) -> io::Result<()>;

    /// Waits, and appends what is ready. EINTR is an empty batch.
    ///
    /// # Errors
    /// The poll is broken.
    fn wait(&mut self, ready: &mut Vec<(Key, Ready)>, timeout: Option<Duration>) -> io::Result<()>;

    /// How another thread ends a wait.
    fn waker(&self) -> std::task::Waker;

    /// How many system calls were made so far.
    fn calls(&self) -> u64 {
        0
    }

    /// A descriptor that is readable when [`wait`](Poll::wait) would return.
    #[cfg(unix)]
    fn fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }
}
