//! The base of a world: the parts that all others use.

use reactor::{Time, host::Job};

use crate::{
    engine::engines::{Engines, ReadyItem},
    faults::{Kind, injector::Injector},
    ids::{EngineId, HostId, Id as _},
    net::link::Links,
    world::{
        clock::Clock,
        hosts::Hosts,
        record::{Happening, Record},
        state::Scheduled,
    },
};

/// The parts that all others use. A method here only passes the result of one part on to the next.
pub(crate) struct Base {
    pub(crate) clock: Clock,
    pub(crate) faults: Injector,
    pub(crate) record: Record,
    pub(crate) hosts: Hosts,
    pub(crate) engines: Engines,
    pub(crate) links: Links,
}

impl Base {
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Adds a host with its links.
    pub(crate) fn add_host(&mut self) -> HostId {
        self.links.add_host();
        self.hosts.add()
    }

    /// Queues an object of an engine that may have an event now.
    #[inline]
    pub(crate) fn mark_ready(&mut self, engine: EngineId, item: ReadyItem) {
        if let Some(node) = self.engines.mark_ready(engine, item) {
            self.hosts.make_runnable(node, &mut self.clock);
        }
    }

    /// Schedules a turn of a node: now, or at the end of its current turn.
    pub(crate) fn make_runnable(&mut self, node: HostId) {
        self.hosts.make_runnable(node, &mut self.clock);
    }

    /// Wakes an engine.
    pub(crate) fn wake(&mut self, engine: EngineId) {
        if let Some(node) = self.engines.woken(engine) {
            self.make_runnable(node);
        }
    }

    /// Returns whether events wait for a node.
    pub(crate) fn has_more(&self, node: HostId) -> bool {
        self.hosts[node].engine.is_some_and(|engine| self.engines.is_ready(engine))
    }

    /// Draws the arrival time of a packet that one host sends to another now.
    pub(crate) fn arrival(&mut self, from: HostId, to: HostId) -> u64 {
        self.clock.now() + self.links.latency((from, to), &mut self.faults)
    }

    /// Records an event of the history, with the time.
    #[inline]
    pub(crate) fn note(&mut self, happening: impl FnOnce(Time) -> Happening) {
        let at = self.clock.time();
        self.record.keep(|| happening(at));
    }

    /// Queues offloaded work, which ends at a drawn moment.
    pub(crate) fn add_job(&mut self, job: Job) {
        let is_slow = self.faults.draw_visible(Kind::SlowJob);
        let most = if is_slow { 1_000_000_000 } else { 5_000_000 };
        let at = self.now() + self.faults.chance.between(1_000, most);
        let number = self.engines.add_job(job);
        self.record.digest.number(u64::from(number.number()) << 32 | 0x10b);
        self.clock.schedule(at, Scheduled::Job { number });
    }
}
