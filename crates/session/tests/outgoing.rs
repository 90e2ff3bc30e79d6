//! The write queue, compared with a plain vector, and its copies.

use std::io::{IoSlice, Write};

use session::{Mark, Outgoing, Shared};

/// Returns a seed from the environment, or a fixed one. Prints it, so that a failure can be repeated.
fn seed() -> u64 {
    let seed = std::env::var("OUTGOING_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(8154);
    println!("OUTGOING_SEED={seed}");
    seed
}

/// A random generator, SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    /// Returns bytes of a length that is mostly small and sometimes at an edge.
    fn bytes(&mut self) -> Vec<u8> {
        let edges = [0, 1, 511, 512, 4_096, 4_097, 65_535, 65_536, 65_537, 100_000];
        let len = if self.below(8) == 0 { edges[self.below(edges.len())] } else { self.below(700) };
        let first = self.below(256);
        (0..len).map(|at| (first + at) as u8).collect()
    }

    fn fill(&mut self, out: &mut Outgoing, model: &mut Vec<u8>) {
        let bytes = self.bytes();
        match self.below(6) {
            0 => out.share(Shared::from(&bytes[..])),
            4 => out.give(bytes.clone()),
            1 => {
                let room = bytes.len() + self.below(100);
                let grown = out.grow(room, |slice| {
                    slice[..bytes.len()].copy_from_slice(&bytes);
                    Ok::<_, ()>(bytes.len())
                });
                assert_eq!(grown, Ok(bytes.len()));
            }
            2 => {
                let refused = out.grow(bytes.len(), |slice| {
                    slice.fill(1);
                    Err("refused")
                });
                assert_eq!(refused, Err("refused"));
                return;
            }
            3 => out.write_all(&bytes).expect("writing to memory"),
            _ => out.put(&bytes),
        }
        model.extend_from_slice(&bytes);
    }
}

fn check(out: &Outgoing, model: &[u8], slots: usize) {
    assert_eq!((out.len(), out.is_empty()), (model.len(), model.is_empty()));
    assert!(model.starts_with(out.front()) && out.front().is_empty() == model.is_empty());
    let mut slices = vec![IoSlice::new(&[]); slots];
    let set = out.slices(&mut slices);
    assert!(set <= slots && slices[..set].iter().all(|slice| !slice.is_empty()));
    let gathered = slices[..set].iter().map(|slice| &**slice).collect::<Vec<&[u8]>>().concat();
    assert!(model.starts_with(&gathered) && (set == slots || gathered.len() == model.len()));
}

#[test]
fn a_queue_is_a_vector_whatever_is_done_to_it() {
    let mut random = Random(seed());
    let (mut out, mut model) = (Outgoing::new(), Vec::new());
    let mut mark: Option<(Mark, usize)> = None;
    for round in 0..30_000 {
        match random.below(12) {
            0..5 => random.fill(&mut out, &mut model),
            5..9 => {
                let bound = if random.below(3) == 0 { model.len() } else { model.len().min(900) };
                let count = random.below(bound + 1);
                out.advance(count);
                model.drain(..count);
                mark = mark.map(|(mark, len)| (mark, len.saturating_sub(count)));
            }
            9 => {
                let (mut other, mut behind) = (Outgoing::new(), Vec::new());
                for _ in 0..random.below(5) {
                    random.fill(&mut other, &mut behind);
                }
                let gone = random.below(behind.len() + 1);
                other.advance(gone);
                out.append(&mut other);
                model.extend_from_slice(&behind[gone..]);
                check(&other, &[], 2);
                other.put(b"usable");
                check(&other, b"usable", 2);
            }
            10 => match mark.take() {
                Some((mark, len)) => {
                    out.rollback(mark);
                    model.truncate(len);
                }
                None => mark = Some((out.mark(), model.len())),
            },
            _ if random.below(200) == 0 => {
                out.clear();
                model.clear();
                mark = mark.map(|(mark, _)| (mark, 0));
            }
            _ => {}
        }
        check(&out, &model, 1 + random.below(4));
        if round % 64 == 0 {
            assert!(out.to_vec() == model, "round {round}");
        }
        if model.len() > 300_000 {
            out.advance(model.len());
            model.clear();
            mark = None;
        }
    }
    assert!(out.to_vec() == model);
}

#[test]
fn given_bytes_are_copied_only_if_they_are_few() {
    for (len, is_copied) in [(511, true), (512, false), (513, false)] {
        let bytes = vec![1; len];
        let start = bytes.as_ptr();
        let mut out = Outgoing::new();
        out.give(bytes);
        assert_eq!((out.len(), out.front().len()), (len, len));
        assert_eq!(out.front().as_ptr() != start, is_copied, "{len} bytes");
    }
}

