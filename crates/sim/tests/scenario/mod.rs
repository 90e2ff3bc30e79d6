//! The checking scenario: a world of strict peers under faults, which must recover when the faults end.
//!
//! One [`Plan`] is played in two phases. During the faults, the scenario checks every promise of a runtime at
//! each moment. After them, everything must converge in bounded virtual time, and nothing may be left at the
//! end.
#![allow(dead_code, reason = "each test uses a part of it")]

mod ledger;
mod notes;
mod peer;
mod probe;
mod talk;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use reactor::{Metrics, Runtime};
use sim::{Chance, Digest, Leaks, NodeId, Plan, Summary, VirtualSource, World};

use self::{
    ledger::{Book, Ledger, Mode},
    peer::{PORT, Peer},
    probe::{Left, Right},
};

/// The result of a run without a violation.
#[derive(Debug)]
pub(crate) struct Played {
    /// The counts of the world.
    pub(crate) summary: Summary,
    /// How often each rare branch was reached.
    pub(crate) reached: BTreeMap<&'static str, u64>,
}

/// The rare branches that many runs together must reach.
pub(crate) const RARE: [&str; 18] = [
    "an end after a cut",
    "a send to a stream that is gone",
    "a queue above its high mark",
    "a queue above its cap",
    "a queue drained",
    "an accept failed",
    "a stream could not be registered",
    "a deadline passed",
    "a stream stalled",
    "a phase of a stream timed out",
    "a stream went on under another id",
    "a stream could not be added again",
    "a command to a node that is down",
    "a node ended in the middle of talks",
    "an operation on files was cut short",
    "a note was there that nobody had waited for",
    "a read was overtaken by a sync",
    "a hang-up was told",
];

/// A function that gets the digest after each step.
pub(crate) type Note<'a> = &'a mut dyn FnMut(Digest);

/// Returns the plan of a seed.
pub(crate) fn plan(seed: u64) -> Plan {
    Plan::draw(seed, 4, Duration::from_secs(4))
}

/// Plays a plan.
///
/// # Errors
/// The first violation.
pub(crate) fn play(plan: &Plan) -> Result<Played, String> {
    Stage::new(plan, false).play(&mut |_| ())
}

/// Plays a plan, and reports the digest after each step.
///
/// # Errors
/// As [`play`].
pub(crate) fn play_noted(plan: &Plan, note: Note<'_>) -> Result<Played, String> {
    Stage::new(plan, false).play(note)
}

/// Plays a plan with one byte of one stream changed.
///
/// # Errors
/// As [`play`].
pub(crate) fn play_twisted(plan: &Plan) -> Result<Played, String> {
    Stage::new(plan, true).play(&mut |_| ())
}

struct Stage {
    world: World,
    ledger: Rc<RefCell<Ledger>>,
    nodes: Vec<NodeId<Peer>>,
    feeds: Vec<VirtualSource>,
    chance: Chance,
    time: Duration,
    steps: u64,
}

impl Stage {
    fn new(plan: &Plan, is_twisted: bool) -> Stage {
        let mut world = plan.world();
        let ledger = Rc::new(RefCell::new(Ledger { is_twisted, ..Ledger::default() }));
        let (mut nodes, mut feeds) = (Vec::new(), Vec::new());
        for me in 0..plan.nodes {
            let feed = world.virtual_source();
            let number = feed.source().number().unwrap_or_default();
            feeds.push(feed);
            ledger.borrow_mut().books.push(Book::default());
            let of = ledger.clone();
            let build = move |runtime: &mut Runtime| runtime.add(Peer::new(of.clone(), me, number));
            let node = world.add(build);
            nodes.push(node);
            let ip = IpAddr::V4(world.ip(node));
            ledger.borrow_mut().addresses.push(SocketAddr::new(ip, PORT));
        }
        let chance = Chance::new(plan.seed ^ 0x5ce0_a210);
        Stage { world, ledger, nodes, feeds, chance, time: plan.time, steps: 0 }
    }

    fn play(mut self, note: Note<'_>) -> Result<Played, String> {
        self.world.schedule_chaos(self.time, self.time / 24);
        self.run(self.time, note, |_| false)?;
        self.world.stop_faults();
        self.begin_liveness();
        let is_calm = self.run(LIVENESS, note, Stage::is_calm)?;
        if !is_calm {
            return Err(self.what_hangs());
        }
        self.at_rest(note)?;
        let summary = self.world.summary();
        let left = self.world.end();
        if left != Leaks::default() {
            return Err(format!("left at the end: {left:?}"));
        }
        let reached = std::mem::take(&mut self.ledger.borrow_mut().reached);
        Ok(Played { summary, reached })
    }

    /// Lets time pass in slices, and sends input from outside between them. Returns whether it was done
    /// early.
    fn run(&mut self, time: Duration, note: Note<'_>, done: fn(&mut Stage) -> bool) -> Result<bool, String> {
        let mut left = time;
        while !left.is_zero() {
            if done(self) {
                return Ok(true);
            }
            let slice = Duration::from_micros(self.chance.between(500, 40_000)).min(left);
            left -= slice;
            self.meddle();
            let (ledger, nodes, steps) = (&self.ledger, &self.nodes, &mut self.steps);
            self.world.run_checked(slice, |world| {
                note(world.digest());
                check(world, ledger, nodes, steps)
            })?;
        }
        Ok(done(self))
    }

