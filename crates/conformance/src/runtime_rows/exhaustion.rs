//! E at runtime level: the runtime at its limits, and its recovery.

use std::{
    collections::HashSet,
    net::{SocketAddr, TcpStream},
};

use reactor::{
    Error, Fault, Limits, Phase,
    engine::Candidates,
    session::{Io, Next, Step},
};

use super::prelude::*;
use crate::{
    suite::{exhaust, open_descriptors},
    torture::FailNth,
};

pub(super) const ROWS: &[Row] = &[
    row(
        "E1r",
        "without descriptors a listener tells one fault, rests, and then serves all who waited",
        SOCKETS,
        no_descriptors,
    ),
    row(
        "E1r2",
        "a listener that is to turn away closes one at a time, and counts them",
        SOCKETS,
        turned_away,
    ),
    row("E3r", "without descriptors a runtime is an error, and leaves nothing", SOCKETS, no_runtime),
    row("E4r", "what the engine refuses is told with its cause, or comes back", &[], engine_refuses),
    row("E4r2", "at the limit of resources one more is told as such, or comes back", &[], too_many_resources),
    row("E6r", "addresses that cannot be had are typed errors", &[], bad_addresses),
    slow("E7r", "a full accept queue loses no connection that gets through", &[], full_queue),
    row("E7r2", "a full accept queue of a Unix listener keeps connects waiting", LINUX, full_unix_queue),
    row(
        "E7r3",
        "what is queued for a connect that never gets through is counted as dropped",
        &[Need::Sockets, Need::Linux],
        unconnected,
    ),
    row("E8r", "a job beyond the limit comes back", &[], too_many_jobs),
    row("E10r", "at the byte budget streams that hold most end, and others go on", &[], over_budget),
    row("O3r", "one service's hoarders end, and another service's polite peers do not", &[], hoarders),
    row("O3r2", "a shortage of bytes is told once, and does not last", &[], shortage),
    row("O3r3", "an item that is not completed ends its stream, and one that is does not", &[], unfinished),
    row("E10r2", "what a layer opened is bounded as plain input is", &[], layered_input),
    row("E11r", "ids are not used again", &[], ids_not_reused),
    row("E12r", "a thousand connections, or what the engine takes, are served, and all close", &[], thousand),
];

const LINUX: &[Need] = &[Need::Linux];

fn no_descriptors(fixture: &mut Fixture<'_>) -> Outcome {
    without_descriptors(fixture, false)
}

fn turned_away(fixture: &mut Fixture<'_>) -> Outcome {
    without_descriptors(fixture, true)
}

fn without_descriptors(fixture: &mut Fixture<'_>, turn_away: bool) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let server = rig.add(Probe::<Bytes>::quiet())?;
    let mut options = ListenOptions::default();
    options.turn_away = turn_away;
    let (listener, address) = rig.listen_with(server, &options, || Stream::new(Bytes))?;
    let Some(ip) = address.ip() else { return Err("the address is not IP".into()) };
    // Serve one connection first, so that lazily opened resources exist.
    let first = TcpStream::connect(ip)?;
    rig.until("the first is open", |rig| !rig.get(server).open.is_empty())?;
    rig.with(server, |_, cx| cx.pause(listener));
    rig.settle()?;
    let clients: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(ip)).collect::<Result<_, _>>()?;
    let taken = exhaust()?;
    rig.with(server, |_, cx| cx.resume(listener));
    let outcome = rig.until("the fault is told", |rig| !rig.get(server).faults().is_empty());
    // During half a second of exhaustion, the listener tries again now and then.
    let (end, before) = (rig.now() + 10 * SHORT, rig.counters().turns);
    let mut turned = outcome;
    while turned.is_ok() && rig.now() < end {
        turned = rig.turn(SHORT).map(drop);
    }
    let turns = rig.counters().turns - before;
    drop(taken);
    turned?;
    check!(turns < 50, "{turns} turns while it should rest");
    let faults = rig.get(server).faults();
    check!(faults.len() == 1 && faults[0].starts_with("Accept"), "{faults:?}");
    // The listener serves each waiting connection unless it turned it away.
    let late = TcpStream::connect(ip)?;
    let away = rig.counters().turned_away as usize;
    check!((away > 0) == turn_away, "{away} were turned away");
    rig.until("the listener accepts again", |rig| {
        let there = 2 + clients.len() - rig.counters().turned_away as usize;
        rig.get(server).open.len() >= there
    })?;
    check!(rig.get(server).closed.is_empty(), "{:?}", rig.get(server).closed.len());
    drop((first, clients, late));
    let ids = rig.get(server).open.len();
    rig.until("all have closed", |rig| rig.get(server).closed.len() >= ids)?;
    rig.finish()
}

