//! Reaps children whose owner is gone, so that none stays a zombie. One thread waits for all of them, and
//! ends with the last.
#![allow(unsafe_code)]

use std::{
    io::{self, PipeReader, PipeWriter, Read as _, Write as _},
    os::fd::AsRawFd as _,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use super::Pidfd;

/// Children that the thread does not know yet, and the pipe that wakes it.
struct Reaper {
    new: Vec<Pidfd>,
    bell: PipeWriter,
}

static REAPER: Mutex<Option<Reaper>> = Mutex::new(None);

/// Waits for a child in its owner's place. If the system has no thread or pipe left, the child stays a zombie
/// until this process ends.
pub(crate) fn hand_on(child: Pidfd) {
    // Nothing is left to do for a child that has ended, or that somebody else has reaped.
    if !matches!(child.reap(), Err(e) if e.kind() == io::ErrorKind::WouldBlock) {
        return;
    }
    let mut reaper = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
    if reaper.is_none() {
        *reaper = start().ok();
    }
    if let Some(reaper) = &mut *reaper {
        reaper.new.push(child);
        // If the pipe is full, the thread is about to wake anyway.
        let _ = reaper.bell.write(&[1]);
    }
}

fn start() -> io::Result<Reaper> {
    let (ear, bell) = io::pipe()?;
    super::super::file::make_ours(std::os::fd::AsFd::as_fd(&bell))?;
    thread::Builder::new().name("reactor-reaper".to_owned()).spawn(move || reap(ear))?;
    Ok(Reaper { new: Vec::new(), bell })
}

fn reap(mut ear: PipeReader) {
    let mut children: Vec<Pidfd> = Vec::new();
    let mut entries = Vec::new();
    loop {
        {
            let mut reaper = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
            children.extend(reaper.iter_mut().flat_map(|reaper| reaper.new.drain(..)));
            if children.is_empty() {
                *reaper = None;
                return;
            }
        }
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        entries.clear();
        entries.push(entry(ear.as_raw_fd()));
        entries.extend(children.iter().map(|child| entry(child.descriptor().as_raw_fd())));
        if let Err(error) = super::super::poll(&mut entries, -1)
            && error.kind() != io::ErrorKind::Interrupted
        {
            // poll(2) had no memory, or RLIMIT_NOFILE was lowered below the number of entries. Either may
            // last. Check the children all the same, but only at intervals.
            thread::sleep(PAUSE);
        }
        if entries[0].revents != 0 {
            let _ = ear.read(&mut [0; 64]);
        }
        children.retain(|child| matches!(child.reap(), Err(e) if e.kind() == io::ErrorKind::WouldBlock));
    }
}

/// The interval of the checks when poll(2) fails.
const PAUSE: Duration = Duration::from_millis(10);
