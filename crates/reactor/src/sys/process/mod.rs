//! Child processes. The standard library starts them; a pidfd or a thread waits for each, and never by
//! wait(-1).
#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
mod pidfd;
#[cfg(target_os = "linux")]
mod reaper;
mod thread;

use std::{
    io,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Child as Started, Command, ExitStatus},
};

#[cfg(target_os = "linux")]
pub(crate) use self::{pidfd::Pidfd, reaper::hand_on};
use crate::{
    engine::Transport,
    guard,
    host::child::{Child, Process, SpawnOptions},
};

/// Starts a program.
///
/// # Errors
/// As fork(2) and execve(2); the child reports the error of execve(2). No child is left then.
pub(crate) fn spawn(command: &mut Command, options: &SpawnOptions) -> io::Result<Child> {
    command.stdin(options.stdin.stdio()).stdout(options.stdout.stdio()).stderr(options.stderr.stdio());
    if options.group {
        command.process_group(0);
    }
    // If SIGCHLD is ignored, the standard library panics when it has forked but cannot execute the program.
    let mut started = guard::call(|| command.spawn()).map_err(io::Error::other)??;
    adopt(&mut started, options).inspect_err(|_| {
        // The child runs, and nothing could wait for it. Kill it, so that the wait is short.
        let _ = started.kill();
        let _ = started.wait();
    })
}

fn adopt(started: &mut Started, options: &SpawnOptions) -> io::Result<Child> {
    let stdin = started.stdin.take().map(Transport::adopt).transpose()?;
    let stdout = started.stdout.take().map(Transport::adopt).transpose()?;
    let stderr = started.stderr.take().map(Transport::adopt).transpose()?;
    Ok(Child { process: watch(started.id(), options)?, stdin, stdout, stderr })
}

/// Finds a way to learn of the child's end.
fn watch(pid: u32, options: &SpawnOptions) -> io::Result<Process> {
    #[cfg(target_os = "linux")]
    match Pidfd::open(pid) {
        // A kernel before 5.3, or a sandbox.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {}
        // The child has already exited, and SIGCHLD is ignored, so the kernel has kept nothing of it.
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {
            return Ok(Process::hosted(thread::forgotten(pid)?, pid, options));
        }
        result => return Ok(Process::by_pidfd(result?, pid, options)),
    }
    Ok(Process::hosted(thread::watch(pid, options)?, pid, options))
}

/// Sends a signal to a process, or to its whole group. Only valid before the process is reaped, because
/// reaping frees the pid.
fn kill(pid: u32, of_group: bool, signal: i32) -> io::Result<()> {
    let pid = pid as libc::pid_t;
    // SAFETY: the call takes numbers only.
    match unsafe { libc::kill(if of_group { -pid } else { pid }, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns how a child ended, or `None` while it runs. With WNOWAIT in `flags`, it stays a zombie.
fn wait(kind: libc::idtype_t, id: libc::id_t, flags: i32) -> io::Result<Option<ExitStatus>> {
    // SAFETY: all zeroes is a valid siginfo.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    super::again_if_interrupted(|| {
        // SAFETY: the pointer is to a live value that the call fills.
        match unsafe { libc::waitid(kind, id, &mut info, libc::WEXITED | flags) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    })?;
    // SAFETY: waitid filled in the fields for a child that ended, or left them zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok((pid != 0).then(|| {
        ExitStatus::from_raw(match info.si_code {
            libc::CLD_EXITED => (status & 0xff) << 8,
            libc::CLD_DUMPED => status | 0x80,
            _ => status,
        })
    }))
}

#[cfg(test)]
mod tests;
