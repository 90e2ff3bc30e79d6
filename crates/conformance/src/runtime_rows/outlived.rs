//! O7 at runtime level: panics that a service survives by its own choice, and the cost of each.

use std::panic::{AssertUnwindSafe, catch_unwind};

use reactor::{AfterPanic, During, Fault, Panic, Receipt, ServiceReceipt};

use super::{
    fragile::{Armed, Brittle, FragileBytes, FragileLayer, Place, SAYING},
    prelude::*,
};

pub(super) const ROWS: &[Row] = &[
    row("O7r", "a panic costs its resource alone, where the service says so", &[], costs_a_resource),
    row(
        "O7r2",
        "one for which no resource is to blame costs a message, and a fault says so",
        &[],
        costs_a_message,
    ),
    row(
        "O7r3",
        "of an item whose encoder panicked nothing leaves, and its stream is reset",
        &[],
        half_an_item,
    ),
    row("O7r4", "a panic in the answer to a panic ends the service", &[], in_the_answer),
    row("O7r5", "a panic while a stream is registered leaves no stream behind", &[], while_registered),
];

/// The way in which a handler uses another stream's code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Use {
    /// Sends to the other stream. Its codec panics if it is armed.
    Sends,
    /// Calls the other stream's layer with a function that panics.
    Layer,
    /// Replaces the other stream's codec with a function that panics.
    Codec,
}

impl Use {
    fn of(self, cx: &mut Context<'_, Survivor>, to: Id<Brittle>) {
        match self {
            Use::Sends => _ = cx.send(to, ITEM),
            Use::Layer => _ = cx.layer(to, |_, _| -> Result { panic!("{SAYING}") }),
            Use::Codec => _ = cx.map_codec(to, |_| -> FragileBytes { panic!("{SAYING}") }),
        }
    }
}

/// Echoes bytes, and survives panics.
struct Survivor {
    armed: Armed,
    open: Vec<Id<Brittle>>,
    panics: Vec<Panic>,
    closed: Vec<(Id<Brittle>, Closed)>,
    faults: Vec<Fault>,
    received: Vec<u64>,
    /// How to use which other stream when input arrives, and whether the handler catches the panic itself.
    uses: Option<(Id<Brittle>, Use, bool)>,
    /// The answer to a panic panics, too.
    is_fragile: bool,
}

impl Survivor {
    fn new(armed: &Armed) -> Survivor {
        Survivor {
            armed: armed.clone(),
            open: Vec::new(),
            panics: Vec::new(),
            closed: Vec::new(),
            faults: Vec::new(),
            received: Vec::new(),
            uses: None,
            is_fragile: false,
        }
    }
}

impl Service for Survivor {
    fn fault(&mut self, _: &mut Context<'_, Self>, fault: Fault) {
        self.faults.push(fault);
        self.armed.pass(Place::Fault);
    }

    fn panicked(&mut self, _: &mut Context<'_, Self>, panic: &Panic) -> AfterPanic {
        assert!(!self.is_fragile, "{SAYING}");
        self.panics.push(panic.clone());
        AfterPanic::EndResource
    }
}

