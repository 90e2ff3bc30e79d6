//! J and K at runtime level: stops, and engines that fail.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    sync::mpsc,
};

use reactor::{ConnectOptions, Error, Reactor, Runtime, RuntimeOptions, engine::Candidates};
use sim::Faults;

use super::prelude::*;
use crate::{
    differential::Script,
    harsh,
    intercept::{Intercept, Intercepted},
    simulated,
    suite::open_descriptors,
    torture::FailNth,
};

pub(super) const ROWS: &[Row] = &[
    row("J1r", "a stop with full queues is over within its grace, and tells each its end", &[], full_queues),
    row("J1r2", "a stop lets queued answers leave", &[], answers_leave),
    row("J1r3", "a stop accepts what waits in the backlog, and ends it as the rest", SOCKETS, backlog),
    row("J1r4", "a stop waits for jobs and holds, and not beyond its grace", &[], outstanding),
    row("J2r", "a stop may come from anywhere, twice, and before the first turn", &[], stops),
    row("J3r", "a runtime that is dropped closes all, each once", &[], dropped),
    row("J3r2", "a reactor cannot wait for itself, and its drop stops it", &[], waits_for_itself),
    row("J4r", "a hundred runtimes follow each other on one address", &[], restarts),
    row("K1r", "waits that fail are tried again a few times, then end the run", &[], waits_fail),
    row("K5r", "the engine and the simulator tell a service the same", &[], differential),
    slow("K6r", "whichever call fails, nothing is lost without a last word", &[], torture),
];

fn full_queues(fixture: &mut Fixture<'_>) -> Outcome {
    let count = sized(fixture, 40, 4);
    // The peers are in another runtime, which does not stop and does not read.
    let mut rigs = [Rig::new(fixture)?, Rig::new(fixture)?];
    let (server, client) = (rigs[0].add(Probe::quiet())?, rigs[1].add(Probe::quiet())?);
    // Without narrow buffers the kernel would take megabytes that nobody reads.
    let (mut listen, mut connect) = (ListenOptions::default(), ConnectOptions::default());
    (listen.socket.send_buffer, connect.socket.receive_buffer) = (Some(1), Some(1));
    let (_, address) = rigs[0].listen_with(server, &listen, || Stream::new(Bytes))?;
    for _ in 0..count {
        rigs[1].connect_with(client, &address, &connect, Stream::new(Bytes))?;
    }
    rig::until(&mut rigs, "all are open", |rigs| {
        rigs[0].get(server).open.len() + rigs[1].get(client).open.len() == 2 * count
    })?;
    rigs[1].with(client, |probe, cx| probe.open.iter().for_each(|id| cx.pause(*id)));
    rigs[1].settle()?;
    let item = vec![7; sized(fixture, 1 << 20, 200_000)];
    rigs[0].with(server, |probe, cx| probe.open.iter().for_each(|id| _ = cx.send(*id, &item)));
    let begun = rigs[0].now();
    rigs[0].stop(2 * SHORT);
    rig::until(&mut rigs, "the grace is over", |rigs| rigs[0].runtime.is_over())?;
    let [mut stopped, mut peers] = rigs;
    check!(stopped.now() >= begun + 2 * SHORT, "it was cut before its grace");
    let receipt = stopped.runtime.run()?;
    let closed = &stopped.get(server).closed;
    check!(closed.len() == count, "{} of {count} were told their end", closed.len());
    for (id, _, why) in closed {
        let ends = stopped.get(server).of(*id).iter().filter(|what| matches!(what, What::Closed(_))).count();
        check!(ends == 1 && matches!(why, Closed::Stopped), "one was told {ends} ends, the last as {why}");
    }
    let unsent: usize = closed.iter().map(|(_, stream, _)| stream.unsent()).sum();
    let flushed = count * item.len() - unsent;
    check!(receipt.cut == count as u64 && unsent > 0, "{unsent} bytes are unsent: {receipt:?}");
    let counted = (receipt.bytes_dropped, receipt.bytes_flushed);
    check!(counted == (unsent as u64, flushed as u64), "{unsent} bytes are unsent: {receipt:?}");
    drop(stopped);
    // An engine need not notice a reset behind input that nobody reads.
    peers.with(client, |probe, cx| probe.open.iter().for_each(|id| cx.resume(*id)));
    peers.until("each peer has its end", |rig| rig.get(client).closed.len() == count)?;
    peers.finish()
}

