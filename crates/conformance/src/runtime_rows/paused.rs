//! N at runtime level: which ends of its peer a paused stream reports, and which it does not.

use super::prelude::*;

pub(super) const ROWS: &[Row] = &[
    row("N8r", "a reset ends a paused stream at once, and hands over what had arrived", &[], reset),
    row("N8r2", "an end is told to a paused stream if nothing unread is before it", &[], ended),
    row("N8r3", "a paused stream that is half open stays open after the end", &[], half_open),
    row(
        "N8r4",
        "an end behind unread input is a hang-up while paused, and comes in its order",
        &[],
        behind_input,
    ),
    row("N8r5", "who pauses after the end has arrived behind input learns it, too", &[], paused_late),
    row("N8r6", "after a hang-up a reset still ends the paused stream", SOCKETS, ended_then_reset),
    row(
        "N8r7",
        "what its peer sent before a reset goes with the stream up to its limit",
        &[],
        reset_behind_much,
    ),
    row("N8r8", "pauses of different causes do not undo each other", &[], causes),
    row("N8r9", "a stream at rest handles its input before the end, and notices a reset", &[], at_rest),
    row("N8r10", "a paused stream whose peer is gone is released as it is", &[], released),
    row("N8r11", "each of a crowd of paused streams learns it, and nobody spins", &[], crowd),
    #[cfg(unix)]
    row("N8r12", "a Unix peer that wrote and closed loses nothing", SOCKETS, unix),
    #[cfg(unix)]
    row("N8r13", "a paused pipe learns that its writer has left", SOCKETS, pipe),
];

/// Reports whether the engine notices an end behind unread input. `polling` and select(2) cannot distinguish
/// it from input.
fn notices_ends(rig: &Rig) -> bool {
    !matches!(rig.runtime.engine_name(), "polling" | "select")
}

/// Reports whether the engine notices a failure behind unread input, or that both sides of a Unix socket are
/// gone.
pub(super) fn notices_failures(rig: &Rig) -> bool {
    rig.runtime.engine_name() != "select"
}

/// Skips the row if the engine does not notice failures.
fn need_failures(rig: &Rig) -> Outcome {
    if notices_failures(rig) { Ok(()) } else { Err(Stop::Skipped("select(2) tells input only".to_owned())) }
}

fn paused(fixture: &mut Fixture<'_>) -> Result<Pair, Stop> {
    let mut pair = Pair::new(fixture)?;
    pair.by_server(|cx, id| cx.pause(id));
    pair.rig.settle()?;
    Ok(pair)
}

fn check_told(pair: &Pair, expected: &[What]) -> Outcome {
    let told = pair.server().of(pair.at_server);
    check!(told == expected, "{told:?} instead of {expected:?}");
    Ok(())
}

/// Turns until the runtime rests, even if little moves at a time.
fn come_to_rest(rig: &mut Rig) -> Outcome {
    for _ in 0..TRIES_MAX {
        rig.settle()?;
        if rig.rests().is_ok() {
            return Ok(());
        }
    }
    Err("it never comes to rest".into())
}

fn until_told<C: super::probe::Items>(pair: &mut Pair<C>, what: What) -> Outcome {
    let (server, id) = (pair.server, pair.at_server);
    pair.rig.until("it is told", |rig| rig.get(server).of(id).contains(&what))
}

fn reset(fixture: &mut Fixture<'_>) -> Outcome {
    for bytes in [&b""[..], b"last words"] {
        let mut pair = paused(fixture)?;
        if !bytes.is_empty() && !notices_failures(&pair.rig) {
            return pair.finish();
        }
        pair.by_client(|cx, id| cx.send(id, bytes));
        pair.rig.settle()?;
        pair.by_client(|cx, id| cx.abort(id));
        pair.until_server_closed()?;
        pair.rig.settle()?;
        check_told(&pair, &[What::Open, What::closed("Failed")])?;
        let (_, stream, _) = &pair.server().closed[0];
        // On a virtual network a reset may overtake bytes that have not arrived.
        let is_whole = stream.unread() == bytes || fixture.is_virtual() && bytes.starts_with(stream.unread());
        check!(is_whole, "{:?} is handed over", stream.unread());
        pair.finish()?;
    }
    Ok(())
}

