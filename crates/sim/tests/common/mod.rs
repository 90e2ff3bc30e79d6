//! Two services for the tests of the world: an echo server, and its caller.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, SystemTime},
};

use reactor::{
    Bytes, Closed, Context, Error, Event, Handle, Id, Receive, Result as Done, Service, Stream, StreamOptions,
};
use sim::{NodeId, World, WorldOptions};

/// Echoes, and stays open after a peer has ended.
#[derive(Default)]
pub(crate) struct Server {
    address: String,
    ids: Vec<Id<Stream>>,
    got: Vec<u8>,
    pieces: usize,
    ends: u32,
    opened: u32,
    ended: Vec<String>,
    lives: u32,
}

/// Calls the server, once by itself.
pub(crate) struct Caller {
    address: String,
    ids: Vec<Id<Stream>>,
    got: Vec<u8>,
    opened: u32,
    ended: Vec<String>,
    ticks: u32,
    ends: u32,
}

/// Names how a stream ended: by the system's error kind, or by the library's variant.
fn word(why: &Closed) -> String {
    why.io().map_or_else(|| format!("{why:?}"), |error| format!("{:?}", error.kind()))
}

/// Makes a stream that reads even while much output waits. Two ends that do not would wait for each other.
fn stream() -> Stream {
    let options = StreamOptions::with(|options| options.backpressure = false);
    Stream::new(Bytes).half_open(true).options(options)
}

impl Service for Server {
    fn start(&mut self, cx: &mut Context<Self>) -> Done {
        cx.listen(&self.address, |_| Some(stream()))?;
        Ok(())
    }
}

impl Handle<Stream> for Server {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Done {
        match event {
            Event::Open => {
                self.opened += 1;
                self.ids.push(id);
            }
            Event::Received(bytes) => {
                self.got.extend_from_slice(bytes);
                self.pieces += 1;
                cx.send(id, bytes);
            }
            Event::End => self.ends += 1,
            Event::Drained | Event::HungUp => (),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Stream, why: Closed) {
        self.ended.push(word(&why));
    }
}

impl Service for Caller {
    fn start(&mut self, cx: &mut Context<Self>) -> Done {
        self.ids.push(cx.connect(&self.address, stream())?);
        // A runtime with nothing left to do would end, so this timer keeps it up.
        cx.after(FOREVER, ());
        Ok(())
    }
}

impl Handle<Stream> for Caller {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, event: Event<Bytes>) -> Done {
        match event {
            Event::Open => self.opened += 1,
            Event::Received(bytes) => self.got.extend_from_slice(bytes),
            Event::End => self.ends += 1,
            Event::Drained | Event::HungUp => (),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Stream, why: Closed) {
        self.ended.push(word(&why));
    }
}

impl Receive<()> for Caller {
    fn receive(&mut self, _: &mut Context<Self>, (): ()) -> Done {
        self.ticks += 1;
        Ok(())
    }
}

/// Makes a world with both, connected.
pub(crate) fn pair(seed: u64) -> (World, NodeId<Server>, NodeId<Caller>) {
    pair_with(seed, WorldOptions::default())
}

pub(crate) fn pair_with(seed: u64, options: WorldOptions) -> (World, NodeId<Server>, NodeId<Caller>) {
    let mut world = World::with_options(seed, options);
    let lives = Rc::new(Cell::new(0));
    let server = world.add(move |runtime| {
        lives.set(lives.get() + 1);
        runtime.add(Server { lives: lives.get(), ..Server::at("0.0.0.0:7007") })
    });
    let address = format!("{}:7007", world.ip(server));
    let caller = world.add(move |runtime| {
        let (address, ids, got, ended) = (address.clone(), Vec::new(), Vec::new(), Vec::new());
        runtime.add(Caller { address, ids, got, opened: 0, ended, ticks: 0, ends: 0 })
    });
    world.run_for(Duration::from_secs(1));
    assert_eq!(Caller::opened(&world, caller), 1, "it is connected");
    (world, server, caller)
}

impl Server {
    pub(crate) fn at(address: &str) -> Server {
        Server { address: address.to_owned(), ..Server::default() }
    }

