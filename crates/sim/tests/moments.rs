//! Moments and sources of a world: regressions for events that came too early, too often, or too late.

use std::{cell::RefCell, io, rc::Rc, time::Duration};

use reactor::{
    Bytes, Context, Event, Handle, Id, Interest, Io, Pollable, Ready, Receive, Result, Runtime, Service,
    Source, Stream, Time,
};
use sim::{Failure, Faults, Kind, NodeId, Plan, VirtualSource, World, shrink};

/// A resource over a virtual source.
struct Tap(u64, Rc<RefCell<Told>>);

#[derive(Default)]
struct Told {
    bytes: Vec<u8>,
    /// Steps without an event.
    idle: u32,
}

impl Pollable for Tap {
    type Event<'a> = &'a [u8];

    fn source(&self) -> Source<'_> {
        Source::hosted(self.0)
    }

    fn interest(&self) -> Option<Interest> {
        Some(Interest::Read)
    }

    fn step<'a>(&mut self, _: Ready, io: &mut Io<'_>, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        let result = io.read(Source::hosted(self.0), buffer);
        self.1.borrow_mut().idle += u32::from(result.is_err());
        result.map(|count| Some(&buffer[..count]))
    }
}

struct Reader(u64, Rc<RefCell<Told>>);

impl Service for Reader {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.add(Tap(self.0, self.1.clone()))?;
        Ok(())
    }
}

impl Handle<Tap> for Reader {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Tap>, bytes: &[u8]) -> Result {
        self.1.borrow_mut().bytes.extend_from_slice(bytes);
        Ok(())
    }
}

fn reader(world: &mut World, feed: &VirtualSource) -> (NodeId<Reader>, Rc<RefCell<Told>>) {
    let (number, told) =
        (feed.source().number().expect("it is a virtual one"), Rc::<RefCell<Told>>::default());
    let of = told.clone();
    let node = world.add(move |runtime: &mut Runtime| runtime.add(Reader(number, of.clone())));
    (node, told)
}

#[test]
fn a_source_without_faults_is_told_ready_only_when_it_is() {
    let mut world = World::new(1);
    let feed = world.virtual_source();
    let (_, told) = reader(&mut world, &feed);
    for part in [b"ab".as_slice(), b"c", b"def"] {
        feed.put(part);
        world.run_for(Duration::from_millis(1));
    }
    assert_eq!((told.borrow().bytes.as_slice(), told.borrow().idle), (b"abcdef".as_slice(), 0));
    assert_eq!(world.summary().faults.observed(Kind::SpuriousReady), 0);
}

#[test]
fn a_source_that_was_due_when_its_node_crashed_is_read_in_the_next_life() {
    for part in 0..2 {
        let mut world = World::new(1);
        let feed = world.virtual_source();
        let (node, told) = reader(&mut world, &feed);
        world.run_for(Duration::from_millis(1));
        // The source is on the list of an engine that goes away, before or after the node had an event.
        feed.put(b"ab");
        (0..part).for_each(|_| assert!(world.step()));
        world.crash(node);
        feed.put(b"cd");
        world.restart(node);
        world.run_for(Duration::from_millis(1));
        assert_eq!(told.borrow().bytes, b"abcd", "after {part} steps");
    }
}

#[test]
fn a_node_that_stands_makes_no_turn_also_if_it_was_about_to() {
    let mut world = World::new(1);
    let feed = world.virtual_source();
    let (node, told) = reader(&mut world, &feed);
    world.run_for(Duration::from_millis(1));
    feed.put(b"ab");
    world.pause(node);
    let turns = world.summary().turns;
    world.run_for(Duration::from_secs(1));
    assert_eq!((world.summary().turns, told.borrow().bytes.as_slice()), (turns, b"".as_slice()));
    world.resume(node);
    world.run_for(Duration::from_millis(1));
    assert_eq!(told.borrow().bytes, b"ab");
}

#[test]
fn a_node_that_begins_again_while_its_turn_is_due_makes_one() {
    let turns = |is_due: bool| {
        let mut world = World::new(1);
        let feed = world.virtual_source();
        let (node, _) = reader(&mut world, &feed);
        world.run_for(Duration::from_millis(1));
        if is_due {
            world.with(node, |_, _| ());
        }
        world.crash(node);
        world.restart(node);
        let before = world.summary().turns;
        world.run_for(Duration::from_millis(1));
        world.summary().turns - before
    };
    assert_eq!(turns(true), turns(false));
}

/// Resumes a stream with input in the same turn in which it sets an immediate timer.
struct Eager(Rc<RefCell<Vec<(Time, Time)>>>);
struct Resume(Id<Stream>);
struct Alarm(Time);

impl Service for Eager {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.listen("0.0.0.0:1", |_| Some(Stream::new(Bytes)))?;
        let id = cx.connect("127.0.0.1:1", Stream::new(Bytes))?;
        cx.send(id, b"hello".as_slice());
        Ok(())
    }
}

impl Handle<Stream> for Eager {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        if let Event::Open = event {
            cx.pause(id);
            cx.after(Duration::from_millis(5), Resume(id));
        }
        Ok(())
    }
}

impl Receive<Resume> for Eager {
    fn receive(&mut self, cx: &mut Context<Self>, Resume(id): Resume) -> Result {
        cx.resume(id);
        cx.after(Duration::ZERO, Alarm(cx.now()));
        Ok(())
    }
}

impl Receive<Alarm> for Eager {
    fn receive(&mut self, cx: &mut Context<Self>, Alarm(set): Alarm) -> Result {
        self.0.borrow_mut().push((set, cx.now()));
        Ok(())
    }
}

#[test]
fn a_turn_takes_time_also_when_it_makes_the_next_one_due() {
    let mut world = World::new(1);
    let told = Rc::<RefCell<Vec<(Time, Time)>>>::default();
    let of = told.clone();
    world.add(move |runtime: &mut Runtime| runtime.add(Eager(of.clone())));
    world.run_for(Duration::from_secs(1));
    let told = told.borrow();
    assert_eq!(told.len(), 2, "one of each end");
    assert!(told.iter().all(|(set, now)| now > set), "{told:?}");
}

#[test]
fn a_shrunk_plan_is_printed_whole() {
    let fails =
        |plan: &Plan| if plan.time >= Duration::from_micros(7_100) { Err("late".to_owned()) } else { Ok(()) };
    let plan = Plan { seed: 1, faults: Faults::none(), nodes: 2, time: Duration::from_millis(101) };
    let small = shrink(Failure::new(plan, ""), fails);
    assert_eq!(small.plan.time, Duration::from_millis(small.plan.time.as_millis() as u64));
}
