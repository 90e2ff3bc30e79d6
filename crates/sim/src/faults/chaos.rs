//! Chaos: faults of whole nodes, disks and links. A test orders them, or the world draws a schedule of them
//! from the seed.

use std::time::Duration;

use crate::{
    faults::Kind,
    ids::{HostId, Id as _, Slots, WorldFaultId},
    net::link::{Link, nanos},
    world::{
        World,
        node::Node,
        record::Happening,
        state::{Scheduled, State, WorldTask},
    },
};

/// The chaos schedule: the drawn faults of the world, and what ends each of them.
#[derive(Default)]
pub(crate) struct Chaos {
    /// The end of the drawing, and the average interval between two faults.
    until: u64,
    every: u64,
    /// How often the test requested a schedule. Only the last request counts.
    round: u32,
    ongoing: Slots<WorldFaultId, Ongoing>,
}

/// A fault of the world that has not ended yet, with what its end needs.
enum Ongoing {
    Ways { kind: Kind, from: Vec<Node>, to: Vec<Node> },
    Slow(HostId),
    SlowDisk(HostId),
    Down(HostId),
    Paused(HostId),
}

impl World {
    // Ordered by a test.

    /// Sets the link between two nodes.
    pub fn set_link(&mut self, one: impl Into<Node>, other: impl Into<Node>, link: Link) {
        self.state.borrow_mut().base.links.set(one.into().0, other.into().0, link);
    }

    /// Cuts the links between two groups, in both directions. Packets wait, and connects get no answer.
    pub fn partition(&mut self, these: &[Node], those: &[Node]) {
        self.obstruct(Kind::Partition, these, those);
        self.obstruct(Kind::Partition, those, these);
    }

    /// Cuts the links from one group to another. The other direction still works.
    pub fn partition_one_way(&mut self, from: &[Node], to: &[Node]) {
        self.obstruct(Kind::OneWay, from, to);
    }

    /// Holds the packets between two nodes until [`World::release`].
    pub fn hold(&mut self, one: impl Into<Node>, other: impl Into<Node>) {
        let (one, other) = (one.into(), other.into());
        self.obstruct(Kind::Hold, &[one], &[other]);
        self.obstruct(Kind::Hold, &[other], &[one]);
    }

    /// Releases the held packets.
    pub fn release(&mut self, one: impl Into<Node>, other: impl Into<Node>) {
        let (one, other) = (one.into(), other.into());
        self.clear(Kind::Hold, &[one], &[other]);
        self.clear(Kind::Hold, &[other], &[one]);
    }

    /// Multiplies the latency of a node's links by this factor. 1 restores the speed.
    pub fn slow(&mut self, node: impl Into<Node>, factor: u32) {
        let node = node.into().0;
        self.state.borrow_mut().base.faults.tally.inject(Kind::Slow);
        self.set_slow(node, factor);
    }

    /// Multiplies the time of a node's disk operations by this factor. 1 restores the speed. Operations in
    /// flight are not affected.
    ///
    /// ```
    /// use reactor::{Context, Error, Receive, Result, Service, file::Operation};
    /// use sim::World;
    /// use std::time::Duration;
    ///
    /// /// Reads a file, and notes how long it took.
    /// struct Reader(Option<Duration>);
    ///
    /// struct Read(reactor::Time, Result<Vec<u8>, Error>);
    ///
    /// impl Service for Reader {
    ///     fn start(&mut self, cx: &mut Context<Self>) -> Result {
    ///         let now = cx.now();
    ///         cx.file(Operation::read("/file", 1024), move |result| Read(now, result))?;
    ///         Ok(())
    ///     }
    /// }
    ///
    /// impl Receive<Read> for Reader {
    ///     fn receive(&mut self, cx: &mut Context<Self>, Read(since, bytes): Read) -> Result {
    ///         bytes?;
    ///         self.0 = Some(cx.now().since(since));
    ///         cx.after(Duration::from_secs(3600), Read(since, Ok(Vec::new())));
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut world = World::new(7);
    /// let node = world.add(|runtime| runtime.add(Reader(None)));
    /// world.put_file(node, "/file", b"content");
    /// // The operation began with the node, so only the next life uses the slow disk.
    /// world.slow_disk(node, 100);
    /// world.crash(node);
    /// world.restart(node);
    /// world.run_for(Duration::from_secs(1));
    /// let took = world.service(node).expect("it lives").0.expect("it was read");
    /// assert!(took > Duration::from_millis(5) && took < Duration::from_millis(51), "{took:?}");
    /// ```
    pub fn slow_disk(&mut self, node: impl Into<Node>, factor: u32) {
        let state = &mut *self.state.borrow_mut();
        state.base.faults.tally.inject(Kind::SlowDisk);
        state.disks.slow(&mut state.base, node.into().0, factor);
    }

