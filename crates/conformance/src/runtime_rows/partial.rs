//! C at runtime level: partial sends and reads.

use std::{
    io,
    net::{TcpListener, TcpStream, UdpSocket},
};

use reactor::{Io, Pollable, Ready, Shared, Source};

use super::{prelude::*, probe::returns};

pub(super) const ROWS: &[Row] = &[
    row("C1r", "items of every size arrive byte for byte through a narrow stream", &[], every_size),
    row("C2r", "the tail of a large item arrives although nobody sends again", &[], tail),
    row("C3r", "a drip of single bytes gives the same lines as one write", &[], drip),
    row("C7r", "copied and shared items that are cut go on at the right byte", &[], vectored),
    row("C8r", "an empty item is no end", &[], empty_item),
    row("C8r2", "an empty datagram is no end", SOCKETS, empty_datagram),
    row("C10r2", "a resource at the end of its input rests", SOCKETS, end_of_input),
];

fn every_size(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::narrow(fixture)?;
    pair.rig.get_mut(pair.server).act(returns);
    let mut all = Vec::new();
    for len in (1..=130).chain([4_095, 4_096, 4_097, 20_000]) {
        let item = pattern(len);
        pair.by_client(|cx, id| cx.send(id, &item));
        all.extend_from_slice(&item);
        if len % 7 == 0 || len > 130 {
            pair.until_returned(all.len())?;
        }
    }
    pair.until_returned(all.len())?;
    check!(pair.client().bytes(pair.at_client) == all, "what returned differs");
    pair.finish()
}

fn tail(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::new(fixture)?;
    let bytes = pattern(sized(fixture, 8 << 20, 20_000));
    pair.by_client(|cx, id| cx.send(id, &bytes));
    let (server, id) = (pair.server, pair.at_server);
    let mut turn = 0;
    pair.rig.until("all bytes have arrived", |rig| {
        turn += 1;
        // A slow reader, which reads in one turn of three.
        rig.with(server, |_, cx| if turn % 3 == 0 { cx.resume(id) } else { cx.pause(id) });
        rig.get(server).received(id) >= bytes.len()
    })?;
    check!(pair.server().bytes(id) == bytes, "what arrived differs");
    pair.finish()
}

fn drip(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::of(fixture, || Stream::new(Lines::new()))?;
    let mut rig = pair.rig;
    // This client sends raw bytes to the listener for lines.
    let raw = rig.add(Probe::quiet())?;
    let dripping = rig.connect(raw, &pair.address, Stream::new(Bytes))?;
    let server = pair.server;
    rig.until("it is open", |rig| rig.get(server).open.len() == 2 && rig.get(raw).open.len() == 1)?;
    let text = b"one\ntwo and a half\r\n\nthe last\n";
    for byte in text {
        rig.with(raw, |_, cx| cx.send(dripping, &[*byte]));
        rig.turn(Duration::ZERO)?;
    }
    pair.rig = rig;
    pair.by_client(|cx, id| {
        for line in ["one", "two and a half", "", "the last"] {
            cx.send(id, line);
        }
    });
    let ids = pair.server().open.clone();
    pair.rig
        .until("all lines have arrived", |rig| ids.iter().all(|id| rig.get(server).received(*id) == 25))?;
    pair.rig.settle()?;
    let lines = |id| -> Vec<What> {
        let log = pair.server().log.iter();
        log.filter(|(of, _)| *of == Some(id)).map(|(_, what)| what.clone()).collect()
    };
    check!(lines(ids[0]) == lines(ids[1]), "{:?}, but {:?}", lines(ids[0]), lines(ids[1]));
    check!(lines(ids[0]).len() == 5, "{:?}", lines(ids[0]));
    pair.rig.with(raw, |_, cx| cx.abort(dripping));
    pair.finish()
}

