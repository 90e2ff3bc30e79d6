//! A7 at runtime level: descriptors over Unix sockets arrive once, with their bytes, or are closed once.
//!
//! The rows pass ends of connections, because every system has those. A probe holds the other ends, and sees
//! the close once no copy is left.

use std::{
    fs, io,
    path::PathBuf,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use reactor::{Descriptor, Descriptors, Message, Passed};
use socket2::{Domain, Socket, Type};

use super::prelude::*;

pub(super) const ROWS: &[Row] = &[
    row("A7r3", "descriptors come with the first byte of their message", PASSING, with_first_byte),
    row("A7r4", "what arrived is used as what it is", PASSING, used),
    row("A7r5", "packets and datagrams with descriptors keep their boundaries", SOCKETS, boundaries),
    row("A7r6", "more descriptors than are taken are closed and told", PASSING, too_many),
    row("A7r7", "descriptors that did not leave are still in the resource", PASSING, unsent),
    row("A7r8", "a narrow link keeps descriptors and bytes together", PASSING, narrow),
    row("A7r9", "the end is told once after what arrived, and a dead peer is an error", PASSING, ended),
    row("A7r10", "descriptors under way to a link that ends are closed", PASSING, under_way),
    row("A7r11", "a link that was released goes on where it was", PASSING, released),
    row("A7r12", "each end of a Unix link knows who is at the other", PASSING, credentials),
    row("A7r14", "a packet that is longer than the buffer is told as truncated", SOCKETS, too_long),
];

const PASSING: &[Need] = &[Need::Descriptors];

/// Records its events, and keeps the descriptors.
#[derive(Default)]
pub(super) struct Keeper {
    open: Vec<Id<Descriptors>>,
    bytes: Vec<u8>,
    /// One entry for each event: the number of bytes and of descriptors. `None` means a refused message.
    events: Vec<(usize, Option<usize>)>,
    /// The positions of the truncated events.
    truncated: Vec<usize>,
    kept: Vec<Descriptor>,
    ended: usize,
    closed: Vec<(Descriptors, Closed)>,
    /// At an end the keeper does not close its own side.
    keeps_open: bool,
    /// The handler drops the descriptors of its events.
    takes_none: bool,
}

impl Service for Keeper {}

impl Handle<Descriptors> for Keeper {
    fn handle(&mut self, cx: &mut Context<'_, Self>, id: Id<Descriptors>, event: Passed<'_>) -> Result {
        match event {
            Passed::Open => self.open.push(id),
            Passed::Received { bytes, descriptors, truncated } => {
                self.truncated.extend(truncated.then_some(self.events.len()));
                self.bytes.extend_from_slice(bytes);
                self.events.push((bytes.len(), Some(descriptors.len())));
                if !self.takes_none {
                    self.kept.extend(descriptors);
                }
            }
            Passed::Refused { bytes, truncated } => {
                self.truncated.extend(truncated.then_some(self.events.len()));
                self.bytes.extend_from_slice(bytes);
                self.events.push((bytes.len(), None));
            }
            Passed::End => {
                self.ended += 1;
                if !self.keeps_open {
                    cx.close(id);
                }
            }
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Self>, _: Id<Descriptors>, resource: Descriptors, why: Closed) {
        self.closed.push((resource, why));
    }
}

/// A runtime with both ends of a Unix link, and with connections whose ends a row can pass.
struct Link {
    rig: Rig,
    from: ServiceId<Keeper>,
    to: ServiceId<Keeper>,
    sender: Id<Descriptors>,
    receiver: Id<Descriptors>,
    probe: ServiceId<Probe>,
    address: Address,
}

impl Link {
    fn new(fixture: &mut Fixture<'_>) -> Result<Link, Stop> {
        Link::taking(fixture, 16)
    }

    /// Makes a link whose receiver takes this many descriptors in a message.
    fn taking(fixture: &mut Fixture<'_>, most: usize) -> Result<Link, Stop> {
        let mut rig = Rig::new(fixture)?;
        let (from, to) = (rig.add(Keeper::default())?, rig.add(Keeper::default())?);
        let name = Name::new();
        let make = move |_: &Address| Some(Descriptors::new().per_message(most));
        let listener = rig.with(to, |_, cx| cx.listen(&name.0, make))?;
        rig.with(from, |_, cx| cx.connect(&name.0, Descriptors::new()))?;
        rig.until("both ends are open", |rig| rig.get(from).open.len() == 1 && rig.get(to).open.len() == 1)?;
        rig.with(to, |_, cx| cx.close(listener));
        let (sender, receiver) = (rig.get(from).open[0], rig.get(to).open[0]);
        Link::over(rig, (from, sender), (to, receiver))
    }

    /// Makes a link over sockets of the system.
    fn on(fixture: &mut Fixture<'_>, ours: Descriptors, theirs: Descriptors) -> Result<Link, Stop> {
        let mut rig = Rig::new(fixture)?;
        let (from, to) = (rig.add(Keeper::default())?, rig.add(Keeper::default())?);
        let sender = rig.with(from, |_, cx| cx.add(ours)).map_err(|rejected| rejected.error)?;
        let receiver = rig.with(to, |_, cx| cx.add(theirs)).map_err(|rejected| rejected.error)?;
        Link::over(rig, (from, sender), (to, receiver))
    }

    fn over(
        mut rig: Rig,
        (from, sender): (ServiceId<Keeper>, Id<Descriptors>),
        (to, receiver): (ServiceId<Keeper>, Id<Descriptors>),
    ) -> Result<Link, Stop> {
        let probe = rig.add(Probe::quiet())?;
        let (_, address) = rig.listen(probe, || Stream::new(Bytes))?;
        Ok(Link { rig, from, to, sender, receiver, probe, address })
    }

    /// Makes ends of connections. Returns them with the probe's streams at their other ends.
    fn ends(&mut self, count: usize) -> Result<(Vec<Descriptor>, Vec<Id<Stream>>), Stop> {
        let (probe, rig) = (self.probe, &mut self.rig);
        let (mut ends, mut others) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let before = rig.get(probe).open.len();
            let other = rig.connect(probe, &self.address, Stream::new(Bytes))?;
            rig.until("it is connected", |rig| rig.get(probe).open.len() == before + 2)?;
            let open = &rig.get(probe).open[before..];
            let accepted = *open.iter().find(|id| **id != other).ok_or("it was accepted")?;
            rig.with(probe, |_, cx| cx.release(accepted))?;
            let at = |rig: &Rig| rig.get(probe).closed.iter().position(|(id, ..)| *id == accepted);
            rig.until("it is released", |rig| at(rig).is_some())?;
            let at = at(rig).ok_or("it is released")?;
            let (_, stream, _) = rig.get_mut(probe).closed.remove(at);
            ends.push(stream.into_transport().ok_or("it has its transport")?.into());
            others.push(other);
        }
        Ok((ends, others))
    }

    fn send(&mut self, bytes: &[u8], descriptors: Vec<Descriptor>) -> Flow {
        let id = self.sender;
        self.rig.with(self.from, |_, cx| cx.send(id, Message { bytes, descriptors }))
    }

    fn receiver(&self) -> &Keeper {
        self.rig.get(self.to)
    }

    fn until_bytes(&mut self, count: usize) -> Outcome {
        let to = self.to;
        self.rig.until("all bytes have arrived", |rig| rig.get(to).bytes.len() >= count)
    }

    /// Turns until each of these streams has seen that its other end is gone.
    fn until_closed(&mut self, others: &[Id<Stream>]) -> Outcome {
        let probe = self.probe;
        self.rig.until("no copy is left", |rig| {
            let closed = &rig.get(probe).closed;
            others.iter().all(|other| closed.iter().any(|(id, ..)| id == other))
        })
    }

    /// Checks that these streams are open, so that some copy of their other ends still exists.
    fn check_open(&self, others: &[Id<Stream>]) -> Outcome {
        let closed = &self.rig.get(self.probe).closed;
        let found = closed.iter().find(|(id, ..)| others.contains(id));
        check!(found.is_none(), "a descriptor was closed: {found:?}");
        Ok(())
    }

    fn finish(mut self) -> Outcome {
        self.rig.get_mut(self.to).kept.clear();
        self.rig.finish()
    }
}

/// The path of a Unix socket. The drop removes the file.
struct Name(PathBuf);

impl Name {
    fn new() -> Name {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Name(std::env::temp_dir().join(format!("conformance-passing-{process}-{number}")))
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // In a simulated world the file never existed.
        let _ = fs::remove_file(&self.0);
    }
}

/// Checks that the descriptors of each message arrived with the message's first byte. Each message is given
/// by the position of its first byte and its number of descriptors.
fn check_with_first_byte(events: &[(usize, Option<usize>)], messages: &[(usize, usize)]) -> Outcome {
    let (mut at, mut messages) = (0, messages.iter());
    for (length, count) in events {
        let count = count.ok_or("none is refused")?;
        if count > 0 {
            let (begin, sent) = messages.next().ok_or("no more messages have some")?;
            check!((at..at + length).contains(begin), "not with the byte at {begin}: {events:?}");
            check!(count == *sent, "{sent} were sent with the byte at {begin}: {events:?}");
        }
        at += length;
    }
    check!(messages.next().is_none(), "some did not come: {events:?}");
    Ok(())
}

fn with_first_byte(fixture: &mut Fixture<'_>) -> Outcome {
    let mut link = Link::new(fixture)?;
    let (mut ends, others) = link.ends(3)?;
    let third = ends.split_off(2);
    link.send(b"none", Vec::new());
    link.send(b"two", ends);
    link.send(b"joined", Vec::new());
    link.send(b"one", third);
    link.until_bytes(16)?;
    check!(link.receiver().bytes == b"nonetwojoinedone", "{:?}", link.receiver().bytes);
    check_with_first_byte(&link.receiver().events, &[(4, 2), (13, 1)])?;
    link.rig.settle()?;
    link.check_open(&others)?;
    link.rig.get_mut(link.to).kept.clear();
    link.until_closed(&others)?;
    link.finish()
}

fn used(fixture: &mut Fixture<'_>) -> Outcome {
    let mut link = Link::new(fixture)?;
    let (ends, others) = link.ends(3)?;
    link.send(b"x", ends);
    link.until_bytes(1)?;
    let (probe, echo) = (link.probe, link.rig.add(super::probe::Echo::default())?);
    let kept = std::mem::take(&mut link.rig.get_mut(link.to).kept);
    for descriptor in kept {
        let stream = Stream::new(Bytes).through(descriptor.into_transport()?);
        link.rig.with(echo, |_, cx| cx.add(stream).map(drop)).map_err(|rejected| rejected.error)?;
    }
    for (number, other) in others.iter().enumerate() {
        link.rig.with(probe, |_, cx| cx.send(*other, &[number as u8; 100]));
    }
    link.rig.until("each has its echo", |rig| {
        others.iter().all(|other| rig.get(probe).received(*other) == 100)
    })?;
    for (number, other) in others.iter().enumerate() {
        let told = link.rig.get(probe).of(*other);
        check!(told == [What::Open, What::got(&[number as u8; 100])], "they were exchanged: {told:?}");
    }
    link.finish()
}

fn boundaries(fixture: &mut Fixture<'_>) -> Outcome {
    for kind in [Type::SEQPACKET, Type::DGRAM] {
        let (ours, theirs) = Socket::pair(Domain::UNIX, kind, None)?;
        let mut link = Link::on(fixture, Descriptors::new().on(ours)?, Descriptors::new().on(theirs)?)?;
        let (ends, others) = link.ends(1)?;
        link.send(b"ab", Vec::new());
        link.send(b"cde", ends);
        link.send(b"f", Vec::new());
        link.until_bytes(6)?;
        let events = &link.receiver().events;
        check!(*events == [(2, Some(0)), (3, Some(1)), (1, Some(0))], "{events:?}");
        link.rig.get_mut(link.to).kept.clear();
        link.until_closed(&others)?;
        link.finish()?;
    }
    Ok(())
}

fn too_long(fixture: &mut Fixture<'_>) -> Outcome {
    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None)?;
    // Send directly, because the resource would refuse such a packet.
    let raw = ours.try_clone()?;
    let mut link = Link::on(fixture, Descriptors::new().on(ours)?, Descriptors::new().on(theirs)?)?;
    for length in [PACKET - 1, PACKET, PACKET + 1] {
        check!(raw.send(&vec![7; length])? == length, "a packet leaves whole or not");
        let expected = link.receiver().bytes.len() + length.min(PACKET);
        link.until_bytes(expected)?;
    }
    link.send(b"next", Vec::new());
    link.until_bytes(3 * PACKET - 1 + 4)?;
    let Keeper { events, truncated, .. } = link.receiver();
    let lengths: Vec<usize> = events.iter().map(|(length, _)| *length).collect();
    check!(lengths == [PACKET - 1, PACKET, PACKET, 4], "{lengths:?}");
    check!(*truncated == [2], "the third was longer, and only that: {truncated:?}");
    link.finish()
}

