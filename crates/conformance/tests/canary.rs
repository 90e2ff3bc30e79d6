//! The test of the tests: a broken engine must not pass.

use std::collections::BTreeSet;

use conformance::{
    Need, Report, Suite,
    canary::{Flaw, broken},
    rows, simulated,
};
use reactor::engine::{Candidates, Engine};
use sim::Faults;

const SEED: u64 = 77;

fn simulator(flaw: Flaw, only: &str) -> Report {
    let mut world = simulated(SEED, Faults::none());
    Suite::new(|| broken(Box::new(world.engine()), flaw, SEED)).bare().only(only).run()
}

/// Returns the system's best engine, and the one that performs the operations itself.
fn of_the_system() -> impl Iterator<Item = &'static str> {
    let names: Vec<_> = Candidates::default().names().collect();
    let best = names.first().copied();
    let ring = names.into_iter().find(|name| *name == "io_uring");
    best.into_iter().chain(ring)
}

fn opened(engine: &str) -> Box<dyn Engine> {
    Candidates::default().open(Some(engine)).expect("the platform has it")
}

/// Asserts that the row fails on each engine of the system with the flaw, and passes on the same engine
/// without it.
///
/// Each engine gets several tries, because on a busy machine a row may fail to provoke the flaw in real time.
#[track_caller]
fn is_found_out(flaw: Flaw, row: &str) {
    for engine in of_the_system() {
        let mut reports = (0..5).map(|_| Suite::new(|| broken(opened(engine), flaw, SEED)).row(row).run());
        assert!(reports.any(|report| fails(&report, row)), "{flaw:?} passed {row} on {engine} five times");
        let whole = Suite::new(|| opened(engine)).row(row).run();
        assert!(whole.is_passed(), "{whole}");
    }
}

fn fails(report: &Report, id: &str) -> bool {
    report.failed().any(|finding| finding.id == id)
}

#[test]
fn lost_events_are_found_out() {
    let report = simulator(Flaw::LosesEvents(1_000), "");
    assert!(report.failed().next().is_some(), "{report}");
}

#[test]
fn lost_wakes_are_found_out() {
    is_found_out(Flaw::LosesWakes(100), "G1");
    let report = simulator(Flaw::LosesWakes(1), "G");
    assert!(fails(&report, "G2") && fails(&report, "G3"), "{report}");
}

#[test]
fn early_waits_are_found_out() {
    is_found_out(Flaw::FiresEarly, "F3b");
}

#[test]
fn events_of_closed_keys_are_found_out() {
    let report = simulator(Flaw::TellsOfTheDead, "A");
    assert!(fails(&report, "A1a") && fails(&report, "A2"), "{report}");
    is_found_out(Flaw::TellsOfTheDead, "A1a");
}

#[test]
fn spinning_is_found_out() {
    is_found_out(Flaw::Spins, "D1");
}

#[test]
fn changed_bytes_are_found_out() {
    is_found_out(Flaw::ChangesBytes(1), "C1");
}

/// Returns the rows about bare datagrams that fail, each in its own world.
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

#[test]
#[cfg(unix)]
fn waits_that_begin_anew_when_interrupted_are_found_out() {
    is_found_out(Flaw::WaitsAnew, "H1");
}

/// Returns the rows that fail on the simulator or on the engines of the system. On the simulator each row gets
/// its own world, because a row whose wait ends at the end of time would leave the others no time.
fn rows_that_fail(flaw: Flaw) -> BTreeSet<&'static str> {
    let mut failed = BTreeSet::new();
    for row in rows().iter().filter(|row| !row.is_whole()) {
        let report = simulator(flaw, row.id);
        failed.extend(report.failed().map(|finding| finding.id));
    }
    // There a lost event makes a row wait for ten real seconds, so test only one such row. Simulated
    // time is free.
    let on_the_system = match flaw {
        Flaw::LosesWakes(_) => &["G"][..],
        Flaw::FiresEarly => &["F1", "F2", "F3"],
        Flaw::Spins => &["D1", "F3a", "G2"],
        Flaw::LosesEvents(_) => &["C1"],
        _ => &[],
    };
    for (engine, prefix) in
        of_the_system().flat_map(|engine| on_the_system.iter().map(move |row| (engine, *row)))
    {
        let report = Suite::new(|| broken(opened(engine), flaw, SEED)).bare().only(prefix).run();
        assert!(report.failed().next().is_some(), "{flaw:?} on {engine}: {report}");
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
