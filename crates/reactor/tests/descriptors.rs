//! Descriptors over Unix sockets: each arrives once, with its bytes, or is closed once.
#![cfg(unix)]

mod common;

use std::{
    fs::File,
    io::{self, PipeReader, Read, Write},
    os::{
        fd::OwnedFd,
        unix::net::{UnixDatagram, UnixStream},
    },
};

use common::{for_each_engine, settle, until};
use reactor::{
    Address, Bytes, Closed, Context, Credentials, Descriptors, Event, Flow, Handle, Id, Message, Passed,
    Result, Runtime, Service, ServiceId, Stream,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

/// Notes what arrived, and keeps the descriptors.
#[derive(Default)]
struct Keeper {
    bytes: Vec<u8>,
    /// For each event: its bytes and how many descriptors it had; `None`: refused.
    events: Vec<(usize, Option<usize>)>,
    kept: Vec<OwnedFd>,
    ended: usize,
    closed: Vec<(Descriptors, Closed)>,
    keeps_open: bool,
}

impl Service for Keeper {}

impl Handle<Descriptors> for Keeper {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Descriptors>, event: Passed<'_>) -> Result {
        match event {
            Passed::Received { bytes, descriptors } => {
                self.bytes.extend_from_slice(bytes);
                self.events.push((bytes.len(), Some(descriptors.len())));
                self.kept.extend(descriptors);
            }
            Passed::Refused { bytes } => {
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

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Descriptors>, resource: Descriptors, why: Closed) {
        self.closed.push((resource, why));
    }
}

/// A runtime with a resource at both ends of a pair of sockets.
struct Pair {
    runtime: Runtime,
    from: ServiceId<Keeper>,
    to: ServiceId<Keeper>,
    sender: Id<Descriptors>,
    receiver: Id<Descriptors>,
}

impl Pair {
    fn new(engine: common::Engine, ours: impl Into<OwnedFd>, theirs: impl Into<OwnedFd>) -> Pair {
        Pair::with(engine, ours, theirs, [16, 16])
    }

    fn with(
        engine: common::Engine,
        ours: impl Into<OwnedFd>,
        theirs: impl Into<OwnedFd>,
        per_message: [usize; 2],
    ) -> Pair {
        let mut runtime = engine.runtime();
        let from = runtime.add(Keeper::default()).expect("it starts");
        let to = runtime.add(Keeper::default()).expect("it starts");
        let ours = Descriptors::new(ours).expect("a Unix socket").per_message(per_message[0]);
        let theirs = Descriptors::new(theirs).expect("a Unix socket").per_message(per_message[1]);
        let sender = runtime.with(from, |_, cx| cx.add(ours).expect("it is watched")).expect("it lives");
        let receiver = runtime.with(to, |_, cx| cx.add(theirs).expect("it is watched")).expect("it lives");
        Pair { runtime, from, to, sender, receiver }
    }

    fn send(&mut self, bytes: &[u8], descriptors: Vec<OwnedFd>) -> Flow {
        let id = self.sender;
        let send = |_: &mut Keeper, cx: &mut Context<Keeper>| cx.send(id, Message { bytes, descriptors });
        self.runtime.with(self.from, send).expect("it lives")
    }

    fn sender(&self) -> &Keeper {
        self.runtime.service(self.from).expect("it lives")
    }

    fn receiver(&self) -> &Keeper {
        self.runtime.service(self.to).expect("it lives")
    }

    fn until_bytes(&mut self, count: usize) {
        let to = self.to;
        until(&mut self.runtime, |runtime| {
            runtime.service(to).is_some_and(|keeper| keeper.bytes.len() >= count)
        });
    }
}

fn seqpacket() -> (OwnedFd, OwnedFd) {
    // CLOEXEC is the resource's affair, and not every system can say so here.
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::empty(), None).expect("a pair")
}

/// So many ends of pipes to pass on, and their other ends: one that reads its end has seen all copies closed.
fn pipes(count: usize) -> (Vec<OwnedFd>, Vec<PipeReader>) {
    let pairs = (0..count).map(|_| io::pipe().expect("a pipe"));
    let (readers, writers): (Vec<_>, Vec<_>) = pairs.unzip();
    (writers.into_iter().map(OwnedFd::from).collect(), readers)
}

/// Looks that nobody has a writing end any more, and that nobody wrote.
fn assert_closed(readers: Vec<PipeReader>) {
    for mut reader in readers {
        rustix::io::ioctl_fionbio(&reader, true).expect("a pipe");
        assert_eq!(reader.read(&mut [0]).expect("an end, since no copy is left"), 0);
    }
}

/// Looks that the events had the descriptors of these messages (where each begins, and how many it has), each
/// message's with its first byte.
fn assert_with_first_byte(events: &[(usize, Option<usize>)], messages: &[(usize, usize)]) {
    let (mut at, mut messages) = (0, messages.iter());
    for (length, count) in events {
        let count = count.expect("none is refused");
        if count > 0 {
            let (begin, sent) = messages.next().expect("no more messages have some");
            assert!((at..at + length).contains(begin), "{events:?}");
            assert_eq!(count, *sent, "{events:?}");
        }
        at += length;
    }
    assert_eq!(messages.next(), None, "{events:?}");
}

#[test]
fn descriptors_come_with_the_first_byte_of_their_message_over_a_stream() {
    for_each_engine(|engine| {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let mut pair = Pair::new(engine, ours, theirs);
        let (mut passed, readers) = pipes(3);
        pair.send(b"none", Vec::new());
        let third = passed.split_off(2);
        pair.send(b"two", passed);
        pair.send(b"joined", Vec::new());
        pair.send(b"one", third);
        pair.until_bytes(16);
        assert_eq!(pair.receiver().bytes, b"nonetwojoinedone");
        assert_with_first_byte(&pair.receiver().events, &[(4, 2), (13, 1)]);
        let to = pair.to;
        let kept = std::mem::take(&mut pair.runtime.service_mut(to).expect("it lives").kept);
        for (descriptor, mut reader) in kept.into_iter().zip(readers) {
            File::from(descriptor).write_all(b"through").expect("it is a pipe");
            let mut all = String::new();
            reader.read_to_string(&mut all).expect("this was its only copy");
            assert_eq!(all, "through");
        }
    });
}

#[test]
fn packets_and_datagrams_keep_their_boundaries() {
    for_each_engine(|engine| {
        let (ours, theirs) = UnixDatagram::pair().expect("a pair");
        let pairs = [seqpacket(), (ours.into(), theirs.into())];
        for (ours, theirs) in pairs {
            let mut pair = Pair::new(engine, ours, theirs);
            let (passed, readers) = pipes(1);
            pair.send(b"ab", Vec::new());
            pair.send(b"cde", passed);
            pair.send(b"f", Vec::new());
            pair.until_bytes(6);
            assert_eq!(pair.receiver().events, [(2, Some(0)), (3, Some(1)), (1, Some(0))]);
            drop(pair);
            assert_closed(readers);
        }
    });
}

#[test]
fn a_message_has_descriptors_up_to_its_limit() {
    for_each_engine(|engine| {
        // The default, and the most that the system passes.
        let limits = [(16, 16), (usize::MAX, 253)];
        let counts =
            limits.map(|(set, limit)| [limit - 1, limit, limit + 1].map(|count| (set, limit, count)));
        for (set, limit, count) in counts.into_iter().flatten() {
            let fits = count <= limit;
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            let mut pair = Pair::with(engine, ours, theirs, [set, set]);
            let (passed, readers) = pipes(count);
            let flow = pair.send(b"x", passed);
            if fits {
                pair.until_bytes(1);
                assert_eq!(pair.receiver().events, [(1, Some(count))]);
                pair.runtime.service_mut(pair.to).expect("it lives").kept.clear();
                assert_closed(readers);
            } else {
                assert_eq!(flow, Flow::Gone);
                assert_closed(readers);
                settle(&mut pair.runtime);
                let (_, why) = &pair.sender().closed[0];
                assert_eq!(
                    why.to_string(),
                    format!("{count} descriptors in a message that may have {limit}")
                );
            }
        }
    });
}

#[test]
fn more_than_the_receiver_takes_are_closed_and_told() {
    for_each_engine(|engine| {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let mut pair = Pair::with(engine, ours, theirs, [16, 2]);
        let mut all = Vec::new();
        for count in [1, 2, 3, 1] {
            let (passed, readers) = pipes(count);
            pair.send(b"x", passed);
            all.push(readers);
        }
        pair.until_bytes(4);
        assert_eq!(pair.receiver().events, [(1, Some(1)), (1, Some(2)), (1, None), (1, Some(1))]);
        assert_closed(all.remove(2));
        pair.runtime.service_mut(pair.to).expect("it lives").kept.clear();
        all.into_iter().for_each(assert_closed);
    });
}

#[test]
fn descriptors_that_wait_are_bounded() {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let null = File::open("/dev/null").expect("it is there");
    let nulls = |count| (0..count).map(|_| null.try_clone().expect("a descriptor").into()).collect();
    let mut pair = Pair::new(common::Engine("poll"), ours, theirs);
    // In one turn nothing leaves: 64 messages of 16 wait, and not one more.
    for sent in 0..64 {
        assert_eq!(pair.send(b"x", nulls(16)), Flow::Queued, "message {sent}");
    }
    assert_eq!(pair.send(b"none is well", Vec::new()), Flow::Queued);
    assert_eq!(pair.send(b"x", nulls(1)), Flow::Gone);
    settle(&mut pair.runtime);
    let (_, why) = &pair.sender().closed[0];
    assert_eq!(why.to_string(), "more than 1024 descriptors wait to be sent");
    // What was queued before has left.
    assert_eq!(pair.receiver().kept.len(), 1024);
}

#[test]
fn a_message_without_a_byte_and_a_packet_that_is_too_long_are_refused() {
    for_each_engine(|engine| {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let mut pair = Pair::new(engine, ours, theirs);
        let (passed, readers) = pipes(1);
        assert_eq!(pair.send(b"", passed), Flow::Gone);
        assert_closed(readers);

        for (length, fits) in [((64 << 10) - 1, true), (64 << 10, true), ((64 << 10) + 1, false)] {
            let (ours, theirs) = seqpacket();
            let mut pair = Pair::new(engine, ours, theirs);
            let packet = vec![7; length];
            assert_eq!(pair.send(&packet, Vec::new()) != Flow::Gone, fits, "{length} bytes");
            if fits {
                pair.until_bytes(length);
                assert_eq!(pair.receiver().events, [(length, Some(0))]);
            }
        }
    });
}

#[test]
fn what_did_not_leave_is_still_in_the_resource() {
    for_each_engine(|engine| {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let mut pair = Pair::new(engine, ours, theirs);
        let (from, to, sender, receiver) = (pair.from, pair.to, pair.sender, pair.receiver);
        pair.runtime.with(to, |_, cx| cx.pause(receiver));
        // More than the socket takes, so the descriptors behind it stay.
        pair.send(&vec![1; 2 << 20], Vec::new());
        let (passed, readers) = pipes(2);
        pair.send(b"late", passed);
        settle(&mut pair.runtime);
        pair.runtime.with(from, |_, cx| cx.abort(sender));
        settle(&mut pair.runtime);
        let (mut resource, _) = pair.runtime.service_mut(from).expect("it lives").closed.remove(0);
        assert_eq!(resource.unsent().len(), 2);
        assert_closed(readers);
    });
}

#[test]
fn a_large_transfer_through_a_narrow_socket_keeps_descriptors_and_bytes_together() {
    for_each_engine(|engine| {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        socket2::SockRef::from(&ours).set_send_buffer_size(1).expect("a socket");
        let mut pair = Pair::new(engine, ours, theirs);
        let mut expected = Vec::new();
        let mut all = Vec::new();
        for number in 0..40_u8 {
            let bytes = vec![number; 3_000];
            let (passed, readers) = pipes(usize::from(number % 3));
            pair.send(&bytes, passed);
            expected.extend(bytes);
            all.extend(readers);
        }
        pair.until_bytes(expected.len());
        assert_eq!(pair.receiver().bytes, expected);
        assert_eq!(pair.receiver().kept.len(), all.len());
        let messages: Vec<_> = (0..40).map(|n| (n * 3_000, n % 3)).filter(|(_, count)| *count > 0).collect();
        assert_with_first_byte(&pair.receiver().events, &messages);
        drop(pair);
        assert_closed(all);
    });
}

#[test]
fn the_end_is_told_once_after_what_arrived_and_a_dead_peer_is_an_error() {
    for_each_engine(|engine| {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let mut runtime = engine.runtime();
        let id = runtime.add(Keeper { keeps_open: true, ..Keeper::default() }).expect("it starts");
        let ours = Descriptors::new(ours).expect("a Unix socket");
        let ours = runtime.with(id, |_, cx| cx.add(ours).expect("it is watched")).expect("it lives");
        (&theirs).write_all(b"last").expect("there is room");
        drop(theirs);
        until(&mut runtime, |runtime| runtime.service(id).is_some_and(|keeper| keeper.ended > 0));
        settle(&mut runtime);
        let keeper = runtime.service(id).expect("it lives");
        assert_eq!((&keeper.bytes[..], keeper.ended, keeper.closed.len()), (&b"last"[..], 1, 0));
        runtime.with(id, |_, cx| cx.send(ours, Message { bytes: b"x", descriptors: Vec::new() }));
        until(&mut runtime, |runtime| runtime.service(id).is_some_and(|keeper| !keeper.closed.is_empty()));
        let (_, why) = &runtime.service(id).expect("it lives").closed[0];
        assert_eq!(why.io().map(io::Error::kind), Some(io::ErrorKind::BrokenPipe), "{why}");
    });
}

#[test]
fn what_is_no_unix_socket_is_refused() {
    let error = Descriptors::new(File::open("/dev/null").expect("it is there")).expect_err("no socket");
    assert!(error.raw_os_error().is_some(), "{error}");
    let other = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    assert_eq!(Descriptors::new(other).expect_err("not of Unix").kind(), io::ErrorKind::InvalidInput);
}

/// Notes who connected to a Unix and to an IP listener.
#[derive(Default)]
struct Doorman(Vec<io::Result<Credentials>>);

impl Service for Doorman {}

impl Handle<Stream> for Doorman {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<'_, Bytes>) -> Result {
        if let Event::Open = event {
            self.0.push(cx.peer_credentials(id));
        }
        Ok(())
    }
}

