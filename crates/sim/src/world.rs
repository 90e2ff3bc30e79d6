//! The world: nodes, the loop that lets them happen, and what a test asks of it.

use std::{
    cell::{Ref, RefCell},
    fmt,
    net::Ipv4Addr,
    rc::Rc,
    time::Duration,
};

use reactor::{Context, Error, Limits, Receipt, Runtime, Service, ServiceId, Time};

use crate::{
    digest::Digest,
    disk::{DiskCounts, DiskOptions},
    engine::SimEngine,
    fault::{Faults, Kind, Tally},
    feed::Feed,
    flight::DatagramSummary,
    link::{Link, nanos},
    net::Holder,
    node::{Driven, Node, NodeId},
    record::Happening,
    restarts::Ended,
    state::{State, Task},
    trouble::Troubles,
};

/// How a world is made. Begin with the default, and set what should be otherwise.
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
    /// Which faults there are; none by default.
    pub faults: Faults,
    /// The way between two nodes, unless [`World::set_link`] says otherwise.
    pub link: Link,
    /// The way within a node.
    pub loopback: Link,
    /// How long a turn of a runtime takes, whatever it does: 1 microsecond.
    pub turn_cost: Duration,
    /// How long a send or an operation on files is out at most after it was done, when it is told late
    /// ([`Kind::LateSend`], [`Kind::LateFile`]): 5 milliseconds.
    pub late_max: Duration,
    /// After how long without an answer a connection has timed out: 2 minutes.
    pub give_up: Duration,
    /// In which time each node's supervisor wants to hear that it is alive; none by default. What a node tells
    /// is in `World::notices`; that one keeps silent has no consequence.
    pub watchdog: Option<Duration>,
    /// The limits of each runtime.
    pub limits: Limits,
    /// How many happenings are kept for [`World::history`]; 0 by default: none.
    pub history_max: usize,
}

impl Default for WorldOptions {
    fn default() -> WorldOptions {
        WorldOptions {
            faults: Faults::none(),
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

/// A simulated world: nodes with runtimes, virtual time, a network, and faults, all of one seed.
///
/// See the [crate's documentation](crate) for an example.
pub struct World {
    pub(crate) seed: u64,
    pub(crate) state: Rc<RefCell<State>>,
    pub(crate) nodes: Vec<Driven>,
    pub(crate) troubles: Troubles,
    limits: Limits,
}

/// What happened in a world so far.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Summary {
    /// Virtual time since the world began.
    pub elapsed: Duration,
    /// Packets with bytes that arrived, and datagrams.
    pub messages: u64,
    /// Bytes that arrived.
    pub bytes: u64,
    /// Turns of all runtimes.
    pub turns: u64,
    /// Nodes that crashed or vanished.
    pub crashes: u64,
    /// The nodes that have ended by themselves.
    pub ended: Vec<Ended>,
    /// What became of datagrams.
    pub datagrams: DatagramSummary,
    /// Faults by kind.
    pub faults: Tally,
    /// The digest.
    pub digest: Digest,
}

/// What is still there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Leaks {
    /// Ends of connections that a transport holds, or that wait to be accepted.
    pub ends: usize,
    /// Listeners, but for those that a supervisor keeps.
    pub listeners: usize,
    /// Sockets for datagrams.
    pub sockets: usize,
    /// Virtual sources that are watched.
    pub watched: usize,
    /// Engines.
    pub engines: usize,
    /// Child processes that run.
    pub children: usize,
}

impl World {
    /// Makes a world without faults.
    pub fn new(seed: u64) -> World {
        World::with_options(seed, WorldOptions::default())
    }

