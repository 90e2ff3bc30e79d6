//! The world: its nodes, the loop that runs their events, and the methods with which a test observes it.

pub(crate) mod base;
pub(crate) mod clock;
pub(crate) mod digest;
pub(crate) mod hosts;
pub(crate) mod node;
pub(crate) mod queue;
pub(crate) mod record;
pub(crate) mod restarts;
pub(crate) mod state;

use std::{
    cell::{Ref, RefCell},
    fmt,
    net::Ipv4Addr,
    rc::Rc,
    time::Duration,
};

use reactor::{Context, Error, Limits, Receipt, Runtime, Service, ServiceId, Time};

use self::{
    digest::Digest,
    node::{Driven, Node, NodeId},
    record::Happening,
    restarts::Ended,
    state::{State, Task, WorldTask},
};
use crate::{
    engine::{SimEngine, options::EngineOptions},
    faults::{Faults, Kind, Tally, chaos::Chaos},
    ids::{HostId, Id as _, IdVec},
    net::{
        datagram::DatagramSummary,
        link::{Link, nanos},
    },
    os::disk::{DiskCounts, DiskOptions},
    testing::source::VirtualSource,
};

/// The options of a world. Begin with the default, and change single fields.
///
/// ```
/// use sim::{Faults, Link, World, WorldOptions};
/// let mut options = WorldOptions::default();
/// options.faults = Faults::draw(7);
/// options.link = Link::wan();
/// assert_eq!(World::with_options(7, options).seed(), 7);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorldOptions {
    /// The rates of the faults. There are none by default.
    pub faults: Faults,
    /// The sizes and the habits of the engines.
    pub engine: EngineOptions,
    /// The link between two nodes, unless [`World::set_link`] replaces it.
    pub link: Link,
    /// The link within a node.
    pub loopback: Link,
    /// The time that each turn of a runtime takes, whatever it does: 1 microsecond.
    pub turn_cost: Duration,
    /// The longest delay between the end of a send or a file operation and its completion event, if a fault
    /// delays the event ([`Kind::LateSend`], [`Kind::LateFile`]): 5 milliseconds.
    pub late_max: Duration,
    /// A connection times out after this time without an answer: 2 minutes.
    pub give_up: Duration,
    /// The interval in which each node's supervisor expects a keep-alive; none by default. `World::notices`
    /// has a node's notifications. A silent node has no consequences.
    pub watchdog: Option<Duration>,
    /// The limits of each runtime.
    pub limits: Limits,
    /// The capacity of [`World::history`]. It is 0 by default, which keeps nothing.
    pub history_max: usize,
}

impl Default for WorldOptions {
    fn default() -> WorldOptions {
        WorldOptions {
            faults: Faults::none(),
            engine: EngineOptions::default(),
            link: Link::lan(),
            loopback: Link::loopback(),
            turn_cost: Duration::from_micros(1),
            late_max: Duration::from_millis(5),
            give_up: Duration::from_secs(120),
            watchdog: None,
            limits: Limits::default(),
            history_max: 0,
        }
    }
}

impl WorldOptions {
    /// Returns a world in which little fits anywhere, and everything is late or in pieces:
    /// [`EngineOptions::harsh`], windows of 256 bytes, and the [harmless](Faults::harmless) faults in three
    /// of ten operations. Whatever a service can do in another world, it can do in this one.
    ///
    /// ```
    /// use sim::{EngineOptions, WorldOptions};
    /// assert_eq!(WorldOptions::harsh().engine, EngineOptions::harsh());
    /// ```
    pub fn harsh() -> WorldOptions {
        WorldOptions {
            faults: Faults::harmless(300_000),
            engine: EngineOptions::harsh(),
            link: Link { window_bytes: 256, ..Link::lan() },
            loopback: Link { window_bytes: 256, ..Link::loopback() },
            ..WorldOptions::default()
        }
    }
}

/// A simulated world: nodes with runtimes, virtual time, a network, and faults, all drawn from one seed.
///
/// See the [crate's documentation](crate) for an example.
pub struct World {
    pub(crate) seed: u64,
    pub(crate) state: Rc<RefCell<State>>,
    pub(crate) nodes: IdVec<HostId, Driven>,
    pub(crate) chaos: Chaos,
    limits: Limits,
}