fn too_many(fixture: &mut Fixture<'_>) -> Outcome {
    let mut link = Link::taking(fixture, 2)?;
    let mut all = Vec::new();
    for count in [1, 2, 3, 1] {
        let (ends, others) = link.ends(count)?;
        link.send(b"x", ends);
        all.push(others);
    }
    link.until_bytes(4)?;
    let events = &link.receiver().events;
    check!(*events == [(1, Some(1)), (1, Some(2)), (1, None), (1, Some(1))], "{events:?}");
    let refused = all.remove(2);
    link.until_closed(&refused)?;
    link.check_open(&all.concat())?;
    link.rig.get_mut(link.to).kept.clear();
    link.until_closed(&all.concat())?;
    link.finish()
}

fn unsent(fixture: &mut Fixture<'_>) -> Outcome {
    let mut link = Link::new(fixture)?;
    let (from, to, sender, receiver) = (link.from, link.to, link.sender, link.receiver);
    let (ends, others) = link.ends(2)?;
    link.rig.with(to, |_, cx| cx.pause(receiver));
    // These bytes fill the link, so the descriptors behind them stay in the queue.
    link.send(&vec![1; 2 << 20], Vec::new());
    link.send(b"late", ends);
    link.rig.settle()?;
    link.rig.with(from, |_, cx| cx.abort(sender));
    link.rig.until("it has closed", |rig| !rig.get(from).closed.is_empty())?;
    let (mut resource, _) = link.rig.get_mut(from).closed.remove(0);
    let kept = resource.unsent();
    check!(kept.len() == 2, "{} of 2 are in the resource", kept.len());
    link.check_open(&others)?;
    drop(kept);
    link.until_closed(&others)?;
    link.rig.with(to, |_, cx| cx.resume(receiver));
    link.finish()
}

