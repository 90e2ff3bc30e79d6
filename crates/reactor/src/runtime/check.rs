//! The check of the loop's invariants, at the end of a turn in builds with debug assertions.
//!
//! It compares what is kept twice: the lists with the marks of their members, the deadlines with the timers,
//! the budget with what the resources hold. A difference is a bug of this library that may show much later,
//! for example as a stream that is never written again. The check allocates nothing, so that tests can still
//! count allocations.

use super::{
    LoopState, Runtime,
    registry::{DeadlineState, Slot},
};
use crate::{clock::Time, id::Key};

/// How many slots and timers a turn may look at on average. Small tables are checked in every turn.
const SHARE: usize = 128;

/// When the next check is due, so that the cost of a turn does not grow with the tables.
#[derive(Default)]
pub(super) struct Pace {
    credit: usize,
}

impl Pace {
    fn is_due(&mut self, size: usize) -> bool {
        self.credit += SHARE;
        let is_due = self.credit >= size;
        if is_due {
            self.credit = 0;
        }
        is_due
    }
}

impl Runtime {
    /// Checks the invariants, unless the tables are large and were checked a short time ago.
    ///
    /// # Panics
    /// In a build with debug assertions, if one is broken.
    pub(super) fn check(&mut self) {
        if cfg!(debug_assertions)
            && self.pace.is_due(self.core.registry.slots() + self.core.timers.entries())
            && let Err(broken) = self.core.check()
        {
            panic!("the loop broke its own promise: {broken}");
        }
    }
}

impl LoopState {
    /// Returns a description of the first invariant that does not hold.
    fn check(&mut self) -> Result<(), String> {
        self.registry.check()?;
        self.timers.check()?;
        self.typed_queues.check()?;
        self.check_list("to flush", &self.dirty, |slot| slot.dirty)?;
        self.check_list("to resume", &self.again, |slot| slot.again)?;
        self.check_list("to wake at relief", self.budget.resting(), |slot| slot.resting)?;
        self.check_ended()?;
        self.check_deadlines()?;
        self.check_partners()?;
        self.check_budget()
    }

    /// A live resource has its mark exactly if it is on the list, and then it is there once.
    fn check_list(&self, what: &str, list: &[Key], is_marked: impl Fn(&Slot) -> bool) -> Result<(), String> {
        let mut listed = 0;
        for key in list {
            let Some(slot) = self.registry.get(*key) else { continue };
            if !is_marked(slot) {
                return Err(format!("{key:?} is on the list {what}, without its mark"));
            }
            listed += 1;
        }
        let marked = self.registry.all_live().filter(|(_, slot)| is_marked(slot)).count();
        match listed == marked {
            true => Ok(()),
            false => Err(format!("{marked} resources are marked, and {listed} are on the list {what}")),
        }
    }

    /// The end of each resource that has ended is queued, because otherwise its slot is never free again.
    fn check_ended(&self) -> Result<(), String> {
        let queued = self.ended.iter().filter(|(key, _)| self.registry.has_ended(*key)).count();
        let ended = self.registry.ended_count();
        match ended == queued {
            true => Ok(()),
            false => Err(format!("{ended} resources have ended, and {queued} ends are queued")),
        }
    }

    /// Each deadline has a timer that fires no later.
    fn check_deadlines(&self) -> Result<(), String> {
        for (key, slot) in self.registry.all_live() {
            let own = match slot.deadline_state {
                DeadlineState::Set => slot.deadline,
                DeadlineState::Fresh => return Err(format!("the deadline of {key:?} has not begun")),
                DeadlineState::Grace if !may_contain(&self.in_grace, key) => {
                    return Err(format!("the deadline of {key:?} has passed, and nobody ends it"));
                }
                DeadlineState::Grace | DeadlineState::Notified | DeadlineState::Passed => Time::NEVER,
            };
            let at = own.min(slot.internal_deadline);
            let is_armed = self.timers.deadline(slot.timer).is_some_and(|armed| armed <= at);
            if at != Time::NEVER && !is_armed && !may_contain(&self.unarmed, key) {
                return Err(format!("{key:?} has a deadline at {at:?}, and no timer for it"));
            }
        }
        Ok(())
    }

    /// Partners know each other.
    fn check_partners(&self) -> Result<(), String> {
        match self.partners.iter().find(|(a, b)| self.partners.get(b) != Some(a)) {
            Some((a, b)) => Err(format!("{a:?} is the partner of {b:?}, but not the other way round")),
            None => Ok(()),
        }
    }

