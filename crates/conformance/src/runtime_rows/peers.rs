//! D at runtime level: the effects of peers on a service.

use std::{
    io::Write,
    net::{Shutdown, TcpStream, UdpSocket},
};

use reactor::{ConnectOptions, Fd, Interest, Phase, Ready};

use super::prelude::*;

pub(super) const ROWS: &[Row] = &[
    row("D1r", "after a half-close replies still arrive, and nothing spins", &[], half_close),
    row("D2r", "a reset while idle ends once", &[], reset_while_idle),
    row("D2r2", "a reset while writing ends once", &[], reset_while_writing),
    row("D2r3", "a reset in the accept queue does no harm", &[], reset_in_queue),
    row("D3r", "writing to a peer that is gone ends the stream with an error", SOCKETS, write_after_close),
    row("D4r", "a silent peer ends at its deadline, and a talking one does not", &[], idle_deadline),
    row("D4r2", "a silent peer gets last words before its deadline ends it", &[], last_words),
    row("D7r", "a peer that says nothing ends at the deadline of the handshake", &[], no_handshake),
    row("D9r", "garbage ends its own stream only", &[], garbage),
    row("D9r2", "garbage of a foreign client ends its own stream only", SOCKETS, foreign_garbage),
    row("D10r", "a client may come again and again from one port", &[], same_port),
    row("D12r", "an unreachable datagram is an error of that send only", SOCKETS, unreachable),
];

fn half_close(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::of(fixture, || Stream::new(Bytes).half_open(true))?;
    pair.by_client(|cx, id| {
        cx.send(id, b"question");
        cx.finish(id);
    });
    let server = pair.server;
    pair.rig.until("the half-close is told", |rig| rig.get(server).count(&What::End) > 0)?;
    pair.rig.settle()?;
    pair.rig.rests()?;
    let answer = pattern(sized(fixture, 200_000, 3_000));
    pair.by_server(|cx, id| cx.send(id, &answer));
    pair.until_returned(answer.len())?;
    pair.by_server(|cx, id| cx.close(id));
    pair.until_server_closed()?;
    let told = pair.server().of(pair.at_server);
    let told: Vec<_> = told.into_iter().filter(|what| *what != What::Drained).collect();
    check!(told == [What::Open, What::got(b"question"), What::End, What::closed("Done")], "{told:?}");
    check!(pair.client().bytes(pair.at_client) == answer, "what returned differs");
    pair.finish()
}

fn reset_while_idle(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::new(fixture)?;
    pair.rig.settle()?;
    pair.by_client(|cx, id| cx.abort(id));
    pair.until_server_closed()?;
    pair.rig.settle()?;
    let told = pair.server().of(pair.at_server);
    check!(told == [What::Open, What::closed("Failed")], "{told:?}");
    let why = &pair.server().closed[0].2;
    check!(why.io().is_some_and(|error| error.kind() == ErrorKind::ConnectionReset), "{why}");
    pair.finish()
}

fn reset_while_writing(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::new(fixture)?;
    let len = sized(fixture, 12 << 20, 300_000);
    pair.by_client(|cx, id| cx.pause(id));
    pair.by_server(|cx, id| cx.send(id, &pattern(len)));
    pair.rig.settle()?;
    pair.by_client(|cx, id| cx.abort(id));
    pair.until_server_closed()?;
    pair.rig.settle()?;
    let told = pair.server().of(pair.at_server);
    check!(told == [What::Open, What::closed("Failed")], "{told:?}");
    let unsent = pair.server().closed[0].1.unsent();
    check!(unsent > 0 && unsent <= len, "{unsent} of {len} bytes are told as unsent");
    pair.finish()
}

