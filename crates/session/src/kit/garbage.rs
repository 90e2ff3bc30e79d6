//! Bytes that no correct peer sends.

use super::{GREETING_A, GREETING_B, Peer, pump};
use crate::layer::Layer;

/// The counts of [`garbage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Garbage {
    /// Runs: one for each end that was fed garbage.
    pub runs: usize,
    /// Runs in which the end rejected the garbage, or its end.
    pub refused: usize,
    /// Runs in which the end delivered bytes that nobody sent, or accepted a part as the whole. Zero for a
    /// layer that authenticates its records.
    pub forged: usize,
}

/// Feeds garbage to both ends, during the handshake and when they are open: random bytes, and the other end's
/// bytes with parts lost, doubled, moved or replaced.
///
/// # Panics
/// If a layer panics, asks for input without end, or keeps more than [`Layer::input_max`] bytes, or if that
/// limit is more than 1 MiB. Prints the number of the run. The same number yields the same garbage each time.
pub fn garbage<A: Layer, B: Layer>(make: impl Fn() -> (A, B)) -> Garbage {
    let mut counted = Garbage { runs: 0, refused: 0, forged: 0 };
    for run in 0..RUNS {
        let _name = Name(run);
        let mut chance = Chance(run as u64);
        for is_open in [false, true] {
            let ends = || {
                let (a, b) = make();
                let (mut a, mut b) = (Peer::new(a), Peer::new(b));
                if is_open {
                    pump(&mut a, &mut b);
                }
                a.send(GREETING_A);
                b.send(GREETING_B);
                (a, b)
            };
            let (mut a, mut b) = ends();
            let said = a.flight();
            feed(&mut b, &mut chance, said, GREETING_A, &mut counted);
            let (mut a, mut b) = ends();
            if !is_open {
                b.feed(&a.flight());
            }
            let said = b.flight();
            feed(&mut a, &mut chance, said, GREETING_B, &mut counted);
        }
    }
    counted
}

/// Feeds one end with a spoilt copy of the other end's bytes, and judges the result.
fn feed<L: Layer>(end: &mut Peer<L>, chance: &mut Chance, said: Vec<u8>, sent: &[u8], counted: &mut Garbage) {
    let spoilt = chance.spoil(said, TAIL);
    let mut rest = &spoilt[..];
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(chance.below(rest.len()) + 1);
        end.feed(piece);
        let (limit, left) = (end.session.layer().input_max(), end.rest.len());
        assert!(limit <= INPUT_MAX_MOST, "the layer may ask for {limit} bytes: a peer fills the memory");
        assert!(left <= limit, "the layer left {left} bytes, of at most {limit}");
        rest = behind;
    }
    let is_clean = end.error.is_none() && end.end().is_ok();
    let is_forged = !sent.starts_with(&end.received) || is_clean && end.received != sent;
    counted.runs += 1;
    counted.refused += usize::from(!is_clean);
    counted.forged += usize::from(is_forged);
}

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(super) struct Chance(pub(super) u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `count`, or 0 if `count` is 0.
    pub(super) fn below(&mut self, count: usize) -> usize {
        (self.next() % count.max(1) as u64) as usize
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        match self.below(4) {
            0 => vec![0; count],
            1 => vec![0xff; count],
            _ => (0..count).map(|_| self.next() as u8).collect(),
        }
    }

    /// Spoils `said`, in some cases with `tail` bytes appended.
    pub(super) fn spoil(&mut self, mut said: Vec<u8>, tail: usize) -> Vec<u8> {
        let (at, count) = (self.below(said.len() + 1), self.below(40) + 1);
        let until = (at + count).min(said.len());
        match self.below(8) {
            0 => said = self.bytes(count),
            1 => said = self.bytes(tail),
            2 => drop(said.drain(at..until)),
            3 => drop(said.splice(at..at, self.bytes(count))),
            4 => drop(said.splice(at..until, self.bytes(until - at))),
            5 => said.extend_from_within(at..until),
            6 => said.rotate_left(at),
            _ => {
                // A head that may announce a great length, followed by many bytes.
                said.truncate(at);
                said.extend(self.bytes(tail));
            }
        }
        said
    }
}

/// Prints the number of the run if the layer panics.
pub(super) struct Name(pub(super) usize);

impl Drop for Name {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("garbage, run {}", self.0);
        }
    }
}

const RUNS: usize = 200;
/// Longer than any record, in bytes.
const TAIL: usize = 70_000;
/// The most input that any protocol needs before it can reject it.
const INPUT_MAX_MOST: usize = 1 << 20;
