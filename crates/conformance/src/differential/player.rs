//! The service that plays a script: it takes each connection's steps. `told.rs` handles the events.

mod told;

use std::{collections::HashMap, time::Duration};

use reactor::{Address, Bytes, Context, Flow, Id, Key, Stream, Time};

use self::told::failed;
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
    /// Addresses without a listener. There are more of them than this service has listeners.
    nowhere: Vec<Address>,
    /// The listeners, by the kind of their streams.
    listeners: Vec<(Kind, Address)>,
    named: HashMap<Key, (usize, Side)>,
    /// Accepted streams whose hello is not complete.
    unnamed: HashMap<Key, Vec<u8>>,
    /// Connects that never open, with their link and the name under which the end is recorded.
    short: HashMap<Key, (usize, &'static str)>,
    /// How many more of the accepted streams may end without a hello.
    strangers_left: usize,
}

/// A message to itself: the next action of a link.
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

/// A message that the service only records.
struct Word {
    link: usize,
    number: u64,
}

type Cx<'a> = Context<'a, Player>;

impl Player {
    pub(super) fn new(script: &Script, engine: &str, nowhere: Vec<Address>) -> Player {
        Player {
            trace: Trace::new(engine, script.seed),
            links: script.links.iter().cloned().map(Link::new).collect(),
            nowhere,
            listeners: Vec::new(),
            named: HashMap::new(),
            unnamed: HashMap::new(),
            short: HashMap::new(),
            strangers_left: 0,
        }
    }

    fn note(&mut self, link: usize, side: Side, entry: Entry) {
        self.trace.note(&format!("link {link}, {side:?}"), entry);
    }

    fn wrong(&mut self, link: usize, side: Side, how: impl Into<String>) {
        self.note(link, side, Entry::Wrong(how.into()));
    }

    /// Begins the next step if this one is over. Stops the runtime after the very last step.
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
                self.pause(cx, number, on);
                self.send(cx, number, on.other(), bytes, 1);
            }
            Step::Release { on, traffic } => {
                self.cross(cx, number, on, traffic);
                let mut refused = None;
                self.on(number, on, |id| refused = cx.release(id).err());
                if let Some(error) = refused {
                    self.wrong(number, on, format!("could not be released: {error}"));
                }
                // The end opens again once it is added again.
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
            Step::Refused => self.connect_to_nobody(cx, number),
            Step::Fleeting { is_aborted } => {
                self.strangers_left += 1;
                let address = self.listener(self.links[number].plan.kind);
                self.connect_shortly(cx, number, "fleeting", address, |cx, id| match is_aborted {
                    true => cx.abort(id),
                    false => cx.close(id),
                });
            }
        }
    }

    fn listener(&self, kind: Kind) -> Address {
        let listener = self.listeners.iter().find(|(of, _)| *of == kind);
        listener.expect("it listens for every kind").1.clone()
    }

    fn connect_to_nobody(&mut self, cx: &mut Cx<'_>, number: usize) {
        // An engine with its own network ignores the ports that are taken in the system's.
        let is_ours = |address: &&Address| self.listeners.iter().any(|(_, listener)| listener == *address);
        let nowhere = self.nowhere.iter().find(|address| !is_ours(address));
        let nowhere = nowhere.expect("there are more of them than listeners").clone();
        self.connect_shortly(cx, number, "refused", nowhere, |_, _| ());
    }

    fn connect_shortly(
        &mut self,
        cx: &mut Cx<'_>,
        number: usize,
        name: &'static str,
        to: Address,
        then: impl FnOnce(&mut Cx<'_>, Id<Stream>),
    ) {
        match cx.connect(to, Stream::new(Bytes)) {
            Ok(id) => {
                then(cx, id);
                self.short.insert(id.key(), (number, name));
                self.links[number].pending += 1;
            }
            // A system may refuse at once.
            Err(error) => {
                let how = error.io().map_or_else(|| error.to_string(), failed);
                self.trace.note(&format!("link {number}, {name}"), Entry::Closed(how, None));
            }
        }
    }

    fn last(&mut self, cx: &mut Cx<'_>, number: usize, last: Last) {
        match last {
            Last::Close { by, traffic, paused } => {
                self.pause_if(cx, number, by.other(), paused);
                self.cross(cx, number, by, traffic);
                self.links[number].end(by).is_cut = true;
                self.on(number, by, |id| cx.close(id));
            }
            Last::Finish { by, traffic, paused } => {
                self.pause_if(cx, number, by.other(), paused);
                self.send(cx, number, by, traffic.own, 1);
                self.on(number, by, |id| cx.finish(id));
            }
            Last::Abort { by, traffic, paused } => {
                self.pause_if(cx, number, by.other(), paused);
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

    /// Pauses an end, and schedules its resume.
    fn pause(&mut self, cx: &mut Cx<'_>, number: usize, side: Side) {
        self.on(number, side, |id| cx.pause(id));
        self.links[number].end(side).is_paused = true;
        match self.links[number].plan.pace {
            Pace::Told => self.order(cx, Order::Resume(number, side)),
            _ => _ = cx.after(MOMENT, Order::Resume(number, side)),
        }
    }

    fn pause_if(&mut self, cx: &mut Cx<'_>, number: usize, side: Side, paused: bool) {
        if paused {
            self.pause(cx, number, side);
        }
    }

    /// Runs an action on the end, which must be alive.
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
                Flow::Gone | Flow::Full => self.wrong(number, from, "a send found it gone"),
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
}

/// The number of bytes that identify the connection.
const HELLO: usize = 4;
/// A short time, which does pass.
const MOMENT: Duration = Duration::from_millis(1);
/// A deadline that is removed before it passes.
const NEVER_REACHED: Duration = Duration::from_secs(600);
/// Longer than a slow machine needs to close a connection whose peer is still there.
const GRACE: Duration = Duration::from_secs(120);
