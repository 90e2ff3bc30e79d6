//! The cost of a message in the `echo` example, measured from outside: system calls by strace, instructions
//! by callgrind.
//!
//! A client drives 64 connections in lockstep: it writes to all, then reads from all. If a tool is missing,
//! its test reports that and passes. Instruction counts are meaningful only in an optimised build, so that
//! test is ignored in others: `cargo build --release --example echo && cargo test --release --test costs`.
#![cfg(target_os = "linux")]

mod foreign;
mod watched;

use std::{fs, path::Path, process::Command};

use watched::{CONNECTIONS, Server, temporary};

/// System calls for each message, with one and with sixteen messages in flight: a read, a write, and a share
/// of a wait.
const CALLS_MAX: [(usize, f64); 2] = [(1, 2.1), (16, 0.14)];
/// The measured cost is 883 to 887, if a turn finds all messages of a round.
const INSTRUCTIONS_MAX: u64 = 900;

#[test]
fn a_message_costs_a_read_a_write_and_a_share_of_a_wait() {
    if std::env::var("REACTOR_ENGINE").is_ok_and(|engine| engine == "polling") {
        return eprintln!(
            "not measured: each wait of the crate polling is five calls, two of them epoll_ctl"
        );
    }
    let trace = temporary("strace");
    let out = trace.to_str().expect("a path of text");
    let Some(mut server) = Server::start("strace", &["-f", "-qq", "-o", out], None) else { return };
    const ROUNDS: usize = 60;
    server.mark("MARK0");
    for (index, (depth, _)) in CALLS_MAX.iter().enumerate() {
        server.rounds(ROUNDS, *depth);
        server.mark(&format!("MARK{}", index + 1));
    }
    server.end();
    let text = fs::read_to_string(&trace).expect("strace wrote it");
    fs::remove_file(&trace).expect("it is ours");
    for (index, (depth, calls_max)) in CALLS_MAX.iter().enumerate() {
        let between = between(&text, index);
        let calls = between.len() as f64 / (ROUNDS * CONNECTIONS * depth) as f64;
        println!("{calls:.3} calls a message at depth {depth}");
        assert!(calls <= *calls_max, "{calls:.3} calls a message at depth {depth}");
        let controls = between.iter().filter(|line| line.contains("epoll_ctl")).count();
        assert_eq!(controls, 0, "the interest is never changed in the steady state");
    }
}

/// Returns the calls between the answer to one mark and the arrival of the next.
fn between(text: &str, mark: usize) -> Vec<&str> {
    let (from, to) = (format!("\"MARK{mark}"), format!("\"MARK{}", mark + 1));
    let sent = |line: &&str| !line.contains(&from) || line.contains("recv");
    text.lines().skip_while(sent).skip(1).take_while(|line| !line.contains(&to)).collect()
}

#[test]
#[cfg_attr(debug_assertions, ignore = "means something in an optimised build only")]
fn a_message_costs_so_many_instructions() {
    // A load on the machine only adds: it splits what one turn would have handled. So the least of three counts.
    let mut least = u64::MAX;
    let mut costly = String::new();
    for _ in 0..3 {
        let Some((instructions, functions)) = instructions() else { return };
        println!(
            "{instructions} instructions a message; the costliest functions of the whole run:\n{functions}"
        );
        if instructions < least {
            (least, costly) = (instructions, functions);
        }
        if least <= INSTRUCTIONS_MAX {
            return;
        }
    }
    panic!("{least} instructions a message, of\n{costly}");
}

/// Returns the instructions of one message, and the costliest functions, or `None` without valgrind.
fn instructions() -> Option<(u64, String)> {
    let mut totals = Vec::new();
    let mut costly = String::new();
    for rounds in [50, 150] {
        let out = temporary("callgrind");
        let option = format!("--callgrind-out-file={}", out.display());
        let mut server = Server::start("valgrind", &["--tool=callgrind", &option], None)?;
        server.rounds_at_once(rounds);
        server.end();
        totals.push(total(&out));
        costly = functions(&out);
        fs::remove_file(&out).expect("it is ours");
    }
    // The cost of the start and the end is the same in both runs, so it cancels out.
    Some(((totals[1] - totals[0]) / (100 * CONNECTIONS as u64), costly))
}

/// Returns the instructions of the whole run.
fn total(out: &Path) -> u64 {
    let text = fs::read_to_string(out).expect("callgrind wrote it");
    let line = text.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    line.and_then(|line| line.trim().parse().ok()).expect("callgrind says the total")
}

/// Returns the three functions with the most instructions, by callgrind's own report.
fn functions(out: &Path) -> String {
    let Ok(output) = Command::new("callgrind_annotate").arg(out).output() else { return String::new() };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let costs = text.lines().filter(|line| line.contains("%)") && line.contains(":"));
    costs.filter(|line| !line.contains("PROGRAM TOTALS")).take(3).collect::<Vec<_>>().join("\n")
}
