//! The cost of a message on `io_uring`, measured from outside by strace: no call but io_uring_enter(2).
#![cfg(all(target_os = "linux", feature = "io-uring"))]

mod foreign;
mod watched;

use std::fs;

use watched::{CONNECTIONS, Server, temporary};

/// Calls for each message, with one and with sixteen messages in flight. The cost is 0.032 and 0.002 if all
/// connections are ready at once, but a client on another core wakes the server for only some of them.
const CALLS_MAX: [(usize, f64); 2] = [(1, 0.12), (16, 0.01)];
const ROUNDS: usize = 60;

#[test]
fn a_message_costs_a_share_of_a_call() {
    let trace = temporary("strace");
    let out = trace.to_str().expect("a path of text");
    let arguments = ["-f", "-qq", "-o", out];
    let Some(mut server) = Server::start("strace", &arguments, Some("io_uring")) else { return };
    // Messages pass through the ring, and strace does not see them. So the length of its output serves as
    // the mark.
    let mut ends = vec![fs::read_to_string(&trace).expect("strace writes").len()];
    for (depth, _) in CALLS_MAX {
        server.rounds(ROUNDS, depth);
        server.mark("between");
        ends.push(fs::read_to_string(&trace).expect("strace writes").len());
    }
    server.end();
    let text = fs::read_to_string(&trace).expect("strace wrote it");
    fs::remove_file(&trace).expect("it is ours");
    for ((depth, calls_max), range) in CALLS_MAX.iter().zip(ends.windows(2)) {
        // strace writes the call in which the server waits in two parts.
        let [from, to] = [range[0], range[1]].map(|at| at + text[at..].find('\n').map_or(0, |end| end + 1));
        let calls = text[from..to].lines().filter(|line| !line.contains("--- SIG")).collect::<Vec<_>>();
        let others = calls.iter().filter(|line| !line.contains("io_uring_enter")).collect::<Vec<_>>();
        assert!(others.is_empty(), "other calls in the steady state: {others:#?}");
        let each = calls.len() as f64 / (ROUNDS * CONNECTIONS * depth) as f64;
        println!("{each:.4} calls a message at depth {depth}");
        assert!(calls.len() >= ROUNDS && each <= *calls_max, "{each:.4} calls a message at depth {depth}");
    }
}
