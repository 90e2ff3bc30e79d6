//! Fails the n-th call of an engine, or some from there on, for a user of engines to be tested with every n.
//!
//! Counted are all calls that can fail (`wait`, `watch`, `attach`, `listen`, `connect`, `shutdown`, `read`,
//! `write`, `pass`, `receive`), and the events that can tell of a failure: input becomes [`Event::Broken`], a send that was
//! taken becomes one that failed with its bytes gone, a connect fails, an accept becomes
//! [`Event::NotAccepted`]. What the engine beneath did stays done, so nothing leaks because of the torture
//! itself: a transport that was accepted is closed, a buffer is given back.

use std::{
    cell::Cell,
    collections::{BTreeSet, VecDeque},
    io,
    rc::Rc,
};

use reactor::{
    Key,
    engine::{Engine, Event, Sent},
};
use sim::Chance;

use crate::tamper::{Tamper, Tampered};

/// What a system call may fail with at any time, whatever the program does.
pub const ERRNOS: [i32; 7] =
    [libc::EINTR, libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ECONNRESET, libc::EIO, libc::ENOSPC];

/// Makes engines whose n-th fallible call fails, and says whether it came to that.
///
/// ```
/// use conformance::{double::{Network, Tuning}, torture::FailNth};
/// use reactor::engine::Engine;
/// let torture = FailNth::new(2, 12);
/// let mut engine = torture.engine(Box::new(Network::new(Tuning::roomy(1)).double()));
/// assert!(engine.wait(Some(std::time::Duration::ZERO)).is_ok());
/// assert_eq!(engine.wait(None).expect_err("the second fails").raw_os_error(), Some(12));
/// assert!(torture.has_failed());
/// ```
#[derive(Clone, Debug)]
pub struct FailNth {
    errno: i32,
    /// How many calls fail, one after the other.
    times: u64,
    /// Calls until the first of them.
    left: Rc<Cell<u64>>,
    failed: Rc<Cell<u64>>,
}

impl FailNth {
    /// Fails the `nth` call, counted from 1, with this error number; 0 fails none.
    pub fn new(nth: u64, errno: i32) -> FailNth {
        FailNth { errno, times: 1, left: Rc::new(Cell::new(nth)), failed: Rc::default() }
    }

    /// The same with one of [`ERRNOS`], drawn from a seed and `nth`.
    pub fn drawn(nth: u64, seed: u64) -> FailNth {
        let draw = Chance::new(seed ^ nth.rotate_left(32)).up_to(ERRNOS.len());
        FailNth::new(nth, ERRNOS[draw - 1])
    }

    /// Fails so many calls in a row, beginning with the `nth`.
    pub fn times(mut self, times: u64) -> FailNth {
        self.times = times;
        self
    }

    /// The error number it fails with.
    pub fn errno(&self) -> i32 {
        self.errno
    }

    /// Takes an engine under torture. Engines of one `FailNth` are counted together.
    pub fn engine(&self, inner: Box<dyn Engine>) -> Box<dyn Engine> {
        Box::new(Tampered::new(inner, Failing { torture: self.clone(), silenced: BTreeSet::new() }))
    }

    /// Whether the call came that was to fail. A test that raises n is done when it did not.
    pub fn has_failed(&self) -> bool {
        self.failed.get() > 0
    }
}

impl FailNth {
    fn count(&self) -> Option<io::Error> {
        let left = self.left.get();
        if left > 1 {
            self.left.set(left - 1);
            return None;
        }
        if left == 0 || self.failed.get() >= self.times {
            return None;
        }
        self.failed.set(self.failed.get() + 1);
        Some(io::Error::from_raw_os_error(self.errno))
    }
}

/// The torture of one engine.
struct Failing {
    torture: FailNth,
    /// Streams whose read side was told to have failed: what the engine beneath still tells is dropped.
    silenced: BTreeSet<Key>,
}

impl Tamper for Failing {
    fn fails(&mut self) -> Option<io::Error> {
        self.torture.count()
    }

    fn event(&mut self, key: Key, event: Event, out: &mut VecDeque<(Key, Event)>, inner: &mut dyn Engine) {
        let event = match event {
            Event::Got(chunk) if self.silenced.contains(&key) => return inner.give(chunk),
            Event::End | Event::Broken(_) if self.silenced.contains(&key) => return,
            Event::Got(_) | Event::Sent(_) | Event::Connected(Ok(())) | Event::Accepted(..) => {
                match self.torture.count() {
                    Some(error) => self.spoil(key, event, error, inner),
                    None => event,
                }
            }
            event => event,
        };
        out.push_back((key, event));
    }

    fn closed(&mut self, key: Key, _: &mut VecDeque<(Key, Event)>) {
        self.silenced.remove(&key);
    }

    fn sent(&mut self, sent: Sent) -> Sent {
        match self.torture.count() {
            None => sent,
            Some(error) => Sent { queue: sent.queue, result: Err(error) },
        }
    }
}

impl Failing {
    /// Makes a failure of an event.
    fn spoil(&mut self, key: Key, event: Event, error: io::Error, inner: &mut dyn Engine) -> Event {
        match event {
            Event::Sent(Sent { queue, .. }) => return Event::Sent(Sent { queue, result: Err(error) }),
            Event::Accepted(..) => {
                inner.reading(key, false);
                return Event::NotAccepted(error);
            }
            Event::Got(chunk) => inner.give(chunk),
            _ => {
                self.silenced.insert(key);
                return Event::Connected(Err(error));
            }
        }
        self.silenced.insert(key);
        Event::Broken(error)
    }
}
