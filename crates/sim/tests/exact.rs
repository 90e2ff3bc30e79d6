//! Exact replay: one seed gives one run, byte by byte, and a replay finds a cause outside the seed.

mod scenario;

use std::{
    collections::{BTreeSet, HashMap},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use reactor::{Bytes, Context, Event, Handle, Id, Receive, Result, Service, Stream};
use sim::{Digest, World, replay};

use self::scenario::{plan, play, play_noted, play_twisted};

fn digest_of(seed: u64) -> Digest {
    play(&plan(seed)).unwrap_or_else(|what| panic!("seed {seed}: {what}")).summary.digest
}

fn each_seed_gives_one_digest_and_another_than_the_others(seeds: std::ops::Range<u64>) {
    let mut digests = BTreeSet::new();
    for seed in seeds {
        let digest = digest_of(seed);
        assert_eq!(digest, digest_of(seed), "seed {seed} played twice");
        assert!(digests.insert(digest.value()), "seed {seed} gives the digest of another one");
    }
}

#[test]
fn a_few_seeds_are_played_again_exactly() {
    each_seed_gives_one_digest_and_another_than_the_others(1..11);
}

#[test]
#[ignore = "slow: .ci/run has it"]
fn a_thousand_seeds_are_played_again_exactly() {
    each_seed_gives_one_digest_and_another_than_the_others(1..1001);
}

#[test]
fn every_step_of_the_scenario_is_of_the_seed() {
    for seed in 1..4 {
        let same = replay(|note| {
            let mut step = 0;
            let played = play_noted(&plan(seed), &mut |digest| {
                step += 1;
                note(digest.value(), &format_args!("the world's step {step}"));
            });
            played.unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        });
        assert_eq!(same, Ok(()), "seed {seed}");
    }
}

#[test]
fn one_changed_byte_changes_the_digest() {
    for seed in 1..6 {
        let twisted = play_twisted(&plan(seed)).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        assert_ne!(digest_of(seed), twisted.summary.digest, "seed {seed}");
    }
}

// A service with state outside the seed.

/// The source of the order in which the service sends.
#[derive(Clone, Copy)]
enum Order {
    Seed,
    HashMap,
    Counter,
}

struct Sender {
    to: String,
    order: Order,
}

struct Go;

impl Service for Sender {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.listen("0.0.0.0:7", |_| Some(Stream::new(Bytes)))?;
        cx.after(Duration::from_millis(3), Go);
        Ok(())
    }
}

impl Receive<Go> for Sender {
    fn receive(&mut self, cx: &mut Context<Self>, _: Go) -> Result {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let words: Vec<u64> = match self.order {
            Order::Seed => (0..16).map(|_| cx.random()).collect(),
            // Each map has an order of its own.
            Order::HashMap => (0..16).map(|word| (word, ())).collect::<HashMap<_, _>>().into_keys().collect(),
            Order::Counter => vec![RUNS.fetch_add(1, Ordering::Relaxed)],
        };
        let id = cx.connect(&self.to, Stream::new(Bytes))?;
        for word in words {
            cx.send(id, word.to_le_bytes().as_slice());
        }
        Ok(())
    }
}

impl Handle<Stream> for Sender {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Event<Bytes>) -> Result {
        Ok(())
    }
}

fn played_twice(order: Order) -> std::result::Result<(), String> {
    replay(|note| {
        let mut world = World::new(5);
        let server = world.add(move |runtime| runtime.add(Sender { to: "127.0.0.1:7".to_owned(), order }));
        let to = format!("{}:7", world.ip(server));
        world.add(move |runtime| runtime.add(Sender { to: to.clone(), order }));
        while world.step() {
            note(world.digest().value(), &format_args!("what was done until {:?}", world.now()));
        }
    })
}

#[test]
fn a_service_that_asks_the_seed_is_played_again_exactly() {
    assert_eq!(played_twice(Order::Seed), Ok(()));
}

#[test]
fn a_service_with_an_order_or_a_counter_of_its_own_is_found_where_it_first_differs() {
    for order in [Order::HashMap, Order::Counter] {
        let difference = played_twice(order).expect_err("two runs differ");
        // The timers fire after 3 ms, connecting takes less than 1 ms, and nothing is sent before that.
        assert!(difference.contains("what was done until 1.003"), "{difference}");
        assert!(difference.contains(" differs: "), "{difference}");
    }
}