fn answers_leave(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::new(fixture)?;
    let answer = pattern(sized(fixture, 1 << 20, 20_000));
    pair.by_server(|cx, id| cx.send(id, &answer));
    pair.rig.stop(Duration::from_secs(3));
    let receipt = pair.rig.run()?.check()?;
    check!(receipt.cut == 0 && receipt.bytes_dropped == 0, "{receipt:?}");
    check!(receipt.bytes_flushed == answer.len() as u64, "{receipt:?}");
    let why = &pair.server().closed[0].2;
    check!(matches!(why, Closed::Done | Closed::End), "{why}");
    check!(pair.server().closed[0].1.unsent() == 0, "bytes were left");
    Ok(())
}

/// Connects this many peers, whose connections wait in the backlog.
fn waiting(address: &Address, count: usize) -> Result<Vec<TcpStream>, Stop> {
    let address = address.ip().ok_or("it is no address of IP")?;
    let connect = || -> Result<TcpStream, Stop> {
        let mut peer = TcpStream::connect(address)?;
        peer.write_all(b"?")?;
        peer.shutdown(Shutdown::Write)?;
        peer.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(peer)
    };
    (0..count).map(|_| connect()).collect()
}

fn backlog(fixture: &mut Fixture<'_>) -> Outcome {
    let greets = || {
        Probe::<Bytes>::acting(|cx, id, what| {
            if let (Some(id), What::Open) = (id, what) {
                cx.send(id, b"hello".as_slice());
            }
            Ok(())
        })
    };
    // Test more connections than a batch: first on one listener, then on two of one port, of which one stops.
    let mut rig = Rig::new(fixture)?;
    let server = rig.add(greets())?;
    let (_, address) = rig.listen(server, || Stream::new(Bytes))?;
    let peers = waiting(&address, 40)?;
    rig.stop(Duration::from_secs(9));
    let receipt = rig.run()?.check()?;
    check!(receipt.cut == 0 && rig.get(server).open.len() == 40, "{receipt:?}");
    served(peers)?;
    if cfg!(not(target_os = "linux")) {
        return Ok(());
    }
    let mut options = ListenOptions::default();
    options.reuse_port = true;
    let mut rigs = [Rig::new(fixture)?, Rig::new(fixture)?];
    let mut at = "127.0.0.1:0".to_owned();
    for rig in &mut rigs {
        let server = rig.add(greets())?;
        let listened = rig.with(server, |_, cx| -> Result<Address, Stop> {
            let listener = cx.listen_with(&*at, &options, |_| Some(Stream::new(Bytes)))?;
            Ok(cx.local(listener)?)
        })?;
        at = listened.to_string();
    }
    let peers = waiting(&at.parse().map_err(|_| "it is an address")?, 60)?;
    for mut rig in rigs {
        rig.stop(Duration::from_secs(9));
        rig.run()?.check()?;
    }
    served(peers)
}

/// Checks that each peer received the greeting, and an orderly end.
fn served(peers: Vec<TcpStream>) -> Outcome {
    for mut peer in peers {
        let mut got = Vec::new();
        let end = peer.read_to_end(&mut got);
        check!(end.is_ok() && got == b"hello", "{end:?} after {got:?}");
    }
    Ok(())
}

