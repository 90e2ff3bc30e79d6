//! B at runtime level: readiness, pauses and the order of events.

use std::{
    io::Write,
    net::{TcpListener, TcpStream},
    process,
};

use super::{paused::notices_failures, prelude::*};

pub(super) const ROWS: &[Row] = &[
    row("B2r", "a burst is read to its end, and others are served meanwhile", &[], burst),
    row("B3r", "what arrived before a stream was accepted is told after its start", &[], before_accept),
    row("B3r2", "what arrived before a stream was added is told after its start", SOCKETS, before_add),
    row("B4r", "pausing and resuming in callbacks loses nothing", &[], toggled),
    row("B5r", "a reset while paused does not spin, and is told once", &[], reset_while_paused),
    row("B6r", "all bytes come before the end", &[], bytes_before_end),
    row("B7r", "a refused connect is told once, as refused", &[], refused),
    row("B7r2", "a connect that hangs ends at its deadline", &[], connect_hangs),
    row("B8r", "a connect that is done at once opens once", &[], connected_at_once),
    row("B9r", "bytes, then a reset: the bytes come first, and one end", &[], bytes_then_reset),
    row("B10r", "more ready streams than events in a wait are all served, round by round", &[], many_ready),
    row("B11r", "urgent data does not spin", SOCKETS, urgent),
];

fn burst(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::new(fixture)?;
    let len = sized(fixture, 4 << 20, 20_000);
    let other = pair.rig.connect(pair.client, &pair.address, Stream::new(Bytes))?;
    let (server, client) = (pair.server, pair.client);
    pair.rig.until("the other is open", |rig| rig.get(server).open.len() == 2)?;
    let small = pair.server().open[1];
    pair.by_client(|cx, id| {
        cx.send(id, &pattern(len));
        cx.send(other, b"me too");
    });
    let mut before = None;
    let at_server = pair.at_server;
    pair.rig.until("the burst has arrived", |rig| {
        let probe = rig.get(server);
        if before.is_none() && probe.received(small) == 6 {
            before = Some(probe.received(at_server));
        }
        probe.received(at_server) >= len && before.is_some()
    })?;
    check!(pair.server().bytes(at_server) == pattern(len), "what arrived differs");
    check!(before.is_some_and(|before| before < len), "the other was served after the whole burst");
    pair.rig.with(client, |_, cx| cx.abort(other));
    pair.finish()
}

fn before_accept(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let (server, client) = (rig.add(Probe::quiet())?, rig.add(Probe::quiet())?);
    let (listener, address) = rig.listen(server, || Stream::new(Bytes))?;
    rig.with(server, |_, cx| cx.pause(listener));
    rig.settle()?;
    let id = rig.connect(client, &address, Stream::new(Bytes))?;
    rig.with(client, |_, cx| cx.send(id, b"early"));
    rig.until("the client is up", |rig| !rig.get(client).open.is_empty())?;
    rig.settle()?;
    rig.with(server, |_, cx| cx.resume(listener));
    rig.until("it is told", |rig| {
        rig.get(server).open.first().is_some_and(|id| rig.get(server).received(*id) == 5)
    })?;
    let told = rig.get(server).of(rig.get(server).open[0]);
    check!(told == [What::Open, What::got(b"early")], "{told:?}");
    rig.with(client, |_, cx| cx.abort(id));
    rig.finish()
}

fn before_add(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let server = rig.add(Probe::quiet())?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut peer = TcpStream::connect(listener.local_addr()?)?;
    let (ours, _) = listener.accept()?;
    peer.write_all(b"early")?;
    drop(peer);
    let stream = Stream::new(Bytes).on(ours)?;
    let id = rig.with(server, |_, cx| cx.add(stream)).map_err(|rejected| rejected.error)?;
    rig.until("it ends", |rig| !rig.get(server).closed.is_empty())?;
    let told = rig.get(server).of(id);
    check!(told == [What::Open, What::got(b"early"), What::End, What::closed("End")], "{told:?}");
    rig.finish()
}

