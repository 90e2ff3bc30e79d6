//! The strict service: client and server of talks, which checks everything that a runtime promises.

use std::{
    cell::{RefCell, RefMut},
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use reactor::{
    Address, Bytes, Closed, Context, Event, Fault, Flow, Handle, Id, Receive, Result, Service, Stream,
    StreamOptions, Time, TimerId,
};

use crate::scenario::{
    ledger::{Ledger, MODES, Mode},
    probe::{Alarms, Tap},
};

/// The port that each node listens on, and one where nobody does.
pub(crate) const PORT: u16 = 7000;
const NOBODY: u16 = 9;

/// A stream as its service believes it to be.
#[derive(Clone, Copy)]
struct Life {
    client: SocketAddr,
    is_client: bool,
    is_open: bool,
    is_ended: bool,
    is_closing: bool,
    is_paused: bool,
    is_high: bool,
    deadline: Option<Time>,
}

/// What is next to be done.
pub(crate) struct Tick;
/// A stream that was paused goes on.
pub(crate) struct Resume(Id<Stream>);
/// A stream is aborted.
pub(crate) struct Abort(Id<Stream>);
/// A timer that is cancelled: it must never be told.
pub(crate) struct Never;

/// The service of each node.
pub struct Peer {
    pub(crate) ledger: Rc<RefCell<Ledger>>,
    pub(crate) me: usize,
    pub(crate) feed: u64,
    pub(crate) alarms: Alarms,
    lives: BTreeMap<Id<Stream>, Life>,
    stale: VecDeque<Id<Stream>>,
    spare: Option<TimerId>,
}

impl Peer {
    pub(crate) fn new(ledger: Rc<RefCell<Ledger>>, me: usize, feed: u64) -> Peer {
        let (lives, stale) = (BTreeMap::new(), VecDeque::new());
        Peer { ledger, me, feed, alarms: Alarms::default(), lives, stale, spare: None }
    }

    pub(crate) fn ledger(&self) -> RefMut<'_, Ledger> {
        self.ledger.borrow_mut()
    }

    /// Whether what happens to a stream may happen to it now.
    fn must(&self, id: Id<Stream>, holds: bool, what: &str) {
        let me = self.me;
        self.ledger().must(holds, || format!("node {me}: {id:?}: {what}"));
    }

    pub(crate) fn timer(&self, timer: TimerId) -> TimerId {
        self.ledger().books[self.me].timers += 1;
        timer
    }

    fn cancel_spare(&mut self, cx: &mut Context<Self>) {
        if self.spare.take().is_some_and(|spare| cx.cancel(spare)) {
            self.ledger().books[self.me].timers -= 1;
        }
    }

    /// Sets a deadline, and remembers it.
    fn deadline(&mut self, cx: &mut Context<Self>, id: Id<Stream>, after: Duration) {
        cx.deadline(id, after);
        if let Some(life) = self.lives.get_mut(&id) {
            life.deadline = Some(cx.now() + after);
        }
    }

    // Beginning.

    fn begin_talk(&mut self, cx: &mut Context<Self>) {
        let (draw, size) = (cx.random(), cx.random());
        let (to, is_strict) = {
            let ledger = self.ledger.borrow();
            (ledger.addresses[draw as usize % ledger.addresses.len()], ledger.is_strict())
        };
        let mode = MODES[(draw >> 8) as usize % MODES.len()];
        // Most are small; some are more than a window and the high marks.
        let size = if size % 8 == 0 { 1 + (size >> 8) % 200_000 } else { (size >> 8) % 3_000 };
        let target = match mode {
            Mode::Refused => SocketAddr::new(to.ip(), NOBODY),
            _ => to,
        };
        let options = StreamOptions {
            cap: if mode == Mode::Overflow { CAP } else { StreamOptions::DEFAULT.cap },
            backpressure: false,
            ..options()
        };
        let stream = Stream::new(Bytes).options(Arc::new(options));
        let id = match cx.connect(target, stream) {
            Ok(id) => id,
            Err(error) => return self.ledger().violate(|| format!("connect {target}: {error}")),
        };
        let client = cx.local(id).ok().and_then(|address| address.ip());
        let Some(client) = client else { return self.must(id, false, "it has no address of its own") };
        {
            let mut ledger = self.ledger();
            ledger.begin_talk(client, mode, target, size);
            ledger.books[self.me].resources += 1;
            ledger.books[self.me].strict_open += u32::from(is_strict);
        }
        self.add_life(id, client, true);
        let after = match (mode, is_strict) {
            (Mode::Mute, _) => Duration::from_millis(100 + size % 1_000),
            (_, true) => Duration::from_secs(20),
            (_, false) => Duration::from_millis(2_000 + size % 3_000),
        };
        self.deadline(cx, id, after);
    }

    fn add_life(&mut self, id: Id<Stream>, client: SocketAddr, is_client: bool) {
        let life = Life {
            client,
            is_client,
            is_open: false,
            is_ended: false,
            is_closing: false,
            is_paused: false,
            is_high: false,
            deadline: None,
        };
        let before = self.lives.insert(id, life);
        self.must(id, before.is_none(), "two living resources have one id");
    }

    /// A stream that was accepted: its peer is the one that the accept told, and has connected to here.
    fn accepted(&mut self, cx: &mut Context<Self>, id: Id<Stream>) -> Option<Life> {
        let told = self.ledger().accepting.take();
        let (peer, local) = (address(cx.peer(id)), address(cx.local(id)));
        self.must(id, told.is_some(), "an event of a stream that nobody made");
        self.must(id, peer == told, "the accept was told another peer than the stream has");
        let client = told.or(peer)?;
        {
            let mut ledger = self.ledger();
            ledger.books[self.me].resources += 1;
            let Some(talk) = ledger.talks.get(&client) else {
                ledger.violate(|| format!("accepted {client}, which never connected: the wrong peer"));
                return None;
            };
            let (target, is_open) = (talk.target, talk.server.is_open);
            ledger.must(local == Some(target) && !is_open, || {
                format!("accepted {client} at {local:?}, which connected to {target}")
            });
        }
        self.add_life(id, client, false);
        self.deadline(cx, id, Duration::from_secs(10));
        self.lives.get(&id).copied()
    }

    // What comes.

    fn open(&mut self, cx: &mut Context<Self>, id: Id<Stream>, life: Life) {
        self.must(id, !life.is_open && !life.is_closing, "it opened twice");
        if let Some(life) = self.lives.get_mut(&id) {
            life.is_open = true;
        }
        let (mode, size, target) = {
            let mut ledger = self.ledger();
            let Some(talk) = ledger.talks.get_mut(&life.client) else { return };
            talk.side(life.is_client).is_open = true;
            (talk.mode, talk.size, talk.target)
        };
        if life.is_client {
            self.must(id, address(cx.peer(id)) == Some(target), "it has another peer than it connected to");
        }
        match (mode, life.is_client) {
            (Mode::Echo, true) => {
                self.send(cx, id, size);
                if size % 2 == 0 || size == 0 {
                    self.finish(cx, id);
                }
            }
            (Mode::Push, true) | (Mode::Pull, false) => {
                self.send(cx, id, size);
                self.close(cx, id);
            }
            (Mode::Abort, true) => {
                self.send(cx, id, size);
                let after = Duration::from_micros(1 + size % 3_000);
                self.timer(cx.after(after, Abort(id)));
            }
            (Mode::Overflow, true) => self.overflow(cx, id),
            (Mode::Refused, _) => self.must(id, false, "it opened where nobody listens"),
            _ => (),
        }
    }

    /// Sends more of a stream; whether all was taken.
    fn send(&mut self, cx: &mut Context<Self>, id: Id<Stream>, mut count: u64) {
        let Some(life) = self.lives.get(&id).copied() else { return };
        let mut piece = [0; 4096];
        while count > 0 {
            let len = count.min(piece.len() as u64);
            let bytes = &mut piece[..len as usize];
            let from = self.sent(life);
            self.ledger().bytes(life.client, life.is_client, from, bytes);
            match cx.send(id, &bytes[..]) {
                Flow::Gone => return self.ledger().sometimes("a send to a stream that is gone"),
                flow => self.note_sent(id, life, len, flow),
            }
            count -= len;
        }
    }

    fn sent(&self, life: Life) -> u64 {
        let ledger = self.ledger.borrow();
        let talk = ledger.talks.get(&life.client);
        talk.map_or(0, |talk| if life.is_client { talk.client.sent } else { talk.server.sent })
    }

    fn note_sent(&mut self, id: Id<Stream>, life: Life, len: u64, flow: Flow) {
        if let Some(life) = self.lives.get_mut(&id) {
            life.is_high |= flow == Flow::High;
        }
        let mut ledger = self.ledger();
        if flow == Flow::High {
            ledger.sometimes("a queue above its high mark");
        }
        if let Some(talk) = ledger.talks.get_mut(&life.client) {
            talk.side(life.is_client).sent += len;
        }
    }

    /// Sends until the cap: each answer is the one that the marks ask for.
    fn overflow(&mut self, cx: &mut Context<Self>, id: Id<Stream>) {
        let Some(life) = self.lives.get(&id).copied() else { return };
        let options = options();
        let piece = [0; 5_000];
        for count in 1.. {
            let queued = count * piece.len();
            let mut bytes = piece;
            let from = self.sent(life);
            self.ledger().bytes(life.client, true, from, &mut bytes);
            let due = match queued {
                queued if queued > CAP => Flow::Gone,
                queued if queued > options.high => Flow::High,
                _ => Flow::Queued,
            };
            let flow = cx.send(id, &bytes[..]);
            self.must(id, flow == due, &format!("{flow:?} with {queued} bytes queued, not {due:?}: the cap"));
            if flow == Flow::Gone || queued > 4 * CAP {
                return self.ledger().sometimes("a queue above its cap");
            }
            self.note_sent(id, life, piece.len() as u64, flow);
        }
    }

    fn finish(&mut self, cx: &mut Context<Self>, id: Id<Stream>) {
        self.mark_finished(id);
        cx.finish(id);
    }

    fn close(&mut self, cx: &mut Context<Self>, id: Id<Stream>) {
        self.mark_finished(id);
        if let Some(life) = self.lives.get_mut(&id) {
            (life.is_closing, life.deadline) = (true, None);
        }
        cx.close(id);
    }

    fn mark_finished(&mut self, id: Id<Stream>) {
        let Some(life) = self.lives.get(&id).copied() else { return };
        if let Some(talk) = self.ledger().talks.get_mut(&life.client) {
            talk.side(life.is_client).has_finished = true;
        }
    }

    fn received(&mut self, cx: &mut Context<Self>, id: Id<Stream>, life: Life, bytes: &[u8]) {
        self.must(id, life.is_open && !life.is_ended, "input before it opened, or after its end");
        self.must(id, !life.is_closing && !life.is_paused, "input while it is closing or paused");
        self.ledger().received(life.client, life.is_client, bytes);
        let Some((mode, size, got)) = ({
            let mut ledger = self.ledger();
            ledger.talks.get_mut(&life.client).map(|talk| (talk.mode, talk.size, talk.side(life.is_client).got))
        }) else {
            return;
        };
        match (mode, life.is_client) {
            (Mode::Echo, false) => self.send(cx, id, bytes.len() as u64),
            (Mode::Echo, true) if got == size && size % 2 == 1 => self.finish(cx, id),
            _ => (),
        }
        if cx.random() % 8 == 0 {
            cx.pause(id);
            let after = Duration::from_micros(cx.random() % 20_000);
            self.timer(cx.after(after, Resume(id)));
            if let Some(life) = self.lives.get_mut(&id) {
                life.is_paused = true;
            }
        }
        if !life.is_client {
            self.deadline(cx, id, Duration::from_secs(10));
        }
    }

    fn end(&mut self, cx: &mut Context<Self>, id: Id<Stream>, life: Life) {
        self.must(id, life.is_open && !life.is_ended, "its end before it opened, or twice");
        self.must(id, !life.is_closing && !life.is_paused, "its end while it is closing or paused");
        if let Some(life) = self.lives.get_mut(&id) {
            life.is_ended = true;
        }
        self.ledger().ended(life.client, life.is_client);
        if !life.is_client {
            self.close(cx, id);
        }
    }

    /// Ids of former lives: everything answers that they are gone, and does nothing.
    fn look_at_stale(&mut self, cx: &mut Context<Self>) {
        let Some(id) = self.stale.get(cx.random() as usize % STALE_MAX).copied() else { return };
        let is_gone = cx.get(id).is_none()
            && cx.get_mut(id).is_none()
            && cx.send(id, b"nobody".as_slice()) == Flow::Gone
            && cx.peer(id).is_err()
            && cx.local(id).is_err();
        cx.close(id);
        cx.deadline(id, Duration::ZERO);
        self.must(id, is_gone, "the id of a former life finds something: a stale id");
    }
}

