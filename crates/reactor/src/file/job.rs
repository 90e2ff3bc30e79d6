//! An operation on its way: what an engine may take, perform, and answer.

use std::{fmt, fs, io, path::PathBuf};

use super::{Entry, File, Metadata, OpenOptions, Opened, system};
use crate::{error::Error, guard};

/// What is to be done: the set of operations that an engine may perform itself. See [`Operation`](super::Operation)
/// for what each of them means.
#[derive(Debug)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is described where it is made: the methods of `Operation`")]
pub enum Action {
    Open {
        path: PathBuf,
        options: OpenOptions,
    },
    /// `buffer` is to be used again: its content does not matter.
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
    /// Its name, as errors show it.
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

    /// The bytes of memory it needs while it is out, as the limit counts them.
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

/// What an action that succeeded has learned.
#[derive(Debug)]
#[non_exhaustive]
pub enum Answer {
    /// Of `Open`.
    Opened(Opened),
    /// Of `Read` and `ReadWhole`.
    Bytes(Vec<u8>),
    /// Of `Stat` and `StatFile`.
    Metadata(Metadata),
    /// Of `ReadDirectory`.
    Entries(Vec<Entry>),
    /// Of all others.
    Done,
}

impl Answer {
    pub(super) fn into_bytes(self) -> Option<Vec<u8>> {
        match self {
            Answer::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(super) fn into_metadata(self) -> Option<Metadata> {
        match self {
            Answer::Metadata(metadata) => Some(metadata),
            _ => None,
        }
    }
}

type Tell = Box<dyn FnOnce(Result<Answer, Error>) + Send>;

/// An action together with whom to tell. Whoever takes it calls [`FileJob::perform`] once; one that is dropped instead
/// is answered with an error, unless the runtime has ended.
///
/// ```
/// use reactor::file::FileJob;
/// use std::io::{Error, ErrorKind};
///
/// /// What `Engine::run_file` is in an engine whose world has no files: it takes each job, and refuses.
/// fn run_file(job: FileJob) -> Option<FileJob> {
///     job.perform(|_| Err(Error::new(ErrorKind::Unsupported, "there are no files here")));
///     None
/// }
/// ```
pub struct FileJob {
    action: Action,
    /// The file that a `ReadWhole` reads, if the engine that left the operation to a thread has opened it.
    opened: Option<fs::File>,
    tell: Option<Tell>,
}

impl FileJob {
    /// Makes a job of an action and of the closure that is told its result: a runtime gives jobs to its engine, and a
    /// test of an engine may do the same.
    ///
    /// The closure is called once. An engine may call it while it is being dropped. A panic of the closure ends there:
    /// it concerns neither the engine nor the other jobs.
    pub fn new(action: Action, tell: impl FnOnce(Result<Answer, Error>) + Send + 'static) -> FileJob {
        FileJob { action, opened: None, tell: Some(Box::new(tell)) }
    }

    /// The same with the file that it reads, which is then not opened once more: a second opening of a device, or of a pipe
    /// that somebody writes, has effects of its own.
    #[cfg(all(target_os = "linux", feature = "io-uring"))]
    pub(crate) fn with_opened(mut self, file: fs::File) -> FileJob {
        self.opened = Some(file);
        self
    }

    /// What is to be done.
    pub fn action(&self) -> &Action {
        &self.action
    }

    /// What is to be done, to be changed by whoever takes the bytes out and drops the rest.
    pub fn action_mut(&mut self) -> &mut Action {
        &mut self.action
    }

    /// Performs the action by this means, and tells the result. The bytes of the action may be taken out of it; its
    /// names are still needed for an error.
    pub fn perform(mut self, by: impl FnOnce(&mut Action) -> io::Result<Answer>) {
        let result = by(&mut self.action);
        self.tell(result);
    }

    /// Performs the action on the system's files, in this thread.
    pub(super) fn perform_here(mut self) {
        let opened = self.opened.take();
        self.perform(|action| match (action, opened) {
            (Action::ReadWhole { bytes_max, .. }, Some(file)) => {
                system::read_rest(file, *bytes_max).map(Answer::Bytes)
            }
            (action, _) => system::perform(action),
        });
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

pub(super) const NO_THREAD: &str = "no thread took the operation";
