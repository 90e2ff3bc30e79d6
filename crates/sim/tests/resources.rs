//! A user's resource, unchanged, over a virtual source and over a real socket. Both give the same trace.
#![cfg(unix)]

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    rc::Rc,
    time::Duration,
};

use reactor::{
    Closed, Context, Controller, Handle, Id, Io, Outgoing, Pollable, Ready, Result, Runtime, Service,
    ServiceId, Source, Writable,
};
use sim::{Faults, Kind, NodeId, VirtualSource, World, WorldOptions};

/// The source under a pipe.
trait Base: 'static {
    fn source(&self) -> Source<'_>;
}

impl Base for UnixStream {
    fn source(&self) -> Source<'_> {
        Source::of(self)
    }
}

impl Base for Rc<VirtualSource> {
    fn source(&self) -> Source<'_> {
        VirtualSource::source(self)
    }
}

/// The resource: up to four bytes a step, and an empty event at the end.
struct Pipe<T>(T);

impl<T: Base> Pollable for Pipe<T> {
    type Event<'a> = &'a [u8];

    fn source(&self) -> Source<'_> {
        self.0.source()
    }

    fn step<'a>(&mut self, _: Ready, io: &mut Io<'_>, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        let count = io.read(self.0.source(), &mut buffer[..4])?;
        Ok(Some(&buffer[..count]))
    }
}

impl<T: Base> Writable for Pipe<T> {
    type Item<'a> = &'a [u8];

    fn encode(&mut self, item: &[u8], out: &mut Outgoing) -> Result {
        out.put(item);
        Ok(())
    }
}

/// The service: notes everything.
struct Noting<T> {
    id: Option<Id<Pipe<T>>>,
    trace: Vec<String>,
    back: Vec<Pipe<T>>,
}

impl<T: Base> Service for Noting<T> {}

impl<T: Base> Handle<Pipe<T>> for Noting<T> {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Pipe<T>>, bytes: &[u8]) -> Result {
        self.trace.push(format!("got {}", String::from_utf8_lossy(bytes)));
        if bytes == b"bad!" { Err("refused".into()) } else { Ok(()) }
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Pipe<T>>, back: Pipe<T>, why: Closed) {
        self.trace.push(match why.io() {
            Some(error) => format!("closed {:?}", error.kind()),
            None => format!("closed {why:?}"),
        });
        self.back.push(back);
    }
}

impl<T> Noting<T> {
    fn new() -> Noting<T> {
        Noting { id: None, trace: Vec::new(), back: Vec::new() }
    }
}

/// The other side of a source, and the service over it.
trait Rig {
    type Base: Base;
    fn put(&mut self, bytes: &[u8]);
    fn end(&mut self);
    fn taken(&mut self) -> Vec<u8>;
    fn act(&mut self, f: impl FnOnce(&mut Noting<Self::Base>, &mut Context<Noting<Self::Base>>));
    fn settle(&mut self);
    fn trace(&self) -> Vec<String>;
}

struct Simulated {
    world: World,
    node: NodeId<Noting<Rc<VirtualSource>>>,
    feed: Rc<VirtualSource>,
    /// Keeps the runtime from ending by itself.
    _alive: Controller<Noting<Rc<VirtualSource>>>,
}

impl Simulated {
    fn new(faults: Faults) -> Simulated {
        let mut rig = Simulated::without_room(faults);
        rig.feed.allow(1 << 20);
        rig.settle();
        rig
    }

    fn without_room(faults: Faults) -> Simulated {
        let mut options = WorldOptions::default();
        options.faults = faults;
        let mut world = World::with_options(5, options);
        let feed = Rc::new(world.virtual_source());
        let node = world.add(|runtime| runtime.add(Noting::new()));
        let mine = feed.clone();
        let alive = world.with(node, |service, cx| {
            service.id = cx.add(Pipe(mine)).ok();
            cx.controller()
        });
        Simulated { world, node, feed, _alive: alive.expect("it is up") }
    }
}

impl Rig for Simulated {
    type Base = Rc<VirtualSource>;

    fn put(&mut self, bytes: &[u8]) {
        self.feed.put(bytes);
    }

    fn end(&mut self) {
        self.feed.end();
    }

    fn taken(&mut self) -> Vec<u8> {
        self.feed.taken()
    }

    fn act(
        &mut self,
        f: impl FnOnce(&mut Noting<Rc<VirtualSource>>, &mut Context<Noting<Rc<VirtualSource>>>),
    ) {
        self.world.with(self.node, f).expect("it is up");
    }

    fn settle(&mut self) {
        self.world.run_for(Duration::from_millis(1));
    }

    fn trace(&self) -> Vec<String> {
        self.world.service(self.node).expect("it is up").trace.clone()
    }
}

struct Real {
    runtime: Runtime,
    id: ServiceId<Noting<UnixStream>>,
    other: UnixStream,
}

impl Real {
    fn new() -> Real {
        let (mine, other) = UnixStream::pair().expect("a pair");
        for socket in [&mine, &other] {
            socket.set_nonblocking(true).expect("it is a socket");
        }
        let mut runtime = Runtime::new().expect("an engine");
        let id = runtime.add(Noting::new()).expect("it starts");
        runtime.with(id, |service, cx| service.id = cx.add(Pipe(mine)).ok()).expect("it lives");
        Real { runtime, id, other }
    }
}

