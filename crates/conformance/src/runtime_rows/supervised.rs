//! O8 at runtime level: restarts of services after a panic, what survives them, and their limit.

use reactor::{Controller, Listener, Receipt, Refused, Reply, Restart, ServiceReceipt, file::Operation};

use super::prelude::*;

pub(super) const ROWS: &[Row] = &[
    row("O8r", "a supervised service lives again, and who connects meanwhile is served", &[], lives_again),
    row("O8r2", "what was sent to it waits for the next life, within the limit", &[], commands_wait),
    row("O8r3", "nothing that an earlier life asked for comes to the next", &[], forgets),
    row("O8r4", "a listener that is not asked for again is closed", &[], listeners),
    row("O8r5", "it ends when its restarts are used up, also by lives that cannot start", &[], used_up),
    row("O8r6", "a stop does not wait for a restart", &[], stopped),
];

/// The way in which a life of a [`Server`] starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Start {
    Well,
    Refuses,
    Panics,
}

/// The state that all lives share.
struct Plan {
    /// The listening addresses.
    addresses: RefCell<Vec<String>>,
    start: Cell<Start>,
    lives: Cell<u32>,
    /// The received messages, each with the life that received it.
    received: RefCell<Vec<(u32, u64)>>,
}

/// Echoes bytes. Each life has a number.
struct Server {
    plan: Rc<Plan>,
    life: u32,
    listeners: Vec<(Id<Listener<Stream>>, Address)>,
    closed: usize,
}

/// The text of the panics.
const SAYING: &str = "a panic of a life";
/// The message that makes its receiver panic.
const POISON: u64 = 666;

impl Service for Server {
    fn start(&mut self, cx: &mut Context<'_, Self>) -> Result {
        for address in self.plan.addresses.borrow().iter() {
            let listener = cx.listen(address.as_str(), |_| Some(Stream::new(Bytes)))?;
            self.listeners.push((listener, cx.local(listener)?));
        }
        match self.plan.start.get() {
            Start::Well => Ok(()),
            Start::Refuses => Err("a life that cannot start".into()),
            Start::Panics => panic!("{SAYING}"),
        }
    }
}

impl Handle<Stream> for Server {
    fn handle(&mut self, cx: &mut Context<'_, Self>, id: Id<Stream>, event: Event<'_, Bytes>) -> Result {
        if let Event::Received(bytes) = event {
            assert!(!bytes.contains(&b'!'), "{SAYING}");
            cx.send(id, bytes);
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Self>, _: Id<Stream>, _: Stream, _: Closed) {
        self.closed += 1;
    }
}

impl Receive<u64> for Server {
    fn receive(&mut self, _: &mut Context<'_, Self>, number: u64) -> Result {
        assert!(number != POISON, "{SAYING}");
        self.plan.received.borrow_mut().push((self.life, number));
        Ok(())
    }
}

impl Receive<Reply<u32>> for Server {
    fn receive(&mut self, _: &mut Context<'_, Self>, reply: Reply<u32>) -> Result {
        reply.send(self.life);
        Ok(())
    }
}

/// A supervised server, and a client.
struct Scene {
    rig: Rig,
    plan: Rc<Plan>,
    server: ServiceId<Server>,
    client: ServiceId<Probe>,
}

fn restart(delay: Duration) -> Restart {
    let mut restart = Restart::default();
    (restart.max, restart.delay) = (2, delay);
    restart
}

impl Scene {
    fn new(mut rig: Rig, delay: Duration, listeners: usize) -> Result<Scene, Stop> {
        let plan = Rc::new(Plan {
            addresses: RefCell::new(vec!["127.0.0.1:0".to_owned(); listeners]),
            start: Cell::new(Start::Well),
            lives: Cell::new(0),
            received: RefCell::default(),
        });
        let shared = plan.clone();
        let make = move || {
            shared.lives.set(shared.lives.get() + 1);
            let (plan, life) = (shared.clone(), shared.lives.get());
            Server { plan, life, listeners: Vec::new(), closed: 0 }
        };
        let server = rig.runtime.add_supervised(make, restart(delay)).map_err(|error| error.to_string())?;
        let client = rig.add(Probe::quiet())?;
        Ok(Scene { rig, plan, server, client })
    }

    fn controller(&self) -> Controller<Server> {
        self.rig.runtime.controller(self.server)
    }

    /// Makes the server panic, and waits for the panic.
    fn poison(&mut self) -> Outcome {
        let panics = self.rig.counters().panics;
        check!(self.controller().send(POISON).is_ok(), "there is room");
        self.rig.until("it has panicked", |rig| rig.counters().panics > panics)
    }

    fn until_life(&mut self, life: u32) -> Outcome {
        let server = self.server;
        self.rig.until("the next life has begun", |rig| {
            rig.runtime.service(server).is_some_and(|server| server.life == life)
        })
    }

