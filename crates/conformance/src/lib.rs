//! The engine contract of `reactor` as tests for any engine, and engines that break it.
//!
//! [`run`] runs all [`rows`] on an engine and returns a [`Report`]. A row plays one of the scenarios that a
//! reactor must survive; SCENARIOS.md lists them, with the rows of each. It gets the engine from a [`Fixture`],
//! and drives it with an [`EngineDriver`], which also checks the order of the events. The suite skips by name the rows
//! that an engine cannot run, and gives the reason.
//!
//! ```
//! let mut world = conformance::harsh(1);
//! let report = conformance::Suite::new(|| Box::new(world.engine())).only("D1").run();
//! assert!(report.is_passed(), "{report}");
//! ```
//!
//! [`simulated`] and [`harsh`] make worlds in memory for the rows. In a harsh world, operations complete late
//! and in pieces, at moments drawn from a seed. [`canary`] contains engines that are broken on purpose, and
//! the suite must detect each of them. [`torture`] fails the n-th call of an engine, to test how the engine's
//! user handles that.
#![forbid(unsafe_code)]

mod canary_rows;
mod driver;
mod fixture;
mod intercept;
#[cfg(unix)]
mod line;
mod rows;
mod runtime_rows;
mod simulated;
#[cfg(unix)]
mod storm;
mod suite;

pub mod canary;
pub mod differential;
pub mod torture;

pub use self::{
    driver::{EngineDriver, Events, ReceivedDatagram},
    fixture::{Fixture, Pair},
    rows::rows,
    simulated::{harsh, simulated},
    suite::{Finding, Need, Outcome, Report, Row, Stop, Suite, Verdict, run},
};
