//! Two paired streams form a proxy.

mod common;

use std::{cell::Cell, io::Write, net::Shutdown, rc::Rc, thread};

use common::{
    LONG, Probe, Seen, World, add, for_each_engine, is_ended, is_reset, read, reset_at_close, settle,
    tcp_pair, until,
};
use reactor::{Bytes, Closed, Error, Id, Stream, StreamOptions};

/// Makes a proxy between the world's peer and the returned one.
fn proxy(engine: common::Engine) -> (World, std::net::TcpStream, Id<Stream>) {
    let ends = Rc::new(Cell::new(None::<(Id<Stream>, Id<Stream>)>));
    let known = ends.clone();
    let probe = Probe::new(move |cx, id, seen| {
        if let (Seen::Got(bytes), Some((a, b))) = (seen, known.get()) {
            cx.send(if id == a { b } else { a }, &bytes[..]);
        }
        Ok(())
    });
    let mut world = World::new(engine.runtime(), probe, Stream::new(Bytes));
    let (ours, far) = tcp_pair();
    let b = add(&mut world.runtime, world.service, Stream::new(Bytes), ours);
    let a = world.id;
    ends.set(Some((a, b)));
    world.with(|cx, _| cx.pair(a, b)).expect("neither is bound");
    // Do not keep records, because they would be large.
    (world, far, b)
}

#[test]
fn fifty_megabytes_pass_through_a_slow_reader_with_a_bounded_queue() {
    for_each_engine(|engine| {
        const SIZE: usize = 50 << 20;
        let (mut world, mut far, _) = proxy(engine);
        let block = common::pattern(1 << 20);
        let copy = block.clone();
        let mut near = std::mem::replace(&mut world.peer, tcp_pair().0);
        let writer = thread::spawn(move || {
            for _ in 0..SIZE / copy.len() {
                near.write_all(&copy).expect("it is read");
            }
            near
        });
        let metrics = world.runtime.metrics();
        let (mut at, mut most) = (0, 0);
        let mut buffer = vec![0; 40_000];
        far.set_nonblocking(true).expect("a socket");
        let service = world.service;
        until(&mut world.runtime, |runtime| {
            runtime.service_mut(service).expect("it lives").seen.clear();
            most = most.max(metrics.read().queue_bytes);
            // Read once a turn, which is slower than the loop.
            if let Ok(count) = std::io::Read::read(&mut far, &mut buffer) {
                for (n, byte) in buffer[..count].iter().enumerate().step_by(97) {
                    assert_eq!(*byte, block[(at + n) % block.len()]);
                }
                at += count;
            }
            at == SIZE
        });
        drop(writer.join().expect("the writer did not panic"));
        assert!(most <= 320 << 10, "{most} bytes were queued");
    });
}

#[test]
fn each_half_ends_on_its_own() {
    for_each_engine(|engine| {
        let (mut world, mut far, b) = proxy(engine);
        settle(&mut world.runtime);
        world.peer.write_all(b"request").expect("room");
        world.peer.shutdown(Shutdown::Write).expect("a socket");
        assert_eq!(read(&mut world.runtime, &mut far, 7), b"request");
        until(&mut world.runtime, |_| is_ended(&mut far));
        far.set_nonblocking(false).expect("a socket");
        far.write_all(b"response").expect("room");
        assert_eq!(world.read(8), b"response");
        assert!(world.probe().closed.is_empty());
        far.shutdown(Shutdown::Write).expect("a socket");
        let service = world.service;
        until(&mut world.runtime, |runtime| runtime.service(service).expect("it lives").closed.len() == 2);
        assert!(is_ended(&mut world.peer));
        for (id, _, why) in &world.probe().closed {
            assert!(matches!(why, Closed::End | Closed::Done), "{why:?} of {}", *id == b);
        }
    });
}

#[test]
fn a_failure_of_one_resets_the_other_after_what_was_passed_on() {
    for_each_engine(|engine| {
        for reset in [true, false] {
            let (mut world, mut far, b) = proxy(engine);
            settle(&mut world.runtime);
            world.peer.write_all(b"last words").expect("room");
            if reset {
                reset_at_close(&world.peer);
                drop(std::mem::replace(&mut world.peer, tcp_pair().0));
            } else {
                world.until_seen(Seen::got("last words"));
                world.with(|cx, id| cx.abort(id));
            }
            assert_eq!(read(&mut world.runtime, &mut far, 10), b"last words");
            until(&mut world.runtime, |_| is_reset(&mut far));
            let service = world.service;
            until(&mut world.runtime, |runtime| {
                runtime.service(service).expect("it lives").closed.len() == 2
            });
            let (_, _, why) = world.probe().closed.iter().find(|(id, ..)| *id == b).expect("both closed");
            assert!(matches!(why, Closed::Partner), "{why:?}");
        }
    });
}

