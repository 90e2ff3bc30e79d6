//! C8, C9, D12: datagrams stay whole and separate, and the fate of one does not affect the socket.

use reactor::{BindOptions, Ecn, Group, Outbound, engine::DatagramQueue};

use super::prelude::*;
use crate::driver::ReceivedDatagram;

pub(super) const ROWS: &[Row] = &[
    row("C8b", "a datagram of no bytes is one, and no end", DATAGRAMS, empty),
    row("C8c", "datagrams keep their bounds and their order, however many leave together", DATAGRAMS, bounds),
    row("C8d", "a datagram says who sent it, to which address, and what routers said", DATAGRAMS, details),
    row("C9", "a datagram that is too long is an error of that send only", DATAGRAMS, too_long),
    row("C9b", "a datagram longer than the buffer is truncated, and says so", UNIX, truncated),
    row("C9c", "a send that found no room is told of it once, and nothing is lost", UNIX, no_room),
    row("D12", "a report of an unreachable port is of that send only", DATAGRAMS, unreachable),
    row("D12b", "a connected socket outlives its peer", DATAGRAMS, connected),
    row("D12c", "what is sent to a group reaches its members only", DATAGRAMS, group),
    row("C8e", "while reading is off nothing is told, and nothing lost", DATAGRAMS, off),
    row("C8f", "detached and attached again, a socket goes on", DATAGRAMS, again),
];

/// Opens a socket on any port of the loopback, and attaches it.
fn bind(driver: &mut EngineDriver) -> Result<(Key, Address), Stop> {
    bind_with(driver, &Address::Ip(([127, 0, 0, 1], 0).into()), &BindOptions::default())
}

fn bind_with(
    driver: &mut EngineDriver,
    address: &Address,
    options: &BindOptions,
) -> Result<(Key, Address), Stop> {
    let transport = driver.engine.bind(address, options)?;
    let key = driver.attach(transport, Role::Datagrams)?;
    let address = driver.engine.local(key)?;
    Ok((key, address))
}

/// Sends all of a queue, and waits for room where necessary.
fn send(driver: &mut EngineDriver, key: Key, queue: &mut DatagramQueue) -> Outcome {
    let mut rooms = driver.events(key).rooms;
    driver.send_datagrams(key, queue);
    while !queue.is_empty() {
        driver.until("there is room", |driver| driver.events(key).rooms > rooms)?;
        rooms = driver.events(key).rooms;
        driver.send_datagrams(key, queue);
    }
    Ok(())
}

/// Sends one datagram, once there is room.
fn post(driver: &mut EngineDriver, key: Key, to: Option<&Address>, bytes: &[u8]) -> Outcome {
    let mut queue = DatagramQueue::default();
    queue.push(Outbound { to, ..Outbound::new(bytes) });
    send(driver, key, &mut queue)
}

fn arrived(driver: &mut EngineDriver, key: Key, count: usize) -> Outcome {
    driver.until("all datagrams have arrived", |driver| driver.events(key).datagrams.len() >= count)
}

fn bytes_of(letters: &[ReceivedDatagram]) -> Vec<&[u8]> {
    letters.iter().map(|letter| &letter.bytes[..]).collect()
}

/// Checks that the engine has reported no end and no failure of the key.
fn lives(driver: &EngineDriver, key: Key) -> Outcome {
    let told = driver.events(key);
    check!(!told.is_over(), "{} ends, {:?}", told.ends, told.broken);
    Ok(())
}

fn empty(fixture: &mut Fixture<'_>) -> Outcome {
    let mut driver = fixture.driver();
    let ((one, from), (other, to)) = (bind(&mut driver)?, bind(&mut driver)?);
    for bytes in [&b"before"[..], b"", b"", b"behind"] {
        post(&mut driver, one, Some(&to), bytes)?;
    }
    arrived(&mut driver, other, 4)?;
    driver.settle(3)?;
    let told = &driver.events(other).datagrams;
    check!(bytes_of(told) == [&b"before"[..], b"", b"", b"behind"], "{told:?}");
    check!(told.iter().all(|letter| letter.from == from && !letter.truncated), "{told:?}");
    lives(&driver, other)?;
    driver.rests()
}

