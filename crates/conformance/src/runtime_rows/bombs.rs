//! O1 and O5 at runtime level: errors that no service handles, and panics in users' code.
//!
//! The runtime reports unhandled errors. Panics occur where the library calls users' code, and where it drops
//! users' values, several at once, and also during the drop of the runtime itself.

use std::{
    io,
    panic::{panic_any, resume_unwind},
};

use reactor::{Error, Fault, Io, Outgoing, Pollable, Ready, Receipt, Source, Writable, file::Operation};

use super::{prelude::*, probe::Echo};
use crate::rows::descriptors::socket_pair;

pub(super) const ROWS: &[Row] = &[
    row("O1r", "what a service leaves behind may panic while it is dropped", &[], left_behind),
    row("O1r2", "the same while the runtime is dropped", &[], dropped_with_runtime),
    row("O1r3", "a panic of a job or of an answer's closure is a fault of its service", &[], elsewhere),
    row("O1r4", "an observer that panics is told nothing more", &[], observer),
    row("O5r", "an error that nobody takes fails its service, by name, and no other", &[], nobody_takes),
    row("O5r2", "an end names the peer, also of a connection that was reset", &[], names_the_peer),
    row("O1r5", "a panic in any function of a resource costs its service", SOCKETS, of_resources),
];

/// Panics when it is dropped, and so does the payload of that panic.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        // Resume instead of panic, so that the panic prints nothing.
        resume_unwind(Box::new(Fuse));
    }
}

struct Fuse;

impl Drop for Fuse {
    fn drop(&mut self) {
        resume_unwind(Box::new("the end of the fuse"));
    }
}

/// A service with its own client, which echoes whatever happens to the others.
struct Bystander {
    echo: ServiceId<Echo>,
    client: ServiceId<Probe>,
    id: Id<Stream>,
}

impl Bystander {
    fn beside(rig: &mut Rig) -> Result<Bystander, Stop> {
        let (echo, address) = rig.echo()?;
        let client = rig.add(Probe::quiet())?;
        let id = rig.connect(client, &address, Stream::new(Bytes))?;
        Ok(Bystander { echo, client, id })
    }

    /// Checks that the service still echoes.
    fn lives(&self, rig: &mut Rig) -> Outcome {
        check!(rig.runtime.service(self.echo).is_some(), "the bystander ended");
        let (client, id) = (self.client, self.id);
        let before = rig.get(client).received(id);
        rig.with(client, |_, cx| cx.send(id, b"still there?"));
        rig.until("the bystander answers", |rig| rig.get(client).received(id) == before + 12)
    }

    /// Stops the runtime, and checks that nothing is left.
    fn ends(self, mut rig: Rig, panicked: usize) -> Outcome {
        rig.with(self.client, |_, cx| cx.abort(self.id));
        rig.settle()?;
        rig.rests()?;
        rig.stop(Duration::from_secs(1));
        let receipt = rig.run()?;
        let count = receipt.services.iter().filter(|service| service.panicked.is_some()).count();
        check!(count == panicked, "{count} services panicked: {:?}", receipt.services);
        check!(rig.counters().resources == 0, "{} resources are left", rig.counters().resources);
        Ok(())
    }
}

/// Owns two of each kind of value that the library stores for a service.
struct Hoarder {
    _bomb: Bomb,
}

/// A message that makes a [`Hoarder`] panic.
struct Explode;

impl Service for Hoarder {}

impl Receive<Bomb> for Hoarder {
    fn receive(&mut self, _: &mut Context<'_, Self>, bomb: Bomb) -> Result {
        std::mem::forget(bomb);
        Ok(())
    }
}

impl Receive<Explode> for Hoarder {
    fn receive(&mut self, cx: &mut Context<'_, Self>, _: Explode) -> Result {
        hoard(cx)?;
        panic_any(Fuse)
    }
}

impl Handle<Stream> for Hoarder {
    fn handle(&mut self, _: &mut Context<'_, Self>, _: Id<Stream>, _: Event<'_, Bytes>) -> Result {
        Ok(())
    }
}

