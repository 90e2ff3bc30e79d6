//! The engine of a simulated world. It answers a runtime's requests to the system from the world.

mod drive;
pub(crate) mod engines;
pub(crate) mod options;
pub(crate) mod sources;
pub(crate) mod table;
pub(crate) mod wake;

use std::{
    cell::RefCell,
    fmt,
    io::{self, ErrorKind},
    rc::Rc,
    sync::Arc,
    task::Waker,
    time::{Duration, SystemTime},
};

use reactor::{
    Address, BindOptions, ConnectOptions, Group, Key, ListenOptions, Time,
    engine::{
        AttachError, Batch, Chunk, DatagramQueue, Ending, Engine, Event, Interest, Medium, Outgoing, Role,
        Sent, Source, Transport,
    },
    file::FileJob,
    host::{Host, Job},
};

use self::{
    table::{Attached, TableEntry},
    wake::WakeFlag,
};
use crate::{
    error,
    faults::Kind,
    ids::{EngineId, HostId, ObjectId, SourceId},
    world::{clock::wall_time, state::State},
};

/// An event, or the key of a transport that can be given back.
pub(crate) enum EngineEvent {
    Event((Key, Event)),
    Detached(Key),
}

/// One engine of a [`World`](crate::World). A node's runtime holds one, and
/// [`World::engine`](crate::World::engine) makes more.
///
/// An engine of a node never moves the clock, because the world does. An engine that
/// [`World::engine`](crate::World::engine) made moves the world in its `wait`: up to the next moment that has
/// an event for it, or to its timeout, and by at least the cost of a turn.
///
/// ```
/// use reactor::{engine::Engine, host::Host};
/// use std::time::Duration;
/// let mut engine = sim::World::new(3).engine();
/// let before = engine.now();
/// engine.wait(Some(Duration::from_secs(5)))?;
/// assert_eq!(engine.now() - before, Duration::from_secs(5));
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct SimEngine {
    pub(crate) state: Rc<RefCell<State>>,
    pub(crate) engine: EngineId,
    host: HostId,
    is_driven: bool,
    pub(crate) wake_flag: Arc<WakeFlag>,
    /// Indexed by the slot of the key.
    pub(crate) table: Vec<Option<TableEntry>>,
    /// How many items of the ready list belong to this batch.
    pub(crate) batch: usize,
    /// What the runtime has closed and the next wait closes; see
    /// [`EngineOptions::closes_late`](crate::EngineOptions::closes_late).
    pub(crate) closing: Vec<(Attached, Ending)>,
    calls: u64,
}

impl SimEngine {
    pub(crate) fn new(state: &Rc<RefCell<State>>, host: HostId, node: Option<HostId>) -> SimEngine {
        let base = &mut state.borrow_mut().base;
        let (engine, wake_flag) = base.engines.add(node);
        if let Some(node) = node {
            base.hosts[node].engine = Some(engine);
        }
        SimEngine {
            state: state.clone(),
            engine,
            host,
            is_driven: node.is_some(),
            wake_flag,
            table: Vec::new(),
            batch: 0,
            closing: Vec::new(),
            calls: 0,
        }
    }

    /// Makes the engine never move the clock, because another driver moves the world.
    pub(crate) fn still(mut self) -> SimEngine {
        self.is_driven = true;
        self
    }
}

/// The world is the machine: nothing real enters it. Elsewhere than on Unix it has no consoles, and a line of the
/// runtime goes to the real standard error.
#[cfg_attr(unix, deny(clippy::missing_trait_methods))]
impl Host for SimEngine {
    fn now(&self) -> Time {
        self.state.borrow().base.clock.time()
    }

    fn wall(&self) -> SystemTime {
        let base = &mut self.state.borrow_mut().base;
        let host = &mut base.hosts[self.host];
        if std::mem::take(&mut host.wall_stepped) {
            base.faults.tally.observe(Kind::WallStep);
        }
        wall_time((base.clock.now() as i64).saturating_add(host.wall_offset))
    }

    fn entropy(&mut self) -> u64 {
        self.state.borrow_mut().base.faults.chance.bits()
    }

    #[cfg(unix)]
    fn print_error(&mut self, line: &str) -> bool {
        let state = &mut *self.state.borrow_mut();
        state.consoles.print_error(self.host, state.base.clock.time(), line)
    }

    fn run_blocking(&mut self, job: Job) -> Option<Job> {
        self.state.borrow_mut().base.add_job(job);
        None
    }

    fn run_file(&mut self, job: FileJob) -> Option<FileJob> {
        let state = &mut *self.state.borrow_mut();
        state.disks.start(&mut state.base, self.host, job);
        None
    }

