//! A: the lives of descriptors and keys.

#[cfg(unix)]
use std::fs::File;
use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use reactor::{
    Address, Interest, Outgoing, Source,
    engine::{Ending, Role, Transport},
};

use super::{carry, pattern};
use crate::{
    suite::{Need, Outcome, Row, check},
    world::{World, connect, listen, pair, pairs},
};

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

const fn row(
    id: &'static str,
    name: &'static str,
    needs: &'static [Need],
    run: fn(&mut World<'_>) -> Outcome,
) -> Row {
    Row { id, name, needs, slow: false, run }
}

pub(crate) fn socket_pair() -> std::io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let ours = TcpStream::connect(listener.local_addr()?)?;
    let (theirs, _) = listener.accept()?;
    ours.set_nonblocking(true)?;
    Ok((ours, theirs))
}

fn closed_in_batch(world: &mut World<'_>) -> Outcome {
    for _ in 0..20 {
        let drive = &mut world.drive();
        let pairs = pairs(drive, 2, &Default::default())?;
        for pair in &pairs {
            drive.send(pair.client, b"both are ready");
        }
        let keys = [pairs[0].server, pairs[1].server];
        let mut closed = false;
        // The first stream with an event closes the other. The drive fails if an event for that one follows.
        for _ in 0..20 {
            drive.turn_with(Duration::ZERO, |drive, key| {
                if let Some(at) = keys.iter().position(|server| *server == key)
                    && !std::mem::replace(&mut closed, true)
                {
                    drive.close(keys[1 - at]);
                }
            })?;
        }
        check!(closed, "neither stream was told of");
    }
    Ok(())
}

fn unwatched_in_batch(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let sockets = [socket_pair()?, socket_pair()?];
    let mut keys = Vec::new();
    for (ours, theirs) in &sockets {
        (&mut &*theirs).write_all(b"x")?;
        keys.push(drive.watch(Source::of(ours), Interest::Read)?);
    }
    let mut first = None;
    for _ in 0..5 {
        drive.turn_with(Duration::from_millis(20), |drive, key| {
            if first.is_none()
                && let Some(at) = keys.iter().position(|watched| *watched == key)
            {
                first = Some(at);
                drive.unwatch(keys[1 - at], Source::of(&sockets[1 - at].0));
            }
        })?;
    }
    let Some(first) = first else { return Err("neither socket was told of".into()) };
    drive.unwatch(keys[first], Source::of(&sockets[first].0));
    Ok(())
}

fn number_reused(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let (listener, address) = listen(drive, &world.any_address())?;
    for round in 0..20 {
        let client = connect(drive, &address)?;
        let transport = crate::world::accept(drive, listener, client)?;
        let old = drive.attach(transport, Role::Stream)?;
        drive.send(client, &pattern(100));
        drive.until("the old stream has input", |drive| !drive.told(old).bytes.is_empty())?;
        drive.close(old);
        let new = connect(drive, &address)?;
        drive.until("the new stream is up", |drive| !drive.told(new).connected.is_empty())?;
        drive.settle(3)?;
        let told = drive.told(new);
        check!(
            told.bytes.is_empty() && !told.is_over() && told.connected.len() == 1,
            "in round {round} the new stream was told of what concerns the old: {told:?}"
        );
        drive.close(new);
        drive.close(client);
        drive.note(listener).accepted.clear();
        drive.settle(3)?;
        drive.note(listener).accepted.clear();
    }
    Ok(())
}

fn closed_behind(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let (ours, mut theirs) = socket_pair()?;
    let key = drive.watch(Source::of(&ours), Interest::Read)?;
    drive.settle(2)?;
    drop(ours);
    // The peer is gone now, so the write may fail.
    let _ = theirs.write_all(b"x");
    for _ in 0..20 {
        drive.turn(Duration::ZERO)?;
    }
    let odd = drive.told(key).ready.iter().filter(|ready| !ready.error && !ready.hangup).count();
    check!(odd == 0, "{odd} readinesses were told of a descriptor that is closed");
    let pair = pair(drive)?;
    carry(drive, pair.client, pair.server, b"the engine goes on")
}

fn duplicate_open(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let (watched, mut to_watched) = socket_pair()?;
    let (owned, mut to_owned) = socket_pair()?;
    let duplicates = [watched.try_clone()?, owned.try_clone()?];
    let key = drive.watch(Source::of(&watched), Interest::Read)?;
    let stream = drive.attach(Transport::new(owned), Role::Stream)?;
    drive.settle(2)?;
    drive.unwatch(key, Source::of(&watched));
    drop(watched);
    drive.close(stream);
    to_watched.write_all(b"ghost")?;
    to_owned.write_all(b"ghost")?;
    drive.rests()?;
    drop(duplicates);
    Ok(())
}

