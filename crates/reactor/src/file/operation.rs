//! What can be asked of files, each with the type of its answer.

use std::{fmt, path::PathBuf};

use super::{Action, Answer, Entry, File, Metadata, OpenOptions, Opened};

/// An operation on files, whose answer is a `T`. Asked for by [`Context::file`](crate::Context::file).
///
/// ```
/// use reactor::{Context, Error, Receive, Result, Service, file::Operation};
///
/// /// Keeps its number in a file, whatever happens while it is written.
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
    /// What is to be done.
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
    /// Opens a file or a directory, and tells what it is.
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
    /// Reads at most so many bytes from this place on. Fewer come at the file's end, none beyond it.
    pub fn read_at(file: &File, offset: u64, bytes_max: usize) -> Operation<Vec<u8>> {
        Operation {
            action: Action::Read { file: file.clone(), offset, bytes_max, buffer: Vec::new() },
            take: Answer::into_bytes,
        }
    }

    /// Reads a whole file; one of more bytes than this is an error of kind `FileTooLarge`. A named pipe that is open for
    /// writing elsewhere, or a file of the kernel's that waits for news (`/proc/kmsg`), is not waited for: the operation takes
    /// what is there, and fails with `WouldBlock`, since that may not be all.
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

    /// Writes all these bytes from this place on. After an error (ENOSPC) any part of them may have been written.
    ///
    /// A file that was opened to append is refused (`InvalidInput`): the system would write at its end all the same.
    pub fn write_at(file: &File, offset: u64, bytes: impl Into<Vec<u8>>) -> Operation<()> {
        Operation::done(Action::Write { file: file.clone(), offset, bytes: bytes.into() })
    }

    /// Writes all these bytes at the file's end; it was opened with [`OpenOptions::append`].
    ///
    /// A regular file that was not is refused (`InvalidInput`): the bytes would land wherever the open file stands.
    pub fn append(file: &File, bytes: impl Into<Vec<u8>>) -> Operation<()> {
        Operation::done(Action::Append { file: file.clone(), bytes: bytes.into() })
    }

    /// Appends, and makes it survive a power cut, with one answer for both: fdatasync(2) after
    /// [`append`](Operation::append). After an error any part of the bytes may be there.
    pub fn append_synced(file: &File, bytes: impl Into<Vec<u8>>) -> Operation<()> {
        Operation::done(Action::AppendSynced { file: file.clone(), bytes: bytes.into() })
    }

    /// Cuts the file off, or makes it longer by zeros.
    pub fn set_len(file: &File, len: u64) -> Operation<()> {
        Operation::done(Action::SetLen { file: file.clone(), len })
    }

    /// Makes what was written to the file survive a power cut: fsync(2).
    pub fn sync(file: &File) -> Operation<()> {
        Operation::done(Action::Sync { file: file.clone() })
    }

    /// Makes the names in a directory survive a power cut. Does nothing on Windows, which has no such call.
    pub fn sync_directory(path: impl Into<PathBuf>) -> Operation<()> {
        Operation::done(Action::SyncDirectory { path: path.into() })
    }

    /// Gives a file another name; one that has that name is replaced.
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

    /// Replaces a file's content as a whole: writes a temporary file beside it, syncs it, renames it over the path,
    /// and syncs the directory. Whoever reads sees the old content or the new one, at each moment and after a power
    /// cut.
    ///
    /// After an error the temporary file is gone. The old file is untouched, unless only the last step failed: then
    /// the new content is there, and a power cut may bring the old one back. After a power cut in between, a file
    /// `.NAME.NUMBER.replace` may be left in the directory, which nobody reads (a long NAME is cut).
    ///
    /// The new file has the permissions, the owner and the group of the old one. Where this process may not give the file
    /// to another owner, the operation fails with `PermissionDenied`, and the old content stays. A path that is a symbolic
    /// link stays one: what it leads to is replaced, or made.
    pub fn replace(path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) -> Operation<()> {
        Operation::done(Action::Replace { path: path.into(), bytes: bytes.into() })
    }

    /// Closes a file elsewhere, if this is its last clone: for file systems where that blocks.
    pub fn close(file: File) -> Operation<()> {
        Operation::done(Action::Close { file: Some(file) })
    }
}

impl Operation<Metadata> {
    /// Tells what a path names; a symbolic link is followed.
    pub fn stat(path: impl Into<PathBuf>) -> Operation<Metadata> {
        Operation { action: Action::Stat { path: path.into() }, take: Answer::into_metadata }
    }

    /// Tells what an open file is now.
    pub fn stat_file(file: &File) -> Operation<Metadata> {
        Operation { action: Action::StatFile { file: file.clone() }, take: Answer::into_metadata }
    }
}

impl Operation<Vec<Entry>> {
    /// Lists a directory, sorted by name; one with more entries than this is an error of kind `FileTooLarge`.
    pub fn read_directory(path: impl Into<PathBuf>, entries_max: usize) -> Operation<Vec<Entry>> {
        let take = |answer| match answer {
            Answer::Entries(entries) => Some(entries),
            _ => None,
        };
        Operation { action: Action::ReadDirectory { path: path.into(), entries_max }, take }
    }
}
