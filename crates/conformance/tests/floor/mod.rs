//! The least number of rows that must run where descriptors are real, because a row that starts to be skipped
//! is lost.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use conformance::{Report, Verdict};

/// Without the slow rows.
pub const QUICK_ROWS_MIN: usize = 308;
/// With the slow rows.
pub const ROWS_MIN: usize = QUICK_ROWS_MIN + 6;

/// Asserts that as many rows ran as there are, or were skipped for the want of something that not every
/// machine has.
#[track_caller]
pub fn assert_rows(report: &Report, rows_min: usize) {
    let is_excused = |verdict: &Verdict| matches!(verdict, Verdict::Skipped(why) if EXCUSES.iter().any(|excuse| why.starts_with(excuse)));
    let excused = report.findings.iter().filter(|finding| is_excused(&finding.verdict)).count();
    assert!(report.counts().0 + excused >= rows_min, "fewer rows run than did: {report}");
}

const EXCUSES: [&str; 3] =
    ["needs a limit of descriptors", "this machine has no", "needs a second address on the loopback"];
