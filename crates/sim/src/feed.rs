//! Virtual sources: what a user's resource is made of where there are no descriptors.

use std::{cell::RefCell, collections::VecDeque, io, rc::Rc};

use reactor::{
    Key,
    engine::{Interest, Outgoing, Ready, Source},
};

use crate::{error, state::State};

/// The state of one virtual source.
#[derive(Default)]
pub(crate) struct Fed {
    input: VecDeque<u8>,
    ended: bool,
    failed: Option<i32>,
    output: Vec<u8>,
    room: usize,
    /// Who watches it, for what, and on whose list it is to be told: perhaps still on that of an engine
    /// which is gone.
    pub(crate) watcher: Option<(u32, Key)>,
    pub(crate) interest: Option<Interest>,
    pub(crate) queued: Option<u32>,
    /// That it is told was drawn, although nothing is ready.
    pub(crate) is_lie: bool,
    /// A hang-up without anything else was told; it is not again.
    pub(crate) told: bool,
}

impl Fed {
    /// What is to be told of it, as far as it is watched for that.
    pub(crate) fn ready(&self) -> Option<Ready> {
        let interest = self.interest?;
        let ready = Ready {
            readable: (!self.input.is_empty() || self.ended) && interest.is_read(),
            writable: self.room > 0 && interest.is_write(),
            hangup: self.ended,
            error: self.failed.is_some(),
        };
        let is_silent = !(ready.readable || ready.writable);
        (ready != Ready::default() && !(is_silent && self.told)).then_some(ready)
    }

    pub(crate) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.input.len().min(into.len());
        match (count, self.failed) {
            (0, Some(number)) => Err(error::os(number)),
            (0, None) if !self.ended && !into.is_empty() => Err(error::os(error::AGAIN)),
            _ => {
                for (to, byte) in into.iter_mut().zip(self.input.drain(..count)) {
                    *to = byte;
                }
                Ok(count)
            }
        }
    }

    pub(crate) fn write(&mut self, from: &Outgoing) -> io::Result<usize> {
        let front = from.front();
        let count = self.room.min(front.len());
        match (count, self.failed) {
            (_, Some(number)) => Err(error::os(number)),
            (0, None) if !front.is_empty() => Err(error::os(error::AGAIN)),
            _ => {
                self.output.extend_from_slice(&front[..count]);
                self.room -= count;
                Ok(count)
            }
        }
    }
}

/// A virtual source in a test's hand: its input comes from here, and its output goes here.
///
/// The simulated twin of a user's [`Resource`](reactor::Resource) holds [`Feed::source`], and reads and
/// writes through its `Io` as ever. Dropping the feed makes the source a bad one (EBADF).
///
/// ```
/// let mut world = sim::World::new(1);
/// let feed = world.feed();
/// feed.put(b"abc");
/// assert!(feed.source().number().is_some());
/// assert!(feed.taken().is_empty());
/// ```
pub struct Feed {
    state: Rc<RefCell<State>>,
    number: u32,
}

impl Feed {
    pub(crate) fn new(state: &Rc<RefCell<State>>) -> Feed {
        let number = state.borrow_mut().add_feed();
        Feed { state: state.clone(), number }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Fed) -> T) -> T {
        let mut state = self.state.borrow_mut();
        let fed = state.feeds[self.number as usize].as_mut().expect("a feed lives as long as its handle");
        fed.told = false;
        let result = change(fed);
        state.look_at_feed(self.number);
        result
    }

    /// What is to be watched.
    pub fn source(&self) -> Source<'static> {
        Source::hosted(u64::from(self.number))
    }

    /// Adds input.
    pub fn put(&self, bytes: &[u8]) {
        self.change(|fed| fed.input.extend(bytes));
    }

    /// Ends the input, after what was put.
    pub fn end(&self) {
        self.change(|fed| fed.ended = true);
    }

    /// Fails with EIO: writes at once, reads after what was put.
    pub fn fail(&self) {
        self.change(|fed| fed.failed = Some(error::IO));
    }

    /// Makes room for this many more bytes of output.
    pub fn allow(&self, bytes: usize) {
        self.change(|fed| fed.room = fed.room.saturating_add(bytes));
    }

    /// Takes what was written.
    pub fn taken(&self) -> Vec<u8> {
        self.change(|fed| std::mem::take(&mut fed.output))
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // Nobody borrows the world while a test's own handles are dropped, but a panic may.
        if let Ok(mut state) = self.state.try_borrow_mut() {
            state.feeds[self.number as usize] = None;
        }
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Feed({})", self.number)
    }
}
