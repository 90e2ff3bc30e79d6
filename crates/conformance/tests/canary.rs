//! The test of the tests: an engine that is broken must not pass.

use conformance::{
    Report, Suite,
    canary::{Flaw, broken},
    double::{Network, Tuning},
};
use reactor::engine::Candidates;

const SEED: u64 = 77;

fn on_the_double(flaw: Flaw, only: &str) -> Report {
    let network = Network::new(Tuning::roomy(SEED));
    Suite::new(|| broken(Box::new(network.double()), flaw, SEED)).only(only).run()
}

fn on_the_system(flaw: Flaw, only: &str) -> Report {
    let candidates = Candidates::default();
    let open = || candidates.open(None).expect("the platform has an engine");
    Suite::new(|| broken(open(), flaw, SEED)).only(only).run()
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
