//! Datagrams in flight. The network delivers each whole or not at all. It may lose, duplicate or reorder
//! them, and reports an unreachable port.
//!
//! As with UDP (RFC 768, udp(7)), each datagram has its own latency, so one may overtake another. A full
//! buffer silently drops a datagram. If no socket is bound to the port, and the way back is free, the sender
//! gets an error. Unix datagrams arrive in order and without loss, and a full buffer is an error of the send
//! (unix(7)).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use reactor::{Address, Ecn};

use crate::{
    error,
    faults::Kind,
    ids::{HostId, Id as _, SocketId},
    net::socket::Waiting,
    world::state::{State, What},
    world::{node::Node, record::Happening},
};

/// The counts of a world's datagrams so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct DatagramSummary {
    /// Sent datagrams, one for each receiver of a multicast or broadcast.
    pub sent: u64,
    /// Lost by the link ([`Link::lost`](crate::Link::lost)), or at an obstacle.
    pub lost: u64,
    /// Duplicated by the link ([`Link::doubled`](crate::Link::doubled)).
    pub doubled: u64,
    /// Datagrams that arrived after a later one of the same socket.
    pub overtaken: u64,
    /// Dropped, because too many were in flight, the buffer was full, or there was no receiver, or because
    /// the socket closed before it received them.
    pub dropped: u64,
    /// Reported to their sender as refused, because no socket was bound to the port.
    pub refused: u64,
    /// Truncated by the receiver.
    pub cut: u64,
    /// Received.
    pub received: u64,
}

/// The content of a datagram.
#[derive(Clone)]
pub(crate) struct Content {
    pub(crate) bytes: Box<[u8]>,
    pub(crate) ecn: Ecn,
}

/// A packet in flight between two sockets.
pub(crate) struct Flight {
    /// The sending socket, and its host.
    socket: SocketId,
    from_host: HostId,
    to_host: HostId,
    sent: u64,
    load: Load,
}

enum Load {
    Datagram {
        from: Address,
        to: Address,
        /// The one receiver, if the address alone does not decide.
        only: Option<SocketId>,
        order: u64,
        content: Content,
    },
    /// An answer to the sender: no socket is bound to this address.
    Refused(Address),
}

impl State {
    /// Sends a datagram to an address of any kind.
    pub(crate) fn take_off(
        &mut self,
        socket: SocketId,
        to: Address,
        from: Option<IpAddr>,
        content: Content,
    ) -> Result<(), i32> {
        let Some(sender) = self.socket(socket) else { return Ok(()) };
        sender.sent += 1;
        let (host, may_broadcast) = (sender.host, sender.may_broadcast);
        self.digest.number(u64::from(socket.number()) << 8 | 0xd6);
        self.digest.bytes(&content.bytes);
        let Address::Ip(ip) = to else { return self.send_local(socket, host, to, content) };
        let from = self.sender_name(socket, from, ip.ip());
        if ip.ip().is_multicast() {
            for receiver in self.members(ip) {
                self.launch(socket, &from, &Address::Ip(ip), Some(receiver), content.clone());
            }
        } else if ip.ip() == IpAddr::V4(Ipv4Addr::BROADCAST) {
            if !may_broadcast {
                return Err(error::PERMISSION);
            }
            for receiver in self.bound_to(ip.port()) {
                self.launch(socket, &from, &Address::Ip(ip), Some(receiver), content.clone());
            }
        } else {
            self.launch(socket, &from, &Address::Ip(ip), None, content);
        }
        Ok(())
    }

    /// Sends a Unix datagram. It arrives at once, or the send fails.
    fn send_local(
        &mut self,
        socket: SocketId,
        host: HostId,
        to: Address,
        content: Content,
    ) -> Result<(), i32> {
        let is_path = matches!(to, Address::Path(_));
        let nobody = if is_path { error::NO_ENTRY } else { error::CONNECTION_REFUSED };
        let receiver = self.socket_at(host, &to).ok_or(nobody)?;
        if !self.socket(receiver).is_some_and(|receiver| receiver.has_place(content.bytes.len())) {
            return Err(error::AGAIN);
        }
        let Some(sender) = self.socket(socket) else { return Ok(()) };
        let (from, order) = (sender.address.clone(), sender.sent);
        self.datagrams.sent += 1;
        self.put_waiting(
            receiver,
            order,
            Waiting { from, to: None, ecn: Ecn::NotCapable, bytes: content.bytes },
        );
        Ok(())
    }

    /// Returns the sender's address as the receiver sees it.
    fn sender_name(&self, socket: SocketId, from: Option<IpAddr>, to: IpAddr) -> Address {
        let Some(sender) = self.sockets.get(socket) else { return Address::Unnamed };
        let Address::Ip(own) = sender.address else { return sender.address.clone() };
        let ip = match from {
            Some(from) => from,
            None if !own.ip().is_unspecified() => own.ip(),
            None if to.is_loopback() || to.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            None => self.hosts[sender.host].ip.into(),
        };
        Address::Ip(SocketAddr::new(ip, own.port()))
    }

    /// Returns the sockets in a multicast group with this port, in the order of their creation.
    fn members(&self, group: SocketAddr) -> Vec<SocketId> {
        self.sockets_where(|socket, address| {
            socket.groups.contains(&group.ip()) && address.port() == group.port()
        })
    }

    /// Returns the sockets bound to this port of every address, in the order of their creation.
    fn bound_to(&self, port: u16) -> Vec<SocketId> {
        self.sockets_where(|_, address| address.port() == port && address.ip().is_unspecified())
    }

