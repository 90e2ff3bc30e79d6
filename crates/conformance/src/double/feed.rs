//! Virtual sources: the base of a user's resource in a world without descriptors.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    sync::Arc,
};

use reactor::engine::{Outgoing, Ready, Source};

use super::{fault, network::Shared};

/// The state of one virtual source.
pub(super) struct Fed {
    input: VecDeque<u8>,
    ended: bool,
    failed: Option<ErrorKind>,
    output: Vec<u8>,
    room: usize,
    pub(super) watched: bool,
}

impl Fed {
    pub(super) fn ready(&self) -> Ready {
        let error = self.failed.is_some();
        Ready {
            readable: !self.input.is_empty() || self.ended,
            writable: self.room > 0,
            hangup: self.ended,
            error,
        }
    }

    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.input.len().min(into.len());
        match (count, self.failed) {
            (0, Some(kind)) => Err(fault::error(kind)),
            (0, None) if !self.ended && !into.is_empty() => Err(fault::error(ErrorKind::WouldBlock)),
            _ => {
                for (to, byte) in into.iter_mut().zip(self.input.drain(..count)) {
                    *to = byte;
                }
                Ok(count)
            }
        }
    }

    pub(super) fn write(&mut self, from: &Outgoing) -> io::Result<usize> {
        let front = from.front();
        let count = self.room.min(front.len());
        match (count, self.failed) {
            (_, Some(kind)) => Err(fault::error(kind)),
            (0, None) if !front.is_empty() => Err(fault::error(ErrorKind::WouldBlock)),
            _ => {
                self.output.extend_from_slice(&front[..count]);
                self.room -= count;
                Ok(count)
            }
        }
    }
}

/// A virtual source in the hands of a test, which supplies the input and takes the output.
///
/// A user's resource under test holds [`Feed::source`]. After a drop of the feed, that source is invalid.
///
/// ```
/// use conformance::double::{Network, Tuning};
/// use reactor::engine::Engine;
/// let network = Network::new(Tuning::roomy(1));
/// let (mut engine, feed) = (network.double(), network.source());
/// feed.put(b"abc");
/// let mut bytes = [0; 8];
/// assert_eq!(engine.read(feed.source(), &mut bytes).ok(), Some(3));
/// ```
pub struct Feed {
    shared: Arc<Shared>,
    number: u64,
}

impl Feed {
    pub(super) fn new(shared: &Arc<Shared>) -> Feed {
        let number = shared.change(|state| {
            let number = state.number();
            let fed = Fed {
                input: VecDeque::new(),
                ended: false,
                failed: None,
                output: Vec::new(),
                room: 0,
                watched: false,
            };
            state.feeds.insert(number, fed);
            number
        });
        Feed { shared: Arc::clone(shared), number }
    }

    fn change<T: Default>(&self, change: impl FnOnce(&mut Fed) -> T) -> T {
        self.shared.change(|state| state.feeds.get_mut(&self.number).map(change).unwrap_or_default())
    }

    /// Returns the source to watch.
    pub fn source(&self) -> Source<'static> {
        Source::hosted(self.number)
    }

    /// Adds input.
    pub fn put(&self, bytes: &[u8]) {
        self.change(|fed| fed.input.extend(bytes));
    }

    /// Ends the input after the bytes that were put.
    pub fn end(&self) {
        self.change(|fed| fed.ended = true);
    }

    /// Makes the source fail: writes at once, and reads after the bytes that were put.
    pub fn fail(&self, kind: ErrorKind) {
        self.change(|fed| fed.failed = Some(kind));
    }

    /// Makes room for this many more bytes of output.
    pub fn allow(&self, bytes: usize) {
        self.change(|fed| fed.room = fed.room.saturating_add(bytes));
    }

    /// Takes the bytes that were written.
    pub fn taken(&self) -> Vec<u8> {
        self.change(|fed| std::mem::take(&mut fed.output))
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.shared.change(|state| state.feeds.remove(&self.number));
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Feed({})", self.number)
    }
}