impl Handle<Brittle> for Survivor {
    fn handle(
        &mut self,
        cx: &mut Context<'_, Self>,
        id: Id<Brittle>,
        event: Event<'_, FragileBytes>,
    ) -> Result {
        match event {
            Event::Open => {
                self.open.push(id);
                self.armed.pass(Place::Open);
            }
            Event::Received(bytes) => {
                self.armed.pass(Place::Received);
                match self.uses {
                    Some((other, how, true)) => {
                        let _ = catch_unwind(AssertUnwindSafe(|| how.of(cx, other)));
                        cx.send(id, bytes);
                    }
                    Some((other, how, false)) => how.of(cx, other),
                    None => _ = cx.send(id, bytes),
                }
            }
            Event::End => self.armed.pass(Place::End),
            Event::Drained | Event::HungUp => (),
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<'_, Self>, id: Id<Brittle>, stream: Brittle, why: Closed) {
        let is_released = matches!(why, Closed::Released);
        self.closed.push((id, why));
        self.armed.pass(Place::Closed);
        if is_released {
            self.armed.place.set(Place::LayerHeld);
            let _ = cx.add(stream);
        }
    }
}

/// Panics if a place of the receiver is armed. Refuses odd numbers.
impl Receive<u64> for Survivor {
    fn receive(&mut self, _: &mut Context<'_, Self>, number: u64) -> Result {
        for place in [Place::Timer, Place::Message, Place::Command] {
            self.armed.pass(place);
        }
        self.received.push(number);
        if number % 2 == 1 { Err("an odd number".into()) } else { Ok(()) }
    }
}

/// Connects to this address.
impl Receive<Address> for Survivor {
    fn receive(&mut self, cx: &mut Context<'_, Self>, address: Address) -> Result {
        let armed = &self.armed;
        cx.connect(&address, Stream::over(FragileBytes(armed.clone()), FragileLayer(armed.clone())))?;
        Ok(())
    }
}

/// A survivor with a peer that it echoes to, whatever happens to others.
struct Scene {
    rig: Rig,
    armed: Armed,
    survivor: ServiceId<Survivor>,
    client: ServiceId<Probe>,
    address: Address,
    there: Id<Stream>,
}

impl Scene {
    fn new(fixture: &mut Fixture<'_>) -> Result<Scene, Stop> {
        let mut rig = Rig::new(fixture)?;
        let armed = Armed::once();
        let survivor = rig.add(Survivor::new(&armed))?;
        let fuse = armed.clone();
        let address = rig.with(survivor, |_, cx| -> Result<_> {
            let listener = cx.listen("127.0.0.1:0", move |_| {
                fuse.pass(Place::Accept);
                Some(Stream::over(FragileBytes(fuse.clone()), FragileLayer(fuse.clone())))
            })?;
            Ok(cx.local(listener)?)
        });
        let address = address.map_err(|failure| failure.to_string())?;
        let client = rig.add(Probe::quiet())?;
        let there = rig.connect(client, &address, Stream::new(Bytes))?;
        rig.until("the first is open", |rig| rig.get(survivor).open.len() == 1)?;
        Ok(Scene { rig, armed, survivor, client, address, there })
    }

    fn arm(&self, place: Place) {
        self.armed.place.set(place);
    }

    /// Connects another peer.
    fn connect(&mut self) -> Result<Id<Stream>, Stop> {
        self.rig.connect(self.client, &self.address, Stream::new(Bytes))
    }

    fn survivor(&self) -> &Survivor {
        self.rig.get(self.survivor)
    }

    /// Waits until the peer's stream has closed, and checks that it saw a reset.
    fn until_reset(&mut self, id: Id<Stream>) -> Outcome {
        let client = self.client;
        self.rig.until("the peer's stream has closed", |rig| {
            rig.get(client).closed.iter().any(|(of, ..)| *of == id)
        })?;
        let (.., why) = self.rig.get(client).closed.iter().find(|(of, ..)| *of == id).expect("just found");
        check!(matches!(why, Closed::Failed(_)), "the peer saw {why:?}");
        Ok(())
    }

    /// Checks that the survivor still echoes to the first peer, and to a new one.
    fn lives(&mut self) -> Outcome {
        let another = self.connect()?;
        for id in [self.there, another] {
            let client = self.client;
            let before = self.rig.get(client).received(id);
            self.rig.with(client, |_, cx| cx.send(id, b"still there?"));
            self.rig.until("it answers", |rig| rig.get(client).received(id) == before + 12)?;
        }
        Ok(())
    }

