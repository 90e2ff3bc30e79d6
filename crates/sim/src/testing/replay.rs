//! Replay, hunt and shrink: from a failing seed to a small failing world.

use std::{
    any::Any,
    env, fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use crate::{
    faults::{Faults, Kind},
    testing::isolate::isolate,
    testing::plan::{Failure, ISOLATE, PLAN, Plan},
};

/// Plays a scenario under each plan, until one fails. A panic of the scenario is a failure, too.
///
/// Two environment variables help to investigate a failure. `SIM_PLAN` ([`PLAN`]) is a plan as the failure
/// printed it, which is played in place of all others. `SIM_ISOLATE` ([`ISOLATE`]) is a number of runs.
/// Within them, [`isolate`] finds the kinds of fault that alone suffice, and the failure holds and prints the
/// result.
///
/// ```
/// use sim::{Plan, hunt};
/// use std::time::Duration;
/// let plans = (0..20).map(|seed| Plan::draw(seed, 3, Duration::from_secs(5)));
/// let failure = hunt(plans, |plan| if plan.seed < 7 { Ok(()) } else { Err("it is lost".to_owned()) });
/// let failure = failure.expect_err("the eighth plan fails");
/// assert_eq!((failure.plan.seed, &*failure.what), (7, "it is lost"));
/// ```
///
/// # Errors
/// The first [`Failure`].
///
/// # Panics
/// A variable does not parse as a plan or a number.
pub fn hunt(
    plans: impl IntoIterator<Item = Plan>,
    mut scenario: impl FnMut(&Plan) -> Result<(), String>,
) -> Result<(), Box<Failure>> {
    let only: Option<Plan> = variable(PLAN);
    let runs: Option<u32> = variable(ISOLATE);
    let mut look = |plan: Plan| {
        play(&plan, &mut scenario).map_err(|what| {
            let mut failure = Failure::new(plan, what);
            failure.isolated = runs.map(|runs_max| Box::new(isolate(&failure, runs_max, &mut scenario)));
            Box::new(failure)
        })
    };
    match only {
        Some(plan) => look(plan),
        None => plans.into_iter().try_for_each(look),
    }
}

/// Parses an environment variable, if it is set.
fn variable<T: std::str::FromStr<Err: fmt::Display>>(name: &str) -> Option<T> {
    let text = env::var_os(name)?;
    let text = text.to_string_lossy();
    match text.parse() {
        Ok(value) => Some(value),
        Err(error) => panic!("{name}=`{text}`: {error}"),
    }
}

/// Plays a scenario under a plan.
pub(crate) fn play(
    plan: &Plan,
    scenario: &mut (impl FnMut(&Plan) -> Result<(), String> + ?Sized),
) -> Result<(), String> {
    // After a panic, later runs use the scenario's captured state, as after an error.
    catch_unwind(AssertUnwindSafe(|| scenario(plan)))
        .unwrap_or_else(|payload| Err(format!("it panicked: {}", said(&*payload))))
}

/// Returns the message of a panic.
fn said(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("without a text")
}

/// Makes a failing plan smaller as long as it fails: without each kind of fault, with fewer nodes, for a
/// shorter time. It plays the scenario at most a few hundred times. To find the kinds of fault that the
/// failure needs, use [`isolate`], because it also tries other seeds.
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
/// let small = shrink(Failure::new(plan, "it is lost"), scenario);
/// assert_eq!(small.plan.nodes, 3);
/// assert_eq!(small.plan.faults.kinds().collect::<Vec<_>>(), [Kind::Crash]);
/// ```
pub fn shrink(failure: Failure, mut scenario: impl FnMut(&Plan) -> Result<(), String>) -> Failure {
    let mut smallest = failure;
    // Each round tries everything again, because a fault may have hidden a smaller failure. The loop ends
    // when no smaller plan fails.
    for _ in 0..ROUNDS_MAX {
        let mut is_smaller = false;
        for plan in smaller_plans(&smallest.plan) {
            if let Err(what) = play(&plan, &mut scenario) {
                smallest = Failure::new(plan, what);
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

/// Lists the next smaller plans, from the largest reduction to the smallest.
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

/// Rounds down to milliseconds. A plan is printed in milliseconds, and the printed plan must be the one that
/// failed.
fn whole_millis(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// Plays a scenario twice and compares the numbers of each step, for example the digest. A difference reveals
/// a cause other than the seed.
///
/// The scenario calls its argument with a number at each step, for example the world's digest. Both runs must
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
/// The first step that differs, with its number and its description in both runs.
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
