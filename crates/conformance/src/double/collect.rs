//! The events of one wait: which operations complete now, in which pieces, and which are postponed.

use reactor::{
    Key,
    engine::{Chunk, Event, Ready, Role, Sent},
};

use super::{
    engine::{Attached, Double},
    fault,
    state::{Input, State},
};

impl Double {
    /// Collects the events that are due now. Returns true if it changed anything for which others may wait.
    pub(super) fn collect(&mut self, state: &mut State) -> bool {
        let mut moved = false;
        // A completion may be postponed only in favour of another one. If the first round postpones all, the
        // second round postpones none.
        for patient in [true, false] {
            let keys: Vec<Key> = self.keys_from_cursor();
            for key in keys {
                if self.space() == 0 {
                    return true;
                }
                if patient && self.chance.percent(self.tuning.defer_percent) {
                    continue;
                }
                moved |= self.step(state, key);
                self.cursor = Some(key);
            }
            if !self.events.is_empty() {
                break;
            }
        }
        if !self.events.is_empty() && self.chance.percent(self.tuning.spurious_percent) {
            self.tell_untruth();
        }
        moved || !self.events.is_empty()
    }

    /// Returns all keys, beginning behind the one served last, so that no key starves.
    fn keys_from_cursor(&self) -> Vec<Key> {
        let mut keys: Vec<Key> = self.attached.keys().chain(self.watched.keys()).copied().collect();
        keys.sort_unstable();
        if let Some(cursor) = self.cursor {
            let after = keys.partition_point(|key| *key <= cursor);
            keys.rotate_left(after);
        }
        keys
    }

    pub(super) fn space(&self) -> usize {
        self.tuning.events_max.saturating_sub(self.events.len())
    }

    fn step(&mut self, state: &mut State, key: Key) -> bool {
        if let Some(mut attached) = self.attached.remove(&key) {
            let before = self.events.len();
            let mut moved = false;
            if attached.detaching {
                return self.step_detaching(state, key, attached);
            }
            match attached.role {
                Role::Listener => self.step_listener(state, key, &mut attached),
                Role::Connecting => self.step_connecting(state, key, &mut attached),
                Role::Datagrams => moved = self.step_datagrams(state, key, &mut attached),
                Role::Stream => {
                    self.step_send(state, key, &mut attached);
                    moved = self.step_read(state, key, &mut attached);
                }
            }
            self.attached.insert(key, attached);
            return moved || self.events.len() > before;
        }
        let Some((number, Some(interest))) = self.watched.get(&key).copied() else { return false };
        #[cfg(unix)]
        if state.ends.contains_key(&number) {
            return self.step_link(state, key, number, interest);
        }
        let Some(fed) = state.feeds.get(&number) else { return false };
        let ready = fed.ready().masked(interest);
        if ready != Ready::default() {
            self.events.push_back((key, Event::Ready(ready)));
        }
        false
    }

    /// Makes one event a wait: first for operations in flight, then the transport.
    fn step_detaching(&mut self, state: &mut State, key: Key, mut attached: Attached) -> bool {
        state.flow(attached.number, self.tuning.window_bytes, self.tuning.buffer_bytes);
        if attached.sending.is_some() {
            self.finish_send(state, key, &mut attached);
        } else if std::mem::take(&mut attached.armed)
            && attached.role == Role::Stream
            && self.read_one(state, key, attached.number)
        {
            // This delivered the input in flight.
        } else {
            self.events.push_back((key, Event::Detached(attached.transport)));
            return true;
        }
        self.attached.insert(key, attached);
        true
    }

    /// Ends a send because of a detach. The double has taken all, some or none of it.
    fn finish_send(&mut self, state: &mut State, key: Key, attached: &mut Attached) {
        let Some(mut queue) = attached.sending.take() else { return };
        let result = state.room(attached.number, self.tuning.send_bytes).map(|room| {
            let most = room.min(queue.len()).min(self.tuning.cut_bytes);
            let count = if self.chance.percent(50) { self.chance.up_to(most) } else { 0 };
            transfer(state, attached.number, &mut queue, count);
            count
        });
        self.events.push_back((key, Event::Sent(Sent { queue, result })));
    }

    fn step_listener(&mut self, state: &mut State, key: Key, attached: &mut Attached) {
        let most = if attached.wants { self.chance.up_to(4) } else { 1 };
        for _ in 0..most.min(self.space()) {
            if !attached.armed {
                return;
            }
            match state.accept(attached.number) {
                Ok(None) => return,
                Ok(Some((number, peer))) => {
                    self.events.push_back((key, Event::Accepted(self.network.transport(number), peer)));
                    attached.armed = attached.wants;
                }
                Err(error) => {
                    (attached.wants, attached.armed) = (false, false);
                    self.events.push_back((key, Event::NotAccepted(error)));
                }
            }
        }
    }

