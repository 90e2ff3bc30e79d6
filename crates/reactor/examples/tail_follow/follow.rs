//! One followed file, and a look at it. Runs on a thread of the pool, because reading from a disk may block.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

/// A file that is followed by its path, even if the path comes to name another file.
pub(crate) struct Followed {
    path: PathBuf,
    open: Option<Open>,
    /// A file that exists at the start is shown by its last lines, and a later one from its beginning.
    is_start: bool,
    /// The problem with the path has been reported.
    said: bool,
}

/// The file that the path named at the last look.
struct Open {
    file: File,
    device: u64,
    inode: u64,
    at: u64,
}

/// The result of a look.
#[derive(Default)]
pub(crate) struct Found {
    /// There may be more to show.
    pub(crate) more: bool,
    /// The look has printed something, below its header.
    pub(crate) has_printed: bool,
    /// The path names nothing. Its folder may have been replaced, too.
    pub(crate) is_missing: bool,
    /// The resolved path of a file that was newly opened.
    pub(crate) opened: Option<PathBuf>,
    /// The error of standard output.
    pub(crate) failed: Option<io::Error>,
}

impl Followed {
    pub(crate) fn new(path: PathBuf) -> Followed {
        Followed { path, open: None, is_start: true, said: false }
    }

    /// Returns a path that names the open file itself, even after it was renamed or removed: see proc(5).
    pub(crate) fn open_path(&self) -> Option<PathBuf> {
        let number = self.open.as_ref()?.file.as_raw_fd();
        Some(format!("/proc/self/fd/{number}").into())
    }

    /// Returns the folder to watch, and the file's name in it.
    pub(crate) fn place(path: &Path) -> Option<(PathBuf, OsString)> {
        let folder = path.parent()?;
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        Some((folder.to_owned(), path.file_name()?.to_owned()))
    }

    /// Shows at most one chunk of new bytes, and checks whether the path names another file now.
    pub(crate) fn look(&mut self, with_header: bool) -> Found {
        let mut found = Found::default();
        if self.open.is_none() {
            self.reopen(&mut found);
        }
        if let Err(error) = self.advance(with_header, &mut found) {
            self.say(&error.to_string());
        }
        found
    }

    fn reopen(&mut self, found: &mut Found) {
        match Open::new(&self.path, self.is_start) {
            Ok(open) => {
                self.open = Some(open);
                self.said = false;
                found.opened = Some(fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone()));
            }
            Err(error) => {
                found.is_missing = error.kind() == io::ErrorKind::NotFound;
                let text = if found.is_missing { "is not there yet" } else { &error.to_string() };
                self.say(text);
            }
        }
        self.is_start = false;
    }

    fn advance(&mut self, with_header: bool, found: &mut Found) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        if show(&self.path, open, with_header, found)? {
            return Ok(());
        }
        if open.file.metadata()?.len() < open.at {
            open.at = 0;
            found.more = true;
            eprintln!("tail_follow: {}: was truncated; from its beginning", self.path.display());
            return Ok(());
        }
        match fs::metadata(&self.path) {
            Ok(now) if (now.dev(), now.ino()) == (open.device, open.inode) => {
                self.said = false;
                Ok(())
            }
            // Finish the old file first: these bytes were written between our read and this check.
            Ok(_) if show(&self.path, open, with_header, found)? => Ok(()),
            Ok(_) => {
                self.open = None;
                found.more = true;
                eprintln!("tail_follow: {}: was replaced; following the new file", self.path.display());
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                found.is_missing = true;
                // A renamed file may still grow. A removed one is finished, and while we keep it open the
                // kernel does not report that its folder was removed as well.
                if open.file.metadata()?.nlink() == 0 {
                    self.open = None;
                }
                self.say("is gone; waiting for a new one");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Reports a problem once.
    fn say(&mut self, what: &str) {
        if !std::mem::replace(&mut self.said, true) {
            eprintln!("tail_follow: {}: {what}", self.path.display());
        }
    }
}

/// Shows the next chunk. Returns whether there was one.
fn show(path: &Path, open: &mut Open, with_header: bool, found: &mut Found) -> io::Result<bool> {
    let mut chunk = vec![0; CHUNK];
    let count = open.file.read_at(&mut chunk, open.at)?;
    if count == 0 {
        return Ok(false);
    }
    open.at += count as u64;
    let mut out = io::stdout().lock();
    let mut print = || {
        if with_header {
            writeln!(out, "==> {} <==", path.display())?;
        }
        out.write_all(&chunk[..count])?;
        out.flush()
    };
    found.failed = print().err();
    (found.has_printed, found.more) = (true, true);
    Ok(true)
}

impl Open {
    fn new(path: &Path, at_last_lines: bool) -> io::Result<Open> {
        // Without O_NONBLOCK, opening a pipe would wait for a writer.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("is not a regular file"));
        }
        let mut open = Open { file, device: metadata.dev(), inode: metadata.ino(), at: 0 };
        if at_last_lines {
            open.at = open.last_lines(metadata.len())?;
        }
        Ok(open)
    }

    /// Returns the offset of the last lines. Searches from the end, chunk by chunk, up to a limit.
    fn last_lines(&self, end: u64) -> io::Result<u64> {
        let mut chunk = vec![0; CHUNK];
        let (mut at, mut lines) = (end, 0);
        for _ in 0..CHUNKS_BACK_MAX {
            let start = at.saturating_sub(CHUNK as u64);
            let part = &mut chunk[..(at - start) as usize];
            self.file.read_exact_at(part, start)?;
            for (offset, byte) in part.iter().enumerate().rev() {
                let is_last = start + offset as u64 + 1 == end;
                lines += u32::from(*byte == b'\n' && !is_last);
                if lines == LINES {
                    return Ok(start + offset as u64 + 1);
                }
            }
            at = start;
        }
        Ok(at)
    }
}

/// How many lines are shown of a file that exists at the start.
const LINES: u32 = 10;
/// The most bytes of one read.
const CHUNK: usize = 64 << 10;
/// How many chunks are searched for the last lines. Longer lines are cut.
const CHUNKS_BACK_MAX: u32 = 64;
