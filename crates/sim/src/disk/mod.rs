//! A node's disk: what its service's operations on files find, and what a power cut leaves of it.
//!
//! An operation is done at a drawn moment, all of it at once, and mostly answered then. The world's faults make it wait
//! longer ([`Kind::SlowFile`](crate::Kind), [`Kind::StallSync`](crate::Kind), [`Kind::SlowDisk`](crate::Kind)), or its answer
//! ([`Kind::LateFile`](crate::Kind)): then operations that are out at once are answered in another order than they were
//! done. What was written is seen by every later read, and is safe
//! from a power cut ([`World::vanish`](crate::World::vanish)) only once a sync that came after it has answered `Ok`.
//! Of what was not synced a power cut keeps some writes, loses others, and tears some in the middle, each for itself
//! and in no order; of the changes of names since the last sync of a directory it keeps the first so many, as a
//! journal does. A crash of the process alone ([`World::crash`](crate::World::crash)) loses nothing that was done: its
//! kernel goes on. In both, an operation that is out was done, was done in part, or was not.
//!
//! A failed sync leaves nothing known (as fsync(2) on Linux): part of what was written before it will never be safe,
//! although it can still be read, and although the next sync says `Ok`.
//!
//! Not here: permissions, symbolic links, several names of one file, time of access, quotas, caches that lie.

mod crash;
mod inode;
mod jobs;
mod names;
mod perform;
mod timing;

use std::{collections::BTreeMap, time::Duration};

use self::{inode::Inode, names::Names, timing::Speed};
use crate::chance::Chance;

pub(crate) use self::jobs::{Due, FileJobs};

/// How a node's disk is. Rates are of a million operations.
///
/// ```
/// use sim::{DiskOptions, World};
/// use std::time::Duration;
/// let mut options = DiskOptions::default();
/// options.slow = 10_000;
/// options.sync = Duration::from_millis(8);
/// assert_eq!(options.read_errors, 0);
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DiskOptions {
    /// How many bytes of content it holds; more are ENOSPC. 1 GiB.
    pub capacity: u64,
    /// How long an operation takes at most, a sync aside; half a millisecond. At least a tenth of it.
    pub operation: Duration,
    /// How long a sync takes at most; 4 milliseconds. At least a tenth of it.
    pub sync: Duration,
    /// How many operations take up to a second.
    pub slow: u32,
    /// How many reads fail with EIO.
    pub read_errors: u32,
    /// How many writes fail with EIO, after any part of them.
    pub write_errors: u32,
    /// How many syncs fail with EIO.
    pub sync_errors: u32,
    /// How many reads find a bit that has changed since it was written, and stays so.
    pub rot: u32,
}

impl Default for DiskOptions {
    fn default() -> DiskOptions {
        DiskOptions {
            capacity: 1 << 30,
            operation: Duration::from_micros(500),
            sync: Duration::from_millis(4),
            slow: 0,
            read_errors: 0,
            write_errors: 0,
            sync_errors: 0,
            rot: 0,
        }
    }
}

/// What became of a disk so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct DiskCounts {
    /// Operations done.
    pub operations: u64,
    /// Operations that were slow, by the disk's options or a fault of the world.
    pub slow: u64,
    /// How often syncs stood still.
    pub stalls: u64,
    /// Writes that found no room.
    pub full: u64,
    /// Reads, writes and syncs that failed by a fault.
    pub errors: u64,
    /// Bits that changed by themselves.
    pub rotten: u64,
    /// Power cuts.
    pub cuts: u64,
    /// Writes that power cuts lost whole.
    pub writes_lost: u64,
    /// Writes of which power cuts kept a part.
    pub writes_torn: u64,
    /// Changes of names that power cuts lost.
    pub names_lost: u64,
}

/// The disk of a host.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) options: DiskOptions,
    pub(crate) counts: DiskCounts,
    pub(crate) speed: Speed,
    names: Names,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    next_temporary: u64,
    /// Bytes of content.
    used: u64,
}

/// What an operation needs beside the disk.
pub(crate) struct Moment<'a> {
    pub(crate) chance: &'a mut Chance,
    /// Nanoseconds of the world.
    pub(crate) now: u64,
}

impl Disk {
    /// The content of a file as a read finds it now.
    pub(crate) fn content(&self, path: &str) -> Option<&[u8]> {
        let names::Named::File(number) = self.names.get(&names::normal(path.as_ref()).ok()?)? else {
            return None;
        };
        Some(&self.inodes.get(&number)?.content)
    }

    /// Puts a file there, safe, with the directories that lead to it.
    pub(crate) fn put(&mut self, path: &str, content: &[u8], now: u64) {
        let Ok(path) = names::normal(path.as_ref()) else { return };
        for (at, _) in path.match_indices('/') {
            self.names.set(&path[..at], Some(names::Named::Directory));
        }
        let number = self.create(&path, now);
        if let Some(inode) = self.inodes.get_mut(&number) {
            inode.write(0, content, now);
            inode.sync();
            self.used += content.len() as u64;
        }
        self.names.sync_all();
        self.collect();
    }

    /// Forgets files that no name and no open file leads to.
    fn collect(&mut self) {
        let names = &self.names;
        let used = &mut self.used;
        self.inodes.retain(|number, inode| {
            let stays = inode.is_open() || names.names(*number);
            if !stays {
                *used -= inode.content.len() as u64;
            }
            stays
        });
    }
}
