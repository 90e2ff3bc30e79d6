//! The example programs, each as its own process.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::{
    env,
    ffi::OsStr,
    fmt::Debug,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::Duration,
};

/// How long a test waits for an expected event, before it fails instead of hanging.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn example(name: &str) -> Command {
    // Cargo puts the examples beside the folder of the tests: target/debug/{deps,examples}.
    let mut path: PathBuf = env::current_exe().expect("a test knows its own path");
    path.pop();
    path.pop();
    path.push("examples");
    path.push(name);
    assert!(path.exists(), "{} was not built: run `cargo build --examples`", path.display());
    Command::new(path)
}

pub fn output(name: &str, args: &[impl AsRef<OsStr>]) -> Output {
    example(name).args(args).stdin(Stdio::null()).output().expect("the example runs")
}

/// Asserts that the example rejects bad input: exit code 2, and one line with the program's name and the
/// reason.
#[track_caller]
pub fn assert_refused(name: &str, args: &[&str], says: &str) {
    assert_refused_raw(name, args, says);
}

/// Asserts the same, for arguments that need not be text.
#[track_caller]
pub fn assert_refused_raw(name: &str, args: &[impl AsRef<OsStr> + Debug], says: &str) {
    let output = output(name, args);
    let line = String::from_utf8_lossy(&output.stderr);
    let own: Vec<&str> = line.lines().filter(|line| line.starts_with(&format!("{name}: "))).collect();
    assert_eq!(output.status.code(), Some(2), "{name} {args:?}: {line}");
    assert_eq!(own.len(), 1, "{name} {args:?}: {line}");
    assert!(own[0].contains(says), "{name} {args:?} says {says:?}: {line}");
    assert!(output.stdout.is_empty(), "{name} {args:?}");
}
