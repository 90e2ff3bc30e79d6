//! A: the lives of descriptors and keys.

#[cfg(unix)]
use std::fs::File;
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};

use reactor::Outgoing;

use super::prelude::*;

pub(super) const ROWS: &[Row] = &[
    row("A1a", "a stream closed earlier in the batch is not told of", &[], closed_in_batch),
    row(
        "A1b",
        "a source unwatched earlier in the batch is not told of",
        &[Need::Sockets],
        unwatched_in_batch,
    ),
    row("A2", "a new stream gets nothing of the one whose number it took", &[], number_reused),
    row(
        "A3",
        "a watched socket closed behind the engine's back does no harm",
        &[Need::Sockets],
        closed_behind,
    ),
    row("A4", "a duplicate that stays open makes no ghost events", &[Need::Sockets], duplicate_open),
    row("A5a", "orders to unknown keys are ignored or answered with NotFound", &[], unknown_keys),
    row("A5b", "unwatching twice is harmless, and watching again changes", &[Need::Sockets], watched_twice),
    row("A6", "a regular file or a directory is refused, or always ready", &[Need::Sockets], regular_file),
    row("A7", "a stream handed over to another engine loses no byte", &[], handed_over),
    row("A8", "what is closed is closed once", &[Need::Sockets, Need::DescriptorList], closed_once),
    row("A12", "an engine takes orders between two events of a batch", &[], orders_in_batch),
];

pub(crate) fn socket_pair() -> std::io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let ours = TcpStream::connect(listener.local_addr()?)?;
    let (theirs, _) = listener.accept()?;
    ours.set_nonblocking(true)?;
    Ok((ours, theirs))
}

fn closed_in_batch(fixture: &mut Fixture<'_>) -> Outcome {
    for _ in 0..20 {
        let driver = &mut fixture.driver();
        let pairs = pairs(driver, 2, &Default::default())?;
        for pair in &pairs {
            driver.send(pair.client, b"both are ready");
        }
        let keys = [pairs[0].server, pairs[1].server];
        let mut closed = false;
        // The first stream with an event closes the other. The driver fails if an event for that one follows.
        for _ in 0..20 {
            driver.turn_with(Duration::ZERO, |driver, key| {
                if let Some(at) = keys.iter().position(|server| *server == key)
                    && !std::mem::replace(&mut closed, true)
                {
                    driver.close(keys[1 - at]);
                }
            })?;
        }
        check!(closed, "neither stream was told of");
    }
    Ok(())
}

fn unwatched_in_batch(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let sockets = [socket_pair()?, socket_pair()?];
    let mut keys = Vec::new();
    for (ours, theirs) in &sockets {
        (&mut &*theirs).write_all(b"x")?;
        keys.push(driver.watch(Source::of(ours), Interest::Read)?);
    }
    let mut first = None;
    for _ in 0..5 {
        driver.turn_with(Duration::from_millis(20), |driver, key| {
            if first.is_none()
                && let Some(at) = keys.iter().position(|watched| *watched == key)
            {
                first = Some(at);
                driver.unwatch(keys[1 - at], Source::of(&sockets[1 - at].0));
            }
        })?;
    }
    let Some(first) = first else { return Err("neither socket was told of".into()) };
    driver.unwatch(keys[first], Source::of(&sockets[first].0));
    Ok(())
}

fn number_reused(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let (listener, address) = listen(driver, &fixture.any_address())?;
    for round in 0..20 {
        let client = connect(driver, &address)?;
        let transport = accept(driver, listener, client)?;
        let old = driver.attach(transport, Role::Stream)?;
        driver.send(client, &pattern(100));
        driver.until("the old stream has input", |driver| !driver.events(old).bytes.is_empty())?;
        driver.close(old);
        let new = connect(driver, &address)?;
        driver.until("the new stream is up", |driver| !driver.events(new).connected.is_empty())?;
        driver.settle(3)?;
        let told = driver.events(new);
        check!(
            told.bytes.is_empty() && !told.is_over() && told.connected.len() == 1,
            "in round {round} the new stream was told of what concerns the old: {told:?}"
        );
        driver.close(new);
        driver.close(client);
        driver.events_mut(listener).accepted.clear();
        driver.settle(3)?;
        driver.events_mut(listener).accepted.clear();
    }
    Ok(())
}

fn closed_behind(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let (ours, mut theirs) = socket_pair()?;
    let key = driver.watch(Source::of(&ours), Interest::Read)?;
    driver.settle(2)?;
    drop(ours);
    // The peer is gone now, so the write may fail.
    let _ = theirs.write_all(b"x");
    for _ in 0..20 {
        driver.turn(Duration::ZERO)?;
    }
    let odd = driver.events(key).ready.iter().filter(|ready| !ready.error && !ready.hangup).count();
    check!(odd == 0, "{odd} readinesses were told of a descriptor that is closed");
    let pair = pair(driver)?;
    carry(driver, pair.client, pair.server, b"the engine goes on")
}

fn duplicate_open(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let (watched, mut to_watched) = socket_pair()?;
    let (owned, mut to_owned) = socket_pair()?;
    let duplicates = [watched.try_clone()?, owned.try_clone()?];
    let key = driver.watch(Source::of(&watched), Interest::Read)?;
    let stream = driver.attach(Transport::new(owned), Role::Stream)?;
    driver.settle(2)?;
    driver.unwatch(key, Source::of(&watched));
    drop(watched);
    driver.close(stream);
    to_watched.write_all(b"ghost")?;
    to_owned.write_all(b"ghost")?;
    driver.rests()?;
    drop(duplicates);
    Ok(())
}

