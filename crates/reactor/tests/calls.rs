//! System calls of the steady state, as the engine itself counts them.

mod common;

use std::{
    io::{Read, Write},
    time::Duration,
};

use common::{Probe, Seen, World, add, for_each_engine, settle, tcp_pair};
use reactor::{Bytes, Stream};

fn echo() -> Probe {
    Probe::new(|cx, id, seen| {
        if let Seen::Got(bytes) = seen {
            cx.send(id, &bytes[..]);
        }
        Ok(())
    })
}

#[test]
fn a_round_trip_is_a_read_and_a_write_and_its_share_of_a_wait() {
    for_each_engine(|engine| {
        const STREAMS: usize = 100;
        const ROUNDS: u64 = 50;
        let mut runtime = engine.runtime();
        let service = runtime.add(echo()).expect("it starts");
        let mut peers = Vec::new();
        for _ in 0..STREAMS {
            let (ours, peer) = tcp_pair();
            add(&mut runtime, service, Stream::new(Bytes), ours);
            peers.push(peer);
        }
        settle(&mut runtime);
        let metrics = runtime.metrics();
        let before = metrics.read();
        for _ in 0..ROUNDS {
            for peer in &mut peers {
                peer.write_all(b"ping").expect("room");
            }
            let sent = metrics.read().bytes_out;
            while metrics.read().bytes_out < sent + 4 * STREAMS as u64 {
                runtime.turn(Some(common::LONG)).expect("whole");
            }
            for peer in &mut peers {
                peer.read_exact(&mut [0; 4]).expect("it is there");
            }
        }
        let after = metrics.read();
        let trips = ROUNDS * STREAMS as u64;
        let calls = after.engine_calls - before.engine_calls;
        let turns = after.turns - before.turns;
        assert!(turns <= 8 * ROUNDS, "{turns} turns");
        if engine.0 == "io_uring" {
            // A few calls wait, and each reports some dozens of the two hundred completions. One call
            // submits the sends.
            return assert!(calls <= 12 * ROUNDS, "{calls} calls in {turns} turns");
        }
        // Apart from reads and writes there is one wait a turn, because nothing is registered again. One
        // wait of the crate polling reports a hundred streams in four pieces, one piece a turn.
        let waits = if engine.0 == "polling" { turns.div_ceil(4)..=turns.div_ceil(2) } else { turns..=turns };
        let others = calls - 2 * trips;
        assert!(waits.contains(&others), "{calls} calls for {trips} round trips in {turns} turns");
    });
}

#[test]
fn one_connection_alone_costs_three_calls_a_round_trip() {
    for_each_engine(|engine| {
        let mut world = World::new(engine.runtime(), echo(), Stream::new(Bytes));
        world.until_seen(Seen::Open);
        settle(&mut world.runtime);
        let metrics = world.runtime.metrics();
        let before = metrics.read().engine_calls;
        for _ in 0..100 {
            world.peer.write_all(b"ping").expect("room");
            world.runtime.turn(Some(common::LONG)).expect("whole");
            world.peer.read_exact(&mut [0; 4]).expect("it is there");
        }
        let calls = metrics.read().engine_calls - before;
        if engine.0 == "io_uring" {
            // One call submits the send at the beginning of the next wait, and one waits.
            return assert!(calls <= 200, "{calls} calls");
        }
        assert_eq!(calls, 300);
    });
}

#[test]
fn pause_and_resume_cost_an_edge_triggered_engine_nothing() {
    for_each_engine(|engine| {
        if !matches!(engine.0, "epoll" | "mio") {
            return;
        }
        let mut world = World::new(engine.runtime(), echo(), Stream::new(Bytes));
        world.until_seen(Seen::Open);
        settle(&mut world.runtime);
        let metrics = world.runtime.metrics();
        let before = metrics.read();
        for _ in 0..100 {
            world.with(|cx, id| cx.pause(id));
            world.runtime.turn(Some(Duration::ZERO)).expect("whole");
            world.with(|cx, id| cx.resume(id));
            world.runtime.turn(Some(Duration::ZERO)).expect("whole");
        }
        let after = metrics.read();
        assert_eq!(after.engine_calls - before.engine_calls, after.turns - before.turns, "only the waits");
    });
}
