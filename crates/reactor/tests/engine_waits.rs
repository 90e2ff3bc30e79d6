//! Waiting, waking, connecting, accepting and watching with the readiness engines.
#![cfg(unix)]

mod driver;

use std::{
    fs,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use driver::{Driver, Seen, nothing, queue, unix_pair};
use reactor::{
    Address, ConnectOptions, ListenOptions,
    engine::{Ending, Interest, Role, Source, Transport},
};
use socket2::SockRef;

fn a_timeout_is_never_early(mut driver: Driver) {
    for nanos in [1, 999, 1_000_000, 1_000_001, 2_500_000, 7_000_000] {
        let (timeout, began) = (Duration::from_nanos(nanos), Instant::now());
        driver.engine.wait(Some(timeout)).expect("the engine is whole");
        assert!(began.elapsed() >= timeout, "{timeout:?} took {:?}", began.elapsed());
        assert!(driver.next().is_none());
    }
}

fn wakes_before_a_wait_end_one_wait(mut driver: Driver) {
    let waker = driver.engine.waker();
    for _ in 0..3 {
        waker.wake_by_ref();
    }
    driver.engine.wait(None).expect("the engine is whole");
    assert!(driver.next().is_none());
    driver.assert_idle();
    drop(driver);
    waker.wake();
}

fn a_wake_within_a_wait_is_not_lost(mut driver: Driver) {
    let waker = driver.engine.waker();
    let (to_thread, from_main) = std::sync::mpsc::channel();
    let thread = thread::spawn(move || from_main.into_iter().for_each(|()| waker.wake_by_ref()));
    for _ in 0..1000 {
        // The thread wakes the engine before, during or after the start of the wait. A lost wake would hang
        // the test.
        to_thread.send(()).expect("the thread lives");
        driver.engine.wait(None).expect("the engine is whole");
    }
    drop(to_thread);
    thread.join().expect("the thread did not panic");
}

fn a_refused_connect_is_told_once_with_its_number(mut driver: Driver) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = Address::Ip(listener.local_addr().expect("bound"));
    drop(listener);
    let transport = driver.engine.connect(&address, &ConnectOptions::default()).expect("it begins");
    let key = driver.attach(transport, Role::Connecting);
    assert!(driver.engine.send(key, queue(b"never")).is_none(), "parked while connecting");
    driver.until(|_, of, seen| {
        let Seen::Connected(Err(error)) = &seen else { panic!("{seen:?}") };
        assert_eq!((of, error.raw_os_error()), (key, Some(libc::ECONNREFUSED)));
        true
    });
    driver.assert_idle();
    driver.engine.close(key, Ending::Orderly);
}

fn a_connect_that_succeeds_at_once_is_told_once(mut driver: Driver) {
    let name = format!("reactor-test-{}-{:p}", std::process::id(), &driver);
    let address = Address::Abstract(name.into_bytes());
    let listening = driver.engine.listen(&address, &ListenOptions::default()).expect("a free name");
    let listener = driver.attach(listening, Role::Listener);
    let transport = driver.engine.connect(&address, &ConnectOptions::default()).expect("it listens");
    let key = driver.attach(transport, Role::Connecting);
    assert!(driver.engine.send(key, queue(b"early")).is_none(), "parked while connecting");
    let mut log = Vec::new();
    driver.until(|driver, of, seen| {
        match seen {
            Seen::Accepted(transport, peer) => {
                assert_eq!((of, peer), (listener, Address::Unnamed));
                driver.attach(transport, Role::Stream);
            }
            Seen::Connected(result) => {
                result.expect("it listens");
                log.push("connected");
            }
            Seen::Sent(sent) => {
                assert_eq!(sent.result.expect("there is room"), 5);
                log.push("sent");
            }
            Seen::Got(bytes) => {
                assert_eq!(bytes, b"early");
                return true;
            }
            other => panic!("{other:?}"),
        }
        false
    });
    assert_eq!(log, ["connected", "sent"]);
    assert_eq!(driver.engine.peer(key).expect("connected"), address);
    driver.assert_idle();
}

