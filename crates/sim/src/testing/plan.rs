//! Plans: the input of a scenario, as a value and as text, and the failure of a plan.

use std::{fmt, str::FromStr, time::Duration};

use crate::{
    faults::Faults,
    testing::isolate::{Isolated, RUNS},
    world::{World, WorldOptions},
};

/// The input of a scenario: a seed, a mix of faults, a number of nodes, and a duration.
///
/// Its text can be parsed again, so a plan that a failure printed can be replayed, by [`PLAN`] or in a test.
///
/// ```
/// use sim::Plan;
/// use std::time::Duration;
/// let plan = Plan::draw(7, 5, Duration::from_secs(10));
/// assert_eq!((plan.seed, plan.nodes), (7, 5));
/// assert_eq!(plan.faults, sim::Faults::draw(7));
/// assert_eq!(plan.to_string().parse(), Ok(plan));
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The seed of all chance.
    pub seed: u64,
    /// The rates of the faults.
    pub faults: Faults,
    /// The number of nodes.
    pub nodes: usize,
    /// The length of the period with faults.
    pub time: Duration,
}

impl Plan {
    /// Makes the plan of a seed, with the mix of faults that the seed draws.
    pub fn draw(seed: u64, nodes: usize, time: Duration) -> Plan {
        Plan { seed, faults: Faults::draw(seed), nodes, time }
    }

    /// Makes a world for this plan.
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

/// Parses the printed form of a plan. The error briefly names the mistake in the text.
impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Plan, String> {
        let (numbers, faults) = text.split_once(" faults: ").ok_or("it has no ` faults: `")?;
        let mut words = numbers.split_whitespace();
        let mut number = |name: &str| {
            let word = words.next().ok_or_else(|| format!("it has no `{name}`"))?;
            let digits = word.strip_prefix(name).ok_or_else(|| format!("`{name}` should be at `{word}`"))?;
            digits.parse::<u64>().map_err(|_| format!("`{word}` has no number"))
        };
        let (seed, nodes, time) = (number("SEED=")?, number("NODES=")?, number("TIME_MS=")?);
        if let Some(word) = words.next() {
            return Err(format!("`{word}` is one word too many"));
        }
        let nodes = usize::try_from(nodes).map_err(|_| format!("{nodes} nodes are too many"))?;
        Ok(Plan { seed, faults: faults.parse()?, nodes, time: Duration::from_millis(time) })
    }
}

/// A failing plan, and its failure.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Failure {
    /// The plan.
    pub plan: Plan,
    /// The scenario's error message.
    pub what: String,
    /// The kinds of fault that alone suffice, if [`ISOLATE`] requested the search.
    pub isolated: Option<Box<Isolated>>,
}

impl Failure {
    /// Joins a plan and the scenario's error message.
    pub fn new(plan: Plan, what: impl Into<String>) -> Failure {
        Failure { plan, what: what.into(), isolated: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nreplay with {PLAN}='{}'", self.what, self.plan)?;
        match &self.isolated {
            Some(isolated) => write!(f, "\n{isolated}"),
            None => write!(f, "\n{ISOLATE}={RUNS} says which kinds of fault alone suffice, in so many runs"),
        }
    }
}

impl std::error::Error for Failure {}

/// The environment variable that makes [`hunt`](crate::hunt()) play only one plan: `SIM_PLAN`.
pub const PLAN: &str = "SIM_PLAN";

/// The environment variable that makes [`hunt`](crate::hunt()) isolate a failure: `SIM_ISOLATE`. Its value is
/// the number of runs for that.
pub const ISOLATE: &str = "SIM_ISOLATE";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_back_as_it_was_printed() {
        for seed in [0, 7, u64::MAX] {
            let plan = Plan::draw(seed, seed as usize, Duration::from_millis(seed));
            assert_eq!(plan.to_string().parse(), Ok(plan));
        }
        let calm = Plan { seed: 1, faults: Faults::none(), nodes: 2, time: Duration::ZERO };
        assert_eq!(calm.to_string().parse(), Ok(calm));
    }

    #[test]
    fn a_text_that_is_no_plan_is_refused_with_the_word_that_is_wrong() {
        for (text, says) in [
            ("", "` faults: `"),
            ("SEED=1 faults: none", "`NODES=`"),
            ("NODES=1 SEED=1 TIME_MS=1 faults: none", "`NODES=1`"),
            ("SEED=x NODES=1 TIME_MS=1 faults: none", "`SEED=x`"),
            ("SEED=18446744073709551616 NODES=1 TIME_MS=1 faults: none", "no number"),
            ("SEED=1 NODES=1 TIME_MS=1 MORE=1 faults: none", "`MORE=1`"),
            ("SEED=1 NODES=1 TIME_MS=1 faults: Rain=3", "`Rain=3`"),
            ("SEED=1 NODES=1 TIME_MS=1 faults: Reset", "`Reset`"),
        ] {
            let error = text.parse::<Plan>().expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
