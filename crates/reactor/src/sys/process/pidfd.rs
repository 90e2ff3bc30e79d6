//! A child's pidfd: readable once the child has ended, and never confused with another process.
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
    /// Signals go to the whole group.
    pub(crate) of_group: bool,
    /// The rest of the group is killed when the child ends.
    pub(crate) ends_group: bool,
}

impl Pidfd {
    /// Opens the pidfd of a child of this process that nobody has reaped.
    ///
    /// # Errors
    /// As pidfd_open(2).
    pub(super) fn open(pid: u32) -> io::Result<Pidfd> {
        // SAFETY: the call takes numbers only.
        let number = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just opened it, with CLOEXEC, and no other code knows it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number as RawFd) };
        Ok(Pidfd { descriptor, pid, of_group: false, ends_group: false })
    }

    pub(crate) fn descriptor(&self) -> &OwnedFd {
        &self.descriptor
    }

    /// Reaps the child, and returns how it ended.
    ///
    /// # Errors
    /// `WouldBlock` while it runs. ECHILD if somebody else has reaped it, or if the program ignores SIGCHLD.
    pub(crate) fn reap(&self) -> io::Result<ExitStatus> {
        let id = self.descriptor.as_raw_fd() as libc::id_t;
        if self.ends_group {
            super::wait(libc::P_PIDFD, id, libc::WNOHANG | libc::WNOWAIT)?
                .ok_or(io::ErrorKind::WouldBlock)?;
            // The zombie keeps the group's number in use. The group may be empty, so ignore errors.
            let _ = super::kill(self.pid, true, libc::SIGKILL);
        }
        super::wait(libc::P_PIDFD, id, libc::WNOHANG)?.ok_or(io::ErrorKind::WouldBlock.into())
    }

    /// Sends a signal. This process must not have reaped the child yet. A signal for the group is sent only
    /// if nobody else has reaped it either.
    ///
    /// # Errors
    /// As kill(2). ESRCH if somebody else has reaped the child, even if others of its group are left.
    pub(crate) fn signal(&self, number: i32) -> io::Result<()> {
        if !self.of_group {
            return self.send(number);
        }
        // After a reap the number may belong to another group, and only the descriptor reveals that. A group
        // has no descriptor, so a reap by somebody else between the two calls goes unnoticed.
        match self.send(0) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(error),
            // The child exists, perhaps without permission to signal it (EPERM). Others of its group may
            // still permit it.
            _ => super::kill(self.pid, true, number),
        }
    }

    /// Sends a signal to the child alone, and never to a later process with its number.
    fn send(&self, number: i32) -> io::Result<()> {
        let (fd, nothing) = (self.descriptor.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
        // SAFETY: with a null pointer the kernel fills in the fields as kill(2) does. The other arguments are
        // numbers.
        match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, number, nothing, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::process::CommandExt as _,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn the_group_of_a_child_that_somebody_else_reaped_is_sent_no_signal() {
        // A child of the group outlives its leader, and prints the signal that it gets.
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exec 3<&0; cat <&3 & exit 0"]).process_group(0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell");
        let (mut stdin, mut stdout) =
            (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let mut pidfd = Pidfd::open(child.id()).expect("nobody has reaped it");
        pidfd.of_group = true;
        pidfd.signal(0).expect("it is there, ended or not");
        // By its number, as another library would.
        assert!(child.wait().expect("it ends").success());
        let error = pidfd.signal(libc::SIGKILL).expect_err("it was reaped");
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
        stdin.write_all(b"whole").expect("it is read");
        drop(stdin);
        let mut said = String::new();
        stdout.read_to_string(&mut said).expect("text");
        assert_eq!(said, "whole");
    }
}
