//! Datagram sockets: how to open and bind them, and how to join groups. The calls that move datagrams have
//! files of their own: in batches where the system can do that, and one by one elsewhere.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod portable;
#[cfg(all(test, unix))]
mod tests;

use std::io;

use socket2::{SockRef, Socket, Type};

#[cfg(all(any(fuzzing, test), target_os = "linux", feature = "io-uring"))]
pub(crate) use self::linux::parse;
#[cfg(all(target_os = "linux", feature = "io-uring"))]
pub(crate) use self::linux::{CONTROL_BYTES, NAME_BYTES, packet};
#[cfg(target_os = "linux")]
use self::linux::{has_prepared, set_together};
#[cfg(target_os = "linux")]
pub(crate) use self::linux::{receive, send, undelivered};
#[cfg(not(target_os = "linux"))]
use self::portable::{has_prepared, set_together};
#[cfg(not(target_os = "linux"))]
pub(crate) use self::portable::{receive, send, undelivered};
use super::{
    Borrowed, Owned,
    address::to_system,
    bind::{bind as bind_to, open},
};
use crate::{
    address::Address,
    options::{BindOptions, Group},
};

/// Opens a datagram socket. [`Address::Unnamed`] leaves it without a name, in the family of its peer if it
/// has one.
///
/// # Errors
/// As socket(2), setsockopt(2), bind(2), connect(2).
pub(crate) fn bind(address: &Address, options: &BindOptions) -> io::Result<Owned> {
    let family = match (address, &options.peer) {
        (Address::Unnamed, Some(peer)) => peer,
        _ => address,
    };
    let socket = open(family, Type::DGRAM)?;
    if let Some(ip) = family.ip() {
        configure(&socket, ip.is_ipv6(), options)?;
    }
    if let Some(bytes) = options.receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = options.send_buffer {
        socket.set_send_buffer_size(bytes)?;
    }
    if *address != Address::Unnamed {
        bind_to(&socket, address, options.reuse_address)?;
    }
    if let Some(peer) = &options.peer {
        socket.connect(&to_system(peer)?)?;
    }
    Ok(socket.into())
}

fn configure(socket: &Socket, is_v6: bool, options: &BindOptions) -> io::Result<()> {
    // On Windows this option would let another program take over the port.
    #[cfg(not(windows))]
    socket.set_reuse_address(options.reuse_address)?;
    #[cfg(all(unix, not(any(target_os = "solaris", target_os = "illumos"))))]
    socket.set_reuse_port(options.reuse_port)?;
    socket.set_broadcast(options.broadcast)?;
    if let (Some(only), true) = (options.only_v6, is_v6) {
        socket.set_only_v6(only)?;
    }
    if let Some(hops) = options.hops.map(u32::from) {
        if is_v6 { socket.set_unicast_hops_v6(hops)? } else { socket.set_ttl_v4(hops)? }
    }
    if let Some(hops) = options.multicast_hops.map(u32::from) {
        if is_v6 { socket.set_multicast_hops_v6(hops)? } else { socket.set_multicast_ttl_v4(hops)? }
    }
    if let Some(on) = options.multicast_loop {
        if is_v6 { socket.set_multicast_loop_v6(on)? } else { socket.set_multicast_loop_v4(on)? }
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        // A sandbox may not know these options.
        let known = |result: io::Result<()>| match result {
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(()),
            result => result,
        };
        // An IPv6 socket may receive IPv4, too.
        known(socket.set_multicast_all_v4(options.multicast_all))?;
        if is_v6 {
            known(socket.set_multicast_all_v6(options.multicast_all))?;
        }
    }
    if options.together {
        set_together(socket, true);
    }
    Ok(())
}

/// Joins a multicast group, or leaves it.
///
/// # Errors
/// As setsockopt(2) of IP_ADD_MEMBERSHIP and its kin.
pub(crate) fn set_member(socket: Borrowed<'_>, group: &Group, member: bool) -> io::Result<()> {
    let socket = SockRef::from(&socket);
    match (group, member) {
        (Group::V4 { group, interface }, true) => socket.join_multicast_v4(group, interface),
        (Group::V4 { group, interface }, false) => socket.leave_multicast_v4(group, interface),
        (Group::V6 { group, interface }, true) => socket.join_multicast_v6(group, *interface),
        (Group::V6 { group, interface }, false) => socket.leave_multicast_v6(group, *interface),
    }
}

/// The outcome of one send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Gone {
    /// How many datagrams the system took.
    pub(crate) datagrams: usize,
    /// Whether the system took less than it was offered. It had no room, or it met an error that this call
    /// does not report. That error may have been the report about an earlier datagram.
    pub(crate) is_stopped: bool,
}

/// An engine's knowledge of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Facts {
    /// Whether it is a Unix socket. A send to a Unix peer with a full queue would block, and no poll reports
    /// when there is room again.
    pub(crate) is_unix: bool,
    /// Whether datagrams of equal size may be sent as one packet.
    pub(crate) together: bool,
}

impl Facts {
    /// Returns whether reports about sent datagrams wait in a queue of their own.
    pub(crate) fn has_reports(self) -> bool {
        cfg!(target_os = "linux") && !self.is_unix
    }
}

/// The most packets that one receive takes.
pub(crate) const PACKETS_MAX: usize = 32;

/// Makes a socket report header fields of received datagrams, and the fate of sent ones, as far as the system
/// can do that.
///
/// # Errors
/// It is not a datagram socket.
pub(crate) fn prepare(socket: Borrowed<'_>) -> io::Result<Facts> {
    let socket = SockRef::from(&socket);
    if socket.r#type()? != Type::DGRAM {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a socket of another type"));
    }
    let address = socket.local_addr()?;
    let is_unix = !address.is_ipv4() && !address.is_ipv6();
    let together = !is_unix && has_prepared(&socket, address.is_ipv6());
    Ok(Facts { is_unix, together })
}

/// Returns whether an error may be the report about a datagram that the socket sent before. Such reports come
/// from ICMP (RFC 1122, section 4.1.3.3) and from local peers. Any other error concerns the socket itself.
pub(crate) fn is_report(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, NetworkDown, NetworkUnreachable,
        PermissionDenied,
    };
    #[cfg(unix)]
    if let Some(
        libc::EMSGSIZE
        | libc::EPROTO
        | libc::ENOPROTOOPT
        | libc::EHOSTDOWN
        | libc::EOPNOTSUPP
        | libc::ENOBUFS
        | libc::ENOMEM,
    ) = error.raw_os_error()
    {
        return true;
    }
    matches!(
        error.kind(),
        ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | NetworkUnreachable
            | NetworkDown
            | PermissionDenied
    )
}