fn bounds(fixture: &mut Fixture<'_>) -> Outcome {
    let mut driver = fixture.driver();
    let ((one, _), (other, to), (third, third_to)) =
        (bind(&mut driver)?, bind(&mut driver)?, bind(&mut driver)?);
    // Mixed lengths: runs of equal ones, shorter ones after them, and others in between.
    let lengths = [100, 100, 100, 7, 100, 0, 100, 1200, 1200, 1200, 1199, 1200, 1, 1, 1, 0, 2, 1, 300, 300];
    let sent: Vec<Vec<u8>> = lengths.iter().enumerate().map(|(n, len)| vec![n as u8; *len]).collect();
    let mut queue = DatagramQueue::default();
    for (n, bytes) in sent.iter().enumerate() {
        queue.push(Outbound::to(&to, bytes));
        if n % 6 == 5 {
            queue.push(Outbound::to(&third_to, bytes));
        }
    }
    queue.push(Outbound::to(&to, &pattern(1_000)).segments(300));
    send(&mut driver, one, &mut queue)?;
    arrived(&mut driver, other, sent.len() + 4)?;
    arrived(&mut driver, third, 3)?;
    driver.settle(3)?;
    let told = &driver.events(other).datagrams;
    check!(
        bytes_of(&told[..sent.len()]) == sent,
        "{:?}",
        told.iter().map(|l| l.bytes.len()).collect::<Vec<_>>()
    );
    let segments = pattern(1_000);
    check!(bytes_of(&told[sent.len()..]) == segments.chunks(300).collect::<Vec<_>>(), "of segments");
    let told = &driver.events(third).datagrams;
    check!(bytes_of(told) == [&sent[5][..], &sent[11], &sent[17]], "{told:?}");
    driver.rests()
}

fn details(fixture: &mut Fixture<'_>) -> Outcome {
    let mut driver = fixture.driver();
    let any = Address::Ip(([0, 0, 0, 0], 0).into());
    let ((one, from), (other, at)) =
        (bind(&mut driver)?, bind_with(&mut driver, &any, &BindOptions::default())?);
    let port = at.ip().map(|ip| ip.port()).ok_or("an address of another kind")?;
    // On Linux, the loopback is a whole network.
    let is_wide = fixture.is_virtual() || cfg!(target_os = "linux");
    let to = if is_wide { [127, 0, 0, 2] } else { [127, 0, 0, 1] };
    let to = Address::Ip((to, port).into());
    let mut queue = DatagramQueue::default();
    queue.push(Outbound::to(&to, b"marked").ecn(Ecn::Capable0));
    queue.push(Outbound::to(&to, b"plain"));
    send(&mut driver, one, &mut queue)?;
    arrived(&mut driver, other, 2)?;
    let told = &driver.events(other).datagrams;
    check!(told.iter().all(|letter| letter.from == from), "{told:?}");
    if is_wide {
        let expected = to.ip().map(|ip| ip.ip());
        check!(told.iter().all(|letter| letter.to == expected), "{told:?}");
        check!((told[0].ecn, told[1].ecn) == (Ecn::Capable0, Ecn::NotCapable), "{told:?}");
        // An answer comes from the address to which the question was sent.
        queue.push(Outbound { from: expected, ..Outbound::to(&from, b"answer") });
        send(&mut driver, other, &mut queue)?;
        arrived(&mut driver, one, 1)?;
        check!(driver.events(one).datagrams[0].from == to, "{:?}", driver.events(one).datagrams);
    }
    driver.rests()
}

