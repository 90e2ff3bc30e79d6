//! Children whose owner has gone: one thread for all of them waits until each has ended, so that none stays a
//! zombie. It ends when there are none.
#![allow(unsafe_code)]

use std::{
    io::{self, PipeReader, PipeWriter, Read as _, Write as _},
    os::fd::AsRawFd as _,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use super::Pidfd;

/// Children that the thread does not know of yet, and how to tell it.
struct Reaper {
    new: Vec<Pidfd>,
    bell: PipeWriter,
}

static REAPER: Mutex<Option<Reaper>> = Mutex::new(None);

/// Waits for a child in its owner's place. Without a thread or a pipe it stays a zombie until the process ends,
/// which is all that can be done then.
pub(crate) fn hand_on(child: Pidfd) {
    // One that has ended needs nobody, and neither does one that somebody else has reaped.
    if !matches!(child.reap(), Err(e) if e.kind() == io::ErrorKind::WouldBlock) {
        return;
    }
    let mut reaper = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
    if reaper.is_none() {
        *reaper = start().ok();
    }
    if let Some(reaper) = &mut *reaper {
        reaper.new.push(child);
        // One byte is enough for many, so a full pipe has told already.
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
            // Out of memory, or more entries than the process may have descriptors by now. Either may last, and
            // the children are asked all the same: so often, and no more often.
            thread::sleep(PAUSE);
        }
        if entries[0].revents != 0 {
            let _ = ear.read(&mut [0; 64]);
        }
        children.retain(|child| matches!(child.reap(), Err(e) if e.kind() == io::ErrorKind::WouldBlock));
    }
}

/// How long it rests where it cannot wait.
const PAUSE: Duration = Duration::from_millis(10);
