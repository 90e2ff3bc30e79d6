//! Datagram sockets: their names, their queues, and the events for their engines.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use reactor::{
    Address, BindOptions, Ecn, Group, Key,
    engine::{Batch, DatagramQueue, Event},
};

use crate::{
    engine::{EngineEvent, engines::ReadyItem},
    error,
    faults::Kind,
    ids::{EngineId, HostId, Id as _, SocketId},
    net::datagram::{
        Datagrams,
        flight::{Content, LENGTH_MAX, UNIX_LENGTH_MAX},
    },
    world::{base::Base, state::Scheduled},
};

/// One datagram socket.
pub(crate) struct Socket {
    pub(crate) host: HostId,
    pub(crate) address: Address,
    pub(crate) peer: Option<Address>,
    pub(crate) may_broadcast: bool,
    pub(crate) groups: Vec<IpAddr>,
    /// The engine and the key that it is attached with.
    pub(crate) owner: Option<(EngineId, Key)>,
    /// `wants`: the engine wants input. `late`: an injected fault delivers one batch although it wants none.
    wants: bool,
    late: bool,
    queued: bool,
    detaching: bool,
    /// Reports about failed datagrams: the destination, and the error number.
    reports: VecDeque<(Option<Address>, i32)>,
    /// `is_blocked`: a send stopped for lack of room. `has_room`: the engine must be notified of room.
    pub(crate) is_blocked: bool,
    has_room: bool,
    waiting: VecDeque<QueuedDatagram>,
    waiting_bytes: usize,
    buffer_bytes: usize,
    /// The longest datagram that it receives whole, and the longest that it sends to a Unix socket.
    pub(crate) longest: usize,
    unix_length_max: usize,
    /// The number of datagrams that it sent, and the highest number among the arrivals, as their senders
    /// count.
    pub(crate) sent: u64,
    latest: u64,
}

/// A datagram that waits for the engine.
pub(crate) struct QueuedDatagram {
    pub(crate) from: Address,
    pub(crate) to: Option<IpAddr>,
    pub(crate) ecn: Ecn,
    pub(crate) bytes: Box<[u8]>,
}

impl Socket {
    fn is_telling(&self) -> bool {
        let has_input = (self.wants || self.late) && !self.waiting.is_empty();
        has_input || !self.reports.is_empty() || self.has_room || self.detaching
    }

    /// Returns whether the bytes that it counts are those that wait.
    pub(crate) fn counts_its_bytes(&self) -> bool {
        self.waiting_bytes == self.waiting.iter().map(|waiting| waiting.bytes.len()).sum::<usize>()
    }

    /// Returns whether it has room for this many bytes. An empty queue takes one datagram of any length.
    pub(crate) fn has_place(&self, bytes: usize) -> bool {
        let is_within = self.waiting_bytes + bytes <= self.buffer_bytes && self.waiting.len() < WAITING_MAX;
        is_within || self.waiting.is_empty()
    }
}

impl Datagrams {
    /// Opens a socket, and returns its id.
    pub(crate) fn bind_socket(
        &mut self,
        base: &mut Base,
        host: HostId,
        address: &Address,
        options: &BindOptions,
    ) -> io::Result<SocketId> {
        let address = self.socket_name(base, host, address, options)?;
        let name = (address != Address::Unnamed).then(|| (host, address.clone()));
        if !options.reuse_address && name.as_ref().is_some_and(|name| self.names.contains_key(name)) {
            return Err(error::os(error::ADDRESS_IN_USE));
        }
        let id = self.sockets.push(Socket {
            host,
            address,
            peer: options.peer.clone(),
            may_broadcast: options.broadcast,
            groups: Vec::new(),
            owner: None,
            wants: false,
            late: false,
            queued: false,
            detaching: false,
            reports: VecDeque::new(),
            is_blocked: false,
            has_room: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            buffer_bytes: options.receive_buffer.unwrap_or(BUFFER_BYTES),
            longest: RECEIVE_MAX,
            // Linux doubles the value, and the kernel uses a little of it.
            unix_length_max: options
                .send_buffer
                .map_or(UNIX_LENGTH_MAX, |bytes| (2 * bytes).saturating_sub(32)),
            sent: 0,
            latest: 0,
        });
        self.names.extend(name.map(|name| (name, id)));
        Ok(id)
    }

    /// Returns the name of a new socket, with a free port in the place of port 0.
    fn socket_name(
        &mut self,
        base: &mut Base,
        host: HostId,
        address: &Address,
        options: &BindOptions,
    ) -> io::Result<Address> {
        let ip = match (address, &options.peer) {
            (Address::Ip(ip), _) => *ip,
            (Address::Unnamed, Some(Address::Ip(_))) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            (other, _) => return Ok(other.clone()),
        };
        let is_own = base.hosts.of_ip(host, ip.ip()) == Some(host);
        if !is_own && !ip.ip().is_multicast() {
            return Err(error::os(error::ADDRESS_NOT_AVAILABLE));
        }
        if ip.port() != 0 {
            return Ok(Address::Ip(ip));
        }
        for _ in 0..=u16::MAX {
            let address = Address::Ip(SocketAddr::new(ip.ip(), base.hosts[host].free_port()));
            if !self.names.contains_key(&(host, address.clone())) {
                return Ok(address);
            }
        }
        Err(error::os(error::ADDRESS_IN_USE))
    }