    /// Ends all partitions, holds and slowness, also of disks. Packets that waited on links arrive.
    pub fn repair(&mut self) {
        let all: Vec<Node> = self.nodes().collect();
        let mut state = self.state.borrow_mut();
        let State { base, disks, .. } = &mut *state;
        base.links.repair();
        for host in base.hosts.ids() {
            if disks[host].speed.factor > 1 {
                disks.slow(base, host, 1);
            }
        }
        state.unstall();
        // The scheduled end of an old fault must not end a newer one.
        let is_over = |ongoing: &Ongoing| {
            matches!(ongoing, Ongoing::Ways { .. } | Ongoing::Slow(_) | Ongoing::SlowDisk(_))
        };
        self.chaos.ongoing.take_if(is_over);
        let kind = Kind::Partition;
        state.base.note(|at| Happening::Cleared { at, kind, from: all.clone(), to: all });
    }

    /// Ends a node at once. Its kernel closes its connections, so its peers notice.
    pub fn crash(&mut self, node: impl Into<Node>) {
        self.take_down(node.into().0, Kind::Crash);
    }

    /// Ends a node at once, as by a power cut. Its peers get no notice and no answer.
    pub fn power_off(&mut self, node: impl Into<Node>) {
        self.take_down(node.into().0, Kind::PowerOff);
    }

    /// Restarts a node that is down, by another call of its builder. Does nothing if the node is up.
    pub fn restart(&mut self, node: impl Into<Node>) {
        let node = node.into().0;
        if self.nodes[node].runtime.is_some() {
            return;
        }
        self.begin(node);
        let mut state = self.state.borrow_mut();
        // The host now answers packets that are in flight to its former life.
        state.unstall();
        state.base.note(|at| Happening::Restarted { at, node: Node(node) });
    }

    /// Stops a node, as by SIGSTOP. Its kernel keeps running, but its runtime does not.
    pub fn pause(&mut self, node: impl Into<Node>) {
        self.set_paused(node.into().0, true);
    }

    /// Continues a paused node, as by SIGCONT.
    pub fn resume(&mut self, node: impl Into<Node>) {
        self.set_paused(node.into().0, false);
    }

    /// Moves a node's wall clock forward, or backward if `back` is set. Monotonic time does not change.
    pub fn step_wall(&mut self, node: impl Into<Node>, by: Duration, back: bool) {
        let node = node.into().0;
        let by = i64::try_from(by.as_nanos()).unwrap_or(i64::MAX);
        let by = if back { -by } else { by };
        let base = &mut self.state.borrow_mut().base;
        base.faults.tally.inject(Kind::WallStep);
        let host = &mut base.hosts[node];
        host.wall_offset = host.wall_offset.saturating_add(by);
        host.wall_stepped = true;
        base.note(|at| Happening::WallStepped { at, node: Node(node), nanos: by });
    }

    /// Schedules chaos for this much time: faults of nodes, disks and links, on average one every `every`,
    /// drawn with the kinds and weights of the world's [`Faults`](crate::Faults). Each fault ends by itself
    /// after a drawn time of at most four times `every`. Another call replaces the earlier one.
    pub fn schedule_chaos(&mut self, time: Duration, every: Duration) {
        let base = &mut self.state.borrow_mut().base;
        self.chaos.until = base.clock.after(time);
        self.chaos.every = nanos(every).max(1);
        self.chaos.round += 1;
        let first = base.now() + base.faults.chance.below(2 * self.chaos.every);
        let round = self.chaos.round;
        base.clock.schedule(first, Scheduled::World(WorldTask::Chaos { round }));
    }

