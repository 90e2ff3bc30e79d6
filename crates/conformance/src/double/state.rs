//! The contents of a network: ends of connections, listeners, virtual sources and the clock.
//!
//! A connection has two ends. Bytes that an end sends are first *taken*, and *arrive* at the other end when
//! they flow. Both places are bounded. A reset destroys the bytes taken, and not those that have arrived.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use reactor::{Address, Time, engine::Ending};

use super::{datagrams::Socket, fault, feed::Fed, rest::Driven, tuning::Tuning};

/// The whole state of a network, behind its lock.
pub(super) struct State {
    pub(super) tuning: Tuning,
    pub(super) now: Time,
    /// Counts changes. A double that has seen the last version has nothing more to find.
    pub(super) version: u64,
    pub(super) ends: BTreeMap<u64, End>,
    pub(super) listeners: BTreeMap<u64, Listener>,
    pub(super) sockets: BTreeMap<u64, Socket>,
    pub(super) feeds: BTreeMap<u64, Fed>,
    pub(super) doubles: BTreeMap<u64, Driven>,
    /// How many holds stop the clock.
    pub(super) holds: usize,
    pub(super) transports_max: Option<usize>,
    /// Descriptors to close once the lock is free again, because closing one takes the lock.
    #[cfg(unix)]
    pub(super) dropped: Vec<reactor::Descriptor>,
    /// Buffers that were still lent when their double was dropped.
    pub(super) buffers_lost: usize,
    numbers: u64,
    port: u16,
}

/// The owner of an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Holder {
    /// A listener's queue.
    Queue,
    /// A transport.
    Transport,
    /// A test's peer.
    Peer,
    /// The end is closed, and only the other end still refers to it.
    Nobody,
}

/// One end of a connection.
pub(super) struct End {
    pub(super) local: Address,
    pub(super) peer: Address,
    pub(super) holder: Holder,
    /// The other end's number, or `None` while connecting.
    pub(super) other: Option<u64>,
    taken: VecDeque<u8>,
    pub(super) arrived: VecDeque<u8>,
    /// How many bytes were sent to this end, and how many it has read.
    pub(super) put: u64,
    pub(super) read: u64,
    #[cfg(unix)]
    pub(super) passed: super::passing::Passed,
    /// The other end sends no more.
    finished: bool,
    /// The read side fails with a reset once the arrived bytes are read.
    reset: bool,
    /// This end has shut down its write side.
    shut: bool,
    /// The error of the next send.
    pub(super) failed: Option<ErrorKind>,
}

/// A listener.
pub(super) struct Listener {
    pub(super) address: Address,
    backlog: usize,
    waiting: VecDeque<u64>,
}

/// The input that is ready at an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Input {
    Nothing,
    Bytes(usize),
    End,
    Reset,
}

impl State {
    pub(super) fn new(tuning: Tuning) -> State {
        State {
            tuning,
            // Not zero, so that a time that was never set looks like one long ago.
            now: Time::from_nanos(1_000_000_000),
            version: 0,
            ends: BTreeMap::new(),
            listeners: BTreeMap::new(),
            sockets: BTreeMap::new(),
            feeds: BTreeMap::new(),
            doubles: BTreeMap::new(),
            holds: 0,
            transports_max: None,
            #[cfg(unix)]
            dropped: Vec::new(),
            buffers_lost: 0,
            numbers: 0,
            port: FIRST_PORT,
        }
    }

    /// Makes a new number.
    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(super) fn free_port(&mut self) -> u16 {
        self.port = self.port.checked_add(1).unwrap_or(FIRST_PORT);
        self.port
    }

    /// Returns the address for a listener, with a free port instead of port 0.
    fn bind(&mut self, address: &Address) -> io::Result<Address> {
        let address = match address {
            Address::Ip(ip) if !is_ours(ip.ip()) => return Err(fault::error(ErrorKind::AddrNotAvailable)),
            Address::Ip(ip) if ip.port() == 0 => {
                let free = |port| self.listening_at(&Address::Ip(SocketAddr::new(ip.ip(), port))).is_none();
                let mut port = self.port;
                // One attempt more than there are listeners is enough to find a free port.
                for _ in 0..=self.listeners.len() {
                    port = port.checked_add(1).unwrap_or(FIRST_PORT);
                    if free(port) {
                        break;
                    }
                }
                self.port = port;
                Address::Ip(SocketAddr::new(ip.ip(), port))
            }
            Address::Unnamed => return Err(fault::error(ErrorKind::InvalidInput)),
            other => other.clone(),
        };
        match self.listeners.values().any(|listener| listener.address == address) {
            true => Err(fault::error(ErrorKind::AddrInUse)),
            false => Ok(address),
        }
    }

