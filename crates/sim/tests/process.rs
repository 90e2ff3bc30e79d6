//! Signals and a supervisor in the simulated world, with services that also run on a real engine.
#![cfg(unix)]

use std::{cell::RefCell, rc::Rc, time::Duration};

use reactor::{
    Bytes, Closed, Context, Event, Handle, Id, Receive, Result, Runtime, Service, ServiceId, Stream, Time,
    signals::{Arrived, Graceful, Signal, Signals},
    systemd::{Notice, Supervised},
};
use sim::{Happening, Harness, NodeId, World, WorldOptions};

const SECOND: Duration = Duration::from_secs(1);
const MOMENT: Duration = Duration::from_millis(1);

/// Notes signals, also over a crash.
struct Watch(Rc<RefCell<Vec<Arrived>>>);

impl Service for Watch {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.signals([Signal::HUP, Signal::USR1])?;
        Ok(())
    }
}

impl Handle<Signals> for Watch {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Signals>, event: Arrived) -> Result {
        self.0.borrow_mut().push(event);
        Ok(())
    }
}

fn watching(world: &mut World) -> (NodeId<Watch>, Rc<RefCell<Vec<Arrived>>>) {
    let noted = Rc::<RefCell<Vec<Arrived>>>::default();
    let shared = noted.clone();
    (world.add(move |runtime| runtime.add(Watch(shared.clone()))), noted)
}

#[test]
fn a_signal_is_told_to_its_node_alone() {
    let mut world = World::new(1);
    let (one, noted) = watching(&mut world);
    let (_, noted_there) = watching(&mut world);
    world.run_for(MOMENT);
    assert!(world.signal(one, Signal::HUP));
    world.run_for(MOMENT);
    assert!(world.signal(one, Signal::HUP));
    world.run_for(MOMENT);
    assert_eq!(*noted.borrow(), [Arrived { signal: Signal::HUP, times: 1 }; 2]);
    assert!(noted_there.borrow().is_empty());
}

#[test]
fn signals_of_a_kind_that_wait_together_become_one() {
    let mut counts = Vec::new();
    for seed in 0..20 {
        let mut world = World::new(seed);
        let (node, noted) = watching(&mut world);
        world.run_for(MOMENT);
        world.pause(node);
        (0..3).for_each(|_| assert!(world.signal(node, Signal::USR1)));
        assert!(world.signal(node, Signal::HUP));
        world.run_for(SECOND);
        assert!(noted.borrow().is_empty(), "a process that stands handles nothing");
        world.resume(node);
        world.run_for(MOMENT);
        let noted = noted.borrow();
        let times =
            |signal| noted.iter().find(|arrived| arrived.signal == signal).map(|arrived| arrived.times);
        assert_eq!((noted.len(), times(Signal::HUP)), (2, Some(1)), "{noted:?}");
        counts.extend(times(Signal::USR1));
    }
    // Each signal is counted at least once, and at most as often as it was sent. Twenty seeds show both.
    assert!(counts.iter().all(|times| (1..=3).contains(times)));
    assert!(counts.contains(&1) && counts.contains(&3), "{counts:?}");
}

#[test]
fn one_that_nobody_waits_for_does_what_the_system_does() {
    let mut world = World::new(2);
    let (node, noted) = watching(&mut world);
    world.run_for(MOMENT);
    for ignored in [Signal::CHLD, Signal::WINCH, Signal::CONT] {
        assert!(!world.signal(node, ignored) && world.is_up(node), "{ignored}");
    }
    assert!(!world.signal(node, Signal::TERM) && !world.is_up(node));
    assert!(!world.signal(node, Signal::HUP), "it is down");
    // The next life waits again, and gets no signal of the former life.
    world.restart(node);
    world.run_for(MOMENT);
    assert!(noted.borrow().is_empty());
    assert!(world.signal(node, Signal::HUP));
    world.run_for(MOMENT);
    assert_eq!(noted.borrow().len(), 1);
    assert_eq!(world.end(), sim::Leaks::default());
}

#[test]
fn in_a_bed_they_are_told_at_once() {
    let noted = Rc::<RefCell<Vec<Arrived>>>::default();
    let mut harness = Harness::new(Watch(noted.clone())).expect("it starts");
    assert!(harness.signal(Signal::HUP));
    assert_eq!(*noted.borrow(), [Arrived { signal: Signal::HUP, times: 1 }]);
    let mut harness = Harness::new(Supervised::new()).expect("it starts");
    harness.with(|supervised, cx| supervised.receive(cx, Notice::ready())).expect("it is told");
    assert!(harness.notices().iter().map(|(_, text)| text.as_str()).eq(["READY=1"]));
}

#[test]
fn it_is_in_the_history_and_in_the_digest() {
    let run = |signals: &[Signal]| {
        let mut options = WorldOptions::default();
        options.history_max = 10;
        let mut world = World::with_options(3, options);
        let (node, _) = watching(&mut world);
        world.run_for(MOMENT);
        signals.iter().for_each(|signal| _ = world.signal(node, *signal));
        world.run_for(MOMENT);
        let told: Vec<Signal> = world
            .history()
            .iter()
            .filter_map(|happening| match happening {
                Happening::Signalled { node: at, signal, .. } if *at == node.node() => Some(*signal),
                _ => None,
            })
            .collect();
        assert_eq!(told, signals);
        world.digest()
    };
    assert_eq!(run(&[Signal::HUP, Signal::USR1]), run(&[Signal::HUP, Signal::USR1]));
    assert_ne!(run(&[Signal::HUP, Signal::USR1]), run(&[Signal::USR1, Signal::HUP]));
    assert_ne!(run(&[Signal::CHLD]), run(&[Signal::WINCH]), "also one that nobody waits for");
}

