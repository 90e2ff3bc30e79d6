//! The call at the end of a turn: when it comes, how often, and what it costs an idle loop.

mod common;

use std::{
    cell::RefCell,
    io::{ErrorKind, Read},
    net::TcpStream,
    rc::Rc,
    time::Duration,
};

use common::{Engine, LONG, SHORT, for_each_engine, settle, tcp_pair};
use reactor::{
    AfterPanic, Bytes, Call, Closed, Context, During, Event, Handle, Id, Panic, Receive, Reply, Result,
    Runtime, Service, ServiceId, Stream,
};

type Log = Rc<RefCell<Vec<String>>>;

/// Collects numbers, and says at the end of the turn which they were.
struct Collector {
    name: &'static str,
    log: Log,
    numbers: Vec<u64>,
    /// Who is to read it.
    to: Option<Id<Stream>>,
    /// Asks in the call, so often.
    asks_again: u32,
    asks_at_start: bool,
    /// Tells these at the end of a turn.
    tells: Vec<(ServiceId<Collector>, u64)>,
    replies: Vec<Reply<u64>>,
}

impl Collector {
    fn new(name: &'static str, log: &Log) -> Collector {
        Collector {
            name,
            log: log.clone(),
            numbers: Vec::new(),
            to: None,
            asks_again: 0,
            asks_at_start: false,
            tells: Vec::new(),
            replies: Vec::new(),
        }
    }

    fn note(&self, what: impl std::fmt::Display) {
        self.log.borrow_mut().push(format!("{} {what}", self.name));
    }
}

impl Service for Collector {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        if self.asks_at_start {
            cx.at_end_of_turn();
        }
        Ok(())
    }

    fn end_of_turn(&mut self, cx: &mut Context<Self>) {
        let numbers = std::mem::take(&mut self.numbers);
        self.note(format_args!("ends with {numbers:?}"));
        if numbers.contains(&13) {
            panic!("as the test wants it");
        }
        if let Some(to) = self.to {
            cx.send(to, format!("{numbers:?}").as_bytes());
        }
        if self.asks_again > 0 {
            self.asks_again -= 1;
            cx.at_end_of_turn();
        }
        for (to, number) in self.tells.drain(..) {
            cx.tell(to, number).expect("room");
        }
        for reply in self.replies.drain(..) {
            reply.send(numbers.len() as u64);
        }
    }
}

impl Receive<u64> for Collector {
    fn receive(&mut self, cx: &mut Context<Self>, number: u64) -> Result {
        self.note(number);
        self.numbers.push(number);
        cx.at_end_of_turn();
        Ok(())
    }
}

impl Receive<Reply<u64>> for Collector {
    fn receive(&mut self, cx: &mut Context<Self>, reply: Reply<u64>) -> Result {
        self.replies.push(reply);
        cx.at_end_of_turn();
        Ok(())
    }
}

impl Handle<Stream> for Collector {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Event<Bytes>) -> Result {
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: Id<Stream>, _: Stream, _: Closed) {
        self.note("closed");
        cx.at_end_of_turn();
    }
}

/// A runtime with one collector.
fn with_one(engine: Engine, change: impl FnOnce(&mut Collector)) -> (Runtime, ServiceId<Collector>, Log) {
    let log = Log::default();
    let mut collector = Collector::new("a", &log);
    change(&mut collector);
    let mut runtime = engine.runtime();
    let service = runtime.add(collector).expect("it starts");
    (runtime, service, log)
}

fn add(runtime: &mut Runtime, service: ServiceId<Collector>, socket: TcpStream) -> Id<Stream> {
    let stream = Stream::new(Bytes).on(socket).expect("a socket");
    runtime.with(service, |_, cx| cx.add(stream).expect("room")).expect("it lives")
}

fn taken(log: &Log) -> Vec<String> {
    std::mem::take(&mut *log.borrow_mut())
}

fn turn(runtime: &mut Runtime) {
    runtime.turn(Some(Duration::ZERO)).expect("whole");
}

