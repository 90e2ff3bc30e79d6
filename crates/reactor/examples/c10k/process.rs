//! What the system tells about a process, and how many descriptors it allows.

use std::{fs, path::PathBuf, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A running process, as Linux shows it in a folder. Other systems have none: there nothing is known.
pub(crate) struct Process(PathBuf);

impl Process {
    pub(crate) fn of(id: u32) -> Process {
        Process(format!("/proc/{id}").into())
    }

    /// The processor time that all its threads have used.
    pub(crate) fn processor_time(&self) -> Option<Duration> {
        let mut nanos = 0;
        for task in fs::read_dir(self.0.join("task")).ok()? {
            let statistics = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            nanos += statistics.split_whitespace().next()?.parse::<u64>().ok()?;
        }
        Some(Duration::from_nanos(nanos))
    }

    /// The bytes of its memory that are resident, counted page by page.
    pub(crate) fn resident_bytes(&self) -> Option<u64> {
        let rollup = fs::read_to_string(self.0.join("smaps_rollup")).ok()?;
        let kibibytes =
            rollup.lines().find_map(|line| line.strip_prefix("Rss:"))?.trim().strip_suffix(" kB")?;
        Some(kibibytes.trim().parse::<u64>().ok()? * 1024)
    }

    /// How many threads it has.
    pub(crate) fn threads(&self) -> Option<usize> {
        Some(fs::read_dir(self.0.join("task")).ok()?.count())
    }
}

/// Raises the soft limit of descriptors to the hard one, for this process and those it starts, and says the limit.
pub(crate) fn raise_descriptor_limit() -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // A system that refuses leaves the limit as it was: what counts is read again.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}
