//! Two budgets: bytes in queues over all streams, and calls of handlers between two flushes.

use std::time::Duration;

use crate::{clock::Time, id::Key};

/// The bytes that all queues and buffers of a runtime hold, against a limit.
///
/// Bytes are short above 75 % of the limit. `pressure.rs` handles a shortage.
pub(crate) struct ByteBudget {
    used: usize,
    limit: usize,
    /// Bytes are short above this.
    ease: usize,
    tight: bool,
    /// Set once the caller has seen the current pressure.
    noticed: bool,
    resting: Vec<Key>,
    /// Whether a shortage lasts. It has begun, and at the end of its last period bytes were still short.
    lasts: bool,
    /// Counts the periods of shortages; it wraps around.
    period: u16,
    /// Whether the last attempt to make room failed, and nothing has changed since.
    hopeless: bool,
    shares: Shares,
}

/// The bytes of each service, as of the last survey.
#[derive(Default)]
struct Shares {
    held: Vec<usize>,
    /// The bytes that each service may hold while bytes are short.
    share: usize,
    /// The services that got a fault in this shortage.
    notified: Vec<bool>,
}

impl ByteBudget {
    pub(crate) fn new(limit: usize) -> ByteBudget {
        ByteBudget {
            used: 0,
            limit,
            ease: limit / 4 * 3,
            tight: false,
            noticed: false,
            resting: Vec::new(),
            lasts: false,
            period: 0,
            hopeless: false,
            shares: Shares::default(),
        }
    }

    /// Replaces the counted memory of one resource with its present memory. Returns `false` if the memory
    /// grew and the limit is passed.
    #[inline]
    pub(crate) fn recount(&mut self, counted: &mut usize, holds: usize) -> bool {
        self.used = self.used.wrapping_sub(*counted).wrapping_add(holds);
        let grew = holds > *counted;
        *counted = holds;
        self.tight |= self.used > self.ease;
        !grew || self.used <= self.limit
    }

    /// Counts the memory by which a queue has grown, as [`Outgoing::count`](session::Outgoing::count) reports
    /// it. Returns `false` if bytes are short, and the caller must look closer.
    #[inline]
    pub(crate) fn add(&mut self, counted: &mut usize, more: usize) -> bool {
        self.used = self.used.wrapping_add(more);
        *counted = counted.wrapping_add(more);
        self.used <= self.ease
    }

    /// Counts the remaining memory of a resource whose queue has gone. It is never more than before.
    #[inline]
    pub(crate) fn settle(&mut self, counted: &mut usize, holds: usize) {
        self.used = self.used.wrapping_sub(*counted).wrapping_add(holds);
        *counted = holds;
    }

    /// Looks closer after [`ByteBudget::add`]. Returns `false` if the limit is passed.
    pub(crate) fn is_within(&mut self) -> bool {
        self.tight |= self.used > self.ease;
        self.used <= self.limit
    }

    pub(crate) fn used(&self) -> usize {
        self.used
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Returns whether bytes are short.
    #[inline]
    pub(crate) fn is_tight(&self) -> bool {
        self.tight
    }

    /// Returns whether pressure has begun since the last call. A refused request does not begin any.
    #[inline]
    pub(crate) fn has_begun(&mut self) -> bool {
        self.tight && self.used > self.ease && !std::mem::replace(&mut self.noticed, true)
    }

    /// Remembers a resting stream, to wake it at relief.
    pub(crate) fn rest(&mut self, key: Key) {
        self.resting.push(key);
    }

    /// Returns whether the pressure has gone since the last call.
    #[inline]
    pub(crate) fn is_relieved(&mut self) -> bool {
        let relieved = self.tight && self.used <= self.ease;
        self.tight &= !relieved;
        self.noticed &= self.tight;
        self.hopeless &= self.tight;
        relieved
    }

    /// Returns whether the reads and accepts of a service rest, because bytes are short and it holds more
    /// than its share.
    pub(crate) fn rests(&self, service: u16) -> bool {
        self.tight && self.is_greedy(service)
    }

    /// Returns the number of the current period.
    #[inline]
    pub(crate) fn period(&self) -> u16 {
        self.period
    }

    /// Begins a shortage. Returns `false` if one lasts already.
    pub(crate) fn begin_shortage(&mut self) -> bool {
        if std::mem::replace(&mut self.lasts, true) {
            return false;
        }
        self.next_period();
        true
    }

    pub(crate) fn next_period(&mut self) {
        self.period = self.period.wrapping_add(1);
        self.hopeless = false;
    }

    pub(crate) fn end_shortage(&mut self) {
        self.lasts = false;
        self.shares = Shares::default();
    }

    /// Notes the bytes of each service, out of this many live services. Returns the services that hold more
    /// than their share and have not got a fault yet.
    pub(crate) fn note_shares(&mut self, held: Vec<usize>, services: usize) -> Vec<u16> {
        let Shares { notified, .. } = std::mem::take(&mut self.shares);
        self.shares = Shares { share: self.ease / services.max(1), notified, held };
        self.shares.notified.resize(self.shares.held.len(), false);
        let greedy: Vec<u16> = (0..self.shares.held.len() as u16).filter(|at| self.is_greedy(*at)).collect();
        greedy
            .into_iter()
            .filter(|at| !std::mem::replace(&mut self.shares.notified[*at as usize], true))
            .collect()
    }

    /// Returns whether a service holds more than its share.
    pub(crate) fn is_greedy(&self, service: u16) -> bool {
        self.shares.held.get(service as usize).is_some_and(|held| *held > self.shares.share)
    }

    /// Subtracts the bytes of a resource that is about to end from its service.
    pub(crate) fn let_go(&mut self, service: u16, bytes: usize) {
        if let Some(held) = self.shares.held.get_mut(service as usize) {
            *held = held.saturating_sub(bytes);
        }
    }

    /// Returns whether enough is free to stop ending resources. For idle ones, bytes must no longer be short.
    /// For others, a sixteenth of the limit must be free.
    pub(crate) fn has_room(&self, of_idle: bool) -> bool {
        self.used <= if of_idle { self.ease } else { self.limit - self.limit / 16 }
    }

    /// Returns whether another attempt to make room is pointless.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.hopeless
    }

