//! Listeners: names on hosts, and their accept queues.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use reactor::{
    Address, Key,
    engine::{Ending, Event, Medium, Transport},
};

use crate::{
    engine::bell::Lease,
    error,
    faults::Kind,
    net::end::Holder,
    net::input::Told,
    world::state::{Item, State},
};

pub(crate) struct Listener {
    pub(crate) host: u32,
    pub(crate) address: Address,
    pub(crate) backlog: usize,
    pub(crate) waiting: VecDeque<u32>,
    pub(crate) owner: Option<(u32, Key)>,
    /// `wants`: the engine wants connections. `late`: it gets one more, although it wants none.
    pub(crate) wants: bool,
    late: bool,
    queued: bool,
    pub(crate) detaching: bool,
    /// Set if a supervisor holds it. A close by a process then only detaches it.
    pub(crate) is_kept: bool,
}

/// The bit that marks a transport's number as a listener's.
pub(crate) const LISTENER: u64 = 1 << 63;

impl State {
    /// Returns the address of a new listener, with a free port in the place of port 0.
    fn bind(&mut self, host: u32, address: &Address) -> io::Result<Address> {
        let Address::Ip(ip) = address else {
            return match address {
                Address::Unnamed => Err(error::os(error::INVALID)),
                other => Ok(other.clone()),
            };
        };
        if self.host_of(host, ip.ip()) != Some(host) {
            return Err(error::os(error::ADDRESS_NOT_AVAILABLE));
        }
        if ip.port() != 0 {
            return Ok(address.clone());
        }
        for _ in 0..=u16::MAX {
            let port = self.free_port(host);
            let address = Address::Ip(SocketAddr::new(ip.ip(), port));
            if !self.names.contains_key(&(host, address.clone())) {
                return Ok(address);
            }
        }
        Err(error::os(error::ADDRESS_IN_USE))
    }

    pub(crate) fn free_port(&mut self, host: u32) -> u16 {
        let host = &mut self.hosts[host as usize];
        host.next_port = host.next_port.checked_add(1).unwrap_or(PORT_MIN);
        host.next_port
    }

    /// Opens a listener, and returns its transport's number.
    pub(crate) fn listen(&mut self, host: u32, address: &Address, backlog: u32) -> io::Result<u64> {
        let address = self.bind(host, address)?;
        if self.names.contains_key(&(host, address.clone())) {
            return Err(error::os(error::ADDRESS_IN_USE));
        }
        let number = self.listeners.len() as u32;
        self.names.insert((host, address.clone()), number);
        self.listeners.push(Some(Listener {
            host,
            address,
            backlog: backlog.max(1) as usize,
            waiting: VecDeque::new(),
            owner: None,
            wants: false,
            late: false,
            queued: false,
            detaching: false,
            is_kept: false,
        }));
        Ok(u64::from(number) | LISTENER)
    }

    pub(crate) fn listener(&mut self, number: u32) -> Option<&mut Listener> {
        self.listeners.get_mut(number as usize)?.as_mut()
    }

    /// Returns the listener that a connect to this address of the host reaches.
    pub(crate) fn listening_at(&self, host: u32, address: &Address) -> Option<u32> {
        let at = |address: Address| self.names.get(&(host, address)).copied();
        let wild = |ip: IpAddr, port| at(Address::Ip(SocketAddr::new(ip, port)));
        at(address.clone()).or_else(|| match address {
            Address::Ip(ip) => wild(Ipv4Addr::UNSPECIFIED.into(), ip.port())
                .or_else(|| wild(std::net::Ipv6Addr::UNSPECIFIED.into(), ip.port())),
            _ => None,
        })
    }

    pub(crate) fn close_listener(&mut self, number: u32) {
        if let Some(listener) = self.listener(number).filter(|listener| listener.is_kept) {
            (listener.owner, listener.queued, listener.detaching) = (None, false, false);
            (listener.wants, listener.late) = (false, false);
            return;
        }
        let Some(listener) = self.listeners.get_mut(number as usize).and_then(Option::take) else { return };
        self.names.remove(&(listener.host, listener.address));
        for end in listener.waiting {
            self.close_end(end, Ending::Reset);
        }
    }

    /// Queues a listener for its engine if it can accept after a change.
    pub(crate) fn look_at_listener(&mut self, number: u32) {
        let Some(listener) = self.listener(number) else { return };
        if listener.queued || !(listener.wants || listener.late) || listener.waiting.is_empty() {
            return;
        }
        if let Some((process, _)) = listener.owner {
            listener.queued = true;
            self.mark_ready(process, Item::Listener(number));
        }
    }

    /// Starts or stops accepting. One connection may still be in flight.
    pub(crate) fn set_accepting(&mut self, number: u32, on: bool) {
        let accepts_late = self.engine_options.accepts_late;
        let Some(listener) = self.listener(number) else { return };
        listener.late = accepts_late && !on && listener.wants && !listener.waiting.is_empty();
        listener.wants = on;
        self.look_at_listener(number);
    }

    /// Begins to detach a listener.
    pub(crate) fn detach_listener(&mut self, number: u32, process: u32) {
        if let Some(listener) = self.listener(number) {
            (listener.wants, listener.late, listener.detaching) = (false, false, true);
            self.mark_ready(process, Item::Listener(number));
        }
    }

    /// Returns the next event of a listener.
    pub(crate) fn listener_event(&mut self, number: u32) -> Option<Told> {
        let listener = self.listener(number)?;
        listener.queued = false;
        let (_, key) = listener.owner?;
        if std::mem::take(&mut listener.detaching) {
            listener.owner = None;
            return Some(Told::Detached(key));
        }
        if !(listener.wants || listener.late) || listener.waiting.is_empty() {
            return None;
        }
        listener.late = false;
        if self.strikes(Kind::AcceptFails) {
            self.tally.observe(Kind::AcceptFails);
            self.listener(number)?.wants = false;
            let event = Event::NotAccepted(error::os(error::TOO_MANY_FILES));
            return Some(Told::Event((key, event)));
        }
        let end = self.listener(number)?.waiting.pop_front()?;
        let event = if self.strikes(Kind::AcceptAborts) {
            self.ends[end as usize].by_fault = Some(Kind::AcceptAborts);
            let other = self.ends[end as usize].other;
            if let Some(other) = other {
                self.ends[other as usize].by_fault = Some(Kind::AcceptAborts);
            }
            self.close_end(end, Ending::Reset);
            None
        } else {
            let accepted = &mut self.ends[end as usize];
            accepted.holder = Holder::Transport;
            let (peer, number) = (accepted.peer.clone(), accepted.number(end));
            Some(Told::Event((key, Event::Accepted(self.transport(number), peer))))
        };
        self.look_at_listener(number);
        event
    }

    /// Makes the transport of an end or a listener.
    pub(crate) fn transport(&self, number: u64) -> Transport {
        let medium = self.end_of(number).map_or(Medium::SOCKET, |end| self.ends[end as usize].medium);
        Transport::hosted_as(number, medium, Lease::new(&self.outside, number))
    }
}

const PORT_MIN: u16 = 40_000;
