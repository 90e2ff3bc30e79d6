//! The stop: its deadline, its receipt, and the conditions under which a runtime ends by itself.

mod common;

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use common::{
    LONG, Probe, SHORT, Seen, World, add, for_each_engine, listen, settle, small_buffers, tcp_pair,
};
use reactor::{
    Bytes, Closed, Context, Error, Hold, Reactor, Receive, Result, Runtime, Service, ServiceId, Stream,
};

#[test]
fn a_runtime_ends_when_nothing_is_left() {
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        runtime.run().expect("without services");
        let service = runtime.add(Probe::<Bytes>::quiet()).expect("it starts");
        runtime.with(service, |_, cx| _ = cx.after(SHORT, 1));
        runtime.run().expect("after the timer");
        assert_eq!(runtime.service(service).expect("it is there").messages, [1]);
    });
}

#[test]
fn a_controller_outside_keeps_it_alive_until_it_is_dropped() {
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let service = runtime.add(Probe::<Bytes>::quiet()).expect("it starts");
        let controller = runtime.controller(service);
        let thread = thread::spawn(move || {
            for n in 0..10 {
                controller.send(n).expect("room");
                thread::yield_now();
            }
        });
        runtime.run().expect("it ends with the last controller");
        thread.join().expect("the sender did not panic");
        assert_eq!(runtime.service(service).expect("it is there").messages.len(), 10);
    });
}

#[test]
fn a_graceful_stop_flushes_and_the_receipt_says_what() {
    for_each_engine(|engine| {
        let mut world = World::new(engine.runtime(), Probe::quiet(), Stream::new(Bytes));
        world.until_seen(Seen::Open);
        let address = listen(&mut world.runtime, world.service, || Some(Stream::new(Bytes)));
        let mut peer = std::mem::replace(&mut world.peer, tcp_pair().0);
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            std::io::Read::read_to_end(&mut peer, &mut all).expect("all comes");
            all
        });
        world.with(|cx, id| {
            cx.send(id, &vec![1; 3 << 20][..]);
            cx.stop(LONG);
        });
        let receipt = world.runtime.run().expect("it stops");
        assert_eq!(reader.join().expect("the reader did not panic").len(), 3 << 20);
        assert_eq!((receipt.bytes_flushed, receipt.bytes_dropped, receipt.cut), (3 << 20, 0, 0));
        assert_eq!(receipt.services[0].closed, 2, "the stream and the listener");
        assert!(matches!(world.probe().closed[0].2, Closed::Done));
        assert!(std::net::TcpStream::connect(address).is_err(), "the listener is closed");
    });
}

#[test]
fn full_write_buffers_are_cut_at_the_deadline_and_counted() {
    for_each_engine(|engine| {
        const STREAMS: usize = 50;
        let mut runtime = engine.runtime();
        let service = runtime.add(Probe::<Bytes>::quiet()).expect("it starts");
        let mut peers = Vec::new();
        let mut ids = Vec::new();
        for _ in 0..STREAMS {
            let (ours, peer) = tcp_pair();
            small_buffers(&ours);
            ids.push(add(&mut runtime, service, Stream::new(Bytes), ours));
            peers.push(peer);
        }
        settle(&mut runtime);
        let big = vec![0; 3 << 20];
        let began = Instant::now();
        runtime.with(service, |_, cx| {
            ids.iter().for_each(|id| _ = cx.send(*id, &big[..]));
            cx.stop(5 * SHORT);
        });
        let receipt = runtime.run().expect("it stops");
        assert!(began.elapsed() >= 5 * SHORT && began.elapsed() < LONG);
        assert_eq!(receipt.cut as usize, STREAMS);
        let probe = runtime.service(service).expect("it is there");
        assert!(probe.closed.iter().all(|(.., why)| matches!(why, Closed::Stopped)));
        let unsent: usize = probe.closed.iter().map(|(_, stream, _)| stream.unsent()).sum();
        assert!(unsent > 0);
        assert_eq!(receipt.bytes_dropped as usize, unsent);
        assert_eq!(receipt.bytes_flushed as usize, STREAMS * big.len() - unsent);
    });
}