fn ended(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = paused(fixture)?;
    pair.by_client(|cx, id| cx.close(id));
    pair.until_server_closed()?;
    pair.rig.settle()?;
    check_told(&pair, &[What::Open, What::End, What::closed("End")])?;
    pair.finish()
}

fn half_open(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::of(fixture, || Stream::new(Bytes).half_open(true))?;
    pair.by_server(|cx, id| cx.pause(id));
    pair.by_client(|cx, id| cx.finish(id));
    until_told(&mut pair, What::End)?;
    pair.rig.settle()?;
    pair.rig.rests()?;
    check_told(&pair, &[What::Open, What::End])?;
    pair.by_server(|cx, id| cx.send(id, b"the answer"));
    pair.until_returned(10)?;
    pair.by_server(|cx, id| cx.resume(id));
    pair.rig.settle()?;
    check_told(&pair, &[What::Open, What::End])?;
    pair.by_server(|cx, id| cx.close(id));
    pair.until_server_closed()?;
    check!(matches!(pair.why(0), Closed::Done), "{}", pair.why(0));
    pair.finish()
}

fn behind_input(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = paused(fixture)?;
    pair.by_client(|cx, id| {
        cx.send(id, b"a further command");
        cx.close(id);
    });
    let hangup = if notices_ends(&pair.rig) {
        until_told(&mut pair, What::HungUp)?;
        vec![What::HungUp]
    } else {
        Vec::new()
    };
    pair.rig.settle()?;
    pair.rig.rests()?;
    let told = [vec![What::Open], hangup].concat();
    check_told(&pair, &told)?;
    // Another pause does not repeat the event.
    pair.by_server(|cx, id| {
        cx.resume(id);
        cx.pause(id);
    });
    pair.rig.settle()?;
    check_told(&pair, &told)?;
    pair.by_server(|cx, id| cx.resume(id));
    pair.until_server_closed()?;
    let rest = vec![What::got(b"a further command"), What::End, What::closed("End")];
    check_told(&pair, &[told, rest].concat())?;
    pair.finish()
}

fn paused_late(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::of(fixture, || Stream::new(Lines::new()))?;
    let server = pair.server;
    pair.rig.get_mut(server).act(|cx, id, what| {
        if let (Some(id), What::Got(_)) = (id, what) {
            cx.pause(id);
        }
        Ok(())
    });
    pair.by_client(|cx, id| {
        cx.send(id, "1");
        cx.send(id, "2");
        cx.close(id);
    });
    until_told(&mut pair, What::HungUp)?;
    let id = pair.at_server;
    pair.rig.settle()?;
    pair.rig.rests()?;
    let told = pair.server().of(id);
    check!(told == [What::Open, What::got(b"1"), What::HungUp], "{told:?}");
    pair.by_server(|cx, id| cx.resume(id));
    // The handler of the second line pauses the stream. No unread input remains before the end.
    pair.until_server_closed()?;
    let told = pair.server().of(id);
    let rest = [What::Open, What::got(b"1"), What::HungUp, What::got(b"2"), What::End, What::closed("End")];
    check!(told == rest, "{told:?}");
    pair.finish()
}

fn ended_then_reset(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = paused(fixture)?;
    need_failures(&pair.rig)?;
    pair.by_client(|cx, id| {
        cx.send(id, b"a further command");
        cx.finish(id);
    });
    let told = match notices_ends(&pair.rig) {
        true => vec![What::Open, What::HungUp],
        false => vec![What::Open],
    };
    let (server, id) = (pair.server, pair.at_server);
    pair.rig.until("the end has arrived", |rig| rig.get(server).of(id) == told)?;
    pair.rig.settle()?;
    pair.by_client(|cx, id| cx.abort(id));
    pair.until_server_closed()?;
    check_told(&pair, &[told, vec![What::closed("Failed")]].concat())?;
    let (_, stream, _) = &pair.server().closed[0];
    check!(stream.unread() == b"a further command", "{:?} is handed over", stream.unread());
    pair.finish()
}