fn reset_in_queue(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let (server, client) = (rig.add(Probe::quiet())?, rig.add(Probe::quiet())?);
    let (listener, address) = rig.listen(server, || Stream::new(Bytes))?;
    rig.with(server, |_, cx| cx.pause(listener));
    rig.settle()?;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(rig.connect(client, &address, Stream::new(Bytes))?);
    }
    rig.until("they are up", |rig| rig.get(client).open.len() == 5)?;
    rig.with(client, |_, cx| ids.iter().for_each(|id| cx.abort(*id)));
    rig.settle()?;
    rig.with(server, |_, cx| cx.resume(listener));
    let good = rig.connect(client, &address, Stream::new(Bytes))?;
    rig.with(client, |_, cx| cx.send(good, b"good"));
    rig.until("a good one is served", |rig| {
        rig.get(server).open.iter().any(|id| rig.get(server).received(*id) == 4)
    })?;
    rig.settle()?;
    let probe = rig.get(server);
    check!(probe.closed.len() + 1 == probe.open.len() && probe.open.len() <= 6, "{:?}", probe.log);
    check!(probe.faults().is_empty(), "{:?}", probe.faults());
    rig.with(client, |_, cx| cx.abort(good));
    rig.finish()
}

fn write_after_close(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let server = rig.add(Probe::quiet())?;
    let (_, address) = rig.listen(server, || Stream::new(Bytes).half_open(true))?;
    let peer = TcpStream::connect(ip(&address)?)?;
    rig.until("it is open", |rig| !rig.get(server).open.is_empty())?;
    drop(peer);
    rig.until("its end is told", |rig| rig.get(server).count(&What::End) == 1)?;
    let id = rig.get(server).open[0];
    rig.until("a write has failed", |rig| {
        rig.with(server, |_, cx| cx.send(id, b"anyone?"));
        !rig.get(server).closed.is_empty()
    })?;
    let why = &rig.get(server).closed[0].2;
    check!(why.io().is_some(), "{why}");
    rig.settle()?;
    check!(rig.get(server).of(id).len() == 3, "{:?}", rig.get(server).of(id));
    rig.finish()
}

fn idle_deadline(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let idle = 3 * SHORT;
    let server = rig.add(Probe::acting(move |cx, id, what| {
        if let (Some(id), What::Open | What::Got(_)) = (id, what) {
            cx.deadline(id, idle);
        }
        Ok(())
    }))?;
    let client = rig.add(Probe::quiet())?;
    let (_, address) = rig.listen(server, || Stream::new(Bytes))?;
    let silent = rig.connect(client, &address, Stream::new(Bytes))?;
    rig.until("the silent one is open", |rig| rig.get(server).open.len() == 1)?;
    let begun = rig.now();
    let talking = rig.connect(client, &address, Stream::new(Bytes))?;
    // A virtual clock moves only while there is nothing else to do.
    let (every, mut round) = (sized(fixture, 1, 8), 0);
    rig.until("the silent one has ended", |rig| {
        round += 1;
        if round % every == 0 {
            rig.with(client, |_, cx| cx.send(talking, b"."));
        }
        !rig.get(server).closed.is_empty()
    })?;
    check!(rig.now() >= begun + (idle - SHORT / 2), "the deadline was early");
    let (id, _, why) = &rig.get(server).closed[0];
    check!(matches!(why, Closed::Deadline) && *id == rig.get(server).open[0], "{why}");
    rig.until("the silent one sees its end", |rig| {
        rig.get(client).closed.iter().any(|(id, ..)| *id == silent)
    })?;
    check!(rig.get(server).closed.len() == 1, "the talking one has ended, too");
    rig.with(client, |_, cx| cx.abort(talking));
    rig.finish()
}

fn last_words(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::new(fixture)?;
    let (server, id) = (pair.server, pair.at_server);
    let said = pattern(sized(fixture, 50_000, 2_000));
    let words = said.clone();
    pair.rig.get_mut(server).act(move |cx, _, what| {
        match what {
            What::Got(_) => cx.deadline(id, 2 * SHORT),
            What::Message(7) => drop(cx.send(id, &words)),
            _ => (),
        }
        Ok(())
    });
    // The second message replaces the first, and stays when input postpones the deadline.
    pair.by_server(|cx, id| {
        cx.deadline_with(id, SHORT, 6_u64);
        cx.deadline_with(id, SHORT, 7_u64);
    });
    let begun = pair.rig.now();
    pair.by_client(|cx, id| cx.send(id, b"."));
    pair.until_arrived(1)?;
    pair.until_returned(said.len())?;
    check!(pair.rig.now() >= begun + 2 * SHORT, "the last words were early");
    pair.by_client(|cx, id| cx.close(id));
    pair.until_server_closed()?;
    check!(matches!(pair.why(0), Closed::Deadline), "{}", pair.why(0));
    check!(pair.server().messages == [7], "{:?}", pair.server().messages);
    check!(pair.client().bytes(pair.at_client) == said, "the last words are others");
    check!(pair.client().count(&What::End) <= 1, "{:?}", pair.client().of(pair.at_client));
    pair.finish()
}