fn hoard(cx: &mut Context<'_, Hoarder>) -> Result {
    for _ in 0..2 {
        cx.after(Duration::from_secs(3600), Bomb);
        cx.tell(cx.me(), Bomb)?;
        cx.controller().send(Bomb)?;
        cx.offload(|| Bomb)?;
        let bomb = Bomb;
        cx.offload(move || bomb)?;
        cx.file(Operation::stat("/"), |_| Bomb)?;
        let bomb = Bomb;
        cx.listen("127.0.0.1:0", move |_| {
            let _ = &bomb;
            None::<Stream>
        })?;
    }
    Ok(())
}

fn left_behind(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let bystander = Bystander::beside(&mut rig)?;
    let hoarder = rig.add(Hoarder { _bomb: Bomb })?;
    let controller = rig.runtime.controller(hoarder);
    check!(controller.send(Explode).is_ok(), "there is room");
    drop(controller);
    rig.until("it has panicked", |rig| rig.counters().panics > 0)?;
    check!(rig.runtime.service(hoarder).is_none(), "it lives on");
    check!(rig.counters().timers == 0, "{} timers are left", rig.counters().timers);
    bystander.lives(&mut rig)?;
    bystander.ends(rig, 1)
}

fn dropped_with_runtime(fixture: &mut Fixture<'_>) -> Outcome {
    // After different numbers of turns, jobs, answers and connections are in different stages.
    for turns in 0..3 {
        let mut rig = Rig::new(fixture)?;
        let bystander = Bystander::beside(&mut rig)?;
        let hoarder = rig.add(Hoarder { _bomb: Bomb })?;
        rig.with(hoarder, |_, cx| hoard(cx)).map_err(|failure| failure.to_string())?;
        for _ in 0..turns {
            rig.turn(Duration::ZERO)?;
        }
        drop((rig, bystander));
    }
    Ok(())
}

/// Records its faults.
#[derive(Default)]
struct Employer(Vec<String>);

impl Service for Employer {
    fn fault(&mut self, _: &mut Context<'_, Self>, fault: Fault) {
        self.0.push(fault.to_string());
    }
}

impl Receive<u64> for Employer {
    fn receive(&mut self, _: &mut Context<'_, Self>, _: u64) -> Result {
        Err("no message was to come".into())
    }
}

fn elsewhere(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let bystander = Bystander::beside(&mut rig)?;
    let employer = rig.add(Employer::default())?;
    let asked = rig.with(employer, |_, cx| -> Result {
        cx.offload(|| -> u64 { panic_any(Fuse) })?;
        cx.file(Operation::stat("/"), |_| -> u64 { panic_any(Fuse) })?;
        Ok(())
    });
    asked.map_err(|failure| failure.to_string())?;
    rig.until("both were told", |rig| rig.get(employer).0.len() == 2)?;
    let faults = &rig.get(employer).0;
    check!(faults.iter().all(|fault| fault.contains("a payload that is no text")), "{faults:?}");
    bystander.lives(&mut rig)?;
    bystander.ends(rig, 0)
}

fn observer(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let told = Rc::new(Cell::new(0));
    let count = told.clone();
    let bomb = Bomb;
    rig.runtime.observe(move |_| {
        let _ = &bomb;
        count.set(count.get() + 1);
        panic_any(Fuse)
    });
    let bystander = Bystander::beside(&mut rig)?;
    bystander.lives(&mut rig)?;
    check!(told.get() == 1, "it was told {} times", told.get());
    bystander.ends(rig, 0)
}

/// The place where a [`Device`] panics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Nowhere,
    Source,
    Interest,
    Step,
    Encode,
    Flush,
    Drop,
}

const PLACES: [Place; 6] =
    [Place::Source, Place::Interest, Place::Step, Place::Encode, Place::Flush, Place::Drop];

/// A resource that panics in one of its functions, once it is armed.
struct Device {
    socket: std::net::TcpStream,
    place: Rc<Cell<Place>>,
}

impl Device {
    fn pass(&self, here: Place) {
        if self.place.get() == here {
            panic_any(Fuse);
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.pass(Place::Drop);
        }
    }
}

