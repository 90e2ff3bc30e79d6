//! strace makes system calls of the `echo` example fail from time to time. No engine loses a byte.
#![cfg(target_os = "linux")]

mod foreign;
mod watched;

use std::fs;

use watched::{Server, temporary};

/// Echoes while the calls fail, and counts the failures.
fn echoes_under(engine: &str, inject: &str, failures_min: usize) {
    let trace = temporary("injected");
    let out = trace.to_str().expect("a path of text");
    let inject = format!("inject={inject}");
    let Some(mut server) = Server::start("strace", &["-f", "-qq", "-o", out, "-e", &inject], Some(engine))
    else {
        return;
    };
    server.rounds(5, 1);
    server.rounds(2, 2_000);
    server.end();
    let text = fs::read_to_string(&trace).expect("strace wrote it");
    fs::remove_file(&trace).expect("it is ours");
    let failures = text.matches("(INJECTED)").count();
    assert!(failures >= failures_min, "{engine}: {failures} calls failed by {inject}");
}

#[test]
fn interrupted_calls_are_invisible_to_a_service() {
    echoes_under("epoll", "epoll_wait,accept4:error=EINTR:when=1+2", 60);
    echoes_under("poll", "poll,ppoll,accept4:error=EINTR:when=4+2", 60);
    for engine in ["epoll", "poll"] {
        echoes_under(engine, "recvfrom,sendto,sendmsg:error=EINTR:when=3+2", 200);
    }
}

#[test]
fn readiness_that_was_not_true_is_asked_for_again_by_poll() {
    echoes_under("poll", "recvfrom,sendto,sendmsg:error=EAGAIN:when=3+5", 60);
}

#[test]
fn a_listener_that_failed_accepts_again() {
    for engine in ["epoll", "poll"] {
        echoes_under(engine, "accept4:error=ECONNABORTED:when=2+3", 15);
    }
}

#[cfg(feature = "io-uring")]
#[test]
fn a_ring_that_takes_nothing_now_is_asked_again() {
    for error in ["EINTR", "EAGAIN", "EBUSY"] {
        echoes_under("io_uring", &format!("io_uring_enter:error={error}:when=2+3"), 8);
    }
}

#[cfg(feature = "io-uring")]
#[test]
fn without_a_ring_the_error_names_what_is_missing_and_nothing_else_is_taken() {
    let Some(mut strace) = foreign::command("strace") else { return };
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=io_uring_setup:error=ENOSYS"]);
    strace.arg(watched::example()).arg("127.0.0.1:0").env("REACTOR_ENGINE", "io_uring");
    let output = strace.output().expect("strace starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("io_uring"), "{text}");
    assert!(output.stdout.is_empty(), "it listens: {}", String::from_utf8_lossy(&output.stdout));
}
