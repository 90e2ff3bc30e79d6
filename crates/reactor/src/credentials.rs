//! Credentials of the peer of a Unix socket.

/// The process at the other end of a connected Unix socket, as the system recorded it at the time of
/// connecting.
///
/// The process may have ended since, and another process may have its number.
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
    /// The process number, where the system provides it, as Linux does. Also `None` if the process is in a
    /// PID namespace that this process cannot see.
    pub process: Option<u32>,
    /// The effective user id.
    pub user: u32,
    /// The effective group id.
    pub group: u32,
}

#[cfg(unix)]
impl Credentials {
    /// Asks the system for the peer's credentials, by `SO_PEERCRED` or getpeereid(3).
    ///
    /// # Errors
    /// As getsockopt(2). `Unsupported` if this is not a Unix socket, or if the system does not provide
    /// credentials.
    pub fn of_peer(socket: std::os::fd::BorrowedFd<'_>) -> std::io::Result<Credentials> {
        crate::sys::rights::peer_credentials(socket).map(|(process, user, group)| Credentials {
            process,
            user,
            group,
        })
    }
}
