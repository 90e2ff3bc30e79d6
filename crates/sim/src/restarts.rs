//! Nodes that ended by themselves: what an end leaves, who is named for it, and how the world begins such a node again.

use std::time::Duration;

use reactor::Time;

use crate::{
    fault::Kind,
    link::nanos,
    node::Node,
    record::{Happening, NodeNumber},
    state::What,
    world::World,
};

/// How the world begins a node again that has ended by itself, as a service manager does.
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
/// assert_eq!((ended.node, ended.times, ended.restarts), (0, 4, 3));
/// assert!(ended.last.contains("a bug") && !world.is_up(node));
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Restarts {
    /// How long the node is down before it begins again: 100 milliseconds.
    pub delay: Duration,
    /// How often it begins again at most: 5 times. Then it stays down.
    pub times_max: u32,
    /// Whether it begins again only when something failed, and not after an end in order; `false`.
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
    /// Which.
    pub node: NodeNumber,
    /// How often.
    pub times: u32,
    /// How often the world has begun it again.
    pub restarts: u32,
    /// Why it ended last; `in order` when nothing failed.
    pub last: String,
}

/// What the world knows of the ends of one node.
#[derive(Default)]
pub(crate) struct Ends {
    times: u32,
    restarts: u32,
    last: String,
    asked: Option<Restarts>,
    /// How often it may still begin again.
    left: u32,
    /// Which life this is: a restart that was meant for another one is none.
    life: u32,
    /// It is down because it ended by itself, and nothing has befallen it since.
    is_down: bool,
    has_failed: bool,
}

impl Ends {
    /// A life begins.
    pub(crate) fn begin(&mut self) {
        self.life += 1;
        self.is_down = false;
    }

    /// The node was taken down from outside.
    pub(crate) fn forget(&mut self) {
        self.is_down = false;
    }

    /// What is told of the node, if it has ended.
    pub(crate) fn told(&self, node: NodeNumber) -> Option<Ended> {
        let Ends { times, restarts, ref last, .. } = *self;
        (times > 0).then(|| Ended { node, times, restarts, last: last.clone() })
    }
}

impl World {
    /// Has the world begin a node again each time it ends by itself: when its services have ended, it was stopped, one
    /// panicked, or its builder failed. If it has ended already, this counts for that end, too. What the test or a fault
    /// does to a node ([`crash`](World::crash), [`vanish`](World::vanish), a signal that nobody handles) is no such end.
    ///
    /// The process is gone and its kernel goes on, as after a [`crash`](World::crash): what was done on the node's disk
    /// stays, whether it is safe from a power cut or not; an operation that was out is done, done in part, or not, and
    /// never in the next life. A stop waits for its operations within its grace, so after an end in order there are mostly
    /// none. Its children live on.
    ///
    /// Every end is in the [history](Happening::Ended), and the node in [`Summary::ended`](crate::Summary::ended).
    /// Asked for again, it takes the place of what was asked for before, and counts anew.
    pub fn restart_ended(&mut self, node: impl Into<Node>, restarts: Restarts) {
        let number = node.into().0;
        let ends = &mut self.nodes[number as usize].ends;
        ends.left = restarts.times_max;
        ends.asked = Some(restarts);
        self.plan_restart(number);
    }

    /// A node has ended by itself.
    pub(crate) fn note_end(&mut self, number: u32) {
        let node = &mut self.nodes[number as usize];
        let error = match &node.ended {
            Some(Ok(receipt)) => receipt.clone().check().err().map(|error| error.to_string()),
            Some(Err(error)) => Some(error.to_string()),
            None => None,
        };
        let ends = &mut node.ends;
        (ends.is_down, ends.has_failed) = (true, error.is_some());
        ends.times += 1;
        ends.last = error.clone().unwrap_or_else(|| "in order".to_owned());
        let mut state = self.state.borrow_mut();
        state.digest.number(u64::from(number) << 16 | ENDED | u64::from(error.is_some()));
        let at = Time::from_nanos(state.now);
        state.record.keep(|| Happening::Ended { at, node: number, error });
        drop(state);
        self.plan_restart(number);
    }

    /// Plans the restart of a node that is down by itself, if one is asked for and left.
    fn plan_restart(&mut self, number: u32) {
        let ends = &self.nodes[number as usize].ends;
        let Some(asked) = &ends.asked else { return };
        if ends.is_down && ends.left > 0 && (ends.has_failed || !asked.only_failed) {
            let mut state = self.state.borrow_mut();
            let at = state.now.saturating_add(nanos(asked.delay).max(1));
            state.queue.put(at, What::Restart { node: number, life: ends.life });
        }
    }

    /// It is time to begin a node again, unless something else has befallen it since.
    pub(crate) fn restart_planned(&mut self, number: u32, life: u32) {
        let ends = &mut self.nodes[number as usize].ends;
        if ends.is_down && ends.life == life && ends.left > 0 {
            ends.left -= 1;
            ends.restarts += 1;
            self.restart(Node(number));
        }
    }

    /// The process of a node is gone, and with it its operations on files.
    pub(crate) fn end_operations(&mut self, number: u32, kind: Kind) {
        let left = self.state.borrow_mut().end_files(number, kind);
        // Whom they would tell is gone; that is told to the state all the same.
        drop(left);
    }
}

const ENDED: u64 = 0xed00;