    fn left_file(&mut self) -> Option<FileJob> {
        // The world's disk performs each operation.
        None
    }

    #[cfg(unix)]
    fn spawn(
        &mut self,
        command: &mut std::process::Command,
        options: &reactor::process::SpawnOptions,
    ) -> io::Result<reactor::process::Child> {
        self.calls += 1;
        crate::os::child::spawn(&self.state, self.host, command, options)
    }

    #[cfg(unix)]
    fn activated(&mut self) -> Option<Vec<reactor::systemd::Activated>> {
        self.calls += 1;
        Some(self.state.borrow_mut().activated(self.host, self.engine))
    }

    #[cfg(unix)]
    fn stand_in(&mut self, of: reactor::host::StandIn) -> Option<io::Result<Transport>> {
        self.calls += 1;
        self.state.borrow_mut().stand_in(self.host, of)
    }
}

impl Engine for SimEngine {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn host(&self) -> &dyn Host {
        self
    }

    fn host_mut(&mut self) -> &mut dyn Host {
        self
    }

    fn waker(&self) -> Waker {
        Arc::clone(&self.wake_flag).into()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.calls += 1;
        self.finish_closes();
        if self.is_driven {
            self.wake_flag.take();
        } else {
            self.drive(timeout);
        }
        self.begin_batch();
        Ok(())
    }

    // The world performs each request at once.
    fn submit(&mut self) {}

    fn finish_closes(&mut self) {
        for (attached, how) in self.closing.drain(..) {
            self.state.borrow_mut().close_attached(attached, how);
        }
    }

    fn next(&mut self) -> Option<(Key, Event)> {
        while self.batch > 0 {
            self.batch -= 1;
            let found = {
                let state = &mut *self.state.borrow_mut();
                let item = state.base.engines.get_mut(self.engine)?.ready.pop_front()?;
                state.event_of(self.engine, item)
            };
            let (key, mut event) = match found {
                Some(EngineEvent::Event(event)) => event,
                Some(EngineEvent::Detached(key)) => match self.remove(key) {
                    Some(
                        Attached::End(_, transport)
                        | Attached::Listener(_, transport)
                        | Attached::Socket(_, transport),
                    ) => (key, Event::Detached(transport)),
                    _ => continue,
                },
                None => continue,
            };
            self.state.borrow_mut().note_event(self.engine, key, &mut event);
            return Some((key, event));
        }
        None
    }

    fn give(&mut self, chunk: Chunk) {
        let state = &mut *self.state.borrow_mut();
        state.streams.give_back(&mut state.base, self.engine, chunk.into_buffer());
    }

    fn watch(&mut self, key: Key, source: Source<'_>, interest: Option<Interest>) -> io::Result<()> {
        self.calls += 1;
        let object = object_of(source)?;
        let watcher = (self.engine, key);
        let watched = {
            let state = &mut *self.state.borrow_mut();
            match object {
                ObjectId::Source(id) => {
                    state.sources.watch(&mut state.base, id, watcher, interest)?;
                    Attached::Source(id)
                }
                #[cfg(unix)]
                object => {
                    Attached::Watched(state.streams.watch_end(&mut state.base, object, watcher, interest)?)
                }
                #[cfg(not(unix))]
                _ => return Err(error::os(error::BAD_DESCRIPTOR)),
            }
        };
        self.insert(key, watched);
        Ok(())
    }

    fn unwatch(&mut self, key: Key, _: Source<'_>) {
        self.calls += 1;
        if let Some(attached) = self.remove(key) {
            self.state.borrow_mut().release(attached);
        }
    }

    fn read(&mut self, source: Source<'_>, into: &mut [u8]) -> io::Result<usize> {
        self.calls += 1;
        let id = virtual_source(source)?;
        let state = &mut *self.state.borrow_mut();
        state.sources.read(&mut state.base, id, into)
    }

    fn write(&mut self, source: Source<'_>, from: &Outgoing) -> io::Result<usize> {
        self.calls += 1;
        let id = virtual_source(source)?;
        let state = &mut *self.state.borrow_mut();
        state.sources.write(&mut state.base, id, from)
    }

