//! The table of the engine: what it knows of each descriptor, for as long as the kernel does.
//!
//! A runtime's slot may be free while an operation of its last life is still out. So entries have an index
//! of their own, by which completions name them, and a second table leads from a key to its entry. An idle
//! connection costs 44 bytes; both tables grow by an eighth and not to the double.

use std::os::fd::{AsRawFd as _, RawFd};

use io_uring::{opcode, squeue, types::Fd};
use session::Outgoing;

use super::{late::AT_ONCE, operation::LIFE_MAX};
use crate::{
    engine::{
        Interest, Medium,
        held::{Held, Part},
    },
    growth::{grow, reach},
    id::Key,
    sys,
};

/// One descriptor.
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) held: Held,
    /// A send that is out, or waits for the connect.
    pub(super) queue: Option<Box<Outgoing>>,
    /// Tells this entry from the one that had its index before.
    pub(super) life: u32,
    /// Of a stream: the system's number of the error that a send ended with, zero for none. Of a listener: how
    /// many accepts in a row failed for a reason that passes.
    pub(super) failed: u16,
    bits: u16,
    /// The last turn in which the stream handed something over, and how many bytes; one less than 64 KiB stands for
    /// these, too.
    turn: u16,
    handed: u16,
    pub(super) part: Part,
    pub(super) input: Input,
    pub(super) output: Output,
    /// What the transport can do.
    pub(super) medium: Medium,
}

/// What is out in the kernel for the input of an entry: accept, receive, or a wait for readiness. What is
/// wanted is another state, [`READING`]; the two are brought in step before each wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Input {
    /// Nothing.
    Idle,
    /// An operation that has many completions.
    Multishot,
    /// A wait for readiness.
    Polling,
    /// Either, being cancelled.
    Cancelled,
    /// Nothing, and nothing ever will be: the end was told.
    Ended,
}

/// What is out for the output of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Output {
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

/// Input is wanted.
pub(super) const READING: Bit = Bit(1 << 0);
/// It is on the list of what is armed next, or of those that found no buffer.
pub(super) const LISTED: Bit = Bit(1 << 1);
/// The key is gone; the descriptor goes when no operation is out.
pub(super) const CLOSING: Bit = Bit(1 << 2);
/// The transport is given back when no operation is out.
pub(super) const DETACHING: Bit = Bit(1 << 3);
/// Its input is waited for and then called for: the kernel does not do it by itself.
pub(super) const CALLED_INPUT: Bit = Bit(1 << 4);
/// The same for its output.
pub(super) const CALLED_OUTPUT: Bit = Bit(1 << 5);
/// There was no shared buffer: the next input is called for, once.
pub(super) const STARVED: Bit = Bit(1 << 6);
/// A watched resource told a hang-up and nothing else: it rests until it is watched again. Of a stream at rest, which the
/// engine does not read: the engine has reported the hang-up, or can learn nothing more.
pub(super) const HUNG_UP: Bit = Bit(1 << 7);
/// Input came since it was armed.
pub(super) const FED: Bit = Bit(1 << 8);
// The next four mean something else for each part.
/// Of a watched resource: what for.
const WANTS_READ: Bit = Bit(1 << 9);
const WANTS_WRITE: Bit = Bit(1 << 10);
/// Of a stream: the kernel has reported a hang-up, and a failure that no look has dealt with.
pub(super) const SEEN_GONE: Bit = Bit(1 << 9);
pub(super) const SEEN_FAILED: Bit = Bit(1 << 10);
/// Of datagrams: what `sys` told of the socket.
pub(super) const IS_UNIX: Bit = Bit(1 << 11);
pub(super) const TOGETHER: Bit = Bit(1 << 12);
/// Of a stream: a wait for its hang-up is out.
pub(super) const HANGUP_OUT: Bit = Bit(1 << 11);
/// Room is waited for by who writes past the engine.
pub(super) const AWAITED: Bit = Bit(1 << 13);
/// Some of its input is late.
pub(super) const LATE: Bit = Bit(1 << 14);
/// It received more than it may hand over at once: its input is waited for and called for.
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

    /// Notes what the transport can do: what is no socket is waited for, and read and written by calls.
    pub(super) fn set_medium(&mut self, medium: Medium) {
        self.medium = medium;
        self.set(CALLED_INPUT, !medium.is_socket());
        self.set(CALLED_OUTPUT, !medium.is_socket());
        if medium.is_unwaited() {
            self.input = Input::Ended;
        }
    }

    /// Has the kernel read a pipe by itself, after the first input, which is waited for: a named pipe without a writer
    /// looks to a read like one whose writers have left.
    pub(super) fn read_by_kernel(&mut self) {
        self.set(CALLED_INPUT, false);
        self.set(STARVED, true);
    }

    /// What a user's resource is watched for.
    pub(super) fn interest(&self) -> Option<Interest> {
        Interest::from_parts(self.has(WANTS_READ), self.has(WANTS_WRITE))
    }

    pub(super) fn set_interest(&mut self, interest: Option<Interest>) {
        self.set(WANTS_READ, interest.is_some_and(Interest::is_read));
        self.set(WANTS_WRITE, interest.is_some_and(Interest::is_write));
    }

    /// Whether the stream may hand over so many bytes right now; then they count.
    #[inline]
    pub(super) fn hands_over(&mut self, turn: u16, bytes: usize) -> bool {
        if self.has(DETACHING) {
            // All of it is told before the transport is.
            return true;
        }
        self.bits & (READING.0 | LATE.0) == READING.0 && self.has_left(turn, bytes)
    }

    /// Whether so many bytes are within what a stream hands over in one turn; then they count.
    #[inline]
    pub(super) fn has_left(&mut self, turn: u16, bytes: usize) -> bool {
        if self.turn != turn {
            (self.turn, self.handed) = (turn, 0);
        }
        let handed = usize::from(self.handed) + bytes;
        // A larger buffer than usual was asked for; it is handed over whole.
        let is_left = handed <= AT_ONCE || self.handed == 0;
        if is_left {
            self.handed = u16::try_from(handed).unwrap_or(u16::MAX);
        }
        is_left
    }

    /// The descriptor's number, for an operation.
    #[inline]
    pub(super) fn number(&self) -> RawFd {
        match &self.held {
            Held::Owned(descriptor) => descriptor.as_raw_fd(),
            Held::Watched(watched) => {
                watched.with(|source| source.descriptor().map_or(-1, |descriptor| descriptor.as_raw_fd()))
            }
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

    /// The operation that waits for room, which is out from now on.
    pub(super) fn poll_output(&mut self) -> squeue::Entry {
        self.output = Output::Polling;
        opcode::PollAdd::new(Fd(self.number()), libc::POLLOUT as u32).build()
    }

    /// Whether an operation is out.
    #[inline]
    pub(super) fn is_out(&self) -> bool {
        matches!(self.input, Input::Multishot | Input::Polling | Input::Cancelled)
            || self.output != Output::Idle
            || self.part == Part::Stream && self.has(HANGUP_OUT)
    }
}

/// Names an entry in the engine's own lists, which may outlive it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) index: u32,
    pub(super) life: u32,
}

