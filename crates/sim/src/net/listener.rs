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
    ids::{EndId, EngineId, HostId, ListenerId, ObjectId},
    net::end::Holder,
    net::input::Told,
    world::state::{Item, State},
};

pub(crate) struct Listener {
    pub(crate) host: HostId,
    pub(crate) address: Address,
    pub(crate) backlog: usize,
    pub(crate) waiting: VecDeque<EndId>,
    pub(crate) owner: Option<(EngineId, Key)>,
    /// `wants`: the engine wants connections. `late`: it gets one more, although it wants none.
    pub(crate) wants: bool,
    late: bool,
    queued: bool,
    pub(crate) detaching: bool,
    /// Set if a supervisor holds it. A close by a process then only detaches it.
    pub(crate) is_kept: bool,
}

impl State {
    /// Returns the address of a new listener, with a free port in the place of port 0.
    fn bind(&mut self, host: HostId, address: &Address) -> io::Result<Address> {
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

    pub(crate) fn free_port(&mut self, host: HostId) -> u16 {
        let host = &mut self.hosts[host];
        host.next_port = host.next_port.checked_add(1).unwrap_or(PORT_MIN);
        host.next_port
    }

    /// Opens a listener, and returns its transport's number.
    pub(crate) fn listen(&mut self, host: HostId, address: &Address, backlog: u32) -> io::Result<ListenerId> {
        let address = self.bind(host, address)?;
        if self.names.contains_key(&(host, address.clone())) {
            return Err(error::os(error::ADDRESS_IN_USE));
        }
        let name = (host, address.clone());
        let number = self.listeners.push(Listener {
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
        });
        self.names.insert(name, number);
        Ok(number)
    }

    pub(crate) fn listener(&mut self, number: ListenerId) -> Option<&mut Listener> {
        self.listeners.get_mut(number)
    }

    /// Attaches a listener to an engine. Returns `false` if the listener has gone.
    pub(crate) fn attach_listener(&mut self, number: ListenerId, owner: (EngineId, Key)) -> bool {
        let Some(listener) = self.listener(number) else { return false };
        (listener.owner, listener.wants) = (Some(owner), true);
        self.look_at_listener(number);
        true
    }

    /// Returns the listener that a connect to this address of the host reaches.
    pub(crate) fn listening_at(&self, host: HostId, address: &Address) -> Option<ListenerId> {
        let at = |address: Address| self.names.get(&(host, address)).copied();
        let wild = |ip: IpAddr, port| at(Address::Ip(SocketAddr::new(ip, port)));
        at(address.clone()).or_else(|| match address {
            Address::Ip(ip) => wild(Ipv4Addr::UNSPECIFIED.into(), ip.port())
                .or_else(|| wild(std::net::Ipv6Addr::UNSPECIFIED.into(), ip.port())),
            _ => None,
        })
    }

    pub(crate) fn close_listener(&mut self, number: ListenerId) {
        if let Some(listener) = self.listener(number).filter(|listener| listener.is_kept) {
            (listener.owner, listener.queued, listener.detaching) = (None, false, false);
            (listener.wants, listener.late) = (false, false);
            return;
        }
        let Some(listener) = self.listeners.take(number) else { return };
        self.names.remove(&(listener.host, listener.address));
        for end in listener.waiting {
            self.close_end(end, Ending::Reset);
        }
    }

    /// Queues a listener for its engine if it can accept after a change.
    pub(crate) fn look_at_listener(&mut self, number: ListenerId) {
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
    pub(crate) fn set_accepting(&mut self, number: ListenerId, on: bool) {
        let accepts_late = self.engine_options.accepts_late;
        let Some(listener) = self.listener(number) else { return };
        listener.late = accepts_late && !on && listener.wants && !listener.waiting.is_empty();
        listener.wants = on;
        self.look_at_listener(number);
    }

    /// Begins to detach a listener.
    pub(crate) fn detach_listener(&mut self, number: ListenerId, process: EngineId) {
        if let Some(listener) = self.listener(number) {
            (listener.wants, listener.late, listener.detaching) = (false, false, true);
            self.mark_ready(process, Item::Listener(number));
        }
    }

    /// Returns the next event of a listener.
    pub(crate) fn listener_event(&mut self, number: ListenerId) -> Option<Told> {
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
            self.ends[end].by_fault = Some(Kind::AcceptAborts);
            let other = self.ends[end].other;
            if let Some(other) = other {
                self.ends[other].by_fault = Some(Kind::AcceptAborts);
            }
            self.close_end(end, Ending::Reset);
            None
        } else {
            let accepted = &mut self.ends[end];
            accepted.holder = Holder::Transport;
            let peer = accepted.peer.clone();
            Some(Told::Event((key, Event::Accepted(self.transport(ObjectId::End(end)), peer))))
        };
        self.look_at_listener(number);
        event
    }

    /// Makes the transport of an end or a listener.
    pub(crate) fn transport(&self, object: ObjectId) -> Transport {
        let medium = match object {
            ObjectId::End(end) => self.ends[end].medium,
            _ => Medium::SOCKET,
        };
        Transport::hosted_as(object.number(), medium, Lease::new(&self.outside, object))
    }
}

const PORT_MIN: u16 = 40_000;
