//! Rows about a runtime that sleeps. Their services notice an engine with wrong wakes or waits.

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use reactor::{
    Bytes, Closed, Context, Controller, Event, Handle, Id, Limits, Receive, Reply, Result, Runtime, Service,
    Stream, Unanswered,
};

use crate::{
    fixture::Fixture,
    suite::{Outcome, Row, SOCKETS, Stop, check, row},
};

pub(crate) const ROWS: &[Row] = &[
    row("F1s", "a timer is not early by the system's clock", SOCKETS, timer_early),
    row("F2s", "a deadline is not early by the system's clock", SOCKETS, deadline_early),
    row("G4s", "each question of a thread wakes the loop", SOCKETS, questions),
    row("G5s", "a stop of a thread wakes the loop", SOCKETS, stops),
];

/// Records when its timers fire and its streams end. Answers questions.
#[derive(Default)]
struct Sleeper {
    fired: Vec<Instant>,
    deadlines: Vec<Instant>,
}

struct Tick;
struct Ask(Reply<()>);

impl Service for Sleeper {}

impl Receive<Tick> for Sleeper {
    fn receive(&mut self, _: &mut Context<Self>, _: Tick) -> Result {
        self.fired.push(Instant::now());
        Ok(())
    }
}

impl Receive<Ask> for Sleeper {
    fn receive(&mut self, _: &mut Context<Self>, Ask(reply): Ask) -> Result {
        reply.send(());
        Ok(())
    }
}

impl Handle<Stream> for Sleeper {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<'_, Bytes>) -> Result {
        if let Event::Open = event {
            cx.deadline(id, NAP);
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Stream, why: Closed) {
        if let Closed::Deadline = why {
            self.deadlines.push(Instant::now());
        }
    }
}

fn runtime(fixture: &mut Fixture<'_>) -> Runtime {
    Runtime::assemble(fixture.engine(), Limits::default())
}

fn failed(error: impl std::fmt::Display) -> Stop {
    Stop::Failed(error.to_string())
}

fn timer_early(fixture: &mut Fixture<'_>) -> Outcome {
    let mut runtime = runtime(fixture);
    let sleeper = runtime.add(Sleeper::default()).map_err(failed)?;
    for round in 0..5 {
        let began = Instant::now();
        runtime.with(sleeper, |_, cx| cx.after(NAP, Tick));
        for _ in 0..TURNS_MAX {
            if runtime.service(sleeper).is_some_and(|sleeper| sleeper.fired.len() > round) {
                break;
            }
            runtime.turn(None).map_err(failed)?;
        }
        let fired = runtime.service(sleeper).and_then(|sleeper| sleeper.fired.get(round).copied());
        let after = fired.ok_or("a timer did not fire")?.duration_since(began);
        check!(after >= NAP, "a timer of {NAP:?} fired after {after:?}");
    }
    Ok(())
}

fn deadline_early(fixture: &mut Fixture<'_>) -> Outcome {
    let mut runtime = runtime(fixture);
    let sleeper = runtime.add(Sleeper::default()).map_err(failed)?;
    let began = Instant::now();
    let opened = runtime.with(sleeper, |_, cx| -> Result {
        let listener = cx.listen("127.0.0.1:0", |_| Some(Stream::new(Bytes)))?;
        let at = cx.local(listener)?;
        cx.connect(at, Stream::new(Bytes))?;
        Ok(())
    });
    opened.ok_or("the service has ended")?.map_err(failed)?;
    for _ in 0..TURNS_MAX {
        if runtime.service(sleeper).is_some_and(|sleeper| !sleeper.deadlines.is_empty()) {
            break;
        }
        runtime.turn(None).map_err(failed)?;
    }
    let ended = runtime.service(sleeper).and_then(|sleeper| sleeper.deadlines.first().copied());
    let after = ended.ok_or("no deadline passed")?.duration_since(began);
    check!(after >= NAP, "a deadline of {NAP:?} passed after {after:?}");
    Ok(())
}

/// Asks this many questions. Returns `Err` if an answer does not arrive in time.
fn ask(controller: &Controller<Sleeper>, count: usize) -> std::result::Result<(), String> {
    for number in 0..count {
        match controller.ask(Ask).wait_for(LOST_AFTER) {
            Ok(()) => (),
            Err(Unanswered::TimedOut(_)) => return Err(format!("the wake of question {number} was lost")),
            Err(other) => return Err(format!("question {number}: {other:?}")),
        }
    }
    Ok(())
}

/// Runs the runtime while a thread works with its controller. The run ends once the thread has ended.
fn run_beside(
    fixture: &mut Fixture<'_>,
    work: impl FnOnce(Controller<Sleeper>) -> std::result::Result<(), String> + Send + 'static,
) -> Outcome {
    let mut runtime = runtime(fixture);
    let sleeper = runtime.add(Sleeper::default()).map_err(failed)?;
    let controller = runtime.controller(sleeper);
    let (done, is_done) = mpsc::channel();
    let thread = thread::spawn(move || {
        let outcome = work(controller);
        // The receiver lives until the end of this function.
        let _ = done.send(());
        outcome
    });
    let mut late = true;
    for _ in 0..TURNS_MAX {
        late = is_done.try_recv().is_err();
        if !late || runtime.is_over() {
            break;
        }
        // Wait longer than the thread does, so that the next turn does not hide a lost wake.
        runtime.turn(Some(2 * LOST_AFTER)).map_err(failed)?;
    }
    runtime.run().map_err(failed)?;
    thread.join().map_err(|_| "the thread panicked")??;
    check!(!late || is_done.try_recv().is_ok(), "the thread did not come to its end in {TURNS_MAX} turns");
    Ok(())
}

fn questions(fixture: &mut Fixture<'_>) -> Outcome {
    run_beside(fixture, |controller| ask(&controller, QUESTIONS))
}

fn stops(fixture: &mut Fixture<'_>) -> Outcome {
    for questions in 0..4 {
        let (stopped, stop) = mpsc::channel();
        run_beside(fixture, move |controller| {
            ask(&controller, questions)?;
            stopped.send(Instant::now()).map_err(|error| error.to_string())?;
            controller.stop(Duration::ZERO);
            Ok(())
        })?;
        let took = stop.recv().map_err(failed)?.elapsed();
        check!(took < LOST_AFTER, "the stop after {questions} questions was seen after {took:?}");
    }
    Ok(())
}

const NAP: Duration = Duration::from_millis(10);
const LOST_AFTER: Duration = Duration::from_secs(1);
const QUESTIONS: usize = 500;
const TURNS_MAX: usize = 10_000;
