//! What a node has of a process: signals that are sent to it, and a supervisor that hears what it tells.

use std::io;

use reactor::{
    Time,
    engine::{StandIn, Transport},
    signals::{Signal, SignalSet, Signals},
};

use crate::{bell::Lease, fault::Kind, node::Node, record::Happening, state::State, world::World};

/// Virtual sources that stand for something of a process.
#[derive(Default)]
pub(crate) struct StandIns {
    /// Who waits for signals, in the order they began to.
    signals: Vec<Waiting>,
    /// The sources through which a supervisor is told, with the host.
    supervisors: Vec<(u32, u32)>,
    notices: Vec<Notified>,
    /// What supervisors say of their watchdog: microseconds, 0 for none.
    pub(crate) watchdog: u64,
}

struct Waiting {
    feed: u32,
    host: u32,
    set: SignalSet,
}

struct Notified {
    host: u32,
    at: Time,
    text: String,
}

impl World {
    /// Sends a signal to a node's process. Whether it was handled.
    ///
    /// Each [`Signals`](reactor::signals::Signals) that waits for it is told. While one of the same kind is
    /// still to be told, the two become one: as the kernel does it ([`Arrived::times`] stays) or as the handler
    /// counts it, which is drawn. Where nobody waits, what signal(7) says by default happens: the process ends
    /// as by a [`crash`](World::crash), but for SIGCHLD, SIGCONT and SIGWINCH. Stopping it (SIGTSTP) is not
    /// modelled: nothing happens. Nothing happens either to a node that is down.
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
    ///     // .. and the services that are to be stopped.
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
        if self.nodes[number as usize].runtime.is_none() {
            return false;
        }
        let is_handled = self.state.borrow_mut().signal(number, signal);
        let is_ignored = [Signal::CHLD, Signal::CONT, Signal::WINCH, Signal::TSTP].contains(&signal);
        if !is_handled && !is_ignored {
            self.take_down(number, Kind::Crash);
        }
        is_handled
    }

    /// What a node told its supervisor ([`Supervised`](reactor::systemd::Supervised)) so far, over all its
    /// lives, each with its moment. Every node has a supervisor; its watchdog is
    /// [`WorldOptions::watchdog`](crate::WorldOptions::watchdog).
    pub fn notices(&self, node: impl Into<Node>) -> Vec<(Time, String)> {
        let number = node.into().0;
        let state = self.state.borrow();
        let of = state.stand_ins.notices.iter().filter(|notice| notice.host == number);
        of.map(|notice| (notice.at, notice.text.clone())).collect()
    }
}

impl State {
    /// Opens what an engine on this host asks for.
    pub(crate) fn stand_in(&mut self, host: u32, of: StandIn) -> Option<io::Result<Transport>> {
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
                if let Some(Some(fed)) = self.feeds.get_mut(feed as usize) {
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
        let lease = Lease { outside: self.outside.clone(), number: STAND_IN | u64::from(feed) };
        Some(Ok(Transport::hosted(u64::from(feed), lease)))
    }

    /// Forgets what an engine's host had of it.
    pub(crate) fn close_stand_in(&mut self, feed: u32) {
        self.stand_ins.signals.retain(|waiting| waiting.feed != feed);
        self.stand_ins.supervisors.retain(|(of, _)| *of != feed);
        self.feeds[feed as usize] = None;
    }

    /// Sends a signal to all of a host who wait for it; whether there is one.
    fn signal(&mut self, host: u32, signal: Signal) -> bool {
        let at = Time::from_nanos(self.now);
        self.record.keep(|| Happening::Signalled { at, node: host, signal });
        self.digest.number(u64::from(host) << 32 | u64::from(signal.number().unsigned_abs()) << 8 | SIGNAL);
        // What was dropped since hears nothing.
        self.hear();
        let hears = |waiting: &&Waiting| waiting.host == host && waiting.set.contains(signal);
        let all: Vec<u32> = self.stand_ins.signals.iter().filter(hears).map(|waiting| waiting.feed).collect();
        for feed in &all {
            let is_counted = self.chance.per_million(500_000);
            if let Some(Some(fed)) = self.feeds.get_mut(*feed as usize) {
                fed.merge_record(|pending| merged(pending, signal, is_counted));
            }
            self.look_at_feed(*feed);
        }
        !all.is_empty()
    }

    /// Takes what was written to a source as notices, as far as they are whole, if a supervisor reads it.
    pub(crate) fn take_notices(&mut self, feed: u32) {
        let Some((_, host)) = self.stand_ins.supervisors.iter().find(|(of, _)| *of == feed) else { return };
        let (host, at) = (*host, Time::from_nanos(self.now));
        let Some(Some(fed)) = self.feeds.get_mut(feed as usize) else { return };
        for text in fed.take_until_empty_lines() {
            self.record.keep(|| Happening::Notified { at, node: host, text: text.clone() });
            self.stand_ins.notices.push(Notified { host, at, text });
        }
    }
}

/// A pending record with this signal in it, or `None` if it is another's. Whether the handler ran for the new one
/// by itself is said.
fn merged(pending: Option<[u8; RECORD]>, signal: Signal, is_counted: bool) -> Option<[u8; RECORD]> {
    let Some(pending) = pending else { return Some(Signals::record(signal, 1)) };
    let [a, b, c, d, times @ ..] = pending;
    let is_same = i32::from_le_bytes([a, b, c, d]) == signal.number();
    let times = u32::from_le_bytes(times).saturating_add(u32::from(is_counted));
    is_same.then(|| Signals::record(signal, times))
}

/// What tells the number of a stand-in from those of what is in the network.
pub(crate) const STAND_IN: u64 = 1 << 61;
/// How long [`Signals::record`] is.
pub(crate) const RECORD: usize = 8;
const SIGNAL: u64 = 0x516;
