//! O and N at runtime level: layers and codecs over the engine, and their replacement on a living stream.

use std::{io::Read, net::TcpStream};

use reactor::{
    Accept, Codec, Decoded, Listener, Outgoing,
    session::{
        Io, Next, Step,
        kit::{Peer, Preamble, Toy},
    },
};

use super::{prelude::*, probe::Items};

pub(super) const ROWS: &[Row] = &[
    row("N13r", "the last flight of a handshake has left when the service is told of it", &[], last_flight),
    row("N13r2", "the peer has it, too, while the handler runs", SOCKETS, last_flight_arrives),
    row("N14r", "a handler gives its stream another codec, and no byte is lost", &[], other_codec),
    row("N14r2", "another codec cuts what was kept; one that is closing takes none", &[], other_codec_kept),
    row("N14r3", "both ends change to a layer in the middle of a conversation", &[], other_layer),
    row("N14r4", "what came before the change to a layer never passes for what is under it", &[], injected),
    row(
        "N14r5",
        "a released stream takes a layer, once its unread bytes were taken",
        &[],
        other_layer_outside,
    ),
    row("N16r", "the service itself accepts, refuses, and dismisses with last words", &[], accepts),
    row("N15r", "a codec skips bytes and changes its input in place, however that is cut", &[], unmasked),
    row("O2r", "a codec that says it used nothing, or too much, ends its own stream", &[], lying_codecs),
    row(
        "O2r2",
        "a layer that says it used too much, or seals less than it took, does too",
        &[],
        lying_layers,
    ),
];

fn last_flight(fixture: &mut Fixture<'_>) -> Outcome {
    of_layers(fixture, (Toy::client(1), || Toy::server(2)))?;
    of_layers(fixture, (Preamble::new("HELLO\n", "WELCOME\n"), || Preamble::new("WELCOME\n", "HELLO\n")))
}

/// Checks that the server answers a hello. Once its stream is open, the answer is with the engine.
fn of_layers<A: Layer, B: Layer>(
    fixture: &mut Fixture<'_>,
    (ours, mut theirs): (A, impl FnMut() -> B + 'static),
) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let waiting = Rc::new(RefCell::new(Vec::new()));
    let noted = waiting.clone();
    let server = rig.add(Probe::<Bytes, B>::acting(move |cx, id, what| {
        if let (Some(id), What::Open) = (id, what) {
            noted.borrow_mut().push(cx.get(id).map(Stream::unsent));
        }
        Ok(())
    }))?;
    let client = rig.add(Probe::<Bytes, A>::quiet())?;
    let (_, address) = rig.listen(server, move || Stream::over(Bytes, theirs()))?;
    let id = rig.connect(client, &address, Stream::over(Bytes, ours))?;
    rig.until("both are open", |rig| rig.get(server).open.len() == 1 && rig.get(client).open.len() == 1)?;
    check!(*waiting.borrow() == [Some(0)], "in the handler of the open, unsent: {:?}", waiting.borrow());
    rig.with(client, |_, cx| cx.abort(id));
    rig.until("the server has ended", |rig| rig.get(server).closed.len() == 1)?;
    rig.finish()
}

fn last_flight_arrives(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let mut far = Peer::new(Toy::client(1));
    let hello = far.flight();
    let answer = {
        let mut near = Peer::new(Toy::server(2));
        near.feed(&hello);
        near.flight().len()
    };
    let peer: Rc<RefCell<Option<TcpStream>>> = Rc::default();
    let (arrived, of) = (Rc::new(RefCell::new(Vec::new())), peer.clone());
    let noted = arrived.clone();
    let server = rig.add(Probe::<Bytes, Toy>::acting(move |_, _, what| {
        if let (What::Open, Some(peer)) = (what, &mut *of.borrow_mut()) {
            let mut bytes = vec![0; answer];
            peer.read_exact(&mut bytes)?;
            noted.borrow_mut().extend(bytes);
        }
        Ok(())
    }))?;
    let (_, address) = rig.listen(server, || Stream::over(Bytes, Toy::server(2)))?;
    let address = address.ip().ok_or("the address is not IP")?;
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(LONG))?;
    std::io::Write::write_all(&mut socket, &hello)?;
    *peer.borrow_mut() = Some(socket);
    rig.until("the server is open", |rig| rig.get(server).open.len() == 1)?;
    far.feed(&arrived.borrow());
    check!(far.error().is_none() && far.session().layer().pongs() == 0, "{:?}", far.error());
    check!(arrived.borrow().len() == answer, "{} bytes of {answer} arrived", arrived.borrow().len());
    drop(peer.take());
    rig.until("the server has ended", |rig| rig.get(server).closed.len() == 1)?;
    rig.finish()
}