#[test]
fn one_call_follows_all_handlers_of_a_turn_and_precedes_its_writes() {
    for_each_engine(|engine| {
        let (mut runtime, service, log) = with_one(engine, |_| ());
        let (ours, mut peer) = tcp_pair();
        let id = add(&mut runtime, service, ours);
        settle(&mut runtime);
        runtime.service_mut(service).expect("it lives").to = Some(id);
        let controller = runtime.controller(service);
        controller.send(1).expect("room");
        controller.send(2).expect("room");
        runtime.with(service, |_, cx| cx.tell(cx.me(), 3_u64).expect("room"));
        turn(&mut runtime);
        assert_eq!(taken(&log), ["a 1", "a 2", "a 3", "a ends with [1, 2, 3]"]);
        // It has left in that very turn.
        peer.set_nonblocking(false).expect("a socket");
        let mut buffer = [0; 16];
        let count = peer.read(&mut buffer).expect("it was sent");
        assert_eq!(&buffer[..count], b"[1, 2, 3]");
        settle(&mut runtime);
        assert_eq!(taken(&log), [""; 0], "nobody asked again");
    });
}

#[test]
fn who_asks_in_the_call_is_called_in_the_next_turn_and_an_idle_loop_rests() {
    for_each_engine(|engine| {
        let (mut runtime, service, log) = with_one(engine, |collector| collector.asks_again = u32::MAX);
        let controller = runtime.controller(service);
        controller.send(1).expect("room");
        turn(&mut runtime);
        assert_eq!(taken(&log), ["a 1", "a ends with [1]"], "once in a turn");
        assert_eq!(runtime.next_deadline(), None, "it brings no turn about");
        let turns = runtime.metrics().read().turns;
        runtime.turn(Some(2 * SHORT)).expect("whole");
        let took = runtime.metrics().read().turns - turns;
        assert_eq!(took, 1);
        assert_eq!(taken(&log), ["a ends with []"]);
        controller.send(2).expect("room");
        turn(&mut runtime);
        assert_eq!(taken(&log), ["a 2", "a ends with [2]"], "still once");
    });
}

#[test]
fn who_asks_after_the_call_or_outside_of_a_turn_is_called_without_a_wait() {
    for_each_engine(|engine| {
        let (mut runtime, service, log) = with_one(engine, |collector| collector.asks_at_start = true);
        assert_eq!(runtime.next_deadline(), Some(Duration::ZERO), "asked in start");
        runtime.turn(None).expect("it does not wait");
        assert_eq!(taken(&log), ["a ends with []"]);
        let (ours, _peer) = tcp_pair();
        let id = add(&mut runtime, service, ours);
        settle(&mut runtime);
        // Asked in the call, and then again in `closed` of the same turn: the second one counts.
        runtime.with(service, |collector, cx| {
            collector.asks_again = 1;
            cx.at_end_of_turn();
            cx.abort(id);
        });
        turn(&mut runtime);
        assert_eq!(taken(&log), ["a ends with []", "a closed"]);
        assert!(!runtime.is_over(), "a call is due");
        assert_eq!(runtime.next_deadline(), Some(Duration::ZERO), "asked in closed");
        runtime.turn(None).expect("it does not wait");
        assert_eq!(taken(&log), ["a ends with []"]);
        assert!(runtime.is_over());
    });
}

#[test]
fn several_services_are_called_in_the_order_they_asked() {
    for_each_engine(|engine| {
        let (mut runtime, a, log) = with_one(engine, |_| ());
        let b = runtime.add(Collector::new("b", &log)).expect("it starts");
        runtime.service_mut(b).expect("it lives").tells = vec![(a, 9)];
        runtime.controller(b).send(1).expect("room");
        runtime.controller(a).send(2).expect("room");
        runtime.controller(b).send(3).expect("room");
        turn(&mut runtime);
        assert_eq!(taken(&log), ["b 1", "a 2", "b 3", "b ends with [1, 3]", "a ends with [2]"]);
        // What was told there comes in the next turn, which does not wait.
        runtime.turn(None).expect("it does not wait");
        assert_eq!(taken(&log), ["a 9", "a ends with [9]"]);
    });
}

#[test]
fn a_panic_in_it_ends_its_service_and_the_others_are_called() {
    for_each_engine(|engine| {
        let (mut runtime, a, log) = with_one(engine, |_| ());
        let b = runtime.add(Collector::new("b", &log)).expect("it starts");
        runtime.controller(a).send(13).expect("room");
        runtime.controller(b).send(1).expect("room");
        turn(&mut runtime);
        assert_eq!(taken(&log), ["a 13", "b 1", "a ends with [13]", "b ends with [1]"]);
        assert!(runtime.service(a).is_none() && runtime.service(b).is_some());
        let receipt = runtime.run().expect("it ends");
        assert!(receipt.services[0].panicked.is_some() && receipt.services[1].panicked.is_none());
        assert_eq!(taken(&log), [""; 0]);
    });
}

