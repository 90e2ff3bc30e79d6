//! The process of a node: its signals, and its supervisor.

use std::io::{self, IoSlice};

use reactor::{
    Address, Descriptor, Error, Runtime, Service, ServiceId, Time, ToAddress as _,
    engine::{Ending, Transport},
    host::StandIn,
    signals::{Signal, SignalSet, Signals},
    systemd::Activated,
};

use crate::{
    error,
    faults::Kind,
    ids::{EngineId, HostId, Id as _, ListenerId, ObjectId, SourceId},
    testing::harness::Bed,
    world::World,
    world::node::{Node, NodeId},
    world::record::Happening,
    world::state::State,
};

/// The virtual sources that represent parts of a process.
#[derive(Default)]
pub(crate) struct StandIns {
    /// The waiting signal sources, in the order of their creation.
    signals: Vec<Waiting>,
    /// The sources of the connections to a supervisor, with their host.
    supervisors: Vec<(SourceId, HostId)>,
    notices: Vec<Notified>,
    /// The lines that runtimes wrote to standard error.
    errors: Vec<Notified>,
    /// The sockets that supervisors hold for starting nodes, by name and listener number, and the stored
    /// descriptors.
    sockets: Vec<(HostId, String, ListenerId)>,
    stored: Vec<(HostId, String, Descriptor)>,
    /// The supervisors' watchdog interval in microseconds, or 0 for none.
    pub(crate) watchdog: u64,
}

struct Waiting {
    feed: SourceId,
    host: HostId,
    set: SignalSet,
}

struct Notified {
    host: HostId,
    at: Time,
    text: String,
}

impl World {
    /// Sends a signal to a node's process. Returns whether the process handled it.
    ///
    /// Each [`Signals`](reactor::signals::Signals) that waits for the signal gets it. While an earlier signal
    /// of the same kind is pending, the two become one. A draw decides whether they are counted as one, as
    /// the kernel does ([`Arrived::times`] stays), or as two, as a handler does. If no source waits, the
    /// default of signal(7) applies: the process ends as by a [`crash`](World::crash), except for SIGCHLD,
    /// SIGCONT and SIGWINCH. SIGTSTP does nothing, because the simulator does not model a stop. A node that
    /// is down ignores all signals.
    ///
    /// [`Arrived::times`]: reactor::signals::Arrived::times
    ///
    /// ```
    /// use reactor::signals::{Graceful, Signal};
    /// use sim::World;
    /// use std::time::Duration;
    ///
    /// let mut world = World::new(7);
    /// let node = world.add(|runtime| {
    ///     // .. and the services that it stops.
    ///     # struct Idle; impl reactor::Service for Idle {}
    ///     # impl reactor::Receive<()> for Idle {
    ///     #     fn receive(&mut self, _: &mut reactor::Context<Self>, (): ()) -> reactor::Result { Ok(()) }
    ///     # }
    ///     # let idle = runtime.add(Idle)?;
    ///     # runtime.with(idle, |_, cx| cx.after(Duration::from_secs(3600), ()));
    ///     runtime.add(Graceful::within(Duration::from_secs(10)))
    /// });
    /// world.run_for(Duration::from_secs(1));
    /// assert!(world.signal(node, Signal::TERM));
    /// world.run_for(Duration::from_secs(1));
    /// assert!(!world.is_up(node) && world.ended(node).is_some_and(|receipt| receipt.is_ok()));
    /// ```
    pub fn signal(&mut self, node: impl Into<Node>, signal: Signal) -> bool {
        let number = node.into().0;
        if self.nodes[number].runtime.is_none() {
            return false;
        }
        let is_handled = self.state.borrow_mut().signal(number, signal);
        let is_ignored = [Signal::CHLD, Signal::CONT, Signal::WINCH, Signal::TSTP].contains(&signal);
        if !is_handled && !is_ignored {
            self.take_down(number, Kind::Crash);
        }
        is_handled
    }

