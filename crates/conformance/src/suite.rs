//! The suite: rows, their needs, verdicts, the report, and the run itself.

use std::{
    fmt,
    fs::File,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use reactor::engine::Engine;

use crate::{fixture::Fixture, rows::rows};

/// One scenario.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The number of its scenario in SCENARIOS.md, with a letter if several rows cover it: `A1`, `A2b`.
    pub id: &'static str,
    /// The behaviour, in words.
    pub name: &'static str,
    /// The requirements without which the row cannot run.
    pub needs: &'static [Need],
    /// The row takes more than a second on a real engine. [`Suite::quick`] leaves it out.
    pub slow: bool,
    /// The function that runs the row.
    pub run: fn(&mut Fixture<'_>) -> Outcome,
}

impl Row {
    /// Reports whether the row runs whole runtimes over the engine. Such a row has an `r` behind the number
    /// in its id.
    pub fn is_whole(&self) -> bool {
        self.id.contains('r')
    }
}

/// Makes a row.
pub(crate) const fn row(
    id: &'static str,
    name: &'static str,
    needs: &'static [Need],
    run: fn(&mut Fixture<'_>) -> Outcome,
) -> Row {
    Row { id, name, needs, slow: false, run }
}

/// Makes a row that takes more than a second.
pub(crate) const fn slow(
    id: &'static str,
    name: &'static str,
    needs: &'static [Need],
    run: fn(&mut Fixture<'_>) -> Outcome,
) -> Row {
    Row { id, name, needs, slow: true, run }
}

/// A requirement of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// The engine takes real descriptors.
    Sockets,
    /// Linux, or Android.
    Linux,
    /// The process can list its open descriptors.
    DescriptorList,
    /// The engine has datagrams.
    Datagrams,
    /// The engine can pass descriptors over its Unix links.
    Descriptors,
}

impl Need {
    /// Returns the reason why a row with this need cannot run here, if there is one.
    fn missing(self, fixture: &Fixture<'_>) -> Option<&'static str> {
        match self {
            Need::Sockets if fixture.is_virtual() => Some("a virtual engine has no descriptors"),
            Need::Linux if cfg!(not(any(target_os = "linux", target_os = "android"))) => Some("needs Linux"),
            Need::Datagrams if !fixture.has_datagrams() => Some("the engine has no datagrams"),
            Need::Descriptors if !fixture.passes_descriptors() => Some("no descriptors pass over the engine"),
            Need::DescriptorList if open_descriptors().is_none() => Some("needs /proc/self/fd"),
            _ => None,
        }
    }
}

/// The result of a row: success, or the reason why it stopped.
pub type Outcome = Result<(), Stop>;

/// The reason why a row stopped early.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stop {
    /// The engine broke a rule.
    Failed(String),
    /// The row cannot run here. The reason names the missing requirement.
    Skipped(String),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Failed(format!("unexpected error: {error} ({:?})", error.kind()))
    }
}

impl From<reactor::Error> for Stop {
    fn from(error: reactor::Error) -> Stop {
        Stop::Failed(format!("unexpected error: {error}"))
    }
}

impl From<String> for Stop {
    fn from(text: String) -> Stop {
        Stop::Failed(text)
    }
}

impl From<&str> for Stop {
    fn from(text: &str) -> Stop {
        Stop::Failed(text.to_owned())
    }
}

/// Ends a row as failed, with a formatted reason, unless the condition holds.
macro_rules! check {
    ($condition:expr, $($reason:tt)+) => {
        if !$condition {
            return Err($crate::Stop::Failed(format!($($reason)+)));
        }
    };
}
pub(crate) use check;

/// The verdict on one row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The engine kept all rules.
    Passed,
    /// The row was left out, for this reason.
    Skipped(String),
    /// The engine broke a rule, in this way.
    Failed(String),
}

/// One line of a report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The row's [`id`](Row::id).
    pub id: &'static str,
    /// The row's [`name`](Row::name).
    pub name: &'static str,
    /// The verdict on the row.
    pub verdict: Verdict,
    /// The duration by the system's clock.
    pub took: Duration,
}

