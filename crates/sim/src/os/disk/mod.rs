//! A node's disk: its behaviour under file operations, and its state after a power cut.
//!
//! An operation runs whole at a drawn moment, and usually completes then. The faults of the world delay the
//! operation ([`Kind::SlowFile`](crate::Kind), [`Kind::StallSync`](crate::Kind),
//! [`Kind::SlowDisk`](crate::Kind)) or its completion ([`Kind::LateFile`](crate::Kind)). A delayed completion
//! may arrive after those of later operations. Every later read sees a completed write. The write is safe
//! from a power cut ([`World::power_off`](crate::World::power_off)) only once a later sync has completed with
//! `Ok`.
//! A power cut keeps some of the unsynced writes, loses others, and tears some in the middle. It decides for
//! each write alone, without regard to their order. Of the changes of names since the last sync of a
//! directory, it keeps the oldest ones, as a journal does. A crash of the process alone
//! ([`World::crash`](crate::World::crash)) loses no completed operation, because its kernel keeps running.
//! After either, an operation in flight was done, done in part, or not done.
//!
//! After a failed sync, the state is unknown (as with fsync(2) on Linux). A part of the earlier writes will
//! never be safe, although reads still see it, and although the next sync returns `Ok`.
//!
//! The disk does not model permissions, symbolic links, hard links, access times, quotas, or caches that lie.

mod crash;
mod inode;
mod jobs;
mod names;
mod perform;
mod timing;

use std::{collections::BTreeMap, time::Duration};

use self::{inode::Inode, names::Names, timing::Speed};
use crate::faults::chance::Chance;

pub(crate) use self::jobs::{Disks, Due};

/// The options of a node's disk. Rates are per million operations.
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
    /// The capacity for content in bytes: 1 GiB. Further writes fail with ENOSPC.
    pub capacity: u64,
    /// The longest time of an operation other than a sync: half a millisecond. The shortest is a tenth of it.
    pub operation: Duration,
    /// The longest time of a sync: 4 milliseconds. The shortest is a tenth of it.
    pub sync: Duration,
    /// How many operations take up to a second.
    pub slow: u32,
    /// How many reads fail with EIO.
    pub read_errors: u32,
    /// How many writes fail with EIO, after a drawn part of the bytes was written.
    pub write_errors: u32,
    /// How many syncs fail with EIO.
    pub sync_errors: u32,
    /// How many reads find a flipped bit. The bit stays flipped.
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

/// The counts of a disk so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct DiskCounts {
    /// Completed operations.
    pub operations: u64,
    /// Slow operations, by the disk's options or by a fault of the world.
    pub slow: u64,
    /// How often syncs stalled.
    pub stalls: u64,
    /// Writes that found no room.
    pub full: u64,
    /// Reads, writes and syncs that failed by a fault.
    pub errors: u64,
    /// Bits that flipped by themselves.
    pub rotten: u64,
    /// Power cuts.
    pub cuts: u64,
    /// Writes that power cuts lost completely.
    pub writes_lost: u64,
    /// Writes of which power cuts kept only a part.
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
    /// The bytes of content.
    used: u64,
}

/// The inputs of an operation besides the disk.
pub(crate) struct Moment<'a> {
    pub(crate) chance: &'a mut Chance,
    /// The world's time in nanoseconds.
    pub(crate) now: u64,
}

impl Disk {
    /// Returns the content of a file as a read would find it now.
    pub(crate) fn content(&self, path: &str) -> Option<&[u8]> {
        let names::Named::File(number) = self.names.get(&names::normal(path.as_ref()).ok()?)? else {
            return None;
        };
        Some(&self.inodes.get(&number)?.content)
    }

    /// Puts a file on the disk, safe from power cuts, and makes its directories.
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

    /// Removes files that no name and no open file refers to.
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