    /// Adds a node, as [`add`](World::add) does, whose supervisor listens at these named addresses.
    /// [`Context::activated`](reactor::Context::activated) gives a service these sockets at each start of the
    /// node. Connections that arrive after the service ended or crashed wait, and are not refused.
    ///
    /// # Errors
    /// An address is invalid, or occurs twice.
    ///
    /// ```
    /// use reactor::{Bytes, Context, Event, Handle, Id, Result, Service, Stream};
    /// use sim::World;
    ///
    /// struct Web;
    ///
    /// impl Service for Web {
    ///     fn start(&mut self, cx: &mut Context<Self>) -> Result {
    ///         for socket in cx.activated()? {
    ///             assert_eq!(socket.name(), "web");
    ///             cx.listen_on(socket.into_listener()?, |_| Some(Stream::new(Bytes)))?;
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// impl Handle<Stream> for Web {
    ///     fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Event<Bytes>) -> Result {
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut world = World::new(7);
    /// let node = world.add_activated(&[("web", "0.0.0.0:80")], |runtime| runtime.add(Web))?;
    /// assert!(world.is_up(node));
    /// # Ok::<(), reactor::Error>(())
    /// ```
    pub fn add_activated<S: 'static>(
        &mut self,
        sockets: &[(&str, &str)],
        build: impl FnMut(&mut Runtime) -> Result<ServiceId<S>, Error> + 'static,
    ) -> Result<NodeId<S>, Error> {
        let number = self.enter(build);
        for (name, address) in sockets {
            let refused = |source| Error::Os { operation: "listen", resource: (*address).to_owned(), source };
            let address = address.to_address().map_err(refused)?;
            self.state.borrow_mut().keep_listener(number, name, &address).map_err(refused)?;
        }
        self.begin(number);
        Ok(NodeId::new(number))
    }

    /// Returns the node's notifications to its supervisor ([`Supervised`](reactor::systemd::Supervised)) over
    /// all its lives, with their times. Every node has a supervisor.
    /// [`WorldOptions::watchdog`](crate::WorldOptions::watchdog) sets its watchdog.
    pub fn notices(&self, node: impl Into<Node>) -> Vec<(Time, String)> {
        let number = node.into().0;
        let state = self.state.borrow();
        let of = state.stand_ins.notices.iter().filter(|notice| notice.host == number);
        of.map(|notice| (notice.at, notice.text.clone())).collect()
    }
}

impl World {
    /// Returns the lines that a node's runtime wrote to standard error over all its lives, with their times.
    /// They are errors that no service handled. A world keeps the first 1,024 lines.
    pub fn errors(&self, node: impl Into<Node>) -> Vec<(Time, String)> {
        let number = node.into().0;
        let state = self.state.borrow();
        let of = state.stand_ins.errors.iter().filter(|line| line.host == number);
        of.map(|line| (line.at, line.text.clone())).collect()
    }
}

impl<S: Service> Bed<S> {
    /// Returns the lines that the service's runtime wrote to standard error so far, as [`World::errors`]
    /// does.
    pub fn errors(&mut self) -> Vec<(Time, String)> {
        self.with_world(|world| world.errors(Node(HostId::FIRST)))
    }

    /// Sends a signal to the service's process, as [`World::signal`] does. Returns whether the process
    /// handled it. If not, the signal may have ended the service.
    pub fn signal(&mut self, signal: Signal) -> bool {
        self.with_world(|world| world.signal(Node(HostId::FIRST), signal))
    }

    /// Returns the service's notifications to its supervisor so far, as [`World::notices`] does.
    pub fn notices(&mut self) -> Vec<(Time, String)> {
        self.with_world(|world| world.notices(Node(HostId::FIRST)))
    }
}

