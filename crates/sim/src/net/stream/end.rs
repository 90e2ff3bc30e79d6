//! Connections: two ends each, and the packets in flight between them.
//!
//! The packets of one direction arrive in order, and none is lost, because TCP retransmits them. During a
//! partition they stay on the wire, until the link is free or the sender gives up.

use std::{
    collections::VecDeque,
    io,
    ops::{Index, IndexMut},
};

use reactor::{
    Address, Key,
    engine::{Medium, Outgoing, Sent},
};

#[cfg(unix)]
use crate::ids::ObjectId;
use crate::{
    engine::engines::ReadyItem,
    error,
    faults::Kind,
    ids::{EndId, EngineId, HostId},
    net::{buffer::PACKET_MAX, stream::Streams},
    world::{base::Base, state::Scheduled},
};

/// The owner of an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Holder {
    /// A listener's accept queue.
    Queue,
    /// A transport.
    Transport,
    /// The end is closed, and only its peer still refers to it.
    Nobody,
    /// The slot is free.
    Free,
}

/// A packet in flight to an end.
pub(crate) enum Packet {
    Data(Segment),
    Fin,
    Reset,
    /// A packet that was dropped in flight. It stays in the queue, because each arrival event takes one
    /// packet.
    Lost,
}

/// A range of bytes in a buffer.
pub(crate) struct Segment {
    pub(crate) buffer: Box<[u8]>,
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) sent: u64,
    /// The descriptors that accompany its first byte. They are boxed, because few segments have any and
    /// segments are moved often.
    #[cfg(unix)]
    pub(crate) with: Option<Box<crate::net::stream::passing::PassedDescriptors>>,
}

