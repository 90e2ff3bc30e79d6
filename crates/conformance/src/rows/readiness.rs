//! B: readiness, interest and the order of events.

use std::io::{Read, Write};

use super::{descriptors::socket_pair, prelude::*};

pub(super) const ROWS: &[Row] = &[
    row("B1", "a read that finds nothing is no event", &[Need::Sockets], read_by_another),
    row("B2", "what a pause leaves is delivered without new input", &[], pauses_in_a_burst),
    row("B3", "data that came before the attach is delivered", &[], data_before_attach),
    row("B4a", "toggling reading at random loses nothing", &[], toggled_reading),
    row(
        "B4b",
        "a source that rests is not told of, and goes on afterwards",
        &[Need::Sockets],
        toggled_interest,
    ),
    row("B5", "a reset while paused is told once, after the pause, without a spin", &[], reset_while_paused),
    row("B6", "a megabyte before the end arrives before the end", &[], data_before_end),
    row("B7", "a refused connect is told once", &[], refused_connect),
    row("B8", "a connect that succeeds is told once", &[], connected_once),
    row("B9", "data before a reset is in order, and the failure single", &[], data_before_reset),
    row("B10", "all of many ready streams are served in turn", &[], many_ready),
    row("B11", "urgent data makes no spin", &[Need::Sockets, Need::Linux], urgent_data),
];

fn read_by_another(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let (ours, mut theirs) = socket_pair()?;
    let mut thief = ours.try_clone()?;
    let key = driver.attach(Transport::new(ours), Role::Stream)?;
    driver.settle(2)?;
    let mut stolen = Vec::new();
    for _ in 0..20 {
        theirs.write_all(b"x")?;
        driver.engine.wait(Some(Duration::ZERO))?;
        let mut bytes = [0; 8];
        match thief.read(&mut bytes) {
            Ok(count) => stolen.extend_from_slice(&bytes[..count]),
            Err(error) => check!(error.kind() == ErrorKind::WouldBlock, "{error}"),
        }
        driver.turn(Duration::ZERO)?;
    }
    driver.settle(3)?;
    let told = driver.events(key);
    check!(!told.is_over(), "an empty read was told as an end: {told:?}");
    check!(stolen.len() + told.bytes.len() == 20, "{} + {} bytes", stolen.len(), told.bytes.len());
    driver.rests()
}

fn pauses_in_a_burst(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let pair = pair(driver)?;
    let bytes = pattern(100_000);
    driver.send(pair.client, &bytes);
    let (mut seen, mut rests) = (0, Ok(0));
    driver.until("all bytes have arrived", |driver| {
        driver.send_rest(pair.client);
        let chunks = driver.events(pair.server).chunks;
        if std::mem::replace(&mut seen, chunks) != chunks && rests.is_ok() {
            // After each chunk the stream rests for a turn that does not wait.
            driver.engine.reading(pair.server, false);
            rests = driver.turn(Duration::ZERO);
            driver.engine.reading(pair.server, true);
        }
        driver.events(pair.server).bytes.len() >= bytes.len() || rests.is_err()
    })?;
    rests?;
    check!(driver.events(pair.server).bytes == bytes, "what arrived differs");
    Ok(())
}

fn data_before_attach(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let (listener, address) = listen(driver, &fixture.any_address())?;
    let client = connect(driver, &address)?;
    let transport = accept(driver, listener, client)?;
    driver.send(client, b"early");
    driver.until("it is taken", |driver| {
        driver.send_rest(client);
        driver.events(client).is_sent()
    })?;
    driver.settle(3)?;
    let server = driver.attach(transport, Role::Stream)?;
    driver.until("it has arrived", |driver| driver.events(server).bytes.len() == 5)?;
    check!(driver.events(server).bytes == b"early", "{:?}", driver.events(server).bytes);
    Ok(())
}

fn toggled_reading(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let pair = pair(driver)?;
    let bytes = pattern(50_000);
    driver.send(pair.client, &bytes);
    for _ in 0..5_000 {
        driver.engine.reading(pair.server, fixture.up_to(2) == 1);
        driver.turn(Duration::ZERO)?;
        driver.send_rest(pair.client);
    }
    driver.engine.reading(pair.server, true);
    driver.until("all bytes have arrived", |driver| {
        driver.send_rest(pair.client);
        driver.events(pair.server).bytes.len() >= bytes.len()
    })?;
    check!(driver.events(pair.server).bytes == bytes, "what arrived differs");
    Ok(())
}

fn toggled_interest(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let (ours, mut theirs) = socket_pair()?;
    theirs.write_all(b"x")?;
    let key = driver.watch(Source::of(&ours), Interest::Read)?;
    driver.until("it is readable", |driver| driver.events(key).ready.iter().any(|ready| ready.readable))?;
    driver.engine.watch(key, Source::of(&ours), Some(Interest::Both))?;
    driver.until("it is writable", |driver| driver.events(key).ready.iter().any(|ready| ready.writable))?;
    driver.engine.watch(key, Source::of(&ours), None)?;
    driver.rests()?;
    drop(theirs);
    driver.turn(Duration::from_millis(20))?;
    driver.rests()?;
    driver.events_mut(key).ready.clear();
    driver.engine.watch(key, Source::of(&ours), Some(Interest::Read))?;
    driver.until("it is readable again", |driver| {
        driver.events(key).ready.iter().any(|ready| ready.can_read())
    })?;
    driver.unwatch(key, Source::of(&ours));
    Ok(())
}