impl Rig for Real {
    type Base = UnixStream;

    fn put(&mut self, bytes: &[u8]) {
        self.other.write_all(bytes).expect("there is room");
    }

    fn end(&mut self) {
        self.other.shutdown(std::net::Shutdown::Write).expect("it is connected");
    }

    fn taken(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        match self.other.read_to_end(&mut all) {
            Ok(_) => all,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => all,
            Err(error) => panic!("{error}"),
        }
    }

    fn act(&mut self, f: impl FnOnce(&mut Noting<UnixStream>, &mut Context<Noting<UnixStream>>)) {
        self.runtime.with(self.id, f).expect("it lives");
    }

    fn settle(&mut self) {
        // A local socket is ready as soon as it was written to, so these turns see all events.
        for _ in 0..4 {
            self.runtime.turn(Some(Duration::ZERO)).expect("the engine works");
        }
    }

    fn trace(&self) -> Vec<String> {
        self.runtime.service(self.id).expect("it lives").trace.clone()
    }
}

/// Plays input in pieces, a pause, output, and the end.
fn life(rig: &mut impl Rig) -> (Vec<String>, Vec<u8>) {
    rig.put(b"abcdef");
    rig.settle();
    rig.act(|service, cx| cx.pause(service.id.expect("added")));
    rig.settle();
    rig.put(b"wait");
    rig.settle();
    rig.act(|service, _| service.trace.push("resumes".to_owned()));
    rig.act(|service, cx| cx.resume(service.id.expect("added")));
    rig.settle();
    rig.act(|service, cx| {
        cx.send(service.id.expect("added"), b"out");
    });
    rig.settle();
    let out = rig.taken();
    rig.end();
    rig.settle();
    rig.act(|service, cx| cx.close(service.id.expect("added")));
    rig.settle();
    (rig.trace(), out)
}

#[test]
fn a_whole_life_has_one_trace_on_both() {
    let expected = ["got abcd", "got ef", "resumes", "got wait", "got ", "closed Done"];
    let simulated = life(&mut Simulated::new(Faults::none()));
    assert_eq!(simulated.0, expected);
    assert_eq!(simulated.1, b"out");
    assert_eq!(life(&mut Real::new()), simulated);
}

/// Plays a handler that refuses its input.
fn refusal(rig: &mut impl Rig) -> Vec<String> {
    rig.put(b"bad!");
    rig.settle();
    rig.trace()
}

#[test]
fn a_refusal_has_one_trace_on_both() {
    let simulated = refusal(&mut Simulated::new(Faults::none()));
    assert_eq!(simulated.len(), 2, "{simulated:?}");
    assert!(simulated[1].contains("Refused"), "{simulated:?}");
    assert_eq!(refusal(&mut Real::new()), simulated);
}

/// Plays a release, after which the service gets no further events.
fn release(rig: &mut impl Rig) -> Vec<String> {
    rig.act(|service, cx| cx.release(service.id.expect("added")).expect("it is not closing"));
    rig.settle();
    rig.put(b"unseen");
    rig.settle();
    rig.trace()
}

#[test]
fn a_release_gives_it_back_on_both_and_it_can_be_added_again() {
    let (mut simulated, mut real) = (Simulated::new(Faults::none()), Real::new());
    for trace in [release(&mut simulated), release(&mut real)] {
        assert_eq!(trace, ["closed Released"]);
    }
    for trace in [again(&mut simulated), again(&mut real)] {
        assert_eq!(trace, ["closed Released", "got unse", "got en"]);
    }
}

fn again(rig: &mut impl Rig) -> Vec<String> {
    rig.act(|service, cx| {
        let back = service.back.pop().expect("it was given back");
        service.id = cx.add(back).ok();
    });
    rig.settle();
    rig.trace()
}

#[test]
fn output_waits_for_room_and_loses_nothing() {
    let mut rig = Simulated::without_room(Faults::none());
    rig.act(|service, cx| {
        cx.send(service.id.expect("added"), b"0123456789");
    });
    rig.settle();
    assert_eq!(rig.taken(), b"", "there is no room");
    for (room, expected) in [(3, &b"012"[..]), (1, b"3"), (100, b"456789")] {
        rig.feed.allow(room);
        rig.settle();
        assert_eq!(rig.taken(), expected);
    }
}

#[test]
fn a_failure_ends_it_after_what_was_there() {
    let mut rig = Simulated::new(Faults::none());
    rig.put(b"abcdef");
    rig.feed.fail();
    rig.settle();
    let trace = rig.trace();
    assert_eq!(trace[..2], ["got abcd", "got ef"]);
    assert!(trace.len() == 3 && trace[2].starts_with("closed"), "{trace:?}");
}

#[test]
fn a_source_that_lies_about_being_ready_is_no_end() {
    let mut rig = Simulated::new(Faults::none().with(Kind::SpuriousReady, 1_000_000));
    rig.put(b"abc");
    rig.settle();
    rig.put(b"d");
    rig.settle();
    assert_eq!(rig.trace(), ["got abc", "got d"]);
    assert!(rig.world.summary().faults.observed(Kind::SpuriousReady) > 0);
}