fn toggled(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::new(fixture)?;
    let len = sized(fixture, 300_000, 6_000);
    let bytes = pattern(len);
    let paused = Rc::new(Cell::new(false));
    let (violated, is_paused) = (Rc::new(Cell::new(0)), paused.clone());
    let noted = violated.clone();
    // Each input pauses the stream. A message of the same turn, or of a later one, resumes it.
    pair.rig.get_mut(pair.server).act(move |cx, id, what| {
        if let (Some(id), What::Got(_)) = (id, what) {
            noted.set(noted.get() + usize::from(is_paused.replace(true)));
            cx.pause(id);
            cx.tell(cx.me(), 0_u64)?;
        } else if let What::Message(round @ ..2) = what {
            cx.tell(cx.me(), round + 1)?;
        }
        Ok(())
    });
    let mut at = 0;
    let (server, client, ids) = (pair.server, pair.client, (pair.at_server, pair.at_client));
    pair.rig.until("all bytes have arrived", |rig| {
        if at < len {
            let part = (len / 40).min(len - at);
            rig.with(client, |_, cx| cx.send(ids.1, &bytes[at..at + part]));
            at += part;
        }
        if rig.get(server).messages.last() == Some(&2) && paused.replace(false) {
            rig.get_mut(server).messages.clear();
            rig.with(server, |_, cx| cx.resume(ids.0));
        }
        rig.get(server).received(ids.0) >= len
    })?;
    check!(violated.get() == 0, "{} inputs came while paused", violated.get());
    check!(pair.server().bytes(ids.0) == bytes, "what arrived differs");
    pair.finish()
}

fn reset_while_paused(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::new(fixture)?;
    pair.by_server(|cx, id| cx.pause(id));
    pair.rig.settle()?;
    pair.by_client(|cx, id| cx.abort(id));
    pair.until_server_closed()?;
    pair.rig.settle()?;
    pair.rig.rests()?;
    let told = pair.server().of(pair.at_server);
    check!(told == [What::Open, What::closed("Failed")], "{told:?}");
    pair.finish()
}

fn bytes_before_end(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::new(fixture)?;
    let bytes = pattern(sized(fixture, 1 << 20, 5_000));
    pair.by_client(|cx, id| {
        cx.send(id, &bytes);
        cx.close(id);
    });
    pair.until_server_closed()?;
    let told = pair.server().of(pair.at_server);
    check!(
        matches!(&told[..], [What::Open, What::Got(got), What::End, What::Closed(why)] if *got == bytes && why == "End"),
        "{} events, {} of {} bytes",
        told.len(),
        pair.server().received(pair.at_server),
        bytes.len()
    );
    let client = pair.client;
    pair.rig.until("the client has closed", |rig| !rig.get(client).closed.is_empty())?;
    let why = &pair.client().closed[0].2;
    check!(matches!(why, Closed::Done), "{why}");
    pair.finish()
}

fn refused(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let probe = rig.add(Probe::quiet())?;
    let (listener, address) = rig.listen(probe, || Stream::new(Bytes))?;
    rig.with(probe, |_, cx| cx.close(listener));
    rig.settle()?;
    let id = match rig.with(probe, |_, cx| cx.connect(&address, Stream::new(Bytes))) {
        Ok(id) => id,
        Err(error) => {
            let kind = error.io().map(|error| error.kind());
            check!(kind == Some(ErrorKind::ConnectionRefused), "{error}");
            return rig.finish();
        }
    };
    rig.until("the connect has failed", |rig| !rig.get(probe).closed.is_empty())?;
    rig.settle()?;
    check!(rig.get(probe).of(id) == [What::closed("Failed")], "{:?}", rig.get(probe).of(id));
    let why = &rig.get(probe).closed[0].2;
    check!(why.io().is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused), "{why}");
    check!(why.to_string().starts_with("connect "), "{why}");
    rig.finish()
}

fn connect_hangs(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let probe = rig.add(Probe::quiet())?;
    let mut options = ListenOptions::default();
    options.backlog = 1;
    let (listener, address) = rig.listen_with(probe, &options, || Stream::new(Bytes))?;
    rig.with(probe, |_, cx| cx.pause(listener));
    rig.settle()?;
    let hasty = StreamOptions::with(|options| options.connect = SHORT);
    let mut ids = Vec::new();
    // A queue of one holds at most two connections. Further ones wait for room in it.
    for _ in 0..6 {
        ids.push(rig.connect(probe, &address, Stream::new(Bytes).options(hasty.clone()))?);
    }
    let begun = rig.now();
    rig.until("each is open or has ended", |rig| {
        let ended = |id| rig.get(probe).closed.iter().any(|(of, ..)| of == id);
        ids.iter().all(|id| rig.get(probe).open.contains(id) || ended(id))
    })?;
    check!(rig.now() >= begun + SHORT / 2, "a deadline was early");
    let closed = &rig.get(probe).closed;
    check!(!closed.is_empty(), "the queue of one took all");
    for (id, _, why) in closed {
        check!(matches!(why, Closed::TimedOut(reactor::Phase::Connect)), "{why}");
        check!(rig.get(probe).of(*id) == [What::closed("TimedOut")], "{:?}", rig.get(probe).of(*id));
    }
    let accepted = rig.get(probe).open.clone();
    rig.with(probe, |_, cx| {
        ids.iter().chain(&accepted).for_each(|id| cx.abort(*id));
        cx.close(listener);
    });
    rig.finish()
}

