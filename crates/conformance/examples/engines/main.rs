//! A comparison of the engines on this machine: `cargo run --release --example engines`, or with `-- --help`
//! for its options.
//!
//! For each engine in this build of the library, the example checks whether the kernel opens it, and runs the
//! quick rows of the conformance suite on it. Then it measures an echo service over it: one thread serves,
//! and another one talks over some connections with one message in flight on each, and checks the returned
//! bytes. At the end it prints a table. The exit code is 1 if a row failed or a wrong byte came back, and 2
//! if the input was bad. An engine that does not open is no failure.
//!
//! To test an engine that needs a feature of the library, build the example with that feature.

mod args;
mod client;
mod echo;
mod table;

use std::{env, panic, process::ExitCode};

use conformance::{Report, Suite};
use reactor::engine::{Candidates, Engine};

use self::{
    args::{Request, Work},
    table::Line,
};

fn main() -> ExitCode {
    let words = env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let known: Vec<&str> = Candidates::default().names().chain(VIRTUAL.map(|(name, _)| name)).collect();
    let work = match args::parse(words, &known) {
        Ok(Request::Work(work)) => work,
        Ok(Request::Help) => {
            print!("{}", args::HELP);
            return ExitCode::SUCCESS;
        }
        Err(line) => {
            eprintln!("engines: {line}");
            return ExitCode::from(2);
        }
    };
    // Some services of the suite panic on purpose, and the suite itself reports the unexpected panics.
    panic::set_hook(Box::new(|_| ()));
    let lines: Vec<Line> =
        known.into_iter().filter(|name| work.wants(name)).map(|name| look(name, &work)).collect();
    print!("{}", table::of(&lines, &work));
    if lines.iter().all(Line::is_good) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Collects everything about one engine. Reports failures at once, too.
fn look(name: &'static str, work: &Work) -> Line {
    let mut line = Line::new(name);
    if let Some((_, make)) = VIRTUAL.iter().find(|(known, _)| *known == name) {
        line.report = put(name, work, make());
        return line;
    }
    let open = move || Candidates::default().open(Some(name));
    if let Err(error) = open() {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        line.missing = Some(cause.unwrap_or_else(|| error.to_string()));
        return line;
    }
    line.report = put(name, work, move || open().expect("it opened a moment ago"));
    eprintln!("{name}: echo");
    line.echo = Some(echo::measure(open, work).map_err(|failure| failure.to_string()));
    if let Some(Err(failure)) = &line.echo {
        eprintln!("engines: {name}: {failure}");
    }
    line
}

fn put(name: &str, work: &Work, make: impl FnMut() -> Box<dyn Engine>) -> Option<Report> {
    let prefix = work.rows.as_deref()?;
    eprintln!("{name}: conformance");
    let report = Suite::new(make).only(prefix).quick().run();
    for finding in report.failed() {
        eprintln!("engines: {name}: row {}, {}: {:?}", finding.id, finding.name, finding.verdict);
    }
    Some(report)
}

/// A function that makes as many engines as a row needs.
type Make = Box<dyn FnMut() -> Box<dyn Engine>>;
type Virtual = (&'static str, fn() -> Make);

/// Engines of a simulated world, ordinary or harsh, which all engines of a run share. The example runs the suite on them, but
/// there is no system on which it could measure them.
const VIRTUAL: [Virtual; 2] = [
    ("sim", || {
        let mut world = conformance::simulated(SEED, sim::Faults::none());
        Box::new(move || Box::new(world.engine()))
    }),
    ("harsh", || {
        let mut world = conformance::harsh(SEED);
        Box::new(move || Box::new(world.engine()))
    }),
];
const SEED: u64 = 1;