    /// Stops the runtime. Checks that the receipt counts this many panics, and does not fail because of them.
    fn ends(mut self, panics: u64) -> Outcome {
        check!(self.rig.counters().panics == panics, "{} panics", self.rig.counters().panics);
        self.rig.stop(Duration::from_secs(1));
        let receipt = self.rig.run()?;
        let of = of_survivor(&receipt)?;
        check!(of.panics == panics && of.panicked.is_none(), "{of:?}");
        check!(of.first_panics.iter().all(|said| said == SAYING), "{:?}", of.first_panics);
        check!(self.rig.counters().resources == 0, "{} resources are left", self.rig.counters().resources);
        receipt.check()?;
        Ok(())
    }
}

fn of_survivor(receipt: &Receipt) -> Result<&ServiceReceipt, Stop> {
    let of = receipt.services.iter().find(|of| of.name.ends_with("Survivor"));
    of.ok_or_else(|| "the receipt knows nothing of it".into())
}

fn costs_a_resource(fixture: &mut Fixture<'_>) -> Outcome {
    let places = [
        (Place::Open, During::Handle),
        (Place::Decode, During::Handle),
        (Place::Received, During::Handle),
        (Place::Encode, During::Handle),
        (Place::CodecEnd, During::Handle),
        (Place::End, During::Handle),
        (Place::Closed, During::Closed),
        (Place::LayerStart, During::Handle),
        (Place::LayerTransparent, During::Handle),
        (Place::LayerOpen, During::Handle),
        (Place::LayerSeal, During::Output),
        (Place::LayerFinish, During::Output),
        (Place::LayerEnd, During::Handle),
    ];
    for (place, during) in places {
        costs_it(fixture, place, during).map_err(|stop| format!("{place:?}: {stop:?}"))?;
    }
    Ok(())
}

/// Connects a peer that sends bytes, and finishes. The stream panics at one of these steps.
fn costs_it(fixture: &mut Fixture<'_>, place: Place, during: During) -> Outcome {
    let mut scene = Scene::new(fixture)?;
    scene.arm(place);
    let (client, id) = (scene.client, scene.connect()?);
    scene.rig.with(client, |_, cx| cx.send(id, b"some"));
    let mut is_finished = false;
    scene.rig.until("it has closed", |rig| {
        if rig.get(client).received(id) == 4 && !std::mem::replace(&mut is_finished, true) {
            rig.with(client, |_, cx| cx.finish(id));
        }
        rig.get(client).closed.iter().any(|(of, ..)| *of == id)
    })?;
    let survivor = scene.survivor;
    scene.rig.until("it was told", |rig| rig.get(survivor).closed.len() == 1)?;
    let survivor = scene.survivor();
    let [panic] = &survivor.panics[..] else { return Err(format!("{:?}", survivor.panics).into()) };
    let (ended, why) = &survivor.closed[0];
    check!(panic.is_of(*ended) && panic.message == SAYING && panic.during == during, "{panic:?}");
    if place != Place::Closed {
        check!(matches!(why, Closed::Panicked(with) if with == panic), "{why:?}");
        scene.until_reset(id)?;
    }
    let survivor = scene.survivor();
    check!(survivor.faults.is_empty(), "{:?}", survivor.faults);
    scene.lives()?;
    scene.ends(1)
}

fn costs_a_message(fixture: &mut Fixture<'_>) -> Outcome {
    let places = [
        (Place::Timer, During::Timer),
        (Place::Message, During::Message),
        (Place::Command, During::Command),
        (Place::Accept, During::Accept),
        (Place::Fault, During::Command),
    ];
    for (place, during) in places {
        let mut scene = Scene::new(fixture)?;
        scene.arm(place);
        let survivor = scene.survivor;
        match place {
            Place::Accept => {
                let id = scene.connect()?;
                scene.until_reset(id)?;
            }
            Place::Timer => _ = scene.rig.with(survivor, |_, cx| cx.after(Duration::from_millis(1), 2_u64)),
            Place::Message => {
                scene.rig.with(survivor, |_, cx| cx.tell(cx.me(), 2_u64)).map_err(|full| full.to_string())?
            }
            _ => {
                let odd = u64::from(place == Place::Fault);
                let controller = scene.rig.runtime.controller(survivor);
                check!(controller.send(2 + odd).is_ok(), "there is room");
            }
        }
        scene.rig.until("a fault says so", |rig| {
            rig.get(survivor).faults.iter().any(|fault| matches!(fault, Fault::Panicked(_)))
        })?;
        let told = scene.survivor();
        check!(told.panics[0].during == during && told.panics[0].resource.is_none(), "{:?}", told.panics);
        check!(told.closed.is_empty(), "{place:?}: {:?}", told.closed);
        let odd = usize::from(place == Place::Fault);
        check!(told.received.len() == odd && told.faults.len() == 1 + odd, "{place:?}: {:?}", told.faults);
        scene.lives().map_err(|stop| format!("{place:?}: {stop:?}"))?;
        scene.ends(1).map_err(|stop| format!("{place:?}: {stop:?}"))?;
    }
    Ok(())
}

/// How the handler uses another stream, and whether it catches a panic of that use.
const USES: [(Use, bool); 6] = [
    (Use::Sends, false),
    (Use::Sends, true),
    (Use::Layer, false),
    (Use::Layer, true),
    (Use::Codec, false),
    (Use::Codec, true),
];
/// The item that the handler sends to another peer.
const ITEM: &[u8] = b"an item of two halves";

fn half_an_item(fixture: &mut Fixture<'_>) -> Outcome {
    for (how, is_caught) in USES {
        let mut scene = Scene::new(fixture)?;
        let (client, survivor) = (scene.client, scene.survivor);
        // The second stream's handler sends to the third.
        let second = scene.connect()?;
        scene.rig.until("it is open", |rig| rig.get(survivor).open.len() == 2)?;
        let third = scene.connect()?;
        scene.rig.until("it is open", |rig| rig.get(survivor).open.len() == 3)?;
        let [_, second_here, third_here] = scene.survivor().open[..] else { return Err("three".into()) };
        scene.rig.get_mut(survivor).uses = Some((third_here, Use::Sends, is_caught));
        scene.rig.with(client, |_, cx| cx.send(second, b"g"));
        let whole = ITEM.len();
        scene.rig.until("a whole item has arrived", |rig| rig.get(client).received(third) == whole)?;
        if how == Use::Sends {
            scene.arm(Place::Encode);
        }
        scene.rig.get_mut(survivor).uses = Some((third_here, how, is_caught));
        scene.rig.with(client, |_, cx| cx.send(second, b"g"));
        scene.until_reset(third)?;
        check!(scene.rig.get(client).received(third) == whole, "half an item has left");
        if is_caught {
            scene.rig.until("the second one is answered", |rig| rig.get(client).received(second) == 2)?;
        } else {
            scene.until_reset(second)?;
        }
        scene.rig.get_mut(survivor).uses = None;
        let told = scene.survivor();
        let blamed: Vec<_> = told.panics.iter().map(|panic| panic.is_of(second_here)).collect();
        check!(blamed == if is_caught { vec![] } else { vec![true] }, "{:?}", told.panics);
        let is_third =
            |(id, why): &(Id<Brittle>, Closed)| *id == third_here && matches!(why, Closed::Panicked(_));
        check!(told.closed.iter().any(is_third), "{:?}", told.closed);
        check!(told.closed.len() == 2 - usize::from(is_caught), "{:?}", told.closed);
        scene.lives()?;
        scene.ends(u64::from(!is_caught))?;
    }
    Ok(())
}

/// Checks a panic in the answer to a panic.
fn in_the_answer(fixture: &mut Fixture<'_>) -> Outcome {
    let mut scene = Scene::new(fixture)?;
    let id = scene.connect()?;
    let survivor = scene.survivor;
    scene.rig.until("it is open", |rig| rig.get(survivor).open.len() == 2)?;
    scene.rig.get_mut(survivor).is_fragile = true;
    scene.arm(Place::Received);
    scene.rig.with(scene.client, |_, cx| cx.send(id, b"x"));
    let client = scene.client;
    scene.rig.until("both have ended", |rig| rig.get(client).closed.len() == 2)?;
    check!(scene.rig.runtime.service(survivor).is_none(), "it lives on");
    scene.rig.stop(Duration::from_secs(1));
    let receipt = scene.rig.run()?;
    let of = of_survivor(&receipt)?;
    check!(of.panics == 2 && of.panicked.as_deref() == Some(SAYING), "{of:?}");
    check!(receipt.check().is_err(), "the receipt passes");
    Ok(())
}

/// How many peers connect while the layer panics.
const REGISTERED: usize = 5;

/// Checks that a layer that panics while its stream is registered leaves no resource and no connection.
fn while_registered(fixture: &mut Fixture<'_>) -> Outcome {
    accepted(fixture).map_err(|stop| format!("accepted: {stop:?}"))?;
    connected(fixture).map_err(|stop| format!("connected: {stop:?}"))?;
    added(fixture).map_err(|stop| format!("added: {stop:?}"))?;
    Ok(())
}

fn accepted(fixture: &mut Fixture<'_>) -> Outcome {
    let mut scene = Scene::new(fixture)?;
    scene.rig.settle()?;
    let before = scene.rig.counters().resources;
    for _ in 0..REGISTERED {
        scene.arm(Place::LayerHeld);
        let id = scene.connect()?;
        scene.until_reset(id)?;
    }
    let survivor = scene.survivor;
    scene.rig.until("the faults say so", |rig| rig.get(survivor).faults.len() == REGISTERED)?;
    scene.rig.until("all resources are gone", |rig| rig.counters().resources == before)?;
    let told = scene.survivor();
    let is_lost = |fault: &Fault| matches!(fault, Fault::Panicked(_));
    check!(told.faults.iter().all(is_lost) && told.closed.is_empty(), "{:?} {:?}", told.faults, told.closed);
    let blames_accept = |panic: &Panic| panic.during == During::Accept && panic.resource.is_none();
    check!(told.panics.iter().all(blames_accept), "{:?}", told.panics);
    scene.lives()?;
    scene.ends(REGISTERED as u64)
}

fn connected(fixture: &mut Fixture<'_>) -> Outcome {
    let mut scene = Scene::new(fixture)?;
    let echo = scene.rig.add(Probe::<Bytes>::echo())?;
    let (_, address) = scene.rig.listen(echo, || Stream::new(Bytes))?;
    scene.rig.settle()?;
    let before = scene.rig.counters().resources;
    let survivor = scene.survivor;
    scene.arm(Place::LayerHeld);
    scene.rig.with(survivor, |_, cx| cx.tell(cx.me(), address)).map_err(|full| full.to_string())?;
    scene.rig.until("a fault says so", |rig| !rig.get(survivor).faults.is_empty())?;
    scene.rig.settle()?;
    scene.rig.until("all resources are gone", |rig| rig.counters().resources == before)?;
    let told = scene.survivor();
    check!(told.panics[0].during == During::Message && told.closed.is_empty(), "{:?}", told.closed);
    scene.lives()?;
    scene.ends(1)
}

fn added(fixture: &mut Fixture<'_>) -> Outcome {
    let mut scene = Scene::new(fixture)?;
    scene.rig.settle()?;
    let before = scene.rig.counters().resources;
    let survivor = scene.survivor;
    let id = scene.connect()?;
    scene.rig.until("it is open", |rig| rig.get(survivor).open.len() == 2)?;
    // Its `closed` adds it again.
    let here = scene.survivor().open[1];
    let released = scene.rig.with(survivor, |_, cx| cx.release(here));
    check!(released.is_ok(), "{released:?}");
    scene.until_reset(id)?;
    scene.rig.until("all resources are gone", |rig| rig.counters().resources == before)?;
    let told = scene.survivor();
    check!(told.panics[0].during == During::Closed && told.closed.len() == 1, "{:?}", told.closed);
    scene.lives()?;
    scene.ends(1)
}