/// A layer whose handshake waits for a byte that never arrives.
struct Waiting;

impl Layer for Waiting {
    const INPUT_MAX: usize = 16;

    fn start(&mut self, _: &mut reactor::session::Io<'_>) -> Result {
        Ok(())
    }

    fn ready(&self) -> bool {
        false
    }

    fn open(&mut self, _: &mut [u8], _: &mut reactor::session::Io<'_>) -> Result<reactor::session::Step> {
        Ok(reactor::session::Step { used: 0, next: reactor::session::Next::Wait })
    }

    fn seal(&mut self, clear: &[u8], _: &mut reactor::session::Io<'_>) -> Result<usize> {
        Ok(clear.len())
    }

    fn finish(&mut self, _: &mut reactor::session::Io<'_>) -> Result {
        Ok(())
    }

    fn end(&mut self, _: &[u8]) -> Result {
        Ok(())
    }
}

fn no_handshake(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let server = rig.add(Probe::<Bytes, Waiting>::quiet())?;
    let client = rig.add(Probe::<Bytes>::quiet())?;
    let options = StreamOptions::with(|options| {
        options.handshake = 2 * SHORT;
        options.close = SHORT;
    });
    let (_, address) = rig.listen(server, move || Stream::over(Bytes, Waiting).options(options.clone()))?;
    let count = sized(fixture, 50, 20);
    for _ in 0..count {
        rig.connect(client, &address, Stream::new(Bytes))?;
    }
    rig.until("all have ended", |rig| {
        rig.get(server).closed.len() == count && rig.get(client).closed.len() == count
    })?;
    for (id, _, why) in &rig.get(server).closed {
        check!(matches!(why, Closed::TimedOut(Phase::Handshake)), "{why}");
        check!(rig.get(server).of(*id) == [What::closed("TimedOut")], "{:?}", rig.get(server).of(*id));
    }
    rig.finish()
}