#[test]
fn a_half_end_before_the_other_side_has_connected_is_passed_on_when_it_has() {
    for_each_engine(|engine| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let mut world = World::new(engine.runtime(), Probe::<Bytes>::quiet(), Stream::new(Bytes));
        world.peer.shutdown(Shutdown::Write).expect("a socket");
        world.with(|cx, id| {
            let other = cx.connect(address, Stream::new(Bytes)).expect("it begins");
            cx.pair(id, other).expect("neither is bound");
        });
        let (mut far, _) = listener.accept().expect("it connects");
        until(&mut world.runtime, |_| is_ended(&mut far));
        far.set_read_timeout(Some(LONG)).expect("a socket");
        drop(far);
        let service = world.service;
        until(&mut world.runtime, |runtime| runtime.service(service).expect("it lives").closed.len() == 2);
    });
}

#[test]
fn a_connect_that_fails_closes_the_paired_side() {
    for_each_engine(|engine| {
        let unused = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
        let options = StreamOptions::with(|options| options.close = common::SHORT);
        let stream = Stream::new(Bytes).options(options);
        let mut world = World::new(engine.runtime(), Probe::<Bytes>::quiet(), stream);
        world.with(|cx, id| {
            let other = cx.connect(unused, Stream::new(Bytes)).expect("it begins");
            cx.pair(id, other).expect("neither is bound");
        });
        let service = world.service;
        until(&mut world.runtime, |runtime| runtime.service(service).expect("it lives").closed.len() == 2);
        let whys: Vec<String> = world.probe().closed.iter().map(|(.., why)| why.to_string()).collect();
        assert!(whys.contains(&Closed::Partner.to_string()), "{whys:?}");
    });
}

#[test]
fn what_is_bound_already_is_not_paired_again_and_goes_on_as_it_was() {
    for_each_engine(|engine| {
        let (mut world, mut far, b) = proxy(engine);
        let (a, service) = (world.id, world.service);
        let [(third, _third), (gone, _gone)] = [tcp_pair(), tcp_pair()];
        let [third, gone] =
            [third, gone].map(|socket| add(&mut world.runtime, service, Stream::new(Bytes), socket));
        world.with(|cx, _| {
            for (one, other) in [(a, b), (b, a), (a, third), (third, b), (third, third)] {
                let refused = cx.pair(one, other).expect_err("it is bound");
                assert!(matches!(refused, Error::Misuse { operation: "pair", .. }), "{refused}");
            }
            cx.abort(gone);
            cx.pair(third, gone).expect("what is gone is harmless");
        });
        settle(&mut world.runtime);
        world.peer.write_all(b"request").expect("room");
        assert_eq!(read(&mut world.runtime, &mut far, 7), b"request");
        world.with(|cx, _| cx.abort(a));
        until(&mut world.runtime, |_| is_ended(&mut far));
        drop(far);
        until(&mut world.runtime, |runtime| runtime.service(service).expect("it lives").closed.len() == 3);
        let ended: Vec<_> = world.probe().closed.iter().map(|(id, ..)| *id).collect();
        assert_eq!(ended, [gone, a, b], "and not the third one");
    });
}

#[test]
fn one_that_was_held_for_its_partners_queue_reads_on_when_the_partner_is_released() {
    for_each_engine(|engine| {
        let (mut world, _far, b) = proxy(engine);
        let service = world.service;
        settle(&mut world.runtime);
        // More than a socket takes, and nobody reads it, so the partner's queue stays high.
        let full = vec![0; 12 << 20];
        world.with(|cx, _| cx.send(b, &full[..]));
        settle(&mut world.runtime);
        world.peer.write_all(b"kept").expect("room");
        settle(&mut world.runtime);
        assert!(!world.probe().saw(&Seen::got("kept")), "it rests for the queue of its partner");
        world.with(|cx, _| cx.release(b)).expect("nothing is in the way");
        until(&mut world.runtime, |runtime| runtime.service(service).expect("it lives").closed.len() == 1);
        world.until_seen(Seen::got("kept"));
    });
}
