//! Pseudo-terminals for tests: the test holds one side, and the other has a name.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::{
    fs::File,
    io::{ErrorKind, Read as _},
    os::{fd::OwnedFd, unix::ffi::OsStringExt as _},
    path::PathBuf,
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{OptionalActions, tcgetattr, tcsetattr},
};

/// Returns the near side, non-blocking, and the device of the far one, in raw mode.
pub fn pair() -> (File, PathBuf) {
    let (near, far) = cooked_pair();
    // Both sides share their settings.
    let mut settings = tcgetattr(&near).expect("a terminal");
    settings.make_raw();
    tcsetattr(&near, OptionalActions::Now, &settings).expect("a terminal");
    (near, far)
}

/// Returns the same, with the far side in a terminal's initial state: it echoes, and edits lines.
pub fn cooked_pair() -> (File, PathBuf) {
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("one is free");
    grantpt(&near).expect("it is ours");
    unlockpt(&near).expect("it is ours");
    let far = ptsname(&near, Vec::new()).expect("it has a name").into_bytes();
    rustix::io::ioctl_fionbio(&near, true).expect("a descriptor");
    (near.into(), PathBuf::from(std::ffi::OsString::from_vec(far)))
}

/// Opens the far side, non-blocking.
pub fn open(device: &PathBuf) -> OwnedFd {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY).bits() as i32;
    let file = File::options().read(true).write(true).custom_flags(flags).open(device);
    file.expect("the device is there").into()
}

/// Returns the available bytes.
pub fn taken(mut from: &File) -> Vec<u8> {
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    loop {
        match from.read(&mut part) {
            Ok(0) => return bytes,
            Ok(count) => bytes.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return bytes,
            Err(error) => panic!("{error}"),
        }
    }
}
