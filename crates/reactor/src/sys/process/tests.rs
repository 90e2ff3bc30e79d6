//! How a child's end is told without pidfds, which Linux has: by the thread, on every system.

use std::{
    os::fd::AsFd as _,
    process::{Command, Stdio},
};

use super::*;
use crate::Source;

fn start(script: &str) -> Started {
    Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).spawn().expect("there is a shell")
}

/// Waits for the word of the thread.
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
    let mut child = start("read line; exit 7");
    let watched = thread::watch(child.id(), &SpawnOptions::default()).expect("there is a thread");
    watched.signal(0).expect("it runs");
    drop(child.stdin.take());
    assert_eq!(ExitStatus::from_raw(told(watched.source())).code(), Some(7));
    let error = watched.signal(libc::SIGKILL).expect_err("it was reaped");
    assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
}

#[test]
fn a_thread_tells_of_a_death_by_signal() {
    let child = start("read line");
    let watched = thread::watch(child.id(), &SpawnOptions::default()).expect("there is a thread");
    watched.signal(libc::SIGTERM).expect("it runs");
    assert_eq!(ExitStatus::from_raw(told(watched.source())).signal(), Some(libc::SIGTERM));
}

#[test]
fn a_child_that_somebody_else_reaped_ends_the_pipe_without_a_word() {
    let mut child = start("exit 0");
    let pid = child.id();
    child.wait().expect("it ends");
    let watched = thread::watch(pid, &SpawnOptions::default()).expect("there is a thread");
    let descriptor = watched.source().descriptor().expect("it is a pipe");
    while super::super::file::look(descriptor, libc::POLLIN).expect("it is watched") == 0 {
        std::thread::yield_now();
    }
    assert_eq!(super::super::read(watched.source(), &mut [0; 4]).expect("the end"), 0);
}
