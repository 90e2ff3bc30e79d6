//! Ordinary services over the completion double: echo, proxy, release, pause and stop work with every seed,
//! and one seed always gives the same run.

mod resource;

use std::{
    cell::Cell,
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    io::ErrorKind,
    rc::Rc,
    time::Duration,
};

use conformance::double::{Network, Peer, Tuning};
use reactor::{
    Bytes, Closed, Context, Event, Fault, Handle, Id, Io, Key, Outgoing, Output, Ready, Resource, Result,
    Runtime, Service, Source, Stream, StreamOptions,
};

const ADDRESS: &str = "127.0.0.1:7007";
const BEHIND: &str = "127.0.0.1:7008";
const SEEDS: std::ops::Range<u64> = 0..50;
const TURNS_MAX: usize = 50_000;

/// Runs a test in both tunings of each seed, and checks for leaks.
fn for_each_world(test: impl Fn(&Network, u64)) {
    for seed in SEEDS {
        for tuning in [Tuning::roomy(seed), Tuning::tight(seed)] {
            eprintln!("{tuning:?}");
            let network = Network::new(tuning);
            test(&network, seed);
            let leaks = network.leaks();
            assert!(leaks.is_clean(), "seed {seed}: {leaks}");
        }
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(31) ^ (at >> 8)) as u8).collect()
}

/// The bytes that a peer has sent and received so far.
struct Talk {
    peer: Peer,
    to_say: Vec<u8>,
    said: usize,
    heard: Vec<u8>,
    /// The peer finishes its side after the last byte.
    ends: bool,
    is_over: bool,
    was_reset: bool,
}

impl Talk {
    fn new(network: &Network, to_say: &[u8]) -> Talk {
        let peer = network.connect(ADDRESS).expect("the service listens");
        Talk {
            peer,
            to_say: to_say.to_vec(),
            said: 0,
            heard: Vec::new(),
            ends: true,
            is_over: false,
            was_reset: false,
        }
    }

    /// Sends as many bytes as fit, and receives.
    fn go_on(&mut self) {
        while self.said < self.to_say.len() {
            match self.peer.write(&self.to_say[self.said..]) {
                Ok(count) => self.said += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return self.hear(),
            }
            if self.said == self.to_say.len() && self.ends {
                self.peer.shutdown().expect("it is connected");
            }
        }
        self.hear();
    }

    fn hear(&mut self) {
        let mut bytes = [0; 512];
        loop {
            match self.peer.read(&mut bytes) {
                Ok(0) => return self.is_over = true,
                Ok(count) => self.heard.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return (self.is_over, self.was_reset) = (true, true),
            }
        }
    }
}

/// Turns all runtimes until the condition holds.
#[track_caller]
fn until(runtimes: &mut [&mut Runtime], mut done: impl FnMut() -> bool) {
    for _ in 0..TURNS_MAX {
        if done() {
            return;
        }
        for runtime in &mut *runtimes {
            runtime.turn(Some(Duration::ZERO)).expect("the double does not break");
        }
    }
    panic!("it did not happen in {TURNS_MAX} turns");
}

struct Echo(&'static str);

impl Service for Echo {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.listen(self.0, |_| Some(Stream::new(Bytes)))?;
        Ok(())
    }
}

impl Handle<Stream> for Echo {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        if let Event::Received(bytes) = event {
            cx.send(id, bytes);
        }
        Ok(())
    }
}

#[test]
fn an_echo_serves_several_peers_byte_for_byte() {
    for_each_world(|network, seed| {
        let mut runtime = Runtime::with_engine(network.double());
        runtime.add(Echo(ADDRESS)).expect("it starts");
        let mut talks: Vec<Talk> = (1..5).map(|n| Talk::new(network, &pattern(n * 700))).collect();
        until(&mut [&mut runtime], || {
            talks.iter_mut().for_each(Talk::go_on);
            talks.iter().all(|talk| talk.is_over)
        });
        for talk in talks {
            assert!(talk.heard == talk.to_say && !talk.was_reset, "seed {seed}: {} bytes", talk.heard.len());
        }
    });
}

