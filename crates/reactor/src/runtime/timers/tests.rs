//! Tests the wheel against a simple model, and each sentence of its contract.

use super::*;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

fn at(nanos: u64) -> Time {
    Time::from_nanos(nanos)
}

/// Opens a batch and takes all of its timers.
fn fire<T: Copy>(wheel: &mut Wheel<T>, now: Time, limit: usize) -> Vec<T> {
    wheel.expire(now, limit);
    std::iter::from_fn(|| wheel.pop_due()).map(|(_, payload)| payload).collect()
}

struct Random(u64);

impl Random {
    /// Takes the seed from TIMERS_SEED or from the system, and prints it.
    fn new() -> Random {
        let seed = match std::env::var("TIMERS_SEED") {
            Ok(seed) => seed.parse().expect("TIMERS_SEED is a number"),
            Err(_) => RandomState::new().hash_one(0),
        };
        println!("TIMERS_SEED={seed}");
        Random(seed | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    /// Returns a distance from 1 ns to 60 days, or to 2^`magnitudes` ns. All magnitudes are equally likely.
    fn distance(&mut self, magnitudes: u64) -> Duration {
        let magnitude = self.below(magnitudes + 1);
        Duration::from_nanos((1 + self.below(1 << magnitude)).min(60 * DAY))
    }
}

/// The wheel's required behaviour, at any cost: all timers sorted, and the keys of finished ones.
struct Model {
    wheel: Wheel<u64>,
    random: Random,
    magnitudes: u64,
    now: Time,
    sequence: u64,
    sorted: BTreeMap<(Time, u64), u64>,
    /// Payload, key, deadline, sequence.
    live: Vec<(u64, TimerKey, Time, u64)>,
    stale: Vec<TimerKey>,
    changed: u64,
}

impl Model {
    fn new(magnitudes: u64) -> Model {
        Model {
            wheel: Wheel::new(MODEL_LIMIT),
            random: Random::new(),
            magnitudes,
            now: Time::ZERO,
            sequence: 0,
            sorted: BTreeMap::new(),
            live: Vec::new(),
            stale: Vec::new(),
            changed: 0,
        }
    }

    fn moment(&mut self) -> Time {
        match self.random.below(16) {
            0 => Time::NEVER,
            1 => at(self.now.as_nanos().saturating_sub(self.random.below(1 << 20))),
            2 => self.now,
            3 => self.live.last().map_or(self.now, |live| live.2),
            _ => self.now + self.random.distance(self.magnitudes),
        }
    }

    /// Sets, cancels or moves a random timer, or tries a stale key.
    fn change(&mut self) {
        let chosen = self.random.below(self.live.len() as u64 + 1) as usize;
        let moment = self.moment();
        match self.random.below(8) {
            0 | 1 if chosen < self.live.len() => {
                let (payload, key, deadline, sequence) = self.live.swap_remove(chosen);
                assert_eq!(self.wheel.deadline(key), Some(deadline));
                assert_eq!(self.wheel.cancel(key), Some(payload));
                assert_eq!(self.sorted.remove(&(deadline, sequence)), Some(payload));
                self.stale.push(key);
                self.changed += 1;
            }
            2 | 3 if chosen < self.live.len() => {
                self.sequence += 1;
                let (payload, key, deadline, sequence) = &mut self.live[chosen];
                assert!(self.wheel.reset(*key, moment));
                assert_eq!(self.sorted.remove(&(*deadline, *sequence)), Some(*payload));
                self.sorted.insert((moment, self.sequence), *payload);
                (*deadline, *sequence) = (moment, self.sequence);
                self.changed += 1;
            }
            4 if !self.stale.is_empty() => {
                let key = self.stale[self.random.below(self.stale.len() as u64) as usize];
                assert_eq!(self.wheel.cancel(key), None);
                assert_eq!(self.wheel.deadline(key), None);
                assert!(!self.wheel.reset(key, moment));
            }
            _ => {
                self.sequence += 1;
                let payload = self.sequence;
                match self.wheel.set(moment, payload) {
                    Ok(key) => {
                        self.sorted.insert((moment, payload), payload);
                        self.live.push((payload, key, moment, payload));
                    }
                    Err(full) => assert_eq!((full, self.live.len()), (Full(payload), MODEL_LIMIT)),
                }
            }
        }
        assert_eq!(self.wheel.len(), self.live.len());
        assert_eq!(self.wheel.is_empty(), self.live.is_empty());
    }

    /// Opens a batch, changes timers between its pops, and returns how many fired.
    fn batch(&mut self, limit: usize, changes: u64) -> usize {
        self.wheel.expire(self.now, limit);
        let (opened, changed) = (self.sequence, self.changed);
        for fired in 0.. {
            if changes > 0 && self.random.below(4) == 0 {
                (0..changes).for_each(|_| self.change());
            }
            let due =
                self.sorted.range(..=(self.now, u64::MAX)).find(|((_, sequence), _)| *sequence <= opened);
            let due = due
                .filter(|_| fired < limit && self.now != Time::NEVER)
                .map(|(&key, &payload)| (key, payload));
            let popped = self.wheel.pop_due();
            // A full batch is not refilled: it may end early by as many timers as were removed from it.
            if popped.is_none() && fired as u64 + self.changed - changed >= limit as u64 {
                return fired;
            }
            assert_eq!(
                popped.map(|(_, payload)| payload),
                due.map(|(_, payload)| payload),
                "at {:?}",
                self.now
            );
            let (Some((key, payload)), Some((sorted, _))) = (popped, due) else { return fired };
            self.sorted.remove(&sorted);
            let index = self.live.iter().position(|live| live.0 == payload).expect("it is live");
            assert_eq!(self.live.swap_remove(index).1, key);
            self.stale.push(key);
        }
        unreachable!("the batch has an end")
    }

    /// Checks that the wheel sleeps past no deadline, and wakes only if a timer is pending.
    fn check_next(&self) {
        let earliest = self.sorted.keys().next().map(|&(deadline, _)| deadline);
        match self.wheel.next() {
            None => assert!(earliest.is_none_or(|deadline| deadline == Time::NEVER)),
            Some(next) => assert!(next <= earliest.expect("something is pending").max(self.now)),
        }
    }
}

/// Runs the model with up to `changes` changes of timers between two batches. Time jumps by up to 2^`jumps`
/// ns.
fn run_model(mut model: Model, changes: u64, jumps: u64) {
    let mut operations = 0;
    while operations < 200_000 {
        let changes = model.random.below(changes);
        (0..changes).for_each(|_| model.change());
        model.check_next();
        model.now = model.now + model.random.distance(jumps);
        let limit = [0, 1, 2, 5, usize::MAX][model.random.below(5) as usize];
        operations += changes + 1 + model.batch(limit, 2) as u64;
        model.check_next();
    }
}

#[test]
fn agrees_with_the_model_over_random_jumps() {
    run_model(Model::new(ALL), 8, ALL);
}

#[test]
fn agrees_with_the_model_inside_a_tick() {
    run_model(Model::new(u64::from(TICK_BITS)), 100, 12);
}

#[test]
fn driven_by_next_it_is_on_time_and_wakes_idly_at_most_once_per_change() {
    let mut model = Model::new(ALL);
    let (mut idle, mut fired) = (0, 0);
    for round in 0..40_000 {
        // In the second half the wheel runs empty.
        if round < 20_000 {
            model.change();
        }
        model.check_next();
        let Some(next) = model.wheel.next() else { continue };
        // Sometimes another event wakes the loop earlier.
        let early = round < 20_000 && model.random.below(4) == 0;
        let before = model.now;
        model.now = if early { before + next.since(before) / 2 } else { next.max(before) };
        let due = model.sorted.keys().next().is_some_and(|&(deadline, _)| deadline <= model.now);
        let count = model.batch(usize::MAX, 0);
        assert_eq!(due, count > 0);
        fired += count;
        idle += u64::from(!early && count == 0);
    }
    assert!(fired > 1_000 && model.wheel.next().is_none());
    assert!(idle <= model.changed, "{idle} idle wake-ups, {} cancelled or moved", model.changed);
}

#[test]
fn without_cancelling_every_wake_up_fires_at_the_exact_deadline() {
    let mut random = Random::new();
    let mut wheel = Wheel::new(10_000);
    for _ in 0..10_000 {
        let deadline = Time::ZERO + random.distance(ALL);
        wheel.set(deadline, deadline).expect("there is room");
    }
    let mut fired = 0;
    while let Some(next) = wheel.next() {
        let batch = fire(&mut wheel, next, usize::MAX);
        assert!(!batch.is_empty() && batch.iter().all(|&deadline| deadline == next));
        fired += batch.len();
    }
    assert_eq!(fired, 10_000);
}

#[test]
fn one_moved_forward_for_ever_wakes_once_per_old_deadline() {
    let mut wheel = Wheel::new(1);
    let (second, timeout) = (Duration::from_secs(1), Duration::from_secs(30));
    let key = wheel.set(Time::ZERO + timeout, ()).expect("there is room");
    let mut now = Time::ZERO;
    let mut wakes = 0;
    for _ in 0..3_000 {
        now = now + second;
        while let Some(next) = wheel.next().filter(|&next| next <= now) {
            assert_eq!(fire(&mut wheel, next, 1), []);
            wakes += 1;
        }
        assert!(wheel.reset(key, now + timeout));
    }
    assert!(wakes <= 3_000 / 29, "{wakes} wake-ups");
    assert_eq!(wheel.deadline(key), Some(now + timeout));
    assert_eq!(fire(&mut wheel, at((now + timeout).as_nanos() - 1), 1), []);
    assert_eq!(fire(&mut wheel, now + timeout, 1), [()]);
}

#[test]
fn never_early_by_a_nanosecond_at_any_boundary() {
    for bits in 0..64 {
        let edge = 1_u64 << bits;
        for deadline in [edge.saturating_sub(2).max(1), edge - 1, edge, edge + 1] {
            for start in [0, deadline / 3, deadline.saturating_sub(2)] {
                let mut wheel = Wheel::new(1);
                wheel.expire(at(start), 1);
                wheel.set(at(deadline), deadline).expect("there is room");
                if deadline > start + 1 {
                    assert_eq!(wheel.next(), Some(at(deadline)));
                    assert!(fire(&mut wheel, at(deadline - 1), 1).is_empty(), "{deadline} from {start}");
                }
                assert_eq!(fire(&mut wheel, at(deadline), 1), [deadline], "from {start}");
            }
        }
    }
}

#[test]
fn never_is_pending_and_wakes_nobody() {
    let mut wheel = Wheel::new(2);
    let key = wheel.set(Time::NEVER, 'a').expect("there is room");
    assert_eq!((wheel.next(), wheel.len(), wheel.deadline(key)), (None, 1, Some(Time::NEVER)));
    assert_eq!(fire(&mut wheel, at(u64::MAX - 1), 9), []);
    assert_eq!(fire(&mut wheel, Time::NEVER, 9), []);
    assert_eq!(wheel.cancel(key), Some('a'));

    let mut wheel = Wheel::new(2);
    let key = wheel.set(at(5 * DAY), 'b').expect("there is room");
    assert!(wheel.reset(key, Time::NEVER));
    assert_eq!(wheel.next(), None);
    assert!(wheel.reset(key, at(DAY)));
    assert_eq!(wheel.next(), Some(at(DAY)));
    assert_eq!(fire(&mut wheel, at(DAY), 9), ['b']);
}

#[test]
fn past_and_present_fire_in_the_next_batch() {
    let mut wheel = Wheel::new(8);
    wheel.set(Time::ZERO, 'a').expect("there is room");
    assert_eq!(wheel.next(), Some(Time::ZERO));
    assert_eq!(fire(&mut wheel, Time::ZERO, 9), ['a']);
    wheel.expire(at(DAY), 9);
    for (deadline, payload) in [(DAY, 'd'), (3, 'c'), (1, 'b')] {
        wheel.set(at(deadline), payload).expect("there is room");
    }
    assert_eq!(wheel.pop_due(), None);
    assert!(wheel.next().is_some_and(|next| next <= at(DAY)));
    assert_eq!(fire(&mut wheel, at(DAY), 9), ['b', 'c', 'd']);
}

#[test]
fn time_that_goes_back_counts_as_the_latest_seen() {
    let mut wheel = Wheel::new(2);
    wheel.expire(at(DAY), 9);
    wheel.set(at(DAY), 'a').expect("there is room");
    wheel.set(at(DAY + 1), 'b').expect("there is room");
    assert_eq!(fire(&mut wheel, at(5), 9), ['a']);
    assert_eq!(wheel.next(), Some(at(DAY + 1)));
}

#[test]
fn equal_instants_fire_in_the_order_set() {
    for instant in [1, 1 << TICK_BITS, DAY] {
        let mut wheel = Wheel::new(1_000);
        let keys: Vec<_> = (0..1_000).map(|n| wheel.set(at(instant), n).expect("there is room")).collect();
        assert!(wheel.reset(keys[7], at(instant)), "moved to the same instant, it is the last set");
        let expected: Vec<_> = (0..1_000).filter(|&n| n != 7).chain([7]).collect();
        assert_eq!(fire(&mut wheel, at(2 * DAY), usize::MAX), expected);
    }
}

#[test]
fn cancelled_and_moved_inside_a_batch_do_not_fire_in_it() {
    let mut wheel = Wheel::new(8);
    let keys: Vec<_> = (0..6).map(|n| wheel.set(at(DAY + n), n).expect("there is room")).collect();
    wheel.expire(at(2 * DAY), 9);
    assert_eq!(wheel.pop_due(), Some((keys[0], 0)));
    assert_eq!(wheel.cancel(keys[0]), None, "it has fired");
    assert_eq!(wheel.cancel(keys[1]), Some(1));
    assert!(wheel.reset(keys[2], at(3 * DAY)));
    assert!(wheel.reset(keys[3], at(1)), "into the past: the next batch");
    assert_eq!(wheel.pop_due(), Some((keys[4], 4)));
    wheel.set(at(DAY), 9).expect("there is room");
    assert_eq!(wheel.pop_due(), Some((keys[5], 5)));
    assert_eq!(wheel.pop_due(), None);
    assert_eq!(fire(&mut wheel, at(2 * DAY), 9), [3, 9]);
    assert_eq!(wheel.next(), Some(at(3 * DAY)));
    assert_eq!(fire(&mut wheel, at(3 * DAY), 9), [2]);
    assert!(wheel.is_empty());
}

#[test]
fn a_batch_ends_at_its_limit_and_the_rest_is_due_at_once() {
    for (limit, rest) in [(9, vec![9]), (10, vec![]), (11, vec![])] {
        let mut wheel = Wheel::new(10);
        for n in 0..10 {
            // In one tick, in neighbouring ticks, and days apart.
            wheel.set(at(1 + n * n * n * n * DAY / 1_000), n).expect("there is room");
        }
        let all: Vec<_> = (0..10).collect();
        assert_eq!(fire(&mut wheel, at(9 * DAY), limit), all[..limit.min(10)]);
        assert_eq!(wheel.next().is_some_and(|next| next <= at(9 * DAY)), !rest.is_empty());
        assert_eq!(fire(&mut wheel, at(9 * DAY), limit), rest);
    }
}

#[test]
fn what_is_left_of_a_batch_keeps_its_order_with_what_came_later() {
    let mut wheel = Wheel::new(8);
    for (deadline, payload) in [(10, 'a'), (DAY, 'c'), (DAY + 9, 'd'), (2 * DAY, 'f')] {
        wheel.set(at(deadline), payload).expect("there is room");
    }
    assert_eq!(fire(&mut wheel, at(2 * DAY), 1), ['a']);
    wheel.set(at(DAY + 10), 'e').expect("there is room");
    wheel.set(at(11), 'b').expect("there is room");
    let singly: Vec<_> = (0..6).flat_map(|_| fire(&mut wheel, at(2 * DAY), 1)).collect();
    assert_eq!(singly, ['b', 'c', 'd', 'e', 'f']);
}

#[test]
fn the_wheel_is_full_at_its_limit_and_gives_the_payload_back() {
    let mut wheel = Wheel::new(3);
    wheel.set(at(1), 1).expect("limit - 1 fits");
    wheel.set(Time::NEVER, 2).expect("limit - 1 fits");
    let third = wheel.set(at(DAY), 3).expect("the limit fits");
    assert_eq!(wheel.set(at(1), 4), Err(Full(4)));
    assert_eq!(wheel.cancel(third), Some(3));
    wheel.set(at(1), 5).expect("one was cancelled");
    assert_eq!(fire(&mut wheel, at(1), 1), [1]);
    wheel.set(at(1), 6).expect("one has fired");
    assert_eq!(wheel.set(at(1), 7), Err(Full(7)));
    assert_eq!(Wheel::new(0).set(at(1), 8), Err(Full(8)));
}

#[test]
fn a_stale_key_never_touches_a_newer_timer() {
    let mut wheel = Wheel::new(1);
    let mut stale = Vec::new();
    for n in 0..100 {
        let key = wheel.set(at(n), n).expect("there is room");
        assert_eq!(key.index, 0, "the entry is reused");
        for &old in &stale {
            assert_eq!(
                (wheel.cancel(old), wheel.reset(old, at(5)), wheel.deadline(old)),
                (None, false, None)
            );
        }
        assert_eq!(fire(&mut wheel, at(n), 1), [n]);
        stale.push(key);
    }
}

#[test]
fn an_entry_retires_when_its_generations_are_used_up() {
    let mut wheel = Wheel::new(1);
    let first = wheel.set(at(1), 0).expect("there is room");
    wheel.entries[0].generation = u32::MAX - 2;
    assert_eq!(wheel.cancel(first), None);
    assert_eq!(fire(&mut wheel, at(1), 1), [0]);
    let last = wheel.set(at(1), 1).expect("there is room");
    assert_eq!((last.index, last.generation), (0, u32::MAX - 1));
    assert_eq!(wheel.cancel(last), Some(1));
    let next = wheel.set(at(1), 2).expect("there is room");
    assert_eq!((next.index, next.generation), (1, 0));
    assert_eq!((wheel.cancel(last), wheel.cancel(next)), (None, Some(2)));
}

#[test]
fn a_million_timers_of_all_magnitudes_and_of_one_instant() {
    let mut random = Random::new();
    let mut wheel = Wheel::new(1_000_000);
    let count = 500_000;
    for n in 0..count {
        wheel.set(at(DAY), n).expect("there is room");
        wheel.set(Time::ZERO + random.distance(ALL), n).expect("there is room");
    }
    assert!(wheel.set(at(1), 0).is_err());
    let slab = 1_000_000 * size_of::<Timer<u64>>();
    // Timers of the wheel's current tick are in the heap, which grows by doubling.
    let near = wheel.near.len() * 2 * size_of::<NearTimer>();
    assert!(wheel.heap_bytes() <= slab + near + 65_536, "{} bytes", wheel.heap_bytes());

    let (mut before, mut last, mut fired, mut of_the_day) = (Time::ZERO, None, 0, 0);
    for now in [1, 1_000, DAY - 1, DAY, 10 * DAY, 61 * DAY].map(at) {
        while wheel.next().is_some_and(|next| next <= now) {
            wheel.expire(now, 4096);
            for _ in 0..4096 {
                let Some(first) = wheel.near.first() else { break };
                assert!(last <= Some((first.at, first.sequence)));
                last = Some((first.at, first.sequence));
                let Some((_, payload)) = wheel.pop_due() else { break };
                assert!(at(first.at) <= now && at(first.at) > before);
                if at(first.at) == at(DAY) && payload == of_the_day {
                    of_the_day += 1;
                }
                fired += 1;
            }
        }
        before = now;
    }
    assert_eq!((fired, of_the_day, wheel.len(), wheel.next()), (1_000_000, count, 0, None));
    assert!(wheel.near.heap_bytes() < 65_536, "a crowded tick gives its memory back");
}

const DAY: u64 = 86_400_000_000_000;
/// The magnitudes up to 60 days.
const ALL: u64 = 52;
const MODEL_LIMIT: usize = 300;
