//! The checking scenario over many seeds: nothing is violated, and every fault and rare branch occurs.

mod scenario;

use std::collections::BTreeMap;

use sim::{Tally, hunt};

use self::scenario::{RARE, plan, play};

/// The counts of many runs.
#[derive(Default)]
struct Met {
    faults: Tally,
    reached: BTreeMap<&'static str, u64>,
}

/// Plays these seeds. A violation fails the test with the plan that replays it.
fn play_all(seeds: std::ops::Range<u64>) -> Met {
    let mut met = Met::default();
    let played = hunt(seeds.map(plan), |plan| {
        let played = play(plan)?;
        met.faults.add(&played.summary.faults);
        for (what, count) in played.reached {
            *met.reached.entry(what).or_default() += count;
        }
        Ok(())
    });
    played.unwrap_or_else(|failure| panic!("{failure}"));
    met
}

#[test]
fn a_few_seeds_violate_nothing() {
    let met = play_all(1..26);
    assert!(met.faults.missing().len() < sim::KINDS.len() / 2, "{}", met.faults);
}

#[test]
#[ignore = "slow: .ci/run has it"]
fn over_a_thousand_seeds_every_fault_and_every_rare_branch_is_met() {
    let met = play_all(1..1001);
    println!("{}", met.faults);
    assert_eq!(met.faults.missing(), [], "never injected, or never observed");
    for what in RARE {
        let count = met.reached.get(what).copied().unwrap_or_default();
        println!("{count:>12} {what}");
        assert!(count > 0, "never reached: {what}");
    }
    let unknown: Vec<_> = met.reached.keys().filter(|what| !RARE.contains(what)).collect();
    assert!(unknown.is_empty(), "reached, and not in the list of what has to be: {unknown:?}");
}
