//! Descriptors that pass in the simulated world, with services that also run on a real engine.
#![cfg(unix)]

use std::{
    cell::RefCell,
    fs::File,
    io::{self, IoSlice, Read as _, Write as _},
    rc::Rc,
    time::Duration,
};

use reactor::{
    Address, Bytes, Closed, Context, Descriptor, Descriptors, Event, Handle, Id, Listener, Message, Passed,
    Receive, Result, Runtime, Service, Source, Stream, engine::Engine,
};
use sim::{Digest, Faults, Kind, Leaks, NodeId, Plan, Sometimes, World, WorldOptions};

const SECOND: Duration = Duration::from_secs(1);
const SOCKET: &str = "/run/worker.sock";

/// Accepts connections, and passes each to the worker.
struct Dispatcher {
    worker: Option<Id<Descriptors>>,
    passed: u32,
}

impl Dispatcher {
    fn dial(&mut self, cx: &mut Context<Self>) -> Result {
        self.worker = Some(cx.connect(SOCKET, Descriptors::new())?);
        Ok(())
    }
}

impl Service for Dispatcher {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.listen("0.0.0.0:80", |_| Some(Stream::new(Bytes)))?;
        self.dial(cx)
    }
}

impl Handle<Stream> for Dispatcher {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        if let Event::Open = event {
            cx.release(id)?;
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: Id<Stream>, stream: Stream, why: Closed) {
        // Bytes that were already read accompany the descriptor, behind a byte with their number.
        let mut bytes = vec![u8::try_from(stream.unread().len()).expect("a client says little")];
        bytes.extend(stream.unread());
        if let (Closed::Released, Some(transport), Some(worker)) = (why, stream.into_transport(), self.worker)
        {
            cx.send(worker, Message { bytes: &bytes, descriptors: vec![transport.into()] });
            self.passed += 1;
        }
    }
}

impl Handle<Descriptors> for Dispatcher {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Descriptors>, _: Passed<'_>) -> Result {
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: Id<Descriptors>, _: Descriptors, _: Closed) {
        self.worker = None;
        cx.after(SECOND / 10, ());
    }
}

impl Receive<()> for Dispatcher {
    fn receive(&mut self, cx: &mut Context<Self>, (): ()) -> Result {
        self.dial(cx)
    }
}

/// Echoes over the connections that it receives.
#[derive(Default)]
struct Worker {
    bytes: Vec<u8>,
    waiting: Vec<Descriptor>,
    refused: u32,
    taken: u32,
}

impl Service for Worker {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let _: Id<Listener<Descriptors>> = cx.listen(SOCKET, |_| Some(Descriptors::new()))?;
        Ok(())
    }
}

impl Handle<Descriptors> for Worker {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Descriptors>, event: Passed<'_>) -> Result {
        match event {
            Passed::Open => return Ok(()),
            Passed::Received { bytes, descriptors, .. } => {
                self.bytes.extend_from_slice(bytes);
                self.waiting.extend(descriptors);
            }
            Passed::Refused { .. } => {
                // The worker does not know which message lost its descriptor.
                self.refused += 1;
                cx.close(id);
            }
            Passed::End => cx.close(id),
        }
        while let Some(length) = self.bytes.first().map(|length| usize::from(*length))
            && self.bytes.len() > length
        {
            let message: Vec<u8> = self.bytes.drain(..=length).collect();
            let transport = self.waiting.remove(0).into_transport()?;
            if let Ok(stream) = cx.add(Stream::new(Bytes).through(transport)) {
                cx.send(stream, &message[1..]);
            }
            self.taken += 1;
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Descriptors>, _: Descriptors, _: Closed) {
        self.bytes.clear();
        self.waiting.clear();
    }
}

impl Handle<Stream> for Worker {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        if let Event::Received(bytes) = event {
            cx.send(id, bytes);
        }
        Ok(())
    }
}

/// Connects, sends something, waits for the echo, and starts again.
struct Client {
    to: Address,
    got: usize,
    echoes: Rc<RefCell<u32>>,
}

impl Service for Client {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let id = cx.connect(&self.to, Stream::new(Bytes))?;
        cx.deadline(id, 5 * SECOND);
        cx.send(id, SAID);
        self.got = 0;
        Ok(())
    }
}

impl Handle<Stream> for Client {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        if let Event::Received(bytes) = event {
            assert_eq!(*bytes, SAID[self.got..self.got + bytes.len()], "another's echo");
            self.got += bytes.len();
            if self.got == SAID.len() {
                *self.echoes.borrow_mut() += 1;
                cx.close(id);
            }
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: Id<Stream>, _: Stream, _: Closed) {
        cx.after(SECOND / 10, ());
    }
}

impl Receive<()> for Client {
    fn receive(&mut self, cx: &mut Context<Self>, (): ()) -> Result {
        self.start(cx)
    }
}

const SAID: &[u8] = b"whoever serves me";

struct Scene {
    world: World,
    server: NodeId<Worker>,
    echoes: Rc<RefCell<u32>>,
}

fn scene(mut world: World, clients: usize) -> Scene {
    let server = world.add(|runtime: &mut Runtime| {
        let worker = runtime.add(Worker::default())?;
        runtime.add(Dispatcher { worker: None, passed: 0 })?;
        Ok(worker)
    });
    let echoes = Rc::<RefCell<u32>>::default();
    for _ in 0..clients {
        let to: Address = format!("{}:80", world.ip(server)).parse().expect("an address");
        let shared = echoes.clone();
        world.add(move |runtime| runtime.add(Client { to: to.clone(), got: 0, echoes: shared.clone() }));
    }
    Scene { world, server, echoes }
}

