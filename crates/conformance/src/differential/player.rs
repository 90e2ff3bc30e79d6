//! The service that plays a script: does each connection's steps, and notes what it is told.

use std::{collections::HashMap, time::Duration};

use reactor::{
    Address, Bytes, Closed, ConnectOptions, Context, Event, Fault, Flow, Handle, Id, Key, ListenOptions,
    Receive, Result, Service, SocketOptions, Stream, StreamOptions, Time,
};

use super::{
    content::Content,
    link::{Link, Next, State},
    script::{Kind, Last, Pace, Script, Side, Step, Traffic},
    trace::{Entry, Trace},
};

/// The service.
pub(super) struct Player {
    pub(super) trace: Trace,
    pub(super) links: Vec<Link>,
    /// An address at which nobody listens.
    nowhere: Address,
    /// The listeners, by the kind of their streams.
    listeners: Vec<(Kind, Address)>,
    named: HashMap<Key, (usize, Side)>,
    /// Accepted streams whose hello is not complete.
    unnamed: HashMap<Key, Vec<u8>>,
    /// Connects that will be refused, with the link that tried.
    refused: HashMap<Key, usize>,
}

/// A message to itself: what a link is to do now.
enum Order {
    Go(usize),
    Resume(usize, Side),
}

/// A timer of a group.
struct Tick {
    link: usize,
    step: usize,
    number: u64,
    due: Time,
}

/// A message that is only noted.
struct Word {
    link: usize,
    number: u64,
}

type Cx<'a> = Context<'a, Player>;

impl Player {
    pub(super) fn new(script: &Script, engine: &str, nowhere: Address) -> Player {
        Player {
            trace: Trace::new(engine, script.seed),
            links: script.links.iter().cloned().map(Link::new).collect(),
            nowhere,
            listeners: Vec::new(),
            named: HashMap::new(),
            unnamed: HashMap::new(),
            refused: HashMap::new(),
        }
    }

    fn note(&mut self, link: usize, side: Side, entry: Entry) {
        self.trace.note(&format!("link {link}, {side:?}"), entry);
    }

    fn wrong(&mut self, link: usize, side: Side, how: impl Into<String>) {
        self.note(link, side, Entry::Wrong(how.into()));
    }

    /// Begins the next step if this one is over; stops the runtime when that was the last one of all.
    fn progress(&mut self, cx: &mut Cx<'_>, number: usize) {
        let link = &mut self.links[number];
        if !link.is_playing || !link.is_reached() {
            return;
        }
        link.is_playing = false;
        let (step, is_last) = (link.at, matches!(link.next(), Some(Next::Last(_))));
        link.at += 1;
        if is_last {
            return self.stop_if_over(cx);
        }
        for side in Side::BOTH {
            let end = self.links[number].end(side);
            end.confirmed = end.got.bytes;
            let got = end.got;
            if let (Some(id), true) = (end.id, step > 0) {
                cx.deadline(id, None);
            }
            self.note(number, side, Entry::Step(step, got));
        }
        match self.links[number].plan.pace {
            Pace::AtOnce => self.begin(cx, number),
            Pace::Told => self.order(cx, Order::Go(number)),
            Pace::Later => _ = cx.after(MOMENT, Order::Go(number)),
        }
    }

    fn order(&mut self, cx: &mut Cx<'_>, order: Order) {
        let me = cx.me();
        if cx.tell(me, order).is_err() {
            self.trace.note("messages", Entry::Wrong("a message was refused".to_owned()));
        }
    }

    fn stop_if_over(&mut self, cx: &mut Cx<'_>) {
        if self.links.iter().all(Link::is_over) {
            cx.stop(GRACE);
        }
    }

    fn begin(&mut self, cx: &mut Cx<'_>, number: usize) {
        self.links[number].is_playing = true;
        match self.links[number].next() {
            Some(Next::Step(step)) => self.step(cx, number, step),
            Some(Next::Last(last)) => self.last(cx, number, last),
            None => (),
        }
        self.progress(cx, number);
    }

