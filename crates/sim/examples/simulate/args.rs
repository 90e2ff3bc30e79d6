//! The command line, with a clear line for each mistake.

use std::{fmt, fmt::Display, ops::RangeInclusive, path::PathBuf, str::FromStr, time::Duration};

/// The parsed command line.
pub(crate) struct Request {
    pub(crate) nodes: usize,
    pub(crate) seed: u64,
    /// The length of the period with faults, in seconds.
    pub(crate) seconds: u64,
    pub(crate) picture: Option<PathBuf>,
}

impl Request {
    /// Returns the length of the period with faults.
    pub(crate) fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// Parses the command line. Returns `None` if it asks for help.
    ///
    /// # Errors
    /// One line that names the mistake.
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Option<Request>, String> {
        let mut request = Request { nodes: 50, seed: 7, seconds: 20, picture: None };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--help" | "-h" => return Ok(None),
                "--nodes" => request.nodes = number(&word, &value()?, 2..=NODES_MAX)?,
                "--seed" => request.seed = number(&word, &value()?, 0..=u64::MAX)?,
                "--time" => request.seconds = number(&word, &value()?, 1..=SECONDS_MAX)?,
                "--picture" => request.picture = Some(value()?.into()),
                _ => return Err(format!("there is no option `{word}`; --help lists those that are there")),
            }
        }
        if request.picture.is_some() && request.nodes > DRAWN_NODES_MAX {
            return Err(format!("--picture: at most {DRAWN_NODES_MAX} nodes can be drawn"));
        }
        Ok(Some(request))
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

/// The command that repeats the run.
impl Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Request { nodes, seed, seconds, .. } = self;
        write!(f, "cargo run --release --example simulate -- --nodes {nodes} --seed {seed} --time {seconds}")
    }
}

/// The output of `--help`.
pub(crate) const HELP: &str = "\
simulate: nodes that gossip in a simulated world, through faults drawn from a seed

  --nodes N           how many nodes, 2 to 1000; 50
  --seed N            where all chance comes from; 7
  --time SECONDS      how long the time of faults lasts, in virtual time, 1 to 600; 20
  --picture FILE.svg  draws the run as a space-time diagram, of at most 200 nodes
  --help              prints this

After the time of faults everything is repaired, and all nodes have to agree within 30 virtual seconds.

Exit codes: 0 they did, 1 they did not (or the picture could not be written), 2 bad input.
";

const NODES_MAX: usize = 1000;
/// With more nodes, a node would have no row of its own.
const DRAWN_NODES_MAX: usize = 200;
const SECONDS_MAX: u64 = 600;
