//! A user's own resources: with output, as a plain descriptor, and misused.
#![cfg(unix)]

mod common;

use std::{
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use common::{LONG, SHORT, for_each_engine, settle, until};
use reactor::{
    Closed, Context, Fd, Flow, Handle, Id, Interest, Io, Outgoing, Pollable, Ready, Result, Runtime, Service,
    ServiceId, Source, Writable,
};

/// A user's resource. Its events are byte counts, and it sends numbers.
struct Counting {
    socket: UnixStream,
    one_at_a_time: bool,
    /// So many writes are refused for a reason that passes by itself.
    refusals: u32,
    writes: u32,
}

impl Counting {
    fn new(socket: UnixStream) -> Counting {
        Counting { socket, one_at_a_time: false, refusals: 0, writes: 0 }
    }
}

impl Pollable for Counting {
    type Event<'a> = &'a [u8];

    fn source(&self) -> Source<'_> {
        Source::of(&self.socket)
    }

    fn step<'a>(
        &mut self,
        _: Ready,
        io: &mut Io<'_>,
        buffer: &'a mut [u8],
    ) -> std::io::Result<Option<&'a [u8]>> {
        let room = if self.one_at_a_time { 1 } else { buffer.len() };
        let count = io.read(Source::of(&self.socket), &mut buffer[..room])?;
        Ok(Some(&buffer[..count]))
    }
}

impl Writable for Counting {
    type Item<'a> = u8;

    fn encode(&mut self, item: u8, out: &mut Outgoing) -> Result {
        if item == 255 {
            return Err("255 has no form".into());
        }
        out.put(&[item]);
        Ok(())
    }

    fn flush(&mut self, io: &mut Io<'_>, out: &mut Outgoing) -> std::io::Result<()> {
        self.writes += 1;
        if self.refusals > 0 {
            self.refusals -= 1;
            return Err(std::io::Error::from_raw_os_error(libc::ETOOMANYREFS));
        }
        let taken = io.write(self.source(), out)?;
        out.advance(taken);
        Ok(())
    }
}

#[derive(Default)]
struct Owner {
    bytes: Vec<u8>,
    ready: Vec<Ready>,
    closed: Vec<String>,
    back: Vec<Counting>,
    read_one: bool,
}

impl Service for Owner {}
impl Handle<Counting> for Owner {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Counting>, bytes: &[u8]) -> Result {
        if bytes.is_empty() {
            cx.close(id);
        }
        self.bytes.extend_from_slice(bytes);
        if bytes == b"no" { Err("refused".into()) } else { Ok(()) }
    }
    fn closed(&mut self, _: &mut Context<Self>, _: Id<Counting>, back: Counting, why: Closed) {
        self.closed.push(format!("{why:?}"));
        self.back.push(back);
    }
}
impl Handle<Fd<UnixStream>> for Owner {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Fd<UnixStream>>, ready: Ready) -> Result {
        self.ready.push(ready);
        if self.read_one {
            let mut byte = [0];
            let socket = cx.get_mut(id).expect("it lives");
            if socket.read(&mut byte)? == 1 {
                self.bytes.push(byte[0]);
            } else {
                cx.close(id);
            }
        }
        Ok(())
    }
    fn closed(&mut self, _: &mut Context<Self>, _: Id<Fd<UnixStream>>, _: Fd<UnixStream>, why: Closed) {
        self.closed.push(format!("{why:?}"));
    }
}

fn pair() -> (UnixStream, UnixStream) {
    let (ours, peer) = UnixStream::pair().expect("a pair");
    ours.set_nonblocking(true).expect("a socket");
    peer.set_nonblocking(true).expect("a socket");
    (ours, peer)
}

fn owner(mut runtime: Runtime, one_at_a_time: bool) -> (Runtime, ServiceId<Owner>, Id<Counting>, UnixStream) {
    let service = runtime.add(Owner::default()).expect("it starts");
    let (socket, peer) = pair();
    let id = runtime
        .with(service, |_, cx| {
            cx.add(Counting { one_at_a_time, ..Counting::new(socket) }).map_err(|e| e.error).expect("room")
        })
        .expect("it lives");
    (runtime, service, id, peer)
}

