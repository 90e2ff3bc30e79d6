//! Nodes that ended by themselves: their reasons, their counts, and their restart by the world.

use std::time::Duration;

use crate::{
    faults::Kind,
    ids::{HostId, Id as _},
    world::{
        World,
        node::Node,
        record::Happening,
        state::{Scheduled, WorldTask},
    },
};

/// The policy by which the world restarts a node that ended by itself, as a service manager does.
///
/// ```
/// use reactor::{Context, Receive, Result, Service};
/// use sim::{Restarts, World};
/// use std::time::Duration;
///
/// /// Works for a second, and panics.
/// struct Fragile;
///
/// impl Service for Fragile {
///     fn start(&mut self, cx: &mut Context<Self>) -> Result {
///         cx.after(Duration::from_secs(1), ());
///         Ok(())
///     }
/// }
///
/// impl Receive<()> for Fragile {
///     fn receive(&mut self, _: &mut Context<Self>, (): ()) -> Result {
///         panic!("a bug")
///     }
/// }
///
/// let mut world = World::new(7);
/// let node = world.add(|runtime| runtime.add(Fragile));
/// let mut restarts = Restarts::default();
/// restarts.times_max = 3;
/// world.restart_ended(node, restarts);
/// world.run_for(Duration::from_secs(60));
/// let ended = &world.summary().ended[0];
/// assert_eq!((ended.node, ended.times, ended.restarts), (node.node(), 4, 3));
/// assert!(ended.last.contains("a bug") && !world.is_up(node));
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Restarts {
    /// How long the node is down before it restarts: 100 milliseconds.
    pub delay: Duration,
    /// The most restarts: 5. After them the node stays down.
    pub times_max: u32,
    /// Whether it restarts only after a failure, and not after an orderly end: `false`.
    pub only_failed: bool,
}

impl Default for Restarts {
    fn default() -> Restarts {
        Restarts { delay: Duration::from_millis(100), times_max: 5, only_failed: false }
    }
}

/// A node that has ended by itself, in [`Summary::ended`](crate::Summary::ended).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Ended {
    /// The node.
    pub node: Node,
    /// How often it ended.
    pub times: u32,
    /// How often the world has restarted it.
    pub restarts: u32,
    /// The reason of its last end, or `in order` if nothing failed.
    pub last: String,
}

/// The record of one node's ends.
#[derive(Default)]
pub(crate) struct Ends {
    times: u32,
    restarts: u32,
    last: String,
    asked: Option<Restarts>,
    /// How many restarts are left.
    left: u32,
    /// The number of the current life. A restart that was planned in another life is ignored.
    life: u32,
    /// Set while it is down because it ended by itself. A crash or a restart clears it.
    is_down: bool,
    has_failed: bool,
}

impl Ends {
    /// Notes that a life begins.
    pub(crate) fn begin(&mut self) {
        self.life += 1;
        self.is_down = false;
    }

    /// Notes that a test or a fault took the node down.
    pub(crate) fn forget(&mut self) {
        self.is_down = false;
    }

    /// Returns the node's summary, if it has ended by itself.
    pub(crate) fn summary(&self, node: Node) -> Option<Ended> {
        let Ends { times, restarts, ref last, .. } = *self;
        (times > 0).then(|| Ended { node, times, restarts, last: last.clone() })
    }
}

impl World {
    /// Restarts a node each time it ends by itself: its services have ended, it was stopped, a service
    /// panicked, or its builder failed. If the node has ended already, it restarts, too. An end by a test or
    /// a fault ([`crash`](World::crash), [`power_off`](World::power_off), an unhandled signal) does not
    /// count.
    ///
    /// The process is gone, but its kernel keeps running, as after a [`crash`](World::crash). The node's disk
    /// keeps all completed writes, whether they are safe from a power cut or not. A file operation in flight
    /// is done, done in part, or not done, and never runs in the next life. An orderly stop waits for its
    /// operations within its grace, so it usually leaves none. Its children live on.
    ///
    /// Each end is in the [history](Happening::Ended), and the node is in
    /// [`Summary::ended`](crate::Summary::ended). Another call replaces the earlier one, and resets the
    /// count.
    pub fn restart_ended(&mut self, node: impl Into<Node>, restarts: Restarts) {
        let number = node.into().0;
        let ends = &mut self.nodes[number].ends;
        ends.left = restarts.times_max;
        ends.asked = Some(restarts);
        self.plan_restart(number);
    }

    /// Records that a node has ended by itself.
    pub(crate) fn note_end(&mut self, number: HostId) {
        let node = &mut self.nodes[number];
        let error = match &node.ended {
            Some(Ok(receipt)) => receipt.clone().check().err().map(|error| error.to_string()),
            Some(Err(error)) => Some(error.to_string()),
            None => None,
        };
        let ends = &mut node.ends;
        (ends.is_down, ends.has_failed) = (true, error.is_some());
        ends.times += 1;
        ends.last = error.clone().unwrap_or_else(|| "in order".to_owned());
        {
            let base = &mut self.state.borrow_mut().base;
            base.record.digest.number(u64::from(number.number()) << 16 | ENDED | u64::from(error.is_some()));
            base.note(|at| Happening::Ended { at, node: Node(number), error });
        }
        self.plan_restart(number);
    }

    /// Plans the restart of a node that ended by itself, if restarts are wanted and left.
    fn plan_restart(&mut self, number: HostId) {
        let ends = &self.nodes[number].ends;
        let Some(asked) = &ends.asked else { return };
        if ends.is_down && ends.left > 0 && (ends.has_failed || !asked.only_failed) {
            let clock = &mut self.state.borrow_mut().base.clock;
            let at = clock.after(asked.delay.max(Duration::from_nanos(1)));
            clock.schedule(at, Scheduled::World(WorldTask::Restart { node: number, life: ends.life }));
        }
    }

    /// Restarts a node at the planned time, unless the node has changed since.
    pub(crate) fn restart_planned(&mut self, number: HostId, life: u32) {
        let ends = &mut self.nodes[number].ends;
        if ends.is_down && ends.life == life && ends.left > 0 {
            ends.left -= 1;
            ends.restarts += 1;
            self.restart(Node(number));
        }
    }

    /// Ends the file operations of a node whose process is gone.
    pub(crate) fn end_operations(&mut self, number: HostId, kind: Kind) {
        let left = {
            let state = &mut *self.state.borrow_mut();
            state.disks.end_operations(&mut state.base, number, kind)
        };
        // Dropping them may notify the state, so it happens without a borrow.
        drop(left);
    }
}

const ENDED: u64 = 0xed00;
