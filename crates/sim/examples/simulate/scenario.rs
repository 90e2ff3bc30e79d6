//! The scenario: nodes publish facts during faults, and then have to agree.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    rc::Rc,
    time::Duration,
};

use reactor::{Address, Time};
use sim::{Chance, Faults, Happening, Kind, Leaks, Link, Node, NodeId, Summary, World, WorldOptions};

use crate::{
    args::Request,
    gossip_service::{Facts, Gossip, Watch},
};

/// The outcome of a run.
pub(crate) struct Played {
    pub(crate) faults: Faults,
    pub(crate) began: Time,
    pub(crate) calm_since: Time,
    pub(crate) ended: Time,
    /// The time from the end of the faults until all agreed.
    pub(crate) converged: Option<Duration>,
    /// The violation, if there was one.
    pub(crate) wrong: Option<String>,
    pub(crate) summary: Summary,
    pub(crate) facts: u64,
    pub(crate) restarts: u64,
    /// The nodes and times at which facts were published.
    pub(crate) published: Vec<(Time, Node)>,
    /// The known part of all facts, over time.
    pub(crate) known: Vec<(Time, f64)>,
    pub(crate) history: Vec<Happening>,
    pub(crate) history_left_out: u64,
}

/// The world with the test's records.
struct Stage {
    world: World,
    nodes: Vec<NodeId<Gossip>>,
    /// The data of each node that survives a crash.
    disks: Vec<Rc<RefCell<Facts>>>,
    /// The number of facts of each node at the last look.
    counts: Vec<u64>,
    all: Facts,
    begins: Rc<Cell<u64>>,
    /// The test's own chance.
    chance: Chance,
    published: Vec<(Time, Node)>,
    known: Vec<(Time, f64)>,
}

/// An observer that ignores all events, because the test looks at the disks.
struct Nobody;
impl Watch for Nobody {}

/// Plays a run: first with faults, then without.
pub(crate) fn play(request: &Request) -> Played {
    let faults = draw_faults(request.seed);
    let mut options = WorldOptions::default();
    options.faults = faults.clone();
    options.link = Link::wan();
    options.history_max = if request.picture.is_some() { HISTORY_MAX } else { 0 };
    let mut stage = Stage::new(request, World::with_options(request.seed, options));
    let began = stage.world.now();

    stage.world.schedule_chaos(request.time(), CHAOS_EVERY);
    let wrong_with_faults = stage.safety(request.time());
    stage.world.stop_faults();
    let calm_since = stage.world.now();
    let converged = stage.liveness(calm_since, CALM_MIN.max(request.time() / 15));
    let mut wrong = wrong_with_faults.or_else(|| stage.disagreement());

    let Stage { mut world, all, begins, published, known, .. } = stage;
    let (summary, ended) = (world.summary(), world.now());
    let (history, history_left_out) = (world.history().to_vec(), world.history_left_out());
    let leaks = world.end();
    if leaks != Leaks::default() {
        wrong = wrong.or_else(|| Some(format!("left behind: {leaks:?}")));
    }
    Played {
        faults,
        began,
        calm_since,
        ended,
        converged,
        wrong,
        summary,
        facts: all.sum().count,
        restarts: begins.get() - request.nodes as u64,
        published,
        known,
        history,
        history_left_out,
    }
}

impl Stage {
    /// Adds the nodes. Each knows one fact, and connects to up to three earlier nodes.
    fn new(request: &Request, world: World) -> Stage {
        let mut stage = Stage {
            world,
            nodes: Vec::new(),
            disks: Vec::new(),
            counts: vec![0; request.nodes],
            all: Facts::default(),
            begins: Rc::default(),
            chance: Chance::new(request.seed ^ 0x60_5519),
            published: Vec::new(),
            known: Vec::new(),
        };
        for number in 0..request.nodes {
            let mut peers: BTreeSet<usize> = number.checked_sub(1).into_iter().collect();
            for _ in 1..PEERS_MAX.min(number) {
                peers.insert(stage.chance.below(number as u64) as usize);
            }
            let peers = peers.into_iter().map(|peer| address_of(stage.world.ip(stage.nodes[peer])));
            stage.add(number, peers.collect());
        }
        stage
    }

