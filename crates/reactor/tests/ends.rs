//! How streams end: half-close, reset, graceful close with lingering, abort.

mod common;

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener},
    thread,
    time::{Duration, Instant},
};

use common::{
    Probe, SHORT, Seen, World, add, for_each_engine, is_ended, listen, pattern, quick_close, reset_at_close,
    settle, small_buffers, tcp_pair, until,
};
use reactor::{Bytes, Closed, Flow, Lines, Stream, StreamOptions};

#[test]
fn input_before_an_end_is_delivered_before_it() {
    for_each_engine(|engine| {
        let mut world = World::new(engine.runtime(), Probe::quiet(), Stream::new(Bytes));
        world.until_seen(Seen::Open);
        let sent = pattern(1 << 20);
        let copy = sent.clone();
        let mut peer = std::mem::replace(&mut world.peer, tcp_pair().0);
        let thread = thread::spawn(move || peer.write_all(&copy).expect("it is read"));
        world.until_closed();
        thread.join().expect("the peer did not panic");
        assert!(world.probe().bytes(world.id) == sent);
        assert_eq!(world.all()[world.all().len() - 2..], [Seen::End, Seen::closed("End")]);
    });
}

#[test]
fn input_before_a_reset_is_delivered_before_the_failure() {
    for_each_engine(|engine| {
        let mut world = World::new(engine.runtime(), Probe::quiet(), Stream::new(Bytes));
        world.until_seen(Seen::Open);
        world.peer.write_all(b"last words").expect("room");
        reset_at_close(&world.peer);
        drop(std::mem::replace(&mut world.peer, tcp_pair().0));
        world.until_closed();
        assert_eq!(world.all(), [Seen::Open, Seen::got("last words"), Seen::closed("Failed")]);
        let why = world.until_closed();
        assert_eq!(why.io().map(|e| e.kind()), Some(std::io::ErrorKind::ConnectionReset), "{why}");
    });
}

#[test]
fn input_before_a_failed_write_is_delivered_before_the_failure_even_above_the_high_mark() {
    for_each_engine(|engine| {
        for (queued, paused) in [(10, false), (1 << 20, false), (10, true), (1 << 20, true)] {
            let mut world = World::new(engine.runtime(), Probe::quiet(), Stream::new(Bytes));
            world.until_seen(Seen::Open);
            settle(&mut world.runtime);
            // The reset arrives after the bytes. We have read nothing yet, and our first operation is a
            // write.
            world.peer.write_all(b"last words").expect("room");
            reset_at_close(&world.peer);
            drop(std::mem::replace(&mut world.peer, tcp_pair().0));
            let big = vec![1; queued];
            world.with(|cx, id| {
                if paused {
                    cx.pause(id);
                }
                cx.send(id, &big);
            });
            let why = format!("{}", world.until_closed());
            let (_, stream, _) = &world.probe().closed[0];
            assert_eq!(stream.unsent(), queued, "{why}");
            // No handler sees input of a paused stream: it is handed over with the stream.
            let (told, unread) = match paused {
                true => (vec![], &b"last words"[..]),
                false => (vec![Seen::got("last words")], &b""[..]),
            };
            assert_eq!(stream.unread(), unread, "{why}");
            assert_eq!(world.all(), [vec![Seen::Open], told, vec![Seen::closed("Failed")]].concat(), "{why}");
        }
    });
}

#[test]
fn an_end_is_answered_by_an_end_after_the_last_answer() {
    for_each_engine(|engine| {
        let probe = Probe::new(|cx, id, seen| {
            if *seen == Seen::End {
                assert_eq!(cx.send(id, &b"goodbye"[..]), Flow::Queued);
            }
            Ok(())
        });
        let mut world = World::new(engine.runtime(), probe, Stream::new(Bytes));
        world.peer.shutdown(Shutdown::Write).expect("a socket");
        assert_eq!(world.read(99), b"goodbye");
        assert!(matches!(world.until_closed(), Closed::End));
    });
}

