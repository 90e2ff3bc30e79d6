//! Timers, commands, offloaded work and a watched source, each checked against its promise.

use std::{collections::VecDeque, io, time::Duration};

use reactor::{Context, Handle, Id, Interest, Io, Pollable, Ready, Receive, Result, Source, Time};

use crate::scenario::peer::Peer;

/// A timer that knows when it is due.
#[derive(Debug)]
pub(crate) struct Alarm {
    set: Time,
    due: Time,
    number: u64,
}

/// The pending alarms, in the order in which they must fire.
#[derive(Default)]
pub(crate) struct Alarms {
    set: u64,
    pending: VecDeque<(Time, u64)>,
}

/// Offloaded work, with its number.
pub(crate) struct Job(u64);

/// Commands of two types, which share one order.
pub(crate) struct Left(pub(crate) u64);
/// The other command.
pub(crate) struct Right(pub(crate) u64);

/// A user's resource over a virtual source.
pub(crate) struct Tap(pub(crate) u64);

impl Pollable for Tap {
    type Event<'a> = &'a [u8];

    fn source(&self) -> Source<'_> {
        Source::hosted(self.0)
    }

    fn interest(&self) -> Option<Interest> {
        Some(Interest::Read)
    }

    fn step<'a>(&mut self, _: Ready, io: &mut Io<'_>, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        let count = io.read(Source::hosted(self.0), buffer)?;
        Ok(Some(&buffer[..count]))
    }
}

impl Peer {
    /// Sets a few alarms, some of them for one moment, offloads a job, and reads the wall clock.
    pub(crate) fn probe(&mut self, cx: &mut Context<Self>) {
        let wall = cx.wall();
        self.ledger().must(wall > std::time::UNIX_EPOCH, || "the wall clock says nothing".to_owned());
        let draw = cx.random();
        let after = Duration::from_micros(if draw.is_multiple_of(5) { 0 } else { (draw >> 3) % 30_000 });
        for after in [after, Duration::from_micros((draw >> 32) % 5_000), after] {
            let due = cx.now() + after;
            let number = self.alarms.set;
            self.alarms.set += 1;
            self.timer(cx.after(after, Alarm { set: cx.now(), due, number }));
            let pending = &mut self.alarms.pending;
            let at = pending.partition_point(|(other, _)| *other <= due);
            pending.insert(at, (due, number));
        }
        if draw.is_multiple_of(4) && cx.offload(move || Job(draw)).is_ok() {
            self.ledger().books[self.me].jobs.insert(draw);
        }
    }
}

impl Receive<Alarm> for Peer {
    fn receive(&mut self, cx: &mut Context<Self>, alarm: Alarm) -> Result {
        let next = self.alarms.pending.pop_front();
        let (me, now) = (self.me, cx.now());
        let mut ledger = self.ledger();
        ledger.books[me].timers -= 1;
        ledger.must(now >= alarm.due, || {
            format!("node {me}: a timer due at {:?} came at {now:?}: early", alarm.due)
        });
        ledger.must(now > alarm.set, || {
            format!("node {me}: a timer came in the turn it was set in: {alarm:?} at {now:?}")
        });
        ledger.must(next == Some((alarm.due, alarm.number)), || {
            format!("node {me}: timer {} due at {:?} came instead of {next:?}", alarm.number, alarm.due)
        });
        let late = ledger.late(alarm.due, now);
        ledger.must(late <= LATE_MAX, || format!("node {me}: a timer came {late:?} late"));
        Ok(())
    }
}

impl Receive<Job> for Peer {
    fn receive(&mut self, _: &mut Context<Self>, Job(number): Job) -> Result {
        let me = self.me;
        let mut ledger = self.ledger();
        let is_due = ledger.books[me].jobs.remove(&number);
        ledger
            .must(is_due, || format!("node {me}: a result of work that nobody asked for, or the second one"));
        Ok(())
    }
}

impl Receive<Left> for Peer {
    fn receive(&mut self, cx: &mut Context<Self>, Left(number): Left) -> Result {
        self.ledger().command(self.me, number, cx.now());
        Ok(())
    }
}

impl Receive<Right> for Peer {
    fn receive(&mut self, cx: &mut Context<Self>, Right(number): Right) -> Result {
        self.ledger().command(self.me, number, cx.now());
        Ok(())
    }
}

impl Handle<Tap> for Peer {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Tap>, bytes: &[u8]) -> Result {
        let me = self.me;
        let mut ledger = self.ledger();
        let book = &mut ledger.books[me];
        let from = book.tapped;
        book.tapped += bytes.len() as u64;
        let (tapped, fed) = (book.tapped, book.fed);
        let is_right = (from..).zip(bytes).all(|(at, byte)| *byte == at as u8);
        ledger.must(is_right && tapped <= fed && !bytes.is_empty(), || {
            format!("node {me}: other bytes than were fed, at {from}")
        });
        Ok(())
    }
}

/// The most delay of a timer after the faults. Only a job may have slowed a turn.
const LATE_MAX: Duration = Duration::from_millis(1);
