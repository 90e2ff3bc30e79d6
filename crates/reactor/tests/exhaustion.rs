//! Descriptors run out: no spin, one fault an episode, and recovery. A binary of its own, since it lowers the
//! limit of the process.
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

/// The limit belongs to the process: one test after the other.
static LIMIT: Mutex<()> = Mutex::new(());

fn set_limit(descriptors: u64) {
    let all = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(descriptors), ..all }).expect("below the hard limit");
}

/// The lowest number that is free.
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
        // It rests: few turns, no further fault, and those that are served go on.
        let turns = runtime.metrics().read().turns;
        let (began, had) = (Instant::now(), opened(&runtime));
        while began.elapsed() < Duration::from_millis(500) {
            runtime.turn(Some(Duration::from_millis(500))).expect("whole");
        }
        let took = runtime.metrics().read().turns - turns;
        assert!(took <= 25, "{took} turns in half a second");
        assert_eq!(runtime.service(service).expect("it lives").faults.len(), 1);
        assert_eq!(opened(&runtime), had);
        // Those that go make room for others.
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
        // With room all are served, but those that were turned away meanwhile.
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
        assert!(served >= 150, "{served} served, {away} turned away");
        assert_eq!(served + away + 10, CLIENTS);
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