/// The counts of a world so far.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Summary {
    /// The virtual time since the world began.
    pub elapsed: Duration,
    /// How many packets with bytes and datagrams arrived.
    pub messages: u64,
    /// How many bytes arrived.
    pub bytes: u64,
    /// How many turns all runtimes made.
    pub turns: u64,
    /// How many nodes crashed or were powered off.
    pub crashes: u64,
    /// The nodes that ended by themselves.
    pub ended: Vec<Ended>,
    /// The fates of the datagrams.
    pub datagrams: DatagramSummary,
    /// Faults by kind.
    pub faults: Tally,
    /// The digest.
    pub digest: Digest,
}

/// The objects that the world still holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Leaks {
    /// The ends of connections that a transport holds, or that wait in an accept queue.
    pub ends: usize,
    /// The listeners, except those that a supervisor holds.
    pub listeners: usize,
    /// The datagram sockets.
    pub sockets: usize,
    /// The watched virtual sources.
    pub watched: usize,
    /// The engines.
    pub engines: usize,
    /// The running child processes.
    pub children: usize,
    /// The buffers of input that a runtime has not given back to its engine.
    pub buffers: usize,
}

impl World {
    /// Makes a world without faults.
    pub fn new(seed: u64) -> World {
        World::with_options(seed, WorldOptions::default())
    }

    /// Makes a world with these options.
    pub fn with_options(seed: u64, options: WorldOptions) -> World {
        let state = State::new(seed, &options);
        World {
            seed,
            state: Rc::new(RefCell::new(state)),
            nodes: IdVec::new(),
            chaos: Chaos::default(),
            limits: options.limits,
        }
    }

