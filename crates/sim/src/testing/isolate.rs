//! Isolation: finds the kinds of fault that alone suffice for a failure, under other seeds.
//!
//! Shrinking keeps the seed, but a world without one kind of fault draws other numbers from it, so its
//! result is partly an accident. Isolation gives each kind a world of its own, under many seeds.

use std::{
    fmt,
    io::{self, Write as _},
    time::{Duration, Instant},
};

use crate::{
    faults::chance::Chance,
    faults::{Faults, Kind},
    testing::plan::{Failure, PLAN, Plan},
    testing::replay::play,
};

/// A set of kinds of fault that [`isolate`] tried without the others.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Tried {
    /// The kinds, or none in the trial without faults.
    pub kinds: Vec<Kind>,
    /// The number of seeds under which the scenario was played with them.
    pub seeds: u32,
    /// The first of these plans that failed.
    pub failure: Option<Failure>,
}

/// The result of [`isolate`]. Its `Display` is a summary in plain words.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Isolated {
    /// All tried sets: no fault at all, each kind alone, and pairs if no kind failed alone.
    pub tried: Vec<Tried>,
    /// How often the scenario was played.
    pub runs: u32,
}

impl Isolated {
    /// Returns the failure that needs no fault. If there is one, no kind of fault is the cause.
    pub fn without_faults(&self) -> Option<&Failure> {
        self.failures(0).next()
    }

    /// Returns the kinds that suffice alone.
    pub fn kinds(&self) -> Vec<Kind> {
        self.failures(1).flat_map(|failure| failure.plan.faults.kinds()).collect()
    }

    /// Returns the failures under sets of this size.
    fn failures(&self, count: usize) -> impl Iterator<Item = &Failure> {
        self.tried
            .iter()
            .filter(move |tried| tried.kinds.len() == count)
            .filter_map(|tried| tried.failure.as_ref())
    }
}

/// Finds the kinds of fault of a failing plan that suffice alone. Tries each kind without the others, under
/// the plan's seed and under other seeds. If no kind fails alone, it tries pairs.
///
/// It plays the scenario at most `runs_max` times ([`RUNS`] are enough for most), and draws the same seeds in
/// each process. One trial has no faults. If that one fails, the search ends, because no fault is the cause.
/// Under every other seed, a fault of operations gets the highest rate of a drawn mix, so that a rare fault
/// shows.
///
/// A search that takes long reports about every ten seconds how far it is and what it has found, in a line on
/// standard error. So you can interrupt it as soon as you know enough. The time of these lines is the only
/// use of a real clock, and has no influence on the result.
///
/// A kind that did not fail is not cleared. The result states the number of seeds under which it was tried.
///
/// ```
/// use sim::{Failure, Faults, Kind, Plan, RUNS, isolate};
/// use std::time::Duration;
/// // Refused connects are the cause, but not under every seed.
/// let scenario = |plan: &Plan| match plan.faults.of(Kind::Refuse) > 0 && plan.seed % 3 == 0 {
///     true => Err("nobody asks again".to_owned()),
///     false => Ok(()),
/// };
/// let faults = Faults::none().with(Kind::Refuse, 100).with(Kind::TinyRead, 500).with(Kind::Crash, 70);
/// let plan = Plan { seed: 9, faults, nodes: 3, time: Duration::from_secs(4) };
/// let found = isolate(&Failure::new(plan, "nobody asks again"), RUNS, scenario);
/// assert_eq!(found.kinds(), [Kind::Refuse]);
/// assert!(found.to_string().contains("Refuse suffices alone: nobody asks again"));
/// ```
pub fn isolate(
    failure: &Failure,
    runs_max: u32,
    mut scenario: impl FnMut(&Plan) -> Result<(), String>,
) -> Isolated {
    // Written past the capture of `cargo test`, which would keep the line until the test has ended.
    let mut print = |line: String| _ = io::stderr().write_all(line.as_bytes());
    let reporter = Reporter::new(REPORT_EVERY, runs_max, &mut print);
    search(failure, runs_max, &mut scenario, reporter)
}

