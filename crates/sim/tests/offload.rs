//! Offloaded work: done at a moment drawn from the seed, and lost with its node.

use std::time::Duration;

use reactor::{Context, Receive, Result, Service};
use sim::{Faults, Kind, NodeId, World, WorldOptions};

/// Offloads some jobs, and notes when each was done.
#[derive(Default)]
struct Worker {
    done: Vec<(u32, u64)>,
}

impl Service for Worker {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        for number in 0..JOBS {
            cx.offload(move || number).map_err(|_| "no room")?;
        }
        // This timer keeps the node up after all jobs are done.
        cx.after(Duration::from_secs(1_000_000), JOBS);
        Ok(())
    }
}

impl Receive<u32> for Worker {
    fn receive(&mut self, cx: &mut Context<Self>, number: u32) -> Result {
        self.done.push((number, cx.now().as_nanos()));
        Ok(())
    }
}

fn world(seed: u64, faults: Faults) -> (World, NodeId<Worker>) {
    let mut options = WorldOptions::default();
    options.faults = faults;
    let mut world = World::with_options(seed, options);
    let worker = world.add(|runtime| runtime.add(Worker::default()));
    (world, worker)
}

fn played(seed: u64) -> (Vec<(u32, u64)>, sim::Digest) {
    let (mut world, worker) = world(seed, Faults::none());
    world.run_for(Duration::from_secs(1));
    (world.service(worker).expect("it is up").done.clone(), world.digest())
}

#[test]
fn one_seed_does_all_jobs_in_one_order_and_another_seed_in_another() {
    let (one, again, other) = (played(1), played(1), played(2));
    assert_eq!(one, again);
    assert_ne!(one.1, other.1);
    let order = |done: &[(u32, u64)]| done.iter().map(|(number, _)| *number).collect::<Vec<_>>();
    assert_ne!(order(&one.0), order(&other.0), "of {JOBS} jobs two seeds drew one order");
    for (done, _) in [&one, &other] {
        let mut sorted = order(done);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..JOBS).collect::<Vec<_>>(), "each once");
        assert!(done.windows(2).all(|pair| pair[0].1 <= pair[1].1), "time goes forward");
    }
}

#[test]
fn jobs_that_are_out_at_a_crash_tell_nothing_to_the_next_life() {
    let (mut world, worker) = world(3, Faults::none());
    world.run_until(Duration::from_secs(1), |world| {
        world.service(worker).is_some_and(|service| service.done.len() == 3)
    });
    world.crash(worker);
    world.restart(worker);
    world.run_for(Duration::from_secs(1));
    let done = &world.service(worker).expect("it is up").done;
    let mut numbers: Vec<u32> = done.iter().map(|(number, _)| *number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..JOBS).collect::<Vec<_>>(), "its own jobs, each once, and no other's");
}

#[test]
fn slow_jobs_take_up_to_a_second() {
    let last = |faults| {
        let (mut world, worker) = world(4, faults);
        let began = world.now().as_nanos();
        world.run_for(Duration::from_secs(2));
        let done = &world.service(worker).expect("it is up").done;
        assert_eq!(done.len(), JOBS as usize);
        done[JOBS as usize - 1].1 - began
    };
    assert!(last(Faults::none()) <= 5_100_000);
    assert!(last(Faults::none().with(Kind::SlowJob, 1_000_000)) > 100_000_000);
}

const JOBS: u32 = 12;