fn too_long(fixture: &mut Fixture<'_>) -> Outcome {
    let mut driver = fixture.driver();
    let ((one, _), (other, to)) = (bind(&mut driver)?, bind(&mut driver)?);
    let long = pattern(LENGTH_MAX + 1);
    let mut queue = DatagramQueue::default();
    for bytes in [&b"before"[..], &long, b"between", &long, b"behind"] {
        queue.push(Outbound::to(&to, bytes));
    }
    send(&mut driver, one, &mut queue)?;
    arrived(&mut driver, other, 3)?;
    driver.until("both errors are told", |driver| driver.events(one).undelivered.len() >= 2)?;
    driver.settle(3)?;
    check!(
        bytes_of(&driver.events(other).datagrams) == [&b"before"[..], b"between", b"behind"],
        "what arrived"
    );
    let undelivered = &driver.events(one).undelivered;
    check!(
        undelivered.len() == 2 && undelivered.iter().all(|(of, _)| *of == Some(to.clone())),
        "{undelivered:?}"
    );
    #[cfg(target_os = "linux")]
    check!(undelivered.iter().all(|(_, error)| error.raw_os_error() == Some(90)), "{undelivered:?}");
    // A datagram of exactly the maximum length passes, and so does one that is a byte shorter.
    if cfg!(target_os = "linux") {
        for (at, length) in [(3, LENGTH_MAX - 1), (4, LENGTH_MAX)] {
            post(&mut driver, one, Some(&to), &long[..length])?;
            arrived(&mut driver, other, at + 1)?;
            check!(
                driver.events(other).datagrams[at].bytes == long[..length],
                "one of {length} bytes differs"
            );
        }
    }
    lives(&driver, one)?;
    driver.rests()
}

fn truncated(fixture: &mut Fixture<'_>) -> Outcome {
    let mut driver = fixture.driver();
    let (other, to) = bind_unix(&mut driver, "truncated")?;
    let (one, _) = bind_with(&mut driver, &Address::Unnamed, &BindOptions::default())?;
    let long = pattern(100_000);
    for bytes in [&long[..], b"short"] {
        post(&mut driver, one, Some(&to), bytes)?;
    }
    arrived(&mut driver, other, 2)?;
    let told = &driver.events(other).datagrams;
    check!(told.iter().all(|letter| letter.from == Address::Unnamed), "{:?}", told[1]);
    let count = told[0].bytes.len();
    check!(told[0].truncated && count < long.len(), "{count} bytes, truncated: {}", told[0].truncated);
    check!(told[0].bytes == long[..count], "the beginning is not what was sent");
    check!(told[1].bytes == b"short" && !told[1].truncated, "{:?}", told[1]);
    lives(&driver, other)?;
    driver.rests()
}

/// Binds a socket with an abstract name, which is not in the file system.
fn bind_unix(driver: &mut EngineDriver, name: &str) -> Result<(Key, Address), Stop> {
    let name = format!("reactor-conformance-{}-{name}", std::process::id());
    bind_with(driver, &Address::Abstract(name.into_bytes()), &BindOptions::default())
}

fn no_room(fixture: &mut Fixture<'_>) -> Outcome {
    let mut driver = fixture.driver();
    let (other, to) = bind_unix(&mut driver, "room")?;
    driver.engine.reading(other, false);
    let mut options = BindOptions::default();
    options.peer = Some(to);
    let (one, _) = bind_with(&mut driver, &Address::Unnamed, &options)?;
    let sent: Vec<Vec<u8>> = (0..2_000_u32).map(|n| n.to_be_bytes().repeat(100)).collect();
    let mut queue = DatagramQueue::default();
    sent.iter().for_each(|bytes| queue.push(Outbound::new(bytes)));
    driver.send_datagrams(one, &mut queue);
    check!(!queue.is_empty(), "2,000 datagrams found room with nobody who reads them");
    check!(driver.events(one).undelivered.is_empty(), "{:?}", driver.events(one).undelivered);
    driver.engine.reading(other, true);
    send_rest(&mut driver, one, &mut queue)?;
    arrived(&mut driver, other, sent.len())?;
    driver.settle(3)?;
    check!(bytes_of(&driver.events(other).datagrams) == sent, "not as they were sent");
    check!(driver.events(one).undelivered.is_empty(), "{:?}", driver.events(one).undelivered);
    driver.rests()
}