    fn sockets_where(
        &self,
        is_it: impl Fn(&crate::net::socket::Socket, SocketAddr) -> bool,
    ) -> Vec<SocketId> {
        let all = self.sockets.iter();
        let them = all.filter(|(_, socket)| socket.address.ip().is_some_and(|ip| is_it(socket, ip)));
        them.map(|(number, _)| number).collect()
    }

    /// Sends one datagram. The link may lose or duplicate it.
    fn launch(
        &mut self,
        socket: SocketId,
        from: &Address,
        to: &Address,
        only: Option<SocketId>,
        content: Content,
    ) {
        self.datagrams.sent += 1;
        let Some(sender) = self.sockets.get(socket) else { return };
        let (from_host, order) = (sender.host, sender.sent);
        let to_host = match (only, to.ip()) {
            (Some(only), _) => self.sockets.get(only).map(|receiver| receiver.host),
            (None, Some(ip)) => self.host_of(from_host, ip.ip()),
            (None, None) => None,
        };
        // A host that does not exist sends no error.
        let Some(to_host) = to_host else {
            self.datagrams.dropped += 1;
            return;
        };
        let link = self.links.of(from_host, to_host);
        if link.lost > 0 && self.chance.per_million(link.lost) {
            self.datagrams.lost += 1;
            return;
        }
        let is_doubled = link.doubled > 0 && self.chance.per_million(link.doubled);
        self.datagrams.doubled += u64::from(is_doubled);
        for _ in 0..1 + usize::from(is_doubled) {
            let (from, to, content) = (from.clone(), to.clone(), content.clone());
            let load = Load::Datagram { from, to, only, order, content };
            self.fly(Flight { socket, from_host, to_host, sent: self.now, load });
        }
    }

    fn fly(&mut self, flight: Flight) {
        if self.flights.len() >= FLIGHTS_MAX {
            self.datagrams.dropped += 1;
            return;
        }
        let (from, to) = match flight.load {
            Load::Datagram { .. } => (flight.from_host, flight.to_host),
            Load::Refused(_) => (flight.to_host, flight.from_host),
        };
        let at = self.arrival(from, to);
        self.flown += 1;
        self.flights.insert(self.flown, flight);
        self.queue.put(at, What::Land { flight: self.flown });
    }

    /// Delivers a packet at its arrival, unless an obstacle is in its way.
    pub(crate) fn land(&mut self, number: u64) {
        let Some(flight) = self.flights.remove(&number) else { return };
        let (from, to) = match flight.load {
            Load::Datagram { .. } => (flight.from_host, flight.to_host),
            Load::Refused(_) => (flight.to_host, flight.from_host),
        };
        if let Some(kind) = self.links.obstacle(from, to).filter(|_| from != to) {
            self.tally.observe(kind);
            match kind {
                // A hold does not lose it. It starts again as soon as the link is free.
                Kind::Hold if self.held.len() < FLIGHTS_MAX => self.held.push(flight),
                _ => self.datagrams.lost += 1,
            }
            return;
        }
        if !self.hosts[to].is_up {
            self.datagrams.dropped += 1;
            return;
        }
        match flight.load {
            Load::Refused(address) => {
                self.datagrams.refused += 1;
                self.report(flight.socket, Some(address), error::CONNECTION_REFUSED);
            }
            Load::Datagram { .. } => self.deliver(flight),
        }
    }

    fn deliver(&mut self, flight: Flight) {
        let Flight { socket, from_host, to_host, sent, load } = flight;
        let Load::Datagram { from, to, only, order, content } = load else { return };
        let receiver = only.or_else(|| self.socket_at(to_host, &to));
        // A connected socket receives only from its peer. For other senders the port is unreachable.
        let is_for = |state: &mut State, number: SocketId| {
            let receiver = state.socket(number)?;
            let is_peer = receiver.peer.as_ref().is_none_or(|peer| *peer == from);
            is_peer.then_some(number)
        };
        let Some(receiver) = receiver.and_then(|number| is_for(self, number)) else {
            if only.is_none() {
                let load = Load::Refused(to);
                self.fly(Flight { socket, from_host, to_host, sent: self.now, load });
            }
            self.datagrams.dropped += 1;
            return;
        };
        let bytes = content.bytes.len();
        if !self.socket(receiver).is_some_and(|receiver| receiver.has_place(bytes)) {
            self.datagrams.dropped += 1;
            return;
        }
        self.record.messages += 1;
        self.record.bytes += bytes as u64;
        let time = reactor::Time::from_nanos;
        let (sent, arrived) = (time(sent), time(self.now));
        let bytes = bytes as u32;
        self.record.keep(|| Happening::Message {
            sent,
            arrived,
            from: Node(from_host),
            to: Node(to_host),
            bytes,
        });
        // For a group or a broadcast, pass the host's own address, because an answer must come from it.
        let own = self.hosts[to_host].ip;
        let to = to.ip().map(|ip| ip.ip()).map(|ip| match ip {
            IpAddr::V4(ip) if ip.is_multicast() || ip.is_broadcast() => own.into(),
            ip => ip,
        });
        self.put_waiting(receiver, order, Waiting { from, to, ecn: content.ecn, bytes: content.bytes });
    }

    /// Restarts the held packets, because their links may be free.
    pub(crate) fn release_flights(&mut self) {
        for flight in std::mem::take(&mut self.held) {
            self.fly(flight);
        }
    }
}

/// The most bytes of a UDP datagram over IPv4.
pub(crate) const LENGTH_MAX: usize = 65_507;
/// The most bytes of a Unix datagram, limited by Linux's default send buffer.
pub(crate) const UNIX_LENGTH_MAX: usize = 212_992 - 32;
/// The most packets in flight, and the most held ones, in the whole world. The world drops further ones.
const FLIGHTS_MAX: usize = 1 << 16;
