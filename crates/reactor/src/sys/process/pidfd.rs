//! A child by its descriptor: readable when it has ended, and never another's.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    process::ExitStatus,
};

/// A descriptor of a child.
pub(crate) struct Pidfd {
    descriptor: OwnedFd,
    pid: u32,
    /// The signals go to the whole group.
    pub(crate) of_group: bool,
    /// What is left of the group ends with it.
    pub(crate) ends_group: bool,
}

impl Pidfd {
    /// Of a child of this process that nobody has reaped.
    ///
    /// # Errors
    /// As pidfd_open(2).
    pub(super) fn open(pid: u32) -> io::Result<Pidfd> {
        // SAFETY: the call takes numbers only.
        let number = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it, CLOEXEC, and nobody else knows it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number as RawFd) };
        Ok(Pidfd { descriptor, pid, of_group: false, ends_group: false })
    }

    pub(crate) fn descriptor(&self) -> &OwnedFd {
        &self.descriptor
    }

    /// How it ended, once; it is no zombie then.
    ///
    /// # Errors
    /// `WouldBlock` while it runs; ECHILD when somebody else has reaped it, or the program ignores SIGCHLD.
    pub(crate) fn reap(&self) -> io::Result<ExitStatus> {
        let id = self.descriptor.as_raw_fd() as libc::id_t;
        if self.ends_group {
            super::wait(libc::P_PIDFD, id, libc::WNOHANG | libc::WNOWAIT)?
                .ok_or(io::ErrorKind::WouldBlock)?;
            // The zombie keeps its number from being used again. There may be nobody left.
            let _ = super::kill(self.pid, true, libc::SIGKILL);
        }
        super::wait(libc::P_PIDFD, id, libc::WNOHANG)?.ok_or(io::ErrorKind::WouldBlock.into())
    }

    /// Sends a signal; it was not reaped yet.
    ///
    /// # Errors
    /// As kill(2).
    pub(crate) fn signal(&self, number: i32) -> io::Result<()> {
        if self.of_group {
            return super::kill(self.pid, true, number);
        }
        let (fd, nothing) = (self.descriptor.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
        // SAFETY: a null pointer stands for what kill(2) would fill in; the other arguments are numbers.
        match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, number, nothing, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
