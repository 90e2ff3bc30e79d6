//! Late input: it has arrived, but its stream may not hand it over yet.
//!
//! A multishot receive goes on until it is cancelled. So input may arrive after reading was switched off, and
//! in one turn a stream may receive as much as there are buffers. A stream hands over at most [`AT_ONCE`]
//! bytes in a turn, as on engines that read by calls, and nothing while reading is off. The engine keeps the
//! rest here, in order.
//!
//! Late input stays in the shared buffers, which already count, so the total is bounded. The exception is a
//! small chunk of a stream that may rest for long: it would keep a large buffer from going back. Such a chunk
//! is copied, as long as the copies have few bytes. A stream that received more than it may hand over is
//! greedy: from then on the engine waits for its input and reads it by calls, which leave in the socket what
//! nobody wants yet.

use std::collections::{HashMap, VecDeque};

use super::{
    IoUring,
    operation::{Kind, Tag},
    ring::Completion,
    table::{CLOSING, EntryRef, GREEDY, LATE, READING},
};
use crate::{
    engine::{Chunk, Event},
    id::Key,
};

/// The late input of all streams.
pub(super) struct Late {
    of: HashMap<u32, VecDeque<LateItem>>,
    /// The number of bytes that were copied out of shared buffers.
    copied: usize,
    copied_max: usize,
}

/// Input, or the end after it.
struct LateItem {
    event: Event,
    /// The number of its bytes that are a copy.
    copied: usize,
}

impl Late {
    /// Creates an empty one that copies at most this many bytes.
    pub(super) fn new(copied_max: usize) -> Late {
        Late { of: HashMap::new(), copied: 0, copied_max }
    }

    /// Returns the limit of copied bytes.
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
        self.of.entry(index).or_default().push_back(LateItem { event, copied });
    }

    /// Takes the next event of a stream, and returns whether it was the last.
    fn take(&mut self, index: u32) -> Option<(Event, bool)> {
        let queue = self.of.get_mut(&index)?;
        let LateItem { event, copied } = queue.pop_front()?;
        self.copied -= copied;
        let is_last = queue.is_empty();
        if is_last {
            self.of.remove(&index);
        }
        Some((event, is_last))
    }

    /// Returns the bytes of the next chunk, or zero if an end is next.
    fn next_bytes(&mut self, index: u32) -> usize {
        match self.of.get_mut(&index).and_then(|queue| queue.front_mut()) {
            Some(LateItem { event: Event::Got(chunk), .. }) => chunk.bytes().len(),
            _ => 0,
        }
    }

    /// Returns the end after the late input of a stream, if the kernel has reported it.
    pub(super) fn end_of(&self, index: u32) -> Option<&Event> {
        let last = &self.of.get(&index)?.back()?.event;
        (!matches!(last, Event::Got(_))).then_some(last)
    }

    /// Drops the late input of a stream.
    pub(super) fn forget(&mut self, index: u32) {
        for kept in self.of.remove(&index).into_iter().flatten() {
            self.copied -= kept.copied;
        }
    }
}

impl IoUring {
    /// Reports a chunk, or keeps it if its stream may not hand it over now.
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

    /// Reports the end of a stream's input, or keeps it behind late input.
    pub(super) fn report_behind(&mut self, index: u32, event: Event) -> Option<(Key, Event)> {
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

    /// Queues the late input of a stream behind the completions that came before.
    pub(super) fn queue_late(&mut self, index: u32) {
        let Some(entry) = self.table.get(index).filter(|entry| entry.has(READING)) else { return };
        let user_data = Tag::new(Kind::Late, entry.life, index).to_bits();
        self.batch.push_back(Completion { user_data, result: 0, flags: 0 });
    }

    /// Reports the next late input of a stream, if this turn may hand it over.
    pub(super) fn report_late(&mut self, place: EntryRef) -> Option<(Key, Event)> {
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

    /// Queues all late input of a stream that is about to be given back.
    pub(super) fn queue_all_late(&mut self, index: u32) {
        let Some(entry) = self.table.get_mut(index) else { return };
        let key = entry.key;
        entry.set(LATE, false);
        while let Some((event, _)) = self.late.take(index) {
            self.queued.push_back((key, event));
        }
    }
}

/// The most bytes of one stream that a turn hands over; the same as one read by a call.
pub(super) const AT_ONCE: usize = 64 << 10;
/// The most bytes of a chunk that is copied.
const COPY_MAX: usize = 4 << 10;