    /// Sends commands and feeds sources, from outside of the nodes.
    fn meddle(&mut self) {
        let node = self.chance.below(self.nodes.len() as u64) as usize;
        let now = self.world.now();
        let mut ledger = self.ledger.borrow_mut();
        for _ in 0..self.chance.below(4) {
            let book = &mut ledger.books[node];
            let number = book.commands_sent;
            let sent = book.controller.as_ref().is_some_and(|controller| match self.chance.below(2) {
                0 => controller.send(Left(number)).is_ok(),
                _ => controller.send(Right(number)).is_ok(),
            });
            if sent {
                book.commands_sent += 1;
                book.commands.push_back(now);
            } else {
                ledger.sometimes("a command to a node that is down");
            }
        }
        let book = &mut ledger.books[node];
        let count = self.chance.below(20);
        let bytes: Vec<u8> = (book.fed..book.fed + count).map(|at| at as u8).collect();
        book.fed += count;
        drop(ledger);
        self.feeds[node].put(&bytes);
    }

    fn begin_liveness(&mut self) {
        let now = self.world.now();
        let mut ledger = self.ledger.borrow_mut();
        ledger.strict_since = Some(now);
        let has_cut = ledger.talks.values().any(|talk| talk.client.is_cut && talk.client.closed.is_none());
        if has_cut {
            ledger.sometimes("a node ended in the middle of talks");
        }
        for book in &mut ledger.books {
            (book.strict_left, book.strict_open) = (STRICT_TALKS, 0);
        }
    }

    /// Returns whether all talks are over, and all sent bytes have arrived.
    fn is_calm(&mut self) -> bool {
        let ledger = self.ledger.borrow();
        ledger.books.iter().all(is_book_calm)
    }

    fn what_hangs(&self) -> String {
        let ledger = self.ledger.borrow();
        let mut books = ledger.books.iter().enumerate();
        let (node, book) = books.find(|(_, book)| !is_book_calm(book)).expect("one is not calm");
        let talk = ledger.talks.iter().find(|(_, talk)| {
            let ends = [&talk.client, &talk.server];
            talk.is_strict && ends.into_iter().any(|side| side.is_open && side.closed.is_none())
        });
        format!(
            "node {node} does not come to rest in {LIVENESS:?}: {} resources, {} timers, {} commands, {} jobs, \
             {} operations, {} of {} bytes fed, {} talks to begin, {} open; {talk:?}",
            book.resources,
            book.timers,
            book.commands.len(),
            book.jobs.len(),
            book.operations,
            book.tapped,
            book.fed,
            book.strict_left,
            book.strict_open,
        )
    }

    /// Checks the conditions of an idle world.
    fn at_rest(&mut self, note: Note<'_>) -> Result<(), String> {
        // The last packets in flight arrive.
        self.run(Duration::from_secs(1), note, |_| false)?;
        for (client, talk) in self.ledger.borrow().talks.iter().filter(|(_, talk)| talk.is_strict) {
            let is_over =
                talk.client.closed.is_some() && (talk.mode == Mode::Refused || talk.server.closed.is_some());
            if !is_over {
                return Err(format!("{client}: without faults one end never came: {talk:?}"));
            }
        }
        for (number, node) in self.nodes.iter().enumerate() {
            let Some(runtime) = self.world.runtime(*node) else {
                return Err(format!("node {number} is down: {:?}", self.world.ended(*node)));
            };
            let counters = runtime.metrics().read();
            if (counters.resources, counters.timers, counters.queue_bytes) != (2, 0, 0) {
                return Err(format!("node {number} holds something at rest: {counters:?}"));
            }
        }
        Ok(())
    }
}

fn is_book_calm(book: &Book) -> bool {
    book.controller.is_some()
        && book.resources == 2
        && book.timers == 0
        && book.commands.is_empty()
        && book.jobs.is_empty()
        && book.operations == 0
        && book.tapped == book.fed
        && (book.strict_left, book.strict_open) == (0, 0)
}

/// Checks after each step that there is no violation, and that the runtime's counts match its service's.
fn check(
    world: &mut World,
    ledger: &RefCell<Ledger>,
    nodes: &[NodeId<Peer>],
    steps: &mut u64,
) -> Result<(), String> {
    *steps += 1;
    if *steps > STEPS_MAX {
        return Err(format!("more than {STEPS_MAX} steps at {:?}: it spins", world.now()));
    }
    // One node for each step: a leak stays, so a later step finds it.
    let number = *steps as usize % nodes.len();
    let counters = world.runtime(nodes[number]).map(|runtime| Metrics::read(&runtime.metrics()));
    let mut ledger = ledger.borrow_mut();
    let book = &ledger.books[number];
    let believed = (book.resources, book.timers);
    // A runtime has no counts before its first turn.
    if let Some(counters) = counters.filter(|counters| counters.turns > 0) {
        let is_right = (counters.resources, counters.timers) == believed;
        ledger.must(is_right, || {
            format!(
                "node {number}: the runtime holds {} resources and {} timers, the service believes in {} and {}",
                counters.resources, counters.timers, believed.0, believed.1
            )
        });
    }
    ledger.violation.take().map_or(Ok(()), Err)
}

/// The most virtual time for the recovery.
const LIVENESS: Duration = Duration::from_secs(60);
/// The talks that each node begins after the faults.
const STRICT_TALKS: u32 = 12;
const STEPS_MAX: u64 = 3_000_000;
