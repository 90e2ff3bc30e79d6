//! Drives an engine by hand, notes what it tells, and checks what holds for every event.
//!
//! Whatever the row is about, a drive fails it when an event comes for a key that is closed or was never
//! attached, when input follows an end, when an end or a connect is told twice, when a send comes back
//! that was not out, or its queue is not what was handed over less what was taken.

use std::{collections::BTreeMap, time::Duration};

use reactor::Address;
use reactor::{
    Ecn, Interest, Key, Outbound, Outgoing, Ready, Source,
    engine::{DatagramQueue, Ending, Engine, Event, Role, Sent, Transport},
};

use crate::suite::{Outcome, Stop, check};

/// An engine in a row's hand.
pub struct Drive {
    /// The engine itself; what is called here past the drive's own methods is not noted.
    pub engine: Box<dyn Engine>,
    told: BTreeMap<Key, Told>,
    slots: u32,
    violation: Option<String>,
    turns: u64,
}

/// What was told of one key so far.
#[derive(Debug, Default)]
pub struct Told {
    /// The input, with all chunks joined.
    pub bytes: Vec<u8>,
    /// How many chunks it came in.
    pub chunks: usize,
    /// How often an end was told.
    pub ends: usize,
    /// The failures of the read side.
    pub broken: Vec<std::io::Error>,
    /// The ends behind input (`None`) and the failures that the engine reported while reading was off.
    pub hung_up: Vec<Option<std::io::Error>>,
    /// The results of the connect.
    pub connected: Vec<std::io::Result<()>>,
    /// How many bytes were taken by sends that did not fail.
    pub sent: usize,
    /// What was not taken of the last send, while none is out.
    pub unsent: Option<Box<Outgoing>>,
    /// The failure of a send.
    pub send_failed: Option<std::io::Error>,
    /// Accepted connections that the row has not taken.
    pub accepted: Vec<(Transport, Address)>,
    /// The failures of the listener.
    pub not_accepted: Vec<std::io::Error>,
    /// Readinesses, in order.
    pub ready: Vec<Ready>,
    /// What a detach gave back.
    pub detached: Option<Transport>,
    /// Datagrams, in order.
    pub datagrams: Vec<Letter>,
    /// The datagrams that were not delivered: to whom, and why.
    pub undelivered: Vec<(Option<Address>, std::io::Error)>,
    /// How often room was told.
    pub rooms: usize,
    out_bytes: Option<usize>,
    /// Datagrams were left in a queue, and room is still to be told.
    waits_for_room: bool,
    detaching: bool,
    closed: bool,
}

