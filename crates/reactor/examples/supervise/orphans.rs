//! Orphans: children whose parents have ended. The kernel gives them to process 1, or to a subreaper. Linux.

#[cfg(target_os = "linux")]
use std::fs;

/// Returns whether orphans become children of this process.
pub(crate) fn come() -> bool {
    #[cfg(target_os = "linux")]
    return std::process::id() == 1
        || rustix::process::child_subreaper().is_ok_and(|subreaper| subreaper.is_some());
    #[cfg(not(target_os = "linux"))]
    return false;
}

/// Reaps the children that have ended and are not ours. The resources of our own report their ends.
#[cfg(target_os = "linux")]
pub(crate) fn reap(ours: &[u32]) {
    use rustix::process::{Pid, WaitOptions, waitpid};
    // The kernel lists the children of each thread. wait(-1) would reap ours, too.
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return };
    let lists = threads.flatten().map(|thread| fs::read_to_string(thread.path().join("children")));
    for list in lists.map_while(Result::ok) {
        let children = list.split_whitespace().filter_map(|pid| pid.parse().ok());
        for pid in children.filter(|pid| !ours.contains(pid)) {
            // A child that still runs is checked again at the next SIGCHLD.
            let _ = waitpid(Pid::from_raw(pid as i32), WaitOptions::NOHANG);
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn reap(_: &[u32]) {}
