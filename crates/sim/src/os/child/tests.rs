//! The record of children holds the existing ones only.

use std::{process::Command, time::Duration};

use reactor::{
    Context, Result, Service, Stream,
    process::{Process, SpawnOptions},
};

use super::*;
use crate::{world::World, world::node::NodeId};

/// A service that lives on and has children.
struct Parent;

impl Service for Parent {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.listen("0.0.0.0:1", |_| None::<Stream>)?;
        Ok(())
    }
}

impl reactor::Handle<Stream> for Parent {
    fn handle(
        &mut self,
        _: &mut Context<Self>,
        _: reactor::Id<Stream>,
        _: reactor::Event<reactor::Bytes>,
    ) -> Result {
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Tool {
    Brief,
    Parting,
    Lasting,
}

impl Program for Tool {
    fn begin(&mut self, cx: &mut ProgramContext<'_>) {
        match self {
            Tool::Brief => cx.exit(0),
            Tool::Parting => {
                cx.leave_behind(Duration::from_secs(1));
                cx.exit(0);
            }
            Tool::Lasting => (),
        }
    }
}

fn start(world: &mut World, node: NodeId<Parent>, program: &str) -> Process {
    let child = world.with(node, |_, cx| cx.spawn(&mut Command::new(program), &SpawnOptions::default()));
    child.expect("it lives").expect("it is known").process
}

#[test]
fn a_child_is_forgotten_when_it_has_ended_and_nobody_holds_its_output() {
    let mut world = World::new(8154);
    for (name, tool) in [("brief", Tool::Brief), ("parting", Tool::Parting), ("lasting", Tool::Lasting)] {
        world.program(name, move |_| tool);
    }
    let node = world.add(|runtime| runtime.add(Parent));
    let there = |world: &World| world.state.borrow().children.all.len();
    for round in 0..100 {
        let processes: Vec<Process> = (0..10).map(|_| start(&mut world, node, "brief")).collect();
        assert_eq!(there(&world), 10, "round {round}");
        world.run_for(Duration::from_millis(10));
        assert_eq!(there(&world), 0, "round {round}");
        // The process handle still notices the end, and no other child gets the number.
        for (at, process) in (0..).zip(processes) {
            assert_eq!(process.pid(), PID_FIRST + round * 10 + at);
            let error = process.signal(KILL).expect_err("it has ended");
            assert_eq!(error.raw_os_error(), Some(error::NO_PROCESS));
        }
    }
    start(&mut world, node, "parting");
    world.run_for(Duration::from_millis(500));
    assert_eq!((there(&world), world.leaks().children), (1, 0), "somebody holds its output");
    world.run_for(Duration::from_secs(1));
    assert_eq!(there(&world), 0);
    for program in ["parting", "lasting"] {
        start(&mut world, node, program);
    }
    world.run_for(Duration::from_millis(10));
    assert_eq!((there(&world), world.leaks().children), (2, 1));
    world.end();
    assert_eq!(there(&world), 0, "they go with their machine");
}
