//! Timers: never early, never in their own turn, in order, cancellable, bounded.

mod common;

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use common::{Engine, LONG, Probe, SHORT, for_each_engine, until};
use reactor::{Bytes, Runtime, ServiceId, TimerId};

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
fn timers_of_one_instant_fire_in_the_order_set_and_others_by_time() {
    for_each_engine(|engine| {
        let (mut runtime, service) = world(engine, Probe::quiet());
        runtime.with(service, |_, cx| {
            for n in 10..20 {
                cx.after(SHORT, n);
            }
            for n in 0..10 {
                cx.after(SHORT / 2, n);
            }
            cx.after(Duration::from_nanos(1), 100);
        });
        until(&mut runtime, |runtime| messages(runtime, service).len() == 21);
        assert_eq!(messages(&runtime, service), [100].into_iter().chain(0..20).collect::<Vec<u64>>());
    });
}

#[test]
fn a_timer_is_never_early_and_the_loop_does_not_spin_for_it() {
    for_each_engine(|engine| {
        let (mut runtime, service) = world(engine, Probe::quiet());
        let metrics = runtime.metrics();
        for after in [1_u64, 999, 1_000_000, 1_000_001, 3_300_000, 7_777_777].map(Duration::from_nanos) {
            let began = Instant::now();
            runtime.with(service, |_, cx| _ = cx.after(after, 1));
            let (had, turns) = (messages(&runtime, service).len(), metrics.read().turns);
            while messages(&runtime, service).len() == had {
                runtime.turn(None).expect("whole");
            }
            assert!(began.elapsed() >= after, "{after:?} took {:?}", began.elapsed());
            assert!(
                metrics.read().turns - turns <= 2,
                "{after:?} took {} turns",
                metrics.read().turns - turns
            );
        }
    });
}

#[test]
fn a_cancelled_timer_never_fires_even_in_its_own_batch() {
    for_each_engine(|engine| {
        let second = Rc::new(RefCell::new(None::<TimerId>));
        let cancel = second.clone();
        let probe = Probe::<Bytes>::quiet().messages(move |cx, n| {
            if n == 1 {
                assert!(cx.cancel(cancel.borrow().expect("it was set")));
                assert!(!cx.cancel(cancel.borrow().expect("it was set")), "only once");
            }
            Ok(())
        });
        let (mut runtime, service) = world(engine, probe);
        runtime.with(service, |_, cx| {
            cx.after(Duration::ZERO, 1);
            *second.borrow_mut() = Some(cx.after(Duration::ZERO, 2));
            cx.after(Duration::ZERO, 3);
            let fresh = cx.after(Duration::ZERO, 4);
            assert!(cx.cancel(fresh), "also before it was armed");
        });
        until(&mut runtime, |runtime| messages(runtime, service).contains(&3));
        runtime.turn(Some(SHORT)).expect("whole");
        assert_eq!(messages(&runtime, service), [1, 3]);
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
