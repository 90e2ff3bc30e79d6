//! The strict service: it checks every promise of a runtime, and begins talks (see `talk`).

use std::{
    cell::{RefCell, RefMut},
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use reactor::{
    Address, Bytes, Closed, Context, Event, Fault, Flow, Handle, Id, IdMap, Receive, Result, Service, Stream,
    Time, TimerId,
};

use crate::scenario::{
    ledger::Ledger,
    notes::Notes,
    probe::{Alarms, Tap},
    talk::options,
};

/// The port that each node listens on.
pub(crate) const PORT: u16 = 7000;

/// A stream in the records of its service.
#[derive(Clone, Copy)]
pub(super) struct Life {
    pub(super) client: SocketAddr,
    pub(super) is_client: bool,
    pub(super) is_open: bool,
    pub(super) is_ended: bool,
    pub(super) is_closing: bool,
    pub(super) is_paused: bool,
    pub(super) is_hung_up: bool,
    pub(super) is_high: bool,
    /// Set if it was given back and added again, so that it opens once more.
    pub(super) is_moved: bool,
    pub(super) is_leaving: bool,
    pub(super) deadline: Option<Time>,
}

/// The timer for the next action.
pub(crate) struct Tick;
/// The timer that resumes a paused stream.
pub(crate) struct Resume(pub(super) Id<Stream>);
/// The timer that aborts a stream.
pub(crate) struct Abort(pub(super) Id<Stream>);
/// A timer that is cancelled, so it must never fire.
pub(crate) struct Never;

/// The service of each node.
pub(crate) struct Peer {
    pub(crate) ledger: Rc<RefCell<Ledger>>,
    pub(crate) me: usize,
    pub(crate) feed: u64,
    pub(crate) alarms: Alarms,
    pub(crate) notes: Notes,
    pub(super) lives: IdMap<Stream, Life>,
    stale: VecDeque<Id<Stream>>,
    spare: Option<TimerId>,
}

impl Peer {
    pub(crate) fn new(ledger: Rc<RefCell<Ledger>>, me: usize, feed: u64) -> Peer {
        let (lives, stale) = (IdMap::new(), VecDeque::new());
        let (alarms, notes) = (Alarms::default(), Notes::default());
        Peer { ledger, me, feed, alarms, notes, lives, stale, spare: None }
    }

    pub(crate) fn ledger(&self) -> RefMut<'_, Ledger> {
        self.ledger.borrow_mut()
    }

    /// Checks that an event of a stream is allowed now.
    pub(super) fn must(&self, id: Id<Stream>, holds: bool, what: &str) {
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
    pub(super) fn deadline(&mut self, cx: &mut Context<Self>, id: Id<Stream>, after: Duration) {
        cx.deadline(id, after);
        if let Some(life) = self.lives.get_mut(id) {
            life.deadline = Some(cx.now() + after);
        }
    }

    /// Checks an id of a former life: every call reports that it is gone, and does nothing.
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
        self.open_notes(cx)?;
        let first = Duration::from_micros(cx.random() % 50_000);
        self.timer(cx.after(first, Tick));
        Ok(())
    }

    fn fault(&mut self, _: &mut Context<Self>, fault: Fault) {
        let mut ledger = self.ledger();
        match fault {
            Fault::Accept(_) => ledger.sometimes("an accept failed"),
            Fault::Register { .. } => {
                // The stream was accepted, and closed at once.
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
        let life = self.lives.get(id).copied();
        let Some(life) = life.or_else(|| self.accepted(cx, id)) else { return Ok(()) };
        match event {
            Event::Open => self.open(cx, id, life),
            Event::Received(bytes) => self.received(cx, id, life, bytes),
            Event::End => self.end(cx, id, life),
            Event::Drained => {
                self.must(id, life.is_high && !life.is_closing, "it drained and was not full");
                if let Some(life) = self.lives.get_mut(id) {
                    life.is_high = false;
                }
                self.ledger().sometimes("a queue drained");
            }
            Event::HungUp => {
                let is_due = life.is_paused && !life.is_hung_up && !life.is_ended && !life.is_closing;
                self.must(id, is_due, "a hang-up twice, or of a stream that is not paused");
                if let Some(life) = self.lives.get_mut(id) {
                    life.is_hung_up = true;
                }
                self.ledger().sometimes("a hang-up was told");
            }
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, id: Id<Stream>, stream: Stream, why: Closed) {
        let Some(life) = self.lives.remove(id) else {
            return self.must(id, false, "closed, and it was not there: closed twice, or of nobody");
        };
        self.must(
            id,
            cx.get(id).is_none() && cx.send(id, b"".as_slice()) == Flow::Gone,
            "not gone in closed",
        );
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
        let is_released = matches!(why, Closed::Released);
        self.must(id, is_released <= life.is_leaving, "it was given back, and nobody had asked for it");
        if is_released && self.add_again(cx, stream, life) {
            return;
        }
        let mut ledger = self.ledger();
        // A stream that could not be added again was dropped with all its contents.
        let why = if is_released { Closed::Aborted } else { why };
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
        self.note(cx)?;
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
            // From here on, only input gives the node work.
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
        if let Some(life) = self.lives.get_mut(id) {
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
        // The tick that cancels it comes first, even when both are late, because it is due earlier.
        let mut ledger = self.ledger();
        ledger.books[self.me].timers -= 1;
        ledger.violate(|| "a timer was told that was cancelled".to_owned());
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The node crashed, so its queued output is lost, although its kernel may still close in an orderly
        // way.
        let mut ledger = self.ledger.borrow_mut();
        for (_, life) in self.lives.iter() {
            if let Some(talk) = ledger.talks.get_mut(&life.client) {
                talk.side(life.is_client).is_cut = true;
            }
        }
        if ledger.books[self.me].operations > 0 {
            ledger.sometimes("an operation on files was cut short");
        }
        let book = &mut ledger.books[self.me];
        (book.controller, book.resources, book.timers, book.operations) = (None, 0, 0, 0);
        (book.commands_got, book.commands_sent) = (0, 0);
        book.commands.clear();
        book.jobs.clear();
    }
}

const LIVES_MAX: usize = 12;
const STALE_MAX: usize = 64;
