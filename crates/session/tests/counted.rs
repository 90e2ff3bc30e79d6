//! A queue reports the memory that the allocator gave it.
//!
//! This file has only one test, because the allocator counts for the whole process.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use session::{Outgoing, Shared};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: each call is passed unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: our caller upholds the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: our caller upholds the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The bytes queued of each kind. They exceed all other allocations of the process in the meantime.
const BYTES: usize = 4 << 20;

/// Fills queues by `fill`. Compares their count with the allocated memory, and with the carried bytes.
fn stress(name: &str, queues: usize, carried_min: f64, fill: impl Fn(&mut Outgoing)) {
    let before = LIVE.load(Ordering::Relaxed);
    let mut all: Vec<Box<Outgoing>> = Vec::with_capacity(queues);
    let mut counted = 0;
    for _ in 0..queues {
        let mut queue = Box::<Outgoing>::default();
        while queue.len() < BYTES / queues {
            fill(&mut queue);
            counted += queue.count();
        }
        all.push(queue);
    }
    let allocated = LIVE.load(Ordering::Relaxed) - before;
    let carried: usize = all.iter().map(|queue| queue.len()).sum();
    let (of_allocated, of_counted) = (counted as f64 / allocated as f64, carried as f64 / counted as f64);
    println!("{name}: {carried} bytes, {counted} counted, {allocated} allocated");
    assert!((0.8..1.1).contains(&of_allocated), "{name}: {counted} counted, {allocated} allocated");
    assert!(of_counted >= carried_min, "{name}: {carried} bytes take {counted}");
    // The written half of each part is still allocated, so it counts.
    for queue in &mut all {
        queue.advance(queue.len() / 2);
    }
    let counted: usize = all.iter().map(|queue| queue.memory()).sum();
    let allocated = LIVE.load(Ordering::Relaxed) - before;
    let of_allocated = counted as f64 / allocated as f64;
    assert!((0.8..1.1).contains(&of_allocated), "{name}, half: {counted} counted, {allocated} allocated");
}

/// Returns a random number by SplitMix64.
fn below(state: &mut u64, bound: usize) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) % bound as u64) as usize
}

/// Performs random operations, and compares after each step.
fn chance() {
    let mut seed = std::env::var("COUNTED_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(8_154_u64);
    println!("COUNTED_SEED={seed}");
    let before = LIVE.load(Ordering::Relaxed);
    let (mut one, mut other) = (Outgoing::new(), Outgoing::new());
    for step in 0..20_000 {
        let len = [1, 400, 3_000, 70_000][below(&mut seed, 4)];
        let queue = if below(&mut seed, 2) == 0 { &mut one } else { &mut other };
        match below(&mut seed, 10) {
            0..3 => queue.put(&vec![1; len]),
            3 => queue.share(Shared::from(vec![2; len])),
            4 => queue.give(vec![3; len]),
            5 => {
                let mut bytes = Vec::with_capacity(4 * len);
                bytes.resize(len, 4);
                queue.give(bytes);
            }
            6 => {
                let result = queue.grow(len, |_| if step % 2 == 0 { Ok(len / 2) } else { Err(()) });
                assert!(result.is_err() || result == Ok(len / 2));
            }
            7 => {
                let mark = queue.mark();
                queue.put(&vec![5; len]);
                queue.share(Shared::from(vec![6; len]));
                if step % 3 > 0 {
                    queue.advance(below(&mut seed, queue.len()));
                }
                queue.rollback(mark);
            }
            8 => queue.advance(below(&mut seed, queue.len() + 1)),
            _ if step % 50 == 0 => queue.clear(),
            _ => one.append(&mut other),
        }
        let allocated = LIVE.load(Ordering::Relaxed) - before;
        let counted = one.capacity() + other.capacity();
        // Shared bytes are rounded up to a word, and the harness has its own thread.
        let slack = 4_096 + counted / 50;
        assert!(counted.abs_diff(allocated) < slack, "step {step}: {counted} counted, {allocated} allocated");
        if one.len() > 2 << 20 {
            one.advance(one.len() - 10);
        }
    }
}

#[test]
fn what_a_queue_counts_is_what_is_allocated_for_it() {
    stress("small items", 1, 0.5, |queue| queue.put(b"a small item"));
    stress("small items in many queues", 10_000, 0.4, |queue| queue.put(b"a small item"));
    stress("large items", 1, 0.9, |queue| queue.put(&[1; 100_000]));
    stress("items that leave the rest of a buffer", 1, 0.5, |queue| queue.put(&[1; 40_000]));
    // Shared bytes count in each queue. Here only one queue has them.
    stress("shared", 1, 0.9, |queue| queue.share(Shared::from(vec![1; 512])));
    stress("a byte between shared bytes", 1, 0.75, |queue| {
        queue.put(b"x");
        queue.share(Shared::from(vec![1; 512]));
    });
    stress("given", 1, 0.9, |queue| queue.give(vec![1; 512]));
    stress("a byte between given bytes", 1, 0.4, |queue| {
        queue.put(b"x");
        queue.give(vec![1; 512]);
    });
    stress("given with far too much room", 1, 0.9, |queue| {
        let mut bytes = Vec::with_capacity(64 << 10);
        bytes.resize(512, 1);
        queue.give(bytes);
    });
    chance();
}