    /// Makes a world with these options.
    pub fn with_options(seed: u64, options: WorldOptions) -> World {
        let mut state = State::new(seed, options.faults, options.link, options.loopback);
        state.turn_cost = nanos(options.turn_cost).max(1);
        state.late_max = nanos(options.late_max).max(1);
        state.give_up = nanos(options.give_up);
        #[cfg(unix)]
        if let Some(watchdog) = options.watchdog {
            state.stand_ins.watchdog = (nanos(watchdog) / 1000).max(1);
        }
        state.record.kept = (options.history_max > 0).then(Vec::new);
        state.record.kept_max = options.history_max;
        World {
            seed,
            state: Rc::new(RefCell::new(state)),
            nodes: Vec::new(),
            troubles: Troubles::default(),
            limits: options.limits,
        }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Adds a node: `build` adds the services to its runtime, now and each time the node begins again, and
    /// returns the one that [`World::service`] looks at. What a node keeps over a crash is what `build`
    /// captures. If `build` fails the node is down, and [`World::ended`] has the error.
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
    ) -> u32 {
        let number = self.state.borrow_mut().add_host();
        debug_assert_eq!(number as usize, self.nodes.len(), "each node has a host, and only nodes do");
        self.nodes.push(Driven::new(build));
        number
    }

    pub(crate) fn begin(&mut self, number: u32) {
        // A service that starts may close something again, and its host says so.
        self.state.borrow_mut().hosts[number as usize].is_up = true;
        self.nodes[number as usize].begin(&self.state, number, &self.limits);
        let mut state = self.state.borrow_mut();
        // A turn that was due in its former life is one of this.
        state.hosts[number as usize].is_waiting = false;
        state.make_runnable(number);
        drop(state);
        if self.nodes[number as usize].runtime.is_none() {
            self.note_end(number);
        }
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = Node> + use<> {
        (0..self.nodes.len() as u32).map(Node)
    }

    /// A node's address. On its own node it is also the loopback.
    pub fn ip(&self, node: impl Into<Node>) -> Ipv4Addr {
        self.state.borrow().hosts[node.into().0 as usize].ip
    }

    /// A node's runtime; `None` while the node is down.
    pub fn runtime(&mut self, node: impl Into<Node>) -> Option<&mut Runtime> {
        self.nodes[node.into().0 as usize].runtime.as_mut()
    }

    /// The service that a node's builder returned, to look at; `None` while the node is down.
    pub fn service<S: Service>(&self, id: NodeId<S>) -> Option<&S> {
        let node = &self.nodes[id.number as usize];
        let service = node.made.as_ref()?.downcast_ref::<ServiceId<S>>()?;
        node.runtime.as_ref()?.service(*service)
    }

    /// Calls the service that a node's builder returned, with its context; `None` while the node is down.
    pub fn with<S: Service, T>(
        &mut self,
        id: NodeId<S>,
        f: impl FnOnce(&mut S, &mut Context<S>) -> T,
    ) -> Option<T> {
        let node = &mut self.nodes[id.number as usize];
        let service = *node.made.as_ref()?.downcast_ref::<ServiceId<S>>()?;
        let result = node.runtime.as_mut()?.with(service, f);
        self.state.borrow_mut().make_runnable(id.number);
        result
    }

    /// How a node ended by itself, when it last did: its receipt, or its error.
    pub fn ended(&self, node: impl Into<Node>) -> Option<&Result<Receipt, Error>> {
        self.nodes[node.into().0 as usize].ended.as_ref()
    }

    /// Whether a node is up.
    pub fn is_up(&self, node: impl Into<Node>) -> bool {
        self.nodes[node.into().0 as usize].runtime.is_some()
    }

    /// Makes an engine by hand: it belongs to no node, and moves the world in its own `wait`. All of them
    /// are on one host, and reach each other by the loopback.
    pub fn engine(&mut self) -> SimEngine {
        if self.state.borrow().hosts.is_empty() {
            self.state.borrow_mut().add_host();
            self.nodes.push(Driven::new::<()>(|_| {
                Err(Error::Misuse { operation: "restart", why: "this host has no node" })
            }));
        }
        SimEngine::new(&self.state, 0, None)
    }

    /// Makes a virtual source, open, with nothing to read and no room for output.
    pub fn feed(&mut self) -> Feed {
        Feed::new(&self.state)
    }

    /// Sets how a node's disk is; what is on it stays.
    pub fn set_disk(&mut self, node: impl Into<Node>, options: DiskOptions) {
        self.state.borrow_mut().hosts[node.into().0 as usize].disk.options = options;
    }

    /// What became of a node's disk so far.
    pub fn disk(&self, node: impl Into<Node>) -> DiskCounts {
        self.state.borrow().hosts[node.into().0 as usize].disk.counts
    }

    /// Puts a file on a node's disk, safe from power cuts; its directories are made where they are not there.
    pub fn put_file(&mut self, node: impl Into<Node>, path: &str, content: &[u8]) {
        let mut state = self.state.borrow_mut();
        let now = state.now;
        state.hosts[node.into().0 as usize].disk.put(path, content, now);
    }

    /// The content of a file on a node's disk, as a read would find it now.
    pub fn file(&self, node: impl Into<Node>, path: &str) -> Option<Vec<u8>> {
        self.state.borrow().hosts[node.into().0 as usize].disk.content(path).map(<[u8]>::to_vec)
    }

    // Time.

    /// The virtual time.
    pub fn now(&self) -> Time {
        Time::from_nanos(self.state.borrow().now)
    }

    /// Lets one thing happen: a turn of a node, or an event of the network. `false`: nothing is left that
    /// would ever happen.
    pub fn step(&mut self) -> bool {
        self.step_until(u64::MAX)
    }

    pub(crate) fn step_until(&mut self, end: u64) -> bool {
        let task = {
            let mut state = self.state.borrow_mut();
            state.hear();
            if let Some(node) = state.runnable.pop_front() {
                let host = &mut state.hosts[node as usize];
                host.is_queued = false;
                // It may have been paused while its turn was due.
                host.is_waiting |= host.is_paused;
                (!host.is_paused).then_some(Task::Run(node))
            } else if state.queue.next_at().is_some_and(|at| at <= end) {
                state.advance()
            } else {
                return false;
            }
        };
        match task {
            Some(Task::Run(node)) => self.run_node(node),
            Some(Task::Job(job)) => job(),
            #[cfg(unix)]
            Some(Task::Child(child, happening)) => crate::child::happen(&self.state, child, happening),
            Some(Task::File(due)) => due.tell(&self.state),
            Some(Task::Trouble { round }) => self.trouble(round),
            Some(Task::Relief(number)) => self.relieve(number),
            Some(Task::Restart { node, life }) => self.restart_planned(node, life),
            None => (),
        }
        true
    }

    /// Lets so much virtual time pass.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.state.borrow().now.saturating_add(nanos(time));
        while self.step_until(end) {}
        self.state.borrow_mut().now = end;
    }

