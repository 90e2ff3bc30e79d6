//! Streams of the readiness engines: bytes, ends, pauses, keys.
#![cfg(unix)]

mod driver;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use driver::{Driver, Seen, nothing, pattern, queue, tcp_pair, unix_pair};
use reactor::engine::{Ending, Event, Outgoing, Role, Sent, Transport};
use socket2::SockRef;

fn echo_with_partial_writes_is_byte_exact(mut driver: Driver) {
    let bytes = pattern(if driver.buffer_bytes < 1000 { 1 << 20 } else { 8 << 20 });
    let (ours, theirs) = tcp_pair();
    SockRef::from(&ours).set_send_buffer_size(1).expect("the least there is");
    ours.set_nonblocking(true).expect("it is set");
    let key = driver.attach(Transport::new(ours), Role::Stream);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            (&theirs).write_all(&bytes).expect("the echo reads");
            theirs.shutdown(Shutdown::Write).expect("connected");
        });
        // The peer starts to read only when the socket is full. So it is full once, however fast the peer
        // is.
        let (full, begin) = mpsc::channel::<()>();
        let mut full = Some(full);
        let theirs = &theirs;
        let bytes = &bytes;
        let reader = scope.spawn(move || {
            begin.recv().expect_err("nothing is sent: the other side is dropped");
            let mut back = Vec::new();
            (&*theirs).read_to_end(&mut back).expect("the echo writes");
            assert!(back == *bytes, "{} of {} bytes came back, or others", back.len(), bytes.len());
        });
        let (mut idle, mut gathered) = (Some(Box::new(Outgoing::new())), Outgoing::new());
        let (mut partial, mut ended) = (0, false);
        driver.until(|driver, of, seen| {
            assert_eq!(of, key);
            match seen {
                Seen::Got(bytes) => gathered.put(&bytes),
                Seen::End => ended = true,
                Seen::Sent(Sent { queue, result }) => {
                    assert!(result.expect("the peer reads") > 0);
                    partial += usize::from(!queue.is_empty());
                    idle = Some(queue);
                }
                other => panic!("{other:?}"),
            }
            if let Some(mut queue) = idle.take() {
                queue.append(&mut gathered);
                while !queue.is_empty() {
                    let Some(sent) = driver.engine.send(key, queue) else {
                        full = None;
                        return false;
                    };
                    sent.result.expect("the peer reads");
                    queue = sent.queue;
                    partial += usize::from(!queue.is_empty());
                }
                idle = Some(queue);
            }
            ended && idle.is_some() && gathered.is_empty()
        });
        driver.engine.shutdown(key).expect("connected");
        let parked = full.take().is_none();
        writer.join().expect("the writer did not panic");
        reader.join().expect("the reader did not panic");
        assert!(parked && partial > 0, "no write was partial: the test tests nothing");
    });
}

fn input_before_a_hangup_is_delivered_before_the_end(mut driver: Driver) {
    let bytes = pattern(100_000);
    let (key, mut theirs) = driver.unix();
    theirs.write_all(&bytes).expect("it fits into the socket");
    drop(theirs);
    let mut got = Vec::new();
    driver.until(|_, of, seen| match seen {
        Seen::Got(bytes) => {
            got.extend(bytes);
            false
        }
        seen => {
            assert!(of == key && matches!(seen, Seen::End), "{seen:?}");
            true
        }
    });
    assert!(got == bytes, "{} bytes", got.len());
    driver.assert_idle();
}

fn input_before_a_reset_is_delivered_before_the_failure(mut driver: Driver) {
    let (ours, mut theirs) = tcp_pair();
    theirs.write_all(&pattern(300)).expect("there is room");
    SockRef::from(&theirs).set_linger(Some(Duration::ZERO)).expect("it is set");
    drop(theirs);
    ours.set_nonblocking(true).expect("it is set");
    driver.attach(Transport::new(ours), Role::Stream);
    let mut got = Vec::new();
    driver.until(|_, _, seen| match seen {
        Seen::Got(bytes) => {
            got.extend(bytes);
            false
        }
        Seen::Broken(error) => error.kind() == ErrorKind::ConnectionReset,
        other => panic!("{other:?}"),
    });
    assert_eq!(got, pattern(300));
    driver.assert_idle();
}

fn a_half_closed_peer_still_gets_answers(mut driver: Driver) {
    let (key, mut theirs) = driver.tcp();
    theirs.shutdown(Shutdown::Write).expect("connected");
    driver.until(|_, _, seen| matches!(seen, Seen::End));
    driver.assert_idle();
    let sent = driver.engine.send(key, queue(b"answer")).expect("there is room");
    assert_eq!((sent.result.expect("the peer reads"), sent.queue.len()), (6, 0));
    driver.engine.shutdown(key).expect("connected");
    let mut answer = String::new();
    theirs.read_to_string(&mut answer).expect("what was sent");
    assert_eq!(answer, "answer");
    driver.assert_idle();
}

