//! The test of the tests: an engine that is broken must not pass.

use std::collections::BTreeSet;

use conformance::{
    Report, Suite,
    canary::{Flaw, broken},
    double::{Network, Tuning},
    rows,
};
use reactor::engine::Candidates;

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

#[test]
#[cfg(unix)]
fn waits_that_begin_anew_when_interrupted_are_found_out() {
    let report = on_the_system(Flaw::WaitsAnew, "H1");
    assert!(fails(&report, "H1"), "{report}");
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
