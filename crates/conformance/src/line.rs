//! A pseudo-terminal for rows: a side that is watched, and one in the row's hand.

use std::{
    ffi::OsString,
    fs::File,
    io::Result,
    os::{fd::OwnedFd, unix::ffi::OsStringExt as _},
};

use rustix::{
    io::{ioctl_fioclex, ioctl_fionbio},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{OptionalActions, tcgetattr, tcsetattr},
};

/// The near side is non-blocking. The far one is raw, and its close hangs the line up.
pub(crate) fn line() -> Result<(OwnedFd, File)> {
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    ioctl_fioclex(&near)?;
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

/// Whether a read says that the line was hung up: EIO on Linux, an end elsewhere.
pub(crate) fn is_hang_up(read: &Result<usize>) -> bool {
    match read {
        Ok(count) => *count == 0,
        Err(error) => error.raw_os_error() == Some(libc::EIO),
    }
}
