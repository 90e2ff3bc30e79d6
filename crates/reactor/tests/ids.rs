//! Each id has one life. Stale ids, and those of other services and other runtimes, are harmless.
#![cfg(unix)]

mod common;

use std::{io::Write, time::Duration};

use common::{Probe, Seen, World, add, for_each_engine, quick_close, settle, tcp_pair, until};
use reactor::{Bytes, Flow, Id, Interest, Stream};

/// Checks each query by id, for an id that must not be found.
fn assert_gone(cx: &mut reactor::Context<Probe>, id: Id<Stream>) {
    assert_eq!(cx.send(id, &b"x"[..]), Flow::Gone);
    assert!(cx.get(id).is_none() && cx.get_mut(id).is_none());
    let [local, peer] = [cx.local(id), cx.peer(id)].map(|answer| answer.expect_err("it has no address"));
    let who = cx.peer_credentials(id).expect_err("there is no other end");
    for (error, operation) in [(local, "local"), (peer, "peer"), (who, "peer credentials")] {
        assert_eq!(error.io().map(std::io::Error::kind), Some(std::io::ErrorKind::NotFound));
        let named = format!("{operation} Stream {id:?}: ");
        assert!(error.to_string().starts_with(&named), "{error}");
    }
    let codec = cx.map_codec(id, |_| -> Bytes { panic!("there is none") }).expect_err("there is no codec");
    assert!(codec.to_string().starts_with(&format!("map_codec Stream {id:?}: ")), "{codec}");
    assert_eq!(codec.io().map(std::io::Error::kind), Some(std::io::ErrorKind::NotFound));
    cx.pair(id, id).expect("one that is gone is no error");
    assert_eq!(cx.send_owned(id, vec![0; 600]), Flow::Gone);
    cx.background(id);
    cx.deadline(id, Duration::ZERO);
    cx.pause(id);
    cx.resume(id);
    cx.finish(id);
    cx.release(id).expect("one that is gone is no error");
    cx.close(id);
    cx.abort(id);
    assert!(cx.layer(id, |_, _| Ok(())).is_none());
}

#[test]
fn an_id_is_eight_bytes() {
    assert_eq!(size_of::<Id<Stream>>(), 8);
}

#[test]
fn a_stale_id_never_reaches_the_next_tenant_of_its_slot() {
    for_each_engine(|engine| {
        let mut world =
            World::new(engine.with(|limits| limits.resources = 1), Probe::quiet(), Stream::new(Bytes));
        let old = world.id;
        world.until_seen(Seen::Open);
        world.with(|cx, id| cx.abort(id));
        world.until_closed();
        let (ours, mut peer) = tcp_pair();
        let new = add(&mut world.runtime, world.service, Stream::new(Bytes), ours);
        assert_eq!((new.key().slot(), new == old), (old.key().slot(), false));
        world.with(|cx, _| assert_gone(cx, old));
        settle(&mut world.runtime);
        assert_eq!(world.probe().closed.len(), 1, "the new one lives");
        peer.write_all(b"hi").expect("room");
        world.until_seen(Seen::got("hi"));
    });
}

#[test]
fn an_id_of_another_service_or_runtime_is_gone() {
    for_each_engine(|engine| {
        let mut world = World::new(engine.runtime(), Probe::<Bytes>::quiet(), Stream::new(Bytes));
        world.until_seen(Seen::Open);
        let id = world.id;
        let second = world.runtime.add(Probe::<Bytes>::quiet()).expect("it starts");
        world.runtime.with(second, |_, cx| assert_gone(cx, id)).expect("it lives");
        let mut elsewhere = World::new(engine.runtime(), Probe::<Bytes>::quiet(), Stream::new(Bytes));
        assert_eq!(elsewhere.id.key().slot(), id.key().slot());
        elsewhere.with(|cx, _| assert_gone(cx, id));
        settle(&mut world.runtime);
        settle(&mut elsewhere.runtime);
        assert!(world.probe().closed.is_empty() && elsewhere.probe().closed.is_empty());
        assert!(elsewhere.runtime.service(world.service).is_none(), "nor is its service found");
    });
}

#[test]
fn after_closed_its_id_is_gone_and_in_closed_too() {
    for_each_engine(|engine| {
        let probe = Probe::new(|cx, id, seen| {
            if let Seen::Closed(_) = seen {
                assert_gone(cx, id);
            }
            Ok(())
        });
        let mut world = World::new(engine.runtime(), probe, Stream::new(Bytes));
        world.until_seen(Seen::Open);
        world.with(|cx, id| {
            cx.abort(id);
            assert_gone(cx, id);
        });
        world.until_closed();
        world.with(assert_gone);
    });
}

