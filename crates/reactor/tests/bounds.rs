//! Marks, caps and budgets: at the limit, and one above it.

mod common;

use std::io::Write;

use common::{
    Probe, SHORT, Seen, World, add, for_each_engine, read, settle, small_buffers, tcp_pair, until, write,
};
use reactor::{Bytes, Closed, Flow, Lines, Shared, Stream, StreamOptions};

fn options() -> StreamOptions {
    StreamOptions::with(|options| {
        options.high = 1000;
        options.low = 100;
        options.cap = 2000;
        options.item = 5000;
    })
}

#[test]
fn a_queue_is_high_above_its_mark_and_overflows_above_its_cap() {
    for_each_engine(|engine| {
        for (size, flow, overflows) in [
            (999, Flow::Queued, false),
            (1000, Flow::Queued, false),
            (1001, Flow::High, false),
            (1999, Flow::High, false),
            (2000, Flow::High, false),
            (2001, Flow::Gone, true),
        ] {
            let stream = Stream::new(Bytes).options(options());
            let mut world = World::new(engine.runtime(), Probe::quiet(), stream);
            world.until_seen(Seen::Open);
            let bytes = vec![7; size - 1];
            world.with(|cx, id| {
                assert_eq!(cx.send(id, &b"7"[..]), Flow::Queued);
                assert_eq!(cx.send(id, &bytes[..]), flow, "{size}");
            });
            if overflows {
                assert!(matches!(world.until_closed(), Closed::Overflow), "{size}");
                assert_eq!(world.probe().closed[0].1.unsent(), size);
            } else {
                assert_eq!(world.read(size).len(), size);
                assert!(world.probe().closed.is_empty());
            }
        }
    });
}

#[test]
fn one_item_above_the_cap_may_enter_an_empty_queue_up_to_the_items_limit() {
    for_each_engine(|engine| {
        for (size, fits) in [(4999, true), (5000, true), (5001, false)] {
            for shared in [true, false] {
                let stream = Stream::new(Bytes).options(options());
                let mut world = World::new(engine.runtime(), Probe::quiet(), stream);
                world.until_seen(Seen::Open);
                let bytes = vec![7; size];
                let flow = world.with(|cx, id| match shared {
                    true => cx.send_shared(id, &Shared::from(bytes.clone())),
                    false => cx.send(id, &bytes[..]),
                });
                assert_eq!(flow, if fits { Flow::High } else { Flow::Gone }, "{size}");
                if fits {
                    assert_eq!(world.read(size).len(), size);
                } else {
                    assert!(matches!(world.until_closed(), Closed::Overflow), "{size}");
                }
            }
        }
    });
}

#[test]
fn an_item_above_the_cap_does_not_enter_a_queue_that_is_in_flight() {
    for_each_engine(|engine| {
        const MIB: usize = 1 << 20;
        let (ours, peer) = tcp_pair();
        small_buffers(&ours);
        let options = StreamOptions::with(|options| {
            options.cap = MIB;
            options.item = 16 * MIB;
        });
        let stream = Stream::new(Bytes).options(options);
        let mut world = World::over(engine.runtime(), Probe::quiet(), stream, ours, peer);
        world.until_seen(Seen::Open);
        let item = vec![7; 4 * MIB];
        assert_eq!(world.with(|cx, id| cx.send(id, &item[..])), Flow::High, "it is alone");
        // The engine has all of the rest, and the stream's own queue is empty.
        settle(&mut world.runtime);
        assert_eq!(world.with(|cx, id| cx.send(id, &item[..])), Flow::Gone, "it is not");
        assert!(matches!(world.until_closed(), Closed::Overflow));
    });
}

#[test]
fn the_low_mark_itself_is_low() {
    for_each_engine(|engine| {
        let options = StreamOptions::with(|options| {
            options.high = 1000;
            options.low = 0;
        });
        let mut world = World::new(engine.runtime(), Probe::quiet(), Stream::new(Bytes).options(options));
        world.until_seen(Seen::Open);
        assert_eq!(world.with(|cx, id| cx.send(id, &[7; 1001][..])), Flow::High);
        assert_eq!(world.read(1001).len(), 1001);
        world.until_seen(Seen::Drained);
    });
}

