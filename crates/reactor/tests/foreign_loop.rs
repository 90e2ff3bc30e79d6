//! A runtime driven by another loop: descriptor, deadline, turns of zero.
#![cfg(any(target_os = "linux", target_os = "android"))]

mod common;

use std::{
    cell::Cell,
    io::Write,
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use common::{Engine, LONG, Probe, SHORT, Seen, World, add, for_each_engine, tcp_pair};
use reactor::{Bytes, Runtime, Stream};

/// Waits as a foreign loop does: on the descriptor, until the deadline. Returns false if the time is over.
fn wait(runtime: &Runtime) -> bool {
    wait_for(runtime, runtime.next_deadline().unwrap_or(LONG))
}

/// Waits on the descriptor for at most this long.
fn wait_for(runtime: &Runtime, patience: Duration) -> bool {
    let fd = runtime.fd().expect("it had one");
    let mut entry = libc_poll(fd.as_raw_fd());
    poll(&mut entry, patience.as_millis() as i32 + i32::from(!patience.is_zero()))
}

#[allow(unsafe_code, reason = "poll(2) is the foreign loop")]
fn poll(entry: &mut libc::pollfd, millis: i32) -> bool {
    // SAFETY: the pointer is to one live entry.
    let count = unsafe { libc::poll(entry, 1, millis) };
    count == 1
}

fn libc_poll(fd: i32) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}

/// Drives the runtime until the condition holds, and returns the number of turns.
fn drive(runtime: &mut Runtime, mut done: impl FnMut(&Runtime) -> bool) -> u32 {
    let end = Instant::now() + LONG;
    let mut turns = 0;
    while !done(runtime) {
        assert!(Instant::now() < end, "it did not happen");
        wait(runtime);
        runtime.turn(Some(Duration::ZERO)).expect("whole");
        turns += 1;
    }
    turns
}

/// Runs a test on each engine that a foreign loop can drive.
fn on_each(test: impl Fn(World)) {
    let driven = Cell::new(0);
    for_each_engine(|engine| {
        let world = world(engine);
        // poll(2) keeps no object in the kernel to wait on.
        if world.runtime.fd().is_some() {
            driven.set(driven.get() + 1);
            test(world);
        }
    });
    assert!(driven.get() > 0, "epoll is always there");
}

fn world(engine: Engine) -> World {
    let echo = Probe::new(|cx, id, seen| {
        if let Seen::Got(bytes) = seen {
            cx.send(id, &bytes[..]);
        }
        Ok(())
    });
    World::new(engine.runtime(), echo, Stream::new(Bytes))
}

#[test]
fn events_timers_and_commands_wake_the_foreign_loop() {
    on_each(|mut world| {
        let service = world.service;
        let turns =
            drive(&mut world.runtime, |runtime| runtime.service(service).expect("it lives").saw(&Seen::Open));
        assert!(turns <= TURNS_MAX, "{turns}");
        world.peer.write_all(b"hello").expect("room");
        let turns = drive(&mut world.runtime, |runtime| {
            runtime.service(service).expect("it lives").saw(&Seen::got("hello"))
        });
        assert!(turns <= TURNS_MAX, "{turns}");
        world.with(|cx, _| _ = cx.after(SHORT, 1));
        let turns =
            drive(&mut world.runtime, |runtime| runtime.service(service).expect("it lives").messages == [1]);
        assert!(turns <= TURNS_MAX, "{turns}");
        let controller = world.runtime.controller(service);
        for n in 0..100 {
            let controller = controller.clone();
            let sender = thread::spawn(move || controller.send(n).expect("room"));
            drive(&mut world.runtime, |runtime| {
                runtime.service(service).expect("it lives").messages.len() == 2 + n as usize
            });
            sender.join().expect("the sender did not panic");
        }
    });
}

