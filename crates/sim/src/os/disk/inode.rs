//! A file's content: the current content, the durable content, and the writes between them.

use std::sync::Arc;

use crate::faults::chance::Chance;

/// A file.
#[derive(Default)]
pub(super) struct Inode {
    /// The content that reads find.
    pub(super) content: Vec<u8>,
    /// The durable content.
    safe: Vec<u8>,
    /// The changes from the durable content to the current one, in order, unless a sync failed.
    unsafe_changes: Vec<Change>,
    pub(super) modified: u64,
    /// A reference that each open file holds.
    pub(super) open: Arc<()>,
}

enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

/// The effect of a power cut on a write.
#[derive(PartialEq, Eq)]
pub(super) enum Fate {
    Kept,
    Lost,
    Torn,
}

impl Inode {
    pub(super) fn new(now: u64) -> Inode {
        Inode { modified: now, ..Inode::default() }
    }

    pub(super) fn is_open(&self) -> bool {
        Arc::strong_count(&self.open) > 1
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8], now: u64) {
        self.change(Change::Write(offset, bytes.to_vec()), now);
    }

    pub(super) fn set_len(&mut self, len: u64, now: u64) {
        self.change(Change::Length(len), now);
    }

    fn change(&mut self, change: Change, now: u64) {
        change.apply(&mut self.content);
        self.modified = now;
        self.unsafe_changes.push(change);
    }

    /// Makes all writes durable.
    pub(super) fn sync(&mut self) {
        for change in self.unsafe_changes.drain(..) {
            change.apply(&mut self.safe);
        }
    }

    /// Fails a sync. Each write either becomes durable now, or never will.
    pub(super) fn sync_badly(&mut self, chance: &mut Chance) {
        for change in self.unsafe_changes.drain(..) {
            if chance.below(2) == 0 {
                change.apply(&mut self.safe);
            }
        }
    }

    /// Flips a bit, in the current and the durable content.
    pub(super) fn rot(&mut self, at: usize, bit: u32) {
        for bytes in [&mut self.content, &mut self.safe] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
    }

    /// Loses all or some of the changes that are not durable.
    pub(super) fn cut(&mut self, chance: &mut Chance, mut note: impl FnMut(Fate)) {
        for change in self.unsafe_changes.drain(..) {
            match (chance.below(3), change) {
                (0, _) => note(Fate::Lost),
                (1, Change::Write(offset, mut bytes)) if bytes.len() > 1 => {
                    // A disk writes whole sectors, but the blocks of one file need not be adjacent.
                    bytes.truncate(chance.between(1, bytes.len() as u64 - 1) as usize);
                    Change::Write(offset, bytes).apply(&mut self.safe);
                    note(Fate::Torn);
                }
                (_, change) => {
                    change.apply(&mut self.safe);
                    note(Fate::Kept);
                }
            }
        }
        self.content = self.safe.clone();
    }
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Change::Write(offset, bytes) => {
                let (start, end) = (*offset as usize, *offset as usize + bytes.len());
                if to.len() < end && !bytes.is_empty() {
                    to.resize(end, 0);
                }
                if let Some(place) = to.get_mut(start..end) {
                    place.copy_from_slice(bytes);
                }
            }
            Change::Length(len) => to.resize(*len as usize, 0),
        }
    }
}
