//! The kernel operations of a file operation: each with the memory that it refers to, and the step after it.
//!
//! All memory lies on the heap, so an [`Ask`] may be moved while the kernel has its addresses. It lives until
//! its completion has been handled.
#![allow(unsafe_code)]

use std::{
    ffi::{CString, OsString},
    fs,
    io::{self, ErrorKind},
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd},
        unix::ffi::OsStringExt as _,
    },
    path::PathBuf,
};

use io_uring::{opcode, squeue, types::Fd};

use crate::{
    host::file::{Answer, File, FileKind, Metadata, Opened, PREFETCH_MAX},
    sys,
};

/// One operation of the kernel, with its state.
pub(super) enum Ask {
    Open { path: CString, beneath: Option<File>, how: Box<libc::open_how>, then: Then },
    Read { from: From, at: u64, buffer: Vec<u8>, bytes_max: usize },
    Write { to: File, at: u64, bytes: Vec<u8>, written: usize },
    Sync { what: Synced },
    SetLen { file: File, len: u64 },
    Stat { path: CString, file: Option<File>, record: Box<libc::statx> },
    Rename { from: CString, to: CString },
    Remove { path: CString },
    CreateDirectory { path: CString },
    Close { descriptor: OwnedFd },
}

/// The purpose of opening a file.
pub(super) enum Then {
    /// To hand it over, with up to this many of its first bytes.
    HandOver { prefetch: usize },
    /// To read it as a whole, if it has no more bytes than this.
    ReadWhole { bytes_max: usize },
    /// To sync it.
    Sync,
}

/// The source of a read.
pub(super) enum From {
    Shared(File),
    /// A file to hand over with its first bytes.
    Opened(Box<Opened>),
    /// A file to read as a whole.
    Whole(fs::File),
}

/// The target of a sync.
pub(super) enum Synced {
    File(File),
    Directory(fs::File),
}

/// The step after an operation.
pub(super) enum FileStep {
    Ask(Ask),
    /// A thread reads the whole of this file.
    Leave(fs::File),
    Done(io::Result<Answer>),
}

/// An offset that means the file's current position.
pub(super) const WHERE_IT_STANDS: u64 = u64::MAX;

impl Ask {
    /// Builds the operation to queue. For a read or a write, it covers the rest.
    pub(super) fn entry(&mut self) -> squeue::Entry {
        match self {
            Ask::Open { path, beneath, how, .. } => {
                let directory = beneath.as_ref().map_or(HERE, number);
                // The crate's type is the kernel's struct of three numbers, as this one is.
                opcode::OpenAt2::new(directory, path.as_ptr(), (&raw const **how).cast()).build()
            }
            Ask::Read { from, at, buffer, bytes_max } => {
                if buffer.len() == buffer.capacity() {
                    // The file is longer than it reported, so double the buffer.
                    buffer.reserve(buffer.len().min(*bytes_max - buffer.len()));
                }
                let left = *bytes_max - buffer.len();
                let room = buffer.spare_capacity_mut();
                let len = room.len().min(left).min(BYTES_MAX) as u32;
                opcode::Read::new(from.number(), room.as_mut_ptr().cast(), len).offset(*at).build()
            }
            Ask::Write { to, at, bytes, written } => {
                let rest = &bytes[*written..];
                let len = rest.len().min(BYTES_MAX) as u32;
                opcode::Write::new(number(to), rest.as_ptr(), len).offset(*at).build()
            }
            Ask::Sync { what: Synced::File(file) } => opcode::Fsync::new(number(file)).build(),
            Ask::Sync { what: Synced::Directory(file) } => opcode::Fsync::new(Fd(file.as_raw_fd())).build(),
            Ask::SetLen { file, len } => opcode::Ftruncate::new(number(file), *len).build(),
            Ask::Stat { path, file, record } => {
                let (of, flags) = match file {
                    Some(file) => (number(file), libc::AT_EMPTY_PATH),
                    None => (HERE, 0),
                };
                let record = (&raw mut **record).cast();
                opcode::Statx::new(of, path.as_ptr(), record).flags(flags).mask(sys::STATX_MASK).build()
            }
            Ask::Rename { from, to } => opcode::RenameAt::new(HERE, from.as_ptr(), HERE, to.as_ptr()).build(),
            Ask::Remove { path } => opcode::UnlinkAt::new(HERE, path.as_ptr()).build(),
            Ask::CreateDirectory { path } => {
                opcode::MkDirAt::new(HERE, path.as_ptr()).mode(DIRECTORY_MODE).build()
            }
            Ask::Close { descriptor } => opcode::Close::new(Fd(descriptor.as_raw_fd())).build(),
        }
    }

    /// Returns whether the operation may be repeated after a passing error. A close is final whatever its
    /// result.
    pub(super) fn is_repeatable(&self) -> bool {
        !matches!(self, Ask::Close { .. })
    }