#[test]
fn large_and_shared_bytes_are_not_copied() {
    let shared = Shared::from(vec![1; 512]);
    let mut out = Outgoing::new();
    out.put(b"small");
    out.share(shared.clone());
    out.put(&[2; 65_537]);
    out.share(Shared::from(vec![3; 511]));
    let mut slices = [IoSlice::new(&[]); 8];
    assert_eq!(out.slices(&mut slices), 4);
    assert_eq!(slices[1].as_ptr(), shared.as_ptr());
    let large = slices[2].as_ptr();
    assert_eq!((slices[2].len(), slices[3].len()), (65_537, 511));
    let mut front = Outgoing::new();
    front.put(b"earlier");
    front.append(&mut out);
    let mut slices = [IoSlice::new(&[]); 8];
    assert_eq!(front.slices(&mut slices), 4);
    assert_eq!(&*slices[0], b"earliersmall");
    assert_eq!((slices[1].as_ptr(), slices[2].as_ptr()), (shared.as_ptr(), large));
}

#[test]
fn a_thousand_small_items_are_one_slice() {
    let mut out = Outgoing::new();
    (0..1_000).for_each(|_| out.put(b"an answer of thirty-two bytes...."));
    let mut slices = [IoSlice::new(&[]); 4];
    assert_eq!(out.slices(&mut slices), 1);
}

#[test]
fn memory_follows_what_waits() {
    let mut out = Outgoing::new();
    (0..10_000).for_each(|_| out.put(&[0; 1_000]));
    assert!(out.capacity() >= 10_000_000);
    out.advance(9_999_500);
    assert!(out.capacity() < 300_000, "{}", out.capacity());
}

#[test]
#[should_panic(expected = "advance by 3 bytes in a queue of 2")]
fn advancing_beyond_the_end_is_a_broken_promise() {
    let mut out = Outgoing::new();
    out.put(b"ab");
    out.advance(3);
}

#[test]
fn a_foreign_mark_does_no_harm() {
    let mut long = Outgoing::new();
    long.put(&[0; 100]);
    let (late, mut short) = (long.mark(), Outgoing::new());
    let early = short.mark();
    short.put(b"ab");
    short.rollback(late);
    assert_eq!(short.to_vec(), b"ab");
    long.share(Shared::from(vec![1; 600]));
    long.advance(50);
    long.rollback(early);
    assert!(long.is_empty());
}

#[test]
fn bytes_that_have_left_never_come_back() {
    let mut one = Outgoing::new();
    let begin = one.mark();
    one.put(b"0123456789");
    one.advance(5);
    one.rollback(begin);
    assert!(one.is_empty());
    let mut other = Outgoing::new();
    other.put(b"x");
    for _ in 0..3 {
        one.append(&mut other);
        assert_eq!((one.to_vec(), one.len(), other.len()), (b"x".to_vec(), 1, 0));
    }
    other.put(b"hello");
    assert_eq!(other.to_vec(), b"hello");
}

#[test]
fn slices_of_shared_bytes_are_queued_without_a_copy() {
    let whole = Shared::from((0..2_000).map(|at| at as u8).collect::<Vec<_>>());
    let slice = whole.slice(100..=1_099).expect("it lies within");
    assert_eq!((slice.len(), slice.as_ptr()), (1_000, whole[100..].as_ptr()));
    assert_eq!(slice.slice(..), Some(slice.clone()));
    assert!(slice != whole && slice != Shared::from(vec![0; 1_000]));
    assert_eq!(slice.slice(500..).map(|half| half.as_ptr()), Some(whole[600..].as_ptr()));
    assert_eq!(whole.slice(2_000..).map(|none| none.len()), Some(0));
    for (from, to) in [(0, 2_001), (2_001, 2_001), (2, 1), (0, usize::MAX)] {
        assert_eq!(whole.slice(from..to), None);
    }
    assert_eq!(whole.slice(..=usize::MAX), None);
    let mut out = Outgoing::new();
    out.share(slice);
    out.advance(400);
    assert_eq!((out.front(), out.front().as_ptr()), (&whole[500..1_100], whole[500..].as_ptr()));
}

/// Returns the number of pieces in a queue.
fn pieces(out: &Outgoing) -> usize {
    out.slices(&mut [IoSlice::new(&[]); 16])
}

