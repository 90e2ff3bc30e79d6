//! A submitted operation, which a host may take, perform and answer.

use std::{fmt, fs, io, path::PathBuf};

use super::{DirEntry, File, Metadata, OpenOptions, Opened};
use crate::{error::Error, guard};

/// The operations that a host may perform itself. See [`Operation`](crate::file::Operation) for the meaning of
/// each.
#[derive(Debug)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is described where it is made: the methods of `Operation`")]
pub enum Action {
    Open {
        path: PathBuf,
        options: OpenOptions,
    },
    /// `buffer` is a buffer to reuse. Its contents do not matter.
    Read {
        file: File,
        offset: u64,
        bytes_max: usize,
        buffer: Vec<u8>,
    },
    ReadWhole {
        path: PathBuf,
        bytes_max: usize,
    },
    Write {
        file: File,
        offset: u64,
        bytes: Vec<u8>,
    },
    Append {
        file: File,
        bytes: Vec<u8>,
    },
    AppendSynced {
        file: File,
        bytes: Vec<u8>,
    },
    SetLen {
        file: File,
        len: u64,
    },
    Sync {
        file: File,
    },
    SyncDirectory {
        path: PathBuf,
    },
    Stat {
        path: PathBuf,
    },
    StatFile {
        file: File,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    CreateDirectory {
        path: PathBuf,
    },
    ReadDirectory {
        path: PathBuf,
        entries_max: usize,
    },
    Replace {
        path: PathBuf,
        bytes: Vec<u8>,
    },
    /// `None` once it is closed.
    Close {
        file: Option<File>,
    },
}

impl Action {
    /// Returns the name of the action, for error messages.
    pub fn name(&self) -> &'static str {
        match self {
            Action::Open { .. } => "open",
            Action::Read { .. } | Action::ReadWhole { .. } => "read",
            Action::Write { .. } => "write",
            Action::Append { .. } | Action::AppendSynced { .. } => "append",
            Action::SetLen { .. } => "set length of",
            Action::Sync { .. } => "sync",
            Action::SyncDirectory { .. } => "sync directory",
            Action::Stat { .. } | Action::StatFile { .. } => "stat",
            Action::Rename { .. } => "rename",
            Action::Remove { .. } => "remove",
            Action::CreateDirectory { .. } => "create directory",
            Action::ReadDirectory { .. } => "read directory",
            Action::Replace { .. } => "replace",
            Action::Close { .. } => "close",
        }
    }

