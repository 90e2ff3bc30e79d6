//! Drives an engine by hand, records its events, and checks the rules for every event.
//!
//! Whatever the row tests, the driver fails it in these cases: an event has a key that is closed or was never
//! attached, input follows an end, an end or a connect is reported twice, a send comes back that is not in
//! flight, or the returned queue is not the submitted one less the bytes taken.

use std::{collections::BTreeMap, time::Duration};

use reactor::Address;
use reactor::{
    Ecn, Interest, Key, Outbound, Outgoing, Ready, Source,
    engine::{DatagramQueue, Ending, Engine, Event, Role, Sent, Transport},
};

use crate::suite::{Outcome, Stop, check};

/// An engine that a row drives by hand.
pub struct EngineDriver {
    /// The engine itself. The driver does not record calls that bypass its own methods.
    pub engine: Box<dyn Engine>,
    events: BTreeMap<Key, Events>,
    slots: u32,
    violation: Option<String>,
    turns: u64,
}

/// The events of one key so far.
#[derive(Debug, Default)]
pub struct Events {
    /// The input of all chunks, joined.
    pub bytes: Vec<u8>,
    /// The number of chunks.
    pub chunks: usize,
    /// The number of ends.
    pub ends: usize,
    /// The failures of the read side.
    pub broken: Vec<std::io::Error>,
    /// The ends behind input (`None`) and the failures that the engine reported while reading was off.
    pub hung_up: Vec<Option<std::io::Error>>,
    /// The results of the connect.
    pub connected: Vec<std::io::Result<()>>,
    /// The number of bytes taken by sends that did not fail.
    pub sent: usize,
    /// The rest of the last send, while none is in flight.
    pub unsent: Option<Box<Outgoing>>,
    /// The failure of the latest send that failed.
    pub send_failed: Option<std::io::Error>,
    /// Accepted connections that the row has not taken.
    pub accepted: Vec<(Transport, Address)>,
    /// The failures of the listener to accept.
    pub not_accepted: Vec<std::io::Error>,
    /// The readiness events, in order.
    pub ready: Vec<Ready>,
    /// The transport that a detach gave back.
    pub detached: Option<Transport>,
    /// The received datagrams, in order.
    pub datagrams: Vec<ReceivedDatagram>,
    /// The datagrams that were not delivered: the destination, and the error.
    pub undelivered: Vec<(Option<Address>, std::io::Error)>,
    /// How often the engine reported room for datagrams.
    pub rooms: usize,
    out_bytes: Option<usize>,
    /// Datagrams stayed in a queue, so the engine still has to report room.
    waits_for_room: bool,
    detaching: bool,
    closed: bool,
}

