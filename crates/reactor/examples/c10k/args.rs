//! The command line, with one clear line for each mistake in it.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr, time::Duration};

/// A parsed command line.
#[derive(Debug)]
pub(crate) enum Request {
    Work(Work),
    /// Internal: this process is the server of another.
    Serve {
        engine: String,
        resources: usize,
    },
    Help,
}

/// The parameters of the client's work.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) engine: Option<String>,
    pub(crate) connections: usize,
    pub(crate) idle: usize,
    pub(crate) size: usize,
    pub(crate) depth: usize,
    pub(crate) duration: Duration,
    pub(crate) json: bool,
}

impl Work {
    /// Returns the number of connections, idle ones included.
    pub(crate) fn streams(&self) -> usize {
        self.connections + self.idle
    }

    /// Reduces the connections to `room`, the idle ones first.
    pub(crate) fn fit(&mut self, room: usize) {
        self.connections = self.connections.min(room);
        self.idle = self.idle.min(room - self.connections);
    }

    fn check(self) -> Result<Work, String> {
        let one = self.size * self.depth;
        if one > FLIGHT_MAX {
            return Err(format!(
                "--size times --depth is {one} bytes: at most {FLIGHT_MAX} may be in flight"
            ));
        }
        let all = one * self.connections;
        if all > FLIGHT_MAX_ALL {
            return Err(format!(
                "{all} bytes would be in flight on all connections: at most {FLIGHT_MAX_ALL} may be"
            ));
        }
        Ok(self)
    }
}

/// Reads the command line.
///
/// # Errors
/// One line that describes the mistake.
pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Request, String> {
    let words: Vec<String> = words.collect();
    if let [first, engine, resources] = &words[..]
        && first == SERVE
    {
        return Ok(Request::Serve {
            engine: engine.clone(),
            resources: number(SERVE, resources, 1..=usize::MAX)?,
        });
    }
    let mut work = Work {
        engine: None,
        connections: 10_000,
        idle: 0,
        size: 64,
        depth: 1,
        duration: Duration::from_secs(5),
        json: false,
    };
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        // Both `--size 64` and `--size=64`.
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        if attached.is_none() {
            match name {
                "--help" | "-h" => return Ok(Request::Help),
                "--json" => {
                    work.json = true;
                    continue;
                }
                _ => (),
            }
        }
        if !WITH_VALUE.contains(&name) {
            return Err(format!("there is no option `{word}`; --help lists the options"));
        }
        let value = attached.or_else(|| words.next()).ok_or_else(|| format!("{name} needs a value"))?;
        match name {
            "--connections" => work.connections = number(name, &value, 1..=1_000_000)?,
            "--idle" => work.idle = number(name, &value, 0..=1_000_000)?,
            "--size" => work.size = number(name, &value, super::message::HEADER..=1 << 20)?,
            "--depth" => work.depth = number(name, &value, 1..=1024)?,
            "--seconds" => work.duration = Duration::from_secs_f64(number(name, &value, 0.01..=3600.0)?),
            _ => work.engine = Some(value),
        }
    }
    work.check().map(Request::Work)
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

/// The hidden option that makes a process the server.
pub(crate) const SERVE: &str = "--serve";

/// The text of `--help`.
pub(crate) const HELP: &str = "\
c10k: an echo server on one thread and a client that checks ten thousand connections to it

  --engine NAME      the poll engine of both processes (default: REACTOR_ENGINE, or else the best one)
  --connections N    connections that talk; 10000
  --idle N           additional connections without traffic; 0
  --size BYTES       size of a message, at least 16; 64
  --depth N          messages in flight on each connection; 1
  --seconds S        how long to talk, decimals allowed; 5
  --json             print one JSON object instead of the table
  --help             print this

Exit codes: 0 every byte came back right, 1 a byte was wrong or missing, 2 bad input, 3 the server died on the way.
";

const WITH_VALUE: [&str; 6] = ["--engine", "--connections", "--idle", "--size", "--depth", "--seconds"];

/// The most bytes in flight on one connection. It is below the cap of a stream's queue, so that no stream
/// overflows.
const FLIGHT_MAX: usize = 1 << 20;
/// The most bytes in flight on all connections together. It is below the byte budget of a runtime.
const FLIGHT_MAX_ALL: usize = 256 << 20;