    pub(crate) fn socket(&mut self, number: SocketId) -> Option<&mut Socket> {
        self.sockets.get_mut(number)
    }

    /// Returns the socket that receives datagrams for this address of the host.
    pub(crate) fn socket_at(&self, host: HostId, address: &Address) -> Option<SocketId> {
        let at = |address: Address| self.names.get(&(host, address)).copied();
        let wild = |ip: IpAddr, port| at(Address::Ip(SocketAddr::new(ip, port)));
        at(address.clone()).or_else(|| match address {
            Address::Ip(ip) => wild(Ipv4Addr::UNSPECIFIED.into(), ip.port())
                .or_else(|| wild(std::net::Ipv6Addr::UNSPECIFIED.into(), ip.port())),
            _ => None,
        })
    }

    pub(crate) fn close_socket(&mut self, number: SocketId) {
        let Some(socket) = self.sockets.take(number) else { return };
        let name = (socket.host, socket.address);
        if self.names.get(&name) == Some(&number) {
            self.names.remove(&name);
        }
        self.summary.dropped += socket.waiting.len() as u64;
    }

    /// Attaches a socket to an engine.
    pub(crate) fn attach_socket(
        &mut self,
        base: &mut Base,
        number: SocketId,
        owner: (EngineId, Key),
    ) -> bool {
        let Some(socket) = self.socket(number) else { return false };
        (socket.owner, socket.wants, socket.queued) = (Some(owner), true, false);
        self.look_at_socket(base, number);
        true
    }

    /// Queues a socket for its engine if it has an event after a change.
    pub(crate) fn look_at_socket(&mut self, base: &mut Base, number: SocketId) {
        let Some(socket) = self.socket(number).filter(|socket| !socket.queued && socket.is_telling()) else {
            return;
        };
        if let Some((engine, _)) = socket.owner {
            socket.queued = true;
            base.mark_ready(engine, ReadyItem::Socket(number));
        }
    }

    /// Returns the next event of a socket.
    pub(crate) fn socket_event(
        &mut self,
        base: &mut Base,
        number: SocketId,
        engine: EngineId,
    ) -> Option<EngineEvent> {
        let socket = self.socket(number)?;
        let (_, key) = socket.owner.filter(|(owner, _)| *owner == engine)?;
        socket.queued = false;
        let event = if let Some((to, error)) = socket.reports.pop_front() {
            Event::Undelivered(to, error::os(error))
        } else if std::mem::take(&mut socket.has_room) {
            Event::Room
        } else if std::mem::take(&mut socket.detaching) {
            socket.owner = None;
            return Some(EngineEvent::Detached(key));
        } else {
            Event::Datagrams(self.collect(base, number)?)
        };
        self.look_at_socket(base, number);
        Some(EngineEvent::Event((key, event)))
    }

    /// Moves waiting datagrams into a batch.
    fn collect(&mut self, base: &mut Base, number: SocketId) -> Option<Batch> {
        let is_short = base.faults.draw_fault(Kind::TinyRead);
        let socket = self.socket(number)?;
        if socket.waiting.is_empty() || !(socket.wants || socket.late) {
            return None;
        }
        let is_late = !socket.wants;
        socket.late = false;
        let mut count = socket.waiting.len().min(BATCH_MAX);
        if is_late {
            base.faults.tally.observe(Kind::LateInput);
        }
        if is_short && count > 1 {
            base.faults.tally.observe(Kind::TinyRead);
            count = base.faults.chance.up_to(count - 1);
        }
        let mut batch = Batch::default();
        for _ in 0..count {
            let socket = self.socket(number)?;
            let Some(QueuedDatagram { from, to, ecn, bytes }) = socket.waiting.pop_front() else { break };
            socket.waiting_bytes -= bytes.len();
            let given = &bytes[..bytes.len().min(socket.longest)];
            batch.put(given, &from, to, ecn, given.len() < bytes.len());
            self.summary.cut += u64::from(given.len() < bytes.len());
            self.summary.received += 1;
            base.record.digest.number(u64::from(number.number()) << 32 | given.len() as u64);
            base.record.digest.bytes(given);
        }
        Some(batch)
    }

    /// Queues a datagram that arrived.
    pub(crate) fn put_waiting(
        &mut self,
        base: &mut Base,
        number: SocketId,
        order: u64,
        waiting: QueuedDatagram,
    ) {
        let Some(socket) = self.socket(number) else { return };
        let is_overtaken = order < socket.latest;
        socket.latest = socket.latest.max(order);
        socket.waiting_bytes += waiting.bytes.len();
        socket.waiting.push_back(waiting);
        self.summary.overtaken += u64::from(is_overtaken);
        self.look_at_socket(base, number);
    }