#[test]
fn the_earliest_of_several_deadlines_wins() {
    for_each_engine(|engine| {
        for first_is_earlier in [true, false] {
            let mut world = World::new(engine.runtime(), Probe::quiet(), Stream::new(Bytes));
            world.until_seen(Seen::Open);
            let controller = world.runtime.controller(world.service);
            let graces = if first_is_earlier { [SHORT, LONG] } else { [LONG, SHORT] };
            let threads = graces.map(|grace| {
                let controller = controller.clone();
                thread::spawn(move || controller.stop(grace))
            });
            threads.into_iter().for_each(|thread| thread.join().expect("no thread panicked"));
            let began = Instant::now();
            // The peer neither reads nor ends its side, so only the deadline ends the stream.
            let receipt = world.runtime.run().expect("it stops");
            assert!(began.elapsed() < LONG / 4);
            assert_eq!(receipt.cut, 1);
        }
    });
}

#[test]
fn a_stop_before_the_first_turn_from_a_callback_and_twice_is_one_stop() {
    struct Stops(Arc<AtomicU64>);
    impl Service for Stops {
        fn start(&mut self, cx: &mut Context<Self>) -> Result {
            cx.stop(LONG);
            cx.stop(LONG);
            Ok(())
        }
        fn stop(&mut self, cx: &mut Context<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
            cx.stop(LONG);
            cx.close_all();
        }
    }
    for_each_engine(|engine| {
        let stops = Arc::new(AtomicU64::new(0));
        let mut runtime = engine.runtime();
        runtime.add(Stops(stops.clone())).expect("it starts");
        runtime.run().expect("it stops");
        runtime.run().expect("again");
        assert_eq!(stops.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_service_may_finish_its_work_within_the_grace() {
    struct Patient(u64, Option<std::net::TcpStream>);
    impl Service for Patient {
        fn stop(&mut self, cx: &mut Context<Self>) {
            cx.after(SHORT, ());
        }
    }
    impl Receive<()> for Patient {
        fn receive(&mut self, cx: &mut Context<Self>, (): ()) -> Result {
            self.0 += 1;
            // The stream closes in order only once its peer ends its side, too.
            self.1 = None;
            cx.close_all();
            Ok(())
        }
    }
    impl reactor::Handle<Stream> for Patient {
        fn handle(
            &mut self,
            _: &mut Context<Self>,
            _: reactor::Id<Stream>,
            _: reactor::Event<Bytes>,
        ) -> Result {
            Ok(())
        }
    }
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let (ours, peer) = tcp_pair();
        let service = runtime.add(Patient(0, Some(peer))).expect("it starts");
        let stream = Stream::new(Bytes).on(ours).expect("a socket");
        runtime.with(service, |_, cx| {
            assert!(cx.add(stream).is_ok());
            cx.stop(LONG);
        });
        let receipt = runtime.run().expect("it stops");
        assert_eq!((runtime.service(service).expect("it is there").0, receipt.cut), (1, 0));
    });
}

/// Sends itself one message after the other.
#[derive(Default)]
struct Talks {
    own: Option<ServiceId<Talks>>,
    left: u32,
    heard: u32,
    /// At this message it takes a hold on the stop, until the next one.
    holds_at: u32,
    hold: Option<Hold>,
}

impl Service for Talks {}

impl Receive<()> for Talks {
    fn receive(&mut self, cx: &mut Context<Self>, (): ()) -> Result {
        self.heard += 1;
        self.hold = (self.heard == self.holds_at).then(|| cx.hold());
        self.left -= 1;
        if let Some(own) = self.own.filter(|_| self.left > 0) {
            cx.tell(own, ()).expect("room for one");
        }
        Ok(())
    }
}

/// Stops a service that sends itself this many messages, one a turn. Returns how many it received.
fn heard_until_the_stop(engine: common::Engine, messages: u32, holds_at: u32) -> u32 {
    let mut runtime = engine.runtime();
    let talks = Talks { left: messages, holds_at, ..Talks::default() };
    let service = runtime.add(talks).expect("it starts");
    runtime.with(service, |talks, cx| {
        talks.own = Some(service);
        cx.tell(service, ()).expect("room for one");
        cx.stop(LONG);
    });
    runtime.run().expect("it stops");
    runtime.service(service).expect("it is there").heard
}

#[test]
fn messages_alone_hold_a_stop_for_1024_turns() {
    for_each_engine(|engine| {
        for (messages, heard) in [(1_023, 1_023), (1_024, 1_024), (1_025, 1_024), (u32::MAX, 1_024)] {
            assert_eq!(heard_until_the_stop(engine, messages, 0), heard, "of {messages}");
        }
    });
}

#[test]
fn a_stop_counts_only_the_turns_in_a_row_in_which_messages_alone_hold_it() {
    for_each_engine(|engine| {
        for holds_at in [1, 1_023] {
            // The turn that begins with the hold counts for it. The next turn is the first of the 1,024.
            let heard = heard_until_the_stop(engine, u32::MAX, holds_at);
            assert_eq!(heard, holds_at + 1 + 1_024, "held at {holds_at}");
        }
        assert_eq!(heard_until_the_stop(engine, u32::MAX, 1_024), 2_049, "held by the last of them");
    });
}

#[test]
fn a_reactor_dropped_stops_and_is_joined() {
    struct Witness(#[expect(dead_code, reason = "only its drop counts")] Arc<()>);
    impl Service for Witness {}
    for_each_engine(|engine| {
        let witness = Arc::new(());
        let copy = witness.clone();
        let reactor = Reactor::spawn_with(move || Ok(engine.runtime()), |runtime| runtime.add(Witness(copy)))
            .expect("it starts");
        assert_eq!(Arc::strong_count(&witness), 2);
        drop(reactor);
        assert_eq!(Arc::strong_count(&witness), 1, "the thread is over");
    });
}

#[test]
fn a_reactor_joined_or_dropped_in_its_own_thread_does_not_wait_for_itself() {
    struct Own(std::sync::mpsc::Sender<bool>);
    impl Service for Own {}
    impl Receive<(Reactor<Own>, bool)> for Own {
        fn receive(&mut self, _: &mut Context<Self>, (reactor, join): (Reactor<Own>, bool)) -> Result {
            let refused = join && matches!(reactor.join(), Err(Error::Misuse { operation: "join", .. }));
            self.0.send(refused)?;
            Ok(())
        }
    }
    for_each_engine(|engine| {
        for join in [true, false] {
            let (to_test, from_loop) = std::sync::mpsc::channel();
            let build = |runtime: &mut Runtime| runtime.add(Own(to_test));
            let reactor = Reactor::spawn_with(move || Ok(engine.runtime()), build).expect("it starts");
            let controller = reactor.controller();
            controller.send((reactor, join)).expect("room");
            assert_eq!(from_loop.recv_timeout(LONG), Ok(join));
            controller.stop(Duration::ZERO);
            // The service, and with it the sender, is dropped when the loop has ended.
            assert!(from_loop.recv_timeout(LONG).is_err());
        }
    });
}

#[test]
fn a_build_that_fails_is_the_answer_of_spawn_and_leaves_nothing() {
    for_each_engine(|engine| {
        let refused = Reactor::<Probe>::spawn_with(
            move || Ok(engine.runtime()),
            |_| Err(Error::Misuse { operation: "build", why: "the test says so" }),
        );
        assert!(matches!(refused, Err(Error::Misuse { operation: "build", .. })));
    });
}

#[test]
fn a_hundred_starts_on_the_same_port() {
    for_each_engine(|engine| {
        let mut address = None;
        for _ in 0..100 {
            let mut runtime = engine.runtime();
            let service = runtime.add(Probe::quiet()).expect("it starts");
            let bound = runtime
                .with(service, |_, cx| {
                    let at =
                        address.map_or("127.0.0.1:0".to_owned(), |at: std::net::SocketAddr| at.to_string());
                    let id = cx.listen(at, |_| Some(Stream::new(Bytes))).expect("the port is free");
                    cx.local(id).expect("bound").ip().expect("IP")
                })
                .expect("it lives");
            address = Some(bound);
            let mut peer = std::net::TcpStream::connect(bound).expect("it listens");
            peer.write_all(b"x").expect("room");
            common::until(&mut runtime, |runtime| {
                runtime.service(service).expect("it lives").saw(&Seen::got("x"))
            });
            runtime.with(service, |_, cx| cx.stop(Duration::ZERO));
            runtime.run().expect("it stops");
        }
    });
}
