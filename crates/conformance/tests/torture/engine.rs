//! A small echo in a harsh world whose engine's n-th call fails, for every n: the wrapper keeps the contract.

use std::time::Duration;

use conformance::{EngineDriver, Stop, torture::FailNth};
use reactor::{Address, ConnectOptions, Interest, ListenOptions, engine::Role};
use sim::{Leaks, World};

/// Connects, sends, echoes and ends. Stops at the first error. The driver checks every event.
fn script(world: &mut World, driver: &mut EngineDriver) -> Result<(), Stop> {
    let any: Address = "127.0.0.1:0".parse().expect("an address");
    let feed = world.virtual_source();
    feed.put(b"x");
    let watched = driver.watch(feed.source(), Interest::Read)?;
    driver.engine.read(feed.source(), &mut [0; 4])?;
    let listener = driver.engine.listen(&any, &ListenOptions::default())?;
    let listener = driver.attach(listener, Role::Listener)?;
    let address = driver.engine.local(listener)?;
    let client = driver.engine.connect(&address, &ConnectOptions::default())?;
    let client = driver.attach(client, Role::Connecting)?;
    let mut server = None;
    let mut echoed = 0;
    for _ in 0..200 {
        driver.turn(Duration::ZERO)?;
        if let Some((transport, _)) = driver.events_mut(listener).accepted.pop() {
            server = Some(driver.attach(transport, Role::Stream)?);
            driver.send(client, &SAID);
        }
        let Some(server) = server else { continue };
        driver.send_rest(client);
        driver.send_rest(server);
        if driver.events(server).bytes.len() > echoed && !driver.events(server).is_sending() {
            let bytes = driver.events(server).bytes[echoed..].to_vec();
            echoed += bytes.len();
            driver.send(server, &bytes);
        }
        if driver.events(client).bytes.len() == SAID.len() {
            break;
        }
    }
    driver.engine.shutdown(client)?;
    driver.unwatch(watched, feed.source());
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
            let mut driver = EngineDriver::new(torture.engine(Box::new(world.engine())));
            let outcome = script(&mut world, &mut driver);
            if let Err(Stop::Failed(how)) = &outcome {
                let is_ours = how.contains(&std::io::Error::from_raw_os_error(libc::ENOMEM).to_string());
                // The engine reports a failed connect, or a shutdown after it, with its own error.
                assert!(is_ours || how.contains("NotConnected"), "call {nth}, seed {seed}: {how}");
            }
            drop(driver);
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
