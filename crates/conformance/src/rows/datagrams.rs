//! C8, C9, D12: datagrams stay whole and separate, and the fate of one does not affect the socket.

use std::io::ErrorKind;

use reactor::{
    Address, BindOptions, Ecn, Group, Key, Outbound,
    engine::{DatagramQueue, Role},
};

use super::pattern;
use crate::{
    drive::{Drive, Letter},
    suite::{Need, Outcome, Row, Stop, check},
    world::World,
};

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

const fn row(
    id: &'static str,
    name: &'static str,
    needs: &'static [Need],
    run: fn(&mut World<'_>) -> Outcome,
) -> Row {
    Row { id, name, needs, slow: false, run }
}

/// Opens a socket on any port of the loopback, and attaches it.
fn bind(drive: &mut Drive) -> Result<(Key, Address), Stop> {
    bind_with(drive, &Address::Ip(([127, 0, 0, 1], 0).into()), &BindOptions::default())
}

fn bind_with(drive: &mut Drive, address: &Address, options: &BindOptions) -> Result<(Key, Address), Stop> {
    let transport = drive.engine.bind(address, options)?;
    let key = drive.attach(transport, Role::Datagrams)?;
    let address = drive.engine.local(key)?;
    Ok((key, address))
}

/// Sends all of a queue, and waits for room where necessary.
fn send(drive: &mut Drive, key: Key, queue: &mut DatagramQueue) -> Outcome {
    let mut rooms = drive.told(key).rooms;
    drive.send_datagrams(key, queue);
    while !queue.is_empty() {
        drive.until("there is room", |drive| drive.told(key).rooms > rooms)?;
        rooms = drive.told(key).rooms;
        drive.send_datagrams(key, queue);
    }
    Ok(())
}

/// Sends one datagram, once there is room.
fn post(drive: &mut Drive, key: Key, to: Option<&Address>, bytes: &[u8]) -> Outcome {
    let mut queue = DatagramQueue::default();
    queue.push(Outbound { to, ..Outbound::new(bytes) });
    send(drive, key, &mut queue)
}

fn arrived(drive: &mut Drive, key: Key, count: usize) -> Outcome {
    drive.until("all datagrams have arrived", |drive| drive.told(key).datagrams.len() >= count)
}

fn bytes_of(letters: &[Letter]) -> Vec<&[u8]> {
    letters.iter().map(|letter| &letter.bytes[..]).collect()
}

/// Checks that the engine has reported no end and no failure of the key.
fn lives(drive: &Drive, key: Key) -> Outcome {
    let told = drive.told(key);
    check!(!told.is_over(), "{} ends, {:?}", told.ends, told.broken);
    Ok(())
}

fn empty(world: &mut World<'_>) -> Outcome {
    let mut drive = world.drive();
    let ((one, from), (other, to)) = (bind(&mut drive)?, bind(&mut drive)?);
    for bytes in [&b"before"[..], b"", b"", b"behind"] {
        post(&mut drive, one, Some(&to), bytes)?;
    }
    arrived(&mut drive, other, 4)?;
    drive.settle(3)?;
    let told = &drive.told(other).datagrams;
    check!(bytes_of(told) == [&b"before"[..], b"", b"", b"behind"], "{told:?}");
    check!(told.iter().all(|letter| letter.from == from && !letter.truncated), "{told:?}");
    lives(&drive, other)?;
    drive.rests()
}

fn bounds(world: &mut World<'_>) -> Outcome {
    let mut drive = world.drive();
    let ((one, _), (other, to), (third, third_to)) =
        (bind(&mut drive)?, bind(&mut drive)?, bind(&mut drive)?);
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
    send(&mut drive, one, &mut queue)?;
    arrived(&mut drive, other, sent.len() + 4)?;
    arrived(&mut drive, third, 3)?;
    drive.settle(3)?;
    let told = &drive.told(other).datagrams;
    check!(
        bytes_of(&told[..sent.len()]) == sent,
        "{:?}",
        told.iter().map(|l| l.bytes.len()).collect::<Vec<_>>()
    );
    let segments = pattern(1_000);
    check!(bytes_of(&told[sent.len()..]) == segments.chunks(300).collect::<Vec<_>>(), "of segments");
    let told = &drive.told(third).datagrams;
    check!(bytes_of(told) == [&sent[5][..], &sent[11], &sent[17]], "{told:?}");
    drive.rests()
}

fn details(world: &mut World<'_>) -> Outcome {
    let mut drive = world.drive();
    let any = Address::Ip(([0, 0, 0, 0], 0).into());
    let ((one, from), (other, at)) =
        (bind(&mut drive)?, bind_with(&mut drive, &any, &BindOptions::default())?);
    let port = at.ip().map(|ip| ip.port()).ok_or("an address of another kind")?;
    // On Linux, the loopback is a whole network.
    let is_wide = world.is_virtual() || cfg!(target_os = "linux");
    let to = if is_wide { [127, 0, 0, 2] } else { [127, 0, 0, 1] };
    let to = Address::Ip((to, port).into());
    let mut queue = DatagramQueue::default();
    queue.push(Outbound::to(&to, b"marked").ecn(Ecn::Capable0));
    queue.push(Outbound::to(&to, b"plain"));
    send(&mut drive, one, &mut queue)?;
    arrived(&mut drive, other, 2)?;
    let told = &drive.told(other).datagrams;
    check!(told.iter().all(|letter| letter.from == from), "{told:?}");
    if is_wide {
        let expected = to.ip().map(|ip| ip.ip());
        check!(told.iter().all(|letter| letter.to == expected), "{told:?}");
        check!((told[0].ecn, told[1].ecn) == (Ecn::Capable0, Ecn::NotCapable), "{told:?}");
        // An answer comes from the address to which the question was sent.
        queue.push(Outbound { from: expected, ..Outbound::to(&from, b"answer") });
        send(&mut drive, other, &mut queue)?;
        arrived(&mut drive, one, 1)?;
        check!(drive.told(one).datagrams[0].from == to, "{:?}", drive.told(one).datagrams);
    }
    drive.rests()
}

fn too_long(world: &mut World<'_>) -> Outcome {
    let mut drive = world.drive();
    let ((one, _), (other, to)) = (bind(&mut drive)?, bind(&mut drive)?);
    let long = pattern(LENGTH_MAX + 1);
    let mut queue = DatagramQueue::default();
    for bytes in [&b"before"[..], &long, b"between", &long, b"behind"] {
        queue.push(Outbound::to(&to, bytes));
    }
    send(&mut drive, one, &mut queue)?;
    arrived(&mut drive, other, 3)?;
    drive.until("both errors are told", |drive| drive.told(one).undelivered.len() >= 2)?;
    drive.settle(3)?;
    check!(bytes_of(&drive.told(other).datagrams) == [&b"before"[..], b"between", b"behind"], "what arrived");
    let undelivered = &drive.told(one).undelivered;
    check!(
        undelivered.len() == 2 && undelivered.iter().all(|(of, _)| *of == Some(to.clone())),
        "{undelivered:?}"
    );
    #[cfg(target_os = "linux")]
    check!(undelivered.iter().all(|(_, error)| error.raw_os_error() == Some(90)), "{undelivered:?}");
    // A datagram of exactly the maximum length passes, and so does one that is a byte shorter.
    if cfg!(target_os = "linux") {
        for (at, length) in [(3, LENGTH_MAX - 1), (4, LENGTH_MAX)] {
            post(&mut drive, one, Some(&to), &long[..length])?;
            arrived(&mut drive, other, at + 1)?;
            check!(drive.told(other).datagrams[at].bytes == long[..length], "one of {length} bytes differs");
        }
    }
    lives(&drive, one)?;
    drive.rests()
}

fn truncated(world: &mut World<'_>) -> Outcome {
    let mut drive = world.drive();
    let (other, to) = bind_unix(&mut drive, "truncated")?;
    let (one, _) = bind_with(&mut drive, &Address::Unnamed, &BindOptions::default())?;
    let long = pattern(100_000);
    for bytes in [&long[..], b"short"] {
        post(&mut drive, one, Some(&to), bytes)?;
    }
    arrived(&mut drive, other, 2)?;
    let told = &drive.told(other).datagrams;
    check!(told.iter().all(|letter| letter.from == Address::Unnamed), "{:?}", told[1]);
    let count = told[0].bytes.len();
    check!(told[0].truncated && count < long.len(), "{count} bytes, truncated: {}", told[0].truncated);
    check!(told[0].bytes == long[..count], "the beginning is not what was sent");
    check!(told[1].bytes == b"short" && !told[1].truncated, "{:?}", told[1]);
    lives(&drive, other)?;
    drive.rests()
}

/// Binds a socket with an abstract name, which is not in the file system.
fn bind_unix(drive: &mut Drive, name: &str) -> Result<(Key, Address), Stop> {
    let name = format!("reactor-conformance-{}-{name}", std::process::id());
    bind_with(drive, &Address::Abstract(name.into_bytes()), &BindOptions::default())
}

fn no_room(world: &mut World<'_>) -> Outcome {
    let mut drive = world.drive();
    let (other, to) = bind_unix(&mut drive, "room")?;
    drive.engine.reading(other, false);
    let mut options = BindOptions::default();
    options.peer = Some(to);
    let (one, _) = bind_with(&mut drive, &Address::Unnamed, &options)?;
    let sent: Vec<Vec<u8>> = (0..2_000_u32).map(|n| n.to_be_bytes().repeat(100)).collect();
    let mut queue = DatagramQueue::default();
    sent.iter().for_each(|bytes| queue.push(Outbound::new(bytes)));
    drive.send_datagrams(one, &mut queue);
    check!(!queue.is_empty(), "2,000 datagrams found room with nobody who reads them");
    check!(drive.told(one).undelivered.is_empty(), "{:?}", drive.told(one).undelivered);
    drive.engine.reading(other, true);
    send_rest(&mut drive, one, &mut queue)?;
    arrived(&mut drive, other, sent.len())?;
    drive.settle(3)?;
    check!(bytes_of(&drive.told(other).datagrams) == sent, "not as they were sent");
    check!(drive.told(one).undelivered.is_empty(), "{:?}", drive.told(one).undelivered);
    drive.rests()
}

/// Sends the rest of a queue that found no room.
fn send_rest(drive: &mut Drive, key: Key, queue: &mut DatagramQueue) -> Outcome {
    let rooms = drive.told(key).rooms;
    drive.until("there is room", |drive| drive.told(key).rooms > rooms)?;
    send(drive, key, queue)
}

/// Returns an address to which no socket is bound any more.
fn deserted(drive: &mut Drive) -> Result<Address, Stop> {
    let (key, address) = bind(drive)?;
    drive.close(key);
    drive.settle(3)?;
    Ok(address)
}

fn unreachable(world: &mut World<'_>) -> Outcome {
    let mut drive = world.drive();
    let ((one, _), (other, to)) = (bind(&mut drive)?, bind(&mut drive)?);
    let nobody = deserted(&mut drive)?;
    let mut queue = DatagramQueue::default();
    for (to, bytes) in
        [(&to, &b"one"[..]), (&nobody, b"lost"), (&to, b"two"), (&nobody, b""), (&to, b"three")]
    {
        queue.push(Outbound::to(to, bytes));
    }
    send(&mut drive, one, &mut queue)?;
    arrived(&mut drive, other, 3)?;
    check!(bytes_of(&drive.told(other).datagrams) == [&b"one"[..], b"two", b"three"], "what arrived");
    // Only Linux reports to a socket that is not connected.
    if cfg!(target_os = "linux") || world.is_virtual() {
        drive.until("both reports are told", |drive| drive.told(one).undelivered.len() >= 2)?;
    }
    drive.settle(3)?;
    for (of, error) in &drive.told(one).undelivered {
        check!(is_refusal(error), "{error:?}");
        check!(of.as_ref().is_none_or(|of| *of == nobody), "{of:?} is not {nobody}");
    }
    check!(drive.told(one).undelivered.len() <= 2, "{:?}", drive.told(one).undelivered);
    lives(&drive, one)?;
    post(&mut drive, one, Some(&to), b"after")?;
    arrived(&mut drive, other, 4)?;
    drive.rests()
}

/// Reports whether the error is a refusal, which Windows calls a reset.
fn is_refusal(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionRefused)
        || cfg!(windows) && error.kind() == ErrorKind::ConnectionReset
}

