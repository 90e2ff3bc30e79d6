//! sendfile(2), until the socket is full.
#![allow(unsafe_code)]

use std::{fs::File, io};

use super::Borrowed;

/// Whether there is a sendfile(2) that is used here.
pub(crate) const HAS_SENDFILE: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Moves at most so many bytes from this place on. Says how many were moved, and what it was that ended it early: an error,
/// `WouldBlock` among them; none where the file ended.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn send_file(to: Borrowed<'_>, from: &File, offset: u64, most: u64) -> (u64, Option<io::Error>) {
    use std::os::fd::AsRawFd;
    let (to, from) = (to.as_raw_fd(), from.as_raw_fd());
    let mut sent = 0;
    let end = super::unix::without_pipe_signal(|| {
        while sent < most {
            let Ok(mut at) = libc::off_t::try_from(offset + sent) else {
                return (Some(io::ErrorKind::InvalidInput.into()), false);
            };
            let count = usize::try_from(most - sent).unwrap_or(usize::MAX);
            // SAFETY: both descriptors are borrowed for this call, and the place is a live variable.
            let moved = unsafe { libc::sendfile(to, from, &mut at, count) };
            match u64::try_from(moved) {
                Ok(0) => break,
                Ok(moved) => sent += moved,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        let is_broken = error.kind() == io::ErrorKind::BrokenPipe;
                        return (Some(error), is_broken);
                    }
                }
            }
        }
        (None, false)
    });
    (sent, end)
}

/// Moves nothing: nobody asks where [`HAS_SENDFILE`] is false.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn send_file(_: Borrowed<'_>, _: &File, _: u64, _: u64) -> (u64, Option<io::Error>) {
    (0, Some(io::ErrorKind::Unsupported.into()))
}