#[test]
fn a_write_that_found_too_little_room_leaves_nothing_to_do_at_once() {
    for_each_engine(|engine| {
        let (ours, peer) = tcp_pair();
        small_buffers(&ours);
        let mut world = World::over(engine.runtime(), Probe::quiet(), Stream::new(Bytes), ours, peer);
        world.until_seen(Seen::Open);
        settle(&mut world.runtime);
        world.with(|cx, id| cx.send(id, &vec![0; 3 << 20][..]));
        world.runtime.turn(Some(std::time::Duration::ZERO)).expect("the engine is whole");
        // Part of it has left, the rest was offered once more and is the engine's: it tells of room.
        let next = world.runtime.next_deadline().expect("the queue may not stand still for ever");
        assert!(next > SHORT, "{next:?}");
    });
}

#[test]
fn drained_comes_once_after_high_at_the_low_mark() {
    for_each_engine(|engine| {
        let (ours, peer) = tcp_pair();
        small_buffers(&ours);
        let options = StreamOptions::with(|options| {
            options.high = 1000;
            options.low = 100;
        });
        let mut world =
            World::over(engine.runtime(), Probe::quiet(), Stream::new(Bytes).options(options), ours, peer);
        world.until_seen(Seen::Open);
        let big = vec![0; 3 << 20];
        assert_eq!(world.with(|cx, id| cx.send(id, &big[..])), Flow::High);
        settle(&mut world.runtime);
        assert!(!world.probe().saw(&Seen::Drained));
        assert_eq!(world.read(big.len()).len(), big.len());
        world.until_seen(Seen::Drained);
        settle(&mut world.runtime);
        assert_eq!(world.all(), [Seen::Open, Seen::Drained]);
        assert_eq!(world.with(|cx, id| cx.send(id, &b"x"[..])), Flow::Queued);
    });
}

#[test]
fn a_stream_is_not_read_while_its_own_queue_is_high_unless_told_so() {
    for_each_engine(|engine| {
        for backpressure in [true, false] {
            let (ours, peer) = tcp_pair();
            small_buffers(&ours);
            let options = StreamOptions::with(|options| options.backpressure = backpressure);
            let probe = Probe::new(|cx, id, seen| {
                if *seen == Seen::got("big") {
                    cx.send_shared(id, &Shared::from(vec![0; 3 << 20]));
                }
                Ok(())
            });
            let codec = reactor::Delimited::<reactor::U16>::max(100);
            let mut runtime = engine.runtime();
            let service = runtime.add(probe).expect("it starts");
            let id = add(&mut runtime, service, Stream::new(codec).options(options), ours);
            let mut peer = peer;
            let item = |bytes: &[u8]| [&[0, bytes.len() as u8], bytes].concat();
            // Two items arrive in one read, and one in a later read.
            peer.write_all(&[item(b"big"), item(b"same read")].concat()).expect("room");
            until(&mut runtime, |runtime| runtime.service(service).expect("it lives").saw(&Seen::got("big")));
            peer.write_all(&item(b"later")).expect("room");
            settle(&mut runtime);
            let probe = runtime.service(service).expect("it lives");
            assert_eq!(probe.saw(&Seen::got("same read")), !backpressure);
            assert_eq!(probe.saw(&Seen::got("later")), !backpressure);
            read(&mut runtime, &mut peer, 3 << 20);
            until(&mut runtime, |runtime| {
                runtime.service(service).expect("it lives").saw(&Seen::got("later"))
            });
            let all = runtime.service(service).expect("it lives").bytes(id);
            assert_eq!(all, b"bigsame readlater");
        }
    });
}

#[test]
fn while_bytes_are_short_a_stream_without_output_is_read_on() {
    for_each_engine(|engine| {
        let mut runtime = engine.with(|limits| (limits.bytes, limits.shortage) = (32 << 20, common::LONG));
        let service = runtime.add(Probe::quiet()).expect("it starts");
        let codec = || reactor::Delimited::<reactor::U16>::max(60_000);
        let options = StreamOptions::with(|options| options.cap = 1 << 30);
        let (ours, _full) = tcp_pair();
        small_buffers(&ours);
        let full = add(&mut runtime, service, Stream::new(codec()).options(options), ours);
        let (ours, mut peer) = tcp_pair();
        let silent = add(&mut runtime, service, Stream::new(codec()), ours);
        // One stream of the service holds so much that bytes are short; the other one has nothing to say.
        until(&mut runtime, |runtime| {
            runtime.with(service, |_, cx| _ = cx.send(full, &[7; 60_000][..])).expect("it lives");
            runtime.metrics().read().shortages == 1
        });
        // What is kept of an item is counted, and makes the runtime look at the stream.
        for part in [&[0, 4, b'i'][..], b"te", b"m"] {
            peer.write_all(part).expect("room");
            settle(&mut runtime);
        }
        until(&mut runtime, |runtime| runtime.service(service).expect("it lives").bytes(silent) == b"item");
        assert!(runtime.service(service).expect("it lives").closed.is_empty());
    });
}

