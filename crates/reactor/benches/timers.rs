//! The cost of timers in ns: to set, to move and to fire one of N pending. Usage: `timers [N]`.
//!
//! Deadlines are uniform over 60 s. `set` fills an empty wheel, `reset` moves random timers to random
//! deadlines, and `fire` expires all of them, each time at the moment that the wheel asks for. Each figure
//! is the median of several rounds. The first round does not count, because it also pays for fresh memory.

// The wheel is not public, so the bench compiles its files. It does not use all of them. The wheel's own
// tests are left out, although cargo sets `cfg(test)` for benches, too.
#[path = "../src/clock.rs"]
#[allow(dead_code, unreachable_pub, unused_imports)]
mod clock;
#[path = "../src/runtime/timers/mod.rs"]
#[allow(dead_code, unused_imports)]
mod timers;

use clock::Time;
use std::time::{Duration, Instant};
use timers::Wheel;

fn main() {
    // Skip `--bench`, which cargo passes, because it is not a number.
    let count = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(100_000);
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut wheel = Wheel::new(count);
    // The first round allocates the memory. Other libraries are also measured with memory that was allocated
    // before.
    round(&mut wheel, 0, count, &mut random);
    let rounds: Vec<_> = (1..=ROUNDS).map(|number| round(&mut wheel, number, count, &mut random)).collect();
    let [set, reset, fire] = [0, 1, 2].map(|operation| {
        let mut measured: Vec<_> = rounds.iter().map(|round| round[operation]).collect();
        measured.sort_unstable_by(f64::total_cmp);
        measured[ROUNDS / 2]
    });
    println!("timers: set {set:.1} reset {reset:.1} fire {fire:.1} ns");
}

/// Returns the ns of one set, one reset and one fired timer. Each round begins at the end of the previous
/// one.
fn round(wheel: &mut Wheel<u64>, number: usize, count: usize, random: &mut Random) -> [f64; 3] {
    let base = Time::ZERO + SPAN * number as u32;
    let mut keys = Vec::with_capacity(count);
    let begin = Instant::now();
    for payload in 0..count as u64 {
        keys.push(wheel.set(random.deadline(base), payload).expect("the wheel has room for all"));
    }
    let set = per_operation(begin, count);

    let resets = count * RESETS_PER_TIMER;
    let begin = Instant::now();
    for _ in 0..resets {
        let key = keys[random.below(count as u64) as usize];
        assert!(wheel.reset(key, random.deadline(base)), "nothing fired yet");
    }
    let reset = per_operation(begin, resets);

    let begin = Instant::now();
    let (mut fired, mut wakes) = (0, 0);
    while let Some(next) = wheel.next() {
        wakes += 1;
        wheel.expire(next, usize::MAX);
        while wheel.pop_due().is_some() {
            fired += 1;
        }
    }
    let fire = per_operation(begin, count);
    assert_eq!(fired, count, "each timer fires once");
    assert!(wakes <= count + resets, "{wakes} wake-ups for {count} timers");
    [set, reset, fire]
}

fn per_operation(begin: Instant, operations: usize) -> f64 {
    begin.elapsed().as_nanos() as f64 / operations.max(1) as f64
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn deadline(&mut self, base: Time) -> Time {
        base + Duration::from_nanos(1 + self.below(SPAN.as_nanos() as u64))
    }
}

const SPAN: Duration = Duration::from_secs(60);
const RESETS_PER_TIMER: usize = 5;
const ROUNDS: usize = 5;
