//! The printed summary: the request, the faults, and the outcome.

use std::fmt;

use sim::Kind;

use crate::{args::Request, scenario::LIVENESS_MAX, scenario::Played};

/// A summary that can be printed.
pub(crate) struct Report<'a> {
    pub(crate) request: &'a Request,
    pub(crate) played: &'a Played,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { request, played } = self;
        let summary = &played.summary;
        let tally = &summary.faults;
        let mut line = |name: &str, value: &dyn fmt::Display| writeln!(f, "{name:<13} {value}");
        line("nodes", &request.nodes)?;
        line("seed", &request.seed)?;
        line("fault mix", &played.faults)?;
        let seconds = summary.elapsed.as_secs_f64();
        line("virtual time", &format_args!("{seconds:.3} s, the first {} s with faults", request.seconds))?;
        line("messages", &summary.messages)?;
        line("bytes", &summary.bytes)?;
        line("turns", &summary.turns)?;
        line("facts", &played.facts)?;
        line("crashes", &summary.crashes)?;
        line("restarts", &played.restarts)?;
        // A partition or a hold obstructs both directions between the groups, and the table counts each.
        line("partitions", &(tally.injected(Kind::Partition) / 2))?;
        line("one-way cuts", &tally.injected(Kind::OneWay))?;
        line("holds", &(tally.injected(Kind::Hold) / 2))?;
        line("pauses", &tally.injected(Kind::Pause))?;
        line("wall steps", &tally.injected(Kind::WallStep))?;
        match played.converged {
            Some(time) => line(
                "converged",
                &format_args!(
                    "{:.3} s after the faults had ended (allowed: {LIVENESS_MAX:?})",
                    time.as_secs_f64()
                ),
            )?,
            None => line("converged", &"never")?,
        }
        write!(f, "\n{tally}\ndigest: {}", summary.digest)
    }
}
