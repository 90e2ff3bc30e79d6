//! Streams: sends, input, ends, resets, closes and detaches.

use super::*;

#[test]
fn a_send_is_acknowledged_later_and_in_part_until_all_has_left() {
    for seed in SEEDS {
        let (_, mut engine, mut peer) = stream(Tuning::tight(seed));
        let sent = pattern(5_000);
        let mut received = Vec::new();
        let mut parts = 0;
        assert!(engine.send(FIRST, queue(&sent)).is_none(), "a send is never over at once");
        assert!(engine.next().is_none());
        'all: for _ in 0..TURNS_MAX {
            for (_, event) in turn(&mut engine) {
                let Event::Sent(Sent { queue, result }) = event else { panic!("it told {event:?}") };
                let taken = result.expect("the peer is there");
                assert!((1..=48).contains(&taken), "one send takes from 1 byte to the cut: {taken}");
                parts += 1;
                if queue.is_empty() {
                    break 'all;
                }
                assert!(engine.send(FIRST, queue).is_none());
            }
            read_available(&mut peer, &mut received);
        }
        read_available(&mut peer, &mut received);
        assert_eq!(received, sent, "seed {seed}");
        assert!(parts > 100, "{parts}");
    }
}

#[test]
fn a_peer_that_does_not_read_stops_the_sender_at_the_sum_of_both_bounds() {
    for seed in SEEDS {
        let (_, mut engine, mut peer) = stream(Tuning::tight(seed));
        let mut taken = 0;
        let mut out = Some(queue(&pattern(1_000)));
        for _ in 0..TURNS_MAX {
            if let Some(queue) = out.take() {
                assert!(engine.send(FIRST, queue).is_none());
            }
            for (_, event) in turn(&mut engine) {
                let Event::Sent(Sent { queue, result }) = event else { panic!("it told {event:?}") };
                taken += result.expect("the peer is there");
                out = Some(queue);
            }
        }
        assert_eq!(taken, 128, "nothing arrives at a peer that does not look, so the sending end fills");
        let mut bytes = [0; 1];
        assert_eq!(peer.read(&mut bytes).ok(), Some(1));
        assert!(turn(&mut engine).len() + turn(&mut engine).len() > 0, "there is room again");
    }
}

