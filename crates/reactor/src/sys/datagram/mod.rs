//! Sockets for datagrams: opened, bound, joined to groups; the calls that move datagrams are in files of
//! their own: in batches where the system has these, and one by one elsewhere.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod portable;
#[cfg(all(test, unix))]
mod tests;

use std::io;

use socket2::{SockRef, Socket, Type};

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

/// Opens a socket for datagrams; [`Address::Unnamed`] is one without a name, of the peer's family if it has a
/// peer.
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
    // On Windows the option would let another program take the port away.
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
        // A sandbox may not know them.
        let known = |result: io::Result<()>| match result {
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(()),
            result => result,
        };
        // A socket of IPv6 may receive IPv4, too.
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

/// Enters a multicast group, or leaves it.
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

/// What one send did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Gone {
    /// So many datagrams were taken by the system.
    pub(crate) datagrams: usize,
    /// It took less than it was offered: for want of room, or for an error, which it does not tell with this.
    /// That may have been the report about an earlier one.
    pub(crate) is_stopped: bool,
}

/// What an engine notes of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Facts {
    /// A Unix socket: one whose peer is full says that it would block, and nothing tells when it is not.
    pub(crate) is_unix: bool,
    /// Equal datagrams may leave as one packet.
    pub(crate) together: bool,
}

impl Facts {
    /// Whether reports about datagrams that were sent wait in a queue of their own.
    pub(crate) fn has_reports(self) -> bool {
        cfg!(target_os = "linux") && !self.is_unix
    }
}

/// How many packets one receive takes at most.
pub(crate) const PACKETS_MAX: usize = 32;

/// Has a socket tell what a datagram's header said, and what became of those it sent. What the system does
/// not know is left out.
///
/// # Errors
/// It is no socket for datagrams.
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

/// Whether an error of a socket may be the report about a datagram that it sent before: what ICMP (RFC 1122,
/// section 4.1.3.3) and a local peer can say. Any other is of the socket itself.
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