fn outstanding(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let probe = rig.add(Probe::<Bytes>::quiet())?;
    let (release, held) = mpsc::channel::<()>();
    // On a virtual engine the job runs in this thread.
    let waits = !fixture.is_virtual();
    let job = move || {
        if waits {
            let _ = held.recv();
        }
        7_u64
    };
    let asked = rig.with(probe, |_, cx| cx.offload(job).is_ok());
    check!(asked, "there is room for a job");
    let hold = rig.with(probe, |_, cx| cx.hold());
    rig.stop(Duration::from_secs(60));
    rig.settle()?;
    check!(!rig.runtime.is_over(), "it does not wait for a job and a hold");
    drop(hold);
    rig.settle()?;
    check!(!waits || !rig.runtime.is_over(), "it does not wait for a job");
    drop(release);
    let receipt = rig.run()?.check()?;
    check!((receipt.jobs_running, receipt.holds) == (0, 0), "{receipt:?}");
    check!(rig.get(probe).messages == [7], "{:?}", rig.get(probe).messages);
    // A hold that is never dropped lasts until the end of the grace period, and the receipt reports it.
    let mut rig = Rig::new(fixture)?;
    let probe = rig.add(Probe::<Bytes>::quiet())?;
    let hold = rig.with(probe, |_, cx| cx.hold());
    let begun = rig.now();
    rig.stop(SHORT);
    let receipt = rig.run()?.check()?;
    check!(rig.now() >= begun + SHORT && receipt.holds == 1, "{receipt:?}");
    drop(hold);
    Ok(())
}

fn stops(fixture: &mut Fixture<'_>) -> Outcome {
    // Stop before the first turn, and twice.
    let mut rig = Rig::new(fixture)?;
    let probe = rig.add(Probe::<Bytes>::quiet())?;
    rig.listen(probe, || Stream::new(Bytes))?;
    rig.stop(Duration::from_secs(9));
    rig.stop(SHORT);
    let receipt = rig.run()?.check()?;
    check!(receipt.services.len() == 2, "{receipt:?}");
    check!(
        rig.get(probe).count(&What::Stop) == 1,
        "stop was told {} times",
        rig.get(probe).count(&What::Stop)
    );
    // A second run returns at once, because nothing is left to do.
    rig.runtime.run()?;
    // Stop several times from callbacks, with an open stream.
    let mut pair = Pair::new(fixture)?;
    for probe in [pair.server, pair.client] {
        pair.rig.get_mut(probe).act(|cx, _, what| {
            match what {
                What::Got(_) | What::Closed(_) => cx.stop(SHORT),
                What::Stop => cx.stop(Duration::from_secs(9)),
                _ => (),
            }
            Ok(())
        });
    }
    pair.by_client(|cx, id| cx.send(id, b"stop"));
    pair.rig.run()?.check()?;
    for probe in [pair.server(), pair.client()] {
        check!(probe.count(&What::Stop) == 1 && probe.closed.len() == 1, "{:?}", probe.log);
    }
    // Stop from another thread after a panic.
    let mut rig = Rig::new(fixture)?;
    let probe = rig.add(Probe::<Bytes>::acting(|_, _, what| match what {
        What::Message(_) => panic!("a panic of the suite"),
        _ => Ok(()),
    }))?;
    let controller = rig.runtime.controller(probe);
    controller.send(1_u64).map_err(|refused| refused.to_string())?;
    rig.settle()?;
    let thread = std::thread::spawn(move || controller.stop(Duration::ZERO));
    let receipt = rig.run();
    thread.join().map_err(|_| "the stopping thread panicked")?;
    check!(receipt?.check().is_err(), "the receipt does not name the panic");
    Ok(())
}

fn dropped(fixture: &mut Fixture<'_>) -> Outcome {
    let before = open_descriptors();
    let (mut one, mut other) = (Rig::new(fixture)?, Rig::new(fixture)?);
    let (server, client) = (one.add(Probe::quiet())?, other.add(Probe::quiet())?);
    let (_, address) = one.listen(server, || Stream::new(Bytes))?;
    for _ in 0..5 {
        other.connect(client, &address, Stream::new(Bytes))?;
    }
    let mut rigs = [one, other];
    rig::until(&mut rigs, "all are open", |rigs| {
        rigs[0].get(server).open.len() == 5 && rigs[1].get(client).open.len() == 5
    })?;
    let [one, mut other] = rigs;
    drop(one);
    other.until("the peers see their ends", |rig| rig.get(client).closed.len() == 5)?;
    other.finish()?;
    let after = open_descriptors();
    check!(before == after, "{before:?} descriptors before, {after:?} after");
    Ok(())
}