    fn step(&mut self, cx: &mut Cx<'_>, number: usize, step: Step) {
        match step {
            Step::Send { from, bytes, pieces } => self.send(cx, number, from, bytes, pieces),
            Step::Cross { by, traffic } => self.cross(cx, number, by, traffic),
            Step::Pause { on, bytes } => {
                self.on(number, on, |id| cx.pause(id));
                self.links[number].end(on).is_paused = true;
                self.send(cx, number, on.other(), bytes, 1);
                match self.links[number].plan.pace {
                    Pace::Told => self.order(cx, Order::Resume(number, on)),
                    _ => _ = cx.after(MOMENT, Order::Resume(number, on)),
                }
            }
            Step::Release { on, traffic } => {
                self.cross(cx, number, on, traffic);
                self.on(number, on, |id| cx.release(id));
                // Until it is added again.
                self.links[number].end(on).state = State::Opening;
            }
            Step::Deadline { on } => {
                self.on(number, on, |id| {
                    cx.deadline(id, MOMENT);
                    cx.deadline(id, NEVER_REACHED);
                });
                self.send(cx, number, on.other(), 8, 1);
            }
            Step::Timers { millis, cancelled } => self.timers(cx, number, &millis, cancelled),
            Step::Tell { count } => {
                let me = cx.me();
                for word in 0..count {
                    match cx.tell(me, Word { link: number, number: word }) {
                        Ok(()) => self.links[number].pending += 1,
                        Err(_) => self.wrong(number, Side::Near, "a message was refused"),
                    }
                }
            }
            Step::Refused => match cx.connect(&self.nowhere, Stream::new(Bytes)) {
                Ok(id) => {
                    self.refused.insert(id.key(), number);
                    self.links[number].pending += 1;
                }
                // A system may refuse at once.
                Err(error) => {
                    let how = error.io().map_or_else(|| error.to_string(), failed);
                    self.trace.note(&format!("link {number}, refused"), Entry::Closed(how, None));
                }
            },
        }
    }

    fn last(&mut self, cx: &mut Cx<'_>, number: usize, last: Last) {
        match last {
            Last::Close { by, traffic } => {
                self.cross(cx, number, by, traffic);
                self.links[number].end(by).is_cut = true;
                self.on(number, by, |id| cx.close(id));
            }
            Last::Finish { by, traffic } => {
                self.send(cx, number, by, traffic.own, 1);
                self.on(number, by, |id| cx.finish(id));
            }
            Last::Abort { by, traffic } => {
                self.cross(cx, number, by, traffic);
                for side in Side::BOTH {
                    self.links[number].end(side).is_cut = true;
                }
                self.on(number, by, |id| cx.abort(id));
            }
            Last::Deadline { by } => self.on(number, by, |id| cx.deadline(id, MOMENT)),
            Last::Refuse { by, own } => {
                self.links[number].end(by).refuses = Some(own);
                self.send(cx, number, by.other(), 1, 1);
            }
            Last::Stay => self.stop_if_over(cx),
        }
    }

    /// Does something to the end that lives.
    fn on(&mut self, number: usize, side: Side, act: impl FnOnce(Id<Stream>)) {
        match self.links[number].end(side).id {
            Some(id) => act(id),
            None => self.wrong(number, side, "it is gone before its time"),
        }
    }

    fn cross(&mut self, cx: &mut Cx<'_>, number: usize, by: Side, traffic: Traffic) {
        self.send(cx, number, by, traffic.own, 2);
        self.send(cx, number, by.other(), traffic.others, 2);
    }

    fn send(&mut self, cx: &mut Cx<'_>, number: usize, from: Side, bytes: usize, pieces: usize) {
        let end = self.links[number].end(from);
        let Some(id) = end.id else { return self.wrong(number, from, "it is gone before its time") };
        let content = Content::of(number, from).bytes(end.sent, end.sent + bytes);
        end.sent += bytes;
        for piece in content.chunks(bytes.div_ceil(pieces).max(1)) {
            match cx.send(id, piece) {
                Flow::Queued => (),
                Flow::High => self.links[number].end(from).is_high = true,
                Flow::Gone => self.wrong(number, from, "a send found it gone"),
            }
        }
    }

    fn timers(&mut self, cx: &mut Cx<'_>, number: usize, millis: &[u64], cancelled: usize) {
        let step = self.links[number].at;
        let mut set = Vec::new();
        for (timer, millis) in (0..).zip(millis) {
            let after = Duration::from_millis(*millis);
            let tick = Tick { link: number, step, number: timer, due: cx.now() + after };
            set.push(cx.after(after, tick));
        }
        if !cx.cancel(set[cancelled]) {
            self.wrong(number, Side::Near, "a timer could not be cancelled");
        }
        self.links[number].pending += set.len() - 1;
    }

