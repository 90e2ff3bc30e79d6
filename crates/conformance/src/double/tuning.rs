//! The tuning: how harsh the double's world is.

/// The sizes and probabilities of a network and its doubles. Change the fields freely.
///
/// ```
/// use conformance::double::{Network, Tuning};
/// let network = Network::new(Tuning { defer_percent: 0, ..Tuning::tight(7) });
/// let _engine = network.double();
/// assert!(network.leaks().is_clean());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// The seed of all random choices.
    pub seed: u64,
    /// How many buffers a double has. While all are lent it delivers no input. At least 1.
    pub buffers: usize,
    /// The size of each, in bytes. At least 1.
    pub buffer_bytes: usize,
    /// How many events one wait returns at most. At least 1.
    pub events_max: usize,
    /// How many bytes wait at the receiving end of a stream at most. At least 1.
    pub window_bytes: usize,
    /// How many bytes wait at the sending end of a stream at most. At least 1.
    pub send_bytes: usize,
    /// How many bytes one send takes at most. The double draws a number from 1 to this. At least 1.
    pub cut_bytes: usize,
    /// The percentage of completions that are postponed to a later wait. The double never postpones all of
    /// them.
    pub defer_percent: u32,
    /// The probability, in percent, that a read is already in flight when reading is switched off or the
    /// stream is detached.
    pub in_flight_percent: u32,
    /// The probability, in percent, that a wait with events adds a false readiness.
    pub spurious_percent: u32,
    /// Run blocking jobs inside a wait of the double, one at a time.
    pub runs_jobs: bool,
}

impl Tuning {
    /// Returns a tuning with enough of everything. Operations still complete late and in pieces.
    pub fn roomy(seed: u64) -> Tuning {
        Tuning {
            seed,
            buffers: 64,
            buffer_bytes: 16 << 10,
            events_max: 256,
            window_bytes: 64 << 10,
            send_bytes: 64 << 10,
            cut_bytes: 64 << 10,
            defer_percent: 10,
            in_flight_percent: 50,
            spurious_percent: 5,
            runs_jobs: false,
        }
    }

    /// Returns the smallest tuning that works, because small sizes provoke races.
    pub fn tight(seed: u64) -> Tuning {
        Tuning {
            buffers: 8,
            buffer_bytes: 64,
            events_max: 8,
            window_bytes: 256,
            send_bytes: 128,
            cut_bytes: 48,
            defer_percent: 40,
            in_flight_percent: 80,
            spurious_percent: 20,
            ..Tuning::roomy(seed)
        }
    }

    /// Raises every size to the smallest that works.
    pub(super) fn sane(mut self) -> Tuning {
        for size in [
            &mut self.buffers,
            &mut self.buffer_bytes,
            &mut self.events_max,
            &mut self.window_bytes,
            &mut self.send_bytes,
            &mut self.cut_bytes,
        ] {
            *size = (*size).max(1);
        }
        self
    }
}
