//! The player's handlers: they record the events, and continue the connections.

use reactor::{
    Bytes, Closed, ConnectOptions, Event, Fault, Flow, Handle, Id, ListenOptions, Receive, Result, Service,
    SocketOptions, Stream, StreamOptions,
};

use super::{Cx, GRACE, HELLO, Order, Player, Tick, Word};
use crate::differential::{
    content::Content,
    link::State,
    script::{Kind, Last, Side},
    trace::Entry,
};

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
            let mut options = ConnectOptions::default();
            narrow(&mut options.socket, kind);
            let id = cx.connect_with(self.listener(kind), &options, stream(kind))?;
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
        if let (Some((number, name)), Event::Open) = (self.short.get(&id.key()), &event) {
            self.trace.note(&format!("link {number}, {name}"), Entry::Open);
            return Ok(());
        }
        match self.named.get(&id.key()) {
            Some(whose) => self.tell(cx, id, *whose, event),
            None => self.hello(cx, id, event),
        }
    }

    fn closed(&mut self, cx: &mut Cx<'_>, id: Id<Stream>, stream: Stream, why: Closed) {
        if let Some((number, of)) = self.short.remove(&id.key()) {
            let reason = why.io().map_or_else(|| name(&why), failed);
            self.trace.note(&format!("link {number}, {of}"), Entry::Closed(reason, None));
            self.links[number].pending -= 1;
            return self.progress(cx, number);
        }
        let Some(whose @ (number, side)) = self.named.remove(&id.key()) else {
            return self.stranger_left(id, &why);
        };
        if !matches!(why, Closed::Released) {
            return self.ended(cx, id, whose, &why);
        }
        self.note(number, side, Entry::Closed("Released".to_owned(), None));
        match cx.add(stream) {
            Ok(id) => {
                self.named.insert(id.key(), whose);
                let end = self.links[number].end(side);
                (end.id, end.state) = (Some(id), State::Open);
                self.progress(cx, number);
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
                let end = self.links[number].end(side);
                end.is_paused = false;
                // An end that closed in the meantime needs no resume.
                if let Some(id) = end.id {
                    cx.resume(id);
                }
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

impl Player {
    /// Handles the hello of an accepted stream, which names its connection. From then on the stream is that
    /// connection's far end.
    fn hello(&mut self, cx: &mut Cx<'_>, id: Id<Stream>, event: Event<'_, Bytes>) -> Result {
        let what = match event {
            Event::Open => {
                self.unnamed.insert(id.key(), Vec::new());
                return Ok(());
            }
            Event::Received(bytes) if self.unnamed.contains_key(&id.key()) => bytes,
            Event::End if self.unnamed.contains_key(&id.key()) => {
                cx.close(id);
                return Ok(());
            }
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

    /// Handles the end of an accepted stream that sent no hello. Only connects that were closed at once never
    /// send it.
    fn stranger_left(&mut self, id: Id<Stream>, why: &Closed) {
        let said = self.unnamed.remove(&id.key());
        match self.strangers_left.checked_sub(1) {
            Some(left) if said.is_some_and(|said| said.is_empty()) => self.strangers_left = left,
            _ => self.trace.note("strangers", Entry::Wrong(format!("closed before its hello: {why}"))),
        }
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
                if let Last::Finish { by, traffic, .. } = self.links[number].plan.last
                    && by != side
                {
                    self.send(cx, number, side, traffic.others, 1);
                }
                if self.links[number].plan.kind.half_open {
                    cx.close(id);
                }
            }
            Event::Drained => {
                if !std::mem::take(&mut self.links[number].end(side).is_high) {
                    self.wrong(number, side, "Drained without having been high");
                }
            }
            // Not every engine can report it.
            Event::HungUp => {}
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

fn stream(kind: Kind) -> Stream {
    let options = StreamOptions::with(|options| {
        options.backpressure = kind.backpressure;
        options.close = GRACE;
    });
    Stream::new(Bytes).half_open(kind.half_open).options(options)
}

fn narrow(options: &mut SocketOptions, kind: Kind) {
    options.send_buffer = kind.narrow.then_some(1);
}

/// Returns the name of a reason.
fn name(why: &Closed) -> String {
    let text = format!("{why:?}");
    text.split(['(', ' ']).next().unwrap_or_default().to_owned()
}

/// Returns the name of a system's error. All errors of a reset have one name.
pub(super) fn failed(error: &std::io::Error) -> String {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    match error.kind() {
        BrokenPipe | ConnectionAborted | ConnectionReset => "Failed(reset)".to_owned(),
        kind => format!("Failed({kind:?})"),
    }
}
