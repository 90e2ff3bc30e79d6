//! E, F, G, K, M: exhaustion, time, wakes, faults and memory.

use std::{thread, time::Instant};

use reactor::{ListenOptions, engine::Event};

use super::prelude::*;
use crate::suite::exhaust;

pub(super) const ROWS: &[Row] = &[
    row(
        "E1",
        "without descriptors a listener fails once, rests, and then accepts all who waited",
        &[Need::Sockets],
        no_descriptors,
    ),
    row("E6a", "an address in use is refused as such", &[], address_in_use),
    row("E6b", "an address of somebody else is refused as such", &[], address_not_ours),
    row("F3a", "a wait is not early, and seldom returns without a reason", &[], never_early),
    row("F3b", "the engine's clock does not run ahead of the system's", &[Need::Sockets], clock_ahead),
    row("F11", "a timeout beyond every limit is accepted", &[], endless_timeout),
    row("G1", "no wake of another thread is lost", &[Need::Sockets], wakes_of_a_thread),
    row("G2", "many wakes coalesce into one", &[], many_wakes),
    row("G3", "a wake between two events of a batch ends the next wait", &[], wake_in_batch),
    row("G8", "a waker outlives its engine", &[], waker_outlives),
    row("K9", "after every misuse a wait still works", &[], misuse),
    row("M3", "a chunk shows the bytes that came, and no others", &[], chunk_is_exact),
];

fn no_descriptors(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let (listener, address) = listen(driver, &fixture.any_address())?;
    driver.engine.reading(listener, false);
    driver.settle(2)?;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let client = connect(driver, &address)?;
        driver.until("it is connected", |driver| !driver.events(client).connected.is_empty())?;
        clients.push(client);
    }
    driver.events_mut(listener).accepted.clear();
    let taken = exhaust()?;
    driver.engine.reading(listener, true);
    let outcome =
        driver.until("the failure is told", |driver| !driver.events(listener).not_accepted.is_empty());
    let rested = driver.settle(3).and_then(|()| driver.rests());
    drop(taken);
    outcome?;
    rested?;
    check!(driver.events(listener).not_accepted.len() == 1, "{:?}", driver.events(listener).not_accepted);
    driver.engine.reading(listener, true);
    driver
        .until("each client is served", |driver| driver.events(listener).accepted.len() >= clients.len())?;
    check!(clients.iter().all(|client| !driver.events(*client).is_over()), "one was sent away");
    Ok(())
}

fn address_in_use(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let (_, address) = listen(driver, &fixture.any_address())?;
    let second = driver.engine.listen(&address, &ListenOptions::default()).map(drop);
    check!(second.as_ref().is_err_and(|error| error.kind() == ErrorKind::AddrInUse), "{second:?}");
    Ok(())
}

fn address_not_ours(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    // This address is reserved for documentation, so no host has it.
    let address = Address::Ip(([192, 0, 2, 1], 0).into());
    let result = driver.engine.listen(&address, &ListenOptions::default()).map(drop);
    check!(result.as_ref().is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable), "{result:?}");
    Ok(())
}

fn never_early(fixture: &mut Fixture<'_>) -> Outcome {
    let mut engine = fixture.engine();
    let mut waits = 0;
    for _ in 0..WAITS {
        let timeout = Duration::from_micros(fixture.up_to(3_000) as u64);
        let deadline = engine.host().now() + timeout;
        while engine.host().now() < deadline {
            engine.wait(Some(deadline - engine.host().now()))?;
            waits += 1;
            check!(engine.next().is_none(), "an event came from nowhere");
            check!(waits <= 2 * WAITS, "{waits} waits returned for {WAITS} timeouts");
        }
    }
    Ok(())
}

fn clock_ahead(fixture: &mut Fixture<'_>) -> Outcome {
    let mut engine = fixture.engine();
    for _ in 0..20 {
        let (theirs, ours) = (engine.host().now(), Instant::now());
        engine.wait(Some(Duration::from_millis(5)))?;
        let told = engine.host().now() - theirs;
        // Read this clock after the engine's, so that it can only be ahead.
        let passed = ours.elapsed();
        check!(told <= passed + CLOCK_GRAIN, "the engine says that {told:?} passed in {passed:?}");
    }
    Ok(())
}

fn endless_timeout(fixture: &mut Fixture<'_>) -> Outcome {
    let mut engine = fixture.engine();
    for timeout in [Duration::from_secs(30 * 86_400), Duration::from_millis(1 << 31), Duration::MAX] {
        engine.waker().wake();
        engine.wait(Some(timeout))?;
        check!(engine.next().is_none(), "a wake is no event");
    }
    Ok(())
}