#[test]
fn input_that_nobody_takes_is_bounded() {
    for_each_engine(|engine| {
        // A line without an end reaches the limit of unread bytes.
        let options = StreamOptions::with(|options| options.unread = 100_000);
        let stream = Stream::new(Lines::max(1 << 30)).options(options);
        let mut world = World::new(engine.runtime(), Probe::quiet(), stream);
        world.until_seen(Seen::Open);
        let mut peer = world.peer.try_clone().expect("a socket");
        write(&mut world.runtime, &mut peer, &[b'x'; 100_000]);
        settle(&mut world.runtime);
        assert!(world.probe().closed.is_empty(), "the limit fits");
        peer.write_all(b"x").expect("room");
        assert!(matches!(world.until_closed(), Closed::Unread));
    });
}

#[test]
fn the_stream_that_asks_for_more_than_the_runtimes_bytes_ends() {
    for_each_engine(|engine| {
        let mut world = World::new(engine.with_stream_bytes(102_400), Probe::quiet(), Stream::new(Bytes));
        let (ours, mut peer) = tcp_pair();
        let second = add(&mut world.runtime, world.service, Stream::new(Bytes), ours);
        settle(&mut world.runtime);
        world.with(|cx, id| {
            assert_eq!(cx.send(id, &[0; 60_000][..]), Flow::Queued);
            assert_eq!(cx.send(second, &[0; 35_000][..]), Flow::Queued, "the limit");
            assert_eq!(cx.send(second, &[0; 35_000][..]), Flow::Gone, "more");
        });
        assert!(matches!(world.until_closed(), Closed::OverBudget));
        assert_eq!(world.probe().closed[0].0, second);
        assert_eq!(world.read(60_000).len(), 60_000);
        drop(read(&mut world.runtime, &mut peer, 1));
        // An engine may report a finished send one turn later.
        settle(&mut world.runtime);
        assert_eq!(world.runtime.metrics().read().queue_bytes, 0);
    });
}

#[test]
fn the_largest_holder_ends_and_the_one_that_asks_goes_on() {
    for_each_engine(|engine| {
        let mut world = World::new(engine.with_stream_bytes(102_400), Probe::quiet(), Stream::new(Bytes));
        let (ours, mut peer) = tcp_pair();
        let second = add(&mut world.runtime, world.service, Stream::new(Bytes), ours);
        settle(&mut world.runtime);
        world.with(|cx, id| {
            assert_eq!(cx.send(id, &[0; 60_000][..]), Flow::Queued);
            assert_eq!(cx.send(second, &[0; 50_000][..]), Flow::Queued);
            assert_eq!(cx.send(id, &[0; 1][..]), Flow::Gone);
        });
        assert!(matches!(world.until_closed(), Closed::OverBudget));
        assert_eq!(world.probe().closed.len(), 1);
        assert_eq!(read(&mut world.runtime, &mut peer, 50_000).len(), 50_000);
        assert_eq!(world.runtime.metrics().read().evicted, 1);
    });
}

#[test]
fn at_three_quarters_reads_and_accepts_rest_and_go_on_with_relief() {
    for_each_engine(|engine| {
        let mut runtime = engine.with_stream_bytes(4 << 20);
        let service = runtime.add(Probe::<Bytes>::quiet()).expect("it starts");
        let address = common::listen(&mut runtime, service, || Some(Stream::new(Bytes)));
        let (ours, mut slow) = tcp_pair();
        small_buffers(&ours);
        // Otherwise the kernel grows the buffer until the queue fits into it.
        socket2::SockRef::from(&slow).set_recv_buffer_size(128 << 10).expect("a socket");
        let roomy = StreamOptions::with(|options| options.high = 8 << 20);
        let busy = add(&mut runtime, service, Stream::new(Bytes).options(roomy), ours);
        settle(&mut runtime);
        let big = vec![0; (3 << 20) + (1 << 19)];
        for round in 0..3_u8 {
            runtime.with(service, |_, cx| cx.send(busy, &big[..])).expect("it lives");
            settle(&mut runtime);
            // The runtime neither reads the stream with a queue nor accepts anyone.
            slow.set_nonblocking(false).expect("a socket");
            slow.write_all(&[round]).expect("room");
            let mut new = std::net::TcpStream::connect(address).expect("the backlog takes it");
            new.write_all(&[100 + round]).expect("room");
            settle(&mut runtime);
            let probe = runtime.service(service).expect("it lives");
            assert!(!probe.saw(&Seen::Got(vec![round])) && !probe.saw(&Seen::Got(vec![100 + round])));
            assert_eq!(read(&mut runtime, &mut slow, big.len()).len(), big.len());
            until(&mut runtime, |runtime| {
                let probe = runtime.service(service).expect("it lives");
                probe.saw(&Seen::Got(vec![round])) && probe.saw(&Seen::Got(vec![100 + round]))
            });
        }
    });
}

