//! The state of a world: hosts, engines, ends of connections, scheduled events, and the digest of past ones.
//!
//! No code here calls a service. [`State::advance`] returns such work as a [`Task`], and the caller does
//! it without a borrow of the state.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use reactor::{Address, Key, engine::Event, host::Job};

use crate::{
    engine::bell::{Bell, News, Outside},
    engine::options::EngineOptions,
    faults::chance::Chance,
    faults::{Faults, Kind, Tally},
    ids::{EndId, EngineId, HostId, Id as _, IdVec, JobId, ListenerId, Slots, SocketId, SourceId, TroubleId},
    net::end::Ends,
    net::flight::{DatagramSummary, Flight},
    net::link::{Link, Links, nanos},
    net::listener::Listener,
    net::socket::Socket,
    os::disk::{Disk, Due, FileJobs},
    testing::feed::Fed,
    world::digest::Digest,
    world::queue::Queue,
    world::record::Record,
};

/// A scheduled event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
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
    Land { flight: u64 },
    /// A datagram socket notices that there is room again.
    SocketRoom { number: SocketId },
    /// An event of a child process is due.
    #[cfg(unix)]
    Child { child: crate::ids::ChildId, happening: crate::os::child::Happening },
    /// A file operation is done, or its completion is due.
    File { number: u64 },
    /// The next trouble is due, unless the troubles were restarted since.
    Trouble { round: u32 },
    /// A trouble ends.
    Relief { number: TroubleId },
    /// A node that ended by itself restarts, if this was its last life.
    Restart { node: HostId, life: u32 },
}

/// Work that must run without a borrow of the state.
pub(crate) enum Task {
    Run(HostId),
    #[cfg(unix)]
    Child(crate::ids::ChildId, crate::os::child::Happening),
    Job(Job),
    /// A file operation completes.
    File(Due),
    Trouble {
        round: u32,
    },
    Relief(TroubleId),
    Restart {
        node: HostId,
        life: u32,
    },
}

/// An object of an engine that may have an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Item {
    End(EndId),
    Listener(ListenerId),
    Feed(SourceId),
    Socket(SocketId),
}

/// The world's record of one engine.
pub(crate) struct Process {
    /// The node that drives the engine. Without a node, the engine's own `wait` moves the world.
    pub(crate) node: Option<HostId>,
    pub(crate) ready: VecDeque<Item>,
    /// The version at which it gave way to another engine with work to do.
    pub(crate) gave_way: u64,
    /// How many buffers the runtime holds, and the ends whose input waits for one of them.
    pub(crate) lent: usize,
    pub(crate) starved: BTreeSet<EndId>,
    /// Set once it has taken the sockets that its supervisor opened.
    #[cfg(unix)]
    pub(crate) is_activated: bool,
}

/// A machine with an address. A node's runtime runs on it, or engines that belong to no node.
pub(crate) struct Host {
    pub(crate) ip: Ipv4Addr,
    /// The engine of its node.
    pub(crate) process: Option<EngineId>,
    pub(crate) next_port: u16,
    /// How many nanoseconds its wall clock is ahead of the world's.
    pub(crate) wall_offset: i64,
    pub(crate) wall_stepped: bool,
    pub(crate) is_up: bool,
    pub(crate) is_paused: bool,
    /// Set if a turn is due as soon as the pause ends.
    pub(crate) is_waiting: bool,
    pub(crate) is_queued: bool,
    pub(crate) busy_until: u64,
    /// When its next turn is due.
    pub(crate) run_at: Option<u64>,
    pub(crate) disk: Disk,
}

