//! How many rows run at least where descriptors are real: a row that begins to be skipped is a row that is lost.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

/// Without the slow ones. Three more run where the number of descriptors is limited.
pub const QUICK_ROWS_MIN: usize = 231;
/// The slow ones included.
pub const ROWS_MIN: usize = QUICK_ROWS_MIN + 5;