#[test]
fn a_half_open_stream_goes_on_sending_until_it_is_closed() {
    for_each_engine(|engine| {
        let mut world = World::new(engine.runtime(), Probe::quiet(), Stream::new(Bytes).half_open(true));
        world.peer.shutdown(Shutdown::Write).expect("a socket");
        world.until_seen(Seen::End);
        settle(&mut world.runtime);
        let metrics = world.runtime.metrics();
        let turns = metrics.read().turns;
        world.runtime.turn(Some(SHORT)).expect("whole");
        assert!(metrics.read().turns <= turns + 1, "it does not spin");
        world.with(|cx, id| cx.send(id, &b"still here"[..]));
        assert_eq!(world.read(10), b"still here");
        world.with(|cx, id| cx.close(id));
        assert!(matches!(world.until_closed(), Closed::Done));
        assert_eq!(world.probe().count(&Seen::End), 1);
    });
}

#[test]
fn finish_ends_our_side_only() {
    for_each_engine(|engine| {
        let mut world = World::new(engine.runtime(), Probe::quiet(), Stream::new(Bytes));
        world.until_seen(Seen::Open);
        world.with(|cx, id| {
            cx.send(id, &b"all"[..]);
            cx.finish(id);
            assert_eq!(cx.send(id, &b"more"[..]), Flow::Gone);
        });
        assert_eq!(world.read(99), b"all");
        world.peer.set_nonblocking(false).expect("a socket");
        world.peer.write_all(b"answer").expect("room");
        world.until_seen(Seen::got("answer"));
        world.peer.shutdown(Shutdown::Write).expect("a socket");
        assert!(matches!(world.until_closed(), Closed::End));
    });
}

#[test]
fn a_large_answer_before_close_arrives_whole_at_a_peer_that_never_stops_sending() {
    for_each_engine(|engine| {
        let answer = pattern(8 << 20);
        let copy = answer.clone();
        let probe = Probe::new(move |cx, id, seen| {
            if let Seen::Got(_) = seen {
                cx.send(id, &copy[..]);
                cx.close(id);
            }
            Ok(())
        });
        let options = StreamOptions::with(|options| options.cap = 16 << 20);
        let mut world = World::new(engine.runtime(), probe, Stream::new(Bytes).options(options));
        let mut reader = std::mem::replace(&mut world.peer, tcp_pair().0);
        let mut writer = reader.try_clone().expect("a socket");
        let sender = thread::spawn(move || while writer.write_all(&[7; 4096]).is_ok() {});
        let receiver = thread::spawn(move || {
            let mut all = Vec::new();
            let end = reader.read_to_end(&mut all);
            // Only now the peer stops sending.
            reader.shutdown(Shutdown::Both).expect("a socket");
            (all, end.map_err(|e| e.kind()))
        });
        assert!(matches!(world.until_closed(), Closed::Done));
        let (all, end) = receiver.join().expect("the receiver did not panic");
        sender.join().expect("the sender did not panic");
        assert!(all == answer, "{} bytes arrived, then {end:?}", all.len());
        assert_eq!(end, Ok(answer.len()));
    });
}

#[test]
fn a_close_does_not_wait_for_ever_for_a_peer_that_never_ends() {
    for_each_engine(|engine| {
        let mut world =
            World::new(engine.runtime(), Probe::quiet(), Stream::new(Bytes).options(quick_close()));
        world.until_seen(Seen::Open);
        world.with(|cx, id| {
            cx.send(id, &b"bye"[..]);
            cx.close(id);
        });
        let began = Instant::now();
        assert!(matches!(world.until_closed(), Closed::Done));
        assert!(began.elapsed() >= SHORT, "it lingered");
        assert_eq!(world.read(99), b"bye");
    });
}

#[test]
fn a_close_that_cannot_flush_in_time_says_so_and_counts_what_was_lost() {
    for_each_engine(|engine| {
        let (ours, peer) = tcp_pair();
        small_buffers(&ours);
        let stream = Stream::new(Bytes).options(quick_close());
        let mut world = World::over(engine.runtime(), Probe::quiet(), stream, ours, peer);
        world.until_seen(Seen::Open);
        let big = vec![0; 4 << 20];
        world.with(|cx, id| {
            cx.send(id, &big);
            cx.close(id);
        });
        let why = format!("{:?}", world.until_closed());
        assert_eq!(why, "TimedOut(Close)");
        let unsent = world.probe().closed[0].1.unsent();
        assert!(unsent > 0 && unsent < big.len(), "{unsent} unsent");
    });
}