/// A received datagram.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReceivedDatagram {
    /// The sender.
    pub from: Address,
    /// The address to which it was sent, if the engine reports that.
    pub to: Option<std::net::IpAddr>,
    /// See [`Datagram::ecn`](reactor::Datagram::ecn).
    pub ecn: Ecn,
    /// The datagram was longer than the buffer.
    pub truncated: bool,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl EngineDriver {
    /// Takes an engine.
    pub fn new(engine: Box<dyn Engine>) -> EngineDriver {
        EngineDriver { engine, events: BTreeMap::new(), slots: 0, violation: None, turns: 0 }
    }

    /// Makes a new key.
    pub fn key(&mut self) -> Key {
        let key = Key::new(self.slots, 0, 9);
        self.slots += 1;
        self.events.insert(key, Events::default());
        key
    }

    /// Attaches a transport under a new key.
    ///
    /// # Errors
    /// Fails the row if the engine refuses.
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
    /// Fails the row if the engine refuses.
    pub fn watch(&mut self, source: Source<'_>, interest: Interest) -> Result<Key, Stop> {
        let key = self.key();
        self.engine.watch(key, source, Some(interest))?;
        Ok(key)
    }

    /// Stops watching.
    pub fn unwatch(&mut self, key: Key, source: Source<'_>) {
        self.engine.unwatch(key, source);
        self.events_mut(key).closed = true;
    }

    /// Closes the key in an orderly way.
    pub fn close(&mut self, key: Key) {
        self.close_with(key, Ending::Orderly);
    }

    /// Closes the key in the given way.
    pub fn close_with(&mut self, key: Key, how: Ending) {
        self.engine.close(key, how);
        self.events_mut(key).closed = true;
    }

    /// Detaches the key. The transport arrives in [`Events::detached`].
    pub fn detach(&mut self, key: Key) {
        self.events_mut(key).detaching = true;
        self.engine.detach(key);
    }

    /// Sends bytes. The bytes that the engine does not take come back in [`Events::unsent`].
    pub fn send(&mut self, key: Key, bytes: &[u8]) {
        let mut queue = Box::new(Outgoing::new());
        queue.put(bytes);
        self.send_queue(key, queue);
    }

    /// Sends a queue.
    pub fn send_queue(&mut self, key: Key, queue: Box<Outgoing>) {
        self.events_mut(key).out_bytes = Some(queue.len());
        if let Some(sent) = self.engine.send(key, queue) {
            self.note_sent(key, sent);
        }
    }

    /// Sends datagrams. Those without room stay in the queue, and the engine reports room later.
    pub fn send_datagrams(&mut self, key: Key, queue: &mut DatagramQueue) -> usize {
        let taken = self.engine.send_datagrams(key, queue);
        self.events_mut(key).waits_for_room |= !queue.is_empty();
        taken
    }

    /// Asks the engine to report room, for a caller that found none by bypassing the engine.
    pub fn await_room(&mut self, key: Key) -> bool {
        self.events_mut(key).waits_for_room = true;
        self.engine.await_room(key)
    }

    /// Sends one datagram. Without an address, it goes to the peer of a connected socket.
    pub fn post(&mut self, key: Key, to: Option<&Address>, bytes: &[u8]) {
        let mut queue = DatagramQueue::default();
        queue.push(Outbound { to, ..Outbound::new(bytes) });
        self.send_datagrams(key, &mut queue);
    }

    /// Sends the rest of the last send again, if there is any.
    pub fn send_rest(&mut self, key: Key) {
        if let Some(queue) = self.events_mut(key).unsent.take_if(|queue| !queue.is_empty()) {
            self.send_queue(key, queue);
        }
    }

    /// Returns the events of a key.
    ///
    /// # Panics
    /// If the key is not of this driver.
    pub fn events(&self, key: Key) -> &Events {
        &self.events[&key]
    }

    /// Returns the events of a key, so that the caller can take some out.
    pub fn events_mut(&mut self, key: Key) -> &mut Events {
        self.events.entry(key).or_default()
    }

    /// Returns the number of waits so far.
    pub fn turns(&self) -> u64 {
        self.turns
    }

    /// Waits once and handles all events. Returns the number of events.
    ///
    /// # Errors
    /// Fails the row if the wait fails, or if an event breaks a rule.
    pub fn turn(&mut self, timeout: Duration) -> Result<usize, Stop> {
        self.turn_with(timeout, |_, _| ())
    }

    /// Turns as [`EngineDriver::turn`] does, and calls `react` after each event, before it pulls the next.
    ///
    /// # Errors
    /// As [`EngineDriver::turn`].
    pub fn turn_with(
        &mut self,
        timeout: Duration,
        mut react: impl FnMut(&mut EngineDriver, Key),
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

    /// Turns until `done` returns true.
    ///
    /// # Errors
    /// Fails the row if ten seconds of waiting bring no event, or after 20,000 turns.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut EngineDriver) -> bool) -> Outcome {
        let mut idle = 0;
        for _ in 0..TURNS_MAX {
            if done(self) {
                return Ok(());
            }
            match self.turn(STEP)? {
                0 => idle += 1,
                _ => idle = 0,
            }
            check!(idle < IDLE_MAX, "no event arrives any more, but not yet: {what}");
        }
        Err(format!("after {TURNS_MAX} turns, not yet: {what}").into())
    }

    /// Turns without waiting until `count` turns in a row bring no event.
    ///
    /// # Errors
    /// Fails the row after 20,000 turns, or as [`EngineDriver::turn`] does.
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

    /// Checks that waits of 60 ms in total bring no event, and take their time.
    ///
    /// # Errors
    /// Fails the row if an event arrives or the engine spins.
    pub fn rests(&mut self) -> Outcome {
        let end = self.engine.host().now() + REST;
        for _ in 0..REST_TURNS_MAX {
            let left = end - self.engine.host().now();
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
        let Some(events) = self.events.get_mut(&key) else {
            return self.violate(format!("{key:?} was never attached, and reported {event:?}"));
        };
        if events.closed || events.detached.is_some() {
            return self.violate(format!("{key:?} is closed, and reported {event:?}"));
        }
        let is_over = events.ends + events.broken.len() > 0;
        match event {
            Event::Got(_) | Event::End | Event::Broken(_) | Event::HungUp(_) if is_over => {
                self.violate(format!("{key:?} had ended, and reported {event:?}"));
            }
            Event::Got(mut chunk) => {
                events.bytes.extend_from_slice(chunk.bytes());
                events.chunks += 1;
                // Overwrite the chunk, as a layer that decrypts in place does. Later chunks must not show the
                // change.
                chunk.bytes().fill(0xee);
                self.engine.give(chunk);
            }
            Event::End => events.ends += 1,
            Event::Broken(error) => events.broken.push(error),
            Event::HungUp(error) => events.hung_up.push(error),
            Event::Connected(result) => {
                events.connected.push(result);
                if events.connected.len() > 1 {
                    self.violate(format!("{key:?} was connected twice"));
                }
            }
            Event::Accepted(transport, peer) => events.accepted.push((transport, peer)),
            Event::NotAccepted(error) => events.not_accepted.push(error),
            Event::Ready(ready) => events.ready.push(ready),
            Event::Datagrams(batch) if batch.is_empty() => {
                self.violate(format!("{key:?}: a batch without datagrams"));
            }
            Event::Datagrams(mut batch) => {
                while let Some(datagram) = batch.take() {
                    events.datagrams.push(ReceivedDatagram {
                        from: datagram.from.clone(),
                        to: datagram.to,
                        ecn: datagram.ecn,
                        truncated: datagram.truncated,
                        bytes: datagram.bytes.to_vec(),
                    });
                }
                self.engine.give_batch(batch);
            }
            Event::Undelivered(to, error) => events.undelivered.push((to, error)),
            Event::Room => {
                events.rooms += 1;
                if !std::mem::take(&mut events.waits_for_room) {
                    self.violate(format!("{key:?}: room was reported, and nobody waits for it"));
                }
            }
            Event::Sent(sent) => self.note_sent(key, sent),
            Event::Detached(transport) => {
                if !events.detaching || events.out_bytes.is_some() {
                    self.violate(format!("{key:?} was detached unasked, or with a send out"));
                }
                self.events_mut(key).detached = Some(transport);
            }
        }
    }

    fn note_sent(&mut self, key: Key, sent: Sent) {
        let events = self.events_mut(key);
        let Some(out) = events.out_bytes.take() else {
            return self.violate(format!("{key:?}: a send came back that was not out"));
        };
        let left = sent.queue.len();
        // A failed send does not report how much it took before. The rest cannot be more than the whole.
        let taken = *sent.result.as_ref().unwrap_or(&out.saturating_sub(left));
        let is_idle = sent.result.is_ok() && taken == 0 && out > 0 && !events.detaching;
        events.sent += *sent.result.as_ref().unwrap_or(&0);
        events.unsent = Some(sent.queue);
        events.send_failed = sent.result.err().or(events.send_failed.take());
        if left + taken != out {
            self.violate(format!("{key:?}: of {out} bytes {taken} were taken, but {left} came back"));
        }
        if is_idle {
            self.violate(format!("{key:?}: a send came back with nothing taken"));
        }
    }
}

impl Events {
    /// Reports whether a send is in flight.
    pub fn is_sending(&self) -> bool {
        self.out_bytes.is_some()
    }

    /// Reports whether no send is in flight, and the last one left no rest.
    pub fn is_sent(&self) -> bool {
        !self.is_sending() && self.unsent.as_ref().is_none_or(|rest| rest.is_empty())
    }

    /// Reports whether the read side is over.
    pub fn is_over(&self) -> bool {
        self.ends + self.broken.len() > 0
    }
}

impl std::fmt::Debug for EngineDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineDriver")
            .field("engine", &self.engine.name())
            .field("events", &self.events)
            .finish()
    }
}

/// One wait of [`EngineDriver::until`].
const STEP: Duration = Duration::from_millis(200);
/// Ten seconds of such waits without an event are a failure.
const IDLE_MAX: usize = 50;
const TURNS_MAX: usize = 20_000;
const EVENTS_MAX: usize = 1 << 20;
const REST: Duration = Duration::from_millis(60);
/// Allows a few early returns. A spinning engine makes thousands.
const REST_TURNS_MAX: usize = 20;