fn search<'a>(
    failure: &'a Failure,
    runs_max: u32,
    scenario: &'a mut dyn FnMut(&Plan) -> Result<(), String>,
    reporter: Reporter<'a>,
) -> Isolated {
    let of = &failure.plan;
    let kinds: Vec<Kind> = of.faults.kinds().collect();
    let mut search = Search { of, scenario, runs: 0, reporter };
    let mut tried = alone(&kinds);
    let pairs = pairs(&kinds);
    search.try_all(&mut tried, runs_max / 2);
    // The other half is for pairs, unless they are not needed.
    let from = tried.len();
    if tried.iter().all(|tried| tried.failure.is_none()) && !pairs.is_empty() {
        tried.extend(pairs);
        search.try_all(&mut tried[from..], runs_max);
    } else {
        search.try_all(&mut tried, runs_max);
    }
    Isolated { tried, runs: search.runs }
}

/// Lists the set without faults, and each kind alone.
fn alone(kinds: &[Kind]) -> Vec<Tried> {
    let sets = kinds.iter().map(|kind| vec![*kind]);
    std::iter::once(Vec::new()).chain(sets).map(Tried::new).collect()
}

fn pairs(kinds: &[Kind]) -> Vec<Tried> {
    let pairs = kinds.iter().enumerate().flat_map(|(at, one)| {
        let others = kinds[at + 1..].iter();
        others.map(|other| Tried::new(vec![*one, *other]))
    });
    pairs.collect()
}

impl Tried {
    fn new(kinds: Vec<Kind>) -> Tried {
        Tried { kinds, seeds: 0, failure: None }
    }

    /// Returns whether this is the trial without faults.
    fn is_control(&self) -> bool {
        self.kinds.is_empty()
    }
}

/// A search in progress.
struct Search<'a> {
    of: &'a Plan,
    scenario: &'a mut dyn FnMut(&Plan) -> Result<(), String>,
    runs: u32,
    reporter: Reporter<'a>,
}

/// Reports the progress of a search that takes long.
struct Reporter<'a> {
    /// The least time between two reports.
    every: Duration,
    last: Instant,
    runs_max: u32,
    /// The sets that have failed.
    found: Vec<String>,
    print: &'a mut dyn FnMut(String),
}

impl<'a> Reporter<'a> {
    fn new(every: Duration, runs_max: u32, print: &'a mut dyn FnMut(String)) -> Reporter<'a> {
        Reporter { every, last: Instant::now(), runs_max, found: Vec::new(), print }
    }

    /// Notes a run, and reports if it is time.
    fn note(&mut self, runs: u32, tried: &Tried) {
        if tried.failure.is_some() {
            self.found.push(Named(&tried.kinds).to_string());
        }
        if self.last.elapsed() < self.every {
            return;
        }
        self.last = Instant::now();
        let found = if self.found.is_empty() { "nothing so far" } else { &self.found.join(", ") };
        (self.print)(format!("isolate: {runs} of at most {} runs; it failed with: {found}\n", self.runs_max));
    }
}

impl Search<'_> {
    /// Plays each set under one seed after the other until it fails. Stops when all sets have failed or the
    /// runs are used up.
    fn try_all(&mut self, sets: &mut [Tried], runs_max: u32) {
        let mut chance = Chance::new(self.of.seed ^ 0x0150_1a7e);
        for round in 0.. {
            let seed = if round == 0 { self.of.seed } else { chance.bits() };
            let is_open = |tried: &&Tried| !tried.is_control() && tried.failure.is_none();
            let is_over = sets.iter().any(|tried| tried.is_control() && tried.failure.is_some());
            // The trial without faults needs some seeds even if every kind fails under the first.
            if is_over || sets.iter().find(is_open).is_none() && round >= CONTROL_SEEDS {
                return;
            }
            let is_next = |tried: &&mut Tried| tried.failure.is_none() && tried.seeds == round;
            for tried in sets.iter_mut().filter(is_next) {
                if self.runs >= runs_max {
                    return;
                }
                self.runs += 1;
                tried.seeds += 1;
                let plan = self.plan(&tried.kinds, seed, round % 2 == 1);
                tried.failure = play(&plan, self.scenario).err().map(|what| Failure::new(plan, what));
                self.reporter.note(self.runs, tried);
                if tried.is_control() && tried.failure.is_some() {
                    return;
                }
            }
        }
    }