/// Sends until the stream is full and the queue is parked. Returns how many bytes it has taken.
fn fill(driver: &mut Driver, key: reactor::Key) -> usize {
    let (mut taken, mut out) = (0, queue(&pattern(1 << 20)));
    let mut calls_if_partial = None;
    while let Some(sent) = driver.engine.send(key, out) {
        taken += sent.result.expect("the peer is there");
        out = sent.queue;
        calls_if_partial = (!out.is_empty()).then(|| driver.engine.calls());
        if out.is_empty() {
            out = queue(&pattern(1 << 20));
        }
    }
    if let Some(before) = calls_if_partial {
        // For an edge-triggered poll, the engine first registers its interest in room.
        let told = u64::from(matches!(driver.engine.name(), "epoll" | "mio"));
        assert_eq!(driver.engine.calls(), before + told, "after a partial write nothing is tried");
    }
    taken
}

fn a_parked_send_comes_back_when_the_peer_resets(mut driver: Driver) {
    let (key, theirs) = driver.tcp();
    fill(&mut driver, key);
    SockRef::from(&theirs).set_linger(Some(Duration::ZERO)).expect("it is set");
    drop(theirs);
    let (mut sent_back, mut broken) = (0, 0);
    driver.until(|_, _, seen| {
        match seen {
            Seen::Sent(Sent { queue, result }) => {
                assert!(result.is_err() && !queue.is_empty());
                sent_back += 1;
            }
            Seen::Broken(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                broken += 1;
            }
            other => panic!("{other:?}: a reset is no orderly end"),
        }
        sent_back + broken == 2
    });
    assert_eq!((sent_back, broken), (1, 1));
    driver.assert_idle();
}

fn a_parked_send_goes_on_when_there_is_room(mut driver: Driver) {
    let (key, theirs) = driver.unix();
    driver.engine.reading(key, false);
    let taken = fill(&mut driver, key);
    driver.assert_idle();
    let refused = driver.engine.send(key, queue(b"second")).expect("one send is out already");
    assert_eq!(refused.result.expect_err("refused").kind(), ErrorKind::InvalidInput);
    assert_eq!(refused.queue.len(), 6, "and comes back whole");
    theirs.set_nonblocking(true).expect("it is set");
    let mut bytes = vec![0; 65_536];
    let mut read = 0;
    while let Ok(count) = (&theirs).read(&mut bytes) {
        read += count;
    }
    assert_eq!(read, taken);
    driver.until(|_, _, seen| matches!(seen, Seen::Sent(Sent { result: Ok(1..), .. })));
    // The send may have filled the socket again.
    while (&theirs).read(&mut bytes).is_ok() {}
    // There is room, and the engine is no longer interested in it. If the poll still reported it, every wait
    // would end at once.
    driver.assert_idle();
}

fn room_is_asked_for_no_longer_once_it_was_told(mut driver: Driver) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    for socket in [&ours, &theirs] {
        socket.set_nonblocking(true).expect("it is set");
    }
    let past_the_engine = ours.try_clone().expect("a descriptor");
    let key = driver.attach(Transport::new(ours), Role::Stream);
    let fill = || while (&past_the_engine).write(&[1; 65_536]).is_ok() {};
    let drain = || while (&theirs).read(&mut [0; 65_536]).is_ok() {};
    fill();
    assert!(driver.engine.await_room(key), "the engine tells of room");
    driver.assert_idle();
    drain();
    let began = Instant::now();
    loop {
        match driver.engine.next() {
            Some((of, Event::Room)) if of == key => break,
            Some(other) => panic!("{other:?}"),
            None => assert!(began.elapsed() < LONG, "there is room, and nobody says so"),
        }
        driver.engine.wait(Some(LONG)).expect("the engine is whole");
    }
    driver.assert_idle();
    for round in 0..4 {
        // Room without interest ends no wait, whether the poll is level-triggered or edge-triggered.
        fill();
        drain();
        let began = Instant::now();
        driver.engine.wait(Some(SHORT)).expect("the engine is whole");
        assert!(began.elapsed() >= SHORT, "round {round}: the wait ended after {:?}", began.elapsed());
        assert!(driver.next().is_none());
    }
}