#[test]
fn no_linger_when_the_peers_end_was_seen() {
    for_each_engine(|engine| {
        let mut world = World::new(engine.runtime(), Probe::quiet(), Stream::new(Bytes).half_open(true));
        world.peer.shutdown(Shutdown::Write).expect("a socket");
        world.until_seen(Seen::End);
        world.with(|cx, id| cx.close(id));
        world.runtime.turn(Some(Duration::ZERO)).expect("whole");
        assert_eq!(world.probe().closed.len(), 1);
    });
}

#[test]
fn abort_resets() {
    for_each_engine(|engine| {
        let mut world = World::new(engine.runtime(), Probe::quiet(), Stream::new(Bytes));
        world.until_seen(Seen::Open);
        world.with(|cx, id| {
            cx.send(id, &b"never"[..]);
            cx.abort(id);
        });
        assert!(matches!(world.until_closed(), Closed::Aborted));
        assert_eq!(world.probe().closed[0].1.unsent(), 5);
        world.peer.set_nonblocking(false).expect("a socket");
        let error = world.peer.read(&mut [0; 16]).expect_err("a reset");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn an_input_that_ends_within_an_item_is_told_apart() {
    for_each_engine(|engine| {
        let mut world = World::new(
            engine.runtime(),
            Probe::quiet(),
            Stream::new(reactor::Delimited::<reactor::U16>::max(100)),
        );
        world.peer.write_all(&[0, 5, 1, 2]).expect("room");
        world.peer.shutdown(Shutdown::Write).expect("a socket");
        assert!(matches!(world.until_closed(), Closed::Truncated(_)));
        assert_eq!(world.all(), [Seen::Open, Seen::closed("Truncated")]);
    });
}

#[test]
fn a_close_while_connecting_ends_at_once_without_queued_bytes_and_delivers_queued_ones() {
    for_each_engine(|engine| {
        for queued in [&b""[..], b"parting"] {
            let mut runtime = engine.runtime();
            let service = runtime.add(Probe::<Bytes>::quiet()).expect("it starts");
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = listener.local_addr().expect("bound");
            runtime.with(service, |_, cx| {
                let stream = Stream::new(Bytes).options(quick_close());
                let id = cx.connect(address, stream).expect("it begins");
                if !queued.is_empty() {
                    cx.send(id, queued);
                }
                cx.close(id);
            });
            let (mut peer, _) = listener.accept().expect("it connects");
            assert_eq!(common::read(&mut runtime, &mut peer, 99), queued);
            // The peer does not end its side, but the close has a deadline all the same.
            until(&mut runtime, |runtime| !runtime.service(service).expect("it lives").closed.is_empty());
            let probe = runtime.service(service).expect("it lives");
            assert_eq!(probe.all(), [Seen::closed("Done")], "Open does not come after close");
        }
    });
}

#[test]
fn a_reset_in_the_accept_queue_is_skipped_or_ends_once() {
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let service = runtime.add(Probe::<Bytes>::quiet()).expect("it starts");
        let address = listen(&mut runtime, service, || Some(Stream::new(Bytes)));
        let peer = std::net::TcpStream::connect(address).expect("it listens");
        reset_at_close(&peer);
        drop(peer);
        let mut good = std::net::TcpStream::connect(address).expect("it listens");
        good.write_all(b"good").expect("room");
        until(&mut runtime, |runtime| runtime.service(service).expect("it lives").saw(&Seen::got("good")));
        let probe = runtime.service(service).expect("it lives");
        assert!(probe.closed.len() <= 1 && probe.faults.is_empty(), "{:?}", probe.faults);
    });
}

#[test]
fn a_peers_end_while_it_reads_slowly_costs_nothing_of_the_answer() {
    for_each_engine(|engine| {
        let answer = pattern(2 << 20);
        let copy = answer.clone();
        let probe = Probe::new(move |cx, id, seen| {
            if *seen == Seen::End {
                cx.send(id, &copy[..]);
            }
            Ok(())
        });
        let (ours, peer) = tcp_pair();
        small_buffers(&ours);
        let mut world = World::over(engine.runtime(), probe, Stream::new(Bytes), ours, peer);
        world.peer.shutdown(Shutdown::Write).expect("a socket");
        assert!(world.read(answer.len()) == answer);
        assert!(matches!(world.until_closed(), Closed::End));
        // An engine may close the descriptor one turn later, once no operation is in flight on it.
        settle(&mut world.runtime);
        assert!(is_ended(&mut world.peer));
    });
}

#[test]
fn a_write_after_the_peer_has_closed_is_an_error_and_no_signal() {
    for_each_engine(|engine| {
        let mut world =
            World::new(engine.runtime(), Probe::quiet(), Stream::new(Lines::new()).half_open(true));
        world.until_seen(Seen::Open);
        drop(std::mem::replace(&mut world.peer, tcp_pair().0));
        world.until_seen(Seen::End);
        let service = world.service;
        let id = world.id;
        until(&mut world.runtime, |runtime| {
            runtime.with(service, |probe, cx| {
                cx.send(id, "anyone?");
                !probe.closed.is_empty()
            }) == Some(true)
        });
        assert!(world.until_closed().io().is_some());
    });
}

#[test]
fn a_queue_without_progress_is_stalled() {
    for_each_engine(|engine| {
        let (ours, peer) = tcp_pair();
        small_buffers(&ours);
        let options = StreamOptions::with(|options| options.write_stall = Some(SHORT));
        let mut world =
            World::over(engine.runtime(), Probe::quiet(), Stream::new(Bytes).options(options), ours, peer);
        world.until_seen(Seen::Open);
        let big = vec![0; 4 << 20];
        world.with(|cx, id| cx.send(id, &big));
        assert!(matches!(world.until_closed(), Closed::Stalled));
        // A stream that makes progress, however slow, does not stall.
        let (ours, mut slow) = tcp_pair();
        small_buffers(&ours);
        let options = StreamOptions::with(|options| options.write_stall = Some(10 * SHORT));
        let id = add(&mut world.runtime, world.service, Stream::new(Bytes).options(options), ours);
        world.runtime.with(world.service, |_, cx| cx.send(id, &big)).expect("it lives");
        assert_eq!(common::read(&mut world.runtime, &mut slow, big.len()).len(), big.len());
        assert_eq!(world.probe().closed.len(), 1);
    });
}

/// Makes a stream that only writes, to a device that takes nothing.
#[cfg(target_os = "linux")]
fn full(
    engine: common::Engine,
    close: Duration,
) -> (reactor::Runtime, reactor::ServiceId<Probe>, reactor::Id<Stream>) {
    let device = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let transport = reactor::stdio::output_to(std::os::fd::AsFd::as_fd(&device)).expect("a device");
    let mut runtime = engine.runtime();
    let service = runtime.add(Probe::quiet()).expect("it starts");
    let stream =
        Stream::new(Bytes).options(StreamOptions::with(|options| options.close = close)).through(transport);
    let id =
        runtime.with(service, |_, cx| cx.add(stream).map_err(|e| e.error).expect("room")).expect("it lives");
    (runtime, service, id)
}

#[test]
#[cfg(target_os = "linux")]
fn a_failed_write_without_input_is_told_at_once_and_by_a_close_too() {
    for_each_engine(|engine| {
        for closes in [false, true] {
            let (mut runtime, service, id) = full(engine, Duration::from_secs(3600));
            runtime.with(service, |_, cx| {
                cx.send(id, b"nine byte");
                if closes {
                    cx.close(id);
                }
            });
            until(&mut runtime, |runtime| !runtime.service(service).expect("it lives").closed.is_empty());
            let (_, stream, why) = &runtime.service(service).expect("it lives").closed[0];
            assert_eq!(why.io().and_then(|e| e.raw_os_error()), Some(28), "ENOSPC: {why}");
            assert!(!why.is_clean() && stream.unsent() == 9, "{why}");
        }
    });
}

/// Makes the peer of a Unix socket, which no longer reads but still writes.
#[cfg(unix)]
fn deaf_peer(
    engine: common::Engine,
) -> (reactor::Runtime, reactor::ServiceId<Probe>, reactor::Id<Stream>, std::os::unix::net::UnixStream) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let mut runtime = engine.runtime();
    let refusing = Probe::new(|_, _, seen| match seen {
        Seen::Got(_) => Err("the service wants no input")?,
        _ => Ok(()),
    });
    let service = runtime.add(refusing).expect("it starts");
    let options = StreamOptions::with(|options| options.close = Duration::from_secs(3600));
    let id = add(&mut runtime, service, Stream::new(Bytes).options(options), ours);
    until(&mut runtime, |runtime| runtime.service(service).expect("it lives").saw(&Seen::Open));
    theirs.shutdown(Shutdown::Read).expect("a socket");
    runtime.with(service, |_, cx| cx.send(id, b"nine byte"));
    settle(&mut runtime);
    (runtime, service, id, theirs)
}

