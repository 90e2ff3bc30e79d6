//! A file's content: as it is read, as a power cut leaves it, and the writes between.

use std::sync::Arc;

use crate::chance::Chance;

/// A file.
#[derive(Default)]
pub(super) struct Inode {
    /// As reads find it.
    pub(super) content: Vec<u8>,
    /// As it is safe.
    safe: Vec<u8>,
    /// What makes the one of the other, in order, unless a sync failed.
    unsafe_changes: Vec<Change>,
    pub(super) modified: u64,
    /// Held by each open file.
    pub(super) open: Arc<()>,
}

enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

/// What a power cut did to a write.
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

    /// Makes what was written safe.
    pub(super) fn sync(&mut self) {
        for change in self.unsafe_changes.drain(..) {
            change.apply(&mut self.safe);
        }
    }

    /// Fails to: each write is safe, or never will be.
    pub(super) fn sync_badly(&mut self, chance: &mut Chance) {
        for change in self.unsafe_changes.drain(..) {
            if chance.below(2) == 0 {
                change.apply(&mut self.safe);
            }
        }
    }

    /// Changes a bit, wherever it is kept.
    pub(super) fn rot(&mut self, at: usize, bit: u32) {
        for bytes in [&mut self.content, &mut self.safe] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
    }

    /// Loses what is not safe, or some of it.
    pub(super) fn cut(&mut self, chance: &mut Chance, mut told: impl FnMut(Fate)) {
        for change in self.unsafe_changes.drain(..) {
            match (chance.below(3), change) {
                (0, _) => told(Fate::Lost),
                (1, Change::Write(offset, mut bytes)) if bytes.len() > 1 => {
                    // A disk writes sectors, but a file system's blocks of a file need not lie together.
                    bytes.truncate(chance.between(1, bytes.len() as u64 - 1) as usize);
                    Change::Write(offset, bytes).apply(&mut self.safe);
                    told(Fate::Torn);
                }
                (_, change) => {
                    change.apply(&mut self.safe);
                    told(Fate::Kept);
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
