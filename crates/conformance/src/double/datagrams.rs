//! Datagram sockets: their queues, the receivers of a datagram, and reports in a later wait.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use reactor::{
    Address, BindOptions, Ecn, Group, Key, Outbound,
    engine::{Batch, DatagramQueue, Event},
};

use super::{
    engine::{Attached, Double},
    fault,
    state::{State, is_ours},
};

/// One socket.
pub(super) struct Socket {
    pub(super) address: Address,
    pub(super) peer: Option<Address>,
    groups: Vec<IpAddr>,
    arrived: VecDeque<Letter>,
    arrived_bytes: usize,
    /// Reports about datagrams that this socket sent: the destination, and the reason for the loss.
    reports: VecDeque<(Option<Address>, io::Error)>,
    /// The longest datagram that it receives whole, in bytes.
    longest: usize,
    /// The longest datagram that it sends to a Unix socket, in bytes.
    unix_length_max: usize,
    /// A send left some datagrams. The value is the receiver for whose room the socket waits, if that is
    /// known.
    waits: Option<Option<u64>>,
}

/// A datagram that arrived.
struct Letter {
    from: Address,
    to: Option<IpAddr>,
    ecn: Ecn,
    bytes: Box<[u8]>,
}

impl Socket {
    fn has_place(&self, bytes: usize) -> bool {
        self.arrived.len() < ARRIVED_MAX && self.arrived_bytes + bytes <= ARRIVED_BYTES_MAX
    }
}

impl State {
    /// Opens a socket.
    pub(super) fn bind_socket(&mut self, address: &Address, options: &BindOptions) -> io::Result<u64> {
        self.check_room()?;
        let address = match (address, &options.peer) {
            (Address::Unnamed, Some(Address::Ip(_))) => {
                self.socket_name((Ipv4Addr::UNSPECIFIED, 0).into())?
            }
            (Address::Ip(ip), _) => self.socket_name(*ip)?,
            (other, _) => other.clone(),
        };
        let is_taken = address != Address::Unnamed && self.socket_named(&address).is_some();
        if is_taken && !options.reuse_address {
            return Err(fault::error(ErrorKind::AddrInUse));
        }
        let number = self.number();
        let socket = Socket {
            address,
            peer: options.peer.clone(),
            groups: Vec::new(),
            arrived: VecDeque::new(),
            arrived_bytes: 0,
            reports: VecDeque::new(),
            longest: RECEIVE_MAX,
            // Linux doubles the requested size, and the kernel uses a little of it.
            unix_length_max: options
                .send_buffer
                .map_or(UNIX_LENGTH_MAX, |bytes| (2 * bytes).saturating_sub(32)),
            waits: None,
        };
        self.sockets.insert(number, socket);
        Ok(number)
    }

    fn socket_name(&mut self, wanted: SocketAddr) -> io::Result<Address> {
        if !is_ours(wanted.ip()) && !wanted.ip().is_multicast() {
            return Err(fault::error(ErrorKind::AddrNotAvailable));
        }
        let mut name = wanted;
        // One attempt more than there are sockets is enough to find a free port.
        for _ in 0..=self.sockets.len() {
            if name.port() == 0 || wanted.port() == 0 && self.socket_named(&Address::Ip(name)).is_some() {
                name.set_port(self.free_port());
            }
        }
        Ok(Address::Ip(name))
    }

    fn socket_named(&self, address: &Address) -> Option<u64> {
        self.sockets.iter().find(|(_, socket)| socket.address == *address).map(|(number, _)| *number)
    }

    /// Returns the sockets that a datagram to this address reaches.
    fn reached_by(&self, to: &Address) -> Vec<u64> {
        let Address::Ip(ip) = to else { return self.socket_named(to).into_iter().collect() };
        if ip.ip().is_multicast() {
            let is_member = |socket: &&Socket| {
                socket.groups.contains(&ip.ip())
                    && socket.address.ip().is_some_and(|at| at.port() == ip.port())
            };
            return self.sockets.iter().filter(|(_, socket)| is_member(socket)).map(|(n, _)| *n).collect();
        }
        let wild = Address::Ip((Ipv4Addr::UNSPECIFIED, ip.port()).into());
        self.socket_named(to).or_else(|| self.socket_named(&wild)).into_iter().collect()
    }

    /// Delivers a datagram to the sockets that it reaches.
    ///
    /// # Errors
    /// The reason why it does not arrive. `WouldBlock` means that the receiver has no room.
    fn bring(&mut self, number: u64, item: &Outbound<'_>) -> io::Result<()> {
        let Some(sender) = self.sockets.get(&number) else { return Err(fault::bad_descriptor()) };
        let to = item.to.or(sender.peer.as_ref()).cloned();
        let to = to.ok_or_else(fault::no_destination)?;
        let ip = to.ip().map(|ip| ip.ip());
        if item.bytes.len() > if ip.is_some() { LENGTH_MAX } else { sender.unix_length_max } {
            return Err(fault::too_long());
        }
        let from = match &sender.address {
            Address::Ip(at) if at.ip().is_unspecified() => {
                Address::Ip((item.from.unwrap_or(Ipv4Addr::LOCALHOST.into()), at.port()).into())
            }
            other => other.clone(),
        };
        let reached = self.reached_by(&to);
        if reached.is_empty() && !ip.is_some_and(|ip| ip.is_multicast()) {
            return Err(fault::error(ErrorKind::ConnectionRefused));
        }
        for number in reached {
            let Some(receiver) = self.sockets.get_mut(&number) else { continue };
            // A connected socket receives only from its peer.
            if receiver.peer.as_ref().is_some_and(|peer| *peer != from) {
                continue;
            }
            if !receiver.has_place(item.bytes.len()) {
                match ip {
                    Some(_) => continue,
                    None => return Err(fault::error(ErrorKind::WouldBlock)),
                }
            }
            receiver.arrived_bytes += item.bytes.len();
            let letter = Letter { from: from.clone(), to: ip, ecn: item.ecn, bytes: item.bytes.into() };
            receiver.arrived.push_back(letter);
        }
        Ok(())
    }

