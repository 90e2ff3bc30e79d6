//! The command line: parses it, and explains each mistake in one line.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr, time::Duration};

/// The request on the command line.
pub(crate) enum Request {
    Work(Work),
    Help,
}

/// The work to do with each engine.
pub(crate) struct Work {
    /// Test only this engine.
    engine: Option<String>,
    /// Run the rows whose ids begin with this. `None` runs no row.
    pub(crate) rows: Option<String>,
    pub(crate) connections: usize,
    pub(crate) size: usize,
    pub(crate) duration: Duration,
}

impl Work {
    /// Reports whether this engine is selected.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.engine.as_ref().is_none_or(|only| only == name)
    }
}

/// Reads the command line.
///
/// # Errors
/// One line that explains the mistake.
pub(crate) fn parse(mut words: impl Iterator<Item = String>, known: &[&str]) -> Result<Request, String> {
    let mut work = Work {
        engine: None,
        rows: Some(String::new()),
        connections: 64,
        size: 64,
        duration: Duration::from_secs(2),
    };
    while let Some(word) = words.next() {
        // Accept both `--size 64` and `--size=64`.
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        if matches!((name, &attached), ("--help" | "-h", None)) {
            return Ok(Request::Help);
        }
        if !WITH_VALUE.contains(&name) {
            return Err(format!("there is no option `{word}`; --help lists those that are there"));
        }
        let value = attached.or_else(|| words.next()).ok_or_else(|| format!("{name} needs a value"))?;
        match name {
            "--engine" => work.engine = Some(among(value, known)?),
            "--rows" => work.rows = prefix(value)?,
            "--connections" => work.connections = number(name, &value, 1..=1_000)?,
            "--size" => work.size = number(name, &value, 1..=1 << 20)?,
            _ => work.duration = Duration::from_secs_f64(number(name, &value, 0.01..=3600.0)?),
        }
    }
    Ok(Request::Work(work))
}

fn among(name: String, known: &[&str]) -> Result<String, String> {
    if known.contains(&name.as_str()) {
        return Ok(name);
    }
    Err(format!("there is no engine `{name}`; there are: {}", known.join(", ")))
}

fn prefix(value: String) -> Result<Option<String>, String> {
    match value.as_str() {
        "none" => Ok(None),
        "all" => Ok(Some(String::new())),
        _ if conformance::rows().iter().any(|row| row.id.starts_with(&value)) => Ok(Some(value)),
        _ => Err(format!("--rows: the id of no row begins with `{value}`")),
    }
}

fn number<T>(name: &str, text: &str, allowed: RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    let parsed = text.parse().ok().filter(|number| allowed.contains(number));
    parsed.ok_or_else(|| {
        format!("{name}: `{text}` is not a number from {} to {}", allowed.start(), allowed.end())
    })
}

/// The text for `--help`.
pub(crate) const HELP: &str = "\
engines: which poll engines this machine has, whether they keep their contract, and what they cost

  --engine NAME      look at this one only
  --rows PREFIX      run the quick rows of the conformance suite whose ids begin so, \"all\" or \"none\"; all
  --connections N    connections of the echo, at most 1000; 64
  --size BYTES       size of a message; 64
  --seconds S        how long to talk to each engine, decimals allowed; 2
  --help             print this

Exit codes: 0 all that was run went well, 1 it did not, 2 bad input.
";

const WITH_VALUE: [&str; 5] = ["--engine", "--rows", "--connections", "--size", "--seconds"];