pub(crate) struct State {
    pub(crate) now: u64,
    pub(crate) chance: Chance,
    pub(crate) digest: Digest,
    pub(crate) faults: Faults,
    pub(crate) tally: Tally,
    pub(crate) links: Links,
    pub(crate) queue: Queue<What>,
    pub(crate) hosts: IdVec<HostId, Host>,
    pub(crate) processes: Slots<EngineId, Process>,
    pub(crate) ends: Ends,
    pub(crate) listeners: Slots<ListenerId, Listener>,
    pub(crate) names: HashMap<(HostId, Address), ListenerId>,
    pub(crate) feeds: Slots<SourceId, Fed>,
    pub(crate) sockets: Slots<SocketId, Socket>,
    pub(crate) socket_names: HashMap<(HostId, Address), SocketId>,
    /// The datagrams in flight, by number. A hold keeps its datagrams in `held`.
    pub(crate) flights: BTreeMap<u64, Flight>,
    pub(crate) flown: u64,
    pub(crate) held: Vec<Flight>,
    pub(crate) datagrams: DatagramSummary,
    #[cfg(unix)]
    pub(crate) stand_ins: crate::os::process::StandIns,
    pub(crate) jobs: Slots<JobId, Job>,
    /// The standard streams, by host.
    #[cfg(unix)]
    pub(crate) consoles: IdVec<HostId, crate::net::pipe::Console>,
    #[cfg(unix)]
    pub(crate) children: crate::os::child::Children,
    pub(crate) files: FileJobs,
    /// The nodes that are due to make a turn now.
    pub(crate) runnable: VecDeque<HostId>,
    /// Increases whenever an object becomes ready.
    pub(crate) version: u64,
    pub(crate) turn_cost: u64,
    pub(crate) late_max: u64,
    pub(crate) give_up: u64,
    /// Every address names the first host. A bed sets this, because its service connects only to the test.
    pub(crate) is_alone: bool,
    pub(crate) outside: Arc<Outside>,
    pub(crate) record: Record,
    pub(crate) buffers: crate::net::buffer::Buffers,
    /// How many buffers runtimes still held when their engines were dropped.
    pub(crate) buffers_lost: usize,
    pub(crate) engine_options: EngineOptions,
}

impl State {
    pub(crate) fn new(seed: u64, faults: Faults, link: Link, loopback: Link) -> State {
        State {
            // Not zero, so that a time that was never set shows as one long ago.
            now: 1_000_000_000,
            chance: Chance::new(seed),
            digest: Digest::default(),
            faults,
            tally: Tally::default(),
            links: Links::new(link, loopback),
            queue: Queue::new(),
            hosts: IdVec::new(),
            processes: Slots::new(),
            ends: Ends::default(),
            listeners: Slots::new(),
            names: HashMap::new(),
            feeds: Slots::new(),
            sockets: Slots::new(),
            socket_names: HashMap::new(),
            flights: BTreeMap::new(),
            flown: 0,
            held: Vec::new(),
            datagrams: DatagramSummary::default(),
            #[cfg(unix)]
            stand_ins: crate::os::process::StandIns::default(),
            jobs: Slots::new(),
            #[cfg(unix)]
            consoles: IdVec::new(),
            #[cfg(unix)]
            children: crate::os::child::Children::default(),
            files: FileJobs::default(),
            runnable: VecDeque::new(),
            version: 0,
            turn_cost: 1_000,
            late_max: 5_000_000,
            give_up: nanos(Duration::from_secs(120)),
            is_alone: false,
            outside: Arc::default(),
            record: Record::default(),
            buffers: crate::net::buffer::Buffers::default(),
            buffers_lost: 0,
            engine_options: EngineOptions::default(),
        }
    }

    pub(crate) fn add_host(&mut self) -> HostId {
        let [_, a, b, c] = (self.hosts.len() as u32 + 1).to_be_bytes();
        self.links.add_host();
        #[cfg(unix)]
        self.consoles.push(crate::net::pipe::Console::default());
        self.hosts.push(Host {
            ip: Ipv4Addr::new(10, a, b, c),
            process: None,
            next_port: FIRST_PORT,
            wall_offset: 0,
            wall_stepped: false,
            is_up: true,
            is_paused: false,
            is_waiting: false,
            is_queued: false,
            busy_until: 0,
            run_at: None,
            disk: Disk::default(),
        })
    }

    pub(crate) fn add_process(&mut self, node: Option<HostId>) -> (EngineId, Arc<Bell>) {
        let id = self.processes.push(Process {
            node,
            ready: VecDeque::new(),
            gave_way: 0,
            lent: 0,
            starved: BTreeSet::new(),
            #[cfg(unix)]
            is_activated: false,
        });
        if let Some(node) = node {
            self.hosts[node].process = Some(id);
        }
        (id, Arc::new(Bell::new(id, &self.outside)))
    }