/// The verdicts on all rows. Prints as a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The engine's name.
    pub engine: String,
    /// One finding for each row, in the order of the table.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Reports whether at least one row ran, and none failed.
    pub fn is_passed(&self) -> bool {
        let (run, _, failed) = self.counts();
        run > 0 && failed == 0
    }

    /// Returns the rows that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| matches!(finding.verdict, Verdict::Failed(_)))
    }

    /// Counts the rows that ran (including the failed ones), the skipped ones, and the failed ones.
    pub fn counts(&self) -> (usize, usize, usize) {
        let skipped =
            self.findings.iter().filter(|finding| matches!(finding.verdict, Verdict::Skipped(_))).count();
        (self.findings.len() - skipped, skipped, self.failed().count())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { id, name, verdict, took } in &self.findings {
            match verdict {
                Verdict::Passed => writeln!(f, "{id:<5} ok       {name} ({} ms)", took.as_millis())?,
                Verdict::Skipped(why) => writeln!(f, "{id:<5} skipped  {name}: {why}")?,
                Verdict::Failed(how) => writeln!(f, "{id:<5} FAILED   {name}: {how}")?,
            }
        }
        let (run, skipped, failed) = self.counts();
        write!(f, "conformance: engine {}: {run} run, {skipped} skipped, {failed} failed", self.engine)
    }
}

/// A run to configure and start: the function that makes the engines, and the choice of rows.
///
/// Runs in one process happen one after the other. A row counts the open descriptors of the process, so no
/// other code should open any in the meantime.
pub struct Suite<'a> {
    make: Box<dyn FnMut() -> Box<dyn Engine> + 'a>,
    left: Box<dyn FnMut() -> Result<(), String> + 'a>,
    only: Option<String>,
    row: Option<String>,
    quick: bool,
    bare: bool,
    seed: u64,
    descriptors_max: usize,
    moves_little: bool,
}

impl<'a> Suite<'a> {
    /// Selects all rows, on engines made by `make`. A row may make several engines, and drops each before it
    /// ends.
    pub fn new(make: impl FnMut() -> Box<dyn Engine> + 'a) -> Suite<'a> {
        Suite {
            make: Box::new(make),
            left: Box::new(|| Ok(())),
            only: None,
            row: None,
            quick: false,
            bare: false,
            seed: SEED,
            descriptors_max: usize::MAX,
            moves_little: false,
        }
    }

    /// Also calls this function after each row, to check whether the row leaked anything. `Err` describes the
    /// leak.
    #[must_use]
    pub fn left(mut self, left: impl FnMut() -> Result<(), String> + 'a) -> Suite<'a> {
        self.left = Box::new(left);
        self
    }

    /// Runs only rows whose id begins with `prefix`.
    #[must_use]
    pub fn only(mut self, prefix: &str) -> Suite<'a> {
        self.only = Some(prefix.to_owned());
        self
    }

    /// Runs only the row with exactly this id.
    #[must_use]
    pub fn row(mut self, id: &str) -> Suite<'a> {
        self.row = Some(id.to_owned());
        self
    }