    /// The name of an accepted stream, once its hello is complete; then it has lived already.
    fn hello(&mut self, cx: &mut Cx<'_>, id: Id<Stream>, event: Event<'_, Bytes>) -> Result {
        let what = match event {
            Event::Open => return Ok(_ = self.unnamed.insert(id.key(), Vec::new())),
            Event::Received(bytes) if self.unnamed.contains_key(&id.key()) => bytes,
            _ => {
                self.trace.note("strangers", Entry::Wrong("a stream that nobody knows".to_owned()));
                return Ok(());
            }
        };
        let said = self.unnamed.entry(id.key()).or_default();
        said.extend_from_slice(what);
        let Some((hello, rest)) = said.split_first_chunk::<HELLO>() else { return Ok(()) };
        let (number, rest) = (u32::from_be_bytes(*hello) as usize, rest.to_vec());
        self.unnamed.remove(&id.key());
        if number >= self.links.len() || !rest.is_empty() {
            self.trace.note("strangers", Entry::Wrong("not the hello that was sent".to_owned()));
            return Ok(());
        }
        self.named.insert(id.key(), (number, Side::Far));
        self.links[number].end(Side::Far).id = Some(id);
        self.tell(cx, id, (number, Side::Far), Event::Open)
    }

    fn tell(
        &mut self,
        cx: &mut Cx<'_>,
        id: Id<Stream>,
        (number, side): (usize, Side),
        event: Event<'_, Bytes>,
    ) -> Result {
        match event {
            Event::Open => {
                self.links[number].end(side).state = State::Open;
                self.note(number, side, Entry::Open);
            }
            Event::Received(bytes) => {
                self.received(number, side, bytes);
                if let Some(own) = self.links[number].end(side).refuses {
                    self.send(cx, number, side, own, 1);
                    return Err("refused, as it is written".into());
                }
            }
            Event::End => {
                let end = self.links[number].end(side);
                end.is_ended = true;
                let got = end.got;
                self.note(number, side, Entry::End(got));
                if let Last::Finish { by, traffic } = self.links[number].plan.last
                    && by != side
                {
                    self.send(cx, number, side, traffic.others, 1);
                }
                if self.links[number].plan.kind.half_open {
                    cx.close(id);
                }
            }
            Event::Drained => {
                self.trace.drained += 1;
                if !std::mem::take(&mut self.links[number].end(side).is_high) {
                    self.wrong(number, side, "Drained without having been high");
                }
            }
        }
        self.progress(cx, number);
        Ok(())
    }

    fn received(&mut self, number: usize, side: Side, bytes: &[u8]) {
        self.trace.pieces += 1;
        let sent = self.links[number].end(side.other()).sent;
        let end = self.links[number].end(side);
        let at = end.got.bytes;
        end.got.take(bytes);
        let how = match Content::of(number, side.other()).first_wrong(at, bytes) {
            Some(at) => format!("the byte at {at} is not the one that was sent"),
            None if at + bytes.len() > sent => format!("{} bytes of {sent}", at + bytes.len()),
            None if end.is_paused => "input while it is paused".to_owned(),
            None if end.is_ended => "input after the end".to_owned(),
            None if bytes.is_empty() => "input of no bytes".to_owned(),
            None => return,
        };
        self.wrong(number, side, how);
    }

    fn ended(&mut self, cx: &mut Cx<'_>, id: Id<Stream>, (number, side): (usize, Side), why: &Closed) {
        let end = self.links[number].end(side);
        (end.id, end.state) = (None, State::Closed);
        let (got, is_cut, is_short) = (end.got, end.is_cut, end.got.bytes < end.confirmed);
        let reason = why.io().map_or_else(|| name(why), failed);
        self.note(number, side, Entry::Closed(reason, (!is_cut).then_some(got)));
        if is_short {
            self.wrong(number, side, "less came than at the last step");
        }
        if cx.send(id, b"late") == Flow::Gone {
            self.note(number, side, Entry::Gone);
        }
        self.progress(cx, number);
    }
}

impl Service for Player {
    fn start(&mut self, cx: &mut Cx<'_>) -> Result {
        for kind in Kind::all() {
            let mut options = ListenOptions::default();
            narrow(&mut options.socket, kind);
            let listener = cx.listen_with("127.0.0.1:0", &options, move |_| Some(stream(kind)))?;
            self.listeners.push((kind, cx.local(listener)?));
        }
        for number in 0..self.links.len() {
            let kind = self.links[number].plan.kind;
            let address =
                self.listeners.iter().find(|(of, _)| *of == kind).map(|(_, address)| address.clone());
            let mut options = ConnectOptions::default();
            narrow(&mut options.socket, kind);
            let id =
                cx.connect_with(address.ok_or("every kind has its listener")?, &options, stream(kind))?;
            cx.send(id, &(number as u32).to_be_bytes());
            self.named.insert(id.key(), (number, Side::Near));
            self.links[number].end(Side::Near).id = Some(id);
        }
        Ok(())
    }