fn a_key_closed_earlier_in_the_batch_is_not_told_of(mut driver: Driver) {
    let (first, mut first_peer) = driver.unix();
    let (second, mut second_peer) = driver.unix();
    first_peer.write_all(b"x").expect("there is room");
    second_peer.write_all(b"x").expect("there is room");
    let mut seen_of = None;
    driver.until(|driver, key, seen| {
        assert!(matches!(seen, Seen::Got(_)), "{seen:?}");
        driver.engine.close(if key == first { second } else { first }, Ending::Orderly);
        seen_of = Some(key);
        true
    });
    driver.assert_idle();
    let closed = if seen_of == Some(first) { second } else { first };
    let sent = driver.engine.send(closed, queue(b"late")).expect("at once");
    assert_eq!(sent.result.expect_err("it is gone").kind(), ErrorKind::NotFound);
    assert!(driver.engine.local(closed).is_err() && driver.engine.shutdown(closed).is_err());
    driver.engine.reading(closed, true);
    driver.engine.detach(closed);
    driver.engine.close(closed, Ending::Reset);
    driver.assert_idle();
}

fn pausing_and_resuming_loses_nothing(mut driver: Driver) {
    let bytes = pattern(200_000);
    let (key, mut theirs) = driver.unix();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            theirs.write_all(&bytes).expect("the other side reads");
            drop(theirs);
        });
        let (mut got, mut ended) = (Vec::new(), false);
        while !ended {
            driver.engine.reading(key, true);
            driver.until(|driver, _, seen| {
                match seen {
                    Seen::Got(bytes) => got.extend(bytes),
                    Seen::End => ended = true,
                    other => panic!("{other:?}"),
                }
                driver.engine.reading(key, false);
                true
            });
            for (_, seen) in driver.now() {
                match seen {
                    Seen::HungUp(None) => {}
                    Seen::End => ended = true,
                    other => panic!("a paused stream is read: {other:?}"),
                }
            }
        }
        writer.join().expect("the writer did not panic");
        assert!(got == bytes, "{} bytes", got.len());
    });
    driver.assert_idle();
}

fn a_stream_paused_earlier_in_the_batch_is_not_read(mut driver: Driver) {
    let (first, mut first_peer) = driver.unix();
    let (second, mut second_peer) = driver.unix();
    first_peer.write_all(b"x").expect("there is room");
    second_peer.write_all(b"x").expect("there is room");
    let mut paused = first;
    driver.until(|driver, key, _| {
        paused = if key == first { second } else { first };
        driver.engine.reading(paused, false);
        true
    });
    driver.assert_idle();
    driver.engine.reading(paused, true);
    driver.until(|_, key, seen| key == paused && matches!(seen, Seen::Got(_)));
}

fn a_paused_stream_whose_peer_left_does_not_spin(mut driver: Driver) {
    let (key, mut theirs) = driver.unix();
    driver.engine.reading(key, false);
    theirs.write_all(b"last words").expect("there is room");
    drop(theirs);
    driver.until(|_, _, seen| matches!(seen, Seen::HungUp(None)));
    driver.assert_idle();
    driver.engine.reading(key, true);
    driver.until(|_, _, seen| matches!(seen, Seen::Got(bytes) if bytes == b"last words"));
    driver.until(|_, _, seen| matches!(seen, Seen::End));
    driver.assert_idle();
}

fn streams_with_much_input_are_read_in_turn(mut driver: Driver) {
    let size = driver.buffer_bytes;
    let count = 3;
    let mut peers = Vec::new();
    for _ in 0..2 {
        let (key, mut theirs) = driver.unix();
        theirs.write_all(&vec![1; size * count]).expect("it fits into the socket");
        peers.push((key, theirs));
    }
    let mut order = Vec::new();
    for _ in 0..count {
        let turn = driver.now();
        let keys = turn.iter().map(|(key, _)| *key).collect::<Vec<_>>();
        assert!(turn.iter().all(|(_, seen)| matches!(seen, Seen::Got(bytes) if bytes.len() == size)));
        assert_eq!(keys.len(), 2, "each is read once in a batch");
        assert_ne!(keys[0], keys[1]);
        order.extend(keys);
    }
    assert_eq!(order[2..4], order[4..6], "what was stopped keeps its order");
}

fn a_message_costs_a_wait_a_read_and_a_write(mut driver: Driver) {
    let (key, mut theirs) = driver.unix();
    // In the first turn an edge-triggered engine learns that there is room.
    driver.now();
    let before = driver.engine.calls();
    let mut idle = Some(queue(b""));
    for _ in 0..10 {
        theirs.write_all(b"ping").expect("there is room");
        for (_, seen) in driver.now() {
            let Seen::Got(bytes) = seen else { panic!("{seen:?}") };
            let mut queue = idle.take().expect("it came back");
            queue.put(&bytes);
            idle = driver.engine.send(key, queue).map(|sent| sent.queue);
        }
        theirs.read_exact(&mut [0; 4]).expect("the answer");
    }
    assert_eq!(driver.engine.calls() - before, 30);
}

