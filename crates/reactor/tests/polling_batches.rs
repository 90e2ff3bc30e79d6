//! Batches of the engine polling: it reports the events of one system wait in pieces, without a call between
//! them.
#![cfg(all(unix, feature = "polling"))]

use std::{collections::BTreeSet, io::Write, os::unix::net::UnixStream, time::Duration};

use reactor::Key;
use reactor::engine::{Interest, Poll, Polling, Ready, Source, Trigger};

/// The size of a piece, as in ARCHITECTURE.md.
const PIECE: usize = 32;

/// `count` readable sources, watched by a poll that takes up to `events` in one wait.
struct Bed {
    poll: Polling,
    pairs: Vec<(UnixStream, UnixStream)>,
}

impl Bed {
    fn new(count: usize, events: usize) -> Bed {
        let mut poll = Polling::with_capacity(events).expect("polling is there");
        let pairs: Vec<_> = (0..count).map(|_| UnixStream::pair().expect("a pair")).collect();
        for (slot, (ours, theirs)) in pairs.iter().enumerate() {
            let key = Key::new(slot as u32, 1, 1);
            poll.watch(key, Source::of(ours), Interest::Read, Trigger::Level)
                .expect("a socket can be watched");
            (&*theirs).write_all(b"x").expect("there is room for one byte");
        }
        Bed { poll, pairs }
    }

    /// Waits once, with events ready. Returns the reported slots, and the cost in operations.
    fn wait(&mut self) -> (BTreeSet<usize>, u64) {
        let before = self.poll.calls();
        let mut ready: Vec<(Key, Ready)> = Vec::new();
        self.poll.wait(&mut ready, Some(Duration::ZERO)).expect("the poll works");
        assert!(ready.iter().all(|(_, ready)| ready.readable), "{ready:?}");
        let told: BTreeSet<usize> = ready.iter().map(|(key, _)| key.slot()).collect();
        assert_eq!(told.len(), ready.len(), "nothing is told twice in one wait");
        (told, self.poll.calls() - before)
    }
}

#[test]
fn one_wait_of_the_system_is_told_in_pieces_without_a_call_between() {
    for count in [PIECE - 1, PIECE, PIECE + 1, 3 * PIECE] {
        let mut bed = Bed::new(count, 4 * PIECE);
        let mut told = BTreeSet::new();
        for piece in 0..count.div_ceil(PIECE) {
            let (slots, calls) = bed.wait();
            assert_eq!(slots.len(), PIECE.min(count - piece * PIECE), "piece {piece} of {count}");
            assert_eq!(calls, u64::from(piece == 0), "piece {piece} of {count}");
            assert!(told.is_disjoint(&slots), "piece {piece} of {count} repeats what was told");
            told.extend(slots);
        }
        assert_eq!(told.len(), count, "all are told");
        let (again, calls) = bed.wait();
        assert_eq!((again.len(), calls), (PIECE.min(count), 1), "a level holds, and is told again");
        assert_eq!(bed.pairs.len(), count);
    }
}

#[test]
fn a_wait_takes_no_more_than_its_capacity() {
    let mut bed = Bed::new(5, 4);
    let (first, _) = bed.wait();
    let (second, calls) = bed.wait();
    assert_eq!((first.len(), calls), (4, 1), "four events, and then the system is asked again");
    assert_eq!(first.union(&second).count(), 5, "nobody starves");
}

#[test]
fn a_wake_that_comes_between_two_pieces_ends_the_next_wait_of_the_system() {
    let mut bed = Bed::new(PIECE + 1, 4 * PIECE);
    assert_eq!(bed.wait().0.len(), PIECE);
    bed.poll.waker().wake_by_ref();
    assert_eq!(bed.wait().0.len(), 1);
    for (slot, (ours, _)) in bed.pairs.iter().enumerate() {
        bed.poll.unwatch(Key::new(slot as u32, 1, 1), Source::of(ours)).expect("it is watched");
    }
    // Without the wake this would wait for ever.
    let mut ready = Vec::new();
    bed.poll.wait(&mut ready, None).expect("the poll works");
    assert_eq!(ready, []);
}
