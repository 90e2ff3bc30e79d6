//! D: peers that leave, fail, or do not read.

use std::{io::ErrorKind, time::Duration};

use reactor::{
    Key,
    engine::{Ending, Role},
};

use super::{carry, pattern};
use crate::{
    drive::Drive,
    suite::{Outcome, Row, check},
    world::{World, accept, connect, listen, pair},
};

pub(super) const ROWS: &[Row] = &[
    row("D1", "a half-close is told once, replies arrive, nothing spins", half_close),
    row("D2a", "a reset of an idle stream is told once", reset_idle),
    row("D2b", "a reset while a send is out gives the send back", reset_while_sending),
    row("D2c", "a connection reset in the accept queue does not stop the listener", reset_in_queue),
    row("D3", "sending to a peer that left is an error, and no signal", peer_left),
    row("D5", "a peer that never reads stops the sender, which then waits", never_reads),
];

const fn row(id: &'static str, name: &'static str, run: fn(&mut World<'_>) -> Outcome) -> Row {
    Row { id, name, needs: &[], slow: false, run }
}

fn half_close(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let pair = pair(drive)?;
    carry(drive, pair.client, pair.server, b"request")?;
    drive.engine.shutdown(pair.client)?;
    drive.until("the end is told", |drive| drive.told(pair.server).is_over())?;
    drive.rests()?;
    carry(drive, pair.server, pair.client, &pattern(2_000))?;
    drive.engine.shutdown(pair.server)?;
    drive.until("the end is told", |drive| drive.told(pair.client).is_over())?;
    drive.rests()?;
    for key in [pair.client, pair.server] {
        let told = drive.told(key);
        check!((told.ends, told.broken.len()) == (1, 0), "{told:?}");
    }
    Ok(())
}

fn reset_idle(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let pair = pair(drive)?;
    carry(drive, pair.client, pair.server, b"hello")?;
    drive.close_with(pair.client, Ending::Reset);
    drive.until("the failure is told", |drive| drive.told(pair.server).is_over())?;
    drive.rests()?;
    let told = drive.told(pair.server);
    check!(told.ends == 0 && told.broken[0].kind() == ErrorKind::ConnectionReset, "{told:?}");
    drive.send(pair.server, b"x");
    drive.until("the send fails", |drive| drive.told(pair.server).send_failed.is_some())?;
    drive.rests()
}

fn reset_while_sending(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let pair = pair(drive)?;
    drive.engine.reading(pair.client, false);
    fill(drive, pair.server, full_bytes(world))?;
    drive.close_with(pair.client, Ending::Reset);
    drive.until("the send comes back with an error", |drive| {
        if drive.told(pair.server).send_failed.is_none() {
            drive.send_rest(pair.server);
        }
        drive.told(pair.server).send_failed.is_some()
    })?;
    check!(!drive.told(pair.server).is_sending(), "the queue did not come back");
    drive.close(pair.server);
    drive.rests()
}

fn reset_in_queue(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let (listener, address) = listen(drive, &world.any_address())?;
    drive.engine.reading(listener, false);
    for _ in 0..3 {
        let client = connect(drive, &address)?;
        drive.until("it is connected", |drive| !drive.told(client).connected.is_empty())?;
        drive.close_with(client, Ending::Reset);
        drive.turn(Duration::ZERO)?;
    }
    drive.engine.reading(listener, true);
    drive.settle(3)?;
    drive.note(listener).accepted.clear();
    let client = connect(drive, &address)?;
    drive.until("a healthy one is accepted", |drive| !drive.told(listener).accepted.is_empty())?;
    drive.until("it is connected", |drive| !drive.told(client).connected.is_empty())?;
    let (transport, _) = drive.note(listener).accepted.remove(0);
    let server = drive.attach(transport, Role::Stream)?;
    carry(drive, client, server, b"hello")
}

fn peer_left(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let pair = pair(drive)?;
    drive.close(pair.client);
    drive.until("the end is told", |drive| drive.told(pair.server).is_over())?;
    // The peer answers the first send with a reset, and the second send finds that.
    drive.send(pair.server, b"first");
    drive.until("a send fails", |drive| {
        if !drive.told(pair.server).is_sending() && drive.told(pair.server).send_failed.is_none() {
            drive.send(pair.server, b"more");
        }
        drive.told(pair.server).send_failed.is_some()
    })?;
    let kind = drive.told(pair.server).send_failed.as_ref().map(std::io::Error::kind);
    check!(matches!(kind, Some(ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)), "{kind:?}");
    drive.close(pair.server);
    Ok(())
}

fn never_reads(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let (listener, address) = listen(drive, &world.any_address())?;
    let client = connect(drive, &address)?;
    let transport = accept(drive, listener, client)?;
    // The server's end is not attached, so nobody reads.
    fill(drive, client, full_bytes(world))?;
    drive.rests()?;
    let server = drive.attach(transport, Role::Stream)?;
    let stopped_at = drive.told(client).sent;
    drive.until("the sender goes on", |drive| {
        drive.send_rest(client);
        drive.told(client).sent > stopped_at
    })?;
    drive.close(client);
    drive.until("the reader sees the end", |drive| drive.told(server).is_over())?;
    let bytes = &drive.told(server).bytes;
    check!(*bytes == pattern(bytes.len()), "what arrived differs");
    Ok(())
}

/// Sends until a send stays in flight, because the other end does not read.
fn fill(drive: &mut Drive, key: Key, len: usize) -> Outcome {
    drive.send(key, &pattern(len));
    for _ in 0..20_000 {
        if drive.turn(Duration::from_millis(10))? == 0 && drive.told(key).is_sending() {
            check!(drive.told(key).sent < len, "all was taken");
            return Ok(());
        }
        drive.send_rest(key);
        check!(drive.told(key).send_failed.is_none(), "{:?}", drive.told(key).send_failed);
    }
    Err(format!("after {} bytes the sender still goes on", drive.told(key).sent).into())
}

/// Returns more bytes than a stream holds while its reader rests.
fn full_bytes(world: &World<'_>) -> usize {
    if world.is_virtual() { 1 << 20 } else { 32 << 20 }
}
