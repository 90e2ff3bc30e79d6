//! Socket options, with defaults that suit a server of small messages.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use crate::address::Address;

/// Gives types of options the constructor `with`. They are `non_exhaustive`, because later versions add fields,
/// and so a literal cannot name the changes.
macro_rules! with_changes {
    ($($options:ty),+) => {$(
        impl $options {
            /// Returns the defaults with the changes that `change` makes.
            #[must_use]
            pub fn with(change: impl FnOnce(&mut $options)) -> $options {
                let mut options = <$options>::default();
                change(&mut options);
                options
            }
        }
    )+};
}
pub(crate) use with_changes;

with_changes!(SocketOptions, ListenOptions, ConnectOptions, BindOptions);

/// Keep-alive probes of an idle TCP connection (tcp(7)). The kernel counts both times in whole seconds. The
/// runtime refuses less than one second, and zero probes.
///
/// ```
/// use reactor::{ConnectOptions, Keepalive};
/// use std::time::Duration;
///
/// let options = ConnectOptions::with(|options| {
///     let idle = Duration::from_secs(30);
///     options.socket.keepalive = Some(Keepalive { idle, ..Keepalive::default() });
/// });
/// # let _ = options;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keepalive {
    /// How long the connection must be silent before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// How many unanswered probes break the connection.
    pub probes: u32,
}

impl Default for Keepalive {
    /// Returns sixty seconds, then six probes ten seconds apart, so that a vanished peer is noticed within
    /// two minutes.
    fn default() -> Keepalive {
        Keepalive { idle: Duration::from_secs(60), interval: Duration::from_secs(10), probes: 6 }
    }
}

/// Options of one connection. An option that the transport does not have, for example a TCP option on a Unix
/// socket, is ignored.
///
/// [`ListenOptions`] and [`Keepalive`] have examples.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SocketOptions {
    /// TCP_NODELAY. On by default, because the runtime coalesces writes itself.
    pub nodelay: bool,
    /// SO_KEEPALIVE with its intervals. Off by default.
    pub keepalive: Option<Keepalive>,
    /// TCP_USER_TIMEOUT: how long sent data may stay unacknowledged. The system's default if not set.
    pub user_timeout: Option<Duration>,
    /// TCP_NOTSENT_LOWAT, in bytes: how much unsent data the kernel queues. The system's default if not set.
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

/// Options of a listener. The listening socket also carries the options of its connections, which inherit
/// them.
///
/// ```
/// use reactor::ListenOptions;
///
/// let options = ListenOptions::with(|options| {
///     options.reuse_port = true;
///     options.socket.receive_buffer = Some(256 * 1024);
/// });
/// assert!(options.socket.nodelay, "on by default");
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ListenOptions {
    /// The options of each accepted connection.
    pub socket: SocketOptions,
    /// SO_REUSEADDR. On by default, so that a restarted server finds its port free. On a Unix path, it
    /// replaces a socket file that nobody listens on.
    ///
    /// With the engine `io_uring`, the kernel keeps the port for some milliseconds after a process was
    /// killed, or exited without dropping its [`Runtime`](crate::Runtime). Until then a new listener fails
    /// with `AddrInUse`. Drop the runtime before the exit, or try again.
    pub reuse_address: bool,
    /// SO_REUSEPORT: several listeners share the port. Off by default.
    pub reuse_port: bool,
    /// How many connections may wait to be accepted. The system also has a limit of its own.
    pub backlog: u32,
    /// IPV6_V6ONLY on an IPv6 address. The system's default if not set.
    pub only_v6: Option<bool>,
    /// Turns waiting connections away when the process has no descriptors left. Off by default: the
    /// connections wait until a descriptor is free. If set, the listener closes one of them at each failed
    /// accept, with a descriptor held in reserve, so that the peer learns at once and may go elsewhere.
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
///
/// ```
/// use reactor::ConnectOptions;
///
/// let options = ConnectOptions::with(|options| options.local = Some("127.0.0.2:0".parse().expect("an address")));
/// # let _ = options;
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// Options of the connection itself.
    pub socket: SocketOptions,
    /// The address to connect from. The system chooses if not set. With port 0 the system chooses the port
    /// once it knows the target (IP_BIND_ADDRESS_NO_PORT, Linux), so that connections to different targets
    /// may share one.
    pub local: Option<Address>,
}

/// Options of a datagram socket. They are set once.
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
    /// The peer to connect to. A connected socket receives from this address only, and sends to it by
    /// default.
    pub peer: Option<Address>,
    /// SO_REUSEADDR on an IP address: several programs may receive one multicast. Off by default. On a Unix
    /// path, it replaces a socket file that nobody is bound to.
    pub reuse_address: bool,
    /// SO_REUSEPORT: several sockets share the port. Off by default.
    pub reuse_port: bool,
    /// IPV6_V6ONLY on an IPv6 address. The system's default if not set.
    pub only_v6: Option<bool>,
    /// SO_BROADCAST: allows sending to broadcast addresses. Off by default.
    pub broadcast: bool,
    /// The most routers that a datagram may pass, 1 to 255. The system's default if not set.
    pub hops: Option<u8>,
    /// The same for multicast, where 0 means this machine only. The system's default, 1, if not set.
    pub multicast_hops: Option<u8>,
    /// Whether a multicast also reaches members on this machine. The system's default, on, if not set.
    pub multicast_loop: Option<bool>,
    /// IP_MULTICAST_ALL, IPV6_MULTICAST_ALL (Linux): whether a socket bound to every address also receives
    /// datagrams for groups that only other sockets of this machine have joined. The system's default is on.
    /// Here it is off by default, because a service expects the groups that it joined and no others.
    pub multicast_all: bool,
    /// Whether consecutive datagrams of equal size may pass the kernel as one packet, where the system
    /// supports that (UDP_SEGMENT and UDP_GRO, Linux). On by default. It does not change the datagrams.
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

/// A multicast group, and the interface on which to receive it.
///
/// ```
/// use reactor::Group;
/// use std::net::Ipv4Addr;
/// let group = Group::V4 { group: Ipv4Addr::new(239, 1, 2, 3), interface: Ipv4Addr::UNSPECIFIED };
/// assert_eq!(group.address(), Ipv4Addr::new(239, 1, 2, 3));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Group {
    /// IPv4. The address selects the interface; with an unspecified one the system chooses.
    V4 {
        /// The group's address.
        group: Ipv4Addr,
        /// The interface's address.
        interface: Ipv4Addr,
    },
    /// IPv6. The index selects the interface; with 0 the system chooses.
    V6 {
        /// The group's address.
        group: Ipv6Addr,
        /// The interface's index.
        interface: u32,
    },
}

impl Group {
    /// Returns the group's address.
    pub fn address(&self) -> IpAddr {
        match self {
            Group::V4 { group, .. } => (*group).into(),
            Group::V6 { group, .. } => (*group).into(),
        }
    }
}
