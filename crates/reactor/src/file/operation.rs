//! The operations on files, each with the type of its answer.

use std::{fmt, path::PathBuf};

use super::{Action, Answer, DirEntry, File, Metadata, OpenOptions, Opened};

/// An operation on files whose answer is a `T`. Submitted by [`Context::file`](crate::Context::file).
///
/// ```
/// use reactor::{Context, Error, Receive, Result, Service, file::Operation};
///
/// /// Keeps its number in a file, so that even a failed write leaves a valid one.
/// struct Keeper;
/// struct Kept(Result<(), Error>);
///
/// impl Service for Keeper {
///     fn start(&mut self, cx: &mut Context<Self>) -> Result {
///         let path = std::env::temp_dir().join(format!("kept-{}", std::process::id()));
///         cx.file(Operation::replace(path, b"7".to_vec()), Kept)?;
///         Ok(())
///     }
/// }
///
/// impl Receive<Kept> for Keeper {
///     fn receive(&mut self, _: &mut Context<Self>, Kept(result): Kept) -> Result {
///         result?;
///         Ok(())
///     }
/// }
///
/// let receipt = reactor::run(Keeper)?;
/// assert_eq!(receipt.services[0].first_faults, Vec::<String>::new());
/// # std::fs::remove_file(std::env::temp_dir().join(format!("kept-{}", std::process::id())))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Operation<T> {
    pub(super) action: Action,
    pub(super) take: fn(Answer) -> Option<T>,
}

impl<T> Operation<T> {
    /// Returns the action to perform.
    pub fn action(&self) -> &Action {
        &self.action
    }
}

impl<T> fmt::Debug for Operation<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.action)
    }
}

impl Operation<Opened> {
    /// Opens a file or a directory, and returns its metadata, too.
    pub fn open(path: impl Into<PathBuf>, options: OpenOptions) -> Operation<Opened> {
        let action = Action::Open { path: path.into(), options };
        let take = |answer| match answer {
            Answer::Opened(opened) => Some(opened),
            _ => None,
        };
        Operation { action, take }
    }
}

impl Operation<Vec<u8>> {
    /// Reads at most `bytes_max` bytes from `offset` on. The answer is shorter only if the file ends before.
    pub fn read_at(file: &File, offset: u64, bytes_max: usize) -> Operation<Vec<u8>> {
        Operation {
            action: Action::Read { file: file.clone(), offset, bytes_max, buffer: Vec::new() },
            take: Answer::into_bytes,
        }
    }

    /// Reads a whole file. If it has more than `bytes_max` bytes, the error is of kind `FileTooLarge`.
    ///
    /// It does not wait for a named pipe that somebody has open for writing, or for a kernel file that waits
    /// for news (`/proc/kmsg`). It reads the available bytes and fails with `WouldBlock`, because those may
    /// not be all. A named pipe that nobody has open for writing is at its end.
    pub fn read(path: impl Into<PathBuf>, bytes_max: usize) -> Operation<Vec<u8>> {
        Operation { action: Action::ReadWhole { path: path.into(), bytes_max }, take: Answer::into_bytes }
    }
}

impl Operation<()> {
    fn done(action: Action) -> Operation<()> {
        let take = |answer| match answer {
            Answer::Done => Some(()),
            _ => None,
        };
        Operation { action, take }
    }

    /// Writes all these bytes from `offset` on. After an error (ENOSPC) any part of them may have been
    /// written.
    ///
    /// A file that was opened to append is refused (`InvalidInput`), because the system would write at its
    /// end in any case.
    pub fn write_at(file: &File, offset: u64, bytes: impl Into<Vec<u8>>) -> Operation<()> {
        Operation::done(Action::Write { file: file.clone(), offset, bytes: bytes.into() })
    }