#[test]
#[cfg(unix)]
fn an_error_that_was_noted_is_not_overwritten_by_an_end_in_order() {
    for_each_engine(|engine| {
        let (mut runtime, service, id, _theirs) = deaf_peer(engine);
        assert!(runtime.service(service).expect("it lives").closed.is_empty(), "input may still come");
        runtime.with(service, |_, cx| cx.close(id));
        until(&mut runtime, |runtime| !runtime.service(service).expect("it lives").closed.is_empty());
        let (_, stream, why) = &runtime.service(service).expect("it lives").closed[0];
        assert_eq!(why.io().map(|e| e.kind()), Some(std::io::ErrorKind::BrokenPipe), "{why}");
        assert_eq!(stream.unsent(), 9);
    });
}

#[test]
#[cfg(unix)]
fn a_stream_that_cannot_be_written_any_more_does_not_linger_when_it_is_refused() {
    for_each_engine(|engine| {
        let (mut runtime, service, _, mut theirs) = deaf_peer(engine);
        theirs.write_all(b"more").expect("room");
        // The peer stays connected, and the deadline of the close is far away.
        until(&mut runtime, |runtime| !runtime.service(service).expect("it lives").closed.is_empty());
        let why = &runtime.service(service).expect("it lives").closed[0].2;
        assert!(matches!(why, Closed::Refused(_)), "{why}");
    });
}

