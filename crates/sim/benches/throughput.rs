//! How many messages a simulated world carries in a second of real time, with faults and digest on.
//!
//! `cargo bench -p io-reactor-sim --bench throughput -- [NODES] [CONNECTIONS] [MESSAGES]`. A message is one
//! call of a handler for one item of 64 bytes, which crossed one link in its own packet.

use std::time::{Duration, Instant};

use reactor::{Bytes, Context, Event, Handle, Id, Result, Runtime, Service, Stream};
use sim::{Kind, World, WorldOptions};

/// Echoes each item, connects to a number of peers, and starts the exchange.
struct Node {
    peers: Vec<String>,
    received: u64,
}

impl Service for Node {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.listen("0.0.0.0:7000", |_| Some(Stream::new(Bytes)))?;
        for peer in &self.peers {
            let id = cx.connect(peer, Stream::new(Bytes))?;
            cx.send(id, &[7_u8; 64][..]);
        }
        Ok(())
    }
}

impl Handle<Stream> for Node {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        if let Event::Received(bytes) = event {
            self.received += 1;
            cx.send(id, bytes);
        }
        Ok(())
    }
}

fn arguments() -> [usize; 3] {
    let mut chosen = [1_000, 10_000, 5_000_000];
    let given = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    for (place, argument) in chosen.iter_mut().zip(given) {
        *place = argument.parse().unwrap_or_else(|_| {
            eprintln!("`{argument}` is not a number");
            std::process::exit(2);
        });
    }
    chosen
}

fn main() {
    let [nodes, connections, messages] = arguments();
    let mut options = WorldOptions::default();
    // Faults of operations that leave a message whole, each as frequent as in a hostile network.
    for kind in [Kind::LateSend, Kind::LateInput, Kind::EarlyWake, Kind::Reorder, Kind::Spike] {
        options.faults = options.faults.with(kind, 1_000);
    }
    options.limits.resources = connections + nodes;
    let mut world = World::with_options(8154, options);
    let began = Instant::now();
    let each = connections / nodes;
    let mut ids = Vec::new();
    for node in 0..nodes {
        let next = (1..=each).map(|step| (node + step) % nodes);
        // Addresses are assigned in order, from 10.0.0.1 on.
        let peers: Vec<String> = next
            .map(|node| {
                let [_, a, b, c] = (node as u32 + 1).to_be_bytes();
                format!("10.{a}.{b}.{c}:7000")
            })
            .collect();
        ids.push(
            world.add(move |runtime: &mut Runtime| runtime.add(Node { peers: peers.clone(), received: 0 })),
        );
    }
    world.run_for(Duration::from_millis(5));
    println!("{nodes} nodes, {} connections, made in {:.2?}", nodes * each, began.elapsed());
    let (before, began) = (world.summary(), Instant::now());
    while world.messages() - before.messages < messages as u64 {
        world.run_for(Duration::from_millis(1));
    }
    let (after, took) = (world.summary(), began.elapsed());
    let carried = after.messages - before.messages;
    let received: u64 = ids.iter().filter_map(|id| world.service(*id)).map(|node| node.received).sum();
    println!("{carried} messages in {took:.2?}: {:.0} a second", carried as f64 / took.as_secs_f64());
    let elapsed = (after.elapsed - before.elapsed).as_secs_f64();
    println!(
        "{} turns, {elapsed:.3} s of virtual time, {received} handled in all",
        after.turns - before.turns
    );
    println!("digest: {}", after.digest);
}