fn reset_behind_much(fixture: &mut Fixture<'_>) -> Outcome {
    const LIMIT: usize = 1000;
    for (sent, is_whole) in [(LIMIT - 1, true), (LIMIT, true), (LIMIT + 1, false)] {
        let options = StreamOptions::with(|options| options.unread = LIMIT);
        let mut pair = Pair::of(fixture, move || Stream::new(Bytes).options(options.clone()))?;
        need_failures(&pair.rig)?;
        pair.by_server(|cx, id| cx.pause(id));
        pair.rig.settle()?;
        let bytes = pattern(sent);
        pair.by_client(|cx, id| cx.send(id, &bytes));
        pair.rig.settle()?;
        pair.by_client(|cx, id| cx.abort(id));
        pair.until_server_closed()?;
        let (_, stream, why) = &pair.server().closed[0];
        let came = stream.unread();
        // An engine may have read before it learned of the pause.
        let is_over = matches!(why, Closed::Unread) && fixture.is_virtual() && !is_whole;
        check!(why.io().is_some() || is_over, "{sent} bytes: {why}");
        check!(bytes.starts_with(came), "{sent} bytes: what is handed over differs");
        check!(
            came.len() == sent || !is_whole || fixture.is_virtual(),
            "of {sent} bytes {} came",
            came.len()
        );
        pair.finish()?;
    }
    Ok(())
}

/// Checks that a stream with two reasons not to read reads again only once both are gone.
fn causes(fixture: &mut Fixture<'_>) -> Outcome {
    rest_and_pause(fixture)?;
    hold_and_pause(fixture)
}

/// Returns options with low marks, so that streams rest. The timeout `rest` is long, so that it does not
/// pass.
fn low_marks() -> StreamOptions {
    let (cap, item) = (64 << 20, 64 << 20);
    StreamOptions::with(|options| {
        options.high = 2_000;
        options.low = 500;
        options.cap = cap;
        options.item = item;
        options.rest = LONG;
    })
}

/// Checks a stream that rests because of its own output, and is paused. Neither the low mark nor the resume
/// alone makes it read.
fn rest_and_pause(fixture: &mut Fixture<'_>) -> Outcome {
    let answer = sized(fixture, MUCH, 200_000);
    let mut pair = Pair::of(fixture, || Stream::new(Bytes).options(low_marks()))?;
    let server = pair.server;
    pair.rig.get_mut(server).act(move |cx, id, what| {
        if let (Some(id), What::Got(_)) = (id, what) {
            cx.send(id, &pattern(answer));
            cx.pause(id);
        }
        Ok(())
    });
    // The client does not read, so the server's output waits.
    pair.by_client(|cx, id| {
        cx.pause(id);
        cx.send(id, b"1");
    });
    pair.until_arrived(1)?;
    pair.by_client(|cx, id| cx.send(id, b"2"));
    come_to_rest(&mut pair.rig)?;
    // The resume alone does not end the rest.
    pair.by_server(|cx, id| cx.resume(id));
    come_to_rest(&mut pair.rig)?;
    let arrived = pair.server().received(pair.at_server);
    check!(arrived == 1, "a resume ended the rest: {arrived} bytes");
    pair.by_server(|cx, id| cx.pause(id));
    // The low mark alone does not end the pause.
    pair.by_client(|cx, id| cx.resume(id));
    pair.until_returned(answer)?;
    come_to_rest(&mut pair.rig)?;
    let arrived = pair.server().received(pair.at_server);
    check!(arrived == 1, "the low mark ended the pause: {arrived} bytes");
    pair.by_server(|cx, id| cx.resume(id));
    pair.until_arrived(2)?;
    pair.until_returned(2 * answer)?;
    pair.finish()
}