#[test]
fn what_the_reader_does_not_want_stays_with_the_peer_beyond_the_window() {
    let tuning = Tuning { in_flight_percent: 0, ..Tuning::tight(5) };
    let (_, mut engine, mut peer) = stream(tuning);
    engine.reading(FIRST, false);
    let mut written = 0;
    for _ in 0..TURNS_MAX {
        match peer.write(&pattern(1_000)[written..]) {
            Ok(count) => written += count,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        assert!(turn(&mut engine).is_empty());
    }
    assert_eq!(written, 256 + 128, "the window and the sending end are full");
    engine.reading(FIRST, true);
    assert_eq!(Told::turns(&mut engine, TURNS_MAX).bytes, pattern(1_000)[..written]);
}

#[test]
fn input_in_flight_may_follow_a_pause_and_none_is_lost() {
    let mut followed = 0;
    for seed in SEEDS {
        let (_, mut engine, mut peer) = stream(Tuning::tight(seed));
        let sent = pattern(100);
        assert_eq!(peer.write(&sent).ok(), Some(100));
        engine.reading(FIRST, false);
        let paused = Told::turns(&mut engine, 20);
        followed += usize::from(!paused.bytes.is_empty());
        assert!(paused.bytes.len() <= 64, "what follows is one chunk at most");
        engine.reading(FIRST, true);
        let resumed = Told::turns(&mut engine, TURNS_MAX);
        assert_eq!([paused.bytes, resumed.bytes].concat(), sent, "seed {seed}");
    }
    assert!((1..40).contains(&followed), "some follow and some do not: {followed}");
}

#[test]
fn no_input_comes_while_all_buffers_are_lent() {
    let tuning = Tuning { window_bytes: 1 << 20, send_bytes: 1 << 20, buffers: 3, ..Tuning::tight(1) };
    let (network, mut engine, mut peer) = stream(tuning);
    let sent = pattern(64 * 20);
    assert_eq!(peer.write(&sent).ok(), Some(sent.len()));
    let mut kept: Vec<Chunk> = Vec::new();
    for _ in 0..TURNS_MAX {
        for (_, event) in turn(&mut engine) {
            let Event::Got(chunk) = event else { panic!("it told {event:?}") };
            kept.push(chunk);
        }
    }
    assert_eq!((kept.len(), network.leaks().buffers), (3, 3));
    let mut bytes: Vec<u8> = Vec::new();
    for mut chunk in kept {
        bytes.extend_from_slice(chunk.bytes());
        engine.give(chunk);
    }
    bytes.extend(Told::turns(&mut engine, TURNS_MAX).bytes);
    assert_eq!(bytes, sent);
    assert_eq!(network.leaks().buffers, 0);
}

#[test]
fn a_half_close_is_told_once_after_the_data_and_replies_still_arrive() {
    for seed in SEEDS {
        let (_, mut engine, mut peer) = stream(Tuning::tight(seed));
        assert_eq!(peer.write(b"request").ok(), Some(7));
        peer.shutdown().expect("it is connected");
        assert_eq!(peer.write(b"more").expect_err("it was shut").kind(), ErrorKind::BrokenPipe);
        let told = Told::turns(&mut engine, 100);
        assert_eq!(told, Told { bytes: b"request".to_vec(), ends: 1, broken: vec![] }, "seed {seed}");
        let mut out = Some(queue(b"reply"));
        for _ in 0..TURNS_MAX {
            if let Some(queue) = out.take().filter(|queue| !queue.is_empty()) {
                assert!(engine.send(FIRST, queue).is_none());
            }
            for (_, event) in turn(&mut engine) {
                let Event::Sent(sent) = event else { panic!("it told {event:?}") };
                sent.result.expect("the peer still reads");
                out = Some(sent.queue);
            }
        }
        engine.shutdown(FIRST).expect("it is connected");
        let mut reply = Vec::new();
        assert!(read_available(&mut peer, &mut reply), "the end follows");
        assert_eq!(reply, b"reply");
    }
}

#[test]
fn a_reset_is_told_once_after_what_has_arrived() {
    for seed in SEEDS {
        let (_, mut engine, mut peer) = stream(Tuning::tight(seed));
        let sent = pattern(90);
        assert_eq!(peer.write(&sent).ok(), Some(90));
        let before = Told::turns(&mut engine, 1);
        peer.reset();
        let after = Told::turns(&mut engine, 100);
        assert_eq!((after.ends, after.broken), (0, vec![ErrorKind::ConnectionReset]), "seed {seed}");
        assert!(sent.starts_with(&[before.bytes, after.bytes].concat()));
        assert!(engine.send(FIRST, queue(b"x")).is_none());
        let told: Vec<_> = (0..20).flat_map(|_| turn(&mut engine)).collect();
        assert!(
            matches!(&told[..], [(FIRST, Event::Sent(Sent { queue, result: Err(_) }))] if queue.len() == 1),
            "{told:?}"
        );
        assert_eq!(engine.shutdown(FIRST).expect_err("it is reset").kind(), ErrorKind::NotConnected);
    }
}

#[test]
fn closing_with_unread_input_resets_and_closing_without_ends() {
    for (unread, expected) in [(true, Err(ErrorKind::ConnectionReset)), (false, Ok(0))] {
        let (network, mut engine, mut peer) = stream(Tuning::tight(9));
        if unread {
            assert_eq!(peer.write(b"unread").ok(), Some(6));
        }
        engine.close(FIRST, Ending::Orderly);
        let mut bytes = [0; 8];
        assert_eq!(
            peer.read(&mut bytes).expect_err("the close is done a turn later").kind(),
            ErrorKind::WouldBlock
        );
        assert!(turn(&mut engine).is_empty());
        assert_eq!(peer.read(&mut bytes).map_err(|error| error.kind()), expected);
        assert!(network.leaks().is_clean(), "{}", network.leaks());
    }
}

#[test]
fn after_close_returned_no_event_comes_for_the_key() {
    for seed in SEEDS {
        let (network, mut engine, mut peer) = stream(Tuning::tight(seed));
        assert_eq!(peer.write(&pattern(120)).ok(), Some(120));
        assert!(engine.send(FIRST, queue(b"in flight")).is_none());
        engine.wait(Some(Duration::ZERO)).expect("the double does not break");
        engine.close(FIRST, Ending::Reset);
        assert!(engine.next().is_none(), "seed {seed}: what was in the batch is gone");
        for _ in 0..20 {
            assert!(turn(&mut engine).is_empty());
        }
        let leaks = network.leaks();
        assert!(leaks.is_clean(), "{leaks}");
        assert!(engine.send(FIRST, queue(b"x")).is_some_and(|sent| sent.result.is_err()));
        assert_eq!(engine.shutdown(FIRST).expect_err("unknown").kind(), ErrorKind::NotFound);
        assert_eq!(engine.local(FIRST).expect_err("unknown").kind(), ErrorKind::NotFound);
    }
}

#[test]
fn a_detach_gives_back_what_was_out_and_nothing_is_lost_on_the_way() {
    let mut order_seen = std::collections::BTreeSet::new();
    for seed in SEEDS {
        let (network, mut engine, mut peer) = stream(Tuning::tight(seed));
        let (there, back) = (pattern(120), pattern(60));
        assert_eq!(peer.write(&there[..100]).ok(), Some(100));
        assert!(engine.send(FIRST, queue(&back)).is_none());
        engine.detach(FIRST);
        assert!(engine.next().is_none(), "a detach is over a turn later");
        let mut order = String::new();
        let mut bytes = Vec::new();
        let (mut unsent, mut transport) = (None, None);
        for _ in 0..TURNS_MAX {
            for (_, event) in turn(&mut engine) {
                match event {
                    Event::Sent(sent) => {
                        sent.result.expect("the peer is there");
                        unsent = Some(sent.queue);
                        order.push('s');
                    }
                    Event::Got(mut chunk) => {
                        bytes.extend_from_slice(chunk.bytes());
                        engine.give(chunk);
                        order.push('g');
                    }
                    Event::Detached(is) => {
                        transport = Some(is);
                        order.push('d');
                    }
                    other => panic!("a detach told {other:?}"),
                }
            }
        }
        order_seen.insert(order);
        let mut other = network.double();
        let transport = transport.expect("the transport came back");
        other.attach(SECOND, transport, Role::Stream).expect("a stream of this network");
        let unsent = unsent.expect("the send came back");
        assert!(other.send(SECOND, unsent).is_none());
        assert_eq!(peer.write(&there[100..]).ok(), Some(20));
        peer.shutdown().expect("it is connected");
        let mut received = Vec::new();
        for _ in 0..TURNS_MAX {
            read_available(&mut peer, &mut received);
            for (_, event) in turn(&mut other) {
                match event {
                    Event::Sent(sent) if !sent.queue.is_empty() => {
                        assert!(other.send(SECOND, sent.queue).is_none())
                    }
                    Event::Got(mut chunk) => {
                        bytes.extend_from_slice(chunk.bytes());
                        other.give(chunk);
                    }
                    _ => {}
                }
            }
        }
        assert_eq!((bytes, received), (there, back), "seed {seed}");
    }
    assert_eq!(order_seen.into_iter().collect::<Vec<_>>(), ["sd", "sgd"]);
}
