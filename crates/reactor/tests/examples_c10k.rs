//! The main use on a small scale: `c10k` verifies its traffic on each engine, and has an exit code for each
//! outcome.
#![cfg(unix)]

use std::{
    env,
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStderr, Command, Output, Stdio},
};

use reactor::engine::Candidates;
use rustix::process::{Pid, Signal, kill_process};

fn c10k(args: &[&str]) -> Command {
    let tests = env::current_exe().expect("a test knows its own path");
    // Cargo puts the examples beside the folder of the tests: target/debug/{deps,examples}.
    let built =
        tests.parent().and_then(|deps| deps.parent()).expect("it lies in target").join("examples/c10k");
    assert!(built.exists(), "{} was not built: run `cargo build --examples`", built.display());
    let mut command = Command::new(built);
    command.args(args).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    c10k(args).output().expect("it runs")
}

/// The fields of a flat JSON object, verbatim. A value is a number, `null` or a plain word in quotes.
#[derive(Debug)]
struct Report(Vec<(String, String)>);

impl Report {
    #[track_caller]
    fn of(line: &str) -> Report {
        let inside = line.strip_prefix('{').and_then(|line| line.strip_suffix('}')).expect("an object");
        let fields = inside.split(',').map(|field| {
            let (name, value) = field.split_once(':').expect("a field");
            let word = |text: &str| text.strip_prefix('"')?.strip_suffix('"').map(str::to_owned);
            let is_word =
                word(value).is_some_and(|word| word.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()));
            // A JSON number begins with a digit, after an optional sign, and ends with one.
            let digits = value.strip_prefix('-').unwrap_or(value).as_bytes();
            let is_number = value.parse::<f64>().is_ok_and(f64::is_finite)
                && [digits.first(), digits.last()].iter().all(|at| at.is_some_and(u8::is_ascii_digit));
            assert!(is_word || is_number || value == "null", "{field}");
            (word(name).expect("a name in quotes"), value.to_owned())
        });
        Report(fields.collect())
    }

    /// Returns the value of a field, verbatim.
    #[track_caller]
    fn get(&self, name: &str) -> &str {
        &self.0.iter().find(|field| field.0 == name).unwrap_or_else(|| panic!("{name}: {self:?}")).1
    }

    #[track_caller]
    fn number(&self, name: &str) -> f64 {
        self.get(name).parse().unwrap_or_else(|_| panic!("{name}: {self:?}"))
    }
}

/// Returns the object on the last line of stdout. The run must have succeeded.
#[track_caller]
fn measured(output: &Output) -> Report {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    Report::of(stdout.lines().last().expect("a line"))
}

#[test]
fn every_engine_brings_all_messages_back() {
    for engine in Candidates::default().names() {
        let args = ["--engine", engine, "--connections", "200", "--idle", "30", "--seconds", "1", "--json"];
        let report = measured(&run(&args));
        assert_eq!(report.get("engine"), format!("\"{engine}\""));
        assert_eq!((report.get("connections"), report.get("idle")), ("200", "30"));
        assert!(report.number("messages") >= 200.0, "{report:?}");
        assert!(0.0 < report.number("latency_p50_us"), "{report:?}");
        assert!(report.number("latency_p50_us") <= report.number("latency_p99_us"), "{report:?}");
        assert!(report.number("latency_p99_us") <= report.number("latency_p999_us"), "{report:?}");
        if cfg!(target_os = "linux") {
            assert_eq!(report.get("threads"), "1", "the server has one thread");
            assert!(report.number("server_cpu_us_per_message") > 0.0, "{report:?}");
            assert!(report.get("resident_bytes_per_connection").parse::<u64>().is_ok(), "{report:?}");
        }
    }
}

#[test]
fn the_environment_chooses_the_engine_unless_the_option_does() {
    let quick = ["--connections", "1", "--seconds", "0.05", "--json"];
    for engine in Candidates::default().names() {
        let output = c10k(&quick).env("REACTOR_ENGINE", engine).output().expect("it runs");
        assert_eq!(measured(&output).get("engine"), format!("\"{engine}\""));
    }
    let mut both = c10k(&quick);
    let output = both.args(["--engine", "poll"]).env("REACTOR_ENGINE", "nonsense").output().expect("it runs");
    assert_eq!(measured(&output).get("engine"), "\"poll\"", "the option wins");
}

