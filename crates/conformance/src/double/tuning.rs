//! How bad the double's world is.

/// The sizes and chances of a network and its doubles; the fields can be changed freely.
///
/// ```
/// use conformance::double::{Network, Tuning};
/// let network = Network::new(Tuning { defer_percent: 0, ..Tuning::tight(7) });
/// let _engine = network.double();
/// assert!(network.leaks().is_clean());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// All chance is drawn from it.
    pub seed: u64,
    /// How many buffers a double has; while all are lent it delivers no input. At least 1.
    pub buffers: usize,
    /// The size of each, in bytes. At least 1.
    pub buffer_bytes: usize,
    /// How many events one wait gives at most. At least 1.
    pub events_max: usize,
    /// How many bytes wait at the receiving end of a stream at most. At least 1.
    pub window_bytes: usize,
    /// How many bytes wait at the sending end of a stream at most. At least 1.
    pub send_bytes: usize,
    /// How many bytes one send takes at most; a seeded number from 1 to this. At least 1.
    pub cut_bytes: usize,
    /// How often, in a hundred, a completion is put off to a later wait. It never delays all of them.
    pub defer_percent: u32,
    /// How often, in a hundred, a read is in flight already when reading is switched off, or the
    /// stream is detached.
    pub in_flight_percent: u32,
    /// How often, in a hundred, a wait that has events adds a readiness that is not true.
    pub spurious_percent: u32,
    /// Whether blocking jobs run inside a wait of the double, one at a time.
    pub runs_jobs: bool,
}

impl Tuning {
    /// Enough of everything; still late and in pieces.
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

    /// As small as works: that is where races are.
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

    /// The tuning with every size at least what works.
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
