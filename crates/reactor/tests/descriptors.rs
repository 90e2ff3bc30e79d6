//! The library's own limits for descriptors over Unix sockets. The conformance suite tests the duties of the
//! engines.
#![cfg(unix)]

mod common;

#[cfg(target_os = "linux")]
use std::os::{
    linux::net::SocketAddrExt as _,
    unix::net::{SocketAddr, UnixListener},
};
use std::{
    fs::File,
    io::{self, IoSlice, PipeReader, Read},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use common::{for_each_engine, settle, until};
use reactor::{
    Closed, Context, Descriptor, Descriptors, Flow, Handle, Id, Message, Passed, Result, Runtime, Service,
    ServiceId,
};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg,
    socketpair,
};

/// Records events, and keeps the received descriptors.
#[derive(Default)]
struct Keeper {
    bytes: usize,
    /// The number of bytes and descriptors of each event, or `None` if the descriptors were refused.
    events: Vec<(usize, Option<usize>)>,
    /// The number of truncated events.
    truncated: usize,
    kept: Vec<Descriptor>,
    closed: Vec<(Descriptors, Closed)>,
}

impl Service for Keeper {}

impl Handle<Descriptors> for Keeper {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Descriptors>, event: Passed<'_>) -> Result {
        match event {
            Passed::Received { bytes, descriptors, truncated } => {
                self.bytes += bytes.len();
                self.truncated += usize::from(truncated);
                self.events.push((bytes.len(), Some(descriptors.len())));
                self.kept.extend(descriptors);
            }
            Passed::Refused { bytes, truncated } => {
                self.bytes += bytes.len();
                self.truncated += usize::from(truncated);
                self.events.push((bytes.len(), None));
            }
            Passed::Open => (),
            Passed::End => cx.close(id),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Descriptors>, resource: Descriptors, why: Closed) {
        self.closed.push((resource, why));
    }
}

/// A runtime with a resource at each end of a socket pair.
struct Pair {
    runtime: Runtime,
    from: ServiceId<Keeper>,
    to: ServiceId<Keeper>,
    sender: Id<Descriptors>,
}

impl Pair {
    fn new(engine: common::Engine, ours: impl Into<OwnedFd>, theirs: impl Into<OwnedFd>) -> Pair {
        Pair::with(engine, ours, theirs, 16)
    }

    fn with(
        engine: common::Engine,
        ours: impl Into<OwnedFd>,
        theirs: impl Into<OwnedFd>,
        most: usize,
    ) -> Pair {
        let mut runtime = engine.runtime();
        let from = runtime.add(Keeper::default()).expect("it starts");
        let to = runtime.add(Keeper::default()).expect("it starts");
        let ours = Descriptors::new().on(ours).expect("a Unix socket").per_message(most);
        let theirs = Descriptors::new().on(theirs).expect("a Unix socket").per_message(most);
        let sender = runtime.with(from, |_, cx| cx.add(ours).expect("it is watched")).expect("it lives");
        runtime.with(to, |_, cx| cx.add(theirs).map(drop).expect("it is watched")).expect("it lives");
        Pair { runtime, from, to, sender }
    }

    fn send(&mut self, bytes: &[u8], descriptors: Vec<Descriptor>) -> Flow {
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
        until(&mut self.runtime, |runtime| runtime.service(to).is_some_and(|keeper| keeper.bytes >= count));
    }
}

fn seqpacket() -> (OwnedFd, OwnedFd) {
    // The resource sets CLOEXEC itself, and not every system accepts it here.
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::empty(), None).expect("a pair")
}

/// Makes pipes, and returns their writing ends to pass on, and their readers. A reader that sees the end
/// knows that all copies are closed.
fn pipes(count: usize) -> (Vec<Descriptor>, Vec<PipeReader>) {
    let pairs = (0..count).map(|_| io::pipe().expect("a pipe"));
    let (readers, writers): (Vec<_>, Vec<_>) = pairs.unzip();
    (writers.into_iter().map(Descriptor::new).collect(), readers)
}

/// Checks that every writing end is closed, and that nothing was written.
fn assert_closed(readers: Vec<PipeReader>) {
    for mut reader in readers {
        rustix::io::ioctl_fionbio(&reader, true).expect("a pipe");
        assert_eq!(reader.read(&mut [0]).expect("an end, since no copy is left"), 0);
    }
}

