//! The system's figures for a process, and its limit of descriptors.

use std::{fs, path::PathBuf, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A running process, by its folder in Linux' /proc. Other systems have no such folder, so all figures are
/// unknown.
pub(crate) struct Process(PathBuf);

impl Process {
    pub(crate) fn of(id: u32) -> Process {
        Process(format!("/proc/{id}").into())
    }

    /// Returns the processor time of all its threads.
    pub(crate) fn processor_time(&self) -> Option<Duration> {
        let mut nanos = 0;
        for task in fs::read_dir(self.0.join("task")).ok()? {
            let statistics = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            nanos += statistics.split_whitespace().next()?.parse::<u64>().ok()?;
        }
        Some(Duration::from_nanos(nanos))
    }

    /// Returns its resident memory in bytes, counted page by page.
    pub(crate) fn resident_bytes(&self) -> Option<u64> {
        let rollup = fs::read_to_string(self.0.join("smaps_rollup")).ok()?;
        let kibibytes =
            rollup.lines().find_map(|line| line.strip_prefix("Rss:"))?.trim().strip_suffix(" kB")?;
        Some(kibibytes.trim().parse::<u64>().ok()? * 1024)
    }

    /// Returns the number of its threads.
    pub(crate) fn threads(&self) -> Option<usize> {
        Some(fs::read_dir(self.0.join("task")).ok()?.count())
    }
}

/// Raises the soft limit of descriptors to the hard one, for this process and its children. Returns the
/// limit.
pub(crate) fn raise_descriptor_limit() -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // If the system refuses, the limit stays as it was, so read the actual one.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}
