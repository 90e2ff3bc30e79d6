//! Regular files: operations that the standard library lacks, or that differ between systems.
#![allow(unsafe_code)]

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    path::{Component, Path},
};

use crate::host::file::{OpenOptions as Asked, Writes};

/// A file that is read and written at a position of this value's own. The file's own position does not
/// change.
pub(crate) struct Positioned<'a> {
    pub(crate) file: &'a File,
    pub(crate) at: u64,
}

impl Read for Positioned<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        #[cfg(unix)]
        let count = std::os::unix::fs::FileExt::read_at(self.file, into, self.at)?;
        #[cfg(windows)]
        let count = std::os::windows::fs::FileExt::seek_read(self.file, into, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Write for Positioned<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        #[cfg(unix)]
        let count = std::os::unix::fs::FileExt::write_at(self.file, from, self.at)?;
        #[cfg(windows)]
        let count = std::os::windows::fs::FileExt::seek_write(self.file, from, self.at)?;
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns where writes to an open file go.
pub(crate) fn writes(file: &File) -> Writes {
    if !file.metadata().is_ok_and(|of| of.is_file()) {
        return Writes::Anywhere;
    }
    #[cfg(unix)]
    // SAFETY: the descriptor is open, and the command takes no argument.
    return match unsafe { libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(file), libc::F_GETFL) } {
        flags if flags < 0 => Writes::Anywhere,
        flags if flags & libc::O_APPEND != 0 => Writes::AtItsEnd,
        _ => Writes::AtAPlace,
    };
    #[cfg(windows)]
    Writes::Anywhere
}

/// Opens a file as open(2) does, without waiting for the other end of a pipe.
pub(crate) fn open(path: &Path, how: &mut OpenOptions) -> io::Result<File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(how, libc::O_NONBLOCK | libc::O_NOCTTY);
    how.open(path)
}

/// Syncs a directory, so that its names survive a power cut.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    return File::open(path)?.sync_all();
    #[cfg(windows)]
    return path.metadata().map(|_| ());
}

/// Opens a file beneath a directory, and never one outside of it.
pub(crate) fn open_beneath(
    (root, root_path): (&File, &Path),
    path: &Path,
    asked: &Asked,
    how: &mut OpenOptions,
) -> io::Result<File> {
    #[cfg(target_os = "linux")]
    match open_resolved_beneath(root, path, asked) {
        // Linux before 5.6, or a seccomp filter that does not know the call.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => (),
        result => return result,
    }
    let _ = (root, asked);
    open_compared(root_path, path, how)
}

/// Does the same on a system without that check, by comparing resolved paths. A new file must have an
/// existing parent there.
fn open_compared(root: &Path, path: &Path, how: &mut OpenOptions) -> io::Result<File> {
    if !path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(ErrorKind::PermissionDenied.into());
    }
    let root = root.canonicalize()?;
    let whole = root.join(path);
    let resolved = match whole.canonicalize() {
        Ok(resolved) => resolved,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let (Some(parent), Some(name)) = (whole.parent(), whole.file_name()) else { return Err(error) };
            parent.canonicalize()?.join(name)
        }
        Err(error) => return Err(error),
    };
    if !resolved.starts_with(&root) {
        return Err(ErrorKind::PermissionDenied.into());
    }
    open(&resolved, how)
}

/// Calls openat2(2) with RESOLVE_BENEATH.
#[cfg(target_os = "linux")]
fn open_resolved_beneath(root: &File, path: &Path, asked: &Asked) -> io::Result<File> {
    use std::{
        ffi::CString,
        os::{
            fd::{AsRawFd, FromRawFd, OwnedFd},
            unix::ffi::OsStrExt,
        },
    };
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| ErrorKind::InvalidFilename)?;
    // SAFETY: the struct consists of numbers, for which zero is valid. The kernel requires unknown fields to
    // be zero.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    (how.flags, how.mode) = open_flags(asked)?;
    how.resolve = beneath_only();
    let size = size_of::<libc::open_how>();
    for _ in 0..RACES_MAX {
        // SAFETY: the path ends with a zero, the struct has the given size, and both live through the call.
        let number = unsafe {
            libc::syscall(libc::SYS_openat2, root.as_raw_fd(), path.as_ptr(), &raw const how, size)
        };
        if number >= 0 {
            // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
            let owned = unsafe { OwnedFd::from_raw_fd(number as i32) };
            return Ok(owned.into());
        }
        let error = io::Error::last_os_error();
        // EAGAIN means that a concurrent rename kept the kernel from being sure.
        if !matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) {
            return Err(error);
        }
    }
    Err(io::Error::from_raw_os_error(libc::EAGAIN))
}