/// Sends the rest of a queue that found no room.
fn send_rest(driver: &mut EngineDriver, key: Key, queue: &mut DatagramQueue) -> Outcome {
    let rooms = driver.events(key).rooms;
    driver.until("there is room", |driver| driver.events(key).rooms > rooms)?;
    send(driver, key, queue)
}

/// Returns an address to which no socket is bound any more.
fn deserted(driver: &mut EngineDriver) -> Result<Address, Stop> {
    let (key, address) = bind(driver)?;
    driver.close(key);
    driver.settle(3)?;
    Ok(address)
}

fn unreachable(fixture: &mut Fixture<'_>) -> Outcome {
    let mut driver = fixture.driver();
    let ((one, _), (other, to)) = (bind(&mut driver)?, bind(&mut driver)?);
    let nobody = deserted(&mut driver)?;
    let mut queue = DatagramQueue::default();
    for (to, bytes) in
        [(&to, &b"one"[..]), (&nobody, b"lost"), (&to, b"two"), (&nobody, b""), (&to, b"three")]
    {
        queue.push(Outbound::to(to, bytes));
    }
    send(&mut driver, one, &mut queue)?;
    arrived(&mut driver, other, 3)?;
    check!(bytes_of(&driver.events(other).datagrams) == [&b"one"[..], b"two", b"three"], "what arrived");
    // Only Linux reports to a socket that is not connected.
    if cfg!(target_os = "linux") || fixture.is_virtual() {
        driver.until("both reports are told", |driver| driver.events(one).undelivered.len() >= 2)?;
    }
    driver.settle(3)?;
    for (of, error) in &driver.events(one).undelivered {
        check!(is_refusal(error), "{error:?}");
        check!(of.as_ref().is_none_or(|of| *of == nobody), "{of:?} is not {nobody}");
    }
    check!(driver.events(one).undelivered.len() <= 2, "{:?}", driver.events(one).undelivered);
    lives(&driver, one)?;
    post(&mut driver, one, Some(&to), b"after")?;
    arrived(&mut driver, other, 4)?;
    driver.rests()
}

/// Reports whether the error is a refusal, which Windows calls a reset.
fn is_refusal(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionRefused)
        || cfg!(windows) && error.kind() == ErrorKind::ConnectionReset
}

fn connected(fixture: &mut Fixture<'_>) -> Outcome {
    let mut driver = fixture.driver();
    let nobody = deserted(&mut driver)?;
    let mut options = BindOptions::default();
    options.peer = Some(nobody.clone());
    let (one, from) = bind_with(&mut driver, &Address::Ip(([127, 0, 0, 1], 0).into()), &options)?;
    post(&mut driver, one, None, b"lost")?;
    driver.until("the report is told", |driver| !driver.events(one).undelivered.is_empty())?;
    check!(is_refusal(&driver.events(one).undelivered[0].1), "{:?}", driver.events(one));
    // Now a peer is bound there. A stranger is bound elsewhere.
    let (other, _) = bind_with(&mut driver, &nobody, &BindOptions::default())?;
    let (stranger, _) = bind(&mut driver)?;
    post(&mut driver, stranger, Some(&from), b"strange")?;
    post(&mut driver, one, None, b"question")?;
    arrived(&mut driver, other, 1)?;
    post(&mut driver, other, Some(&from), b"answer")?;
    arrived(&mut driver, one, 1)?;
    driver.settle(3)?;
    check!(bytes_of(&driver.events(one).datagrams) == [b"answer"], "{:?}", driver.events(one).datagrams);
    check!(driver.engine.peer(one)? == nobody, "the peer's address");
    lives(&driver, one)?;
    driver.rests()
}

