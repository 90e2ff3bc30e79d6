//! G at runtime level: other threads, and their commands.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use reactor::{Controller, Refused, Reply};

use super::{prelude::*, probe::returns};

pub(super) const ROWS: &[Row] = &[
    row("G1r", "no command of four threads is lost, and each keeps its order", &[], four_threads),
    row("G2r", "commands beyond the limit come back", &[], command_limit),
    row("G3r", "a command sent from a handler is executed after it", &[], from_handler),
    row("G4r", "commands to a runtime that ended come back", &[], to_the_ended),
    row("G5r", "a command is executed or comes back, whenever the stop comes", &[], race_with_stop),
    row("G6r", "a flood of commands does not starve streams", &[], command_flood),
    row("G7r", "two runtimes with full queues do not wait for each other", &[], crossed),
    row("G8r", "a runtime lives as long as it has controllers, and rests meanwhile", &[], last_controller),
    row("G9r", "senders that wait for room get it, and keep their order", &[], waiting_senders),
    row("G10r", "a handler that blocks shows in the lag, and loses nothing", &[], blocking_handler),
];

/// Takes commands, and records the order of each sender's.
#[derive(Default)]
struct Counter {
    last: [Option<u64>; 4],
    count: u64,
    disordered: u64,
    stops_at: Option<u64>,
}

/// The `n`-th command of a sender.
struct Command {
    sender: usize,
    n: u64,
}

/// A question for the count.
struct Count(Reply<u64>);

impl Service for Counter {}

impl Receive<Command> for Counter {
    fn receive(&mut self, cx: &mut Context<'_, Self>, command: Command) -> Result {
        let last = &mut self.last[command.sender];
        self.disordered += u64::from(last.is_some_and(|last| last >= command.n));
        *last = Some(command.n);
        self.count += 1;
        if self.stops_at == Some(self.count) {
            cx.stop(SHORT);
        }
        Ok(())
    }
}

impl Receive<Count> for Counter {
    fn receive(&mut self, _: &mut Context<'_, Self>, ask: Count) -> Result {
        ask.0.send(self.count);
        Ok(())
    }
}

/// Sends this many commands, and retries while the queue is full.
fn send_all(controller: &Controller<Counter>, sender: usize, count: u64) -> Result<(), &'static str> {
    for n in 0..count {
        let mut command = Command { sender, n };
        loop {
            match controller.send(command) {
                Ok(()) => break,
                Err(Refused::Full(back)) => {
                    command = back;
                    thread::yield_now();
                }
                Err(_) => return Err("the runtime is gone"),
            }
        }
    }
    Ok(())
}

fn four_threads(fixture: &mut Fixture<'_>) -> Outcome {
    let each = sized(fixture, 50_000, 5_000) as u64;
    let rig = Rig::new(fixture)?;
    by_four_threads(rig, each, send_all)
}

/// Sends this many commands. Each waits while the queue is full.
fn send_waiting(controller: &Controller<Counter>, sender: usize, count: u64) -> Result<(), &'static str> {
    let to = controller.sender();
    for n in 0..count {
        let command = Command { sender, n };
        let sent = if n % 2 == 0 {
            to.send_timeout(command, 10 * STUCK)
        } else {
            controller.send_timeout(command, 10 * STUCK)
        };
        sent.map_err(|_| "no room for ever, or the runtime is gone")?;
    }
    Ok(())
}

fn waiting_senders(fixture: &mut Fixture<'_>) -> Outcome {
    let each = sized(fixture, 2_000, 500) as u64;
    for limit in [1, 2, 100] {
        let mut rig = Rig::limited(fixture, |limits| limits.commands = limit)?;
        let counter = rig.add(Counter::default())?;
        let controller = rig.runtime.controller(counter);
        for n in 0..limit as u64 {
            let sent = controller.send_timeout(Command { sender: 0, n }, STUCK);
            check!(sent.is_ok(), "{n} of {limit}: {sent:?}");
        }
        // Only this thread could make room.
        match controller.send_timeout(Command { sender: 1, n: 77 }, STUCK) {
            Err(Refused::WouldDeadlock(back)) => {
                check!((back.sender, back.n) == (1, 77), "another came back")
            }
            other => return Err(format!("in the thread of the loop: {other:?}").into()),
        }
        drop(controller);
        rig.finish()?;
        let rig = Rig::limited(fixture, |limits| limits.commands = limit)?;
        by_four_threads(rig, each, send_waiting)?;
    }
    Ok(())
}

