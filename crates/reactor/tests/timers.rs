//! Timers: never early, never in their own turn, in order, cancellable, bounded.

mod common;

use std::{rc::Rc, time::Duration};

use common::{Engine, LONG, Probe, SHORT, for_each_engine, until};
use reactor::{Bytes, Runtime, ServiceId};

fn world(engine: Engine, probe: Probe) -> (Runtime, ServiceId<Probe>) {
    let mut runtime = engine.runtime();
    let service = runtime.add(probe).expect("it starts");
    (runtime, service)
}

fn messages(runtime: &Runtime, service: ServiceId<Probe>) -> Vec<u64> {
    runtime.service(service).expect("it lives").messages.clone()
}

#[test]
fn a_timer_of_zero_fires_once_in_the_next_turn() {
    for_each_engine(|engine| {
        // Each timer sets the next one, so each fires in its own turn.
        let probe = Probe::<Bytes>::quiet().messages(|cx, n| {
            if n < 3 {
                cx.after(Duration::ZERO, n + 1);
            }
            Ok(())
        });
        let (mut runtime, service) = world(engine, probe);
        runtime.with(service, |_, cx| _ = cx.after(Duration::ZERO, 1));
        for n in 1..=3 {
            runtime.turn(None).expect("whole");
            assert_eq!(messages(&runtime, service), (1..=n).collect::<Vec<u64>>());
        }
        runtime.turn(Some(SHORT)).expect("whole");
        assert_eq!(messages(&runtime, service).len(), 3);
    });
}

#[test]
fn a_timer_that_was_set_again_is_another_one() {
    for_each_engine(|engine| {
        let (mut runtime, service) = world(engine, Probe::quiet());
        let old = runtime.with(service, |_, cx| cx.after(Duration::ZERO, 1)).expect("it lives");
        until(&mut runtime, |runtime| messages(runtime, service) == [1]);
        runtime.with(service, |_, cx| {
            cx.after(SHORT, 2);
            assert!(!cx.cancel(old), "it fired");
        });
        until(&mut runtime, |runtime| messages(runtime, service) == [1, 2]);
        let other = runtime.add(Probe::<Bytes>::quiet()).expect("it starts");
        let timer = runtime.with(service, |_, cx| cx.after(SHORT, 3)).expect("it lives");
        assert_eq!(runtime.with(other, |_, cx| cx.cancel(timer)), Some(false), "it is another service's");
        until(&mut runtime, |runtime| messages(runtime, service).contains(&3));
    });
}

#[test]
fn the_longest_timer_never_fires_and_is_dropped_at_the_end() {
    struct Message(Rc<()>);
    struct Holder;
    impl reactor::Service for Holder {}
    impl reactor::Receive<Message> for Holder {
        fn receive(&mut self, _: &mut reactor::Context<Self>, message: Message) -> reactor::Result {
            panic!("{} holders of it", Rc::strong_count(&message.0))
        }
    }
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let service = runtime.add(Holder).expect("it starts");
        let witness = Rc::new(());
        runtime.with(service, |_, cx| {
            cx.after(Duration::MAX, Message(witness.clone()));
            cx.after(LONG, Message(witness.clone()));
            cx.stop(Duration::ZERO);
        });
        runtime.run().expect("it stops");
        drop(runtime);
        assert_eq!(Rc::strong_count(&witness), 1);
    });
}

#[test]
fn the_limit_of_timers_is_told_as_a_fault() {
    for_each_engine(|engine| {
        let mut runtime = engine.with(|limits| limits.timers = 2);
        let service = runtime.add(Probe::<Bytes>::quiet()).expect("it starts");
        runtime.with(service, |_, cx| {
            for n in 0..3 {
                cx.after(Duration::ZERO, n);
            }
        });
        until(&mut runtime, |runtime| !runtime.service(service).expect("it lives").faults.is_empty());
        let probe = runtime.service(service).expect("it lives");
        assert_eq!((&probe.messages[..], probe.faults.len()), (&[0, 1][..], 1));
        runtime.with(service, |_, cx| _ = cx.after(Duration::ZERO, 5));
        until(&mut runtime, |runtime| messages(runtime, service) == [0, 1, 5]);
    });
}

#[test]
fn timers_of_zero_do_not_starve_streams() {
    for_each_engine(|engine| {
        let probe = Probe::quiet().messages(|cx, n| {
            cx.after(Duration::ZERO, n);
            Ok(())
        });
        let mut world = common::World::new(engine.runtime(), probe, reactor::Stream::new(Bytes));
        world.with(|cx, _| (0..5000).for_each(|n| _ = cx.after(Duration::ZERO, n)));
        std::io::Write::write_all(&mut world.peer, b"x").expect("room");
        for _ in 0..4 {
            world.runtime.turn(None).expect("whole");
        }
        assert!(world.probe().saw(&common::Seen::got("x")));
        assert!(world.probe().messages.len() <= 4 * 1024, "at most 1,024 a turn");
    });
}
