//! The memory of a connection that has been used and is now idle.
#![cfg(unix)]
#![allow(unsafe_code, reason = "an allocator that counts")]

mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicUsize, Ordering},
};

use common::{LONG, for_each_engine, until};
use reactor::{Bytes, Context, Event, Handle, Id, Result, Service, Stream};

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

struct Echo;
impl Service for Echo {}
impl Handle<Stream> for Echo {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        if let Event::Received(bytes) = event {
            cx.send(id, bytes);
        }
        Ok(())
    }
}

const CONNECTIONS: usize = 3000;
/// The server's whole heap for each connection, including spare capacity and the runtime's own tables.
const BYTES_MAX: usize = 230;

#[test]
fn a_connection_at_rest_costs_at_most_230_bytes_and_a_burst_leaves_nothing() {
    let all = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: all.maximum, ..all };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).expect("up to the hard limit");
    for_each_engine(|engine| {
        let mut peers: Vec<TcpStream> = Vec::with_capacity(CONNECTIONS);
        let mut runtime = engine.runtime();
        let service = runtime.add(Echo).expect("it starts");
        let address = runtime
            .with(service, |_, cx| {
                let id = cx.listen("127.0.0.1:0", |_| Some(Stream::new(Bytes))).expect("a port");
                cx.local(id).expect("bound").ip().expect("IP")
            })
            .expect("it lives");
        let metrics = runtime.metrics();
        // Open one connection first, because its buffers and tables are shared by all.
        let mut first = TcpStream::connect(address).expect("it listens");
        first.write_all(b"first").expect("room");
        until(&mut runtime, |_| metrics.read().bytes_out == 5);
        let before = LIVE.load(Ordering::Relaxed);
        for _ in 0..CONNECTIONS {
            let mut peer = TcpStream::connect(address).expect("the backlog takes it");
            peer.write_all(b"hello").expect("room");
            peers.push(peer);
            if peers.len().is_multiple_of(64) {
                runtime.turn(None).expect("whole");
            }
        }
        until(&mut runtime, |_| metrics.read().bytes_out == 5 + 5 * CONNECTIONS as u64);
        for peer in &mut peers {
            peer.set_read_timeout(Some(LONG)).expect("a socket");
            peer.read_exact(&mut [0; 5]).expect("its echo");
        }
        let each = (LIVE.load(Ordering::Relaxed) - before) / CONNECTIONS;
        eprintln!("{} {each} bytes a connection", engine.0);
        let own = match engine.0 {
            // The set of poll(2) is memory of the process rather than of the kernel.
            "poll" => 40,
            // 12 bytes of its table. The rest belongs to a batch and is shared by all: completions, and
            // queues in flight.
            "io_uring" => 40,
            // The crate keeps a table of its descriptors.
            "polling" => 32,
            _ => 0,
        };
        assert!(each <= BYTES_MAX + own, "{each} bytes a connection");
        drop(peers);
        until(&mut runtime, |_| metrics.read().resources == 2);
        // A second crowd reuses the memory of the first one.
        let emptied = LIVE.load(Ordering::Relaxed);
        let mut peers: Vec<TcpStream> = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            peers.push(TcpStream::connect(address).expect("the backlog takes it"));
            if peers.len().is_multiple_of(64) {
                runtime.turn(None).expect("whole");
            }
        }
        until(&mut runtime, |_| metrics.read().resources as usize == 2 + CONNECTIONS);
        drop(peers);
        until(&mut runtime, |_| metrics.read().resources == 2);
        let after = LIVE.load(Ordering::Relaxed);
        assert!(after <= emptied + (64 << 10), "{emptied} bytes grew to {after}");
    });
}
