//! B: readiness, interest and the order of events.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use reactor::{
    Interest, Source,
    engine::{Ending, Role, Transport},
};

use super::{carry, pattern};
use crate::{
    suite::{Need, Outcome, Row, check},
    world::{World, accept, connect, listen, pair, pairs},
};

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

const fn row(
    id: &'static str,
    name: &'static str,
    needs: &'static [Need],
    run: fn(&mut World<'_>) -> Outcome,
) -> Row {
    Row { id, name, needs, slow: false, run }
}

fn socket_pair() -> std::io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let ours = TcpStream::connect(listener.local_addr()?)?;
    let (theirs, _) = listener.accept()?;
    ours.set_nonblocking(true)?;
    Ok((ours, theirs))
}

fn read_by_another(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let (ours, mut theirs) = socket_pair()?;
    let mut thief = ours.try_clone()?;
    let key = drive.attach(Transport::new(ours), Role::Stream)?;
    drive.settle(2)?;
    let mut stolen = Vec::new();
    for _ in 0..20 {
        theirs.write_all(b"x")?;
        drive.engine.wait(Some(Duration::ZERO))?;
        let mut bytes = [0; 8];
        match thief.read(&mut bytes) {
            Ok(count) => stolen.extend_from_slice(&bytes[..count]),
            Err(error) => check!(error.kind() == std::io::ErrorKind::WouldBlock, "{error}"),
        }
        drive.turn(Duration::ZERO)?;
    }
    drive.settle(3)?;
    let told = drive.told(key);
    check!(!told.is_over(), "an empty read was told as an end: {told:?}");
    check!(stolen.len() + told.bytes.len() == 20, "{} + {} bytes", stolen.len(), told.bytes.len());
    drive.rests()
}

fn pauses_in_a_burst(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let pair = pair(drive)?;
    let bytes = pattern(100_000);
    drive.send(pair.client, &bytes);
    let (mut seen, mut rests) = (0, Ok(0));
    drive.until("all bytes have arrived", |drive| {
        drive.send_rest(pair.client);
        let chunks = drive.told(pair.server).chunks;
        if std::mem::replace(&mut seen, chunks) != chunks && rests.is_ok() {
            // After each chunk the stream rests for a turn that does not wait.
            drive.engine.reading(pair.server, false);
            rests = drive.turn(Duration::ZERO);
            drive.engine.reading(pair.server, true);
        }
        drive.told(pair.server).bytes.len() >= bytes.len() || rests.is_err()
    })?;
    rests?;
    check!(drive.told(pair.server).bytes == bytes, "what arrived differs");
    Ok(())
}

fn data_before_attach(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let (listener, address) = listen(drive, &world.any_address())?;
    let client = connect(drive, &address)?;
    let transport = accept(drive, listener, client)?;
    drive.send(client, b"early");
    drive.until("it is taken", |drive| {
        drive.send_rest(client);
        drive.told(client).is_sent()
    })?;
    drive.settle(3)?;
    let server = drive.attach(transport, Role::Stream)?;
    drive.until("it has arrived", |drive| drive.told(server).bytes.len() == 5)?;
    check!(drive.told(server).bytes == b"early", "{:?}", drive.told(server).bytes);
    Ok(())
}

fn toggled_reading(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let pair = pair(drive)?;
    let bytes = pattern(50_000);
    drive.send(pair.client, &bytes);
    for _ in 0..5_000 {
        drive.engine.reading(pair.server, world.up_to(2) == 1);
        drive.turn(Duration::ZERO)?;
        drive.send_rest(pair.client);
    }
    drive.engine.reading(pair.server, true);
    drive.until("all bytes have arrived", |drive| {
        drive.send_rest(pair.client);
        drive.told(pair.server).bytes.len() >= bytes.len()
    })?;
    check!(drive.told(pair.server).bytes == bytes, "what arrived differs");
    Ok(())
}

fn toggled_interest(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let (ours, mut theirs) = socket_pair()?;
    theirs.write_all(b"x")?;
    let key = drive.watch(Source::of(&ours), Interest::Read)?;
    drive.until("it is readable", |drive| drive.told(key).ready.iter().any(|ready| ready.readable))?;
    drive.engine.watch(key, Source::of(&ours), Some(Interest::Both))?;
    drive.until("it is writable", |drive| drive.told(key).ready.iter().any(|ready| ready.writable))?;
    drive.engine.watch(key, Source::of(&ours), None)?;
    drive.rests()?;
    drop(theirs);
    drive.turn(Duration::from_millis(20))?;
    drive.rests()?;
    drive.note(key).ready.clear();
    drive.engine.watch(key, Source::of(&ours), Some(Interest::Read))?;
    drive
        .until("it is readable again", |drive| drive.told(key).ready.iter().any(|ready| ready.can_read()))?;
    drive.unwatch(key, Source::of(&ours));
    Ok(())
}

