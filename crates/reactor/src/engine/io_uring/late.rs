//! Late input: it came, and its stream may not hand it over yet.
//!
//! A multishot receive goes on until it is cancelled. So input may come after reading was switched off, and one stream
//! may receive in one turn as much as there are buffers. A stream hands over at most [`AT_ONCE`] bytes in a turn, as it
//! does on engines that read by calls, and nothing while it is not to be read; the rest is kept here, in its order.
//!
//! What is kept stays in the shared buffers, which count already, so the sum is bounded. The exception is a small chunk
//! of a stream that may rest for long: it would keep a large buffer from going back, so it is copied, as long as few
//! bytes are. A stream that received more than it may hand over is greedy: from there on it is waited for and read by
//! calls, which leave in its socket what nobody wants yet.

use std::collections::{HashMap, VecDeque};

use super::{
    IoUring,
    operation::{Kind, Tag},
    ring::Completion,
    table::{CLOSING, GREEDY, LATE, Place, READING},
};
use crate::{
    engine::{Chunk, Event},
    id::Key,
};

/// The late input of all streams.
pub(super) struct Late {
    of: HashMap<u32, VecDeque<Kept>>,
    /// Bytes that were copied out of shared buffers.
    copied: usize,
    copied_max: usize,
}

/// Input, or the end behind it.
struct Kept {
    event: Event,
    /// How many of its bytes are a copy.
    copied: usize,
}

impl Late {
    /// Keeps nothing; copies at most so many bytes.
    pub(super) fn new(copied_max: usize) -> Late {
        Late { of: HashMap::new(), copied: 0, copied_max }
    }

    /// How many bytes are copied at most.
    pub(super) fn copied_max(&self) -> usize {
        self.copied_max
    }

    fn keep(&mut self, index: u32, mut event: Event, may_rest: bool) {
        let mut copied = 0;
        if let Event::Got(chunk) = &mut event {
            let bytes = chunk.bytes();
            if may_rest && bytes.len() <= COPY_MAX && self.copied + bytes.len() <= self.copied_max {
                copied = bytes.len();
                *chunk = Chunk::new(Box::from(&*bytes), copied);
            }
        }
        self.copied += copied;
        self.of.entry(index).or_default().push_back(Kept { event, copied });
    }

    /// The next of a stream, and whether it is the last.
    fn take(&mut self, index: u32) -> Option<(Event, bool)> {
        let queue = self.of.get_mut(&index)?;
        let Kept { event, copied } = queue.pop_front()?;
        self.copied -= copied;
        let is_last = queue.is_empty();
        if is_last {
            self.of.remove(&index);
        }
        Some((event, is_last))
    }

    /// The bytes of the next chunk; zero for an end.
    fn next_bytes(&mut self, index: u32) -> usize {
        match self.of.get_mut(&index).and_then(|queue| queue.front_mut()) {
            Some(Kept { event: Event::Got(chunk), .. }) => chunk.bytes().len(),
            _ => 0,
        }
    }

    /// The end behind the late input of a stream, if the kernel has reported it.
    pub(super) fn end_of(&self, index: u32) -> Option<&Event> {
        let last = &self.of.get(&index)?.back()?.event;
        (!matches!(last, Event::Got(_))).then_some(last)
    }

    /// Lets the late input of a stream go.
    pub(super) fn forget(&mut self, index: u32) {
        for kept in self.of.remove(&index).into_iter().flatten() {
            self.copied -= kept.copied;
        }
    }
}

impl IoUring {
    /// Tells of a chunk, unless its stream may not hand it over now.
    #[inline]
    pub(super) fn hand_over(&mut self, index: u32, mut chunk: Chunk) -> Option<(Key, Event)> {
        let turn = self.turn;
        let entry = self.table.get_mut(index)?;
        if entry.hands_over(turn, chunk.bytes().len()) {
            return Some((entry.key, Event::Got(chunk)));
        }
        self.keep(index, Event::Got(chunk));
        None
    }

    /// Tells of the end of a stream's input, behind all that is late.
    pub(super) fn tell_behind(&mut self, index: u32, event: Event) -> Option<(Key, Event)> {
        let entry = self.table.get(index)?;
        if !entry.has(LATE) {
            return Some((entry.key, event));
        }
        self.keep(index, event);
        None
    }

    #[cold]
    fn keep(&mut self, index: u32, event: Event) {
        let Some(entry) = self.table.get_mut(index) else { return };
        let may_rest = !entry.has(READING);
        let is_greedy = !may_rest && matches!(event, Event::Got(_));
        entry.set(LATE, true);
        if is_greedy {
            entry.set(GREEDY, true);
        }
        self.late.keep(index, event, may_rest);
        if is_greedy {
            self.cancel_input(index);
        }
        self.list(index);
    }

    /// Has the late input of a stream told in its turn: behind what came back before.
    pub(super) fn queue_late(&mut self, index: u32) {
        let Some(entry) = self.table.get(index).filter(|entry| entry.has(READING)) else { return };
        let user_data = Tag::new(Kind::Late, entry.life, index).to_bits();
        self.batch.push_back(Completion { user_data, result: 0, flags: 0 });
    }

    /// The next late input of a stream, if it may hand it over in this turn.
    pub(super) fn tell_late(&mut self, place: Place) -> Option<(Key, Event)> {
        let (turn, bytes) = (self.turn, self.late.next_bytes(place.index));
        let entry = self.table.at(place).filter(|entry| entry.has(LATE) && !entry.has(CLOSING))?;
        let key = entry.key;
        if !entry.has(READING) {
            return None;
        }
        if !entry.has_left(turn, bytes) {
            self.list(place.index);
            return None;
        }
        let (event, is_last) = self.late.take(place.index)?;
        if let Some(entry) = self.table.at(place) {
            entry.set(LATE, !is_last);
        }
        match is_last {
            // Now it is armed again.
            true => self.list(place.index),
            false => self.queue_late(place.index),
        }
        Some((key, event))
    }

    /// Tells of all late input of a stream that is about to be given back.
    pub(super) fn tell_all_late(&mut self, index: u32) {
        let Some(entry) = self.table.get_mut(index) else { return };
        let key = entry.key;
        entry.set(LATE, false);
        while let Some((event, _)) = self.late.take(index) {
            self.told.push_back((key, event));
        }
    }
}

/// How many bytes of one stream a turn hands over at most; the same as one read by a call.
pub(super) const AT_ONCE: usize = 64 << 10;
/// The most bytes of a chunk that is copied.
const COPY_MAX: usize = 4 << 10;
