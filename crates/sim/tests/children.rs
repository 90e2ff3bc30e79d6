//! Pipes, standard streams and child processes of a world. A service sees the same as on a real system, and
//! the same seed gives the same run.
#![cfg(unix)]

#[path = "../../reactor/examples/broadcast/service.rs"]
mod broadcast;
mod guest;

use std::{
    io::ErrorKind,
    os::unix::process::ExitStatusExt as _,
    process::{Command, ExitStatus},
    time::Duration,
};

use guest::Guest;
use reactor::{
    Bytes, Closed, Context, Event, Handle, Id, Result, Service, Stream,
    process::{Process, SpawnOptions},
};
use sim::{Digest, Faults, Kind, Leaks, NodeId, Program, ProgramContext, World, WorldOptions};

struct Input;
type In = Stream<Bytes, (), Input>;

/// Has one child, and notes its events.
#[derive(Default)]
struct Parent {
    told: Vec<Told>,
    output: Vec<u8>,
    process: Option<Id<Process>>,
    ids: Option<(Id<In>, Id<Stream>)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    Exit(i32),
    OutputEnd,
    InputFailed(ErrorKind),
    InputClosed,
}

impl Parent {
    fn start(&mut self, cx: &mut Context<Self>, program: &str, options: &SpawnOptions) -> Result {
        let child = cx.spawn(&mut Command::new(program), options)?;
        self.process = Some(cx.add(child.process)?);
        let input = Stream::new(Bytes).role().through(child.stdin.ok_or("it is piped")?);
        let output = Stream::new(Bytes).through(child.stdout.ok_or("it is piped")?);
        self.ids = Some((cx.add(input)?, cx.add(output)?));
        Ok(())
    }
}

impl Service for Parent {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        // Keeps the service alive after its child has ended.
        cx.listen("0.0.0.0:1", |_| None::<Stream>)?;
        Ok(())
    }
}

impl Handle<Process> for Parent {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Process>, status: ExitStatus) -> Result {
        self.told.push(Told::Exit(status.into_raw()));
        Ok(())
    }
}

impl Handle<Stream> for Parent {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, event: Event<Bytes>) -> Result {
        match event {
            Event::Received(bytes) => self.output.extend_from_slice(bytes),
            Event::End => self.told.push(Told::OutputEnd),
            Event::Open | Event::Drained | Event::HungUp => (),
        }
        Ok(())
    }
}

impl Handle<In> for Parent {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<In>, _: Event<Bytes>) -> Result {
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<In>, _: In, why: Closed) {
        self.told.push(why.io().map_or(Told::InputClosed, |error| Told::InputFailed(error.kind())));
    }
}

/// A program of a few words.
#[derive(Clone, Copy)]
enum Tool {
    /// Echoes its input, and ends with it.
    Cat,
    /// Writes 300,000 bytes, and exits with 4.
    Flood,
    /// Closes its output, and exits with 5 a second later.
    Mute,
    /// Exits with 6, and leaves a descendant behind that holds its output for a second.
    Parting,
    /// Closes its input, and lives on.
    Deaf,
    /// Lives on, even after SIGTERM.
    Stubborn,
}

impl Program for Tool {
    fn begin(&mut self, cx: &mut ProgramContext<'_>) {
        match self {
            Tool::Flood => {
                cx.say(&[7; 300_000]);
                cx.exit(4);
            }
            Tool::Mute => {
                cx.close_output();
                cx.after(Duration::from_secs(1), 0);
            }
            Tool::Parting => {
                cx.leave_behind(Duration::from_secs(1));
                cx.exit(6);
            }
            Tool::Deaf => cx.close_input(),
            Tool::Cat | Tool::Stubborn => (),
        }
    }

    fn input(&mut self, cx: &mut ProgramContext<'_>, bytes: &[u8]) {
        if let Tool::Cat = self {
            cx.say(bytes);
        }
    }

    fn input_ended(&mut self, cx: &mut ProgramContext<'_>) {
        if let Tool::Cat = self {
            cx.exit(0);
        }
    }

    fn signal(&mut self, cx: &mut ProgramContext<'_>, number: i32) {
        if !matches!((self, number), (Tool::Stubborn, libc_signal::TERM)) {
            cx.die(number);
        }
    }

    fn time(&mut self, cx: &mut ProgramContext<'_>, _: u64) {
        cx.exit(5);
    }
}

mod libc_signal {
    pub(crate) const KILL: i32 = 9;
    pub(crate) const PIPE: i32 = 13;
    pub(crate) const TERM: i32 = 15;
}

