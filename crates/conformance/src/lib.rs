//! The engine contract of `reactor`, as tests that any engine can be put to, and engines made for tests.
//!
//! [`run`] puts an engine to all [`rows`] and gives back a [`Report`]. A row is one scenario of what a
//! reactor must survive; it sees the engine through a [`World`], and drives it with a [`Drive`], which checks
//! the order of events by itself. What an engine cannot do is skipped by name, with the reason.
//!
//! ```
//! use conformance::double::{Network, Tuning};
//! let network = Network::new(Tuning::tight(1));
//! let report = conformance::Suite::new(|| Box::new(network.double())).only("D1").run();
//! assert!(report.is_passed(), "{report}");
//! ```
//!
//! [`double`] is a completion engine in memory: everything it does happens a turn later, in pieces, at
//! moments drawn from a seed. [`canary`] has engines that are broken on purpose, which the suite has to
//! find out; [`torture`] fails the n-th call of an engine, to see what its user makes of that.
#![forbid(unsafe_code)]

mod canary_rows;
mod drive;
#[cfg(unix)]
mod line;
mod rows;
mod runtime_rows;
mod simulated;
#[cfg(unix)]
mod storm;
mod suite;
mod tamper;
mod world;

pub mod canary;
pub mod differential;
pub mod double;
pub mod torture;

pub use self::{
    drive::{Drive, Letter, Told},
    rows::rows,
    simulated::simulated,
    suite::{Finding, Need, Outcome, Report, Row, Stop, Suite, Verdict, run},
    world::{Pair, World},
};
