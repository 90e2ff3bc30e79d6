//! The waits of polite peers while others flood: on io_uring, against epoll.
//!
//! `cargo bench -p io-reactor --features io-uring --bench flood_tail`. One thread echoes bytes on the engine
//! that is measured. A second thread floods it: each of its connections always has more to send, and reads
//! what comes back. Meanwhile, polite peers (blocking sockets, each on its own thread) send 64 bytes, wait for
//! the answer, and rest for a millisecond. Both engines are measured in turn, several times. For each number
//! of floods, the bench prints the 50th and the 99th percentile of the polite peers' waits (the median of the
//! rounds), the bytes per second of the floods, and the ratio of the 99th percentiles. It fails if the
//! geometric mean of the ratios is above [`RATIO_MAX`].

fn main() {
    #[cfg(all(target_os = "linux", feature = "io-uring"))]
    linux::main();
    #[cfg(not(all(target_os = "linux", feature = "io-uring")))]
    println!("flood_tail: nothing to compare without io_uring");
}

#[cfg(all(target_os = "linux", feature = "io-uring"))]
mod linux {
    use std::{
        io::{Read, Write},
        net::{SocketAddr, TcpStream},
        sync::{
            Arc,
            atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
            mpsc,
        },
        thread,
        time::{Duration, Instant},
    };

    use reactor::{
        Bytes, Context, Controller, Event, Flow, Handle, Id, Result, Runtime, RuntimeOptions, Service,
        Shared, Stream,
    };

    const FLOODS: [usize; 3] = [4, 16, 64];
    const POLITE: usize = 2;
    const ROUNDS: usize = 5;
    const ROUND: Duration = Duration::from_secs(2);
    const REST: Duration = Duration::from_millis(1);
    const RATIO_MAX: f64 = 2.0;

    pub(super) fn main() {
        println!("waits of polite peers beside floods, in milliseconds; MB/s of the floods");
        println!("{:>7} {:>9} {:>8} {:>8} {:>8} {:>7}", "floods", "engine", "p50", "p99", "MB/s", "ratio");
        let mut product = 1.0;
        for floods in FLOODS {
            let mut rounds = [const { Vec::new() }; 2];
            for _ in 0..ROUNDS {
                for (engine, into) in ["epoll", "io_uring"].into_iter().zip(&mut rounds) {
                    into.push(round(engine, floods));
                }
            }
            let [epoll, ring] = rounds.map(|rounds| Round {
                p50: middle(rounds.iter().map(|round| round.p50)),
                p99: middle(rounds.iter().map(|round| round.p99)),
                rate: middle(rounds.iter().map(|round| round.rate)),
            });
            let ratio = ring.p99 / epoll.p99;
            product *= ratio;
            print(floods, "epoll", &epoll, "");
            print(floods, "io_uring", &ring, &format!("{ratio:.2}"));
        }
        let mean = product.powf(1.0 / FLOODS.len() as f64);
        println!("geometric mean of the ratios: {mean:.2} (at most {RATIO_MAX})");
        assert!(mean <= RATIO_MAX, "polite peers wait {mean:.2} times as long on io_uring");
    }

    fn print(floods: usize, engine: &str, round: &Round, ratio: &str) {
        let Round { p50, p99, rate } = round;
        println!("{floods:>7} {engine:>9} {p50:>8.3} {p99:>8.3} {rate:>8.0} {ratio:>7}");
    }

    fn middle(values: impl Iterator<Item = f64>) -> f64 {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }

    /// The waits of one round, in milliseconds, and the megabytes that the floods got back per second.
    struct Round {
        p50: f64,
        p99: f64,
        rate: f64,
    }

    fn round(engine: &'static str, floods: usize) -> Round {
        let (server, address, echo) = serve(engine);
        let received = Arc::new(AtomicU64::new(0));
        let (flood, flooding) = flood(address, floods, Arc::clone(&received));
        let over = Arc::new(AtomicBool::new(false));
        let polite: Vec<_> = (0..POLITE)
            .map(|_| {
                let over = Arc::clone(&over);
                thread::spawn(move || be_polite(address, &over))
            })
            .collect();
        let (began, before) = (Instant::now(), received.load(Relaxed));
        thread::sleep(ROUND);
        let moved = received.load(Relaxed) - before;
        let rate = moved as f64 / began.elapsed().as_secs_f64() / 1e6;
        over.store(true, Relaxed);
        let mut waits: Vec<f64> =
            polite.into_iter().flat_map(|peer| peer.join().expect("a polite peer is answered")).collect();
        flood.stop(Duration::ZERO);
        flooding.join().expect("the loop ends in order");
        echo.stop(Duration::ZERO);
        server.join().expect("the loop ends in order");
        waits.sort_by(f64::total_cmp);
        let at = |part: usize| waits[(waits.len() * part / 100).min(waits.len() - 1)];
        Round { p50: at(50), p99: at(99), rate }
    }