fn vectored(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::narrow(fixture)?;
    let mut bytes = Vec::new();
    for _ in 0..100 {
        let part = pattern(fixture.up_to(3_000));
        bytes.extend_from_slice(&part);
        match fixture.up_to(2) {
            1 => pair.by_client(|cx, id| cx.send(id, &part)),
            _ => pair.by_client(|cx, id| cx.send_shared(id, &Shared::from(part))),
        };
        if fixture.up_to(10) == 1 {
            pair.rig.turn(Duration::ZERO)?;
        }
    }
    pair.until_arrived(bytes.len())?;
    check!(pair.server().bytes(pair.at_server) == bytes, "what arrived differs");
    pair.finish()
}

fn empty_item(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::new(fixture)?;
    pair.by_client(|cx, id| cx.send(id, b""));
    pair.rig.settle()?;
    pair.rig.rests()?;
    check!(pair.server().of(pair.at_server) == [What::Open], "{:?}", pair.server().of(pair.at_server));
    pair.by_client(|cx, id| cx.send(id, b"more"));
    pair.until_arrived(4)?;
    pair.finish()
}

/// A datagram socket that reports the length of each datagram.
struct Lengths(UdpSocket);

impl Pollable for Lengths {
    type Event<'a> = usize;

    fn source(&self) -> Source<'_> {
        Source::of(&self.0)
    }

    fn step(&mut self, _: Ready, io: &mut Io<'_>, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let length = self.0.recv(buffer)?;
        io.may_have_more();
        Ok(Some(length))
    }
}

/// A socket that reports the number of bytes read.
struct Counted(TcpStream);

impl Pollable for Counted {
    type Event<'a> = usize;

    fn source(&self) -> Source<'_> {
        Source::of(&self.0)
    }

    fn step(&mut self, _: Ready, io: &mut Io<'_>, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        io.read(Source::of(&self.0), buffer).map(Some)
    }
}

/// Records the numbers that it receives.
#[derive(Default)]
struct Numbers(Vec<usize>);

impl Service for Numbers {}

impl Handle<Lengths> for Numbers {
    fn handle(&mut self, _: &mut Context<'_, Self>, _: Id<Lengths>, length: usize) -> Result {
        self.0.push(length);
        Ok(())
    }
}

impl Handle<Counted> for Numbers {
    fn handle(&mut self, _: &mut Context<'_, Self>, _: Id<Counted>, count: usize) -> Result {
        self.0.push(count);
        Ok(())
    }
}

fn empty_datagram(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let numbers = rig.add(Numbers::default())?;
    let ours = UdpSocket::bind("127.0.0.1:0")?;
    ours.set_nonblocking(true)?;
    let peer = UdpSocket::bind("127.0.0.1:0")?;
    peer.connect(ours.local_addr()?)?;
    let id = rig.with(numbers, |_, cx| cx.add(Lengths(ours))).map_err(|rejected| rejected.error)?;
    for datagram in [&b""[..], b"abc", b"", b"d"] {
        peer.send(datagram)?;
    }
    rig.until("all datagrams are told", |rig| rig.get(numbers).0.len() >= 4)?;
    check!(rig.get(numbers).0 == [0, 3, 0, 1], "{:?}", rig.get(numbers).0);
    rig.with(numbers, |_, cx| cx.close(id));
    rig.finish()
}

fn end_of_input(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let numbers = rig.add(Numbers::default())?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut peer = TcpStream::connect(listener.local_addr()?)?;
    let (ours, _) = listener.accept()?;
    ours.set_nonblocking(true)?;
    let id = rig.with(numbers, |_, cx| cx.add(Counted(ours))).map_err(|rejected| rejected.error)?;
    io::Write::write_all(&mut peer, b"short body")?;
    drop(peer);
    rig.until("the end is told", |rig| rig.get(numbers).0.last() == Some(&0))?;
    rig.rests()?;
    check!(rig.get(numbers).0 == [10, 0], "{:?}", rig.get(numbers).0);
    check!(rig.with(numbers, |_, cx| cx.get(id).is_some()), "it is for the service to close it");
    rig.with(numbers, |_, cx| cx.close(id));
    rig.finish()
}
