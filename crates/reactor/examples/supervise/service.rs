//! The service: restarts workers, prefixes their output, and ends them all.

use std::{
    ffi::OsString,
    io,
    process::{Command, ExitStatus},
    time::Duration,
};

use reactor::{
    Closed, Context, Error, Event, Flow, Handle, Id, IdMap, Receive, Result, Service, Stream, Time,
    process::{Process, SpawnOptions, Standard},
    signals::{Arrived, Signal, Signals},
};

use crate::{orphans, output::Said};

/// A worker's standard output and standard error.
pub(crate) type Out = Stream<Said>;
pub(crate) type Err = Stream<Said, (), Errors>;
/// Our own output.
pub(crate) type Ours = Stream<Said, (), Output>;
pub(crate) struct Errors;
pub(crate) struct Output;

pub(crate) struct Supervise {
    workers: Vec<Worker>,
    /// The worker of each process.
    processes: IdMap<Process, usize>,
    /// The prefix of each line of a stream. A stream may outlive its process, because another process may
    /// hold the pipe.
    outs: IdMap<Out, String>,
    errors: IdMap<Err, String>,
    output: Option<Id<Ours>>,
    is_ending: bool,
}

struct Worker {
    command: Vec<OsString>,
    name: String,
    began: Time,
    pause: Duration,
}

/// Timer: restart a worker.
struct Again(usize);
/// Timer: the workers' time to end by themselves is over.
struct Deadline;

impl Supervise {
    pub(crate) fn new(commands: Vec<Vec<OsString>>) -> Supervise {
        let workers = commands.into_iter().map(|command| {
            let name = command[0].to_string_lossy().rsplit('/').next().unwrap_or_default().to_owned();
            Worker { command, name, began: Time::ZERO, pause: PAUSE_MIN }
        });
        Supervise {
            workers: workers.collect(),
            processes: IdMap::new(),
            outs: IdMap::new(),
            errors: IdMap::new(),
            output: None,
            is_ending: false,
        }
    }

    fn begin(&mut self, cx: &mut Context<Self>, at: usize) -> Result<(), Error> {
        let worker = &mut self.workers[at];
        worker.began = cx.now();
        let mut options = SpawnOptions::default();
        options.stdin = Standard::Null;
        // The worker's own children end with it, and with us.
        (options.group, options.kill_rest, options.kill_on_close) = (true, true, true);
        let child = cx.spawn(Command::new(&worker.command[0]).args(&worker.command[1..]), &options)?;
        let name = format!("{}[{}]", worker.name, child.process.pid());
        self.processes.insert(cx.add(child.process).map_err(|rejected| rejected.error)?, at);
        if let Some(stdout) = child.stdout {
            let stream = Stream::new(Said).through(stdout);
            self.outs.insert(cx.add(stream).map_err(|rejected| rejected.error)?, format!("{name}: "));
        }
        if let Some(stderr) = child.stderr {
            let stream = Stream::new(Said).role().through(stderr);
            self.errors.insert(cx.add(stream).map_err(|rejected| rejected.error)?, format!("{name}! "));
        }
        Ok(())
    }

    /// Prints a line. While the reader of our output is slow, stops reading from the workers, so that they
    /// wait in turn.
    fn say(&mut self, cx: &mut Context<Self>, prefix: &str, line: &[u8]) {
        let line = [prefix.as_bytes(), line].concat();
        if self.output.is_some_and(|output| cx.send(output, &line) == Flow::High) {
            self.outs.ids().for_each(|id| cx.pause(id));
            self.errors.ids().for_each(|id| cx.pause(id));
        }
    }

    fn note(&mut self, cx: &mut Context<Self>, at: usize, what: &str) {
        let prefix = format!("supervise: {}: ", self.workers[at].name);
        self.say(cx, &prefix, what.as_bytes());
    }

    /// Schedules the next start of a worker.
    fn retry(&mut self, cx: &mut Context<Self>, at: usize, why: &str) {
        let now = cx.now();
        let worker = &mut self.workers[at];
        if now.since(worker.began) >= CALM {
            worker.pause = PAUSE_MIN;
        }
        let pause = worker.pause;
        worker.pause = (pause * 2).min(PAUSE_MAX);
        self.note(cx, at, &format!("{why}; again in {} ms", pause.as_millis()));
        cx.after(pause, Again(at));
    }

    /// Sends a signal to all workers.
    fn signal(&self, cx: &Context<Self>, send: impl Fn(&Process) -> io::Result<()>) {
        for process in self.processes.ids().filter_map(|id| cx.get(id)) {
            // A process that has just ended needs no signal.
            let _ = send(process);
        }
    }

    /// Asks all workers to end.
    fn end(&mut self, cx: &mut Context<Self>) {
        if !std::mem::replace(&mut self.is_ending, true) {
            self.signal(cx, Process::terminate);
            cx.after(PATIENCE, Deadline);
            self.end_if_done(cx);
        }
    }

