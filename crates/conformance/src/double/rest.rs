//! The rest of a double without events: the order in which doubles wait, and when the clock may jump.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Wake,
    thread::ThreadId,
};

use reactor::Time;

use super::{network::Shared, state::State};

/// A network's record of one of its doubles.
pub(super) struct Driven {
    /// The thread that made the double, or waited with it last.
    pub(super) thread: ThreadId,
    pub(super) bell: Arc<Bell>,
    pub(super) counters: Arc<Counters>,
    /// The deadline of the wait in which the double is blocked, while it is.
    pub(super) parked: Option<Option<Time>>,
    /// The version at which the double had nothing to do.
    pub(super) seen: u64,
    /// The version at which the double gave way to a sibling of its thread.
    gave_way: u64,
}

impl Driven {
    pub(super) fn new(thread: ThreadId, bell: Arc<Bell>, counters: Arc<Counters>) -> Driven {
        Driven { thread, bell, counters, parked: None, seen: 0, gave_way: 0 }
    }

    /// Reports whether the double may find something when it looks next.
    fn is_due(&self, version: u64, now: Time) -> bool {
        let deadline_passed = self.parked.is_some_and(|deadline| deadline.is_some_and(|at| at <= now));
        self.seen != version || self.bell.is_rung() || deadline_passed
    }
}

/// Counters of a double that its network reports.
#[derive(Default)]
pub(super) struct Counters {
    lent: AtomicUsize,
}

impl Counters {
    pub(super) fn lent(&self) -> usize {
        self.lent.load(Ordering::Relaxed)
    }

    pub(super) fn set_lent(&self, lent: usize) {
        self.lent.store(lent, Ordering::Relaxed);
    }
}

/// The flag that a double's waker sets. It outlives the double and the network.
pub(super) struct Bell {
    rung: AtomicBool,
    shared: Weak<Shared>,
}

impl Bell {
    pub(super) fn new(shared: &Arc<Shared>) -> Bell {
        Bell { rung: AtomicBool::new(false), shared: Arc::downgrade(shared) }
    }

    fn is_rung(&self) -> bool {
        self.rung.load(Ordering::Acquire)
    }

    /// Takes the flag. Returns true if it was set.
    pub(super) fn answer(&self) -> bool {
        self.rung.swap(false, Ordering::AcqRel)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Bell>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Bell>) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(shared) = self.shared.upgrade() {
            // Take the lock, so that a double which has just found the flag unset has gone to sleep before
            // the notification.
            drop(shared.lock());
            shared.notify();
        }
    }
}

/// The next action of a double without events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rest {
    /// Return, because the thread has to drive another of its doubles first.
    GiveWay,
    /// Look again, because the clock has moved.
    Jumped,
    /// Sleep until something changes.
    Sleep,
}

impl State {
    /// Decides for the double `number`, which found nothing in this version.
    pub(super) fn rest(&mut self, number: u64, deadline: Option<Time>) -> Rest {
        let (version, now) = (self.version, self.now);
        let Some(me) = self.doubles.get_mut(&number) else { return Rest::Sleep };
        let (thread, gave_way) = (me.thread, me.gave_way);
        (me.seen, me.parked) = (version, Some(deadline));
        // This very thread drives a sibling that was never parked, so the sibling cannot run while we sleep.
        let mut others = self.doubles.iter().filter(|(other, _)| **other != number).map(|(_, double)| double);
        let sibling = |double: &&Driven| double.thread == thread && double.parked.is_none();
        let waiting = gave_way != version && others.clone().any(|d| sibling(&d) && d.is_due(version, now));
        let quiet = others.all(|d| sibling(&d) || (d.parked.is_some() && !d.is_due(version, now)));
        if waiting {
            if let Some(me) = self.doubles.get_mut(&number) {
                (me.gave_way, me.parked) = (version, None);
            }
            return Rest::GiveWay;
        }
        let earliest = self.doubles.values().filter_map(|double| double.parked.flatten()).min();
        match earliest {
            Some(at) if quiet && self.holds == 0 => {
                self.now = self.now.max(at);
                Rest::Jumped
            }
            _ => Rest::Sleep,
        }
    }

    /// Records that a double looks for work, in this thread.
    pub(super) fn looks(&mut self, number: u64) {
        if let Some(double) = self.doubles.get_mut(&number) {
            (double.thread, double.parked) = (std::thread::current().id(), None);
        }
    }

    /// Records that a double found nothing.
    pub(super) fn saw_nothing(&mut self, number: u64) {
        let version = self.version;
        if let Some(double) = self.doubles.get_mut(&number) {
            double.seen = version;
        }
    }
}