/// A datagram that arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Letter {
    /// Who sent it.
    pub from: Address,
    /// What else was told of it: the address it was sent to, and what routers said.
    pub to: Option<std::net::IpAddr>,
    /// See [`Datagram::ecn`](reactor::Datagram::ecn).
    pub ecn: Ecn,
    /// It was longer than the buffer.
    pub truncated: bool,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Drive {
    /// Takes an engine.
    pub fn new(engine: Box<dyn Engine>) -> Drive {
        Drive { engine, told: BTreeMap::new(), slots: 0, violation: None, turns: 0 }
    }

    /// A key that was never used.
    pub fn key(&mut self) -> Key {
        let key = Key::new(self.slots, 0, 9);
        self.slots += 1;
        self.told.insert(key, Told::default());
        key
    }

    /// Attaches a transport under a new key.
    ///
    /// # Errors
    /// Fails the row when the engine refuses.
    pub fn attach(&mut self, transport: Transport, role: Role) -> Result<Key, Stop> {
        let key = self.key();
        match self.engine.attach(key, transport, role) {
            Ok(()) => Ok(key),
            Err(refused) => Err(format!("attach was refused: {}", refused.error).into()),
        }
    }

    /// Watches a source under a new key.
    ///
    /// # Errors
    /// Fails the row when the engine refuses.
    pub fn watch(&mut self, source: Source<'_>, interest: Interest) -> Result<Key, Stop> {
        let key = self.key();
        self.engine.watch(key, source, Some(interest))?;
        Ok(key)
    }

    /// Ends watching.
    pub fn unwatch(&mut self, key: Key, source: Source<'_>) {
        self.engine.unwatch(key, source);
        self.note(key).closed = true;
    }

    /// Closes in an orderly way.
    pub fn close(&mut self, key: Key) {
        self.close_with(key, Ending::Orderly);
    }

    /// Closes.
    pub fn close_with(&mut self, key: Key, how: Ending) {
        self.engine.close(key, how);
        self.note(key).closed = true;
    }

    /// Detaches; the transport comes in [`Told::detached`].
    pub fn detach(&mut self, key: Key) {
        self.note(key).detaching = true;
        self.engine.detach(key);
    }

    /// Sends bytes. What is not taken comes back in [`Told::unsent`].
    pub fn send(&mut self, key: Key, bytes: &[u8]) {
        let mut queue = Box::new(Outgoing::new());
        queue.put(bytes);
        self.send_queue(key, queue);
    }

    /// Sends a queue.
    pub fn send_queue(&mut self, key: Key, queue: Box<Outgoing>) {
        self.note(key).out_bytes = Some(queue.len());
        if let Some(sent) = self.engine.send(key, queue) {
            self.note_sent(key, sent);
        }
    }

    /// Sends datagrams; what there is no room for stays in the queue, and room is told then.
    pub fn send_datagrams(&mut self, key: Key, queue: &mut DatagramQueue) -> usize {
        let taken = self.engine.send_datagrams(key, queue);
        self.note(key).waits_for_room |= !queue.is_empty();
        taken
    }

    /// Has room told to who found none past the engine.
    pub fn await_room(&mut self, key: Key) -> bool {
        self.note(key).waits_for_room = true;
        self.engine.await_room(key)
    }

    /// Sends one datagram, to the peer of a connected socket without an address.
    pub fn post(&mut self, key: Key, to: Option<&Address>, bytes: &[u8]) {
        let mut queue = DatagramQueue::default();
        queue.push(Outbound { to, ..Outbound::new(bytes) });
        self.send_datagrams(key, &mut queue);
    }

    /// Sends what came back, if something did and is not empty.
    pub fn send_rest(&mut self, key: Key) {
        if let Some(queue) = self.note(key).unsent.take_if(|queue| !queue.is_empty()) {
            self.send_queue(key, queue);
        }
    }

    /// What was told of a key.
    ///
    /// # Panics
    /// When the key is not of this drive.
    pub fn told(&self, key: Key) -> &Told {
        &self.told[&key]
    }

    /// What was told of a key, to take something out.
    pub fn note(&mut self, key: Key) -> &mut Told {
        self.told.entry(key).or_default()
    }

    /// How many waits were made.
    pub fn turns(&self) -> u64 {
        self.turns
    }

    /// One wait, and all its events. Returns how many there were.
    ///
    /// # Errors
    /// Fails the row when the wait fails, or an event breaks a rule.
    pub fn turn(&mut self, timeout: Duration) -> Result<usize, Stop> {
        self.turn_with(timeout, |_, _| ())
    }

    /// As [`Drive::turn`]; `react` is called after each event, before the next is pulled.
    ///
    /// # Errors
    /// As [`Drive::turn`].
    pub fn turn_with(
        &mut self,
        timeout: Duration,
        mut react: impl FnMut(&mut Drive, Key),
    ) -> Result<usize, Stop> {
        self.turns += 1;
        self.engine.wait(Some(timeout))?;
        let mut count = 0;
        while let Some((key, event)) = self.engine.next() {
            count += 1;
            check!(count <= EVENTS_MAX, "one turn has more than {EVENTS_MAX} events");
            self.note_event(key, event);
            react(self, key);
        }
        match self.violation.take() {
            Some(violation) => Err(violation.into()),
            None => Ok(count),
        }
    }

    /// Turns until `done`.
    ///
    /// # Errors
    /// Fails the row when it is not so in ten seconds of waiting, or 20,000 turns.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Drive) -> bool) -> Outcome {
        let mut idle = 0;
        for _ in 0..TURNS_MAX {
            if done(self) {
                return Ok(());
            }
            match self.turn(STEP)? {
                0 => idle += 1,
                _ => idle = 0,
            }
            check!(idle < IDLE_MAX, "nothing is told any more, but not yet: {what}");
        }
        Err(format!("after {TURNS_MAX} turns, not yet: {what}").into())
    }

    /// Turns without waiting until `count` of them in a row told nothing.
    ///
    /// # Errors
    /// As [`Drive::until`].
    pub fn settle(&mut self, count: usize) -> Outcome {
        let mut idle = 0;
        for _ in 0..TURNS_MAX {
            match self.turn(Duration::ZERO)? {
                0 => idle += 1,
                _ => idle = 0,
            }
            if idle >= count {
                return Ok(());
            }
        }
        Err("it does not settle".into())
    }

    /// Checks that waits of a total of 60 ms tell nothing, and take their time.
    ///
    /// # Errors
    /// Fails the row when it spins.
    pub fn rests(&mut self) -> Outcome {
        let end = self.engine.now() + REST;
        for _ in 0..REST_TURNS_MAX {
            let left = end - self.engine.now();
            if left.is_zero() {
                return Ok(());
            }
            let count = self.turn(left)?;
            check!(count == 0, "{count} events came where nothing happens");
        }
        Err(format!("it spins: {REST_TURNS_MAX} waits did not fill {REST:?}").into())
    }

    fn violate(&mut self, text: String) {
        self.violation.get_or_insert(text);
    }

    fn note_event(&mut self, key: Key, event: Event) {
        let Some(told) = self.told.get_mut(&key) else {
            return self.violate(format!("{key:?} was never attached, and told {event:?}"));
        };
        if told.closed || told.detached.is_some() {
            return self.violate(format!("{key:?} is closed, and told {event:?}"));
        }
        let is_over = told.ends + told.broken.len() > 0;
        match event {
            Event::Got(_) | Event::End | Event::Broken(_) | Event::HungUp(_) if is_over => {
                self.violate(format!("{key:?} had ended, and told {event:?}"));
            }
            Event::Got(mut chunk) => {
                told.bytes.extend_from_slice(chunk.bytes());
                told.chunks += 1;
                // As a layer does that decrypts in place: later chunks must not show it.
                chunk.bytes().fill(0xee);
                self.engine.give(chunk);
            }
            Event::End => told.ends += 1,
            Event::Broken(error) => told.broken.push(error),
            Event::HungUp(error) => told.hung_up.push(error),
            Event::Connected(result) => {
                told.connected.push(result);
                if told.connected.len() > 1 {
                    self.violate(format!("{key:?} was connected twice"));
                }
            }
            Event::Accepted(transport, peer) => told.accepted.push((transport, peer)),
            Event::NotAccepted(error) => told.not_accepted.push(error),
            Event::Ready(ready) => told.ready.push(ready),
            Event::Datagrams(batch) if batch.is_empty() => {
                self.violate(format!("{key:?}: a batch without datagrams"));
            }
            Event::Datagrams(mut batch) => {
                while let Some(datagram) = batch.take() {
                    told.datagrams.push(Letter {
                        from: datagram.from.clone(),
                        to: datagram.to,
                        ecn: datagram.ecn,
                        truncated: datagram.truncated,
                        bytes: datagram.bytes.to_vec(),
                    });
                }
                self.engine.give_batch(batch);
            }
            Event::Undelivered(to, error) => told.undelivered.push((to, error)),
            Event::Room => {
                told.rooms += 1;
                if !std::mem::take(&mut told.waits_for_room) {
                    self.violate(format!("{key:?}: room was told to nobody who waits for it"));
                }
            }
            Event::Sent(sent) => self.note_sent(key, sent),
            Event::Detached(transport) => {
                if !told.detaching || told.out_bytes.is_some() {
                    self.violate(format!("{key:?} was detached unasked, or with a send out"));
                }
                self.note(key).detached = Some(transport);
            }
        }
    }

    fn note_sent(&mut self, key: Key, sent: Sent) {
        let told = self.note(key);
        let Some(out) = told.out_bytes.take() else {
            return self.violate(format!("{key:?}: a send came back that was not out"));
        };
        let left = sent.queue.len();
        // A failed send does not say how much of it was taken before; what is left cannot be more.
        let taken = *sent.result.as_ref().unwrap_or(&out.saturating_sub(left));
        let is_idle = sent.result.is_ok() && taken == 0 && out > 0 && !told.detaching;
        told.sent += *sent.result.as_ref().unwrap_or(&0);
        told.unsent = Some(sent.queue);
        told.send_failed = sent.result.err().or(told.send_failed.take());
        if left + taken != out {
            self.violate(format!("{key:?}: of {out} bytes {taken} were taken, but {left} came back"));
        }
        if is_idle {
            self.violate(format!("{key:?}: a send came back with nothing taken"));
        }
    }
}

impl Told {
    /// Whether a send is out.
    pub fn is_sending(&self) -> bool {
        self.out_bytes.is_some()
    }

    /// Whether no send is out, and nothing is left of the last one.
    pub fn is_sent(&self) -> bool {
        !self.is_sending() && self.unsent.as_ref().is_none_or(|rest| rest.is_empty())
    }

    /// Whether the read side is over.
    pub fn is_over(&self) -> bool {
        self.ends + self.broken.len() > 0
    }
}

impl std::fmt::Debug for Drive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drive").field("engine", &self.engine.name()).field("told", &self.told).finish()
    }
}

/// One wait of [`Drive::until`].
const STEP: Duration = Duration::from_millis(200);
/// Ten seconds of them without an event are a failure.
const IDLE_MAX: usize = 50;
const TURNS_MAX: usize = 20_000;
const EVENTS_MAX: usize = 1 << 20;
const REST: Duration = Duration::from_millis(60);
/// A few early returns are allowed; a spinning engine makes thousands.
const REST_TURNS_MAX: usize = 20;
