//! H at runtime level: signals arrive as events, and have no other effect.
//!
//! The rows send signals to their own thread, so that the signals interrupt the engine's own wait.

use std::{
    process,
    sync::{Arc, mpsc},
    thread,
};

use nix::{
    sys::signal::{self, SigSet, Signal as Number},
    unistd::Pid,
};
use reactor::{
    Time,
    signals::{Arrived, Graceful, Signal, Signals},
};

use super::prelude::*;
use crate::storm::under_storm;

pub(super) const ROWS: &[Row] = &[
    row("H1r", "a storm of signals postpones no timer and breaks no stream", SOCKETS, short_storm),
    slow("H1r2", "a storm of five seconds postpones no timer and breaks no stream", SOCKETS, long_storm),
    row("H2r", "a thousand signals of a kind are told at least once, and counted", SOCKETS, many),
    row("H2r2", "a signal to the process is told once, whatever other threads run", SOCKETS, other_threads),
    row("H3r", "a signal that was pending is told once, and the mask is left alone", SOCKETS, pending),
    row("H4r", "the first SIGTERM lets answers leave", SOCKETS, graceful),
    row("H4r2", "the second SIGTERM cuts what is left", SOCKETS, fast),
];

/// Records the signals, and counts the ticks of a timer.
#[derive(Default)]
struct Watch {
    arrived: Vec<Arrived>,
    closed: usize,
    ticks: Vec<Time>,
}

#[derive(Clone, Copy)]
struct Tick;

impl Service for Watch {}

impl Handle<Signals> for Watch {
    fn handle(&mut self, _: &mut Context<'_, Self>, _: Id<Signals>, event: Arrived) -> Result {
        self.arrived.push(event);
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Self>, _: Id<Signals>, _: Signals, _: Closed) {
        self.closed += 1;
    }
}

impl Receive<Tick> for Watch {
    fn receive(&mut self, cx: &mut Context<'_, Self>, tick: Tick) -> Result {
        self.ticks.push(cx.now());
        cx.after(TICK, tick);
        Ok(())
    }
}

impl Watch {
    fn times(&self, signal: Signal) -> u32 {
        self.arrived.iter().filter(|arrived| arrived.signal == signal).map(|arrived| arrived.times).sum()
    }
}

fn short_storm(fixture: &mut Fixture<'_>) -> Outcome {
    storm(fixture, Duration::from_millis(400))
}

fn long_storm(fixture: &mut Fixture<'_>) -> Outcome {
    storm(fixture, Duration::from_secs(5))
}

/// Runs a storm in which the runtime watches one of ten signals. The others have a handler and wake no
/// service, so they only interrupt the calls in which this thread waits.
fn storm(fixture: &mut Fixture<'_>, lasts: Duration) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let silent = Signals::of_process([Signal::USR2])?;
    let watch = rig.add(Watch::default())?;
    rig.with(watch, |_, cx| cx.signals([Signal::USR1]))?;
    let (echo, address) = rig.echo()?;
    let client = rig.add(Probe::acting(|cx, id, what| {
        if let (Some(id), What::Got(bytes)) = (id, what) {
            cx.send(id, bytes.as_slice());
        }
        Ok(())
    }))?;
    let stream = rig.connect(client, &address, Stream::new(Bytes))?;
    rig.until("the stream is open", |rig| rig.get(client).open.len() == 1)?;
    rig.get_mut(client).forget();

    let (outcome, [told, silenced]) = under_storm(Some(Number::SIGUSR1), Number::SIGUSR2, || {
        stormy(&mut rig, (watch, client), stream, lasts)
    })?;
    outcome?;
    check!(told + silenced > (lasts.as_millis() / 20) as u32, "only {told} and {silenced} were sent");
    rig.settle()?;
    // The kernel merges signals that arrive while this thread does not run.
    let times = rig.get(watch).times(Signal::USR1);
    check!((1..=told).contains(&times), "{told} sent, {times} told");
    raise(Number::SIGUSR1)?;
    rig.until("the last one is told", |rig| rig.get(watch).times(Signal::USR1) == times + 1)?;
    check!(rig.get(echo).closed == 0 && rig.get(client).closed.is_empty(), "the storm ended a stream");
    drop(silent);
    Ok(())
}

type Services = (ServiceId<Watch>, ServiceId<Probe>);

