//! Supervised services: the runtime restarts them after a panic, within a budget, and the new life keeps a
//! part of the old one.

use crate::options::with_changes;
use std::{any::Any, collections::VecDeque, mem, time::Duration};

use super::Runtime;
use crate::{
    address::Address,
    clock::Time,
    engine::{Ending, Event},
    error::{Closed, Failure, Result},
    guard,
    id::Key,
    panics::{Blame, During},
    resource::listener,
    runtime::{Due, LoopState, Service},
};

/// How often, and how soon, the runtime restarts a service after a panic. See
/// [`Runtime::add_supervised`](crate::Runtime::add_supervised).
///
/// ```
/// use reactor::Restart;
/// use std::time::Duration;
///
/// let mut restart = Restart::default();
/// // 10, 20, 40, 80 and 100 ms.
/// restart.delay = Duration::from_millis(10);
/// restart.delay_max = Duration::from_millis(100);
/// assert_eq!((restart.max, restart.within), (5, Duration::from_secs(60)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Restart {
    /// The most restarts within the time [`within`](Restart::within); 5. The next panic ends the service.
    /// With 0 the first panic does.
    pub max: u32,
    /// The time within which restarts count; 60 s.
    pub within: Duration,
    /// How long to wait before a restart; zero. Each restart within [`within`](Restart::within) doubles it.
    pub delay: Duration,
    /// The longest wait; 10 s.
    pub delay_max: Duration,
}

with_changes!(Restart);

impl Default for Restart {
    fn default() -> Restart {
        Restart {
            max: 5,
            within: Duration::from_secs(60),
            delay: Duration::ZERO,
            delay_max: Duration::from_secs(10),
        }
    }
}

impl Restart {
    /// Returns the wait before a restart that this many others came before.
    fn wait(&self, before: usize) -> Duration {
        let times = 1_u32.checked_shl(before as u32).unwrap_or(u32::MAX);
        self.delay.saturating_mul(times).min(self.delay_max.max(self.delay))
    }
}

/// How to make a service, and the times of its restarts.
pub(super) struct RestartPlan {
    make: Box<dyn FnMut() -> Box<dyn Any>>,
    start: fn(&mut LoopState, &mut dyn Any, u16) -> Result,
    restart: Restart,
    /// The restarts within the time. There are at most as many as are allowed.
    restarted: VecDeque<Time>,
    /// Connections that the engine had accepted when the service panicked.
    accepted: Vec<(Key, Event)>,
}

impl RestartPlan {
    pub(super) fn new<S: Service>(mut make: impl FnMut() -> S + 'static, restart: Restart) -> RestartPlan {
        RestartPlan {
            make: Box::new(move || Box::new(make())),
            start: super::start::<S>,
            restart,
            restarted: VecDeque::new(),
            accepted: Vec::new(),
        }
    }

    /// Takes a restart off the budget. Returns the wait before it.
    fn take(&mut self, now: Time) -> Option<Duration> {
        let Restart { max, within, .. } = self.restart;
        while self.restarted.front().is_some_and(|at| now.since(*at) >= within) {
            self.restarted.pop_front();
        }
        let before = self.restarted.len();
        if before >= max as usize {
            return None;
        }
        self.restarted.push_back(now);
        Some(self.restart.wait(before))
    }
}

impl Runtime {
    /// Ends a service after a panic or a failed restart. Restarts a supervised service if its budget allows
    /// it.
    pub(super) fn end_or_restart(&mut self, index: u16, message: String) {
        let now = self.core.now;
        let entry = &mut self.services[index as usize];
        let is_supervised = entry.supervised.is_some();
        let supervised = entry.supervised.as_mut().filter(|_| !self.core.stopping);
        let Some(wait) = supervised.and_then(|supervised| supervised.take(now)) else {
            entry.panic.get_or_insert(message);
            self.core.remaking.retain(|remaking| *remaking != index);
            if is_supervised && !self.core.stopping {
                self.core.note_error(index, EXHAUSTED.to_owned());
            }
            return self.end_service(index);
        };
        entry.panic = Some(message);
        self.end_life(index);
        // The wheel has room for one timer of each service.
        let _ = self.core.timers.set(now + wait, Due::Restart(index));
    }