/// Speaks lines, and switches to bytes or to a layer when a line requests it. The client begins.
#[derive(Default)]
struct Switch {
    is_client: bool,
    log: Vec<String>,
    bytes: Vec<u8>,
    lines: Option<Id<Stream<Lines>>>,
    raw: Option<Id<Stream>>,
    sealed: Option<Id<Stream<Lines, Toy>>>,
    released: Option<Stream<Lines>>,
}

impl Switch {
    fn toy(&self) -> Toy {
        if self.is_client { Toy::client(1) } else { Toy::server(2) }
    }

    fn note(&mut self, what: impl std::fmt::Display) {
        self.log.push(what.to_string());
    }
}

impl Service for Switch {}

impl Handle<Stream<Lines>> for Switch {
    fn handle(
        &mut self,
        cx: &mut Context<'_, Self>,
        id: Id<Stream<Lines>>,
        event: Event<'_, Lines>,
    ) -> Result {
        match event {
            Event::Open => self.lines = Some(id),
            Event::Received("bytes") => {
                cx.send(id, "so be it");
                let raw = cx.map_codec(id, |_| Bytes)?;
                assert_eq!(cx.send(id, "too late"), Flow::Gone);
                cx.send(raw, b"hello");
                self.raw = Some(raw);
            }
            Event::Received("seal" | "go") => {
                if !self.is_client {
                    cx.send(id, "go");
                }
                let toy = self.toy();
                let sealed = cx.map_layer(id, |()| toy)?;
                cx.send(sealed, "under the seal");
                self.sealed = Some(sealed);
            }
            Event::Received("release") => cx.release(id)?,
            Event::Received(line) => self.note(format_args!("clear {line}")),
            Event::End | Event::Drained | Event::HungUp => (),
        }
        Ok(())
    }

    fn closed(
        &mut self,
        _: &mut Context<'_, Self>,
        _: Id<Stream<Lines>>,
        stream: Stream<Lines>,
        why: Closed,
    ) {
        self.note(format_args!("closed clear {}", name(&why)));
        self.released = Some(stream);
    }
}

impl Handle<Stream> for Switch {
    fn handle(&mut self, _: &mut Context<'_, Self>, _: Id<Stream>, event: Event<'_, Bytes>) -> Result {
        match event {
            Event::Open => self.note("open bytes"),
            Event::Received(bytes) => self.bytes.extend_from_slice(bytes),
            Event::End | Event::Drained | Event::HungUp => (),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Self>, _: Id<Stream>, _: Stream, why: Closed) {
        self.note(format_args!("closed bytes {}", name(&why)));
    }
}

impl Handle<Stream<Lines, Toy>> for Switch {
    fn handle(
        &mut self,
        cx: &mut Context<'_, Self>,
        id: Id<Stream<Lines, Toy>>,
        event: Event<'_, Lines>,
    ) -> Result {
        match event {
            Event::Open => self.note("open sealed"),
            Event::Received("part") => {
                cx.map_codec(id, |_| Bytes)?;
            }
            Event::Received(line) => self.note(format_args!("sealed {line}")),
            Event::End | Event::Drained | Event::HungUp => (),
        }
        Ok(())
    }