impl Pollable for Device {
    type Event<'a> = ();

    fn source(&self) -> Source<'_> {
        self.pass(Place::Source);
        Source::of(&self.socket)
    }

    fn interest(&self) -> Option<reactor::Interest> {
        self.pass(Place::Interest);
        Some(reactor::Interest::Read)
    }

    fn step(&mut self, _: Ready, io: &mut Io<'_>, buffer: &mut [u8]) -> io::Result<Option<()>> {
        self.pass(Place::Step);
        io.read(Source::of(&self.socket), buffer)?;
        Ok(Some(()))
    }
}

impl Writable for Device {
    type Item<'a> = &'a [u8];

    fn encode(&mut self, item: &[u8], out: &mut Outgoing) -> Result {
        self.pass(Place::Encode);
        out.put(item);
        Ok(())
    }

    fn flush(&mut self, io: &mut Io<'_>, out: &mut Outgoing) -> io::Result<()> {
        self.pass(Place::Flush);
        out.advance(io.write(Source::of(&self.socket), out)?);
        Ok(())
    }
}

/// Owns a device, and arms it at its first event.
struct Owner(Place);

impl Service for Owner {}

impl Handle<Device> for Owner {
    fn handle(&mut self, cx: &mut Context<'_, Self>, id: Id<Device>, (): ()) -> Result {
        let place = self.0;
        if let Some(device) = cx.get(id) {
            device.place.set(place);
        }
        cx.send(id, b"x");
        if place == Place::Drop {
            cx.abort(id);
        }
        Ok(())
    }
}

fn of_resources(fixture: &mut Fixture<'_>) -> Outcome {
    for place in PLACES {
        for is_dropped_with_runtime in [false, true] {
            let mut rig = Rig::new(fixture)?;
            let bystander = Bystander::beside(&mut rig)?;
            let (near, far) = socket_pair()?;
            let owner = rig.add(Owner(place))?;
            let now = Rc::new(Cell::new(Place::Nowhere));
            let device = Device { socket: near, place: now.clone() };
            let added = rig.with(owner, |_, cx| cx.add(device).map_err(|rejected| rejected.error));
            added?;
            if is_dropped_with_runtime {
                now.set(place);
                drop((rig, bystander));
                continue;
            }
            io::Write::write_all(&mut &far, b"x")?;
            rig.until("the first event came", |_| now.get() == place)?;
            // A panic at the previous event may have closed the peer already.
            let _ = io::Write::write_all(&mut &far, b"x");
            rig.until("it has panicked", |rig| rig.counters().panics > 0)
                .map_err(|stop| format!("{place:?}: {stop:?}"))?;
            check!(rig.runtime.service(owner).is_none(), "{place:?}: the service lives on");
            bystander.lives(&mut rig).map_err(|stop| format!("{place:?}: {stop:?}"))?;
            bystander.ends(rig, 1).map_err(|stop| format!("{place:?}: {stop:?}"))?;
        }
    }
    // The runtime rejects a device that panics from the start, and returns it with the cause.
    for place in [Place::Source, Place::Interest] {
        let mut rig = Rig::new(fixture)?;
        let owner = rig.add(Owner(place))?;
        let (near, _far) = socket_pair()?;
        let device = Device { socket: near, place: Rc::new(Cell::new(place)) };
        let refused = rig.with(owner, |_, cx| cx.add(device).map(|_| ()));
        check!(
            refused.is_err_and(|rejected| rejected.resource.place.get() == place),
            "{place:?}: it was added"
        );
        rig.finish()?;
    }
    Ok(())
}

/// Leaves each error to the default handlers.
struct Careless;

impl Service for Careless {}

impl Handle<Stream> for Careless {
    fn handle(&mut self, _: &mut Context<'_, Self>, _: Id<Stream>, event: Event<'_, Bytes>) -> Result {
        match event {
            Event::Received(_) => Err("an error of handle".into()),
            _ => Ok(()),
        }
    }
}