    #[cfg(unix)]
    fn pass(
        &mut self,
        to: Source<'_>,
        bytes: &[io::IoSlice<'_>],
        with: &mut Vec<reactor::Descriptor>,
    ) -> io::Result<usize> {
        self.calls += 1;
        let object = object_of(to)?;
        let state = &mut *self.state.borrow_mut();
        match object {
            ObjectId::Source(id) => state.supervisors.notify(&mut state.base, id, bytes, with),
            object => state.streams.pass(&mut state.base, object, bytes, with),
        }
    }

    #[cfg(unix)]
    fn receive(&mut self, from: Source<'_>, into: &mut [u8]) -> io::Result<reactor::engine::Delivery> {
        self.calls += 1;
        let object = object_of(from)?;
        let state = &mut *self.state.borrow_mut();
        state.streams.receive(&mut state.base, object, into)
    }

    fn listen(&mut self, address: &Address, options: &ListenOptions) -> io::Result<Transport> {
        self.calls += 1;
        let state = &mut *self.state.borrow_mut();
        let id = state.streams.listen(&mut state.base, self.host, address, options.backlog)?;
        Ok(state.base.engines.transport(ObjectId::Listener(id), Medium::SOCKET))
    }

    fn connect(&mut self, address: &Address, options: &ConnectOptions) -> io::Result<Transport> {
        self.calls += 1;
        let state = &mut *self.state.borrow_mut();
        let (from, local) = ((self.host, self.engine), options.local.as_ref());
        let end = state.streams.connect(&mut state.base, from, address, local)?;
        Ok(state.streams.transport(&state.base, end))
    }

    fn bind(&mut self, address: &Address, options: &BindOptions) -> io::Result<Transport> {
        self.calls += 1;
        let state = &mut *self.state.borrow_mut();
        let id = state.datagrams.bind_socket(&mut state.base, self.host, address, options)?;
        Ok(state.base.engines.transport(ObjectId::Socket(id), Medium::SOCKET))
    }

    fn send_datagrams(&mut self, key: Key, queue: &mut DatagramQueue) -> usize {
        self.calls += 1;
        let Some(Attached::Socket(number, _)) = self.attached(key) else { return 0 };
        let state = &mut *self.state.borrow_mut();
        state.datagrams.send_datagrams(&mut state.base, *number, queue)
    }

    fn give_batch(&mut self, batch: Batch) {
        drop(batch);
    }

    fn set_longest(&mut self, key: Key, bytes: usize) {
        self.calls += 1;
        let Some(Attached::Socket(number, _)) = self.attached(key) else { return };
        if let Some(socket) = self.state.borrow_mut().datagrams.socket(*number) {
            socket.longest = bytes;
        }
    }

    fn set_member(&mut self, key: Key, group: &Group, member: bool) -> io::Result<()> {
        self.calls += 1;
        let Some(Attached::Socket(number, _)) = self.attached(key) else {
            return Err(ErrorKind::NotFound.into());
        };
        self.state.borrow_mut().datagrams.set_socket_member(*number, group, member)
    }

    fn attach(&mut self, key: Key, transport: Transport, role: Role) -> Result<(), AttachError> {
        self.calls += 1;
        let object = match object_of(transport.source()) {
            Ok(object) => object,
            Err(error) => return Err(AttachError { transport, error }),
        };
        if self.attached(key).is_some() {
            return Err(AttachError { transport, error: error::os(error::EXISTS) });
        }
        let mut guard = self.state.borrow_mut();
        let State { base, streams, datagrams, .. } = &mut *guard;
        if role == Role::Stream && base.faults.draw_visible(Kind::AttachFails) {
            return Err(AttachError { transport, error: error::os(error::NO_SPACE) });
        }
        let owner = (self.engine, key);
        let attached = match object {
            ObjectId::Socket(id) if role == Role::Datagrams && datagrams.attach_socket(base, id, owner) => {
                Attached::Socket(id, transport)
            }
            ObjectId::Listener(id) if streams.attach_listener(base, id, owner) => {
                Attached::Listener(id, transport)
            }
            ObjectId::End(id) if streams.attach_end(base, id, owner) => Attached::End(id, transport),
            _ => return Err(AttachError { transport, error: error::os(error::BAD_DESCRIPTOR) }),
        };
        drop(guard);
        self.insert(key, attached);
        Ok(())
    }

    fn reading(&mut self, key: Key, on: bool) {
        self.calls += 1;
        let State { base, streams, datagrams, .. } = &mut *self.state.borrow_mut();
        match self.attached(key) {
            Some(Attached::End(at, _)) => streams.set_reading(base, *at, on),
            Some(Attached::Socket(number, _)) => datagrams.set_socket_reading(base, *number, on),
            Some(Attached::Listener(number, _)) => streams.set_accepting(base, *number, on),
            _ => (),
        }
    }

    fn turn_away(&mut self, _: Key) -> bool {
        // A virtual listener never runs out of descriptors.
        false
    }

    // The engine sees all that has arrived.
    fn probe(&mut self, _: Key) {}

    fn send(&mut self, key: Key, queue: Box<Outgoing>) -> Option<Sent> {
        self.calls += 1;
        let Some(at) = self.end(key) else {
            return Some(Sent { queue, result: Err(ErrorKind::NotFound.into()) });
        };
        let state = &mut *self.state.borrow_mut();
        let end = &state.streams.ends[at];
        if end.parked.is_some() || end.sent.is_some() || end.detaching {
            return Some(Sent { queue, result: Err(error::os(error::INVALID)) });
        }
        state.streams.send(&mut state.base, at, queue)
    }

    fn direct_sink(&self, _: Key) -> Option<Source<'_>> {
        // Only the engine writes to a virtual stream.
        None
    }

