//! The steady state allocates nothing.
#![allow(unsafe_code, reason = "an allocator that counts")]
#![cfg_attr(
    windows,
    allow(
        clippy::missing_const_for_thread_local,
        reason = "the macro hides its `const` from the lint there"
    )
)]

mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io::{Read, Write},
    time::Duration,
};

use common::{Engine, LONG, for_each_engine, tcp_pair};
use reactor::{
    Bytes, Codec, Context, DatagramEvent, Datagrams, Event, Handle, Id, Lines, Outbound, Receive, Result,
    Service, ServiceId, Stream,
};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: each call is passed unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: our caller upholds the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: our caller upholds the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: our caller upholds the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Answers each message, moves a deadline with last words, sets and cancels timers, sends itself a message, and asks for the
/// end of each turn.
struct Busy {
    told: u64,
    turns: u64,
}

impl Busy {
    fn on_item<C: Codec>(&mut self, cx: &mut Context<Self>, id: Id<Stream<C>>) -> Result {
        cx.deadline(id, LONG);
        cx.deadline_with(id, LONG, 4_u64);
        cx.at_end_of_turn();
        let timer = cx.after(LONG, 1_u32);
        cx.cancel(timer);
        cx.after(Duration::ZERO, 2_u32);
        cx.tell(cx.me(), 3_u64).map_err(|_| "full")?;
        Ok(())
    }
}

impl Service for Busy {
    fn end_of_turn(&mut self, cx: &mut Context<Self>) {
        self.turns += 1;
        cx.at_end_of_turn();
    }
}
impl Handle<Stream> for Busy {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        if let Event::Received(bytes) = event {
            cx.send(id, bytes);
            self.on_item(cx, id)?;
        }
        Ok(())
    }
}
impl Handle<Stream<Lines>> for Busy {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream<Lines>>, event: Event<Lines>) -> Result {
        if let Event::Received(line) = event {
            cx.send(id, line);
            self.on_item(cx, id)?;
        }
        Ok(())
    }
}
impl Receive<u32> for Busy {
    fn receive(&mut self, _: &mut Context<Self>, _: u32) -> Result {
        Ok(())
    }
}
impl Receive<u64> for Busy {
    fn receive(&mut self, _: &mut Context<Self>, _: u64) -> Result {
        self.told += 1;
        Ok(())
    }
}

fn measure<C: Codec>(engine: Engine, mut codec: impl FnMut() -> C)
where
    Busy: Handle<Stream<C>>,
{
    let mut runtime = engine.runtime();
    let service: ServiceId<Busy> = runtime.add(Busy { told: 0, turns: 0 }).expect("it starts");
    let mut peers = Vec::new();
    for _ in 0..20 {
        let (ours, peer) = tcp_pair();
        let stream = Stream::new(codec()).on(ours).expect("a socket");
        runtime.with(service, |_, cx| assert!(cx.add(stream).is_ok()));
        peers.push(peer);
    }
    let controller = runtime.controller(service);
    let mut before = 0;
    for round in 0..200 {
        if round == 100 {
            before = ALLOCATIONS.get();
        }
        for peer in &mut peers {
            // Send half an item first, so that the runtime has to keep it.
            peer.write_all(b"hel").expect("room");
        }
        runtime.turn(Some(LONG)).expect("whole");
        for peer in &mut peers {
            peer.write_all(b"lo\n").expect("room");
        }
        controller.send(7_u64).expect("room");
        runtime.turn(Some(LONG)).expect("whole");
        // Read the answer of each peer: six bytes, in one or two pieces.
        for peer in &mut peers {
            let mut count = 0;
            while count < 6 {
                runtime.turn(Some(Duration::ZERO)).expect("whole");
                peer.set_nonblocking(true).expect("a socket");
                count += peer.read(&mut [0; 64]).unwrap_or(0);
            }
        }
    }
    assert_eq!(ALLOCATIONS.get() - before, 0, "allocations in 100 rounds");
    let busy = runtime.service(service).expect("it lives");
    assert!(busy.told >= 200 && busy.turns >= 400);
}

/// Returns each datagram to its sender, or keeps it.
struct Ball {
    returns: bool,
    got: u64,
}

impl Service for Ball {}
impl Handle<Datagrams> for Ball {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Datagrams>, event: DatagramEvent) -> Result {
        if let DatagramEvent::Received(datagram) = event {
            self.got += 1;
            if self.returns {
                cx.send(id, datagram.answer(datagram.bytes));
            }
        }
        Ok(())
    }
}

#[test]
fn datagrams_allocate_nothing() {
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let [server, client] =
            [true, false].map(|returns| runtime.add(Ball { returns, got: 0 }).expect("it starts"));
        let bind = |cx: &mut Context<Ball>| {
            let id = cx.bind("127.0.0.1:0", Datagrams::new()).expect("it is free");
            (id, cx.local(id).expect("it is bound"))
        };
        let (_, to) = runtime.with(server, |_, cx| bind(cx)).expect("it lives");
        let (id, _) = runtime.with(client, |_, cx| bind(cx)).expect("it lives");
        let mut before = 0;
        for round in 1..=200_u64 {
            if round == 101 {
                before = ALLOCATIONS.get();
            }
            // Mix datagrams of equal and of different lengths, because the runtime may batch equal ones.
            runtime.with(client, |_, cx| {
                (0..20).for_each(|n: usize| _ = cx.send(id, Outbound::to(&to, &[7; 64][..n.max(10)])));
            });
            while runtime.service(client).expect("it lives").got < round * 20 {
                runtime.turn(Some(LONG)).expect("whole");
            }
        }
        assert_eq!(ALLOCATIONS.get() - before, 0, "allocations in 100 rounds on {}", engine.0);
    });
}

#[test]
fn messages_timers_deadlines_and_commands_allocate_nothing() {
    for_each_engine(|engine| {
        measure(engine, Lines::new);
        measure(engine, || Bytes);
    });
}
