//! Atomic replace: writes a temporary file beside the old one, syncs it, renames it over the old one, and
//! syncs the directory.

use std::{
    ffi::OsString,
    fs,
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::sys;

/// How often to try another name if one is taken already.
const NAMES_MAX: u32 = 16;
/// How many symbolic links to follow; the kernel has the same limit.
const LINKS_MAX: u32 = 40;
/// The longest name that goes unshortened into the temporary one, in bytes.
const NAME_MAX: usize = 200;

/// Gives the file at the path this content, or leaves the old one; see
/// [`Operation::replace`](super::Operation::replace).
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = &*resolved(path)?;
    let (directory, name) = split(path)?;
    let (temporary, mut file) = create(directory, name)?;
    let written = fill(&mut file, path, bytes).and_then(|()| fs::rename(&temporary, path));
    drop(file);
    if let Err(error) = written {
        // Ignore errors of the clean-up, because the first error is more useful.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sys::sync_directory(directory)
}

/// Follows a path's symbolic links, because a link must stay a link. The target need not exist.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&path) {
            // A relative target starts at the link's directory. An absolute one replaces the whole path.
            Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
            // This is not a link, or it does not exist. The next step reports any other error.
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

/// Returns the name, shortened so that there is room for the rest of the temporary name: names have at most
/// 255 bytes. The name is only for people, so the lost part does not matter.
fn shortened(name: &std::ffi::OsStr) -> OsString {
    if name.len() <= NAME_MAX {
        return name.to_owned();
    }
    // A character has at most four bytes.
    name.to_string_lossy().chars().take(NAME_MAX / 4).collect::<String>().into()
}

/// Gives the new file the owner and group of the old one, before it has any content.
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
            // After the owner, because changing the owner clears the set-id bits.
            file.set_permissions(old.permissions())?;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => (),
        Err(error) => return Err(error),
    }
    file.write_all(bytes)?;
    file.sync_all()
}
