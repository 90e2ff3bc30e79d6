//! Programs from outside this project. If one is missing, the tests that need it are skipped, and say so.
#![allow(unreachable_pub, reason = "each test binary uses its part")]

use std::{
    env,
    io::{self, Write as _},
    process::Command,
    thread,
};

/// Returns a command for a program. If it is not installed, prints a line with the test's name and the
/// reason, and returns `None`.
///
/// # Panics If it is not installed and `TESTS_SKIP_NOTHING` is set, because then this machine is meant to
/// run all tests.
pub fn command(program: &str) -> Option<Command> {
    let path = env::var_os("PATH").unwrap_or_default();
    if env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
        return Some(Command::new(program));
    }
    assert!(env::var_os("TESTS_SKIP_NOTHING").is_none(), "{program} is not installed");
    let test = thread::current().name().unwrap_or_default().to_owned();
    // `eprintln!` would not do, because the test harness hides its output when a test passes. One write, so
    // that no line of another test comes between.
    let line = format!("SKIPPED: {test}: {program} is not installed\n");
    let _ = io::stderr().write_all(line.as_bytes());
    None
}
