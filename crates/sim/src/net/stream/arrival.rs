//! Arrivals: the effect of a packet at its end, and the wait of a packet at an obstacle.

use reactor::engine::Sent;

use crate::{
    error,
    ids::{EndId, HostId},
    net::stream::{
        Streams,
        end::{Holder, Packet, Segment},
    },
    world::{base::Base, state::Scheduled},
    world::{node::Node, record::Happening},
};

impl Streams {
    /// Delivers the first packet on an end's wire, unless an obstacle is in its way.
    pub(crate) fn arrive(&mut self, base: &mut Base, at: EndId) {
        if !self.ends.is_alive(at) {
            return;
        }
        let end = &self.ends[at];
        let (host, other) = (end.host, end.other);
        let from = other.map_or(host, |other| self.ends[other].host);
        let obstacle = if from == host { None } else { base.links.obstacle(from, host) };
        let is_down = !base.hosts[host].is_up;
        if obstacle.is_some() || is_down {
            if let Some(kind) = obstacle {
                base.faults.tally.observe(kind);
            }
            return self.stall(base, at);
        }
        let end = &mut self.ends[at];
        let Some(packet) = end.wire.pop_front() else { return };
        end.progress += 1;
        if let Packet::Data(segment) = &packet {
            end.wire_bytes -= segment.len();
        }
        if end.holder == Holder::Nobody {
            self.refuse(base, at, packet);
            return;
        }
        match packet {
            Packet::Data(segment) => self.take_in(base, at, from, segment),
            #[cfg(unix)]
            Packet::Fin | Packet::Reset if !end.medium.has_input() => self.reader_left(at),
            Packet::Fin => end.finished = true,
            Packet::Reset => self.take_reset(at),
            Packet::Lost => (),
        }
        self.look_at_end(base, at);
    }

    fn take_in(&mut self, base: &mut Base, at: EndId, from: HostId, segment: Segment) {
        let end = &mut self.ends[at];
        if end.broken.is_some() {
            return self.buffers.give(segment.buffer);
        }
        let (bytes, sent, to) = (segment.len(), segment.sent, end.host);
        end.input_bytes += bytes;
        end.input.push_back(segment);
        base.record.messages += 1;
        base.record.bytes += bytes as u64;
        let time = reactor::Time::from_nanos;
        let (sent, arrived) = (time(sent), time(base.now()));
        base.record.keep(|| Happening::Message {
            sent,
            arrived,
            from: Node(from),
            to: Node(to),
            bytes: bytes as u32,
        });
    }

    fn take_reset(&mut self, at: EndId) {
        let end = &mut self.ends[at];
        let had_ended = end.finished && end.input.is_empty();
        let number = if had_ended { error::BROKEN_PIPE } else { error::CONNECTION_RESET };
        end.failed.get_or_insert(number);
        if !had_ended {
            end.broken.get_or_insert(number);
        }
        if let Some(queue) = end.parked.take() {
            end.sent = Some(Sent { queue, result: Err(error::os(number)) });
        }
    }

    /// Drops a packet for a closed end. Answers data with a reset.
    fn refuse(&mut self, base: &mut Base, at: EndId, packet: Packet) {
        if let Packet::Data(segment) = packet {
            self.buffers.give(segment.buffer);
            self.put(base, at, Packet::Reset);
        }
    }

    /// Keeps a packet until its link is free. Its sender eventually gives up.
    fn stall(&mut self, base: &mut Base, at: EndId) {
        let end = &mut self.ends[at];
        end.stalled += 1;
        let (progress, other) = (end.progress, end.other);
        if let Some(other) = other.filter(|_| end.stalled == 1) {
            base.clock.schedule(base.now() + self.give_up, Scheduled::GiveUp { end: other, progress });
        }
    }

    /// Restarts the waiting packets, because their links may be free.
    pub(crate) fn unstall(&mut self, base: &mut Base) {
        for at in self.ends.ids() {
            let end = &mut self.ends[at];
            let count = std::mem::take(&mut end.stalled);
            let (host, other) = (end.host, end.other);
            if count == 0 || end.holder == Holder::Free {
                continue;
            }
            let from = other.map_or(host, |other| self.ends[other].host);
            let arrival = base.arrival(from, host);
            let end = &mut self.ends[at];
            end.last_arrival = end.last_arrival.max(arrival);
            for _ in 0..count {
                base.clock.schedule(arrival, Scheduled::Arrive { end: at });
            }
        }
    }

    /// Times out an end whose packets got no answer for too long.
    pub(crate) fn give_up(&mut self, base: &mut Base, at: EndId, progress: u64) {
        if !self.ends.is_alive(at) || self.ends[at].holder == Holder::Nobody {
            return;
        }
        let Some(other) = self.ends[at].other else { return };
        let there = &self.ends[other];
        if there.stalled == 0 || there.progress != progress {
            return;
        }
        let end = &mut self.ends[at];
        end.failed.get_or_insert(error::TIMED_OUT);
        end.broken.get_or_insert(error::TIMED_OUT);
        if let Some(queue) = end.parked.take() {
            end.sent = Some(Sent { queue, result: Err(error::os(error::TIMED_OUT)) });
        }
        self.look_at_end(base, at);
    }
}
