//! Shared by the tests of files and directories: a temporary directory, and a file on which a write hangs.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::{
    fs,
    io::{ErrorKind, PipeReader, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use reactor::file::File;

/// A directory for one test. Removed on drop, with its contents.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("reactor-files-{}-{number}", process::id()));
        fs::create_dir(&path).expect("the name is free");
        Scratch(path)
    }

    /// Returns the directory itself.
    pub fn dir(&self) -> &Path {
        &self.0
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    /// Makes a file with this content.
    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("it can be written");
        path
    }

    /// Makes a file of this many zeros, which take no space on disk.
    pub fn sparse(&self, name: &str, len: u64) -> PathBuf {
        let path = self.path(name);
        let file = fs::File::create(&path).expect("it can be made");
        file.set_len(len).expect("a file may have holes");
        path
    }

    /// Returns the names of all files, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("it is there");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => (), // The test has done it.
            result => result.expect("only the test writes there"),
        }
    }
}

/// A file on which an append hangs, as on a stalled mount, until this is dropped. Then the append fails.
pub struct Hung {
    pub file: File,
    _reader: PipeReader,
}

/// Makes one: a full pipe without an active reader.
pub fn hang() -> Hung {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    rustix::io::ioctl_fionbio(&writer, true).expect("it does not block yet");
    let error = loop {
        if let Err(error) = writer.write_all(&[0; 4096]) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "full");
    rustix::io::ioctl_fionbio(&writer, false).expect("from here on it blocks");
    Hung { file: File::new(fs::File::from(OwnedFd::from(writer)), "hung"), _reader: reader }
}