fn connected_at_once(fixture: &mut Fixture<'_>) -> Outcome {
    let name = format!("conformance-{}-{}", process::id(), fixture.up_to(1 << 30));
    for wanted in [fixture.any_address(), Address::Abstract(name.into_bytes())] {
        let mut rig = Rig::new(fixture)?;
        let probe = rig.add(Probe::quiet())?;
        let listener = rig.with(probe, |_, cx| cx.listen(&wanted, |_| Some(Stream::new(Bytes))));
        let listener = match (listener, &wanted) {
            // Abstract names exist only on Linux.
            (Err(_), Address::Abstract(_)) => continue,
            (listener, _) => listener?,
        };
        let address = rig.with(probe, |_, cx| cx.local(listener))?;
        let id = rig.connect(probe, &address, Stream::new(Bytes))?;
        rig.until("both ends are open", |rig| rig.get(probe).open.len() == 2)?;
        rig.settle()?;
        rig.rests()?;
        check!(rig.get(probe).of(id) == [What::Open], "{:?}", rig.get(probe).of(id));
        let all = rig.get(probe).open.clone();
        rig.with(probe, |_, cx| all.iter().for_each(|id| cx.abort(*id)));
        rig.finish()?;
    }
    Ok(())
}

fn bytes_then_reset(fixture: &mut Fixture<'_>) -> Outcome {
    for paused in [true, false] {
        let mut pair = Pair::new(fixture)?;
        if paused && !notices_failures(&pair.rig) {
            pair.finish()?;
            continue;
        }
        if paused {
            pair.by_server(|cx, id| cx.pause(id));
            pair.rig.settle()?;
        }
        pair.by_client(|cx, id| cx.send(id, b"last words"));
        pair.rig.settle()?;
        pair.by_client(|cx, id| cx.abort(id));
        pair.until_server_closed()?;
        pair.rig.settle()?;
        let told = pair.server().of(pair.at_server);
        let unread = pair.server().closed[0].1.unread();
        let is_right = match &told[..] {
            // No handler sees the input of a paused stream, because the runtime returns it with the stream.
            [What::Open, What::Closed(why)] if paused => {
                why == "Failed"
                    && b"last words".starts_with(unread)
                    && (fixture.is_virtual() || !unread.is_empty())
            }
            [What::Open, What::Got(bytes), What::Closed(why)] => {
                why == "Failed" && b"last words".starts_with(bytes)
            }
            // A reset destroys input that has not arrived. On a network, nobody can promise more.
            [What::Open, What::Closed(why)] => why == "Failed" && fixture.is_virtual(),
            _ => false,
        };
        check!(is_right, "{told:?}");
        pair.finish()?;
    }
    Ok(())
}

fn many_ready(fixture: &mut Fixture<'_>) -> Outcome {
    let count = sized(fixture, 200, 30);
    let mut rig = Rig::new(fixture)?;
    let (server, client) = (rig.add(Probe::quiet())?, rig.add(Probe::quiet())?);
    let (_, address) = rig.listen(server, || Stream::new(Bytes))?;
    for _ in 0..count {
        rig.connect(client, &address, Stream::new(Bytes))?;
    }
    rig.until("all are open", |rig| rig.get(server).open.len() + rig.get(client).open.len() == 2 * count)?;
    let (to, from) = (rig.get(server).open.clone(), rig.get(client).open.clone());
    for round in 1..=3 {
        rig.with(client, |_, cx| from.iter().for_each(|id| _ = cx.send(*id, b"x")));
        let mut turns = 0;
        rig.until("all are served", |rig| {
            turns += 1;
            to.iter().all(|id| rig.get(server).received(*id) == round)
        })?;
        check!(turns <= count + 20, "{turns} turns for {count} streams");
    }
    rig.with(client, |_, cx| from.iter().for_each(|id| cx.abort(*id)));
    rig.finish()
}

fn urgent(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let server = rig.add(Probe::quiet())?;
    let (_, address) = rig.listen(server, || Stream::new(Bytes))?;
    let Address::Ip(ip) = address else { return Err(Stop::Skipped("needs IP".to_owned())) };
    let mut peer = TcpStream::connect(ip)?;
    rig.until("it is open", |rig| !rig.get(server).open.is_empty())?;
    let id = rig.get(server).open[0];
    socket2::SockRef::from(&peer).send_out_of_band(b"!")?;
    rig.settle()?;
    rig.rests()?;
    peer.write_all(b"plain")?;
    rig.until("plain data has arrived", |rig| rig.get(server).bytes(id).ends_with(b"plain"))?;
    drop(peer);
    rig.until("it has closed", |rig| !rig.get(server).closed.is_empty())?;
    rig.finish()
}