fn world_with(tool: Tool, seed: u64, faults: Faults) -> (World, NodeId<Parent>) {
    let mut options = WorldOptions::default();
    options.faults = faults;
    let mut world = World::with_options(seed, options);
    world.program("tool", move |_| tool);
    let node = world.add(|runtime| runtime.add(Parent::default()));
    (world, node)
}

fn started(tool: Tool, options: &SpawnOptions) -> (World, NodeId<Parent>) {
    let (mut world, node) = world_with(tool, 1, Faults::none());
    let begun = world.with(node, |parent, cx| parent.start(cx, "tool", options));
    begun.expect("it lives").expect("it starts");
    (world, node)
}

fn told(world: &World, node: NodeId<Parent>) -> Vec<Told> {
    world.service(node).expect("it lives").told.clone()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ (at >> 8)) as u8).collect()
}

#[test]
fn bytes_go_through_a_child_and_come_back_whole_and_the_same_with_each_seed() {
    let run = |seed| -> Digest {
        let faults = [Kind::TinyRead, Kind::PartialSend, Kind::LateSend, Kind::LateInput, Kind::Reorder]
            .into_iter()
            .fold(Faults::none(), |faults, kind| faults.with(kind, 100_000));
        let (mut world, node) = world_with(Tool::Cat, seed, faults);
        let bytes = pattern(200_000);
        let begun = world.with(node, |parent, cx| -> Result {
            parent.start(cx, "tool", &SpawnOptions::default())?;
            let (input, _) = parent.ids.ok_or("it has started")?;
            cx.send(input, &bytes);
            cx.finish(input);
            Ok(())
        });
        begun.expect("it lives").expect("it starts");
        let is_over = |world: &mut World| told(world, node).len() == 3;
        assert!(world.run_until(Duration::from_secs(60), is_over), "seed {seed}: {:?}", told(&world, node));
        let parent = world.service(node).expect("it lives");
        assert!(parent.output == bytes, "seed {seed}: what came back differs");
        for what in [Told::InputClosed, Told::OutputEnd, Told::Exit(0)] {
            assert!(parent.told.contains(&what), "seed {seed}: {:?}", parent.told);
        }
        assert_eq!(world.end(), Leaks::default(), "seed {seed}");
        world.digest()
    };
    for seed in 0..50 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(0), run(1));
}

#[test]
fn a_program_that_is_unknown_or_refused_is_an_error() {
    let (mut world, node) = world_with(Tool::Cat, 1, Faults::none());
    world.refuse_program("secret", 13);
    for (name, kind) in [("nothing", ErrorKind::NotFound), ("secret", ErrorKind::PermissionDenied)] {
        let error =
            world.with(node, |_, cx| cx.spawn(&mut Command::new(name), &SpawnOptions::default()).err());
        let error = error.expect("it lives").expect("it is refused");
        assert_eq!(error.io().map(std::io::Error::kind), Some(kind), "{error}");
    }
    assert_eq!(world.leaks().children, 0);
}

#[test]
fn exit_and_end_of_output_are_two_events() {
    for (tool, first, last) in [
        (Tool::Mute, Told::OutputEnd, Told::Exit(5 << 8)),
        (Tool::Parting, Told::Exit(6 << 8), Told::OutputEnd),
    ] {
        let (mut world, node) = started(tool, &SpawnOptions::default());
        world.run_for(Duration::from_millis(500));
        let before = told(&world, node);
        assert!(before.contains(&first) && !before.contains(&last), "half a second later: {before:?}");
        world.run_for(Duration::from_secs(1));
        let told = told(&world, node);
        assert!(told.contains(&last), "{told:?}");
    }
    // The descendant dies if the rest of the group ends with its leader.
    let mut options = SpawnOptions::default();
    (options.group, options.kill_rest) = (true, true);
    let (mut world, node) = started(Tool::Parting, &options);
    world.run_for(Duration::from_millis(500));
    assert!(told(&world, node).contains(&Told::OutputEnd), "{:?}", told(&world, node));
}

#[test]
fn a_flood_waits_in_the_pipe_while_it_is_paused() {
    let (mut world, node) = started(Tool::Flood, &SpawnOptions::default());
    let (_, output) = world.service(node).and_then(|parent| parent.ids).expect("it has started");
    world.with(node, |_, cx| cx.pause(output));
    world.run_for(Duration::from_secs(10));
    assert!(world.service(node).expect("it lives").output.is_empty());
    assert_eq!((told(&world, node), world.leaks().children), (vec![], 1), "it waits for its reader");
    world.with(node, |_, cx| cx.resume(output));
    world.run_for(Duration::from_secs(10));
    assert_eq!(world.service(node).expect("it lives").output.len(), 300_000);
    assert!(told(&world, node).contains(&Told::Exit(4 << 8)));
}