/// All entries.
#[derive(Default)]
pub(super) struct Table {
    entries: Vec<Option<Entry>>,
    /// Indexes without an entry.
    free: Vec<u32>,
    /// By the slot of the key: the index of the entry plus one, zero for none.
    by_slot: Vec<u32>,
    lives: u32,
}

impl Table {
    /// The index of the key's entry, if the key is alive.
    #[inline]
    pub(super) fn find(&self, key: Key) -> Option<u32> {
        let index = self.by_slot.get(key.slot())?.checked_sub(1)?;
        self.entries.get(index as usize)?.as_ref().filter(|entry| entry.key == key).map(|_| index)
    }

    /// The entry of a key that is alive.
    #[inline]
    pub(super) fn of(&self, key: Key) -> Option<&Entry> {
        self.get(self.find(key)?)
    }

    /// Whether no key that is alive has this one's slot.
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

    /// The entry of a list's place, if it is still the same.
    #[inline]
    pub(super) fn at(&mut self, place: Place) -> Option<&mut Entry> {
        self.get_mut(place.index).filter(|entry| entry.life == place.life)
    }

    /// Adds an entry for a key whose slot is vacant.
    pub(super) fn insert(&mut self, key: Key, held: Held, part: Part) -> u32 {
        self.lives = (self.lives + 1) & LIFE_MAX;
        let entry = Entry {
            key,
            held,
            queue: None,
            life: self.lives,
            failed: 0,
            bits: 0,
            turn: 0,
            handed: 0,
            part,
            input: Input::Idle,
            output: Output::Idle,
            medium: Medium::SOCKET,
        };
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = self.entries.len();
                reach(&mut self.entries, index, || None);
                // One for each descriptor, of which a process has at most 2^31.
                index as u32
            }
        };
        self.entries[index as usize] = Some(entry);
        let slot = key.slot();
        reach(&mut self.by_slot, slot, || 0);
        self.by_slot[slot] = index + 1;
        index
    }

    /// Makes the key unknown; its entry stays until it is removed.
    pub(super) fn forget(&mut self, key: Key) {
        if self.find(key).is_some() {
            self.by_slot[key.slot()] = 0;
        }
    }

    /// Takes an entry out, whose key may be forgotten already.
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

    /// The indexes of all entries.
    pub(super) fn indexes(&self) -> Vec<u32> {
        let taken = self.entries.iter().enumerate().filter(|(_, entry)| entry.is_some());
        taken.map(|(index, _)| index as u32).collect()
    }

    /// How many entries there are, forgotten ones included.
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}

const _: () = assert!(size_of::<Option<Entry>>() <= 40, "an idle connection is cheap");

#[cfg(test)]
mod tests {
    use super::*;

    fn held() -> Held {
        Held::Owned(std::fs::File::open("/dev/null").expect("it opens").into())
    }

    #[test]
    fn a_forgotten_entry_stays_while_its_slot_has_a_new_one() {
        let mut table = Table::default();
        let (old, new) = (Key::new(3, 0, 0), Key::new(3, 1, 0));
        let first = table.insert(old, held(), Part::Stream);
        assert!(!table.is_vacant(new) && table.find(new).is_none());
        table.forget(old);
        assert!(table.is_vacant(new) && table.find(old).is_none() && table.get(first).is_some());
        let second = table.insert(new, held(), Part::Stream);
        assert_ne!(first, second);
        table.forget(old);
        assert_eq!(table.find(new), Some(second), "a stale key forgets nobody");
        let removed = table.remove(first).expect("it stayed");
        assert_eq!((removed.key, table.len(), table.find(new)), (old, 1, Some(second)));
        let third = table.insert(Key::new(0, 0, 0), held(), Part::Stream);
        assert_eq!(third, first, "the index is used again");
        let stale = Place { index: first, life: removed.life };
        assert!(table.at(stale).is_none(), "and the old life misses");
    }
}
