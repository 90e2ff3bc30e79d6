//! Waiting for a child by a thread, which works on every system, also on those without pidfds.

use std::{
    os::fd::AsFd as _,
    process::{ChildStdin, Command, Stdio},
};

use super::*;
use crate::Source;

/// Starts a shell, and returns its number and its input.
#[expect(clippy::zombie_processes, reason = "what is under test waits for it")]
fn start(script: &str) -> (u32, Option<ChildStdin>) {
    let mut child =
        Command::new("/bin/sh").args(["-c", script]).stdin(Stdio::piped()).spawn().expect("a shell");
    (child.id(), child.stdin.take())
}

/// Waits for the thread's report.
fn told(source: Source<'_>) -> i32 {
    let descriptor = source.descriptor().expect("it is a pipe");
    let mut entry = [libc::pollfd {
        fd: std::os::fd::AsRawFd::as_raw_fd(&descriptor.as_fd()),
        events: libc::POLLIN,
        revents: 0,
    }];
    assert_eq!(super::super::poll(&mut entry, 20_000).expect("it is watched"), 1, "it ended in time");
    let mut raw = [0; 4];
    assert_eq!(super::super::read(source, &mut raw).expect("it was told"), 4);
    i32::from_ne_bytes(raw)
}

#[test]
fn a_thread_tells_of_an_exit_and_then_sends_no_signal_to_that_number() {
    let (pid, stdin) = start("read line; exit 7");
    let watched = thread::watch(pid, &SpawnOptions::default()).expect("there is a thread");
    watched.signal(0).expect("it runs");
    drop(stdin);
    assert_eq!(ExitStatus::from_raw(told(watched.source())).code(), Some(7));
    let error = watched.signal(libc::SIGKILL).expect_err("it was reaped");
    assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
}

#[test]
fn a_thread_tells_of_a_death_by_signal() {
    let (pid, _stdin) = start("read line");
    let watched = thread::watch(pid, &SpawnOptions::default()).expect("there is a thread");
    watched.signal(libc::SIGTERM).expect("it runs");
    assert_eq!(ExitStatus::from_raw(told(watched.source())).signal(), Some(libc::SIGTERM));
}

#[test]
fn a_child_that_somebody_else_reaped_ends_the_pipe_without_a_word() {
    let mut child = Command::new("true").spawn().expect("there is such a program");
    let pid = child.id();
    child.wait().expect("it ends");
    let watched = thread::watch(pid, &SpawnOptions::default()).expect("there is a thread");
    let descriptor = watched.source().descriptor().expect("it is a pipe");
    while super::super::file::look(descriptor, libc::POLLIN).expect("it is watched") == 0 {
        std::thread::yield_now();
    }
    assert_eq!(super::super::read(watched.source(), &mut [0; 4]).expect("the end"), 0);
}

#[test]
fn a_number_that_is_no_child_of_ours_any_more_is_sent_no_signal() {
    // As if the child had been reaped, and its number given to another process: this one, which is not its
    // own child.
    let watched = thread::watch(std::process::id(), &SpawnOptions::default()).expect("there is a thread");
    let descriptor = watched.source().descriptor().expect("it is a pipe");
    while super::super::file::look(descriptor, libc::POLLIN).expect("it is watched") == 0 {
        std::thread::yield_now();
    }
    let error = watched.signal(0).expect_err("it is no child of ours");
    assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
}
