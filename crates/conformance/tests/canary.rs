//! The test of the tests: an engine that is broken must not pass.

use std::collections::BTreeSet;

use conformance::{
    Need, Report, Suite,
    canary::{Flaw, broken},
    double::{Network, Tuning},
    rows, simulated,
};
use reactor::engine::Candidates;
use sim::Faults;

const SEED: u64 = 77;

fn on_the_double(flaw: Flaw, only: &str) -> Report {
    let network = Network::new(Tuning::roomy(SEED));
    Suite::new(|| broken(Box::new(network.double()), flaw, SEED)).bare().only(only).run()
}

fn on_the_system(flaw: Flaw, only: &str) -> Report {
    let candidates = Candidates::default();
    let open = || candidates.open(None).expect("the platform has an engine");
    Suite::new(|| broken(open(), flaw, SEED)).bare().only(only).run()
}

fn fails(report: &Report, id: &str) -> bool {
    report.failed().any(|finding| finding.id == id)
}

#[test]
fn lost_events_are_found_out() {
    let report = on_the_double(Flaw::LosesEvents(1_000), "");
    assert!(report.failed().next().is_some(), "{report}");
}

#[test]
fn lost_wakes_are_found_out() {
    let report = on_the_system(Flaw::LosesWakes(100), "G1");
    assert!(fails(&report, "G1"), "{report}");
    let report = on_the_double(Flaw::LosesWakes(1), "G");
    assert!(fails(&report, "G2") && fails(&report, "G3"), "{report}");
}

#[test]
fn early_waits_are_found_out() {
    let report = on_the_system(Flaw::FiresEarly, "F3");
    assert!(fails(&report, "F3b"), "{report}");
}

#[test]
fn events_of_closed_keys_are_found_out() {
    let report = on_the_double(Flaw::TellsOfTheDead, "A");
    assert!(fails(&report, "A1a") && fails(&report, "A2"), "{report}");
}

#[test]
fn spinning_is_found_out() {
    let report = on_the_system(Flaw::Spins, "D1");
    assert!(fails(&report, "D1"), "{report}");
}

/// Which rows about datagrams fail in a world of their own.
fn in_the_world(flaw: Flaw) -> Vec<&'static str> {
    let mut failed = Vec::new();
    for row in rows().iter().filter(|row| row.needs.contains(&Need::Datagrams) && !row.is_whole()) {
        let mut world = simulated(SEED, Faults::none());
        let report = Suite::new(|| broken(Box::new(world.engine()), flaw, SEED)).row(row.id).run();
        failed.extend(report.failed().map(|finding| finding.id));
    }
    failed
}

#[test]
fn datagrams_that_are_merged_swallowed_or_an_end_are_found_out() {
    let expected: [(Flaw, &[&str]); 3] = [
        (Flaw::MergesDatagrams, &["C8b", "C8c", "C9", "C9c"]),
        (Flaw::SwallowsEmpty, &["C8b", "C8c"]),
        (Flaw::EndsAtReports, &["C9", "D12", "D12b"]),
    ];
    for (flaw, rows) in expected {
        let failed = in_the_world(flaw);
        assert!(rows.iter().all(|row| failed.contains(row)), "{flaw:?} is found out by {failed:?} only");
    }
}

/// The rows that fail on the double, each in a network of its own: a row whose wait ends at the end of time would
/// leave the others no time. Then those that fail on the system's best engine.
fn rows_that_fail(flaw: Flaw) -> BTreeSet<&'static str> {
    let mut failed = BTreeSet::new();
    for row in rows().iter().filter(|row| !row.is_whole()) {
        let report = on_the_double(flaw, row.id);
        failed.extend(report.failed().map(|finding| finding.id));
    }
    // An event that is lost there makes a row wait for ten seconds; the double's time costs none.
    let on_the_system = match flaw {
        Flaw::LosesWakes(_) => &["G"][..],
        Flaw::FiresEarly => &["F1", "F2", "F3"],
        Flaw::Spins => &["D1", "F3a", "G2"],
        _ => &[],
    };
    for prefix in on_the_system {
        let report = self::on_the_system(flaw, prefix);
        failed.extend(report.failed().map(|finding| finding.id));
    }
    failed
}

#[test]
#[ignore = "two minutes when not optimised: the slow tests of .ci/run have it"]
fn each_flaw_is_found_out_by_three_rows() {
    let flaws = [
        Flaw::LosesEvents(100),
        Flaw::LosesWakes(1),
        Flaw::LosesWakes(2),
        Flaw::FiresEarly,
        Flaw::TellsOfTheDead,
        Flaw::Spins,
    ];
    for flaw in flaws {
        let failed = rows_that_fail(flaw);
        println!("{flaw:?}: {failed:?}");
        assert!(failed.len() >= 3, "{flaw:?} is found out by {failed:?} only");
    }
}