    /// Ends all faults for good. Obstructed links are free, nodes that are down restart, and paused nodes
    /// continue. From here on the services must recover.
    pub fn stop_faults(&mut self) {
        self.chaos.until = 0;
        self.chaos.ongoing.clear();
        self.state.borrow_mut().base.faults.stop();
        self.repair();
        for node in self.nodes.ids() {
            self.set_paused(node, false);
            self.restart(Node(node));
        }
    }

    // The parts of the methods above.

    fn obstruct(&mut self, kind: Kind, from: &[Node], to: &[Node]) {
        let base = &mut self.state.borrow_mut().base;
        base.faults.tally.inject(kind);
        for &Node(from) in from {
            for &Node(to) in to.iter().filter(|to| to.0 != from) {
                match kind {
                    Kind::Hold => base.links.hold(from, to),
                    kind => base.links.cut(from, to, kind),
                }
            }
        }
        let (from, to) = (from.to_vec(), to.to_vec());
        base.note(|at| Happening::Obstructed { at, kind, from, to });
    }

    fn clear(&mut self, kind: Kind, from: &[Node], to: &[Node]) {
        let mut state = self.state.borrow_mut();
        for &Node(from) in from {
            for &Node(to) in to.iter().filter(|to| to.0 != from) {
                state.base.links.clear(from, to, kind);
            }
        }
        state.unstall();
        state.base.note(|at| Happening::Cleared { at, kind, from: from.to_vec(), to: to.to_vec() });
    }

    pub(crate) fn take_down(&mut self, number: HostId, kind: Kind) {
        let node = &mut self.nodes[number];
        let runtime = node.runtime.take();
        if runtime.is_none() && kind == Kind::Crash {
            return;
        }
        node.made = None;
        node.ends.forget();
        {
            let base = &mut self.state.borrow_mut().base;
            // A host that is down closes silently. A host whose runtime crashed refuses connections.
            base.hosts[number].is_up = kind == Kind::Crash;
            // The node's services may have ended before. A crash still affects their writes and operations.
            if runtime.is_some() {
                base.faults.tally.inject(kind);
                base.faults.tally.observe(kind);
                base.record.crashes += 1;
                base.note(|at| Happening::Crashed { at, kind, node: Node(number) });
            }
        }
        drop(runtime);
        self.end_operations(number, kind);
        if kind == Kind::PowerOff {
            self.end_supervisor(number);
        }
        let mut state = self.state.borrow_mut();
        state.take_messages();
        #[cfg(unix)]
        {
            let State { base, streams, sources, consoles, children, .. } = &mut *state;
            consoles[number].end_process(base, streams);
            children.end_process(base, streams, sources, number);
        }
        state.base.hosts[number].end_life();
    }

    /// Drops the stored descriptors and waiting connections of a node's supervisor, because its machine has
    /// gone.
    fn end_supervisor(&mut self, number: HostId) {
        #[cfg(unix)]
        {
            let state = &mut *self.state.borrow_mut();
            state.supervisors.end_machine(&mut state.base, &mut state.streams, number);
        }
        #[cfg(not(unix))]
        let _ = number;
    }

    fn set_slow(&mut self, node: HostId, factor: u32) {
        let others = self.nodes().filter(|other| other.0 != node);
        let base = &mut self.state.borrow_mut().base;
        base.links.set_slow(node, factor);
        let kind = Kind::Slow;
        let (from, to) = (vec![Node(node)], others.collect());
        base.note(|at| match factor {
            0 | 1 => Happening::Cleared { at, kind, from, to },
            _ => Happening::Obstructed { at, kind, from, to },
        });
    }

