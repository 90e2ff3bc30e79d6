//! Listeners: names on hosts, and their accept queues.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use reactor::{
    Address, Key,
    engine::{Ending, Event, Transport},
};

use crate::{
    engine::{EngineEvent, engines::ReadyItem},
    error,
    faults::Kind,
    ids::{EndId, EngineId, HostId, ListenerId, ObjectId},
    net::stream::{Streams, end::Holder},
    world::base::Base,
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

impl Streams {
    /// Returns the address of a new listener, with a free port in the place of port 0.
    fn bind(&mut self, base: &mut Base, host: HostId, address: &Address) -> io::Result<Address> {
        let Address::Ip(ip) = address else {
            return match address {
                Address::Unnamed => Err(error::os(error::INVALID)),
                other => Ok(other.clone()),
            };
        };
        if base.hosts.of_ip(host, ip.ip()) != Some(host) {
            return Err(error::os(error::ADDRESS_NOT_AVAILABLE));
        }
        if ip.port() != 0 {
            return Ok(address.clone());
        }
        for _ in 0..=u16::MAX {
            let port = base.hosts[host].free_port();
            let address = Address::Ip(SocketAddr::new(ip.ip(), port));
            if !self.names.contains_key(&(host, address.clone())) {
                return Ok(address);
            }
        }
        Err(error::os(error::ADDRESS_IN_USE))
    }

    /// Opens a listener, and returns its id.
    pub(crate) fn listen(
        &mut self,
        base: &mut Base,
        host: HostId,
        address: &Address,
        backlog: u32,
    ) -> io::Result<ListenerId> {
        let address = self.bind(base, host, address)?;
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
    pub(crate) fn attach_listener(
        &mut self,
        base: &mut Base,
        number: ListenerId,
        owner: (EngineId, Key),
    ) -> bool {
        let Some(listener) = self.listener(number) else { return false };
        (listener.owner, listener.wants) = (Some(owner), true);
        self.look_at_listener(base, number);
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

    pub(crate) fn close_listener(&mut self, base: &mut Base, number: ListenerId) {
        if let Some(listener) = self.listener(number).filter(|listener| listener.is_kept) {
            (listener.owner, listener.queued, listener.detaching) = (None, false, false);
            (listener.wants, listener.late) = (false, false);
            return;
        }
        let Some(listener) = self.listeners.take(number) else { return };
        self.names.remove(&(listener.host, listener.address));
        for end in listener.waiting {
            self.close_end(base, end, Ending::Reset);
        }
    }

    /// Queues a listener for its engine if it can accept after a change.
    pub(crate) fn look_at_listener(&mut self, base: &mut Base, number: ListenerId) {
        let Some(listener) = self.listener(number) else { return };
        if listener.queued || !(listener.wants || listener.late) || listener.waiting.is_empty() {
            return;
        }
        if let Some((engine, _)) = listener.owner {
            listener.queued = true;
            base.mark_ready(engine, ReadyItem::Listener(number));
        }
    }

    /// Starts or stops accepting. One connection may still be in flight.
    pub(crate) fn set_accepting(&mut self, base: &mut Base, number: ListenerId, on: bool) {
        let accepts_late = base.engines.options.accepts_late;
        let Some(listener) = self.listener(number) else { return };
        listener.late = accepts_late && !on && listener.wants && !listener.waiting.is_empty();
        listener.wants = on;
        self.look_at_listener(base, number);
    }

    /// Begins to detach a listener.
    pub(crate) fn detach_listener(&mut self, base: &mut Base, number: ListenerId, engine: EngineId) {
        if let Some(listener) = self.listener(number) {
            (listener.wants, listener.late, listener.detaching) = (false, false, true);
            base.mark_ready(engine, ReadyItem::Listener(number));
        }
    }

    /// Returns the next event of a listener.
    pub(crate) fn listener_event(&mut self, base: &mut Base, number: ListenerId) -> Option<EngineEvent> {
        let listener = self.listener(number)?;
        listener.queued = false;
        let (_, key) = listener.owner?;
        if std::mem::take(&mut listener.detaching) {
            listener.owner = None;
            return Some(EngineEvent::Detached(key));
        }
        if !(listener.wants || listener.late) || listener.waiting.is_empty() {
            return None;
        }
        listener.late = false;
        if base.faults.draw_visible(Kind::AcceptFails) {
            self.listener(number)?.wants = false;
            let event = Event::NotAccepted(error::os(error::TOO_MANY_FILES));
            return Some(EngineEvent::Event((key, event)));
        }
        let end = self.listener(number)?.waiting.pop_front()?;
        let event = if base.faults.draw_fault(Kind::AcceptAborts) {
            self.ends[end].by_fault = Some(Kind::AcceptAborts);
            let other = self.ends[end].other;
            if let Some(other) = other {
                self.ends[other].by_fault = Some(Kind::AcceptAborts);
            }
            self.close_end(base, end, Ending::Reset);
            None
        } else {
            let accepted = &mut self.ends[end];
            accepted.holder = Holder::Transport;
            let peer = accepted.peer.clone();
            Some(EngineEvent::Event((key, Event::Accepted(self.transport(base, end), peer))))
        };
        self.look_at_listener(base, number);
        event
    }

    /// Makes the transport of an end.
    pub(crate) fn transport(&self, base: &Base, at: EndId) -> Transport {
        base.engines.transport(ObjectId::End(at), self.ends[at].medium)
    }
}
