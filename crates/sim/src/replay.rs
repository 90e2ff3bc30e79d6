//! Replaying, hunting and shrinking: from a seed that fails to a small world that fails.

use std::{fmt, time::Duration};

use crate::{
    fault::{Faults, Kind},
    world::{World, WorldOptions},
};

/// What a scenario plays: a seed, a mix of faults, a number of nodes, and how long.
///
/// ```
/// use sim::Plan;
/// use std::time::Duration;
/// let plan = Plan::draw(7, 5, Duration::from_secs(10));
/// assert_eq!((plan.seed, plan.nodes), (7, 5));
/// assert_eq!(plan.faults, sim::Faults::draw(7));
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// All chance comes from it.
    pub seed: u64,
    /// Which faults there are.
    pub faults: Faults,
    /// How many nodes.
    pub nodes: usize,
    /// How long the time of faults lasts.
    pub time: Duration,
}

impl Plan {
    /// The plan of a seed, with the mix of faults that it draws.
    pub fn draw(seed: u64, nodes: usize, time: Duration) -> Plan {
        Plan { seed, faults: Faults::draw(seed), nodes, time }
    }

    /// A world for this plan.
    pub fn world(&self) -> World {
        let options = WorldOptions { faults: self.faults.clone(), ..WorldOptions::default() };
        World::with_options(self.seed, options)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SEED={} NODES={} TIME_MS={} faults: {}",
            self.seed,
            self.nodes,
            self.time.as_millis(),
            self.faults
        )
    }
}

/// A plan that fails, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The plan.
    pub plan: Plan,
    /// What the scenario said.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nreplay with {}", self.what, self.plan)
    }
}

impl std::error::Error for Failure {}

/// Plays a scenario under each plan, until one fails.
///
/// # Errors
/// The first [`Failure`].
pub fn hunt(
    plans: impl IntoIterator<Item = Plan>,
    mut scenario: impl FnMut(&Plan) -> Result<(), String>,
) -> Result<(), Box<Failure>> {
    plans.into_iter().try_for_each(|plan| scenario(&plan).map_err(|what| Box::new(Failure { plan, what })))
}

/// Makes a failing plan smaller, as long as it fails: without each kind of fault, with fewer nodes, for a
/// shorter time. It plays the scenario at most a few hundred times.
///
/// ```
/// use sim::{Failure, Kind, Plan, shrink};
/// use std::time::Duration;
/// // Fails with three nodes or more, when there are crashes.
/// let scenario = |plan: &Plan| match plan.nodes >= 3 && plan.faults.of(Kind::Crash) > 0 {
///     true => Err("it is lost".to_owned()),
///     false => Ok(()),
/// };
/// let seed = (0..).find(|seed| sim::Faults::draw(*seed).of(Kind::Crash) > 0).expect("some seed has it");
/// let plan = Plan::draw(seed, 20, Duration::from_secs(60));
/// let small = shrink(Failure { plan, what: "it is lost".to_owned() }, scenario);
/// assert_eq!(small.plan.nodes, 3);
/// assert_eq!(small.plan.faults.kinds().collect::<Vec<_>>(), [Kind::Crash]);
/// ```
pub fn shrink(failure: Failure, mut scenario: impl FnMut(&Plan) -> Result<(), String>) -> Failure {
    let mut smallest = failure;
    // Each round tries everything once more, since what a fault hid may be gone; it ends when nothing helped.
    for _ in 0..ROUNDS_MAX {
        let mut is_smaller = false;
        for plan in smaller_plans(&smallest.plan) {
            if let Err(what) = scenario(&plan) {
                smallest = Failure { plan, what };
                is_smaller = true;
                break;
            }
        }
        if !is_smaller {
            break;
        }
    }
    smallest
}

/// The next smaller plans, those first that leave out most.
fn smaller_plans(plan: &Plan) -> Vec<Plan> {
    let mut plans = Vec::new();
    let mut add = |change: &dyn Fn(&mut Plan)| {
        let mut smaller = plan.clone();
        change(&mut smaller);
        if smaller != *plan {
            plans.push(smaller);
        }
    };
    add(&|plan| plan.faults = Faults::none());
    add(&|plan| plan.nodes = (plan.nodes / 2).max(2));
    add(&|plan| plan.time = whole_millis(plan.time / 2));
    for kind in plan.faults.kinds().collect::<Vec<Kind>>() {
        add(&|plan| plan.faults = plan.faults.clone().with(kind, 0));
    }
    add(&|plan| plan.nodes = (plan.nodes - plan.nodes / 4).max(2));
    add(&|plan| plan.nodes = plan.nodes.saturating_sub(1).max(2));
    add(&|plan| plan.time = whole_millis(plan.time * 3 / 4));
    plans.retain(|smaller| smaller.time >= TIME_MIN || smaller.time == plan.time);
    plans
}

/// A plan is printed in milliseconds, and what is printed has to be what failed.
fn whole_millis(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// Plays a scenario twice and compares what it gives, its digest in the simplest case, at each step: so
/// what is not of the seed is found.
///
/// The scenario calls its argument with a number at each step (the world's digest, say); both runs have to
/// give the same numbers.
///
/// ```
/// # use std::time::Duration;
/// let honest = sim::replay(|note| {
///     let mut world = sim::World::new(3);
///     while world.step() {
///         note(world.digest().value(), &"a step");
///     }
/// });
/// assert_eq!(honest, Ok(()));
///
/// let mut runs = 0;
/// let dishonest = sim::replay(|note| {
///     runs += 1;
///     note(1, &"the same");
///     note(runs, &"a counter that outlives the run");
/// });
/// assert!(dishonest.expect_err("the second number differs").contains("a counter that outlives"));
/// ```
///
/// # Errors
/// The first step that differs, by its number and as described in both runs.
pub fn replay(mut scenario: impl FnMut(&mut dyn FnMut(u64, &dyn fmt::Display))) -> Result<(), String> {
    let mut first: Vec<u64> = Vec::new();
    scenario(&mut |number, _| first.push(number));
    let (mut at, mut difference) = (0, None);
    scenario(&mut |number, what| {
        if difference.is_none() && first.get(at) != Some(&number) {
            let now = world_step(at);
            difference = Some(match first.get(at) {
                Some(before) => format!("{now} differs: {what} ({before:016x}, then {number:016x})"),
                None => format!("{now} is one more than in the first run: {what}"),
            });
        }
        at += 1;
    });
    match difference {
        None if at < first.len() => Err(format!("the second run ended before {}", world_step(at))),
        None => Ok(()),
        Some(difference) => Err(difference),
    }
}

fn world_step(at: usize) -> String {
    format!("step {}", at + 1)
}

const ROUNDS_MAX: usize = 64;
const TIME_MIN: Duration = Duration::from_millis(1);