impl Segment {
    pub(crate) fn of(buffer: Box<[u8]>, len: usize) -> Segment {
        Segment {
            buffer,
            start: 0,
            end: len,
            sent: 0,
            #[cfg(unix)]
            with: None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Closes the descriptors, because the reader asked for bytes only.
    pub(crate) fn close_passed(&mut self) {
        #[cfg(unix)]
        drop(self.with.take());
    }
}

/// One end of a connection.
pub(crate) struct End {
    pub(crate) id: EndId,
    pub(crate) host: HostId,
    /// The engine and the key that it is attached with.
    pub(crate) owner: Option<(EngineId, Key)>,
    pub(crate) local: Address,
    pub(crate) peer: Address,
    pub(crate) other: Option<EndId>,
    pub(crate) holder: Holder,
    /// Set while its item is on its engine's list.
    pub(crate) queued: bool,
    /// `wants`: the engine wants input. `late`: an injected fault delivers input although the engine wants
    /// none.
    pub(crate) wants: bool,
    pub(crate) late: bool,
    pub(crate) detaching: bool,
    /// The packets in flight to this end, and their size in bytes.
    pub(crate) wire: VecDeque<Packet>,
    pub(crate) wire_bytes: usize,
    pub(crate) last_arrival: u64,
    /// The number of packets at the front of the wire that met an obstacle.
    pub(crate) stalled: u32,
    /// Counts the arrivals.
    pub(crate) progress: u64,
    /// The time at which the last byte from this end has left.
    pub(crate) busy_until: u64,
    /// Segments that arrived and were not read yet.
    pub(crate) input: VecDeque<Segment>,
    pub(crate) input_bytes: usize,
    pub(crate) finished: bool,
    pub(crate) broken: Option<i32>,
    pub(crate) end_delivered: bool,
    /// Set once the engine, while it wants no input, knows of an end behind unread input, or of a failure.
    pub(crate) hangup_delivered: bool,
    pub(crate) failure_delivered: bool,
    /// `shut`: this end shut down its write side. `failed`: the error of every further send.
    pub(crate) shut: bool,
    pub(crate) failed: Option<i32>,
    /// A send in flight, and a completed one.
    pub(crate) parked: Option<Box<Outgoing>>,
    pub(crate) sent: Option<Sent>,
    /// The result of the connect: an error number, or 0.
    pub(crate) connected: Option<i32>,
    /// The injected fault that broke it, if any.
    pub(crate) by_fault: Option<Kind>,
    pub(crate) room_due: bool,
    /// The directions that it has. An end of a pipe has only one.
    pub(crate) medium: Medium,
    /// The part of the world that reads and writes this end, if no engine does.
    #[cfg(unix)]
    pub(crate) mover: Option<crate::net::stream::Mover>,
    /// The watch of a resource that reads and writes this end itself.
    #[cfg(unix)]
    pub(crate) watch: Option<crate::net::stream::passing::Watch>,
    /// The engine that connected or listened.
    pub(crate) maker: Option<EngineId>,
}

impl End {
    fn new(id: EndId, host: HostId, local: Address, peer: Address, holder: Holder) -> End {
        End {
            id,
            host,
            owner: None,
            local,
            peer,
            other: None,
            holder,
            queued: false,
            wants: false,
            late: false,
            detaching: false,
            wire: VecDeque::new(),
            wire_bytes: 0,
            last_arrival: 0,
            stalled: 0,
            progress: 0,
            busy_until: 0,
            input: VecDeque::new(),
            input_bytes: 0,
            finished: false,
            broken: None,
            end_delivered: false,
            hangup_delivered: false,
            failure_delivered: false,
            shut: false,
            failed: None,
            parked: None,
            sent: None,
            connected: None,
            by_fault: None,
            room_due: false,
            medium: Medium::SOCKET,
            #[cfg(unix)]
            mover: None,
            #[cfg(unix)]
            watch: None,
            maker: None,
        }
    }

    /// Returns whether a send has bytes left that were not taken.
    pub(crate) fn has_unsent(&self) -> bool {
        self.parked.is_some() || self.sent.as_ref().is_some_and(|sent| !sent.queue.is_empty())
    }

    fn waits_for_room(&self) -> bool {
        #[cfg(unix)]
        if self.watch.as_ref().is_some_and(crate::net::stream::passing::Watch::wants_room) {
            return true;
        }
        self.parked.is_some()
    }

    pub(crate) fn has_input(&self) -> bool {
        !self.input.is_empty() || (!self.end_delivered && (self.finished || self.broken.is_some()))
    }

    fn is_telling(&self) -> bool {
        self.connected.is_some()
            || self.sent.is_some()
            || self.detaching
            || ((self.wants || self.late) && self.other.is_some() && self.has_input())
            || self.has_hangup()
    }

    /// Returns whether the engine must still notice the peer's end, although it wants no input.
    pub(crate) fn has_hangup(&self) -> bool {
        if self.wants || self.owner.is_none() || self.other.is_none() || self.end_delivered {
            return false;
        }
        match self.broken {
            Some(_) => self.input.is_empty() || !self.failure_delivered,
            None => self.finished && (self.input.is_empty() || !self.hangup_delivered),
        }
    }
}

/// All ends, by id. A free slot is reused, the one first that has been free longest.
#[derive(Default)]
pub(crate) struct Ends {
    all: Vec<End>,
    free: VecDeque<EndId>,
}

impl Ends {
    pub(crate) fn add(&mut self, host: HostId, local: Address, peer: Address, holder: Holder) -> EndId {
        match self.free.pop_front() {
            Some(free) => {
                let id = free.next();
                self.all[id.index()] = End::new(id, host, local, peer, holder);
                id
            }
            None => {
                let id = EndId::first(self.all.len());
                self.all.push(End::new(id, host, local, peer, holder));
                id
            }
        }
    }

    /// Frees a slot.
    pub(crate) fn free(&mut self, id: EndId) {
        self[id].holder = Holder::Free;
        self.free.push_back(id);
    }

    /// Returns whether an end still has its slot.
    pub(crate) fn is_alive(&self, id: EndId) -> bool {
        self.all.get(id.index()).is_some_and(|end| end.id == id && end.holder != Holder::Free)
    }

    /// Returns the existing end that an object's id names.
    #[cfg(unix)]
    pub(crate) fn of(&self, object: ObjectId) -> io::Result<EndId> {
        match object {
            ObjectId::End(id) if self.is_alive(id) => Ok(id),
            _ => Err(error::os(error::BAD_DESCRIPTOR)),
        }
    }

    /// Returns the id in each slot, also of those that are free.
    pub(crate) fn ids(&self) -> Vec<EndId> {
        self.all.iter().map(|end| end.id).collect()
    }

    /// Panics if the bytes that an end counts are not those that it has.
    pub(crate) fn check(&self) {
        for end in self.all.iter().filter(|end| end.holder != Holder::Free) {
            let data = |packet: &Packet| if let Packet::Data(segment) = packet { segment.len() } else { 0 };
            assert_eq!(end.wire_bytes, end.wire.iter().map(data).sum::<usize>(), "{:?}: wire", end.id);
            let input: usize = end.input.iter().map(Segment::len).sum();
            assert_eq!(end.input_bytes, input, "{:?}: input", end.id);
        }
        assert!(self.free.iter().all(|id| self[*id].holder == Holder::Free), "a free slot has a holder");
    }

    /// Returns the number of ends that a transport or an accept queue holds.
    pub(crate) fn held(&self) -> usize {
        let is_held = |end: &&End| matches!(end.holder, Holder::Transport | Holder::Queue);
        self.all.iter().filter(is_held).count()
    }
}

impl Index<EndId> for Ends {
    type Output = End;

    #[inline]
    fn index(&self, id: EndId) -> &End {
        let end = &self.all[id.index()];
        debug_assert_eq!(end.id, id, "this end has gone");
        end
    }
}

impl IndexMut<EndId> for Ends {
    #[inline]
    fn index_mut(&mut self, id: EndId) -> &mut End {
        let end = &mut self.all[id.index()];
        debug_assert_eq!(end.id, id, "this end has gone");
        end
    }
}

impl Streams {
    /// Attaches an end to an engine. Returns `false` if the end has gone.
    pub(crate) fn attach_end(&mut self, base: &mut Base, at: EndId, owner: (EngineId, Key)) -> bool {
        if !self.ends.is_alive(at) {
            return false;
        }
        let end = &mut self.ends[at];
        (end.owner, end.wants, end.detaching, end.queued) = (Some(owner), true, false, false);
        (end.hangup_delivered, end.failure_delivered) = (false, false);
        self.look_at_end(base, at);
        true
    }

    /// Queues an end for its engine if it has an event after a change.
    #[inline]
    pub(crate) fn look_at_end(&mut self, base: &mut Base, at: EndId) {
        let end = &mut self.ends[at];
        if end.queued {
            return;
        }
        #[cfg(unix)]
        if end.watch.is_some() {
            return self.look_at_watched(base, at);
        }
        if !end.is_telling() {
            return;
        }
        if let Some((engine, _)) = end.owner {
            end.queued = true;
            let item = ReadyItem::End(at);
            base.mark_ready(engine, item);
        } else {
            #[cfg(unix)]
            self.to_serve.extend(end.mover.map(|mover| (at, mover)));
        }
    }

    /// Puts a packet on the wire to the peer.
    pub(crate) fn put(&mut self, base: &mut Base, from: EndId, packet: Packet) {
        let Some(other) = self.ends[from].other else { return };
        let (host, there) = (self.ends[from].host, self.ends[other].host);
        let bytes = if let Packet::Data(segment) = &packet { segment.len() } else { 0 };
        let speed = base.links.of(host, there).bytes_per_second;
        let now = base.now();
        let end = &mut self.ends[from];
        // The transmission time, rounded down to whole nanoseconds.
        let took = (bytes as u64 * SECOND).checked_div(speed).unwrap_or(0);
        end.busy_until = end.busy_until.max(now) + took;
        let delay = end.busy_until - now;
        let arrival = base.arrival(host, there) + delay;
        let end = &mut self.ends[other];
        end.last_arrival = end.last_arrival.max(arrival);
        end.wire.push_back(packet);
        end.wire_bytes += bytes;
        let at = end.last_arrival;
        base.clock.schedule(at, Scheduled::Arrive { end: other });
    }

    /// Sends as many bytes as there is room for. Returns `Ok(0)` if there is no room.
    pub(crate) fn transfer(
        &mut self,
        base: &mut Base,
        from: EndId,
        queue: &mut Outgoing,
    ) -> io::Result<usize> {
        let end = &self.ends[from];
        if !end.medium.has_output() {
            return Err(error::os(error::BAD_DESCRIPTOR));
        }
        let other = match (end.failed, end.shut, end.other) {
            (Some(number), ..) => return Err(error::os(number)),
            (None, true, _) => return Err(error::os(error::BROKEN_PIPE)),
            (None, false, None) => return Err(error::os(error::NOT_CONNECTED)),
            (None, false, Some(other)) => other,
        };
        let there = &self.ends[other];
        let window = base.links.of(end.host, there.host).window_bytes.max(1);
        let mut left = window.saturating_sub(there.wire_bytes + there.input_bytes).min(queue.len());
        left = left.min(base.engines.options.send_bytes_max);
        if left > 1 && base.faults.draw_visible(Kind::PartialSend) {
            left = base.faults.chance.up_to(left - 1);
        }
        let count = left;
        while left > 0 {
            let front = queue.front();
            let len = front.len().min(left).min(PACKET_MAX);
            let segment = self.segment_of(base, from, &front[..len]);
            queue.advance(len);
            left -= len;
            self.put(base, from, Packet::Data(segment));
        }
        if count > 0 && self.ends[from].medium.is_socket() && base.faults.draw_fault(Kind::Reset) {
            self.break_both(base, from, other);
        }
        Ok(count)
    }

    /// Copies a packet's bytes, at most [`PACKET_MAX`], into a segment.
    #[inline]
    pub(crate) fn segment_of(&mut self, base: &mut Base, from: EndId, bytes: &[u8]) -> Segment {
        let mut buffer = self.buffers.take(bytes.len());
        buffer[..bytes.len()].copy_from_slice(bytes);
        base.record.digest.number(u64::from(from.number()) << 8 | 0x5e);
        base.record.digest.bytes(bytes);
        let mut segment = Segment::of(buffer, bytes.len());
        segment.sent = base.now();
        segment
    }

    /// Resets a connection from the network, for both ends.
    fn break_both(&mut self, base: &mut Base, one: EndId, other: EndId) {
        for (end, peer) in [(one, other), (other, one)] {
            self.ends[end].by_fault = Some(Kind::Reset);
            self.put(base, peer, Packet::Reset);
        }
    }

    /// Sends an engine's output, now or as soon as there is room.
    pub(crate) fn send(&mut self, base: &mut Base, from: EndId, mut queue: Box<Outgoing>) -> Option<Sent> {
        let is_late = !queue.is_empty() && base.faults.draw_fault(Kind::LateSend);
        let result = if is_late { Ok(0) } else { self.transfer(base, from, &mut queue) };
        if !matches!(result, Ok(0)) || queue.is_empty() {
            if !base.engines.options.acknowledges_late {
                return Some(Sent { queue, result });
            }
            self.ends[from].sent = Some(Sent { queue, result });
            self.look_at_end(base, from);
            return None;
        }
        self.ends[from].parked = Some(queue);
        if is_late {
            base.faults.tally.observe(Kind::LateSend);
            let at = base.now() + base.faults.draw_lateness();
            self.ends[from].room_due = true;
            base.clock.schedule(at, Scheduled::Room { end: from });
        }
        None
    }

    /// Retries a waiting send of an end that notices room.
    pub(crate) fn room_again(&mut self, base: &mut Base, at: EndId) {
        if !self.ends.is_alive(at) {
            return;
        }
        self.ends[at].room_due = false;
        let Some(mut queue) = self.ends[at].parked.take() else { return self.look_at_end(base, at) };
        let result = self.transfer(base, at, &mut queue);
        if matches!(result, Ok(0)) {
            self.ends[at].parked = Some(queue);
        } else {
            self.ends[at].sent = Some(Sent { queue, result });
            self.look_at_end(base, at);
        }
    }

    /// Schedules an event for a sender that waits for room, one latency after a read.
    pub(crate) fn freed(&mut self, base: &mut Base, reader: EndId) {
        let end = &self.ends[reader];
        let (Some(other), host) = (end.other, end.host) else { return };
        let sender = &self.ends[other];
        if sender.waits_for_room() && !sender.room_due {
            let there = sender.host;
            let at = base.arrival(host, there);
            self.ends[other].room_due = true;
            base.clock.schedule(at, Scheduled::Room { end: other });
        }
    }
}

pub(crate) const SECOND: u64 = 1_000_000_000;
