//! D: peers that leave, fail, or do not read.

use super::prelude::*;

pub(super) const ROWS: &[Row] = &[
    row("D1", "a half-close is told once, replies arrive, nothing spins", &[], half_close),
    row("D2a", "a reset of an idle stream is told once", &[], reset_idle),
    row("D2b", "a reset while a send is out gives the send back", &[], reset_while_sending),
    row("D2c", "a connection reset in the accept queue does not stop the listener", &[], reset_in_queue),
    row("D3", "sending to a peer that left is an error, and no signal", &[], peer_left),
    row("D5", "a peer that never reads stops the sender, which then waits", &[], never_reads),
];

fn half_close(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let pair = pair(driver)?;
    carry(driver, pair.client, pair.server, b"request")?;
    driver.engine.shutdown(pair.client)?;
    driver.until("the end is told", |driver| driver.events(pair.server).is_over())?;
    driver.rests()?;
    carry(driver, pair.server, pair.client, &pattern(2_000))?;
    driver.engine.shutdown(pair.server)?;
    driver.until("the end is told", |driver| driver.events(pair.client).is_over())?;
    driver.rests()?;
    for key in [pair.client, pair.server] {
        let told = driver.events(key);
        check!((told.ends, told.broken.len()) == (1, 0), "{told:?}");
    }
    Ok(())
}

fn reset_idle(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let pair = pair(driver)?;
    carry(driver, pair.client, pair.server, b"hello")?;
    driver.close_with(pair.client, Ending::Reset);
    driver.until("the failure is told", |driver| driver.events(pair.server).is_over())?;
    driver.rests()?;
    let told = driver.events(pair.server);
    check!(told.ends == 0 && told.broken[0].kind() == ErrorKind::ConnectionReset, "{told:?}");
    driver.send(pair.server, b"x");
    driver.until("the send fails", |driver| driver.events(pair.server).send_failed.is_some())?;
    driver.rests()
}

fn reset_while_sending(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let pair = pair(driver)?;
    driver.engine.reading(pair.client, false);
    fill(driver, pair.server, full_bytes(fixture))?;
    driver.close_with(pair.client, Ending::Reset);
    driver.until("the send comes back with an error", |driver| {
        if driver.events(pair.server).send_failed.is_none() {
            driver.send_rest(pair.server);
        }
        driver.events(pair.server).send_failed.is_some()
    })?;
    check!(!driver.events(pair.server).is_sending(), "the queue did not come back");
    driver.close(pair.server);
    driver.rests()
}

fn reset_in_queue(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let (listener, address) = listen(driver, &fixture.any_address())?;
    driver.engine.reading(listener, false);
    for _ in 0..3 {
        let client = connect(driver, &address)?;
        driver.until("it is connected", |driver| !driver.events(client).connected.is_empty())?;
        driver.close_with(client, Ending::Reset);
        driver.turn(Duration::ZERO)?;
    }
    driver.engine.reading(listener, true);
    driver.settle(3)?;
    driver.events_mut(listener).accepted.clear();
    let client = connect(driver, &address)?;
    driver.until("a healthy one is accepted", |driver| !driver.events(listener).accepted.is_empty())?;
    driver.until("it is connected", |driver| !driver.events(client).connected.is_empty())?;
    let (transport, _) = driver.events_mut(listener).accepted.remove(0);
    let server = driver.attach(transport, Role::Stream)?;
    carry(driver, client, server, b"hello")
}

fn peer_left(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let pair = pair(driver)?;
    driver.close(pair.client);
    driver.until("the end is told", |driver| driver.events(pair.server).is_over())?;
    // The peer answers the first send with a reset, and the second send finds that.
    driver.send(pair.server, b"first");
    driver.until("a send fails", |driver| {
        if !driver.events(pair.server).is_sending() && driver.events(pair.server).send_failed.is_none() {
            driver.send(pair.server, b"more");
        }
        driver.events(pair.server).send_failed.is_some()
    })?;
    let kind = driver.events(pair.server).send_failed.as_ref().map(std::io::Error::kind);
    check!(matches!(kind, Some(ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)), "{kind:?}");
    driver.close(pair.server);
    Ok(())
}

fn never_reads(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let (listener, address) = listen(driver, &fixture.any_address())?;
    let client = connect(driver, &address)?;
    let transport = accept(driver, listener, client)?;
    // The server's end is not attached, so nobody reads.
    fill(driver, client, full_bytes(fixture))?;
    driver.rests()?;
    let server = driver.attach(transport, Role::Stream)?;
    let stopped_at = driver.events(client).sent;
    driver.until("the sender goes on", |driver| {
        driver.send_rest(client);
        driver.events(client).sent > stopped_at
    })?;
    driver.close(client);
    driver.until("the reader sees the end", |driver| driver.events(server).is_over())?;
    let bytes = &driver.events(server).bytes;
    check!(*bytes == pattern(bytes.len()), "what arrived differs");
    Ok(())
}

/// Sends until a send stays in flight, because the other end does not read.
fn fill(driver: &mut EngineDriver, key: Key, len: usize) -> Outcome {
    driver.send(key, &pattern(len));
    for _ in 0..20_000 {
        if driver.turn(Duration::from_millis(10))? == 0 && driver.events(key).is_sending() {
            check!(driver.events(key).sent < len, "all was taken");
            return Ok(());
        }
        driver.send_rest(key);
        check!(driver.events(key).send_failed.is_none(), "{:?}", driver.events(key).send_failed);
    }
    Err(format!("after {} bytes the sender still goes on", driver.events(key).sent).into())
}

/// Returns more bytes than a stream holds while its reader rests.
fn full_bytes(fixture: &Fixture<'_>) -> usize {
    if fixture.is_virtual() { 1 << 20 } else { 32 << 20 }
}