/// Returns the memory of the smallest table of parts. Shared bytes have a header of two words.
fn table() -> usize {
    let mut out = Outgoing::new();
    out.share(Shared::from(vec![1; 512]));
    out.capacity() - 512 - 2 * size_of::<usize>()
}

#[test]
fn items_join_up_to_64_kib_in_front_and_behind() {
    for (second, joined) in [(25_535, true), (25_536, true), (25_537, false)] {
        let mut out = Outgoing::new();
        out.put(&[1; 40_000]);
        out.put(&vec![2; second]);
        assert_eq!(pieces(&out), if joined { 1 } else { 2 }, "{second}");
        let mut behind = Outgoing::new();
        behind.share(Shared::from(vec![1; 600]));
        behind.put(&[1; 40_000]);
        behind.put(&vec![2; second]);
        assert_eq!(pieces(&behind), if joined { 2 } else { 3 }, "{second}");
    }
    let mut out = Outgoing::new();
    out.put(&[1; 65_536]);
    assert_eq!(out.capacity(), 65_536, "it has no part");
    let mut out = Outgoing::new();
    out.put(&[1; 65_537]);
    assert_eq!(out.capacity(), table() + 65_537, "its part has its size");
}

#[test]
fn parts_are_as_large_as_what_lies_in_them() {
    let mut out = Outgoing::new();
    let shared = Shared::from(vec![1; 512]);
    out.share(shared.clone());
    let before = out.capacity();
    let expect = |out: &mut Outgoing, bytes: usize, part: usize| {
        out.put(&vec![0; bytes]);
        assert_eq!(out.capacity() - before, part);
    };
    expect(&mut out, 1, 64);
    expect(&mut out, 63, 64);
    expect(&mut out, 1, 128);
    expect(&mut out, 200, 265);
    expect(&mut out, 39_735, 40_000);
    expect(&mut out, 1, 65_536);
    expect(&mut out, 25_535, 65_536);
    // The full part held small items, so the queue expects more of them and adds a part of 4 KiB.
    expect(&mut out, 1, 65_536 + 4_096);
    let (before, len) = (out.capacity(), out.len());
    out.share(shared);
    assert_eq!((out.capacity() - before, out.len() - len), (512 + 2 * size_of::<usize>(), 512));
}

#[test]
fn given_memory_that_is_too_large_shrinks() {
    for (len, kept) in [(801, 1_000), (800, 1_000), (799, 799)] {
        let mut bytes = Vec::with_capacity(1_000);
        bytes.resize(len, 1);
        let mut out = Outgoing::new();
        out.give(bytes);
        assert_eq!(out.capacity(), table() + kept, "{len}");
    }
}

#[test]
fn joined_queues_copy_what_is_small() {
    // In front, after shared bytes, and shared.
    for (left, moves) in [(4_095, false), (4_096, false), (4_097, true)] {
        let (mut one, mut front, mut behind) = (Outgoing::new(), Outgoing::new(), Outgoing::new());
        one.put(b"first");
        front.put(&[1; 5_000]);
        front.advance(5_000 - left);
        let at = front.front().as_ptr();
        one.append(&mut front);
        assert_eq!((pieces(&one), one.len()), (1 + usize::from(moves), 5 + left), "{left}");
        one.advance(5);
        assert_eq!(one.front().as_ptr() == at, moves);
        behind.share(Shared::from(vec![1; 600]));
        behind.put(&vec![2; left]);
        let mut two = Outgoing::new();
        two.put(b"first");
        let mut slices = [IoSlice::new(&[]); 2];
        behind.slices(&mut slices);
        let at = slices[1].as_ptr();
        two.append(&mut behind);
        two.advance(5 + 600);
        assert_eq!(two.front().as_ptr() == at, moves, "{left}");
    }
    for (left, moves) in [(511, false), (512, true), (513, true)] {
        let (mut one, mut other) = (Outgoing::new(), Outgoing::new());
        let shared = Shared::from(vec![1; 600]);
        one.put(b"first");
        other.share(shared.clone());
        other.advance(600 - left);
        one.append(&mut other);
        assert_eq!(pieces(&one), 1 + usize::from(moves), "{left}");
        one.advance(5);
        assert_eq!(one.front().as_ptr() == shared[600 - left..].as_ptr(), moves);
    }
    // If the other queue has no small items in front, the join makes no new part for them.
    let (mut one, mut other) = (Outgoing::new(), Outgoing::new());
    one.put(b"first");
    one.share(Shared::from(vec![1; 600]));
    other.share(Shared::from(vec![1; 600]));
    one.append(&mut other);
    assert_eq!((pieces(&one), pieces(&other)), (3, 0));
}

