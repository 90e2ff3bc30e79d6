//! Virtual sources: the basis of a user's resource in a world without descriptors.

use std::{collections::VecDeque, io};

use reactor::{
    Key,
    engine::{Event, Interest, Outgoing, Ready},
};

use crate::{
    engine::engines::ReadyItem,
    error,
    faults::Kind,
    ids::{EngineId, Slots, SourceId},
    world::base::Base,
};

/// The state of one virtual source.
#[derive(Default)]
pub(crate) struct SourceState {
    pub(crate) input: VecDeque<u8>,
    /// The lengths of the input's records, if a read takes whole records.
    pub(crate) records: Option<VecDeque<usize>>,
    /// The source at the other end of a line. The output of one is the input of the other.
    pub(crate) peer: Option<SourceId>,
    pub(crate) ended: bool,
    pub(crate) failed: Option<i32>,
    pub(crate) output: Vec<u8>,
    pub(crate) room: usize,
    /// `watcher` and `interest`: the engine and key that watch it, and for which events. `queued`: the engine
    /// whose ready list has it, which may be gone.
    pub(crate) watcher: Option<(EngineId, Key)>,
    pub(crate) interest: Option<Interest>,
    queued: Option<EngineId>,
    /// Set if an injected fault reports it as ready although it is not.
    is_lie: bool,
    /// Set once a hang-up without other readiness was reported. It is not reported again.
    pub(crate) hangup_delivered: bool,
}

impl SourceState {
    /// Returns the readiness to report, limited to the interest.
    pub(crate) fn ready(&self) -> Option<Ready> {
        let interest = self.interest?;
        let ready = Ready {
            readable: !self.input.is_empty() || self.ended,
            writable: self.room > 0,
            hangup: self.ended,
            error: self.failed.is_some(),
        };
        let ready = ready.masked(interest);
        let is_silent = !(ready.readable || ready.writable);
        (ready != Ready::default() && !(is_silent && self.hangup_delivered)).then_some(ready)
    }

    /// Returns the number of bytes for a read, which takes only whole records.
    fn take_count(&mut self, most: usize) -> io::Result<usize> {
        let Some(records) = &mut self.records else { return Ok(self.input.len().min(most)) };
        let mut count = 0;
        while let Some(length) = records.front().copied().filter(|length| count + length <= most) {
            count += length;
            records.pop_front();
        }
        if count == 0 && !records.is_empty() { Err(error::os(error::INVALID)) } else { Ok(count) }
    }

    /// Takes the output, for the source at the other end.
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Gives it unlimited room for output.
    #[cfg(unix)]
    pub(crate) fn allow_all(&mut self) {
        self.room = usize::MAX;
    }

    /// Adds input.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.input.extend(bytes);
        self.hangup_delivered = false;
    }

    /// Makes room for the bytes that the source at the other end has read.
    pub(crate) fn make_room(&mut self, bytes: usize) {
        self.room += bytes;
    }

    /// Offers each record of the input to `merge`, and then `None` for a new record. Stores the first result
    /// that is `Some`, and stops.
    #[cfg(unix)]
    pub(crate) fn merge_record<const N: usize>(
        &mut self,
        merge: impl Fn(Option<[u8; N]>) -> Option<[u8; N]>,
    ) {
        let input = self.input.make_contiguous();
        for record in input.chunks_exact_mut(N) {
            let pending = <[u8; N]>::try_from(&*record).expect("a chunk is as long as asked for");
            if let Some(changed) = merge(Some(pending)) {
                record.copy_from_slice(&changed);
                return;
            }
        }
        if let Some(new) = merge(None) {
            self.put(&new);
        }
    }

    pub(crate) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.take_count(into.len())?;
        match (count, self.failed) {
            (0, Some(number)) => Err(error::os(number)),
            (0, None) if !self.ended && !into.is_empty() => Err(error::os(error::AGAIN)),
            _ => {
                for (to, byte) in into.iter_mut().zip(self.input.drain(..count)) {
                    *to = byte;
                }
                Ok(count)
            }
        }
    }

    /// Adds the last input, and ends it.
    #[cfg(unix)]
    pub(crate) fn finish(&mut self, last: &[u8]) {
        self.input.extend(last);
        (self.ended, self.hangup_delivered) = (true, false);
    }

    pub(crate) fn write(&mut self, from: &Outgoing) -> io::Result<usize> {
        let front = from.front();
        let count = self.room.min(front.len());
        match (count, self.failed) {
            (_, Some(number)) => Err(error::os(number)),
            (0, None) if !front.is_empty() => Err(error::os(error::AGAIN)),
            _ => {
                self.output.extend_from_slice(&front[..count]);
                self.room -= count;
                Ok(count)
            }
        }
    }
}

/// All virtual sources. One that has gone cannot be read or written (EBADF).
#[derive(Default)]
pub(crate) struct Sources {
    all: Slots<SourceId, SourceState>,
}

impl Sources {
    /// Makes an open source, with nothing to read and no room for output.
    pub(crate) fn add(&mut self) -> SourceId {
        self.all.push(SourceState::default())
    }

