//! Who is at the other end of a Unix socket.

/// A process at the other end of a connected Unix socket, as the system noted when it was connected.
///
/// It may have ended since, and another may have its number.
///
/// ```
/// # #[cfg(unix)] {
/// use reactor::Credentials;
/// use std::os::{fd::AsFd, unix::net::UnixStream};
///
/// let (ours, _theirs) = UnixStream::pair()?;
/// let peer = Credentials::of_peer(ours.as_fd())?;
/// assert!(peer.process.is_none_or(|process| process == std::process::id()));
/// # }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Credentials {
    /// Its process number, where the system tells: Linux does. `None` also for one in a namespace that is not
    /// seen from here.
    pub process: Option<u32>,
    /// Its effective user.
    pub user: u32,
    /// Its effective group.
    pub group: u32,
}

#[cfg(unix)]
impl Credentials {
    /// Asks the system (`SO_PEERCRED`, or getpeereid(3)).
    ///
    /// # Errors
    /// As getsockopt(2); `Unsupported` for what is no Unix socket, and where the system does not tell.
    pub fn of_peer(socket: std::os::fd::BorrowedFd<'_>) -> std::io::Result<Credentials> {
        crate::sys::rights::peer_credentials(socket).map(|(process, user, group)| Credentials {
            process,
            user,
            group,
        })
    }
}
