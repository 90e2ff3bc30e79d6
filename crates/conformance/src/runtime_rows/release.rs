//! O at runtime level: a released resource arrives unchanged, or the runtime refuses it.

use reactor::session::kit::Toy;

use super::prelude::*;

pub(super) const ROWS: &[Row] = &[
    row("O6r", "a released stream goes on as it was: open, paused, with its deadline", &[], as_it_was),
    row("O6r2", "one of a pair is released, and the other goes on alone", &[], of_a_pair),
    row("O6r3", "a release that nobody can perform is refused", &[], refused),
    row("O6r4", "a stream released in its handshake opens in its next life, once", &[], in_a_handshake),
    row("O6r5", "a peer's end that was told is not told again", &[], ended),
];

type Released = (Id<Stream>, Vec<What>);

/// Turns until the server's stream was released, and adds it again.
fn add_again(pair: &mut Pair) -> Result<Released, Stop> {
    pair.until_server_closed()?;
    let (old, stream, why) = pair.rig.get_mut(pair.server).closed.remove(0);
    check!(matches!(why, Closed::Released), "{why}");
    let told = pair.server().of(old);
    let id = pair.rig.with(pair.server, |_, cx| cx.add(stream)).map_err(|rejected| rejected.error)?;
    Ok((id, told))
}

fn as_it_was(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::new(fixture)?;
    let late = pair.by_server(|cx, id| -> Result<Flow, Stop> {
        cx.pause(id);
        cx.deadline(id, SHORT);
        cx.release(id)?;
        Ok(cx.send(id, b"behind the release"))
    })?;
    check!(late == Flow::Queued, "what was sent after the release is {late:?}");
    let (id, told) = add_again(&mut pair)?;
    check!(told == [What::Open, What::closed("Released")], "{told:?}");
    pair.by_client(|cx, id| cx.send(id, b"to nobody"));
    pair.until_returned(18)?;
    let (client, at_client) = (pair.client, pair.at_client);
    check!(pair.rig.get(client).bytes(at_client) == b"behind the release", "not what was sent");
    pair.until_server_closed()?;
    let told = pair.server().of(id);
    check!(told == [What::closed("Deadline")], "{told:?}");
    pair.finish()
}

fn of_a_pair(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::new(fixture)?;
    let second = pair.rig.connect(pair.client, &pair.address, Stream::new(Bytes))?;
    let (server, client) = (pair.server, pair.client);
    pair.rig
        .until("both are open", |rig| rig.get(server).open.len() == 2 && rig.get(client).open.len() == 2)?;
    let other = pair.rig.get(server).open[1];
    pair.by_server(|cx, id| -> Outcome {
        cx.pair(id, other)?;
        cx.release(id)?;
        Ok(())
    })?;
    let (id, _) = add_again(&mut pair)?;
    pair.by_client(|cx, id| cx.send(id, b"to the one"));
    pair.rig.with(client, |_, cx| cx.send(second, b"to the other"));
    pair.rig.until("both are read", |rig| {
        rig.get(server).received(id) == 10 && rig.get(server).received(other) == 12
    })?;
    check!(pair.server().closed.is_empty(), "one closed with the other");
    // The streams may be paired again, and then close together.
    pair.rig.with(server, |_, cx| cx.pair(id, other))?;
    pair.rig.with(server, |_, cx| cx.abort(id));
    pair.rig.until("both have closed", |rig| rig.get(server).closed.len() == 2)?;
    pair.rig.with(client, |_, cx| cx.abort(second));
    pair.finish()
}

fn refused(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let (server, client) = (rig.add(Probe::quiet())?, rig.add(Probe::quiet())?);
    let (listener, address) = rig.listen(server, || Stream::new(Bytes))?;
    let released = rig.with(server, |_, cx| cx.release(listener));
    check!(released.is_err(), "a listener was released to nobody");
    let id = rig.connect(client, &address, Stream::new(Bytes))?;
    rig.until("it goes on accepting", |rig| {
        rig.get(server).open.len() == 1 && rig.get(client).open.len() == 1
    })?;
    let (first, second) = rig.with(client, |_, cx| {
        let first = cx.release(id);
        cx.close(id);
        (first, cx.release(id))
    });
    check!(first.is_ok() && second.is_err(), "{first:?}, {second:?} of one that is closing");
    rig.until("it has closed", |rig| !rig.get(client).closed.is_empty())?;
    let why = &rig.get(client).closed[0].2;
    check!(matches!(why, Closed::Done), "{why}");
    rig.finish()
}

fn in_a_handshake(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let make = || Stream::over(Bytes, Toy::server(3));
    let (server, client) = (rig.add(Probe::quiet())?, rig.add(Probe::quiet())?);
    let (_, address) = rig.listen(server, make)?;
    let id = rig.connect(client, &address, Stream::over(Bytes, Toy::client(3)))?;
    rig.with(client, |_, cx| cx.release(id))?;
    rig.until("it is released", |rig| !rig.get(client).closed.is_empty())?;
    let (_, stream, why) = rig.get_mut(client).closed.remove(0);
    check!(matches!(why, Closed::Released), "{why}");
    check!(rig.get(client).open.is_empty(), "it opened before it was connected");
    let id = rig.with(client, |_, cx| cx.add(stream).map_err(|rejected| rejected.error))?;
    rig.with(client, |_, cx| cx.send(id, b"hello"));
    rig.until("both are open", |rig| rig.get(client).open == [id] && rig.get(server).open.len() == 1)?;
    let there = rig.get(server).open[0];
    rig.until("it arrives", |rig| rig.get(server).received(there) == 5)?;
    check!(rig.get(client).of(id) == [What::Open], "{:?}", rig.get(client).of(id));
    rig.with(client, |_, cx| cx.abort(id));
    rig.finish()
}

fn ended(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::with(Rig::new(fixture)?, &Default::default(), &Default::default(), || {
        Stream::new(Bytes).half_open(true)
    })?;
    pair.by_client(|cx, id| cx.finish(id));
    let (server, at_server) = (pair.server, pair.at_server);
    pair.rig.until("the end is told", |rig| rig.get(server).of(at_server).contains(&What::End))?;
    pair.by_server(|cx, id| cx.release(id))?;
    let (id, _) = add_again(&mut pair)?;
    pair.rig.with(server, |_, cx| cx.send(id, b"still here"));
    pair.until_returned(10)?;
    pair.rig.settle()?;
    check!(pair.server().of(id).is_empty(), "{:?}", pair.server().of(id));
    let grace = Duration::from_secs(3);
    pair.rig.with(server, |_, cx| cx.deadline(id, grace));
    pair.rig.with(server, |_, cx| cx.close(id));
    pair.until_server_closed()?;
    pair.finish()
}