impl Service for Peer {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let ledger = self.ledger.clone();
        cx.listen((IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT), move |peer: &Address| {
            ledger.borrow_mut().accepting = peer.ip();
            Some(Stream::new(Bytes).half_open(true).options(options()))
        })?;
        cx.add(Tap(self.feed))?;
        {
            let mut ledger = self.ledger();
            let book = &mut ledger.books[self.me];
            (book.resources, book.controller) = (2, Some(cx.controller()));
        }
        let first = Duration::from_micros(cx.random() % 50_000);
        self.timer(cx.after(first, Tick));
        Ok(())
    }

    fn fault(&mut self, _: &mut Context<Self>, fault: Fault) {
        let mut ledger = self.ledger();
        match fault {
            Fault::Accept(_) => ledger.sometimes("an accept failed"),
            Fault::Register(_) => {
                // It was accepted, and closed at once.
                ledger.accepting = None;
                ledger.sometimes("a stream could not be registered");
            }
            other => ledger.violate(|| format!("a fault: {other}")),
        }
    }
}

impl Handle<Stream> for Peer {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        self.must(id, !self.stale.contains(&id), "an event after closed");
        let life = self.lives.get(&id).copied();
        let Some(life) = life.or_else(|| self.accepted(cx, id)) else { return Ok(()) };
        match event {
            Event::Open => self.open(cx, id, life),
            Event::Received(bytes) => self.received(cx, id, life, bytes),
            Event::End => self.end(cx, id, life),
            Event::Drained => {
                self.must(id, life.is_high && !life.is_closing, "it drained and was not full");
                if let Some(life) = self.lives.get_mut(&id) {
                    life.is_high = false;
                }
                self.ledger().sometimes("a queue drained");
            }
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, id: Id<Stream>, _: Stream, why: Closed) {
        let Some(life) = self.lives.remove(&id) else {
            return self.must(id, false, "closed, and it was not there: closed twice, or of nobody");
        };
        self.must(id, cx.get(id).is_none() && cx.send(id, b"".as_slice()) == Flow::Gone, "not gone in closed");
        match &why {
            Closed::Deadline => {
                let is_due = life.deadline.is_some_and(|at| at <= cx.now());
                self.must(id, is_due, "its deadline came early");
                self.ledger().sometimes("a deadline passed");
            }
            Closed::Misuse(_) | Closed::Stopped | Closed::Truncated(_) | Closed::Refused(_) => {
                self.must(id, false, &format!("closed as '{why}'"));
            }
            Closed::Stalled => self.ledger().sometimes("a stream stalled"),
            Closed::TimedOut(_) => self.ledger().sometimes("a phase of a stream timed out"),
            _ => (),
        }
        self.stale.push_back(id);
        if self.stale.len() > STALE_MAX {
            self.stale.pop_front();
        }
        let mut ledger = self.ledger();
        ledger.closed(life.client, life.is_client, &why);
        let is_strict = life.is_client && ledger.talks.get(&life.client).is_some_and(|talk| talk.is_strict);
        let book = &mut ledger.books[self.me];
        book.resources = book.resources.wrapping_sub(1);
        book.strict_open -= u32::from(is_strict);
    }
}

