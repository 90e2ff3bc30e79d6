//! Layers over real sockets, against a peer with a socket of the standard library that the test drives by
//! hand.

mod common;

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use common::{LONG, Probe, SHORT, Seen, World, for_each_engine, pattern, tcp_pair};
use reactor::{
    Bytes, Closed, Layer, Outgoing, Result, Stream, StreamOptions, Truncated,
    session::{
        Io, Next, Step,
        kit::{Peer, Preamble, Toy, ToyError},
    },
};

/// The far end: an in-memory session over a socket.
struct Far<L: Layer> {
    session: Peer<L>,
    socket: TcpStream,
    ended: bool,
}

impl<L: Layer> Far<L> {
    fn new(layer: L, socket: TcpStream) -> Self {
        socket.set_nonblocking(true).expect("a socket");
        Far { session: Peer::new(layer), socket, ended: false }
    }

    /// Reads the available bytes and answers them.
    fn pump(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(count) => {
                    self.session.feed(&buffer[..count]);
                    continue;
                }
                // Bytes queued after a rejected record are lost.
                Err(e) if e.kind() == ErrorKind::ConnectionReset => self.ended = true,
                Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}"),
            }
            break;
        }
        self.flush();
    }

    fn flush(&mut self) {
        let flight = self.session.flight();
        if !flight.is_empty() {
            self.socket.write_all(&flight).expect("room");
        }
    }
}

/// Makes turns and pumps until the condition holds.
#[track_caller]
fn until<L: Layer, M: Layer>(
    world: &mut World<Bytes, L>,
    far: &mut Far<M>,
    mut done: impl FnMut(&World<Bytes, L>, &Far<M>) -> bool,
) {
    let end = Instant::now() + LONG;
    while !done(world, far) {
        assert!(Instant::now() < end, "it did not happen");
        world.runtime.turn(Some(Duration::from_millis(1))).expect("whole");
        far.pump();
    }
}

fn world<L: Layer>(engine: common::Engine, layer: L, options: StreamOptions) -> World<Bytes, L> {
    let echo = Probe::new(|cx, id, seen| {
        if let Seen::Got(bytes) = seen {
            cx.send(id, &bytes[..]);
        }
        Ok(())
    });
    World::new(engine.runtime(), echo, Stream::over(Bytes, layer).options(options))
}

fn far<L: Layer, M: Layer>(world: &mut World<Bytes, L>, layer: M) -> Far<M> {
    Far::new(layer, std::mem::replace(&mut world.peer, tcp_pair().0))
}

#[test]
fn a_conversation_passes_whole_in_both_roles() {
    for_each_engine(|engine| {
        for we_begin in [true, false] {
            let (client, server) = (Toy::client(1), Toy::server(2));
            let (ours, theirs) = if we_begin { (client, server) } else { (server, client) };
            let mut world = world(engine, ours, StreamOptions::DEFAULT);
            let mut far = far(&mut world, theirs);
            let sent = pattern(100_000);
            far.session.send(&sent);
            far.flush();
            until(&mut world, &mut far, |_, far| far.session.received().len() == sent.len());
            assert!(far.session.received() == sent);
            world.with(|cx, id| cx.close(id));
            until(&mut world, &mut far, |_, far| far.ended);
            far.session.close();
            far.flush();
            far.socket.shutdown(Shutdown::Both).expect("a socket");
            assert!(matches!(world.until_closed(), Closed::Done));
            assert_eq!(world.all()[0], Seen::Open);
        }
    });
}

/// Opens one byte at a time, each after so many steps that use nothing.
struct Hesitant {
    idle: u32,
    idled: u32,
}

impl Layer for Hesitant {
    const INPUT_MAX: usize = 0;

    fn ready(&self) -> bool {
        true
    }

    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        let Some(first) = input.first() else { return Ok(Step { used: 0, next: Next::Wait }) };
        if self.idled < self.idle {
            self.idled += 1;
            return Ok(Step { used: 0, next: Next::Again });
        }
        self.idled = 0;
        io.up.push(*first);
        Ok(Step { used: 1, next: Next::Again })
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        io.down.put(clear);
        Ok(clear.len())
    }
}

#[test]
fn a_layer_may_take_1024_steps_in_a_row_that_use_nothing() {
    for_each_engine(|engine| {
        for (idle, fits) in [(1, true), (1_023, true), (1_024, true), (1_025, false)] {
            let layer = Hesitant { idle, idled: 0 };
            let mut world = World::new(engine.runtime(), Probe::quiet(), Stream::over(Bytes, layer));
            world.until_seen(Seen::Open);
            let sent = pattern(if idle == 1 { 3_000 } else { 5 });
            world.peer.write_all(&sent).expect("room");
            if fits {
                world.until_bytes(sent.len());
                let id = world.id;
                assert!(world.probe().bytes(id) == sent, "{idle}");
            } else {
                assert!(matches!(world.until_closed(), Closed::Refused(_)), "{idle}");
            }
        }
    });
}

