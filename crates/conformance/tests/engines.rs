//! Every engine of the library, and the simulator in three worlds, against the whole table of rows.

mod floor;

use std::cell::RefCell;

use conformance::{Report, Suite, harsh, simulated};
use floor::{QUICK_ROWS_MIN, ROWS_MIN, assert_rows};
use reactor::engine::{Candidates, Engine};
use sim::{Faults, Leaks};

/// Selects the rows whose ids begin with this text.
const ONLY_VARIABLE: &str = "CONFORMANCE_ONLY";
/// Selects exactly one row.
const ROW_VARIABLE: &str = "CONFORMANCE_ROW";
/// The least number of rows on systems other than Unix.
const WINDOWS_ROWS_MIN: usize = 259;
/// The least number of quick rows that run in a simulated world.
const SIMULATED_ROWS_MIN: usize = 220;

/// Runs the suite on an engine. Does nothing if the platform does not have it.
fn on_engine(name: &str, rows_min: usize, put: impl Fn(Suite<'_>) -> Report) {
    let candidates = Candidates::default();
    if !candidates.names().any(|there| there == name) {
        return;
    }
    let only = std::env::var(ONLY_VARIABLE).unwrap_or_default();
    let row = std::env::var(ROW_VARIABLE).ok();
    let suite = Suite::new(|| candidates.open(Some(name)).expect("it opens on this platform"));
    let suite = suite.only(&only);
    let report = put(match &row {
        Some(id) => suite.row(id),
        None => suite,
    });
    println!("{report}");
    assert!(report.is_passed(), "{report}");
    if cfg!(target_os = "linux") && only.is_empty() && row.is_none() {
        assert_rows(&report, rows_min);
    }
}

/// Makes separate tests, so that each engine may have its own process.
macro_rules! on_each_engine {
    ($($engine:ident)*) => {
        const ENGINES: &[&str] = &[$(stringify!($engine)),*];

        $(mod $engine {
            #[test]
            fn passes() {
                super::on_engine(stringify!($engine), super::QUICK_ROWS_MIN, |suite| suite.quick().run());
            }

            #[test]
            #[ignore = "slow rows: the slow tests of .ci/run have them"]
            fn passes_the_slow_rows_too() {
                super::on_engine(stringify!($engine), super::ROWS_MIN, |suite| suite.run());
            }
        })*
    };
}

on_each_engine! { epoll io_uring mio poll polling }

#[test]
fn each_engine_of_the_platform_has_its_tests() {
    let candidates = Candidates::default();
    assert!(candidates.names().all(|name| ENGINES.contains(&name)), "{candidates:?}");
}

#[test]
fn a_row_runs_alone_by_its_id_and_with_others_by_their_beginning() {
    let world = RefCell::new(simulated(1, Faults::none()));
    let make = || Box::new(world.borrow_mut().engine()) as Box<dyn Engine>;
    let ids = |suite: Suite<'_>| suite.run().findings.iter().map(|finding| finding.id).collect::<Vec<_>>();
    assert_eq!(ids(Suite::new(make).row("D1")), ["D1"]);
    assert!(ids(Suite::new(make).only("D1")).contains(&"D10r"));
}

#[test]
fn each_row_has_an_id_of_its_own() {
    let mut ids: Vec<_> = conformance::rows().iter().map(|row| row.id).collect();
    ids.sort_unstable();
    let twice = ids.windows(2).find(|pair| pair[0] == pair[1]);
    assert_eq!(twice, None);
}

/// Runs the suite on the engines of a world without faults, of one with harmless faults, and of a harsh one.
fn on_the_simulator(seeds: std::ops::Range<u64>, put: impl Fn(Suite<'_>) -> Report) {
    for seed in seeds {
        for world in
            [simulated(seed, Faults::none()), simulated(seed, Faults::harmless(200_000)), harsh(seed)]
        {
            let world = RefCell::new(world);
            let left = || match world.borrow().leaks() {
                leaks if leaks == Leaks::default() => Ok(()),
                leaks => Err(format!("{leaks:?}")),
            };
            let only = std::env::var(ONLY_VARIABLE).unwrap_or_default();
            let suite = Suite::new(|| Box::new(world.borrow_mut().engine())).left(left).seed(seed);
            let report = put(suite.only(&only));
            println!("{report}");
            assert!(report.failed().count() == 0, "seed {seed}\n{report}");
            let is_whole = report.counts().0 >= SIMULATED_ROWS_MIN;
            assert!(is_whole || !only.is_empty(), "fewer rows run than did: {report}");
        }
    }
}

#[test]
fn the_simulator_passes_whatever_its_seed() {
    on_the_simulator(0..3, |suite| suite.quick().run());
}

#[test]
#[ignore = "slow rows: the slow tests of .ci/run have them"]
fn the_simulator_passes_the_slow_rows_too_with_many_seeds() {
    on_the_simulator(0..40, |suite| suite.run());
}

#[test]
#[ignore = "prints the table for a script that runs one row a process"]
fn the_rows_by_name() {
    let rows = conformance::rows();
    rows.iter().for_each(|row| println!("{}", row.id));
    // Pipes, children and signals have rows only on Unix.
    let rows_min = if cfg!(unix) { ROWS_MIN } else { WINDOWS_ROWS_MIN };
    assert!(rows.len() >= rows_min, "{} rows", rows.len());
}