fn unknown_keys(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let pair = pair(drive)?;
    drive.close(pair.client);
    let never = drive.key();
    for key in [pair.client, never] {
        let engine = &mut drive.engine;
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
    drive.until("the other end is told", |drive| drive.told(pair.server).is_over())?;
    drive.settle(3)
}

fn watched_twice(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let (ours, mut theirs) = socket_pair()?;
    let key = drive.watch(Source::of(&ours), Interest::Read)?;
    drive.settle(2)?;
    drive.engine.watch(key, Source::of(&ours), Some(Interest::Write))?;
    drive.until("it is writable", |drive| drive.told(key).ready.iter().any(|ready| ready.writable))?;
    theirs.write_all(b"x")?;
    drive.unwatch(key, Source::of(&ours));
    drive.unwatch(key, Source::of(&ours));
    drive.rests()?;
    let again = drive.watch(Source::of(&ours), Interest::Read)?;
    drive.until("it is readable", |drive| drive.told(again).ready.iter().any(|ready| ready.readable))?;
    drive.unwatch(again, Source::of(&ours));
    Ok(())
}

#[cfg(not(unix))]
fn regular_file(_: &mut World<'_>) -> Outcome {
    Err(crate::Stop::Skipped("a file is no socket, and only sockets are watched here".to_owned()))
}

#[cfg(unix)]
fn regular_file(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    for path in [std::env::current_exe()?, std::env::temp_dir()] {
        let Ok(file) = File::open(&path) else { continue };
        let key = drive.key();
        match drive.engine.watch(key, Source::of(&file), Some(Interest::Read)) {
            Err(error) => check!(error.raw_os_error().is_some(), "refused without a number: {error}"),
            Ok(()) => {
                drive.until("it is ready", |drive| !drive.told(key).ready.is_empty())?;
                drive.unwatch(key, Source::of(&file));
            }
        }
    }
    drive.settle(3)
}

fn handed_over(world: &mut World<'_>) -> Outcome {
    for round in 0..10 {
        let (drive, other) = (&mut world.drive(), &mut world.drive());
        let pair = pair(drive)?;
        let bytes = pattern(300);
        drive.send(pair.client, &bytes[..100]);
        if round % 2 == 1 {
            drive.turn(Duration::ZERO)?;
        }
        drive.detach(pair.server);
        drive.until("it is detached", |drive| drive.told(pair.server).detached.is_some())?;
        let (first, transport) = {
            let told = drive.note(pair.server);
            (std::mem::take(&mut told.bytes), told.detached.take())
        };
        let Some(transport) = transport else { return Err("no transport came back".into()) };
        drive.note(pair.server).detached = None;
        let moved = other.attach(transport, Role::Stream)?;
        drive.send_rest(pair.client);
        let mut sent_second = false;
        for _ in 0..2_000 {
            drive.turn(Duration::ZERO)?;
            other.turn(Duration::from_millis(1))?;
            drive.send_rest(pair.client);
            if drive.told(pair.client).is_sent() && !std::mem::replace(&mut sent_second, true) {
                drive.send(pair.client, &bytes[100..]);
            }
            if first.len() + other.told(moved).bytes.len() >= bytes.len() {
                break;
            }
        }
        let all = [&first[..], &other.told(moved).bytes].concat();
        check!(all == bytes, "{} of {} bytes arrived in order", all.len(), bytes.len());
    }
    Ok(())
}

fn closed_once(world: &mut World<'_>) -> Outcome {
    let mut drive = world.drive();
    let (ours, mut theirs) = socket_pair()?;
    let key = drive.attach(Transport::new(ours), Role::Stream)?;
    drive.settle(2)?;
    drive.close(key);
    drive.settle(2)?;
    let mut end = [0; 1];
    check!(theirs.read(&mut end)? == 0, "the peer has no end");
    // These take the number that has become free, so a second close would hit them.
    let (mut one, mut two) = socket_pair()?;
    drop(drive);
    two.write_all(b"alive")?;
    let mut bytes = [0; 5];
    one.set_nonblocking(false)?;
    one.read_exact(&mut bytes)?;
    check!(&bytes == b"alive", "{bytes:?}");
    Ok(())
}

fn orders_in_batch(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let (listener, address) = listen(drive, &world.any_address())?;
    let client = connect(drive, &address)?;
    let mut chained = Vec::new();
    for _ in 0..200 {
        drive.turn_with(Duration::from_millis(20), |drive, key| {
            if key != listener || chained.len() >= 5 {
                return;
            }
            // Each accept opens the next connection, and closes its own, in the middle of the batch.
            for (transport, _) in std::mem::take(&mut drive.note(listener).accepted) {
                if let Ok(key) = drive.attach(transport, Role::Stream) {
                    drive.close(key);
                }
                if let Ok(key) = connect(drive, &address) {
                    chained.push(key);
                }
            }
        })?;
        if chained.len() >= 5 {
            break;
        }
    }
    check!(chained.len() >= 5, "only {} connections were made from within a batch", chained.len());
    drive.until("the first client sees the end", |drive| drive.told(client).is_over())?;
    check!(matches!(drive.engine.local(listener)?, Address::Ip(_)), "the listener lost its address");
    Ok(())
}