    /// Returns the messages that a life has received.
    fn received(&self, life: u32) -> Vec<u64> {
        let received = self.plan.received.borrow();
        received.iter().filter(|(by, _)| *by == life).map(|(_, number)| *number).collect()
    }

    fn until_received(&mut self, life: u32, count: usize) -> Outcome {
        let plan = self.plan.clone();
        let by_it = move || plan.received.borrow().iter().filter(|(by, _)| *by == life).count();
        self.rig.until("it has received all", |_| by_it() == count)
    }

    /// Sends a greeting, and waits for the echo.
    fn echoes(&mut self, id: Id<Stream>) -> Outcome {
        let client = self.client;
        let before = self.rig.get(client).received(id);
        self.rig.with(client, |_, cx| cx.send(id, b"hello"));
        self.rig.until("it is echoed", |rig| rig.get(client).received(id) == before + 5)
    }

    fn connect(&mut self, address: &Address) -> Result<Id<Stream>, Stop> {
        self.rig.connect(self.client, address, Stream::new(Bytes))
    }

    fn until_closed(&mut self, id: Id<Stream>) -> Outcome {
        let client = self.client;
        let is_closed = |rig: &mut Rig| rig.get(client).closed.iter().any(|(of, ..)| *of == id);
        self.rig.until("the client's stream has closed", is_closed)
    }

