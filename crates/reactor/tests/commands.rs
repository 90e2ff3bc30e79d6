//! Commands from other threads, and messages between services.

mod common;

use std::{
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use common::{Engine, LONG, Probe, Seen, World, for_each_engine, until};
use reactor::{
    Bytes, Context, Controller, Reactor, Receive, Refused, Reply, Result, Runtime, Service, Stream,
    Unanswered,
};

/// Records numbers of two types in order of arrival, and answers questions.
#[derive(Default)]
struct Ledger {
    numbers: Vec<u64>,
    told: Vec<u64>,
}

struct Odd(u64);
struct Told(u64);
struct Ask(Reply<Vec<u64>>);
struct Forget(#[expect(dead_code, reason = "it is dropped unanswered")] Reply<u64>);

impl Service for Ledger {}
impl Receive<u64> for Ledger {
    fn receive(&mut self, _: &mut Context<Self>, number: u64) -> Result {
        self.numbers.push(number);
        Ok(())
    }
}
impl Receive<Odd> for Ledger {
    fn receive(&mut self, _: &mut Context<Self>, odd: Odd) -> Result {
        self.numbers.push(odd.0);
        Ok(())
    }
}
impl Receive<Told> for Ledger {
    fn receive(&mut self, cx: &mut Context<Self>, told: Told) -> Result {
        self.told.push(told.0);
        if told.0 > 0 {
            cx.tell(cx.me(), Told(told.0 - 1)).map_err(|_| "full")?;
        }
        Ok(())
    }
}
impl Receive<Ask> for Ledger {
    fn receive(&mut self, _: &mut Context<Self>, ask: Ask) -> Result {
        ask.0.send(self.numbers.clone());
        Ok(())
    }
}
impl Receive<Forget> for Ledger {
    fn receive(&mut self, _: &mut Context<Self>, _: Forget) -> Result {
        Ok(())
    }
}

fn spawn(engine: Engine) -> Reactor<Ledger> {
    Reactor::spawn_with(move || Ok(engine.runtime()), |runtime| runtime.add(Ledger::default()))
        .expect("it starts")
}

#[test]
fn commands_of_one_sender_keep_their_order_over_all_types() {
    for_each_engine(|engine| {
        let reactor = spawn(engine);
        let controller = reactor.controller();
        for n in 0..20_000 {
            if n % 3 == 0 {
                controller.send(Odd(n)).expect("room");
            } else {
                controller.send(n).expect("room");
            }
        }
        let numbers = controller.ask(Ask).wait_for(LONG).expect("it answers");
        assert_eq!(numbers, (0..20_000).collect::<Vec<u64>>());
        controller.stop(Duration::ZERO);
        reactor.join().expect("it stops");
    });
}

#[test]
fn no_wake_is_lost_however_short_the_sleep() {
    for_each_engine(|engine| {
        let reactor = spawn(engine);
        let senders: Vec<_> = (0..3)
            .map(|_| {
                let controller = reactor.controller();
                thread::spawn(move || {
                    for _ in 0..300 {
                        controller.ask(Ask).wait_for(LONG).expect("it answers");
                        controller.send(1).expect("room");
                    }
                })
            })
            .collect();
        senders.into_iter().for_each(|sender| sender.join().expect("no sender panicked"));
        let numbers = reactor.controller().ask(Ask).wait_for(LONG).expect("it answers");
        assert_eq!(numbers.len(), 900);
    });
}

#[test]
fn a_full_queue_gives_the_command_back_and_has_room_again() {
    for_each_engine(|engine| {
        let mut runtime = engine.with(|limits| limits.commands = 3);
        let service = runtime.add(Ledger::default()).expect("it starts");
        let controller = runtime.controller(service);
        for n in 0..3 {
            controller.send(n).expect("up to the limit");
        }
        assert!(matches!(controller.send(Odd(3)), Err(Refused::Full(Odd(3)))));
        assert!(matches!(controller.ask(Ask).wait_for(LONG), Err(Unanswered::Gone)));
        until(&mut runtime, |runtime| runtime.service(service).expect("it lives").numbers == [0, 1, 2]);
        controller.send(4).expect("room again");
    });
}

#[test]
fn a_sender_keeps_the_order_of_its_controller_and_waits_for_room() {
    for_each_engine(|engine| {
        let build = |runtime: &mut Runtime| runtime.add(Ledger::default());
        let reactor = Reactor::spawn_with(move || Ok(engine.with(|limits| limits.commands = 4)), build)
            .expect("it starts");
        let controller = reactor.controller();
        let (numbers, odds) = (controller.sender::<u64>(), controller.sender::<Odd>().clone());
        let sender = thread::spawn(move || {
            for n in 0..3_000 {
                match n % 3 {
                    0 => numbers.send_timeout(n, LONG).expect("there will be room"),
                    1 => odds.send_timeout(Odd(n), LONG).expect("there will be room"),
                    _ => controller.send_timeout(n, LONG).expect("there will be room"),
                }
            }
            controller.sender::<Ask>()
        });
        let ask = sender.join().expect("it did not panic");
        // Retry, because the queue may still be full.
        let numbers = loop {
            match ask.ask(Ask).wait_for(LONG) {
                Ok(numbers) => break numbers,
                Err(Unanswered::Gone) => thread::yield_now(),
                Err(other) => panic!("{other}"),
            }
        };
        assert_eq!(numbers, (0..3_000).collect::<Vec<u64>>());
    });
}

#[test]
fn who_waits_for_room_when_the_runtime_stops_gets_the_command_back() {
    for_each_engine(|engine| {
        let mut runtime = engine.with(|limits| limits.commands = 1);
        let service = runtime.add(Ledger::default()).expect("it starts");
        let controller = runtime.controller(service);
        controller.send(1).expect("room");
        controller.stop(Duration::ZERO);
        let sender = thread::spawn(move || {
            // The first command may find room that the loop makes before it stops.
            (2..).find_map(|n| controller.send_timeout(n, LONG).err())
        });
        runtime.run().expect("it stops");
        let refused = sender.join().expect("it did not panic");
        assert!(matches!(refused, Some(Refused::Gone(_))), "{refused:?}");
    });
}

#[test]
fn a_sender_keeps_the_runtime_alive_and_goes_to_any_thread() {
    fn is_shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    for_each_engine(|engine| {
        /// Is not `Send`, so it must stay on its thread.
        struct Bound(std::rc::Rc<()>);
        impl Service for Bound {}
        impl Receive<u64> for Bound {
            fn receive(&mut self, _: &mut Context<Self>, _: u64) -> Result {
                assert_eq!(std::rc::Rc::strong_count(&self.0), 1);
                Ok(())
            }
        }
        let mut runtime = engine.runtime();
        let service = runtime.add(Bound(std::rc::Rc::new(()))).expect("it starts");
        let sender = runtime.controller(service).sender::<u64>();
        is_shared(&sender);
        assert!(!runtime.is_over(), "somebody may send");
        sender.send(1).expect("room");
        drop(sender.clone());
        assert!(!runtime.is_over(), "somebody may send");
        drop(sender);
        let receipt = runtime.run().and_then(reactor::Receipt::check).expect("it ends by itself");
        assert_eq!(receipt.services.len(), 1);
    });
}

#[test]
fn at_most_1024_commands_are_taken_in_one_turn() {
    for_each_engine(|engine| {
        for count in [1023, 1024, 1025_u64] {
            let mut runtime = engine.runtime();
            let service = runtime.add(Ledger::default()).expect("it starts");
            let controller = runtime.controller(service);
            (0..count).for_each(|n| controller.send(n).expect("room"));
            runtime.turn(None).expect("whole");
            assert_eq!(runtime.service(service).expect("it lives").numbers.len() as u64, count.min(1024));
            if count > 1024 {
                runtime.turn(None).expect("it does not wait for the rest");
                assert_eq!(runtime.service(service).expect("it lives").numbers.len() as u64, count);
            }
        }
    });
}

#[test]
fn a_flood_of_commands_does_not_starve_streams() {
    for_each_engine(|engine| {
        let mut world = World::new(engine.runtime(), Probe::<Bytes>::quiet(), Stream::new(Bytes));
        world.until_seen(Seen::Open);
        let controller = world.runtime.controller(world.service);
        for n in 0..60_000 {
            controller.send(n).expect("room");
        }
        std::io::Write::write_all(&mut world.peer, b"x").expect("room");
        for _ in 0..2 {
            world.runtime.turn(None).expect("whole");
        }
        assert!(world.probe().saw(&Seen::got("x")));
        assert!(world.probe().messages.len() <= 2048);
    });
}

#[test]
fn an_answer_that_never_comes_is_gone_and_one_asked_on_the_loop_would_deadlock() {
    for_each_engine(|engine| {
        let reactor = spawn(engine);
        assert!(matches!(reactor.controller().ask(Forget).wait_for(LONG), Err(Unanswered::Gone)));
        let mut runtime = engine.runtime();
        let service = runtime.add(Ledger::default()).expect("it starts");
        let pending = runtime.controller(service).ask(Ask);
        let Err(Unanswered::WouldDeadlock(pending)) = pending.wait() else {
            panic!("it would wait for itself")
        };
        runtime.turn(None).expect("whole");
        assert_eq!(pending.wait().expect("it is there"), Vec::<u64>::new());
    });
}

#[test]
fn after_the_stop_a_command_comes_back() {
    for_each_engine(|engine| {
        let reactor = spawn(engine);
        let controller = reactor.controller();
        controller.stop(Duration::ZERO);
        reactor.join().expect("it stops");
        assert!(matches!(controller.send(7), Err(Refused::Gone(7))));
        assert!(matches!(controller.ask(Ask).wait(), Err(Unanswered::Gone)));
        controller.stop(Duration::ZERO);
    });
}

#[test]
fn each_command_around_a_stop_is_executed_or_comes_back() {
    for_each_engine(|engine| {
        for round in 0..200 {
            let count = Arc::new(std::sync::atomic::AtomicU64::new(0));
            struct Count(Arc<std::sync::atomic::AtomicU64>);
            impl Service for Count {}
            impl Receive<()> for Count {
                fn receive(&mut self, _: &mut Context<Self>, (): ()) -> Result {
                    self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    Ok(())
                }
            }
            let copy = count.clone();
            let reactor =
                Reactor::spawn_with(move || Ok(engine.runtime()), |runtime| runtime.add(Count(copy)))
                    .expect("it starts");
            let barrier = Arc::new(Barrier::new(2));
            let (controller, go) = (reactor.controller(), barrier.clone());
            let sender = thread::spawn(move || {
                go.wait();
                let mut taken = 0;
                while controller.send(()).is_ok() {
                    taken += 1;
                }
                taken
            });
            barrier.wait();
            if round % 2 == 0 {
                thread::yield_now();
            }
            reactor.controller().stop(Duration::ZERO);
            reactor.join().expect("it stops");
            let taken = sender.join().expect("the sender did not panic");
            // `Full` ends the sender, too. Every accepted command was executed all the same.
            assert_eq!(count.load(std::sync::atomic::Ordering::Relaxed), taken);
        }
    });
}

#[test]
fn two_runtimes_with_full_queues_do_not_wait_for_each_other() {
    struct Ping {
        other: Option<Controller<Ping>>,
        refused: u64,
    }
    impl Service for Ping {}
    impl Receive<Controller<Ping>> for Ping {
        fn receive(&mut self, _: &mut Context<Self>, other: Controller<Ping>) -> Result {
            self.other = Some(other);
            Ok(())
        }
    }
    impl Receive<u64> for Ping {
        fn receive(&mut self, _: &mut Context<Self>, n: u64) -> Result {
            if let Some(other) = &self.other {
                for _ in 0..10 {
                    self.refused += other.send(n).is_err() as u64;
                }
            }
            Ok(())
        }
    }
    impl Receive<Reply<u64>> for Ping {
        fn receive(&mut self, _: &mut Context<Self>, reply: Reply<u64>) -> Result {
            self.other = None;
            reply.send(self.refused);
            Ok(())
        }
    }
    for_each_engine(|engine| {
        let make = move || {
            let build = |runtime: &mut Runtime| runtime.add(Ping { other: None, refused: 0 });
            Reactor::spawn_with(move || Ok(engine.with(|limits| limits.commands = 8)), build)
                .expect("it starts")
        };
        let (a, b) = (make(), make());
        a.controller().send(b.controller()).expect("room");
        b.controller().send(a.controller()).expect("room");
        a.controller().send(1).expect("room");
        let ask = |reactor: &Reactor<Ping>| {
            // The queue is full most of the time, so ask until there is room.
            let end = std::time::Instant::now() + LONG;
            loop {
                match reactor.controller().ask(|reply: Reply<u64>| reply).wait_for(LONG) {
                    Ok(refused) => return refused,
                    Err(Unanswered::Gone) => thread::yield_now(),
                    Err(other) => panic!("{other}"),
                }
                assert!(std::time::Instant::now() < end, "it never had room");
            }
        };
        ask(&a);
        ask(&b);
    });
}

#[test]
fn what_a_service_tells_itself_comes_in_the_next_turn_and_never_nests() {
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let service = runtime.add(Ledger::default()).expect("it starts");
        runtime.with(service, |_, cx| cx.tell(cx.me(), Told(3)).expect("room"));
        for told in 1..=4 {
            runtime.turn(None).expect("whole");
            assert_eq!(runtime.service(service).expect("it lives").told.len(), told);
        }
        assert_eq!(runtime.service(service).expect("it lives").told, [3, 2, 1, 0]);
    });
}