    /// Moves less data in rows that otherwise move megabytes, because an engine with buffers of a few bytes
    /// would need minutes for them.
    #[must_use]
    pub fn moves_little(mut self) -> Suite<'a> {
        self.moves_little = true;
        self
    }

    /// Skips the slow rows, by name.
    #[must_use]
    pub fn quick(mut self) -> Suite<'a> {
        self.quick = true;
        self
    }

    /// Leaves out the rows that run whole runtimes ([`Row::is_whole`]). On an engine that is broken on
    /// purpose, they would wait for events that never arrive.
    #[must_use]
    pub fn bare(mut self) -> Suite<'a> {
        self.bare = true;
        self
    }

    /// Seeds the random choices of the rows. A failure names the seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Suite<'a> {
        self.seed = seed;
        self
    }

    /// Makes crowds smaller for an engine that takes only descriptors below this number, as select(2) does.
    #[must_use]
    pub fn descriptors_max(mut self, descriptors: usize) -> Suite<'a> {
        self.descriptors_max = descriptors;
        self
    }

    /// Runs the rows. A panic of the engine is a failure of its row.
    pub fn run(mut self) -> Report {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let engine = (self.make)().name().to_owned();
        let mut findings = Vec::new();
        for row in rows() {
            if !self.has(row) {
                continue;
            }
            let began = Instant::now();
            let verdict = match self.run_row(row) {
                Ok(()) => Verdict::Passed,
                Err(Stop::Skipped(why)) => Verdict::Skipped(why),
                Err(Stop::Failed(how)) => Verdict::Failed(format!("{how} [seed {}]", self.seed)),
            };
            findings.push(Finding { id: row.id, name: row.name, verdict, took: began.elapsed() });
        }
        Report { engine, findings }
    }

    /// Reports whether the row is selected.
    fn has(&self, row: &Row) -> bool {
        let begins = self.only.as_ref().is_none_or(|prefix| row.id.starts_with(prefix.as_str()));
        let is_it = self.row.as_ref().is_none_or(|id| row.id == id);
        begins && is_it && !(self.bare && row.is_whole())
    }

    fn run_row(&mut self, row: &Row) -> Outcome {
        if row.slow && self.quick {
            return Err(Stop::Skipped("slow".to_owned()));
        }
        let fixture = Fixture::new(&mut *self.make, self.seed).with_descriptors_max(self.descriptors_max);
        let mut fixture = fixture.with_little_moved(self.moves_little);
        if let Some(why) = row.needs.iter().find_map(|need| need.missing(&fixture)) {
            return Err(Stop::Skipped(why.to_owned()));
        }
        let before = open_descriptors();
        let outcome = catch_unwind(AssertUnwindSafe(|| (row.run)(&mut fixture)));
        outcome.unwrap_or_else(|payload| Err(Stop::Failed(format!("panicked: {}", message(&*payload)))))?;
        let after = open_descriptors();
        check!(before == after, "{before:?} descriptors were open before, {after:?} after");
        (self.left)().map_err(Stop::Failed)
    }
}

impl fmt::Debug for Suite<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suite")
            .field("only", &self.only)
            .field("row", &self.row)
            .field("quick", &self.quick)
            .field("bare", &self.bare)
            .field("seed", &self.seed)
            .field("descriptors_max", &self.descriptors_max)
            .field("moves_little", &self.moves_little)
            .finish_non_exhaustive()
    }
}

/// Runs all rows on an engine.
///
/// ```no_run
/// # fn my_engine() -> sim::SimEngine { sim::World::new(1).engine() }
/// let report = conformance::run(my_engine);
/// println!("{report}");
/// assert!(report.is_passed());
/// ```
pub fn run<E: Engine + 'static>(mut make: impl FnMut() -> E) -> Report {
    Suite::new(move || Box::new(make())).run()
}

/// Counts the open descriptors of the process, if the system lists them.
pub(crate) fn open_descriptors() -> Option<usize> {
    // Under Wine, /proc lists Wine's own descriptors, which it opens and closes at any time.
    let listed = if cfg!(unix) { std::fs::read_dir("/proc/self/fd").ok() } else { None };
    listed.map(Iterator::count)
}

/// Opens all descriptors that the process may have.
pub(crate) fn exhaust() -> Result<Vec<File>, Stop> {
    let mut taken = Vec::new();
    while taken.len() < DESCRIPTORS_MAX {
        match File::open("/dev/null") {
            Ok(file) => taken.push(file),
            Err(_) if !taken.is_empty() => return Ok(taken),
            Err(_) => return Err(Stop::Skipped("needs /dev/null".to_owned())),
        }
    }
    Err(Stop::Skipped(format!("needs a limit of descriptors below {DESCRIPTORS_MAX}")))
}

fn message(payload: &(dyn std::any::Any + Send)) -> String {
    match (payload.downcast_ref::<String>(), payload.downcast_ref::<&str>()) {
        (Some(text), _) => text.clone(),
        (None, Some(text)) => (*text).to_owned(),
        (None, None) => "with something that is no text".to_owned(),
    }
}

static ALONE: Mutex<()> = Mutex::new(());

/// The needs of a row with real descriptors.
pub(crate) const SOCKETS: &[Need] = &[Need::Sockets];
const SEED: u64 = 8154;
/// To find the limit, the row opens no more descriptors than this.
const DESCRIPTORS_MAX: usize = 1 << 17;
