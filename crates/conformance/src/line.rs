//! A pseudo-terminal for rows: an engine watches one side, and the row holds the other.

use std::{
    ffi::OsString,
    fs::File,
    io::Result,
    os::{fd::OwnedFd, unix::ffi::OsStringExt as _},
};

use rustix::{
    io::{FdFlags, fcntl_setfd, ioctl_fionbio},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{OptionalActions, tcgetattr, tcsetattr},
};

/// Opens a pseudo-terminal. The near side is non-blocking. The far side is raw, and its close hangs up the
/// line.
pub(crate) fn line() -> Result<(OwnedFd, File)> {
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    fcntl_setfd(&near, FdFlags::CLOEXEC)?;
    ioctl_fionbio(&near, true)?;
    grantpt(&near)?;
    unlockpt(&near)?;
    let name = OsString::from_vec(ptsname(&near, Vec::new())?.into_bytes());
    let far = File::options().read(true).write(true).open(name)?;
    let mut settings = tcgetattr(&far)?;
    settings.make_raw();
    tcsetattr(&far, OptionalActions::Now, &settings)?;
    Ok((near, far))
}

/// Reports whether the result of a read means a hang-up: EIO on Linux, and an end elsewhere.
pub(crate) fn is_hang_up(read: &Result<usize>) -> bool {
    match read {
        Ok(count) => *count == 0,
        Err(error) => error.raw_os_error() == Some(libc::EIO),
    }
}