/// Sends an answer that does not leave at once.
struct Server {
    supervised: ServiceId<Supervised>,
}

impl Service for Server {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.listen("0.0.0.0:7007", |_| Some(Stream::new(Bytes)))?;
        cx.tell(self.supervised, Notice::ready().and(Notice::status("listening")))?;
        Ok(())
    }
}

impl Handle<Stream> for Server {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        if let Event::Received(_) = event {
            cx.send(id, &[7; ANSWER]);
        }
        Ok(())
    }
}

struct Client {
    to: String,
    is_reading: bool,
    got: Rc<RefCell<Got>>,
}

/// The input of a client, even of one that has ended since.
#[derive(Default)]
struct Got {
    bytes: usize,
    /// Whether it was closed in an orderly way.
    closed: Option<bool>,
}

impl Service for Client {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let id = cx.connect(&self.to, Stream::new(Bytes))?;
        cx.send(id, b"please".as_slice());
        if !self.is_reading {
            cx.pause(id);
        }
        Ok(())
    }
}

impl Handle<Stream> for Client {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, event: Event<Bytes>) -> Result {
        if let Event::Received(bytes) = event {
            self.got.borrow_mut().bytes += bytes.len();
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Stream, why: Closed) {
        self.got.borrow_mut().closed = Some(why.is_clean());
    }
}

const ANSWER: usize = 2 << 20;

fn served(seed: u64, is_reading: bool) -> (World, NodeId<Graceful>, Rc<RefCell<Got>>) {
    let mut options = WorldOptions::default();
    options.watchdog = Some(2 * SECOND);
    let mut world = World::with_options(seed, options);
    let server = world.add(|runtime: &mut Runtime| {
        let supervised = runtime.add(Supervised::new())?;
        runtime.add(Server { supervised })?;
        runtime.add(Graceful::within(60 * SECOND))
    });
    let to = format!("{}:7007", world.ip(server));
    let got = Rc::<RefCell<Got>>::default();
    let shared = got.clone();
    world.add(move |runtime| runtime.add(Client { to: to.clone(), is_reading, got: shared.clone() }));
    (world, server, got)
}

#[test]
fn the_first_sigterm_lets_answers_leave_and_the_second_cuts_them() {
    for seed in 0..10 {
        for is_reading in [true, false] {
            let (mut world, server, got) = served(seed, is_reading);
            world.run_for(5 * MOMENT);
            assert!(world.signal(server, Signal::TERM));
            world.run_for(SECOND);
            assert_eq!(world.is_up(server), !is_reading, "seed {seed}");
            if !is_reading {
                assert!(world.signal(server, Signal::INT));
                world.run_for(MOMENT);
            }
            let receipt = world.ended(server).expect("it ended by itself").as_ref().expect("it is whole");
            assert_eq!(receipt.cut, u64::from(!is_reading), "seed {seed}: {receipt:?}");
            if is_reading {
                let got = got.borrow();
                assert_eq!((got.bytes, got.closed), (ANSWER, Some(true)), "seed {seed}");
            }
        }
    }
}

#[test]
fn the_supervisor_hears_the_start_the_watchdog_and_the_stop_at_their_moments() {
    let (mut world, server, _) = served(4, true);
    let begin = world.now();
    world.run_for(3 * SECOND + SECOND / 2);
    world.signal(server, Signal::TERM);
    world.run_for(SECOND);
    let told = world.notices(server);
    let texts: Vec<&str> = told.iter().map(|(_, text)| text.as_str()).collect();
    let expected = ["WATCHDOG=1", "READY=1\nSTATUS=listening", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"];
    assert_eq!(texts[..5], expected);
    assert_eq!(texts[5..], ["STOPPING=1"]);
    let since = |at: Time| at.since(begin).as_secs_f64();
    for (number, (at, _)) in told[2..5].iter().enumerate() {
        assert!((since(*at) - (number + 1) as f64).abs() < 0.01, "{told:?}");
    }
    assert!((since(told[5].0) - 3.5).abs() < 0.01, "{told:?}");
    assert_eq!(world.end(), sim::Leaks::default());
}

#[test]
fn the_same_service_is_told_the_same_over_the_process() {
    let mut world = World::new(5);
    let (node, in_world) = watching(&mut world);
    let over_process = Rc::<RefCell<Vec<Arrived>>>::default();
    let mut runtime = Runtime::new().expect("an engine");
    runtime.add(Watch(over_process.clone())).expect("it starts");
    let this = rustix::process::getpid();
    let signals = [
        (Signal::HUP, rustix::process::Signal::HUP),
        (Signal::USR1, rustix::process::Signal::USR1),
        (Signal::HUP, rustix::process::Signal::HUP),
    ];
    for (count, (signal, sent)) in signals.into_iter().enumerate() {
        world.signal(node, signal);
        world.run_for(MOMENT);
        rustix::process::kill_process(this, sent).expect("it lives");
        for _ in 0..20 {
            if over_process.borrow().len() <= count {
                runtime.turn(Some(SECOND)).expect("the engine is whole");
            }
        }
    }
    assert_eq!(*in_world.borrow(), *over_process.borrow());
}