    /// The budget counts what the live resources hold.
    fn check_budget(&mut self) -> Result<(), String> {
        let mut held = 0;
        for index in 0..self.registry.slots() {
            if let Some((key, slot)) = self.registry.live_at(index) {
                let holding = slot.table.holding;
                held += holding(self, key).bytes;
            }
        }
        match self.budget.used() == held {
            true => Ok(()),
            false => Err(format!("{} bytes are counted, and the resources hold {held}", self.budget.used())),
        }
    }
}

/// Returns whether a list contains a key. A long list is not searched, because a check looks for many keys.
fn may_contain(list: &[Key], key: Key) -> bool {
    list.len() > SHARE || list.contains(&key)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Bytes, Context, Event, Handle, Id, Result, Service, Stream};

    struct Idle;

    impl Service for Idle {
        fn start(&mut self, cx: &mut Context<Self>) -> Result {
            let listener = cx.listen("127.0.0.1:0", |_| Some(Stream::new(Bytes)))?;
            cx.deadline(listener, Duration::from_secs(3600));
            Ok(())
        }
    }

    impl Handle<Stream> for Idle {
        fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Event<Bytes>) -> Result {
            Ok(())
        }
    }

    /// Breaks the state of a loop with one listener, and returns what the check says.
    fn broken(spoil: impl FnOnce(&mut LoopState, Key)) -> String {
        let mut runtime = Runtime::new().expect("an engine");
        runtime.add(Idle).expect("it starts");
        runtime.turn(Some(Duration::ZERO)).expect("the engine is whole");
        let (key, _) = runtime.core.registry.all_live().next().expect("the listener");
        assert_eq!(runtime.core.check(), Ok(()));
        spoil(&mut runtime.core, key);
        runtime.core.check().expect_err("it is broken")
    }

    #[test]
    fn a_list_that_forgot_repeats_or_does_not_mark_its_member_is_noticed() {
        let forgot = broken(|core, key| core.registry.get_mut(key).expect("it lives").dirty = true);
        assert_eq!(forgot, "1 resources are marked, and 0 are on the list to flush");
        let unmarked = broken(|core, key| core.again.push(key));
        assert!(unmarked.ends_with("is on the list to resume, without its mark"), "{unmarked}");
        let twice = broken(|core, key| {
            core.mark(key);
            core.dirty.push(key);
        });
        assert_eq!(twice, "1 resources are marked, and 2 are on the list to flush");
    }

    #[test]
    fn a_deadline_without_its_timer_is_noticed() {
        let lost = broken(|core, key| {
            let timer = core.registry.get_mut(key).expect("it lives").timer;
            core.timers.cancel(timer);
        });
        assert!(lost.contains("and no timer for it"), "{lost}");
        let late = broken(|core, key| {
            let timer = core.registry.get_mut(key).expect("it lives").timer;
            core.timers.reset(timer, core.now + Duration::from_secs(7200));
        });
        assert!(late.contains("and no timer for it"), "{late}");
        let grace = broken(|core, key| {
            core.registry.get_mut(key).expect("it lives").deadline_state = DeadlineState::Grace;
        });
        assert!(grace.ends_with("has passed, and nobody ends it"), "{grace}");
    }

    #[test]
    fn an_end_that_is_not_queued_and_a_lost_byte_are_noticed() {
        let ended = broken(|core, key| _ = core.registry.end(key));
        assert_eq!(ended, "1 resources have ended, and 0 ends are queued");
        let byte = broken(|core, _| _ = core.budget.recount(&mut 0, 1));
        assert_eq!(byte, "1 bytes are counted, and the resources hold 0");
        let half = broken(|core, key| _ = core.partners.insert(key, key.dead()));
        assert!(half.ends_with("but not the other way round"), "{half}");
    }

    #[test]
    fn a_count_of_messages_and_an_occupied_slot_on_the_free_list_are_noticed() {
        let slot = broken(|core, key| core.registry.spoil(key));
        assert_eq!(slot, "slot 0 is Live, and on the free list");
        let message = broken(|core, _| core.typed_queues.spoil());
        assert_eq!(message, "messages and timers: (0, 1) are counted, (0, 0) stored");
    }

    #[test]
    fn large_tables_are_checked_now_and_then() {
        let due = |size: usize| {
            let mut pace = Pace::default();
            (0..1000).filter(|_| pace.is_due(size)).count()
        };
        assert_eq!((due(0), due(SHARE), due(SHARE + 1), due(100 * SHARE)), (1000, 1000, 500, 10));
    }
}
