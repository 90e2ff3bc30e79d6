//! `busy_poll`: a loop that looks for events before it sleeps sees all of them, and gives up when there are none.

mod common;

use std::{
    io::Write,
    thread,
    time::{Duration, Instant},
};

use common::{Engine, LONG, Probe, Seen, World, for_each_engine};
use reactor::{Bytes, Stream};

/// A world whose loop looks for so long before it sleeps.
fn looking(engine: Engine, limit: Duration) -> World {
    let runtime = engine.with(|limits| limits.busy_poll = Some(limit));
    let mut world = World::new(runtime, Probe::quiet(), Stream::new(Bytes));
    world.until_seen(Seen::Open);
    world
}

#[test]
fn input_and_commands_are_found_while_the_loop_looks() {
    for_each_engine(|engine| {
        let mut world = looking(engine, 2 * LONG);
        let begin = Instant::now();
        for round in 0..10 {
            world.peer.write_all(b"x").expect("room");
            while world.probe().seen.len() < 2 + round {
                world.runtime.turn(None).expect("whole");
            }
        }
        let controller = world.runtime.controller(world.service);
        let sender = thread::spawn(move || controller.send(7_u64).is_ok());
        while world.probe().messages.is_empty() {
            world.runtime.turn(None).expect("whole");
        }
        assert!(sender.join().expect("it did not panic"));
        assert!(begin.elapsed() < LONG, "nobody looks on when there is something");
    });
}

#[test]
fn a_loop_that_finds_nothing_sleeps() {
    for_each_engine(|engine| {
        let mut world = looking(engine, Duration::from_millis(5));
        let (service, metrics) = (world.service, world.runtime.metrics());
        let before = metrics.read();
        world.runtime.with(service, |_, cx| _ = cx.after(Duration::from_millis(100), 1));
        let mut turns = 0;
        while world.probe().messages.is_empty() {
            world.runtime.turn(None).expect("whole");
            turns += 1;
        }
        let after = metrics.read();
        let calls = after.engine_calls - before.engine_calls;
        assert!(turns < 10, "{engine:?}: {turns} turns");
        assert!(calls > 100, "{engine:?}: it looked {calls} times in 5 ms");
    });
}