impl Receive<Tick> for Peer {
    fn receive(&mut self, cx: &mut Context<Self>, _: Tick) -> Result {
        let (is_strict, left) = {
            let mut ledger = self.ledger();
            let is_strict = ledger.is_strict();
            let book = &mut ledger.books[self.me];
            book.timers -= 1;
            (is_strict, book.strict_left)
        };
        self.look_at_stale(cx);
        self.probe(cx);
        self.cancel_spare(cx);
        self.spare = Some(self.timer(cx.after(Duration::from_millis(300), Never)));
        let begins = if is_strict { left > 0 } else { self.lives.len() < LIVES_MAX };
        if begins {
            self.begin_talk(cx);
        }
        if is_strict && left > 0 {
            self.ledger().books[self.me].strict_left -= 1;
        }
        if is_strict && left == 0 {
            // From here on the node has nothing to do but what it is told.
            self.cancel_spare(cx);
            return Ok(());
        }
        let again = Duration::from_micros(1_000 + cx.random() % 150_000);
        self.timer(cx.after(again, Tick));
        Ok(())
    }
}

impl Receive<Resume> for Peer {
    fn receive(&mut self, cx: &mut Context<Self>, Resume(id): Resume) -> Result {
        self.ledger().books[self.me].timers -= 1;
        cx.resume(id);
        if let Some(life) = self.lives.get_mut(&id) {
            life.is_paused = false;
        }
        Ok(())
    }
}

