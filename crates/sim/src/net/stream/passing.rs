//! Descriptors that pass over Unix links: an end that a resource reads and writes itself, and its messages.

use std::io::{self, IoSlice};

use reactor::{
    Address, Credentials, Descriptor, Interest, Key, Ready,
    engine::{Delivery, Event},
};

use crate::{
    engine::engines::ReadyItem,
    error,
    faults::Kind,
    ids::{EndId, EngineId, Id as _, ObjectId},
    net::buffer::PACKET_MAX,
    net::stream::{
        Streams,
        end::{Holder, Packet},
    },
    world::base::Base,
};

/// The interest of a resource in an end.
pub(crate) struct Watch {
    interest: Option<Interest>,
    /// Set once the end is connected.
    is_up: bool,
    /// Set once a hang-up without other readiness was reported. It is not reported again.
    hangup_delivered: bool,
}

/// The descriptors that accompany a segment.
pub(crate) struct PassedDescriptors(Vec<Descriptor>);

impl Watch {
    pub(crate) fn wants_room(&self) -> bool {
        self.interest.is_some_and(Interest::is_write)
    }
}

impl Streams {
    /// Watches an end for a resource, or changes the interest.
    pub(crate) fn watch_end(
        &mut self,
        base: &mut Base,
        object: ObjectId,
        owner: (EngineId, Key),
        interest: Option<Interest>,
    ) -> io::Result<EndId> {
        let at = self.ends.of(object)?;
        let end = &mut self.ends[at];
        if end.owner.is_some_and(|other| other != owner) {
            return Err(error::os(error::EXISTS));
        }
        if matches!(end.local, Address::Ip(_)) || !end.medium.is_socket() {
            return Err(error::os(error::INVALID));
        }
        let before = end.watch.take();
        let is_up = before.map_or(end.other.is_some() && end.connected.is_none(), |before| before.is_up);
        end.watch = Some(Watch { interest, is_up, hangup_delivered: false });

        if end.owner.replace(owner).is_none() {
            end.queued = false;
        }
        self.look_at_end(base, at);
        Ok(at)
    }

    /// Forgets the watcher of an end. The transport closes the end.
    pub(crate) fn unwatch_end(&mut self, at: EndId) {
        if self.ends.is_alive(at) {
            let end = &mut self.ends[at];
            (end.owner, end.watch, end.queued) = (None, None, false);
        }
    }

    /// Returns the readiness of a watched end.
    fn ready_of(&self, base: &Base, at: EndId) -> Option<Ready> {
        let end = &self.ends[at];
        let watch = end.watch.as_ref()?;
        let interest = watch.interest?;
        let is_up = watch.is_up || end.connected == Some(0);
        let ready = Ready {
            readable: !end.input.is_empty() || end.finished || end.broken.is_some(),
            writable: is_up && end.failed.is_none() && self.room_of(base, at) > 0,
            hangup: end.finished || end.broken.is_some(),
            error: end.failed.is_some(),
        };
        let ready = ready.masked(interest);
        let is_silent = !(ready.readable || ready.writable);
        (ready != Ready::default() && !(is_silent && watch.hangup_delivered)).then_some(ready)
    }

    /// Queues a watched end for its engine if it is ready after a change.
    pub(crate) fn look_at_watched(&mut self, base: &mut Base, at: EndId) {
        let is_ready = self.ready_of(base, at).is_some();
        let end = &mut self.ends[at];
        if let (true, Some((engine, _))) = (is_ready, end.owner) {
            end.queued = true;
            let item = ReadyItem::End(at);
            base.mark_ready(engine, item);
        }
    }

    /// Returns how many bytes the peer has room for.
    fn room_of(&self, base: &Base, at: EndId) -> usize {
        let end = &self.ends[at];
        let Some(there) = end.other.map(|other| &self.ends[other]) else { return 0 };
        let window = base.links.of(end.host, there.host).window_bytes.max(1);
        window.saturating_sub(there.wire_bytes + there.input_bytes)
    }

    /// Returns the event of a watched end. It is level-triggered, so it repeats while it holds.
    pub(crate) fn watched_event(&mut self, base: &mut Base, at: EndId) -> Option<Event> {
        let end = &mut self.ends[at];
        if let (Some(watch), Some(error)) = (&mut end.watch, end.connected.take()) {
            watch.is_up |= error == 0;
            if error != 0 {
                end.broken = Some(error);
            }
        }
        let ready = self.ready_of(base, at)?;
        if let Some(watch) = &mut self.ends[at].watch {
            watch.hangup_delivered = !(ready.readable || ready.writable);
        }
        self.look_at_end(base, at);
        Some(Event::Ready(ready))
    }