/// On request, joins the reactor in which it runs.
struct Selfish;

impl Service for Selfish {}

struct Wait(Reactor<Selfish>, reactor::Reply<bool>);

impl Receive<Wait> for Selfish {
    fn receive(&mut self, _: &mut Context<'_, Self>, wait: Wait) -> Result {
        wait.1.send(matches!(wait.0.join(), Err(Error::Misuse { .. })));
        Ok(())
    }
}

/// Spawns a reactor in its own thread, over the engine of this name.
fn spawn<S: Service + Send>(name: &str, service: S) -> Result<Reactor<S>, Error> {
    let name = name.to_owned();
    let make = move || {
        let mut options = RuntimeOptions::default();
        options.engine = Some(name);
        Runtime::with_options(options)
    };
    Reactor::spawn_with(make, |runtime| runtime.add(service))
}

fn waits_for_itself(fixture: &mut Fixture<'_>) -> Outcome {
    let name = fixture.engine().name();
    if !Candidates::default().names().any(|candidate| candidate == name) {
        return Err(Stop::Skipped(
            "needs an engine that is made in another thread: one of the library's".to_owned(),
        ));
    }
    let before = open_descriptors();
    let reactor = spawn(name, Selfish)?;
    let controller = reactor.controller();
    let answer = controller.ask(|reply| Wait(reactor, reply)).wait();
    check!(matches!(answer, Ok(true)), "{answer:?}");
    controller.stop(Duration::ZERO);
    // The failed join detached the thread. The thread is gone once its mailbox is.
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while controller.ask(Alive).wait().is_ok() {
        check!(std::time::Instant::now() < end, "it does not stop");
    }
    // Nobody can join it any more. It has ended once its descriptors are closed. A controller holds the
    // waker.
    drop(controller);
    while open_descriptors() != before {
        check!(std::time::Instant::now() < end, "it leaves descriptors open");
        std::thread::yield_now();
    }
    drop(spawn(name, Selfish)?);
    Ok(())
}

/// A question that shows whether the service still runs.
struct Alive(reactor::Reply<()>);

impl Receive<Alive> for Selfish {
    fn receive(&mut self, _: &mut Context<'_, Self>, ask: Alive) -> Result {
        ask.0.send(());
        Ok(())
    }
}

fn restarts(fixture: &mut Fixture<'_>) -> Outcome {
    let mut address = fixture.any_address();
    let mut first = None;
    for round in 0..100 {
        let mut rig = Rig::new(fixture)?;
        let probe = rig.add(Probe::quiet())?;
        address = rig.with(probe, |_, cx| -> Result<_, Stop> {
            let listener = cx.listen(&address, |_| Some(Stream::new(Bytes)))?;
            Ok(cx.local(listener)?)
        })?;
        let id = rig.connect(probe, &address, Stream::new(Bytes))?;
        rig.with(probe, |_, cx| cx.send(id, b"x"));
        rig.until("it is served", |rig| rig.get(probe).log.iter().any(|(_, what)| *what == What::got(b"x")))?;
        // The accepted end closes first, and keeps the port in TIME_WAIT.
        let accepted = rig.get(probe).open.iter().copied().find(|open| *open != id);
        rig.with(probe, |_, cx| accepted.into_iter().for_each(|id| cx.close(id)));
        rig.until("both ends have closed", |rig| rig.get(probe).closed.len() == 2)?;
        rig.stop(SHORT);
        rig.run()?.check()?;
        drop(rig);
        let now = open_descriptors();
        check!(
            *first.get_or_insert(now) == now,
            "{now:?} descriptors after round {round}, {first:?} at first"
        );
    }
    Ok(())
}

/// Makes all fallible calls of the engine fail while the flag is set.
struct Broken(Rc<Cell<bool>>);

