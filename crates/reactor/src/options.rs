//! Options of sockets, with defaults that suit a server of small messages.

use std::time::Duration;

use crate::address::Address;

/// Keep-alive probes of an idle TCP connection (tcp(7)).
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
    /// SO_REUSEADDR; on by default, so that a restarted server finds its port free. On a Unix path: a
    /// socket file that nobody listens on is replaced.
    pub reuse_address: bool,
    /// SO_REUSEPORT: several listeners share the port; off by default.
    pub reuse_port: bool,
    /// How many connections may wait to be accepted; the system has a limit of its own.
    pub backlog: u32,
    /// IPV6_V6ONLY on an IPv6 address; the system's default if not set.
    pub only_v6: Option<bool>,
}

impl Default for ListenOptions {
    fn default() -> ListenOptions {
        ListenOptions {
            socket: SocketOptions::default(),
            reuse_address: true,
            reuse_port: false,
            backlog: 4096,
            only_v6: None,
        }
    }
}

/// Options of an outgoing connection.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// Of the connection.
    pub socket: SocketOptions,
    /// The address to connect from; the system's choice if not set.
    pub local: Option<Address>,
}
