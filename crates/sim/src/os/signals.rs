//! Signals: the sources that wait for them, and their delivery to a node's process.

use reactor::{
    Service,
    signals::{Signal, SignalSet, Signals},
};

use crate::{
    engine::sources::Sources,
    faults::Kind,
    ids::{HostId, Id as _, SourceId},
    testing::harness::Harness,
    world::{World, base::Base, node::Node, record::Happening, state::State},
};

/// The virtual sources that wait for signals, in the order of their creation.
#[derive(Default)]
pub(crate) struct SignalSources {
    all: Vec<SignalSource>,
}

struct SignalSource {
    source: SourceId,
    host: HostId,
    set: SignalSet,
}

impl SignalSources {
    /// Makes a source that waits for a set of signals.
    pub(crate) fn add(&mut self, sources: &mut Sources, host: HostId, set: SignalSet) -> SourceId {
        let source = sources.add();
        self.all.push(SignalSource { source, host, set });
        source
    }

    pub(crate) fn remove(&mut self, source: SourceId) {
        self.all.retain(|waiting| waiting.source != source);
    }

    /// Sends a signal to all sources of a host that wait for it. Returns whether there is one.
    fn send(&mut self, base: &mut Base, sources: &mut Sources, host: HostId, signal: Signal) -> bool {
        let mut is_handled = false;
        let waits = |of: &&SignalSource| of.host == host && of.set.contains(signal);
        for waiting in self.all.iter().filter(waits) {
            is_handled = true;
            let is_counted = base.faults.chance.per_million(500_000);
            sources.change(base, waiting.source, |source| {
                source.merge_record(|pending| merged(pending, signal, is_counted));
            });
        }
        is_handled
    }
}

impl State {
    /// Sends a signal to a host's process. Returns whether a source waits for it.
    fn signal(&mut self, host: HostId, signal: Signal) -> bool {
        self.base.note(|at| Happening::Signalled { at, node: Node(host), signal });
        let number = u64::from(signal.number().unsigned_abs());
        self.base.record.digest.number(u64::from(host.number()) << 32 | number << 8 | SIGNAL);
        // Sources that were dropped before get no signal.
        self.take_messages();
        self.signals.send(&mut self.base, &mut self.sources, host, signal)
    }
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
        let Node(host) = node.into();
        if self.nodes[host].runtime.is_none() {
            return false;
        }
        let is_handled = self.state.borrow_mut().signal(host, signal);
        let is_ignored = [Signal::CHLD, Signal::CONT, Signal::WINCH, Signal::TSTP].contains(&signal);
        if !is_handled && !is_ignored {
            self.take_down(host, Kind::Crash);
        }
        is_handled
    }
}

impl<S: Service> Harness<S> {
    /// Sends a signal to the service's process, as [`World::signal`] does. Returns whether the process
    /// handled it. If not, the signal may have ended the service.
    pub fn signal(&mut self, signal: Signal) -> bool {
        self.with_world(|world| world.signal(Node(HostId::FIRST), signal))
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
const RECORD: usize = 8;
const SIGNAL: u64 = 0x516;
