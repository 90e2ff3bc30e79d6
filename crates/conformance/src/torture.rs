//! Fails the n-th call of an engine, for a user of engines to be tested with every n.
//!
//! Counted are all calls that can fail (`wait`, `watch`, `attach`, `listen`, `connect`, `shutdown`, `read`,
//! `write`), and the events that can tell of a failure: input becomes [`Event::Broken`], a send that was
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

use crate::tamper::{Tamper, Tampered};

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
    left: Rc<Cell<u64>>,
}

impl FailNth {
    /// Fails the `nth` call, counted from 1, with this error number; 0 fails none.
    pub fn new(nth: u64, errno: i32) -> FailNth {
        FailNth { errno, left: Rc::new(Cell::new(nth)) }
    }

    /// Takes an engine under torture. Engines of one `FailNth` are counted together.
    pub fn engine(&self, inner: Box<dyn Engine>) -> Box<dyn Engine> {
        Box::new(Tampered::new(inner, Failing { torture: self.clone(), silenced: BTreeSet::new() }))
    }

    /// Whether the call came that was to fail. A test that raises n is done when it did not.
    pub fn has_failed(&self) -> bool {
        self.left.get() == 0
    }
}

impl FailNth {
    fn count(&self) -> Option<io::Error> {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        (left == 1).then(|| io::Error::from_raw_os_error(self.errno))
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