    /// Returns the failing plan with these kinds only, at their old or higher rates.
    fn plan(&self, kinds: &[Kind], seed: u64, is_harsh: bool) -> Plan {
        let rate = |kind: Kind| match is_harsh && !kind.is_of_world() {
            true => self.of.faults.of(kind).max(kind.rate_max()),
            false => self.of.faults.of(kind),
        };
        let faults = kinds.iter().fold(Faults::none(), |faults, kind| faults.with(*kind, rate(*kind)));
        Plan { seed, faults, ..self.of.clone() }
    }
}

impl fmt::Display for Isolated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(failure) = self.without_faults() {
            return write!(f, "no fault is needed: {}", Shown(failure));
        }
        let failed = self.tried.iter().filter_map(|tried| Some((tried, tried.failure.as_ref()?)));
        let mut is_any = false;
        for (tried, failure) in failed {
            let verb = if tried.kinds.len() == 1 { "suffices alone" } else { "suffice together" };
            writeln!(f, "{} {verb}: {}", Named(&tried.kinds), Shown(failure))?;
            is_any = true;
        }
        if !is_any {
            writeln!(f, "no kind of fault was seen to suffice alone, and no two of them")?;
        }
        let silent = |tried: &&Tried| tried.kinds.len() <= 1 && tried.failure.is_none() && tried.seeds > 0;
        let silent: Vec<&Tried> = self.tried.iter().filter(silent).collect();
        let names: Vec<String> = silent.iter().map(|tried| Named(&tried.kinds).to_string()).collect();
        let seeds = silent.iter().map(|tried| tried.seeds).min().unwrap_or(0);
        if !names.is_empty() {
            write!(f, "under {seeds} seeds each did not fail: {}", names.join(", "))?;
        }
        let untried = self.tried.iter().filter(|tried| tried.seeds == 0).count();
        if untried > 0 {
            write!(f, "; {untried} sets were not tried")?;
        }
        write!(f, " ({} runs)", self.runs)
    }
}

/// A set of kinds, as text.
struct Named<'a>(&'a [Kind]);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("no fault at all"),
            [first, rest @ ..] => {
                write!(f, "{first:?}")?;
                rest.iter().try_for_each(|kind| write!(f, " and {kind:?}"))
            }
        }
    }
}

/// A failure in two lines.
struct Shown<'a>(&'a Failure);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { plan, what, .. } = self.0;
        write!(f, "{}\n    {PLAN}='{plan}'", what.lines().next().unwrap_or_default())
    }
}

/// The usual `runs_max` of [`isolate`].
pub const RUNS: u32 = 400;

