//! Links: the latency of a packet from one host to another, and the obstacles between them.

use std::{collections::HashMap, time::Duration};

use crate::{
    faults::{Kind, injector::Injector},
    ids::{HostId, IdVec},
};

/// The properties of a link between two hosts, in each direction.
///
/// ```
/// use sim::Link;
/// use std::time::Duration;
/// let slow = Link { latency_min: Duration::from_millis(40), latency_max: Duration::from_millis(60), ..Link::lan() };
/// assert_eq!(slow.window_bytes, Link::lan().window_bytes);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// The shortest latency of a packet.
    pub latency_min: Duration,
    /// The longest latency. A packet's latency is drawn evenly between the two.
    pub latency_max: Duration,
    /// The bandwidth of each stream in bytes per second. 0 means no limit.
    pub bytes_per_second: u64,
    /// The most bytes of a stream that are in flight or unread at the other end. At least 1.
    pub window_bytes: usize,
    /// How many of a million datagrams are lost. Streams lose nothing, because TCP retransmits.
    pub lost: u32,
    /// How many of a million datagrams arrive twice.
    pub doubled: u32,
}

impl Link {
    /// Returns a local network: 100 to 300 microseconds, 1 Gbit/s, a window of 64 KiB, no datagram lost.
    pub const fn lan() -> Link {
        Link {
            latency_min: Duration::from_micros(100),
            latency_max: Duration::from_micros(300),
            bytes_per_second: 125_000_000,
            window_bytes: 64 << 10,
            lost: 0,
            doubled: 0,
        }
    }

    /// Returns a link across a continent: 20 to 80 milliseconds, 100 Mbit/s, a window of 256 KiB. Of a
    /// thousand datagrams, five are lost and one arrives twice.
    pub const fn wan() -> Link {
        Link {
            latency_min: Duration::from_millis(20),
            latency_max: Duration::from_millis(80),
            bytes_per_second: 12_500_000,
            window_bytes: 256 << 10,
            lost: 5_000,
            doubled: 1_000,
        }
    }

    /// Returns a link within one host: 5 to 20 microseconds, no limit of the bandwidth, a window of 64 KiB.
    pub const fn loopback() -> Link {
        Link {
            latency_min: Duration::from_micros(5),
            latency_max: Duration::from_micros(20),
            bytes_per_second: 0,
            window_bytes: 64 << 10,
            lost: 0,
            doubled: 0,
        }
    }
}

/// The obstacles on the way from one host to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Obstacle {
    /// How many partitions separate them, and the kind of the first one.
    cuts: u32,
    cut_by: Option<Kind>,
    /// How many holds there are.
    holds: u32,
}

impl Obstacle {
    fn is_none(self) -> bool {
        self.cuts == 0 && self.holds == 0
    }

    /// Returns the kind under which it is counted.
    fn kind(self) -> Kind {
        if self.cuts > 0 { self.cut_by.unwrap_or(Kind::Partition) } else { Kind::Hold }
    }
}

/// All links and their obstacles.
pub(crate) struct Links {
    pub(crate) default: Link,
    loopback: Link,
    special: HashMap<(HostId, HostId), Link>,
    obstacles: HashMap<(HostId, HostId), Obstacle>,
    /// The factor by which a host's links are slowed, by host.
    slow: IdVec<HostId, u32>,
}

impl Links {
    pub(crate) fn new(default: Link, loopback: Link) -> Links {
        Links { default, loopback, special: HashMap::new(), obstacles: HashMap::new(), slow: IdVec::new() }
    }

    pub(crate) fn add_host(&mut self) {
        self.slow.push(1);
    }

    /// Sets the link between two hosts, in both directions.
    pub(crate) fn set(&mut self, one: HostId, other: HostId, link: Link) {
        self.special.insert((one, other), link);
        self.special.insert((other, one), link);
    }

    #[inline]
    pub(crate) fn of(&self, from: HostId, to: HostId) -> Link {
        match from == to {
            true => self.loopback,
            false if self.special.is_empty() => self.default,
            false => self.special.get(&(from, to)).copied().unwrap_or(self.default),
        }
    }