fn reset_while_paused(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let pair = pair(drive)?;
    drive.settle(2)?;
    drive.engine.reading(pair.server, false);
    drive.close_with(pair.client, Ending::Reset);
    drive.settle(5)?;
    drive.rests()?;
    drive.engine.reading(pair.server, true);
    drive.until("the failure is told", |drive| drive.told(pair.server).is_over())?;
    drive.rests()?;
    let told = drive.told(pair.server);
    check!((told.ends, told.broken.len()) == (0, 1), "{told:?}");
    Ok(())
}

fn data_before_end(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let pair = pair(drive)?;
    let bytes = pattern(if world.is_virtual() { 50_000 } else { 1 << 20 });
    drive.send(pair.client, &bytes);
    drive.until("all bytes are taken", |drive| {
        drive.send_rest(pair.client);
        drive.told(pair.client).sent == bytes.len()
    })?;
    drive.close(pair.client);
    drive.until("the end is told", |drive| drive.told(pair.server).is_over())?;
    let told = drive.told(pair.server);
    check!(told.broken.is_empty() && told.bytes == bytes, "{} bytes, {:?}", told.bytes.len(), told.broken);
    drive.rests()
}

fn refused_connect(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let (listener, address) = listen(drive, &world.any_address())?;
    drive.close(listener);
    drive.settle(2)?;
    let client = match connect(drive, &address) {
        Ok(client) => client,
        // A kernel may refuse at once. Then the engine has nothing to report.
        Err(crate::Stop::Failed(how)) if how.contains("refused") => return Ok(()),
        Err(other) => return Err(other),
    };
    drive.until("the connect is over", |drive| !drive.told(client).connected.is_empty())?;
    drive.rests()?;
    let told = drive.told(client);
    let kind = told.connected[0].as_ref().map_err(|error| error.kind());
    check!(kind == Err(std::io::ErrorKind::ConnectionRefused), "{told:?}");
    check!(!told.is_over(), "a stream that never was has an end: {told:?}");
    drive.close(client);
    Ok(())
}

fn connected_once(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let mut addresses = vec![world.any_address()];
    if cfg!(target_os = "linux") {
        let name = format!("conformance-{}-{}", std::process::id(), world.up_to(1 << 30));
        addresses.push(reactor::Address::Abstract(name.into_bytes()));
    }
    for address in addresses {
        let (listener, address) = listen(drive, &address)?;
        let client = connect(drive, &address)?;
        let transport = accept(drive, listener, client)?;
        let server = drive.attach(transport, Role::Stream)?;
        drive.settle(3)?;
        check!(drive.told(client).connected.len() == 1, "{:?}", drive.told(client).connected);
        check!(drive.engine.peer(client)? == address, "{:?}", drive.engine.peer(client)?);
        carry(drive, client, server, b"there")?;
        carry(drive, server, client, b"back")?;
        for key in [listener, client, server] {
            drive.close(key);
        }
    }
    drive.settle(3)
}

fn data_before_reset(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    for len in [1, 50, 100] {
        let pair = pair(drive)?;
        let bytes = pattern(len);
        carry(drive, pair.client, pair.server, &bytes)?;
        drive.send(pair.server, b"never read");
        drive.engine.reading(pair.client, false);
        drive.send(pair.client, &bytes);
        drive.turn(Duration::ZERO)?;
        drive.close_with(pair.client, Ending::Reset);
        drive.until("the failure is told", |drive| drive.told(pair.server).is_over())?;
        let told = drive.told(pair.server);
        check!((told.ends, told.broken.len()) == (0, 1), "{told:?}");
        let twice = [&bytes[..], &bytes].concat();
        check!(twice.starts_with(&told.bytes) && told.bytes.len() >= len, "{} bytes", told.bytes.len());
        drive.settle(3)?;
        drive.close(pair.server);
    }
    Ok(())
}

fn many_ready(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let pairs = pairs(drive, COUNT, &Default::default())?;
    for round in 1..=3 {
        for pair in &pairs {
            drive.send(pair.client, b"x");
        }
        let turns = drive.turns();
        drive.until("each stream is served", |drive| {
            pairs.iter().all(|pair| drive.told(pair.server).bytes.len() >= round)
        })?;
        check!(drive.turns() - turns <= 2 * COUNT as u64, "it took {} turns", drive.turns() - turns);
        drive.until("each send is over", |drive| {
            pairs.iter().all(|pair| !drive.told(pair.client).is_sending())
        })?;
    }
    Ok(())
}

fn urgent_data(world: &mut World<'_>) -> Outcome {
    let drive = &mut world.drive();
    let (ours, theirs) = socket_pair()?;
    let key = drive.attach(Transport::new(ours), Role::Stream)?;
    let theirs = socket2::Socket::from(theirs);
    theirs.send_out_of_band(b"!")?;
    drive.settle(3)?;
    drive.rests()?;
    theirs.send(b"plain")?;
    drive.until("plain data arrives", |drive| drive.told(key).bytes.ends_with(b"plain"))?;
    check!(!drive.told(key).is_over(), "{:?}", drive.told(key));
    Ok(())
}

/// How many streams are ready at once.
const COUNT: usize = 200;