/// Drives the runtime while each of four threads sends this many commands with `send`.
fn by_four_threads(
    mut rig: Rig,
    each: u64,
    send: fn(&Controller<Counter>, usize, u64) -> Result<(), &'static str>,
) -> Outcome {
    let counter = rig.add(Counter { stops_at: Some(4 * each), ..Counter::default() })?;
    let threads: Vec<_> = (0..4)
        .map(|sender| {
            let controller = rig.runtime.controller(counter);
            thread::spawn(move || send(&controller, sender, each))
        })
        .collect();
    // Waits are long, so that a lost wake shows on a clock that does not jump.
    let mut lost = false;
    let end = Instant::now() + 10 * STUCK;
    while !lost && !rig.runtime.is_over() {
        let (before, executed) = (Instant::now(), rig.get(counter).count);
        check!(before < end, "{executed} of {} commands were executed", 4 * each);
        rig.turn(STUCK)?;
        lost = before.elapsed() >= STUCK && rig.get(counter).count > executed;
        // The stop also ends the threads that are still sending.
        if before.elapsed() >= STUCK {
            rig.stop(Duration::ZERO);
        }
    }
    let receipt = rig.runtime.run()?;
    let joined: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
    check!(!lost, "a wake was lost");
    check!(joined.iter().all(|joined| matches!(joined, Ok(Ok(())))), "{joined:?}");
    receipt.check()?;
    let counter = rig.get(counter);
    check!(counter.count == 4 * each, "{} of {} commands were executed", counter.count, 4 * each);
    check!(counter.disordered == 0, "{} came out of order", counter.disordered);
    Ok(())
}

fn command_limit(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::limited(fixture, |limits| limits.commands = 100)?;
    let counter = rig.add(Counter::default())?;
    let controller = rig.runtime.controller(counter);
    for round in 1..=3 {
        for n in 0..100 {
            let sent = controller.send(Command { sender: 0, n: 100 * round + n });
            check!(sent.is_ok(), "command {n} of 100 was refused");
        }
        match controller.send(Command { sender: 1, n: 77 }) {
            Err(Refused::Full(back)) => check!((back.sender, back.n) == (1, 77), "another came back"),
            other => return Err(format!("one beyond the limit: {other:?}").into()),
        }
        rig.settle()?;
        check!(rig.get(counter).count == 100 * round, "{} were executed", rig.get(counter).count);
    }
    check!(rig.get(counter).disordered == 0, "{} came out of order", rig.get(counter).disordered);
    drop(controller);
    rig.finish()
}

fn from_handler(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::new(fixture)?;
    let controller = pair.rig.runtime.controller(pair.server);
    pair.rig.get_mut(pair.server).act(move |_, _, what| {
        match what {
            What::Got(bytes) => controller.send(bytes.len() as u64)?,
            What::Message(left) if *left > 0 => controller.send(left - 1)?,
            _ => (),
        }
        Ok(())
    });
    pair.by_client(|cx, id| cx.send(id, b"!"));
    let server = pair.server;
    pair.rig.until("the commands have come", |rig| rig.get(server).messages.len() >= 2)?;
    pair.rig.settle()?;
    check!(pair.server().messages == [1, 0], "{:?}", pair.server().messages);
    // The handler would wait for its own thread to answer.
    let counter = pair.rig.add(Counter::default())?;
    let asks = pair.rig.runtime.controller(counter);
    let blocked = pair.rig.with(counter, |_, _| asks.ask(Count).wait().is_err());
    check!(blocked, "a question to its own thread was waited for");
    pair.rig.get_mut(server).act(|_, _, _| Ok(()));
    pair.finish()
}

