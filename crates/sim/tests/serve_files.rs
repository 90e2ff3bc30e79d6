//! The example `serve_files`, unchanged, on a simulated disk: its timeouts, and a disk that fails.
#![allow(dead_code, reason = "the example's own tests use the rest")]

#[path = "../../reactor/examples/serve_files/answer.rs"]
mod answer;
#[path = "../../reactor/examples/serve_files/date.rs"]
mod date;
#[path = "../../reactor/examples/serve_files/head.rs"]
mod head;
#[path = "../../reactor/examples/serve_files/request.rs"]
mod request;
#[path = "../../reactor/examples/serve_files/server.rs"]
mod server;

use std::time::Duration;

use reactor::{Bytes, Closed, Context, Event, Handle, Id, Receive, Result, Service, Stream, file::File};
use server::Server;
use sim::{DiskOptions, NodeId, World};

/// Sends a request in pieces with pauses between them, and keeps the answer.
struct Client {
    address: String,
    pieces: Vec<(u64, &'static str)>,
    stream: Option<Id<Stream>>,
    answer: Vec<u8>,
    closed: Option<Duration>,
}

impl Service for Client {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        self.stream = Some(cx.connect(&self.address, Stream::new(Bytes).half_open(false))?);
        for (after_ms, piece) in self.pieces.clone() {
            cx.after(Duration::from_millis(after_ms), piece);
        }
        // This timer keeps the node up.
        cx.after(Duration::from_secs(1_000_000), "");
        Ok(())
    }
}

impl Receive<&'static str> for Client {
    fn receive(&mut self, cx: &mut Context<Self>, piece: &'static str) -> Result {
        cx.send(self.stream.ok_or("it is connected at the start")?, piece.as_bytes());
        Ok(())
    }
}

impl Handle<Stream> for Client {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, event: Event<Bytes>) -> Result {
        if let Event::Received(bytes) = event {
            self.answer.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: Id<Stream>, _: Stream, _: Closed) {
        self.closed = Some(Duration::from_nanos(cx.now().as_nanos()));
    }
}

struct Scene {
    world: World,
    server: NodeId<Server>,
}

impl Scene {
    fn new() -> Scene {
        let mut world = World::new(7);
        let server = world.add(|runtime| {
            let address = "0.0.0.0:80".parse().expect("an address");
            runtime.add(Server::new(address, File::hosted((), "/www")))
        });
        world.put_file(server, "/www/small.txt", b"small");
        world.put_file(server, "/www/large", &vec![7; 4 << 20]);
        world.put_file(server, "/secret", b"no");
        Scene { world, server }
    }

    fn client(&mut self, pieces: &[(u64, &'static str)]) -> NodeId<Client> {
        let (address, pieces) = (format!("{}:80", self.world.ip(self.server)), pieces.to_vec());
        self.world.add(move |runtime| {
            let (address, pieces) = (address.clone(), pieces.clone());
            runtime.add(Client { address, pieces, stream: None, answer: Vec::new(), closed: None })
        })
    }

    /// Returns a client's answer after this time, and when the end arrived.
    fn answer(&mut self, pieces: &[(u64, &'static str)], time: Duration) -> (Vec<u8>, Option<Duration>) {
        let client = self.client(pieces);
        let began = Duration::from_nanos(self.world.now().as_nanos());
        self.world.run_for(time);
        let client = self.world.service(client).expect("it is up");
        (client.answer.clone(), client.closed.map(|at| at - began))
    }
}

const SMALL: &str = "GET /small.txt HTTP/1.1\r\nHost: x\r\n\r\n";
const LARGE: &str = "GET /large HTTP/1.1\r\nHost: x\r\n\r\n";

fn status(answer: &[u8]) -> &str {
    answer.get(9..12).and_then(|status| std::str::from_utf8(status).ok()).unwrap_or("none")
}

#[test]
fn files_of_the_disk_are_served_and_nothing_outside_of_the_directory() {
    let mut scene = Scene::new();
    let second = Duration::from_secs(1);
    let (answer, closed) = scene.answer(&[(1, SMALL)], second);
    assert!(answer.ends_with(b"\r\n\r\nsmall"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!((status(&answer), closed), ("200", None), "it stays for the next request");
    let (answer, _) = scene.answer(&[(1, LARGE)], Duration::from_secs(5));
    assert_eq!(answer.iter().filter(|byte| **byte == 7).count(), 4 << 20);
    let (answer, _) = scene.answer(&[(1, "GET /../secret HTTP/1.1\r\nHost: x\r\n\r\n")], second);
    assert_eq!(status(&answer), "403");
}

#[test]
fn a_head_that_does_not_come_in_its_time_is_408_however_slowly_it_goes_on() {
    let mut scene = Scene::new();
    let pieces: Vec<(u64, &str)> = (0..30).map(|second| (1_000 * second + 1, "G")).collect();
    let (answer, closed) = scene.answer(&pieces, Duration::from_secs(30));
    assert_eq!(status(&answer), "408");
    let closed = closed.expect("and the connection is closed");
    assert!(closed >= Duration::from_secs(10) && closed < Duration::from_secs(17), "{closed:?}");
    // A silent client has a minute, and then gets a close without an answer.
    let (answer, closed) = scene.answer(&[], Duration::from_secs(90));
    assert_eq!(answer, b"");
    let closed = closed.expect("it is closed");
    assert!(closed >= Duration::from_secs(60) && closed < Duration::from_secs(80), "{closed:?}");
}

#[test]
fn a_disk_that_fails_ends_that_answer_and_serves_the_next() {
    let mut scene = Scene::new();
    let client = scene.client(&[(1, LARGE)]);
    let got = |world: &World| world.service(client).expect("it is up").answer.len();
    assert!(scene.world.run_until(Duration::from_secs(5), |world| got(world) > 1 << 20));
    let mut bad = DiskOptions::default();
    bad.read_errors = 1_000_000;
    scene.world.set_disk(scene.server, bad);
    scene.world.run_for(Duration::from_secs(10));
    assert!(
        scene.world.service(client).expect("it is up").closed.is_some(),
        "a short body is told by the end"
    );
    assert!(got(&scene.world) < 4 << 20);
    assert_eq!(status(&scene.answer(&[(1, SMALL)], Duration::from_secs(1)).0), "500");
    scene.world.set_disk(scene.server, DiskOptions::default());
    assert_eq!(status(&scene.answer(&[(1, SMALL)], Duration::from_secs(1)).0), "200");
}

#[test]
fn a_slow_disk_delays_its_own_answer_only() {
    let mut scene = Scene::new();
    let mut slow = DiskOptions::default();
    slow.operation = Duration::from_secs(3_600);
    scene.world.set_disk(scene.server, slow);
    let stuck = scene.client(&[(1, SMALL)]);
    scene.world.run_for(Duration::from_millis(100));
    scene.world.set_disk(scene.server, DiskOptions::default());
    assert_eq!(status(&scene.answer(&[(1, SMALL)], Duration::from_secs(1)).0), "200");
    assert_eq!(scene.world.service(stuck).expect("it is up").answer, b"");
}
