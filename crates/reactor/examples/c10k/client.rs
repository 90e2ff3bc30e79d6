//! The client: opens the connections, keeps messages in flight on each, and checks each one that returns.

use std::{collections::VecDeque, os::unix::net::UnixStream, sync::Arc, time::Duration};

use reactor::{
    Address, Bytes, Closed, Context, Event, Handle, Id, IdMap, Lines, Receive, Result, Service, Stream,
    StreamOptions, Time,
};

use super::{
    args::Work,
    latency::Latencies,
    message::{Message, Numbered},
    process::Process,
    progress::Progress,
    report::{Report, grouped},
    server::{Control, READY},
};

/// A connection with traffic.
type Talk = Stream<Numbered>;

/// A connection without traffic.
type Idle = Stream<Bytes, (), Silent>;
struct Silent;

/// The client's state for a connection with traffic.
struct Line {
    number: u64,
    sent: u64,
    /// When the messages in flight were sent, oldest first.
    flying: VecDeque<Time>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Connecting,
    Talking,
    /// We send nothing more, and wait for the last messages.
    Draining,
    /// All messages have returned, and we have sent FIN on every connection.
    Ending,
}

/// Timer: show the progress, and notice a standstill.
struct Tick;
/// Timer: stop sending new messages.
struct Enough;

pub(crate) struct Client {
    work: Work,
    server: Process,
    socket: Option<UnixStream>,
    control: Option<Id<Control>>,
    targets: Vec<Address>,
    codec: Numbered,
    options: Arc<StreamOptions>,
    phase: Phase,
    lines: IdMap<Talk, Line>,
    idle: IdMap<Idle, ()>,
    begun: usize,
    open: usize,
    messages: u64,
    flying: u64,
    latencies: Latencies,
    talking_since: Time,
    processor_time_before: Option<Duration>,
    resident_before: Option<u64>,
    progress: Progress,
    /// The progress when it last changed, and the time of that change.
    moved: (u64, Time),
    outcome: Option<Result<Report>>,
}

impl Client {
    /// Creates the client of a server, with our end of the control connection to it.
    pub(crate) fn new(work: Work, control: UnixStream, server: Process) -> Client {
        Client {
            codec: Numbered::new(work.size),
            // The server echoes all bytes. If backpressure stopped us from reading while much is queued,
            // each side would wait for the other.
            options: Arc::new(StreamOptions::with(|options| options.backpressure = false)),
            work,
            server,
            socket: Some(control),
            control: None,
            targets: Vec::new(),
            phase: Phase::Starting,
            lines: IdMap::new(),
            idle: IdMap::new(),
            begun: 0,
            open: 0,
            messages: 0,
            flying: 0,
            latencies: Latencies::new(),
            talking_since: Time::ZERO,
            processor_time_before: None,
            resident_before: None,
            progress: Progress::new(),
            moved: (0, Time::ZERO),
            outcome: None,
        }
    }

    /// Takes the outcome of the work.
    ///
    /// # Errors
    /// The first failure.
    pub(crate) fn take_outcome(&mut self) -> Result<Report> {
        self.outcome.take().unwrap_or_else(|| Err("the work was left undone".into()))
    }

    /// Opens connections while few enough are pending, to each address in turn.
    fn connect_more(&mut self, cx: &mut Context<Self>) -> Result {
        while self.begun < self.work.streams() && self.begun - self.open < CONNECTING_MAX {
            let target = &self.targets[self.begun % self.targets.len()];
            if self.begun < self.work.connections {
                let id = cx.connect(target, Stream::new(self.codec.clone()).options(self.options.clone()))?;
                let flying = VecDeque::with_capacity(self.work.depth);
                self.lines.insert(id, Line { number: self.begun as u64, sent: 0, flying });
            } else {
                let id = cx.connect(target, Stream::new(Bytes).role())?;
                self.idle.insert(id, ());
            }
            self.begun += 1;
        }
        Ok(())
    }