    /// Ends the service once every worker has ended and all of its output has been read.
    fn end_if_done(&mut self, cx: &mut Context<Self>) {
        // A pipe may hold output of a process that has already ended, so both must be gone.
        if self.is_ending && self.processes.is_empty() && self.outs.is_empty() && self.errors.is_empty() {
            if let Some(output) = self.output.take() {
                cx.close(output);
            }
            cx.stop(PATIENCE);
        }
    }
}

impl Service for Supervise {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let output = Stream::new(Said).role().through(cx.stdout()?);
        self.output = Some(cx.add(output)?);
        let mut signals = vec![Signal::TERM, Signal::INT, Signal::HUP, Signal::USR1, Signal::USR2];
        if orphans::come() {
            signals.push(Signal::CHLD);
        }
        let signals = cx.signals(signals)?;
        cx.background(signals);
        for at in 0..self.workers.len() {
            self.begin(cx, at)?;
        }
        Ok(())
    }

    fn stop(&mut self, cx: &mut Context<Self>) {
        self.end(cx);
    }
}

impl Handle<Signals> for Supervise {
    fn handle(&mut self, cx: &mut Context<Self>, _: Id<Signals>, arrived: Arrived) -> Result {
        match arrived.signal {
            Signal::TERM | Signal::INT if self.is_ending || arrived.times > 1 => {
                self.end(cx);
                self.signal(cx, Process::kill);
            }
            Signal::TERM | Signal::INT => self.end(cx),
            Signal::CHLD => {
                let ours = self.processes.ids().filter_map(|id| cx.get(id)).map(Process::pid);
                orphans::reap(&ours.collect::<Vec<_>>());
            }
            other => self.signal(cx, |process| process.signal(other.number())),
        }
        Ok(())
    }
}

impl Handle<Process> for Supervise {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Process>, status: ExitStatus) -> Result {
        match self.processes.remove(id) {
            Some(at) if self.is_ending => self.note(cx, at, &format!("{status}")),
            Some(at) => self.retry(cx, at, &format!("{status}")),
            None => (),
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, id: Id<Process>, _: Process, why: Closed) {
        // Another part of the program has reaped the process, so we do not know its status.
        if let Some(at) = self.processes.remove(id).filter(|_| !self.is_ending) {
            self.retry(cx, at, &why.to_string());
        }
        self.end_if_done(cx);
    }
}

impl Handle<Out> for Supervise {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Out>, event: Event<Said>) -> Result {
        if let (Event::Received(line), Some(prefix)) = (event, self.outs.get(id).cloned()) {
            self.say(cx, &prefix, line);
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, id: Id<Out>, _: Out, _: Closed) {
        self.outs.remove(id);
        self.end_if_done(cx);
    }
}

impl Handle<Err> for Supervise {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Err>, event: Event<Said>) -> Result {
        if let (Event::Received(line), Some(prefix)) = (event, self.errors.get(id).cloned()) {
            self.say(cx, &prefix, line);
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, id: Id<Err>, _: Err, _: Closed) {
        self.errors.remove(id);
        self.end_if_done(cx);
    }
}

impl Handle<Ours> for Supervise {
    fn handle(&mut self, cx: &mut Context<Self>, _: Id<Ours>, event: Event<Said>) -> Result {
        if let Event::Drained = event {
            self.outs.ids().for_each(|id| cx.resume(id));
            self.errors.ids().for_each(|id| cx.resume(id));
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: Id<Ours>, _: Ours, _: Closed) {
        // The reader of our output has gone. Go on reading from the workers, so that they can end, and
        // discard the bytes.
        if self.output.take().is_some() {
            self.outs.ids().for_each(|id| cx.resume(id));
            self.errors.ids().for_each(|id| cx.resume(id));
            self.end(cx);
        }
    }
}

impl Receive<Again> for Supervise {
    fn receive(&mut self, cx: &mut Context<Self>, Again(at): Again) -> Result {
        if !self.is_ending
            && let Err(error) = self.begin(cx, at)
        {
            self.retry(cx, at, &error.to_string());
        }
        Ok(())
    }
}

impl Receive<Deadline> for Supervise {
    fn receive(&mut self, cx: &mut Context<Self>, _: Deadline) -> Result {
        self.signal(cx, Process::kill);
        // A process that left the group may hold a pipe for ever.
        self.outs.ids().for_each(|id| cx.close(id));
        self.errors.ids().for_each(|id| cx.close(id));
        Ok(())
    }
}

/// Returns the error itself, without the name of the service that could not start.
pub(crate) fn cause(error: &Error) -> String {
    match error {
        Error::Start { failure, .. } => failure.to_string(),
        other => other.to_string(),
    }
}

/// The first delay. Each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A worker that ran for this long restarts with the first delay again.
const CALM: Duration = Duration::from_secs(10);
/// How long the workers have to end by themselves.
const PATIENCE: Duration = Duration::from_secs(5);