/// Passes bytes between clients and a service behind it.
#[derive(Default)]
struct Proxy {
    others: HashMap<Key, Id<Stream>>,
    closed: Rc<Cell<usize>>,
}

impl Service for Proxy {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.listen(ADDRESS, |_| Some(Stream::new(Bytes)))?;
        Ok(())
    }
}

impl Handle<Stream> for Proxy {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        match event {
            Event::Open if !self.others.contains_key(&id.key()) => {
                let other = cx.connect(BEHIND, Stream::new(Bytes))?;
                self.others.insert(id.key(), other);
                self.others.insert(other.key(), id);
                cx.couple(id, other)?;
            }
            Event::Received(bytes) => {
                cx.send(self.others[&id.key()], bytes);
            }
            _ => (),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Stream, _: Closed) {
        self.closed.set(self.closed.get() + 1);
    }
}

#[test]
fn a_proxy_passes_bytes_and_ends_both_ways() {
    for_each_world(|network, seed| {
        let (mut front, mut behind) =
            (Runtime::with_engine(network.double()), Runtime::with_engine(network.double()));
        let closed = Rc::new(Cell::new(0));
        front.add(Proxy { closed: closed.clone(), ..Proxy::default() }).expect("it starts");
        behind.add(Echo(BEHIND)).expect("it starts");
        let mut talks: Vec<Talk> = (1..4).map(|n| Talk::new(network, &pattern(n * 500))).collect();
        until(&mut [&mut front, &mut behind], || {
            talks.iter_mut().for_each(Talk::go_on);
            talks.iter().all(|talk| talk.is_over) && closed.get() == 6
        });
        for talk in talks {
            assert!(talk.heard == talk.to_say && !talk.was_reset, "seed {seed}: {} bytes", talk.heard.len());
        }
    });
}

/// Echoes. With `releases`, it also listens, and releases each stream after its input.
struct Lender {
    out: Rc<Cell<Option<Stream>>>,
    releases: bool,
}

impl Service for Lender {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        if self.releases {
            cx.listen(ADDRESS, |_| Some(Stream::new(Bytes)))?;
        }
        Ok(())
    }
}

impl Handle<Stream> for Lender {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        if let Event::Received(bytes) = event {
            cx.send(id, bytes);
            if self.releases {
                cx.release(id)?;
            }
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Stream>, stream: Stream, why: Closed) {
        if matches!(why, Closed::Released) {
            self.out.set(Some(stream));
        }
    }
}

#[test]
fn a_released_stream_goes_on_in_another_runtime_without_losing_a_byte() {
    for_each_world(|network, seed| {
        let (mut one, mut other) =
            (Runtime::with_engine(network.double()), Runtime::with_engine(network.double()));
        let out = Rc::new(Cell::new(None));
        one.add(Lender { out: out.clone(), releases: true }).expect("it starts");
        let taker = other.add(Lender { out: Rc::default(), releases: false }).expect("it starts");
        let mut talk = Talk::new(network, &pattern(2_000));
        until(&mut [&mut one], || {
            talk.go_on();
            let stream = out.take();
            let is_out = stream.is_some();
            out.set(stream);
            is_out
        });
        let stream = out.take().expect("it was released");
        other.with(taker, |_, cx| cx.add(stream).map_err(|rejected| rejected.error).expect("it is taken"));
        until(&mut [&mut one, &mut other], || {
            talk.go_on();
            talk.is_over
        });
        assert!(talk.heard == talk.to_say && !talk.was_reset, "seed {seed}: {} bytes", talk.heard.len());
    });
}

/// Pauses with each input, and resumes with a timer.
struct Pausing {
    paused: bool,
    while_paused: Rc<Cell<usize>>,
}

struct Resume(Id<Stream>);

impl Service for Pausing {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.listen(ADDRESS, |_| Some(Stream::new(Bytes)))?;
        Ok(())
    }
}

impl Handle<Stream> for Pausing {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        if let Event::Received(bytes) = event {
            self.while_paused.set(self.while_paused.get() + usize::from(self.paused));
            self.paused = true;
            cx.send(id, bytes);
            cx.pause(id);
            cx.after(Duration::ZERO, Resume(id));
        }
        Ok(())
    }
}

