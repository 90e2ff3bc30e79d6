//! Connecting: the first packet, its answer, and the retries without an answer.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use reactor::Address;

use crate::{
    error,
    faults::Kind,
    ids::{EndId, EngineId, HostId},
    net::stream::{
        Streams,
        end::{End, Holder, SECOND},
    },
    world::{base::Base, state::Scheduled},
};

impl Streams {
    /// Makes a connecting end, and sends its first packet.
    pub(crate) fn connect(
        &mut self,
        base: &mut Base,
        (host, process): (HostId, EngineId),
        to: &Address,
        from: Option<&Address>,
    ) -> io::Result<EndId> {
        let (local, peer) = match (from, to) {
            (Some(from), _) => (from.clone(), to.clone()),
            (None, Address::Ip(ip)) => {
                let is_here = ip.ip().is_loopback() || ip.ip().is_unspecified();
                let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
                let local = if is_here { loopback } else { base.hosts[host].ip.into() };
                let to = if ip.ip().is_unspecified() { loopback } else { ip.ip() };
                let port = base.hosts[host].free_port();
                (Address::Ip(SocketAddr::new(local, port)), Address::Ip(SocketAddr::new(to, ip.port())))
            }
            (None, Address::Unnamed) => return Err(error::os(error::INVALID)),
            (None, _) if self.listening_at(host, to).is_none() => {
                // On a Unix socket connect(2) fails at once.
                let is_path = matches!(to, Address::Path(_));
                return Err(error::os(if is_path { error::NO_ENTRY } else { error::CONNECTION_REFUSED }));
            }
            (None, _) => {
                let number = self.listening_at(host, to);
                let listener = number.and_then(|number| self.listener(number));
                if listener.is_some_and(|listener| listener.waiting.len() >= listener.backlog) {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                (Address::Unnamed, to.clone())
            }
        };
        let end = self.ends.add(host, local, peer, Holder::Transport);
        self.ends[end].maker = Some(process);
        self.send_connect(base, end, 0);
        Ok(end)
    }

    fn target_of(&self, base: &Base, end: &End) -> Option<HostId> {
        match &end.peer {
            Address::Ip(ip) => base.hosts.of_ip(end.host, ip.ip()),
            _ => Some(end.host),
        }
    }

    fn send_connect(&mut self, base: &mut Base, at: EndId, tries: u32) {
        let end = &self.ends[at];
        let from = end.host;
        let to = self.target_of(base, end).unwrap_or(from);
        let is_lost = base.faults.draw_fault(Kind::LoseConnect);
        if is_lost {
            base.faults.tally.observe(Kind::LoseConnect);
            self.retry_connect(base, at, tries);
        } else {
            let arrival = base.arrival(from, to);
            base.clock.schedule(arrival, Scheduled::Connect { end: at, tries });
        }
    }

    /// Schedules another try, as TCP does after 1, 2, 4, .. seconds. After the last try the connect times
    /// out.
    fn retry_connect(&mut self, base: &mut Base, at: EndId, tries: u32) {
        // Connects that failed together should not all return together.
        let jitter = base.faults.chance.below(SECOND / 100);
        let again = base.now() + (SECOND << tries.min(CONNECT_TRIES_MAX)) + jitter;
        if tries < CONNECT_TRIES_MAX {
            base.clock.schedule(again, Scheduled::Connect { end: at, tries: tries + 1 });
        } else {
            base.clock.schedule(again, Scheduled::Answer { end: at, error: error::TIMED_OUT });
        }
    }

    /// Handles a connect's packet at its target.
    pub(crate) fn try_connect(&mut self, base: &mut Base, at: EndId, tries: u32) {
        if !self.ends.is_alive(at) || self.ends[at].holder == Holder::Nobody {
            return;
        }
        let end = &self.ends[at];
        let from = end.host;
        let (Some(to), peer) = (self.target_of(base, end), end.peer.clone()) else {
            return self.retry_connect(base, at, tries);
        };
        if let Some(kind) = base.links.obstacle(from, to).or_else(|| base.links.obstacle(to, from)) {
            base.faults.tally.observe(kind);
            return self.retry_connect(base, at, tries);
        }
        if !base.hosts[to].is_up {
            return self.retry_connect(base, at, tries);
        }
        let back = base.arrival(to, from);
        let refused = Scheduled::Answer { end: at, error: error::CONNECTION_REFUSED };
        let is_refused = base.faults.draw_fault(Kind::Refuse);
        if is_refused {
            base.faults.tally.observe(Kind::Refuse);
        }
        let Some(number) = self.listening_at(to, &peer).filter(|_| !is_refused) else {
            return base.clock.schedule(back, refused);
        };
        if self.listener(number).is_some_and(|listener| listener.waiting.len() >= listener.backlog) {
            return self.retry_connect(base, at, tries);
        }
        let local = self.ends[at].local.clone();
        let accepted = self.ends.add(to, peer, local, Holder::Queue);
        self.ends[accepted].other = Some(at);
        self.ends[at].other = Some(accepted);
        if let Some(listener) = self.listener(number) {
            listener.waiting.push_back(accepted);
            let process = listener.owner.map(|(process, _)| process);
            self.ends[accepted].maker = process;
        }
        self.ends[at].last_arrival = back;
        base.clock.schedule(back, Scheduled::Answer { end: at, error: 0 });
        self.look_at_listener(base, number);
    }

    /// Handles the answer to a connect.
    pub(crate) fn answer(&mut self, base: &mut Base, at: EndId, error: i32) {
        if self.ends.is_alive(at) && self.ends[at].holder == Holder::Transport {
            let end = &mut self.ends[at];
            // A failure in the meantime is reported after the connection's input.
            end.connected = Some(error);
            if error != 0 {
                end.failed = Some(error);
            }
            self.look_at_end(base, at);
        }
    }
}

/// As in tcp_syn_retries(7): a connect times out after about two minutes.
const CONNECT_TRIES_MAX: u32 = 6;
