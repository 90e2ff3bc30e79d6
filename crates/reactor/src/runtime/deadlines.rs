//! Last words: the message a service receives when the deadline of a live resource has passed.

use crate::{
    engine::Ending,
    error::Closed,
    id::Key,
    runtime::{Core, TimerId, registry::Standing, typed_queues::Hand},
};

/// A stored message, its service, and the function that delivers it.
pub(crate) struct LastWords {
    pub(crate) service: u16,
    pub(crate) lane: u32,
    pub(crate) index: u32,
    pub(crate) hand: Hand,
}

impl Core {
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
            && let Some((service, _)) = self.lanes.of_timer(message.lane)
        {
            self.lanes.cancel(service, message);
        }
    }

    /// Handles a passed deadline that the last read did not move. Returns the message to deliver now. Ends
    /// the resource if there is none.
    pub(crate) fn lapse(&mut self, key: Key) -> Option<LastWords> {
        let slot = self.registry.live(key).filter(|slot| slot.standing == Standing::Lapsed)?;
        let Some(TimerId { lane, index, .. }) = self.last_words.remove(&key) else {
            self.end(key, Closed::Deadline, Ending::Orderly);
            return None;
        };
        slot.standing = Standing::Told;
        let (service, hand) = self.lanes.of_timer(lane)?;
        Some(LastWords { service, lane, index, hand })
    }

    /// Closes a resource whose service got the message, unless the service has set a new deadline or removed
    /// it.
    pub(crate) fn close_told(&mut self, key: Key) {
        if self.registry.peek(key).is_some_and(|slot| slot.standing == Standing::Told) {
            self.close(key, Closed::Deadline);
        }
    }

    /// Makes the deadline of a released resource a plain one, because a deadline whose message was delivered
    /// no longer closes it.
    pub(crate) fn release_deadline(&mut self, key: Key) {
        self.drop_last_words(key);
        let now = self.now;
        if let Some(slot) = self.registry.live(key)
            && slot.standing == Standing::Told
        {
            (slot.standing, slot.deadline) = (Standing::Set, now);
        }
    }
}
