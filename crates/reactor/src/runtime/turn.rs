//! One turn of the loop, whole.
//!
//! ```text
//! wait -> stop flag -> events -> again -> commands -> timers -> messages -> end of turn   (handlers run)
//!      -> flush, interest -> closed                                        (one write per stream)
//! ```
//! Each phase takes only work that was queued when it began. Work that it queues for itself comes in the next
//! turn, which then does not wait. Handlers never nest, because their requests are queued.

use std::time::Duration;

use super::{Runtime, WAIT_ERRORS_MAX, broken, deadlines::LastWords, empty};
use crate::{
    clock::Time,
    engine::{Chunk, Event},
    error::Error,
    guard,
    id::Key,
    panics::{Blame, During},
    runtime::{Call, Due},
};

impl Runtime {
    /// Makes one turn: waits at most `max_wait` (`None` is without limit), handles the events and writes the
    /// queued output. Returns whether it called a handler.
    ///
    /// # Errors
    /// The engine is broken: its wait failed several times in a row.
    pub fn turn(&mut self, max_wait: Option<Duration>) -> Result<bool, Error> {
        if max_wait != Some(Duration::ZERO) {
            // The caller that drives the turns may have done other work since the last one.
            self.turned = self.core.engine.host().now();
        }
        let result = self.next_turn(max_wait);
        // Submit now, because the next turn may come much later.
        self.core.engine.submit();
        result
    }

    pub(super) fn next_turn(&mut self, max_wait: Option<Duration>) -> Result<bool, Error> {
        self.check_process("turn")?;
        let handled = self.core.counters.handled;
        let asked = self.wait(max_wait)?;
        let happened = empty::happened(&self.core);
        self.core.now = self.core.engine.host().now();
        self.core.handlers.renew(self.core.now);
        self.begin_stop_if_asked();
        // Take the resume queue before the events, because the work that they keep for later belongs to the
        // next turn.
        let again = std::mem::replace(&mut self.core.again, std::mem::take(&mut self.driving));
        self.events();
        self.again(again);
        self.commands();
        self.timers();
        self.messages();
        self.turn_ends();
        self.core.feed_file_waiters();
        self.flush();
        self.closings();
        self.core.give_files();
        if asked {
            self.count_empty(happened);
        } else {
            self.was_not_empty();
        }
        self.end_turn();
        self.check();
        Ok(self.core.counters.handled != handled)
    }

    /// Returns how long the wait may be, seen from `now`. `None` if only events count.
    pub(super) fn patience(&self, now: Time) -> Option<Duration> {
        let core = &self.core;
        let pending = !core.again.is_empty()
            || !core.dirty.is_empty()
            || !core.ended.is_empty()
            || !core.in_grace.is_empty()
            || !core.faults_due.is_empty()
            || !core.panics_due.is_empty()
            || core.typed_queues.messages() > 0
            || core.turn_ends.is_due()
            || core.files.is_due()
            || !self.inbox.is_empty()
            || self.first.is_some()
            || self.drain.is_some()
            // The stop wakes the loop once, and that may have been in a turn whose wait failed.
            || !core.stopping && core.mailbox.grace().is_some();
        if pending {
            return Some(Duration::ZERO);
        }
        let unarmed = Some(core.unarmed_next).filter(|next| *next != Time::NEVER);
        let next = core.timers.next().into_iter().chain(self.stop_by).chain(unarmed).min();
        next.map(|next| next.since(now))
    }

    /// Waits for events. Returns `true` if the runtime itself asked not to wait.
    fn wait(&mut self, max_wait: Option<Duration>) -> Result<bool, Error> {
        let own = self.patience(self.turned);
        let mut patience = match (own, max_wait) {
            (Some(own), Some(max)) => Some(own.min(max)),
            (own, max) => own.or(max),
        };
        if patience != Some(Duration::ZERO) && self.spin(patience) {
            patience = Some(Duration::ZERO);
        }
        // From here on a sender wakes the engine. The runtime sees commands that came before now.
        if patience != Some(Duration::ZERO) && !self.inbox.sleep() {
            patience = Some(Duration::ZERO);
        }
        let result = if self.first.is_some() { Ok(()) } else { self.core.engine.wait(patience) };
        self.inbox.awake();
        match result {
            Ok(()) => self.wait_errors = 0,
            Err(error) => {
                self.wait_errors += 1;
                if self.wait_errors >= WAIT_ERRORS_MAX {
                    return Err(broken(self.core.engine.name(), error));
                }
            }
        }
        Ok(own == Some(Duration::ZERO))
    }

    /// Polls for events for a while without sleeping, if that paid recently. Returns `true` if it found any.
    fn spin(&mut self, patience: Option<Duration>) -> bool {
        let Some(limit) = self.spin.begin() else { return false };
        let start = self.core.engine.host().now();
        let limit = patience.map_or(limit, |patience| patience.min(limit));
        loop {
            if self.core.engine.wait(Some(Duration::ZERO)).is_ok() {
                self.first = self.core.engine.next();
            }
            let found = self.first.is_some() || !self.inbox.is_empty();
            if found || self.core.engine.host().now().since(start) >= limit {
                self.spin.ended(found);
                return found;
            }
            std::hint::spin_loop();
        }
    }

