//! The engines of a world: their ready lists, their buffers, and their offloaded work.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use reactor::{
    engine::{Medium, Transport},
    host::Job,
};

use crate::{
    engine::{
        options::EngineOptions,
        wake::{Inbox, Lease, WakeFlag},
    },
    ids::{EndId, EngineId, HostId, JobId, ListenerId, ObjectId, Slots, SocketId, SourceId},
};

/// An object of an engine that may have an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReadyItem {
    End(EndId),
    Listener(ListenerId),
    Source(SourceId),
    Socket(SocketId),
}

/// The world's record of one engine.
pub(crate) struct EngineState {
    /// The node that drives the engine. Without a node, the engine's own `wait` moves the world.
    pub(crate) node: Option<HostId>,
    pub(crate) ready: VecDeque<ReadyItem>,
    /// The version at which it gave way to another engine with work to do.
    gave_way: u64,
    /// How many buffers the runtime holds, and the ends whose input waits for one of them.
    lent: usize,
    starved: BTreeSet<EndId>,
    /// Set once it has taken the sockets that its supervisor opened.
    #[cfg(unix)]
    pub(crate) is_activated: bool,
}

/// All engines. The ready list of an engine that has gone takes nothing.
pub(crate) struct Engines {
    all: Slots<EngineId, EngineState>,
    /// Increases whenever an object becomes ready, or an engine is woken.
    version: u64,
    pub(crate) inbox: Arc<Inbox>,
    jobs: Slots<JobId, Job>,
    pub(crate) options: EngineOptions,
    /// The buffers that runtimes held when their engines went.
    buffers_lost: usize,
}

impl Engines {
    pub(crate) fn new(options: EngineOptions) -> Engines {
        Engines {
            all: Slots::new(),
            version: 0,
            inbox: Arc::default(),
            jobs: Slots::new(),
            options: options.within_bounds(),
            buffers_lost: 0,
        }
    }

    pub(crate) fn add(&mut self, node: Option<HostId>) -> (EngineId, Arc<WakeFlag>) {
        let id = self.all.push(EngineState {
            node,
            ready: VecDeque::new(),
            gave_way: 0,
            lent: 0,
            starved: BTreeSet::new(),
            #[cfg(unix)]
            is_activated: false,
        });
        (id, Arc::new(WakeFlag::new(id, &self.inbox)))
    }

    pub(crate) fn remove(&mut self, id: EngineId) {
        let engine = self.all.take(id);
        self.buffers_lost += engine.map_or(0, |engine| engine.lent);
    }

    pub(crate) fn get_mut(&mut self, id: EngineId) -> Option<&mut EngineState> {
        self.all.get_mut(id)
    }

    pub(crate) fn count(&self) -> usize {
        self.all.iter().count()
    }

    // Readiness.

    /// Queues an object that may have an event now. Returns the node that must make a turn.
    #[inline]
    pub(crate) fn mark_ready(&mut self, id: EngineId, item: ReadyItem) -> Option<HostId> {
        let engine = self.all.get_mut(id)?;
        engine.ready.push_back(item);
        self.version += 1;
        engine.node
    }

    /// Notes that an engine was woken. Returns the node that must make a turn.
    pub(crate) fn woken(&mut self, id: EngineId) -> Option<HostId> {
        self.version += 1;
        self.all.get(id)?.node
    }

    /// Returns whether an engine has objects that may have an event.
    pub(crate) fn is_ready(&self, id: EngineId) -> bool {
        self.all.get(id).is_some_and(|engine| !engine.ready.is_empty())
    }

    /// Returns whether another engine of this thread has work to do first. It does so once for each version.
    pub(crate) fn gives_way(&mut self, id: EngineId) -> bool {
        let is_busy = |engine: &EngineState| engine.node.is_none() && !engine.ready.is_empty();
        if !self.all.iter().any(|(other, engine)| other != id && is_busy(engine)) {
            return false;
        }
        let version = self.version;
        self.all.get_mut(id).is_some_and(|me| std::mem::replace(&mut me.gave_way, version) != version)
    }

    // Buffers.

    /// Returns whether the runtime holds all buffers of the engine. The end's input then waits for one.
    pub(crate) fn is_starved(&mut self, id: EngineId, end: EndId) -> bool {
        let most = self.options.buffers;
        let Some(engine) = self.all.get_mut(id).filter(|engine| engine.lent >= most) else { return false };
        engine.starved.insert(end);
        true
    }

    /// Notes that the runtime holds one more buffer.
    pub(crate) fn lend(&mut self, id: EngineId) {
        if let Some(engine) = self.all.get_mut(id) {
            engine.lent += 1;
        }
    }

    /// Notes that the runtime gave a buffer back. Returns the ends whose input waited for one.
    pub(crate) fn give_back(&mut self, id: EngineId) -> BTreeSet<EndId> {
        let Some(engine) = self.all.get_mut(id) else { return BTreeSet::new() };
        engine.lent = engine.lent.saturating_sub(1);
        std::mem::take(&mut engine.starved)
    }

    /// Returns the number of buffers that no runtime gave back.
    pub(crate) fn buffers_out(&self) -> usize {
        self.buffers_lost + self.all.iter().map(|(_, engine)| engine.lent).sum::<usize>()
    }

    // Transports and offloaded work.

    /// Makes the transport of an object.
    pub(crate) fn transport(&self, object: ObjectId, medium: Medium) -> Transport {
        Transport::hosted_as(object.number(), medium, Lease::new(&self.inbox, object))
    }

    pub(crate) fn add_job(&mut self, job: Job) -> JobId {
        self.jobs.push(job)
    }

    pub(crate) fn take_job(&mut self, id: JobId) -> Option<Job> {
        self.jobs.take(id)
    }
}