fn connected(world: &mut World<'_>) -> Outcome {
    let mut drive = world.drive();
    let nobody = deserted(&mut drive)?;
    let mut options = BindOptions::default();
    options.peer = Some(nobody.clone());
    let (one, from) = bind_with(&mut drive, &Address::Ip(([127, 0, 0, 1], 0).into()), &options)?;
    post(&mut drive, one, None, b"lost")?;
    drive.until("the report is told", |drive| !drive.told(one).undelivered.is_empty())?;
    check!(is_refusal(&drive.told(one).undelivered[0].1), "{:?}", drive.told(one));
    // Now a peer is bound there. A stranger is bound elsewhere.
    let (other, _) = bind_with(&mut drive, &nobody, &BindOptions::default())?;
    let (stranger, _) = bind(&mut drive)?;
    post(&mut drive, stranger, Some(&from), b"strange")?;
    post(&mut drive, one, None, b"question")?;
    arrived(&mut drive, other, 1)?;
    post(&mut drive, other, Some(&from), b"answer")?;
    arrived(&mut drive, one, 1)?;
    drive.settle(3)?;
    check!(bytes_of(&drive.told(one).datagrams) == [b"answer"], "{:?}", drive.told(one).datagrams);
    check!(drive.engine.peer(one)? == nobody, "the peer's address");
    lives(&drive, one)?;
    drive.rests()
}