#[test]
fn the_limit_of_messages_gives_the_message_back() {
    for_each_engine(|engine| {
        let mut runtime = engine.with(|limits| limits.messages = 2);
        let service = runtime.add(Ledger::default()).expect("it starts");
        runtime.with(service, |_, cx| {
            let me = cx.me();
            cx.tell(me, Told(0)).expect("limit - 1");
            cx.tell(me, 1_u64).expect("limit");
            assert!(matches!(cx.tell(me, Told(9)), Err(Refused::Full(Told(9)))));
        });
        runtime.turn(None).expect("whole");
        runtime.with(service, |ledger, cx| {
            assert_eq!((&ledger.told[..], &ledger.numbers[..]), (&[0][..], &[1][..]));
            cx.tell(cx.me(), Told(0)).expect("room again");
        });
    });
}

#[test]
fn an_error_of_receive_is_a_fault_and_the_service_goes_on() {
    for_each_engine(|engine| {
        let probe = Probe::<Bytes>::quiet().messages(|_, n| if n == 1 { Err("odd".into()) } else { Ok(()) });
        let mut runtime = engine.runtime();
        let service = runtime.add(probe).expect("it starts");
        let controller = runtime.controller(service);
        controller.send(1).expect("room");
        controller.send(2).expect("room");
        until(&mut runtime, |runtime| runtime.service(service).expect("it lives").messages == [1, 2]);
        assert_eq!(runtime.service(service).expect("it lives").faults, ["odd"]);
        drop(controller);
        let receipt = runtime.run().expect("it ends by itself");
        assert_eq!(
            (receipt.services[0].faults, &receipt.services[0].first_faults[..]),
            (1, &["odd".to_owned()][..])
        );
    });
}
