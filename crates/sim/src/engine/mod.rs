//! The engine of a simulated world. It answers a runtime's requests to the system from the world.

pub(crate) mod bell;
mod drive;
pub(crate) mod options;
pub(crate) mod table;

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
        AttachError, Batch, Chunk, DatagramQueue, Ending, Engine, Event, Interest, Outgoing, Role, Sent,
        Source, Transport,
    },
    file::FileJob,
    host::{Host, Job},
};

use crate::{
    engine::bell::Bell,
    engine::table::{Entry, Held},
    error,
    faults::Kind,
    ids::{EngineId, HostId, ObjectId, SourceId},
    net::input::Told,
    world::state::{Item, State},
};

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
    pub(crate) process: EngineId,
    host: HostId,
    is_driven: bool,
    pub(crate) bell: Arc<Bell>,
    /// Indexed by the slot of the key.
    pub(crate) table: Vec<Option<Entry>>,
    /// How many items of the ready list belong to this batch.
    pub(crate) batch: usize,
    /// What the runtime has closed and the next wait closes; see
    /// [`EngineOptions::closes_late`](crate::EngineOptions::closes_late).
    pub(crate) closing: Vec<(Held, Ending)>,
    calls: u64,
}

impl SimEngine {
    pub(crate) fn new(state: &Rc<RefCell<State>>, host: HostId, node: Option<HostId>) -> SimEngine {
        let (process, bell) = state.borrow_mut().add_process(node);
        SimEngine {
            state: state.clone(),
            process,
            host,
            is_driven: node.is_some(),
            bell,
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

/// The world is the machine: nothing real enters it.
#[deny(clippy::missing_trait_methods)]
impl Host for SimEngine {
    fn now(&self) -> Time {
        Time::from_nanos(self.state.borrow().now)
    }

    fn wall(&self) -> SystemTime {
        let mut state = self.state.borrow_mut();
        if std::mem::take(&mut state.hosts[self.host].wall_stepped) {
            state.tally.observe(Kind::WallStep);
        }
        let offset = state.hosts[self.host].wall_offset;
        let since = (state.now as i64).saturating_add(offset);
        let (origin, by) = (SystemTime::UNIX_EPOCH + WALL_ORIGIN, Duration::from_nanos(since.unsigned_abs()));
        // The wall clock may be set to a time before the world began.
        let wall = if since < 0 { origin.checked_sub(by) } else { origin.checked_add(by) };
        wall.unwrap_or(SystemTime::UNIX_EPOCH)
    }

    fn entropy(&mut self) -> u64 {
        self.state.borrow_mut().chance.bits()
    }

    #[cfg(unix)]
    fn print_error(&mut self, line: &str) -> bool {
        self.state.borrow_mut().print_error(self.host, line)
    }

    fn run_blocking(&mut self, job: Job) -> Option<Job> {
        self.state.borrow_mut().add_job(job);
        None
    }

    fn run_file(&mut self, job: FileJob) -> Option<FileJob> {
        self.state.borrow_mut().add_file_job(self.host, job);
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
        Some(self.state.borrow_mut().activated(self.host, self.process))
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
        Arc::clone(&self.bell).into()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.calls += 1;
        self.finish_closes();
        if self.is_driven {
            self.bell.answer();
        } else {
            self.drive(timeout);
        }
        self.begin_batch();
        Ok(())
    }

    // The world performs each request at once.
    fn submit(&mut self) {}

    fn finish_closes(&mut self) {
        for (held, how) in self.closing.drain(..) {
            self.state.borrow_mut().close_held(held, how);
        }
    }

    fn next(&mut self) -> Option<(Key, Event)> {
        while self.batch > 0 {
            self.batch -= 1;
            let told = {
                let state = &mut *self.state.borrow_mut();
                let item = state.processes.get_mut(self.process)?.ready.pop_front()?;
                match item {
                    Item::End(at) => state.end_event(at, self.process),
                    Item::Listener(number) => state.listener_event(number),
                    Item::Feed(number) => state.feed_event(number, self.process).map(Told::Event),
                    Item::Socket(number) => state.socket_event(number, self.process),
                }
            };
            let (key, mut event) = match told {
                Some(Told::Event(event)) => event,
                Some(Told::Detached(key)) => match self.remove(key) {
                    Some(
                        Held::End(_, transport) | Held::Listener(_, transport) | Held::Socket(_, transport),
                    ) => (key, Event::Detached(transport)),
                    _ => continue,
                },
                None => continue,
            };
            self.state.borrow_mut().note_answer(self.process, key, &mut event);
            return Some((key, event));
        }
        None
    }

    fn give(&mut self, chunk: Chunk) {
        self.state.borrow_mut().give_back(self.process, chunk.into_buffer());
    }

    fn watch(&mut self, key: Key, source: Source<'_>, interest: Option<Interest>) -> io::Result<()> {
        self.calls += 1;
        let object = object_of(source)?;
        let process = self.process;
        let mut state = self.state.borrow_mut();
        #[cfg(unix)]
        if !matches!(object, ObjectId::Source(_)) {
            let at = state.watch_end(object, (process, key), interest)?;
            drop(state);
            self.insert(key, Held::Watched(at));
            return Ok(());
        }
        let number = as_feed(object)?;
        let fed = state.feeds.get_mut(number);
        let fed = fed.ok_or_else(|| error::os(error::BAD_DESCRIPTOR))?;
        if fed.watcher.is_some_and(|watcher| watcher != (process, key)) {
            return Err(error::os(error::EXISTS));
        }
        (fed.watcher, fed.interest, fed.told) = (Some((process, key)), interest, false);
        state.look_at_feed(number);
        drop(state);
        self.insert(key, Held::Feed(number));
        Ok(())
    }

    fn unwatch(&mut self, key: Key, _: Source<'_>) {
        self.calls += 1;
        if let Some(held) = self.remove(key) {
            self.state.borrow_mut().let_go(held);
        }
    }

    fn read(&mut self, source: Source<'_>, into: &mut [u8]) -> io::Result<usize> {
        self.calls += 1;
        let number = as_feed(object_of(source)?)?;
        let mut state = self.state.borrow_mut();
        let fed = state.feeds.get_mut(number);
        let result = fed.ok_or_else(|| error::os(error::BAD_DESCRIPTOR))?.read(into);
        if let Ok(count) = result {
            state.digest.bytes(&into[..count]);
            state.was_read(number, count);
        }
        result
    }

    fn write(&mut self, source: Source<'_>, from: &Outgoing) -> io::Result<usize> {
        self.calls += 1;
        let number = as_feed(object_of(source)?)?;
        let mut state = self.state.borrow_mut();
        let fed = state.feeds.get_mut(number);
        let result = fed.ok_or_else(|| error::os(error::BAD_DESCRIPTOR))?.write(from);
        if let Ok(count) = result {
            state.digest.bytes(&from.front()[..count]);
            state.was_written(number);
        }
        result
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
            ObjectId::Source(feed) => state.notify(feed, bytes, with),
            object => state.pass(object, bytes, with),
        }
    }

    #[cfg(unix)]
    fn receive(&mut self, from: Source<'_>, into: &mut [u8]) -> io::Result<reactor::engine::Delivery> {
        self.calls += 1;
        let object = object_of(from)?;
        self.state.borrow_mut().receive(object, into)
    }

    fn listen(&mut self, address: &Address, options: &ListenOptions) -> io::Result<Transport> {
        self.calls += 1;
        let mut state = self.state.borrow_mut();
        let listener = state.listen(self.host, address, options.backlog)?;
        Ok(state.transport(ObjectId::Listener(listener)))
    }

    fn connect(&mut self, address: &Address, options: &ConnectOptions) -> io::Result<Transport> {
        self.calls += 1;
        let mut state = self.state.borrow_mut();
        let end = state.connect((self.host, self.process), address, options.local.as_ref())?;
        Ok(state.transport(end))
    }

    fn bind(&mut self, address: &Address, options: &BindOptions) -> io::Result<Transport> {
        self.calls += 1;
        let mut state = self.state.borrow_mut();
        let socket = state.bind_socket(self.host, address, options)?;
        Ok(state.transport(ObjectId::Socket(socket)))
    }

    fn send_datagrams(&mut self, key: Key, queue: &mut DatagramQueue) -> usize {
        self.calls += 1;
        let Some(Held::Socket(number, _)) = self.held(key) else { return 0 };
        self.state.borrow_mut().send_datagrams(*number, queue)
    }

    fn give_batch(&mut self, batch: Batch) {
        drop(batch);
    }

    fn set_longest(&mut self, key: Key, bytes: usize) {
        self.calls += 1;
        let Some(Held::Socket(number, _)) = self.held(key) else { return };
        if let Some(socket) = self.state.borrow_mut().socket(*number) {
            socket.longest = bytes;
        }
    }

    fn set_member(&mut self, key: Key, group: &Group, member: bool) -> io::Result<()> {
        self.calls += 1;
        let Some(Held::Socket(number, _)) = self.held(key) else { return Err(ErrorKind::NotFound.into()) };
        self.state.borrow_mut().set_socket_member(*number, group, member)
    }

    fn attach(&mut self, key: Key, transport: Transport, role: Role) -> Result<(), AttachError> {
        self.calls += 1;
        let object = match object_of(transport.source()) {
            Ok(object) => object,
            Err(error) => return Err(AttachError { transport, error }),
        };
        if self.held(key).is_some() {
            return Err(AttachError { transport, error: error::os(error::EXISTS) });
        }
        let mut state = self.state.borrow_mut();
        if role == Role::Stream && state.strikes(Kind::AttachFails) {
            state.tally.observe(Kind::AttachFails);
            return Err(AttachError { transport, error: error::os(error::NO_SPACE) });
        }
        let owner = (self.process, key);
        let held = match object {
            ObjectId::Socket(socket) if role == Role::Datagrams && state.attach_socket(socket, owner) => {
                Held::Socket(socket, transport)
            }
            ObjectId::Listener(id) if state.attach_listener(id, owner) => Held::Listener(id, transport),
            ObjectId::End(end) if state.attach_end(end, owner) => Held::End(end, transport),
            _ => return Err(AttachError { transport, error: error::os(error::BAD_DESCRIPTOR) }),
        };
        drop(state);
        self.insert(key, held);
        Ok(())
    }

    fn reading(&mut self, key: Key, on: bool) {
        self.calls += 1;
        let state = &mut *self.state.borrow_mut();
        match self.held(key) {
            Some(Held::End(at, _)) => state.set_reading(*at, on),
            Some(Held::Socket(number, _)) => state.set_socket_reading(*number, on),
            Some(Held::Listener(number, _)) => state.set_accepting(*number, on),
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
        let end = &state.ends[at];
        if end.parked.is_some() || end.sent.is_some() || end.detaching {
            return Some(Sent { queue, result: Err(error::os(error::INVALID)) });
        }
        state.send(at, queue)
    }

    fn outlet(&self, _: Key) -> Option<Source<'_>> {
        // Only the engine writes to a virtual stream.
        None
    }

    fn await_room(&mut self, _: Key) -> bool {
        false
    }

    fn shutdown(&mut self, key: Key) -> io::Result<()> {
        self.calls += 1;
        let at = self.end(key).ok_or(ErrorKind::NotFound)?;
        self.state.borrow_mut().shut(at)
    }

    fn detach(&mut self, key: Key) {
        self.calls += 1;
        let state = &mut *self.state.borrow_mut();
        match self.held(key) {
            Some(Held::End(at, _)) => state.detach(*at),
            Some(Held::Socket(number, _)) => state.detach_socket(*number),
            Some(Held::Listener(number, _)) => state.detach_listener(*number, self.process),
            _ => (),
        }
    }

    fn close(&mut self, key: Key, how: Ending) {
        self.calls += 1;
        if !matches!(self.held(key), Some(Held::End(..) | Held::Listener(..) | Held::Socket(..))) {
            return;
        }
        let Some(held) = self.remove(key) else { return };
        let state = &mut *self.state.borrow_mut();
        if state.engine_options.closes_late {
            let how = state.disown(&held, how);
            self.closing.push((held, how));
        } else {
            state.close_held(held, how);
        }
    }

    fn local(&self, key: Key) -> io::Result<Address> {
        let mut state = self.state.borrow_mut();
        match self.held(key) {
            Some(Held::End(at, _)) => Ok(state.ends[*at].local.clone()),
            Some(Held::Listener(number, _)) => state
                .listener(*number)
                .map(|listener| listener.address.clone())
                .ok_or(ErrorKind::NotFound.into()),
            Some(Held::Socket(number, _)) => {
                state.socket(*number).map(|socket| socket.address.clone()).ok_or(ErrorKind::NotFound.into())
            }
            _ => Err(ErrorKind::NotFound.into()),
        }
    }

    fn peer(&self, key: Key) -> io::Result<Address> {
        match self.held(key) {
            Some(Held::End(at, _)) => Ok(self.state.borrow().ends[*at].peer.clone()),
            Some(Held::Listener(..)) => Err(error::os(error::NOT_CONNECTED)),
            Some(Held::Socket(number, _)) => {
                let peer = self.state.borrow_mut().socket(*number).and_then(|socket| socket.peer.clone());
                peer.ok_or_else(|| error::os(error::NOT_CONNECTED))
            }
            _ => Err(ErrorKind::NotFound.into()),
        }
    }

    #[cfg(unix)]
    fn peer_credentials(&self, key: Key) -> io::Result<reactor::Credentials> {
        match self.held(key) {
            Some(Held::End(at, _) | Held::Watched(at)) => self.state.borrow().credentials_of_peer(*at),
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
fn as_feed(object: ObjectId) -> io::Result<SourceId> {
    match object {
        ObjectId::Source(feed) => Ok(feed),
        _ => Err(error::os(error::BAD_DESCRIPTOR)),
    }
}

/// A day in November 2023.
pub(crate) const WALL_ORIGIN: Duration = Duration::from_secs(1_700_000_000);
