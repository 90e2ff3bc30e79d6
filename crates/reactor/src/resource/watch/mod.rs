//! Directory watch: what changes in directories and files, by inotify(7). Linux.

mod change;

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, ErrorKind},
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use self::change::{BYTES_MIN, Record};
pub use self::change::{Change, Changes, Entry, WatchEnd, WatchId};
use super::{Io, Resource};
use crate::{
    engine::{Ready, Source},
    error::Error,
    sys::{inotify_add, inotify_open, inotify_remove},
};

/// A resource that tells what changes in directories and files.
///
/// One resource watches many paths, each by a [`WatchId`]; they are added and removed at any time through
/// [`Context::get_mut`](crate::Context::get_mut). Its event is a batch of [`Changes`] in the order in which
/// they happened; names in it are lent. What it is, and what it is not, is told in inotify(7): a watch is of
/// the file behind the path and not of the path, of a directory without its subdirectories, and it sees
/// nothing of what other machines do on a shared disk.
///
/// The kernel's queue is finite (`fs.inotify.max_queued_events`). When it was full changes are lost, and
/// [`Change::Overflow`] says so: the service then looks at everything anew. A program that has to know what
/// is there adds the watch first and reads the directory after.
///
/// ```
/// use reactor::{
///     Context, Handle, Id, Result, Service,
///     watch::{Change, Changes, Watch},
/// };
///
/// struct Spool;
///
/// impl Service for Spool {
///     fn start(&mut self, cx: &mut Context<Self>) -> Result {
///         let mut watch = Watch::new()?;
///         watch.add("/var/spool/in")?;
///         cx.add(watch)?;
///         Ok(())
///     }
/// }
///
/// impl Handle<Watch> for Spool {
///     fn handle(&mut self, _: &mut Context<Self>, _: Id<Watch>, changes: Changes<'_>) -> Result {
///         for change in changes {
///             match change {
///                 Change::Written(entry) | Change::MovedIn(entry) => println!("take {:?}", entry.name),
///                 Change::Overflow => println!("look at all of them"),
///                 Change::Ended { .. } => return Err("the spool is gone".into()),
///                 _ => (),
///             }
///         }
///         Ok(())
///     }
/// }
/// ```
pub struct Watch {
    origin: Origin,
    limits: WatchLimits,
    paths: BTreeMap<WatchId, PathBuf>,
}

enum Origin {
    Kernel(OwnedFd),
    Hosted { source: Source<'static>, added: i32 },
}

/// How much one [`Watch`] may hold and tell.
///
/// ```
/// use reactor::watch::WatchLimits;
/// let limits = WatchLimits { watches: 16, ..WatchLimits::DEFAULT };
/// assert_eq!(limits.batch_bytes, 4096);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchLimits {
    /// How many paths it watches at most. The kernel has a limit of its own for each user.
    pub watches: usize,
    /// How many bytes of the kernel's records one batch has at most, and a turn sees one batch. A record takes
    /// 16 bytes and its name, rounded up to 16. At least 272, which the longest name takes. To find the other half
    /// of a rename one batch may be as long again.
    pub batch_bytes: usize,
}

impl WatchLimits {
    /// 1,024 paths, and 4 KiB: 128 changes with short names.
    pub const DEFAULT: WatchLimits = WatchLimits { watches: 1024, batch_bytes: 4096 };
}

impl Default for WatchLimits {
    fn default() -> WatchLimits {
        WatchLimits::DEFAULT
    }
}

/// What a path is watched for. That it moves or ends is always told.
///
/// ```
/// use reactor::watch::WatchFor;
/// let names_only = WatchFor { entries: true, ..WatchFor::NOTHING };
/// assert!(!names_only.modified && WatchFor::ALL.modified);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchFor {
    /// Entries of a directory: created, moved, deleted.
    pub entries: bool,
    /// Each write and truncation: [`Change::Modified`].
    pub modified: bool,
    /// A file that was open for writing was closed: [`Change::Written`].
    pub written: bool,
    /// Owner, mode, times, number of links: [`Change::Attributes`].
    pub attributes: bool,
}

impl WatchFor {
    /// All of it.
    pub const ALL: WatchFor = WatchFor { entries: true, modified: true, written: true, attributes: true };
    /// Only that it moves or ends.
    pub const NOTHING: WatchFor =
        WatchFor { entries: false, modified: false, written: false, attributes: false };

    fn mask(self) -> u32 {
        let of = |wanted: bool, mask: u32| if wanted { mask } else { 0 };
        of(self.entries, libc::IN_CREATE | libc::IN_MOVE | libc::IN_DELETE)
            | of(self.modified, libc::IN_MODIFY)
            | of(self.written, libc::IN_CLOSE_WRITE)
            | of(self.attributes, libc::IN_ATTRIB)
            | libc::IN_DELETE_SELF
            | libc::IN_MOVE_SELF
    }
}

impl Watch {
    /// Opens one that watches nothing yet.
    ///
    /// # Errors
    /// As inotify_init(2): EMFILE, also when the user has too many of them
    /// (`fs.inotify.max_user_instances`).
    pub fn new() -> Result<Watch, Error> {
        Watch::with_limits(WatchLimits::DEFAULT)
    }