    pub(crate) fn add_feed(&mut self) -> SourceId {
        self.feeds.push(Fed::default())
    }

    /// Returns the host that an IP address names, as seen from another host.
    pub(crate) fn host_of(&self, from: HostId, ip: IpAddr) -> Option<HostId> {
        if self.is_alone || ip.is_loopback() || ip.is_unspecified() {
            return Some(from);
        }
        let IpAddr::V4(ip) = ip else { return None };
        let number = u32::from_be_bytes(ip.octets()) & 0x00ff_ffff;
        let host = HostId::new(number.checked_sub(1)? as usize);
        (self.hosts.get(host)?.ip == ip).then_some(host)
    }

    /// Draws whether an operation meets a fault, and counts it if so.
    #[inline]
    pub(crate) fn strikes(&mut self, kind: Kind) -> bool {
        let rate = self.faults.of(kind);
        let strikes = rate > 0 && self.chance.per_million(rate);
        if strikes {
            self.tally.inject(kind);
        }
        strikes
    }

    // Readiness.

    /// Returns whether events wait for a node.
    pub(crate) fn has_more(&self, node: HostId) -> bool {
        let process = self.hosts[node].process.and_then(|process| self.processes.get(process));
        process.is_some_and(|process| !process.ready.is_empty())
    }

    /// Queues an object of an engine that may have an event now.
    #[inline]
    pub(crate) fn mark_ready(&mut self, process: EngineId, item: Item) {
        let Some(entry) = self.processes.get_mut(process) else { return };
        entry.ready.push_back(item);
        self.version += 1;
        if let Some(node) = entry.node {
            self.make_runnable(node);
        }
    }

    /// Schedules a turn of a node: now, or at the end of its current turn.
    #[inline]
    pub(crate) fn make_runnable(&mut self, node: HostId) {
        let host = &mut self.hosts[node];
        if host.is_queued || !host.is_up {
        } else if host.is_paused {
            host.is_waiting = true;
        } else if host.busy_until > self.now {
            let at = host.busy_until;
            self.run_at(node, at);
        } else {
            host.is_queued = true;
            self.runnable.push_back(node);
        }
    }

    /// Schedules a turn of a node at this moment, unless one is due earlier.
    pub(crate) fn run_at(&mut self, node: HostId, at: u64) {
        let host = &mut self.hosts[node];
        if host.run_at.is_none_or(|before| before > at) {
            host.run_at = Some(at);
            self.queue.put(at, What::Run { node });
        }
    }

    /// Checks a virtual source after a change, and queues it if it is ready.
    pub(crate) fn look_at_feed(&mut self, number: SourceId) {
        let may_lie = self.faults.of(Kind::SpuriousReady);
        let Some(fed) = self.feeds.get_mut(number) else { return };
        let Some((process, _)) = fed.watcher.filter(|(process, _)| fed.queued != Some(*process)) else {
            return;
        };
        let is_ready = fed.ready().is_some();
        if is_ready || (may_lie > 0 && fed.interest.is_some() && self.chance.per_million(may_lie)) {
            if !is_ready {
                self.tally.inject(Kind::SpuriousReady);
            }
            if let Some(fed) = self.feeds.get_mut(number) {
                (fed.queued, fed.is_lie) = (Some(process), !is_ready);
            }
            self.mark_ready(process, Item::Feed(number));
        }
    }

    fn peer_of(&mut self, number: SourceId) -> Option<(SourceId, &mut Fed)> {
        let peer = self.feeds.get(number)?.peer?;
        Some((peer, self.feeds.get_mut(peer)?))
    }

    /// Notes a read from a virtual source. On a line, the peer gets room for as many bytes.
    pub(crate) fn was_read(&mut self, number: SourceId, count: usize) {
        let Some((peer, fed)) = self.peer_of(number) else { return };
        fed.make_room(count);
        self.look_at_feed(peer);
    }

    /// Notes a write to a virtual source. On a line, the bytes arrive at the other end.
    pub(crate) fn was_written(&mut self, number: SourceId) {
        let fed = self.feeds.get_mut(number);
        let Some(bytes) = fed.filter(|fed| fed.peer.is_some()).map(Fed::take_output) else { return };
        let Some((peer, fed)) = self.peer_of(number) else { return };
        fed.put(&bytes);
        self.look_at_feed(peer);
    }