fn group(world: &mut World<'_>) -> Outcome {
    let mut drive = world.drive();
    let address = [239, 77, 14, 7];
    let group = Group::V4 { group: address.into(), interface: [127, 0, 0, 1].into() };
    let any = Address::Ip(([0, 0, 0, 0], 0).into());
    let (member, at) = bind_with(&mut drive, &any, &BindOptions::default())?;
    let (other, _) = bind_with(&mut drive, &any, &BindOptions::default())?;
    let (sender, _) = bind(&mut drive)?;
    if let Err(error) = drive.engine.set_member(member, &group, true) {
        return Err(Stop::Skipped(format!("this machine has no multicast: {error}")));
    }
    let to = Address::Ip((address, at.ip().map_or(0, |ip| ip.port())).into());
    post(&mut drive, sender, Some(&to), b"to all")?;
    drive.until("it has arrived, or found no way", |drive| {
        drive.told(member).datagrams.len() + drive.told(sender).undelivered.len() > 0
    })?;
    if let Some((_, error)) = drive.told(sender).undelivered.first() {
        return Err(Stop::Skipped(format!("this machine has no way for multicast: {error}")));
    }
    drive.engine.set_member(member, &group, false)?;
    let twice = drive.engine.set_member(member, &group, false);
    // Wine uses another number for this error.
    let is_right = |error: std::io::Error| cfg!(windows) || error.kind() == ErrorKind::AddrNotAvailable;
    check!(twice.is_err_and(is_right), "left twice");
    post(&mut drive, sender, Some(&to), b"to nobody")?;
    drive.settle(3)?;
    check!(bytes_of(&drive.told(member).datagrams) == [b"to all"], "{:?}", drive.told(member).datagrams);
    check!(drive.told(other).datagrams.is_empty(), "{:?}", drive.told(other).datagrams);
    drive.rests()
}