    /// Notes the result of an attempt to make room.
    pub(crate) fn has_looked(&mut self) {
        self.hopeless = self.used > self.limit;
    }

    /// Returns the streams to wake at relief.
    pub(crate) fn resting(&self) -> &[Key] {
        &self.resting
    }

    pub(crate) fn take_resting(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.resting)
    }
}

/// How many handlers may run, and for how long, before the runtime writes their output.
///
/// A call only counts. The turn looks between two events whether the budget is spent, and then writes. A
/// stream in the middle of its input stops there, and its rest is a backlog.
pub(crate) struct HandlerBudget {
    calls: u32,
    since: Time,
    is_spent: bool,
}

impl HandlerBudget {
    const CALLS_MAX: u32 = 1024;
    const TIME_MAX: Duration = Duration::from_millis(1);
    /// The runtime reads the clock once in this many calls.
    const SAMPLE: u32 = 128;

    pub(crate) fn new(now: Time) -> HandlerBudget {
        HandlerBudget { calls: 0, since: now, is_spent: false }
    }

    /// Starts again after a flush.
    pub(crate) fn renew(&mut self, now: Time) {
        *self = HandlerBudget::new(now);
    }

    /// Counts a call. Returns `true` if it is time to read the clock.
    #[inline]
    pub(crate) fn spend(&mut self) -> bool {
        self.calls += 1;
        self.calls.is_multiple_of(HandlerBudget::SAMPLE)
    }

    /// Looks at the clock: it is time to write after so many calls, or after so long.
    pub(crate) fn look(&mut self, now: Time) {
        self.is_spent |=
            self.calls >= HandlerBudget::CALLS_MAX || now.since(self.since) >= HandlerBudget::TIME_MAX;
    }