fn reset_while_paused(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let pair = pair(driver)?;
    driver.settle(2)?;
    driver.engine.reading(pair.server, false);
    driver.close_with(pair.client, Ending::Reset);
    driver.settle(5)?;
    driver.rests()?;
    driver.engine.reading(pair.server, true);
    driver.until("the failure is told", |driver| driver.events(pair.server).is_over())?;
    driver.rests()?;
    let told = driver.events(pair.server);
    check!((told.ends, told.broken.len()) == (0, 1), "{told:?}");
    Ok(())
}

fn data_before_end(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let pair = pair(driver)?;
    let bytes = pattern(if fixture.is_virtual() { 50_000 } else { 1 << 20 });
    driver.send(pair.client, &bytes);
    driver.until("all bytes are taken", |driver| {
        driver.send_rest(pair.client);
        driver.events(pair.client).sent == bytes.len()
    })?;
    driver.close(pair.client);
    driver.until("the end is told", |driver| driver.events(pair.server).is_over())?;
    let told = driver.events(pair.server);
    check!(told.broken.is_empty() && told.bytes == bytes, "{} bytes, {:?}", told.bytes.len(), told.broken);
    driver.rests()
}

fn refused_connect(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let (listener, address) = listen(driver, &fixture.any_address())?;
    driver.close(listener);
    driver.settle(2)?;
    let client = match connect(driver, &address) {
        Ok(client) => client,
        // A kernel may refuse at once. Then the engine has nothing to report.
        Err(Stop::Failed(how)) if how.contains("refused") => return Ok(()),
        Err(other) => return Err(other),
    };
    driver.until("the connect is over", |driver| !driver.events(client).connected.is_empty())?;
    driver.rests()?;
    let told = driver.events(client);
    let kind = told.connected[0].as_ref().map_err(|error| error.kind());
    check!(kind == Err(ErrorKind::ConnectionRefused), "{told:?}");
    check!(!told.is_over(), "a stream that never was has an end: {told:?}");
    driver.close(client);
    Ok(())
}

fn connected_once(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let mut addresses = vec![fixture.any_address()];
    if cfg!(target_os = "linux") {
        let name = format!("conformance-{}-{}", std::process::id(), fixture.up_to(1 << 30));
        addresses.push(Address::Abstract(name.into_bytes()));
    }
    for address in addresses {
        let (listener, address) = listen(driver, &address)?;
        let client = connect(driver, &address)?;
        let transport = accept(driver, listener, client)?;
        let server = driver.attach(transport, Role::Stream)?;
        driver.settle(3)?;
        check!(driver.events(client).connected.len() == 1, "{:?}", driver.events(client).connected);
        check!(driver.engine.peer(client)? == address, "{:?}", driver.engine.peer(client)?);
        carry(driver, client, server, b"there")?;
        carry(driver, server, client, b"back")?;
        for key in [listener, client, server] {
            driver.close(key);
        }
    }
    driver.settle(3)
}

fn data_before_reset(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    for len in [1, 50, 100] {
        let pair = pair(driver)?;
        let bytes = pattern(len);
        carry(driver, pair.client, pair.server, &bytes)?;
        driver.send(pair.server, b"never read");
        driver.engine.reading(pair.client, false);
        driver.send(pair.client, &bytes);
        driver.turn(Duration::ZERO)?;
        driver.close_with(pair.client, Ending::Reset);
        driver.until("the failure is told", |driver| driver.events(pair.server).is_over())?;
        let told = driver.events(pair.server);
        check!((told.ends, told.broken.len()) == (0, 1), "{told:?}");
        let twice = [&bytes[..], &bytes].concat();
        check!(twice.starts_with(&told.bytes) && told.bytes.len() >= len, "{} bytes", told.bytes.len());
        driver.settle(3)?;
        driver.close(pair.server);
    }
    Ok(())
}

fn many_ready(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let pairs = pairs(driver, COUNT, &Default::default())?;
    for round in 1..=3 {
        for pair in &pairs {
            driver.send(pair.client, b"x");
        }
        let turns = driver.turns();
        driver.until("each stream is served", |driver| {
            pairs.iter().all(|pair| driver.events(pair.server).bytes.len() >= round)
        })?;
        check!(driver.turns() - turns <= 2 * COUNT as u64, "it took {} turns", driver.turns() - turns);
        driver.until("each send is over", |driver| {
            pairs.iter().all(|pair| !driver.events(pair.client).is_sending())
        })?;
    }
    Ok(())
}

fn urgent_data(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let (ours, theirs) = socket_pair()?;
    let key = driver.attach(Transport::new(ours), Role::Stream)?;
    let theirs = socket2::Socket::from(theirs);
    theirs.send_out_of_band(b"!")?;
    driver.settle(3)?;
    driver.rests()?;
    theirs.send(b"plain")?;
    driver.until("plain data arrives", |driver| driver.events(key).bytes.ends_with(b"plain"))?;
    check!(!driver.events(key).is_over(), "{:?}", driver.events(key));
    Ok(())
}

/// How many streams are ready at once.
const COUNT: usize = 200;