fn a_listener_accepts_a_few_in_a_batch_and_rests_when_told(mut driver: Driver) {
    let address: Address = "127.0.0.1:0".parse().expect("an address");
    let listening = driver.engine.listen(&address, &ListenOptions::default()).expect("a port");
    let listener = driver.attach(listening, Role::Listener);
    let address = driver.engine.local(listener).expect("bound").ip().expect("an IP address");
    let peers = (0..33).map(|_| TcpStream::connect(address).expect("it listens")).collect::<Vec<_>>();
    let mut accepted = Vec::new();
    let mut counts = Vec::new();
    while accepted.len() < peers.len() {
        let batch = driver.now();
        counts.push(batch.len());
        for (key, seen) in batch {
            let Seen::Accepted(transport, peer) = seen else { panic!("{seen:?}") };
            assert_eq!(key, listener);
            accepted.push((transport, peer));
        }
    }
    assert_eq!(counts, [16, 16, 1]);
    for (transport, peer) in &accepted {
        assert!(peers.iter().any(|p| Address::Ip(p.local_addr().expect("bound")) == *peer));
        let descriptor = transport.source().descriptor().expect("a socket");
        let socket = SockRef::from(&descriptor);
        assert!(socket.nonblocking().expect("its flags") && socket.tcp_nodelay().expect("its options"));
        let flags = fs::read_to_string(format!("/proc/self/fdinfo/{}", descriptor.as_raw_fd()));
        let flags = flags.expect("it is open");
        let flags = flags.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags").trim();
        let flags = i32::from_str_radix(flags, 8).expect("octal");
        assert_ne!(flags & libc::O_CLOEXEC, 0);
    }
    driver.engine.reading(listener, false);
    let _late = TcpStream::connect(address).expect("it listens");
    driver.assert_idle();
    driver.engine.reading(listener, true);
    driver.until(|_, _, seen| matches!(seen, Seen::Accepted(..)));
    driver.engine.close(listener, Ending::Orderly);
    assert_eq!(TcpStream::connect(address).expect_err("closed").kind(), ErrorKind::ConnectionRefused);
}

fn a_listener_whose_accepts_all_fail_is_told_of_and_rests(mut driver: Driver) {
    // accept(2) fails on a socket of this kind by an error that else concerns one connection only.
    let (ours, theirs) = (UdpSocket::bind("127.0.0.1:0"), UdpSocket::bind("127.0.0.1:0"));
    let (ours, theirs) = (ours.expect("a port"), theirs.expect("a port"));
    ours.set_nonblocking(true).expect("an option");
    theirs.send_to(b"x", ours.local_addr().expect("bound")).expect("there is room");
    let listener = driver.attach(Transport::new(ours), Role::Listener);
    driver.until(|_, key, seen| {
        assert!(matches!(seen, Seen::NotAccepted(_)), "{seen:?}");
        key == listener
    });
    driver.assert_idle();
}

fn a_resource_is_told_of_while_it_is_ready(mut driver: Driver) {
    let (mut reader, mut writer) = io::pipe().expect("a pipe");
    let key = driver.key();
    driver.engine.watch(key, Source::of(&reader), Some(Interest::Read)).expect("watched");
    driver.assert_idle();
    writer.write_all(b"ab").expect("there is room");
    for _ in 0..3 {
        let seen = driver.now();
        assert!(matches!(seen[..], [(of, Seen::Ready(r))] if of == key && r.readable && !r.writable));
    }
    driver.engine.watch(key, Source::of(&reader), None).expect("it rests");
    driver.assert_idle();
    driver.engine.watch(key, Source::of(&reader), Some(Interest::Both)).expect("watched");
    assert_eq!(driver.now().len(), 1);
    driver.engine.unwatch(key, Source::of(&reader));
    driver.engine.unwatch(key, Source::of(&reader));
    driver.assert_idle();
    let again = driver.key();
    driver.engine.watch(again, Source::of(&reader), Some(Interest::Read)).expect("watched again");
    driver.until(|_, of, _| of == again);
    assert_eq!(reader.read(&mut [0; 8]).expect("input"), 2);
    driver.assert_idle();
}