    /// Decides the next step from the result.
    pub(super) fn after(self, result: io::Result<u32>) -> FileStep {
        if let Ask::Close { descriptor } = self {
            // The descriptor is closed whatever the result, unless the operation was cancelled.
            match result {
                Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => drop(descriptor),
                _ => drop(descriptor.into_raw_fd()),
            }
            return done();
        }
        let count = match result {
            Ok(count) => count as usize,
            Err(error) => return FileStep::Done(Err(error)),
        };
        match (count, self) {
            (number, Ask::Open { path, how, then, .. }) => {
                // SAFETY: the kernel gives each opened descriptor to one completion, and each completion is
                // handled once.
                let owned = unsafe { OwnedFd::from_raw_fd(number as i32) };
                let path = PathBuf::from(OsString::from_vec(path.into_bytes()));
                then.opened(owned.into(), path, how.flags).unwrap_or_else(|error| FileStep::Done(Err(error)))
            }
            (count, Ask::Read { from, at, mut buffer, bytes_max }) => {
                let len = buffer.len() + count;
                // SAFETY: the kernel was given the capacity behind the old length, and has written this many
                // bytes there.
                unsafe { buffer.set_len(len) };
                if count == 0 || len >= bytes_max {
                    return FileStep::Done(from.read(buffer, bytes_max));
                }
                FileStep::Ask(Ask::Read { from, at: behind(at, count), buffer, bytes_max })
            }
            (0, Ask::Write { .. }) => FileStep::Done(Err(ErrorKind::WriteZero.into())),
            (count, Ask::Write { to, at, bytes, written }) => {
                let written = written + count;
                if written >= bytes.len() {
                    return done();
                }
                FileStep::Ask(Ask::Write { to, at: behind(at, count), bytes, written })
            }
            (_, Ask::Stat { record, .. }) => FileStep::Done(Ok(Answer::Metadata(sys::metadata_of(&record)))),
            _ => done(),
        }
    }
}

fn done() -> FileStep {
    FileStep::Done(Ok(Answer::Done))
}

fn behind(at: u64, count: usize) -> u64 {
    if at == WHERE_IT_STANDS { at } else { at + count as u64 }
}

/// Returns the descriptor of a file of the system.
fn number(file: &File) -> Fd {
    Fd(file.system().map_or(-1, |file| file.as_raw_fd()))
}

impl Then {
    /// Continues with a file that was opened with these flags.
    fn opened(self, file: fs::File, path: PathBuf, flags: u64) -> io::Result<FileStep> {
        match self {
            Then::Sync => Ok(FileStep::Ask(Ask::Sync { what: Synced::Directory(file) })),
            Then::ReadWhole { bytes_max } => {
                let (metadata, is_plain) = look(&file, flags)?;
                if !is_plain {
                    // The ring has no read of such a file that does not wait. A call of read(2) does not
                    // wait, because of the flags of the open.
                    return Ok(FileStep::Leave(file));
                }
                // Reading one byte more than the file has shows that these are all. Reading one byte more
                // than the limit shows that there are too many.
                let bytes_max = bytes_max.saturating_add(1);
                let capacity = len(&metadata).saturating_add(1).max(CAPACITY_MIN).min(bytes_max);
                let (from, buffer) = (From::Whole(file), Vec::with_capacity(capacity));
                Ok(FileStep::Ask(Ask::Read { from, at: WHERE_IT_STANDS, buffer, bytes_max }))
            }
            Then::HandOver { prefetch } => {
                let (metadata, is_plain) = look(&file, flags)?;
                let file = if is_plain { File::known(file, path, true) } else { File::new(file, path) };
                let opened = Opened { file, metadata, prefetched: Vec::new() };
                let bytes_max = prefetch.min(PREFETCH_MAX).min(len(&metadata));
                if bytes_max == 0 || !is_plain {
                    return Ok(FileStep::Done(Ok(Answer::Opened(opened))));
                }
                let (from, buffer) = (From::Opened(Box::new(opened)), Vec::with_capacity(bytes_max));
                Ok(FileStep::Ask(Ask::Read { from, at: 0, buffer, bytes_max }))
            }
        }
    }
}

/// Examines an opened file. Returns its metadata, and whether it is a plain file, which has its bytes or gets
/// them from its disk. Operations on a plain file wait for the disk from here on. Other files stay as they
/// were opened, so that nobody waits for bytes that may never come.
fn look(file: &fs::File, flags: u64) -> io::Result<(Metadata, bool)> {
    let metadata = sys::stat_known(file)?;
    let is_regular = metadata.kind == FileKind::Regular;
    // The kernel reports many of its own files as regular and empty, even those that wait for bytes, such as
    // /proc/kmsg.
    let is_plain = is_regular && (metadata.len > 0 || sys::is_always_ready(file.as_fd()));
    if is_plain {
        sys::make_waiting(file, flags)?;
    }
    Ok((metadata, is_plain))
}

fn len(metadata: &Metadata) -> usize {
    usize::try_from(metadata.len).unwrap_or(usize::MAX)
}

impl From {
    fn number(&self) -> Fd {
        match self {
            From::Shared(file) => number(file),
            From::Opened(opened) => number(&opened.file),
            From::Whole(file) => Fd(file.as_raw_fd()),
        }
    }

    /// Makes the answer, once everything was read.
    fn read(self, buffer: Vec<u8>, bytes_max: usize) -> io::Result<Answer> {
        match self {
            From::Whole(_) if buffer.len() >= bytes_max => Err(ErrorKind::FileTooLarge.into()),
            From::Whole(_) | From::Shared(_) => Ok(Answer::Bytes(buffer)),
            From::Opened(opened) => Ok(Answer::Opened(Opened { prefetched: buffer, ..*opened })),
        }
    }
}

/// Resolves paths from the current directory of the process.
const HERE: Fd = Fd(libc::AT_FDCWD);
/// The mode of a new directory, before the process's mask.
const DIRECTORY_MODE: libc::mode_t = 0o777;
/// The most bytes of one read or write in the kernel.
const BYTES_MAX: usize = 1 << 30;
/// The smallest buffer for a file that does not report its length.
const CAPACITY_MIN: usize = 4096;
