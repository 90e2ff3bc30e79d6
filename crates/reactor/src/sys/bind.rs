//! Opens sockets of any type, and binds them to a name.

#[cfg(unix)]
use std::os::unix::fs::FileTypeExt as _;
use std::{io, path::Path};

use socket2::{Domain, Protocol, Socket, Type};

use super::address::{domain, to_system};
use crate::address::Address;

/// Opens a stream or datagram socket, non-blocking and CLOEXEC.
///
/// # Errors
/// As socket(2).
pub(super) fn open(address: &Address, kind: Type) -> io::Result<Socket> {
    let family = domain(address);
    let protocol = if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP };
    let protocol = (family != Domain::UNIX).then_some(protocol);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return Socket::new(family, kind.nonblocking(), protocol);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let socket = Socket::new(family, kind, protocol)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// Binds to a name. With `replaces`, it first removes a socket file that nobody uses any more.
///
/// # Errors
/// As bind(2).
pub(super) fn bind(socket: &Socket, address: &Address, replaces: bool) -> io::Result<()> {
    let name = to_system(address)?;
    match (socket.bind(&name), address) {
        (Err(e), Address::Path(path)) if replaces && e.kind() == io::ErrorKind::AddrInUse => {
            if !is_deserted(socket, address, path)? {
                return Err(e);
            }
            std::fs::remove_file(path)?;
            socket.bind(&name)
        }
        (result, _) => result,
    }
}

/// Returns whether a Unix path is a socket that nobody listens on or is bound to.
#[cfg(unix)]
fn is_deserted(socket: &Socket, address: &Address, path: &Path) -> io::Result<bool> {
    // Connecting to a file of another kind is refused as well, but such a file must not be removed.
    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        return Ok(false);
    }
    let probe = open(address, socket.r#type()?)?;
    Ok(matches!(probe.connect(&to_system(address)?), Err(e) if e.kind() == io::ErrorKind::ConnectionRefused))
}

/// Returns false, because outside Unix a file does not reveal that it is a socket, and no other file may be
/// removed.
#[cfg(not(unix))]
fn is_deserted(_: &Socket, _: &Address, _: &Path) -> io::Result<bool> {
    Ok(false)
}