fn narrow(fixture: &mut Fixture<'_>) -> Outcome {
    // The socket of a simulated world is narrow anyway.
    let mut link = if fixture.is_virtual() {
        Link::new(fixture)?
    } else {
        let (ours, theirs) = Socket::pair(Domain::UNIX, Type::STREAM, None)?;
        ours.set_send_buffer_size(1)?;
        Link::on(fixture, Descriptors::new().on(ours)?, Descriptors::new().on(theirs)?)?
    };
    let (mut expected, mut all) = (Vec::new(), Vec::new());
    for number in 0..40_u8 {
        let (ends, others) = link.ends(usize::from(number % 3))?;
        let bytes = vec![number; 3_000];
        link.send(&bytes, ends);
        expected.extend(bytes);
        all.extend(others);
    }
    link.until_bytes(expected.len())?;
    check!(link.receiver().bytes == expected, "what arrived differs");
    check!(link.receiver().kept.len() == all.len(), "{} arrived", link.receiver().kept.len());
    let messages: Vec<_> = (0..40).map(|n| (n * 3_000, n % 3)).filter(|(_, count)| *count > 0).collect();
    check_with_first_byte(&link.receiver().events, &messages)?;
    link.rig.get_mut(link.to).kept.clear();
    link.until_closed(&all)?;
    link.finish()
}

