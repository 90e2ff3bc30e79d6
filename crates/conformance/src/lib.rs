//! The engine contract of `reactor`, as tests that any engine can be put to, and engines made for tests.
//!
//! [`double`] is a completion engine in memory: everything it does happens a turn later, in pieces, at
//! moments drawn from a seed.
#![forbid(unsafe_code)]

pub mod double;