fn no_runtime(fixture: &mut Fixture<'_>) -> Outcome {
    let name = fixture.engine().name();
    let candidates = Candidates::default();
    if !candidates.names().any(|candidate| candidate == name) {
        return Err(Stop::Skipped(
            "needs an engine that its maker can refuse: one of the library's".to_owned(),
        ));
    }
    let before = open_descriptors();
    let mut taken = exhaust()?;
    // With each further descriptor the open fails a step later, until it succeeds.
    let mut failures = 0;
    while let Err(error) = candidates.open(Some(name)) {
        check!(taken.pop().is_some(), "it never opens: {error}");
        failures += 1;
    }
    drop(taken);
    check!(failures > 0, "an engine opened without descriptors");
    check!(before == open_descriptors(), "{before:?} descriptors before, {:?} after", open_descriptors());
    Ok(())
}

fn engine_refuses(fixture: &mut Fixture<'_>) -> Outcome {
    let (mut registers, mut rejected, mut ended) = (0, 0, 0);
    for nth in 1..=NTH_MAX {
        let torture = FailNth::new(nth, libc::ENOMEM);
        let mut rig = Rig::over(torture.engine(fixture.engine()), Limits::default())?;
        let probe = rig.add(Probe::<Bytes>::quiet())?;
        let begun = rig.with(probe, |_, cx| -> Result<_, Error> {
            let listener = cx.listen("127.0.0.1:0", |_| Some(Stream::new(Bytes)))?;
            let address = cx.local(listener)?;
            let id = cx.connect(&address, Stream::new(Bytes))?;
            cx.send(id, b"hello");
            Ok(id)
        });
        match begun {
            Ok(id) => {
                rig.until("it has arrived, or ended, or failed", |rig| {
                    let probe = rig.get(probe);
                    probe
                        .log
                        .iter()
                        .any(|(_, what)| matches!(what, What::Got(_) | What::Closed(_) | What::Fault(_)))
                })?;
                rig.with(probe, |_, cx| cx.abort(id));
            }
            Err(error) => {
                let errno = error.io().and_then(|error| error.raw_os_error());
                check!(errno == Some(libc::ENOMEM), "call {nth}: {error}");
                rejected += 1;
            }
        }
        rig.settle()?;
        let told = rig.get(probe);
        for fault in told.faults().iter().filter(|fault| fault.starts_with("Register")) {
            let text = fault.strip_prefix("Register: the connection of ");
            let peer = text.and_then(|text| text.split_once(" was closed: ")).map(|(peer, _)| peer);
            check!(peer.is_some_and(|peer| peer.parse::<SocketAddr>().is_ok()), "no peer: {fault}");
            registers += 1;
        }
        ended += told.closed.iter().filter(|(.., why)| matches!(why, Closed::Failed(_))).count();
        let all = told.open.clone();
        rig.with(probe, |_, cx| all.iter().for_each(|id| cx.abort(*id)));
        // The failing call may be a wait, which the runtime ignores.
        rig.finish().map_err(|stop| Stop::Failed(format!("call {nth}: {stop:?}")))?;
        if !torture.has_failed() {
            // In a virtual engine it is random which call is the n-th.
            let is_complete = (registers > 0 || fixture.is_virtual()) && rejected > 0 && ended > 0;
            check!(is_complete, "of {nth} calls {registers} were faults, {rejected} errors, {ended} ends");
            return Ok(());
        }
    }
    Err(format!("{NTH_MAX} calls were not enough").into())
}

