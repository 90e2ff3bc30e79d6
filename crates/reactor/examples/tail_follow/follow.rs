//! One followed file: what a look at it finds. Runs on a thread of the pool, since reading a disk takes its time.

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

/// A file that is followed by its path, and not by what the path named once.
pub(crate) struct Followed {
    path: PathBuf,
    open: Option<Open>,
    /// What is there when the program starts is shown by its last lines; what comes later from its begin.
    is_start: bool,
    /// What is wrong with the path was said.
    said: bool,
}

/// What the path named when it was looked at last.
struct Open {
    file: File,
    device: u64,
    inode: u64,
    at: u64,
}

/// What a look found.
#[derive(Default)]
pub(crate) struct Found {
    /// There may be more.
    pub(crate) more: bool,
    /// It shows something, under its header.
    pub(crate) has_printed: bool,
    /// The path names nothing: its folder may be another one, too.
    pub(crate) is_missing: bool,
    /// Another file was opened: where it really is, by its folder.
    pub(crate) opened: Option<PathBuf>,
    /// Standard output does not take it.
    pub(crate) failed: Option<io::Error>,
}

impl Followed {
    pub(crate) fn new(path: PathBuf) -> Followed {
        Followed { path, open: None, is_start: true, said: false }
    }

    /// A path that names the open file itself, also when it was renamed or removed meanwhile: see proc(5).
    pub(crate) fn open_path(&self) -> Option<PathBuf> {
        let number = self.open.as_ref()?.file.as_raw_fd();
        Some(format!("/proc/self/fd/{number}").into())
    }

    /// The folder that is to be watched, and the name in it.
    pub(crate) fn place(path: &Path) -> Option<(PathBuf, OsString)> {
        let folder = path.parent()?;
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        Some((folder.to_owned(), path.file_name()?.to_owned()))
    }

    /// Shows at most one chunk of what is new, and finds out whether the path names another file now.
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
            eprintln!("tail_follow: {}: was truncated; from its begin", self.path.display());
            return Ok(());
        }
        match fs::metadata(&self.path) {
            Ok(now) if (now.dev(), now.ino()) == (open.device, open.inode) => {
                self.said = false;
                Ok(())
            }
            // What was written between the read and this: the old file is finished first.
            Ok(_) if show(&self.path, open, with_header, found)? => Ok(()),
            Ok(_) => {
                self.open = None;
                found.more = true;
                eprintln!("tail_follow: {}: was replaced; following the new file", self.path.display());
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                found.is_missing = true;
                // One that was renamed may still grow. One that was removed is over, and while it is open the kernel
                // does not tell that its folder was removed as well.
                if open.file.metadata()?.nlink() == 0 {
                    self.open = None;
                }
                self.say("is gone; waiting for a new one");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Says once what is wrong.
    fn say(&mut self, what: &str) {
        if !std::mem::replace(&mut self.said, true) {
            eprintln!("tail_follow: {}: {what}", self.path.display());
        }
    }
}

/// Shows the next chunk; whether there was one.
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
        // A pipe's open would wait for its writer.
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

    /// Where the last lines begin, looked for from the end, a chunk at a time and not for ever.
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

/// As many lines of a file are shown that is there at the start.
const LINES: u32 = 10;
/// As much is read at a time.
const CHUNK: usize = 64 << 10;
/// So far back lines are looked for: longer ones are cut.
const CHUNKS_BACK_MAX: u32 = 64;