    /// Sends at most `most` datagrams from the front of a queue. Returns the number taken.
    pub(super) fn send_datagrams(&mut self, number: u64, queue: &mut DatagramQueue, most: usize) -> usize {
        let mut taken = 0;
        let mut waits_for = None;
        for _ in 0..most {
            let Some(item) = queue.front() else { break };
            let (to, is_connected) = (item.to.cloned(), item.to.is_none());
            match self.bring(number, &item) {
                Ok(()) => taken += 1,
                Err(error) if is_connected && error.kind() == ErrorKind::WouldBlock => {
                    let peer = self.sockets.get(&number).and_then(|socket| socket.peer.clone());
                    waits_for = peer.and_then(|peer| self.socket_named(&peer));
                    break;
                }
                Err(error) => {
                    if let Some(socket) = self.sockets.get_mut(&number) {
                        socket.reports.push_back((to, error));
                    }
                }
            }
            queue.pop();
        }
        if let Some(socket) = self.sockets.get_mut(&number).filter(|_| !queue.is_empty()) {
            socket.waits = Some(waits_for);
        }
        taken
    }

    /// Reports whether a socket that waits for room has it again, and ends the waiting in that case.
    fn has_room_again(&mut self, number: u64) -> bool {
        let Some(waits_for) = self.sockets.get(&number).and_then(|socket| socket.waits) else { return false };
        let has_room = match waits_for.map(|peer| self.sockets.get(&peer)) {
            Some(Some(peer)) => peer.arrived.len() * 2 <= ARRIVED_MAX && peer.has_place(UNIX_LENGTH_MAX / 2),
            // The receiver may be gone. The next send reports that.
            Some(None) | None => true,
        };
        if let Some(socket) = self.sockets.get_mut(&number).filter(|_| has_room) {
            socket.waits = None;
        }
        has_room
    }

    /// Sets the longest datagram that the socket receives whole.
    pub(super) fn set_longest(&mut self, number: u64, bytes: usize) {
        if let Some(socket) = self.sockets.get_mut(&number) {
            socket.longest = bytes;
        }
    }

    /// Joins a group, or leaves it.
    pub(super) fn set_member(&mut self, number: u64, group: &Group, member: bool) -> io::Result<()> {
        let socket = self.sockets.get_mut(&number).ok_or(ErrorKind::NotFound)?;
        let address = group.address();
        let at = socket.groups.iter().position(|other| *other == address);
        match (at, member) {
            _ if !address.is_multicast() => return Err(fault::error(ErrorKind::InvalidInput)),
            (None, true) => socket.groups.push(address),
            (Some(at), false) => drop(socket.groups.remove(at)),
            (Some(_), true) => return Err(fault::error(ErrorKind::AddrInUse)),
            (None, false) => return Err(fault::error(ErrorKind::AddrNotAvailable)),
        }
        Ok(())
    }

    /// Reports whether a read could be in flight, because datagrams have arrived.
    pub(super) fn has_arrived(&self, number: u64) -> bool {
        self.sockets.get(&number).is_some_and(|socket| !socket.arrived.is_empty())
    }

    /// Takes at most `most` of the datagrams that have arrived.
    fn batch(&mut self, number: u64, most: usize) -> Option<Batch> {
        let socket = self.sockets.get_mut(&number)?;
        let mut batch = Batch::default();
        for _ in 0..most {
            let Some(Letter { from, to, ecn, bytes }) = socket.arrived.pop_front() else { break };
            socket.arrived_bytes -= bytes.len();
            let given = &bytes[..bytes.len().min(socket.longest)];
            batch.put(given, &from, to, ecn, given.len() < bytes.len());
        }
        (!batch.is_empty()).then_some(batch)
    }

    fn report(&mut self, number: u64) -> Option<(Option<Address>, io::Error)> {
        self.sockets.get_mut(&number)?.reports.pop_front()
    }
}

impl Double {
    /// Makes the events of a socket: first reports about its sends, then its arrived datagrams. Returns true
    /// if others may continue because of that.
    pub(super) fn step_datagrams(&mut self, state: &mut State, key: Key, attached: &mut Attached) -> bool {
        while self.space() > 0
            && let Some((to, error)) = state.report(attached.number)
        {
            self.events.push_back((key, Event::Undelivered(to, error)));
        }
        if self.space() > 0 && state.has_room_again(attached.number) {
            self.events.push_back((key, Event::Room));
        }
        if self.space() == 0 || !attached.armed {
            return false;
        }
        let Some(batch) = state.batch(attached.number, self.chance.up_to(BATCH_MAX)) else { return false };
        attached.armed = attached.wants;
        self.events.push_back((key, Event::Datagrams(batch)));
        true
    }
}

/// How many datagrams one send takes at most. The double draws a number from 1 to this.
pub(super) const TAKEN_MAX: usize = 16;
/// How many datagrams one batch has at most.
const BATCH_MAX: usize = 16;
/// How many datagrams wait in a socket at most, and how many bytes.
const ARRIVED_MAX: usize = 256;
const ARRIVED_BYTES_MAX: usize = 256 << 10;
/// The longest datagram of UDP over IPv4 (RFC 768), and that of a Unix socket.
const LENGTH_MAX: usize = 65_507;
const UNIX_LENGTH_MAX: usize = 128 << 10;
/// The default for the longest datagram that a socket receives whole.
pub(super) const RECEIVE_MAX: usize = 64 << 10;