/// Passes the input of each of its two streams to the other.
#[derive(Default)]
struct Proxy {
    ends: Vec<Id<Stream>>,
    passed: usize,
}

impl Service for Proxy {}

impl Handle<Stream> for Proxy {
    fn handle(&mut self, cx: &mut Context<'_, Self>, id: Id<Stream>, event: Event<'_, Bytes>) -> Result {
        match event {
            Event::Open => {
                self.ends.push(id);
                if let [one, other] = self.ends[..] {
                    cx.pair(one, other)?;
                }
            }
            Event::Received(bytes) => {
                self.passed += bytes.len();
                if let Some(other) = self.ends.iter().find(|end| **end != id) {
                    cx.send(*other, bytes);
                }
            }
            _ => (),
        }
        Ok(())
    }
}

/// Checks a stream that is held because of its partner's queue, and is paused.
fn hold_and_pause(fixture: &mut Fixture<'_>) -> Outcome {
    let total = sized(fixture, MUCH, 300_000);
    let mut rig = Rig::new(fixture)?;
    let peers = rig.add(Probe::quiet())?;
    let proxy = rig.add(Proxy::default())?;
    let address = rig.with(proxy, |_, cx| -> std::result::Result<_, Stop> {
        let listener = cx.listen("127.0.0.1:0", |_| Some(Stream::new(Bytes).options(low_marks())))?;
        Ok(cx.local(listener)?)
    })?;
    let patient = StreamOptions::with(|options| {
        options.cap = 64 << 20;
        options.item = 64 << 20;
    });
    let (from, to) = (
        rig.connect(peers, &address, Stream::new(Bytes).options(patient.clone()))?,
        rig.connect(peers, &address, Stream::new(Bytes).options(patient))?,
    );
    rig.until("both are paired", |rig| rig.get(proxy).ends.len() == 2 && rig.get(peers).open.len() == 2)?;
    let port = |rig: &mut Rig, id| rig.with(peers, |_, cx| cx.local(id));
    let at = port(&mut rig, from)?;
    let inward = rig.with(proxy, |this, cx| {
        this.ends.iter().copied().find(|id| cx.peer(*id).is_ok_and(|peer| peer == at))
    });
    let inward = inward.ok_or("the proxy has the stream of each peer")?;
    rig.with(peers, |_, cx| {
        cx.pause(to);
        cx.send(from, &pattern(total));
    });
    come_to_rest(&mut rig)?;
    let held_at = rig.get(proxy).passed;
    check!(held_at < total, "the partner's queue does not hold it: {held_at} bytes are passed on");
    rig.with(proxy, |_, cx| {
        cx.pause(inward);
        cx.resume(inward);
    });
    come_to_rest(&mut rig)?;
    let passed = rig.get(proxy).passed;
    check!(passed == held_at, "a resume lets a held stream read: {} bytes", passed - held_at);
    rig.with(proxy, |_, cx| cx.pause(inward));
    rig.with(peers, |_, cx| cx.resume(to));
    rig.until("what was passed on has arrived", |rig| rig.get(peers).received(to) == held_at)?;
    come_to_rest(&mut rig)?;
    let passed = rig.get(proxy).passed;
    check!(passed == held_at, "the partner's low mark lets a paused stream read: {} bytes", passed - held_at);
    rig.with(proxy, |_, cx| cx.resume(inward));
    rig.until("all has arrived", |rig| rig.get(peers).received(to) == total)?;
    rig.with(peers, |_, cx| [from, to].into_iter().for_each(|id| cx.abort(id)));
    rig.finish()
}