impl reactor::Receive<Resume> for Pausing {
    fn receive(&mut self, cx: &mut Context<Self>, Resume(id): Resume) -> Result {
        self.paused = false;
        cx.resume(id);
        Ok(())
    }
}

#[test]
fn no_input_comes_while_paused_and_none_is_lost() {
    for_each_world(|network, seed| {
        let mut runtime = Runtime::with_engine(network.double());
        let while_paused = Rc::new(Cell::new(0));
        runtime.add(Pausing { paused: false, while_paused: while_paused.clone() }).expect("it starts");
        let mut talk = Talk::new(network, &pattern(1_500));
        until(&mut [&mut runtime], || {
            talk.go_on();
            talk.is_over
        });
        assert_eq!(while_paused.get(), 0, "seed {seed}");
        assert!(talk.heard == talk.to_say && !talk.was_reset, "seed {seed}: {} bytes", talk.heard.len());
    });
}

/// Sends a long greeting, and stops on request.
struct Greeter {
    greeting: Vec<u8>,
    closed: Rc<Cell<usize>>,
}

impl Service for Greeter {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.listen(ADDRESS, |_| Some(Stream::new(Bytes)))?;
        Ok(())
    }
}

impl Handle<Stream> for Greeter {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        match event {
            Event::Open => _ = cx.send(id, &self.greeting),
            Event::Received(_) => cx.stop(Duration::from_secs(60)),
            Event::End | Event::Drained | Event::HungUp => (),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Stream, _: Closed) {
        self.closed.set(self.closed.get() + 1);
    }
}

#[test]
fn a_stop_lets_what_is_queued_leave() {
    for_each_world(|network, seed| {
        let mut runtime = Runtime::with_engine(network.double());
        let closed = Rc::new(Cell::new(0));
        let greeting = pattern(3_000);
        runtime.add(Greeter { greeting: greeting.clone(), closed: closed.clone() }).expect("it starts");
        let mut talks: Vec<Talk> = (0..3).map(|_| Talk::new(network, &[])).collect();
        // All peers receive the beginning before one of them requests the stop.
        until(&mut [&mut runtime], || {
            talks.iter_mut().for_each(Talk::go_on);
            talks.iter().all(|talk| !talk.heard.is_empty())
        });
        talks[0].to_say = b"stop".to_vec();
        until(&mut [&mut runtime], || {
            talks.iter_mut().for_each(Talk::go_on);
            for talk in &mut talks[1..] {
                if talk.is_over && std::mem::take(&mut talk.ends) {
                    talk.peer.shutdown().expect("it is connected");
                }
            }
            closed.get() == 3
        });
        assert!(runtime.is_over(), "seed {seed}");
        let receipt = runtime.run().expect("the double does not break");
        assert_eq!((receipt.cut, receipt.bytes_dropped), (0, 0), "seed {seed}");
        talks.iter_mut().for_each(Talk::go_on);
        for talk in talks {
            assert!(talk.heard == greeting && !talk.was_reset, "seed {seed}: {} bytes", talk.heard.len());
        }
    });
}

#[test]
fn a_stop_is_over_in_time_when_nobody_reads() {
    for seed in SEEDS {
        let network = Network::new(Tuning::tight(seed));
        let mut runtime = Runtime::with_engine(network.double());
        let closed = Rc::new(Cell::new(0));
        // More than the path to the peer holds, but little enough for the service to continue reading.
        runtime.add(Greeter { greeting: pattern(20_000), closed: closed.clone() }).expect("it starts");
        let mut peer = network.connect(ADDRESS).expect("it listens");
        assert_eq!(peer.write(b"stop").ok(), Some(4));
        let begun = network.now();
        let receipt = runtime.run().expect("the double does not break");
        let took = network.now() - begun;
        // The close of a stream has its own deadline, which is before the end of the grace period.
        assert!(
            took <= Duration::from_secs(60) && took >= StreamOptions::DEFAULT.close,
            "seed {seed}: {took:?}"
        );
        assert!(receipt.bytes_dropped > 0 && closed.get() == 1, "seed {seed}: {receipt:?}");
        drop((peer, runtime));
        assert!(network.leaks().is_clean(), "seed {seed}: {}", network.leaks());
    }
}

