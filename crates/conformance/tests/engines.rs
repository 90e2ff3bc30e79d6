//! Every engine of the library, and the double in all its tunings, against the whole table of rows.

mod floor;

use std::cell::RefCell;

use conformance::{
    Report, Suite,
    double::{Network, Tuning},
    harsh, simulated,
};
use floor::{QUICK_ROWS_MIN, ROWS_MIN};
use reactor::engine::Candidates;
use sim::{Faults, Kind, Leaks};

/// Selects the rows whose ids begin with this text.
const ONLY_VARIABLE: &str = "CONFORMANCE_ONLY";
/// Selects exactly one row.
const ROW_VARIABLE: &str = "CONFORMANCE_ROW";
/// The least number of rows on systems other than Unix.
const WINDOWS_ROWS_MIN: usize = 173;
/// The least number of quick rows that run on a virtual engine.
const VIRTUAL_ROWS_MIN: usize = 147;
/// The least number of quick rows that run in a simulated world.
const SIMULATED_ROWS_MIN: usize = 147;

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
        assert!(report.counts().0 >= rows_min, "fewer rows run than did: {report}");
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

fn on_the_double(seeds: std::ops::Range<u64>, put: impl Fn(Suite<'_>) -> Report) {
    for seed in seeds {
        for tuning in [Tuning::roomy(seed), Tuning::tight(seed)] {
            let network = Network::new(tuning.clone());
            let left = || match network.leaks() {
                report if report.is_clean() => Ok(()),
                report => Err(report.to_string()),
            };
            let only = std::env::var(ONLY_VARIABLE).unwrap_or_default();
            let suite = Suite::new(|| Box::new(network.double())).left(left).seed(seed);
            let report = put(suite.only(&only));
            println!("{report}");
            assert!(report.failed().count() == 0, "{tuning:?}\n{report}");
            let is_whole = report.counts().0 >= VIRTUAL_ROWS_MIN;
            assert!(is_whole || !only.is_empty(), "fewer rows run than did: {report}");
        }
    }
}

#[test]
fn a_row_runs_alone_by_its_id_and_with_others_by_their_beginning() {
    let network = Network::new(Tuning::roomy(1));
    let ids = |suite: Suite<'_>| suite.run().findings.iter().map(|finding| finding.id).collect::<Vec<_>>();
    assert_eq!(ids(Suite::new(|| Box::new(network.double())).row("D1")), ["D1"]);
    assert!(ids(Suite::new(|| Box::new(network.double())).only("D1")).contains(&"D10r"));
}

#[test]
fn the_double_passes_whatever_its_seed() {
    on_the_double(0..3, |suite| suite.quick().run());
}

#[test]
#[ignore = "slow rows: the slow tests of .ci/run have them"]
fn the_double_passes_the_slow_rows_too_with_many_seeds() {
    on_the_double(0..40, |suite| suite.run());
}

#[test]
fn each_row_has_an_id_of_its_own() {
    let mut ids: Vec<_> = conformance::rows().iter().map(|row| row.id).collect();
    ids.sort_unstable();
    let twice = ids.windows(2).find(|pair| pair[0] == pair[1]);
    assert_eq!(twice, None);
}

/// Runs the suite on a world's engines, first without faults, then with faults that leave a connection alive.
fn on_the_simulator(seeds: std::ops::Range<u64>, put: impl Fn(Suite<'_>) -> Report) {
    for seed in seeds {
        for world in [simulated(seed, Faults::none()), simulated(seed, harmless()), harsh(seed)] {
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

/// Returns faults that conform to the engine contract: operations are late, early, in pieces, or in another
/// order.
fn harmless() -> Faults {
    [Kind::TinyRead, Kind::PartialSend, Kind::LateSend, Kind::LateInput, Kind::Reorder]
        .into_iter()
        .fold(Faults::none(), |faults, kind| faults.with(kind, 200_000))
}

#[test]
fn the_simulator_passes_whatever_its_seed() {
    on_the_simulator(0..2, |suite| suite.quick().run());
}

#[test]
#[ignore = "slow rows: the slow tests of .ci/run have them"]
fn the_simulator_passes_the_slow_rows_too_with_many_seeds() {
    on_the_simulator(0..20, |suite| suite.run());
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