fn too_many_resources(fixture: &mut Fixture<'_>) -> Outcome {
    for limit in [6, 7, 8] {
        let mut rig = Rig::limited(fixture, |limits| limits.resources = limit)?;
        let probe = rig.add(Probe::quiet())?;
        let (_, address) = rig.listen(probe, || Stream::new(Bytes))?;
        // A listener and three connections with two ends each are seven.
        let mut refused = 0;
        for _ in 0..3 {
            match rig.with(probe, |_, cx| cx.connect(&address, Stream::new(Bytes))) {
                Ok(_) => rig.settle()?,
                Err(Error::Full { limit: told, .. }) => {
                    check!(told == limit, "the limit is told as {told}");
                    refused += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
        rig.until("all is told", |rig| {
            let probe = rig.get(probe);
            probe.open.len() + 2 * probe.faults().len() + 2 * refused >= 6
        })?;
        let told = rig.get(probe).faults().len() + refused;
        check!((told > 0) == (limit < 7), "{told} refusals at a limit of {limit}");
        check!(rig.counters().resources <= limit as u64, "{} resources", rig.counters().resources);
        let all = rig.get(probe).open.clone();
        rig.with(probe, |_, cx| all.iter().for_each(|id| cx.abort(*id)));
        rig.finish()?;
    }
    Ok(())
}

fn bad_addresses(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let probe = rig.add(Probe::quiet())?;
    let (_, address) = rig.listen(probe, || Stream::new(Bytes))?;
    // This address is reserved for documentation, so no host has it.
    let foreign = Address::Ip(([192, 0, 2, 1], 0).into());
    for (wanted, kind) in [(&address, ErrorKind::AddrInUse), (&foreign, ErrorKind::AddrNotAvailable)] {
        let error = rig.with(probe, |_, cx| cx.listen(wanted, |_| Some(Stream::new(Bytes))).err());
        let Some(error) = error else { return Err(format!("it listens at {wanted}").into()) };
        check!(error.io().is_some_and(|error| error.kind() == kind), "{error}");
        check!(error.to_string().contains(&wanted.to_string()), "{error} does not name {wanted}");
    }
    let named = rig.with(probe, |_, cx| cx.connect("localhost:80", Stream::new(Bytes)).err());
    check!(
        named.is_some_and(|error| error.io().is_some_and(|error| error.kind() == ErrorKind::InvalidInput)),
        "a name"
    );
    let nobody = rig.with(probe, |_, cx| cx.connect("/nonexistent/socket", Stream::new(Bytes)).err());
    let kind = nobody.and_then(|error| error.io().map(std::io::Error::kind));
    check!(cfg!(not(unix)) || kind == Some(ErrorKind::NotFound), "a path to nothing is {kind:?}");
    rig.finish()
}

fn full_queue(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let (server, client) = (rig.add(Probe::quiet())?, rig.add(Probe::quiet())?);
    let mut options = ListenOptions::default();
    options.backlog = 1;
    let (listener, address) = rig.listen_with(server, &options, || Stream::new(Bytes))?;
    rig.with(server, |_, cx| cx.pause(listener));
    rig.settle()?;
    let mut ids = Vec::new();
    for _ in 0..8 {
        let id = rig.connect(client, &address, Stream::new(Bytes))?;
        rig.with(client, |_, cx| cx.send(id, b"patience"));
        ids.push(id);
    }
    rig.settle()?;
    rig.with(server, |_, cx| cx.resume(listener));
    rig.until("all are served", |rig| {
        let probe = rig.get(server);
        probe.open.iter().filter(|id| probe.received(**id) == 8).count() == 8
    })?;
    rig.with(client, |_, cx| ids.iter().for_each(|id| cx.abort(*id)));
    rig.finish()
}

/// Opens a Unix listener that accepts nothing for now, with room for one connection or two.
fn paused_unix_listener(
    rig: &mut Rig,
    server: ServiceId<Probe>,
) -> std::result::Result<(Id<reactor::Listener<Stream>>, Address), Stop> {
    let name = format!("reactor-queue-{}-{}", std::process::id(), rig.now().as_nanos());
    let address = Address::Abstract(name.into_bytes());
    let mut options = ListenOptions::default();
    options.backlog = 1;
    let listener = rig.with(server, |_, cx| cx.listen_with(&address, &options, |_| Some(Stream::new(Bytes))));
    let listener = listener?;
    rig.with(server, |_, cx| cx.pause(listener));
    rig.settle()?;
    Ok((listener, address))
}

/// Checks connects that are cut off by a deadline, by the service, and by the end of the runtime.
fn unconnected(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let (server, client) = (rig.add(Probe::quiet())?, rig.add(Probe::quiet())?);
    let (_, address) = paused_unix_listener(&mut rig, server)?;
    for _ in 0..4 {
        rig.connect(client, &address, Stream::new(Bytes))?;
    }
    let options = StreamOptions::with(|options| options.connect = SHORT);
    let hasty = rig.connect(client, &address, Stream::new(Bytes).options(options))?;
    let [aborted, cut] = [(); 2].map(|()| rig.connect(client, &address, Stream::new(Bytes)));
    let (aborted, cut) = (aborted?, cut?);
    rig.with(client, |_, cx| {
        for (id, len) in [(hasty, 5000), (aborted, 600), (cut, 70)] {
            cx.send(id, &pattern(len));
        }
        cx.abort(aborted);
    });
    rig.until("two have ended", |rig| rig.get(client).closed.len() == 2)?;
    let unsent = rig.get(client).closed.iter().map(|(_, stream, _)| stream.unsent()).sum::<usize>();
    check!(unsent == 5600, "{unsent} bytes are unsent");
    rig.stop(SHORT);
    let dropped = rig.run()?.bytes_dropped;
    check!(dropped == 5670, "of 5,670 bytes that were lost {dropped} are counted");
    Ok(())
}

fn full_unix_queue(fixture: &mut Fixture<'_>) -> Outcome {
    let is_virtual = fixture.is_virtual();
    let mut rig = Rig::new(fixture)?;
    let (server, client) = (rig.add(Probe::quiet())?, rig.add(Probe::quiet())?);
    let (listener, address) = paused_unix_listener(&mut rig, server)?;
    let mut ids = Vec::new();
    for _ in 0..8 {
        let id = rig.connect(client, &address, Stream::new(Bytes))?;
        rig.with(client, |_, cx| cx.send(id, b"patience"));
        ids.push(id);
    }
    rig.settle()?;
    check!(rig.get(client).closed.is_empty(), "one was refused: {:?}", rig.get(client).closed[0].2);
    // One stream has a short timeout, one closes without having sent anything, and one aborts.
    let turns = rig.counters().turns;
    let options = StreamOptions::with(|options| options.connect = SHORT);
    let hasty = rig.connect(client, &address, Stream::new(Bytes).options(options))?;
    let [closes, aborts] = [(); 2].map(|()| rig.connect(client, &address, Stream::new(Bytes)));
    let (closes, aborts) = (closes?, aborts?);
    rig.with(client, |_, cx| cx.close(closes));
    rig.with(client, |_, cx| cx.abort(aborts));
    rig.until("the hasty one has ended", |rig| {
        let probe = rig.get(client);
        probe.open.contains(&hasty) || probe.closed.len() == 3
    })?;
    if !is_virtual {
        let probe = rig.get(client);
        let why = probe.closed.iter().find(|closed| closed.0 == hasty).map(|closed| &closed.2);
        check!(matches!(why, Some(Closed::TimedOut(Phase::Connect))), "{why:?}");
        let turns = rig.counters().turns - turns;
        check!(turns < 200, "{turns} turns while nothing happened");
    }
    rig.with(server, |_, cx| cx.resume(listener));
    rig.until("all are served", |rig| {
        let probe = rig.get(server);
        probe.open.iter().filter(|id| probe.received(**id) == 8).count() == 8
    })?;
    rig.with(client, |_, cx| ids.iter().for_each(|id| cx.abort(*id)));
    rig.finish()
}

/// Records the results of jobs.
#[derive(Default)]
struct Worker {
    done: Vec<u32>,
    faults: Vec<String>,
}

impl Service for Worker {
    fn fault(&mut self, _: &mut Context<'_, Self>, fault: Fault) {
        self.faults.push(fault.to_string());
    }
}

impl Receive<u32> for Worker {
    fn receive(&mut self, _: &mut Context<'_, Self>, number: u32) -> Result {
        self.done.push(number);
        Ok(())
    }
}

fn too_many_jobs(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::limited(fixture, |limits| (limits.jobs, limits.job_threads) = (3, 1))?;
    let worker = rig.add(Worker::default())?;
    let refused = rig.with(worker, |_, cx| {
        let mut refused = Vec::new();
        for number in 0..5_u32 {
            if let Err(back) = cx.offload(move || number) {
                refused.push(back.into_message()());
            }
        }
        refused
    });
    check!(refused == [3, 4], "{refused:?} came back");
    rig.until("the jobs are done", |rig| rig.get(worker).done.len() == 3)?;
    let mut done = rig.get(worker).done.clone();
    if fixture.is_virtual() {
        // One thread of the runtime takes them in order. A simulated world completes each at its own time.
        done.sort_unstable();
    }
    check!(done == [0, 1, 2], "{done:?}");
    let again = rig.with(worker, |_, cx| cx.offload(|| -> u32 { panic!("a job of the suite") }).is_ok());
    check!(again, "there is room again");
    rig.until("the panic of a job is a fault", |rig| rig.get(worker).faults.len() == 1)?;
    rig.finish()
}

fn over_budget(fixture: &mut Fixture<'_>) -> Outcome {
    let budget = sized(fixture, 4 << 20, 600_000);
    let engine = fixture.engine();
    let mut limits = Limits::default();
    limits.bytes = budget + engine.memory();
    let mut rig = Rig::over(engine, limits)?;
    let (server, client) = (rig.add(Probe::quiet())?, rig.add(Probe::quiet())?);
    let (_, address) = rig.listen(server, || Stream::new(Bytes))?;
    let mut ids = Vec::new();
    for count in 1..=6 {
        ids.push(rig.connect(client, &address, Stream::new(Bytes))?);
        rig.until("it is open", |rig| rig.get(server).open.len() + rig.get(client).open.len() == 2 * count)?;
    }
    // All but the first do not read, and the server sends them more than the budget allows.
    rig.with(client, |_, cx| ids[1..].iter().for_each(|id| cx.pause(*id)));
    rig.settle()?;
    let to = rig.get(server).open.clone();
    let item = vec![7; budget / 16];
    let mut most = 0;
    rig.until("one has ended", |rig| {
        rig.with(server, |_, cx| to[1..].iter().for_each(|id| _ = cx.send(*id, &item)));
        most = most.max(rig.counters().queue_bytes);
        !rig.get(server).closed.is_empty()
    })?;
    let why = &rig.get(server).closed[0].2;
    check!(matches!(why, Closed::OverBudget | Closed::Unread), "{why}");
    check!(most <= budget as u64, "{most} bytes were queued at a budget of {budget}");
    rig.with(client, |_, cx| ids[1..].iter().for_each(|id| cx.abort(*id)));
    rig.settle()?;
    rig.with(client, |_, cx| cx.send(ids[0], b"me"));
    rig.until("the first is served", |rig| rig.get(server).received(to[0]) == 2)?;
    rig.with(client, |_, cx| cx.abort(ids[0]));
    rig.finish()
}

/// A layer that changes nothing, but processes every byte.
struct Coat;

impl Layer for Coat {
    const INPUT_MAX: usize = 0;

    fn ready(&self) -> bool {
        true
    }

    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        io.up.extend_from_slice(input);
        Ok(Step { used: input.len(), next: Next::Wait })
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        io.down.put(clear);
        Ok(clear.len())
    }
}

fn layered_input(fixture: &mut Fixture<'_>) -> Outcome {
    let unread = sized(fixture, 200_000, 20_000);
    let mut rig = Rig::new(fixture)?;
    let server = rig.add(Probe::<Lines, Coat>::quiet())?;
    let client = rig.add(Probe::<Bytes>::quiet())?;
    let options = StreamOptions::with(|options| options.unread = unread);
    let (_, address) =
        rig.listen(server, move || Stream::over(Lines::max(1 << 30), Coat).options(options.clone()))?;
    let id = rig.connect(client, &address, Stream::new(Bytes))?;
    rig.until("it is open", |rig| !rig.get(server).open.is_empty())?;
    // An unfinished line fills the limit exactly. The other items wait behind a pause.
    let half = vec![b'x'; unread];
    rig.with(client, |_, cx| cx.send(id, &half));
    rig.until("all of it has arrived", |rig| rig.counters().bytes_in == unread as u64)?;
    rig.settle()?;
    check!(rig.get(server).closed.is_empty(), "the limit fits: {:?}", rig.get(server).closed);
    check!(rig.counters().queue_bytes >= unread as u64, "{} are counted", rig.counters().queue_bytes);
    rig.with(client, |_, cx| cx.send(id, b"x"));
    rig.until("one more ends it", |rig| !rig.get(server).closed.is_empty())?;
    let why = &rig.get(server).closed[0].2;
    check!(matches!(why, Closed::Unread), "{why}");
    rig.with(client, |_, cx| cx.abort(id));
    rig.finish()
}

/// Makes a runtime with a limited budget for streams, and with a short timeout for shortages.
fn scarce(fixture: &mut Fixture<'_>) -> Result<(Rig, usize), Stop> {
    let budget = sized(fixture, 4 << 20, 1 << 20);
    let engine = fixture.engine();
    let mut limits = Limits::default();
    // Longer than a hoarder takes to send.
    let shortage = if fixture.moves_little() { 100 * SHORT } else { 2 * SHORT };
    (limits.bytes, limits.shortage) = (budget + engine.memory(), shortage);
    Ok((Rig::over(engine, limits)?, budget))
}

/// Sends a part of a line, and waits until it has arrived, or until a stream of the service has ended.
fn hoard(
    rig: &mut Rig,
    (server, client): (ServiceId<Probe<Lines>>, ServiceId<Probe<Bytes>>),
    address: &Address,
    bytes: usize,
) -> Result<Id<Stream>, Stop> {
    let id = rig.connect(client, address, Stream::new(Bytes))?;
    rig.until("it is connected", |rig| rig.get(client).open.contains(&id))?;
    let (before, ended) = (rig.counters().bytes_in, rig.get(server).closed.len());
    rig.with(client, |_, cx| cx.send(id, &vec![b'x'; bytes]));
    rig.until("half an item has arrived", |rig| {
        rig.counters().bytes_in >= before + bytes as u64 || rig.get(server).closed.len() > ended
    })?;
    Ok(id)
}

fn hoarders(fixture: &mut Fixture<'_>) -> Outcome {
    let (mut rig, budget) = scarce(fixture)?;
    let (server, client) = (rig.add(Probe::<Lines>::quiet())?, rig.add(Probe::<Bytes>::quiet())?);
    let (_, address) = rig.listen(server, || Stream::new(Lines::max(1 << 30)))?;
    let (echo, polite_address) = rig.echo()?;
    let polite: Vec<_> =
        (0..5).map(|_| rig.connect(client, &polite_address, Stream::new(Bytes))).collect::<Result<_, _>>()?;
    let mut bad = Vec::new();
    for round in 1..=24 {
        bad.push(hoard(&mut rig, (server, client), &address, budget / 16)?);
        rig.with(client, |_, cx| polite.iter().for_each(|id| _ = cx.send(*id, b"polite")));
        rig.until("the polite ones are answered", |rig| {
            polite.iter().all(|id| rig.get(client).received(*id) == 6 * round)
        })?;
        let held = rig.counters().queue_bytes;
        check!(held <= budget as u64, "{held} bytes are held, of {budget}");
    }
    let server_saw = rig.get(server);
    check!(!server_saw.closed.is_empty(), "no hoarder has ended");
    for (_, _, why) in &server_saw.closed {
        check!(matches!(why, Closed::OverBudget), "{why}");
    }
    check!(rig.get(echo).closed == 0, "polite ones have ended");
    check!(rig.counters().evicted == rig.get(server).closed.len() as u64, "not counted");
    // The service also serves a latecomer.
    let late = rig.connect(client, &polite_address, Stream::new(Bytes))?;
    rig.with(client, |_, cx| cx.send(late, b"late"));
    rig.until("it is answered", |rig| rig.get(client).received(late) == 4)?;
    rig.with(client, |_, cx| polite.iter().chain(&bad).chain([&late]).for_each(|id| cx.abort(*id)));
    rig.finish()
}

fn shortage(fixture: &mut Fixture<'_>) -> Outcome {
    let (mut rig, budget) = scarce(fixture)?;
    let (server, client) = (rig.add(Probe::<Lines>::quiet())?, rig.add(Probe::<Bytes>::quiet())?);
    let (_, address) = rig.listen(server, || Stream::new(Lines::max(1 << 30)))?;
    let mut ids = Vec::new();
    // If bytes move slowly, a shortage may begin while they move, and be over once they have arrived.
    let least = if fixture.moves_little() { 0 } else { budget as u64 / 4 * 3 };
    let is_short = |rig: &Rig| !rig.get(server).faults().is_empty() && rig.counters().queue_bytes > least;
    // A shortage that began while bytes moved may delay newcomers until the first streams have ended.
    while rig.get(server).closed.is_empty() && !is_short(&rig) {
        check!(ids.len() < 20, "bytes never run short: {} are held", rig.counters().queue_bytes);
        ids.push(hoard(&mut rig, (server, client), &address, budget / 20)?);
    }
    // The shortage ends by itself, because the runtime evicts some of the streams with unfinished items.
    rig.until("some have ended", |rig| !rig.get(server).closed.is_empty())?;
    let late = rig.connect(client, &address, Stream::new(Bytes))?;
    rig.with(client, |_, cx| cx.send(late, b"late\n"));
    rig.until("who comes late is served", |rig| {
        rig.get(server).log.iter().any(|(_, what)| *what == What::got(b"late"))
    })?;
    // The client's own queue also counts for a moment, so there may have been a short shortage before the
    // long one.
    let faults = rig.get(server).faults();
    let is_once = faults.len() as u64 <= rig.counters().shortages;
    check!(is_once && faults.iter().all(|fault| fault.starts_with("BytesShort")), "{faults:?}");
    let (ended, evicted) = (rig.get(server).closed.len(), rig.counters().evicted as usize);
    check!((1..ids.len()).contains(&ended) && ended == evicted, "{ended} of {} ended", ids.len());
    rig.with(client, |_, cx| ids.iter().chain([&late]).for_each(|id| cx.abort(*id)));
    rig.until("all have ended", |rig| rig.get(server).closed.len() == ids.len() + 1)?;
    rig.finish()
}

fn unfinished(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let (server, client) = (rig.add(Probe::<Lines>::quiet())?, rig.add(Probe::<Bytes>::quiet())?);
    let allowed = 5 * SHORT;
    let options = StreamOptions::with(|options| options.unfinished = allowed);
    let (_, address) =
        rig.listen(server, move || Stream::new(Lines::max(1 << 30)).options(options.clone()))?;
    let id = rig.connect(client, &address, Stream::new(Bytes))?;
    // Only with virtual time can the test be sure that each line arrives in time.
    for _ in 0..if fixture.is_virtual() { 5 } else { 0 } {
        rig.with(client, |_, cx| cx.send(id, b"an end\nand a begin"));
        let end = rig.now() + allowed * 4 / 5;
        rig.until("most of the time is over", |rig| rig.now() >= end)?;
        check!(rig.get(server).closed.is_empty(), "{:?}", rig.get(server).closed);
    }
    // A byte now and then does not complete the line.
    for _ in 0..20 {
        rig.with(client, |_, cx| cx.send(id, b"x"));
        let end = rig.now() + SHORT;
        rig.until("a moment has passed", |rig| rig.now() >= end)?;
    }
    rig.until("it is ended", |rig| !rig.get(server).closed.is_empty())?;
    let why = &rig.get(server).closed[0].2;
    check!(matches!(why, Closed::TimedOut(Phase::Item)), "{why}");
    rig.with(client, |_, cx| cx.abort(id));
    rig.finish()
}

fn ids_not_reused(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let probe = rig.add(Probe::quiet())?;
    let (_, address) = rig.listen(probe, || Stream::new(Bytes))?;
    let mut seen = HashSet::new();
    let mut gone = Vec::new();
    for round in 0..sized(fixture, 400, 100) {
        let id = rig.connect(probe, &address, Stream::new(Bytes))?;
        rig.until("both ends are open", |rig| rig.get(probe).open.len() == 2)?;
        let open = std::mem::take(&mut rig.get_mut(probe).open);
        for id in &open {
            check!(seen.insert(*id), "in round {round} an id came again: {id:?}");
        }
        gone.push(id);
        let stale = rig.with(probe, |_, cx| gone[..round].iter().all(|id| cx.send(*id, b"x") == Flow::Gone));
        check!(stale, "a stale id took output in round {round}");
        rig.with(probe, |_, cx| cx.abort(id));
        rig.until("both ends have closed", |rig| rig.get(probe).closed.len() == 2)?;
        rig.get_mut(probe).closed.clear();
    }
    rig.finish()
}

fn thousand(fixture: &mut Fixture<'_>) -> Outcome {
    let count = sized(fixture, 1_000, 50).min(fixture.descriptors_max() / 4);
    let mut rig = Rig::new(fixture)?;
    let (echo, address) = rig.echo()?;
    let client = rig.add(Probe::quiet())?;
    let mut ids = Vec::new();
    for at in 0..count {
        let id = rig.connect(client, &address, Stream::new(Bytes))?;
        rig.with(client, |_, cx| cx.send(id, &(at as u32).to_be_bytes()));
        ids.push(id);
        if at % 64 == 0 {
            rig.turn(Duration::ZERO)?;
        }
    }
    rig.until("all are answered", |rig| ids.iter().all(|id| rig.get(client).received(*id) == 4))?;
    for (at, id) in ids.iter().enumerate() {
        check!(rig.get(client).bytes(*id) == (at as u32).to_be_bytes(), "stream {at} has another's answer");
    }
    check!(rig.counters().resources == 2 * count as u64 + 1, "{} resources", rig.counters().resources);
    rig.with(client, |_, cx| ids.iter().for_each(|id| cx.close(*id)));
    rig.until("all have closed", |rig| {
        rig.get(client).closed.len() == count && rig.get(echo).closed == count
    })?;
    check!(rig.get(client).closed.iter().all(|(.., why)| why.is_clean()), "some ended otherwise");
    rig.finish()
}

const NTH_MAX: u64 = 200;
