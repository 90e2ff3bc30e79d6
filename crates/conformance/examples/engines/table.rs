//! The table: one line for each engine.

use std::fmt::Write;

use conformance::Report;

use crate::{args::Work, echo::Measured};

/// The results of one engine.
pub(crate) struct Line {
    name: &'static str,
    /// The reason why it does not open.
    pub(crate) missing: Option<String>,
    pub(crate) report: Option<Report>,
    pub(crate) echo: Option<Result<Measured, String>>,
}

impl Line {
    pub(crate) fn new(name: &'static str) -> Line {
        Line { name, missing: None, report: None, echo: None }
    }

    /// Reports whether nothing failed.
    pub(crate) fn is_good(&self) -> bool {
        self.report.as_ref().is_none_or(Report::is_passed) && !matches!(self.echo, Some(Err(_)))
    }

    fn cells(&self) -> [String; COLUMNS] {
        let rows = self.report.as_ref().map(|report| {
            let (run, skipped, failed) = report.counts();
            format!("{run} / {failed} / {skipped}")
        });
        let (rate, processor, calls) = match &self.echo {
            Some(Ok(echo)) => (
                Some(format!("{:.0}", echo.round_trips_per_second)),
                echo.processor_time.map(|time| format!("{:.2} us", time.as_nanos() as f64 / 1e3)),
                Some(format!("{:.3}", echo.calls_per_message)),
            ),
            Some(Err(_)) => (Some("failed".to_owned()), None, None),
            None => (None, None, None),
        };
        let cell = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let available = self.missing.as_ref().map_or_else(|| "yes".to_owned(), |why| format!("no: {why}"));
        [self.name.to_owned(), available, cell(rows), cell(rate), cell(processor), cell(calls)]
    }
}

/// Formats all lines below a heading, with an explanation of the numbers.
pub(crate) fn of(lines: &[Line], work: &Work) -> String {
    let mut rows = vec![HEADING.map(str::to_owned)];
    rows.extend(lines.iter().map(Line::cells));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    // Not every system has a file with the release of its kernel.
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut text = format!("{} {}\n", std::env::consts::OS, release.trim());
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        // A write to a string cannot fail.
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    let Work { connections, size, duration, .. } = work;
    let _ = writeln!(
        text,
        "echo: {connections} connections, messages of {size} bytes, one in flight on each, {} s; processor time of the \
         serving thread alone; system calls as the engine counts its own",
        duration.as_secs_f64()
    );
    text
}

const COLUMNS: usize = 6;
const HEADING: [&str; COLUMNS] = [
    "engine",
    "available",
    "run / failed / skipped",
    "round trips/s",
    "CPU per message",
    "calls per message",
];