fn a_hangup_alone_is_told_once_for_each_watch(mut driver: Driver) {
    let (reader, writer) = io::pipe().expect("a pipe");
    let key = driver.key();
    driver.engine.watch(key, Source::of(&reader), None).expect("it rests");
    drop(writer);
    driver.assert_idle();
    for _ in 0..2 {
        driver.engine.watch(key, Source::of(&reader), Some(Interest::Read)).expect("watched");
        driver.until(|_, of, seen| {
            assert!(matches!(seen, Seen::Ready(ready) if of == key && ready.hangup), "{seen:?}");
            true
        });
        driver.assert_idle();
    }
    driver.engine.unwatch(key, Source::of(&reader));
}

fn what_is_left_of_several_resources_can_still_be_changed(mut driver: Driver) {
    let mut pipes = (0..3).map(|_| io::pipe().expect("a pipe")).collect::<Vec<_>>();
    let keys = pipes.iter_mut().map(|(reader, writer)| {
        let key = driver.key();
        driver.engine.watch(key, Source::of(reader), Some(Interest::Read)).expect("watched");
        writer.write_all(b"x").expect("there is room");
        key
    });
    let keys = keys.collect::<Vec<_>>();
    driver.engine.unwatch(keys[0], Source::of(&pipes[0].0));
    driver.until(|_, of, _| of == keys[2]);
    driver.engine.watch(keys[2], Source::of(&pipes[2].0), None).expect("it rests");
    while let Some((of, _)) = driver.next() {
        assert_ne!(of, keys[2], "it rests");
    }
    assert!(driver.now().iter().all(|(of, _)| *of == keys[1]), "only one is left");
    driver.engine.unwatch(keys[1], Source::of(&pipes[1].0));
    driver.engine.unwatch(keys[2], Source::of(&pipes[2].0));
    while driver.next().is_some() {}
    driver.assert_idle();
}

