//! How a file is opened, and what is known of one.

use std::{ffi::OsString, time::SystemTime};

use super::File;

/// How a file is opened.
///
/// The defaults are those of `std::fs::OpenOptions`: nothing is allowed and nothing is made. A file is always opened
/// CLOEXEC and, on Unix, in a way that does not wait for the other end of a pipe: look at
/// [`Metadata::kind`] before reading what somebody else named.
///
/// ```
/// use reactor::file::OpenOptions;
/// let log = OpenOptions { append: true, create: true, ..OpenOptions::default() };
/// assert_ne!(log, OpenOptions::read());
/// ```
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// To be read.
    pub read: bool,
    /// To be written.
    pub write: bool,
    /// To be written at its end only.
    pub append: bool,
    /// Made if it is not there.
    pub create: bool,
    /// Made, and an error if it is there.
    pub create_new: bool,
    /// Emptied.
    pub truncate: bool,
    /// The path is relative to this directory, and may not lead out of it: neither by `..`, nor by an absolute
    /// path, nor by a symbolic link. The error for one that does is of kind `CrossesDevices` (EXDEV) on Linux, as
    /// of openat2(2) with RESOLVE_BENEATH, and `PermissionDenied` where that is not known: there the check is a
    /// comparison of resolved paths, which somebody who can rename within the directory can win a race against.
    pub beneath: Option<File>,
    /// Reads so many bytes from its start with the same operation: what a small file needs. At most 1 MiB.
    pub prefetch: usize,
}

impl OpenOptions {
    /// To be read.
    pub fn read() -> OpenOptions {
        OpenOptions { read: true, ..OpenOptions::default() }
    }

    /// To be written: made if it is not there, emptied if it is.
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

/// A file that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    pub file: File,
    /// What was known of it right after the opening.
    pub metadata: Metadata,
    /// Its first bytes, as many as [`OpenOptions::prefetch`] asked for and there were.
    pub prefetched: Vec<u8>,
}

/// What is known of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metadata {
    /// How many bytes it has.
    pub len: u64,
    /// What it is.
    pub kind: FileKind,
    /// When its content last changed, where the system tells.
    pub modified: Option<SystemTime>,
}

/// What a path names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link; only [`Operation::read_directory`](super::Operation::read_directory) tells of these.
    Link,
    /// A device, a pipe, a socket.
    Other,
}

/// An entry of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its name there.
    pub name: OsString,
    /// What it is.
    pub kind: FileKind,
}