#[test]
fn a_resource_that_reads_one_byte_at_a_time_gets_all() {
    for_each_engine(|engine| {
        let (mut runtime, service, _, mut peer) = owner(engine.runtime(), true);
        let sent = common::pattern(1000);
        peer.write_all(&sent).expect("room");
        let before = runtime.metrics().read().turns;
        until(&mut runtime, |runtime| runtime.service(service).expect("it lives").bytes.len() == sent.len());
        assert_eq!(runtime.service(service).expect("it lives").bytes, sent);
        let turns = runtime.metrics().read().turns - before;
        assert!((16..=17).contains(&turns), "64 steps a turn, not more: {turns} turns");
        drop(peer);
        until(&mut runtime, |runtime| runtime.service(service).expect("it lives").closed == ["Done"]);
    });
}

#[test]
fn output_waits_for_room_and_is_exact() {
    for_each_engine(|engine| {
        let (mut runtime, service, id, mut peer) = owner(engine.runtime(), false);
        const COUNT: usize = 1 << 20;
        let flow = runtime.with(service, |_, cx| (0..COUNT).map(|n| cx.send(id, (n % 251) as u8)).last());
        assert_eq!(flow.flatten(), Some(Flow::High));
        let (mut got, mut buffer) = (Vec::new(), vec![0; 10_000]);
        until(&mut runtime, |_| {
            match peer.read(&mut buffer) {
                Ok(count) => got.extend_from_slice(&buffer[..count]),
                Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
            }
            got.len() == COUNT
        });
        assert!(got.iter().enumerate().all(|(n, byte)| *byte == (n % 251) as u8));
        // The queue is empty, so the runtime no longer watches for room, and the loop does not spin.
        let turns = runtime.metrics().read().turns;
        runtime.turn(Some(SHORT)).expect("whole");
        runtime.turn(Some(SHORT)).expect("whole");
        assert!(runtime.metrics().read().turns <= turns + 2);
        assert_eq!(runtime.with(service, |_, cx| cx.send(id, 255)), Some(Flow::Gone));
        until(&mut runtime, |runtime| !runtime.service(service).expect("it lives").closed.is_empty());
        assert!(runtime.service(service).expect("it lives").closed[0].starts_with("Refused"));
    });
}

#[test]
fn a_refusal_is_told_although_a_stop_cuts_the_resource() {
    for_each_engine(|engine| {
        let (mut runtime, service, id, mut peer) = owner(engine.runtime(), false);
        // The peer does not read, and so the close of the refusal cannot come to its end.
        runtime.with(service, |_, cx| (0..1 << 20).for_each(|_| _ = cx.send(id, 1)));
        peer.write_all(b"no").expect("room");
        until(&mut runtime, |runtime| runtime.service(service).expect("it lives").bytes == b"no");
        runtime.with(service, |_, cx| cx.stop(Duration::ZERO));
        let receipt = runtime.run().expect("it runs");
        let closed = &runtime.service(service).expect("it lives").closed;
        assert!(closed.len() == 1 && closed[0].starts_with("Refused"), "{closed:?}");
        assert!(receipt.cut == 1 && receipt.bytes_dropped > 0, "{receipt:?}");
    });
}

