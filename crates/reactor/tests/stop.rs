//! The stop: its deadline, its receipt, and the conditions under which a runtime ends by itself.

mod common;

use std::{
    thread,
    time::{Duration, Instant},
};

use common::{LONG, Probe, SHORT, Seen, World, for_each_engine, tcp_pair};
use reactor::{Bytes, Context, Error, Hold, Reactor, Receive, Result, Runtime, Service, ServiceId, Stream};

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
