//! The engine's table: its state for each descriptor, for as long as the kernel uses it.
//!
//! A runtime's slot may be free while an operation of its last life is still in flight. So entries have
//! separate indexes, by which completions name them, and a second table leads from a key to its entry. An
//! idle connection costs 44 bytes. Both tables grow by an eighth instead of doubling.

use std::os::fd::{AsRawFd as _, RawFd};

use io_uring::{opcode, squeue, types::Fd};
use session::Outgoing;

use super::{late::AT_ONCE, operation::LIFE_MAX};
use crate::{
    engine::{
        Interest, Medium,
        entry::{EntryKind, Ownership},
    },
    growth::{grow, reach},
    id::Key,
    sys,
};

/// The state of one descriptor.
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) descriptor: Ownership,
    /// A send that is in flight, or waits for the connect.
    pub(super) queue: Option<Box<Outgoing>>,
    /// Distinguishes this entry from the previous one at its index.
    pub(super) life: u32,
    /// For a stream: the system's number of the error that ended a send, or zero. For a listener: the number
    /// of passing errors of accepts in a row.
    pub(super) failed: u16,
    bits: u16,
    /// The last turn in which the stream handed input over, and the number of bytes. 65,535 also stands for
    /// 64 KiB and more.
    turn: u16,
    handed: u16,
    pub(super) kind: EntryKind,
    pub(super) input: InputState,
    pub(super) output: OutputState,
    /// The abilities of the transport.
    pub(super) medium: Medium,
}

/// The operation in flight for the input of an entry: accept, receive, or a wait for readiness. The wish is a
/// separate state, [`READING`]. The engine brings the two in step before each wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum InputState {
    /// Nothing.
    Idle,
    /// An operation that has many completions.
    Multishot,
    /// A wait for readiness.
    Polling,
    /// Either, being cancelled.
    Cancelled,
    /// Nothing now and ever again, because the end was reported.
    Ended,
}

/// The operation in flight for the output of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OutputState {
    /// Nothing.
    Idle,
    /// A send.
    Sending,
    /// A wait for room.
    Polling,
    /// Either, being cancelled.
    Cancelled,
}

/// One fact about an entry.
#[derive(Clone, Copy)]
pub(super) struct Bit(u16);

/// The runtime wants input.
pub(super) const READING: Bit = Bit(1 << 0);
/// The entry is on the list of those to bring in step, or in the line for a buffer.
pub(super) const LISTED: Bit = Bit(1 << 1);
/// The key is gone. The descriptor is closed when no operation is in flight.
pub(super) const CLOSING: Bit = Bit(1 << 2);
/// The transport is given back when no operation is in flight.
pub(super) const DETACHING: Bit = Bit(1 << 3);
/// The engine waits for input and then receives by a call, because the kernel does not do it by itself.
pub(super) const CALLED_INPUT: Bit = Bit(1 << 4);
/// The same for output.
pub(super) const CALLED_OUTPUT: Bit = Bit(1 << 5);
/// There was no shared buffer, so the next input is received by a call, once.
pub(super) const STARVED: Bit = Bit(1 << 6);
/// For a watched resource: it reported only a hang-up, and rests until it is watched again. For a stream at
/// rest, which the engine does not read: the engine has reported the hang-up, or can learn nothing more.
pub(super) const HUNG_UP: Bit = Bit(1 << 7);
/// Input came since it was last armed.
pub(super) const FED: Bit = Bit(1 << 8);
// The next four have a different meaning for each kind of entry.
/// For a watched resource: its interest.
const WANTS_READ: Bit = Bit(1 << 9);
const WANTS_WRITE: Bit = Bit(1 << 10);
/// For a stream: the kernel has reported a hang-up, and a failure that no look has dealt with.
pub(super) const SEEN_GONE: Bit = Bit(1 << 9);
pub(super) const SEEN_FAILED: Bit = Bit(1 << 10);
/// For datagrams: the facts about the socket.
pub(super) const IS_UNIX: Bit = Bit(1 << 11);
pub(super) const TOGETHER: Bit = Bit(1 << 12);
/// For a stream: a wait for its hang-up is in flight.
pub(super) const HANGUP_OUT: Bit = Bit(1 << 11);
/// A caller that writes past the engine waits for room.
pub(super) const AWAITED: Bit = Bit(1 << 13);
/// Some of its input is late.
pub(super) const LATE: Bit = Bit(1 << 14);
/// It received more than it may hand over at once, so the engine waits for its input and receives it by
/// calls.
pub(super) const GREEDY: Bit = Bit(1 << 15);