#[test]
fn a_close_flushes_first_and_release_gives_it_back_to_be_added_again() {
    for_each_engine(|engine| {
        let (mut runtime, service, id, mut peer) = owner(engine.runtime(), false);
        runtime.with(service, |_, cx| {
            assert_eq!(cx.send(id, 1), Flow::Queued);
            cx.release(id).expect("it is not closing");
            assert_eq!(cx.send(id, 2), Flow::Gone);
        });
        until(&mut runtime, |runtime| runtime.service(service).expect("it lives").closed == ["Released"]);
        let mut byte = [0; 8];
        assert_eq!((peer.read(&mut byte).expect("it left"), byte[0]), (1, 1));
        peer.write_all(b"between").expect("room");
        let back = runtime.service_mut(service).expect("it lives").back.remove(0);
        let id = runtime
            .with(service, |_, cx| cx.add(back).map_err(|e| e.error).expect("room"))
            .expect("it lives");
        until(&mut runtime, |runtime| runtime.service(service).expect("it lives").bytes == b"between");
        runtime.with(service, |_, cx| {
            cx.send(id, 3);
            cx.close(id);
        });
        until(&mut runtime, |runtime| runtime.service(service).expect("it lives").closed.len() == 2);
        assert_eq!((peer.read(&mut byte).expect("it left"), byte[0]), (1, 3));
    });
}

#[test]
fn a_send_that_is_refused_for_now_is_tried_again_after_pauses() {
    for_each_engine(|engine| {
        for closes in [false, true] {
            let (mut runtime, service, id, mut peer) = owner(engine.runtime(), false);
            let turns = runtime.metrics().read().turns;
            runtime.with(service, |_, cx| {
                cx.get_mut(id).expect("it lives").refusals = 4;
                cx.send(id, 7);
                if closes {
                    cx.close(id);
                }
            });
            let mut byte = [0];
            until(&mut runtime, |_| peer.read(&mut byte).is_ok());
            assert_eq!(byte, [7]);
            if closes {
                until(&mut runtime, |runtime| runtime.service(service).expect("it lives").closed == ["Done"]);
            } else {
                let writes = runtime.with(service, |_, cx| cx.get(id).expect("it lives").writes);
                assert_eq!(writes, Some(5));
                runtime.with(service, |_, cx| cx.send(id, 8));
                until(&mut runtime, |_| peer.read(&mut byte).is_ok());
                assert_eq!(byte, [8]);
            }
            // It waits for 15 ms in all, and there is room for all that time.
            let turns = runtime.metrics().read().turns - turns;
            assert!(turns < 60, "{turns} turns");
        }
        // While it rests it reads, and can be ended.
        let (mut runtime, service, id, mut peer) = owner(engine.runtime(), false);
        runtime.with(service, |_, cx| {
            cx.get_mut(id).expect("it lives").refusals = u32::MAX;
            cx.send(id, 7);
        });
        peer.write_all(b"input").expect("room");
        until(&mut runtime, |runtime| runtime.service(service).expect("it lives").bytes == b"input");
        runtime.with(service, |_, cx| cx.abort(id));
        until(&mut runtime, |runtime| runtime.service(service).expect("it lives").closed == ["Aborted"]);
    });
}

#[test]
fn pause_loses_nothing() {
    for_each_engine(|engine| {
        let (mut runtime, service, id, mut peer) = owner(engine.runtime(), false);
        runtime.with(service, |_, cx| cx.pause(id));
        settle(&mut runtime);
        peer.write_all(b"later").expect("room");
        settle(&mut runtime);
        assert!(runtime.service(service).expect("it lives").bytes.is_empty());
        runtime.with(service, |_, cx| cx.resume(id));
        until(&mut runtime, |runtime| runtime.service(service).expect("it lives").bytes == b"later");
    });
}

#[test]
fn a_resource_whose_source_was_exchanged_ends_as_misuse_and_nobody_else_suffers() {
    for_each_engine(|engine| {
        for keep in [true, false] {
            let (mut runtime, service, id, mut peer) = owner(engine.runtime(), false);
            settle(&mut runtime);
            let (other, _far) = pair();
            let old = runtime.with(service, |_, cx| {
                std::mem::replace(&mut cx.get_mut(id).expect("it lives").socket, other)
            });
            let old = old.filter(|_| keep);
            until(&mut runtime, |runtime| !runtime.service(service).expect("it lives").closed.is_empty());
            assert!(runtime.service(service).expect("it lives").closed[0].starts_with("Misuse"));
            // The old descriptor, still open elsewhere, must not wake the loop.
            let _ = peer.write_all(b"x");
            settle(&mut runtime);
            let turns = runtime.metrics().read().turns;
            let stale = runtime.metrics().read().stale;
            runtime.turn(Some(SHORT)).expect("whole");
            runtime.turn(Some(SHORT)).expect("whole");
            assert_eq!(runtime.metrics().read().stale, stale);
            assert_eq!(runtime.metrics().read().turns, turns + 2);
            drop(old);
        }
    });
}