    /// Returns the bytes of memory that the action needs while it is in flight, as the limit counts them.
    pub fn bytes(&self) -> usize {
        match self {
            Action::Open { options, .. } => options.prefetch,
            Action::Read { bytes_max, .. } | Action::ReadWhole { bytes_max, .. } => *bytes_max,
            Action::Write { bytes, .. }
            | Action::Append { bytes, .. }
            | Action::AppendSynced { bytes, .. }
            | Action::Replace { bytes, .. } => bytes.len(),
            _ => 0,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = match self {
            Action::Open { path, .. }
            | Action::ReadWhole { path, .. }
            | Action::SyncDirectory { path }
            | Action::Stat { path }
            | Action::Rename { from: path, .. }
            | Action::Remove { path }
            | Action::CreateDirectory { path }
            | Action::ReadDirectory { path, .. }
            | Action::Replace { path, .. } => path,
            Action::Read { file, .. }
            | Action::Write { file, .. }
            | Action::Append { file, .. }
            | Action::AppendSynced { file, .. }
            | Action::SetLen { file, .. }
            | Action::Sync { file }
            | Action::StatFile { file }
            | Action::Close { file: Some(file) } => file.path(),
            Action::Close { file: None } => return f.write_str("close"),
        };
        write!(f, "{} {}", self.name(), path.display())
    }
}

/// The result of a successful action.
#[derive(Debug)]
#[non_exhaustive]
pub enum Answer {
    /// The result of `Open`.
    Opened(Opened),
    /// The result of `Read` and `ReadWhole`.
    Bytes(Vec<u8>),
    /// The result of `Stat` and `StatFile`.
    Metadata(Metadata),
    /// The result of `ReadDirectory`.
    Entries(Vec<DirEntry>),
    /// The result of all others.
    Done,
}

impl Answer {
    pub(crate) fn into_bytes(self) -> Option<Vec<u8>> {
        match self {
            Answer::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(crate) fn into_metadata(self) -> Option<Metadata> {
        match self {
            Answer::Metadata(metadata) => Some(metadata),
            _ => None,
        }
    }
}

type Tell = Box<dyn FnOnce(Result<Answer, Error>) + Send>;

/// An action and the receiver of its result. Its taker calls [`FileJob::perform`] once. If a job is dropped
/// instead, it is answered with an error, unless the runtime has ended.
///
/// ```
/// use reactor::file::FileJob;
/// use std::io::{Error, ErrorKind};
///
/// /// `Host::run_file` of a world without files: it takes each job and refuses it.
/// fn run_file(job: FileJob) -> Option<FileJob> {
///     job.perform(|_| Err(Error::new(ErrorKind::Unsupported, "there are no files here")));
///     None
/// }
/// ```
pub struct FileJob {
    action: Action,
    /// The file for a `ReadWhole`, if the engine opened it before it left the operation to a thread.
    opened: Option<fs::File>,
    tell: Option<Tell>,
}

impl FileJob {
    /// Makes a job from an action and a closure that receives its result. A runtime passes jobs to its
    /// engine, and a test of an engine may do the same.
    ///
    /// The closure is called once. An engine may call it while the engine is being dropped. If the closure
    /// panics, the panic ends there, and affects neither the engine nor other jobs.
    pub fn new(action: Action, tell: impl FnOnce(Result<Answer, Error>) + Send + 'static) -> FileJob {
        FileJob { action, opened: None, tell: Some(Box::new(tell)) }
    }

    /// Adds the file to read, so that it is not opened again. Opening a device, or a pipe that somebody
    /// writes, a second time has side effects.
    #[cfg(all(target_os = "linux", feature = "io-uring"))]
    pub(crate) fn with_opened(mut self, file: fs::File) -> FileJob {
        self.opened = Some(file);
        self
    }

    /// Returns the action to perform.
    pub fn action(&self) -> &Action {
        &self.action
    }

    /// Returns the action for changes, for code that takes the bytes out and drops the rest.
    pub fn action_mut(&mut self) -> &mut Action {
        &mut self.action
    }

    /// Performs the action with `by`, and reports the result. `by` may take the bytes out of the action, but
    /// must leave its names, because an error needs them.
    pub fn perform(mut self, by: impl FnOnce(&mut Action) -> io::Result<Answer>) {
        let result = by(&mut self.action);
        self.tell(result);
    }

    /// Takes the file that was opened for the job.
    pub(crate) fn take_opened(&mut self) -> Option<fs::File> {
        self.opened.take()
    }

    fn tell(&mut self, result: io::Result<Answer>) {
        if let Some(tell) = self.tell.take() {
            let result = result.map_err(|error| self.error(error));
            guard::quietly(|| tell(result));
        }
    }

    fn error(&self, source: io::Error) -> Error {
        let operation = self.action.name();
        let text = self.action.to_string();
        let resource = text.strip_prefix(operation).map_or(&*text, str::trim_start);
        Error::os(operation, resource, source)
    }
}

impl Drop for FileJob {
    fn drop(&mut self) {
        if self.tell.is_some() {
            self.tell(Err(io::Error::other(NO_THREAD)));
        }
    }
}

impl fmt::Debug for FileJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileJob({})", self.action)
    }
}

pub(crate) const NO_THREAD: &str = "no thread took the operation";
