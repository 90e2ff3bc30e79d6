//! What reaches a service besides its resources: commands, answers and the results of jobs.
#[allow(dead_code, reason = "the runtime that drives it comes later")]
pub(crate) mod jobs;
#[allow(dead_code, reason = "the runtime that drives it comes later")]
pub(crate) mod mailbox;
#[cfg(all(test, not(loom)))]
mod mailbox_tests;
#[cfg(all(test, loom))]
mod models;
pub(crate) mod pending;