    /// Returns the seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Adds a node. `build` adds the services to its runtime, now and at each restart of the node, and
    /// returns the service that [`World::service`] accesses. Only the values that `build` captures survive a
    /// crash. If `build` fails, the node is down, and [`World::ended`] returns the error.
    pub fn add<S: 'static>(
        &mut self,
        build: impl FnMut(&mut Runtime) -> Result<ServiceId<S>, Error> + 'static,
    ) -> NodeId<S> {
        let number = self.enter(build);
        self.begin(number);
        NodeId::new(number)
    }

    /// Makes a node's host.
    pub(crate) fn enter<S: 'static>(
        &mut self,
        build: impl FnMut(&mut Runtime) -> Result<ServiceId<S>, Error> + 'static,
    ) -> HostId {
        let number = self.state.borrow_mut().add_host();
        debug_assert_eq!(number.index(), self.nodes.len(), "each node has a host, and only nodes do");
        self.nodes.push(Driven::new(build));
        number
    }

    pub(crate) fn begin(&mut self, number: HostId) {
        // The service may close a source in its start, and its host must already be up to notice.
        self.state.borrow_mut().base.hosts[number].is_up = true;
        self.nodes[number].begin(&self.state, number, &self.limits);
        {
            let base = &mut self.state.borrow_mut().base;
            base.hosts[number].begin_life();
            base.make_runnable(number);
        }
        if self.nodes[number].runtime.is_none() {
            self.note_end(number);
        }
    }

    /// Returns the number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Returns all nodes.
    pub fn nodes(&self) -> impl Iterator<Item = Node> + use<> {
        self.nodes.ids().map(Node)
    }

    /// Returns a node's address. On its own node it also works as the loopback address.
    pub fn ip(&self, node: impl Into<Node>) -> Ipv4Addr {
        self.state.borrow().base.hosts[node.into().0].ip
    }

    /// Returns a node's runtime, or `None` while the node is down.
    pub fn runtime(&mut self, node: impl Into<Node>) -> Option<&mut Runtime> {
        self.nodes[node.into().0].runtime.as_mut()
    }

    /// Returns the service that a node's builder returned, or `None` while the node is down.
    pub fn service<S: Service>(&self, id: NodeId<S>) -> Option<&S> {
        let node = &self.nodes[id.number];
        let service = node.made.as_ref()?.downcast_ref::<ServiceId<S>>()?;
        node.runtime.as_ref()?.service(*service)
    }

    /// Calls the service that a node's builder returned, with its context. Returns `None` while the node is
    /// down.
    pub fn with<S: Service, T>(
        &mut self,
        id: NodeId<S>,
        f: impl FnOnce(&mut S, &mut Context<S>) -> T,
    ) -> Option<T> {
        let node = &mut self.nodes[id.number];
        let service = *node.made.as_ref()?.downcast_ref::<ServiceId<S>>()?;
        let result = node.runtime.as_mut()?.with(service, f);
        self.state.borrow_mut().base.make_runnable(id.number);
        result
    }

    /// Returns how a node last ended by itself: its receipt, or its error.
    pub fn ended(&self, node: impl Into<Node>) -> Option<&Result<Receipt, Error>> {
        self.nodes[node.into().0].ended.as_ref()
    }

    /// Returns whether a node is up.
    pub fn is_up(&self, node: impl Into<Node>) -> bool {
        self.nodes[node.into().0].runtime.is_some()
    }

    /// Makes a bare engine that belongs to no node, and that moves the world in its own `wait`. All such
    /// engines are on one host, and reach each other by the loopback.
    pub fn engine(&mut self) -> SimEngine {
        if self.state.borrow().base.hosts.is_empty() {
            self.state.borrow_mut().add_host();
            self.nodes.push(Driven::new::<()>(|_| {
                Err(Error::Misuse { operation: "restart", why: "this host has no node" })
            }));
        }
        SimEngine::new(&self.state, HostId::FIRST, None)
    }

    /// Makes an open virtual source, with nothing to read and no room for output.
    pub fn virtual_source(&mut self) -> VirtualSource {
        VirtualSource::new(&self.state)
    }

    /// Sets the options of a node's disk. Its files stay.
    pub fn set_disk(&mut self, node: impl Into<Node>, options: DiskOptions) {
        self.state.borrow_mut().disks[node.into().0].options = options;
    }

    /// Returns the counts of a node's disk so far.
    pub fn disk(&self, node: impl Into<Node>) -> DiskCounts {
        self.state.borrow().disks[node.into().0].counts
    }

    /// Puts a file on a node's disk, safe from power cuts. Makes missing directories.
    pub fn put_file(&mut self, node: impl Into<Node>, path: &str, content: &[u8]) {
        let state = &mut *self.state.borrow_mut();
        state.disks[node.into().0].put(path, content, state.base.now());
    }

    /// Returns the content of a file on a node's disk, as a read would find it now.
    pub fn file(&self, node: impl Into<Node>, path: &str) -> Option<Vec<u8>> {
        self.state.borrow().disks[node.into().0].content(path).map(<[u8]>::to_vec)
    }

    // Time.

    /// Returns the virtual time.
    pub fn now(&self) -> Time {
        self.state.borrow().base.clock.time()
    }

    /// Runs one event: a turn of a node, or an event of the network. Returns `false` if no event is left.
    pub fn step(&mut self) -> bool {
        self.step_until(u64::MAX)
    }

    pub(crate) fn step_until(&mut self, end: u64) -> bool {
        let task = {
            let mut state = self.state.borrow_mut();
            state.take_messages();
            if let Some(task) = state.next_task() {
                task.map(Task::World)
            } else if state.base.clock.is_due(end) {
                state.advance()
            } else {
                return false;
            }
        };
        if let Some(task) = task.and_then(|task| task.perform(&self.state)) {
            self.perform(task);
        }
        true
    }

    fn perform(&mut self, task: WorldTask) {
        match task {
            WorldTask::Run { node } => self.run_node(node),
            WorldTask::Chaos { round } => self.next_chaos(round),
            WorldTask::Relief { number } => self.relieve(number),
            WorldTask::Restart { node, life } => self.restart_planned(node, life),
        }
    }

    /// Lets this much virtual time pass.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.state.borrow().base.clock.after(time);
        while self.step_until(end) {}
        self.state.borrow_mut().base.clock.move_to(end);
    }

    /// Runs until the condition holds, and tests it after each event. Gives up after this much virtual time.
    /// Returns whether the condition held.
    pub fn run_until(&mut self, time_max: Duration, mut done: impl FnMut(&mut World) -> bool) -> bool {
        let end = self.state.borrow().base.clock.after(time_max);
        loop {
            if done(self) {
                return true;
            }
            if !self.step_until(end) {
                self.state.borrow_mut().base.clock.move_to(end);
                return done(self);
            }
        }
    }

    /// Lets this much virtual time pass, and checks the invariants after each event.
    ///
    /// # Errors
    /// The first violation that `check` returns.
    pub fn run_checked<E>(
        &mut self,
        time: Duration,
        mut check: impl FnMut(&mut World) -> Result<(), E>,
    ) -> Result<(), E> {
        let end = self.state.borrow().base.clock.after(time);
        while self.step_until(end) {
            check(self)?;
        }
        self.state.borrow_mut().base.clock.move_to(end);
        Ok(())
    }

    fn run_node(&mut self, number: HostId) {
        let node = &mut self.nodes[number];
        let Some(runtime) = &mut node.runtime else { return };
        let (now, busy) = {
            let base = &mut self.state.borrow_mut().base;
            let (now, busy) = (base.now(), base.now() + base.clock.turn_cost);
            base.hosts[number].begin_turn(busy);
            (now, busy)
        };
        let turned = runtime.turn(Some(Duration::ZERO));
        let is_over = turned.is_err() || runtime.is_over();
        let wait = if is_over { None } else { runtime.next_deadline() };
        let mut state = self.state.borrow_mut();
        let base = &mut state.base;
        base.record.turns += 1;
        if is_over {
            drop(state);
            return self.finish(number, turned.err());
        }
        let due = wait.map(|wait| now.saturating_add(nanos(wait)));
        let due = if base.has_more(number) { Some(busy) } else { due };
        if let Some(at) = due.filter(|at| *at < u64::MAX) {
            base.hosts.run_at(number, at.max(busy), &mut base.clock);
        }
        // Wake the runtime without an event. It must tolerate that.
        if base.faults.draw_visible(Kind::EarlyWake) {
            let at = busy + base.faults.chance.between(1, 1_000_000);
            base.hosts.run_at(number, at, &mut base.clock);
        }
    }

    /// Takes down a runtime that has ended by itself.
    fn finish(&mut self, number: HostId, error: Option<Error>) {
        let node = &mut self.nodes[number];
        let Some(mut runtime) = node.runtime.take() else { return };
        node.made = None;
        // The host stays up, and refuses connections.
        node.ended = Some(error.map_or_else(|| runtime.run(), Err));
        drop(runtime);
        self.end_operations(number, Kind::Crash);
        self.note_end(number);
    }

    // The past.

    /// Returns the digest of all events: each answer of an engine, each call of a handler, each byte sent.
    pub fn digest(&self) -> Digest {
        self.state.borrow().base.record.digest
    }

    /// Returns the number of packets with bytes that have arrived so far. This is cheaper than
    /// [`World::summary`].
    pub fn messages(&self) -> u64 {
        self.state.borrow().base.record.messages
    }

    /// Returns the counts so far.
    pub fn summary(&self) -> Summary {
        let state = self.state.borrow();
        let record = &state.base.record;
        Summary {
            elapsed: state.base.clock.elapsed(),
            messages: record.messages,
            bytes: record.bytes,
            turns: record.turns,
            crashes: record.crashes,
            ended: self.nodes.iter().filter_map(|(id, node)| node.ends.summary(Node(id))).collect(),
            datagrams: state.datagrams.summary,
            faults: state.base.faults.tally.clone(),
            digest: record.digest,
        }
    }

    /// Returns the recorded events; see [`WorldOptions::history_max`].
    pub fn history(&self) -> Ref<'_, [Happening]> {
        Ref::map(self.state.borrow(), |state| state.base.record.history())
    }

    /// Returns the number of events that found no room in the history.
    pub fn history_left_out(&self) -> u64 {
        self.state.borrow().base.record.left_out
    }

    /// Returns the number of scheduled events.
    pub fn pending(&self) -> usize {
        self.state.borrow().base.clock.pending()
    }

    /// Returns the objects that the world still holds.
    pub fn leaks(&self) -> Leaks {
        let mut state = self.state.borrow_mut();
        state.take_messages();
        if cfg!(debug_assertions) {
            state.check();
        }
        Leaks {
            ends: state.streams.ends.held(),
            listeners: state.streams.listeners.iter().filter(|(_, listener)| !listener.is_kept).count(),
            sockets: state.datagrams.sockets(),
            watched: state.sources.watched(),
            engines: state.base.engines.count(),
            #[cfg(unix)]
            children: state.children.running(),
            #[cfg(not(unix))]
            children: 0,
            buffers: state.base.engines.buffers_out(),
        }
    }

    /// Ends all nodes at once, without an orderly stop, and returns the objects that are left. There should
    /// be none.
    pub fn end(&mut self) -> Leaks {
        for number in self.nodes.ids() {
            self.take_down(number, Kind::PowerOff);
        }
        self.leaks()
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("seed", &self.seed)
            .field("nodes", &self.nodes.len())
            .finish_non_exhaustive()
    }
}