/// First echoes bytes, so that the signals interrupt operations. Then only a timer runs, so that they
/// interrupt waits.
fn stormy(rig: &mut Rig, (watch, client): Services, stream: Id<Stream>, lasts: Duration) -> Outcome {
    let begun = rig.now();
    rig.with(client, |_, cx| cx.send(stream, &pattern(4096)));
    rig.until("half of the storm is over", |rig| rig.now() >= begun + lasts / 2)?;
    let count = rig.get(client).received(stream);
    check!(count > 4096, "only {count} bytes went to and fro");
    rig.get_mut(client).act(|_, _, _| Ok(()));
    let quiet = rig.now();
    rig.with(watch, |_, cx| cx.after(TICK, Tick));
    rig.until("the storm is over", |rig| rig.now() >= quiet + lasts / 2)?;
    let ticks = &rig.get(watch).ticks;
    // A wait that starts anew after each interruption would never end.
    let least = (lasts.as_millis() / 2 / TICK.as_millis() / 4) as usize;
    check!(ticks.len() >= least, "{} ticks, of at least {least}", ticks.len());
    let early = ticks.windows(2).find(|pair| pair[1].since(pair[0]) < TICK);
    check!(early.is_none(), "a timer was early");
    Ok(())
}

fn many(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let watch = rig.add(Watch::default())?;
    let id = rig.with(watch, |_, cx| cx.signals([Signal::USR1]))?;
    for _ in 0..1000 {
        raise(Number::SIGUSR1)?;
    }
    rig.until("one is told", |rig| !rig.get(watch).arrived.is_empty())?;
    rig.settle()?;
    let arrived = &rig.get(watch).arrived;
    check!(arrived.len() == 1 && arrived[0].times == 1000, "each ran the handler: {arrived:?}");
    // The kernel keeps one instance of a blocked signal.
    let mask = Blocked::new(Number::SIGUSR1)?;
    for _ in 0..1000 {
        raise(Number::SIGUSR1)?;
    }
    drop(mask);
    rig.until("it is told again", |rig| rig.get(watch).arrived.len() > 1)?;
    rig.settle()?;
    let arrived = &rig.get(watch).arrived;
    check!(arrived.len() == 2 && arrived[1].times == 1, "the kernel kept one: {arrived:?}");
    rig.with(watch, |_, cx| cx.close(id));
    rig.finish()
}

fn other_threads(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let watch = rig.add(Watch::default())?;
    rig.with(watch, |_, cx| cx.signals([Signal::TERM]))?;
    let outcome = thread::scope(|scope| {
        let others: Vec<_> = (0..4)
            .map(|_| {
                let (end, wait) = mpsc::channel::<()>();
                (end, scope.spawn(move || wait.recv().is_err()))
            })
            .collect();
        signal::kill(Pid::this(), Number::SIGTERM).map_err(system)?;
        let outcome = rig.until("it is told", |rig| !rig.get(watch).arrived.is_empty());
        let settled = rig.settle();
        for (end, thread) in others {
            drop(end);
            check!(thread.join().is_ok_and(|ended| ended), "a thread panicked");
        }
        outcome.and(settled)
    });
    outcome?;
    let arrived = &rig.get(watch).arrived;
    check!(
        *arrived == [Arrived { signal: Signal::TERM, times: 1 }],
        "process {}: {arrived:?}",
        process::id()
    );
    rig.finish()
}

fn pending(fixture: &mut Fixture<'_>) -> Outcome {
    let before = SigSet::thread_get_mask().map_err(system)?;
    let mut rig = Rig::new(fixture)?;
    let watch = rig.add(Watch::default())?;
    let blocked = Blocked::new(Number::SIGUSR1)?;
    raise(Number::SIGUSR1)?;
    let id = rig.with(watch, |_, cx| cx.signals([Signal::USR1]))?;
    rig.rests()?;
    check!(rig.get(watch).arrived.is_empty(), "it is blocked, and was told");
    drop(blocked);
    rig.until("it is told", |rig| !rig.get(watch).arrived.is_empty())?;
    rig.settle()?;
    let arrived = &rig.get(watch).arrived;
    check!(*arrived == [Arrived { signal: Signal::USR1, times: 1 }], "{arrived:?}");
    rig.with(watch, |_, cx| cx.close(id));
    rig.until("it is closed", |rig| rig.get(watch).closed == 1)?;
    let after = SigSet::thread_get_mask().map_err(system)?;
    check!(before == after, "the mask was {before:?}, and is {after:?}");
    rig.finish()
}

