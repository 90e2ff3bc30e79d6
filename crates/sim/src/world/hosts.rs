//! The hosts: machines with an address, and the turns of their nodes.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr},
};

use crate::{
    ids::{EngineId, HostId, Id as _, IdVec},
    world::{clock::Clock, state::Scheduled},
};

/// A machine with an address. A node's runtime runs on it, or engines that belong to no node.
pub(crate) struct Host {
    pub(crate) ip: Ipv4Addr,
    /// The engine of its node.
    pub(crate) engine: Option<EngineId>,
    last_port: u16,
    /// How many nanoseconds its wall clock is ahead of the world's.
    pub(crate) wall_offset: i64,
    pub(crate) wall_stepped: bool,
    pub(crate) is_up: bool,
    is_paused: bool,
    /// Set if a turn is due as soon as the pause ends.
    is_waiting: bool,
    /// Set while it is among the runnable ones.
    is_queued: bool,
    busy_until: u64,
    /// When its next turn is due.
    run_at: Option<u64>,
}

impl Host {
    /// Returns the next port for an address without one.
    pub(crate) fn free_port(&mut self) -> u16 {
        self.last_port = self.last_port.checked_add(1).unwrap_or(PORT_MIN);
        self.last_port
    }

    /// Begins a turn, which takes this long. An object that becomes ready in the turn waits for the next one,
    /// which is later.
    pub(crate) fn begin_turn(&mut self, until: u64) {
        self.busy_until = until;
    }

    /// Begins another life of its node. A turn that was due in the former life now counts for the new one.
    pub(crate) fn begin_life(&mut self) {
        self.is_waiting = false;
    }

    /// Ends the life of its node.
    pub(crate) fn end_life(&mut self) {
        (self.is_waiting, self.run_at) = (false, None);
    }

    /// Returns whether its node may make the turn that is due. A paused node makes it after the pause.
    pub(crate) fn may_run(&mut self) -> bool {
        self.is_waiting |= self.is_paused;
        !self.is_paused
    }
}

/// All hosts. A host is among the runnable ones at most once.
pub(crate) struct Hosts {
    all: IdVec<HostId, Host>,
    /// The nodes that are due to make a turn now.
    runnable: VecDeque<HostId>,
    /// Every address names the first host. A test harness sets this, because its service connects only to the
    /// test.
    pub(crate) is_alone: bool,
}

impl Hosts {
    pub(crate) fn new() -> Hosts {
        Hosts { all: IdVec::new(), runnable: VecDeque::new(), is_alone: false }
    }

    pub(crate) fn add(&mut self) -> HostId {
        let [_, a, b, c] = (self.all.len() as u32 + 1).to_be_bytes();
        self.all.push(Host {
            ip: Ipv4Addr::new(10, a, b, c),
            engine: None,
            last_port: PORT_MIN,
            wall_offset: 0,
            wall_stepped: false,
            is_up: true,
            is_paused: false,
            is_waiting: false,
            is_queued: false,
            busy_until: 0,
            run_at: None,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = HostId> + use<> {
        self.all.ids()
    }

    /// Returns the host that an IP address names, as seen from another host.
    pub(crate) fn of_ip(&self, from: HostId, ip: IpAddr) -> Option<HostId> {
        if self.is_alone || ip.is_loopback() || ip.is_unspecified() {
            return Some(from);
        }
        let IpAddr::V4(ip) = ip else { return None };
        let number = u32::from_be_bytes(ip.octets()) & 0x00ff_ffff;
        let host = HostId::new(number.checked_sub(1)? as usize);
        (self.all.get(host)?.ip == ip).then_some(host)
    }

    /// Panics if a host is not among the runnable ones exactly when it says so.
    pub(crate) fn check(&self) {
        for (id, host) in self.all.iter() {
            let times = self.runnable.iter().filter(|runnable| **runnable == id).count();
            assert_eq!(times, usize::from(host.is_queued), "{id:?}");
        }
    }

    // Turns.

    /// Schedules a turn of a node: now, or at the end of its current turn.
    #[inline]
    pub(crate) fn make_runnable(&mut self, id: HostId, clock: &mut Clock) {
        let host = &mut self.all[id];
        if host.is_queued || !host.is_up {
        } else if host.is_paused {
            host.is_waiting = true;
        } else if host.busy_until > clock.now() {
            let at = host.busy_until;
            self.run_at(id, at, clock);
        } else {
            host.is_queued = true;
            self.runnable.push_back(id);
        }
    }

    /// Schedules a turn of a node at this moment, unless one is due earlier.
    pub(crate) fn run_at(&mut self, id: HostId, at: u64, clock: &mut Clock) {
        let host = &mut self.all[id];
        if host.run_at.is_none_or(|before| before > at) {
            host.run_at = Some(at);
            clock.schedule(at, Scheduled::Run { node: id });
        }
    }

    pub(crate) fn is_any_runnable(&self) -> bool {
        !self.runnable.is_empty()
    }

    /// Takes the next node that is due to make a turn now.
    pub(crate) fn take_runnable(&mut self) -> Option<HostId> {
        let id = self.runnable.pop_front()?;
        self.all[id].is_queued = false;
        Some(id)
    }

    /// Returns whether a node makes the turn that was scheduled for this moment.
    pub(crate) fn is_turn_due(&mut self, id: HostId, at: u64, clock: &mut Clock) -> bool {
        let host = &mut self.all[id];
        if host.run_at != Some(at) {
            return false;
        }
        host.run_at = None;
        let may_run = host.may_run();
        if host.busy_until > clock.now() {
            // The node made a turn at this very moment for another reason.
            self.make_runnable(id, clock);
            return false;
        }
        may_run && host.is_up
    }

    /// Pauses or continues a node. Returns `None` if nothing changes, and otherwise whether a turn was due
    /// during the pause, which is now runnable.
    pub(crate) fn set_paused(&mut self, id: HostId, on: bool, clock: &mut Clock) -> Option<bool> {
        let host = &mut self.all[id];
        if std::mem::replace(&mut host.is_paused, on) == on {
            return None;
        }
        let was_due = !on && std::mem::take(&mut host.is_waiting);
        if was_due {
            self.make_runnable(id, clock);
        }
        Some(was_due)
    }
}

impl std::ops::Index<HostId> for Hosts {
    type Output = Host;

    #[inline]
    fn index(&self, id: HostId) -> &Host {
        &self.all[id]
    }
}

impl std::ops::IndexMut<HostId> for Hosts {
    #[inline]
    fn index_mut(&mut self, id: HostId) -> &mut Host {
        &mut self.all[id]
    }
}

const PORT_MIN: u16 = 40_000;
