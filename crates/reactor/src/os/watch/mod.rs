//! Directory watch: reports changes in directories and files, by inotify(7). Linux.

mod change;

use crate::options::with_changes;
use std::{
    collections::BTreeMap,
    fmt,
    io::{self, ErrorKind},
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use self::change::{BYTES_MIN, InotifyRecord};
pub use self::change::{Change, Changes, Subject, WatchEnd, WatchId};
use crate::{
    engine::{Ready, Source},
    error::Error,
    resource::{Io, Pollable},
    sys::{inotify_add, inotify_open, inotify_remove},
};

/// A resource that reports changes in directories and files.
///
/// One resource watches many paths, each by a [`WatchId`]. The service adds and removes them at any time
/// through [`Context::get_mut`](crate::Context::get_mut). Its event is a batch of [`Changes`] in the order in
/// which they happened, with borrowed names. The limits of inotify(7) hold. A watch belongs to the file
/// behind the path and not to the path. A watch of a directory does not cover its subdirectories. No watch
/// sees changes by other machines on a shared disk.
///
/// The kernel's queue is finite (`fs.inotify.max_queued_events`). When it overflows, changes are lost, and
/// [`Change::Overflow`] reports it: the service must then read everything again. A program that needs the
/// present content must add the watch first and read the directory afterwards.
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

/// The limits of one [`Watch`].
///
/// ```
/// use reactor::watch::WatchLimits;
/// let limits = WatchLimits::with(|options| options.watches = 16);
/// assert_eq!(limits.batch_bytes, 4096);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct WatchLimits {
    /// The most paths that it watches. The kernel has a limit of its own for each user.
    pub watches: usize,
    /// The most bytes of the kernel's records in one batch. A turn sees one batch. A record takes 16 bytes
    /// and its name, rounded up to 16. The minimum is 272, for the longest name. A batch may be twice as
    /// long, to find the other half of a rename.
    pub batch_bytes: usize,
}

with_changes!(WatchLimits);

impl WatchLimits {
    /// 1,024 paths, and 4 KiB: 128 changes with short names.
    pub const DEFAULT: WatchLimits = WatchLimits { watches: 1024, batch_bytes: 4096 };
}

impl Default for WatchLimits {
    fn default() -> WatchLimits {
        WatchLimits::DEFAULT
    }
}

/// The changes for which to watch a path. Its move and its end are always reported.
///
/// ```
/// use reactor::watch::WatchFor;
/// let names_only = WatchFor { entries: true, ..WatchFor::NOTHING };
/// assert!(!names_only.modified && WatchFor::ALL.modified);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchFor {
    /// Entries of a directory were created, moved or deleted.
    pub entries: bool,
    /// Each write and truncation, as [`Change::Modified`].
    pub modified: bool,
    /// The close of a file that was open for writing, as [`Change::Written`].
    pub written: bool,
    /// Changes of owner, mode, times or number of links, as [`Change::Attributes`].
    pub attributes: bool,
}

impl WatchFor {
    /// All changes.
    pub const ALL: WatchFor = WatchFor { entries: true, modified: true, written: true, attributes: true };
    /// Only the move or the end of the path.
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
    /// Opens a resource that watches nothing yet.
    ///
    /// # Errors
    /// The errors of inotify_init(2). For example EMFILE, also if the user has too many instances
    /// (`fs.inotify.max_user_instances`).
    pub fn new() -> Result<Watch, Error> {
        Watch::with_limits(WatchLimits::DEFAULT)
    }

    /// Opens a resource as [`new`](Watch::new), with limits.
    ///
    /// # Errors
    /// As [`new`](Watch::new).
    pub fn with_limits(limits: WatchLimits) -> Result<Watch, Error> {
        let descriptor = inotify_open().map_err(|error| Error::os("watch", "inotify", error))?;
        Ok(Watch { origin: Origin::Kernel(descriptor), limits, paths: BTreeMap::new() })
    }

    /// Creates a twin for tests, whose changes come from a virtual source of a simulated engine, record by
    /// record, in the form of inotify(7). It only notes paths, and numbers their watches from 1.
    pub fn hosted(source: Source<'static>, limits: WatchLimits) -> Watch {
        Watch { origin: Origin::Hosted { source, added: 0 }, limits, paths: BTreeMap::new() }
    }

    /// Watches a directory or a file for all changes.
    ///
    /// A path of the form `/proc/self/fd/N` watches the file that is open as N, whatever its present name.
    ///
    /// A file that is watched already, by any path, keeps its watch and gives the same id. It takes no more
    /// room, so this works even at the limit.
    ///
    /// # Errors
    /// [`Error::Full`] for one more file at [`WatchLimits::watches`]. Otherwise the errors of
    /// inotify_add_watch(2), for example ENOENT, or ENOSPC if the user has too many watches
    /// (`fs.inotify.max_user_watches`).
    pub fn add(&mut self, path: impl AsRef<Path>) -> Result<WatchId, Error> {
        self.add_for(path, WatchFor::ALL)
    }

    /// Watches as [`add`](Watch::add), but only for these changes. They replace the earlier ones of the same
    /// file.
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
            // The kernel identifies the file behind a path only when it adds the watch, so only now is it
            // clear that the file is new.
            self.forget(id);
            return Err(Error::Full { what: "watches", limit: self.limits.watches });
        }
        if let Origin::Hosted { added, .. } = &mut self.origin {
            *added = id.0.max(*added);
        }
        self.paths.insert(id, path.to_owned());
        Ok(id)
    }

    /// Ends a watch. Later batches have no change of it and no [`Change::Ended`]. Returns `false` if it had
    /// ended.
    pub fn remove(&mut self, id: WatchId) -> bool {
        let was_there = self.paths.remove(&id).is_some();
        if was_there {
            self.forget(id);
        }
        was_there
    }

    /// Removes the watch from the kernel.
    fn forget(&self, id: WatchId) {
        if let Origin::Kernel(descriptor) = &self.origin {
            // It fails if the file is gone, and then a batch under way was about to report that.
            let _ = inotify_remove(descriptor.as_fd(), id.0);
        }
    }

    /// Returns the path by which a watch was added. `None` once it has ended.
    pub fn path(&self, id: WatchId) -> Option<&Path> {
        self.paths.get(&id).map(PathBuf::as_path)
    }

    /// Returns how many paths are watched.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Returns whether no path is watched.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Keeps only records of live watches in the batch, and forgets watches that end in it. Returns the
    /// length of the remaining records.
    fn sift(&mut self, batch: &mut [u8]) -> usize {
        let (mut from, mut to) = (0, 0);
        while let Some(record) = InotifyRecord::first(&batch[from..]) {
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

impl Pollable for Watch {
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
            // Take one batch a turn. Further records keep the descriptor readable.
            return Err(ErrorKind::WouldBlock.into());
        }
        let most = self.limits.batch_bytes.clamp(BYTES_MIN, buffer.len() / 2);
        let mut filled = io.read(self.source(), &mut buffer[..most])?;
        if Changes::new(&buffer[..filled]).any(|change| matches!(change, Change::MovedOut(_))) {
            // The other half may have arrived meanwhile. If an error lasts, the next step reports it.
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