#[test]
fn a_pipe_that_nobody_reads_breaks_for_the_service_and_for_the_child() {
    let (mut world, node) = started(Tool::Deaf, &SpawnOptions::default());
    let (input, _) = world.service(node).and_then(|parent| parent.ids).expect("it has started");
    world.with(node, |_, cx| cx.send(input, &pattern(200_000)));
    world.run_for(Duration::from_secs(1));
    assert_eq!(told(&world, node), [Told::InputFailed(ErrorKind::BrokenPipe)]);
    let (mut world, node) = started(Tool::Flood, &SpawnOptions::default());
    let (_, output) = world.service(node).and_then(|parent| parent.ids).expect("it has started");
    world.with(node, |_, cx| cx.close(output));
    world.run_for(Duration::from_secs(1));
    assert!(told(&world, node).iter().any(|told| matches!(told, Told::Exit(_))), "{:?}", told(&world, node));
    let (mut world, node) = started(Tool::Cat, &SpawnOptions::default());
    let (input, output) = world.service(node).and_then(|parent| parent.ids).expect("it has started");
    world.with(node, |_, cx| cx.close(output));
    world.run_for(Duration::from_secs(1));
    world.with(node, |_, cx| cx.send(input, b"say it"));
    world.run_for(Duration::from_secs(1));
    assert!(told(&world, node).contains(&Told::Exit(libc_signal::PIPE)), "{:?}", told(&world, node));
}

#[test]
fn signals_reach_a_child_and_a_close_kills_it_if_asked_for() {
    let mut options = SpawnOptions::default();
    options.kill_on_close = true;
    let (mut world, node) = started(Tool::Stubborn, &options);
    let process = world.service(node).and_then(|parent| parent.process).expect("it has started");
    let terminate = |world: &mut World| {
        let sent = world.with(node, |_, cx| cx.get(process).map(Process::terminate));
        sent.flatten()
    };
    terminate(&mut world).expect("it is there").expect("it is told");
    world.run_for(Duration::from_secs(1));
    assert_eq!((told(&world, node), world.leaks().children), (vec![], 1));
    world.with(node, |_, cx| cx.close(process));
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.leaks().children, 0, "its close has killed it");
    let (mut world, node) = started(Tool::Stubborn, &SpawnOptions::default());
    let process = world.service(node).and_then(|parent| parent.process).expect("it has started");
    world.with(node, |_, cx| cx.get(process).map(|process| process.signal(libc_signal::KILL)));
    world.run_for(Duration::from_secs(1));
    assert!(told(&world, node).contains(&Told::Exit(libc_signal::KILL)), "{:?}", told(&world, node));
}

#[test]
fn children_go_with_their_machine() {
    let (mut world, node) = started(Tool::Stubborn, &SpawnOptions::default());
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.leaks().children, 1);
    assert_eq!(world.end(), Leaks::default());
    assert!(!world.is_up(node));
}

#[test]
fn children_go_with_their_machine_also_when_who_began_them_has_ended() {
    let (mut world, node) = started(Tool::Stubborn, &SpawnOptions::default());
    world.run_for(Duration::from_secs(1));
    world.with(node, |_, cx| cx.stop(Duration::ZERO)).expect("it lives");
    world.run_for(Duration::from_secs(1));
    assert!(matches!(world.ended(node), Some(Ok(_))), "{:?}", world.ended(node));
    assert_eq!(world.leaks().children, 1, "it lives on without its parent");
    assert_eq!(world.end(), Leaks::default());
}

#[test]
fn the_example_broadcast_runs_here_unchanged() {
    let mut world = World::new(3);
    let address = "0.0.0.0:7009".parse::<reactor::Address>().expect("an address");
    let program = world.add(move |runtime| runtime.add(broadcast::Broadcast::new(address.clone())));
    let guests = [(); 2].map(|()| Guest::add(&mut world, program, 7009));
    world.run_for(Duration::from_secs(1));
    world.type_in(program, b"to all\n");
    world.run_for(Duration::from_secs(1));
    Guest::say(&mut world, guests[0], b"from one\n");
    world.run_for(Duration::from_secs(1));
    assert_eq!(Guest::heard(&world, guests[0]), b"to all\n");
    assert_eq!(Guest::heard(&world, guests[1]), b"to all\nfrom one\n");
    assert_eq!(world.printed(program).0, b"from one\n");
    world.end_input(program);
    world.run_for(Duration::from_secs(20));
    assert!(matches!(world.ended(program), Some(Ok(_))), "the end of its input ends it");
    assert!(
        guests.iter().all(|guest| Guest::is_closed(&world, *guest)),
        "and with it what it was for others"
    );
}
