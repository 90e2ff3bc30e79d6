//! I at runtime level: panics of services, and services that always request more work.

use reactor::{Codec, Controller, Fault, Outgoing, Refused, Reply, Unanswered};

use super::{
    fragile::{Armed, Brittle, FragileBytes, FragileLayer, PLACES, Place, SAYING},
    prelude::*,
};

pub(super) const ROWS: &[Row] = &[
    row("I1r", "a panic in any callback costs its service, and no other", &[], in_each_callback),
    row("I2r", "a panic in the drop of a resource costs its service at most", &[], in_drop),
    row("I4r", "a handler that always asks for more starves nobody, and can be stopped", &[], endless_asker),
];

/// Reports whether the stream's own code panics, so that its state is unknown.
fn is_of_stream(place: Place) -> bool {
    use Place::*;
    matches!(place, Decode | Encode | CodecEnd | LayerStart | LayerReady | LayerOpen)
        || matches!(place, LayerSeal | LayerFinish | LayerEnd | LayerHeld | LayerTransparent)
}

/// Runs through all callbacks, and panics in one.
struct Fragile(Armed);

/// A message from the service itself or from a timer.
struct Told(Place);

impl Service for Fragile {
    fn start(&mut self, _: &mut Context<'_, Self>) -> Result {
        self.0.pass(Place::Start);
        Ok(())
    }

    fn stop(&mut self, cx: &mut Context<'_, Self>) {
        self.0.pass(Place::Stop);
        cx.close_all();
    }

    fn fault(&mut self, _: &mut Context<'_, Self>, _: Fault) {
        self.0.pass(Place::Fault);
    }
}

impl Handle<Brittle> for Fragile {
    fn handle(
        &mut self,
        cx: &mut Context<'_, Self>,
        id: Id<Brittle>,
        event: Event<'_, FragileBytes>,
    ) -> Result {
        match event {
            Event::Open => self.0.pass(Place::Open),
            Event::Received(bytes) => {
                self.0.pass(Place::Received);
                cx.send(id, bytes);
                if self.0.place.get() == Place::Drained {
                    cx.send(id, &[0; ABOVE_THE_MARK]);
                }
                cx.after(SHORT / 10, Told(Place::Timer));
                cx.tell(cx.me(), Told(Place::Message)).map_err(|refused| refused.to_string())?;
            }
            Event::End => self.0.pass(Place::End),
            Event::Drained => self.0.pass(Place::Drained),
            Event::HungUp => (),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Self>, _: Id<Brittle>, _: Brittle, _: Closed) {
        self.0.pass(Place::Closed);
    }
}

impl Receive<Told> for Fragile {
    fn receive(&mut self, _: &mut Context<'_, Self>, Told(place): Told) -> Result {
        self.0.pass(place);
        Ok(())
    }
}

impl Receive<u64> for Fragile {
    fn receive(&mut self, _: &mut Context<'_, Self>, _: u64) -> Result {
        self.0.pass(Place::Command);
        Err("a command whose error becomes a fault".into())
    }
}

fn in_each_callback(fixture: &mut Fixture<'_>) -> Outcome {
    for place in PLACES {
        let mut rig = Rig::new(fixture)?;
        let probe = rig.add(Probe::<Bytes>::echo())?;
        let (_, healthy) = rig.listen(probe, || Stream::new(Bytes))?;
        let client = rig.add(Probe::quiet())?;
        let there = rig.connect(client, &healthy, Stream::new(Bytes))?;
        let armed = Armed::always(place);
        let fragile = match rig.runtime.add(Fragile(armed.clone())) {
            Ok(fragile) => fragile,
            Err(error) => {
                check!(place == Place::Start && error.to_string().contains(SAYING), "{place:?}: {error}");
                serves(&mut rig, client, there)?;
                ends(rig, client, there)?;
                continue;
            }
        };
        let address = rig.with(fragile, |_, cx| -> Result<_> {
            let listener = cx.listen("127.0.0.1:0", move |_| {
                armed.pass(Place::Accept);
                Some(Stream::over(FragileBytes(armed.clone()), FragileLayer(armed.clone())))
            })?;
            Ok(cx.local(listener)?)
        });
        let address = address.map_err(|failure| failure.to_string())?;
        let controller = rig.runtime.controller(fragile);
        let id = rig.connect(client, &address, Stream::new(Bytes))?;
        rig.with(client, |_, cx| cx.send(id, b"x"));
        check!(controller.send(0_u64).is_ok(), "{place:?}: a command was refused");
        // Run through all callbacks (input, answer, timer, message, end, closed), or up to the panic.
        let answer = if place == Place::Drained { ABOVE_THE_MARK } else { 1 };
        let mut finished = false;
        rig.until("all has happened", |rig| {
            let is_answered = rig.get(client).received(id) >= answer;
            if is_answered && !std::mem::replace(&mut finished, true) {
                rig.with(client, |_, cx| cx.finish(id));
            }
            rig.get(client).closed.iter().any(|(of, ..)| *of == id)
        })?;
        rig.settle()?;
        rig.until("the timer is over", |rig| rig.counters().timers == 0)?;
        if place == Place::Stop {
            check!(rig.counters().panics == 0, "it panicked before its stop");
        } else {
            check!(rig.counters().panics == 1, "{place:?}: {} panics", rig.counters().panics);
            gives_back(&rig, &controller, fragile).map_err(|how| format!("{place:?}: {how}"))?;
        }
        if is_of_stream(place) {
            let closed = rig.get(client).closed.iter().find(|(of, ..)| *of == id);
            let error = closed.and_then(|(.., why)| why.io()).map(|error| error.kind());
            // A write finds the reset as a broken pipe.
            let is_reset = matches!(error, Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe));
            check!(is_reset, "{place:?}: the peer saw {closed:?}");
        }
        drop(controller);
        serves(&mut rig, client, there)?;
        ends(rig, client, there).map_err(|stop| format!("{place:?}: {stop:?}"))?;
    }
    Ok(())
}

