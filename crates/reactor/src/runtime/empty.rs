//! The watch over the loop itself: it counts requested turns in which nothing happens.
//!
//! The next turn follows at once while a resource is marked. Code that marks a resource which cannot continue
//! yet keeps a core busy for nothing. No other test sees that, because all data still arrives.

use super::Runtime;
use crate::{id::Key, runtime::LoopState};

/// How many empty turns in a row are too many. An end or a hand-over may take three or four steps, with one
/// step a turn.
const EMPTY_MAX: u32 = 64;
/// The most resources that a failure names.
const NAMED_MAX: usize = 8;

/// The number of empty turns in a row.
#[derive(Default)]
pub(super) struct Empty(u32);

impl Runtime {
    /// Counts a turn that did not wait, if it was empty. `before` is the value of [`happened`] at its start.
    ///
    /// # Panics
    /// In a build with debug assertions, after more than [`EMPTY_MAX`] empty turns in a row, because the
    /// runtime has broken its own promise that an idle loop makes no turns.
    pub(super) fn count_empty(&mut self, before: u64) {
        if happened(&self.core) != before {
            self.empty.0 = 0;
            return;
        }
        self.core.counters.turns_empty += 1;
        self.empty.0 += 1;
        if cfg!(debug_assertions) && self.empty.0 > EMPTY_MAX {
            // Panic only once, because a caller that catches the panic may still want to end the runtime.
            self.empty.0 = 0;
            panic!(
                "{EMPTY_MAX} turns in a row did nothing, and each asked for another. To be written: {}. To be driven \
                 again: {}. Ended: {}",
                self.names(&self.core.dirty),
                self.names(&self.core.again),
                self.core.ended.len()
            );
        }
    }

    /// Resets the count, because the loop could have waited, or its owner has called a service in between.
    #[inline]
    pub(super) fn was_not_empty(&mut self) {
        self.empty.0 = 0;
    }

    fn names(&self, keys: &[Key]) -> String {
        let name = |key: &Key| match self.core.registry.get(*key) {
            Some(slot) => {
                let service = self.services.get(slot.service as usize).map_or("?", |entry| entry.name);
                format!("{} {key:?} of {service}", (slot.table.name)())
            }
            None => format!("{key:?}, which is gone"),
        };
        let mut names: Vec<String> = keys.iter().take(NAMED_MAX).map(name).collect();
        match keys.len() {
            0 => names.push("nothing".to_owned()),
            len if len > NAMED_MAX => names.push(format!("{} more", len - NAMED_MAX)),
            _ => (),
        }
        names.join(", ")
    }
}

/// Returns a number that grows with each thing that happens.
pub(super) fn happened(core: &LoopState) -> u64 {
    let counters = &core.counters;
    counters.events
        + counters.handled
        + counters.commands
        + counters.messages
        + counters.faults
        + counters.bytes_in
        + counters.bytes_out
        + core.steps
}

#[cfg(all(test, unix))]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        time::Duration,
    };

    use super::{EMPTY_MAX, happened};
    use crate::{Bytes, Context, Event, Handle, Id, Result, Runtime, Service, Stream, guard};

    struct Quiet;

    impl Service for Quiet {}

    impl Handle<Stream> for Quiet {
        fn handle(&mut self, _: &mut Context<'_, Self>, _: Id<Stream>, _: Event<'_, Bytes>) -> Result {
            Ok(())
        }
    }

    #[test]
    fn a_loop_that_asks_for_turns_and_does_nothing_in_them_fails_and_says_for_whom() {
        let mut runtime = Runtime::new().expect("an engine");
        let quiet = runtime.add(Quiet).expect("it starts");
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let stream = Stream::new(Bytes).on(ours).expect("a socket");
        let id = runtime.with(quiet, |_, cx| cx.add(stream).expect("room").key()).expect("it lives");
        runtime.turn(Some(Duration::ZERO)).expect("whole");
        let before = runtime.core.counters.turns_empty;
        for _ in 0..EMPTY_MAX {
            runtime.core.drive_again(id);
            runtime.turn(Some(Duration::ZERO)).expect("whole");
        }
        assert_eq!(runtime.core.counters.turns_empty, before + u64::from(EMPTY_MAX));
        runtime.core.drive_again(id);
        let now = happened(&runtime.core);
        let one_more = AssertUnwindSafe(|| runtime.count_empty(now));
        let payload = catch_unwind(one_more).expect_err("one turn too many");
        let text = guard::said(payload);
        assert!(
            text.contains("Stream") && text.contains(&format!("{id:?}")) && text.contains("Quiet"),
            "{text}"
        );
    }

    #[test]
    fn a_failure_names_eight_resources_and_counts_the_others() {
        let runtime = Runtime::new().expect("an engine");
        let named = |count| runtime.names(&vec![crate::id::Key::NONE; count]);
        let one = named(1);
        assert!(one.ends_with("which is gone"), "{one}");
        assert_eq!((named(0), named(8)), ("nothing".to_owned(), [&one[..]; 8].join(", ")));
        assert_eq!(named(10), format!("{}, 2 more", named(8)));
    }

    #[test]
    fn turns_that_are_driven_by_hand_are_no_fault_of_the_loop() {
        let mut runtime = Runtime::new().expect("an engine");
        runtime.add(Quiet).expect("it starts");
        for _ in 0..10 * EMPTY_MAX {
            runtime.turn(Some(Duration::ZERO)).expect("whole");
        }
        assert_eq!(runtime.core.counters.turns_empty, 0);
    }
}