#[test]
fn connections_are_passed_to_a_worker_that_serves_them() {
    let run = |seed| -> Digest {
        let Scene { mut world, server, echoes } = scene(World::new(seed), 3);
        world.run_for(10 * SECOND);
        let worker = world.service(server).expect("it lives");
        assert_eq!((worker.refused, worker.waiting.len()), (0, 0));
        assert!(worker.taken > 100 && *echoes.borrow() > 100, "{} taken", worker.taken);
        let digest = world.digest();
        assert_eq!(world.end(), Leaks::default());
        digest
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

/// With all faults and without any: its own worker serves each connection, or the connection ends, and none
/// is left over.
#[test]
fn whatever_happens_no_descriptor_is_left_over() {
    let mut sometimes = Sometimes::of(["a descriptor was refused", "the server was down"]);
    let plans = (0..40).map(|seed| Plan::draw(seed, 4, 10 * SECOND));
    let found = sim::hunt(plans, |plan| {
        let Scene { mut world, server, echoes } = scene(plan.world(), plan.nodes - 1);
        world.schedule_chaos(plan.time, SECOND / 5);
        world.run_checked(plan.time, |world| {
            match world.service(server) {
                None => sometimes.reached("the server was down"),
                Some(worker) if worker.refused > 0 => sometimes.reached("a descriptor was refused"),
                Some(_) => (),
            }
            Ok::<(), String>(())
        })?;
        world.stop_faults();
        let goal = *echoes.borrow() + 10;
        if !world.run_until(300 * SECOND, |_| *echoes.borrow() >= goal) {
            return Err("nobody is served although nothing is broken".to_owned());
        }
        match world.end() {
            leaks if leaks == Leaks::default() => Ok(()),
            leaks => Err(format!("left over: {leaks:?}")),
        }
    });
    assert_eq!(found.map_err(|failure| failure.to_string()), Ok(()));
    assert_eq!(sometimes.missing(), Vec::<&str>::new());
}

#[test]
fn where_no_descriptor_is_left_they_are_refused_and_closed() {
    let mut options = WorldOptions::default();
    options.faults = Faults::none().with(Kind::AcceptFails, 300_000);
    let Scene { mut world, server, .. } = scene(World::with_options(3, options), 2);
    let is_refused = |world: &mut World| world.service(server).is_some_and(|worker| worker.refused > 2);
    assert!(world.run_until(300 * SECOND, is_refused));
    assert_eq!(world.end(), Leaks::default());
}

/// Passes a real descriptor to another service of its node.
struct Owner(Option<File>);

impl Service for Owner {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let id = cx.connect(SOCKET, Descriptors::new())?;
        let descriptors = self.0.take().map(Descriptor::new).into_iter().collect();
        cx.send(id, Message { bytes: b"x", descriptors });
        cx.close(id);
        Ok(())
    }
}

impl Handle<Descriptors> for Owner {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Descriptors>, _: Passed<'_>) -> Result {
        Ok(())
    }
}

/// Writes to the descriptors that it receives.
struct Writer;

impl Service for Writer {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.listen(SOCKET, |_| Some(Descriptors::new()))?;
        Ok(())
    }
}

impl Handle<Descriptors> for Writer {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Descriptors>, event: Passed<'_>) -> Result {
        match event {
            Passed::Received { descriptors, .. } => {
                for descriptor in descriptors {
                    File::from(descriptor.into_fd()?).write_all(b"through a world")?;
                }
            }
            Passed::End => cx.close(id),
            Passed::Open | Passed::Refused { .. } => (),
        }
        Ok(())
    }
}

#[test]
fn what_a_service_opened_itself_passes_as_it_is() {
    let (mut reader, writer) = io::pipe().expect("a pipe");
    let mut file = Some(File::from(std::os::fd::OwnedFd::from(writer)));
    let mut world = World::new(4);
    world.add(move |runtime| {
        let writer = runtime.add(Writer)?;
        runtime.add(Owner(file.take()))?;
        Ok(writer)
    });
    world.run_for(SECOND);
    let mut all = String::new();
    reader.read_to_string(&mut all).expect("the only copy was closed");
    assert_eq!(all, "through a world");
}

#[test]
fn a_message_has_as_many_as_linux_lets_pass() {
    let mut world = World::new(5);
    let mut engine = world.engine();
    let address = Address::Path(SOCKET.into());
    let key = reactor::Key::new(0, 0, 0);
    let listener = engine.listen(&address, &Default::default()).expect("it is free");
    engine.attach(key, listener, reactor::engine::Role::Listener).expect("it is a listener");
    let link = engine.connect(&address, &Default::default()).expect("somebody listens");
    while engine.next().is_none() {
        engine.wait(None).expect("it does not break");
    }
    for (count, passes) in [(252, true), (253, true), (254, false)] {
        let mut with: Vec<Descriptor> = (0..count)
            .map(|_| {
                engine
                    .bind(&"127.0.0.1:0".parse().expect("an address"), &Default::default())
                    .expect("there are ports")
                    .into()
            })
            .collect();
        let passed = engine.pass(link.source(), &[IoSlice::new(b"x")], &mut with);
        assert_eq!(passed.is_ok(), passes, "{count}");
        assert_eq!(with.len(), if passes { 0 } else { count }, "what did not leave stays");
    }
    let unknown = engine.pass(Source::hosted(1 << 40), &[IoSlice::new(b"x")], &mut Vec::new());
    assert!(unknown.is_err());
    drop((link, engine));
    assert_eq!(world.leaks(), Leaks::default());
}