#[test]
fn partial_items_of_many_peers_do_not_stop_all_reading_for_ever() {
    for_each_engine(|engine| {
        // Room for buffers of 128 KiB for each stream.
        let mut runtime = engine.with_stream_bytes(1200 << 10);
        let service = runtime.add(Probe::<Lines>::quiet()).expect("it starts");
        let mut peers = Vec::new();
        for _ in 0..8 {
            let (ours, peer) = tcp_pair();
            add(&mut runtime, service, Stream::new(Lines::max(1 << 20)), ours);
            peers.push(peer);
        }
        settle(&mut runtime);
        for peer in &mut peers {
            write(&mut runtime, peer, &[b'x'; 110 << 10]);
        }
        settle(&mut runtime);
        // The streams hold more than three quarters. The peers can still complete their items.
        for peer in &mut peers {
            write(&mut runtime, peer, b"\n");
        }
        until(&mut runtime, |runtime| {
            let probe = runtime.service(service).expect("it lives");
            probe.all().iter().filter(|seen| matches!(seen, Seen::Got(_))).count() == 8
        });
        assert!(runtime.service(service).expect("it lives").closed.is_empty());
    });
}

#[test]
fn a_peer_that_floods_and_never_reads_costs_bounded_memory() {
    for_each_engine(|engine| {
        let probe = Probe::new(|cx, id, seen| {
            if let Seen::Got(bytes) = seen {
                cx.send(id, &bytes[..]);
            }
            Ok(())
        });
        let (ours, peer) = tcp_pair();
        small_buffers(&ours);
        let mut world = World::over(engine.runtime(), probe, Stream::new(Bytes), ours, peer);
        world.peer.set_nonblocking(true).expect("a socket");
        let metrics = world.runtime.metrics();
        for _ in 0..2000 {
            let _ = world.peer.write(&[0; 64 << 10]);
            world.runtime.turn(Some(std::time::Duration::ZERO)).expect("whole");
            assert!(metrics.read().queue_bytes <= 256 << 10, "{}", metrics.read().queue_bytes);
        }
        let turns = metrics.read().turns;
        world.runtime.turn(Some(SHORT)).expect("whole");
        world.runtime.turn(Some(SHORT)).expect("whole");
        assert!(metrics.read().turns <= turns + 2);
        assert!(world.probe().closed.is_empty());
    });
}

#[test]
fn owned_bytes_and_slices_of_shared_ones_arrive_in_order_and_count() {
    for_each_engine(|engine| {
        let mut world = World::new(engine.runtime(), Probe::quiet(), Stream::new(Bytes));
        world.until_seen(Seen::Open);
        let sent = common::pattern(300_000);
        let (owned, shared) = (sent[..100_000].to_vec(), Shared::from(&sent[..]));
        world.with(|cx, id| {
            assert_eq!(cx.send_owned(id, owned), Flow::High);
            let slice = shared.slice(100_000..299_000).expect("it lies within");
            assert_eq!(cx.send_shared(id, &slice), Flow::High);
            assert_eq!(cx.send(id, &sent[299_000..]), Flow::High);
        });
        assert!(world.read(sent.len()) == sent);
    });
}

#[test]
fn a_broadcast_of_shared_bytes_is_not_copied_for_each() {
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let service = runtime.add(Probe::<Bytes>::quiet()).expect("it starts");
        let mut streams = Vec::new();
        for _ in 0..20 {
            let (ours, peer) = tcp_pair();
            streams.push((add(&mut runtime, service, Stream::new(Bytes), ours), peer));
        }
        settle(&mut runtime);
        let shared = Shared::from(common::pattern(1 << 20));
        runtime.with(service, |_, cx| {
            for (id, _) in &streams {
                assert_eq!(cx.send_shared(*id, &shared), Flow::High);
            }
        });
        for (_, peer) in &mut streams {
            assert!(read(&mut runtime, peer, 1 << 20)[..] == shared[..]);
        }
    });
}