#[test]
fn every_cut_of_the_peers_bytes_gives_the_same() {
    for_each_engine(|engine| {
        // Record the output of the far end in memory. Its handshake does not depend on our answer.
        let mut near = Peer::new(Toy::server(2));
        let mut other = Peer::new(Toy::client(1));
        let hello = other.flight();
        near.feed(&hello);
        other.feed(&near.flight());
        other.send(b"ping");
        other.close();
        let said = [hello, other.flight()].concat();
        for cut in 1..said.len() {
            let mut world = world(engine, Toy::server(2), StreamOptions::DEFAULT);
            world.peer.write_all(&said[..cut]).expect("room");
            for _ in 0..2 {
                world.runtime.turn(Some(Duration::from_millis(1))).expect("whole");
            }
            world.peer.write_all(&said[cut..]).expect("room");
            world.peer.shutdown(Shutdown::Write).expect("a socket");
            world.until_closed();
            let expected = [Seen::Open, Seen::got("ping"), Seen::End, Seen::closed("End")];
            assert_eq!(world.all(), expected, "cut at {cut}");
        }
    });
}

#[test]
fn a_preamble_and_a_cipher_behind_it_come_byte_by_byte() {
    for_each_engine(|engine| {
        let ours = (Preamble::new("WELCOME\n", "HELLO\n"), Toy::server(2));
        let mut world = world(engine, ours, StreamOptions::DEFAULT);
        let mut far = far(&mut world, (Preamble::new("HELLO\n", "WELCOME\n"), Toy::client(1)));
        far.session.send(b"dripping");
        let end = Instant::now() + LONG;
        while far.session.received() != b"dripping" {
            assert!(Instant::now() < end, "it did not happen");
            let mut buffer = [0; 4096];
            if let Ok(count) = far.socket.read(&mut buffer) {
                far.session.feed(&buffer[..count]);
            }
            for byte in far.session.flight() {
                far.socket.write_all(&[byte]).expect("room");
                world.runtime.turn(Some(Duration::from_millis(1))).expect("whole");
            }
            world.runtime.turn(Some(Duration::from_millis(1))).expect("whole");
        }
        assert_eq!(world.all(), [Seen::Open, Seen::got("dripping")]);
    });
}

#[test]
fn an_alert_leaves_and_good_records_before_the_bad_one_are_delivered() {
    for_each_engine(|engine| {
        let mut world = world(engine, Toy::server(2), StreamOptions::DEFAULT);
        let mut far = far(&mut world, Toy::client(1));
        until(&mut world, &mut far, |world, _| world.probe().saw(&Seen::Open));
        far.pump();
        far.session.send(b"good");
        let good = far.session.flight();
        far.session.send(b"evil");
        let mut bad = far.session.flight();
        bad[5] ^= 1;
        far.socket.write_all(&[good, bad].concat()).expect("room");
        until(&mut world, &mut far, |_, far| far.ended);
        let error = far.session.error().expect("it got the alert");
        assert_eq!(error.downcast_ref(), Some(&ToyError::Alert));
        match world.until_closed() {
            Closed::Refused(failure) => assert_eq!(failure.downcast_ref(), Some(&ToyError::Tag)),
            other => panic!("{other:?}"),
        }
        assert!(world.probe().saw(&Seen::got("good")));
    });
}

#[test]
fn an_end_without_the_layers_own_is_truncated_and_told_apart() {
    for_each_engine(|engine| {
        for authentic in [true, false] {
            let mut world = world(engine, Toy::server(2), StreamOptions::DEFAULT);
            let mut far = far(&mut world, Toy::client(1));
            until(&mut world, &mut far, |world, _| world.probe().saw(&Seen::Open));
            if authentic {
                far.session.close();
            }
            far.flush();
            far.socket.shutdown(Shutdown::Write).expect("a socket");
            match world.until_closed() {
                Closed::End if authentic => (),
                Closed::Truncated(failure) if !authentic => assert!(failure.is::<Truncated>()),
                other => panic!("{other:?}"),
            }
            assert_eq!(world.probe().saw(&Seen::End), authentic);
        }
        // An end within the handshake is truncated, too.
        let mut world = world(engine, Toy::server(2), StreamOptions::DEFAULT);
        world.peer.write_all(b"T").expect("room");
        world.peer.shutdown(Shutdown::Write).expect("a socket");
        assert!(matches!(world.until_closed(), Closed::Truncated(_)));
    });
}

#[test]
fn a_handshake_has_its_deadline() {
    for_each_engine(|engine| {
        let options = StreamOptions::with(|options| options.handshake = 2 * SHORT);
        let mut world = world(engine, Toy::server(2), options);
        world.peer.write_all(b"T").expect("room");
        let began = Instant::now();
        assert_eq!(format!("{:?}", world.until_closed()), "TimedOut(Handshake)");
        assert!(began.elapsed() >= SHORT);
        assert_eq!(world.all(), [Seen::closed("TimedOut")]);
    });
}