fn off(world: &mut World<'_>) -> Outcome {
    let mut drive = world.drive();
    let ((one, _), (other, to)) = (bind(&mut drive)?, bind(&mut drive)?);
    let nobody = deserted(&mut drive)?;
    drive.engine.reading(other, false);
    // The read that was in flight has completed by then.
    drive.settle(3)?;
    for bytes in [b"1", b"2", b"3"] {
        post(&mut drive, one, Some(&to), bytes)?;
    }
    post(&mut drive, other, Some(&nobody), b"lost")?;
    drive.settle(3)?;
    // The engine may report the loss now or later. A pending report must not make it spin.
    drive.rests()?;
    check!(drive.told(other).datagrams.is_empty(), "{:?}", drive.told(other).datagrams);
    drive.engine.reading(other, true);
    arrived(&mut drive, other, 3)?;
    check!(bytes_of(&drive.told(other).datagrams) == [b"1", b"2", b"3"], "{:?}", drive.told(other).datagrams);
    if cfg!(target_os = "linux") || world.is_virtual() {
        drive.until("the report is told", |drive| !drive.told(other).undelivered.is_empty())?;
    }
    drive.settle(3)?;
    check!(drive.told(other).undelivered.len() <= 1, "{:?}", drive.told(other).undelivered);
    lives(&drive, other)?;
    drive.rests()
}

fn again(world: &mut World<'_>) -> Outcome {
    let mut drive = world.drive();
    let ((one, _), (other, to)) = (bind(&mut drive)?, bind(&mut drive)?);
    drive.detach(other);
    drive.until("it is detached", |drive| drive.told(other).detached.is_some())?;
    post(&mut drive, one, Some(&to), b"meanwhile")?;
    let transport = drive.note(other).detached.take().ok_or("no transport")?;
    drive.note(other).detached = None;
    let other = drive.attach(transport, Role::Datagrams)?;
    arrived(&mut drive, other, 1)?;
    check!(drive.engine.local(other)? == to, "another address");
    drive.close(other);
    post(&mut drive, one, Some(&to), b"late")?;
    drive.settle(3)?;
    lives(&drive, one)?;
    drive.rests()
}

const DATAGRAMS: &[Need] = &[Need::Datagrams];
/// The row needs a Unix socket with an abstract name.
const UNIX: &[Need] = &[Need::Datagrams, Need::Linux];
/// The longest datagram of UDP over IPv4 (RFC 768).
const LENGTH_MAX: usize = 65_507;