#[test]
fn a_descriptor_is_told_each_turn_until_it_is_drained_one_byte_per_readiness() {
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let service = runtime.add(Owner { read_one: true, ..Owner::default() }).expect("it starts");
        let (ours, mut peer) = pair();
        runtime.with(service, |_, cx| cx.add(Fd::new(ours, Interest::Read)).map(|_| ()).expect("room"));
        peer.write_all(b"bytewise").expect("room");
        for count in 1..=8 {
            runtime.turn(Some(LONG)).expect("whole");
            assert_eq!(runtime.service(service).expect("it lives").bytes.len(), count);
        }
        runtime.turn(Some(SHORT)).expect("whole");
        assert_eq!(runtime.service(service).expect("it lives").ready.len(), 8);
        drop(peer);
        until(&mut runtime, |runtime| runtime.service(service).expect("it lives").closed == ["Done"]);
    });
}

#[test]
fn the_interest_of_a_descriptor_may_change_at_any_time() {
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let service = runtime.add(Owner::default()).expect("it starts");
        let (ours, mut peer) = pair();
        let id = runtime
            .with(service, |_, cx| cx.add(Fd::new(ours, Interest::Read)).map_err(|e| e.error).expect("room"))
            .expect("it lives");
        peer.write_all(b"x").expect("room");
        let set = |runtime: &mut Runtime, interest| {
            runtime.with(service, |owner, cx| {
                owner.ready.clear();
                cx.get_mut(id).expect("it lives").set_interest(interest);
            });
            settle(runtime);
            runtime.service(service).expect("it lives").ready.clone()
        };
        assert!(
            set(&mut runtime, Some(Interest::Write)).iter().all(|ready| ready.writable && !ready.readable)
        );
        assert!(set(&mut runtime, Some(Interest::Both)).iter().any(|ready| ready.writable && ready.readable));
        assert!(set(&mut runtime, Some(Interest::Read)).last().is_some_and(|ready| !ready.writable));
        let rests = set(&mut runtime, None);
        assert!(rests.len() <= 1, "{} after none", rests.len());
        assert!(set(&mut runtime, Some(Interest::Read)).len() > 1, "it is still there");
    });
}

#[test]
fn a_hang_up_of_a_resting_descriptor_does_not_spin() {
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let service = runtime.add(Owner::default()).expect("it starts");
        for interest in [Interest::Write, Interest::Read] {
            let (ours, peer) = pair();
            let id = runtime
                .with(service, |_, cx| cx.add(Fd::new(ours, interest)).map_err(|e| e.error).expect("room"))
                .expect("it lives");
            runtime.with(service, |_, cx| cx.pause(id));
            settle(&mut runtime);
            drop(peer);
            settle(&mut runtime);
            let turns = runtime.metrics().read().turns;
            runtime.turn(Some(SHORT)).expect("whole");
            runtime.turn(Some(SHORT)).expect("whole");
            assert_eq!(runtime.metrics().read().turns, turns + 2);
            runtime.with(service, |_, cx| cx.resume(id));
            runtime.with(service, |owner, _| owner.ready.clear());
            until(&mut runtime, |runtime| !runtime.service(service).expect("it lives").ready.is_empty());
            runtime.with(service, |_, cx| cx.close(id));
            runtime.turn(Some(Duration::ZERO)).expect("whole");
        }
    });
}