fn to_the_ended(fixture: &mut Fixture<'_>) -> Outcome {
    for is_stopped in [true, false] {
        let mut rig = Rig::new(fixture)?;
        let counter = rig.add(Counter::default())?;
        let controller = rig.runtime.controller(counter);
        let waits = controller.send(Command { sender: 0, n: 1 });
        check!(waits.is_ok(), "{waits:?}");
        if is_stopped {
            rig.finish()?
        } else {
            drop(rig)
        }
        match controller.send(Command { sender: 2, n: 5 }) {
            Err(Refused::Gone(back)) => check!((back.sender, back.n) == (2, 5), "another came back"),
            other => return Err(format!("a runtime that ended: {other:?}").into()),
        }
        let asked = controller.ask(Count).wait();
        check!(asked.is_err(), "it answered {asked:?}");
        controller.stop(Duration::ZERO);
    }
    Ok(())
}

fn race_with_stop(fixture: &mut Fixture<'_>) -> Outcome {
    for round in 0..sized(fixture, 60, 20) as u64 {
        let mut rig = Rig::new(fixture)?;
        let counter = rig.add(Counter { stops_at: Some(1 + round * 7), ..Counter::default() })?;
        let threads: Vec<_> = (0..2)
            .map(|sender| {
                let controller = rig.runtime.controller(counter);
                thread::spawn(move || {
                    let mut taken = 0_u64;
                    for n in 0.. {
                        match controller.send(Command { sender, n }) {
                            Ok(()) => taken += 1,
                            Err(Refused::Full(_)) => thread::yield_now(),
                            Err(refused) => return (taken, refused.into_message().n == n),
                        }
                    }
                    (taken, false)
                })
            })
            .collect();
        rig.run()?.check()?;
        let mut taken = 0;
        for thread in threads {
            let (sent, is_back) = thread.join().map_err(|_| "a sender panicked")?;
            check!(is_back, "another command came back in round {round}");
            taken += sent;
        }
        let executed = rig.get(counter).count;
        check!(executed == taken, "{taken} were taken, {executed} executed in round {round}");
    }
    Ok(())
}

fn command_flood(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::new(fixture)?;
    let counter = pair.rig.add(Counter::default())?;
    let controller = pair.rig.runtime.controller(counter);
    let over = Arc::new(AtomicBool::new(false));
    let is_over = over.clone();
    let producer = thread::spawn(move || {
        let mut n = 0;
        while !is_over.load(Ordering::Relaxed) {
            match controller.send(Command { sender: 0, n }) {
                Ok(()) => n += 1,
                Err(Refused::Full(_)) => thread::yield_now(),
                Err(_) => break,
            }
        }
        n
    });
    for probe in [pair.server, pair.client] {
        pair.rig.get_mut(probe).act(returns);
    }
    let begun = pair.rig.counters();
    pair.by_client(|cx, id| cx.send(id, b"x"));
    let trips = sized(fixture, 100, 40);
    let outcome = pair.until_returned(trips);
    over.store(true, Ordering::Relaxed);
    let sent = producer.join().map_err(|_| "the producer panicked")?;
    outcome?;
    let now = pair.rig.counters();
    let (turns, commands) = (now.turns - begun.turns, now.commands - begun.commands);
    check!(turns <= 60 * trips as u64, "{turns} turns for {trips} round trips");
    check!(commands <= 1_024 * turns, "{commands} commands in {turns} turns");
    pair.by_client(|cx, id| cx.abort(id));
    pair.rig.until("all commands are executed", |rig| rig.get(counter).count == sent)?;
    pair.finish()
}

/// Passes each command on to the other runtime, and counts the refused ones.
struct Crossed {
    other: Option<Controller<Crossed>>,
    received: usize,
    refused: usize,
}

impl Service for Crossed {}

