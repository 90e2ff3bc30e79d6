//! C: partial sends and reads.

#[cfg(unix)]
use std::io::Write;
use std::time::Duration;

use reactor::{ConnectOptions, Outgoing, Shared};

use super::{carry, pattern};
use crate::{
    suite::{Outcome, Row, check},
    world::{Pair, World, pair, pairs},
};

pub(super) const ROWS: &[Row] = &[
    row("C1", "sends of every size arrive byte for byte through a narrow stream", every_size),
    row("C2", "the tail of a large send arrives although nobody sends again", tail),
    row("C3", "a drip of single bytes gives the same as one write", drip),
    row("C7", "a vectored send that is cut goes on at the right byte", vectored),
    row("C8", "an empty send comes back, and the stream goes on", empty_send),
    row("N3", "one turn hands over at most 64 KiB of a stream, and little of one that is not read", at_once),
    row("C10", "room for who writes past the engine is told once, even if it was there before", room_outside),
];

const fn row(id: &'static str, name: &'static str, run: fn(&mut World<'_>) -> Outcome) -> Row {
    Row { id, name, needs: &[], slow: false, run }
}

/// Returns the options of a stream that takes only a little at a time.
fn narrow() -> ConnectOptions {
    let mut options = ConnectOptions::default();
    (options.socket.send_buffer, options.socket.receive_buffer) = (Some(1), Some(1));
    options
}

fn every_size(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let pair = pairs(drive, 1, &narrow())?[0];
    for len in (1..=130).chain([4_095, 4_096, 4_097, 20_000]) {
        carry(drive, pair.client, pair.server, &pattern(len))?;
    }
    Ok(())
}

fn tail(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let pair = pair(drive)?;
    let bytes = pattern(if world.is_virtual() { 100_000 } else { 8 << 20 });
    drive.send(pair.client, &bytes);
    for turn in 0..TURNS_MAX {
        if drive.told(pair.server).bytes.len() >= bytes.len() {
            break;
        }
        // A slow reader, which reads in one turn of three.
        let reads = turn % 3 == 0;
        drive.engine.reading(pair.server, reads);
        drive.turn(if reads { Duration::from_millis(20) } else { Duration::ZERO })?;
        drive.send_rest(pair.client);
    }
    let arrived = drive.told(pair.server).bytes.len();
    check!(arrived == bytes.len(), "{arrived} of {} bytes have arrived", bytes.len());
    check!(drive.told(pair.server).bytes == bytes, "what arrived differs");
    Ok(())
}

fn at_once(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let Pair { client, server } = pair(drive)?;
    let bytes = pattern(if world.is_virtual() { 100_000 } else { 8 << 20 });
    drive.send(client, &bytes);
    for turn in 0..TURNS_MAX {
        let before = drive.told(server).bytes.len();
        if before >= bytes.len() {
            break;
        }
        // Read in one turn of three, so that much input waits at each read.
        let reads = turn % 3 == 0;
        drive.engine.reading(server, reads);
        drive.turn(if reads { Duration::from_millis(20) } else { Duration::ZERO })?;
        drive.send_rest(client);
        let came = drive.told(server).bytes.len() - before;
        check!(came <= AT_ONCE, "{came} bytes of one stream in one turn, which reads: {reads}");
    }
    let arrived = drive.told(server).bytes.len();
    check!(arrived == bytes.len(), "{arrived} of {} bytes have arrived", bytes.len());
    check!(drive.told(server).bytes == bytes, "what arrived differs");
    Ok(())
}

fn drip(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let pair = pair(drive)?;
    let bytes = pattern(500);
    for byte in &bytes {
        drive.send(pair.client, &[*byte]);
        drive.until("the byte is taken", |drive| !drive.told(pair.client).is_sending())?;
    }
    drive.until("all bytes have arrived", |drive| drive.told(pair.server).bytes.len() >= bytes.len())?;
    check!(drive.told(pair.server).bytes == bytes, "what arrived differs");
    Ok(())
}

fn vectored(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let pair = pairs(drive, 1, &narrow())?[0];
    let mut queue = Box::new(Outgoing::new());
    let mut bytes = Vec::new();
    for _ in 0..100 {
        let part = pattern(world.up_to(3_000));
        bytes.extend_from_slice(&part);
        if world.up_to(2) == 1 {
            queue.put(&part);
        } else {
            queue.share(Shared::from(part));
        }
    }
    drive.send_queue(pair.client, queue);
    drive.until("all bytes have arrived", |drive| {
        drive.send_rest(pair.client);
        drive.told(pair.server).bytes.len() >= bytes.len()
    })?;
    check!(drive.told(pair.server).bytes == bytes, "what arrived differs");
    Ok(())
}

#[cfg(not(unix))]
fn room_outside(_: &mut World<'_>) -> Outcome {
    Err(crate::Stop::Skipped("nobody writes past an engine here".to_owned()))
}

#[cfg(unix)]
fn room_outside(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let pair = pairs(drive, 1, &narrow())?[0];
    let (client, server) = (pair.client, pair.server);
    // From here on the engine has waited for room itself, and may receive an event about it unasked.
    carry(drive, client, server, &pattern(300_000))?;
    drive.note(server).bytes.clear();
    let outlet =
        drive.engine.outlet(client).and_then(|source| source.descriptor()?.try_clone_to_owned().ok());
    let Some(outlet) = outlet else {
        return Err(crate::Stop::Skipped("nobody may write past this engine".to_owned()));
    };
    let mut outlet = std::fs::File::from(outlet);
    let mut written = 0;
    for comes_before in [true, false, true] {
        drive.engine.reading(server, false);
        drive.settle(2)?;
        while let Ok(count) = outlet.write(&[0; 4096]) {
            written += count;
        }
        let rooms = drive.told(client).rooms;
        if comes_before {
            drive.engine.reading(server, true);
            drive.until("all is read", |drive| drive.told(server).bytes.len() == written)?;
            drive.settle(2)?;
        }
        check!(drive.told(client).rooms == rooms, "room was told unasked");
        check!(drive.await_room(client), "an engine with an outlet tells of room");
        if !comes_before {
            drive.settle(3)?;
            check!(drive.told(client).rooms == rooms, "room was told where there is none");
            drive.engine.reading(server, true);
        }
        drive.until("there is room", |drive| drive.told(client).rooms > rooms)?;
        drive.until("all is read", |drive| drive.told(server).bytes.len() == written)?;
        drive.settle(3)?;
        check!(drive.told(client).rooms == rooms + 1, "room was told more than once");
    }
    // The engine's own later sends work as before.
    drive.note(server).bytes.clear();
    carry(drive, client, server, &pattern(10_000))
}

fn empty_send(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let pair = pair(drive)?;
    drive.send(pair.client, b"");
    drive.until("it comes back", |drive| !drive.told(pair.client).is_sending())?;
    check!(drive.told(pair.client).send_failed.is_none(), "{:?}", drive.told(pair.client));
    drive.turn(Duration::ZERO)?;
    check!(!drive.told(pair.server).is_over(), "an empty send is no end");
    carry(drive, pair.client, pair.server, b"more")
}

/// The most bytes of one stream that an engine hands over in one turn.
const AT_ONCE: usize = 64 << 10;
const TURNS_MAX: usize = 50_000;
