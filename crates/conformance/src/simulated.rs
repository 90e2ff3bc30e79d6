//! A simulated world as the rows need it: what is asked for has come after a few turns.

use std::time::Duration;

use sim::{Faults, World, WorldOptions};

/// Makes a world whose engines can be put to the rows; its faults may only be such as leave a connection whole.
///
/// The rows take a few turns without news for silence, so nothing is on its way for longer than that.
///
/// ```
/// let mut world = conformance::simulated(1, sim::Faults::none());
/// let report = conformance::Suite::new(|| Box::new(world.engine())).only("D1").run();
/// assert!(report.is_passed(), "{report}");
/// ```
pub fn simulated(seed: u64, faults: Faults) -> World {
    let mut options = WorldOptions::default();
    options.faults = faults;
    options.loopback.latency_min = Duration::ZERO;
    options.loopback.latency_max = Duration::ZERO;
    options.loopback.window_bytes = 2048;
    options.late_max = Duration::from_micros(3);
    World::with_options(seed, options)
}
