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
    ids::{FlightId, HostId, Id as _, SocketId},
    net::datagram::{
        Datagrams,
        socket::{QueuedDatagram, Socket},
    },
    world::{base::Base, state::Scheduled},
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
    payload: Payload,
}

enum Payload {
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

impl Datagrams {
    /// Sends a datagram to an address of any kind.
    pub(crate) fn take_off(
        &mut self,
        base: &mut Base,
        socket: SocketId,
        to: Address,
        from: Option<IpAddr>,
        content: Content,
    ) -> Result<(), i32> {
        let Some(sender) = self.socket(socket) else { return Ok(()) };
        sender.sent += 1;
        let (host, may_broadcast) = (sender.host, sender.may_broadcast);
        base.record.digest.number(u64::from(socket.number()) << 8 | 0xd6);
        base.record.digest.bytes(&content.bytes);
        let Address::Ip(ip) = to else { return self.send_local(base, socket, host, to, content) };
        let from = self.sender_name(base, socket, from, ip.ip());
        if ip.ip().is_multicast() {
            for receiver in self.members(ip) {
                self.launch(base, socket, &from, &Address::Ip(ip), Some(receiver), content.clone());
            }
        } else if ip.ip() == IpAddr::V4(Ipv4Addr::BROADCAST) {
            if !may_broadcast {
                return Err(error::PERMISSION);
            }
            for receiver in self.bound_to(ip.port()) {
                self.launch(base, socket, &from, &Address::Ip(ip), Some(receiver), content.clone());
            }
        } else {
            self.launch(base, socket, &from, &Address::Ip(ip), None, content);
        }
        Ok(())
    }

    /// Sends a Unix datagram. It arrives at once, or the send fails.
    fn send_local(
        &mut self,
        base: &mut Base,
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
        self.summary.sent += 1;
        self.put_waiting(
            base,
            receiver,
            order,
            QueuedDatagram { from, to: None, ecn: Ecn::NotCapable, bytes: content.bytes },
        );
        Ok(())
    }