    fn closed(
        &mut self,
        _: &mut Context<'_, Self>,
        _: Id<Stream<Lines, Toy>>,
        _: Stream<Lines, Toy>,
        why: Closed,
    ) {
        self.note(format_args!("closed sealed {why:?}"));
    }
}

impl Handle<Stream<Bytes, Toy>> for Switch {
    fn handle(
        &mut self,
        _: &mut Context<'_, Self>,
        _: Id<Stream<Bytes, Toy>>,
        event: Event<'_, Bytes>,
    ) -> Result {
        if let Event::Received(bytes) = event {
            self.bytes.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn closed(
        &mut self,
        _: &mut Context<'_, Self>,
        _: Id<Stream<Bytes, Toy>>,
        _: Stream<Bytes, Toy>,
        why: Closed,
    ) {
        self.note(format_args!("closed sealed bytes {}", name(&why)));
    }
}

fn name(why: &Closed) -> String {
    let text = format!("{why:?}");
    text.split([' ', '(']).next().unwrap_or_default().to_owned()
}

/// A server and a client that are both switches.
struct Switches {
    rig: Rig,
    server: ServiceId<Switch>,
    client: ServiceId<Switch>,
}

impl Switches {
    fn new(fixture: &mut Fixture<'_>) -> Result<Switches, Stop> {
        let mut rig = Rig::new(fixture)?;
        let server = rig.add(Switch::default())?;
        let client = rig.add(Switch { is_client: true, ..Switch::default() })?;
        let address = rig.with(server, |_, cx| -> Result<_, Stop> {
            let listener = cx.listen("127.0.0.1:0", |_| Some(Stream::new(Lines::new())))?;
            Ok(cx.local(listener)?)
        })?;
        rig.with(client, |_, cx| cx.connect(&address, Stream::new(Lines::new())))?;
        rig.until("both are open", |rig| rig.get(server).lines.is_some() && rig.get(client).lines.is_some())?;
        Ok(Switches { rig, server, client })
    }

    /// Sends these lines from the client, in one write.
    fn say(&mut self, lines: &[&str]) {
        self.rig.with(self.client, |client, cx| {
            let id = client.lines.expect("it is open");
            lines.iter().for_each(|line| _ = cx.send(id, line));
        });
    }

    fn until_log(&mut self, of: ServiceId<Switch>, last: &str) -> Outcome {
        self.rig.until(last, |rig| rig.get(of).log.iter().any(|line| line.starts_with(last)))
    }

    fn close(mut self) -> Outcome {
        let (server, client) = (self.server, self.client);
        for of in [server, client] {
            self.rig.with(of, |_, cx| cx.close_all());
        }
        self.rig.finish()
    }
}

fn other_codec(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Switches::new(fixture)?;
    let (server, client) = (pair.server, pair.client);
    pair.say(&["first", "bytes", "behind", "it"]);
    pair.rig.until("what is behind has come", |rig| rig.get(server).bytes.len() == 10)?;
    pair.say(&["more"]);
    pair.rig.until("more has come", |rig| rig.get(server).bytes.len() == 15)?;
    pair.rig.until("the answer has come", |rig| rig.get(client).log.len() == 1)?;
    check!(pair.rig.get(server).bytes == b"behind\nit\nmore\n", "{:?}", pair.rig.get(server).bytes);
    check!(pair.rig.get(client).log == ["clear so be it"], "{:?}", pair.rig.get(client).log);
    pair.rig.with(server, |switch, cx| {
        let (old, new) = (switch.lines.expect("open"), switch.raw.expect("changed"));
        check!(cx.get(old).is_none() && cx.get(new).is_some(), "the old id still finds it");
        check!(old.key() == new.key(), "the key is another");
        cx.send(new, b"\nbye\n");
        cx.close(new);
        Ok(())
    })?;
    pair.until_log(client, "clear bye")?;
    pair.until_log(server, "closed bytes Done")?;
    let log = &pair.rig.get(server).log;
    check!(*log == ["clear first", "closed bytes Done"], "{log:?}");
    check!(pair.rig.get(client).log[1..] == ["clear hello", "clear bye", "closed clear End"], "the client");
    pair.close()
}

fn other_codec_kept(fixture: &mut Fixture<'_>) -> Outcome {
    // Half an item is unread, and no handler is running.
    let mut pair = Switches::new(fixture)?;
    let (server, client) = (pair.server, pair.client);
    pair.rig.with(server, |switch, cx| cx.pause(switch.lines.expect("it is open")));
    pair.say(&["kept while paused"]);
    pair.rig.settle()?;
    pair.rig.with(server, |switch, cx| -> Outcome {
        let raw = cx.map_codec(switch.lines.expect("it is open"), |_| Bytes)?;
        cx.resume(raw);
        Ok(())
    })?;
    pair.rig.until("what was kept has come", |rig| rig.get(server).bytes.len() == 18)?;
    // The runtime refuses the change of a closing stream, and does not call `make`.
    pair.rig.with(client, |switch, cx| {
        let id = switch.lines.expect("it is open");
        cx.close(id);
        let refused = cx.map_codec(id, |_| -> Bytes { panic!("it is refused") });
        check!(matches!(refused, Err(reactor::Error::Misuse { .. })), "{refused:?}");
        Ok(())
    })?;
    pair.until_log(server, "closed bytes")?;
    let refused = pair
        .rig
        .with(server, |switch, cx| cx.map_layer(switch.lines.expect("was open"), |()| Toy::client(1)));
    check!(refused.is_err_and(|error| error.io().is_some()), "it is gone");
    pair.close()
}

fn other_layer(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Switches::new(fixture)?;
    let (server, client) = (pair.server, pair.client);
    pair.say(&["first", "seal"]);
    for of in [server, client] {
        pair.until_log(of, "sealed under the seal")?;
    }
    pair.rig.with(client, |switch, cx| {
        let id = switch.sealed.expect("it is sealed");
        ["one", "part", "two"].iter().for_each(|line| _ = cx.send(id, line));
        cx.finish(id);
    });
    pair.rig.until("it has come", |rig| rig.get(server).bytes.len() == 4)?;
    pair.until_log(server, "closed sealed bytes End")?;
    let expected =
        ["clear first", "open sealed", "sealed under the seal", "sealed one", "closed sealed bytes End"];
    check!(pair.rig.get(server).log == expected, "{:?}", pair.rig.get(server).log);
    check!(pair.rig.get(server).bytes == b"two\n", "{:?}", pair.rig.get(server).bytes);
    pair.until_log(client, "closed sealed End")?;
    pair.close()
}

fn injected(fixture: &mut Fixture<'_>) -> Outcome {
    // The clear bytes arrive in one piece with the line that requests the layer, and later.
    let mut pair = Switches::new(fixture)?;
    let (server, client) = (pair.server, pair.client);
    pair.rig.get_mut(client).is_client = true;
    pair.say(&["seal", "evil"]);
    pair.until_log(server, "closed sealed Refused")?;
    let log = pair.rig.get(server).log.clone();
    // A virtual engine may have split them. The layer then refuses the later bytes.
    check!(log.len() == 1 && (fixture.is_virtual() || log[0].contains("5 clear bytes")), "{log:?}");
    pair.close()?;

    let mut rig = Rig::new(fixture)?;
    let server = rig.add(Switch::default())?;
    let plain = rig.add(Probe::<Lines>::acting(|cx, id, what| {
        if let (Some(id), What::Got(line)) = (id, what)
            && line == b"go"
        {
            cx.send(id, "evil that is longer than a hello");
        }
        Ok(())
    }))?;
    let address = rig.with(server, |_, cx| -> Result<_, Stop> {
        let listener = cx.listen("127.0.0.1:0", |_| Some(Stream::new(Lines::new())))?;
        Ok(cx.local(listener)?)
    })?;
    let id = rig.connect(plain, &address, Stream::new(Lines::new()))?;
    rig.with(plain, |_, cx| cx.send(id, "seal"));
    rig.until("the layer refuses it", |rig| !rig.get(server).log.is_empty())?;
    check!(rig.get(server).log[0].starts_with("closed sealed Refused"), "{:?}", rig.get(server).log);
    rig.until("the other end has closed", |rig| rig.get(plain).closed.len() == 1)?;
    rig.finish()
}

fn other_layer_outside(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Switches::new(fixture)?;
    let (server, client) = (pair.server, pair.client);
    // A virtual engine may split the write. The third line would then arrive too late.
    let lines = ["first", "release", "unread"];
    pair.say(&lines[..if fixture.is_virtual() { 2 } else { 3 }]);
    pair.until_log(server, "closed clear Released")?;
    let mut stream = pair.rig.get_mut(server).released.take().ok_or("it was released")?;
    if !fixture.is_virtual() {
        stream = with_unread(stream)?;
    }
    let sealed = stream.map_layer(|()| Toy::server(2)).map_err(|rejected| rejected.error)?;
    pair.rig.with(server, |_, cx| cx.add(sealed).map_err(|rejected| rejected.error))?;
    pair.rig.with(client, |switch, cx| -> Outcome {
        let sealed = cx.map_layer(switch.lines.expect("it is open"), |()| Toy::client(1))?;
        cx.send(sealed, "sealed at last");
        Ok(())
    })?;
    pair.until_log(server, "sealed sealed at last")?;
    let log = &pair.rig.get(server).log;
    check!(log[..3] == ["clear first", "closed clear Released", "open sealed"], "{log:?}");
    pair.close()
}

/// Checks that unread bytes do not count as sealed, and that the caller can take them.
fn with_unread(stream: Stream<Lines>) -> Result<Stream<Lines>, Stop> {
    check!(stream.unread() == b"unread\n", "unread: {:?}", stream.unread());
    let Err(rejected) = stream.map_layer(|()| Toy::server(2)) else {
        return Err("unread bytes were taken for sealed ones".into());
    };
    let mut stream = rejected.resource;
    check!(stream.take_unread() == b"unread\n" && stream.unread().is_empty(), "they were not taken");
    Ok(stream)
}

/// Accepts one connection, dismisses the next, and refuses all others.
#[derive(Default)]
struct Porter {
    asked: usize,
    log: Vec<String>,
}

impl Service for Porter {}

impl Handle<Stream<Lines>> for Porter {
    fn handle(&mut self, _: &mut Context<'_, Self>, _: Id<Stream<Lines>>, event: Event<'_, Lines>) -> Result {
        if let Event::Open = event {
            self.log.push("open".to_owned());
        }
        Ok(())
    }

    fn accept(
        &mut self,
        cx: &mut Context<'_, Self>,
        listener: Id<Listener<Stream<Lines>>>,
        _: &Address,
    ) -> Accept<Stream<Lines>> {
        self.asked += 1;
        assert!(cx.get(listener).is_some(), "the listener lives");
        match self.asked {
            1 => Accept::Take(Stream::new(Lines::new())),
            2 => match Stream::new(Lines::new()).queue("full") {
                Ok(stream) => Accept::Dismiss(stream),
                Err(_) => Accept::Refuse,
            },
            _ => Accept::Refuse,
        }
    }

    fn closed(&mut self, _: &mut Context<'_, Self>, _: Id<Stream<Lines>>, _: Stream<Lines>, why: Closed) {
        self.log.push(name(&why));
    }
}

fn accepts(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let (server, client) = (rig.add(Porter::default())?, rig.add(Probe::<Bytes>::quiet())?);
    let address = rig.with(server, |_, cx| -> Result<_, Stop> {
        let listener = cx.listen_asking::<Stream<Lines>>("127.0.0.1:0", &ListenOptions::default())?;
        Ok(cx.local(listener)?)
    })?;
    let mut ids = Vec::new();
    for asked in 1..=3 {
        ids.push(rig.connect(client, &address, Stream::new(Bytes))?);
        rig.until("the service was asked", |rig| rig.get(server).asked == asked)?;
    }
    rig.until("two have ended", |rig| rig.get(client).closed.len() == 2)?;
    check!(rig.get(client).bytes(ids[1]) == b"full\n", "the last words: {:?}", rig.get(client).bytes(ids[1]));
    check!(rig.get(client).bytes(ids[2]).is_empty(), "the refused one was told something");
    rig.until("the dismissed one has closed", |rig| rig.get(server).log.len() == 2)?;
    check!(rig.get(server).log == ["open", "Done"], "{:?}", rig.get(server).log);
    rig.with(client, |_, cx| cx.abort(ids[0]));
    rig.until("the last one has ended", |rig| rig.get(server).log.len() == 3)?;
    rig.finish()
}

/// A codec of a length and a body, which it unmasks in place. It skips a length of 0.
#[derive(Default)]
struct Masked {
    unmasked: usize,
    lie: Option<Lie>,
}

/// A false report of a codec about the bytes that it used.
#[derive(Clone, Copy)]
enum Lie {
    Nothing,
    TooMuch,
    SkipsNothing,
    SkipsTooMuch,
}

impl Codec for Masked {
    type In<'a> = &'a [u8];
    type Out<'a> = &'a [u8];

    fn decode<'a>(&mut self, input: &'a mut [u8]) -> Result<Decoded<&'a [u8]>> {
        let given = input.len();
        match self.lie {
            Some(Lie::Nothing) => return Ok(Decoded::Item(0, &input[..0])),
            Some(Lie::TooMuch) => return Ok(Decoded::Item(given + 1, input)),
            Some(Lie::SkipsNothing) => return Ok(Decoded::Skip(0)),
            Some(Lie::SkipsTooMuch) => return Ok(Decoded::Skip(given + 1)),
            None => (),
        }
        let len = match input[0] {
            0 => return Ok(Decoded::Skip(1)),
            len => len as usize,
        };
        let there = (given - 1).min(len);
        input[1 + self.unmasked..=there].iter_mut().for_each(|byte| *byte ^= 0x20);
        self.unmasked = there;
        if there < len {
            return Ok(Decoded::More);
        }
        self.unmasked = 0;
        Ok(Decoded::Item(1 + len, &input[1..=len]))
    }