    /// Counts one more open connection. After the last one, starts the traffic.
    fn opened(&mut self, cx: &mut Context<Self>) -> Result {
        self.open += 1;
        self.connect_more(cx)?;
        if self.open == self.work.streams() {
            self.phase = Phase::Talking;
            self.talking_since = cx.now();
            self.processor_time_before = self.server.processor_time();
            for (id, line) in self.lines.iter_mut() {
                for _ in 0..self.work.depth {
                    say(cx, id, line);
                }
            }
            self.flying = (self.work.connections * self.work.depth) as u64;
            cx.after(self.work.duration, Enough);
        }
        Ok(())
    }

    /// Handles a returned message, which must be the next one of its connection.
    fn heard(&mut self, cx: &mut Context<Self>, id: Id<Talk>, message: Message) -> Result {
        let Some(line) = self.lines.get_mut(id) else { return Ok(()) };
        let sequence = line.sent - line.flying.len() as u64;
        let expected = Message { connection: line.number, sequence };
        let Some(sent) = line.flying.pop_front().filter(|_| message == expected) else {
            return Err(format!("{message} came where {expected} was next"))?;
        };
        self.latencies.record(cx.now() - sent);
        self.messages += 1;
        if self.phase == Phase::Talking {
            say(cx, id, line);
            return Ok(());
        }
        self.flying -= 1;
        if self.flying == 0 {
            self.conclude(cx);
        }
        Ok(())
    }

    /// Takes the measurements, and finishes the connections. Each is then read to its end, and any byte
    /// that is left would be an error.
    fn conclude(&mut self, cx: &mut Context<Self>) {
        let since = |after: Option<u64>, before: Option<u64>| Some(after?.saturating_sub(before?));
        let processor_time = self.server.processor_time();
        let report = Report {
            connections: self.work.connections,
            idle: self.work.idle,
            size: self.work.size,
            depth: self.work.depth,
            messages: self.messages,
            duration: cx.now() - self.talking_since,
            p50: self.latencies.quantile(0.5),
            p99: self.latencies.quantile(0.99),
            p999: self.latencies.quantile(0.999),
            processor_time: processor_time
                .zip(self.processor_time_before)
                .map(|(after, before)| after - before),
            resident_growth: since(self.server.resident_bytes(), self.resident_before),
            threads: self.server.threads(),
        };
        self.outcome = Some(Ok(report));
        self.phase = Phase::Ending;
        self.lines.ids().for_each(|id| cx.finish(id));
        self.idle.ids().for_each(|id| cx.finish(id));
    }

    /// Handles the end of a connection, which is right only in the last phase. After the last one, closes
    /// the control connection, which ends the server.
    fn left(&mut self, cx: &mut Context<Self>, who: &str, why: &Closed) {
        if self.phase != Phase::Ending || !why.is_clean() {
            return self.fail(cx, format!("{who}: {why}"));
        }
        self.open -= 1;
        if self.open == 0
            && let Some(control) = self.control
        {
            cx.close(control);
        }
    }

    /// Records the first failure, and ends the work.
    fn fail(&mut self, cx: &mut Context<Self>, what: String) {
        if !matches!(self.outcome, Some(Err(_))) {
            self.progress.clear();
            self.outcome = Some(Err(what.into()));
            cx.stop(Duration::ZERO);
        }
    }

    fn show_progress(&mut self, now: Time) {
        let part = |of: usize| of as f64 / self.work.streams() as f64;
        let (done, words) = match self.phase {
            Phase::Starting => (0.0, "the server starts".to_owned()),
            Phase::Connecting => (part(self.open), format!("{} connections", grouped(self.open))),
            Phase::Talking | Phase::Draining => (
                (now - self.talking_since).as_secs_f64() / self.work.duration.as_secs_f64(),
                format!("{} messages came back right", grouped(self.messages)),
            ),
            Phase::Ending => (part(self.open), format!("closing {} connections", grouped(self.open))),
        };
        self.progress.show(now, done, &words);
    }
}

