//! A released stream leaves a runtime intact, and goes on in the same or another one.

mod common;

use std::{io::Write, net::Shutdown, sync::mpsc, thread, time::Duration};

use common::{
    Engine, LONG, Probe, Seen, World, for_each_engine, pattern, settle, small_buffers, tcp_pair, until, write,
};
use reactor::{Bytes, Closed, Flow, Lines, Stream, StreamOptions, session::kit::Toy};

fn released<C: reactor::Codec>(world: &mut World<C>) -> Stream<C>
where
    for<'a> C::In<'a>: AsRef<[u8]>,
{
    world.with(|cx, id| cx.release(id)).expect("it is not closing");
    assert!(matches!(world.until_closed(), Closed::Released));
    let service = world.service;
    let (_, stream, _) = world.runtime.service_mut(service).expect("it lives").closed.remove(0);
    stream
}

fn re_added<C: reactor::Codec>(world: &mut World<C>, stream: Stream<C>)
where
    for<'a> C::In<'a>: AsRef<[u8]>,
{
    world.runtime.service_mut(world.service).expect("it lives").seen.clear();
    world.id = world.with(|cx, _| cx.add(stream).map_err(|e| e.error).expect("room"));
}

#[test]
fn a_stream_is_send_when_its_codec_and_layer_are() {
    fn is_send<T: Send>() {}
    is_send::<Stream>();
    is_send::<Stream<Lines, Toy, std::rc::Rc<()>>>();
}

#[test]
fn a_partial_item_and_later_bytes_go_on_in_the_next_life() {
    for_each_engine(|engine| {
        let mut world = World::new(engine.runtime(), Probe::quiet(), Stream::new(Lines::new()));
        world.peer.write_all(b"one\ntw").expect("room");
        world.until_seen(Seen::got("one"));
        settle(&mut world.runtime);
        let stream = released(&mut world);
        world.peer.write_all(b"o\nthree\n").expect("room");
        re_added(&mut world, stream);
        world.until_seen(Seen::got("three"));
        assert_eq!(world.all(), [Seen::got("two"), Seen::got("three")]);
    });
}

#[test]
fn unread_items_of_the_same_read_come_in_the_next_life() {
    for_each_engine(|engine| {
        let probe = Probe::new(|cx, id, seen| {
            if *seen == Seen::got("go") {
                cx.release(id)?;
            }
            Ok(())
        });
        let mut world = World::new(engine.runtime(), probe, Stream::new(Lines::new()));
        world.peer.write_all(b"go\nyou\ntoo\n").expect("room");
        world.peer.shutdown(Shutdown::Write).expect("a socket");
        assert!(matches!(world.until_closed(), Closed::Released));
        assert_eq!(world.all(), [Seen::Open, Seen::got("go"), Seen::closed("Released")]);
        let stream = world.runtime.service_mut(world.service).expect("it lives").closed.remove(0).1;
        re_added(&mut world, stream);
        world.until_closed();
        let expected = [Seen::got("you"), Seen::got("too"), Seen::End, Seen::closed("End")];
        assert_eq!(world.all(), expected);
    });
}

#[test]
fn an_end_that_was_asked_for_is_told_in_the_next_life() {
    for_each_engine(|engine| {
        let mut world = World::new(engine.runtime(), Probe::quiet(), Stream::new(Bytes));
        world.until_seen(Seen::Open);
        world.with(|cx, id| {
            cx.send(id, &b"the last"[..]);
            cx.finish(id);
        });
        // In the same turn, before anything was written.
        let stream = released(&mut world);
        re_added(&mut world, stream);
        settle(&mut world.runtime);
        assert_eq!(world.with(|cx, id| cx.send(id, &b"more"[..])), Flow::Gone);
        settle(&mut world.runtime);
        world.peer.set_read_timeout(Some(LONG)).expect("a socket");
        world.peer.set_nonblocking(false).expect("a socket");
        let mut got = Vec::new();
        std::io::Read::read_to_end(&mut world.peer, &mut got).expect("it ends");
        assert_eq!(got, b"the last");
    });
}