    fn encode(&mut self, item: &[u8], out: &mut Outgoing) -> Result {
        out.put(item);
        Ok(())
    }
}

impl Items for Masked {
    fn note(item: &[u8]) -> Vec<u8> {
        item.to_vec()
    }
}

/// Accepts streams of this codec, and connects a plain one.
fn masked(fixture: &mut Fixture<'_>, lie: Option<Lie>) -> Result<MaskedPair, Stop> {
    let mut rig = Rig::new(fixture)?;
    let (server, client) = (rig.add(Probe::<Masked>::quiet())?, rig.add(Probe::<Bytes>::quiet())?);
    let (_, address) = rig.listen(server, move || Stream::new(Masked { lie, ..Masked::default() }))?;
    let id = rig.connect(client, &address, Stream::new(Bytes))?;
    rig.until("it is open", |rig| !rig.get(server).open.is_empty())?;
    Ok((rig, server, client, id))
}

type MaskedPair = (Rig, ServiceId<Probe<Masked>>, ServiceId<Probe>, Id<Stream>);

fn unmasked(fixture: &mut Fixture<'_>) -> Outcome {
    let wire = b"\0\x03FOO\0\0\x06BARBAZ\x01X\0";
    for cut in 1..wire.len() {
        let (mut rig, server, client, id) = masked(fixture, None)?;
        let at = rig.get(server).open[0];
        for part in [&wire[..cut], &wire[cut..]] {
            rig.with(client, |_, cx| cx.send(id, part));
            rig.settle()?;
        }
        rig.until("all has come", |rig| rig.get(server).received(at) == 10)?;
        check!(rig.get(server).bytes(at) == b"foobarbazx", "cut at {cut}: {:?}", rig.get(server).bytes(at));
        let items = rig.get(server).log.iter().filter(|(_, what)| matches!(what, What::Got(_))).count();
        check!(items == 3, "cut at {cut}: {items} items");
        rig.with(client, |_, cx| cx.close(id));
        rig.until("it has ended", |rig| rig.get(server).closed.len() == 1)?;
        let why = &rig.get(server).closed[0].2;
        check!(matches!(why, Closed::End), "cut at {cut}: {why}");
        rig.finish()?;
    }
    Ok(())
}

fn lying_codecs(fixture: &mut Fixture<'_>) -> Outcome {
    for lie in [Lie::Nothing, Lie::TooMuch, Lie::SkipsNothing, Lie::SkipsTooMuch] {
        let (mut rig, server, client, id) = masked(fixture, Some(lie))?;
        rig.with(client, |_, cx| cx.send(id, b"some"));
        rig.until("it has ended", |rig| rig.get(server).closed.len() == 1)?;
        let why = &rig.get(server).closed[0].2;
        check!(matches!(why, Closed::Refused(_)) && why.to_string().contains("codec"), "{why}");
        check!(rig.get(server).log.len() == 2, "{:?}", rig.get(server).log);
        rig.until("the other end has", |rig| rig.get(client).closed.len() == 1)?;
        rig.finish()?;
    }
    Ok(())
}

/// The way in which a [`Liar`] breaks its contract.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Breach {
    UsesTooMuch,
    UsesNothingForEver,
    SealsNothing,
    SealsLess,
    SealsTooMuch,
    TakesAway,
}