    pub(crate) fn remove(&mut self, id: SourceId) {
        self.all.take(id);
    }

    pub(crate) fn get_mut(&mut self, id: SourceId) -> io::Result<&mut SourceState> {
        self.all.get_mut(id).ok_or_else(|| error::os(error::BAD_DESCRIPTOR))
    }

    /// Returns the number of sources that an engine watches.
    pub(crate) fn watched(&self) -> usize {
        self.all.iter().filter(|(_, source)| source.watcher.is_some()).count()
    }

    /// Changes a source, if it still exists, and reports what it is ready for now.
    pub(crate) fn change<T>(
        &mut self,
        base: &mut Base,
        id: SourceId,
        change: impl FnOnce(&mut SourceState) -> T,
    ) -> Option<T> {
        let source = self.all.get_mut(id)?;
        let result = change(source);
        self.look_at(base, id);
        Some(result)
    }

    /// Watches a source for an engine, or changes the interest.
    pub(crate) fn watch(
        &mut self,
        base: &mut Base,
        id: SourceId,
        watcher: (EngineId, Key),
        interest: Option<Interest>,
    ) -> io::Result<()> {
        let source = self.get_mut(id)?;
        if source.watcher.is_some_and(|other| other != watcher) {
            return Err(error::os(error::EXISTS));
        }
        (source.watcher, source.interest, source.hangup_delivered) = (Some(watcher), interest, false);
        self.look_at(base, id);
        Ok(())
    }

    /// Forgets the watcher of a source.
    pub(crate) fn unwatch(&mut self, id: SourceId) {
        if let Some(source) = self.all.get_mut(id) {
            (source.watcher, source.interest) = (None, None);
        }
    }

    pub(crate) fn read(&mut self, base: &mut Base, id: SourceId, into: &mut [u8]) -> io::Result<usize> {
        let count = self.get_mut(id)?.read(into)?;
        base.record.digest.bytes(&into[..count]);
        self.was_read(base, id, count);
        Ok(count)
    }

    pub(crate) fn write(&mut self, base: &mut Base, id: SourceId, from: &Outgoing) -> io::Result<usize> {
        let count = self.get_mut(id)?.write(from)?;
        base.record.digest.bytes(&from.front()[..count]);
        self.was_written(base, id);
        Ok(count)
    }

    /// Checks a virtual source after a change, and queues it if it is ready.
    fn look_at(&mut self, base: &mut Base, id: SourceId) {
        let Some(source) = self.all.get_mut(id) else { return };
        let Some((engine, _)) = source.watcher.filter(|(engine, _)| source.queued != Some(*engine)) else {
            return;
        };
        let is_ready = source.ready().is_some();
        let may_lie = source.interest.is_some();
        if is_ready || may_lie && base.faults.draw_fault(Kind::SpuriousReady) {
            if let Some(source) = self.all.get_mut(id) {
                (source.queued, source.is_lie) = (Some(engine), !is_ready);
            }
            base.mark_ready(engine, ReadyItem::Source(id));
        }
    }

    fn peer_of(&mut self, id: SourceId) -> Option<(SourceId, &mut SourceState)> {
        let peer = self.all.get(id)?.peer?;
        Some((peer, self.all.get_mut(peer)?))
    }

    /// Notes a read from a virtual source. On a line, the peer gets room for as many bytes.
    fn was_read(&mut self, base: &mut Base, id: SourceId, count: usize) {
        let Some((peer, source)) = self.peer_of(id) else { return };
        source.make_room(count);
        self.look_at(base, peer);
    }

    /// Notes a write to a virtual source. On a line, the bytes arrive at the other end.
    fn was_written(&mut self, base: &mut Base, id: SourceId) {
        let source = self.all.get_mut(id);
        let Some(bytes) = source.filter(|source| source.peer.is_some()).map(SourceState::take_output) else {
            return;
        };
        let Some((peer, source)) = self.peer_of(id) else { return };
        source.put(&bytes);
        self.look_at(base, peer);
    }

    /// Returns the event of a virtual source, if it has one.
    pub(crate) fn event(&mut self, base: &mut Base, id: SourceId, engine: EngineId) -> Option<(Key, Event)> {
        let source = self.all.get_mut(id)?;
        if source.queued != Some(engine) {
            return None;
        }
        source.queued = None;
        let is_lie = std::mem::take(&mut source.is_lie);
        let (_, key) = source.watcher.filter(|(watcher, _)| *watcher == engine)?;
        let interest = source.interest?;
        let Some(ready) = source.ready() else {
            if !is_lie {
                return None;
            }
            base.faults.tally.observe(Kind::SpuriousReady);
            let ready =
                Ready { readable: interest.is_read(), writable: interest.is_write(), ..Ready::default() };
            return Some((key, Event::Ready(ready)));
        };
        // Readiness is level-triggered, so the event repeats while it holds. A hang-up is reported once,
        // because no operation can end it.
        if ready.readable || ready.writable {
            source.queued = Some(engine);
            base.mark_ready(engine, ReadyItem::Source(id));
        } else {
            source.hangup_delivered = true;
        }
        Some((key, Event::Ready(ready)))
    }
}