    /// Lets things happen until the condition holds, looked at after each; at most so much virtual time.
    /// Whether it came to hold.
    pub fn run_until(&mut self, time_max: Duration, mut done: impl FnMut(&mut World) -> bool) -> bool {
        let end = self.state.borrow().now.saturating_add(nanos(time_max));
        loop {
            if done(self) {
                return true;
            }
            if !self.step_until(end) {
                self.state.borrow_mut().now = end;
                return done(self);
            }
        }
    }

    /// Lets so much virtual time pass, and looks after each thing that happens whether what must always
    /// hold does.
    ///
    /// # Errors
    /// The first violation that `check` tells.
    pub fn run_checked<E>(
        &mut self,
        time: Duration,
        mut check: impl FnMut(&mut World) -> Result<(), E>,
    ) -> Result<(), E> {
        let end = self.state.borrow().now.saturating_add(nanos(time));
        while self.step_until(end) {
            check(self)?;
        }
        self.state.borrow_mut().now = end;
        Ok(())
    }

    fn run_node(&mut self, number: u32) {
        let node = &mut self.nodes[number as usize];
        let Some(runtime) = &mut node.runtime else { return };
        let (now, busy) = {
            let mut state = self.state.borrow_mut();
            let (now, busy) = (state.now, state.now + state.turn_cost);
            // Before the turn: what becomes ready in it is for the next, which is later.
            state.hosts[number as usize].busy_until = busy;
            (now, busy)
        };
        let turned = runtime.turn(Some(Duration::ZERO));
        let is_over = turned.is_err() || runtime.is_over();
        let wait = if is_over { None } else { runtime.next_deadline() };
        let mut state = self.state.borrow_mut();
        state.record.turns += 1;
        let has_more = state.has_more(number);
        if is_over {
            drop(state);
            return self.finish(number, turned.err());
        }
        let due = wait.map(|wait| now.saturating_add(nanos(wait)));
        let due = if has_more { Some(busy) } else { due };
        if let Some(at) = due.filter(|at| *at < u64::MAX) {
            state.run_at(number, at.max(busy));
        }
        // A wake with nothing to tell: the runtime must not mind.
        if state.strikes(Kind::EarlyWake) {
            state.tally.observe(Kind::EarlyWake);
            let at = busy + state.chance.between(1, 1_000_000);
            state.run_at(number, at);
        }
    }

