//! Performs the operations with system calls, on the calling thread.

use std::{
    fs,
    io::{self, ErrorKind, Read, Write},
    path::Path,
};

use super::{Action, Answer, DirEntry, File, FileJob, FileKind, Metadata, OpenOptions, Opened, replace};
use crate::{
    host::file::{PREFETCH_MAX, Writes},
    sys,
};

/// Performs a job on the system's files, on this thread.
pub(super) fn perform_job(mut job: FileJob) {
    let opened = job.take_opened();
    job.perform(|action| match (action, opened) {
        (Action::ReadWhole { bytes_max, .. }, Some(file)) => read_rest(file, *bytes_max).map(Answer::Bytes),
        (action, _) => perform(action),
    });
}

/// Performs one action. Takes the bytes of a write out of it.
pub(super) fn perform(action: &mut Action) -> io::Result<Answer> {
    match action {
        Action::Open { path, options } => open(path, options).map(Answer::Opened),
        Action::Read { file, offset, bytes_max, buffer } => {
            read_at(system(file)?, *offset, *bytes_max, std::mem::take(buffer)).map(Answer::Bytes)
        }
        Action::ReadWhole { path, bytes_max } => read_whole(path, *bytes_max).map(Answer::Bytes),
        Action::Write { file, offset, bytes } => {
            if file.writes() == Writes::AtItsEnd {
                return Err(io::Error::new(ErrorKind::InvalidInput, NO_PLACE));
            }
            let mut file = sys::Positioned { file: system(file)?, at: *offset };
            done(file.write_all(bytes))
        }
        Action::Append { file, bytes } => append(file, bytes),
        Action::AppendSynced { file, bytes } => {
            append(file, bytes)?;
            done(system(file)?.sync_data())
        }
        Action::SetLen { file, len } => done(system(file)?.set_len(*len)),
        Action::Sync { file } => done(system(file)?.sync_all()),
        Action::SyncDirectory { path } => done(sys::sync_directory(path)),
        Action::Stat { path } => fs::metadata(path).map(|of| Answer::Metadata(metadata(&of))),
        Action::StatFile { file } => system(file)?.metadata().map(|of| Answer::Metadata(metadata(&of))),
        Action::Rename { from, to } => done(fs::rename(from, to)),
        Action::Remove { path } => done(fs::remove_file(path)),
        Action::CreateDirectory { path } => done(fs::create_dir(path)),
        Action::ReadDirectory { path, entries_max } => {
            read_directory(path, *entries_max).map(Answer::Entries)
        }
        Action::Replace { path, bytes } => done(replace::replace(path, bytes)),
        Action::Close { file } => {
            file.take();
            Ok(Answer::Done)
        }
    }
}

fn append(file: &File, bytes: &[u8]) -> io::Result<Answer> {
    if file.writes() == Writes::AtAPlace {
        return Err(io::Error::new(ErrorKind::InvalidInput, NO_APPEND));
    }
    done(system(file)?.write_all(bytes))
}

const NO_PLACE: &str = "it was opened to append, so a write has no place of its own";
const NO_APPEND: &str = "it was not opened to append";

fn done(result: io::Result<()>) -> io::Result<Answer> {
    result.map(|()| Answer::Done)
}

fn system(file: &File) -> io::Result<&fs::File> {
    file.system().ok_or_else(|| io::Error::new(ErrorKind::Unsupported, "a file of a simulated disk"))
}

fn open(path: &Path, options: &OpenOptions) -> io::Result<Opened> {
    let mut how = fs::OpenOptions::new();
    how.read(options.read).write(options.write).append(options.append);
    how.create(options.create).create_new(options.create_new).truncate(options.truncate);
    let file = match &options.beneath {
        None => sys::open(path, &mut how)?,
        Some(root) => sys::open_beneath((system(root)?, root.path()), path, options, &mut how)?,
    };
    let metadata = metadata(&file.metadata()?);
    let wanted = options.prefetch.min(PREFETCH_MAX);
    let prefetched = if wanted > 0 && metadata.kind == FileKind::Regular {
        let wanted = wanted.min(usize::try_from(metadata.len).unwrap_or(usize::MAX));
        read_at(&file, 0, wanted, Vec::new())?
    } else {
        Vec::new()
    };
    Ok(Opened { file: File::new(file, path), metadata, prefetched })
}

/// Reads until there are `bytes_max` bytes, or the file ends.
pub(super) fn read_at(
    file: &fs::File,
    at: u64,
    bytes_max: usize,
    mut buffer: Vec<u8>,
) -> io::Result<Vec<u8>> {
    buffer.clear();
    // Not `read_to_end`, because that would read more than requested. The buffer is zeroed once in its life.
    buffer.resize(bytes_max, 0);
    let mut from = sys::Positioned { file, at };
    let mut len = 0;
    while len < bytes_max {
        match from.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(len);
    Ok(buffer)
}

fn read_whole(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    read_rest(sys::open(path, fs::OpenOptions::new().read(true))?, bytes_max)
}

/// Reads the rest of a file, or fails if that is more than `bytes_max` bytes.
pub(super) fn read_rest(file: fs::File, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take((bytes_max as u64).saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max { Err(ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

fn read_directory(path: &Path, entries_max: usize) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entries.len() >= entries_max {
            return Err(ErrorKind::FileTooLarge.into());
        }
        entries.push(DirEntry { kind: kind(entry.file_type()?), name: entry.file_name() });
    }
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(entries)
}

fn metadata(of: &fs::Metadata) -> Metadata {
    Metadata { len: of.len(), kind: kind(of.file_type()), modified: of.modified().ok() }
}

fn kind(of: fs::FileType) -> FileKind {
    if of.is_file() {
        FileKind::Regular
    } else if of.is_dir() {
        FileKind::Directory
    } else if of.is_symlink() {
        FileKind::Link
    } else {
        FileKind::Other
    }
}
