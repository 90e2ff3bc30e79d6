//! The events of an end: connects, completed sends, input, and a detach.

use reactor::{
    Key,
    engine::{Chunk, Event, Sent},
};

use crate::{
    error,
    faults::Kind,
    ids::{EndId, EngineId, Id as _},
    net::buffer::PACKET_MAX,
    net::end::Segment,
    world::state::{Process, State},
};

/// An event, or the key of a transport that can be given back.
pub(crate) enum Told {
    Event((Key, Event)),
    Detached(Key),
}

impl State {
    /// Returns the next event of an end, if there is one.
    pub(crate) fn end_event(&mut self, at: EndId, process: EngineId) -> Option<Told> {
        if !self.ends.is_alive(at) {
            return None;
        }
        let end = &mut self.ends[at];
        let (_, key) = end.owner.filter(|(owner, _)| *owner == process)?;
        end.queued = false;
        #[cfg(unix)]
        if end.watch.is_some() {
            return self.watched_event(at).map(|event| Told::Event((key, event)));
        }
        let end = &mut self.ends[at];
        let event = if let Some(number) = end.connected.take() {
            Event::Connected(if number == 0 { Ok(()) } else { Err(error::os(number)) })
        } else if let Some(sent) = end.sent.take() {
            Event::Sent(sent)
        } else if std::mem::take(&mut end.detaching) {
            end.owner = None;
            return Some(Told::Detached(key));
        } else {
            self.read(at)?
        };
        self.look_at_end(at);
        Some(Told::Event((key, event)))
    }

    /// Returns an end's input, its end, or its failure.
    fn read(&mut self, at: EndId) -> Option<Event> {
        let end = &mut self.ends[at];
        if end.other.is_none() || !(end.wants || end.late) {
            return self.hangup(at);
        }
        if !end.input.is_empty() && self.is_starved(at) {
            return None;
        }
        let end = &mut self.ends[at];
        if !end.wants {
            end.late = false;
            self.tally.observe(Kind::LateInput);
        }
        let end = &mut self.ends[at];
        let Some(mut first) = end.input.pop_front() else { return self.read_end(at) };
        first.close_passed();
        let mut chunk = if end.input.is_empty() && first.start == 0 { first } else { self.gather(at, first) };
        let most = self.engine_options.buffer_bytes;
        if chunk.len() > most {
            chunk = self.split(at, chunk, most);
        }
        if chunk.len() > 1 && self.strikes(Kind::TinyRead) {
            self.tally.observe(Kind::TinyRead);
            let count = self.chance.up_to(chunk.len() - 1);
            chunk = self.split(at, chunk, count);
        }
        let len = chunk.len();
        self.lend(at);
        self.ends[at].input_bytes -= len;
        self.freed(at);
        Some(Event::Got(Chunk::new(chunk.buffer, len)))
    }

    /// Returns whether the runtime holds all buffers of the engine. The end's input then waits for one.
    fn is_starved(&mut self, at: EndId) -> bool {
        let most = self.engine_options.buffers;
        let Some(engine) = self.engine_of(at).filter(|engine| engine.lent >= most) else { return false };
        engine.starved.insert(at);
        true
    }

    fn lend(&mut self, at: EndId) {
        if let Some(engine) = self.engine_of(at) {
            engine.lent += 1;
        }
    }

    fn engine_of(&mut self, at: EndId) -> Option<&mut Process> {
        let (process, _) = self.ends[at].owner?;
        self.processes.get_mut(process)
    }

    /// Takes a buffer of an engine back, which may let input arrive that waits for one.
    pub(crate) fn give_back(&mut self, process: EngineId, buffer: Box<[u8]>) {
        self.buffers.give(buffer);
        let Some(engine) = self.processes.get_mut(process) else { return };
        engine.lent = engine.lent.saturating_sub(1);
        for at in std::mem::take(&mut engine.starved) {
            // The end may have gone while it waited.
            if self.ends.is_alive(at) {
                self.look_at_end(at);
            }
        }
    }

    /// Reports an end or a failure while the engine wants no input, even if unread input precedes it.
    fn hangup(&mut self, at: EndId) -> Option<Event> {
        let end = &mut self.ends[at];
        if !end.has_hangup() {
            return None;
        }
        if end.input.is_empty() {
            return self.read_end(at);
        }
        (end.hangup_told, end.break_told) = (true, end.broken.is_some());
        Some(Event::HungUp(end.broken.map(error::os)))
    }

