//! The least number of rows that must run where descriptors are real, because a row that starts to be skipped
//! is lost.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

/// Without the slow rows. Three more run where the number of descriptors is limited.
pub const QUICK_ROWS_MIN: usize = 231;
/// With the slow rows.
pub const ROWS_MIN: usize = QUICK_ROWS_MIN + 5;