#[test]
fn a_stream_and_a_resource_know_who_is_at_their_other_end() {
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let id = runtime.add(Doorman::default()).expect("it starts");
        let path = std::env::temp_dir().join(format!("reactor-descriptors-{}", std::process::id()));
        let (unix, inet): (Address, Address) = runtime
            .with(id, |_, cx| -> Result<_> {
                let unix = cx.listen(&path, |_| Some(Stream::new(Bytes)))?;
                let inet = cx.listen("127.0.0.1:0", |_| Some(Stream::new(Bytes)))?;
                Ok((cx.local(unix)?, cx.local(inet)?))
            })
            .expect("it lives")
            .expect("it listens");
        let uid = rustix::process::getuid().as_raw();
        runtime
            .with(id, |_, cx| cx.connect(&unix, Stream::new(Bytes)).map(drop))
            .expect("it lives")
            .expect("up");
        until(&mut runtime, |runtime| runtime.service(id).is_some_and(|doorman| doorman.0.len() == 2));
        for found in &runtime.service(id).expect("it lives").0 {
            let found = found.as_ref().expect("a Unix socket");
            assert_eq!(found.user, uid);
            assert!(found.process.is_none_or(|process| process == std::process::id()));
            assert_eq!(found.process.is_some(), cfg!(target_os = "linux"));
        }
        runtime
            .with(id, |_, cx| cx.connect(&inet, Stream::new(Bytes)).map(drop))
            .expect("it lives")
            .expect("up");
        until(&mut runtime, |runtime| runtime.service(id).is_some_and(|doorman| doorman.0.len() == 4));
        for found in &runtime.service(id).expect("it lives").0[2..] {
            assert_eq!(found.as_ref().expect_err("not of Unix").kind(), io::ErrorKind::Unsupported);
        }
        std::fs::remove_file(&path).expect("the listener made it");
    });
    let (ours, _theirs) = UnixStream::pair().expect("a pair");
    let of_resource = Descriptors::new(ours).expect("a Unix socket").peer_credentials().expect("it is known");
    assert_eq!(of_resource.user, rustix::process::getuid().as_raw());
}
