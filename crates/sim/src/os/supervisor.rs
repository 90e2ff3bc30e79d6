//! The supervisor of each node: its notifications, the sockets that it opens, and the descriptors that it
//! stores.

use std::io::{self, IoSlice};

use reactor::{
    Address, Descriptor, Error, Runtime, Service, ServiceId, Time, ToAddress as _,
    engine::{Ending, Medium},
    systemd::Activated,
};

use crate::{
    engine::sources::Sources,
    error,
    ids::{EngineId, HostId, Id as _, ListenerId, ObjectId, SourceId},
    net::stream::Streams,
    testing::harness::Harness,
    world::{
        World,
        base::Base,
        node::{Node, NodeId},
        record::Happening,
        state::State,
    },
};

/// The supervisors of all hosts.
pub(crate) struct Supervisors {
    /// The sources of the connections to a supervisor, with their host.
    connections: Vec<(SourceId, HostId)>,
    notices: Vec<Notice>,
    /// The sockets that supervisors hold for starting nodes, by name and listener.
    sockets: Vec<(HostId, String, ListenerId)>,
    stored: Vec<(HostId, String, Descriptor)>,
    /// The watchdog interval in microseconds, or 0 for none.
    watchdog: u64,
}

struct Notice {
    host: HostId,
    at: Time,
    text: String,
}

impl Supervisors {
    /// Makes supervisors with a watchdog interval, at least a microsecond.
    pub(crate) fn new(watchdog: Option<std::time::Duration>) -> Supervisors {
        let micros = |interval| (crate::net::link::nanos(interval) / 1000).max(1);
        Supervisors {
            connections: Vec::new(),
            notices: Vec::new(),
            sockets: Vec::new(),
            stored: Vec::new(),
            watchdog: watchdog.map_or(0, micros),
        }
    }

    /// Makes the source of a connection to a host's supervisor.
    pub(crate) fn connect(&mut self, base: &mut Base, sources: &mut Sources, host: HostId) -> SourceId {
        let id = sources.add();
        self.connections.push((id, host));
        let watchdog = self.watchdog.to_le_bytes();
        sources.change(base, id, |source| {
            source.allow_all();
            source.put(&watchdog);
        });
        id
    }

    pub(crate) fn remove(&mut self, source: SourceId) {
        self.connections.retain(|(of, _)| *of != source);
    }

    /// Takes a notification and its descriptors, if a supervisor reads this source.
    pub(crate) fn notify(
        &mut self,
        base: &mut Base,
        source: SourceId,
        bytes: &[IoSlice<'_>],
        with: &mut Vec<Descriptor>,
    ) -> io::Result<usize> {
        let host = self.connections.iter().find(|(of, _)| *of == source).map(|(_, host)| *host);
        let host = host.ok_or_else(|| error::os(error::NOT_SOCKET))?;
        let bytes: Vec<u8> = bytes.iter().flat_map(|part| part.iter().copied()).collect();
        let digest = &mut base.record.digest;
        digest.number(u64::from(source.number()) << 24 | (with.len() as u64) << 8 | NOTICE);
        digest.bytes(&bytes);
        let text = String::from_utf8_lossy(bytes.strip_suffix(b"\n").unwrap_or(&bytes)).into_owned();
        self.store(host, &text, std::mem::take(with));
        base.note(|at| Happening::Notified { at, node: Node(host), text: text.clone() });
        self.notices.push(Notice { host, at: base.clock.time(), text });
        Ok(bytes.len())
    }

    /// Stores or removes descriptors, if a notification asks for that.
    fn store(&mut self, host: HostId, notice: &str, descriptors: Vec<Descriptor>) {
        let value = |name: &str| notice.lines().filter_map(|line| line.strip_prefix(name)).next_back();
        let name = value("FDNAME=").unwrap_or("stored").to_owned();
        if value("FDSTORE=") == Some("1") {
            let new = descriptors.into_iter().map(|descriptor| (host, name.clone(), descriptor));
            self.stored.extend(new);
        }
        if value("FDSTOREREMOVE=") == Some("1") {
            self.stored.retain(|(of, stored, _)| *of != host || *stored != name);
        }
    }

    /// Opens a listener that a host's supervisor holds.
    fn keep_listener(
        &mut self,
        (base, streams): (&mut Base, &mut Streams),
        host: HostId,
        name: &str,
        address: &Address,
    ) -> io::Result<()> {
        let id = streams.listen(base, host, address, BACKLOG)?;
        if let Some(listener) = streams.listener(id) {
            listener.is_kept = true;
        }
        self.sockets.push((host, name.to_owned(), id));
        Ok(())
    }

    /// Ends a host's supervisor with its machine. The peers of waiting connections get no notice.
    pub(crate) fn end_machine(&mut self, base: &mut Base, streams: &mut Streams, host: HostId) {
        self.stored.retain(|(of, ..)| *of != host);
        for (_, _, id) in self.sockets.iter().filter(|(of, ..)| *of == host) {
            let waiting = streams.listener(*id).map(|listener| std::mem::take(&mut listener.waiting));
            for end in waiting.into_iter().flatten() {
                streams.close_end(base, end, Ending::Orderly);
            }
        }
    }

    /// Returns the descriptors that a host's supervisor passes to a starting process: its sockets, then the
    /// stored ones. Only the first call of an engine returns them.
    fn activate(&mut self, base: &mut Base, host: HostId, engine: EngineId) -> Vec<Activated> {
        let state = base.engines.get_mut(engine);
        if state.is_none_or(|state| std::mem::replace(&mut state.is_activated, true)) {
            return Vec::new();
        }
        let is_its = |(of, ..): &mut (HostId, String, Descriptor)| *of == host;
        let stored: Vec<_> = self.stored.extract_if(.., is_its).collect();
        let sockets = self.sockets.iter().filter(|(of, ..)| *of == host).map(|(_, name, id)| {
            let transport = base.engines.transport(ObjectId::Listener(*id), Medium::SOCKET);
            Activated::new(name, transport.into())
        });
        let stored = stored.into_iter().map(|(_, name, descriptor)| Activated::new(&name, descriptor));
        sockets.chain(stored).collect()
    }
}

impl State {
    /// Returns the descriptors that a host's supervisor passes to a starting process.
    pub(crate) fn activated(&mut self, host: HostId, engine: EngineId) -> Vec<Activated> {
        // First close the descriptors that the former process dropped.
        self.take_messages();
        self.supervisors.activate(&mut self.base, host, engine)
    }
}

impl World {
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
            let state = &mut *self.state.borrow_mut();
            let parts = (&mut state.base, &mut state.streams);
            state.supervisors.keep_listener(parts, number, name, &address).map_err(refused)?;
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
        let of = state.supervisors.notices.iter().filter(|notice| notice.host == number);
        of.map(|notice| (notice.at, notice.text.clone())).collect()
    }
}

impl<S: Service> Harness<S> {
    /// Returns the service's notifications to its supervisor so far, as [`World::notices`] does.
    pub fn notices(&mut self) -> Vec<(Time, String)> {
        self.with_world(|world| world.notices(Node(HostId::FIRST)))
    }
}

const NOTICE: u64 = 0x4e;
/// The backlog of a systemd socket, as the default `somaxconn` of Linux caps it.
const BACKLOG: u32 = 4096;