    pub(crate) fn dial(&mut self, cx: &mut Context<Self>, address: &str) -> Result<Id<Stream>, Error> {
        cx.connect(address, stream())
    }

    fn of(world: &World, node: NodeId<Server>) -> &Server {
        world.service(node).expect("it is up")
    }

    pub(crate) fn got(world: &World, node: NodeId<Server>) -> Vec<u8> {
        Server::of(world, node).got.clone()
    }

    pub(crate) fn pieces(world: &World, node: NodeId<Server>) -> usize {
        Server::of(world, node).pieces
    }

    pub(crate) fn ends(world: &World, node: NodeId<Server>) -> u32 {
        Server::of(world, node).ends
    }

    pub(crate) fn opened(world: &World, node: NodeId<Server>) -> u32 {
        Server::of(world, node).opened
    }

    pub(crate) fn ended(world: &World, node: NodeId<Server>) -> Vec<String> {
        Server::of(world, node).ended.clone()
    }

    pub(crate) fn lives(world: &World, node: NodeId<Server>) -> u32 {
        Server::of(world, node).lives
    }

    pub(crate) fn set_reading(world: &mut World, node: NodeId<Server>, on: bool) {
        let change = |service: &mut Server, cx: &mut Context<Server>| {
            for id in &service.ids {
                if on { cx.resume(*id) } else { cx.pause(*id) }
            }
        };
        world.with(node, change).expect("it is up");
    }

    pub(crate) fn send_all(world: &mut World, node: NodeId<Server>, bytes: &[u8]) {
        let send = |service: &mut Server, cx: &mut Context<Server>| {
            for id in &service.ids {
                cx.send(*id, bytes);
            }
        };
        world.with(node, send).expect("it is up");
    }
}

impl Caller {
    fn of(world: &World, node: NodeId<Caller>) -> &Caller {
        world.service(node).expect("it is up")
    }

    fn act<T>(
        world: &mut World,
        node: NodeId<Caller>,
        f: impl FnOnce(&mut Caller, &mut Context<Caller>) -> T,
    ) -> T {
        world.with(node, f).expect("it is up")
    }

    pub(crate) fn send(world: &mut World, node: NodeId<Caller>, bytes: &[u8]) {
        Caller::act(world, node, |service, cx| cx.send(service.ids[0], bytes));
    }

    pub(crate) fn finish(world: &mut World, node: NodeId<Caller>) {
        Caller::act(world, node, |service, cx| cx.finish(service.ids[0]));
    }

    pub(crate) fn abort(world: &mut World, node: NodeId<Caller>) {
        Caller::act(world, node, |service, cx| cx.abort(service.ids[0]));
    }

    pub(crate) fn dial(world: &mut World, node: NodeId<Caller>) {
        let address = Caller::of(world, node).address.clone();
        Caller::dial_to(world, node, address);
    }

    pub(crate) fn dial_to(world: &mut World, node: NodeId<Caller>, address: String) {
        let id = Caller::act(world, node, |_, cx| cx.connect(&address, stream()));
        Caller::act(world, node, |service, _| service.ids.push(id.expect("it begins")));
    }

    pub(crate) fn wall(world: &mut World, node: NodeId<Caller>) -> SystemTime {
        Caller::act(world, node, |_, cx| cx.wall())
    }

    pub(crate) fn got(world: &World, node: NodeId<Caller>) -> Vec<u8> {
        Caller::of(world, node).got.clone()
    }

    pub(crate) fn opened(world: &World, node: NodeId<Caller>) -> u32 {
        Caller::of(world, node).opened
    }

    pub(crate) fn ended(world: &World, node: NodeId<Caller>) -> Vec<String> {
        Caller::of(world, node).ended.clone()
    }

    pub(crate) fn ends(world: &World, node: NodeId<Caller>) -> u32 {
        Caller::of(world, node).ends
    }

    pub(crate) fn ticks(world: &World, node: NodeId<Caller>) -> u32 {
        Caller::of(world, node).ticks
    }
}

const FOREVER: Duration = Duration::from_secs(1_000_000);