fn wakes_of_a_thread(fixture: &mut Fixture<'_>) -> Outcome {
    let mut engine = fixture.engine();
    let waker = engine.waker();
    let (seen, is_seen) = std::sync::mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        let mut woken = 0;
        loop {
            waker.wake_by_ref();
            match is_seen.recv() {
                Ok(()) => woken += 1,
                Err(_) => return woken,
            }
        }
    });
    let mut lost = None;
    for round in 0..WAKES {
        let began = Instant::now();
        engine.wait(Some(LOST_AFTER))?;
        if began.elapsed() >= LOST_AFTER {
            lost = Some(round);
            break;
        }
        if seen.send(()).is_err() {
            break;
        }
    }
    drop(seen);
    let woken = thread.join().map_err(|_| "the waking thread panicked")?;
    check!(lost.is_none(), "wake {lost:?} of {WAKES} was lost");
    check!(woken == WAKES, "{woken} wakes");
    Ok(())
}

fn many_wakes(fixture: &mut Fixture<'_>) -> Outcome {
    let mut driver = fixture.driver();
    let waker = driver.engine.waker();
    for _ in 0..200_000 {
        waker.wake_by_ref();
    }
    let before = driver.engine.host().now();
    driver.engine.wait(Some(LONG))?;
    check!(driver.engine.next().is_none(), "a wake is no event");
    check!(driver.engine.host().now() - before < LONG, "the wakes were lost");
    driver.rests()
}

fn wake_in_batch(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let pair = pair(driver)?;
    let waker = driver.engine.waker();
    for round in 0..20 {
        driver.send(pair.client, b"x");
        let mut woken = false;
        for _ in 0..50 {
            driver.turn_with(Duration::from_millis(20), |_, _| {
                waker.wake_by_ref();
                woken = true;
            })?;
            if woken {
                break;
            }
        }
        check!(woken, "no event in round {round}");
        let before = driver.engine.host().now();
        driver.turn(LONG)?;
        check!(driver.engine.host().now() - before < LONG, "the wake of round {round} was lost");
        driver.until("the send is over", |driver| !driver.events(pair.client).is_sending())?;
        driver.settle(3)?;
    }
    Ok(())
}

fn waker_outlives(fixture: &mut Fixture<'_>) -> Outcome {
    let engine = fixture.engine();
    let (one, two) = (engine.waker(), engine.waker());
    drop(engine);
    one.wake_by_ref();
    thread::spawn(move || two.wake()).join().map_err(|_| "the waking thread panicked".into())
}

fn misuse(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let pair = pair(driver)?;
    for key in [driver.key(), driver.key()] {
        driver.engine.close(key, Ending::Orderly);
        driver.engine.detach(key);
        driver.engine.probe(key);
        driver.engine.reading(key, false);
    }
    driver.rests()?;
    carry(driver, pair.client, pair.server, b"still here")
}

fn chunk_is_exact(fixture: &mut Fixture<'_>) -> Outcome {
    let driver = &mut fixture.driver();
    let pair = pair(driver)?;
    // The long ones fill the buffers. A later short one would then show bytes that it does not own.
    for len in [3_000, 1, 200, 2] {
        let bytes = pattern(len);
        driver.send(pair.client, &bytes);
        let mut got = Vec::new();
        for _ in 0..20_000 {
            driver.engine.wait(Some(Duration::from_millis(20)))?;
            while let Some((_, event)) = driver.engine.next() {
                match event {
                    Event::Got(mut chunk) => {
                        check!(!chunk.bytes().is_empty(), "a chunk is empty");
                        got.extend_from_slice(chunk.bytes());
                        chunk.bytes().fill(0xcc);
                        driver.engine.give(chunk);
                    }
                    Event::Sent(sent) if !sent.queue.is_empty() => driver.send_queue(pair.client, sent.queue),
                    Event::Sent(_) => {}
                    other => return Err(format!("it told {other:?}").into()),
                }
            }
            driver.send_rest(pair.client);
            if got.len() >= len {
                break;
            }
        }
        check!(got == bytes, "{} of {len} bytes, or others", got.len());
    }
    Ok(())
}

const WAITS: usize = 60;
const WAKES: usize = 5_000;
/// A wake that takes this long is lost.
const LOST_AFTER: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(2);
/// The two clocks are not read at the same moment.
const CLOCK_GRAIN: Duration = Duration::from_micros(100);