    /// Reports an undelivered datagram. Drops the report if too many wait, as a kernel does.
    pub(crate) fn report(&mut self, base: &mut Base, number: SocketId, to: Option<Address>, error: i32) {
        if let Some(socket) = self.socket(number).filter(|socket| socket.reports.len() < REPORTS_MAX) {
            socket.reports.push_back((to, error));
            self.look_at_socket(base, number);
        }
    }

    /// Starts or stops input. A batch may still be in flight.
    pub(crate) fn set_socket_reading(&mut self, base: &mut Base, number: SocketId, on: bool) {
        let Some(socket) = self.socket(number) else { return };
        let may_come = !on && socket.wants && !socket.waiting.is_empty();
        let is_late = may_come && base.faults.draw_fault(Kind::LateInput);
        if let Some(socket) = self.socket(number) {
            (socket.wants, socket.late) = (on, is_late);
        }
        self.look_at_socket(base, number);
    }

    /// Begins to detach a socket.
    pub(crate) fn detach_socket(&mut self, base: &mut Base, number: SocketId) {
        if let Some(socket) = self.socket(number) {
            (socket.wants, socket.late, socket.detaching) = (false, false, true);
            socket.longest = RECEIVE_MAX;
            self.look_at_socket(base, number);
        }
    }

    pub(crate) fn set_socket_member(
        &mut self,
        number: SocketId,
        group: &Group,
        member: bool,
    ) -> io::Result<()> {
        let address = group.address();
        let socket = self.socket(number).ok_or(io::ErrorKind::NotFound)?;
        let at = socket.groups.iter().position(|other| *other == address);
        match (at, member) {
            _ if !address.is_multicast() => return Err(error::os(error::INVALID)),
            (None, true) => socket.groups.push(address),
            (Some(at), false) => drop(socket.groups.remove(at)),
            (Some(_), true) => return Err(error::os(error::ADDRESS_IN_USE)),
            (None, false) => return Err(error::os(error::ADDRESS_NOT_AVAILABLE)),
        }
        Ok(())
    }

    /// Sends from the front of a queue, and returns the number of sent datagrams. As with the system's call,
    /// a failed datagram is reported, and the rest still go out.
    pub(crate) fn send_datagrams(
        &mut self,
        base: &mut Base,
        number: SocketId,
        queue: &mut DatagramQueue,
    ) -> usize {
        let mut taken = 0;
        if base.faults.draw_visible(Kind::LateSend) {
            self.block(base, number);
            return taken;
        }
        while let Some(front) = queue.front() {
            if taken == base.engines.options.send_datagrams_max {
                self.block(base, number);
                return taken;
            }
            let Some(socket) = self.socket(number) else { return taken };
            let to = front.to.cloned().or_else(|| socket.peer.clone());
            let is_unix = !matches!(to, Some(Address::Ip(_)));
            let length_max = if is_unix { socket.unix_length_max } else { LENGTH_MAX };
            let sent = match to {
                _ if front.bytes.len() > length_max => Err(error::MESSAGE_SIZE),
                None => Err(error::NO_DESTINATION),
                Some(to) => {
                    let content = Content { bytes: front.bytes.into(), ecn: front.ecn };
                    self.take_off(base, number, to, front.from, content)
                }
            };
            let is_connected = front.to.is_none();
            match sent {
                Ok(()) => taken += 1,
                // The peer's queue is full. The socket gets an event when there is room.
                Err(error::AGAIN) if is_connected => {
                    self.block(base, number);
                    return taken;
                }
                Err(error) => {
                    let to = front.to.cloned();
                    self.report(base, number, to, error);
                }
            }
            queue.pop();
        }
        taken
    }

    /// Blocks a socket, and schedules the end of that.
    fn block(&mut self, base: &mut Base, number: SocketId) {
        let at = base.now() + base.faults.draw_lateness();
        if let Some(socket) = self.socket(number)
            && !std::mem::replace(&mut socket.is_blocked, true)
        {
            base.clock.schedule(at, Scheduled::SocketRoom { number });
        }
    }

    /// Unblocks a socket, which may have room again.
    pub(crate) fn socket_room(&mut self, base: &mut Base, number: SocketId) {
        if let Some(socket) = self.socket(number) {
            (socket.is_blocked, socket.has_room) = (false, true);
            self.look_at_socket(base, number);
        }
    }
}

/// The capacity of a socket's receive queue: 208 KiB, as on Linux.
const BUFFER_BYTES: usize = 208 << 10;
/// The most datagrams in a receive queue, however small they are.
const WAITING_MAX: usize = 1024;
/// The most waiting reports.
const REPORTS_MAX: usize = 64;
/// The most datagrams in one batch.
const BATCH_MAX: usize = 64;
/// The default length up to which a datagram is received whole.
const RECEIVE_MAX: usize = 64 << 10;