    fn set_paused(&mut self, node: HostId, on: bool) {
        let base = &mut self.state.borrow_mut().base;
        let Some(was_due) = base.hosts.set_paused(node, on, &mut base.clock) else { return };
        if on {
            base.faults.tally.inject(Kind::Pause);
        } else if was_due {
            base.faults.tally.observe(Kind::Pause);
        }
        base.note(|at| Happening::Paused { at, node: Node(node), on });
    }

    /// Draws the next fault of the schedule, and the time of the one after it.
    pub(crate) fn next_chaos(&mut self, round: u32) {
        let (kind, node, other, lasts, groups) = {
            let base = &mut self.state.borrow_mut().base;
            let is_over = base.now() >= self.chaos.until || self.chaos.round != round;
            if is_over || self.nodes.is_empty() {
                return;
            }
            let next = base.now() + 1 + base.faults.chance.below(2 * self.chaos.every);
            base.clock.schedule(next, Scheduled::World(WorldTask::Chaos { round }));
            let Some(kind) = base.faults.draw_chaos() else { return };
            let chance = &mut base.faults.chance;
            let count = self.nodes.len() as u64;
            let node = chance.below(count);
            let other = (node + 1 + chance.below(count.saturating_sub(1))) % count;
            let lasts = 1 + chance.below(4 * self.chaos.every);
            let groups: Vec<bool> = (0..count).map(|_| chance.below(2) == 0).collect();
            let drawn = |index: u64| Node(HostId::new(index as usize));
            (kind, drawn(node), drawn(other), lasts, groups)
        };
        let group = |side: bool| -> Vec<Node> {
            self.nodes().zip(&groups).filter(|(_, is)| **is == side).map(|(node, _)| node).collect()
        };
        let (these, those) = (group(true), group(false));
        let ways = |kind, from, to| Ongoing::Ways { kind, from, to };
        let mut ongoing = Vec::new();
        match kind {
            Kind::Partition => {
                self.partition(&these, &those);
                ongoing.push(ways(kind, these.clone(), those.clone()));
                ongoing.push(ways(kind, those.clone(), these.clone()));
            }
            Kind::OneWay => {
                self.partition_one_way(&these, &those);
                ongoing.push(ways(kind, these.clone(), those.clone()));
            }
            Kind::Hold => {
                self.hold(node, other);
                ongoing.push(ways(kind, vec![node], vec![other]));
                ongoing.push(ways(kind, vec![other], vec![node]));
            }
            Kind::Slow => {
                self.slow(node, 10);
                ongoing.push(Ongoing::Slow(node.0));
            }
            Kind::SlowDisk => {
                self.slow_disk(node, DISK_FACTOR);
                ongoing.push(Ongoing::SlowDisk(node.0));
            }
            Kind::Crash | Kind::PowerOff => {
                self.take_down(node.0, kind);
                ongoing.push(Ongoing::Down(node.0));
            }
            Kind::Pause => {
                self.pause(node);
                ongoing.push(Ongoing::Paused(node.0));
            }
            _ => self.step_wall(node, Duration::from_nanos(lasts), groups[0]),
        }
        let clock = &mut self.state.borrow_mut().base.clock;
        let end = clock.now().saturating_add(lasts);
        for ongoing in ongoing {
            let number = self.chaos.ongoing.push(ongoing);
            clock.schedule(end, Scheduled::World(WorldTask::Relief { number }));
        }
    }

    /// Ends a drawn fault of the world.
    pub(crate) fn relieve(&mut self, number: WorldFaultId) {
        match self.chaos.ongoing.take(number) {
            Some(Ongoing::Ways { kind, from, to }) => self.clear(kind, &from, &to),
            Some(Ongoing::Slow(node)) => self.set_slow(node, 1),
            Some(Ongoing::SlowDisk(node)) => {
                let state = &mut *self.state.borrow_mut();
                state.disks.slow(&mut state.base, node, 1);
            }
            Some(Ongoing::Down(node)) => self.restart(Node(node)),
            Some(Ongoing::Paused(node)) => self.set_paused(node, false),
            None => (),
        }
    }
}

/// The factor by which a drawn fault slows a disk.
const DISK_FACTOR: u32 = 100;