    /// Returns whether it is time to write.
    #[inline]
    pub(crate) fn is_spent(&self) -> bool {
        self.is_spent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_met_exactly_and_a_shrinking_stream_is_never_refused() {
        let mut bytes = ByteBudget::new(100);
        let (mut a, mut b) = (0, 0);
        assert!(bytes.recount(&mut a, 99), "limit - 1");
        assert!(bytes.recount(&mut b, 1), "limit");
        assert!(!bytes.recount(&mut b, 2), "limit + 1");
        assert!(!bytes.recount(&mut b, 5), "more");
        assert!(bytes.recount(&mut b, 5), "it asks for no more than it has");
        assert!(bytes.recount(&mut a, 98), "it asks for less, and the limit is still passed");
        assert_eq!((bytes.used(), bytes.is_within()), (103, false));
        assert!(bytes.recount(&mut b, 2) && bytes.is_within());
    }

    #[test]
    fn what_is_added_wraps_with_the_queue_and_settles_to_what_is_left() {
        let mut bytes = ByteBudget::new(100);
        let (mut a, mut b) = (0, 0);
        assert!(bytes.add(&mut a, 75), "three quarters");
        assert!(!bytes.add(&mut b, 1), "one more");
        assert!(bytes.add(&mut a, 5_usize.wrapping_neg()), "a queue may shrink while it is filled");
        assert_eq!((a, b, bytes.used(), bytes.is_tight()), (70, 1, 71, false));
        bytes.settle(&mut a, 3);
        assert_eq!((a, bytes.used()), (3, 4));
    }

    #[test]
    fn pressure_begins_above_three_quarters_and_relief_is_told_once() {
        let mut bytes = ByteBudget::new(100);
        let (mut a, mut b) = (0, 0);
        bytes.recount(&mut a, 75);
        assert!(!bytes.is_tight() && bytes.is_within() && !bytes.is_tight());
        bytes.add(&mut b, 1);
        assert!(!bytes.has_begun(), "nobody has looked");
        assert!(!bytes.is_tight() && bytes.is_within() && bytes.is_tight(), "a closer look finds it");
        assert!(!bytes.is_relieved());
        assert!(bytes.has_begun() && !bytes.has_begun(), "reported once, too");
        for holds in [76, 77, 75] {
            bytes.recount(&mut a, holds);
            assert!(
                bytes.is_tight() && bytes.is_within() && bytes.is_tight(),
                "it lasts until it is looked at"
            );
        }
        bytes.recount(&mut b, 0);
        assert!(bytes.is_relieved() && !bytes.is_relieved() && !bytes.is_tight() && !bytes.has_begun());
        bytes.recount(&mut a, 76);
        assert!(bytes.is_tight() && bytes.has_begun(), "another one");
        let mut refused = ByteBudget::new(100);
        let mut a = 0;
        refused.recount(&mut a, 101);
        refused.recount(&mut a, 10);
        assert!(refused.is_tight() && !refused.has_begun(), "it was refused");
    }

    #[test]
    fn a_service_above_its_share_is_notified_once_and_rests_while_bytes_are_short() {
        let mut bytes = ByteBudget::new(100);
        let mut a = 0;
        assert!(bytes.begin_shortage() && !bytes.begin_shortage());
        // Of three services, each has 25.
        assert_eq!(bytes.note_shares(vec![26, 25, 24], 3), [0]);
        assert!(!bytes.rests(0), "bytes are not short");
        bytes.recount(&mut a, 76);
        assert_eq!([0, 1, 2, 3].map(|service| bytes.rests(service)), [true, false, false, false]);
        assert_eq!(bytes.note_shares(vec![26, 26, 0], 3), [1], "a notified service is not notified again");
        bytes.let_go(0, 1);
        assert_eq!([0, 1].map(|service| bytes.is_greedy(service)), [false, true]);
        bytes.let_go(1, 1_000);
        bytes.let_go(9, 1);
        assert!(!bytes.is_greedy(1));
        bytes.end_shortage();
        assert!(bytes.begin_shortage());
        assert_eq!(bytes.note_shares(vec![76], 0), [0], "in another shortage it is");
    }

    #[test]
    fn room_is_made_for_the_idle_and_a_little_for_the_others() {
        let mut bytes = ByteBudget::new(160);
        let mut a = 0;
        for (holds, of_idle, of_others) in
            [(120, true, true), (121, false, true), (150, false, true), (151, false, false)]
        {
            bytes.recount(&mut a, holds);
            assert_eq!((bytes.has_room(true), bytes.has_room(false)), (of_idle, of_others), "{holds}");
        }
        for (holds, is_hopeless) in [(160, false), (161, true)] {
            bytes.recount(&mut a, holds);
            bytes.has_looked();
            assert_eq!(bytes.is_hopeless(), is_hopeless, "{holds}");
        }
        let period = bytes.period();
        bytes.next_period();
        assert_eq!((bytes.period(), bytes.is_hopeless()), (period.wrapping_add(1), false));
        bytes.has_looked();
        bytes.recount(&mut a, 120);
        assert!(bytes.is_hopeless() && bytes.is_relieved() && !bytes.is_hopeless());
    }

    #[test]
    fn a_flush_is_due_after_1024_calls_or_a_millisecond() {
        let mut handlers = HandlerBudget::new(Time::ZERO);
        for call in 1..HandlerBudget::CALLS_MAX {
            assert_eq!(handlers.spend(), call % 128 == 0);
        }
        handlers.look(Time::ZERO);
        assert!(!handlers.is_spent(), "limit - 1");
        assert!(handlers.spend());
        handlers.look(Time::ZERO);
        assert!(handlers.is_spent(), "limit");
        handlers.renew(Time::ZERO);
        for (micros, is_spent) in [(999, false), (1_000, true), (0, true)] {
            handlers.look(Time::ZERO + Duration::from_micros(micros));
            assert_eq!(handlers.is_spent(), is_spent, "{micros}");
        }
        handlers.renew(Time::ZERO + Duration::from_millis(1));
        assert!(!handlers.is_spent());
    }
}