    fn add(&mut self, number: usize, peers: Vec<Address>) {
        let disk = Rc::new(RefCell::new(Facts::default()));
        let text = format!("node {number} is there");
        for facts in [&mut *disk.borrow_mut(), &mut self.all] {
            facts.add(&text).expect("a short line fits into an empty set, and few into the other");
        }
        self.disks.push(disk.clone());
        let begins = self.begins.clone();
        let listen = address_of(std::net::Ipv4Addr::UNSPECIFIED);
        self.nodes.push(self.world.add(move |runtime| {
            begins.set(begins.get() + 1);
            runtime.add(Gossip::new(listen.clone(), peers.clone(), disk.clone(), Nobody))
        }));
    }

    /// Plays the period with faults. Nodes publish facts, and must neither forget nor invent one.
    fn safety(&mut self, time: Duration) -> Option<String> {
        let end = time.as_nanos() / SLICE.as_nanos();
        for _ in 0..end {
            if self.chance.per_million(PUBLISH_PER_MILLION) {
                self.publish();
            }
            self.world.run_for(SLICE);
            self.sample();
            for (node, (disk, before)) in self.disks.iter().zip(&mut self.counts).enumerate() {
                let count = disk.borrow().sum().count;
                if !(*before..=self.all.sum().count).contains(&count) {
                    return Some(format!("node {node} had {before} facts, and now has {count}"));
                }
                *before = count;
            }
        }
        None
    }

    /// Publishes a new fact at a drawn node, if that node is up.
    fn publish(&mut self) {
        let node = self.nodes[self.chance.below(self.nodes.len() as u64) as usize];
        let text = format!("fact {} comes from node {}", self.published.len(), node.node().number());
        if let Some(Ok(())) = self.world.with(node, |gossip, cx| gossip.publish(cx, &text)) {
            self.published.push((self.world.now(), node.node()));
            self.all.add(&text).expect("what a node took is a fact");
        }
    }

    /// Plays the period without faults. Returns the time until all agree, if they do. Then the run continues
    /// for a while, and they must still agree.
    fn liveness(&mut self, calm_since: Time, calm: Duration) -> Option<Duration> {
        let all = self.all.sum();
        for _ in 0..LIVENESS_MAX.as_nanos() / SLICE.as_nanos() {
            let disks = &self.disks;
            let agreed = |_: &mut World| disks.iter().all(|disk| disk.borrow().sum() == all);
            let is_agreed = self.world.run_until(SLICE, agreed);
            self.sample();
            if is_agreed {
                let converged = self.world.now().since(calm_since);
                self.world.run_for(calm);
                self.sample();
                return Some(converged);
            }
        }
        None
    }

    /// Describes the first node whose facts differ from the published ones.
    fn disagreement(&self) -> Option<String> {
        let all: Vec<&str> = self.all.texts().collect();
        self.disks.iter().enumerate().find_map(|(node, disk)| {
            let disk = disk.borrow();
            let is_same = disk.texts().eq(all.iter().copied());
            let (has, of) = (disk.sum().count, all.len());
            (!is_same)
                .then(|| format!("after {LIVENESS_MAX:?} without faults node {node} has {has} of {of} facts"))
        })
    }

    fn sample(&mut self) {
        let known: u64 = self.disks.iter().map(|disk| disk.borrow().sum().count).sum();
        let there = self.all.sum().count * self.disks.len() as u64;
        self.known.push((self.world.now(), known as f64 / there as f64));
    }
}

/// Draws a mix. Partitions and crashes are in each mix, with the weight of the heaviest kind, because gossip
/// exists to survive them.
fn draw_faults(seed: u64) -> Faults {
    let faults = Faults::draw(seed);
    let heaviest = faults.kinds().filter(|kind| kind.is_of_world()).map(|kind| faults.of(kind)).max();
    let weight = heaviest.unwrap_or(1);
    faults.with(Kind::Partition, weight).with(Kind::Crash, weight)
}

fn address_of(ip: std::net::Ipv4Addr) -> Address {
    Address::Ip((ip, PORT).into())
}

const PORT: u16 = 7946;
/// The most peers that a node connects to.
const PEERS_MAX: usize = 3;
/// The interval at which the test looks, and perhaps publishes.
const SLICE: Duration = Duration::from_millis(100);
/// About two new facts a second.
const PUBLISH_PER_MILLION: u32 = 200_000;
/// The average interval between two faults.
const CHAOS_EVERY: Duration = Duration::from_secs(1);
/// The most time for agreement after the end of the faults.
pub(crate) const LIVENESS_MAX: Duration = Duration::from_secs(30);
/// The least time that the run continues after agreement.
const CALM_MIN: Duration = Duration::from_secs(1);
/// The most events for a picture. 200 nodes make fewer in ten minutes.
const HISTORY_MAX: usize = 4_000_000;
