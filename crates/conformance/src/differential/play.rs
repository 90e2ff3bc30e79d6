//! Plays a script: drives a runtime over an engine until its service has finished or is stuck.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use reactor::{Address, Limits, Runtime, ServiceId, engine::Engine};
use socket2::{Domain, Socket, Type};

use super::{
    link::Link,
    player::Player,
    script::{Kind, Script},
    trace::{Entry, Trace},
};

impl Script {
    /// Plays the script over this engine, and returns the trace. Each failure is an entry of the trace.
    ///
    /// Waits as long as events take. Gives up if nothing moves for five seconds and a hundred turns, or for
    /// ten thousand turns of an engine whose time is virtual.
    ///
    /// # Panics
    /// If the machine has no loopback address.
    pub fn play(&self, engine: Box<dyn Engine>) -> Trace {
        // These sockets are bound and do not listen, so no other process gets their ports in the meantime.
        let sockets: Vec<Socket> = (0..=Kind::all().count()).map(|_| bound()).collect();
        let nowhere = sockets.iter().map(address).collect();
        let mut runtime = Runtime::assemble(engine, Limits::default());
        let name = runtime.engine_name();
        let player = match runtime.add(Player::new(self, name, nowhere)) {
            Ok(player) => player,
            Err(error) => {
                let mut trace = Trace::new(name, self.seed);
                trace.note(RUNTIME, Entry::Wrong(error.to_string()));
                return trace;
            }
        };
        let end = drive(&mut runtime);
        let mut trace = taken(&mut runtime, player, name, self.seed);
        trace.note(RUNTIME, end.map_or_else(Entry::Wrong, Entry::Over));
        trace
    }
}

fn bound() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port of the loopback");
    socket
}

fn address(socket: &Socket) -> Address {
    let address = socket.local_addr().ok().and_then(|address| address.as_socket());
    Address::Ip(address.expect("it is bound to an address of IP"))
}

/// Turns until the runtime is over. Returns how many resources were cut, or a description of the failure.
fn drive(runtime: &mut Runtime) -> Result<u64, String> {
    let metrics = runtime.metrics();
    let (mut idle, mut since, mut moved) = (0, Instant::now(), 0);
    while !runtime.is_over() {
        let is_called = runtime.turn(Some(TURN_MAX)).map_err(|error| error.to_string())?;
        // A lingering stream moves bytes without calling a handler.
        let counters = metrics.read();
        let before = std::mem::replace(&mut moved, counters.bytes_in + counters.bytes_out);
        (idle, since) = if is_called || moved != before { (0, Instant::now()) } else { (idle + 1, since) };
        if idle > IDLE_TURNS_MAX || idle > IDLE_TURNS_MIN && since.elapsed() > IDLE_MAX {
            return Err("nothing moves any more".to_owned());
        }
    }
    let receipt = runtime.run().and_then(reactor::Receipt::check).map_err(|error| error.to_string())?;
    let left = metrics.read();
    match (left.resources, left.queue_bytes, left.timers) {
        (0, 0, 0) => Ok(receipt.cut),
        left => Err(format!("resources, queued bytes and timers left: {left:?}")),
    }
}

/// Takes the trace of the service, and adds an entry for each connection that did not finish.
fn taken(runtime: &mut Runtime, player: ServiceId<Player>, name: &str, seed: u64) -> Trace {
    let Some(player) = runtime.service_mut(player) else {
        // It panicked, and the receipt has reported that.
        return Trace::new(name, seed);
    };
    let mut trace = std::mem::replace(&mut player.trace, Trace::new(name, seed));
    for (number, link) in player.links.iter().enumerate().filter(|(_, link)| !link.is_over()) {
        let Link { ends: [near, far], .. } = link;
        let how = format!(
            "stuck in {}: near got {} of {}, far {} of {}",
            link.words(),
            near.got.bytes,
            far.sent,
            far.got.bytes,
            near.sent
        );
        trace.note(&format!("link {number}, Near"), Entry::Wrong(how));
    }
    trace
}

/// The resource name for entries about the whole run.
const RUNTIME: &str = "runtime";
/// The longest wait of one turn.
const TURN_MAX: Duration = Duration::from_millis(50);
/// How many turns in a row nothing may move: at least, and at most where time is virtual.
const IDLE_TURNS_MIN: u32 = 100;
const IDLE_TURNS_MAX: u32 = 10_000;
const IDLE_MAX: Duration = Duration::from_secs(5);
