//! A small echo in a harsh world whose engine's n-th call fails, for every n: the wrapper keeps the contract.

use std::time::Duration;

use conformance::{Drive, Stop, torture::FailNth};
use reactor::{Address, ConnectOptions, Interest, ListenOptions, engine::Role};
use sim::{Leaks, World};

/// Connects, sends, echoes and ends. Stops at the first error. The drive checks every event.
fn script(world: &mut World, drive: &mut Drive) -> Result<(), Stop> {
    let any: Address = "127.0.0.1:0".parse().expect("an address");
    let feed = world.feed();
    feed.put(b"x");
    let watched = drive.watch(feed.source(), Interest::Read)?;
    drive.engine.read(feed.source(), &mut [0; 4])?;
    let listener = drive.engine.listen(&any, &ListenOptions::default())?;
    let listener = drive.attach(listener, Role::Listener)?;
    let address = drive.engine.local(listener)?;
    let client = drive.engine.connect(&address, &ConnectOptions::default())?;
    let client = drive.attach(client, Role::Connecting)?;
    let mut server = None;
    let mut echoed = 0;
    for _ in 0..200 {
        drive.turn(Duration::ZERO)?;
        if let Some((transport, _)) = drive.note(listener).accepted.pop() {
            server = Some(drive.attach(transport, Role::Stream)?);
            drive.send(client, &SAID);
        }
        let Some(server) = server else { continue };
        drive.send_rest(client);
        drive.send_rest(server);
        if drive.told(server).bytes.len() > echoed && !drive.told(server).is_sending() {
            let bytes = drive.told(server).bytes[echoed..].to_vec();
            echoed += bytes.len();
            drive.send(server, &bytes);
        }
        if drive.told(client).bytes.len() == SAID.len() {
            break;
        }
    }
    drive.engine.shutdown(client)?;
    drive.unwatch(watched, feed.source());
    Ok(())
}

#[test]
fn each_call_fails_once_and_nothing_leaks_or_breaks_the_contract() {
    let _alone = super::alone();
    for seed in 0..5 {
        let mut nth = 1;
        loop {
            let mut world = conformance::harsh(seed);
            let torture = FailNth::new(nth, libc::ENOMEM);
            let mut drive = Drive::new(torture.engine(Box::new(world.engine())));
            let outcome = script(&mut world, &mut drive);
            if let Err(Stop::Failed(how)) = &outcome {
                let is_ours = how.contains(&std::io::Error::from_raw_os_error(libc::ENOMEM).to_string());
                // The engine reports a failed connect, or a shutdown after it, with its own error.
                assert!(is_ours || how.contains("NotConnected"), "call {nth}, seed {seed}: {how}");
            }
            drop(drive);
            assert_eq!(world.leaks(), Leaks::default(), "call {nth}, seed {seed}");
            if !torture.has_failed() {
                assert_eq!(outcome, Ok(()), "nothing failed in seed {seed}");
                break;
            }
            nth += 1;
        }
        assert!(nth > 20, "only {nth} calls were counted");
    }
}

/// More than one send of a harsh world takes.
const SAID: [u8; 100] = [7; 100];
