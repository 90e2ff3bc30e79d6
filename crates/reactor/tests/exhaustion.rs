//! The process runs out of descriptors, and the thread that reaps children waits with few turns. This is a
//! separate binary, because it lowers the limit of the process. The rows E1r and E3r have listeners and
//! runtimes without descriptors.
#![cfg(target_os = "linux")]

mod common;

use std::time::{Duration, Instant};

use common::Probe;
use reactor::Bytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn set_limit(descriptors: u64) {
    let all = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(descriptors), ..all }).expect("below the hard limit");
}

/// Asks until there is an answer.
#[track_caller]
fn soon<T>(otherwise: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + common::LONG;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "{otherwise}");
        std::thread::yield_now();
    }
}

/// Returns the folder in proc(5) of the thread with this name.
fn thread(name: &str) -> Option<std::path::PathBuf> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux has it");
    let is_it = |task: &std::path::PathBuf| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    };
    tasks.flatten().map(|task| task.path()).find(is_it)
}

/// Returns the processor time of a thread, in hundredths of a second.
fn ticks(stat: &std::fs::File) -> u64 {
    use std::os::unix::fs::FileExt as _;

    let mut text = [0; 1024];
    let count = stat.read_at(&mut text, 0).expect("the thread lives");
    let text = std::str::from_utf8(&text[..count]).expect("text");
    // Fields 14 and 15 in the numbering of proc(5). The name before them may contain spaces.
    let (_, fields) = text.rsplit_once(')').expect("a name");
    fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum()
}

#[test]
fn children_whose_owner_has_gone_are_reaped_without_haste_where_poll_fails() {
    use reactor::process::{SpawnOptions, Standard};

    let before = getrlimit(Resource::Nofile).current.unwrap_or(1024);
    let mut runtime = common::Engine("epoll").runtime();
    let service = runtime.add(Probe::<Bytes>::quiet()).expect("it starts");
    let mut options = SpawnOptions::default();
    (options.stdout, options.stderr) = (Standard::Null, Standard::Null);
    let start = |_: &mut Probe<Bytes>, cx: &mut reactor::Context<Probe<Bytes>>| {
        cx.spawn(&mut std::process::Command::new("cat"), &options).expect("it starts")
    };
    let children: Vec<_> = (0..8).map(|_| runtime.with(service, start).expect("it lives")).collect();
    let pids: Vec<u32> = children.iter().map(|child| child.process.pid()).collect();
    let (mut processes, inputs): (Vec<_>, Vec<_>) =
        children.into_iter().map(|child| (child.process, child.stdin)).unzip();
    let last = processes.pop().expect("there are eight");
    drop(processes);
    // A new thread first has the name of its parent.
    let reaper = soon("there is no such thread", || thread("reactor-reaper"));
    let stat = std::fs::File::open(reaper.join("stat")).expect("it waits for seven");
    // The limit is smaller than the reaper's number of entries, so its next poll, after the eighth child,
    // fails.
    set_limit(4);
    drop(last);
    let had = ticks(&stat);
    std::thread::sleep(Duration::from_millis(200));
    let spent = ticks(&stat) - had;
    drop(inputs);
    let is_there = |pid: &u32| std::path::Path::new(&format!("/proc/{pid}")).exists();
    soon("one is a zombie still", || (!pids.iter().any(is_there)).then_some(()));
    set_limit(before);
    assert!(spent <= 2, "{spent} hundredths of a second in a fifth of one");
}
