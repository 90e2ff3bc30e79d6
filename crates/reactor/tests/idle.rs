//! An idle runtime makes no turns, whatever is registered.

mod common;

use std::{
    net::Shutdown,
    time::{Duration, Instant},
};

use common::{Probe, Seen, World, add, for_each_engine, listen, settle, small_buffers, tcp_pair};
use reactor::{Bytes, Reactor, Stream};

/// Returns how many turns a runtime makes in 200 ms without a reason.
fn turns_in_idle(world: &mut World) -> u64 {
    settle(&mut world.runtime);
    let (service, metrics) = (world.service, world.runtime.metrics());
    let before = metrics.read().turns;
    world.runtime.with(service, |_, cx| _ = cx.after(Duration::from_millis(200), 1));
    let had = world.probe().messages.len();
    while world.probe().messages.len() == had {
        world.runtime.turn(None).expect("whole");
    }
    // One turn was for the timer.
    metrics.read().turns - before - 1
}

#[test]
fn nothing_registered_wakes_the_loop_by_itself() {
    for_each_engine(|engine| {
        let mut world = World::new(engine.runtime(), Probe::quiet(), Stream::new(Bytes));
        world.until_seen(Seen::Open);
        listen(&mut world.runtime, world.service, || Some(Stream::new(Bytes)));
        assert_eq!(turns_in_idle(&mut world), 0, "a stream and a listener");
        // Paused, with input followed by an end.
        let (ours, mut paused) = tcp_pair();
        let id = add(&mut world.runtime, world.service, Stream::new(Bytes), ours);
        world.runtime.with(world.service, |_, cx| cx.pause(id));
        std::io::Write::write_all(&mut paused, b"x").expect("room");
        paused.shutdown(Shutdown::Write).expect("a socket");
        assert_eq!(turns_in_idle(&mut world), 0, "paused with input");
        // Paused, and reset by its peer.
        let (ours, reset) = tcp_pair();
        let id = add(&mut world.runtime, world.service, Stream::new(Bytes), ours);
        world.runtime.with(world.service, |_, cx| cx.pause(id));
        settle(&mut world.runtime);
        common::reset_at_close(&reset);
        drop(reset);
        assert_eq!(turns_in_idle(&mut world), 0, "paused and reset");
        // Half open after its peer's end.
        let (ours, half) = tcp_pair();
        add(&mut world.runtime, world.service, Stream::new(Bytes).half_open(true), ours);
        half.shutdown(Shutdown::Write).expect("a socket");
        assert_eq!(turns_in_idle(&mut world), 0, "half open");
        // A queue whose peer does not read.
        let (ours, _full) = tcp_pair();
        small_buffers(&ours);
        let id = add(&mut world.runtime, world.service, Stream::new(Bytes), ours);
        world.runtime.with(world.service, |_, cx| cx.send(id, &vec![0; 3 << 20][..]));
        // The kernel may still move some bytes.
        assert!(turns_in_idle(&mut world) <= 2, "a full queue");
        // Lingering for a peer that does not end its side.
        let (ours, _silent) = tcp_pair();
        let id = add(&mut world.runtime, world.service, Stream::new(Bytes), ours);
        settle(&mut world.runtime);
        world.runtime.with(world.service, |_, cx| cx.close(id));
        assert!(turns_in_idle(&mut world) <= 2, "lingering");
        // A far deadline and a far timer.
        world.with(|cx, id| {
            cx.deadline(id, common::LONG);
            cx.after(common::LONG, 1);
        });
        assert!(turns_in_idle(&mut world) <= 2, "far timers");
    });
}

#[test]
fn a_reactor_at_rest_stays_at_rest_and_joins_at_once() {
    for_each_engine(|engine| {
        let (to_test, metrics) = std::sync::mpsc::channel();
        let reactor = Reactor::spawn_with(
            move || Ok(engine.runtime()),
            move |runtime| {
                to_test.send(runtime.metrics()).expect("the test listens");
                runtime.add(Probe::<Bytes>::quiet())
            },
        )
        .expect("it starts");
        let metrics = metrics.recv().expect("it was sent");
        std::thread::sleep(Duration::from_millis(50));
        let before = metrics.read().turns;
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(metrics.read().turns, before);
        let began = Instant::now();
        drop(reactor);
        assert!(began.elapsed() < Duration::from_secs(1));
    });
}
