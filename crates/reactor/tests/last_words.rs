//! The last words of a resource: a message that its service receives after its deadline, before the resource
//! ends.

mod common;

use std::{
    cell::RefCell,
    io::Write,
    net::UdpSocket,
    rc::Rc,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use common::{
    LONG, Probe, SHORT, Seen, World, for_each_engine, is_ended, quick_close, settle, small_buffers, tcp_pair,
    until,
};
use reactor::{
    Address, AfterPanic, Bytes, Closed, Context, DatagramEvent, Datagrams, Event, Handle, Id, Outbound,
    Panic, Receive, Result, Runtime, Service, Stream,
};

type Id1 = Id<Stream>;

/// The service's action on its stream when the message has come.
type Act = fn(&mut Context<Probe>, Id1) -> Result;

/// Makes a world whose service performs this action when it receives a message.
fn world(runtime: Runtime, act: Act) -> World {
    let stream = Rc::new(RefCell::new(None));
    let known = stream.clone();
    let probe = Probe::quiet().messages(move |cx, _| match *known.borrow() {
        Some(id) => act(cx, id),
        None => Ok(()),
    });
    let (ours, peer) = tcp_pair();
    small_buffers(&ours);
    small_buffers(&peer);
    let bytes = Stream::new(Bytes).options(quick_close());
    let mut world = World::over(runtime, probe, bytes, ours, peer);
    *stream.borrow_mut() = Some(world.id);
    world.until_seen(Seen::Open);
    world
}

fn says_goodbye(cx: &mut Context<Probe>, id: Id1) -> Result {
    cx.send(id, b"421 too slow");
    Ok(())
}

fn timers(world: &World) -> u64 {
    let metrics = world.runtime.metrics();
    metrics.read().timers
}

#[test]
fn the_last_words_leave_and_the_peer_sees_an_end_in_order() {
    for_each_engine(|engine| {
        let mut world = world(engine.runtime(), says_goodbye);
        let began = Instant::now();
        world.with(|cx, id| cx.deadline_with(id, SHORT, 7));
        assert_eq!(world.read(1000), b"421 too slow");
        assert!(began.elapsed() >= SHORT, "it was early");
        assert!(is_ended(&mut world.peer), "an end in order");
        world.peer.shutdown(std::net::Shutdown::Both).expect("a socket");
        assert!(matches!(world.until_closed(), Closed::Deadline));
        settle(&mut world.runtime);
        assert_eq!(world.probe().messages, [7]);
        assert_eq!(timers(&world), 0);
    });
}

#[test]
fn a_peer_that_does_not_read_them_is_cut_by_the_deadline_of_the_close() {
    for_each_engine(|engine| {
        let mut world = world(engine.runtime(), |cx, id| {
            cx.send(id, &[b'x'; 3 << 20]);
            Ok(())
        });
        world.with(|cx, id| cx.deadline_with(id, SHORT, 7));
        let why = world.until_closed();
        assert!(matches!(why, Closed::TimedOut(reactor::Phase::Close)), "{why:?}");
    });
}

#[test]
fn the_message_stays_when_the_deadline_moves() {
    for_each_engine(|engine| {
        let probe = Probe::new(|cx, id, seen| {
            match seen {
                Seen::Open => cx.deadline_with(id, 3 * SHORT, 7),
                Seen::Got(_) => cx.deadline(id, 3 * SHORT),
                _ => (),
            }
            Ok(())
        });
        let mut world = World::new(engine.runtime(), probe, Stream::new(Bytes).options(quick_close()));
        world.until_seen(Seen::Open);
        for n in 1..=6 {
            world.runtime.turn(Some(SHORT)).expect("whole");
            world.peer.write_all(b"x").expect("room");
            world.until_bytes(n);
            assert!(world.probe().messages.is_empty(), "the peer talks");
        }
        let moved = Instant::now();
        assert!(matches!(world.until_closed(), Closed::Deadline));
        assert!(moved.elapsed() >= SHORT);
        assert_eq!(world.probe().messages, [7]);
    });
}

#[test]
fn a_second_message_takes_the_place_of_the_first_and_none_takes_it_away() {
    for_each_engine(|engine| {
        let mut world = world(engine.runtime(), |cx, id| {
            cx.abort(id);
            Ok(())
        });
        world.with(|cx, id| {
            cx.deadline_with(id, LONG, 1);
            cx.deadline_with(id, LONG, 2);
        });
        assert!(world.runtime.turn(Some(Duration::ZERO)).is_ok() && timers(&world) == 1);
        settle(&mut world.runtime);
        world.with(|cx, id| cx.deadline(id, None));
        world.runtime.turn(Some(3 * SHORT)).expect("whole");
        settle(&mut world.runtime);
        assert_eq!((timers(&world), world.probe().closed.len()), (0, 0));
        world.with(|cx, id| {
            cx.deadline_with(id, SHORT, 3);
            cx.deadline_with(id, SHORT, 4);
        });
        assert!(matches!(world.until_closed(), Closed::Aborted), "as the service had it");
        assert_eq!(world.probe().messages, [4]);
    });
}

#[test]
fn a_deadline_set_in_receive_keeps_the_stream_and_has_no_last_words() {
    for_each_engine(|engine| {
        let mut world = world(engine.runtime(), |cx, id| {
            cx.deadline(id, SHORT);
            Ok(())
        });
        let began = Instant::now();
        world.with(|cx, id| cx.deadline_with(id, SHORT, 7));
        assert!(matches!(world.until_closed(), Closed::Deadline));
        assert!(began.elapsed() >= 2 * SHORT);
        assert_eq!(world.probe().messages, [7], "the message was used up");
    });
}

#[test]
fn a_message_set_in_receive_comes_again() {
    for_each_engine(|engine| {
        let mut world = world(engine.runtime(), |cx, id| {
            cx.deadline_with(id, SHORT, 8);
            Ok(())
        });
        world.with(|cx, id| cx.deadline_with(id, Duration::ZERO, 7));
        let service = world.service;
        until(&mut world.runtime, |runtime| {
            runtime.service(service).expect("it lives").messages == [7, 8, 8]
        });
        world.with(|cx, id| cx.deadline(id, None));
        settle(&mut world.runtime);
        assert!(world.probe().closed.is_empty(), "it lives on");
    });
}

#[test]
fn what_receive_does_to_the_stream_is_what_happens() {
    let acts: [(Act, &str); 4] = [
        (
            |cx, id| {
                cx.close(id);
                Ok(())
            },
            "Done",
        ),
        (
            |cx, id| {
                cx.abort(id);
                Ok(())
            },
            "Aborted",
        ),
        (
            |cx, id| {
                cx.release(id)?;
                Ok(())
            },
            "Released",
        ),
        (|_, _| Err("an error of receive is a fault".into()), "Deadline"),
    ];
    for_each_engine(|engine| {
        for (act, why) in acts {
            let mut world = world(engine.runtime(), act);
            world.with(|cx, id| cx.deadline_with(id, SHORT, 7));
            let closed = format!("{:?}", world.until_closed());
            assert_eq!((&*closed, &world.probe().messages[..]), (why, &[7][..]));
            settle(&mut world.runtime);
            assert_eq!(world.probe().closed.len(), 1);
        }
    });
}

#[test]
fn a_stream_that_ended_closed_or_left_before_has_no_last_words() {
    let ends: [fn(&mut Context<Probe>, Id1); 3] =
        [|cx, id| cx.close(id), |cx, id| cx.abort(id), |cx, id| cx.release(id).expect("it lives")];
    for_each_engine(|engine| {
        for end in ends {
            let mut world = world(engine.runtime(), says_goodbye);
            world.with(|cx, id| {
                cx.deadline_with(id, SHORT, 7);
                end(cx, id);
            });
            world.until_closed();
            world.runtime.turn(Some(3 * SHORT)).expect("whole");
            settle(&mut world.runtime);
            assert_eq!((timers(&world), world.probe().messages.len()), (0, 0));
            // A stream that has gone has none either.
            world.with(|cx, id| cx.deadline_with(id, SHORT, 8));
            world.runtime.turn(Some(Duration::ZERO)).expect("whole");
            assert_eq!(timers(&world), 0);
        }
    });
}

#[test]
fn input_that_lay_in_the_socket_is_handled_before_the_message() {
    for_each_engine(|engine| {
        for moves in [true, false] {
            let ((begin, begun), (write, written)) = (mpsc::channel(), mpsc::channel());
            let probe = Probe::new(move |cx, id, seen| {
                if moves && *seen == Seen::got("healthy") {
                    cx.deadline(id, LONG);
                }
                Ok(())
            })
            .messages(move |_, n| {
                if n == 1 {
                    // The handler blocks, against the rules. Meanwhile the bytes arrive, and the deadline
                    // passes.
                    begin.send(()).expect("the writer lives");
                    written.recv().expect("the writer lives");
                    thread::sleep(3 * SHORT);
                }
                Ok(())
            });
            let stream = Stream::new(Bytes).options(quick_close());
            let mut world = World::new(engine.runtime(), probe, stream);
            world.until_seen(Seen::Open);
            world.with(|cx, id| {
                cx.deadline_with(id, SHORT, 2);
                cx.after(Duration::ZERO, 1);
            });
            let mut peer = world.peer.try_clone().expect("a socket");
            let writer = thread::spawn(move || {
                begun.recv().expect("the handler is called");
                peer.write_all(b"healthy").expect("room");
                write.send(()).expect("the handler waits");
            });
            world.until_seen(Seen::got("healthy"));
            writer.join().expect("the writer did not panic");
            if moves {
                settle(&mut world.runtime);
                assert_eq!(world.probe().messages, [1], "it moved its deadline");
            } else {
                assert!(matches!(world.until_closed(), Closed::Deadline));
                assert_eq!(world.probe().messages, [1, 2]);
            }
        }
    });
}

#[test]
fn at_the_limit_of_timers_the_deadline_stands_alone_and_a_replacement_has_room() {
    for_each_engine(|engine| {
        for limit in [0, 1, 2] {
            let mut world = world(engine.with(|limits| limits.timers = limit), says_goodbye);
            world.with(|cx, id| {
                cx.deadline_with(id, SHORT, 1);
                cx.deadline_with(id, SHORT, 2);
            });
            assert!(matches!(world.until_closed(), Closed::Deadline));
            let probe = world.probe();
            let expected = if limit == 0 { (0, 2) } else { (1, 0) };
            assert_eq!((probe.messages.len(), probe.faults.len()), expected, "limit {limit}");
        }
    });
}

#[test]
fn a_message_for_what_is_in_the_background_does_not_keep_the_runtime() {
    for_each_engine(|engine| {
        let mut world = world(engine.runtime(), says_goodbye);
        world.with(|cx, id| {
            cx.deadline_with(id, LONG, 7);
            cx.background(id);
        });
        settle(&mut world.runtime);
        assert!(world.runtime.is_over(), "nothing else is left");
        world.runtime.run().and_then(reactor::Receipt::check).expect("it ends");
        assert!(matches!(world.probe().closed[0].2, Closed::Done));
    });
}

#[test]
fn a_panic_in_receive_costs_the_service_and_its_stream() {
    for_each_engine(|engine| {
        let mut world = world(engine.runtime(), |_, _| panic!("as the test wants it"));
        world.with(|cx, id| cx.deadline_with(id, SHORT, 7));
        let receipt = world.runtime.run().expect("it ends");
        assert!(receipt.services[0].panicked.is_some());
        assert!(world.runtime.service(world.service).is_none());
    });
}

#[test]
fn a_service_that_outlives_a_panic_in_receive_loses_its_stream() {
    for_each_engine(|engine| {
        struct Survives(Vec<String>);
        impl Service for Survives {
            fn panicked(&mut self, _: &mut Context<Self>, _: &Panic) -> AfterPanic {
                AfterPanic::EndResource
            }
        }
        impl Handle<Stream> for Survives {
            fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Event<Bytes>) -> Result {
                Ok(())
            }
            fn closed(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Stream, why: Closed) {
                self.0.push(format!("{why}"));
            }
        }
        impl Receive<u64> for Survives {
            fn receive(&mut self, _: &mut Context<Self>, _: u64) -> Result {
                panic!("as the test wants it")
            }
        }
        let mut runtime = engine.runtime();
        let service = runtime.add(Survives(Vec::new())).expect("it starts");
        let (ours, _peer) = tcp_pair();
        let stream = Stream::new(Bytes).on(ours).expect("a socket");
        runtime.with(service, |_, cx| {
            let id = cx.add(stream).expect("room");
            cx.deadline_with(id, SHORT, 7);
        });
        until(&mut runtime, |runtime| !runtime.service(service).expect("it lives").0.is_empty());
        settle(&mut runtime);
        let closed = &runtime.service(service).expect("it lives").0;
        assert!(closed.len() == 1 && closed[0].contains("as the test wants it"), "{closed:?}");
        assert_eq!(runtime.metrics().read().timers, 0);
    });
}