#[test]
fn an_event_in_the_same_batch_of_a_stream_that_was_aborted_is_not_told() {
    for_each_engine(|engine| {
        let probe = Probe::new(|cx, id, seen| {
            if let Seen::Got(_) = seen {
                // The first event ends the other stream, whose input is already in the batch.
                cx.close_all();
                cx.abort(id);
            }
            Ok(())
        });
        let mut world = World::new(engine.runtime(), probe, Stream::new(Bytes).options(quick_close()));
        let (ours, mut peer) = tcp_pair();
        add(&mut world.runtime, world.service, Stream::new(Bytes).options(quick_close()), ours);
        settle(&mut world.runtime);
        world.peer.write_all(b"x").expect("room");
        peer.write_all(b"x").expect("room");
        let service = world.service;
        until(&mut world.runtime, |runtime| runtime.service(service).expect("it lives").closed.len() == 2);
        assert_eq!(world.probe().count(&Seen::got("x")), 1);
    });
}

#[test]
fn a_number_of_a_descriptor_used_again_in_the_same_turn_is_another_life() {
    for_each_engine(|engine| {
        let probe = Probe::new(|cx, id, seen| {
            if let Seen::Got(_) = seen {
                cx.abort(id);
                // The aborted stream's descriptor is closed, so a new one gets the same number.
                let (ours, peer) = tcp_pair();
                cx.add(Stream::new(Bytes).on(ours)?)?;
                std::mem::forget(peer);
            }
            Ok(())
        });
        let mut world = World::new(engine.runtime(), probe, Stream::new(Bytes));
        world.until_seen(Seen::Open);
        world.peer.write_all(b"x").expect("room");
        world.until_closed();
        settle(&mut world.runtime);
        assert_eq!(world.probe().count(&Seen::Open), 2);
        assert_eq!(world.probe().count(&Seen::got("x")), 1);
        assert_eq!(world.probe().closed.len(), 1);
    });
}

#[test]
fn the_limit_of_resources_gives_the_stream_back() {
    for_each_engine(|engine| {
        let mut world =
            World::new(engine.with(|limits| limits.resources = 2), Probe::quiet(), Stream::new(Bytes));
        let (second, _far) = tcp_pair();
        add(&mut world.runtime, world.service, Stream::new(Bytes), second);
        let (third, mut far) = tcp_pair();
        let stream = Stream::new(Bytes).on(third).expect("a socket");
        let back = world.with(|cx, _| cx.add(stream).expect_err("it is full"));
        assert!(matches!(back.error, reactor::Error::Full { limit: 2, .. }), "{}", back.error);
        // The returned stream is intact, and is accepted once another has gone.
        world.with(|cx, id| cx.abort(id));
        world.until_closed();
        let id = world.with(|cx, _| cx.add(back.resource).map_err(|e| e.error).expect("room"));
        far.write_all(b"whole").expect("room");
        let service = world.service;
        until(&mut world.runtime, |runtime| {
            runtime.service(service).expect("it lives").bytes(id) == b"whole"
        });
    });
}

#[test]
fn a_stream_without_transport_and_a_closed_descriptor_come_back() {
    for_each_engine(|engine| {
        let mut world = World::new(engine.runtime(), Probe::<Bytes>::quiet(), Stream::new(Bytes));
        let back = world.with(|cx, _| cx.add(Stream::new(Bytes)).expect_err("it has no transport"));
        assert!(matches!(back.error, reactor::Error::Misuse { .. }));
        // epoll refuses a regular file, while poll reports it as always ready.
        if engine.0 == "epoll" {
            struct Files;
            impl reactor::Service for Files {}
            impl reactor::Handle<reactor::Fd<std::fs::File>> for Files {
                fn handle(
                    &mut self,
                    _: &mut reactor::Context<Self>,
                    _: Id<reactor::Fd<std::fs::File>>,
                    _: reactor::Ready,
                ) -> reactor::Result {
                    Ok(())
                }
            }
            let files = world.runtime.add(Files).expect("it starts");
            let file = std::fs::File::open("/proc/self/exe").expect("it is there");
            let fd = reactor::Fd::new(file, Interest::Read);
            let back = world.runtime.with(files, |_, cx| cx.add(fd).expect_err("EPERM")).expect("it lives");
            assert_eq!(back.error.io().and_then(|e| e.raw_os_error()), Some(1), "{}", back.error);
        }
    });
}