    /// Sends bytes from a watched end, and descriptors with the first byte.
    pub(crate) fn pass(
        &mut self,
        base: &mut Base,
        object: ObjectId,
        bytes: &[IoSlice<'_>],
        with: &mut Vec<Descriptor>,
    ) -> io::Result<usize> {
        let from = self.ends.of(object)?;
        let end = &self.ends[from];
        let is_up = end.watch.as_ref().is_none_or(|watch| watch.is_up);
        let other = match (end.failed, end.shut, end.other) {
            _ if with.len() > PASSED_MAX => return Err(error::os(error::INVALID)),
            (Some(number), ..) => return Err(error::os(number)),
            (None, true, _) => return Err(error::os(error::BROKEN_PIPE)),
            (None, false, Some(other)) if is_up => other,
            (None, false, _) => return Err(error::os(error::AGAIN)),
        };
        // A Unix socket notices at once that its peer is gone.
        if self.ends[other].holder == Holder::Nobody {
            return Err(error::os(error::BROKEN_PIPE));
        }
        let mut left = bytes.iter().map(|part| part.len()).sum::<usize>().min(self.room_of(base, from));
        if left == 0 {
            return Err(error::os(error::AGAIN));
        }
        left = left.min(base.engines.options.send_bytes_max);
        if left > 1 && base.faults.draw_visible(Kind::PartialSend) {
            left = base.faults.chance.up_to(left - 1);
        }
        let taken = left;
        base.record.digest.number(u64::from(from.number()) << 24 | (with.len() as u64) << 8 | 0x5d);
        for part in bytes {
            for piece in part[..part.len().min(left)].chunks(PACKET_MAX) {
                let mut segment = self.segment_of(base, from, piece);
                segment.with = (!with.is_empty()).then(|| Box::new(PassedDescriptors(std::mem::take(with))));
                left -= piece.len();
                self.put(base, from, Packet::Data(segment));
            }
        }
        Ok(taken)
    }

    /// Receives at a watched end as recvmsg(2) does: bytes up to the next descriptors, and the descriptors
    /// with their own bytes.
    pub(crate) fn receive(
        &mut self,
        base: &mut Base,
        object: ObjectId,
        into: &mut [u8],
    ) -> io::Result<Delivery> {
        let at = self.ends.of(object)?;
        let mut room = into.len().min(base.engines.options.buffer_bytes);
        if room > 1 && self.ends[at].input_bytes > 1 && base.faults.draw_visible(Kind::TinyRead) {
            room = base.faults.chance.up_to(room.min(self.ends[at].input_bytes) - 1);
        }
        let mut got = Delivery { bytes: 0, descriptors: Vec::new(), is_cut: false, truncated: false };
        while got.bytes < room && got.descriptors.is_empty() {
            let Some(mut segment) = self.ends[at].input.pop_front() else { break };
            let count = segment.len().min(room - got.bytes);
            let bytes = &segment.buffer[segment.start..segment.start + count];
            into[got.bytes..got.bytes + count].copy_from_slice(bytes);
            got.descriptors = segment.with.take().map_or(Vec::new(), |passed| passed.0);
            (got.bytes, segment.start) = (got.bytes + count, segment.start + count);
            if segment.len() > 0 {
                self.ends[at].input.push_front(segment);
            } else {
                self.buffers.give(segment.buffer);
            }
        }
        if got.bytes > 0 {
            self.ends[at].input_bytes -= got.bytes;
            self.freed(base, at);
            if !got.descriptors.is_empty() && base.faults.draw_visible(Kind::AcceptFails) {
                (got.descriptors, got.is_cut) = (Vec::new(), true);
            }
            base.record
                .digest
                .number(u64::from(at.number()) << 24 | (got.descriptors.len() as u64) << 8 | 0x5f);
            base.record.digest.bytes(&into[..got.bytes]);
            return Ok(got);
        }
        let end = &self.ends[at];
        match (end.broken, end.finished) {
            _ if into.is_empty() => Ok(got),
            (Some(number), _) => Err(error::os(number)),
            (None, true) => Ok(got),
            (None, false) => Err(error::os(error::AGAIN)),
        }
    }

    /// Returns the credentials of the peer of a Unix link: those of the engine that connected or listened.
    pub(crate) fn credentials_of_peer(&self, at: EndId) -> io::Result<Credentials> {
        let end = &self.ends[at];
        let other = end.other.map(|other| &self.ends[other]);
        match (&end.local, other) {
            (Address::Ip(_), _) => Err(io::ErrorKind::Unsupported.into()),
            (_, None) => Err(error::os(error::NOT_CONNECTED)),
            (_, Some(other)) => {
                let process = other.maker.map(|engine| engine.number() + PROCESS_FIRST);
                Ok(Credentials { process, user: USER, group: USER })
            }
        }
    }
}

/// Linux's SCM_MAX_FD: the most descriptors in one message.
const PASSED_MAX: usize = 253;
/// The first number of processes that are not children, and the owner of all processes.
const PROCESS_FIRST: u32 = 1;
const USER: u32 = 1000;
