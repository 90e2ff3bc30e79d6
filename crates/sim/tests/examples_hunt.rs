//! The `hunt` example in small: its output, and its answers to wrong arguments.

use std::{
    env,
    process::{Command, Output, Stdio},
};

fn hunt(args: &[&str]) -> Output {
    let tests = env::current_exe().expect("a test knows its own path");
    // Cargo puts the examples next to the directory of the tests: target/debug/{deps,examples}.
    let built =
        tests.parent().and_then(|deps| deps.parent()).expect("it lies in target").join("examples/hunt");
    assert!(built.exists(), "{} was not built: run `cargo build --examples`", built.display());
    Command::new(built).args(args).stdin(Stdio::null()).output().expect("it runs")
}

#[track_caller]
fn said(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn one_seed_gives_one_digest_in_two_processes() {
    let digest = |text: String| text.lines().find(|line| line.starts_with("digest: ")).map(str::to_owned);
    let args = ["--seed", "7", "--time-ms", "500"];
    let (first, second) = (digest(said(&hunt(&args), 0)), digest(said(&hunt(&args), 0)));
    assert!(first.is_some());
    assert_eq!(first, second);
    assert_ne!(first, digest(said(&hunt(&["--seed", "8", "--time-ms", "500"]), 0)));
}

#[test]
fn a_plan_is_taken_as_it_was_given() {
    let text = said(
        &hunt(&["--seed", "3", "--nodes", "2", "--time-ms", "20", "--faults", "TinyRead=5000,Reset=7"]),
        0,
    );
    assert!(text.contains("SEED=3 NODES=2 TIME_MS=20 faults: TinyRead=5000 Reset=7\n"), "{text}");
    let text = said(&hunt(&["--seed", "3", "--nodes", "2", "--time-ms", "20", "--faults", "none"]), 0);
    assert!(text.contains("faults: none\n"), "{text}");
}

#[test]
fn wrong_arguments_are_one_line() {
    for (args, says) in [
        (&["--seed"][..], "--seed needs a value"),
        (&["--seed", "x"], "--seed: `x`"),
        (&["--nodes", "1001"], "from 1 to 1000"),
        (&["--faults", "Rain=3"], "`Rain=3`"),
        (&["--faults", "Reset"], "`Reset`"),
        (&["--isolate", "0"], "from 1 to"),
        (&["--what"], "there is no option `--what`"),
        (&["--from", "18446744073709551615", "--seeds", "1"], "no seeds"),
    ] {
        let output = hunt(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.starts_with("hunt: ") && text.lines().count() == 1, "{args:?}: {text}");
        assert!(text.contains(says), "{args:?}: {text}");
    }
}