/// How often to resolve a path again after a concurrent rename.
#[cfg(target_os = "linux")]
const RACES_MAX: u32 = 64;

/// Returns the resolve flags of openat2(2) for a path that must not lead out of its directory.
#[cfg(target_os = "linux")]
pub(crate) fn beneath_only() -> u64 {
    libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS
}

/// Returns the flags of openat2(2), and the mode of a new file.
///
/// # Errors
/// `InvalidInput` if neither read nor write access is requested.
#[cfg(target_os = "linux")]
pub(crate) fn open_flags(asked: &Asked) -> io::Result<(u64, u64)> {
    let access = match (asked.read, asked.write || asked.append) {
        (true, false) => libc::O_RDONLY,
        (false, true) => libc::O_WRONLY,
        (true, true) => libc::O_RDWR,
        (false, false) => return Err(ErrorKind::InvalidInput.into()),
    };
    let flag = |on: bool, flag: i32| if on { flag } else { 0 };
    let flags = access
        | libc::O_CLOEXEC
        | libc::O_NONBLOCK
        | libc::O_NOCTTY
        | flag(asked.append, libc::O_APPEND)
        | flag(asked.create || asked.create_new, libc::O_CREAT)
        | flag(asked.create_new, libc::O_EXCL)
        | flag(asked.truncate, libc::O_TRUNC);
    Ok((flags as u64, if flags & libc::O_CREAT == 0 { 0 } else { 0o666 }))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// Checks that both ways to open beneath a directory refuse the same paths.
    #[test]
    fn what_leads_out_of_the_directory_is_not_opened() {
        let base = std::env::temp_dir().join(format!("beneath-{}", std::process::id()));
        let root = base.join("root");
        std::fs::create_dir_all(root.join("in")).expect("a directory");
        std::fs::write(base.join("secret"), "no").expect("a file");
        std::fs::write(root.join("in/side"), "yes").expect("a file");
        std::os::unix::fs::symlink("../secret", root.join("out")).expect("a link");
        std::os::unix::fs::symlink(base.join("secret"), root.join("far")).expect("a link");
        std::os::unix::fs::symlink("in/side", root.join("near")).expect("a link");
        let file = File::open(&root).expect("a directory can be opened");
        let asked = Asked::read();
        type Open<'a> = &'a dyn Fn(&Path) -> io::Result<File>;
        let native = |path: &Path| open_beneath((&file, &root), path, &asked, OpenOptions::new().read(true));
        let compared = |path: &Path| open_compared(&root, path, OpenOptions::new().read(true));
        for (name, open) in [("native", &native as Open<'_>), ("compared", &compared)] {
            for path in ["../secret", "out", "far", "/etc/passwd", "in/../../secret"] {
                let error = open(Path::new(path)).expect_err(path);
                let kinds = [ErrorKind::CrossesDevices, ErrorKind::PermissionDenied];
                assert!(kinds.contains(&error.kind()), "{name} {path}: {error}");
            }
            for path in ["in/side", "near"] {
                let mut text = String::new();
                open(Path::new(path)).expect(path).read_to_string(&mut text).expect("text");
                assert_eq!(text, "yes", "{name} {path}");
            }
            assert_eq!(open(Path::new("in/none")).expect_err("none").kind(), ErrorKind::NotFound, "{name}");
        }
        std::fs::remove_dir_all(&base).expect("it is ours");
    }
}