#[test]
fn unsent_bytes_of_a_peer_that_does_not_read_leave_in_another_runtime_in_another_thread() {
    for_each_engine(|engine| {
        let sent = pattern(3 << 20);
        let (ours, peer) = tcp_pair();
        small_buffers(&ours);
        let mut world = World::over(engine.runtime(), Probe::quiet(), Stream::new(Bytes), ours, peer);
        world.until_seen(Seen::Open);
        let (first, second) = sent.split_at(2 << 20);
        world.with(|cx, id| cx.send(id, first));
        settle(&mut world.runtime);
        world.with(|cx, id| cx.send(id, second));
        let stream = released(&mut world);
        assert!(stream.unsent() > 0);
        let (to_thread, from_here) = mpsc::channel::<(Stream, Engine)>();
        let thread = thread::spawn(move || {
            let (stream, engine) = from_here.recv().expect("it is sent");
            let mut runtime = engine.runtime();
            let service = runtime.add(Probe::quiet()).expect("it starts");
            runtime.with(service, |_, cx| {
                let id = cx.add(stream).map_err(|e| e.error).expect("room");
                cx.send(id, &b"and more"[..]);
                cx.close(id);
            });
            until(&mut runtime, |runtime| !runtime.service(service).expect("it lives").closed.is_empty());
            runtime.service(service).expect("it lives").all()
        });
        to_thread.send((stream, engine)).expect("the thread lives");
        world.peer.set_read_timeout(Some(LONG)).expect("a socket");
        world.peer.set_nonblocking(false).expect("a socket");
        let mut got = Vec::new();
        std::io::Read::read_to_end(&mut world.peer, &mut got).expect("all comes");
        drop(world.peer);
        let seen = thread.join().expect("the thread did not panic");
        assert_eq!(seen, [Seen::closed("Done")]);
        assert!(got == [&sent[..], b"and more"].concat(), "{} bytes", got.len());
    });
}

#[test]
fn a_stream_released_again_and_again_loses_and_doubles_nothing() {
    for_each_engine(|engine| {
        let sent = pattern(1 << 20);
        let mut world = World::new(engine.runtime(), Probe::quiet(), Stream::new(Bytes));
        let copy = sent.clone();
        let mut writer = world.peer.try_clone().expect("a socket");
        let thread = thread::spawn(move || {
            for bytes in copy.chunks(5000) {
                writer.write_all(bytes).expect("it is read");
            }
        });
        let mut got = Vec::new();
        while got.len() < sent.len() {
            let had = world.all().iter().filter(|seen| matches!(seen, Seen::Got(_))).count();
            until(&mut world.runtime, |runtime| {
                let probe = runtime.service(world.service).expect("it lives");
                probe.all().iter().filter(|seen| matches!(seen, Seen::Got(_))).count() > had
            });
            let id = world.id;
            let stream = released(&mut world);
            got.extend(world.probe().bytes(id));
            re_added(&mut world, stream);
        }
        thread.join().expect("the writer did not panic");
        assert!(got == sent, "{} bytes", got.len());
    });
}

#[test]
fn a_stream_without_end_of_its_own_is_released_while_its_write_is_parked_and_closes_on_drop() {
    for_each_engine(|engine| {
        let (ours, peer) = tcp_pair();
        small_buffers(&ours);
        let mut world = World::over(engine.runtime(), Probe::quiet(), Stream::new(Bytes), ours, peer);
        world.until_seen(Seen::Open);
        let big = vec![0; 2 << 20];
        world.with(|cx, id| cx.send(id, &big[..]));
        settle(&mut world.runtime);
        drop(released(&mut world));
        let rest = world.read(big.len());
        assert!(rest.len() < big.len(), "the descriptor was closed");
    });
}

#[test]
fn a_reset_that_came_before_the_release_is_told_in_the_next_life() {
    for_each_engine(|engine| {
        let probe = Probe::new(|cx, id, seen| {
            if *seen == Seen::got("go") {
                cx.pause(id);
            }
            Ok(())
        });
        let mut world = World::new(engine.runtime(), probe, Stream::new(Lines::new()));
        world.peer.write_all(b"go\nyou\n").expect("room");
        world.until_seen(Seen::got("go"));
        common::reset_at_close(&world.peer);
        drop(std::mem::replace(&mut world.peer, tcp_pair().0));
        // The release comes before the loop learns of the reset.
        let stream = released(&mut world);
        re_added(&mut world, stream);
        world.until_closed();
        assert_eq!(world.all(), [Seen::closed("Failed")], "it is paused as it was");
        let (_, stream, _) = &world.probe().closed[0];
        assert_eq!(stream.unread(), b"you\n");
    });
}

#[test]
fn drained_comes_in_the_next_life_of_a_stream_between_its_marks() {
    for_each_engine(|engine| {
        let options = StreamOptions::with(|options| {
            options.high = 1_000_000;
            options.low = 1_000;
        });
        let (ours, peer) = tcp_pair();
        small_buffers(&ours);
        let stream = Stream::new(Bytes).options(options);
        let mut world = World::over(engine.runtime(), Probe::quiet(), stream, ours, peer);
        world.until_seen(Seen::Open);
        let big = vec![0; 2 << 20];
        world.with(|cx, id| assert_eq!(cx.send(id, &big[..]), Flow::High));
        let mut got = world.read(1_400_000).len();
        let stream = released(&mut world);
        assert!((1_001..=1_000_000).contains(&stream.unsent()), "{}", stream.unsent());
        re_added(&mut world, stream);
        while got < big.len() {
            got += world.read(big.len() - got).len();
        }
        world.until_seen(Seen::Drained);
        assert_eq!(world.all(), [Seen::Drained]);
    });
}

