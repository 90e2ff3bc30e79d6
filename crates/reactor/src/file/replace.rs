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
/// How many symbolic links are followed, as by the kernel.
const LINKS_MAX: u32 = 40;
/// The longest name that is put whole into the temporary one, in bytes.
const NAME_MAX: usize = 200;

/// Sees to it that the path has this content, or the old one; see [`Operation::replace`](super::Operation::replace).
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = &*resolved(path)?;
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

/// What a path leads to: a symbolic link is to stay one. What it leads to need not be there.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&path) {
            // A relative target is meant from the directory of the link; an absolute one replaces it.
            Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
            // It is no link, or not there; what else is wrong is found by the next step.
            Err(_) => return Ok(path),
        }
    }
    Err(ErrorKind::InvalidFilename.into())
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
        temporary.push(shortened(name));
        temporary.push(format!(".{}-{number}.replace", process::id()));
        let temporary = directory.join(temporary);
        match fs::OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists && tries < NAMES_MAX => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

/// A name, or as much of it as leaves room for what is put around it: names are at most 255 bytes long. It is for people
/// only, so what is cut off does not matter.
fn shortened(name: &std::ffi::OsStr) -> OsString {
    if name.len() <= NAME_MAX {
        return name.to_owned();
    }
    // A character has at most four bytes.
    name.to_string_lossy().chars().take(NAME_MAX / 4).collect::<String>().into()
}

/// Gives the new file owner and group of the old one, before it has any content.
#[cfg(unix)]
fn keep_owner(file: &fs::File, old: &fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let new = file.metadata()?;
    if (new.uid(), new.gid()) == (old.uid(), old.gid()) {
        return Ok(());
    }
    std::os::unix::fs::fchown(file, Some(old.uid()), Some(old.gid()))
}

#[cfg(windows)]
fn keep_owner(_: &fs::File, _: &fs::Metadata) -> io::Result<()> {
    Ok(())
}

fn fill(file: &mut fs::File, old: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::metadata(old) {
        Ok(old) => {
            keep_owner(file, &old)?;
            // Behind the owner: a change of that takes set-id bits away.
            file.set_permissions(old.permissions())?;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => (),
        Err(error) => return Err(error),
    }
    file.write_all(bytes)?;
    file.sync_all()
}
