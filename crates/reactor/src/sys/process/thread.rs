//! Waits for a child without a pidfd. One thread for each child waits for it, and reports its end through a
//! pipe.
//!
//! The thread also reaps the child, so no zombie is left if the owner is gone. Signals and reaping take the
//! same lock, so a signal never hits another process that has got the number.

use std::{
    io::{self, PipeReader, Write as _},
    os::unix::process::ExitStatusExt as _,
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    Source,
    host::child::{Hosted, SpawnOptions},
};

/// A child that a thread waits for.
struct WaitedChild {
    ended: PipeReader,
    of_group: bool,
    state: Arc<WaitState>,
}

struct WaitState {
    pid: u32,
    is_reaped: Mutex<bool>,
}

/// Starts the thread that waits for the child.
///
/// # Errors
/// The system has no thread or no pipe left.
pub(super) fn watch(pid: u32, options: &SpawnOptions) -> io::Result<Box<dyn Hosted>> {
    let (ended, mut teller) = io::pipe()?;
    super::super::file::make_ours(std::os::fd::AsFd::as_fd(&ended))?;
    let state = Arc::new(WaitState { pid, is_reaped: Mutex::new(false) });
    let (kept, ends_group) = (state.clone(), options.ends_group());
    let wait = move || {
        // The owner may be gone, so ignore errors.
        if let Ok(status) = kept.wait(ends_group) {
            let _ = teller.write_all(&status.into_raw().to_ne_bytes());
        }
    };
    std::thread::Builder::new().name(format!("reactor-child-{pid}")).spawn(wait)?;
    Ok(Box::new(WaitedChild { ended, of_group: options.group, state }))
}

/// Stands for a child that has ended and left no status. Its pipe ends at once, without a report, and it
/// takes no signals.
///
/// # Errors
/// The system has no pipe left.
#[cfg(target_os = "linux")]
pub(super) fn forgotten(pid: u32) -> io::Result<Box<dyn Hosted>> {
    let (ended, _) = io::pipe()?;
    super::super::file::make_ours(std::os::fd::AsFd::as_fd(&ended))?;
    let state = Arc::new(WaitState { pid, is_reaped: Mutex::new(true) });
    Ok(Box::new(WaitedChild { ended, of_group: false, state }))
}

impl WaitState {
    /// Waits without reaping, then reaps while no signal is being sent. An error means that somebody else has
    /// reaped it.
    fn wait(&self, ends_group: bool) -> io::Result<ExitStatus> {
        let ended = super::wait(libc::P_PID, self.pid as _, libc::WNOWAIT);
        let mut is_reaped = self.is_reaped.lock().unwrap_or_else(PoisonError::into_inner);
        *is_reaped = true;
        ended?;
        if ends_group {
            let _ = super::kill(self.pid, true, libc::SIGKILL);
        }
        super::wait(libc::P_PID, self.pid as _, 0)?.ok_or(io::ErrorKind::NotFound.into())
    }
}

impl Hosted for WaitedChild {
    fn source(&self) -> Source<'_> {
        Source::of(&self.ended)
    }

    fn signal(&self, number: i32) -> io::Result<()> {
        let is_reaped = self.state.is_reaped.lock().unwrap_or_else(PoisonError::into_inner);
        match *is_reaped {
            true => Err(io::Error::from_raw_os_error(libc::ESRCH)),
            false => super::kill(self.state.pid, self.of_group, number),
        }
    }
}
