//! Each script, with each call of its engine failing once: the runtime must not leak, panic, hang, or lose an
//! end.
//!
//! `TORTURE_SEED=5 cargo test -p io-reactor-conformance --test torture` repeats a run with that seed.
#![allow(unreachable_pub, reason = "one binary of several modules")]

mod broken;
mod crowds;
mod ends;
mod engine;
mod messages;
mod player;
mod resources;
mod stage;
mod streams;

use std::sync::{Mutex, MutexGuard, PoisonError};

use stage::{Ground, sweep};

/// Lets one test of this process run at a time, because each run counts the descriptors of the process.
fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Plays all scripts, one after the other.
fn torture(ground: Ground, times: u64) {
    let _alone = alone();
    let seed = std::env::var("TORTURE_SEED").map_or(SEED, |seed| seed.parse().expect("a number"));
    let only = std::env::var("TORTURE_ONLY").unwrap_or_default();
    let all =
        [streams::SCRIPTS, ends::SCRIPTS, crowds::SCRIPTS, messages::SCRIPTS, resources::SCRIPTS].concat();
    let (mut scripts, mut runs) = (0, 0);
    for script in all.iter().filter(|script| (script.on)(ground) && script.name.contains(&only)) {
        let began = std::time::Instant::now();
        let calls = sweep(script, ground, seed, times);
        eprintln!("{ground:?} {}: {calls} calls failed, {:?}", script.name, began.elapsed());
        (scripts, runs) = (scripts + 1, runs + calls);
    }
    assert!(!only.is_empty() || scripts >= 18 && runs > 500, "{scripts} scripts, {runs} runs");
}

#[test]
fn each_call_fails_once_on_epoll() {
    torture(Ground::System("epoll"), 1);
}

#[test]
fn each_call_fails_once_on_poll() {
    torture(Ground::System("poll"), 1);
}

#[cfg(all(target_os = "linux", feature = "io-uring"))]
#[test]
fn each_call_fails_once_on_io_uring() {
    torture(Ground::System("io_uring"), 1);
}

#[cfg(feature = "mio")]
#[test]
fn each_call_fails_once_on_mio() {
    torture(Ground::System("mio"), 1);
}

#[cfg(feature = "polling")]
#[test]
fn each_call_fails_once_on_polling() {
    torture(Ground::System("polling"), 1);
}

#[test]
fn each_call_fails_once_in_the_harsh_world() {
    torture(Ground::Harsh, 1);
}

#[test]
fn calls_fail_without_end_in_the_harsh_world() {
    torture(Ground::Harsh, u64::MAX);
}

#[test]
fn calls_fail_without_end_on_epoll() {
    torture(Ground::System("epoll"), u64::MAX);
}

#[test]
fn calls_fail_three_times_in_a_row_on_poll() {
    torture(Ground::System("poll"), 3);
}

static ALONE: Mutex<()> = Mutex::new(());

const SEED: u64 = 8154;