    fn fault(&mut self, _: &mut Cx<'_>, fault: Fault) {
        self.trace.note("faults", Entry::Wrong(fault.to_string()));
    }
}

impl Handle<Stream> for Player {
    fn handle(&mut self, cx: &mut Cx<'_>, id: Id<Stream>, event: Event<'_, Bytes>) -> Result {
        match self.named.get(&id.key()) {
            Some(whose) => self.tell(cx, id, *whose, event),
            None => self.hello(cx, id, event),
        }
    }

    fn closed(&mut self, cx: &mut Cx<'_>, id: Id<Stream>, stream: Stream, why: Closed) {
        if let Some(number) = self.refused.remove(&id.key()) {
            let reason = why.io().map_or_else(|| name(&why), failed);
            self.trace.note(&format!("link {number}, refused"), Entry::Closed(reason, None));
            self.links[number].pending -= 1;
            return self.progress(cx, number);
        }
        let Some(whose @ (number, side)) = self.named.remove(&id.key()) else {
            return self.trace.note("strangers", Entry::Wrong(format!("closed before its hello: {why}")));
        };
        if !matches!(why, Closed::Released) {
            return self.ended(cx, id, whose, &why);
        }
        self.note(number, side, Entry::Closed("Released".to_owned(), None));
        match cx.add(stream) {
            Ok(id) => {
                self.named.insert(id.key(), whose);
                self.links[number].end(side).id = Some(id);
            }
            Err(rejected) => {
                self.wrong(number, side, format!("could not be added again: {}", rejected.error))
            }
        }
    }
}

impl Receive<Order> for Player {
    fn receive(&mut self, cx: &mut Cx<'_>, order: Order) -> Result {
        match order {
            Order::Go(number) => self.begin(cx, number),
            Order::Resume(number, side) => {
                self.links[number].end(side).is_paused = false;
                self.on(number, side, |id| cx.resume(id));
                self.progress(cx, number);
            }
        }
        Ok(())
    }
}

impl Receive<Tick> for Player {
    fn receive(&mut self, cx: &mut Cx<'_>, tick: Tick) -> Result {
        let resource = format!("link {}, timers of step {}", tick.link, tick.step);
        self.trace.note(&resource, Entry::Fired(tick.number));
        if cx.now() < tick.due {
            self.trace.note(&resource, Entry::Wrong("it is early".to_owned()));
        }
        self.links[tick.link].pending -= 1;
        self.progress(cx, tick.link);
        Ok(())
    }
}

impl Receive<Word> for Player {
    fn receive(&mut self, cx: &mut Cx<'_>, word: Word) -> Result {
        self.trace.note(&format!("link {}, messages", word.link), Entry::Told(word.number));
        self.links[word.link].pending -= 1;
        self.progress(cx, word.link);
        Ok(())
    }
}

fn stream(kind: Kind) -> Stream {
    let options = StreamOptions { backpressure: kind.backpressure, close: GRACE, ..StreamOptions::DEFAULT };
    Stream::new(Bytes).half_open(kind.half_open).options(options)
}

fn narrow(options: &mut SocketOptions, kind: Kind) {
    options.send_buffer = kind.narrow.then_some(1);
}

/// The name of a reason.
fn name(why: &Closed) -> String {
    let text = format!("{why:?}");
    text.split(['(', ' ']).next().unwrap_or_default().to_owned()
}

/// The name of a system's error; those of a reset are one.
fn failed(error: &std::io::Error) -> String {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    match error.kind() {
        BrokenPipe | ConnectionAborted | ConnectionReset => "Failed(reset)".to_owned(),
        kind => format!("Failed({kind:?})"),
    }
}

/// How many bytes say which connection it is.
const HELLO: usize = 4;
/// A short time, which passes.
const MOMENT: Duration = Duration::from_millis(1);
/// A deadline that is taken away before.
const NEVER_REACHED: Duration = Duration::from_secs(600);
/// More than a slow machine needs for the close of a connection whose peer is there.
const GRACE: Duration = Duration::from_secs(120);
