//! Serial ports, unchanged, over a pseudo-terminal and over a simulated line: bytes, a slow reader, a
//! hang-up.
#![cfg(all(target_os = "linux", feature = "serial"))]

use std::time::{Duration, Instant};

use reactor::{
    Closed, Context, Controller, Flow, Handle, Id, Result, Runtime, Service, ServiceId,
    serial::{Serial, SerialEvent},
};
use sim::{NodeId, World};

/// Sends numbered lines for as long as the line takes them.
struct Meter {
    port: Option<Serial>,
    id: Option<Id<Serial>>,
    /// Keeps the runtime from ending by itself.
    alive: Option<Controller<Meter>>,
    sent: usize,
    rested: u32,
    ends: Vec<Option<i32>>,
}

/// Reads them, and rests on request.
struct Reader {
    port: Option<Serial>,
    id: Option<Id<Serial>>,
    alive: Option<Controller<Reader>>,
    bytes: Vec<u8>,
    ends: Vec<Option<i32>>,
}

/// This many lines exceed the high mark and the line's own capacity together.
const LINES: usize = 20_000;

fn line(number: usize) -> String {
    format!("{number:07}\n")
}

fn errno(why: &Closed) -> Option<i32> {
    why.io().and_then(std::io::Error::raw_os_error)
}

impl Meter {
    fn new(port: Serial) -> Meter {
        Meter { port: Some(port), id: None, alive: None, sent: 0, rested: 0, ends: Vec::new() }
    }

    fn go_on(&mut self, cx: &mut Context<Self>) {
        let Some(id) = self.id else { return };
        while self.sent < LINES {
            let flow = cx.send(id, line(self.sent).as_bytes());
            self.sent += 1;
            if flow == Flow::High {
                self.rested += 1;
                return;
            }
        }
    }
}

impl Service for Meter {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        if let Some(port) = self.port.take() {
            self.id = Some(cx.add(port)?);
            self.alive = Some(cx.controller());
            self.go_on(cx);
        }
        Ok(())
    }
}

impl Handle<Serial> for Meter {
    fn handle(&mut self, cx: &mut Context<Self>, _: Id<Serial>, event: SerialEvent<'_>) -> Result {
        if event == SerialEvent::Drained {
            self.go_on(cx);
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Serial>, _: Serial, why: Closed) {
        self.ends.push(errno(&why));
    }
}

impl Service for Reader {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        if let Some(port) = self.port.take() {
            let id = cx.add(port)?;
            cx.pause(id);
            self.id = Some(id);
            self.alive = Some(cx.controller());
        }
        Ok(())
    }
}

impl Handle<Serial> for Reader {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Serial>, event: SerialEvent<'_>) -> Result {
        if let SerialEvent::Received(bytes) = event {
            self.bytes.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Serial>, _: Serial, why: Closed) {
        self.ends.push(errno(&why));
    }
}

impl Reader {
    fn new(port: Serial) -> Reader {
        Reader { port: Some(port), id: None, alive: None, bytes: Vec::new(), ends: Vec::new() }
    }

    fn is_right(&self) -> bool {
        let whole: String = (0..LINES).map(line).collect();
        self.bytes == whole.as_bytes()
    }
}

const LENGTH: usize = LINES * 8;

fn simulated() -> (World, sim::Line, NodeId<Meter>, NodeId<Reader>) {
    let mut world = World::new(8154);
    let line = sim::Line::new(&mut world);
    let (one, other) = line.ends();
    let meter = world.add(move |runtime| runtime.add(Meter::new(Serial::hosted(one))));
    let reader = world.add(move |runtime| runtime.add(Reader::new(Serial::hosted(other))));
    world.run_for(Duration::from_millis(10));
    (world, line, meter, reader)
}

#[test]
fn a_slow_reader_holds_the_sender_back_and_nothing_is_lost() {
    let (mut world, _line, meter, reader) = simulated();
    let sent = world.service(meter).expect("it is up").sent * 8;
    assert!(sent > 64 << 10 && sent < 80 << 10, "{sent} bytes were sent to a reader that rests");
    world.with(reader, |reader, cx| cx.resume(reader.id.expect("added")));
    world.run_for(Duration::from_secs(10));
    assert!(world.service(reader).expect("it is up").is_right());
    assert!(world.service(meter).expect("it is up").rested >= 2);
}

#[test]
fn a_hang_up_ends_both_once_after_what_had_arrived() {
    let (mut world, line, meter, reader) = simulated();
    line.hang_up();
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.service(meter).expect("it is up").ends, [Some(5)]);
    assert!(world.service(reader).expect("it is up").ends.is_empty(), "it rests");
    world.with(reader, |reader, cx| cx.resume(reader.id.expect("added")));
    world.run_for(Duration::from_secs(1));
    let reader = world.service(reader).expect("it is up");
    assert_eq!(
        (reader.bytes.len(), &reader.ends[..]),
        (4096, &[Some(5)][..]),
        "what the line held, and the end"
    );
}

#[test]
fn one_seed_gives_one_run() {
    let digest = || {
        let (mut world, line, _, reader) = simulated();
        world.with(reader, |reader, cx| cx.resume(reader.id.expect("added")));
        world.run_for(Duration::from_millis(5));
        line.hang_up();
        world.run_for(Duration::from_secs(1));
        world.digest()
    };
    assert_eq!(digest(), digest());
}

/// Turns until the condition holds.
fn until(runtime: &mut Runtime, reader: ServiceId<Reader>, done: impl Fn(&Reader) -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done(runtime.service(reader).expect("it lives")) {
        assert!(Instant::now() < end, "it did not happen");
        runtime.turn(Some(Duration::from_millis(5))).expect("whole");
    }
}

#[test]
fn the_same_services_do_the_same_over_a_pseudo_terminal() {
    let (one, other) = Serial::pair().expect("one is free");
    let mut runtime = Runtime::new().expect("an engine opens");
    let meter = runtime.add(Meter::new(one)).expect("it starts");
    let reader = runtime.add(Reader::new(other)).expect("it starts");
    runtime.with(reader, |reader, cx| cx.resume(reader.id.expect("added")));
    until(&mut runtime, reader, |reader| reader.bytes.len() >= LENGTH);
    assert!(runtime.service(reader).expect("it lives").is_right());
    let meter_id = runtime.service(meter).expect("it lives").id.expect("added");
    runtime.with(meter, |_, cx| cx.close(meter_id));
    until(&mut runtime, reader, |reader| !reader.ends.is_empty());
    assert_eq!(runtime.service(reader).expect("it lives").ends, [Some(5)]);
}