fn garbage(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::of(fixture, || Stream::new(Lines::max(100)))?;
    let raw = pair.rig.add(Probe::<Bytes>::quiet())?;
    let long = vec![b'x'; 500];
    let broken: [&[u8]; 3] =
        [b"\xff\xfe\xfd\n", &long, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\xa5\n"];
    for (at, bytes) in broken.into_iter().enumerate() {
        let id = pair.rig.connect(raw, &pair.address, Stream::new(Bytes))?;
        pair.rig.with(raw, |_, cx| cx.send(id, bytes));
        let server = pair.server;
        pair.rig.until("the garbage has ended its stream", |rig| rig.get(server).closed.len() == at + 1)?;
        let why = pair.why(at);
        check!(matches!(why, Closed::Refused(_)), "{why}");
        pair.rig.until("its sender sees that", |rig| rig.get(raw).closed.len() == at + 1)?;
    }
    pair.by_client(|cx, id| cx.send(id, "fine"));
    pair.until_arrived(4)?;
    pair.finish()
}

fn foreign_garbage(fixture: &mut Fixture<'_>) -> Outcome {
    let options = StreamOptions::with(|options| options.close = SHORT);
    let mut pair = Pair::of(fixture, move || Stream::new(Lines::max(1_000)).options(options.clone()))?;
    for round in 0..50 {
        let bytes: Vec<u8> = (0..fixture.up_to(5_000)).map(|_| fixture.up_to(256) as u8).collect();
        let mut peer = TcpStream::connect(ip(&pair.address)?)?;
        // The stream may end during this write.
        let _ = peer.write_all(&bytes).and_then(|()| peer.shutdown(Shutdown::Write));
        let server = pair.server;
        pair.rig
            .until("the garbage has ended its stream", |rig| rig.get(server).closed.len() == round + 1)?;
        drop(peer);
    }
    pair.by_client(|cx, id| cx.send(id, "fine"));
    pair.until_arrived(4)?;
    pair.finish()
}

fn same_port(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let (server, client) = (rig.add(Probe::quiet())?, rig.add(Probe::quiet())?);
    let addresses =
        [rig.listen(server, || Stream::new(Bytes))?.1, rig.listen(server, || Stream::new(Bytes))?.1];
    // Use a separate host address, so that connections of other programs do not occupy its ports.
    let host = [127, 77, fixture.up_to(250) as u8, fixture.up_to(250) as u8];
    let mut options = ConnectOptions::default();
    options.local = Some(Address::Ip((host, 0).into()));
    for round in 1..=10 {
        let address = &addresses[round % 2];
        let id = match rig.with(client, |_, cx| cx.connect_with(address, &options, Stream::new(Bytes))) {
            Err(error) if error.io().is_some_and(|error| error.kind() == ErrorKind::AddrNotAvailable) => {
                return Err(Stop::Skipped("needs a second address on the loopback".to_owned()));
            }
            id => id?,
        };
        rig.with(client, |_, cx| cx.send(id, b"again"));
        rig.until("it is served", |rig| {
            rig.get(server).open.get(round - 1).is_some_and(|id| rig.get(server).received(*id) == 5)
        })?;
        let local = rig.with(client, |_, cx| cx.local(id))?;
        check!(round == 1 || options.local.as_ref() == Some(&local), "it comes from {local}");
        options.local = Some(local);
        // The first close leaves its port in TIME_WAIT. A reset leaves nothing behind.
        rig.with(client, |_, cx| if round == 1 { cx.close(id) } else { cx.abort(id) });
        rig.until("it has ended", |rig| {
            rig.get(server).closed.len() == round && rig.get(client).closed.len() == round
        })?;
    }
    rig.finish()
}

/// Records the results of receives from a datagram socket.
#[derive(Default)]
struct Datagrams {
    answers: Vec<std::io::Result<usize>>,
}

impl Service for Datagrams {}

impl Handle<Fd<UdpSocket>> for Datagrams {
    fn handle(&mut self, cx: &mut Context<'_, Self>, id: Id<Fd<UdpSocket>>, _: Ready) -> Result {
        let Some(socket) = cx.get_mut(id) else { return Ok(()) };
        match socket.recv(&mut [0; 64]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => (),
            answer => self.answers.push(answer),
        }
        Ok(())
    }
}

fn unreachable(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let service = rig.add(Datagrams::default())?;
    let (ours, peer) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    ours.set_nonblocking(true)?;
    peer.connect(ours.local_addr()?)?;
    let nobody = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    ours.connect(nobody)?;
    let id = rig
        .with(service, |_, cx| cx.add(Fd::new(ours, Interest::Read)))
        .map_err(|rejected| rejected.error)?;
    rig.with(service, |_, cx| cx.get(id).map(|socket| socket.send(b"anyone?"))).transpose()?;
    rig.until("the refusal is told", |rig| !rig.get(service).answers.is_empty())?;
    rig.rests()?;
    // The socket is still alive: connected to an existing peer, it works again.
    rig.with(service, |_, cx| cx.get(id).map(|socket| socket.connect(peer.local_addr()?))).transpose()?;
    rig.with(service, |_, cx| cx.resume(id));
    peer.send(b"here")?;
    rig.until("a datagram comes", |rig| matches!(rig.get(service).answers.last(), Some(Ok(4))))?;
    let refused = &rig.get(service).answers[0];
    // Windows reports this as a reset.
    let kind = if cfg!(windows) { ErrorKind::ConnectionReset } else { ErrorKind::ConnectionRefused };
    check!(refused.as_ref().is_err_and(|error| error.kind() == kind), "{refused:?}");
    rig.with(service, |_, cx| cx.close(id));
    rig.finish()
}

fn ip(address: &Address) -> Result<std::net::SocketAddr, Stop> {
    address.ip().ok_or_else(|| Stop::Failed(format!("{address} is not IP")))
}
