//! A runtime driven by another loop: descriptor, deadline, turns of zero.
#![cfg(any(target_os = "linux", target_os = "android"))]

mod common;

use std::{
    io::Write,
    os::fd::{AsFd, AsRawFd},
    thread,
    time::{Duration, Instant},
};

use common::{Engine, LONG, Probe, SHORT, Seen, World};
use reactor::{Bytes, Runtime, Stream};

/// Waits as a foreign loop does: on the descriptor, as long as the deadline says. False: the time was over.
fn wait(runtime: &Runtime) -> bool {
    let patience = runtime.next_deadline();
    let fd = runtime.fd().expect("epoll has one");
    let mut entry = libc_poll(fd.as_raw_fd());
    let millis = patience.unwrap_or(LONG).as_millis() as i32 + i32::from(!patience.unwrap_or(LONG).is_zero());
    poll(&mut entry, millis)
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

/// Drives it until the condition holds, and says in how many turns.
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

fn world() -> World {
    let echo = Probe::new(|cx, id, seen| {
        if let Seen::Got(bytes) = seen {
            cx.send(id, &bytes[..]);
        }
        Ok(())
    });
    World::new(Engine("epoll").runtime(), echo, Stream::new(Bytes))
}

#[test]
fn events_timers_and_commands_wake_the_foreign_loop() {
    let mut world = world();
    let service = world.service;
    let turns =
        drive(&mut world.runtime, |runtime| runtime.service(service).expect("it lives").saw(&Seen::Open));
    assert!(turns <= 2, "{turns}");
    world.peer.write_all(b"hello").expect("room");
    let turns = drive(&mut world.runtime, |runtime| {
        runtime.service(service).expect("it lives").saw(&Seen::got("hello"))
    });
    assert!(turns <= 3, "{turns}");
    world.with(|cx, _| _ = cx.after(SHORT, 1));
    let turns =
        drive(&mut world.runtime, |runtime| runtime.service(service).expect("it lives").messages == [1]);
    assert!(turns <= 3, "{turns}");
    let controller = world.runtime.controller(service);
    for n in 0..100 {
        let controller = controller.clone();
        let sender = thread::spawn(move || controller.send(n).expect("room"));
        drive(&mut world.runtime, |runtime| {
            runtime.service(service).expect("it lives").messages.len() == 2 + n as usize
        });
        sender.join().expect("the sender did not panic");
    }
}

#[test]
fn idle_it_sleeps() {
    let mut world = world();
    let service = world.service;
    drive(&mut world.runtime, |runtime| runtime.service(service).expect("it lives").saw(&Seen::Open));
    for _ in 0..4 {
        world.runtime.turn(Some(Duration::ZERO)).expect("whole");
    }
    assert_eq!(world.runtime.next_deadline(), None);
    let fd = world.runtime.fd().expect("epoll has one").as_fd().as_raw_fd();
    assert!(!poll(&mut libc_poll(fd), SHORT.as_millis() as i32), "nothing is ready");
}

#[test]
fn what_a_budget_left_makes_the_descriptor_ready() {
    let mut world = world();
    let service = world.service;
    assert!(world.runtime.fd().is_some());
    drive(&mut world.runtime, |runtime| runtime.service(service).expect("it lives").saw(&Seen::Open));
    let id = world.id;
    world.peer.write_all(&[1; 200 << 10]).expect("room");
    drive(&mut world.runtime, |runtime| {
        runtime.service(service).expect("it lives").bytes(id).len() == 200 << 10
    });
}

#[test]
fn a_stop_is_seen_and_its_end_too() {
    let mut world = world();
    let controller = world.runtime.controller(world.service);
    let stopper = thread::spawn(move || controller.stop(SHORT));
    drive(&mut world.runtime, Runtime::is_over);
    stopper.join().expect("the stopper did not panic");
    let receipt = world.runtime.run().expect("only the receipt is left");
    assert_eq!(receipt.cut, 1);
}