    fn await_room(&mut self, _: Key) -> bool {
        false
    }

    fn shutdown(&mut self, key: Key) -> io::Result<()> {
        self.calls += 1;
        let at = self.end(key).ok_or(ErrorKind::NotFound)?;
        let state = &mut *self.state.borrow_mut();
        state.streams.shut(&mut state.base, at)
    }

    fn detach(&mut self, key: Key) {
        self.calls += 1;
        let State { base, streams, datagrams, .. } = &mut *self.state.borrow_mut();
        match self.attached(key) {
            Some(Attached::End(at, _)) => streams.detach(base, *at),
            Some(Attached::Socket(number, _)) => datagrams.detach_socket(base, *number),
            Some(Attached::Listener(number, _)) => streams.detach_listener(base, *number, self.engine),
            _ => (),
        }
    }

    fn close(&mut self, key: Key, how: Ending) {
        self.calls += 1;
        if !matches!(
            self.attached(key),
            Some(Attached::End(..) | Attached::Listener(..) | Attached::Socket(..))
        ) {
            return;
        }
        let Some(attached) = self.remove(key) else { return };
        let state = &mut *self.state.borrow_mut();
        if state.base.engines.options.closes_late {
            let how = state.disown(&attached, how);
            self.closing.push((attached, how));
        } else {
            state.close_attached(attached, how);
        }
    }

    fn local(&self, key: Key) -> io::Result<Address> {
        let mut state = self.state.borrow_mut();
        match self.attached(key) {
            Some(Attached::End(at, _)) => Ok(state.streams.ends[*at].local.clone()),
            Some(Attached::Listener(number, _)) => state
                .streams
                .listener(*number)
                .map(|listener| listener.address.clone())
                .ok_or(ErrorKind::NotFound.into()),
            Some(Attached::Socket(number, _)) => {
                let socket = state.datagrams.socket(*number);
                socket.map(|socket| socket.address.clone()).ok_or(ErrorKind::NotFound.into())
            }
            _ => Err(ErrorKind::NotFound.into()),
        }
    }

    fn peer(&self, key: Key) -> io::Result<Address> {
        match self.attached(key) {
            Some(Attached::End(at, _)) => Ok(self.state.borrow().streams.ends[*at].peer.clone()),
            Some(Attached::Listener(..)) => Err(error::os(error::NOT_CONNECTED)),
            Some(Attached::Socket(number, _)) => {
                let peer =
                    self.state.borrow_mut().datagrams.socket(*number).and_then(|socket| socket.peer.clone());
                peer.ok_or_else(|| error::os(error::NOT_CONNECTED))
            }
            _ => Err(ErrorKind::NotFound.into()),
        }
    }

    #[cfg(unix)]
    fn peer_credentials(&self, key: Key) -> io::Result<reactor::Credentials> {
        match self.attached(key) {
            Some(Attached::End(at, _) | Attached::Watched(at)) => {
                self.state.borrow().streams.credentials_of_peer(*at)
            }
            Some(_) => Err(ErrorKind::Unsupported.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    #[cfg(not(unix))]
    fn peer_credentials(&self, _: Key) -> io::Result<reactor::Credentials> {
        Err(ErrorKind::Unsupported.into())
    }

    fn calls(&self) -> u64 {
        self.calls
    }

    fn memory(&self) -> usize {
        0
    }

    #[cfg(unix)]
    fn fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }
}

impl fmt::Debug for SimEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attached = self.table.iter().flatten().count();
        f.debug_struct("SimEngine")
            .field("host", &self.host)
            .field("attached", &attached)
            .finish_non_exhaustive()
    }
}

/// Returns the object behind a source.
fn object_of(source: Source<'_>) -> io::Result<ObjectId> {
    source.number().map(ObjectId::of).ok_or_else(error::no_descriptors)
}

/// Returns the id of a virtual source.
fn virtual_source(source: Source<'_>) -> io::Result<SourceId> {
    match object_of(source)? {
        ObjectId::Source(id) => Ok(id),
        _ => Err(error::os(error::BAD_DESCRIPTOR)),
    }
}