#[test]
fn a_service_that_ended_in_its_turn_is_not_called() {
    for_each_engine(|engine| {
        struct Fails;
        impl Service for Fails {
            fn end_of_turn(&mut self, _: &mut Context<Self>) {
                panic!("it has ended");
            }
        }
        impl Receive<u64> for Fails {
            fn receive(&mut self, cx: &mut Context<Self>, _: u64) -> Result {
                cx.at_end_of_turn();
                panic!("as the test wants it");
            }
        }
        let mut runtime = engine.runtime();
        let service = runtime.add(Fails).expect("it starts");
        runtime.controller(service).send(1).expect("room");
        let receipt = runtime.run().expect("it ends");
        assert_eq!(receipt.services[0].panicked.as_deref(), Some("as the test wants it"));
        assert_eq!(runtime.metrics().read().panics, 1);
    });
}

#[test]
fn what_the_last_commands_of_a_stop_collect_has_an_end_of_turn() {
    for_each_engine(|engine| {
        let log = Log::default();
        let mut runtime = engine.with(|limits| limits.per_turn = 1);
        let service = runtime.add(Collector::new("a", &log)).expect("it starts");
        let controller = runtime.controller(service);
        let asked: Vec<_> = (0..5).map(|_| controller.ask(|reply: Reply<u64>| reply)).collect();
        controller.stop(Duration::ZERO);
        runtime.run().expect("it ends");
        assert!(taken(&log).len() < 5, "most were executed at the end, with one call");
        for pending in asked {
            pending.wait_for(LONG).expect("it is answered");
        }
    });
}

#[test]
fn an_observer_sees_the_call() {
    for_each_engine(|engine| {
        let (mut runtime, service, _) = with_one(engine, |_| ());
        let seen = Rc::new(RefCell::new(Vec::new()));
        let calls = seen.clone();
        runtime.observe(move |call| calls.borrow_mut().push(call));
        runtime.controller(service).send(1).expect("room");
        assert!(runtime.turn(Some(Duration::ZERO)).expect("whole"));
        assert_eq!(*seen.borrow(), [Call::Receive { service: 0 }, Call::EndOfTurn { service: 0 }]);
    });
}

#[test]
fn nobody_who_asked_for_nothing_is_called() {
    for_each_engine(|engine| {
        let (mut runtime, service, log) = with_one(engine, |_| ());
        let (ours, mut peer) = tcp_pair();
        let id = add(&mut runtime, service, ours);
        settle(&mut runtime);
        runtime.with(service, |_, cx| cx.send(id, b"x"));
        settle(&mut runtime);
        peer.set_nonblocking(true).expect("a socket");
        let mut buffer = [0; 2];
        assert_eq!(peer.read(&mut buffer).map_err(|e| e.kind()), Ok::<_, ErrorKind>(1));
        assert_eq!(taken(&log), [""; 0]);
    });
}

#[test]
fn a_service_that_outlives_its_panic_is_called_again_when_it_asks() {
    for_each_engine(|engine| {
        #[derive(Default)]
        struct Survives {
            calls: u32,
            panics: Vec<During>,
        }
        impl Service for Survives {
            fn end_of_turn(&mut self, _: &mut Context<Self>) {
                self.calls += 1;
                assert!(self.calls > 1, "as the test wants it");
            }

            fn panicked(&mut self, _: &mut Context<Self>, panic: &Panic) -> AfterPanic {
                self.panics.push(panic.during);
                AfterPanic::EndResource
            }
        }
        impl Receive<u64> for Survives {
            fn receive(&mut self, cx: &mut Context<Self>, _: u64) -> Result {
                cx.at_end_of_turn();
                Ok(())
            }
        }
        let mut runtime = engine.runtime();
        let service = runtime.add(Survives::default()).expect("it starts");
        for _ in 0..2 {
            runtime.controller(service).send(1).expect("room");
            turn(&mut runtime);
            turn(&mut runtime);
        }
        let survives = runtime.service(service).expect("it lives");
        assert_eq!((survives.calls, &survives.panics[..]), (2, &[During::EndOfTurn][..]));
    });
}
