//! The adapter's table: its state for each key, by slot.
//!
//! An idle connection costs one entry of 32 bytes, so the table grows by an eighth instead of doubling.

use session::Outgoing;

use crate::{
    engine::{
        Interest, Medium, Rest, Source,
        entry::{EntryKind, Ownership},
    },
    growth::reach,
    id::Key,
    sys,
};

/// The state of one key.
pub(super) struct Entry {
    /// The key of the entry. Another key of the same slot is another life.
    pub(super) key: Key,
    pub(super) descriptor: Ownership,
    /// A send that waits for room.
    pub(super) parked: Option<Box<Outgoing>>,
    bits: u32,
    /// The number of an error that the system reported once and will not report again, or zero.
    pub(super) failed: u16,
    pub(super) kind: EntryKind,
    /// The abilities of the transport.
    pub(super) medium: Medium,
}

/// One fact about an entry.
#[derive(Clone, Copy)]
pub(super) struct Bit(u32);

/// The runtime wants input.
pub(super) const READING: Bit = Bit(1 << 0);
/// There may be input. Holds until an operation shows otherwise.
pub(super) const READABLE: Bit = Bit(1 << 1);
/// There may be room. Holds until an operation shows otherwise.
pub(super) const WRITABLE: Bit = Bit(1 << 2);
/// The poll reported a hang-up or an error, so a short read does not mean that nothing is left.
pub(super) const HANGUP: Bit = Bit(1 << 3);
/// The adapter has reported the end or the failure of the read side.
pub(super) const ENDED: Bit = Bit(1 << 4);
/// The key is in the resume queue.
pub(super) const QUEUED: Bit = Bit(1 << 5);
/// The key is on the list of keys whose interest may have changed.
pub(super) const CHANGED: Bit = Bit(1 << 6);
const IN_POLL_READ: Bit = Bit(1 << 7);
const IN_POLL_WRITE: Bit = Bit(1 << 8);
/// Something waits for room: datagrams left in the queue, or a caller that writes past the engine.
pub(super) const BLOCKED: Bit = Bit(1 << 9);
/// For datagrams: the facts about the socket.
pub(super) const IS_UNIX: Bit = Bit(1 << 10);
pub(super) const TOGETHER: Bit = Bit(1 << 11);
/// The poll reported an error, and no look has dealt with it.
pub(super) const FAILED: Bit = Bit(1 << 12);
/// For a stream at rest, which the engine does not read: a look found input.
pub(super) const AHEAD: Bit = Bit(1 << 13);
/// For a stream at rest: the adapter has reported the hang-up. From then on only a failure is news.
pub(super) const REPORTED_END: Bit = Bit(1 << 14);
/// For a stream at rest: the adapter has reported the failure, or can learn nothing more.
pub(super) const REPORTED_ALL: Bit = Bit(1 << 15);
const IN_POLL_REST: Bit = Bit(1 << 16);
const IN_POLL_ENDS: Bit = Bit(1 << 17);

/// How a poll watches an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Watching {
    Nothing,
    For(Interest),
    /// A level-triggered poll, for hang-ups.
    Rest(Rest),
}

impl From<Option<Interest>> for Watching {
    fn from(interest: Option<Interest>) -> Watching {
        interest.map_or(Watching::Nothing, Watching::For)
    }
}

impl Entry {
    pub(super) fn new(key: Key, descriptor: Ownership, kind: EntryKind) -> Entry {
        Entry { key, descriptor, parked: None, failed: 0, bits: 0, kind, medium: Medium::SOCKET }
    }

    #[inline]
    pub(super) fn has(&self, bit: Bit) -> bool {
        self.bits & bit.0 != 0
    }

    #[inline]
    pub(super) fn set(&mut self, bit: Bit, on: bool) {
        if on {
            self.bits |= bit.0;
        } else {
            self.bits &= !bit.0;
        }
    }

    /// Returns the interest that the poll has now. `None` if it watches for hang-ups alone.
    pub(super) fn in_poll(&self) -> Option<Interest> {
        Interest::from_parts(self.has(IN_POLL_READ), self.has(IN_POLL_WRITE))
    }

    /// Returns how the poll watches the entry now.
    pub(super) fn watching(&self) -> Watching {
        match self.has(IN_POLL_REST) {
            true => Watching::Rest(Rest { room: self.has(IN_POLL_WRITE), ends: self.has(IN_POLL_ENDS) }),
            false => self.in_poll().into(),
        }
    }

    /// Records how the poll watches the entry.
    pub(super) fn set_watching(&mut self, watching: Watching) {
        let (read, write, rest, ends) = match watching {
            Watching::Nothing => (false, false, false, false),
            Watching::For(interest) => (interest.is_read(), interest.is_write(), false, false),
            Watching::Rest(rest) => (false, rest.room, true, rest.ends),
        };
        self.set(IN_POLL_READ, read);
        self.set(IN_POLL_WRITE, write);
        self.set(IN_POLL_REST, rest);
        self.set(IN_POLL_ENDS, ends);
    }