    /// Ends one life of a service. Keeps its listeners open, and the messages from others.
    fn end_life(&mut self, index: u16) {
        let entry = &mut self.services[index as usize];
        let name = entry.name;
        guard::discard(entry.service.take(), name);
        self.core.alive[index as usize] = false;
        if !self.core.remaking.contains(&index) {
            self.core.remaking.push(index);
            self.inbox.hold(index);
        }
        for key in self.core.listeners.clone() {
            if self.core.registry.get(key).is_some_and(|slot| slot.service == index) {
                guard::discard(listener::orphan(&mut self.core, key), name);
            }
        }
        self.core.broken.clear();
        self.end_resources(index, Ending::Reset);
        self.core.faults_due.drop_of(index);
        self.core.turn_ends.forget(index);
        for timer in self.core.typed_queues.renew(index) {
            self.core.timers.cancel(timer);
        }
        let record = &mut self.core.records[index as usize];
        record.life = record.life.wrapping_add(1);
        self.core.jobs_abandoned = self.core.jobs_abandoned.saturating_add(mem::take(&mut record.jobs));
    }

    /// Makes and starts a service again.
    pub(super) fn restart(&mut self, index: u16) {
        let entry = &mut self.services[index as usize];
        let Some(supervised) = entry.supervised.as_mut().filter(|_| self.core.remaking.contains(&index))
        else {
            return;
        };
        let start = supervised.start;
        match guard::call(|| (supervised.make)()) {
            Ok(service) => entry.service = Some(service),
            Err(message) => {
                self.count_panic(index, &message, None);
                return self.end_or_restart(index, message);
            }
        }
        entry.panic = None;
        self.core.alive[index as usize] = true;
        self.core.records[index as usize].restarts += 1;
        let mut failure: Option<Failure> = None;
        self.call(index, Blame::none(During::Start), |core, erased| {
            failure = start(core, erased, index).err();
        });
        if let Some(failure) = failure {
            let message = format!("could not start again: {}", guard::text(&failure));
            self.core.complain(index, &message);
            return self.end_or_restart(index, message);
        }
        if self.core.alive[index as usize] {
            self.begin_life(index);
        }
    }

    /// Begins the new life of a service. Closes the listeners that it did not request again, and delivers the
    /// kept messages.
    fn begin_life(&mut self, index: u16) {
        self.core.remaking.retain(|remaking| *remaking != index);
        for key in self.core.listeners.clone() {
            if self.core.is_orphan_of(index, key) {
                self.core.end(key, Closed::Done, Ending::Orderly);
            }
        }
        self.inbox.release(index);
        self.core.typed_queues.release(index);
        let supervised = self.services[index as usize].supervised.as_mut();
        let accepted = supervised.map(|supervised| mem::take(&mut supervised.accepted)).unwrap_or_default();
        for (key, event) in accepted {
            self.event(key, event);
        }
    }

    /// Keeps a connection that was accepted for a service that is being restarted.
    #[cold]
    pub(super) fn keep_accepted(&mut self, index: u16, key: Key, event: Event) {
        let supervised = self.services[index as usize].supervised.as_mut();
        if let Some(supervised) = supervised.filter(|_| self.core.remaking.contains(&index)) {
            supervised.accepted.push((key, event));
        }
    }

    /// Ends the services that wait for a restart, because a stop begins. Senders get their messages back as
    /// `Gone`.
    pub(super) fn end_restarts(&mut self) {
        for index in mem::take(&mut self.core.remaking) {
            self.end_service(index);
        }
    }
}

impl LoopState {
    /// Returns whether a service takes messages, because it can be called now or after a restart.
    pub(crate) fn is_reachable(&self, service: u16) -> bool {
        self.alive.get(service as usize).is_some_and(|alive| *alive) || self.remaking.contains(&service)
    }

    /// Finds the listener of an earlier life that a service requests again, by the address that it requested
    /// for it, or by the address that the listener has.
    pub(crate) fn orphan(&self, service: u16, address: &Address) -> Option<Key> {
        if !self.remaking.contains(&service) {
            return None;
        }
        let orphans = || self.listeners.iter().copied().filter(|key| self.is_orphan_of(service, *key));
        let asked = orphans().find(|key| self.asked.get(key) == Some(address));
        asked.or_else(|| orphans().find(|key| self.engine.local(*key).is_ok_and(|local| local == *address)))
    }

    fn is_orphan_of(&self, service: u16, key: Key) -> bool {
        self.registry.get(key).is_some_and(|slot| slot.service == service) && listener::is_orphan(self, key)
    }
}

/// The error text of a service whose restarts are used up.
const EXHAUSTED: &str = "panicked too often: it is not started again";
