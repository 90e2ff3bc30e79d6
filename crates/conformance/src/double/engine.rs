//! The double as an engine: it takes orders, and reports the results in a later wait.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    io::{self, ErrorKind},
    sync::Arc,
    task::Waker,
    time::{Duration, SystemTime},
};

use reactor::{
    Address, BindOptions, ConnectOptions, Group, Key, ListenOptions, Time,
    engine::{
        Batch, Chunk, DatagramQueue, Ending, Engine, Event, Interest, Outgoing, Refused, Role, Sent, Source,
        Transport,
    },
    host::{Host, Job},
};
use sim::Chance;

use super::{
    datagrams::{RECEIVE_MAX, TAKEN_MAX},
    fault,
    network::Network,
    rest::{Bell, Counters, Driven, Rest},
    state::Holder,
    tuning::Tuning,
};

/// An engine of a [`Network`]; see the [module](super).
///
/// ```
/// use conformance::double::{Network, Tuning};
/// use reactor::{engine::Engine, host::Host};
/// use std::time::Duration;
/// let mut engine = Network::new(Tuning::tight(3)).double();
/// let before = engine.now();
/// engine.wait(Some(Duration::from_secs(5)))?;
/// assert_eq!(engine.now() - before, Duration::from_secs(5));
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Double {
    pub(super) network: Network,
    number: u64,
    pub(super) tuning: Tuning,
    pub(super) chance: Chance,
    bell: Arc<Bell>,
    pub(super) counters: Arc<Counters>,
    pub(super) attached: BTreeMap<Key, Attached>,
    /// The source's number and its interest.
    pub(super) watched: BTreeMap<Key, (u64, Option<Interest>)>,
    pub(super) events: VecDeque<(Key, Event)>,
    /// Transports that the runtime has closed. The next wait reports them to the network.
    closing: Vec<(Transport, Ending)>,
    pub(super) free: Vec<Box<[u8]>>,
    jobs: VecDeque<Job>,
    /// The key that was served last.
    pub(super) cursor: Option<Key>,
    calls: u64,
}

/// A transport that the double owns.
pub(super) struct Attached {
    pub(super) transport: Transport,
    pub(super) number: u64,
    pub(super) role: Role,
    /// The runtime wants input.
    pub(super) wants: bool,
    /// A read is in flight. It completes even if the runtime no longer wants input.
    pub(super) armed: bool,
    /// The double has reported the end of the read side, or the failure of the connect.
    pub(super) told: bool,
    /// The double has reported the end behind unread input, and the failure, while the runtime wants no
    /// input.
    pub(super) hangup_told: bool,
    pub(super) reset_told: bool,
    pub(super) sending: Option<Box<Outgoing>>,
    pub(super) detaching: bool,
}

impl Double {
    pub(super) fn new(network: &Network) -> Double {
        let bell = Arc::new(Bell::new(&network.shared));
        let counters = Arc::new(Counters::default());
        let (number, tuning) = network.shared.change(|state| {
            let number = state.number();
            let thread = std::thread::current().id();
            state.doubles.insert(number, Driven::new(thread, Arc::clone(&bell), Arc::clone(&counters)));
            (number, state.tuning.clone())
        });
        Double {
            network: network.clone(),
            number,
            chance: Chance::new(tuning.seed ^ number.wrapping_mul(0x5851_f42d_4c95_7f2d)),
            bell,
            counters,
            attached: BTreeMap::new(),
            watched: BTreeMap::new(),
            events: VecDeque::new(),
            closing: Vec::new(),
            free: (0..tuning.buffers).map(|_| vec![0; tuning.buffer_bytes].into_boxed_slice()).collect(),
            jobs: VecDeque::new(),
            cursor: None,
            calls: 0,
            tuning,
        }
    }

    /// Returns the network of the double.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Closes in the network all transports that the runtime has closed.
    fn close_now(&mut self) {
        for (transport, how) in self.closing.drain(..) {
            if let Some(number) = transport.source().number() {
                self.network.shared.change(|state| state.close(number, how));
            }
        }
    }