/// Sends the next message of a connection.
fn say(cx: &mut Context<Client>, id: Id<Talk>, line: &mut Line) {
    cx.send(id, Message { connection: line.number, sequence: line.sent });
    line.sent += 1;
    line.flying.push_back(cx.now());
}

impl Service for Client {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let socket = self.socket.take().ok_or("a client starts once")?;
        self.control = Some(cx.add(Stream::new(Lines::new()).role().on(socket)?)?);
        self.moved.1 = cx.now();
        cx.after(TICK, Tick);
        Ok(())
    }
}

impl Handle<Control> for Client {
    fn handle(&mut self, cx: &mut Context<Self>, _: Id<Control>, event: Event<Lines>) -> Result {
        match event {
            Event::Received(READY) => {
                self.phase = Phase::Connecting;
                self.resident_before = self.server.resident_bytes();
                // If this handler returned the error, the runtime would close the control connection, and
                // the outcome would not be this error.
                if let Err(failure) = self.connect_more(cx) {
                    self.fail(cx, failure.to_string());
                }
                Ok(())
            }
            Event::Received(address) => {
                self.targets.push(address.parse()?);
                Ok(())
            }
            Event::Open | Event::End | Event::Drained | Event::HungUp => Ok(()),
        }
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: Id<Control>, _: Control, why: Closed) {
        self.control = None;
        if self.phase != Phase::Ending || self.open > 0 {
            self.fail(cx, format!("the control connection: {why}"));
        }
        self.progress.clear();
    }
}

impl Handle<Talk> for Client {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Talk>, event: Event<Numbered>) -> Result {
        match event {
            Event::Open => self.opened(cx),
            Event::Received(message) => self.heard(cx, id, message),
            Event::End | Event::Drained | Event::HungUp => Ok(()),
        }
    }

    fn closed(&mut self, cx: &mut Context<Self>, id: Id<Talk>, _: Talk, why: Closed) {
        let number = self.lines.remove(id).map_or(0, |line| line.number);
        self.left(cx, &format!("connection {number}"), &why);
    }
}

impl Handle<Idle> for Client {
    fn handle(&mut self, cx: &mut Context<Self>, _: Id<Idle>, event: Event<Bytes>) -> Result {
        match event {
            Event::Open => self.opened(cx),
            Event::Received(bytes) => Err(format!("{} bytes that nobody sent", bytes.len()))?,
            Event::End | Event::Drained | Event::HungUp => Ok(()),
        }
    }

    fn closed(&mut self, cx: &mut Context<Self>, id: Id<Idle>, _: Idle, why: Closed) {
        self.idle.remove(id);
        self.left(cx, "an idle connection", &why);
    }
}

impl Receive<Enough> for Client {
    fn receive(&mut self, _: &mut Context<Self>, _: Enough) -> Result {
        // Until now each connection had messages in flight, so the last one to return concludes.
        self.phase = Phase::Draining;
        Ok(())
    }
}

impl Receive<Tick> for Client {
    fn receive(&mut self, cx: &mut Context<Self>, _: Tick) -> Result {
        if self.control.is_none() {
            return Ok(());
        }
        self.show_progress(cx.now());
        let state = self.messages + (self.begun + self.open) as u64;
        if state != self.moved.0 {
            self.moved = (state, cx.now());
        } else if cx.now() - self.moved.1 > PATIENCE {
            self.fail(cx, format!("nothing has moved for {} s", PATIENCE.as_secs()));
            return Ok(());
        }
        cx.after(TICK, Tick);
        Ok(())
    }
}

/// The most pending connections at once. It is smaller than a listener's backlog.
const CONNECTING_MAX: usize = 512;

/// How often the client shows its progress.
const TICK: Duration = Duration::from_millis(100);

/// The longest standstill.
const PATIENCE: Duration = Duration::from_secs(10);