#[test]
fn sizes_and_depths_at_their_limits_come_back_right() {
    for (size, depth) in [("16", "1"), ("16", "1024"), ("17", "3"), ("1048576", "1"), ("1024", "1024")] {
        let args = ["--connections", "3", "--seconds", "0.2", "--size", size, "--depth", depth, "--json"];
        let report = measured(&run(&args));
        assert_eq!((report.get("size"), report.get("depth")), (size, depth));
    }
}

#[test]
fn people_get_a_table_and_help() {
    let output = run(&["--connections", "2", "--seconds", "0.05"]);
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    for row in ["engine", "connections", "messages/s", "latency p50/p99/p99.9", "server threads"] {
        assert_eq!(
            table.lines().filter(|line| line.split("  ").next() == Some(row)).count(),
            1,
            "{row}: {table}"
        );
    }
    let help = run(&["--help"]);
    assert!(help.status.success() && help.stderr.is_empty(), "{help:?}");
    for option in
        ["--engine", "--connections", "--idle", "--size", "--depth", "--seconds", "--json", "--help"]
    {
        assert!(String::from_utf8_lossy(&help.stdout).contains(option), "{option}");
    }
}

#[test]
fn bad_input_is_one_line_and_exit_code_2() {
    let table: &[(&[&str], &str)] = &[
        (&["--frobnicate"], "--frobnicate"),
        (&["word"], "word"),
        (&["--connections"], "needs a value"),
        (&["--connections", "0"], "--connections: `0`"),
        (&["--connections", "1000001"], "1000001"),
        (&["--idle", "-1"], "--idle: `-1`"),
        (&["--size", "15"], "from 16 to 1048576"),
        (&["--size", "1048577"], "from 16 to 1048576"),
        (&["--depth=0"], "from 1 to 1024"),
        (&["--depth=1025"], "from 1 to 1024"),
        (&["--size=1025", "--depth=1024"], "at most 1048576"),
        (&["--size=1048576", "--connections=257"], "at most 268435456"),
        (&["--seconds", "0"], "--seconds: `0`"),
        (&["--seconds", "NaN"], "NaN"),
        (&["--json=yes"], "--json=yes"),
        (&["--engine", "abacus"], "there is no engine `abacus`; there are: auto"),
        (&["--serve", "poll", "many"], "many"),
    ];
    for (args, says) in table {
        let output = run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
        assert!(said.starts_with("c10k: ") && said.contains(says), "{args:?}: {said}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

/// A long run, and the process of its server. Killed and reaped on drop.
struct Long {
    client: Child,
    said: BufReader<ChildStderr>,
    server: Pid,
}

impl Long {
    /// Starts the run, and waits until messages are in flight.
    fn start() -> Long {
        let mut command = c10k(&["--connections", "50", "--seconds", "600"]);
        let mut client = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut said = BufReader::new(client.stderr.take().expect("stderr is piped"));
        let mut server = None;
        let mut line = String::new();
        while !line.contains("came back right") {
            line.clear();
            assert!(said.read_line(&mut line).expect("text") > 0, "it ended early");
            if let Some((_, rest)) = line.split_once("the server is process ") {
                server = rest.split(',').next().and_then(|id| Pid::from_raw(id.parse().ok()?));
            }
        }
        Long { client, said, server: server.expect("it says which process the server is") }
    }

    /// Returns the further output of the client and its server. Ends when both have exited, because both
    /// hold the pipe.
    fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).expect("text");
        rest
    }
}

impl Drop for Long {
    fn drop(&mut self) {
        // Both calls fail only if the process has already exited.
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

#[test]
fn a_server_that_dies_is_told_by_exit_code_3() {
    let mut run = Long::start();
    kill_process(run.server, Signal::KILL).expect("the server lives");
    let rest = run.rest();
    let own: Vec<&str> = rest.lines().filter(|line| line.starts_with("c10k: ")).collect();
    assert_eq!(own.len(), 1, "{rest}");
    assert!(own[0].contains("the server died on the way"), "{rest}");
    assert_eq!(run.client.wait().expect("it ends").code(), Some(3));
}

#[test]
fn the_server_ends_with_its_client() {
    let mut run = Long::start();
    run.client.kill().expect("the client lives");
    run.rest();
}