    /// Drops the events in the batch that `unwanted` selects. Their buffers return to the double.
    fn purge(&mut self, unwanted: impl Fn(Key, &Event) -> bool) {
        for (key, event) in std::mem::take(&mut self.events) {
            match event {
                event if !unwanted(key, &event) => self.events.push_back((key, event)),
                Event::Got(chunk) => self.take_back(chunk),
                _ => {}
            }
        }
    }

    fn take_back(&mut self, chunk: Chunk) {
        let buffer = chunk.into_buffer();
        let lent = self.counters.lent();
        // A buffer of another size belongs to another engine, or a test made it. Do not keep it.
        if lent > 0 && buffer.len() == self.tuning.buffer_bytes {
            self.counters.set_lent(lent - 1);
            self.free.push(buffer);
        }
    }

    /// Makes the other doubles look again, because this one may have new work.
    fn touch(&mut self) {
        self.calls += 1;
        self.network.shared.change(|_| ());
    }

    fn rest(&mut self, deadline: Option<Time>) {
        let shared = Arc::clone(&self.network.shared);
        let mut state = shared.lock();
        loop {
            state.looks(self.number);
            let moved = self.collect(&mut state);
            let rung = self.bell.answer();
            if moved {
                state.version += 1;
                shared.notify();
            }
            if !self.events.is_empty() || rung {
                return;
            }
            if let Some(job) = self.jobs.pop_front() {
                drop(state);
                job();
                state = shared.lock();
                continue;
            }
            state.saw_nothing(self.number);
            if deadline.is_some_and(|at| at <= state.now) {
                return;
            }
            match state.rest(self.number, deadline) {
                Rest::GiveWay => return,
                Rest::Jumped => shared.notify(),
                Rest::Sleep => state = shared.sleep(state),
            }
        }
    }
}

impl Host for Double {
    fn now(&self) -> Time {
        self.network.now()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + WALL_ORIGIN + Duration::from_nanos(self.now().as_nanos())
    }

    fn entropy(&mut self) -> u64 {
        self.chance.bits()
    }

    fn run_blocking(&mut self, job: Job) -> Option<Job> {
        if !self.tuning.runs_jobs {
            return Some(job);
        }
        self.jobs.push_back(job);
        self.touch();
        None
    }
}