    /// Sends, waits, rests, and returns each wait in milliseconds.
    fn be_polite(address: SocketAddr, over: &AtomicBool) -> Vec<f64> {
        let mut peer = TcpStream::connect(address).expect("the server listens");
        peer.set_nodelay(true).expect("TCP has the option");
        let mut waits = Vec::new();
        let mut bytes = [7; 64];
        while !over.load(Relaxed) {
            let began = Instant::now();
            peer.write_all(&bytes).expect("the server reads");
            peer.read_exact(&mut bytes).expect("the server answers");
            waits.push(began.elapsed().as_secs_f64() * 1e3);
            thread::sleep(REST);
        }
        waits
    }

    struct Echo(mpsc::Sender<SocketAddr>);

    impl Service for Echo {
        fn start(&mut self, cx: &mut Context<Self>) -> Result {
            let listener = cx.listen("127.0.0.1:0", |_| Some(Stream::new(Bytes)))?;
            let address = cx.local(listener)?;
            self.0.send(address.ip().expect("it is an internet address")).expect("the bench waits");
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

    /// Starts the echo and returns its thread, its address and its controller.
    fn serve(engine: &'static str) -> (thread::JoinHandle<()>, SocketAddr, Controller<Echo>) {
        let (sender, receiver) = mpsc::channel();
        let (giver, taker) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut options = RuntimeOptions::default();
            options.engine = Some(engine.to_owned());
            let mut runtime = Runtime::with_options(options).expect("the engine opens");
            let id = runtime.add(Echo(sender)).expect("there is room for a service");
            giver.send(runtime.controller(id)).expect("the bench waits");
            runtime.run().expect("the loop ends in order");
        });
        let controller = taker.recv().expect("the runtime is there");
        (thread, receiver.recv().expect("the service listens"), controller)
    }

    /// Connections that always have more to send.
    struct Flood {
        address: SocketAddr,
        count: usize,
        piece: Shared,
        received: Arc<AtomicU64>,
    }

    impl Flood {
        fn fill(&self, cx: &mut Context<Self>, id: Id<Stream>) {
            while cx.send_shared(id, &self.piece) == Flow::Queued {}
        }
    }

    impl Service for Flood {
        fn start(&mut self, cx: &mut Context<Self>) -> Result {
            for _ in 0..self.count {
                cx.connect(self.address, Stream::new(Bytes))?;
            }
            Ok(())
        }
    }

    impl Handle<Stream> for Flood {
        fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
            match event {
                Event::Open | Event::Drained => self.fill(cx, id),
                Event::Received(bytes) => _ = self.received.fetch_add(bytes.len() as u64, Relaxed),
                _ => (),
            }
            Ok(())
        }
    }

    /// Starts the flood, and returns when it moves bytes.
    fn flood(
        address: SocketAddr,
        count: usize,
        received: Arc<AtomicU64>,
    ) -> (Controller<Flood>, thread::JoinHandle<()>) {
        let (giver, taker) = mpsc::channel();
        let progress = Arc::clone(&received);
        let thread = thread::spawn(move || {
            let mut options = RuntimeOptions::default();
            options.engine = Some("epoll".to_owned());
            let mut runtime = Runtime::with_options(options).expect("the engine opens");
            let piece = Shared::from(vec![7; 16 << 10]);
            let id =
                runtime.add(Flood { address, count, piece, received }).expect("there is room for a service");
            giver.send(runtime.controller(id)).expect("the bench waits");
            runtime.run().expect("the loop ends in order");
        });
        let controller = taker.recv().expect("the runtime is there");
        while progress.load(Relaxed) < (count as u64) << 16 {
            thread::yield_now();
        }
        (controller, thread)
    }
}