    pub(crate) fn set_slow(&mut self, host: HostId, factor: u32) {
        self.slow[host] = factor.max(1);
    }

    /// Draws a packet's latency in nanoseconds.
    pub(crate) fn latency(&self, (from, to): (HostId, HostId), faults: &mut Injector) -> u64 {
        let link = self.of(from, to);
        let (low, high) = (nanos(link.latency_min), nanos(link.latency_max));
        let mut took = faults.chance.between(low, high);
        if faults.draw_visible(Kind::Spike) {
            took = took.saturating_mul(10);
        }
        let factor = self.slow[from].max(self.slow[to]);
        if factor > 1 && from != to {
            faults.tally.observe(Kind::Slow);
            took = took.saturating_mul(u64::from(factor));
        }
        took
    }

    /// Returns the kind of the obstacle between two hosts, if there is one.
    #[inline]
    pub(crate) fn obstacle(&self, from: HostId, to: HostId) -> Option<Kind> {
        match self.obstacles.is_empty() {
            true => None,
            false => self.obstacles.get(&(from, to)).map(|obstacle| obstacle.kind()),
        }
    }

    pub(crate) fn cut(&mut self, from: HostId, to: HostId, kind: Kind) {
        let obstacle = self.obstacles.entry((from, to)).or_default();
        obstacle.cuts += 1;
        obstacle.cut_by.get_or_insert(kind);
    }

    pub(crate) fn hold(&mut self, from: HostId, to: HostId) {
        self.obstacles.entry((from, to)).or_default().holds += 1;
    }

    /// Removes one cut or hold.
    pub(crate) fn clear(&mut self, from: HostId, to: HostId, kind: Kind) {
        let Some(obstacle) = self.obstacles.get_mut(&(from, to)) else { return };
        match kind {
            Kind::Hold => obstacle.holds = obstacle.holds.saturating_sub(1),
            _ => obstacle.cuts = obstacle.cuts.saturating_sub(1),
        }
        if obstacle.is_none() {
            self.obstacles.remove(&(from, to));
        }
    }

    /// Removes every obstacle and slowness.
    pub(crate) fn repair(&mut self) {
        self.obstacles.clear();
        for host in self.slow.ids() {
            self.slow[host] = 1;
        }
    }
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{faults::Faults, ids::Id as _};

    fn host(index: usize) -> HostId {
        HostId::new(index)
    }

    fn links() -> Links {
        let mut links = Links::new(Link::lan(), Link::loopback());
        (0..3).for_each(|_| links.add_host());
        links
    }

    #[test]
    fn a_latency_lies_within_its_link_and_a_slow_host_multiplies_it() {
        let (mut links, mut faults) = (links(), Injector::new(1, Faults::none(), Duration::ZERO));
        for _ in 0..100 {
            let took = links.latency((host(0), host(1)), &mut faults);
            assert!((100_000..=300_000).contains(&took), "{took}");
        }
        links.set_slow(host(1), 4);
        assert!(links.latency((host(0), host(1)), &mut faults) >= 400_000);
        assert!(links.latency((host(0), host(2)), &mut faults) <= 300_000);
        assert!(links.latency((host(1), host(1)), &mut faults) <= 20_000, "not its loopback");
    }

    #[test]
    fn obstacles_add_up_and_go_one_by_one() {
        let mut links = links();
        links.cut(host(0), host(1), Kind::OneWay);
        links.cut(host(0), host(1), Kind::Partition);
        links.hold(host(0), host(1));
        assert_eq!(
            (links.obstacle(host(0), host(1)), links.obstacle(host(1), host(0))),
            (Some(Kind::OneWay), None)
        );
        links.clear(host(0), host(1), Kind::Partition);
        links.clear(host(0), host(1), Kind::OneWay);
        assert_eq!(links.obstacle(host(0), host(1)), Some(Kind::Hold));
        links.clear(host(0), host(1), Kind::Hold);
        assert_eq!(links.obstacle(host(0), host(1)), None);
    }
}