/// How long a search is silent.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// The least number of seeds for the trial without faults, as far as the runs allow.
const CONTROL_SEEDS: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const FOUR: [Kind; 4] = [Kind::TinyRead, Kind::Refuse, Kind::Crash, Kind::Pause];

    fn failure() -> Failure {
        let faults = FOUR.into_iter().fold(Faults::none(), |faults, kind| faults.with(kind, 100));
        let plan = Plan { seed: 5, faults, nodes: 3, time: Duration::from_secs(1) };
        Failure::new(plan, "it hangs")
    }

    /// Makes a scenario that fails when the condition holds.
    fn when(holds: impl Fn(&Plan) -> bool) -> impl FnMut(&Plan) -> Result<(), String> {
        move |plan| if holds(plan) { Err("it hangs".to_owned()) } else { Ok(()) }
    }

    fn has(plan: &Plan, kind: Kind) -> bool {
        plan.faults.of(kind) > 0
    }

    #[test]
    fn each_kind_that_suffices_is_named_with_a_plan_that_fails() {
        let mut scenario =
            when(|plan| has(plan, Kind::Refuse) && plan.seed % 4 == 0 || has(plan, Kind::Pause));
        let found = isolate(&failure(), RUNS, &mut scenario);
        assert_eq!(found.kinds(), [Kind::Refuse, Kind::Pause]);
        assert_eq!(found.without_faults(), None);
        for failure in found.tried.iter().filter_map(|tried| tried.failure.as_ref()) {
            assert_eq!(scenario(&failure.plan), Err(failure.what.clone()));
            assert_eq!((failure.plan.nodes, failure.plan.time), (3, Duration::from_secs(1)));
        }
        let text = found.to_string();
        assert!(text.contains("Refuse suffices alone: it hangs\n    SIM_PLAN='SEED="), "{text}");
        assert!(text.contains("did not fail: no fault at all, TinyRead, Crash"), "{text}");
    }

    #[test]
    fn a_rare_fault_is_tried_more_often_than_it_was() {
        let found = isolate(&failure(), RUNS, when(|plan| plan.faults.of(Kind::TinyRead) >= 50_000));
        assert_eq!(found.kinds(), [Kind::TinyRead]);
        let rates = |kind| {
            let mut rates = Vec::new();
            isolate(&failure(), 60, |plan| {
                rates.push(plan.faults.of(kind));
                Ok(())
            });
            rates.iter().copied().max()
        };
        assert_eq!(rates(Kind::Crash), Some(100), "a weight means nothing alone");
        assert_eq!(rates(Kind::Refuse), Some(100_000));
    }

    #[test]
    fn pairs_are_tried_if_no_kind_suffices_alone() {
        let found =
            isolate(&failure(), RUNS, when(|plan| has(plan, Kind::Crash) && has(plan, Kind::TinyRead)));
        assert_eq!(found.kinds(), []);
        let pairs: Vec<_> = found.tried.iter().filter(|tried| tried.failure.is_some()).collect();
        assert!(matches!(&*pairs, [pair] if pair.kinds == [Kind::TinyRead, Kind::Crash]), "{pairs:?}");
        assert!(found.to_string().starts_with("TinyRead and Crash suffice together: it hangs"), "{found}");
    }

    #[test]
    fn what_fails_without_faults_has_no_kind() {
        let found = isolate(&failure(), RUNS, when(|plan| plan.seed % 2 == 0));
        assert!(found.without_faults().is_some_and(|failure| failure.plan.faults == Faults::none()));
        assert!(found.to_string().starts_with("no fault is needed: it hangs\n"), "{found}");
    }

    #[test]
    fn it_says_so_when_nothing_was_found() {
        let three = [Kind::TinyRead, Kind::Refuse, Kind::Crash];
        let found = isolate(&failure(), RUNS, when(|plan| three.into_iter().all(|kind| has(plan, kind))));
        assert_eq!((found.kinds(), found.runs), (vec![], RUNS));
        assert!(found.to_string().contains("no two of them"), "{found}");
    }

    #[test]
    fn it_is_bounded_by_its_runs_and_the_same_each_time() {
        for runs_max in [0, 1, 4, 5, 6, 100] {
            let mut plans = Vec::new();
            let mut noted = |plan: &Plan| {
                plans.push(plan.clone());
                Ok(())
            };
            let found = isolate(&failure(), runs_max, &mut noted);
            assert_eq!((found.runs, plans.len()), (runs_max, runs_max as usize));
            let first = plans.clone();
            plans.clear();
            isolate(&failure(), runs_max, |plan| {
                plans.push(plan.clone());
                Ok(())
            });
            assert_eq!(plans, first);
            assert!(!found.to_string().is_empty());
        }
    }

    #[test]
    fn a_search_reports_its_progress_and_finds_the_same() {
        let scenario = || when(|plan| has(plan, Kind::Pause));
        let reported = |every| {
            let mut lines = Vec::new();
            let mut print = |line| lines.push(line);
            let failure = failure();
            let mut pause = scenario();
            let found = search(&failure, 20, &mut pause, Reporter::new(every, 20, &mut print));
            assert_eq!(found, isolate(&failure, 20, scenario()));
            lines
        };
        assert_eq!(reported(Duration::MAX), [] as [String; 0]);
        let lines = reported(Duration::ZERO);
        assert_eq!(lines.len(), 20);
        assert_eq!(lines[3], "isolate: 4 of at most 20 runs; it failed with: nothing so far\n");
        assert_eq!(lines[19], "isolate: 20 of at most 20 runs; it failed with: Pause\n");
    }

    #[test]
    fn a_scenario_that_panics_fails() {
        let found = isolate(&failure(), RUNS, |plan| {
            assert!(!has(plan, Kind::Pause), "it hung");
            Ok(())
        });
        assert_eq!(found.kinds(), [Kind::Pause]);
        assert!(found.to_string().contains("Pause suffices alone: it panicked: it hung"), "{found}");
    }
}