/// A question that the service never answers.
struct Ask(#[expect(dead_code, reason = "its drop tells the asker")] Reply<()>);

impl Receive<Ask> for Fragile {
    fn receive(&mut self, _: &mut Context<'_, Self>, _: Ask) -> Result {
        Ok(())
    }
}

/// Checks that commands and questions to a panicked service come back, and that the runtime no longer lends
/// the service.
fn gives_back(rig: &Rig, controller: &Controller<Fragile>, id: ServiceId<Fragile>) -> Result<(), String> {
    match controller.ask(Ask).wait() {
        Err(Unanswered::Gone) => (),
        other => return Err(format!("a question got {other:?}")),
    }
    match controller.send(8_u64) {
        Err(Refused::Gone(8)) if rig.runtime.service(id).is_none() => Ok(()),
        other => Err(format!("it is still there: {other:?}")),
    }
}

/// Checks that the healthy service still echoes.
fn serves(rig: &mut Rig, client: ServiceId<Probe>, id: Id<Stream>) -> Outcome {
    let before = rig.get(client).received(id);
    rig.with(client, |_, cx| cx.send(id, b"still there?"));
    rig.until("the healthy service answers", |rig| rig.get(client).received(id) == before + 12)
}

/// Stops the runtime. Checks that the receipt names the panic, and that nothing is left.
fn ends(mut rig: Rig, client: ServiceId<Probe>, there: Id<Stream>) -> Outcome {
    rig.with(client, |_, cx| cx.abort(there));
    rig.settle()?;
    rig.rests()?;
    rig.stop(10 * SHORT);
    let receipt = rig.run()?;
    let said: Vec<_> = receipt.services.iter().filter_map(|service| service.panicked.clone()).collect();
    check!(said.len() == 1 && said[0].contains(SAYING), "the receipt says {said:?}");
    check!(rig.counters().resources == 0, "{} resources are left", rig.counters().resources);
    check!(receipt.check().is_err(), "the receipt passes");
    Ok(())
}

/// A codec whose drop panics.
struct Exploding;

impl Drop for Exploding {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "{SAYING}");
    }
}

impl Codec for Exploding {
    type In<'a> = &'a [u8];
    type Out<'a> = &'a [u8];

