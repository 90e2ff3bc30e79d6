//! Options for opening a file, and a file's metadata.

use crate::options::with_changes;
use std::{ffi::OsString, time::SystemTime};

use super::File;

/// Options for opening a file.
///
/// The defaults are those of `std::fs::OpenOptions`: nothing is allowed, and nothing is created. A file is
/// always opened with CLOEXEC. On Unix, opening never waits for the other end of a pipe. So check
/// [`Metadata::kind`] before reading a file that somebody else named.
///
/// ```
/// use reactor::file::OpenOptions;
/// let log = OpenOptions::with(|options| {
///     options.append = true;
///     options.create = true;
/// });
/// assert_ne!(log, OpenOptions::read());
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct OpenOptions {
    /// Opens it for reading.
    pub read: bool,
    /// Opens it for writing.
    pub write: bool,
    /// Opens it for writing at its end only.
    pub append: bool,
    /// Creates it if it does not exist.
    pub create: bool,
    /// Creates it, and fails if it exists.
    pub create_new: bool,
    /// Truncates it to nothing.
    pub truncate: bool,
    /// Makes the path relative to this directory. The path must not lead out of it, whether by `..`, as an
    /// absolute path, or by a symbolic link. If it does, the error on Linux is of kind `CrossesDevices`
    /// (EXDEV), as of openat2(2) with RESOLVE_BENEATH. Systems without that call return `PermissionDenied`.
    /// They compare resolved paths, so somebody who can rename within the directory may win a race against
    /// the check.
    pub beneath: Option<File>,
    /// Reads this many bytes from the file's start in the same operation, which is enough for a small file.
    /// At most 1 MiB.
    pub prefetch: usize,
}

with_changes!(OpenOptions);

impl OpenOptions {
    /// Makes options for reading.
    pub fn read() -> OpenOptions {
        OpenOptions { read: true, ..OpenOptions::default() }
    }

    /// Makes options for writing. The file is created if it does not exist, and truncated if it does.
    pub fn write() -> OpenOptions {
        OpenOptions { write: true, create: true, truncate: true, ..OpenOptions::default() }
    }
}

impl PartialEq for OpenOptions {
    fn eq(&self, other: &OpenOptions) -> bool {
        let flags = |of: &OpenOptions| {
            (of.read, of.write, of.append, of.create, of.create_new, of.truncate, of.prefetch)
        };
        let beneath = |of: &OpenOptions| of.beneath.as_ref().map(|root| root.path().to_owned());
        flags(self) == flags(other) && beneath(self) == beneath(other)
    }
}

/// An opened file.
///
/// [`Operation`](crate::file::Operation) has an example.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    pub file: File,
    /// Its metadata right after opening.
    pub metadata: Metadata,
    /// Its first bytes, as many as [`OpenOptions::prefetch`] asked for, or fewer if the file is shorter.
    pub prefetched: Vec<u8>,
}

/// The metadata of a file.
///
/// [`Operation`](crate::file::Operation) has an example.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metadata {
    /// The length in bytes.
    pub len: u64,
    /// The kind of the file.
    pub kind: FileKind,
    /// The time of the last change to the content, where the system provides it.
    pub modified: Option<SystemTime>,
}

/// The kind of file that a path names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link. Only [`Operation::read_directory`](crate::file::Operation::read_directory) reports these.
    Link,
    /// A device, a pipe, a socket.
    Other,
}

/// An entry of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// The name within the directory.
    pub name: OsString,
    /// The kind of the entry.
    pub kind: FileKind,
}

/// The most bytes that an open may read.
pub(crate) const PREFETCH_MAX: usize = 1 << 20;
