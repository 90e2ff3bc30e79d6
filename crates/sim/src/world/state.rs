//! The whole of a world: its parts, and the routes between them.
//!
//! No code here calls a service. [`State::advance`] returns such work as a [`Task`], and the caller does
//! it without a borrow of the state.

#[cfg(unix)]
use std::io;
use std::{cell::RefCell, collections::VecDeque};

use reactor::{
    Key,
    engine::{Ending, Event},
    host::Job,
};

#[cfg(unix)]
use reactor::{
    engine::{Medium, Transport},
    host::StandIn,
};

use crate::{
    engine::{
        EngineEvent,
        engines::{Engines, ReadyItem},
        sources::Sources,
        wake::Messages,
    },
    faults::injector::Injector,
    ids::{EndId, EngineId, FileJobId, FlightId, HostId, JobId, ObjectId, SocketId, WorldFaultId},
    net::{
        datagram::Datagrams,
        link::{Links, nanos},
        stream::Streams,
    },
    os::disk::{Disks, Due},
    world::{WorldOptions, base::Base, clock::Clock, hosts::Hosts, record::Record},
};

/// A scheduled event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scheduled {
    /// The first packet on an end's wire arrives.
    Arrive { end: EndId },
    /// A connect's packet arrives at its target.
    Connect { end: EndId, tries: u32 },
    /// The answer to a connect arrives: an error number, or 0.
    Answer { end: EndId, error: i32 },
    /// An end notices that its peer has room again.
    Room { end: EndId },
    /// An end gives up, unless it made progress since.
    GiveUp { end: EndId, progress: u64 },
    /// A node makes a turn.
    Run { node: HostId },
    /// Offloaded work is done.
    Job { number: JobId },
    /// A datagram arrives at its receiver, or a report about one arrives at its sender.
    Land { flight: FlightId },
    /// A datagram socket notices that there is room again.
    SocketRoom { number: SocketId },
    /// An event of a child process is due.
    #[cfg(unix)]
    Child { child: crate::ids::ChildId, event: crate::os::child::ChildEvent },
    /// A file operation is done, or its completion is due.
    File { number: FileJobId },
    /// Work of the world is due.
    World(WorldTask),
}

/// Work that only the world can do, because it needs the nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WorldTask {
    /// A node makes a turn.
    Run { node: HostId },
    /// The next chaos is due, unless another schedule replaced this one since.
    Chaos { round: u32 },
    /// A drawn fault of the world ends.
    Relief { number: WorldFaultId },
    /// A node that ended by itself restarts, if this was its last life.
    Restart { node: HostId, life: u32 },
}

/// Work that must run without a borrow of the state.
pub(crate) enum Task {
    #[cfg(unix)]
    Child(crate::ids::ChildId, crate::os::child::ChildEvent),
    Job(Job),
    /// A file operation completes.
    File(Due),
    World(WorldTask),
}

impl Task {
    /// Does the work, or returns it if only the world can do it.
    pub(crate) fn perform(self, state: &RefCell<State>) -> Option<WorldTask> {
        match self {
            Task::Job(job) => job(),
            #[cfg(unix)]
            Task::Child(child, event) => crate::os::child::happen(state, child, event),
            Task::File(due) => due.complete(state),
            Task::World(task) => return Some(task),
        }
        None
    }
}

/// The parts of a world. Each owns its objects. The whole only routes between them.
pub(crate) struct State {
    pub(crate) base: Base,
    pub(crate) sources: Sources,
    pub(crate) streams: Streams,
    pub(crate) datagrams: Datagrams,
    pub(crate) disks: Disks,
    #[cfg(unix)]
    pub(crate) consoles: crate::os::console::Consoles,
    #[cfg(unix)]
    pub(crate) children: crate::os::child::Children,
    #[cfg(unix)]
    pub(crate) signals: crate::os::signals::SignalSources,
    #[cfg(unix)]
    pub(crate) supervisors: crate::os::supervisor::Supervisors,
    /// Work of the world that fell due while an engine moved the clock.
    deferred: VecDeque<WorldTask>,
}

impl State {
    pub(crate) fn new(seed: u64, options: &WorldOptions) -> State {
        State {
            base: Base {
                clock: Clock::new(options.turn_cost),
                faults: Injector::new(seed, options.faults.clone(), options.late_max),
                record: Record::new(options.history_max),
                hosts: Hosts::new(),
                engines: Engines::new(options.engine),
                links: Links::new(options.link, options.loopback),
            },
            sources: Sources::default(),
            streams: Streams::new(nanos(options.give_up)),
            datagrams: Datagrams::default(),
            disks: Disks::new(),
            #[cfg(unix)]
            consoles: crate::os::console::Consoles::new(),
            #[cfg(unix)]
            children: crate::os::child::Children::default(),
            #[cfg(unix)]
            signals: crate::os::signals::SignalSources::default(),
            #[cfg(unix)]
            supervisors: crate::os::supervisor::Supervisors::new(options.watchdog),
            deferred: VecDeque::new(),
        }
    }

    pub(crate) fn add_host(&mut self) -> HostId {
        self.disks.add_host();
        #[cfg(unix)]
        self.consoles.add_host();
        self.base.add_host()
    }

    /// Checks the invariants of the parts.
    ///
    /// # Panics
    /// One of them does not hold, which is a bug of the simulator.
    pub(crate) fn check(&self) {
        self.base.hosts.check();
        self.streams.check();
        self.datagrams.check();
    }

    // Engines.