#[test]
fn shared_bytes_below_512_are_copied() {
    for (len, is_copied) in [(511, true), (512, false), (513, false)] {
        let shared = Shared::from(vec![1; len]);
        let mut out = Outgoing::new();
        out.share(shared.clone());
        assert_eq!(out.front().as_ptr() != shared.as_ptr(), is_copied, "{len}");
    }
}

#[test]
fn a_buffer_that_was_written_is_used_again() {
    let mut out = Outgoing::new();
    for _ in 0..3 {
        out.put(&[1; 40_000]);
        out.advance(40_000);
        assert_eq!((out.capacity(), pieces(&out)), (40_000, 0));
    }
    // A queue that never runs empty lends its first buffer out, and gets another one back.
    let mut out = Outgoing::new();
    out.put(&[1; 60_000]);
    out.put(&[2; 10_000]);
    assert_eq!(out.capacity(), table() + 60_000 + 10_000);
    out.advance(60_000);
    out.put(&[3; 60_000]);
    assert_eq!(out.capacity(), table() + 60_000 + 10_000, "lent");
    out.advance(10_000);
    assert_eq!(out.capacity(), table() + 60_000 + 10_000, "and got back");
    // A buffer that is too large is not kept.
    for (len, kept) in [(65_536, 65_536), (65_537, 0)] {
        let mut out = Outgoing::new();
        out.give(vec![1; len]);
        out.advance(len);
        assert_eq!(out.capacity(), table() + kept);
    }
}

#[test]
fn a_rollback_takes_a_part_whole_or_its_end() {
    let mut out = Outgoing::new();
    out.share(Shared::from(vec![1; 600]));
    let (mark, before) = (out.mark(), out.capacity());
    out.put(b"12345");
    let second = out.mark();
    out.put(b"67");
    assert_eq!((out.since(mark), out.since(second), out.since(out.mark())), (7, 2, 0));
    out.rollback(second);
    assert_eq!((out.len(), pieces(&out)), (605, 2));
    out.rollback(mark);
    assert_eq!((out.len(), pieces(&out), out.capacity()), (600, 1, before));
    out.put(b"12345");
    out.advance(602);
    out.rollback(mark);
    assert_eq!((out.len(), pieces(&out), out.to_vec()), (0, 0, Vec::new()));
}

#[test]
fn what_is_grown_counts_up_to_the_room() {
    let mut out = Outgoing::new();
    let mut grow = |room: usize, says: usize| {
        let result = out.grow(room, |slice| {
            slice.fill(7);
            Ok::<_, ()>(says)
        });
        (result, out.len(), pieces(&out))
    };
    assert_eq!(grow(10, 11), (Ok(10), 10, 1));
    assert_eq!(grow(10, 0), (Ok(0), 10, 1));
    assert_eq!(grow(0, 5), (Ok(0), 10, 1));
    assert_eq!(grow(100_000, 0), (Ok(0), 10, 1), "the part that was opened is gone");
    assert_eq!(grow(100_000, 99_999), (Ok(99_999), 100_009, 2));
    out.flush().expect("writing to memory");
    assert_eq!(out.write(b"abc").expect("writing to memory"), 3);
    out.clear();
    assert_eq!((out.len(), pieces(&out), out.front().len()), (0, 0, 0));
}

#[test]
fn what_is_counted_is_told_as_a_difference() {
    let mut out = Outgoing::new();
    assert_eq!(
        (out.capacity(), out.memory(), out.count()),
        (0, size_of::<Outgoing>(), size_of::<Outgoing>())
    );
    out.put(&[1; 1_000]);
    assert_eq!((out.count(), out.count()), (1_000, 0));
    let mark = out.mark();
    out.share(Shared::from(vec![1; 512]));
    out.count();
    out.rollback(mark);
    assert_eq!(out.count(), (512 + 2 * size_of::<usize>()).wrapping_neg());
}

#[test]
fn a_writer_that_panics_leaves_the_queue_as_it_was() {
    for before in [&b""[..], b"before"] {
        let mut out = Outgoing::new();
        out.put(before);
        let mark = out.mark();
        out.put(b"half");
        let write = |_: &mut [u8]| -> Result<usize, ()> { std::panic::resume_unwind(Box::new("a panic")) };
        let grown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| out.grow(100, write)));
        assert!(grown.is_err());
        assert_eq!(out.to_vec(), [before, b"half"].concat());
        out.rollback(mark);
        out.put(b" behind");
        assert_eq!(out.to_vec(), [before, b" behind"].concat());
    }
}