fn ended(fixture: &mut Fixture<'_>) -> Outcome {
    let mut link = Link::new(fixture)?;
    let (from, to, sender, receiver) = (link.from, link.to, link.sender, link.receiver);
    link.rig.get_mut(to).keeps_open = true;
    let (ends, others) = link.ends(1)?;
    link.send(b"last", ends);
    link.rig.with(from, |_, cx| cx.close(sender));
    link.rig.until("it has closed", |rig| !rig.get(from).closed.is_empty())?;
    // The drop of the resource closes its socket.
    link.rig.get_mut(from).closed.clear();
    link.rig.until("the end is told", |rig| rig.get(to).ended > 0)?;
    link.rig.settle()?;
    let keeper = link.receiver();
    let told = (&keeper.bytes[..], keeper.kept.len(), keeper.ended, keeper.closed.len());
    check!(told == (b"last", 1, 1, 0), "{told:?}");
    link.check_open(&others)?;
    let late = Message { bytes: b"x", descriptors: std::mem::take(&mut link.rig.get_mut(to).kept) };
    link.rig.with(to, |_, cx| cx.send(receiver, late));
    link.rig.until("it has closed", |rig| !rig.get(to).closed.is_empty())?;
    let (mut resource, why) = link.rig.get_mut(to).closed.remove(0);
    let kind = why.io().map(io::Error::kind);
    check!(kind == Some(ErrorKind::BrokenPipe), "it ended by {why}");
    check!(resource.unsent().len() == 1, "what did not leave is gone");
    drop(resource);
    link.until_closed(&others)?;
    link.finish()
}