#[test]
#[cfg(unix)]
fn a_pipe_whose_reader_pauses_has_no_limit_unless_one_is_set() {
    for_each_engine(|engine| {
        for stall in [None, Some(SHORT)] {
            let (mut reader, writer) = std::io::pipe().expect("a pipe");
            let mut runtime = engine.runtime();
            let service = runtime.add(Probe::quiet()).expect("it starts");
            // The deadline of the close is short, and the reader pauses for longer.
            let options = StreamOptions::with(|options| {
                options.write_stall = stall;
                options.close = SHORT;
            });
            let id = add(&mut runtime, service, Stream::new(Bytes).options(options), writer);
            let sent = pattern(300_000);
            let pause = runtime.with(service, |_, cx| {
                cx.send(id, &sent);
                cx.close(id);
                cx.now() + 5 * SHORT
            });
            let pause = pause.expect("it lives");
            let is_closed =
                |runtime: &reactor::Runtime| !runtime.service(service).expect("it lives").closed.is_empty();
            if stall.is_some() {
                until(&mut runtime, |runtime| is_closed(runtime));
                let why = &runtime.service(service).expect("it lives").closed[0].2;
                assert!(matches!(why, Closed::TimedOut(_)), "{why}");
                continue;
            }
            until(&mut runtime, |runtime| {
                runtime.with(service, |_, cx| cx.now() >= pause).expect("it lives")
            });
            assert!(!is_closed(&runtime), "the reader only pauses");
            let thread = thread::spawn(move || {
                let mut all = Vec::new();
                reader.read_to_end(&mut all).expect("a pipe");
                all
            });
            until(&mut runtime, |runtime| is_closed(runtime));
            assert!(runtime.service(service).expect("it lives").closed[0].2.is_clean());
            drop(runtime);
            assert!(thread.join().expect("the reader did not panic") == sent);
        }
    });
}