    /// Writes all these bytes at the end of a file that was opened with [`OpenOptions::append`].
    ///
    /// A regular file that was opened otherwise is refused (`InvalidInput`), because the bytes would land at
    /// the open file's current position.
    pub fn append(file: &File, bytes: impl Into<Vec<u8>>) -> Operation<()> {
        Operation::done(Action::Append { file: file.clone(), bytes: bytes.into() })
    }

    /// Appends bytes and makes them survive a power cut, with one answer for both: fdatasync(2) after
    /// [`append`](Operation::append). After an error any part of the bytes may be in the file.
    pub fn append_synced(file: &File, bytes: impl Into<Vec<u8>>) -> Operation<()> {
        Operation::done(Action::AppendSynced { file: file.clone(), bytes: bytes.into() })
    }

    /// Truncates the file, or extends it with zeros.
    pub fn set_len(file: &File, len: u64) -> Operation<()> {
        Operation::done(Action::SetLen { file: file.clone(), len })
    }

    /// Makes earlier writes to the file survive a power cut: fsync(2).
    pub fn sync(file: &File) -> Operation<()> {
        Operation::done(Action::Sync { file: file.clone() })
    }

    /// Makes the names in a directory survive a power cut. Does nothing on Windows, because it has no such
    /// call.
    pub fn sync_directory(path: impl Into<PathBuf>) -> Operation<()> {
        Operation::done(Action::SyncDirectory { path: path.into() })
    }

    /// Renames a file. An existing file of the new name is replaced.
    pub fn rename(from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Operation<()> {
        Operation::done(Action::Rename { from: from.into(), to: to.into() })
    }

    /// Removes a file's name.
    pub fn remove(path: impl Into<PathBuf>) -> Operation<()> {
        Operation::done(Action::Remove { path: path.into() })
    }

    /// Makes a directory.
    pub fn create_directory(path: impl Into<PathBuf>) -> Operation<()> {
        Operation::done(Action::CreateDirectory { path: path.into() })
    }

    /// Replaces a file's content as a whole. It writes a temporary file beside it, syncs that, renames it
    /// over the path, and syncs the directory. At each moment, and after a power cut, a reader sees either
    /// the old content or the new one.
    ///
    /// After an error the temporary file is gone. The old file is untouched, unless only the last step
    /// failed. Then the new content is there, but a power cut may bring the old one back. A power cut during
    /// the operation may leave a file `.NAME.NUMBER.replace` in the directory, which nothing reads (a long
    /// NAME is cut).
    ///
    /// The new file has the permissions, the owner and the group of the old one. If this process may not
    /// change the owner, the operation fails with `PermissionDenied`, and the old content stays. A path that
    /// is a symbolic link stays one, and its target is replaced or created.
    pub fn replace(path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) -> Operation<()> {
        Operation::done(Action::Replace { path: path.into(), bytes: bytes.into() })
    }

    /// Closes a file outside the loop, if this is its last clone. For file systems where that blocks.
    pub fn close(file: File) -> Operation<()> {
        Operation::done(Action::Close { file: Some(file) })
    }
}

impl Operation<Metadata> {
    /// Returns the metadata of a path's file. Follows symbolic links.
    pub fn stat(path: impl Into<PathBuf>) -> Operation<Metadata> {
        Operation { action: Action::Stat { path: path.into() }, take: Answer::into_metadata }
    }

    /// Returns the current metadata of an open file.
    pub fn stat_file(file: &File) -> Operation<Metadata> {
        Operation { action: Action::StatFile { file: file.clone() }, take: Answer::into_metadata }
    }
}

impl Operation<Vec<DirEntry>> {
    /// Lists a directory, sorted by name. If it has more than `entries_max` entries, the error is of kind
    /// `FileTooLarge`.
    pub fn read_directory(path: impl Into<PathBuf>, entries_max: usize) -> Operation<Vec<DirEntry>> {
        let take = |answer| match answer {
            Answer::Entries(entries) => Some(entries),
            _ => None,
        };
        Operation { action: Action::ReadDirectory { path: path.into(), entries_max }, take }
    }
}
