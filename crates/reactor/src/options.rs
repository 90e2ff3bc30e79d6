//! Options of sockets, with defaults that suit a server of small messages.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use crate::address::Address;

/// Keep-alive probes of an idle TCP connection (tcp(7)). Both times count in whole seconds; less than one is refused,
/// and so are no probes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes until the connection is broken.
    pub probes: u32,
}

impl Default for Keepalive {
    /// Sixty seconds, then six probes at ten seconds: a vanished peer is noticed within two minutes.
    fn default() -> Keepalive {
        Keepalive { idle: Duration::from_secs(60), interval: Duration::from_secs(10), probes: 6 }
    }
}

/// Options of one connection. What a transport does not know (TCP options on a Unix socket) is ignored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SocketOptions {
    /// TCP_NODELAY; on by default, since the runtime coalesces writes itself.
    pub nodelay: bool,
    /// SO_KEEPALIVE with its intervals; off by default.
    pub keepalive: Option<Keepalive>,
    /// TCP_USER_TIMEOUT: how long sent data may stay unacknowledged; the system's by default.
    pub user_timeout: Option<Duration>,
    /// TCP_NOTSENT_LOWAT, in bytes: how much unsent data the kernel queues; the system's by default.
    pub notsent_lowat: Option<u32>,
    /// SO_RCVBUF, in bytes.
    pub receive_buffer: Option<usize>,
    /// SO_SNDBUF, in bytes.
    pub send_buffer: Option<usize>,
}

impl Default for SocketOptions {
    fn default() -> SocketOptions {
        SocketOptions {
            nodelay: true,
            keepalive: None,
            user_timeout: None,
            notsent_lowat: None,
            receive_buffer: None,
            send_buffer: None,
        }
    }
}

/// Options of a listener. Those of its connections are set on it, and inherited.
///
/// ```
/// use reactor::ListenOptions;
///
/// let mut options = ListenOptions::default();
/// options.reuse_port = true;
/// options.socket.receive_buffer = Some(256 * 1024);
/// assert!(options.socket.nodelay, "on by default");
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ListenOptions {
    /// For each accepted connection.
    pub socket: SocketOptions,
    /// Sets SO_REUSEADDR; on by default, so that a restarted server finds its port free. On a Unix path: a
    /// socket file that nobody listens on is replaced.
    ///
    /// On the engine `io_uring` the kernel keeps the port for some milliseconds after a process that was killed, or that
    /// exits without dropping its [`Runtime`](crate::Runtime): until then a new listener fails with `AddrInUse`. Drop
    /// the runtime before the exit, or try again.
    pub reuse_address: bool,
    /// SO_REUSEPORT: several listeners share the port; off by default.
    pub reuse_port: bool,
    /// How many connections may wait to be accepted; the system has a limit of its own.
    pub backlog: u32,
    /// IPV6_V6ONLY on an IPv6 address; the system's default if not set.
    pub only_v6: Option<bool>,
    /// What happens to waiting connections when descriptors run out. By default they wait, and are served when there is
    /// a descriptor again. If set, the listener closes one of them, with a descriptor held in reserve, each time it
    /// tries in vain, so that its peer learns at once and may go elsewhere;
    /// [`Counters::turned_away`](crate::Counters::turned_away) counts them. Not on Windows.
    pub turn_away: bool,
}

impl Default for ListenOptions {
    fn default() -> ListenOptions {
        ListenOptions {
            socket: SocketOptions::default(),
            reuse_address: true,
            reuse_port: false,
            backlog: 4096,
            only_v6: None,
            turn_away: false,
        }
    }
}

/// Options of an outgoing connection.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// Of the connection.
    pub socket: SocketOptions,
    /// The address to connect from; the system's choice if not set. With port 0 the system chooses the port when it
    /// knows the target (IP_BIND_ADDRESS_NO_PORT, Linux): so connections to different targets may share one.
    pub local: Option<Address>,
}

/// Options of a socket for datagrams, set once.
///
/// ```
/// use reactor::BindOptions;
///
/// let mut options = BindOptions::default();
/// options.peer = Some("192.0.2.7:53".parse()?);
/// assert!(!options.broadcast, "off by default");
/// # Ok::<(), reactor::NotAnAddress>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BindOptions {
    /// To whom it is connected: then it receives from this address only, and needs none to send.
    pub peer: Option<Address>,
    /// SO_REUSEADDR on an IP address: several programs may receive one multicast; off by default. On a Unix
    /// path: a socket file that nobody is bound to is replaced.
    pub reuse_address: bool,
    /// SO_REUSEPORT: several sockets share the port; off by default.
    pub reuse_port: bool,
    /// IPV6_V6ONLY on an IPv6 address; the system's default if not set.
    pub only_v6: Option<bool>,
    /// SO_BROADCAST: sending to broadcast addresses is allowed; off by default.
    pub broadcast: bool,
    /// Over how many routers at most, 1 to 255; the system's default if not set.
    pub hops: Option<u8>,
    /// The same for multicast, from 0 (this machine only); the system's default, 1, if not set.
    pub multicast_hops: Option<u8>,
    /// Whether a multicast reaches members on this machine, too; the system's default, on, if not set.
    pub multicast_loop: Option<bool>,
    /// IP_MULTICAST_ALL, IPV6_MULTICAST_ALL (Linux): whether a socket that is bound to every address also receives
    /// what is for groups that only other sockets of this machine have joined. Off by default, because a service
    /// expects the groups it joined and no others; the system's default is on.
    pub multicast_all: bool,
    /// Whether equal datagrams that follow each other may pass the kernel as one packet, where the system can
    /// do that (UDP_SEGMENT and UDP_GRO, Linux); on by default. The datagrams are the same either way.
    pub together: bool,
    /// SO_RCVBUF, in bytes.
    pub receive_buffer: Option<usize>,
    /// SO_SNDBUF, in bytes.
    pub send_buffer: Option<usize>,
}

impl Default for BindOptions {
    fn default() -> BindOptions {
        BindOptions {
            peer: None,
            reuse_address: false,
            reuse_port: false,
            only_v6: None,
            broadcast: false,
            hops: None,
            multicast_hops: None,
            multicast_loop: None,
            multicast_all: false,
            together: true,
            receive_buffer: None,
            send_buffer: None,
        }
    }
}

/// A multicast group, and the interface on which it is listened to.
///
/// ```
/// use reactor::Group;
/// use std::net::Ipv4Addr;
/// let group = Group::V4 { group: Ipv4Addr::new(239, 1, 2, 3), interface: Ipv4Addr::UNSPECIFIED };
/// assert_eq!(group.address(), Ipv4Addr::new(239, 1, 2, 3));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Group {
    /// Of IPv4; the interface by its address, an unspecified one is the system's choice.
    V4 {
        /// The group's address.
        group: Ipv4Addr,
        /// The interface's address.
        interface: Ipv4Addr,
    },
    /// Of IPv6; the interface by its index, 0 is the system's choice.
    V6 {
        /// The group's address.
        group: Ipv6Addr,
        /// The interface's index.
        interface: u32,
    },
}

impl Group {
    /// The group's address.
    pub fn address(&self) -> IpAddr {
        match self {
            Group::V4 { group, .. } => (*group).into(),
            Group::V6 { group, .. } => (*group).into(),
        }
    }
}
