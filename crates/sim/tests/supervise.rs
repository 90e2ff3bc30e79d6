//! The example `supervise` in a world, unchanged: its pauses, its signals, and its end, whatever the seed.
#![cfg(unix)]

#[path = "../../reactor/examples/supervise/orphans.rs"]
mod orphans;
#[path = "../../reactor/examples/supervise/output.rs"]
mod output;
#[path = "../../reactor/examples/supervise/service.rs"]
mod service;

use std::{cell::Cell, ffi::OsString, rc::Rc, time::Duration};

use reactor::signals::Signal;
use service::Supervise;
use sim::{Faults, Kind, Leaks, NodeId, Program, ProgramContext, World, WorldOptions};

/// Prints how often it has begun, and exits a while later with 1.
struct Failing(Rc<Cell<u32>>);

impl Program for Failing {
    fn begin(&mut self, cx: &mut ProgramContext<'_>) {
        self.0.set(self.0.get() + 1);
        cx.say(format!("begun {}\n", self.0.get()).as_bytes());
        cx.complain(b"not again");
        cx.after(Duration::from_millis(10), 0);
    }

    fn time(&mut self, cx: &mut ProgramContext<'_>, _: u64) {
        cx.exit(1);
    }
}

/// Prints its signals. SIGTERM ends it after this many seconds, or never.
struct Steady(Option<u64>);

impl Program for Steady {
    fn signal(&mut self, cx: &mut ProgramContext<'_>, number: i32) {
        cx.say(format!("signal {number}\n").as_bytes());
        if let (15, Some(seconds)) = (number, self.0) {
            cx.after(Duration::from_secs(seconds), 0);
        }
    }

    fn time(&mut self, cx: &mut ProgramContext<'_>, _: u64) {
        cx.say(b"bye\n");
        cx.exit(0);
    }
}

fn supervise(world: &mut World, commands: &[&str]) -> NodeId<Supervise> {
    let commands: Vec<_> = commands.iter().map(|command| vec![OsString::from(*command)]).collect();
    world.add(move |runtime| runtime.add(Supervise::new(commands.clone())))
}

fn printed(world: &mut World, node: NodeId<Supervise>) -> String {
    String::from_utf8(world.printed(node).0).expect("text")
}

#[test]
fn a_program_that_fails_begins_again_later_and_later() {
    let mut world = World::new(1);
    let begun = Rc::new(Cell::new(0));
    let count = begun.clone();
    world.program("failing", move |_| Failing(count.clone()));
    let node = supervise(&mut world, &["failing"]);
    // It begins after 0, 0.1, 0.3, 0.7, .. seconds, each time plus the duration of a run.
    world.run_for(Duration::from_secs(1));
    assert_eq!(begun.get(), 4);
    let said = printed(&mut world, node);
    for line in ["failing[1000]: begun 1", "failing[1000]! not again", "again in 100 ms", "again in 800 ms"] {
        assert!(said.contains(line), "{line:?} is not in {said}");
    }
    // In the end it begins once in 30 seconds.
    world.run_for(Duration::from_secs(600));
    let before = begun.get();
    world.run_for(Duration::from_secs(300));
    assert!((9..=10).contains(&(begun.get() - before)), "{} times in 300 s", begun.get() - before);
    assert!(printed(&mut world, node).contains("again in 30000 ms"));
    assert_eq!(world.end(), Leaks::default());
}

#[test]
fn a_program_that_cannot_be_executed_ends_it_at_the_beginning_and_is_retried_later() {
    let mut world = World::new(2);
    let node = supervise(&mut world, &["missing"]);
    let error = world.ended(node).and_then(|ended| ended.as_ref().err()).expect("it could not start");
    assert!(service::cause(error).starts_with("spawn missing: "), "{error}");
    let mut world = World::new(2);
    world.program("failing", |_| Failing(Rc::default()));
    let node = supervise(&mut world, &["failing"]);
    world.refuse_program("failing", 2);
    world.run_for(Duration::from_secs(1));
    let said = printed(&mut world, node);
    assert!(said.contains("spawn failing: ") && said.contains("again in 400 ms"), "{said}");
}

#[test]
fn signals_are_passed_on_and_all_end_by_themselves_or_are_killed() {
    for seed in 0..30 {
        let faults = [Kind::TinyRead, Kind::PartialSend, Kind::LateSend, Kind::Reorder]
            .into_iter()
            .fold(Faults::none(), |faults, kind| faults.with(kind, 100_000));
        let mut options = WorldOptions::default();
        options.faults = faults;
        let mut world = World::with_options(seed, options);
        world.program("quick", |_| Steady(Some(1)));
        world.program("stubborn", |_| Steady(None));
        let node = supervise(&mut world, &["quick", "stubborn"]);
        world.run_for(Duration::from_secs(1));
        assert!(world.signal(node, Signal::HUP));
        world.run_for(Duration::from_secs(1));
        assert!(world.signal(node, Signal::TERM));
        world.run_for(Duration::from_secs(4));
        assert!(world.is_up(node), "seed {seed}: it waits for the stubborn one");
        world.run_for(Duration::from_secs(4));
        let said = printed(&mut world, node);
        assert!(matches!(world.ended(node), Some(Ok(_))), "seed {seed}: {said}");
        for line in [
            "quick[1000]: signal 1",
            "stubborn[1001]: signal 1",
            "quick[1000]: signal 15",
            "quick[1000]: bye",
            "supervise: quick: exit status: 0",
            "stubborn[1001]: signal 15",
            "supervise: stubborn: signal: 9 (SIGKILL)",
        ] {
            assert_eq!(
                said.lines().filter(|said| *said == line).count(),
                1,
                "seed {seed}: {line:?} in {said}"
            );
        }
        assert_eq!(world.end(), Leaks::default(), "seed {seed}");
    }
}

#[test]
fn it_ends_with_the_reader_of_its_output() {
    let mut world = World::new(4);
    world.program("steady", |_| Steady(Some(0)));
    let node = supervise(&mut world, &["steady"]);
    world.run_for(Duration::from_secs(1));
    world.stop_listening(node);
    world.run_for(Duration::from_secs(1));
    assert!(matches!(world.ended(node), Some(Ok(_))), "it goes on for nobody");
    assert_eq!(world.leaks(), Leaks::default());
}
