//! Two budgets: bytes in queues over all streams, and calls of handlers between two flushes.

use std::time::Duration;

use crate::{clock::Time, id::Key};

/// The bytes that all queues and buffers of a runtime hold, against a limit.
///
/// At 75 % reading and accepting rest, so that what is queued can leave; at 100 % the stream that asks for
/// more ends.
pub(crate) struct Bytes {
    used: usize,
    limit: usize,
    /// Above it reads and accepts rest.
    ease: usize,
    tight: bool,
    /// Whether the pressure that there is was asked for.
    noticed: bool,
    resting: Vec<Key>,
}

impl Bytes {
    pub(crate) fn new(limit: usize) -> Bytes {
        Bytes { used: 0, limit, ease: limit / 4 * 3, tight: false, noticed: false, resting: Vec::new() }
    }

    /// Counts what one stream holds now instead of what it held; `false` when the limit is passed.
    #[inline]
    pub(crate) fn recount(&mut self, counted: &mut usize, holds: usize) -> bool {
        self.used = self.used - *counted + holds;
        let grew = holds > *counted;
        *counted = holds;
        self.tight |= self.used > self.ease;
        !grew || self.used <= self.limit
    }

    /// Counts what one stream holds more; `false` when it is time to look closer.
    #[inline]
    pub(crate) fn add(&mut self, counted: &mut usize, more: usize) -> bool {
        self.used += more;
        *counted += more;
        self.used <= self.ease
    }

    /// Counts what has left; what a layer put beside it was never counted.
    #[inline]
    pub(crate) fn sub(&mut self, counted: &mut usize, less: usize) {
        let less = less.min(*counted);
        self.used -= less;
        *counted -= less;
    }

    /// Looks closer after [`Bytes::add`]: `false` when the limit is passed.
    pub(crate) fn is_within(&mut self) -> bool {
        self.tight |= self.used > self.ease;
        self.used <= self.limit
    }

    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Whether reads and accepts rest.
    #[inline]
    pub(crate) fn is_tight(&self) -> bool {
        self.tight
    }

    /// Whether pressure has begun since it was last asked.
    #[inline]
    pub(crate) fn has_begun(&mut self) -> bool {
        self.tight && !std::mem::replace(&mut self.noticed, true)
    }

    /// Remembers a stream that rests, to be woken at relief.
    pub(crate) fn rest(&mut self, key: Key) {
        self.resting.push(key);
    }

    /// Whether the pressure has gone since it was last asked.
    #[inline]
    pub(crate) fn is_relieved(&mut self) -> bool {
        let relieved = self.tight && self.used <= self.ease;
        self.tight &= !relieved;
        self.noticed &= self.tight;
        relieved
    }

    pub(crate) fn take_resting(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.resting)
    }
}

/// How many handlers may run, and how long, before what they queued is written.
pub(crate) struct Handlers {
    calls: u32,
    since: Time,
}

impl Handlers {
    const CALLS_MAX: u32 = 1024;
    const TIME_MAX: Duration = Duration::from_millis(1);
    /// The clock is read once in so many calls.
    const SAMPLE: u32 = 128;

    pub(crate) fn new(now: Time) -> Handlers {
        Handlers { calls: 0, since: now }
    }

    /// A flush was made.
    pub(crate) fn renew(&mut self, now: Time) {
        *self = Handlers::new(now);
    }

    /// Counts a call; `true` when it is time to look at the clock.
    #[inline]
    pub(crate) fn spend(&mut self) -> bool {
        self.calls += 1;
        self.calls.is_multiple_of(Handlers::SAMPLE)
    }

    /// Whether it is time to write; renews the budget then.
    pub(crate) fn is_over(&mut self, now: Time) -> bool {
        let over = self.calls >= Handlers::CALLS_MAX || now.since(self.since) >= Handlers::TIME_MAX;
        if over {
            self.renew(now);
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_met_exactly_and_a_shrinking_stream_is_never_refused() {
        let mut bytes = Bytes::new(100);
        let (mut a, mut b) = (0, 0);
        assert!(bytes.recount(&mut a, 99), "limit - 1");
        assert!(bytes.recount(&mut b, 1), "limit");
        assert!(!bytes.recount(&mut b, 2), "limit + 1");
        assert!(bytes.recount(&mut a, 98), "it asks for less");
        assert_eq!(bytes.used(), 100);
    }

    #[test]
    fn pressure_begins_above_three_quarters_and_relief_is_told_once() {
        let mut bytes = Bytes::new(100);
        let mut a = 0;
        bytes.recount(&mut a, 75);
        assert!(!bytes.is_tight());
        bytes.recount(&mut a, 76);
        assert!(bytes.is_tight() && !bytes.is_relieved());
        assert!(bytes.has_begun() && !bytes.has_begun(), "told once, too");
        bytes.recount(&mut a, 75);
        assert!(bytes.is_relieved() && !bytes.is_relieved() && !bytes.is_tight());
    }

    #[test]
    fn a_flush_is_due_after_1024_calls_or_a_millisecond() {
        let mut handlers = Handlers::new(Time::ZERO);
        for call in 1..Handlers::CALLS_MAX {
            assert_eq!(handlers.spend(), call % 128 == 0);
        }
        assert!(!handlers.is_over(Time::ZERO), "limit - 1");
        assert!(handlers.spend() && handlers.is_over(Time::ZERO), "limit");
        assert!(!handlers.is_over(Time::ZERO + Duration::from_micros(999)));
        assert!(handlers.is_over(Time::ZERO + Duration::from_millis(1)));
    }
}
