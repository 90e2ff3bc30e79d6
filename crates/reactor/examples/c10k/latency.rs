//! A histogram of latencies, of constant size and exact to three percent.

use std::time::Duration;

/// Counts latencies in steps that grow with the latency: 32 for each doubling.
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

    /// Returns the latency that this fraction of all (for example 0.99) does not exceed, or zero if there
    /// is none.
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

/// Returns the step of a number of nanoseconds. The first 32 steps are exact.
fn step(nanos: u64) -> usize {
    let doublings = nanos.checked_ilog2().unwrap_or(0).saturating_sub(FINE);
    ((doublings as usize) << FINE) + (nanos >> doublings) as usize
}

/// Returns the largest number of nanoseconds in a step.
fn upper_edge(step: usize) -> u64 {
    let doublings = (step >> FINE).saturating_sub(1) as u32;
    let first = (step - ((doublings as usize) << FINE)) as u64;
    (first << doublings) + ((1 << doublings) - 1)
}

/// The binary logarithm of the number of steps for each doubling.
const FINE: u32 = 5;