fn one_source_is_not_watched_twice(mut driver: Driver) {
    let (ours, _theirs) = unix_pair();
    let (first, second) = (driver.key(), driver.key());
    driver.engine.watch(first, ours.source(), Some(Interest::Read)).expect("watched");
    let error = driver.engine.watch(second, ours.source(), Some(Interest::Read)).expect_err("twice");
    assert_eq!(error.raw_os_error(), Some(libc::EEXIST));
    driver.engine.unwatch(first, ours.source());
    driver.engine.watch(second, ours.source(), Some(Interest::Read)).expect("the first is gone");
    let error = driver.engine.watch(second, Source::hosted(7), None).expect_err("virtual");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

fn a_socket_file_is_replaced_only_when_nobody_listens(mut driver: Driver) {
    let path = std::env::temp_dir().join(format!("reactor-{}-{:p}", std::process::id(), &driver));
    let address = Address::Path(path.clone());
    let options = ListenOptions::default();
    let first = driver.engine.listen(&address, &options).expect("a free path");
    let error = driver.engine.listen(&address, &options).expect_err("somebody listens");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    drop(first);
    drop(driver.engine.listen(&address, &options).expect("the file is deserted"));
    let mut strict = ListenOptions::default();
    strict.reuse_address = false;
    let error = driver.engine.listen(&address, &strict).expect_err("it was not asked to replace it");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    fs::remove_file(&path).expect("it is there");
    fs::write(&path, "precious").expect("a file");
    let error = driver.engine.listen(&address, &options).expect_err("no socket");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert_eq!(fs::read_to_string(&path).expect("it is there"), "precious");
    fs::remove_file(&path).expect("it is there");
}

for_each_engine!(
    before: nothing;
    a_timeout_is_never_early,
    wakes_before_a_wait_end_one_wait,
    a_wake_within_a_wait_is_not_lost,
    a_refused_connect_is_told_once_with_its_number,
    a_connect_that_succeeds_at_once_is_told_once,
    a_listener_accepts_a_few_in_a_batch_and_rests_when_told,
    a_listener_whose_accepts_all_fail_is_told_of_and_rests,
    a_resource_is_told_of_while_it_is_ready,
    a_hangup_alone_is_told_once_for_each_watch,
    what_is_left_of_several_resources_can_still_be_changed,
    one_source_is_not_watched_twice,
    a_socket_file_is_replaced_only_when_nobody_listens,
);

#[cfg(target_os = "linux")]
#[test]
fn the_descriptor_of_the_engine_tells_of_what_a_budget_stopped() {
    let mut driver = driver::epoll_tight();
    let (_, mut theirs) = driver.unix();
    theirs.write_all(&[7; 200]).expect("there is room");
    let outer = reactor::engine::Epoll::new().expect("epoll");
    let mut outer = Driver::new(Box::new(reactor::engine::Calls::new(outer)), 65_536);
    let key = outer.key();
    let descriptor = driver.engine.fd().expect("epoll has one").try_clone_to_owned().expect("a copy");
    outer.engine.watch(key, Source::of(&descriptor), Some(Interest::Read)).expect("watched");
    let (mut got, mut turns) = (0, 0);
    while got < 200 {
        outer.until(|_, of, _| of == key);
        turns += 1;
        for (_, seen) in driver.now() {
            let Seen::Got(bytes) = seen else { panic!("{seen:?}") };
            got += bytes.len();
        }
    }
    assert!(turns >= 4, "{turns} turns for 200 bytes with a buffer of 64");
    driver.now();
    outer.assert_idle();
}

#[cfg(target_os = "linux")]
#[test]
fn room_is_watched_for_only_while_somebody_waits_for_it() {
    use reactor::engine::{Engine as _, Event};
    let mut engine = reactor::engine::Calls::new(reactor::engine::Epoll::new().expect("epoll"));
    let set = engine.fd().expect("epoll has one").as_raw_fd();
    // The masks of all that is in the set.
    let watches_room = || {
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{set}")).expect("it is open");
        let masks = text.lines().filter_map(|line| line.split("events:").nth(1)?.split_whitespace().next());
        let mut masks = masks.map(|mask| u32::from_str_radix(mask, 16).expect("hexadecimal"));
        masks.any(|mask| mask & libc::EPOLLOUT as u32 != 0)
    };
    let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    ours.set_nonblocking(true).expect("an option");
    theirs.set_nonblocking(true).expect("an option");
    let mut past = ours.try_clone().expect("a copy");
    let key = reactor::Key::new(0, 0, 3);
    engine.attach(key, Transport::new(ours), Role::Stream).expect("it is attached");
    assert!(!watches_room());
    for _ in 0..2 {
        while past.write(&[0; 4096]).is_ok() {}
        assert!(engine.await_room(key) && watches_room());
        while theirs.read(&mut [0; 4096]).is_ok() {}
        let room = loop {
            engine.wait(Some(Duration::from_secs(20))).expect("the engine is whole");
            if let Some((_, event)) = engine.next() {
                break event;
            }
        };
        assert!(matches!(room, Event::Room) && !watches_room());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn more_ready_streams_than_events_are_all_served_in_turn() {
    // Run the engines one after the other, because there are many descriptors. Each stream takes two.
    let count = 5_000.min((rlimit() - 512) / 2);
    let engines: [(Box<dyn reactor::engine::Engine>, usize); 2] = [
        (
            Box::new(reactor::engine::Calls::new(reactor::engine::Epoll::with_capacity(64).expect("epoll"))),
            count.div_ceil(64),
        ),
        (Box::new(reactor::engine::Calls::new(reactor::engine::PollCall::new().expect("poll"))), 1),
    ];
    for (engine, turns_max) in engines {
        let mut driver = Driver::new(engine, 65_536);
        let peers = (0..count).map(|_| driver.unix()).collect::<Vec<_>>();
        for (_, peer) in &peers {
            (&*peer).write_all(b"x").expect("there is room");
        }
        let mut seen = std::collections::HashSet::new();
        for _ in 0..turns_max {
            for (key, event) in driver.now() {
                assert!(matches!(event, Seen::Got(_)) && seen.insert(key), "{key:?} {event:?}");
            }
        }
        assert_eq!(seen.len(), count, "{}: {turns_max} turns", driver.engine.name());
    }
}

#[cfg(target_os = "linux")]
fn rlimit() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").expect("Linux");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    line.split_whitespace().nth(3).and_then(|soft| soft.parse().ok()).unwrap_or(usize::MAX)
}
