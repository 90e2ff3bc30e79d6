//! Fails the n-th call of an engine, or several calls from there on, to test a user of engines with every n.
//!
//! Two things count: all calls that can fail (`wait`, `watch`, `attach`, `listen`, `connect`, `shutdown`,
//! `read`, `write`, `pass`, `receive`), and the events that can report a failure. Input becomes
//! [`Event::Broken`], a successful send becomes a failed one whose bytes are lost, a connect fails, and an
//! accept becomes [`Event::NotAccepted`]. The operation of the inner engine still happens, so the torture
//! itself must not leak: it closes an accepted transport, and gives a buffer back.

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

use crate::intercept::{Intercept, Intercepted};

/// The errors with which a system call may fail at any time, whatever the program does.
pub const ERRNOS: [i32; 7] =
    [libc::EINTR, libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ECONNRESET, libc::EIO, libc::ENOSPC];

/// Makes engines whose n-th fallible call fails, and reports whether the run reached that call.
///
/// ```
/// use conformance::torture::FailNth;
/// use reactor::engine::Engine;
/// let torture = FailNth::new(2, 12);
/// let mut engine = torture.engine(Box::new(sim::World::new(1).engine()));
/// assert!(engine.wait(Some(std::time::Duration::ZERO)).is_ok());
/// assert_eq!(engine.wait(None).expect_err("the second fails").raw_os_error(), Some(12));
/// assert!(torture.has_failed());
/// ```
#[derive(Clone, Debug)]
pub struct FailNth {
    errno: i32,
    /// How many calls in a row fail.
    times: u64,
    /// How many calls are left until the first failure.
    left: Rc<Cell<u64>>,
    failed: Rc<Cell<u64>>,
}

impl FailNth {
    /// Fails the `nth` call, counted from 1, with this error number. With 0, no call fails.
    pub fn new(nth: u64, errno: i32) -> FailNth {
        FailNth { errno, times: 1, left: Rc::new(Cell::new(nth)), failed: Rc::default() }
    }

    /// Fails the `nth` call with one of [`ERRNOS`], drawn from the seed and `nth`.
    pub fn drawn(nth: u64, seed: u64) -> FailNth {
        let draw = Chance::new(seed ^ nth.rotate_left(32)).up_to(ERRNOS.len());
        FailNth::new(nth, ERRNOS[draw - 1])
    }

    /// Fails this many calls in a row, beginning with the `nth`.
    #[must_use]
    pub fn times(mut self, times: u64) -> FailNth {
        self.times = times;
        self
    }

    /// Returns the error number of the failures.
    pub fn errno(&self) -> i32 {
        self.errno
    }

    /// Wraps an engine. All engines of one `FailNth` share its counter.
    pub fn engine(&self, inner: Box<dyn Engine>) -> Box<dyn Engine> {
        Box::new(Intercepted::new(inner, Failing { torture: self.clone(), silenced: BTreeSet::new() }))
    }

    /// Reports whether the run reached the call to fail. A test that raises n is done once it did not.
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
    /// Streams whose read side already failed by torture. Later input and ends of the inner engine are
    /// dropped.
    silenced: BTreeSet<Key>,
}

impl Intercept for Failing {
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
    /// Turns an event into a failure.
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
