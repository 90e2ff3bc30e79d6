//! A simulated world for the rows, in which every operation completes within a few turns.

use std::time::Duration;

use sim::{Faults, World, WorldOptions};

/// Makes a world whose engines can run the rows. Its faults must leave connections whole.
///
/// The rows take a few turns without events for silence, so no packet is in flight for longer than that.
///
/// ```
/// let mut world = conformance::simulated(1, sim::Faults::none());
/// let report = conformance::Suite::new(|| Box::new(world.engine())).only("D1").run();
/// assert!(report.is_passed(), "{report}");
/// ```
pub fn simulated(seed: u64, faults: Faults) -> World {
    let mut options = WorldOptions::default();
    options.faults = faults;
    options.loopback.window_bytes = 2048;
    prompt(seed, options)
}

/// Makes a [harsh](WorldOptions::harsh) world whose engines can run the rows.
pub fn harsh(seed: u64) -> World {
    prompt(seed, WorldOptions::harsh())
}

fn prompt(seed: u64, mut options: WorldOptions) -> World {
    options.loopback.latency_min = Duration::ZERO;
    options.loopback.latency_max = Duration::ZERO;
    options.late_max = Duration::from_micros(3);
    World::with_options(seed, options)
}