fn under_way(fixture: &mut Fixture<'_>) -> Outcome {
    // No service keeps them: the handler drops them, or the close or the abort of the link does.
    for way in ["dropped", "closed", "ended"] {
        let mut link = Link::new(fixture)?;
        let (to, receiver) = (link.to, link.receiver);
        let (ends, others) = link.ends(2)?;
        link.rig.get_mut(to).takes_none = true;
        if way != "dropped" {
            link.rig.with(to, |_, cx| cx.pause(receiver));
        }
        link.send(b"x", ends);
        if way == "dropped" {
            link.until_bytes(1)?;
        } else {
            link.rig.settle()?;
            link.check_open(&others)?;
        }
        match way {
            "closed" => link.rig.with(to, |_, cx| cx.close(receiver)),
            "ended" => link.rig.with(to, |_, cx| cx.abort(receiver)),
            _ => (),
        }
        if way != "dropped" {
            link.rig.until("it has closed", |rig| !rig.get(to).closed.is_empty())?;
            link.rig.get_mut(to).closed.clear();
        }
        link.until_closed(&others)?;
        link.finish()?;
    }
    Ok(())
}

fn released(fixture: &mut Fixture<'_>) -> Outcome {
    let mut link = Link::new(fixture)?;
    let (to, receiver) = (link.to, link.receiver);
    link.send(b"before", Vec::new());
    link.until_bytes(6)?;
    link.rig.with(to, |_, cx| cx.release(receiver))?;
    link.rig.until("it is released", |rig| !rig.get(to).closed.is_empty())?;
    let (ends, others) = link.ends(1)?;
    link.send(b"meanwhile", ends);
    link.rig.settle()?;
    let (resource, why) = link.rig.get_mut(to).closed.remove(0);
    check!(matches!(why, Closed::Released), "{why:?}");
    link.rig.with(to, |_, cx| cx.add(resource)).map_err(|rejected| rejected.error)?;
    link.until_bytes(15)?;
    check!(link.receiver().bytes == b"beforemeanwhile", "{:?}", link.receiver().bytes);
    check!(link.receiver().open.len() == 2, "it opens in each life: {:?}", link.receiver().open);
    check!(link.receiver().kept.len() == 1, "{} descriptors", link.receiver().kept.len());
    link.check_open(&others)?;
    link.finish()
}

fn credentials(fixture: &mut Fixture<'_>) -> Outcome {
    let is_virtual = fixture.is_virtual();
    let mut link = Link::new(fixture)?;
    let (from, to, sender, receiver) = (link.from, link.to, link.sender, link.receiver);
    let of_receiver = link.rig.with(from, |_, cx| cx.peer_credentials(sender))?;
    let of_sender = link.rig.with(to, |_, cx| cx.peer_credentials(receiver))?;
    check!(of_receiver == of_sender, "one process is two: {of_receiver:?}, {of_sender:?}");
    let user = rustix::process::getuid().as_raw();
    check!(is_virtual || of_sender.user == user, "{of_sender:?} is not user {user}");
    let is_known = of_sender.process.is_some_and(|number| is_virtual || number == process::id());
    check!(is_known || of_sender.process.is_none() && cfg!(not(target_os = "linux")), "{of_sender:?}");

    // A stream over a Unix socket also has credentials, and a stream over IP has none.
    let (name, probe) = (Name::new(), link.probe);
    let unix = link.rig.with(probe, |_, cx| -> Result<_, reactor::Error> {
        cx.listen(&name.0, |_| Some(Stream::new(Bytes)))?;
        cx.connect(&name.0, Stream::new(Bytes))
    })?;
    link.rig.until("both ends are open", |rig| rig.get(probe).open.len() == 2)?;
    for id in link.rig.get(probe).open.clone() {
        let found = link.rig.with(probe, |_, cx| cx.peer_credentials(id))?;
        check!(found == of_sender, "{found:?}, at {unix:?}");
    }
    let over_ip = link.rig.connect(probe, &link.address, Stream::new(Bytes))?;
    link.rig.until("both ends are open", |rig| rig.get(probe).open.len() == 4)?;
    let refused = link.rig.with(probe, |_, cx| cx.peer_credentials(over_ip));
    let kind = refused.err().and_then(|error| error.io().map(io::Error::kind));
    check!(kind == Some(ErrorKind::Unsupported), "an IP peer was told: {kind:?}");
    link.finish()
}

/// The limit of a packet, in bytes.
const PACKET: usize = 64 << 10;