#[test]
fn the_marks_of_a_full_queue_go_along() {
    for_each_engine(|engine| {
        let options = StreamOptions::with(|options| {
            options.high = 1000;
            options.low = 100;
        });
        let (ours, peer) = tcp_pair();
        small_buffers(&ours);
        let big = vec![0; 2 << 20];
        let answer = big.clone();
        let probe = Probe::new(move |cx, id, seen| {
            if *seen == Seen::got("go") {
                assert_eq!(cx.send(id, &answer[..]), Flow::High);
            }
            Ok(())
        });
        let mut world = World::over(engine.runtime(), probe, Stream::new(Bytes).options(options), ours, peer);
        world.peer.write_all(b"go").expect("room");
        world.until_seen(Seen::got("go"));
        settle(&mut world.runtime);
        let stream = released(&mut world);
        re_added(&mut world, stream);
        // Its queue is still full of its own answer. So the runtime does not read it until the queue is low,
        // and then Drained comes first.
        write(&mut world.runtime, &mut world.peer.try_clone().expect("a socket"), b"x");
        settle(&mut world.runtime);
        assert_eq!(world.all(), []);
        assert_eq!(world.read(big.len()).len(), big.len());
        world.until_seen(Seen::got("x"));
        assert_eq!(world.all(), [Seen::Drained, Seen::got("x")]);
    });
}

/// Has a stream with much output, of which the kernel takes a part, released; the rest is its unsent output.
fn released_full(world: &mut World<Bytes>) -> (Stream, usize) {
    world.until_seen(Seen::Open);
    let big = pattern(2 << 20);
    world.with(|cx, id| cx.send(id, &big[..]));
    settle(&mut world.runtime);
    let stream = released(world);
    let unsent = stream.unsent();
    assert!((1..big.len()).contains(&unsent), "{unsent} bytes are left");
    (stream, unsent)
}

fn full_world(engine: Engine, resources: usize) -> World<Bytes> {
    let (ours, peer) = tcp_pair();
    small_buffers(&ours);
    let runtime = engine.with(|limits| limits.resources = resources);
    World::over(runtime, Probe::quiet(), Stream::new(Bytes), ours, peer)
}

/// How the peer's input ends behind all that has arrived.
fn end_of(peer: &mut std::net::TcpStream) -> std::io::Result<usize> {
    peer.set_nonblocking(false).expect("a socket");
    peer.set_read_timeout(Some(LONG)).expect("a socket");
    std::io::Read::read_to_end(peer, &mut Vec::new())
}

fn ends_by_reset(peer: &mut std::net::TcpStream) -> bool {
    end_of(peer).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

/// What the runtime counted as dropped until its end.
fn dropped(world: &mut World<Bytes>) -> usize {
    world.with(|cx, _| cx.stop(Duration::ZERO));
    world.runtime.run().expect("it stops").bytes_dropped as usize
}

#[test]
fn a_released_stream_that_is_dropped_with_output_left_resets_and_is_counted() {
    for_each_engine(|engine| {
        let mut world = full_world(engine, 8);
        let (stream, unsent) = released_full(&mut world);
        // In another thread, too.
        thread::spawn(|| drop(stream)).join().expect("it is dropped");
        assert!(ends_by_reset(&mut world.peer));
        assert_eq!(dropped(&mut world), unsent);
    });
}

#[test]
fn a_released_stream_that_no_runtime_takes_any_more_resets_and_is_counted() {
    for_each_engine(|engine| {
        let mut world = full_world(engine, 1);
        let (stream, unsent) = released_full(&mut world);
        let (other, _peer) = tcp_pair();
        world.with(|cx, _| cx.add(Stream::new(Bytes).on(other).expect("a socket")).is_ok());
        let rejected = world.with(|cx, _| cx.add(stream).expect_err("there is room for one"));
        assert_eq!(rejected.resource.unsent(), unsent);
        // As a handler does by `?`.
        let error = Box::<dyn std::error::Error + Send + Sync>::from(rejected);
        assert!(ends_by_reset(&mut world.peer), "{error}");
        assert_eq!(dropped(&mut world), unsent);
    });
}

#[test]
fn a_transport_that_is_taken_out_of_its_stream_ends_as_its_owner_likes() {
    for_each_engine(|engine| {
        let mut world = full_world(engine, 8);
        let (stream, _) = released_full(&mut world);
        drop(stream.into_transport().expect("it has one"));
        end_of(&mut world.peer).expect("it ends in order");
        assert_eq!(dropped(&mut world), 0);
    });
}

#[test]
fn a_stream_that_was_never_added_resets_only_for_what_was_queued() {
    for queued in [&b""[..], b"x"] {
        for is_first in [false, true] {
            let (ours, mut peer) = tcp_pair();
            let stream = match is_first {
                true => Stream::new(Bytes).queue(queued).expect("bytes").on(ours).expect("a socket"),
                false => Stream::new(Bytes).on(ours).expect("a socket").queue(queued).expect("bytes"),
            };
            drop(stream);
            assert_eq!(ends_by_reset(&mut peer), !queued.is_empty());
        }
    }
}