/// Passes bytes through, and breaks its contract with the first.
struct Liar(Breach);

impl Layer for Liar {
    const INPUT_MAX: usize = 0;

    fn ready(&self) -> bool {
        true
    }

    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        match self.0 {
            Breach::UsesTooMuch => return Ok(Step { used: input.len() + 1, next: Next::Wait }),
            Breach::UsesNothingForEver => return Ok(Step { used: 0, next: Next::Again }),
            _ => io.up.extend_from_slice(input),
        }
        Ok(Step { used: input.len(), next: Next::Wait })
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        match self.0 {
            Breach::SealsNothing => return Ok(0),
            Breach::SealsLess => io.down.put(&clear[1..]),
            Breach::SealsTooMuch => return Ok(clear.len() + 1),
            Breach::TakesAway => io.down.clear(),
            _ => io.down.put(clear),
        }
        Ok(clear.len())
    }
}

fn lying_layers(fixture: &mut Fixture<'_>) -> Outcome {
    let breaches = [
        Breach::UsesTooMuch,
        Breach::UsesNothingForEver,
        Breach::SealsNothing,
        Breach::SealsLess,
        Breach::SealsTooMuch,
        Breach::TakesAway,
    ];
    for breach in breaches {
        let mut rig = Rig::new(fixture)?;
        let server = rig.add(Probe::<Bytes, Liar>::echo())?;
        let client = rig.add(Probe::quiet())?;
        let (_, address) = rig.listen(server, move || Stream::over(Bytes, Liar(breach)))?;
        let id = rig.connect(client, &address, Stream::new(Bytes))?;
        rig.with(client, |_, cx| cx.send(id, b"some"));
        rig.until("it has ended", |rig| rig.get(server).closed.len() == 1)?;
        let why = &rig.get(server).closed[0].2;
        let names = matches!(why, Closed::Refused(_)) && why.to_string().contains("Liar broke its contract");
        check!(names, "{breach:?}: {why}");
        rig.until("the other end has", |rig| rig.get(client).closed.len() == 1)?;
        check!(rig.get(client).received(id) == 0, "{breach:?}: a part has arrived");
        rig.finish()?;
    }
    Ok(())
}

/// The awaited event arrives at once or is lost.
const LONG: Duration = Duration::from_secs(10);