    fn decode<'a>(&mut self, input: &'a mut [u8]) -> Result<reactor::Decoded<&'a [u8]>> {
        Ok(reactor::Decoded::Item(input.len(), input))
    }

    fn encode(&mut self, item: &[u8], out: &mut Outgoing) -> Result {
        out.put(item);
        Ok(())
    }
}

struct Owner;

impl Service for Owner {}

impl Handle<Stream<Exploding>> for Owner {
    fn handle(
        &mut self,
        _: &mut Context<'_, Self>,
        _: Id<Stream<Exploding>>,
        _: Event<'_, Exploding>,
    ) -> Result {
        Ok(())
    }
}

fn in_drop(fixture: &mut Fixture<'_>) -> Outcome {
    for is_dropped_with_runtime in [true, false] {
        let mut rig = Rig::new(fixture)?;
        let owner = rig.add(Owner)?;
        let address = rig.with(owner, |_, cx| -> Result<_> {
            let listener = cx.listen("127.0.0.1:0", |_| Some(Stream::new(Exploding)))?;
            Ok(cx.local(listener)?)
        });
        let address = address.map_err(|failure| failure.to_string())?;
        let client = rig.add(Probe::quiet())?;
        let id = rig.connect(client, &address, Stream::new(Bytes))?;
        rig.until("it is open", |rig| rig.get(client).open.len() == 1 && rig.counters().accepts == 1)?;
        if is_dropped_with_runtime {
            drop(rig);
            continue;
        }
        rig.with(client, |_, cx| cx.abort(id));
        rig.until("the drop has panicked", |rig| rig.counters().panics == 1)?;
        check!(rig.runtime.service(owner).is_none(), "the service lives on");
        rig.settle()?;
        rig.rests()?;
        check!(rig.counters().resources == 0, "{} resources are left", rig.counters().resources);
    }
    Ok(())
}

/// Answers each message with the next, forever, and echoes.
struct Asker {
    asked: Rc<Cell<u64>>,
}

impl Service for Asker {
    fn start(&mut self, cx: &mut Context<'_, Self>) -> Result {
        cx.tell(cx.me(), 0_u64)?;
        cx.after(Duration::ZERO, 1_u64);
        Ok(())
    }
}

impl Receive<u64> for Asker {
    fn receive(&mut self, cx: &mut Context<'_, Self>, kind: u64) -> Result {
        self.asked.set(self.asked.get() + 1);
        match kind {
            0 => cx.tell(cx.me(), 0_u64)?,
            _ => _ = cx.after(Duration::ZERO, kind),
        }
        Ok(())
    }
}

impl Handle<Stream> for Asker {
    fn handle(&mut self, cx: &mut Context<'_, Self>, id: Id<Stream>, event: Event<'_, Bytes>) -> Result {
        if let Event::Received(bytes) = event {
            cx.send(id, bytes);
        }
        Ok(())
    }
}

fn endless_asker(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let asked = Rc::new(Cell::new(0));
    let asker = rig.add(Asker { asked: asked.clone() })?;
    let client = rig.add(Probe::quiet())?;
    let address = rig.with(asker, |_, cx| -> Result<_> {
        let listener = cx.listen("127.0.0.1:0", |_| Some(Stream::new(Bytes)))?;
        Ok(cx.local(listener)?)
    });
    let address = address.map_err(|failure| failure.to_string())?;
    let id = rig.connect(client, &address, Stream::new(Bytes))?;
    for trip in 1..=20 {
        rig.with(client, |_, cx| cx.send(id, b"x"));
        rig.until("a round trip is over", |rig| rig.get(client).received(id) == trip)?;
    }
    check!(asked.get() > 20, "it asked {} times", asked.get());
    let turns = rig.counters().turns;
    check!(asked.get() <= 2 * turns + 8, "it asked {} times in {turns} turns", asked.get());
    rig.with(client, |_, cx| cx.close(id));
    rig.stop(10 * SHORT);
    rig.run()?.check()?;
    Ok(())
}

/// More than the mark above which a queue is high.
const ABOVE_THE_MARK: usize = 100 << 10;