#[test]
fn a_message_has_descriptors_up_to_its_limit() {
    for_each_engine(|engine| {
        // The default limit, and the most that the system passes.
        let limits = [(16, 16), (usize::MAX, 253)];
        let counts =
            limits.map(|(set, limit)| [limit - 1, limit, limit + 1].map(|count| (set, limit, count)));
        for (set, limit, count) in counts.into_iter().flatten() {
            let fits = count <= limit;
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            let mut pair = Pair::with(engine, ours, theirs, set);
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
#[cfg(target_os = "linux")]
fn a_full_queue_of_a_listener_keeps_descriptors_waiting() {
    for_each_engine(|engine| {
        let name = format!("reactor-descriptors-{}-{}", engine.0, std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a short name");
        let listener = UnixListener::bind_addr(&address).expect("it is free");
        listener.set_nonblocking(true).expect("an option");
        // Room for one connection, which is there.
        rustix::net::listen(&listener, 0).expect("it listens already");
        let _first = UnixStream::connect_addr(&address).expect("there is room");
        let mut runtime = engine.runtime();
        let service = runtime.add(Keeper::default()).expect("it starts");
        let address = reactor::Address::Abstract(name.into_bytes());
        let turns = runtime.metrics().read().turns;
        let (writers, readers) = pipes(1);
        runtime
            .with(service, |_, cx| {
                let [waits, closes, aborts] =
                    [(); 3].map(|()| cx.connect(&address, Descriptors::new()).expect("it waits"));
                cx.send(waits, Message { bytes: b"with", descriptors: writers });
                cx.close(closes);
                cx.abort(aborts);
            })
            .expect("it lives");
        until(&mut runtime, |runtime| runtime.service(service).expect("it lives").closed.len() == 2);
        settle(&mut runtime);
        assert_eq!(runtime.service(service).expect("it lives").closed.len(), 2, "one waits");
        assert!(runtime.metrics().read().turns - turns < 100, "it rests meanwhile");
        let mut accepted = Vec::new();
        until(&mut runtime, |_| {
            accepted.extend(listener.accept().ok());
            accepted.len() == 2
        });
        let mut peer = accepted.pop().expect("there are two").0;
        peer.set_nonblocking(true).expect("an option");
        let mut bytes = [0; 4];
        until(&mut runtime, |_| peer.read(&mut bytes).is_ok());
        assert_eq!(&bytes, b"with");
        // This read took the bytes and not the descriptor, which is closed by that.
        assert_closed(readers);
        drop(peer);
        until(&mut runtime, |runtime| runtime.service(service).expect("it lives").closed.len() == 3);
        // Nobody listens any more: that is final, also for one that waits.
        drop((accepted, listener));
        let refused = runtime.with(service, |_, cx| cx.connect(&address, Descriptors::new()).map(drop));
        refused.expect("it lives").expect_err("nobody listens");
    });
}

#[test]
fn descriptors_that_wait_are_bounded() {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let null = File::open("/dev/null").expect("it is there");
    let nulls =
        |count| (0..count).map(|_| Descriptor::new(null.try_clone().expect("a descriptor"))).collect();
    let mut pair = Pair::new(common::Engine("poll"), ours, theirs);
    // Nothing is sent within the turn: 1,023 descriptors wait, one more fits, and the next does not.
    for count in [16; 63].into_iter().chain([15, 1]) {
        assert_eq!(pair.send(b"x", nulls(count)), Flow::Queued);
    }
    assert_eq!(pair.send(b"none is well", Vec::new()), Flow::Queued);
    assert_eq!(pair.send(b"x", nulls(1)), Flow::Gone);
    settle(&mut pair.runtime);
    let (_, why) = &pair.sender().closed[0];
    assert_eq!(why.to_string(), "more than 1024 descriptors wait to be sent");
    // Everything that was queued before has been sent.
    assert_eq!(pair.receiver().kept.len(), 1024);
}

#[test]
fn messages_that_wait_are_bounded() {
    let null = File::open("/dev/null").expect("it is there");
    for_each_engine(|engine| {
        let streams = UnixStream::pair().expect("a pair");
        for (is_stream, (ours, theirs)) in
            [(false, seqpacket()), (true, (streams.0.into(), streams.1.into()))]
        {
            let mut pair = Pair::new(engine, ours, theirs);
            let (from, id) = (pair.from, pair.sender);
            // Nothing is sent within the turn: 4,095 messages wait, one more fits, and the next does not.
            let flows = pair.runtime.with(from, |_, cx| {
                let send = |number| {
                    // On a stream only messages with descriptors count, even after the descriptors were
                    // taken out.
                    let null = || Descriptor::new(null.try_clone().expect("a descriptor"));
                    let descriptors = if is_stream { vec![null()] } else { Vec::new() };
                    if number % 1024 == 0 {
                        cx.get_mut(id).map(Descriptors::unsent);
                    }
                    cx.send(id, Message { bytes: b"x", descriptors })
                };
                (0..4097).map(send).collect::<Vec<_>>()
            });
            let flows = flows.expect("it lives");
            assert!(flows[..4096].iter().all(|flow| *flow == Flow::Queued));
            assert_eq!(flows[4096], Flow::Gone);
            // Everything that was queued before is sent.
            pair.until_bytes(4096);
            let (_, why) = &pair.sender().closed[0];
            assert_eq!(why.to_string(), "more than 4096 messages wait to be sent");
            assert_eq!(pair.receiver().bytes, 4096);
        }
    });
}

#[test]
fn descriptors_that_left_or_were_taken_out_wait_no_more() {
    let null = File::open("/dev/null").expect("it is there");
    let nulls =
        |count| (0..count).map(|_| Descriptor::new(null.try_clone().expect("a descriptor"))).collect();
    for_each_engine(|engine| {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let mut pair = Pair::with(engine, ours, theirs, 253);
        let (from, id) = (pair.from, pair.sender);
        // Queue as many as may wait, three times over, and in the end one more.
        for round in 0..3 {
            for count in [253, 253, 253, 253, 12] {
                assert_eq!(pair.send(b"x", nulls(count)), Flow::Queued, "round {round}");
            }
            if round == 1 {
                let take = |_: &mut Keeper, cx: &mut Context<Keeper>| cx.get_mut(id).map(Descriptors::unsent);
                let taken = pair.runtime.with(from, take).flatten().expect("it lives");
                assert_eq!(taken.len(), 1024);
            } else if round == 0 {
                settle(&mut pair.runtime);
                let to = pair.to;
                let kept = &mut pair.runtime.service_mut(to).expect("it lives").kept;
                assert_eq!(std::mem::take(kept).len(), 1024);
            }
        }
        assert_eq!(pair.send(b"x", nulls(1)), Flow::Gone);
    });
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
fn a_socket_that_is_taken_is_not_inherited_and_does_not_block() {
    let (ours, _theirs) = seqpacket();
    let flags = rustix::io::fcntl_getfd(&ours).expect("it is open");
    assert!(!flags.contains(rustix::io::FdFlags::CLOEXEC), "the test makes it so");
    let taken = Descriptors::new().on(ours).expect("a Unix socket");
    let socket = taken.into_socket().and_then(|socket| socket.into_fd().ok()).expect("it is a socket");
    let flags = rustix::io::fcntl_getfd(&socket).expect("it is open");
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    let error = rustix::io::read(&socket, &mut [0]).expect_err("nothing is there");
    assert_eq!(error, rustix::io::Errno::AGAIN);
}

#[test]
fn what_is_no_unix_socket_is_refused() {
    let null = File::open("/dev/null").expect("it is there");
    let error = Descriptors::new().on(null).expect_err("no socket");
    assert!(error.raw_os_error().is_some(), "{error}");
    let other = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let error = Descriptors::new().on(other).expect_err("not of Unix");
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);

    let mut runtime = Runtime::new().expect("an engine");
    let keeper = runtime.add(Keeper::default()).expect("it starts");
    let none = runtime.with(keeper, |_, cx| cx.add(Descriptors::new()).map(drop)).expect("it lives");
    let text = none.expect_err("it has no socket").error.to_string();
    assert!(text.contains("it has no socket: use listen, connect or on"), "{text}");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let over_ip = runtime.with(keeper, |_, cx| cx.connect(address, Descriptors::new()).map(drop));
    let text = over_ip.expect("it lives").expect_err("not over IP").to_string();
    assert_eq!(text, "attach descriptors: descriptors pass through Unix sockets only");
}

#[test]
fn of_a_packet_that_is_too_long_the_rest_is_lost_and_that_is_told() {
    let null = File::open("/dev/null").expect("it is there");
    for_each_engine(|engine| {
        let lengths = [(PACKET - 1, PACKET - 1, 0), (PACKET, PACKET, 0), (PACKET + 1, PACKET, 1)];
        // Without descriptors, with some, and with more than the resource accepts.
        for ((length, arrived, truncated), count) in
            lengths.into_iter().flat_map(|length| [0, 1, 17].map(|count| (length, count)))
        {
            let (ours, theirs) = seqpacket();
            let from = ours.try_clone().expect("a descriptor");
            let mut pair = Pair::new(engine, ours, theirs);
            // Bypass the resource, which would refuse the packet.
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(17))];
            let mut with = SendAncillaryBuffer::new(&mut space);
            let nulls = vec![null.as_fd(); count];
            assert!(count == 0 || with.push(SendAncillaryMessage::ScmRights(&nulls)));
            let bytes = vec![7; length];
            let sent = sendmsg(&from, &[IoSlice::new(&bytes)], &mut with, SendFlags::empty());
            assert_eq!(sent.expect("there is room"), length);
            pair.send(b"next", Vec::new());
            pair.until_bytes(arrived + 4);
            let taken = (count <= 16).then_some(count);
            assert_eq!(pair.receiver().events, [(arrived, taken), (4, Some(0))]);
            assert_eq!(pair.receiver().truncated, truncated, "of {length} bytes");
        }
    });
}

#[test]
fn so_many_messages_leave_in_a_turn_and_the_others_in_the_next() {
    for_each_engine(|engine| {
        for (count, first) in [(63, 63), (64, 64), (65, 64)] {
            let (ours, theirs) = seqpacket();
            let mut runtime = engine.runtime();
            let keeper = runtime.add(Keeper::default()).expect("it starts");
            let ours = Descriptors::new().on(ours).expect("a Unix socket");
            let id = runtime.with(keeper, |_, cx| cx.add(ours).expect("it is watched")).expect("it lives");
            let read = || {
                let flags = rustix::net::RecvFlags::DONTWAIT;
                (0..count).filter(|_| rustix::net::recv(&theirs, &mut [0], flags).is_ok()).count()
            };
            runtime.with(keeper, |_, cx| {
                let message = || Message { bytes: b"x", descriptors: Vec::new() };
                (0..count).for_each(|_| _ = cx.send(id, message()));
            });
            runtime.turn(Some(Duration::ZERO)).expect("the engine is whole");
            assert_eq!(read(), first, "{count} sent");
            settle(&mut runtime);
            assert_eq!(read(), count - first, "{count} sent");
        }
    });
}

/// The most bytes of a packet.
const PACKET: usize = 64 << 10;

/// Queues more than a socket takes.
fn fill(runtime: &mut Runtime, service: ServiceId<Keeper>, id: Id<Descriptors>) {
    let send = |_: &mut Keeper, cx: &mut Context<Keeper>| {
        (0..64).for_each(|_| _ = cx.send(id, Message { bytes: &[7; 16 << 10], descriptors: Vec::new() }));
    };
    runtime.with(service, send).expect("it lives");
}

#[test]
fn a_peer_that_reads_nothing_ends_the_resource_after_its_stall_and_one_that_reads_does_not() {
    const STALL: Duration = Duration::from_millis(500);
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let services = [(); 2].map(|()| runtime.add(Keeper::default()).expect("it starts"));
        let pairs = [(); 2].map(|()| UnixStream::pair().expect("a pair"));
        let [(ours, mut theirs), (patient, _mute)] = pairs;
        for (service, socket, stall) in [(services[0], ours, Some(STALL)), (services[1], patient, None)] {
            let made = Descriptors::new().on(socket).expect("a Unix socket").write_stall(stall);
            let id = runtime.with(service, |_, cx| cx.add(made).expect("it is watched")).expect("it lives");
            fill(&mut runtime, service, id);
        }
        // The peer reads once, so the time begins anew.
        settle(&mut runtime);
        let begin = Instant::now();
        theirs.read_exact(&mut [0; 64 << 10]).expect("it is sent");
        settle(&mut runtime);
        let is_closed = |runtime: &Runtime, at: usize| {
            !runtime.service(services[at]).expect("it lives").closed.is_empty()
        };
        until(&mut runtime, |runtime| is_closed(runtime, 0));
        assert!(begin.elapsed() >= STALL, "it ended after {:?}", begin.elapsed());
        let why = &runtime.service(services[0]).expect("it lives").closed[0].1;
        assert!(matches!(why, Closed::Stalled), "{why}");
        assert!(!is_closed(&runtime, 1), "one without a limit waits on");
    });
}