    /// Returns the sender's address as the receiver sees it.
    fn sender_name(&self, base: &Base, socket: SocketId, from: Option<IpAddr>, to: IpAddr) -> Address {
        let Some(sender) = self.sockets.get(socket) else { return Address::Unnamed };
        let Address::Ip(own) = sender.address else { return sender.address.clone() };
        let ip = match from {
            Some(from) => from,
            None if !own.ip().is_unspecified() => own.ip(),
            None if to.is_loopback() || to.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            None => base.hosts[sender.host].ip.into(),
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

    fn sockets_where(&self, is_it: impl Fn(&Socket, SocketAddr) -> bool) -> Vec<SocketId> {
        let all = self.sockets.iter();
        let them = all.filter(|(_, socket)| socket.address.ip().is_some_and(|ip| is_it(socket, ip)));
        them.map(|(number, _)| number).collect()
    }

    /// Sends one datagram. The link may lose or duplicate it.
    fn launch(
        &mut self,
        base: &mut Base,
        socket: SocketId,
        from: &Address,
        to: &Address,
        only: Option<SocketId>,
        content: Content,
    ) {
        self.summary.sent += 1;
        let Some(sender) = self.sockets.get(socket) else { return };
        let (from_host, order) = (sender.host, sender.sent);
        let to_host = match (only, to.ip()) {
            (Some(only), _) => self.sockets.get(only).map(|receiver| receiver.host),
            (None, Some(ip)) => base.hosts.of_ip(from_host, ip.ip()),
            (None, None) => None,
        };
        // A host that does not exist sends no error.
        let Some(to_host) = to_host else {
            self.summary.dropped += 1;
            return;
        };
        let link = base.links.of(from_host, to_host);
        if link.lost > 0 && base.faults.chance.per_million(link.lost) {
            self.summary.lost += 1;
            return;
        }
        let is_doubled = link.doubled > 0 && base.faults.chance.per_million(link.doubled);
        self.summary.doubled += u64::from(is_doubled);
        for _ in 0..1 + usize::from(is_doubled) {
            let (from, to, content) = (from.clone(), to.clone(), content.clone());
            let payload = Payload::Datagram { from, to, only, order, content };
            self.fly(base, Flight { socket, from_host, to_host, sent: base.now(), payload });
        }
    }

    fn fly(&mut self, base: &mut Base, flight: Flight) {
        if self.flights.len() >= FLIGHTS_MAX {
            self.summary.dropped += 1;
            return;
        }
        let (from, to) = match flight.payload {
            Payload::Datagram { .. } => (flight.from_host, flight.to_host),
            Payload::Refused(_) => (flight.to_host, flight.from_host),
        };
        let at = base.arrival(from, to);
        let id = self.next_flight.take();
        self.flights.insert(id, flight);
        base.clock.schedule(at, Scheduled::Land { flight: id });
    }

    /// Delivers a packet at its arrival, unless an obstacle is in its way.
    pub(crate) fn land(&mut self, base: &mut Base, flight: FlightId) {
        let Some(flight) = self.flights.remove(&flight) else { return };
        let (from, to) = match flight.payload {
            Payload::Datagram { .. } => (flight.from_host, flight.to_host),
            Payload::Refused(_) => (flight.to_host, flight.from_host),
        };
        if let Some(kind) = base.links.obstacle(from, to).filter(|_| from != to) {
            base.faults.tally.observe(kind);
            match kind {
                // A hold does not lose it. It starts again as soon as the link is free.
                Kind::Hold if self.held.len() < FLIGHTS_MAX => self.held.push(flight),
                _ => self.summary.lost += 1,
            }
            return;
        }
        if !base.hosts[to].is_up {
            self.summary.dropped += 1;
            return;
        }
        match flight.payload {
            Payload::Refused(address) => {
                self.summary.refused += 1;
                self.report(base, flight.socket, Some(address), error::CONNECTION_REFUSED);
            }
            Payload::Datagram { .. } => self.deliver(base, flight),
        }
    }

    fn deliver(&mut self, base: &mut Base, flight: Flight) {
        let Flight { socket, from_host, to_host, sent, payload } = flight;
        let Payload::Datagram { from, to, only, order, content } = payload else { return };
        let receiver = only.or_else(|| self.socket_at(to_host, &to));
        // A connected socket receives only from its peer. For other senders the port is unreachable.
        let is_for = |id: &SocketId| {
            let receiver = self.sockets.get(*id);
            receiver.is_some_and(|receiver| receiver.peer.as_ref().is_none_or(|peer| *peer == from))
        };
        let Some(receiver) = receiver.filter(is_for) else {
            if only.is_none() {
                let payload = Payload::Refused(to);
                self.fly(base, Flight { socket, from_host, to_host, sent: base.now(), payload });
            }
            self.summary.dropped += 1;
            return;
        };
        let bytes = content.bytes.len();
        if !self.socket(receiver).is_some_and(|receiver| receiver.has_place(bytes)) {
            self.summary.dropped += 1;
            return;
        }
        base.record.messages += 1;
        base.record.bytes += bytes as u64;
        let time = reactor::Time::from_nanos;
        let (sent, arrived) = (time(sent), time(base.now()));
        let bytes = bytes as u32;
        base.record.keep(|| Happening::Message {
            sent,
            arrived,
            from: Node(from_host),
            to: Node(to_host),
            bytes,
        });
        // For a group or a broadcast, pass the host's own address, because an answer must come from it.
        let own = base.hosts[to_host].ip;
        let to = to.ip().map(|ip| ip.ip()).map(|ip| match ip {
            IpAddr::V4(ip) if ip.is_multicast() || ip.is_broadcast() => own.into(),
            ip => ip,
        });
        self.put_waiting(
            base,
            receiver,
            order,
            QueuedDatagram { from, to, ecn: content.ecn, bytes: content.bytes },
        );
    }

    /// Restarts the held packets, because their links may be free.
    pub(crate) fn release_flights(&mut self, base: &mut Base) {
        for flight in std::mem::take(&mut self.held) {
            self.fly(base, flight);
        }
    }
}

/// The most bytes of a UDP datagram over IPv4.
pub(crate) const LENGTH_MAX: usize = 65_507;
/// The most bytes of a Unix datagram, limited by Linux's default send buffer.
pub(crate) const UNIX_LENGTH_MAX: usize = 212_992 - 32;
/// The most packets in flight, and the most held ones, in the whole world. The world drops further ones.
const FLIGHTS_MAX: usize = 1 << 16;
