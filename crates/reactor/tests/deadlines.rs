//! The movable deadline of a resource.

mod common;

use std::{
    io::Write,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use common::{Probe, SHORT, Seen, World, for_each_engine, quick_close, settle};
use reactor::{Bytes, Closed, Lines, Stream};

#[test]
fn a_deadline_ends_the_stream_never_early() {
    for_each_engine(|engine| {
        let mut world = World::new(engine.runtime(), Probe::quiet(), Stream::new(Bytes));
        world.until_seen(Seen::Open);
        let began = Instant::now();
        world.with(|cx, id| cx.deadline(id, SHORT));
        assert!(matches!(world.until_closed(), Closed::Deadline));
        assert!(began.elapsed() >= SHORT);
    });
}

#[test]
fn a_deadline_set_between_turns_is_kept_without_any_event() {
    for_each_engine(|engine| {
        let mut world = World::new(engine.runtime(), Probe::quiet(), Stream::new(Bytes));
        world.until_seen(Seen::Open);
        settle(&mut world.runtime);
        world.with(|cx, id| cx.deadline(id, SHORT));
        let began = Instant::now();
        while world.probe().closed.is_empty() {
            world.runtime.turn(None).expect("whole");
        }
        assert!(began.elapsed() < common::LONG);
    });
}

#[test]
fn moving_it_with_each_message_keeps_the_stream_and_costs_no_turns() {
    for_each_engine(|engine| {
        let probe = Probe::new(|cx, id, seen| {
            if let Seen::Got(_) = seen {
                cx.deadline(id, 3 * SHORT);
            }
            Ok(())
        });
        let mut world = World::new(engine.runtime(), probe, Stream::new(Lines::new()));
        world.until_seen(Seen::Open);
        world.with(|cx, id| cx.deadline(id, 3 * SHORT));
        let metrics = world.runtime.metrics();
        let turns = metrics.read().turns;
        for n in 0..10 {
            let line = format!("{n}");
            world.runtime.turn(Some(SHORT)).expect("whole");
            world.peer.write_all(format!("{line}\n").as_bytes()).expect("room");
            world.until_seen(Seen::got(&line));
        }
        let took = metrics.read().turns - turns;
        assert!(took <= 40, "{took} turns for ten messages");
        assert!(world.probe().closed.is_empty());
        world.until_closed();
    });
}

#[test]
fn none_takes_it_away() {
    for_each_engine(|engine| {
        let mut world = World::new(engine.runtime(), Probe::quiet(), Stream::new(Bytes));
        world.with(|cx, id| cx.deadline(id, SHORT));
        world.with(|cx, id| cx.deadline(id, None));
        world.runtime.turn(Some(3 * SHORT)).expect("whole");
        settle(&mut world.runtime);
        assert!(world.probe().closed.is_empty());
    });
}

#[test]
fn a_slow_handler_elsewhere_does_not_end_a_peer_whose_bytes_are_there() {
    for_each_engine(|engine| {
        for keep in [true, false] {
            let ((begin, begun), (write, written)) = (mpsc::channel(), mpsc::channel());
            let probe = Probe::new(move |cx, id, seen| {
                if let Seen::Got(_) = seen {
                    cx.deadline(id, if keep { Some(common::LONG) } else { None });
                }
                Ok(())
            })
            .messages(move |_, _| {
                // The handler blocks, against the rules. Meanwhile the bytes arrive first, and then the
                // deadline passes.
                begin.send(()).expect("the writer lives");
                written.recv().expect("the writer lives");
                thread::sleep(3 * SHORT);
                Ok(())
            });
            let mut world = World::new(engine.runtime(), probe, Stream::new(Bytes));
            world.until_seen(Seen::Open);
            world.with(|cx, id| {
                cx.deadline(id, SHORT);
                cx.after(Duration::ZERO, 1);
            });
            let mut peer = world.peer.try_clone().expect("a socket");
            let writer = thread::spawn(move || {
                begun.recv().expect("the handler is called");
                peer.write_all(b"healthy").expect("room");
                write.send(()).expect("the handler waits");
            });
            world.until_seen(Seen::got("healthy"));
            writer.join().expect("the writer did not panic");
            settle(&mut world.runtime);
            assert!(world.probe().closed.is_empty(), "{:?}", world.all());
        }
    });
}

#[test]
fn a_close_has_one_deadline_and_it_is_not_the_services() {
    for_each_engine(|engine| {
        let stream = Stream::new(Bytes).options(quick_close());
        let mut world = World::new(engine.runtime(), Probe::quiet(), stream);
        world.until_seen(Seen::Open);
        world.with(|cx, id| {
            cx.deadline(id, Duration::ZERO);
            cx.close(id);
        });
        assert!(matches!(world.until_closed(), Closed::Done));
    });
}

#[test]
fn a_deadline_in_closed_is_harmless() {
    for_each_engine(|engine| {
        let probe = Probe::new(|cx, id, seen| {
            if let Seen::Closed(_) = seen {
                cx.deadline(id, Duration::ZERO);
            }
            Ok(())
        });
        let mut world = World::new(engine.runtime(), probe, Stream::new(Bytes));
        world.with(|cx, id| cx.abort(id));
        world.until_closed();
        settle(&mut world.runtime);
        assert_eq!(world.probe().closed.len(), 1);
    });
}

#[test]
fn the_longest_deadline_never_comes() {
    for_each_engine(|engine| {
        let mut world = World::new(engine.runtime(), Probe::quiet(), Stream::new(Bytes));
        world.until_seen(Seen::Open);
        settle(&mut world.runtime);
        world.with(|cx, id| cx.deadline(id, Duration::MAX));
        assert_eq!(world.runtime.next_deadline(), None);
    });
}
