//! The example `wal`, unchanged, through a thousand power cuts: no record is ever lost that was acknowledged
//! or read.

#[path = "../../reactor/examples/wal/log.rs"]
mod log;

use std::time::Duration;

use log::{Append, Found, Log};
use reactor::Pending;
use sim::{Chance, NodeId, World};

/// How often each seed ends the node.
const ENDS: u32 = 40;

/// A log on one node, and its promises.
struct Bench {
    world: World,
    node: NodeId<Log>,
    chance: Chance,
    /// The requests without an answer, and the acknowledged records.
    asked: Vec<(Vec<u8>, Pending<u64>)>,
    acknowledged: Vec<(u64, Vec<u8>)>,
    requests: u64,
}

impl Bench {
    fn new(seed: u64) -> Bench {
        let mut world = World::new(seed);
        let node = world.add(|runtime| runtime.add(Log::new("/log".as_ref())));
        let chance = Chance::new(seed ^ 0x3a1);
        Bench { world, node, chance, asked: Vec::new(), acknowledged: Vec::new(), requests: 0 }
    }

    /// Requests some records, and lets some time pass.
    fn work(&mut self) {
        for _ in 0..self.chance.between(0, 4) {
            // They differ in length, so that a write may end anywhere.
            let body =
                format!("record {}", self.requests).repeat(self.requests as usize % 3 + 1).into_bytes();
            self.requests += 1;
            let append = |reply| Append { body: body.clone(), reply };
            let asked = self.world.with(self.node, |_, cx| cx.controller().ask(append));
            self.asked.extend(asked.map(|pending| (body.clone(), pending)));
        }
        self.world.run_for(Duration::from_micros(self.chance.between(0, 8_000)));
        for (body, mut pending) in std::mem::take(&mut self.asked) {
            match pending.try_take() {
                Some(Ok(number)) => self.acknowledged.push((number, body)),
                Some(Err(_)) => (),
                None => self.asked.push((body, pending)),
            }
        }
    }

    /// Ends the node, mostly by a power cut, and starts its next life.
    fn end(&mut self) {
        match self.chance.below(5) {
            0 => self.world.crash(self.node),
            _ => self.world.power_off(self.node),
        }
        self.asked.clear();
        self.world.restart(self.node);
    }

    /// Returns the records that this life found.
    fn found(&mut self) -> Vec<Vec<u8>> {
        let asked = self.world.with(self.node, |_, cx| cx.controller().ask(Found));
        let mut pending = asked.expect("the node is up");
        let mut found = None;
        self.world.run_until(Duration::from_secs(10), |_| {
            found = pending.try_take();
            found.is_some()
        });
        found.expect("the log opens in time").expect("the log has not failed")
    }
}

#[test]
fn the_log_of_the_guide_loses_nothing_in_a_thousand_power_cuts() {
    let (mut acknowledged, mut cuts, mut torn) = (0, 0, 0);
    for seed in 0..32 {
        let mut bench = Bench::new(seed);
        let mut seen = Vec::new();
        for life in 0..ENDS {
            // Some lives only read.
            (0..bench.chance.between(0, 6)).for_each(|_| bench.work());
            bench.end();
            let found = bench.found();
            // A reader of the last life may have acted on these.
            assert!(found.starts_with(&seen), "seed {seed}, life {life}: {} of {}", found.len(), seen.len());
            for (number, body) in &bench.acknowledged {
                assert_eq!(
                    found.get(*number as usize),
                    Some(body),
                    "seed {seed}, life {life}, record {number}"
                );
            }
            seen = found;
        }
        acknowledged += bench.acknowledged.len();
        cuts += bench.world.disk(bench.node).cuts;
        torn += bench.world.disk(bench.node).writes_torn;
    }
    eprintln!("{cuts} power cuts, {torn} torn writes, {acknowledged} acknowledged records");
    assert!(cuts >= 1_000 && torn > 10 && acknowledged > 1_000);
}