fn at_rest(fixture: &mut Fixture<'_>) -> Outcome {
    for resets in [false, true] {
        let answer = sized(fixture, MUCH, 200_000);
        let mut pair = Pair::of(fixture, || Stream::new(Bytes).options(low_marks()))?;
        let (server, seen) = (pair.server, Rc::new(Cell::new(0)));
        let counted = seen.clone();
        pair.rig.get_mut(server).act(move |cx, id, what| {
            if let (Some(id), What::Got(bytes)) = (id, what) {
                // Answer only the first byte. The rest of the input just waits.
                if counted.replace(counted.get() + bytes.len()) == 0 {
                    cx.send(id, &pattern(answer));
                }
            }
            Ok(())
        });
        pair.by_client(|cx, id| {
            cx.pause(id);
            cx.send(id, b"?");
        });
        pair.until_arrived(1)?;
        pair.rig.settle()?;
        pair.by_client(|cx, id| {
            cx.send(id, b"more");
            cx.finish(id);
        });
        pair.rig.settle()?;
        pair.rig.rests()?;
        check_told(&pair, &[What::Open, What::got(b"?")])?;
        if resets {
            pair.by_client(|cx, id| cx.abort(id));
        } else {
            pair.by_client(|cx, id| cx.resume(id));
            pair.until_returned(answer)?;
        }
        pair.until_server_closed()?;
        let server = pair.server();
        let (all, why) = (server.bytes(pair.at_server), pair.why(0));
        let is_right = match resets {
            false => all == b"?more" && matches!(why, Closed::End),
            true => b"?more".starts_with(&all) && why.io().is_some(),
        };
        let told = server.of(pair.at_server);
        check!(is_right, "resets: {resets}: {told:?}");
        pair.finish()?;
    }
    Ok(())
}

fn released(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = paused(fixture)?;
    pair.by_client(|cx, id| {
        cx.send(id, b"a further command");
        cx.close(id);
    });
    let is_told = notices_ends(&pair.rig);
    if is_told {
        until_told(&mut pair, What::HungUp)?;
    }
    pair.by_server(|cx, id| cx.release(id))?;
    pair.until_server_closed()?;
    let (old, stream, why) = pair.rig.get_mut(pair.server).closed.remove(0);
    check!(matches!(why, Closed::Released), "{why}");
    let told = pair.server().of(old);
    let expected = match is_told {
        true => vec![What::Open, What::HungUp, What::closed("Released")],
        false => vec![What::Open, What::closed("Released")],
    };
    check!(told == expected, "{told:?}");
    let id = pair.rig.with(pair.server, |_, cx| cx.add(stream)).map_err(|rejected| rejected.error)?;
    pair.rig.settle()?;
    // It is still paused. The engine does not repeat an event, but one that could not report it before may do
    // so now.
    let told = pair.server().of(id);
    check!(told.is_empty() || !is_told && told == [What::HungUp], "{told:?}");
    pair.rig.with(pair.server, |_, cx| cx.resume(id));
    pair.until_server_closed()?;
    let rest = vec![What::got(b"a further command"), What::End, What::closed("End")];
    let (all, told) = (pair.server().of(id), [told, rest].concat());
    check!(all == told, "{all:?}");
    pair.finish()
}

fn crowd(fixture: &mut Fixture<'_>) -> Outcome {
    let count = sized(fixture, 500, 30).min(fixture.descriptors_max() / 4);
    let mut rig = Rig::new(fixture)?;
    let server = rig.add(Probe::acting(|cx, id, what| {
        match (id, what) {
            (Some(id), What::Open) => cx.pause(id),
            (Some(id), What::HungUp) => cx.close(id),
            _ => (),
        }
        Ok(())
    }))?;
    let client = rig.add(Probe::quiet())?;
    let (_, address) = rig.listen(server, || Stream::new(Bytes))?;
    for _ in 0..count {
        rig.connect(client, &address, Stream::new(Bytes))?;
    }
    rig.until("all are open", |rig| rig.get(server).open.len() + rig.get(client).open.len() == 2 * count)?;
    rig.settle()?;
    let from = rig.get(client).open.clone();
    let with_input = if notices_ends(&rig) { 3 } else { 2 };
    rig.with(client, |_, cx| {
        for (at, id) in from.iter().enumerate() {
            match at % with_input {
                0 => cx.abort(*id),
                1 => cx.close(*id),
                _ => {
                    cx.send(*id, b"a further command");
                    cx.close(*id);
                }
            }
        }
    });
    let before = rig.counters().turns;
    rig.until("each has learnt it", |rig| rig.get(server).closed.len() == count)?;
    let turns = rig.counters().turns - before;
    check!(turns <= 20 * count as u64 + 200, "{turns} turns for {count} streams");
    rig.until("the other ends have closed, too", |rig| rig.get(client).closed.len() == count)?;
    check!(rig.get(server).bytes(from[0]).is_empty(), "input is handed over while paused");
    rig.finish()
}