impl Receive<u64> for Crossed {
    fn receive(&mut self, _: &mut Context<'_, Self>, left: u64) -> Result {
        self.received += 1;
        if let (Some(other), 1..) = (&self.other, left) {
            // Each command causes two more, so the queues fill up.
            for _ in 0..2 {
                match other.send(left - 1) {
                    Ok(()) => (),
                    Err(Refused::Full(back)) if back == left - 1 => self.refused += 1,
                    Err(other) => return Err(other.to_string().into()),
                }
            }
        }
        Ok(())
    }
}

fn crossed(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rigs = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut rig = Rig::limited(fixture, |limits| limits.commands = 16)?;
        ids.push(rig.add(Crossed { other: None, received: 0, refused: 0 })?);
        rigs.push(rig);
    }
    for at in 0..2 {
        let other = rigs[1 - at].runtime.controller(ids[1 - at]);
        rigs[at].get_mut(ids[at]).other = Some(other);
    }
    let first = rigs[0].runtime.controller(ids[0]);
    first.send(40_u64).map_err(|refused| refused.to_string())?;
    let idle = Cell::new((0, 0));
    rig::until(&mut rigs, "nothing is passed on any more", |rigs| {
        let count = rigs[0].get(ids[0]).received + rigs[1].get(ids[1]).received;
        let (last, rounds) = idle.get();
        idle.set(if last == count { (count, rounds + 1) } else { (count, 0) });
        rounds > 50
    })?;
    let refused: usize = (0..2).map(|at| rigs[at].get(ids[at]).refused).sum();
    check!(refused > 0 && idle.get().0 > 100, "{refused} were refused, {} received", idle.get().0);
    for at in 0..2 {
        rigs[at].get_mut(ids[at]).other = None;
    }
    drop(first);
    rig::finish(rigs)
}

fn last_controller(fixture: &mut Fixture<'_>) -> Outcome {
    let mut rig = Rig::new(fixture)?;
    let counter = rig.add(Counter::default())?;
    let (one, two) = (rig.runtime.controller(counter), rig.runtime.controller(counter));
    drop(one);
    rig.settle()?;
    rig.rests()?;
    check!(!rig.runtime.is_over(), "it is over while a controller lives");
    let thread = thread::spawn(move || two.ask(Count).wait());
    // The run ends once the last controller is dropped.
    let receipt = rig.run();
    drop(rig);
    let answer = thread.join().map_err(|_| "the asking thread panicked")?;
    receipt?.check()?;
    check!(answer.as_ref().is_ok_and(|count| *count == 0), "{answer:?}");
    Ok(())
}

fn blocking_handler(fixture: &mut Fixture<'_>) -> Outcome {
    let mut pair = Pair::new(fixture)?;
    let mut first = true;
    pair.rig.get_mut(pair.server).act(move |_, _, what| {
        if matches!(what, What::Got(_)) && std::mem::take(&mut first) {
            let begun = Instant::now();
            while begun.elapsed() < 2 * SHORT {
                std::hint::spin_loop();
            }
        }
        Ok(())
    });
    let other = pair.rig.connect(pair.client, &pair.address, Stream::new(Bytes))?;
    let (server, client) = (pair.server, pair.client);
    pair.rig.until("the other is open", |rig| rig.get(server).open.len() == 2)?;
    pair.by_client(|cx, id| {
        cx.send(id, b"one");
        cx.send(other, b"another");
    });
    let ids = pair.server().open.clone();
    pair.rig.until("both have arrived", |rig| {
        rig.get(server).received(ids[0]) == 3 && rig.get(server).received(ids[1]) == 7
    })?;
    // Check the buckets above 32 ms by the engine's clock. A virtual clock stands still in a handler.
    let lags: u64 = pair.rig.counters().turn_micros[15..].iter().sum();
    check!(lags > 0 || fixture.is_virtual(), "the lag is not in the histogram");
    pair.rig.with(client, |_, cx| cx.abort(other));
    pair.finish()
}

/// A wake that takes this long is lost.
const STUCK: Duration = Duration::from_secs(3);
