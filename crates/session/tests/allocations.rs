//! The steady state allocates nothing: an item is queued, no layer seals it, and it is written whole or in
//! halves.
//!
//! This file has only one test, because the allocator counts for the whole process.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

use session::{Codec, Lines, Outgoing, Pool, Session};

struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: each call is passed unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: our caller upholds the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: our caller upholds the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: our caller upholds the contract of `realloc`.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `round` until it is warm, then counts the allocations of a thousand rounds. Returns the least of
/// several attempts, because the test harness's own threads may allocate meanwhile.
fn allocations(mut round: impl FnMut()) -> usize {
    (0..100).for_each(|_| round());
    let mut attempt = || {
        let before = COUNT.load(Ordering::Relaxed);
        (0..1_000).for_each(|_| round());
        COUNT.load(Ordering::Relaxed) - before
    };
    (0..5).map(|_| attempt()).min().expect("five attempts")
}

#[test]
fn the_steady_state_allocates_nothing() {
    assert!(allocations(|| drop(black_box(Vec::<u8>::with_capacity(8)))) >= 1_000, "the counter counts");

    let mut out = Outgoing::new();
    assert_eq!(allocations(|| put_and_write(&mut out)), 0);

    // The queue never runs empty, because the transport is always half a kilobyte behind.
    let mut behind = Outgoing::new();
    behind.put(&[0; 500]);
    assert_eq!(allocations(|| put_and_write(&mut behind)), 0);

    let mut pool = Pool::new();
    let (mut session, mut lines) = (Session::new(()), Lines::new());
    session.start(&mut pool).expect("nothing to fail");
    let echo = || {
        lines.encode("an answer", session.out(&mut pool)).expect("a line");
        session.fill(&mut pool).expect("nothing to fail");
        let mut wire = session.take_wire().expect("a line was encoded");
        wire.advance(5);
        session.restore(wire, &mut pool);
        let mut wire = session.take_wire().expect("half a line is left");
        wire.advance(wire.len());
        session.restore(wire, &mut pool);
    };
    assert_eq!(allocations(echo), 0);
}

fn put_and_write(out: &mut Outgoing) {
    out.put(black_box(&[7; 300]));
    out.advance(100);
    out.advance(200);
}
