//! The command line of the hunter.

use std::{ops::RangeInclusive, time::Duration};

use sim::{Faults, Plan};

use crate::scenario;

/// The parsed arguments.
pub(crate) struct Args {
    /// Play only one plan.
    pub(crate) one: bool,
    pub(crate) first: u64,
    pub(crate) seeds: u64,
    /// The number of runs for the search for the kinds of fault that alone suffice.
    pub(crate) isolate: Option<u32>,
    nodes: Option<usize>,
    time: Option<Duration>,
    faults: Option<Faults>,
}

impl Args {
    /// Parses the arguments.
    ///
    /// # Errors
    /// One line that names the mistake.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Args, String> {
        let mut args =
            Args { one: false, first: 1, seeds: 100, isolate: None, nodes: None, time: None, faults: None };
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value; {USAGE}"));
            match name.as_str() {
                "--seed" => (args.one, args.first) = (true, number(&name, &value()?, 0..=u64::MAX)?),
                "--from" => args.first = number(&name, &value()?, 0..=u64::MAX)?,
                "--seeds" => args.seeds = number(&name, &value()?, 0..=u64::MAX)?,
                "--isolate" => args.isolate = Some(number(&name, &value()?, 1..=u64::from(u32::MAX))? as u32),
                "--nodes" => args.nodes = Some(number(&name, &value()?, 1..=NODES_MAX)? as usize),
                "--time-ms" => {
                    args.time = Some(Duration::from_millis(number(&name, &value()?, 1..=TIME_MS_MAX)?));
                }
                "--faults" => {
                    args.faults = Some(value()?.parse().map_err(|error| format!("--faults: {error}"))?)
                }
                _ => return Err(format!("there is no option `{name}`; {USAGE}")),
            }
        }
        if args.first.checked_add(args.seeds).is_none() {
            return Err("there are no seeds behind the last one".to_owned());
        }
        Ok(args)
    }

    /// Returns the plan of a seed, with the arguments' changes.
    pub(crate) fn plan(&self, seed: u64) -> Plan {
        let plan = scenario::plan(seed);
        Plan {
            nodes: self.nodes.unwrap_or(plan.nodes),
            time: self.time.unwrap_or(plan.time),
            faults: self.faults.clone().unwrap_or(plan.faults),
            seed,
        }
    }
}

/// Returns the arguments that play a plan.
pub(crate) fn command(plan: &Plan) -> String {
    let faults = plan.faults.to_string().replace(' ', ",");
    let time = plan.time.as_millis();
    format!("--seed {} --nodes {} --time-ms {time} --faults {faults}", plan.seed, plan.nodes)
}

fn number(name: &str, text: &str, allowed: RangeInclusive<u64>) -> Result<u64, String> {
    let parsed = text.parse().ok().filter(|number| allowed.contains(number));
    parsed.ok_or_else(|| {
        format!("{name}: `{text}` is not a number from {} to {}", allowed.start(), allowed.end())
    })
}

const USAGE: &str = "usage: hunt [--seeds N] [--from N] [--seed N] [--isolate RUNS] [--nodes N] [--time-ms N] \
                     [--faults KIND=RATE,..|none]";
const NODES_MAX: u64 = 1_000;
const TIME_MS_MAX: u64 = 3_600_000;