    /// Gathers waiting segments into one buffer, as far as it has room, because a read does not see packet
    /// borders.
    fn gather(&mut self, at: EndId, first: Segment) -> Segment {
        let waiting = first.len() + self.ends[at].input.iter().map(Segment::len).sum::<usize>();
        let mut buffer = self.buffers.take(waiting.min(PACKET_MAX));
        let mut len = 0;
        let mut next = Some(first);
        while let Some(mut segment) = next.take() {
            segment.close_passed();
            let count = segment.len().min(buffer.len() - len);
            buffer[len..len + count].copy_from_slice(&segment.buffer[segment.start..segment.start + count]);
            (len, segment.start) = (len + count, segment.start + count);
            if segment.len() > 0 {
                self.ends[at].input.push_front(segment);
                break;
            }
            self.buffers.give(segment.buffer);
            next = self.ends[at].input.pop_front();
        }
        Segment::of(buffer, len)
    }

    /// Takes the first bytes of a chunk, and puts the rest back in front.
    fn split(&mut self, at: EndId, mut chunk: Segment, count: usize) -> Segment {
        let mut buffer = self.buffers.take(count);
        buffer[..count].copy_from_slice(&chunk.buffer[..count]);
        chunk.start = count;
        self.ends[at].input.push_front(chunk);
        Segment::of(buffer, count)
    }

    fn read_end(&mut self, at: EndId) -> Option<Event> {
        let end = &mut self.ends[at];
        if end.end_told {
            return None;
        }
        let event = match (end.broken, end.finished) {
            (Some(number), _) => Event::Broken(error::os(number)),
            (None, true) => Event::End,
            (None, false) => return None,
        };
        end.end_told = true;
        if let (Some(kind), Event::Broken(_)) = (end.by_fault, &event) {
            self.tally.observe(kind);
        }
        Some(event)
    }

    /// Starts or stops input. Some input may still be in flight.
    pub(crate) fn set_reading(&mut self, at: EndId, on: bool) {
        let may_come = !on && self.ends[at].wants && !self.ends[at].input.is_empty();
        let is_late = may_come && self.strikes(Kind::LateInput);
        let end = &mut self.ends[at];
        (end.wants, end.late, end.hangup_told, end.break_told) = (on, is_late, false, false);
        self.look_at_end(at);
    }

    /// Begins to detach an end. A send in flight is returned first.
    pub(crate) fn detach(&mut self, at: EndId) {
        let end = &mut self.ends[at];
        (end.wants, end.late, end.detaching) = (false, false, true);
        if let Some(queue) = end.parked.take() {
            end.sent = Some(Sent { queue, result: Ok(0) });
        }
        self.look_at_end(at);
    }

    /// Adds an engine's event to the digest.
    pub(crate) fn note_answer(&mut self, process: EngineId, key: Key, event: &mut Event) {
        let (tag, more) = match event {
            Event::Got(chunk) => (1, chunk.bytes().len() as u64),
            Event::End => (2, 0),
            Event::Broken(error) => (3, number_of(error)),
            Event::Connected(result) => (4, result.as_ref().err().map_or(0, number_of)),
            Event::Accepted(..) => (5, 0),
            Event::NotAccepted(error) => (6, number_of(error)),
            Event::Sent(sent) => (7, sent.queue.len() as u64),
            Event::Detached(_) => (8, 0),
            Event::Datagrams(batch) => (10, batch.len() as u64),
            Event::Undelivered(_, error) => (11, number_of(error)),
            Event::Room => (12, 0),
            Event::HungUp(error) => (13, error.as_ref().map_or(0, number_of)),
            Event::Ready(ready) => (9, u64::from(ready.readable) | u64::from(ready.writable) << 1),
        };
        let slot = key.slot() as u64 | u64::from(key.generation()) << 24;
        self.digest.number(self.now ^ u64::from(process.number()) << 48);
        self.digest.number(slot << 8 | tag);
        self.digest.number(more);
        if let Event::Got(chunk) = event {
            self.digest.bytes(chunk.bytes());
        }
    }
}

fn number_of(error: &std::io::Error) -> u64 {
    error.raw_os_error().map_or(u64::MAX, |number| number as u64)
}
