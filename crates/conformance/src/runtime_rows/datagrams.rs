//! C8, C9, D12 at runtime level: the datagram events of a service, and the limits of its queues.

use reactor::{
    BindOptions, DatagramCounts, DatagramEvent, DatagramOptions, Datagrams, Limits, Outbound, WhenFull,
};

use super::prelude::*;

pub(super) const ROWS: &[Row] = &[
    row("C8r3", "a datagram of no bytes is handed over as one", DATAGRAMS, empty),
    row("C8r4", "paused in the middle of a batch, the rest comes at the resume", DATAGRAMS, paused),
    row("C8r5", "closed in the middle of a batch, only closed follows, once", DATAGRAMS, closed),
    row("C8r6", "released and added again, it has what waited", DATAGRAMS, released),
    row("C8r7", "a close sends what is queued, and a stop does", DATAGRAMS, stopped),
    row("C8r8", "an echo returns each of many datagrams", DATAGRAMS, echoed),
    row("C9r", "a datagram that is too long is told to its sender only", DATAGRAMS, too_long),
    row("C9r2", "a full queue refuses the newest, and says when it has drained", DATAGRAMS, refuses),
    row("C9r3", "a full queue drops the oldest, if that is asked for", DATAGRAMS, drops),
    row("C9r4", "what a paused socket keeps is bounded", DATAGRAMS, keeps),
    row("C9r5", "what waits to leave counts against the runtime's budget", DATAGRAMS, budget),
    row("C9r6", "a datagram is received whole up to a length that the service sets", UNIX, longest),
    row("C9r7", "a datagram leaves a Unix socket up to the length of its send buffer", UNIX, send_buffer),
    row("D12r2", "a refused datagram is told with its address, and the socket lives", DATAGRAMS, refused),
];

/// An event of a service.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Said {
    Got(Address, Vec<u8>),
    Undelivered(Option<Address>, ErrorKind),
    Drained,
}