/// A server that has answered with more than the sockets take, a client that does not read yet, and a first
/// SIGTERM.
struct Load {
    rigs: [Rig; 2],
    graceful: ServiceId<Graceful>,
    client: ServiceId<Probe>,
    stream: Id<Stream>,
}

impl Load {
    fn new(fixture: &mut Fixture<'_>) -> Result<Load, Stop> {
        let (mut here, mut there) = (Rig::new(fixture)?, Rig::new(fixture)?);
        let graceful = here.add(Graceful::within(GRACE))?;
        let (server, client) = (here.add(Probe::quiet())?, there.add(Probe::quiet())?);
        // With a ring of eight buffers the answer takes seconds, and no deadline should cut it off.
        let patient = Arc::new(StreamOptions::with(|options| options.close = GRACE));
        let (_, address) = here.listen(server, move || Stream::new(Bytes).options(patient.clone()))?;
        let stream = there.connect(client, &address, Stream::new(Bytes))?;
        let mut rigs = [here, there];
        rig::until(&mut rigs, "both ends are open", |rigs| {
            rigs[0].get(server).open.len() + rigs[1].get(client).open.len() == 2
        })?;
        rigs[1].with(client, |_, cx| cx.pause(stream));
        let accepted = rigs[0].get(server).open[0];
        rigs[0].with(server, |_, cx| cx.send(accepted, &pattern(ANSWER)));
        rigs[0].settle()?;
        raise(Number::SIGTERM)?;
        rig::until(&mut rigs, "it is told", |rigs| rigs[0].get(graceful).asked() == 1)?;
        rigs[0].settle()?;
        check!(!rigs[0].runtime.is_over(), "the answer cannot have left, and the runtime is over");
        Ok(Load { rigs, graceful, client, stream })
    }
}

fn graceful(fixture: &mut Fixture<'_>) -> Outcome {
    let Load { mut rigs, client, stream, .. } = Load::new(fixture)?;
    rigs[1].with(client, |_, cx| cx.resume(stream));
    rig::until(&mut rigs, "the server is over", |rigs| rigs[0].runtime.is_over())?;
    rig::until(&mut rigs, "the client has all", |rigs| !rigs[1].get(client).closed.is_empty())?;
    let [mut here, there] = rigs;
    let receipt = here.runtime.run()?.check()?;
    check!(receipt.cut == 0 && receipt.bytes_dropped == 0, "{receipt:?}");
    check!(there.get(client).bytes(stream) == pattern(ANSWER), "what arrived differs");
    there.finish()
}

fn fast(fixture: &mut Fixture<'_>) -> Outcome {
    let Load { mut rigs, graceful, .. } = Load::new(fixture)?;
    raise(Number::SIGTERM)?;
    rig::until(&mut rigs, "the server is over", |rigs| rigs[0].runtime.is_over())?;
    let [mut here, there] = rigs;
    let receipt = here.runtime.run()?.check()?;
    check!(here.get(graceful).asked() == 2, "asked {} times", here.get(graceful).asked());
    check!(receipt.cut == 1 && receipt.bytes_dropped > 0, "{receipt:?}");
    drop(there);
    Ok(())
}

/// Blocks a signal in this thread. The drop restores the earlier mask.
struct Blocked(SigSet);

impl Blocked {
    fn new(number: Number) -> Result<Blocked, Stop> {
        let before = SigSet::thread_get_mask().map_err(system)?;
        SigSet::from_iter([number]).thread_block().map_err(system)?;
        Ok(Blocked(before))
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        self.0.thread_set_mask().expect("it was the mask before");
    }
}

/// Sends a signal to this thread. Its handler runs before this returns, unless the signal is blocked.
fn raise(number: Number) -> Outcome {
    signal::raise(number).map_err(system)
}

fn system(error: nix::Error) -> Stop {
    std::io::Error::from(error).into()
}

const TICK: Duration = SHORT.checked_div(2).expect("two is not zero");
/// More than the sockets of a connection take.
const ANSWER: usize = 16 << 20;
/// Longer than a row may take, so the stop must complete by itself.
const GRACE: Duration = Duration::from_secs(600);