    fn events(&mut self) {
        self.first_event();
        while let Some((key, event)) = self.core.engine.next() {
            self.core.counters.events += 1;
            // Most events are input, so this path does not copy it like an event of another kind.
            match event {
                Event::Got(chunk) => self.input(key, chunk),
                event => self.event(key, event),
            }
            self.flush_if_spent();
        }
    }

    /// Handles the event that a poll without sleeping has found.
    #[cold]
    #[inline(never)]
    fn first_event(&mut self) {
        let Some((key, event)) = self.first.take() else { return };
        self.core.counters.events += 1;
        match event {
            Event::Got(chunk) => self.input(key, chunk),
            event => self.event(key, event),
        }
    }

    /// Handles input of a stream.
    #[inline(always)]
    fn input(&mut self, key: Key, mut chunk: Chunk) {
        if let Some(slot) = self.core.registry.get_mut(key) {
            let (table, service) = (slot.table, slot.service);
            self.call(service, Blame::on(During::Handle, key), |core, erased| {
                (table.got)(core, erased, key, chunk.bytes())
            });
        } else {
            self.core.counters.stale += 1;
        }
        self.core.engine.give(chunk);
    }

    /// Handles an event other than input.
    #[inline(never)]
    pub(super) fn event(&mut self, key: Key, event: Event) {
        let Some(slot) = self.core.registry.get_mut(key) else {
            self.core.counters.stale += 1;
            return;
        };
        let (table, service) = (slot.table, slot.service);
        match event {
            Event::Sent(sent) => (table.sent)(&mut self.core, key, sent),
            Event::Detached(transport) => (table.detached)(&mut self.core, key, transport),
            event => {
                // A listener is not to blame for calls of the service because of it.
                let blame = match &event {
                    Event::Accepted(..) if !self.core.alive[service as usize] => {
                        return self.keep_accepted(service, key, event);
                    }
                    Event::Accepted(..) => Blame::none(During::Accept),
                    Event::NotAccepted(_) => Blame::none(During::Fault),
                    _ => Blame::on(During::Handle, key),
                };
                self.call(service, blame, |core, erased| (table.event)(core, erased, key, event));
            }
        }
    }

    /// Resumes streams with kept work: unread input, or a due `Drained`.
    fn again(&mut self, mut again: Vec<Key>) {
        for key in again.drain(..) {
            let Some(slot) = self.core.registry.get_mut(key) else { continue };
            slot.again = false;
            let (table, service) = (slot.table, slot.service);
            let blame = Blame::on(During::Handle, key);
            self.call(service, blame, |core, erased| (table.again)(core, erased, key));
            self.flush_if_spent();
        }
        self.driving = again;
    }

    /// Executes commands from other threads.
    fn commands(&mut self) {
        if self.inbox.is_empty() {
            return;
        }
        self.inbox.drain();
        self.walk_commands(self.core.limits.per_turn);
    }

    pub(super) fn walk_commands(&mut self, limit: usize) {
        for _ in 0..limit {
            let Runtime { core, inbox, services, .. } = self;
            let Some((index, queue, deliver)) = inbox.next() else { return };
            let service = services.get_mut(index as usize).and_then(|entry| entry.service.as_mut());
            let Some(service) = service else {
                deliver(queue, None, index);
                core.steps += 1;
                continue;
            };
            core.calling = index;
            if let Err(text) = guard::call(|| deliver(queue, Some((core, &mut **service)), index)) {
                self.panicked(index, text, Blame::none(During::Command));
            }
            self.flush_if_spent();
        }
    }

    /// Handles timers and deadlines that have passed.
    fn timers(&mut self) {
        self.core.arm_unarmed();
        self.end_graces();
        if self.core.timers.is_empty() {
            return;
        }
        self.core.timers.expire(self.core.now, self.core.limits.per_turn);
        while let Some((_, due)) = self.core.timers.pop_due() {
            self.core.steps += 1;
            match due {
                Due::Resource(key) => self.core.resource_due(key),
                Due::Item(key) => self.core.item_due(key),
                Due::Shortage => self.core.shortage_due(),
                Due::Restart(service) => self.restart(service),
                Due::Timer { queue, index } => {
                    if let Some((service, deliver)) = self.core.typed_queues.of_timer(queue) {
                        let blame = Blame::none(During::Timer);
                        self.call(service, blame, |core, erased| {
                            deliver(core, erased, service, queue, Some(index))
                        });
                    }
                }
            }
            self.flush_if_spent();
        }
    }