    /// Returns the event of a virtual source, if it has one.
    pub(crate) fn feed_event(&mut self, number: SourceId, process: EngineId) -> Option<(Key, Event)> {
        let fed = self.feeds.get_mut(number)?;
        if fed.queued != Some(process) {
            return None;
        }
        fed.queued = None;
        let is_lie = std::mem::take(&mut fed.is_lie);
        let (_, key) = fed.watcher.filter(|(watcher, _)| *watcher == process)?;
        let interest = fed.interest?;
        let Some(ready) = fed.ready() else {
            if !is_lie {
                return None;
            }
            self.tally.observe(Kind::SpuriousReady);
            let ready = reactor::Ready {
                readable: interest.is_read(),
                writable: interest.is_write(),
                ..reactor::Ready::default()
            };
            return Some((key, Event::Ready(ready)));
        };
        // Readiness is level-triggered, so the event repeats while it holds. A hang-up is reported once,
        // because no operation can end it.
        if ready.readable || ready.writable {
            fed.queued = Some(process);
            self.mark_ready(process, Item::Feed(number));
        } else {
            fed.told = true;
        }
        Some((key, Event::Ready(ready)))
    }

    // Time.

    /// Handles the wakes of other threads, and closes the dropped transports.
    #[inline]
    pub(crate) fn hear(&mut self) {
        // A closed end may hold further transports in flight to it, so closing it may drop them.
        while let Some(News { woken, dropped }) = self.outside.take() {
            for process in woken {
                self.version += 1;
                if let Some(Process { node: Some(node), .. }) = self.processes.get(process) {
                    let node = *node;
                    self.make_runnable(node);
                }
            }
            for (object, how) in dropped {
                self.close(object, how);
            }
        }
    }

    /// Runs the next event, and moves the clock to its moment.
    pub(crate) fn advance(&mut self) -> Option<Task> {
        let (at, what) = self.queue.pop()?;
        self.now = self.now.max(at);
        match what {
            What::Arrive { end } => self.arrive(end),
            What::Connect { end, tries } => self.try_connect(end, tries),
            What::Answer { end, error } => self.answer(end, error),
            What::Room { end } => self.room_again(end),
            What::GiveUp { end, progress } => self.give_up(end, progress),
            What::Land { flight } => self.land(flight),
            What::SocketRoom { number } => self.socket_room(number),
            What::Run { node } => {
                let host = &mut self.hosts[node];
                if host.run_at == Some(at) {
                    host.run_at = None;
                    host.is_waiting |= host.is_paused;
                    if host.busy_until > self.now {
                        // The node made a turn at this very moment for another reason.
                        self.make_runnable(node);
                        return None;
                    }
                    return (!host.is_paused && host.is_up).then_some(Task::Run(node));
                }
            }
            What::Job { number } => return self.jobs.take(number).map(Task::Job),
            #[cfg(unix)]
            What::Child { child, happening } => return Some(Task::Child(child, happening)),
            What::File { number } => return self.take_file_job(number).map(Task::File),
            What::Trouble { round } => return Some(Task::Trouble { round }),
            What::Relief { number } => return Some(Task::Relief(number)),
            What::Restart { node, life } => return Some(Task::Restart { node, life }),
        }
        None
    }

    /// Queues offloaded work, which ends at a drawn moment.
    pub(crate) fn add_job(&mut self, job: Job) {
        let is_slow = self.strikes(Kind::SlowJob);
        if is_slow {
            self.tally.observe(Kind::SlowJob);
        }
        let most = if is_slow { 1_000_000_000 } else { 5_000_000 };
        let at = self.now + self.chance.between(1_000, most);
        let number = self.jobs.push(job);
        self.digest.number(u64::from(number.number()) << 32 | 0x10b);
        self.queue.put(at, What::Job { number });
    }

    /// Returns the arrival time of a packet that one host sends to another now.
    pub(crate) fn arrival(&mut self, from: HostId, to: HostId) -> u64 {
        self.now + self.links.latency((from, to), &mut self.chance, &self.faults, &mut self.tally)
    }
}

const FIRST_PORT: u16 = 40_000;