impl Engine for Double {
    fn name(&self) -> &'static str {
        "double"
    }

    fn host(&self) -> &dyn Host {
        self
    }

    fn host_mut(&mut self) -> &mut dyn Host {
        self
    }

    fn submit(&mut self) {}

    fn finish_closes(&mut self) {}

    fn turn_away(&mut self, _: Key) -> bool {
        false
    }

    fn probe(&mut self, _: Key) {}

    fn give_batch(&mut self, batch: Batch) {
        drop(batch);
    }

    fn outlet(&self, _: Key) -> Option<Source<'_>> {
        None
    }

    fn await_room(&mut self, _: Key) -> bool {
        false
    }

    fn memory(&self) -> usize {
        0
    }

    #[cfg(unix)]
    fn fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }

    fn waker(&self) -> Waker {
        Arc::clone(&self.bell).into()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.calls += 1;
        self.close_now();
        if self.events.is_empty() {
            let deadline = timeout.map(|timeout| self.now() + timeout);
            self.rest(deadline);
        }
        Ok(())
    }

    fn next(&mut self) -> Option<(Key, Event)> {
        self.events.pop_front()
    }

    fn give(&mut self, chunk: Chunk) {
        self.take_back(chunk);
        self.touch();
    }

    fn watch(&mut self, key: Key, source: Source<'_>, interest: Option<Interest>) -> io::Result<()> {
        self.touch();
        let number = source.number().ok_or_else(fault::no_descriptors)?;
        if self.watched.iter().any(|(&other, &(watched, _))| watched == number && other != key) {
            return Err(fault::error(ErrorKind::AlreadyExists));
        }
        match self.network.shared.lock() {
            #[cfg(unix)]
            state if state.is_unix_link(number) => (),
            mut state => match state.feeds.get_mut(&number) {
                Some(fed) => fed.watched = true,
                None => return Err(fault::bad_descriptor()),
            },
        }
        self.watched.insert(key, (number, interest));
        if interest.is_none() {
            self.purge(|told, _| told == key);
        }
        Ok(())
    }

    fn unwatch(&mut self, key: Key, _: Source<'_>) {
        self.touch();
        let Some((number, _)) = self.watched.remove(&key) else { return };
        self.purge(|told, _| told == key);
        if let Some(fed) = self.network.shared.lock().feeds.get_mut(&number) {
            fed.watched = false;
        }
    }

    fn read(&mut self, source: Source<'_>, into: &mut [u8]) -> io::Result<usize> {
        self.calls += 1;
        let number = source.number().ok_or_else(fault::no_descriptors)?;
        self.network.shared.change(|state| match state.feeds.get_mut(&number) {
            Some(fed) => fed.read(into),
            None => Err(fault::bad_descriptor()),
        })
    }

    fn write(&mut self, source: Source<'_>, from: &Outgoing) -> io::Result<usize> {
        self.calls += 1;
        let number = source.number().ok_or_else(fault::no_descriptors)?;
        self.network.shared.change(|state| match state.feeds.get_mut(&number) {
            Some(fed) => fed.write(from),
            None => Err(fault::bad_descriptor()),
        })
    }

    #[cfg(unix)]
    fn pass(
        &mut self,
        to: Source<'_>,
        bytes: &[io::IoSlice<'_>],
        with: &mut Vec<reactor::Descriptor>,
    ) -> io::Result<usize> {
        self.calls += 1;
        let number = to.number().ok_or_else(fault::no_descriptors)?;
        self.pass_on(number, bytes, with)
    }

    #[cfg(unix)]
    fn receive(&mut self, from: Source<'_>, into: &mut [u8]) -> io::Result<reactor::engine::Delivery> {
        self.calls += 1;
        let number = from.number().ok_or_else(fault::no_descriptors)?;
        self.receive_from(number, into)
    }

    fn listen(&mut self, address: &Address, options: &ListenOptions) -> io::Result<Transport> {
        self.calls += 1;
        let number = self.network.shared.change(|state| state.listen(address, options.backlog as usize))?;
        Ok(self.network.transport(number))
    }

    fn connect(&mut self, address: &Address, options: &ConnectOptions) -> io::Result<Transport> {
        self.calls += 1;
        let from = options.local.as_ref();
        let number = self.network.shared.change(|state| state.connect(address, from, Holder::Transport))?;
        Ok(self.network.transport(number))
    }

    fn bind(&mut self, address: &Address, options: &BindOptions) -> io::Result<Transport> {
        self.calls += 1;
        let number = self.network.shared.change(|state| state.bind_socket(address, options))?;
        Ok(self.network.transport(number))
    }

    fn send_datagrams(&mut self, key: Key, queue: &mut DatagramQueue) -> usize {
        self.touch();
        let Some(attached) = self.attached.get(&key) else { return 0 };
        let most = self.chance.up_to(TAKEN_MAX);
        self.network.shared.change(|state| state.send_datagrams(attached.number, queue, most))
    }

    fn set_longest(&mut self, key: Key, bytes: usize) {
        self.touch();
        let Some(attached) = self.attached.get(&key) else { return };
        self.network.shared.change(|state| state.set_longest(attached.number, bytes));
    }

    fn set_member(&mut self, key: Key, group: &Group, member: bool) -> io::Result<()> {
        self.calls += 1;
        let attached = self.attached.get(&key).ok_or(ErrorKind::NotFound)?;
        self.network.shared.change(|state| state.set_member(attached.number, group, member))
    }

    fn attach(&mut self, key: Key, transport: Transport, role: Role) -> Result<(), Refused> {
        self.touch();
        let Some(number) = transport.source().number() else {
            return Err(Refused { transport, error: fault::no_descriptors() });
        };
        if self.attached.contains_key(&key) {
            return Err(Refused { transport, error: fault::error(ErrorKind::AlreadyExists) });
        }
        if role == Role::Datagrams {
            self.network.shared.change(|state| state.set_longest(number, RECEIVE_MAX));
        }
        let attached = Attached {
            transport,
            number,
            role,
            wants: true,
            armed: true,
            told: false,
            hangup_told: false,
            reset_told: false,
            sending: None,
            detaching: false,
        };
        self.attached.insert(key, attached);
        Ok(())
    }

    fn reading(&mut self, key: Key, on: bool) {
        self.touch();
        let in_flight = self.chance.percent(self.tuning.in_flight_percent);
        if let Some(attached) = self.attached.get_mut(&key).filter(|attached| !attached.detaching) {
            // For datagrams, a read can be in flight only if some have already arrived.
            let may_come =
                attached.role != Role::Datagrams || self.network.shared.lock().has_arrived(attached.number);
            (attached.wants, attached.hangup_told, attached.reset_told) = (on, false, false);
            attached.armed = on || (attached.armed && in_flight && may_come);
        }
    }

    fn send(&mut self, key: Key, queue: Box<Outgoing>) -> Option<Sent> {
        self.touch();
        let error = match self.attached.get_mut(&key) {
            Some(attached) if attached.sending.is_none() && !attached.detaching => {
                attached.sending = Some(queue);
                return None;
            }
            Some(_) => fault::error(ErrorKind::InvalidInput),
            None => ErrorKind::NotFound.into(),
        };
        Some(Sent { queue, result: Err(error) })
    }

    fn shutdown(&mut self, key: Key) -> io::Result<()> {
        self.calls += 1;
        match self.attached.get(&key) {
            Some(attached) if attached.sending.is_some() => Err(fault::error(ErrorKind::InvalidInput)),
            Some(attached) => self.network.shared.change(|state| state.shut(attached.number)),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn detach(&mut self, key: Key) {
        self.touch();
        let in_flight = self.chance.percent(self.tuning.in_flight_percent);
        let Some(attached) = self.attached.get_mut(&key) else { return };
        attached.detaching = true;
        attached.armed &= in_flight;
        // The next owner of the transport still has to read the end.
        self.purge(|told, event| told == key && matches!(event, Event::End | Event::Broken(_)));
    }

    fn close(&mut self, key: Key, how: Ending) {
        self.touch();
        let Some(attached) = self.attached.remove(&key) else { return };
        let is_left = |(told, event): &(Key, Event)| {
            *told == key && matches!(event, Event::Sent(sent) if !sent.queue.is_empty())
        };
        let is_part = attached.sending.is_some() || self.events.iter().any(is_left);
        self.closing.push((attached.transport, if is_part { Ending::Reset } else { how }));
        self.purge(|told, _| told == key);
    }

    fn local(&self, key: Key) -> io::Result<Address> {
        let attached = self.attached.get(&key).ok_or(ErrorKind::NotFound)?;
        self.network.address_of(attached.number, true)
    }

    fn peer(&self, key: Key) -> io::Result<Address> {
        let attached = self.attached.get(&key).ok_or(ErrorKind::NotFound)?;
        self.network.address_of(attached.number, false)
    }

    #[cfg(unix)]
    fn peer_credentials(&self, key: Key) -> io::Result<reactor::Credentials> {
        let attached = self.attached.get(&key).map(|attached| attached.number);
        let number = attached.or_else(|| self.watched.get(&key).map(|(number, _)| *number));
        self.credentials_of_peer(number.ok_or(ErrorKind::NotFound)?)
    }

    fn calls(&self) -> u64 {
        self.calls
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.close_now();
        self.purge(|_, _| true);
        self.network.shared.change(|state| {
            state.doubles.remove(&self.number);
            state.buffers_lost += self.counters.lent();
            for (number, _) in self.watched.values() {
                if let Some(fed) = state.feeds.get_mut(number) {
                    fed.watched = false;
                }
            }
        });
    }
}

impl fmt::Debug for Double {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Double")
            .field("attached", &self.attached.len())
            .field("watched", &self.watched.len())
            .field("events", &self.events.len())
            .field("free", &self.free.len())
            .finish_non_exhaustive()
    }
}

/// A day in November 2023.
const WALL_ORIGIN: Duration = Duration::from_secs(1_700_000_000);
