//! The table of an adapter: what it knows of each key, by slot.
//!
//! An idle connection costs one entry of 32 bytes, so the table grows by an eighth and not to the double.

use session::Outgoing;

use crate::{
    engine::{
        Interest, Medium, Source,
        held::{Held, Part},
    },
    growth::reach,
    id::Key,
    sys,
};

/// What is registered under one key.
pub(super) struct Entry {
    /// Whose entry it is: another key of the same slot is another life.
    pub(super) key: Key,
    pub(super) held: Held,
    /// A send that waits until there is room.
    pub(super) parked: Option<Box<Outgoing>>,
    /// The system's number of the error that a send ended with, zero for none.
    pub(super) failed: i32,
    bits: u16,
    pub(super) part: Part,
    /// What the transport can do.
    pub(super) medium: Medium,
}

/// One fact about an entry.
#[derive(Clone, Copy)]
pub(super) struct Bit(u16);

/// Input is wanted.
pub(super) const READING: Bit = Bit(1 << 0);
/// There may be input: holds until an operation said otherwise.
pub(super) const READABLE: Bit = Bit(1 << 1);
/// There may be room: holds until an operation said otherwise.
pub(super) const WRITABLE: Bit = Bit(1 << 2);
/// A hang-up or an error was reported: a short read does not mean that nothing is left.
pub(super) const HANGUP: Bit = Bit(1 << 3);
/// The end or the failure of the read side was told.
pub(super) const ENDED: Bit = Bit(1 << 4);
/// The key is on the list of what is driven again.
pub(super) const QUEUED: Bit = Bit(1 << 5);
/// The key is on the list of those whose interest may have changed.
pub(super) const CHANGED: Bit = Bit(1 << 6);
const IN_POLL_READ: Bit = Bit(1 << 7);
const IN_POLL_WRITE: Bit = Bit(1 << 8);
/// Room is waited for: by datagrams that were left in the queue, or by who writes past the engine.
pub(super) const BLOCKED: Bit = Bit(1 << 9);
/// Of datagrams: what `sys` told of the socket.
pub(super) const IS_UNIX: Bit = Bit(1 << 10);
pub(super) const TOGETHER: Bit = Bit(1 << 11);

impl Entry {
    pub(super) fn new(key: Key, held: Held, part: Part) -> Entry {
        Entry { key, held, parked: None, failed: 0, bits: 0, part, medium: Medium::SOCKET }
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

    /// What the poll watches it for now.
    pub(super) fn in_poll(&self) -> Option<Interest> {
        Interest::from_parts(self.has(IN_POLL_READ), self.has(IN_POLL_WRITE))
    }

    /// Notes what the poll watches it for.
    pub(super) fn set_in_poll(&mut self, interest: Option<Interest>) {
        self.set(IN_POLL_READ, interest.is_some_and(Interest::is_read));
        self.set(IN_POLL_WRITE, interest.is_some_and(Interest::is_write));
    }

    /// What a level-triggered poll should watch it for.
    pub(super) fn wanted(&self) -> Option<Interest> {
        match self.part {
            Part::Watched => self.in_poll(),
            Part::Listener => Interest::from_parts(self.has(READING), false),
            Part::Connecting => Some(Interest::Write),
            Part::Stream => {
                let is_full = self.parked.is_some() || self.has(BLOCKED);
                Interest::from_parts(self.has(READING) && !self.has(ENDED), is_full)
            }
            Part::Refused => None,
            Part::Datagrams => Interest::from_parts(self.has(READING) && !self.has(ENDED), self.has(BLOCKED)),
        }
    }

    /// The transport's descriptor, unless it is a user's resource.
    #[inline]
    pub(super) fn owned(&self) -> Option<&sys::Owned> {
        match &self.held {
            Held::Owned(descriptor) => Some(descriptor),
            Held::Watched(_) => None,
        }
    }

    /// Whether the source is another one than that which is watched.
    pub(super) fn is_exchanged(&self, source: Source<'_>) -> bool {
        self.with_source(|watched| watched.identity() != source.identity())
    }

    /// Calls `tell` with the source, for a poll.
    pub(super) fn with_source<T>(&self, tell: impl FnOnce(Source<'_>) -> T) -> T {
        match &self.held {
            Held::Owned(descriptor) => tell(Source::of(descriptor)),
            Held::Watched(watched) => watched.with(tell),
        }
    }
}

/// All entries, by slot.
#[derive(Default)]
pub(super) struct Table(Vec<Option<Entry>>);

impl Table {
    /// Whether the key's slot is free.
    pub(super) fn is_vacant(&self, key: Key) -> bool {
        self.0.get(key.slot()).is_none_or(Option::is_none)
    }

    /// The entry, if the key is alive.
    #[inline]
    pub(super) fn get(&self, key: Key) -> Option<&Entry> {
        self.0.get(key.slot())?.as_ref().filter(|entry| entry.key == key)
    }

    /// The entry, to be changed.
    #[inline]
    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Entry> {
        self.0.get_mut(key.slot())?.as_mut().filter(|entry| entry.key == key)
    }

    /// Stores an entry in its slot, which is vacant.
    pub(super) fn insert(&mut self, entry: Entry) -> &mut Entry {
        let slot = entry.key.slot();
        reach(&mut self.0, slot, || None);
        self.0[slot].insert(entry)
    }

    /// Whether another entry's descriptor has the same number. Looks at all: for a misuse.
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
        Entry::new(Key::new(slot, generation, 0), Held::Owned(file.into()), Part::Stream)
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