fn group(fixture: &mut Fixture<'_>) -> Outcome {
    let mut driver = fixture.driver();
    let address = [239, 77, 14, 7];
    let group = Group::V4 { group: address.into(), interface: [127, 0, 0, 1].into() };
    let any = Address::Ip(([0, 0, 0, 0], 0).into());
    let (member, at) = bind_with(&mut driver, &any, &BindOptions::default())?;
    let (other, _) = bind_with(&mut driver, &any, &BindOptions::default())?;
    let (sender, _) = bind(&mut driver)?;
    if let Err(error) = driver.engine.set_member(member, &group, true) {
        return Err(Stop::Skipped(format!("this machine has no multicast: {error}")));
    }
    let to = Address::Ip((address, at.ip().map_or(0, |ip| ip.port())).into());
    post(&mut driver, sender, Some(&to), b"to all")?;
    driver.until("it has arrived, or found no way", |driver| {
        driver.events(member).datagrams.len() + driver.events(sender).undelivered.len() > 0
    })?;
    if let Some((_, error)) = driver.events(sender).undelivered.first() {
        return Err(Stop::Skipped(format!("this machine has no way for multicast: {error}")));
    }
    driver.engine.set_member(member, &group, false)?;
    let twice = driver.engine.set_member(member, &group, false);
    // Wine uses another number for this error.
    let is_right = |error: std::io::Error| cfg!(windows) || error.kind() == ErrorKind::AddrNotAvailable;
    check!(twice.is_err_and(is_right), "left twice");
    post(&mut driver, sender, Some(&to), b"to nobody")?;
    driver.settle(3)?;
    check!(
        bytes_of(&driver.events(member).datagrams) == [b"to all"],
        "{:?}",
        driver.events(member).datagrams
    );
    check!(driver.events(other).datagrams.is_empty(), "{:?}", driver.events(other).datagrams);
    driver.rests()
}

fn off(fixture: &mut Fixture<'_>) -> Outcome {
    let mut driver = fixture.driver();
    let ((one, _), (other, to)) = (bind(&mut driver)?, bind(&mut driver)?);
    let nobody = deserted(&mut driver)?;
    driver.engine.reading(other, false);
    // The read that was in flight has completed by then.
    driver.settle(3)?;
    for bytes in [b"1", b"2", b"3"] {
        post(&mut driver, one, Some(&to), bytes)?;
    }
    post(&mut driver, other, Some(&nobody), b"lost")?;
    driver.settle(3)?;
    // The engine may report the loss now or later. A pending report must not make it spin.
    driver.rests()?;
    check!(driver.events(other).datagrams.is_empty(), "{:?}", driver.events(other).datagrams);
    driver.engine.reading(other, true);
    arrived(&mut driver, other, 3)?;
    check!(
        bytes_of(&driver.events(other).datagrams) == [b"1", b"2", b"3"],
        "{:?}",
        driver.events(other).datagrams
    );
    if cfg!(target_os = "linux") || fixture.is_virtual() {
        driver.until("the report is told", |driver| !driver.events(other).undelivered.is_empty())?;
    }
    driver.settle(3)?;
    check!(driver.events(other).undelivered.len() <= 1, "{:?}", driver.events(other).undelivered);
    lives(&driver, other)?;
    driver.rests()
}

fn again(fixture: &mut Fixture<'_>) -> Outcome {
    let mut driver = fixture.driver();
    let ((one, _), (other, to)) = (bind(&mut driver)?, bind(&mut driver)?);
    driver.detach(other);
    driver.until("it is detached", |driver| driver.events(other).detached.is_some())?;
    post(&mut driver, one, Some(&to), b"meanwhile")?;
    let transport = driver.events_mut(other).detached.take().ok_or("no transport")?;
    driver.events_mut(other).detached = None;
    let other = driver.attach(transport, Role::Datagrams)?;
    arrived(&mut driver, other, 1)?;
    check!(driver.engine.local(other)? == to, "another address");
    driver.close(other);
    post(&mut driver, one, Some(&to), b"late")?;
    driver.settle(3)?;
    lives(&driver, one)?;
    driver.rests()
}

const DATAGRAMS: &[Need] = &[Need::Datagrams];
/// The row needs a Unix socket with an abstract name.
const UNIX: &[Need] = &[Need::Datagrams, Need::Linux];
/// The longest datagram of UDP over IPv4 (RFC 768).
const LENGTH_MAX: usize = 65_507;