impl State {
    /// Stores a line of standard error, if there is room for it.
    pub(crate) fn print_error(&mut self, host: HostId, line: &str) -> bool {
        let has_room = self.stand_ins.errors.len() < ERRORS_MAX;
        if has_room {
            let at = Time::from_nanos(self.now);
            self.stand_ins.errors.push(Notified { host, at, text: line.trim_end().to_owned() });
        }
        has_room
    }

    /// Opens the stand-in that an engine on this host requests.
    pub(crate) fn stand_in(&mut self, host: HostId, of: StandIn) -> Option<io::Result<Transport>> {
        let feed = match of {
            StandIn::Signals(set) => {
                let feed = self.add_feed();
                self.stand_ins.signals.push(Waiting { feed, host, set });
                feed
            }
            StandIn::Supervisor => {
                let feed = self.add_feed();
                self.stand_ins.supervisors.push((feed, host));
                let watchdog = self.stand_ins.watchdog.to_le_bytes();
                if let Some(fed) = self.feeds.get_mut(feed) {
                    fed.is_roomy();
                    fed.put(&watchdog);
                }
                feed
            }
            StandIn::Stdin => return Some(Ok(self.open_input(host))),
            StandIn::Stdout => return Some(Ok(self.open_output(host, 0))),
            StandIn::Stderr => return Some(Ok(self.open_output(host, 1))),
            _ => return Some(Err(io::ErrorKind::Unsupported.into())),
        };
        Some(Ok(self.transport(ObjectId::Source(feed))))
    }

    /// Removes a stand-in that its engine closed.
    pub(crate) fn close_stand_in(&mut self, feed: SourceId) {
        self.stand_ins.signals.retain(|waiting| waiting.feed != feed);
        self.stand_ins.supervisors.retain(|(of, _)| *of != feed);
        self.feeds.take(feed);
    }

    /// Sends a signal to all sources of a host that wait for it. Returns whether there is one.
    fn signal(&mut self, host: HostId, signal: Signal) -> bool {
        let at = Time::from_nanos(self.now);
        self.record.keep(|| Happening::Signalled { at, node: Node(host), signal });
        self.digest
            .number(u64::from(host.number()) << 32 | u64::from(signal.number().unsigned_abs()) << 8 | SIGNAL);
        // Sources that were dropped before get no signal.
        self.hear();
        let hears = |waiting: &&Waiting| waiting.host == host && waiting.set.contains(signal);
        let all: Vec<SourceId> =
            self.stand_ins.signals.iter().filter(hears).map(|waiting| waiting.feed).collect();
        for feed in &all {
            let is_counted = self.chance.per_million(500_000);
            if let Some(fed) = self.feeds.get_mut(*feed) {
                fed.merge_record(|pending| merged(pending, signal, is_counted));
            }
            self.look_at_feed(*feed);
        }
        !all.is_empty()
    }