    /// Returns the next event of an object of an engine, if it has one.
    pub(crate) fn event_of(&mut self, engine: EngineId, item: ReadyItem) -> Option<EngineEvent> {
        let base = &mut self.base;
        match item {
            ReadyItem::End(id) => self.streams.end_event(base, id, engine),
            ReadyItem::Listener(id) => self.streams.listener_event(base, id),
            ReadyItem::Source(id) => self.sources.event(base, id, engine).map(EngineEvent::Event),
            ReadyItem::Socket(id) => self.datagrams.socket_event(base, id, engine),
        }
    }

    /// Opens the stand-in for a part of a process that an engine on this host requests.
    #[cfg(unix)]
    pub(crate) fn stand_in(&mut self, host: HostId, of: StandIn) -> Option<io::Result<Transport>> {
        let State { base, sources, streams, consoles, signals, supervisors, .. } = self;
        let console = &mut consoles[host];
        let source = match of {
            StandIn::Signals(set) => signals.add(sources, host, set),
            StandIn::Supervisor => supervisors.connect(base, sources, host),
            StandIn::Stdin => return Some(Ok(console.open_input(base, streams, host))),
            StandIn::Stdout => return Some(Ok(console.open_output(base, streams, host, 0))),
            StandIn::Stderr => return Some(Ok(console.open_output(base, streams, host, 1))),
            _ => return Some(Err(io::ErrorKind::Unsupported.into())),
        };
        Some(Ok(base.engines.transport(ObjectId::Source(source), Medium::SOCKET)))
    }

    /// Handles the wakes of other threads, and closes the dropped transports.
    #[inline]
    pub(crate) fn take_messages(&mut self) {
        // A closed end may hold further transports in flight to it, so closing it may drop them.
        while let Some(Messages { woken, dropped }) = self.base.engines.inbox.take() {
            for engine in woken {
                self.base.wake(engine);
            }
            for (object, how) in dropped {
                self.close(object, how);
            }
        }
    }

    /// Closes an object whose transport was dropped, if it is still open.
    fn close(&mut self, object: ObjectId, how: Ending) {
        match object {
            ObjectId::End(id) if self.streams.ends.is_alive(id) => {
                self.streams.close_end(&mut self.base, id, how);
            }
            ObjectId::End(_) => (),
            ObjectId::Listener(id) => self.streams.close_listener(&mut self.base, id),
            ObjectId::Socket(id) => self.datagrams.close_socket(id),
            ObjectId::Source(id) => self.close_source(id),
        }
    }

    /// Removes a source that stands in for a part of a process.
    fn close_source(&mut self, id: crate::ids::SourceId) {
        #[cfg(unix)]
        {
            self.signals.remove(id);
            self.supervisors.remove(id);
        }
        self.sources.remove(id);
    }

    /// Serves the ends without an engine that have an event.
    pub(crate) fn serve_movers(&mut self) {
        #[cfg(unix)]
        while let Some((at, mover)) = self.streams.next_to_serve() {
            match mover {
                crate::net::stream::Mover::Console(host) => {
                    self.consoles[host].serve(&mut self.base, &mut self.streams, at);
                }
                crate::net::stream::Mover::Child(child) => self.children.wake(&mut self.base, child),
            }
        }
    }

    /// Restarts the packets that wait at obstacles, because their links may be free.
    pub(crate) fn unstall(&mut self) {
        self.datagrams.release_flights(&mut self.base);
        self.streams.unstall(&mut self.base);
    }

    // Time.

    /// Runs the next event, and moves the clock to its moment.
    pub(crate) fn advance(&mut self) -> Option<Task> {
        let (at, what) = self.base.clock.advance()?;
        let task = self.run(at, what);
        self.serve_movers();
        task
    }

    fn run(&mut self, at: u64, what: Scheduled) -> Option<Task> {
        let base = &mut self.base;
        match what {
            Scheduled::Arrive { end } => self.streams.arrive(base, end),
            Scheduled::Connect { end, tries } => self.streams.try_connect(base, end, tries),
            Scheduled::Answer { end, error } => self.streams.answer(base, end, error),
            Scheduled::Room { end } => self.streams.room_again(base, end),
            Scheduled::GiveUp { end, progress } => self.streams.give_up(base, end, progress),
            Scheduled::Land { flight } => self.datagrams.land(base, flight),
            Scheduled::SocketRoom { number } => self.datagrams.socket_room(base, number),
            Scheduled::Run { node } => {
                let is_due = base.hosts.is_turn_due(node, at, &mut base.clock);
                return is_due.then_some(Task::World(WorldTask::Run { node }));
            }
            Scheduled::Job { number } => return base.engines.take_job(number).map(Task::Job),
            #[cfg(unix)]
            Scheduled::Child { child, event } => return Some(Task::Child(child, event)),
            Scheduled::File { number } => return self.disks.take_due(base, number).map(Task::File),
            Scheduled::World(task) => return Some(Task::World(task)),
        }
        None
    }

    /// Keeps work that fell due while an engine moved the clock. The world does it first when it moves the
    /// next time.
    pub(crate) fn defer(&mut self, task: WorldTask) {
        match task {
            WorldTask::Run { node } => self.base.make_runnable(node),
            task => self.deferred.push_back(task),
        }
    }

    /// Takes the next work of the world that is due now.
    pub(crate) fn next_task(&mut self) -> Option<Option<WorldTask>> {
        if let Some(task) = self.deferred.pop_front() {
            return Some(Some(task));
        }
        let node = self.base.hosts.take_runnable()?;
        // The node may have been paused while its turn was due.
        Some(self.base.hosts[node].may_run().then_some(WorldTask::Run { node }))
    }

    /// Adds an engine's event to the digest.
    pub(crate) fn note_event(&mut self, engine: EngineId, key: Key, event: &mut Event) {
        self.base.record.note_event(self.base.clock.now(), engine, key, event);
    }
}