    /// Handles the deadlines that an earlier turn found, and that no read has moved since.
    fn end_graces(&mut self) {
        for key in std::mem::take(&mut self.core.in_grace) {
            self.core.steps += 1;
            if let Some(LastWords { service, queue, index, deliver }) = self.core.end_grace(key) {
                let blame = Blame::on(During::Timer, key);
                self.call(service, blame, |core, erased| deliver(core, erased, service, queue, Some(index)));
                self.core.close_notified(key);
            }
        }
    }

    /// Delivers faults of this turn, and messages between services.
    fn messages(&mut self) {
        for (index, fault) in self.core.faults_due.take() {
            if let Some(entry) = self.services.get(index as usize) {
                let call = entry.fault;
                let blame = Blame::none(During::Fault);
                self.call(index, blame, |core, erased| call(core, erased, index, fault));
            }
        }
        for _ in 0..self.core.typed_queues.messages().min(self.core.limits.per_turn) {
            let Some((queue, service, deliver)) = self.core.typed_queues.next_message(&self.core.alive)
            else {
                return;
            };
            // The service is alive, because `TypedQueues::clear` drops the messages of a service that ends.
            let blame = Blame::none(During::Message);
            self.call(service, blame, |core, erased| deliver(core, erased, service, queue, None));
            self.flush_if_spent();
        }
    }

    /// Writes the queued output in the middle of a turn, if handlers have been called often or for long since
    /// the last write. The peers of the first ones must not wait for the last ones.
    #[inline]
    pub(super) fn flush_if_spent(&mut self) {
        if self.core.handlers.is_spent() {
            self.flush_early();
        }
    }

    #[cold]
    fn flush_early(&mut self) {
        self.flush();
        // An engine that completes writes by itself begins them now.
        self.core.engine.submit();
        let now = self.core.engine.host().now();
        self.core.handlers.renew(now);
    }

    /// Writes the queued output.
    pub(super) fn flush(&mut self) {
        self.core.flush();
        self.end_panicked();
    }

    /// Makes the last call for each ended resource, and then frees its slot.
    pub(super) fn closings(&mut self) {
        for (key, why) in std::mem::take(&mut self.core.ended) {
            self.core.steps += 1;
            let Some((service, table, resource)) = self.core.registry.take_ended(key) else { continue };
            let name = self.services[service as usize].name;
            crate::log::closed(name, key, &why, || (table.look)(&*resource).rests);
            if !self.core.alive[service as usize] {
                guard::discard(resource, name);
                guard::discard(why, name);
                self.core.forget(key);
                continue;
            }
            self.core.observe(Call::Closed { service, resource: key });
            let blame = Blame::on(During::Closed, key);
            self.call(service, blame, |core, erased| (table.closed)(core, erased, key, resource, why));
            self.core.forget(key);
            self.flush_if_spent();
        }
        self.end_panicked();
    }

    /// Reads the clock once. Deadlines that were set in this turn count from here.
    fn end_turn(&mut self) {
        let core = &mut self.core;
        let end = core.engine.host().now();
        self.turned = end;
        if !core.fresh.is_empty() {
            core.start_fresh(end);
        }
        core.counters.turns += 1;
        core.counters.turn_took(end.since(core.now));
        self.publish();
    }

    /// Publishes the present counters to other threads.
    pub(super) fn publish(&mut self) {
        let core = &mut self.core;
        core.counters.engine_calls = core.engine.calls();
        core.counters.resources = core.registry.occupied() as u64;
        core.counters.queue_bytes = core.budget.used() as u64;
        core.counters.timers = core.typed_queues.timers() as u64;
        self.metrics.publish(&core.counters);
    }
}

/// Decides adaptively whether to poll without sleeping, so that a loop with slow peers stops trying.
pub(super) struct Spin {
    limit: Option<Duration>,
    /// Waits to pass before the next try. The number doubles with each try that found nothing.
    skip: u32,
    penalty: u32,
}

impl Spin {
    const PENALTY_MAX: u32 = 64;

    pub(super) fn new(limit: Option<Duration>) -> Spin {
        Spin { limit, skip: 0, penalty: 0 }
    }

    fn begin(&mut self) -> Option<Duration> {
        let limit = self.limit?;
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        Some(limit)
    }

    fn ended(&mut self, found: bool) {
        self.penalty = if found { 0 } else { (self.penalty * 2).clamp(1, Spin::PENALTY_MAX) };
        self.skip = self.penalty;
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, Spin};

    /// Returns how many waits pass before the next try.
    fn passes(spin: &mut Spin) -> usize {
        (0..1_000).take_while(|_| spin.begin().is_none()).count()
    }

    #[test]
    fn a_loop_looks_less_often_the_longer_it_finds_nothing() {
        let limit = Some(Duration::from_micros(50));
        let mut spin = Spin::new(limit);
        assert_eq!((spin.begin(), Spin::new(None).begin()), (limit, None));
        let mut tried = Vec::new();
        for found in [false, false, false, false, false, false, false, false, true, false, true, true] {
            spin.ended(found);
            tried.push(passes(&mut spin));
        }
        assert_eq!(tried, [1, 2, 4, 8, 16, 32, 64, 64, 0, 1, 0, 0]);
    }
}