impl Entry {
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

    /// Records the abilities of the transport. If it is not a socket, the engine waits for it, and reads and
    /// writes by calls.
    pub(super) fn set_medium(&mut self, medium: Medium) {
        self.medium = medium;
        self.set(CALLED_INPUT, !medium.is_socket());
        self.set(CALLED_OUTPUT, !medium.is_socket());
        if medium.is_unwaited() {
            self.input = InputState::Ended;
        }
    }

    /// Lets the kernel read a pipe by itself after the first input, for which the engine waits. To a read, a
    /// named pipe without a writer looks like one whose writers have left.
    pub(super) fn read_by_kernel(&mut self) {
        self.set(CALLED_INPUT, false);
        self.set(STARVED, true);
    }

    /// Returns the interest in a user's resource.
    pub(super) fn interest(&self) -> Option<Interest> {
        Interest::from_parts(self.has(WANTS_READ), self.has(WANTS_WRITE))
    }

    pub(super) fn set_interest(&mut self, interest: Option<Interest>) {
        self.set(WANTS_READ, interest.is_some_and(Interest::is_read));
        self.set(WANTS_WRITE, interest.is_some_and(Interest::is_write));
    }

    /// Returns whether the stream may hand over this many bytes right now. If so, they count.
    #[inline]
    pub(super) fn hands_over(&mut self, turn: u16, bytes: usize) -> bool {
        if self.has(DETACHING) {
            // The engine reports all of it before the transport.
            return true;
        }
        self.bits & (READING.0 | LATE.0) == READING.0 && self.has_left(turn, bytes)
    }

    /// Returns whether this many bytes fit in the stream's share of this turn. If so, they count.
    #[inline]
    pub(super) fn has_left(&mut self, turn: u16, bytes: usize) -> bool {
        if self.turn != turn {
            (self.turn, self.handed) = (turn, 0);
        }
        let handed = usize::from(self.handed) + bytes;
        // A buffer that is larger than usual was requested by the options, and is handed over whole.
        let is_left = handed <= AT_ONCE || self.handed == 0;
        if is_left {
            self.handed = u16::try_from(handed).unwrap_or(u16::MAX);
        }
        is_left
    }

    /// Returns the descriptor's number, for an operation.
    #[inline]
    pub(super) fn number(&self) -> RawFd {
        match &self.descriptor {
            Ownership::Owned(descriptor) => descriptor.as_raw_fd(),
            Ownership::Watched(watched) => {
                watched.with(|source| source.descriptor().map_or(-1, |descriptor| descriptor.as_raw_fd()))
            }
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

    /// Builds the operation that waits for room, and records it as in flight.
    pub(super) fn poll_output(&mut self) -> squeue::Entry {
        self.output = OutputState::Polling;
        opcode::PollAdd::new(Fd(self.number()), libc::POLLOUT as u32).build()
    }

    /// Returns whether an operation is in flight.
    #[inline]
    pub(super) fn is_out(&self) -> bool {
        matches!(self.input, InputState::Multishot | InputState::Polling | InputState::Cancelled)
            || self.output != OutputState::Idle
            || self.kind == EntryKind::Stream && self.has(HANGUP_OUT)
    }
}

/// The name of an entry in the engine's own lists, which may outlive it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct EntryRef {
    pub(super) index: u32,
    pub(super) life: u32,
}

/// All entries.
#[derive(Default)]
pub(super) struct Table {
    entries: Vec<Option<Entry>>,
    /// Indexes without an entry.
    free: Vec<u32>,
    /// By the slot of the key: the index of the entry plus one, or zero for none.
    by_slot: Vec<u32>,
    lives: u32,
}

impl Table {
    /// Returns the index of the key's entry, if the key is alive.
    #[inline]
    pub(super) fn find(&self, key: Key) -> Option<u32> {
        let index = self.by_slot.get(key.slot())?.checked_sub(1)?;
        self.entries.get(index as usize)?.as_ref().filter(|entry| entry.key == key).map(|_| index)
    }