#[test]
fn a_close_before_the_handshake_is_done_flushes_what_was_queued() {
    for_each_engine(|engine| {
        let mut world = world(engine, Toy::server(2), StreamOptions::DEFAULT);
        world.with(|cx, id| {
            cx.send(id, &b"parting"[..]);
            cx.close(id);
            cx.send(id, &b"too late"[..]);
        });
        world.runtime.turn(Some(Duration::ZERO)).expect("whole");
        let mut far = far(&mut world, Toy::client(1));
        far.flush();
        until(&mut world, &mut far, |_, far| far.ended);
        assert_eq!(far.session.received(), b"parting");
        far.socket.shutdown(Shutdown::Both).expect("a socket");
        assert!(matches!(world.until_closed(), Closed::Done));
        assert_eq!(world.all(), [Seen::closed("Done")], "Open does not come after close");
        // With an empty queue the runtime gives the handshake up.
        let mut world = self::world(engine, Toy::server(2), StreamOptions::DEFAULT);
        world.with(|cx, id| cx.close(id));
        world.runtime.turn(Some(Duration::ZERO)).expect("whole");
        common::until(&mut world.runtime, |_| common::is_ended(&mut world.peer));
    });
}

#[test]
fn pause_and_marks_do_not_stop_a_handshake() {
    for_each_engine(|engine| {
        let options = StreamOptions::with(|options| {
            options.high = 10;
            options.low = 1;
        });
        let mut world = world(engine, Toy::server(2), options);
        world.with(|cx, id| {
            cx.pause(id);
            cx.send(id, &b"more than the high mark"[..]);
        });
        let mut far = far(&mut world, Toy::client(1));
        far.flush();
        until(&mut world, &mut far, |_, far| far.session.received() == b"more than the high mark");
        far.session.send(b"answer");
        far.flush();
        common::settle(&mut world.runtime);
        assert!(!world.probe().saw(&Seen::got("answer")));
        world.with(|cx, id| cx.resume(id));
        world.until_seen(Seen::got("answer"));
    });
}

#[test]
fn what_a_layer_is_asked_leaves_at_the_end_of_the_turn() {
    for_each_engine(|engine| {
        let mut world = world(engine, Toy::server(2), StreamOptions::DEFAULT);
        let mut far = far(&mut world, Toy::client(1));
        until(&mut world, &mut far, |world, _| world.probe().saw(&Seen::Open));
        let asked = world.with(|cx, id| cx.layer(id, |toy, io| toy.ping(io)));
        assert!(matches!(asked, Some(Ok(()))));
        let id = world.id;
        let service = world.service;
        let end = Instant::now() + LONG;
        loop {
            assert!(Instant::now() < end, "no pong");
            world.runtime.turn(Some(Duration::from_millis(1))).expect("whole");
            far.pump();
            let pongs = world.runtime.with(service, |_, cx| cx.get(id).map(|stream| stream.layer().pongs()));
            if pongs == Some(Some(1)) {
                break;
            }
        }
    });
}

#[test]
fn a_layer_that_asks_for_ever_is_refused_and_does_not_hang_the_loop() {
    struct Endless;
    impl Layer for Endless {
        const INPUT_MAX: usize = 1 << 10;
        fn ready(&self) -> bool {
            true
        }
        fn open(&mut self, _: &mut [u8], _: &mut Io<'_>) -> Result<Step> {
            Ok(Step { used: 0, next: Next::Again })
        }
        fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
            let down: &mut Outgoing = io.down;
            down.put(clear);
            Ok(clear.len())
        }
    }
    for_each_engine(|engine| {
        let mut world = world(engine, Endless, StreamOptions::DEFAULT);
        world.peer.write_all(b"x").expect("room");
        world.peer.shutdown(Shutdown::Write).expect("a socket");
        assert!(matches!(world.until_closed(), Closed::Refused(_)));
    });
}

#[test]
fn backpressure_passes_through_a_layer() {
    for_each_engine(|engine| {
        let (ours, peer) = tcp_pair();
        common::small_buffers(&ours);
        let stream = Stream::over(Bytes, Toy::server(2));
        let mut world = World::over(engine.runtime(), Probe::quiet(), stream, ours, peer);
        let mut far = far(&mut world, Toy::client(1));
        until(&mut world, &mut far, |world, _| world.probe().saw(&Seen::Open));
        let sent = pattern(1 << 20);
        world.with(|cx, id| assert_eq!(cx.send(id, &sent[..]), reactor::Flow::High));
        common::settle(&mut world.runtime);
        let queued = world.runtime.metrics().read().queue_bytes as usize;
        assert!(queued < sent.len() + (192 << 10), "it seals only as fast as it sends: {queued}");
        until(&mut world, &mut far, |_, far| far.session.received().len() == sent.len());
        assert!(far.session.received() == sent);
        until(&mut world, &mut far, |world, _| world.probe().saw(&Seen::Drained));
    });
}
