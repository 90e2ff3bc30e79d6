//! C: partial sends and reads.

use reactor::{ConnectOptions, Outgoing, Shared};
#[cfg(unix)]
use std::io::Write;

use super::prelude::*;
use crate::fixture::Pair;

pub(super) const ROWS: &[Row] = &[
    row("C1", "sends of every size arrive byte for byte through a narrow stream", &[], every_size),
    row("C2", "the tail of a large send arrives although nobody sends again", &[], tail),
    row("C3", "a drip of single bytes gives the same as one write", &[], drip),
    row("C7", "a vectored send that is cut goes on at the right byte", &[], vectored),
    row("C8", "an empty send comes back, and the stream goes on", &[], empty_send),
    row(
        "N3",
        "one turn hands over at most 64 KiB of a stream, and little of one that is not read",
        &[],
        at_once,
    ),
    row(
        "C10",
        "room for who writes past the engine is told once, even if it was there before",
        &[],
        room_outside,
    ),
];

/// Returns the options of a stream that takes only a little at a time.
fn narrow() -> ConnectOptions {
    let mut options = ConnectOptions::default();
    (options.socket.send_buffer, options.socket.receive_buffer) = (Some(1), Some(1));
    options
}

fn every_size(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let pair = pairs(driver, 1, &narrow())?[0];
    for len in (1..=130).chain([4_095, 4_096, 4_097, 20_000]) {
        carry(driver, pair.client, pair.server, &pattern(len))?;
    }
    Ok(())
}

fn tail(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let pair = pair(driver)?;
    let bytes = pattern(if fixture.is_virtual() { 100_000 } else { 8 << 20 });
    driver.send(pair.client, &bytes);
    for turn in 0..TURNS_MAX {
        if driver.events(pair.server).bytes.len() >= bytes.len() {
            break;
        }
        // A slow reader, which reads in one turn of three.
        let reads = turn % 3 == 0;
        driver.engine.reading(pair.server, reads);
        driver.turn(if reads { Duration::from_millis(20) } else { Duration::ZERO })?;
        driver.send_rest(pair.client);
    }
    let arrived = driver.events(pair.server).bytes.len();
    check!(arrived == bytes.len(), "{arrived} of {} bytes have arrived", bytes.len());
    check!(driver.events(pair.server).bytes == bytes, "what arrived differs");
    Ok(())
}

fn at_once(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let Pair { client, server } = pair(driver)?;
    let bytes = pattern(if fixture.is_virtual() { 100_000 } else { 8 << 20 });
    driver.send(client, &bytes);
    for turn in 0..TURNS_MAX {
        let before = driver.events(server).bytes.len();
        if before >= bytes.len() {
            break;
        }
        // Read in one turn of three, so that much input waits at each read.
        let reads = turn % 3 == 0;
        driver.engine.reading(server, reads);
        driver.turn(if reads { Duration::from_millis(20) } else { Duration::ZERO })?;
        driver.send_rest(client);
        let came = driver.events(server).bytes.len() - before;
        check!(came <= AT_ONCE, "{came} bytes of one stream in one turn, which reads: {reads}");
    }
    let arrived = driver.events(server).bytes.len();
    check!(arrived == bytes.len(), "{arrived} of {} bytes have arrived", bytes.len());
    check!(driver.events(server).bytes == bytes, "what arrived differs");
    Ok(())
}

fn drip(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let pair = pair(driver)?;
    let bytes = pattern(500);
    for byte in &bytes {
        driver.send(pair.client, &[*byte]);
        driver.until("the byte is taken", |driver| !driver.events(pair.client).is_sending())?;
    }
    driver.until("all bytes have arrived", |driver| driver.events(pair.server).bytes.len() >= bytes.len())?;
    check!(driver.events(pair.server).bytes == bytes, "what arrived differs");
    Ok(())
}

fn vectored(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let pair = pairs(driver, 1, &narrow())?[0];
    let mut queue = Box::new(Outgoing::new());
    let mut bytes = Vec::new();
    for _ in 0..100 {
        let part = pattern(fixture.up_to(3_000));
        bytes.extend_from_slice(&part);
        if fixture.up_to(2) == 1 {
            queue.put(&part);
        } else {
            queue.share(Shared::from(part));
        }
    }
    driver.send_queue(pair.client, queue);
    driver.until("all bytes have arrived", |driver| {
        driver.send_rest(pair.client);
        driver.events(pair.server).bytes.len() >= bytes.len()
    })?;
    check!(driver.events(pair.server).bytes == bytes, "what arrived differs");
    Ok(())
}

#[cfg(not(unix))]
fn room_outside(_: &mut Fixture<'_>) -> Outcome {
    Err(Stop::Skipped("nobody writes past an engine here".to_owned()))
}

#[cfg(unix)]
fn room_outside(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let pair = pairs(driver, 1, &narrow())?[0];
    let (client, server) = (pair.client, pair.server);
    // From here on the engine has waited for room itself, and may receive an event about it unasked.
    carry(driver, client, server, &pattern(300_000))?;
    driver.events_mut(server).bytes.clear();
    let direct_sink =
        driver.engine.direct_sink(client).and_then(|source| source.descriptor()?.try_clone_to_owned().ok());
    let Some(direct_sink) = direct_sink else {
        return Err(Stop::Skipped("nobody may write past this engine".to_owned()));
    };
    let mut direct_sink = std::fs::File::from(direct_sink);
    let mut written = 0;
    for comes_before in [true, false, true] {
        driver.engine.reading(server, false);
        driver.settle(2)?;
        while let Ok(count) = direct_sink.write(&[0; 4096]) {
            written += count;
        }
        let rooms = driver.events(client).rooms;
        if comes_before {
            driver.engine.reading(server, true);
            driver.until("all is read", |driver| driver.events(server).bytes.len() == written)?;
            driver.settle(2)?;
        }
        check!(driver.events(client).rooms == rooms, "room was told unasked");
        check!(driver.await_room(client), "an engine with a direct sink tells of room");
        if !comes_before {
            driver.settle(3)?;
            check!(driver.events(client).rooms == rooms, "room was told where there is none");
            driver.engine.reading(server, true);
        }
        driver.until("there is room", |driver| driver.events(client).rooms > rooms)?;
        driver.until("all is read", |driver| driver.events(server).bytes.len() == written)?;
        driver.settle(3)?;
        check!(driver.events(client).rooms == rooms + 1, "room was told more than once");
    }
    // The engine's own later sends work as before.
    driver.events_mut(server).bytes.clear();
    carry(driver, client, server, &pattern(10_000))
}

fn empty_send(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let pair = pair(driver)?;
    driver.send(pair.client, b"");
    driver.until("it comes back", |driver| !driver.events(pair.client).is_sending())?;
    check!(driver.events(pair.client).send_failed.is_none(), "{:?}", driver.events(pair.client));
    driver.turn(Duration::ZERO)?;
    check!(!driver.events(pair.server).is_over(), "an empty send is no end");
    carry(driver, pair.client, pair.server, b"more")
}

/// The most bytes of one stream that an engine hands over in one turn.
const AT_ONCE: usize = 64 << 10;
const TURNS_MAX: usize = 50_000;