    /// Returns how a level-triggered poll should watch the entry. `reports_ends`: the poll distinguishes an end
    /// from input.
    pub(super) fn wanted(&self, reports_ends: bool) -> Watching {
        let is_read = self.has(READING) && !self.has(ENDED);
        match self.kind {
            EntryKind::Watched => self.watching(),
            EntryKind::Listener => Interest::from_parts(self.has(READING), false).into(),
            EntryKind::Connecting => Watching::For(Interest::Write),
            EntryKind::Stream => {
                let is_full = self.parked.is_some() || self.has(BLOCKED);
                if is_read || self.has(ENDED) || self.has(REPORTED_ALL) {
                    Interest::from_parts(is_read, is_full).into()
                } else if reports_ends || self.has(AHEAD) {
                    Watching::Rest(Rest { room: is_full, ends: reports_ends && !self.has(REPORTED_END) })
                } else {
                    Interest::from_parts(true, is_full).into()
                }
            }
            EntryKind::Refused => Watching::Nothing,
            EntryKind::Datagrams => Interest::from_parts(is_read, self.has(BLOCKED)).into(),
        }
    }

    /// Returns the transport's descriptor. `None` for a user's resource.
    #[inline]
    pub(super) fn owned(&self) -> Option<&sys::Owned> {
        match &self.descriptor {
            Ownership::Owned(descriptor) => Some(descriptor),
            Ownership::Watched(_) => None,
        }
    }

    /// Returns whether the source is not the watched one.
    pub(super) fn is_exchanged(&self, source: Source<'_>) -> bool {
        self.with_source(|watched| watched.identity() != source.identity())
    }

    /// Calls `tell` with the source, for a poll.
    pub(super) fn with_source<T>(&self, read: impl FnOnce(Source<'_>) -> T) -> T {
        match &self.descriptor {
            Ownership::Owned(descriptor) => read(Source::of(descriptor)),
            Ownership::Watched(watched) => watched.with(read),
        }
    }
}

/// All entries, by slot.
#[derive(Default)]
pub(super) struct Table(Vec<Option<Entry>>);

impl Table {
    /// Returns whether the key's slot is free.
    pub(super) fn is_vacant(&self, key: Key) -> bool {
        self.0.get(key.slot()).is_none_or(Option::is_none)
    }

    /// Returns the entry, if the key is alive.
    #[inline]
    pub(super) fn get(&self, key: Key) -> Option<&Entry> {
        self.0.get(key.slot())?.as_ref().filter(|entry| entry.key == key)
    }

    /// Returns the mutable entry, if the key is alive.
    #[inline]
    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Entry> {
        self.0.get_mut(key.slot())?.as_mut().filter(|entry| entry.key == key)
    }

    /// Stores an entry in its slot, which must be vacant.
    pub(super) fn insert(&mut self, entry: Entry) -> &mut Entry {
        let slot = entry.key.slot();
        reach(&mut self.0, slot, || None);
        self.0[slot].insert(entry)
    }

    /// Returns whether the descriptor of another entry has the same number. Scans the whole table, so it is
    /// only for a misuse.
    pub(super) fn is_shared(&self, entry: &Entry) -> bool {
        let others = self.0.iter().flatten().filter(|other| other.key != entry.key);
        others.into_iter().any(|other| other.with_source(|source| !entry.is_exchanged(source)))
    }

    /// Takes the entry out, if the key is alive.
    pub(super) fn remove(&mut self, key: Key) -> Option<Entry> {
        self.0.get_mut(key.slot())?.take_if(|entry| entry.key == key)
    }
}

#[cfg(unix)]
const _: () = assert!(size_of::<Option<Entry>>() <= 32, "an idle connection is cheap");

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn entry(slot: u32, generation: u32) -> Entry {
        let file = std::fs::File::open("/dev/null").expect("it opens");
        Entry::new(Key::new(slot, generation, 0), Ownership::Owned(file.into()), EntryKind::Stream)
    }

    #[test]
    fn a_stale_key_misses() {
        let mut table = Table::default();
        let (old, new) = (Key::new(3, 0, 0), Key::new(3, 1, 0));
        table.insert(entry(3, 0));
        assert!(!table.is_vacant(new) && table.get(new).is_none() && table.remove(new).is_none());
        assert!(table.remove(old).is_some() && table.is_vacant(new));
        table.insert(entry(3, 1));
        assert!(table.get_mut(old).is_none());
        assert!(table.get(old).is_none() && table.remove(old).is_none() && table.get_mut(new).is_some());
    }
}