impl Intercept for Broken {
    fn fails(&mut self) -> Option<io::Error> {
        self.0.get().then(|| io::Error::from_raw_os_error(libc::EINVAL))
    }
}

fn waits_fail(fixture: &mut Fixture<'_>) -> Outcome {
    let fails = Rc::new(Cell::new(false));
    let engine = Intercepted::new(fixture.engine(), Broken(fails.clone()));
    let mut rig = Rig::over(Box::new(engine), reactor::Limits::default())?;
    let probe = rig.add(Probe::<Bytes>::quiet())?;
    rig.listen(probe, || Stream::new(Bytes))?;
    // The runtime ignores a single failure.
    fails.set(true);
    rig.turn(Duration::ZERO)?;
    fails.set(false);
    rig.settle()?;
    rig.rests()?;
    let before = rig.counters().turns;
    fails.set(true);
    let error = match rig.runtime.run() {
        Ok(receipt) => return Err(format!("it ran to its end: {receipt:?}").into()),
        Err(error) => error,
    };
    check!(error.io().is_some_and(|error| error.raw_os_error() == Some(libc::EINVAL)), "{error}");
    check!(rig.counters().turns <= before + 8, "{} turns of errors", rig.counters().turns - before);
    check!(rig.runtime.controller(probe).send(1_u64).is_err(), "it takes commands");
    Ok(())
}

fn differential(fixture: &mut Fixture<'_>) -> Outcome {
    for seed in 0..3 {
        let script = Script::draw(seed, 4);
        let trace = script.play(fixture.engine());
        for mut other in [simulated(seed, Faults::none()), harsh(seed)] {
            let same = trace.compare(&script.play(Box::new(other.engine())));
            same.map_err(|difference| difference.to_string())?;
        }
    }
    Ok(())
}

fn torture(fixture: &mut Fixture<'_>) -> Outcome {
    for nth in 1..=NTH_MAX {
        let torture = FailNth::new(nth, libc::ENOBUFS);
        let mut rig = Rig::over(torture.engine(fixture.engine()), reactor::Limits::default())?;
        let server = rig.add(Probe::<Bytes>::echo())?;
        let client = rig.add(Probe::quiet())?;
        let begun = rig.listen(server, || Stream::new(Bytes)).and_then(|(_, address)| {
            (0..3).map(|_| rig.connect(client, &address, Stream::new(Bytes))).collect::<Result<Vec<_>, _>>()
        });
        if let Ok(ids) = &begun {
            rig.with(client, |_, cx| ids.iter().for_each(|id| _ = cx.send(*id, b"hello")));
            let ended = |rig: &Rig, id| rig.get(client).closed.iter().any(|(of, ..)| *of == id);
            rig.until("each has its echo, or its end", |rig| {
                // A connection that the listener never accepted stays open, and its fault was reported.
                let faults = rig.get(server).faults().len();
                let open =
                    ids.iter().filter(|id| rig.get(client).received(**id) < 5 && !ended(rig, **id)).count();
                open <= faults
            })?;
            rig.with(client, |_, cx| ids.iter().for_each(|id| cx.abort(*id)));
            rig.until("each has its end", |rig| ids.iter().all(|id| ended(rig, *id)))?;
            for id in ids {
                let ends =
                    rig.get(client).of(*id).iter().filter(|what| matches!(what, What::Closed(_))).count();
                check!(ends == 1, "call {nth}: {ends} ends");
            }
        }
        let mut all = rig.get(server).open.clone();
        all.extend(&rig.get(client).open);
        for probe in [server, client] {
            rig.with(probe, |_, cx| all.iter().for_each(|id| cx.abort(*id)));
        }
        rig.finish().map_err(|stop| Stop::Failed(format!("call {nth}: {stop:?}")))?;
        if !torture.has_failed() {
            check!(nth > 15, "only {nth} calls were counted");
            return Ok(());
        }
    }
    Err(format!("{NTH_MAX} calls were not enough").into())
}

const NTH_MAX: u64 = 300;