fn unknown_keys(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let pair = pair(driver)?;
    driver.close(pair.client);
    let never = driver.key();
    for key in [pair.client, never] {
        let engine = &mut driver.engine;
        engine.close(key, Ending::Reset);
        engine.reading(key, true);
        engine.detach(key);
        for result in [engine.shutdown(key), engine.local(key).map(drop), engine.peer(key).map(drop)] {
            check!(
                result.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound),
                "an unknown key is answered with {result:?}"
            );
        }
        let mut queue = Box::new(Outgoing::new());
        queue.put(b"abc");
        match engine.send(key, queue) {
            Some(sent) => check!(sent.result.is_err() && sent.queue.len() == 3, "it sent {sent:?}"),
            None => return Err("a send of an unknown key never comes back".into()),
        }
    }
    driver.until("the other end is told", |driver| driver.events(pair.server).is_over())?;
    driver.settle(3)
}

fn watched_twice(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let (ours, mut theirs) = socket_pair()?;
    let key = driver.watch(Source::of(&ours), Interest::Read)?;
    driver.settle(2)?;
    driver.engine.watch(key, Source::of(&ours), Some(Interest::Write))?;
    driver.until("it is writable", |driver| driver.events(key).ready.iter().any(|ready| ready.writable))?;
    theirs.write_all(b"x")?;
    driver.unwatch(key, Source::of(&ours));
    driver.unwatch(key, Source::of(&ours));
    driver.rests()?;
    let again = driver.watch(Source::of(&ours), Interest::Read)?;
    driver.until("it is readable", |driver| driver.events(again).ready.iter().any(|ready| ready.readable))?;
    driver.unwatch(again, Source::of(&ours));
    Ok(())
}

#[cfg(not(unix))]
fn regular_file(_: &mut Fixture<'_>) -> Outcome {
    Err(Stop::Skipped("a file is no socket, and only sockets are watched here".to_owned()))
}

#[cfg(unix)]
fn regular_file(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    for path in [std::env::current_exe()?, std::env::temp_dir()] {
        let Ok(file) = File::open(&path) else { continue };
        let key = driver.key();
        match driver.engine.watch(key, Source::of(&file), Some(Interest::Read)) {
            Err(error) => check!(error.raw_os_error().is_some(), "refused without a number: {error}"),
            Ok(()) => {
                driver.until("it is ready", |driver| !driver.events(key).ready.is_empty())?;
                driver.unwatch(key, Source::of(&file));
            }
        }
    }
    driver.settle(3)
}

fn handed_over(fixture: &mut Fixture<'_>) -> Outcome {
    for round in 0..10 {
        let (driver, other) = (&mut fixture.driver(), &mut fixture.driver());
        let pair = pair(driver)?;
        let bytes = pattern(300);
        driver.send(pair.client, &bytes[..100]);
        if round % 2 == 1 {
            driver.turn(Duration::ZERO)?;
        }
        driver.detach(pair.server);
        driver.until("it is detached", |driver| driver.events(pair.server).detached.is_some())?;
        let (first, transport) = {
            let told = driver.events_mut(pair.server);
            (std::mem::take(&mut told.bytes), told.detached.take())
        };
        let Some(transport) = transport else { return Err("no transport came back".into()) };
        driver.events_mut(pair.server).detached = None;
        let moved = other.attach(transport, Role::Stream)?;
        driver.send_rest(pair.client);
        let mut sent_second = false;
        for _ in 0..2_000 {
            driver.turn(Duration::ZERO)?;
            other.turn(Duration::from_millis(1))?;
            driver.send_rest(pair.client);
            if driver.events(pair.client).is_sent() && !std::mem::replace(&mut sent_second, true) {
                driver.send(pair.client, &bytes[100..]);
            }
            if first.len() + other.events(moved).bytes.len() >= bytes.len() {
                break;
            }
        }
        let all = [&first[..], &other.events(moved).bytes].concat();
        check!(all == bytes, "{} of {} bytes arrived in order", all.len(), bytes.len());
    }
    Ok(())
}

fn closed_once(fixture: &mut Fixture<'_>) -> Outcome {
    let mut driver = fixture.driver();
    let (ours, mut theirs) = socket_pair()?;
    let key = driver.attach(Transport::new(ours), Role::Stream)?;
    driver.settle(2)?;
    driver.close(key);
    driver.settle(2)?;
    let mut end = [0; 1];
    check!(theirs.read(&mut end)? == 0, "the peer has no end");
    // These take the number that has become free, so a second close would hit them.
    let (mut one, mut two) = socket_pair()?;
    drop(driver);
    two.write_all(b"alive")?;
    let mut bytes = [0; 5];
    one.set_nonblocking(false)?;
    one.read_exact(&mut bytes)?;
    check!(&bytes == b"alive", "{bytes:?}");
    Ok(())
}

fn orders_in_batch(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let (listener, address) = listen(driver, &fixture.any_address())?;
    let client = connect(driver, &address)?;
    let mut chained = Vec::new();
    for _ in 0..200 {
        driver.turn_with(Duration::from_millis(20), |driver, key| {
            if key != listener || chained.len() >= 5 {
                return;
            }
            // Each accept opens the next connection, and closes its own, in the middle of the batch.
            for (transport, _) in std::mem::take(&mut driver.events_mut(listener).accepted) {
                if let Ok(key) = driver.attach(transport, Role::Stream) {
                    driver.close(key);
                }
                if let Ok(key) = connect(driver, &address) {
                    chained.push(key);
                }
            }
        })?;
        if chained.len() >= 5 {
            break;
        }
    }
    check!(chained.len() >= 5, "only {} connections were made from within a batch", chained.len());
    driver.until("the first client sees the end", |driver| driver.events(client).is_over())?;
    check!(matches!(driver.engine.local(listener)?, Address::Ip(_)), "the listener lost its address");
    Ok(())
}