#[test]
fn sockets_for_datagrams_and_listeners_have_last_words_too() {
    /// Says goodbye by its socket for datagrams, and notes the end of each resource.
    struct Talks {
        socket: Option<Id<Datagrams>>,
        to: Address,
        log: Vec<String>,
    }
    impl Service for Talks {}
    impl Handle<Datagrams> for Talks {
        fn handle(&mut self, _: &mut Context<Self>, _: Id<Datagrams>, _: DatagramEvent) -> Result {
            Ok(())
        }
        fn closed(&mut self, _: &mut Context<Self>, _: Id<Datagrams>, _: Datagrams, why: Closed) {
            self.log.push(format!("{why:?}"));
        }
    }
    impl Handle<Stream> for Talks {
        fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Event<Bytes>) -> Result {
            Ok(())
        }
    }
    impl Receive<&'static str> for Talks {
        fn receive(&mut self, cx: &mut Context<Self>, text: &'static str) -> Result {
            self.log.push(text.to_owned());
            if let Some(socket) = self.socket {
                cx.send(socket, Outbound::to(&self.to, text.as_bytes()));
            }
            Ok(())
        }
    }
    for_each_engine(|engine| {
        let peer = UdpSocket::bind("127.0.0.1:0").expect("a port");
        peer.set_read_timeout(Some(LONG)).expect("a socket");
        let to = peer.local_addr().expect("bound").to_string().parse().expect("an address");
        let mut runtime = engine.runtime();
        let talks = runtime.add(Talks { socket: None, to, log: Vec::new() }).expect("it starts");
        let listener = runtime.with(talks, |talks, cx| {
            let socket = cx.bind("127.0.0.1:0", Datagrams::new()).expect("a port");
            talks.socket = Some(socket);
            let listener = cx.listen("127.0.0.1:0", |_| Some(Stream::new(Bytes))).expect("a port");
            cx.deadline_with(listener, Duration::ZERO, "no more guests");
            cx.deadline_with(socket, SHORT, "goodbye");
            listener
        });
        let listener = listener.expect("it lives");
        until(&mut runtime, |runtime| runtime.service(talks).expect("it lives").log.len() == 3);
        let log = &runtime.service(talks).expect("it lives").log;
        assert_eq!(log[..], ["no more guests", "goodbye", "Deadline"]);
        let gone = runtime.with(talks, |_, cx| cx.local(listener).is_err());
        assert_eq!(gone, Some(true), "the listener has ended");
        for text in ["no more guests", "goodbye"] {
            let mut buffer = [0; 32];
            let count = peer.recv(&mut buffer).expect("it was sent");
            assert_eq!(&buffer[..count], text.as_bytes());
        }
    });
}
