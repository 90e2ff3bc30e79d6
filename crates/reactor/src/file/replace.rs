//! Atomic replace: a temporary file beside the old one, synced, renamed over it, and the directory synced.

use std::{
    ffi::OsString,
    fs,
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::sys;

/// How often a name that somebody else has taken is replaced by another.
const NAMES_MAX: u32 = 16;

/// Sees to it that the path has this content, or the old one; see [`Operation::replace`](super::Operation::replace).
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (directory, name) = split(path)?;
    let (temporary, mut file) = create(directory, name)?;
    let written = fill(&mut file, path, bytes).and_then(|()| fs::rename(&temporary, path));
    drop(file);
    if let Err(error) = written {
        // The first error says more than one about the tidying up.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sys::sync_directory(directory)
}

fn split(path: &Path) -> io::Result<(&Path, &std::ffi::OsStr)> {
    let name = path.file_name().ok_or(ErrorKind::InvalidFilename)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok((directory.unwrap_or(Path::new(".")), name))
}

fn create(directory: &Path, name: &std::ffi::OsStr) -> io::Result<(PathBuf, fs::File)> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let mut tries = 0;
    loop {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut temporary = OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}-{number}.replace", process::id()));
        let temporary = directory.join(temporary);
        match fs::OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists && tries < NAMES_MAX => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

fn fill(file: &mut fs::File, old: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::metadata(old) {
        Ok(old) => file.set_permissions(old.permissions())?,
        Err(error) if error.kind() == ErrorKind::NotFound => (),
        Err(error) => return Err(error),
    }
    file.write_all(bytes)?;
    file.sync_all()
}