type Act = Box<dyn FnMut(&mut Context<'_, Post>, Id<Datagrams>, &Said) -> Result>;

/// Records its events, and acts on them.
struct Post {
    said: Vec<Said>,
    /// The last received datagram was truncated.
    is_cut: bool,
    closed: Vec<(Id<Datagrams>, Option<Datagrams>, Closed)>,
    act: Act,
}

impl Post {
    fn quiet() -> Post {
        Post { said: Vec::new(), is_cut: false, closed: Vec::new(), act: Box::new(|_, _, _| Ok(())) }
    }

    /// Returns the bytes of all datagrams.
    fn got(&self) -> Vec<&[u8]> {
        let got = self.said.iter().filter_map(|said| match said {
            Said::Got(_, bytes) => Some(&bytes[..]),
            _ => None,
        });
        got.collect()
    }
}

impl Service for Post {}

impl Handle<Datagrams> for Post {
    fn handle(&mut self, cx: &mut Context<'_, Self>, id: Id<Datagrams>, event: DatagramEvent<'_>) -> Result {
        let said = match event {
            DatagramEvent::Received(datagram) => {
                self.is_cut = datagram.truncated;
                Said::Got(datagram.from.clone(), datagram.bytes.to_vec())
            }
            DatagramEvent::Undelivered { to, error } => Said::Undelivered(to, error.kind()),
            DatagramEvent::Drained => Said::Drained,
        };
        let result = (self.act)(cx, id, &said);
        self.said.push(said);
        result
    }

    fn closed(&mut self, _: &mut Context<'_, Self>, id: Id<Datagrams>, datagrams: Datagrams, why: Closed) {
        self.closed.push((id, Some(datagrams), why));
    }
}

/// Two sockets of two services.
struct Two {
    rig: Rig,
    one: ServiceId<Post>,
    other: ServiceId<Post>,
    at_one: Id<Datagrams>,
    at_other: Id<Datagrams>,
    one_address: Address,
    other_address: Address,
}

impl Two {
    fn new(fixture: &mut Fixture<'_>) -> std::result::Result<Two, Stop> {
        Two::with(Rig::new(fixture)?, DatagramOptions::DEFAULT, DatagramOptions::DEFAULT)
    }

    fn with(
        mut rig: Rig,
        of_one: DatagramOptions,
        of_other: DatagramOptions,
    ) -> std::result::Result<Two, Stop> {
        let (one, other) = (rig.add(Post::quiet())?, rig.add(Post::quiet())?);
        let (at_one, one_address) = bind(&mut rig, one, of_one)?;
        let (at_other, other_address) = bind(&mut rig, other, of_other)?;
        Ok(Two { rig, one, other, at_one, at_other, one_address, other_address })
    }

    /// Sends from one socket to the other, all in one call of the service.
    fn send(&mut self, datagrams: &[&[u8]]) -> Vec<Flow> {
        let (id, to) = (self.at_one, self.other_address.clone());
        self.rig.with(self.one, |_, cx| {
            datagrams.iter().map(|bytes| cx.send(id, Outbound::to(&to, bytes))).collect()
        })
    }

    fn until_got(&mut self, count: usize) -> Outcome {
        let other = self.other;
        self.rig.until("the datagrams have come", |rig| rig.get(other).got().len() >= count)
    }

    fn counts(&mut self, of: ServiceId<Post>, id: Id<Datagrams>) -> DatagramCounts {
        self.rig.with(of, |_, cx| cx.get(id).map(Datagrams::counts)).unwrap_or_default()
    }

    fn got(&self) -> Vec<&[u8]> {
        self.rig.get(self.other).got()
    }
}

fn bind(
    rig: &mut Rig,
    service: ServiceId<Post>,
    options: DatagramOptions,
) -> std::result::Result<(Id<Datagrams>, Address), Stop> {
    rig.with(service, |_, cx| {
        let id = cx.bind("127.0.0.1:0", Datagrams::new().options(options))?;
        Ok((id, cx.local(id)?))
    })
}

fn empty(fixture: &mut Fixture<'_>) -> Outcome {
    let mut two = Two::new(fixture)?;
    two.send(&[b"", b"abc", b"", b"d"]);
    two.until_got(4)?;
    check!(two.got() == [&b""[..], b"abc", b"", b"d"], "{:?}", two.got());
    check!(two.rig.get(two.other).closed.is_empty(), "it is closed");
    two.rig.finish()
}

fn paused(fixture: &mut Fixture<'_>) -> Outcome {
    let mut two = Two::new(fixture)?;
    two.rig.get_mut(two.other).act = Box::new(|cx, id, said| {
        if matches!(said, Said::Got(_, bytes) if bytes == b"3") {
            cx.pause(id);
        }
        Ok(())
    });
    two.send(&[b"1", b"2", b"3", b"4", b"5"]);
    two.until_got(3)?;
    two.send(&[b"6"]);
    two.rig.settle()?;
    two.rig.rests()?;
    check!(two.got() == [b"1", b"2", b"3"], "{:?}", two.got());
    let (other, id) = (two.other, two.at_other);
    two.rig.with(other, |_, cx| cx.resume(id));
    two.until_got(6)?;
    check!(two.got() == [b"1", b"2", b"3", b"4", b"5", b"6"], "{:?}", two.got());
    let counts = two.counts(other, id);
    check!((counts.received, counts.unread) == (6, 0), "{counts:?}");
    two.rig.finish()
}

fn closed(fixture: &mut Fixture<'_>) -> Outcome {
    let mut two = Two::new(fixture)?;
    two.rig.get_mut(two.other).act = Box::new(|cx, id, said| {
        if matches!(said, Said::Got(_, bytes) if bytes == b"2") {
            cx.close(id);
            cx.close(id);
        }
        Ok(())
    });
    two.send(&[b"1", b"2", b"3", b"4"]);
    let other = two.other;
    two.rig.until("it is closed", |rig| !rig.get(other).closed.is_empty())?;
    two.rig.settle()?;
    check!(two.got() == [b"1", b"2"], "{:?}", two.got());
    let closed = &two.rig.get(other).closed;
    check!(closed.len() == 1 && matches!(closed[0].2, Closed::Done), "{closed:?}");
    let counts = closed[0].1.as_ref().map(Datagrams::counts).unwrap_or_default();
    // Nobody can count datagrams that the engine has not even read from the system.
    check!(counts.received == 2 && counts.unread <= 2, "{counts:?}");
    let (id, to) = (two.at_other, two.one_address.clone());
    let late = two.rig.with(other, |_, cx| cx.send(id, Outbound::to(&to, b"late")));
    check!(late == Flow::Gone, "{late:?}");
    two.rig.finish()
}

fn released(fixture: &mut Fixture<'_>) -> Outcome {
    let mut two = Two::new(fixture)?;
    two.rig.get_mut(two.other).act = Box::new(|cx, id, said| {
        if matches!(said, Said::Got(_, bytes) if bytes == b"2") {
            cx.release(id)?;
        }
        Ok(())
    });
    two.send(&[b"1", b"2", b"3", b"4"]);
    let other = two.other;
    two.rig.until("it is released", |rig| !rig.get(other).closed.is_empty())?;
    let (_, datagrams, why) = &mut two.rig.get_mut(other).closed[0];
    check!(matches!(why, Closed::Released), "{why}");
    let datagrams = datagrams.take().ok_or("it was given back empty")?;
    two.send(&[b"5"]);
    two.rig.get_mut(other).act = Box::new(|_, _, _| Ok(()));
    let id = two.rig.with(other, |_, cx| cx.add(datagrams)).map_err(|rejected| rejected.error)?;
    two.until_got(5)?;
    check!(two.got() == [b"1", b"2", b"3", b"4", b"5"], "{:?}", two.got());
    let (counts, local) = (two.counts(other, id), two.rig.with(other, |_, cx| cx.local(id))?);
    check!(counts.received == 5 && local == two.other_address, "{counts:?} at {local}");
    two.rig.finish()
}

fn stopped(fixture: &mut Fixture<'_>) -> Outcome {
    let mut two = Two::new(fixture)?;
    let all: Vec<Vec<u8>> = (0..100_u8).map(|n| vec![n; usize::from(n)]).collect();
    two.send(&all.iter().map(|bytes| &bytes[..]).collect::<Vec<_>>());
    let (one, id) = (two.one, two.at_one);
    two.rig.with(one, |_, cx| cx.close(id));
    two.until_got(all.len())?;
    check!(two.got() == all, "not as they were sent");
    let sent = two.rig.get(one).closed[0].1.as_ref().map(Datagrams::counts).unwrap_or_default().sent;
    check!(sent == 100, "{sent} of 100 were sent");
    two.rig.finish()
}

fn echoed(fixture: &mut Fixture<'_>) -> Outcome {
    let mut two = Two::new(fixture)?;
    two.rig.get_mut(two.other).act = Box::new(|cx, id, said| {
        if let Said::Got(from, bytes) = said {
            check_queued(cx.send(id, Outbound::to(from, bytes)))?;
        }
        Ok(())
    });
    let one = two.one;
    let mut all = Vec::new();
    for round in 0..40_usize {
        // Send datagrams of one length, and of many lengths, as many as fit into every system's buffer.
        let some: Vec<Vec<u8>> =
            (0..50).map(|n| pattern(if round % 2 == 0 { 700 } else { n * round })).collect();
        two.send(&some.iter().map(|bytes| &bytes[..]).collect::<Vec<_>>());
        all.extend(some);
        let expected = all.len();
        two.rig.until("all have returned", |rig| rig.get(one).got().len() >= expected)?;
    }
    check!(two.rig.get(one).got() == all, "not as they were sent");
    two.rig.finish()
}

fn check_queued(flow: Flow) -> Result {
    if matches!(flow, Flow::Queued | Flow::High) { Ok(()) } else { Err(format!("{flow:?}").into()) }
}

fn too_long(fixture: &mut Fixture<'_>) -> Outcome {
    let mut two = Two::new(fixture)?;
    let long = pattern(LENGTH_MAX + 1);
    two.send(&[b"before", &long, b"behind"]);
    two.until_got(2)?;
    let one = two.one;
    two.rig.until("the error is told", |rig| !rig.get(one).said.is_empty())?;
    two.rig.settle()?;
    check!(two.got() == [&b"before"[..], b"behind"], "{:?}", two.got());
    let said = two.rig.get(one).said.clone();
    let to = two.other_address.clone();
    check!(matches!(&said[..], [Said::Undelivered(Some(of), _)] if *of == to), "{said:?}");
    let counts = two.counts(one, two.at_one);
    check!((counts.sent, counts.undelivered, counts.dropped) == (2, 1, 0), "{counts:?}");
    two.rig.finish()
}

/// Opens two Unix sockets. One receives datagrams up to this length, and the other one is connected to it.
fn unix(
    fixture: &mut Fixture<'_>,
    longest: usize,
    send_buffer: Option<usize>,
) -> std::result::Result<Two, Stop> {
    let mut rig = Rig::new(fixture)?;
    let (one, other) = (rig.add(Post::quiet())?, rig.add(Post::quiet())?);
    let name = format!("reactor-conformance-{}-{longest}", std::process::id());
    let other_address = Address::Abstract(name.into_bytes());
    let options = DatagramOptions::with(|options| options.longest = longest);
    let to = other_address.clone();
    let at_other = rig.with(other, |_, cx| cx.bind(to, Datagrams::new().options(options)))?;
    let mut options = BindOptions::default();
    (options.peer, options.send_buffer) = (Some(other_address.clone()), send_buffer);
    let at_one = rig.with(one, |_, cx| cx.bind_with(Address::Unnamed, &options, Datagrams::new()))?;
    Ok(Two { rig, one, other, at_one, at_other, one_address: Address::Unnamed, other_address })
}

/// Sends one datagram. Returns the bytes that arrive, and whether they are truncated.
fn pass(two: &mut Two, bytes: &[u8]) -> std::result::Result<(Vec<u8>, bool), Stop> {
    let (before, id) = (two.got().len(), two.at_one);
    two.rig.with(two.one, |_, cx| cx.send(id, Outbound::new(bytes)));
    two.until_got(before + 1)?;
    let got = two.got().last().map(|got| got.to_vec()).unwrap_or_default();
    Ok((got, two.rig.get(two.other).is_cut))
}

fn longest(fixture: &mut Fixture<'_>) -> Outcome {
    const USUAL: usize = 64 << 10;
    for (set, limit) in [(USUAL, USUAL), (1, USUAL), (USUAL + 1, USUAL + 1), (100_000, 100_000)] {
        let mut two = unix(fixture, set, None)?;
        for length in [limit - 1, limit, limit + 1] {
            let sent = pattern(length);
            let (got, is_cut) = pass(&mut two, &sent)?;
            check!(
                got == sent[..length.min(limit)] && is_cut == (length > limit),
                "{length} bytes with {set}: {} arrived, truncated: {is_cut}",
                got.len()
            );
        }
        // This is a setting of the service, and stays with its socket.
        let (other, id) = (two.other, two.at_other);
        two.rig.with(other, |_, cx| cx.release(id))?;
        two.rig.until("it is released", |rig| !rig.get(other).closed.is_empty())?;
        let (_, datagrams, _) = two.rig.get_mut(other).closed.remove(0);
        let Some(again) = datagrams else { return Err(Stop::Failed("it came without itself".to_owned())) };
        two.rig.with(other, |_, cx| cx.add(again).map(drop).map_err(|refused| refused.error))?;
        let (got, is_cut) = pass(&mut two, &pattern(limit + 1))?;
        check!(got.len() == limit && is_cut, "added again with {set}: {} arrived", got.len());
        two.rig.finish()?;
    }
    Ok(())
}

fn send_buffer(fixture: &mut Fixture<'_>) -> Outcome {
    let mut two = unix(fixture, usize::MAX, Some(60_000))?;
    // Linux doubles the requested size, and uses a little of it for itself.
    let limit = 2 * 60_000 - 32;
    for length in [limit - 1, limit] {
        let sent = pattern(length);
        let (got, is_cut) = pass(&mut two, &sent)?;
        check!(got == sent && !is_cut, "{length} bytes: {} arrived, truncated: {is_cut}", got.len());
    }
    let (one, id, long) = (two.one, two.at_one, pattern(limit + 1));
    two.rig.with(one, |_, cx| cx.send(id, Outbound::new(&long)));
    two.rig.until("it is told", |rig| !rig.get(one).said.is_empty())?;
    let said = &two.rig.get(one).said;
    check!(matches!(said[..], [Said::Undelivered(None, _)]), "{said:?}");
    let (got, _) = pass(&mut two, b"the socket lives")?;
    check!(got == b"the socket lives", "{got:?}");
    two.rig.finish()
}

fn refuses(fixture: &mut Fixture<'_>) -> Outcome {
    use Flow::{Full, High, Queued};
    // Limit the queue by number, and by bytes.
    let by_number = DatagramOptions::with(|options| options.queue = 4);
    let by_bytes = DatagramOptions::with(|options| options.queue_bytes = 8);
    for options in [by_number, by_bytes] {
        let mut two = Two::with(Rig::new(fixture)?, options, DatagramOptions::DEFAULT)?;
        let flows = two.send(&[b"11", b"22", b"33", b"44", b"55", b"66"]);
        check!(flows == [Queued, Queued, High, High, Full, Full], "{flows:?}");
        two.until_got(4)?;
        let one = two.one;
        two.rig.until("it has drained", |rig| rig.get(one).said == [Said::Drained])?;
        check!(two.got() == [b"11", b"22", b"33", b"44"], "{:?}", two.got());
        let flows = two.send(&[b"7", b""]);
        check!(flows == [Queued, Queued], "{flows:?}");
        two.until_got(6)?;
        let counts = two.counts(one, two.at_one);
        check!((counts.sent, counts.dropped) == (6, 2), "{counts:?}");
        two.rig.finish()?;
    }
    // Test a datagram that fits exactly, and one that never fits.
    let small = DatagramOptions::with(|options| options.queue_bytes = 8);
    let mut two = Two::with(Rig::new(fixture)?, small, DatagramOptions::DEFAULT)?;
    for (length, fits) in [(7, true), (8, true), (9, false)] {
        let flow = two.send(&[&vec![0; length]])[0];
        check!((flow == High) == fits && (flow == Full) != fits, "{length} bytes: {flow:?}");
        two.rig.settle()?;
    }
    two.rig.finish()
}

fn drops(fixture: &mut Fixture<'_>) -> Outcome {
    let options = DatagramOptions::with(|options| {
        options.queue = 3;
        options.queue_bytes = 8;
        options.when_full = WhenFull::DropOldest;
    });
    let mut two = Two::with(Rig::new(fixture)?, options, DatagramOptions::DEFAULT)?;
    let flows = two.send(&[b"1", b"2", b"3", b"4", b"5", b"666666", b"7"]);
    check!(!flows.contains(&Flow::Full), "{flows:?}");
    let too_large = two.send(&[b"999999999"])[0];
    check!(too_large == Flow::Full, "{too_large:?}");
    two.until_got(3)?;
    two.rig.settle()?;
    // The datagram of six bytes made room for itself, and so did each one above the limit.
    check!(two.got() == [&b"5"[..], b"666666", b"7"], "{:?}", two.got());
    let counts = two.counts(two.one, two.at_one);
    check!((counts.sent, counts.dropped) == (3, 5), "{counts:?}");
    two.rig.finish()
}

fn keeps(fixture: &mut Fixture<'_>) -> Outcome {
    // Each datagram counts 128 bytes in addition to its own two. The handler gets the first, and then two
    // more fit.
    for (unread, kept) in [(259, 1), (260, 2), (261, 2)] {
        let options = DatagramOptions::with(|options| options.unread = unread);
        let mut two = Two::with(Rig::new(fixture)?, DatagramOptions::DEFAULT, options)?;
        two.rig.get_mut(two.other).act = Box::new(|cx, id, said| {
            if matches!(said, Said::Got(_, bytes) if bytes == b"11") {
                cx.pause(id);
            }
            Ok(())
        });
        let (other, id) = (two.other, two.at_other);
        // All four form one batch, so they must arrive before the runtime looks at the socket.
        two.rig.with(other, |_, cx| cx.pause(id));
        two.rig.settle()?;
        two.send(&[b"11", b"22", b"33", b"44"]);
        two.rig.settle()?;
        two.rig.with(other, |_, cx| cx.resume(id));
        two.until_got(1)?;
        two.rig.settle()?;
        let unread = two.counts(other, id).unread;
        two.rig.with(other, |_, cx| cx.resume(id));
        two.rig.settle()?;
        let got = two.got();
        check!(got.len() as u64 + unread == 4, "{got:?}, {unread} unread");
        // A simulated engine may deliver them in batches of any size, and keeps the undelivered ones itself.
        let is_kept = got.len() == 1 + kept || fixture.is_virtual() && got.len() > 1 + kept;
        check!(is_kept, "{got:?}, {unread} unread, of {kept} to keep");
        two.rig.finish()?;
    }
    Ok(())
}

fn budget(fixture: &mut Fixture<'_>) -> Outcome {
    // In addition to the bytes a queue has a table, and both may have grown to twice the necessary size.
    for (limit, fits) in [(1_999, false), (6_000, true)] {
        let engine = fixture.engine();
        let mut limits = Limits::default();
        limits.bytes = limit + engine.memory();
        let rig = Rig::over(engine, limits)?;
        let mut two = Two::with(rig, DatagramOptions::DEFAULT, DatagramOptions::DEFAULT)?;
        let flows = two.send(&[&[1; 1_000], &[2; 1_000]]);
        let expected = if fits { Flow::Queued } else { Flow::Full };
        check!(flows == [Flow::Queued, expected], "{flows:?}, with {limit}");
        two.until_got(if fits { 2 } else { 1 })?;
        let flows = two.send(&[&[3; 1_000]]);
        check!(flows == [Flow::Queued], "what has left counts no more: {flows:?}");
        two.rig.settle()?;
        check!(two.rig.counters().queue_bytes == 0, "{} bytes are counted", two.rig.counters().queue_bytes);
        two.rig.finish()?;
    }
    Ok(())
}

fn refused(fixture: &mut Fixture<'_>) -> Outcome {
    let mut two = Two::new(fixture)?;
    let (one, at_one) = (two.one, two.at_one);
    let nobody = two.rig.with(one, |_, cx| -> std::result::Result<Address, Stop> {
        let id = cx.bind("127.0.0.1:0", Datagrams::new())?;
        let address = cx.local(id)?;
        cx.abort(id);
        Ok(address)
    })?;
    two.rig.settle()?;
    let mut options = BindOptions::default();
    options.peer = Some(nobody.clone());
    let connected = two.rig.with(one, |_, cx| cx.bind_with("127.0.0.1:0", &options, Datagrams::new()))?;
    // Only Linux reports to a socket that is not connected.
    let reports = if cfg!(target_os = "linux") || fixture.is_virtual() { 2 } else { 1 };
    two.rig.with(one, |_, cx| {
        cx.send(at_one, Outbound::to(&nobody, b"lost"));
        cx.send(connected, Outbound::new(b"lost, too"));
    });
    two.rig.until("the refusals are told", |rig| rig.get(one).said.len() >= reports)?;
    let said = &two.rig.get(one).said;
    let is_refusal = |said: &Said| {
        let Said::Undelivered(to, kind) = said else { return false };
        // Windows reports this as a reset.
        to.as_ref().is_none_or(|to| *to == nobody)
            && matches!(kind, ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset)
    };
    check!(said.len() == reports && said.iter().all(is_refusal), "{said:?}");
    two.send(&[b"here"]);
    two.until_got(1)?;
    check!(two.rig.get(one).closed.len() == 1, "only the one that was aborted is closed");
    two.rig.finish()
}

const DATAGRAMS: &[Need] = &[Need::Datagrams];
const UNIX: &[Need] = &[Need::Datagrams, Need::Linux];
/// The longest datagram of UDP over IPv4 (RFC 768).
const LENGTH_MAX: usize = 65_507;