    /// Takes a notification and its descriptors, if a supervisor reads this source.
    pub(crate) fn notify(
        &mut self,
        feed: SourceId,
        bytes: &[IoSlice<'_>],
        with: &mut Vec<Descriptor>,
    ) -> io::Result<usize> {
        let host = self.stand_ins.supervisors.iter().find(|(of, _)| *of == feed).map(|(_, host)| *host);
        let host = host.ok_or_else(|| error::os(error::NOT_SOCKET))?;
        let at = Time::from_nanos(self.now);
        let bytes: Vec<u8> = bytes.iter().flat_map(|part| part.iter().copied()).collect();
        self.digest.number(u64::from(feed.number()) << 24 | (with.len() as u64) << 8 | NOTICE);
        self.digest.bytes(&bytes);
        let text = String::from_utf8_lossy(bytes.strip_suffix(b"\n").unwrap_or(&bytes)).into_owned();
        self.store(host, &text, std::mem::take(with));
        self.record.keep(|| Happening::Notified { at, node: Node(host), text: text.clone() });
        self.stand_ins.notices.push(Notified { host, at, text });
        Ok(bytes.len())
    }

    /// Stores or removes descriptors, if a notification asks for that.
    fn store(&mut self, host: HostId, notice: &str, descriptors: Vec<Descriptor>) {
        let value = |name: &str| notice.lines().filter_map(|line| line.strip_prefix(name)).next_back();
        let name = value("FDNAME=").unwrap_or("stored").to_owned();
        if value("FDSTORE=") == Some("1") {
            let new = descriptors.into_iter().map(|descriptor| (host, name.clone(), descriptor));
            self.stand_ins.stored.extend(new);
        }
        if value("FDSTOREREMOVE=") == Some("1") {
            self.stand_ins.stored.retain(|(of, stored, _)| *of != host || *stored != name);
        }
    }

    /// Opens a listener that a host's supervisor holds.
    fn keep_listener(&mut self, host: HostId, name: &str, address: &Address) -> io::Result<()> {
        let number = self.listen(host, address, BACKLOG)?;
        if let Some(listener) = self.listener(number) {
            listener.is_kept = true;
        }
        self.stand_ins.sockets.push((host, name.to_owned(), number));
        Ok(())
    }

    /// Ends a host's supervisor with its machine. The peers of waiting connections get no notice.
    pub(crate) fn supervisor_gone(&mut self, host: HostId) {
        self.stand_ins.stored.retain(|(of, ..)| *of != host);
        let kept: Vec<ListenerId> = self
            .stand_ins
            .sockets
            .iter()
            .filter(|(of, ..)| *of == host)
            .map(|(.., number)| *number)
            .collect();
        for number in kept {
            let waiting = self.listener(number).map(|listener| std::mem::take(&mut listener.waiting));
            for end in waiting.into_iter().flatten() {
                self.close_end(end, Ending::Orderly);
            }
        }
    }

    /// Returns the descriptors that a host's supervisor passes to a starting process: its sockets, then the
    /// stored ones. Only the first call returns them.
    pub(crate) fn activated(&mut self, host: HostId, process: EngineId) -> Vec<Activated> {
        // First close the descriptors that the former process dropped.
        self.hear();
        let process = self.processes.get_mut(process);
        if process.is_none_or(|process| std::mem::replace(&mut process.is_activated, true)) {
            return Vec::new();
        }
        let StandIns { sockets, stored, .. } = &mut self.stand_ins;
        let is_its = |(of, ..): &mut (HostId, String, Descriptor)| *of == host;
        let stored: Vec<_> = stored.extract_if(.., is_its).collect();
        let sockets: Vec<_> = sockets.iter().filter(|(of, ..)| *of == host).cloned().collect();
        let sockets = sockets
            .into_iter()
            .map(|(_, name, number)| (name, self.transport(ObjectId::Listener(number)).into()));
        let all = sockets.chain(stored.into_iter().map(|(_, name, descriptor)| (name, descriptor)));
        all.map(|(name, descriptor)| Activated::new(&name, descriptor)).collect()
    }
}

/// Returns a pending record with this signal merged into it, or `None` if it is another signal's.
/// `is_counted` means that the handler ran for the new signal on its own.
fn merged(pending: Option<[u8; RECORD]>, signal: Signal, is_counted: bool) -> Option<[u8; RECORD]> {
    let Some(pending) = pending else { return Some(Signals::record(signal, 1)) };
    let [a, b, c, d, times @ ..] = pending;
    let is_same = i32::from_le_bytes([a, b, c, d]) == signal.number();
    let times = u32::from_le_bytes(times).saturating_add(u32::from(is_counted));
    is_same.then(|| Signals::record(signal, times))
}

/// The length of a [`Signals::record`].
pub(crate) const RECORD: usize = 8;
const SIGNAL: u64 = 0x516;
const NOTICE: u64 = 0x4e;
/// The backlog of a systemd socket, as the default `somaxconn` of Linux caps it.
const BACKLOG: u32 = 4096;

/// The most lines of standard error that a world keeps.
const ERRORS_MAX: usize = 1024;