    /// Returns the entry of a key that is alive.
    #[inline]
    pub(super) fn of(&self, key: Key) -> Option<&Entry> {
        self.get(self.find(key)?)
    }

    /// Returns whether no key that is alive has the same slot.
    pub(super) fn is_vacant(&self, key: Key) -> bool {
        self.by_slot.get(key.slot()).is_none_or(|index| *index == 0)
    }

    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&Entry> {
        self.entries.get(index as usize)?.as_ref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Entry> {
        self.entries.get_mut(index as usize)?.as_mut()
    }

    /// Returns the entry of a list's place, if it is still the same.
    #[inline]
    pub(super) fn at(&mut self, place: EntryRef) -> Option<&mut Entry> {
        self.get_mut(place.index).filter(|entry| entry.life == place.life)
    }

    /// Adds an entry for a key whose slot is vacant.
    pub(super) fn insert(&mut self, key: Key, descriptor: Ownership, kind: EntryKind) -> u32 {
        self.lives = (self.lives + 1) & LIFE_MAX;
        let entry = Entry {
            key,
            descriptor,
            queue: None,
            life: self.lives,
            failed: 0,
            bits: 0,
            turn: 0,
            handed: 0,
            kind,
            input: InputState::Idle,
            output: OutputState::Idle,
            medium: Medium::SOCKET,
        };
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = self.entries.len();
                reach(&mut self.entries, index, || None);
                // One for each descriptor, and a process has at most 2^31 of them.
                index as u32
            }
        };
        self.entries[index as usize] = Some(entry);
        let slot = key.slot();
        reach(&mut self.by_slot, slot, || 0);
        self.by_slot[slot] = index + 1;
        index
    }

    /// Makes the key unknown. Its entry stays until it is removed.
    pub(super) fn forget(&mut self, key: Key) {
        if self.find(key).is_some() {
            self.by_slot[key.slot()] = 0;
        }
    }

    /// Takes an entry out. Its key may be forgotten already.
    pub(super) fn remove(&mut self, index: u32) -> Option<Entry> {
        let entry = self.entries.get_mut(index as usize)?.take()?;
        if self.by_slot.get(entry.key.slot()) == Some(&(index + 1)) {
            self.by_slot[entry.key.slot()] = 0;
        }
        if self.free.len() == self.free.capacity() {
            grow(&mut self.free, self.entries.len() / 8);
        }
        self.free.push(index);
        Some(entry)
    }

    /// Returns the indexes of all entries.
    pub(super) fn indexes(&self) -> Vec<u32> {
        let taken = self.entries.iter().enumerate().filter(|(_, entry)| entry.is_some());
        taken.map(|(index, _)| index as u32).collect()
    }

    /// Returns the number of entries, including forgotten ones.
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}

const _: () = assert!(size_of::<Option<Entry>>() <= 40, "an idle connection is cheap");

#[cfg(test)]
mod tests {
    use super::*;

    fn held() -> Ownership {
        Ownership::Owned(std::fs::File::open("/dev/null").expect("it opens").into())
    }

    #[test]
    fn a_forgotten_entry_stays_while_its_slot_has_a_new_one() {
        let mut table = Table::default();
        let (old, new) = (Key::new(3, 0, 0), Key::new(3, 1, 0));
        let first = table.insert(old, held(), EntryKind::Stream);
        assert!(!table.is_vacant(new) && table.find(new).is_none());
        table.forget(old);
        assert!(table.is_vacant(new) && table.find(old).is_none() && table.get(first).is_some());
        let second = table.insert(new, held(), EntryKind::Stream);
        assert_ne!(first, second);
        table.forget(old);
        assert_eq!(table.find(new), Some(second), "a stale key forgets nobody");
        let removed = table.remove(first).expect("it stayed");
        assert_eq!((removed.key, table.len(), table.find(new)), (old, 1, Some(second)));
        let third = table.insert(Key::new(0, 0, 0), held(), EntryKind::Stream);
        assert_eq!(third, first, "the index is used again");
        let stale = EntryRef { index: first, life: removed.life };
        assert!(table.at(stale).is_none(), "and the old life misses");
    }
}
