//! The gain from polling for events before sleeping, for one busy connection. Run:
//! `cargo bench -p io-reactor --bench busy_poll`
//!
//! A reactor echoes for one client on another thread. The client sends 64 bytes and waits for them, first
//! with a loop that sleeps, then with one that polls for 50 microseconds before it sleeps. The two alternate
//! several times. The bench prints the round trips per second of both, and the ratio. The ratio is above one
//! if waking a thread costs more than a message.

use reactor::{
    Address, Bytes, Context, Error, Event, Handle, Id, Limits, Reactor, Receive, Reply, Result, Runtime,
    Service, Stream, engine::Candidates,
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

struct Echo;

/// Asks for the port.
struct Listen(Reply<SocketAddr>);

impl Service for Echo {}

impl Handle<Stream> for Echo {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        if let Event::Received(bytes) = event {
            cx.send(id, bytes);
        }
        Ok(())
    }
}

impl Receive<Listen> for Echo {
    fn receive(&mut self, cx: &mut Context<Self>, Listen(reply): Listen) -> Result {
        let id = cx.listen("127.0.0.1:0", |_| Some(Stream::new(Bytes)))?;
        if let Address::Ip(address) = cx.local(id)? {
            reply.send(address);
        }
        Ok(())
    }
}

fn main() -> std::result::Result<(), Error> {
    let (mut sleeping, mut looking) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        sleeping.push(round_trips(None)?);
        looking.push(round_trips(Some(Duration::from_micros(50)))?);
    }
    let (sleeping, looking) = (median(sleeping), median(looking));
    println!(
        "busy_poll: {looking:.0} round trips a second, {sleeping:.0} without: {:.2} times",
        looking / sleeping
    );
    Ok(())
}

fn round_trips(busy_poll: Option<Duration>) -> std::result::Result<f64, Error> {
    let make = move || {
        let mut limits = Limits::default();
        limits.busy_poll = busy_poll;
        Ok(Runtime::assemble(Candidates::default().open(None)?, limits))
    };
    let reactor = Reactor::spawn_with(make, |runtime| runtime.add(Echo))?;
    let address = reactor.controller().ask(Listen).wait().expect("the service listens");
    let mut peer = TcpStream::connect(address).expect("it listens");
    peer.set_nodelay(true).expect("a socket");
    let mut message = [7; 64];
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < SPAN {
        peer.write_all(&message).expect("the service lives");
        peer.read_exact(&mut message).expect("the service echoes");
        count += 1;
    }
    let rate = f64::from(count) / start.elapsed().as_secs_f64();
    drop(peer);
    reactor.controller().stop(Duration::ZERO);
    reactor.join()?;
    Ok(rate)
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

const ROUNDS: usize = 7;
const SPAN: Duration = Duration::from_millis(400);
