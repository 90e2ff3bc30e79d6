//! The twin of a directory watch, with changes that a test controls.

use std::cell::Cell;

use reactor::Source;

use crate::{testing::source::VirtualSource, world::World};

/// The changes in watched directories, which a test reports instead of a disk.
///
/// `Watch::hosted(folder.source(), limits)` makes a `Watch` of `reactor` (Linux) over it. The service stays
/// the same. A watch is named by its number. Numbers count from 1 in the order in which the watches were
/// added. The files themselves are not simulated: a service that reads them still uses the real disk.
///
/// # Panics
/// Each method that takes a name panics if the name has more than 255 bytes, because no disk allows that.
///
/// ```
/// let mut world = sim::World::new(1);
/// let folder = sim::Folder::new(&mut world);
/// folder.created(1, "new");
/// folder.moved((1, "new"), (1, "newer"));
/// folder.ended(1);
/// ```
#[derive(Debug)]
pub struct Folder {
    source: VirtualSource,
    cookie: Cell<u32>,
}

impl Folder {
    /// Makes a folder without changes.
    pub fn new(world: &mut World) -> Folder {
        Folder { source: world.virtual_source(), cookie: Cell::new(0) }
    }

    /// Returns the source, for a resource to watch.
    pub fn source(&self) -> Source<'static> {
        self.source.source()
    }

    /// Reports that a file was created.
    pub fn created(&self, watch: i32, name: &str) {
        self.put(watch, CREATE, 0, name);
    }

    /// Reports that a file was written to or truncated.
    pub fn modified(&self, watch: i32, name: &str) {
        self.put(watch, MODIFY, 0, name);
    }

    /// Reports that a file that was open for writing was closed.
    pub fn written(&self, watch: i32, name: &str) {
        self.put(watch, CLOSE_WRITE, 0, name);
    }

    /// Reports that a file was removed.
    pub fn deleted(&self, watch: i32, name: &str) {
        self.put(watch, DELETE, 0, name);
    }

    /// Reports that a file was renamed, perhaps into another watched directory.
    pub fn moved(&self, from: (i32, &str), to: (i32, &str)) {
        let cookie = self.next_cookie();
        self.put(from.0, MOVED_FROM, cookie, from.1);
        self.put(to.0, MOVED_TO, cookie, to.1);
    }

    /// Reports that a file was moved to a place without a watch.
    pub fn moved_out(&self, watch: i32, name: &str) {
        self.put(watch, MOVED_FROM, self.next_cookie(), name);
    }

    /// Reports that a file was moved here from a place without a watch.
    pub fn moved_in(&self, watch: i32, name: &str) {
        self.put(watch, MOVED_TO, self.next_cookie(), name);
    }

    /// Reports that the watched directory itself was renamed or moved.
    pub fn relocated(&self, watch: i32) {
        self.put(watch, MOVE_SELF, 0, "");
    }

    /// Reports that the queue was full, and changes were lost.
    pub fn overflow(&self) {
        self.put(-1, OVERFLOW, 0, "");
    }

    /// Reports that the watched directory itself was removed.
    pub fn ended(&self, watch: i32) {
        self.put(watch, DELETE_SELF, 0, "");
        self.put(watch, IGNORED, 0, "");
    }

    fn next_cookie(&self) -> u32 {
        self.cookie.set(self.cookie.get() + 1);
        self.cookie.get()
    }

    /// Puts a record as inotify(7) defines it, with its name padded by zeroes to a multiple of 16.
    fn put(&self, watch: i32, mask: u32, cookie: u32, name: &str) {
        assert!(name.len() <= NAME_MAX, "a name has at most {NAME_MAX} bytes");
        let padded = if name.is_empty() { 0 } else { (name.len() + 1).next_multiple_of(16) };
        let mut record = watch.to_ne_bytes().to_vec();
        for part in [mask, cookie, padded as u32] {
            record.extend(part.to_ne_bytes());
        }
        record.extend(name.as_bytes());
        record.resize(HEAD + padded, 0);
        self.source.put_record(&record);
    }
}

// The values of Linux's sys/inotify.h.
const MODIFY: u32 = 0x2;
const CLOSE_WRITE: u32 = 0x8;
const MOVED_FROM: u32 = 0x40;
const MOVED_TO: u32 = 0x80;
const CREATE: u32 = 0x100;
const DELETE: u32 = 0x200;
const DELETE_SELF: u32 = 0x400;
const MOVE_SELF: u32 = 0x800;
const OVERFLOW: u32 = 0x4000;
const IGNORED: u32 = 0x8000;

const HEAD: usize = 16;
const NAME_MAX: usize = 255;