#[cfg(unix)]
fn unix(fixture: &mut Fixture<'_>) -> Outcome {
    use std::{io::Write as _, os::unix::net::UnixStream};

    for bytes in [&b""[..], b"last words"] {
        let mut rig = Rig::new(fixture)?;
        let probe = rig.add(Probe::quiet())?;
        let (ours, mut theirs) = UnixStream::pair()?;
        let stream = Stream::new(Bytes).on(ours)?;
        let id = rig.with(probe, |_, cx| cx.add(stream)).map_err(|rejected| rejected.error)?;
        rig.until("it is open", |rig| rig.get(probe).open == [id])?;
        rig.with(probe, |_, cx| cx.pause(id));
        rig.settle()?;
        theirs.write_all(bytes)?;
        drop(theirs);
        if bytes.is_empty() {
            rig.until("it ends", |rig| !rig.get(probe).closed.is_empty())?;
            let told = rig.get(probe).of(id);
            check!(told == [What::Open, What::End, What::closed("End")], "{told:?}");
            rig.finish()?;
            continue;
        }
        let mut expected = vec![What::Open];
        if notices_failures(&rig) {
            expected.push(What::HungUp);
        }
        rig.until("the hang-up is told", |rig| rig.get(probe).of(id) == expected)?;
        rig.settle()?;
        rig.rests()?;
        rig.with(probe, |_, cx| cx.resume(id));
        rig.until("it ends", |rig| !rig.get(probe).closed.is_empty())?;
        let told = rig.get(probe).of(id);
        expected.extend([What::got(bytes), What::End, What::closed("End")]);
        check!(told == expected, "{told:?}");
        rig.finish()?;
    }
    Ok(())
}

#[cfg(unix)]
fn pipe(fixture: &mut Fixture<'_>) -> Outcome {
    use std::io::Write as _;

    for bytes in [&b""[..], b"last words"] {
        let mut rig = Rig::new(fixture)?;
        let probe = rig.add(Probe::quiet())?;
        let (reader, mut writer) = std::io::pipe()?;
        let stream = Stream::new(Bytes).on(reader)?;
        let id = rig.with(probe, |_, cx| cx.add(stream)).map_err(|rejected| rejected.error)?;
        rig.until("it is open", |rig| rig.get(probe).open == [id])?;
        rig.with(probe, |_, cx| cx.pause(id));
        rig.settle()?;
        writer.write_all(bytes)?;
        drop(writer);
        let mut expected = vec![What::Open];
        if !bytes.is_empty() {
            if notices_failures(&rig) {
                expected.push(What::HungUp);
            }
            rig.until("the hang-up is told", |rig| rig.get(probe).of(id) == expected)?;
            rig.settle()?;
            rig.rests()?;
            rig.with(probe, |_, cx| cx.resume(id));
            expected.push(What::got(bytes));
        }
        rig.until("it ends", |rig| !rig.get(probe).closed.is_empty())?;
        expected.extend([What::End, What::closed("End")]);
        let told = rig.get(probe).of(id);
        check!(told == expected, "{told:?}");
        rig.finish()?;
    }
    Ok(())
}

/// More than the buffers of a connection hold.
const MUCH: usize = 16 << 20;
const LONG: Duration = Duration::from_secs(3600);
const TRIES_MAX: usize = 1000;
