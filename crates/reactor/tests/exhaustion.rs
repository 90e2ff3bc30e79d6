//! The process runs out of descriptors: no spin, one fault for each episode, and recovery. This is a
//! separate binary, because it lowers the limit of the process.
#![cfg(unix)]

mod common;

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    sync::Mutex,
    time::{Duration, Instant},
};

use common::{Probe, Seen, for_each_engine, listen, until};
use reactor::{Bytes, Stream};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit belongs to the process, so the tests run one after the other.
static LIMIT: Mutex<()> = Mutex::new(());

fn set_limit(descriptors: u64) {
    let all = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(descriptors), ..all }).expect("below the hard limit");
}

/// Returns the lowest free descriptor number.
fn next_descriptor() -> u64 {
    use std::os::fd::AsRawFd;
    std::fs::File::open("/dev/null").expect("there is one").as_raw_fd() as u64
}

#[test]
fn a_listener_without_descriptors_rests_tells_once_and_goes_on() {
    const CLIENTS: usize = 200;
    const ROOM: u64 = 20;
    let _alone = LIMIT.lock().expect("the other test did not panic");
    let before = getrlimit(Resource::Nofile).current.unwrap_or(1024);
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let echo = Probe::new(|cx, id, seen| {
            if let Seen::Got(bytes) = seen {
                cx.send(id, &bytes[..]);
            }
            Ok(())
        });
        let service = runtime.add(echo).expect("it starts");
        let address = listen(&mut runtime, service, || Some(Stream::new(Bytes)));
        let mut clients: Vec<TcpStream> = (0..CLIENTS)
            .map(|_| {
                let mut client = TcpStream::connect(address).expect("the backlog takes it");
                client.write_all(b"x").expect("room");
                client.set_nonblocking(true).expect("a socket");
                client
            })
            .collect();
        set_limit(next_descriptor() + ROOM);
        let opened =
            |runtime: &reactor::Runtime| runtime.service(service).expect("it lives").count(&Seen::Open);
        until(&mut runtime, |runtime| !runtime.service(service).expect("it lives").faults.is_empty());
        assert!(opened(&runtime) >= ROOM as usize - 1, "{}", opened(&runtime));
        // The listener rests: few turns, no further fault, and the accepted clients are still served.
        let turns = runtime.metrics().read().turns;
        let (began, had) = (Instant::now(), opened(&runtime));
        while began.elapsed() < Duration::from_millis(500) {
            runtime.turn(Some(Duration::from_millis(500))).expect("whole");
        }
        let took = runtime.metrics().read().turns - turns;
        assert!(took <= 25, "{took} turns in half a second");
        assert_eq!(runtime.service(service).expect("it lives").faults.len(), 1);
        assert_eq!(opened(&runtime), had);
        // Clients that leave make room for others.
        let is_served = |client: &mut TcpStream| matches!(client.read(&mut [0; 8]), Ok(1));
        let mut gone = 0;
        clients.retain_mut(|client| {
            let goes = gone < 10 && is_served(client);
            gone += goes as usize;
            !goes
        });
        assert_eq!(gone, 10);
        until(&mut runtime, |runtime| opened(runtime) >= had + 10);
        assert!(runtime.service(service).expect("it lives").faults.len() <= 2, "one for each episode");
        // With room, all are served, because none was turned away.
        set_limit(before);
        let (mut served, mut away) = (0, 0);
        let mut left = clients;
        until(&mut runtime, |_| {
            left.retain_mut(|client| match client.read(&mut [0; 8]) {
                Ok(1) => {
                    served += 1;
                    false
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => true,
                Ok(_) | Err(_) => {
                    away += 1;
                    false
                }
            });
            left.is_empty()
        });
        assert_eq!((served + 10, away), (CLIENTS, 0));
        assert_eq!(runtime.metrics().read().turned_away, 0);
    });
}

#[test]
fn a_runtime_without_descriptors_is_an_error_and_leaks_nothing() {
    let _alone = LIMIT.lock().expect("the other test did not panic");
    let child = std::env::var_os("WITHOUT_DESCRIPTORS").is_some();
    if !child {
        let me = std::env::current_exe().expect("it runs");
        let name = "a_runtime_without_descriptors_is_an_error_and_leaks_nothing";
        let output = std::process::Command::new(me)
            .args([name, "--exact"])
            .env("WITHOUT_DESCRIPTORS", "1")
            .output()
            .expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    for name in ["epoll", "poll"] {
        for room in 0..3 {
            let free = next_descriptor();
            set_limit(free + room);
            let mut options = reactor::RuntimeOptions::default();
            options.engine = Some(name.to_owned());
            let made = reactor::Runtime::with_options(options);
            let is_enough = made.is_ok();
            drop(made);
            set_limit(free + 100);
            assert_eq!(next_descriptor(), free, "nothing is left behind");
            assert!(!is_enough || room > 0, "{name} with {room}");
        }
    }
}

/// Asks until there is an answer.
#[cfg(target_os = "linux")]
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
#[cfg(target_os = "linux")]
fn thread(name: &str) -> Option<std::path::PathBuf> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux has it");
    let is_it = |task: &std::path::PathBuf| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    };
    tasks.flatten().map(|task| task.path()).find(is_it)
}

/// Returns the processor time of a thread, in hundredths of a second.
#[cfg(target_os = "linux")]
fn ticks(stat: &std::fs::File) -> u64 {
    use std::os::unix::fs::FileExt as _;

    let mut text = [0; 1024];
    let count = stat.read_at(&mut text, 0).expect("the thread lives");
    let text = std::str::from_utf8(&text[..count]).expect("text");
    // Fields 14 and 15 in the numbering of proc(5). The name before them may contain spaces.
    let (_, fields) = text.rsplit_once(')').expect("a name");
    fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum()
}

#[cfg(target_os = "linux")]
#[test]
fn children_whose_owner_has_gone_are_reaped_without_haste_where_poll_fails() {
    use reactor::process::{SpawnOptions, Standard};

    let _alone = LIMIT.lock().expect("the other test did not panic");
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
