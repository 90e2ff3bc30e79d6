//! Programs that are not of this project. A test that needs one is skipped by name where the program is missing.
#![allow(unreachable_pub, reason = "each test binary uses its part")]

use std::{
    env,
    io::{self, Write as _},
    process::Command,
    thread,
};

/// Returns how to run a program. `None`, after a line that names the test and the reason, where it is not installed.
///
/// # Panics
/// Where it is not installed and `TESTS_SKIP_NOTHING` is set: a machine on which all tests are to run lacks it.
pub fn command(program: &str) -> Option<Command> {
    let path = env::var_os("PATH").unwrap_or_default();
    if env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
        return Some(Command::new(program));
    }
    assert!(env::var_os("TESTS_SKIP_NOTHING").is_none(), "{program} is not installed");
    let test = thread::current().name().unwrap_or_default().to_owned();
    // Not `eprintln!`, which the tests' runner keeps to itself when a test passes. In one write, so that no other
    // test's line comes between.
    let line = format!("SKIPPED: {test}: {program} is not installed\n");
    let _ = io::stderr().write_all(line.as_bytes());
    None
}