impl Receive<u64> for Careless {
    fn receive(&mut self, _: &mut Context<'_, Self>, _: u64) -> Result {
        Err("an error of receive".into())
    }
}

fn nobody_takes(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let bystander = Bystander::beside(&mut rig)?;
    let careless = rig.add(Careless)?;
    let address = rig.with(careless, |_, cx| -> Result<_, Error> {
        let listener = cx.listen("127.0.0.1:0", |_| Some(Stream::new(Bytes)))?;
        cx.local(listener)
    })?;
    // Cause an error of a handler, one of a receiver, and a refused connect.
    let client = rig.add(Probe::quiet())?;
    let id = rig.connect(client, &address, Stream::new(Bytes))?;
    rig.until("it is open", |rig| rig.get(client).open.len() == 1)?;
    let ours = rig.with(client, |_, cx| cx.local(id))?;
    rig.with(client, |_, cx| cx.send(id, b"x"));
    rig.until("the handler's error closed it", |rig| rig.get(client).closed.len() == 1)?;
    let (listener, free) = rig.with(client, |_, cx| -> Result<_, Error> {
        let listener = cx.listen("127.0.0.1:0", |_| None::<Stream>)?;
        Ok((listener, cx.local(listener)?))
    })?;
    rig.with(client, |_, cx| cx.close(listener));
    rig.settle()?;
    let asked = rig.with(careless, |_, cx| -> Result {
        cx.tell(cx.me(), 0_u64)?;
        cx.connect(&free, Stream::new(Bytes))?;
        Ok(())
    });
    asked.map_err(|failure| failure.to_string())?;
    rig.until("the fault was counted", |rig| rig.counters().faults == 1)?;
    rig.until("the connect failed", |rig| rig.counters().errors_os > 0)?;
    bystander.lives(&mut rig)?;
    rig.with(bystander.client, |_, cx| cx.abort(bystander.id));
    rig.settle()?;
    rig.stop(Duration::from_secs(1));
    let receipt = rig.run()?;
    are_told(
        receipt,
        &[&format!("{ours}: an error of handle"), "an error of receive", &format!("connect {free}")],
    )
}

/// Checks that the receipt fails because of these errors of one service.
fn are_told(receipt: Receipt, expected: &[&str]) -> Outcome {
    let failed: Vec<_> = receipt.services.iter().filter(|service| service.is_failed()).collect();
    check!(failed.len() == 1 && failed[0].name.ends_with("Careless"), "{failed:?}");
    let errors = &failed[0].first_errors;
    check!(failed[0].errors == expected.len() as u64, "{errors:?}");
    for expected in expected {
        let told = errors.iter().filter(|error| error.contains(expected)).count();
        check!(told == 1, "{expected} is told {told} times: {errors:?}");
    }
    let Err(error) = receipt.check() else { return Err("the receipt passes".into()) };
    let text = error.to_string();
    check!(text.starts_with("service Careless had 3 unhandled errors"), "{text}");
    Ok(())
}

fn names_the_peer(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let server = rig.add(Probe::quiet())?;
    let (_, address) = rig.listen(server, || Stream::new(Bytes))?;
    let client = rig.add(Probe::quiet())?;
    let id = rig.connect(client, &address, Stream::new(Bytes))?;
    rig.until("both are open", |rig| rig.get(client).open.len() == 1 && rig.get(server).open.len() == 1)?;
    let ours = rig.with(client, |_, cx| cx.local(id))?;
    rig.with(client, |_, cx| cx.abort(id));
    rig.until("the server sees the reset", |rig| rig.get(server).closed.len() == 1)?;
    let (_, _, why) = &rig.get(server).closed[0];
    // A transport without resets ends in order.
    if let Closed::Failed(error) = why {
        let text = error.to_string();
        let is_named = text.contains(&ours.to_string());
        let is_told = is_named || cfg!(not(any(target_os = "linux", target_os = "android")));
        check!(is_told && !text.contains("::Stream"), "{text}");
    } else {
        check!(fixture.is_virtual(), "the reset ended it as {why:?}");
    }
    rig.finish()
}
