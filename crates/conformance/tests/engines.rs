//! Every engine of the library, and the double in all its tunings, against the whole table.

use conformance::{
    Suite,
    double::{Network, Tuning},
};
use reactor::engine::Candidates;

#[test]
fn each_engine_of_the_platform_passes() {
    let candidates = Candidates::default();
    for name in candidates.names() {
        let report = Suite::new(|| candidates.open(Some(name)).expect("it opens on this platform")).run();
        println!("{report}");
        assert!(report.is_passed(), "{report}");
        assert!(report.counts().0 > 40, "{report}");
    }
}

#[test]
fn the_double_passes_whatever_its_seed() {
    for seed in 0..10 {
        for tuning in [Tuning::roomy(seed), Tuning::tight(seed)] {
            let network = Network::new(tuning.clone());
            let left = || match network.leaks() {
                report if report.is_clean() => Ok(()),
                report => Err(report.to_string()),
            };
            let report = Suite::new(|| Box::new(network.double())).left(left).seed(seed).run();
            assert!(report.is_passed(), "{tuning:?}\n{report}");
            assert!(report.counts().0 > 25, "{report}");
        }
    }
}