    fn step_connecting(&mut self, state: &mut State, key: Key, attached: &mut Attached) {
        if attached.told {
            return;
        }
        let result = match state.establish(attached.number) {
            Ok(false) => return,
            Ok(true) => {
                attached.role = Role::Stream;
                Ok(())
            }
            Err(error) => {
                attached.told = true;
                Err(error)
            }
        };
        self.events.push_back((key, Event::Connected(result)));
    }

    fn step_send(&mut self, state: &mut State, key: Key, attached: &mut Attached) {
        let Some(queue) = &mut attached.sending else { return };
        let result = match state.room(attached.number, self.tuning.send_bytes) {
            Ok(0) if !queue.is_empty() => return,
            Ok(room) => {
                let count = self.chance.up_to(room.min(queue.len()).min(self.tuning.cut_bytes));
                transfer(state, attached.number, queue, count);
                Ok(count)
            }
            Err(error) => Err(error),
        };
        if let Some(queue) = attached.sending.take() {
            self.events.push_back((key, Event::Sent(Sent { queue, result })));
        }
    }

    fn step_read(&mut self, state: &mut State, key: Key, attached: &mut Attached) -> bool {
        let most = self.chance.up_to(self.tuning.window_bytes);
        let moved = state.flow(attached.number, self.tuning.window_bytes, most) > 0;
        for _ in 0..2.min(self.space()) {
            if !attached.armed || attached.told {
                break;
            }
            match state.input(attached.number) {
                Input::Nothing => break,
                Input::Bytes(_) if !self.read_one(state, key, attached.number) => break,
                Input::Bytes(_) => attached.armed = attached.wants,
                Input::End => {
                    attached.told = true;
                    self.events.push_back((key, Event::End));
                }
                Input::Reset => {
                    attached.told = true;
                    let error = fault::error(std::io::ErrorKind::ConnectionReset);
                    self.events.push_back((key, Event::Broken(error)));
                }
            }
        }
        if !attached.wants && !attached.armed && !attached.told && self.space() > 0 {
            self.step_hangup(state, key, attached);
        }
        moved
    }

    /// Reports that the peer is gone, although the runtime wants no input.
    fn step_hangup(&mut self, state: &mut State, key: Key, attached: &mut Attached) {
        let event = match (state.input(attached.number), state.gone(attached.number)) {
            (Input::End, _) => Event::End,
            (Input::Reset, _) => Event::Broken(fault::error(std::io::ErrorKind::ConnectionReset)),
            (Input::Bytes(_), Input::Reset) if !attached.reset_told => {
                (attached.hangup_told, attached.reset_told) = (true, true);
                let error = fault::error(std::io::ErrorKind::ConnectionReset);
                return self.events.push_back((key, Event::HungUp(Some(error))));
            }
            (Input::Bytes(_), Input::End) if !attached.hangup_told => {
                attached.hangup_told = true;
                return self.events.push_back((key, Event::HungUp(None)));
            }
            _ => return,
        };
        attached.told = true;
        self.events.push_back((key, event));
    }

    /// Delivers one chunk, if there are bytes and a buffer for them.
    fn read_one(&mut self, state: &mut State, key: Key, number: u64) -> bool {
        let Input::Bytes(arrived) = state.input(number) else { return false };
        let Some(mut buffer) = self.free.pop() else { return false };
        // Fill the buffer with junk, which a handler would see if it could read beyond the input.
        buffer.fill(JUNK);
        let most = arrived.min(buffer.len());
        let count = if self.chance.percent(50) { most } else { self.chance.up_to(most) };
        let count = state.take(number, &mut buffer[..count]);
        self.counters.set_lent(self.counters.lent() + 1);
        self.events.push_back((key, Event::Got(Chunk::new(buffer, count))));
        true
    }

    /// Adds a false readiness, because a readiness is only a hint.
    fn tell_untruth(&mut self) {
        let wrong = self.watched.iter().find(|(key, (_, interest))| {
            interest.is_some_and(|interest| interest.is_read())
                && !self.events.iter().any(|(told, _)| told == *key)
        });
        if let Some((&key, _)) = wrong
            && self.space() > 0
        {
            self.events.push_back((key, Event::Ready(Ready::READ)));
        }
    }
}

/// Moves `count` bytes from the front of a queue into the network.
fn transfer(state: &mut State, number: u64, queue: &mut reactor::engine::Outgoing, count: usize) {
    let mut left = count;
    while left > 0 {
        let front = queue.front();
        let part = front.len().min(left);
        state.put(number, &front[..part]);
        queue.advance(part);
        left -= part;
    }
}

const JUNK: u8 = 0xa5;