    fn ends(mut self) -> Result<(Rig, Receipt), Stop> {
        self.rig.stop(Duration::from_secs(1));
        let receipt = self.rig.run()?;
        check!(self.rig.counters().resources == 0, "{} resources are left", self.rig.counters().resources);
        Ok((self.rig, receipt))
    }
}

fn of_server(receipt: &Receipt) -> Result<&ServiceReceipt, Stop> {
    let of = receipt.services.iter().find(|of| of.name.ends_with("Server"));
    of.ok_or_else(|| "the receipt knows nothing of it".into())
}

const DELAY: Duration = Duration::from_millis(30);

fn lives_again(fixture: &mut Fixture<'_>) -> Outcome {
    for delay in [Duration::ZERO, DELAY] {
        let mut scene = Scene::new(Rig::new(fixture)?, delay, 1)?;
        let (listener, address) = scene.rig.get(scene.server).listeners[0].clone();
        let old = scene.connect(&address)?;
        scene.echoes(old)?;
        // First a handler of a connection panics, then one of a command.
        scene.rig.with(scene.client, |_, cx| cx.send(old, b"!"));
        scene.until_closed(old)?;
        let why = &scene.rig.get(scene.client).closed[0].2;
        check!(matches!(why, Closed::Failed(_)), "the old life's peer saw {why:?}");
        scene.until_life(2)?;
        scene.poison()?;
        // These arrive while there is no service, or just after that.
        let meanwhile = [scene.connect(&address)?, scene.connect(&address)?];
        scene.until_life(3)?;
        for id in meanwhile {
            scene.echoes(id)?;
        }
        let server = scene.rig.get(scene.server);
        check!(server.listeners == [(listener, address)], "another listener: {:?}", server.listeners);
        check!(server.closed == 0, "it was told of an end of an earlier life");
        check!(scene.rig.get(scene.client).closed.len() == 1, "a client was turned away");
        let (_, receipt) = scene.ends()?;
        let of = of_server(&receipt)?;
        check!(of.restarts == 2 && of.panics == 2 && of.panicked.is_none(), "{of:?}");
        receipt.check()?;
    }
    Ok(())
}

/// Another service, which sends messages to the server.
struct Teller;

impl Service for Teller {}

fn commands_wait(fixture: &mut Fixture<'_>) -> Outcome {
    let rig = Rig::limited(fixture, |limits| limits.commands = 6)?;
    let mut scene = Scene::new(rig, DELAY, 0)?;
    let teller = scene.rig.add(Teller)?;
    let controller = scene.controller();
    // Commands 2 and 3 follow the poison in the same queue.
    for number in [1, POISON, 2, 3] {
        check!(controller.send(number).is_ok(), "there is room");
    }
    scene.rig.until("it has panicked", |rig| rig.counters().panics == 1)?;
    let to = scene.server;
    scene.rig.with(teller, |_, cx| cx.tell(to, 100_u64)).map_err(|refused| refused.to_string())?;
    let mut life = controller.ask(|reply: Reply<u32>| reply);
    for number in 4..7 {
        check!(controller.send(number).is_ok(), "there is room for {number}");
    }
    scene.rig.turn(Duration::ZERO)?;
    check!(matches!(controller.send(7_u64), Err(Refused::Full(7))), "the limit holds meanwhile");
    check!(life.try_take().is_none(), "nobody can have answered");
    scene.until_life(2)?;
    scene.until_received(2, 6)?;
    let mut received = scene.received(2);
    received.retain(|number| *number != 100);
    check!(received == [2, 3, 4, 5, 6], "{received:?}");
    check!(matches!(life.try_take(), Some(Ok(2))), "the next life has answered");
    drop(controller);
    scene.ends()?;
    Ok(())
}

fn forgets(fixture: &mut Fixture<'_>) -> Outcome {
    let mut scene = Scene::new(Rig::new(fixture)?, DELAY, 0)?;
    let server = scene.server;
    let asked = scene.rig.with(server, |_, cx| -> Result {
        cx.after(DELAY / 3, 10);
        cx.after(2 * DELAY, 11);
        cx.tell(cx.me(), POISON)?;
        cx.tell(cx.me(), 12_u64)?;
        cx.offload(|| 13_u64)?;
        cx.file(Operation::stat("/"), |_| 14_u64)?;
        Ok(())
    });
    asked.map_err(|failure| failure.to_string())?;
    scene.rig.until("it has panicked", |rig| rig.counters().panics == 1)?;
    scene.until_life(2)?;
    scene.rig.with(server, |_, cx| cx.after(3 * DELAY, 20));
    scene.until_received(2, 1)?;
    // An answer may have arrived before the panic.
    let old = scene.received(1).len() as u64;
    scene.rig.until("the answers were dropped", |rig| rig.counters().stale + old == 2)?;
    check!(scene.received(2) == [20], "{:?}", scene.received(2));
    check!(scene.rig.counters().timers == 0, "{} timers are left", scene.rig.counters().timers);
    scene.ends()?;
    Ok(())
}

fn listeners(fixture: &mut Fixture<'_>) -> Outcome {
    let mut scene = Scene::new(Rig::new(fixture)?, DELAY, 3)?;
    let [first, second, third] = &scene.rig.get(scene.server).listeners[..] else {
        return Err("three".into());
    };
    let (first, second, third) = (first.clone(), second.clone(), third.clone());
    // The new life asks for the first listener by its original address, and for the third by the address that
    // it got.
    *scene.plan.addresses.borrow_mut() = vec!["127.0.0.1:0".to_owned(), third.1.to_string()];
    scene.poison()?;
    scene.until_life(2)?;
    let server = scene.rig.get(scene.server);
    check!(server.listeners == [first.clone(), third.clone()], "{:?}", server.listeners);
    scene.rig.settle()?;
    for (address, is_open) in [(first.1, true), (second.1, false), (third.1, true)] {
        let id = scene.connect(&address)?;
        if is_open {
            scene.echoes(id)?;
        } else {
            scene.until_closed(id)?;
        }
    }
    scene.ends()?;
    Ok(())
}

fn used_up(fixture: &mut Fixture<'_>) -> Outcome {
    for start in [Start::Well, Start::Refuses, Start::Panics] {
        let mut scene = Scene::new(Rig::new(fixture)?, Duration::ZERO, 1)?;
        let address = scene.rig.get(scene.server).listeners[0].1.clone();
        scene.plan.start.set(start);
        scene.poison()?;
        if start == Start::Well {
            scene.until_life(2)?;
            scene.poison()?;
            scene.until_life(3)?;
            scene.poison()?;
        }
        let controller = scene.controller();
        let is_gone = || matches!(controller.send(1_u64), Err(Refused::Gone(_)));
        scene.rig.until("it has ended", |_| is_gone())?;
        check!(scene.plan.lives.get() == 3, "{start:?}: {} lives", scene.plan.lives.get());
        let id = scene.connect(&address)?;
        scene.until_closed(id)?;
        drop(controller);
        let (_, receipt) = scene.ends()?;
        let of = of_server(&receipt)?;
        check!(of.panicked.is_some() && of.restarts == 2, "{start:?}: {of:?}");
        let said = of.first_errors.iter().any(|error| error.contains("not started again"));
        check!(said, "{start:?}: {:?}", of.first_errors);
        check!(receipt.check().is_err(), "{start:?}: the receipt passes");
    }
    Ok(())
}

fn stopped(fixture: &mut Fixture<'_>) -> Outcome {
    let mut scene = Scene::new(Rig::new(fixture)?, Duration::from_secs(3600), 1)?;
    scene.poison()?;
    let controller = scene.controller();
    let mut life = controller.ask(|reply: Reply<u32>| reply);
    check!(controller.send(1_u64).is_ok(), "it is kept");
    scene.rig.turn(Duration::ZERO)?;
    check!(!scene.rig.runtime.is_over(), "a restart is due");
    let (_, receipt) = scene.ends()?;
    check!(matches!(life.try_take(), Some(Err(_))), "nobody will answer");
    check!(controller.send(1_u64).is_err(), "nobody will receive");
    let of = of_server(&receipt)?;
    check!(of.panicked.as_deref() == Some(SAYING) && of.restarts == 0, "{of:?}");
    Ok(())
}
