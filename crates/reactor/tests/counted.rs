//! A runtime counts at least four fifths of the memory that the allocator gives its streams.
//!
//! This file has only one test, because the allocator counts for the whole process.
#![cfg(unix)]
#![allow(unsafe_code, reason = "an allocator that counts")]

mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    net::TcpStream,
    sync::atomic::{AtomicUsize, Ordering},
};

use common::{Engine, Probe, add, for_each_engine, settle, small_buffers, tcp_pair, until, write};
use reactor::{
    Context, Id, Layer, Lines, Result, Runtime, ServiceId, Shared, Stream, StreamOptions, session,
};

static LIVE: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: each call is passed unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: our caller upholds the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: our caller upholds the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// A layer that changes nothing, but handles every byte.
struct Coat;

impl Layer for Coat {
    const INPUT_MAX: usize = 0;

    fn ready(&self) -> bool {
        true
    }

    fn open(&mut self, input: &mut [u8], io: &mut session::Io<'_>) -> Result<session::Step> {
        io.up.extend_from_slice(input);
        Ok(session::Step { used: input.len(), next: session::Next::Wait })
    }

    fn seal(&mut self, clear: &[u8], io: &mut session::Io<'_>) -> Result<usize> {
        io.down.put(clear);
        Ok(clear.len())
    }
}

type Service<L> = Probe<Lines, L>;
type Line<L> = Id<Stream<Lines, L>>;

/// A server whose peers read nothing.
struct Crowd<L: Layer> {
    runtime: Runtime,
    service: ServiceId<Service<L>>,
    ids: Vec<Line<L>>,
    peers: Vec<TcpStream>,
}

fn crowd<L: Layer>(engine: Engine, count: usize, layer: impl Fn() -> L, narrow: bool) -> Crowd<L> {
    let mut runtime = engine.runtime();
    let service = runtime.add(Service::<L>::quiet()).expect("it starts");
    let (mut ids, mut peers) = (Vec::new(), Vec::new());
    let options = StreamOptions::with(|options| {
        options.cap = 64 << 20;
        options.item = 64 << 20;
    });
    for _ in 0..count {
        let (ours, peer) = tcp_pair();
        if narrow {
            small_buffers(&ours);
        }
        let stream = Stream::over(Lines::max(1 << 30), layer()).options(options.clone());
        ids.push(add(&mut runtime, service, stream, ours));
        peers.push(peer);
    }
    settle(&mut runtime);
    Crowd { runtime, service, ids, peers }
}

/// Lets the crowd hold some memory, and compares the count with the allocator's.
fn stress<L: Layer>(name: &str, mut crowd: Crowd<L>, hold: impl FnOnce(&mut Crowd<L>)) {
    let before = LIVE.load(Ordering::Relaxed);
    hold(&mut crowd);
    settle(&mut crowd.runtime);
    let allocated = LIVE.load(Ordering::Relaxed).saturating_sub(before);
    let counted = crowd.runtime.metrics().read().queue_bytes as usize;
    eprintln!("{name}: {counted} counted, {allocated} allocated");
    assert!(allocated > 256 << 10, "{name}: only {allocated} bytes were allocated");
    assert!(counted * 10 >= allocated * 8, "{name}: {counted} counted, {allocated} allocated");
}

fn each<L: Layer>(crowd: &mut Crowd<L>, mut send: impl FnMut(&mut Context<'_, Service<L>>, Line<L>)) {
    let Crowd { runtime, service, ids, .. } = crowd;
    runtime.with(*service, |_, cx| ids.iter().for_each(|id| send(cx, *id))).expect("it lives");
}

/// Lets each peer send part of a line, and waits until all parts have arrived.
fn halves<L: Layer>(crowd: &mut Crowd<L>, bytes: usize) {
    let Crowd { runtime, peers, .. } = crowd;
    let half = vec![b'x'; bytes];
    peers.iter_mut().for_each(|peer| write(runtime, peer, &half));
    let (metrics, all) = (runtime.metrics(), (bytes * peers.len()) as u64);
    until(runtime, |_| metrics.read().bytes_in == all);
}

fn all<L: Layer>(engine: Engine, layer: impl Fn() -> L + Copy) {
    stress("small items", crowd(engine, 4, layer, true), |crowd| {
        (0..30_000).for_each(|_| each(crowd, |cx, id| _ = cx.send(id, "a small item")));
    });
    stress("large items", crowd(engine, 4, layer, true), |crowd| {
        let large = "x".repeat(200_000);
        (0..10).for_each(|_| each(crowd, |cx, id| _ = cx.send(id, &large)));
    });
    stress("many connections", crowd(engine, 30, layer, true), |crowd| {
        // More than the sockets' buffers take.
        let some = "x".repeat(10_000);
        (0..60).for_each(|_| each(crowd, |cx, id| _ = cx.send(id, &some)));
    });
    stress("a byte between shared bytes", crowd(engine, 4, layer, true), |crowd| {
        for _ in 0..3_000 {
            let shared = Shared::from(vec![b'x'; 512]);
            each(crowd, |cx, id| _ = (cx.send(id, ""), cx.send_shared(id, &shared)));
        }
    });
    stress("half items", crowd(engine, 8, layer, false), |crowd| {
        halves(crowd, 700_000);
    });
    stress("half items of many connections", crowd(engine, 400, layer, false), |crowd| {
        halves(crowd, 2_000);
    });
}

#[test]
fn what_is_counted_is_at_least_four_fifths_of_what_is_allocated() {
    for_each_engine(|engine| {
        all(engine, || ());
        all(engine, || Coat);
    });
}