    /// The same, with limits.
    ///
    /// # Errors
    /// As [`new`](Watch::new).
    pub fn with_limits(limits: WatchLimits) -> Result<Watch, Error> {
        let descriptor = inotify_open().map_err(|error| Error::os("watch", "inotify", error))?;
        Ok(Watch { origin: Origin::Kernel(descriptor), limits, paths: BTreeMap::new() })
    }

    /// The twin for tests: what changes is what a virtual source of a simulated engine says, record by record, in the
    /// form of inotify(7). Paths are only noted, and their watches are numbered from 1.
    pub fn hosted(source: Source<'static>, limits: WatchLimits) -> Watch {
        Watch { origin: Origin::Hosted { source, added: 0 }, limits, paths: BTreeMap::new() }
    }

    /// Watches a directory, or a file, for everything.
    ///
    /// A path of the form `/proc/self/fd/N` watches what is open as N, whatever its name is by now.
    ///
    /// A file that is watched already, by whatever path, keeps its watch and gives the same id; it takes no more
    /// room, so this is also allowed at the limit.
    ///
    /// # Errors
    /// [`Error::Full`] for one more file at [`WatchLimits::watches`]; otherwise as inotify_add_watch(2): ENOENT, and ENOSPC when
    /// the user has too many watches (`fs.inotify.max_user_watches`).
    pub fn add(&mut self, path: impl AsRef<Path>) -> Result<WatchId, Error> {
        self.add_for(path, WatchFor::ALL)
    }

    /// The same, for some of it; what the same file was watched for before is replaced.
    ///
    /// # Errors
    /// As [`add`](Watch::add).
    pub fn add_for(&mut self, path: impl AsRef<Path>, what: WatchFor) -> Result<WatchId, Error> {
        let path = path.as_ref();
        let id = match &self.origin {
            Origin::Kernel(descriptor) => inotify_add(descriptor.as_fd(), path, what.mask())
                .map(WatchId)
                .map_err(|error| Error::os("watch", path.display(), error))?,
            Origin::Hosted { added, .. } => {
                let known = self.paths.iter().find(|(_, known)| known.as_path() == path).map(|(id, _)| *id);
                known.unwrap_or(WatchId(added + 1))
            }
        };
        if self.paths.len() >= self.limits.watches && !self.paths.contains_key(&id) {
            // Which file is behind a path the kernel tells by adding it, and so only then whether it is a new one.
            self.forget(id);
            return Err(Error::Full { what: "watches", limit: self.limits.watches });
        }
        if let Origin::Hosted { added, .. } = &mut self.origin {
            *added = id.0.max(*added);
        }
        self.paths.insert(id, path.to_owned());
        Ok(id)
    }

    /// Ends a watch. No change of it comes in later batches, and no [`Change::Ended`]; `false` when it had
    /// ended.
    pub fn remove(&mut self, id: WatchId) -> bool {
        let was_there = self.paths.remove(&id).is_some();
        if was_there {
            self.forget(id);
        }
        was_there
    }

    /// Has the kernel watch it no more.
    fn forget(&self, id: WatchId) {
        if let Origin::Kernel(descriptor) = &self.origin {
            // It fails when the file is gone, which a batch under way was about to say.
            let _ = inotify_remove(descriptor.as_fd(), id.0);
        }
    }

    /// The path by which a watch was added; `None` once it has ended.
    pub fn path(&self, id: WatchId) -> Option<&Path> {
        self.paths.get(&id).map(PathBuf::as_path)
    }

    /// How many paths are watched.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether nothing is watched.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Leaves only records of live watches in the batch, and forgets those that end in it; how many bytes are left.
    fn sift(&mut self, batch: &mut [u8]) -> usize {
        let (mut from, mut to) = (0, 0);
        while let Some(record) = Record::first(&batch[from..]) {
            let end = from + record.len;
            let is_known = self.paths.contains_key(&record.watch);
            if is_known && record.ends() {
                self.paths.remove(&record.watch);
            }
            if is_known || record.is_overflow() {
                batch.copy_within(from..end, to);
                to += end - from;
            }
            from = end;
        }
        to
    }
}

impl Resource for Watch {
    type Event<'a> = Changes<'a>;

    fn source(&self) -> Source<'_> {
        match &self.origin {
            Origin::Kernel(descriptor) => Source::of(descriptor),
            Origin::Hosted { source, .. } => *source,
        }
    }

    fn step<'a>(
        &mut self,
        _: Ready,
        io: &mut Io<'_>,
        buffer: &'a mut [u8],
    ) -> io::Result<Option<Changes<'a>>> {
        if !io.is_first() {
            // One batch a turn; what is left keeps the descriptor readable.
            return Err(ErrorKind::WouldBlock.into());
        }
        let most = self.limits.batch_bytes.clamp(BYTES_MIN, buffer.len() / 2);
        let mut filled = io.read(self.source(), &mut buffer[..most])?;
        if Changes::new(&buffer[..filled]).any(|change| matches!(change, Change::MovedOut(_))) {
            // The other half may have come meanwhile. An error is told to the next step, if it stays.
            filled += io.read(self.source(), &mut buffer[filled..filled + most]).unwrap_or(0);
        }
        let left = self.sift(&mut buffer[..filled]);
        Ok((left > 0).then(|| Changes::new(&buffer[..left])))
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("paths", &self.paths)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