    pub(super) fn listen(&mut self, address: &Address, backlog: usize) -> io::Result<u64> {
        self.check_room()?;
        let address = self.bind(address)?;
        let number = self.number();
        self.listeners
            .insert(number, Listener { address, backlog: backlog.max(1), waiting: VecDeque::new() });
        Ok(number)
    }

    /// Returns the listener that a connect to `address` reaches.
    fn listening_at(&self, address: &Address) -> Option<u64> {
        let wild = match address {
            Address::Ip(ip) => Some(Address::Ip(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), ip.port()))),
            _ => None,
        };
        let at = |wanted: &Address| {
            self.listeners.iter().find(|(_, listener)| listener.address == *wanted).map(|(&n, _)| n)
        };
        at(address).or_else(|| wild.and_then(|wild| at(&wild)))
    }

    /// Makes the connecting end. [`State::establish`] does the rest.
    pub(super) fn connect(
        &mut self,
        to: &Address,
        from: Option<&Address>,
        holder: Holder,
    ) -> io::Result<u64> {
        if holder == Holder::Transport {
            self.check_room()?;
        }
        let local = match (from, to) {
            (Some(from), _) => from.clone(),
            (None, Address::Ip(ip)) => {
                let ip = if ip.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { ip.ip() };
                Address::Ip(SocketAddr::new(ip, self.free_port()))
            }
            (None, _) => Address::Unnamed,
        };
        let number = self.number();
        self.ends.insert(number, End::new(local, to.clone(), holder, None));
        Ok(number)
    }

    /// Tries to connect an end. `Ok(false)` means that the listener's queue is full, and the double tries
    /// again later.
    pub(super) fn establish(&mut self, number: u64) -> io::Result<bool> {
        let Some(end) = self.ends.get(&number) else { return Err(fault::bad_descriptor()) };
        if end.other.is_some() {
            return Ok(true);
        }
        let Some(at) = self.listening_at(&end.peer) else {
            return Err(fault::error(ErrorKind::ConnectionRefused));
        };
        let (local, peer) = (end.local.clone(), end.peer.clone());
        if self.listeners[&at].waiting.len() >= self.listeners[&at].backlog {
            return Ok(false);
        }
        let accepted = self.number();
        self.ends.insert(accepted, End::new(peer, local, Holder::Queue, Some(number)));
        if let Some(end) = self.ends.get_mut(&number) {
            end.other = Some(accepted);
        }
        if let Some(listener) = self.listeners.get_mut(&at) {
            listener.waiting.push_back(accepted);
        }
        Ok(true)
    }

    /// Takes the oldest connection that waits at a listener.
    pub(super) fn accept(&mut self, listener: u64) -> io::Result<Option<(u64, Address)>> {
        if self.listeners.get(&listener).is_none_or(|listener| listener.waiting.is_empty()) {
            return Ok(None);
        }
        self.check_room()?;
        let waiting = self.listeners.get_mut(&listener).and_then(|listener| listener.waiting.pop_front());
        Ok(waiting.and_then(|number| {
            let end = self.ends.get_mut(&number)?;
            end.holder = Holder::Transport;
            Some((number, end.peer.clone()))
        }))
    }

    /// Counts the listeners, sockets and ends that transports hold.
    pub(super) fn transports(&self) -> usize {
        let others = self.listeners.len() + self.sockets.len();
        others + self.ends.values().filter(|end| end.holder == Holder::Transport).count()
    }

    pub(super) fn check_room(&self) -> io::Result<()> {
        match self.transports_max {
            Some(most) if self.transports() >= most => Err(fault::too_many()),
            _ => Ok(()),
        }
    }

    /// Returns how many bytes a send can take now. An error other than `NotConnected` means that it never can
    /// again.
    pub(super) fn room(&self, number: u64, send_bytes: usize) -> io::Result<usize> {
        let Some(end) = self.ends.get(&number) else { return Err(fault::bad_descriptor()) };
        match (end.failed, end.shut, end.other) {
            (Some(kind), ..) => Err(fault::error(kind)),
            (None, true, _) => Err(fault::error(ErrorKind::BrokenPipe)),
            (None, false, None) => Err(fault::error(ErrorKind::NotConnected)),
            (None, false, Some(other)) => Ok(send_bytes.saturating_sub(self.ends[&other].taken.len())),
        }
    }

    /// Takes bytes, for which there must be room.
    pub(super) fn put(&mut self, number: u64, bytes: &[u8]) {
        let Some(other) = self.ends.get(&number).and_then(|end| end.other) else { return };
        let Some(other) = self.ends.get_mut(&other) else { return };
        if other.holder != Holder::Nobody {
            other.taken.extend(bytes);
            other.put += bytes.len() as u64;
            return;
        }
        // The other end is gone. A kernel answers such bytes with a reset, and the next send fails.
        if let Some(end) = self.ends.get_mut(&number) {
            end.failed = Some(ErrorKind::BrokenPipe);
            end.reset |= !end.finished;
        }
    }

    /// Lets up to `most` of the bytes sent to an end arrive there.
    pub(super) fn flow(&mut self, number: u64, window_bytes: usize, most: usize) -> usize {
        let Some(end) = self.ends.get_mut(&number) else { return 0 };
        let count = window_bytes.saturating_sub(end.arrived.len()).min(end.taken.len()).min(most);
        end.arrived.extend(end.taken.drain(..count));
        count
    }

    pub(super) fn input(&self, number: u64) -> Input {
        match self.ends.get(&number) {
            None => Input::Nothing,
            Some(end) if !end.arrived.is_empty() => Input::Bytes(end.arrived.len()),
            Some(end) if end.reset => Input::Reset,
            Some(end) if end.finished && end.taken.is_empty() => Input::End,
            Some(_) => Input::Nothing,
        }
    }

    /// Returns how the input of an end is over, even if there is unread input before that.
    pub(super) fn gone(&self, number: u64) -> Input {
        match self.ends.get(&number) {
            Some(end) if end.reset => Input::Reset,
            Some(end) if end.finished => Input::End,
            _ => Input::Nothing,
        }
    }

    /// Reads bytes that have arrived.
    pub(super) fn take(&mut self, number: u64, into: &mut [u8]) -> usize {
        let Some(end) = self.ends.get_mut(&number) else { return 0 };
        let count = end.arrived.len().min(into.len());
        for (to, byte) in into.iter_mut().zip(end.arrived.drain(..count)) {
            *to = byte;
        }
        end.read += count as u64;
        // A plain read drops the descriptors that arrived with its bytes.
        #[cfg(unix)]
        self.dropped.extend(end.passed.between(0, end.read));
        count
    }

    /// Shuts down the write side.
    pub(super) fn shut(&mut self, number: u64) -> io::Result<()> {
        let Some(end) = self.ends.get_mut(&number) else { return Err(fault::bad_descriptor()) };
        let Some(other) = end.other.filter(|_| end.failed.is_none()) else {
            return Err(fault::error(ErrorKind::NotConnected));
        };
        end.shut = true;
        if let Some(other) = self.ends.get_mut(&other) {
            other.finished = true;
        }
        Ok(())
    }

    /// Closes a listener, a socket or an end. It may be closed already.
    pub(super) fn close(&mut self, number: u64, how: Ending) {
        self.sockets.remove(&number);
        if let Some(listener) = self.listeners.remove(&number) {
            for waiting in listener.waiting {
                self.close_end(waiting, Ending::Reset);
            }
        }
        self.close_end(number, how);
    }

    fn close_end(&mut self, number: u64, how: Ending) {
        let Some(end) = self.ends.get_mut(&number).filter(|end| end.holder != Holder::Nobody) else { return };
        end.holder = Holder::Nobody;
        // As with TCP, a close with unread input is a reset, because the peer must not believe that its bytes
        // were seen.
        let reset = how == Ending::Reset || !end.arrived.is_empty() || !end.taken.is_empty();
        end.taken.clear();
        end.arrived.clear();
        #[cfg(unix)]
        self.dropped.extend(end.passed.between(0, u64::MAX));
        let Some(other) = end.other else {
            self.ends.remove(&number);
            return;
        };
        match self.ends.get_mut(&other) {
            Some(peer) if peer.holder != Holder::Nobody => {
                if reset {
                    let ended = peer.finished && peer.taken.is_empty();
                    peer.taken.clear();
                    #[cfg(unix)]
                    self.dropped.extend(peer.passed.between(peer.read + peer.arrived.len() as u64, u64::MAX));
                    peer.reset |= !ended;
                    peer.failed =
                        Some(if ended { ErrorKind::BrokenPipe } else { ErrorKind::ConnectionReset });
                } else {
                    peer.finished = true;
                }
            }
            _ => {
                self.ends.remove(&number);
                self.ends.remove(&other);
            }
        }
    }
}

impl End {
    fn new(local: Address, peer: Address, holder: Holder, other: Option<u64>) -> End {
        End {
            local,
            peer,
            holder,
            other,
            taken: VecDeque::new(),
            arrived: VecDeque::new(),
            put: 0,
            read: 0,
            #[cfg(unix)]
            passed: super::passing::Passed::default(),
            finished: false,
            reset: false,
            shut: false,
            failed: None,
        }
    }
}

/// Reports whether a virtual host has this address. It has loopback, private and unspecified addresses.
pub(super) fn is_ours(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_private(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_unique_local(),
    }
}

const FIRST_PORT: u16 = 40_000;
