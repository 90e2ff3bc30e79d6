//! The events of an end: connects, completed sends, input, and a detach.

use reactor::engine::{Chunk, Event, Sent};

use crate::{
    engine::EngineEvent,
    error,
    faults::Kind,
    ids::{EndId, EngineId},
    net::buffer::PACKET_MAX,
    net::stream::{Streams, end::Segment},
    world::base::Base,
};

impl Streams {
    /// Returns the next event of an end, if there is one.
    pub(crate) fn end_event(&mut self, base: &mut Base, at: EndId, engine: EngineId) -> Option<EngineEvent> {
        if !self.ends.is_alive(at) {
            return None;
        }
        let end = &mut self.ends[at];
        let (_, key) = end.owner.filter(|(owner, _)| *owner == engine)?;
        end.queued = false;
        #[cfg(unix)]
        if end.watch.is_some() {
            return self.watched_event(base, at).map(|event| EngineEvent::Event((key, event)));
        }
        let end = &mut self.ends[at];
        let event = if let Some(number) = end.connected.take() {
            Event::Connected(if number == 0 { Ok(()) } else { Err(error::os(number)) })
        } else if let Some(sent) = end.sent.take() {
            Event::Sent(sent)
        } else if std::mem::take(&mut end.detaching) {
            end.owner = None;
            return Some(EngineEvent::Detached(key));
        } else {
            self.read(base, at)?
        };
        self.look_at_end(base, at);
        Some(EngineEvent::Event((key, event)))
    }

    /// Returns an end's input, its end, or its failure.
    fn read(&mut self, base: &mut Base, at: EndId) -> Option<Event> {
        let end = &mut self.ends[at];
        if end.other.is_none() || !(end.wants || end.late) {
            return self.hangup(base, at);
        }
        if !end.input.is_empty() && end.owner.is_some_and(|(engine, _)| base.engines.is_starved(engine, at)) {
            return None;
        }
        let end = &mut self.ends[at];
        if !end.wants {
            end.late = false;
            base.faults.tally.observe(Kind::LateInput);
        }
        let end = &mut self.ends[at];
        let Some(mut first) = end.input.pop_front() else { return self.read_end(base, at) };
        first.close_passed();
        let mut chunk = if end.input.is_empty() && first.start == 0 { first } else { self.gather(at, first) };
        let most = base.engines.options.buffer_bytes;
        if chunk.len() > most {
            chunk = self.split(at, chunk, most);
        }
        if chunk.len() > 1 && base.faults.draw_visible(Kind::TinyRead) {
            let count = base.faults.chance.up_to(chunk.len() - 1);
            chunk = self.split(at, chunk, count);
        }
        let len = chunk.len();
        self.ends[at].input_bytes -= len;
        if let Some((engine, _)) = self.ends[at].owner {
            base.engines.lend(engine);
        }
        self.freed(base, at);
        Some(Event::Got(Chunk::new(chunk.buffer, len)))
    }

    /// Takes a buffer of an engine back, which may let input arrive that waits for one.
    pub(crate) fn give_back(&mut self, base: &mut Base, engine: EngineId, buffer: Box<[u8]>) {
        self.buffers.give(buffer);
        for at in base.engines.give_back(engine) {
            // The end may have gone while it waited.
            if self.ends.is_alive(at) {
                self.look_at_end(base, at);
            }
        }
    }

    /// Reports an end or a failure while the engine wants no input, even if unread input precedes it.
    fn hangup(&mut self, base: &mut Base, at: EndId) -> Option<Event> {
        let end = &mut self.ends[at];
        if !end.has_hangup() {
            return None;
        }
        if end.input.is_empty() {
            return self.read_end(base, at);
        }
        (end.hangup_delivered, end.failure_delivered) = (true, end.broken.is_some());
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

    fn read_end(&mut self, base: &mut Base, at: EndId) -> Option<Event> {
        let end = &mut self.ends[at];
        if end.end_delivered {
            return None;
        }
        let event = match (end.broken, end.finished) {
            (Some(number), _) => Event::Broken(error::os(number)),
            (None, true) => Event::End,
            (None, false) => return None,
        };
        end.end_delivered = true;
        if let (Some(kind), Event::Broken(_)) = (end.by_fault, &event) {
            base.faults.tally.observe(kind);
        }
        Some(event)
    }

    /// Starts or stops input. Some input may still be in flight.
    pub(crate) fn set_reading(&mut self, base: &mut Base, at: EndId, on: bool) {
        let may_come = !on && self.ends[at].wants && !self.ends[at].input.is_empty();
        let is_late = may_come && base.faults.draw_fault(Kind::LateInput);
        let end = &mut self.ends[at];
        (end.wants, end.late, end.hangup_delivered, end.failure_delivered) = (on, is_late, false, false);
        self.look_at_end(base, at);
    }

    /// Begins to detach an end. A send in flight is returned first.
    pub(crate) fn detach(&mut self, base: &mut Base, at: EndId) {
        let end = &mut self.ends[at];
        (end.wants, end.late, end.detaching) = (false, false, true);
        if let Some(queue) = end.parked.take() {
            end.sent = Some(Sent { queue, result: Ok(0) });
        }
        self.look_at_end(base, at);
    }
}
