//! Deadlines of resources: the internal one, the one that its service set, and the last words, which the
//! service receives when the latter has passed. Also the timers and deadlines that count from the end of a turn.

use std::time::Duration;

use crate::{
    clock::Time,
    engine::Ending,
    error::Closed,
    id::Key,
    runtime::{
        Due, Fresh, LoopState, TimerId, registry::DeadlineState, timers::TimerKey,
        typed_queues::DeliverLocalFn,
    },
};

/// A stored message, its service, and the function that delivers it.
pub(crate) struct LastWords {
    pub(crate) service: u16,
    pub(crate) queue: u32,
    pub(crate) index: u32,
    pub(crate) deliver: DeliverLocalFn,
}

impl LoopState {
    /// Sets the internal deadline of a resource, counted from this turn's time.
    pub(crate) fn set_internal_deadline(&mut self, key: Key, after: Option<Duration>) {
        self.set_internal_deadline_at(key, after.map_or(Time::NEVER, |after| self.now + after));
    }

    /// Sets the internal deadline of a resource to this moment.
    pub(crate) fn set_internal_deadline_at(&mut self, key: Key, at: Time) {
        let Some(slot) = self.registry.get_mut(key) else { return };
        if slot.internal_deadline != at {
            slot.internal_deadline = at;
            self.arm(key);
        }
    }

    /// Arms the deadlines of resources that have not finished.
    pub(crate) fn arm_unarmed(&mut self) {
        if self.unarmed.is_empty() {
            return;
        }
        self.unarmed_next = Time::NEVER;
        let mut unarmed = std::mem::take(&mut self.unarmed);
        unarmed.drain(..).for_each(|key| self.arm(key));
        self.unarmed = unarmed;
    }

    /// Sets the service's deadline of a resource, counted from the end of this turn.
    pub(crate) fn set_deadline(&mut self, key: Key, after: Option<Duration>) {
        let Some(slot) = self.registry.get_mut(key) else { return };
        let Some(after) = after else {
            self.drop_last_words(key);
            let Some(slot) = self.registry.get_mut(key) else { return };
            (slot.deadline, slot.deadline_state) = (Time::NEVER, DeadlineState::Set);
            // While the deadline was in its grace, no timer was armed.
            return self.arm(key);
        };
        slot.deadline = Time::ZERO + after;
        if std::mem::replace(&mut slot.deadline_state, DeadlineState::Fresh) != DeadlineState::Fresh {
            self.fresh.push(Fresh::Deadline(key));
        }
    }

    /// Returns the rest of the service's deadline of a resource.
    pub(crate) fn deadline_left(&self, key: Key) -> Option<Duration> {
        let slot = self.registry.get(key)?;
        match slot.deadline_state {
            DeadlineState::Set if slot.deadline == Time::NEVER => None,
            DeadlineState::Set => Some(slot.deadline.since(self.now)),
            DeadlineState::Fresh => Some(slot.deadline.since(Time::ZERO)),
            DeadlineState::Grace | DeadlineState::Notified | DeadlineState::Passed => Some(Duration::ZERO),
        }
    }

    /// Arms the wheel for the earlier of both deadlines.
    pub(crate) fn arm(&mut self, key: Key) {
        if let Some(slot) = self.registry.get_mut(key) {
            slot.arm(key, &mut self.timers);
        }
    }

    /// Handles the timer of a resource. One of its deadlines may have passed.
    pub(crate) fn resource_due(&mut self, key: Key) {
        let now = self.now;
        let Some(slot) = self.registry.get_mut(key) else { return };
        slot.timer = TimerKey::NONE;
        if slot.internal_deadline <= now {
            slot.internal_deadline = Time::NEVER;
            let table = slot.table;
            (table.expired)(self, key);
        } else if slot.deadline_state == DeadlineState::Set && slot.deadline <= now {
            // A slow handler elsewhere must not kill a healthy peer, so the engine tries one more read first.
            slot.deadline_state = DeadlineState::Grace;
            self.in_grace.push(key);
            self.engine.probe(key);
        }
        self.arm(key);
    }

    /// Handles the timer of an item, which may have been unfinished for too long.
    pub(crate) fn item_due(&mut self, key: Key) {
        if let Some(slot) = self.registry.get_mut(key) {
            let table = slot.table;
            (table.item_due)(self, key);
        }
    }

    /// Starts the timers and deadlines that were set in this turn. They count from `end`, the only clock read
    /// at its end.
    pub(crate) fn start_fresh(&mut self, end: Time) {
        let mut starting = std::mem::replace(&mut self.fresh, std::mem::take(&mut self.starting));
        for fresh in starting.drain(..) {
            match fresh {
                Fresh::Timer { queue, index, generation, after } => {
                    if self.typed_queues.is_set(queue, index, generation)
                        && let Ok(key) = self.timers.set(end + after, Due::Timer { queue, index })
                    {
                        self.typed_queues.armed(queue, index, key);
                    }
                }
                Fresh::Deadline(key) => {
                    if let Some(slot) = self.registry.get_mut(key)
                        && slot.deadline_state == DeadlineState::Fresh
                    {
                        slot.deadline_state = DeadlineState::Set;
                        slot.deadline = end + slot.deadline.since(Time::ZERO);
                        self.arm(key);
                    }
                }
            }
        }
        self.starting = starting;
    }

    /// Keeps a stored message for a resource's deadline.
    pub(crate) fn keep_last_words(&mut self, key: Key, message: TimerId) {
        self.last_words.insert(key, message);
    }

    /// Drops the message that is kept for a resource's deadline, if there is one.
    #[inline]
    pub(crate) fn drop_last_words(&mut self, key: Key) {
        if !self.last_words.is_empty() {
            self.take_message(key);
        }
    }

    #[cold]
    fn take_message(&mut self, key: Key) {
        if let Some(message) = self.last_words.remove(&key)
            && let Some((service, _)) = self.typed_queues.of_timer(message.queue)
        {
            self.typed_queues.cancel(service, message);
        }
    }

    /// Handles a passed deadline that the last read did not move. Returns the message to deliver now. Ends
    /// the resource if there is none.
    pub(crate) fn end_grace(&mut self, key: Key) -> Option<LastWords> {
        let slot = self.registry.get_mut(key).filter(|slot| slot.deadline_state == DeadlineState::Grace)?;
        let Some(TimerId { queue, index, .. }) = self.last_words.remove(&key) else {
            // A thread that moves a part of a file may put the end off.
            slot.deadline_state = DeadlineState::Passed;
            self.end(key, Closed::Deadline, Ending::Orderly);
            return None;
        };
        slot.deadline_state = DeadlineState::Notified;
        let (service, deliver) = self.typed_queues.of_timer(queue)?;
        Some(LastWords { service, queue, index, deliver })
    }

    /// Closes a resource whose service got the message, unless the service has set a new deadline or removed
    /// it.
    pub(crate) fn close_notified(&mut self, key: Key) {
        if self.registry.get(key).is_some_and(|slot| slot.deadline_state == DeadlineState::Notified) {
            self.close(key, Closed::Deadline);
        }
    }

    /// Notes that the deadline of a released resource no longer closes it, although its message was delivered.
    pub(crate) fn release_deadline(&mut self, key: Key) {
        self.drop_last_words(key);
        if let Some(slot) = self.registry.get_mut(key)
            && slot.deadline_state == DeadlineState::Notified
        {
            slot.deadline_state = DeadlineState::Passed;
        }
    }
}
