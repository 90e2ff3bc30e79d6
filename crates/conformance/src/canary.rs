//! Engines that are broken on purpose. A suite that passes one of them tests nothing.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Wake, Waker},
    time::Duration,
};

use reactor::{
    Address, Ecn, Key, Time,
    engine::{Batch, Engine, Event},
};
use sim::Chance;

use crate::intercept::{Intercept, Intercepted};

/// A flaw of an engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// Loses one event in this many, at seeded places.
    LosesEvents(u64),
    /// Changes a byte in one chunk of input in this many, at seeded places.
    ChangesBytes(u64),
    /// Loses every n-th wake.
    LosesWakes(u64),
    /// Waits half as long, and pretends that all the time has passed.
    FiresEarly,
    /// Reports an event for a key that is already closed.
    TellsOfTheDead,
    /// Returns from every wait at once.
    Spins,
    /// Merges all datagrams that arrived together into one.
    MergesDatagrams,
    /// Takes an empty datagram for an end, and does not report it.
    SwallowsEmpty,
    /// Takes an error report about one datagram for the end of the socket.
    EndsAtReports,
    /// Restarts an interrupted wait with its full duration, for at most three seconds.
    WaitsAnew,
}

/// Breaks an engine. The seed places the faults that happen by chance.
///
/// ```
/// use conformance::{Suite, canary::{Flaw, broken}};
/// let mut world = sim::World::new(1);
/// let make = || broken(Box::new(world.engine()), Flaw::TellsOfTheDead, 1);
/// assert!(!Suite::new(make).only("A1").run().is_passed());
/// ```
pub fn broken(engine: Box<dyn Engine>, flaw: Flaw, seed: u64) -> Box<dyn Engine> {
    Box::new(Intercepted::new(engine, Canary { flaw, chance: Chance::new(seed), ahead: Duration::ZERO }))
}

struct Canary {
    flaw: Flaw,
    chance: Chance,
    /// How far the engine's clock runs ahead.
    ahead: Duration,
}

impl Intercept for Canary {
    fn event(&mut self, key: Key, event: Event, out: &mut VecDeque<(Key, Event)>, inner: &mut dyn Engine) {
        match (self.flaw, event) {
            (Flaw::LosesEvents(one_in), event) if self.chance.bits().is_multiple_of(one_in.max(1)) => {
                if let Event::Got(chunk) = event {
                    inner.give(chunk);
                }
            }
            (Flaw::ChangesBytes(one_in), Event::Got(mut chunk)) => {
                if let Some(byte) = chunk.bytes().first_mut()
                    && self.chance.bits().is_multiple_of(one_in.max(1))
                {
                    *byte ^= 1;
                }
                out.push_back((key, Event::Got(chunk)));
            }
            (Flaw::MergesDatagrams, Event::Datagrams(batch)) => {
                out.push_back((key, Event::Datagrams(merged(batch))));
            }
            (Flaw::SwallowsEmpty, Event::Datagrams(batch)) => {
                let batch = without_empty(batch);
                if !batch.is_empty() {
                    out.push_back((key, Event::Datagrams(batch)));
                }
            }
            (Flaw::EndsAtReports, Event::Undelivered(_, error)) => {
                out.push_back((key, Event::Broken(error)));
            }
            (_, event) => out.push_back((key, event)),
        }
    }

    fn closed(&mut self, key: Key, out: &mut VecDeque<(Key, Event)>) {
        if self.flaw == Flaw::TellsOfTheDead {
            out.push_back((key, Event::End));
        }
    }

    fn waker(&self, waker: Waker) -> Waker {
        match self.flaw {
            Flaw::LosesWakes(one_in) => {
                Arc::new(Forgetful { waker, one_in: one_in.max(1), count: AtomicU64::new(0) }).into()
            }
            _ => waker,
        }
    }

    fn now(&self, now: Time) -> Time {
        now + self.ahead
    }

    fn wait(&mut self, timeout: Option<Duration>, inner: &mut dyn Engine) -> io::Result<()> {
        let begun = inner.host().now();
        loop {
            let before = inner.host().now();
            inner.wait(timeout)?;
            let now = inner.host().now();
            let is_whole = timeout.is_none_or(|timeout| now.since(before) >= timeout);
            if self.flaw != Flaw::WaitsAnew || is_whole || now.since(begun) >= WAIT_MAX {
                return Ok(());
            }
        }
    }

    fn timeout(&mut self, timeout: Option<Duration>) -> Option<Duration> {
        match (self.flaw, timeout) {
            (Flaw::FiresEarly, Some(timeout)) => {
                self.ahead = self.ahead.saturating_add(timeout / 2);
                Some(timeout / 2)
            }
            (Flaw::Spins, _) => Some(Duration::ZERO),
            // End a wait whose wake was lost nevertheless, so that the row fails and does not hang.
            (Flaw::LosesWakes(_), timeout) => Some(timeout.map_or(WAIT_MAX, |timeout| timeout.min(WAIT_MAX))),
            (_, timeout) => timeout,
        }
    }
}

/// Merges all datagrams into one, from the first one's sender.
fn merged(mut batch: Batch) -> Batch {
    let mut all: Option<(Address, Vec<u8>)> = None;
    while let Some(datagram) = batch.take() {
        all.get_or_insert_with(|| (datagram.from.clone(), Vec::new())).1.extend_from_slice(datagram.bytes);
    }
    let mut one = Batch::default();
    if let Some((from, bytes)) = all {
        one.put(&bytes, &from, None, Ecn::NotCapable, false);
    }
    one
}

/// Keeps only the datagrams that have bytes.
fn without_empty(mut batch: Batch) -> Batch {
    let mut rest = Batch::default();
    while let Some(datagram) = batch.take() {
        if !datagram.bytes.is_empty() {
            rest.put(datagram.bytes, datagram.from, datagram.to, datagram.ecn, datagram.truncated);
        }
    }
    rest
}

/// Longer than the rows wait for a wake.
const WAIT_MAX: Duration = Duration::from_secs(3);

/// A waker that drops every n-th wake.
struct Forgetful {
    waker: Waker,
    one_in: u64,
    count: AtomicU64,
}

impl Wake for Forgetful {
    fn wake(self: Arc<Forgetful>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Forgetful>) {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if !count.is_multiple_of(self.one_in) {
            self.waker.wake_by_ref();
        }
    }
}