impl Receive<Abort> for Peer {
    fn receive(&mut self, cx: &mut Context<Self>, Abort(id): Abort) -> Result {
        self.ledger().books[self.me].timers -= 1;
        cx.abort(id);
        Ok(())
    }
}

impl Receive<Never> for Peer {
    fn receive(&mut self, _: &mut Context<Self>, _: Never) -> Result {
        // The tick that cancels it comes first, also when both are late: it is due earlier.
        let mut ledger = self.ledger();
        ledger.books[self.me].timers -= 1;
        ledger.violate(|| "a timer was told that was cancelled".to_owned());
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Its node crashed: what it had queued is lost, whatever its kernel says to the peers.
        let mut ledger = self.ledger.borrow_mut();
        for life in self.lives.values() {
            if let Some(talk) = ledger.talks.get_mut(&life.client) {
                talk.side(life.is_client).is_cut = true;
            }
        }
        let book = &mut ledger.books[self.me];
        (book.controller, book.resources, book.timers, book.jobs) = (None, 0, 0, 0);
        (book.commands_got, book.commands_sent) = (0, 0);
        book.commands.clear();
    }
}

fn address(address: std::io::Result<Address>) -> Option<SocketAddr> {
    address.ok().and_then(|address| address.ip())
}

/// Low marks, so that they are passed; short waits, so that the world comes to rest.
fn options() -> StreamOptions {
    StreamOptions {
        high: 16 << 10,
        low: 4 << 10,
        connect: Duration::from_secs(5),
        write_stall: Duration::from_secs(4),
        ..StreamOptions::DEFAULT
    }
}

const CAP: usize = 48 << 10;
const LIVES_MAX: usize = 12;
const STALE_MAX: usize = 64;