fn detach_gives_the_send_and_the_transport_back(mut driver: Driver) {
    let (key, theirs) = driver.unix();
    let taken = fill(&mut driver, key);
    driver.engine.detach(key);
    let mut parked = None;
    let mut transport = None;
    driver.until(|_, of, seen| {
        assert_eq!(of, key);
        match seen {
            Seen::Sent(Sent { queue, result }) => {
                assert_eq!(result.expect("nothing failed"), 0);
                parked = Some(queue);
            }
            Seen::Detached(detached) => transport = Some(detached),
            other => panic!("{other:?}"),
        }
        transport.is_some()
    });
    assert!(parked.is_some_and(|queue| !queue.is_empty()), "the send came first");
    theirs.set_nonblocking(true).expect("it is set");
    let (mut read, mut bytes) = (0, vec![0; 65_536]);
    while let Ok(count) = (&theirs).read(&mut bytes) {
        read += count;
    }
    assert_eq!(read, taken);
    // The transport works in the same engine again, including input that arrived meanwhile.
    (&theirs).write_all(b"waiting").expect("there is room");
    let again = driver.attach(transport.expect("checked"), Role::Stream);
    driver.until(|_, of, seen| of == again && matches!(seen, Seen::Got(bytes) if bytes == b"waiting"));
}

fn a_close_after_a_detach_wins(mut driver: Driver) {
    let (key, mut theirs) = driver.unix();
    fill(&mut driver, key);
    driver.engine.detach(key);
    driver.engine.close(key, Ending::Orderly);
    driver.assert_idle();
    let mut rest = Vec::new();
    theirs.read_to_end(&mut rest).expect("the end: the transport is closed");
}

fn a_reset_is_one_and_an_orderly_close_is_none(mut driver: Driver) {
    for (how, expected) in [(Ending::Orderly, None), (Ending::Reset, Some(ErrorKind::ConnectionReset))] {
        let (key, mut theirs) = driver.tcp();
        driver.engine.close(key, how);
        let result = theirs.read(&mut [0; 8]);
        assert_eq!(result.as_ref().err().map(|e| e.kind()), expected, "{how:?}: {result:?}");
    }
}

fn dropping_the_engine_closes_all_it_owns(mut driver: Driver) {
    let (_, mut attached) = driver.unix();
    let (detached, mut detached_peer) = driver.unix();
    driver.engine.detach(detached);
    drop(driver);
    for peer in [&mut attached, &mut detached_peer] {
        assert_eq!(peer.read(&mut [0; 8]).expect("an end"), 0);
    }
}

fn what_cannot_be_attached_comes_back(mut driver: Driver) {
    let (key, _theirs) = driver.unix();
    let (ours, mut theirs) = unix_pair();
    let refused = driver.engine.attach(key, ours, Role::Stream).expect_err("the key is taken");
    assert_eq!(refused.error.kind(), ErrorKind::AlreadyExists);
    drop(refused.transport);
    assert_eq!(theirs.read(&mut [0; 8]).expect("an end"), 0);
    let free = driver.key();
    let refused = driver.engine.attach(free, Transport::hosted(1, ()), Role::Stream);
    assert_eq!(refused.expect_err("there is no descriptor").error.kind(), ErrorKind::Unsupported);
}

/// A wait of this length does not end early, and is short enough for a test.
const SHORT: Duration = Duration::from_millis(20);
/// The limit for an expected event.
const LONG: Duration = Duration::from_secs(10);

for_each_engine!(
    before: nothing;
    echo_with_partial_writes_is_byte_exact,
    input_before_a_hangup_is_delivered_before_the_end,
    input_before_a_reset_is_delivered_before_the_failure,
    a_half_closed_peer_still_gets_answers,
    a_parked_send_comes_back_when_the_peer_resets,
    a_parked_send_goes_on_when_there_is_room,
    room_is_asked_for_no_longer_once_it_was_told,
    a_key_closed_earlier_in_the_batch_is_not_told_of,
    pausing_and_resuming_loses_nothing,
    a_stream_paused_earlier_in_the_batch_is_not_read,
    a_paused_stream_whose_peer_left_does_not_spin,
    streams_with_much_input_are_read_in_turn,
    a_message_costs_a_wait_a_read_and_a_write,
    detach_gives_the_send_and_the_transport_back,
    a_close_after_a_detach_wins,
    a_reset_is_one_and_an_orderly_close_is_none,
    dropping_the_engine_closes_all_it_owns,
    what_cannot_be_attached_comes_back,
);