#[test]
fn what_comes_while_the_foreign_loop_sleeps_ends_its_sleep() {
    on_each(|mut world| {
        let service = world.service;
        drive(&mut world.runtime, |runtime| runtime.service(service).expect("it lives").saw(&Seen::Open));
        let sleeper = std::fs::read_link("/proc/thread-self").expect("the system tells of threads");
        let status = std::path::Path::new("/proc").join(sleeper).join("stat");
        let until_asleep = || {
            let is_asleep = |stat: String| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" S"));
            while !is_asleep(std::fs::read_to_string(&status).expect("the thread is there")) {
                thread::yield_now();
            }
        };
        let controller = world.runtime.controller(service);
        for n in 0..20 {
            while wait_for(&world.runtime, Duration::ZERO) {
                world.runtime.turn(Some(Duration::ZERO)).expect("whole");
            }
            // From here on the loop counts as asleep, so a command has to wake it.
            assert_eq!(world.runtime.next_deadline(), None);
            thread::scope(|scope| {
                scope.spawn(|| {
                    until_asleep();
                    if n % 2 == 0 {
                        controller.send(n).expect("room");
                    } else {
                        (&world.peer).write_all(b"hello").expect("room");
                    }
                });
                assert!(wait_for(&world.runtime, LONG), "nobody woke the loop at {n}");
            });
            world.runtime.turn(Some(Duration::ZERO)).expect("whole");
        }
    });
}

#[test]
fn idle_it_sleeps() {
    on_each(|mut world| {
        let service = world.service;
        drive(&mut world.runtime, |runtime| runtime.service(service).expect("it lives").saw(&Seen::Open));
        for _ in 0..4 {
            world.runtime.turn(Some(Duration::ZERO)).expect("whole");
        }
        assert_eq!(world.runtime.next_deadline(), None);
        assert!(!wait_for(&world.runtime, SHORT), "nothing is ready");
    });
}

#[test]
fn what_a_budget_left_makes_the_descriptor_ready() {
    on_each(|mut world| {
        let service = world.service;
        drive(&mut world.runtime, |runtime| runtime.service(service).expect("it lives").saw(&Seen::Open));
        let id = world.id;
        world.peer.write_all(&[1; 200 << 10]).expect("room");
        drive(&mut world.runtime, |runtime| {
            runtime.service(service).expect("it lives").bytes(id).len() == 200 << 10
        });
    });
}

/// Tests a loop that keeps the descriptor, and does not query the runtime between a turn and the next wait.
#[test]
fn what_an_engine_left_for_the_next_turn_wakes_a_loop_that_kept_the_descriptor() {
    on_each(|mut world| {
        let service = world.runtime.add(Probe::quiet()).expect("it starts");
        let mut peers = Vec::new();
        for _ in 0..STREAMS {
            let (ours, peer) = tcp_pair();
            add(&mut world.runtime, service, Stream::new(Bytes), ours);
            peers.push(peer);
        }
        drive(&mut world.runtime, |runtime| {
            runtime.service(service).expect("it lives").count(&Seen::Open) == STREAMS
        });
        while wait_for(&world.runtime, Duration::ZERO) {
            world.runtime.turn(Some(Duration::ZERO)).expect("whole");
        }
        let number = world.runtime.fd().expect("it had one").as_raw_fd();
        for peer in &mut peers {
            peer.write_all(&[1; INPUT]).expect("room");
        }
        let patience = LONG.as_millis() as i32;
        let bytes = |runtime: &Runtime| {
            let seen = &runtime.service(service).expect("it lives").seen;
            seen.iter()
                .map(|(_, seen)| if let Seen::Got(bytes) = seen { bytes.len() } else { 0 })
                .sum::<usize>()
        };
        while bytes(&world.runtime) < STREAMS * INPUT {
            let millis = world.runtime.next_deadline().map_or(patience, |left| left.as_millis() as i32);
            let is_woken = poll(&mut libc_poll(number), millis);
            assert!(is_woken || millis < patience, "input is left, and nothing woke the loop");
            world.runtime.turn(Some(Duration::ZERO)).expect("whole");
        }
    });
}

#[test]
fn a_stop_is_seen_and_its_end_too() {
    on_each(|mut world| {
        let controller = world.runtime.controller(world.service);
        let stopper = thread::spawn(move || controller.stop(SHORT));
        drive(&mut world.runtime, Runtime::is_over);
        stopper.join().expect("the stopper did not panic");
        let receipt = world.runtime.run().expect("only the receipt is left");
        assert_eq!(receipt.cut, 1);
    });
}

/// Together these streams have more input than an engine reports in the turns for which the kernel wakes it.
/// No stream has more than it may deliver in one turn.
const STREAMS: usize = 40;
const INPUT: usize = 50 << 10;
/// All input must be reported in this many turns. An engine may be woken once more by its own actions.
const TURNS_MAX: u32 = 5;
