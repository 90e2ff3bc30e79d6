//! The memory that the engine `io_uring` shares with the kernel. It is counted, and no child of a fork has
//! it.
#![cfg(all(target_os = "linux", feature = "io-uring"))]
#![allow(unsafe_code)]

mod common;

use std::{
    fs,
    io::{ErrorKind, Write as _},
    os::fd::AsRawFd as _,
};

use common::{Probe, World};
use reactor::{
    BindOptions, Bytes, Closed, Error, Flow, Runtime, RuntimeOptions, Stream,
    engine::{Engine, EngineError, IoUring, IoUringOptions, Role},
};

fn within(engine: &str, bytes: usize) -> Result<Runtime, Error> {
    let mut options = RuntimeOptions::default();
    options.engine = Some(engine.to_owned());
    options.candidates = options.candidates.with("io_uring", || Ok(Box::new(IoUring::new()?)));
    options.limits.bytes = bytes;
    Runtime::with_options(options)
}

/// Returns the memory of a ring with the default size.
fn memory() -> usize {
    IoUring::new().expect("this kernel has io_uring").memory()
}

#[test]
fn a_ring_that_would_leave_nothing_of_the_bytes_does_not_open() {
    for bytes in [memory() - 1, memory()] {
        let error = within("io_uring", bytes).expect_err("nothing is left");
        let Error::Engine(EngineError::Failed { name: "io_uring", source }) = &error else {
            panic!("{error}")
        };
        assert_eq!(source.kind(), ErrorKind::QuotaExceeded);
        let text = source.to_string();
        assert!(text.contains(&memory().to_string()) && text.contains(&bytes.to_string()), "{text}");
    }
}

#[test]
fn what_the_ring_leaves_is_for_streams() {
    let runtime = within("io_uring", memory() + 102_400).expect("something is left");
    let mut world = World::new(runtime, Probe::quiet(), Stream::new(Bytes));
    world.with(|cx, id| {
        assert_ne!(cx.send(id, &[1; 90_000][..]), Flow::Gone, "the limit");
        assert_eq!(cx.send(id, &[2; 9_000][..]), Flow::Gone, "more");
    });
    assert!(matches!(world.until_closed(), Closed::OverBudget));
}

#[test]
fn auto_passes_over_a_ring_that_is_too_large() {
    let name = |bytes| within("auto", bytes).expect("another is smaller").engine_name();
    assert_eq!(name(memory()), "epoll");
    assert_eq!(name(memory() + 1), "io_uring");
}

#[test]
fn a_smaller_ring_counts_less() {
    let mut options = IoUringOptions::default();
    (options.entries, options.completions) = (8, 16);
    (options.buffers, options.buffer_bytes) = (8, 64);
    options.datagram_buffers = 0;
    let small = IoUring::with_options(options).expect("this kernel has io_uring").memory();
    assert!(small > 8 * 64 && small < memory() / 100, "{small} of {}", memory());
}

#[test]
fn each_buffer_for_datagrams_counts_before_there_is_a_socket() {
    let of = |buffers| {
        let mut options = IoUringOptions::default();
        options.datagram_buffers = buffers;
        IoUring::with_options(options).expect("this kernel has io_uring").memory()
    };
    let none = of(0);
    assert!((64 << 10..80 << 10).contains(&(of(1) - none)), "{}", of(1) - none);
    assert_eq!(of(3), of(4), "a power of two");
    assert!(of(32) - none >= 32 * (64 << 10));
    assert_eq!(of(32), memory(), "as many by default");
}

/// Returns the mappings that a fork does not pass on, by address, and whether each belongs to the kernel.
fn not_inherited() -> Vec<(usize, usize, bool)> {
    let text = fs::read_to_string("/proc/self/smaps").expect("proc(5) is there");
    let mut mappings = Vec::new();
    let mut current = None;
    for line in text.lines() {
        match line.strip_prefix("VmFlags:") {
            Some(flags) if flags.split_whitespace().any(|flag| flag == "dc") => mappings.extend(current),
            Some(_) => {}
            None => current = range(line).or(current),
        }
    }
    mappings
}

/// Parses the addresses in the first line of a mapping.
fn range(line: &str) -> Option<(usize, usize, bool)> {
    let (from, to) = line.split_whitespace().next()?.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    Some((address(from)?, address(to)?, line.ends_with("anon_inode:[io_uring]")))
}

/// Returns the mappings of a child of this process.
fn of_child() -> Vec<(usize, usize, bool)> {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let ends = (reader.as_raw_fd(), writer.as_raw_fd());
    // SAFETY: the child only makes calls that are allowed after a fork: close, read and _exit.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "it forks");
    if child == 0 {
        // SAFETY: the number is the child's own copy.
        unsafe { libc::close(ends.1) };
        let mut byte = 0_u8;
        // SAFETY: the byte outlives the call.
        unsafe { libc::read(ends.0, (&raw mut byte).cast(), 1) };
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(0) };
    }
    let text = fs::read_to_string(format!("/proc/{child}/maps"));
    writer.write_all(&[1]).expect("the child waits");
    // SAFETY: the child is ours, and its status is not requested.
    assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
    text.expect("the child was alive").lines().filter_map(range).collect()
}

/// Runs alone, because the mappings belong to the whole process, and the other tests here change theirs.
#[test]
#[ignore = "must be the only test of its process: the test below runs it so"]
fn alone() {
    assert_eq!(not_inherited(), []);
    let mut engine = IoUring::new().expect("this kernel has io_uring");
    let key = reactor::Key::new(0, 0, 0);
    let address = "127.0.0.1:0".parse().expect("an address");
    let socket = engine.bind(&address, &BindOptions::default()).expect("a port");
    engine.attach(key, socket, Role::Datagrams).expect("the key is free");
    let ours = not_inherited();
    let mapped: usize = ours.iter().map(|(from, to, _)| to - from).sum();
    assert_eq!(mapped + HEAP_MAX, engine.memory(), "what is mapped is counted: {ours:x?}");
    assert!(ours.iter().any(|(.., is_kernels)| *is_kernels), "the queues are among them");
    let theirs = of_child();
    assert!(
        theirs.iter().any(|(from, to, _)| (*from..*to).contains(&(alone as fn() as usize))),
        "it is a child"
    );
    for (from, to, _) in &ours {
        assert!(!theirs.iter().any(|their| their.0 < *to && *from < their.1), "{from:x} to {to:x} is there");
    }
    assert!(!theirs.iter().any(|(.., is_kernels)| *is_kernels));
    drop(engine);
    assert_eq!(not_inherited(), [], "nothing stays mapped");
}

#[test]
fn a_fork_inherits_none_of_it() {
    let this = std::env::current_exe().expect("a test has a path");
    let mut command = std::process::Command::new(this);
    let output = command.args(["--exact", "alone", "--ignored", "--nocapture"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The heap memory that counts besides the mappings: two buffers for calls, and a quarter of the shared
/// buffers for copies of late input.
const HEAP_MAX: usize = (128 << 10) + (1 << 20);