/// Echoes, and counts its faults.
struct Counting(Rc<Cell<usize>>);

impl Service for Counting {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.listen(ADDRESS, |_| Some(Stream::new(Bytes)))?;
        Ok(())
    }

    fn fault(&mut self, _: &mut Context<Self>, fault: Fault) {
        assert!(matches!(fault, Fault::Accept(_)), "{fault}");
        self.0.set(self.0.get() + 1);
    }
}

impl Handle<Stream> for Counting {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        if let Event::Received(bytes) = event {
            cx.send(id, bytes);
        }
        Ok(())
    }
}

#[test]
fn without_transports_a_listener_tells_one_fault_rests_and_recovers() {
    for_each_world(|network, seed| {
        let mut runtime = Runtime::with_engine(network.double());
        let faults = Rc::new(Cell::new(0));
        runtime.add(Counting(faults.clone())).expect("it starts");
        for episode in 1..=2 {
            // The limit allows the listener itself, and two connections.
            network.limit_transports(Some(3));
            let mut talks: Vec<Talk> = (0..4).map(|_| Talk::new(network, b"hello")).collect();
            talks.iter_mut().for_each(|talk| talk.ends = false);
            until(&mut [&mut runtime], || {
                talks.iter_mut().for_each(Talk::go_on);
                faults.get() == episode && talks.iter().filter(|talk| talk.heard == b"hello").count() == 2
            });
            let (before, begun) = (runtime.metrics().read().turns, network.now());
            while network.now() - begun < Duration::from_secs(1) {
                runtime.turn(Some(Duration::from_secs(1))).expect("the double does not break");
            }
            let turns = runtime.metrics().read().turns - before;
            assert!(turns < 50, "seed {seed}: {turns} turns in a second of an episode");
            network.limit_transports(None);
            until(&mut [&mut runtime], || {
                talks.iter_mut().for_each(Talk::go_on);
                runtime_is_patient(network);
                talks.iter().all(|talk| talk.heard == b"hello")
            });
            assert_eq!(faults.get(), episode, "seed {seed}: one fault an episode");
            drop(talks);
            for _ in 0..200 {
                runtime.turn(Some(Duration::from_millis(1))).expect("the double does not break");
            }
        }
    });
}

/// Advances the clock. The listener retries by the clock, which stands still in turns that do not wait.
fn runtime_is_patient(network: &Network) {
    network.advance(Duration::from_millis(1));
}

/// Computes the digest of everything that a proxy's runtimes and peers see.
fn digest(tuning: Tuning) -> u64 {
    let network = Network::new(tuning);
    let (mut front, mut behind) =
        (Runtime::with_engine(network.double()), Runtime::with_engine(network.double()));
    front.add(Proxy::default()).expect("it starts");
    behind.add(Echo(BEHIND)).expect("it starts");
    let mut hash = DefaultHasher::new();
    let mut talks: Vec<Talk> = (1..4).map(|n| Talk::new(&network, &pattern(n * 300))).collect();
    until(&mut [&mut front, &mut behind], || {
        for talk in &mut talks {
            talk.go_on();
            (talk.said, &talk.heard, talk.is_over).hash(&mut hash);
        }
        talks.iter().all(|talk| talk.is_over)
    });
    for runtime in [&front, &behind] {
        let counters = runtime.metrics().read();
        (counters.turns, counters.events, counters.handled, counters.engine_calls).hash(&mut hash);
    }
    network.now().as_nanos().hash(&mut hash);
    hash.finish()
}

#[test]
fn one_seed_is_one_run() {
    let digests: Vec<u64> = SEEDS.map(|seed| digest(Tuning::tight(seed))).collect();
    for (seed, first) in SEEDS.zip(&digests) {
        assert_eq!(digest(Tuning::tight(seed)), *first, "seed {seed}");
    }
    let different: std::collections::HashSet<_> = digests.iter().collect();
    assert!(different.len() > digests.len() / 2, "the seeds make no difference");
}
