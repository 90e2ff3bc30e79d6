//! A small run of the `engines` example: its table has a line for each engine, and its exit codes distinguish
//! the results.
#![cfg(unix)]

use std::{
    env,
    process::{Command, Output, Stdio},
};

use reactor::engine::Candidates;

fn engines(args: &[&str]) -> Output {
    let tests = env::current_exe().expect("a test knows its own path");
    // Cargo puts the examples next to the folder of the tests: target/debug/{deps,examples}.
    let built =
        tests.parent().and_then(|deps| deps.parent()).expect("it lies in target").join("examples/engines");
    assert!(built.exists(), "{} was not built: run `cargo build --examples`", built.display());
    Command::new(built).args(args).stdin(Stdio::null()).output().expect("it runs")
}

/// Returns the cells of an engine's line.
#[track_caller]
fn cells(output: &Output, engine: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines().filter(|line| line.split(' ').next() == Some(engine));
    let line = lines.next().unwrap_or_else(|| panic!("{engine} has no line: {text}"));
    assert!(lines.next().is_none(), "{engine} has two lines: {text}");
    // At least two spaces separate two columns.
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
}

#[test]
fn every_engine_is_put_to_rows_and_measured() {
    let output = engines(&["--rows", "D1", "--seconds", "0.1", "--connections", "8"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    for engine in Candidates::default().names() {
        let cells = cells(&output, engine);
        if cells[1].starts_with("no: ") {
            continue;
        }
        assert_eq!(cells.len(), 6, "{cells:?}");
        assert_eq!(cells[1], "yes");
        let counts: Vec<usize> =
            cells[2].split(" / ").map(|count| count.parse().expect("a number")).collect();
        assert!(counts[0] > 0 && counts[1] == 0, "run / failed / skipped: {cells:?}");
        assert!(cells[3].parse::<f64>().is_ok_and(|rate| rate > 0.0), "{cells:?}");
        if cfg!(target_os = "linux") {
            let micros = cells[4].strip_suffix(" us").and_then(|micros| micros.parse::<f64>().ok());
            assert!(micros.is_some_and(|micros| micros > 0.0), "{cells:?}");
        }
        assert!(cells[5].parse::<f64>().is_ok_and(|calls| calls > 0.0), "{cells:?}");
    }
    for world in ["sim", "harsh"] {
        assert_eq!(cells(&output, world)[3..], ["-", "-", "-"], "it has no system to be measured on");
    }
}

#[test]
fn one_engine_alone_and_no_rows_if_so_asked() {
    let best = Candidates::default().names().next().expect("the platform has an engine");
    let output =
        engines(&["--engine", best, "--rows=none", "--seconds=0.05", "--connections=1", "--size=70000"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(cells(&output, best)[2], "-");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text.lines().count(), 4, "the system, the heading, the engine, what the numbers are: {text}");
}

#[test]
fn help_names_every_option() {
    let help = engines(&["--help"]);
    assert!(help.status.success() && help.stderr.is_empty(), "{help:?}");
    for option in ["--engine", "--rows", "--connections", "--size", "--seconds", "--help"] {
        assert!(String::from_utf8_lossy(&help.stdout).contains(option), "{option}");
    }
}

#[test]
fn bad_input_is_one_line_and_exit_code_2() {
    let table: &[(&[&str], &str)] = &[
        (&["--frobnicate"], "--frobnicate"),
        (&["word"], "word"),
        (&["--help=yes"], "--help=yes"),
        (&["--engine"], "needs a value"),
        (&["--engine", "abacus"], "there is no engine `abacus`; there are: "),
        (&["--rows", "Z9"], "begins with `Z9`"),
        (&["--connections", "0"], "--connections: `0`"),
        (&["--connections", "1001"], "from 1 to 1000"),
        (&["--size=0"], "--size: `0`"),
        (&["--size=1048577"], "from 1 to 1048576"),
        (&["--seconds", "0"], "--seconds: `0`"),
        (&["--seconds", "NaN"], "NaN"),
    ];
    for (args, says) in table {
        let output = engines(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
        assert!(said.starts_with("engines: ") && said.contains(says), "{args:?}: {said}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}
