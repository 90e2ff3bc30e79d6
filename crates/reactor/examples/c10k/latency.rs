//! A histogram of latencies: constant in size, exact to three percent.

use std::time::Duration;

/// Counts latencies in steps that grow with them: 32 for each doubling.
pub(crate) struct Latencies {
    counts: Vec<u64>,
    total: u64,
}

impl Latencies {
    pub(crate) fn new() -> Latencies {
        Latencies { counts: vec![0; step(u64::MAX) + 1], total: 0 }
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        self.counts[step(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX))] += 1;
        self.total += 1;
    }

    /// The latency that this part of all (0.99, say) does not exceed; zero when nothing was recorded.
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        let rank = (self.total as f64 * part).ceil() as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank.max(1)
        });
        Duration::from_nanos(found.map_or(0, upper_edge))
    }
}

/// The step of a number of nanoseconds. The first 32 are exact.
fn step(nanos: u64) -> usize {
    let doublings = nanos.checked_ilog2().unwrap_or(0).saturating_sub(FINE);
    ((doublings as usize) << FINE) + (nanos >> doublings) as usize
}

/// The largest number of nanoseconds of a step.
fn upper_edge(step: usize) -> u64 {
    let doublings = (step >> FINE).saturating_sub(1) as u32;
    let first = (step - ((doublings as usize) << FINE)) as u64;
    (first << doublings) + ((1 << doublings) - 1)
}

/// Two to the power of this is the number of steps for each doubling.
const FINE: u32 = 5;