    /// A runtime has ended by itself.
    fn finish(&mut self, number: u32, error: Option<Error>) {
        let node = &mut self.nodes[number as usize];
        let Some(mut runtime) = node.runtime.take() else { return };
        node.made = None;
        // The host stays up, and refuses who connects.
        node.ended = Some(error.map_or_else(|| runtime.run(), Err));
        drop(runtime);
        self.end_operations(number, Kind::Crash);
        self.note_end(number);
    }

    // What was.

    /// The digest of all that happened: each answer of an engine, each call of a handler, each byte sent.
    pub fn digest(&self) -> Digest {
        self.state.borrow().digest
    }

    /// How many packets with bytes have arrived so far; cheaper than [`World::summary`].
    pub fn messages(&self) -> u64 {
        self.state.borrow().record.messages
    }

    /// What was counted so far.
    pub fn summary(&self) -> Summary {
        let state = self.state.borrow();
        Summary {
            elapsed: Duration::from_nanos(state.now - BEGIN),
            messages: state.record.messages,
            bytes: state.record.bytes,
            turns: state.record.turns,
            crashes: state.record.crashes,
            ended: (0..).zip(&self.nodes).filter_map(|(number, node)| node.ends.told(number)).collect(),
            datagrams: state.datagrams,
            faults: state.tally.clone(),
            digest: state.digest,
        }
    }

    /// What was kept of what happened; see [`WorldOptions::history_max`].
    pub fn history(&self) -> Ref<'_, [Happening]> {
        Ref::map(self.state.borrow(), |state| state.record.kept.as_deref().unwrap_or_default())
    }

    /// How many happenings found no room in the history.
    pub fn history_left_out(&self) -> u64 {
        self.state.borrow().record.left_out
    }

    /// How much will happen that is known already.
    pub fn pending(&self) -> usize {
        self.state.borrow().queue.len()
    }

    /// What is still there.
    pub fn leaks(&self) -> Leaks {
        let mut state = self.state.borrow_mut();
        state.hear();
        let held = |holder: Holder| matches!(holder, Holder::Transport | Holder::Queue);
        Leaks {
            ends: state.ends.iter().filter(|end| held(end.holder)).count(),
            listeners: state.listeners.iter().flatten().filter(|listener| !listener.is_kept).count(),
            sockets: state.sockets.iter().flatten().count(),
            watched: state.feeds.iter().flatten().filter(|fed| fed.watcher.is_some()).count(),
            engines: state.processes.iter().flatten().count(),
            #[cfg(unix)]
            children: state.children.running(),
            #[cfg(not(unix))]
            children: 0,
        }
    }

    /// Ends all nodes at once, without a word, and says what is left then: it should be nothing.
    pub fn end(&mut self) -> Leaks {
        for number in 0..self.nodes.len() as u32 {
            self.take_down(number, Kind::Vanish);
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

const BEGIN: u64 = 1_000_000_000;
