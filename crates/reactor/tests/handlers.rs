//! The calls that a handler may make while it runs, and the cost of its error.

mod common;

use std::{cell::Cell, io::Write, rc::Rc};

use common::{Probe, Seen, World, add, for_each_engine, is_ended, quick_close, settle, tcp_pair, until};
use reactor::{Bytes, Closed, Flow, Lines, Stream};

#[test]
fn answers_queued_before_a_handlers_error_still_leave() {
    for_each_engine(|engine| {
        let probe = Probe::new(|cx, id, seen| {
            match seen {
                Seen::Got(line) if line == b"bad" => return Err("refused".into()),
                Seen::Got(line) => _ = cx.send(id, &*String::from_utf8_lossy(line)),
                _ => (),
            }
            Ok(())
        });
        let mut world = World::new(engine.runtime(), probe, Stream::new(Lines::new()));
        world.peer.write_all(b"one\ntwo\nbad\nthree\n").expect("room");
        assert_eq!(world.read(99), b"one\ntwo\n");
        drop(std::mem::replace(&mut world.peer, tcp_pair().0));
        match world.until_closed() {
            Closed::Refused(failure) => assert_eq!(failure.to_string(), "refused"),
            other => panic!("{other:?}"),
        }
        assert!(!world.probe().saw(&Seen::got("three")), "nothing comes after close");
    });
}

#[test]
fn the_bytes_of_an_event_can_be_sent_to_its_own_stream() {
    struct Echo;
    impl reactor::Service for Echo {}
    impl reactor::Handle<Stream> for Echo {
        fn handle(
            &mut self,
            cx: &mut reactor::Context<Self>,
            id: reactor::Id<Stream>,
            event: reactor::Event<Bytes>,
        ) -> reactor::Result {
            if let reactor::Event::Received(bytes) = event {
                cx.send(id, bytes);
            }
            Ok(())
        }
    }
    for_each_engine(|engine| {
        let mut runtime = engine.runtime();
        let service = runtime.add(Echo).expect("it starts");
        let (ours, mut peer) = tcp_pair();
        let stream = Stream::new(Bytes).on(ours).expect("a socket");
        runtime.with(service, |_, cx| cx.add(stream).map(|_| ()).expect("room"));
        peer.write_all(b"hello").expect("room");
        assert_eq!(common::read(&mut runtime, &mut peer, 5), b"hello");
    });
}

#[test]
fn a_handler_may_close_abort_or_release_its_own_stream_and_any_other() {
    for_each_engine(|engine| {
        for way in ["close", "abort", "release"] {
            for own in [true, false] {
                let other = Rc::new(Cell::new(None));
                let target = other.clone();
                let probe = Probe::new(move |cx, id, seen| {
                    if let Seen::Got(_) = seen {
                        let on = if own { id } else { target.get().expect("it is set") };
                        match way {
                            "close" => cx.close(on),
                            "abort" => cx.abort(on),
                            _ => cx.release(on).expect("it is not closing"),
                        }
                    }
                    Ok(())
                });
                let stream = || Stream::new(Lines::new()).options(quick_close());
                let mut world = World::new(engine.runtime(), probe, stream());
                let (ours, _peer) = tcp_pair();
                let second = add(&mut world.runtime, world.service, stream(), ours);
                other.set(Some(second));
                settle(&mut world.runtime);
                world.peer.write_all(b"a\nb\n").expect("room");
                world.until_closed();
                let (closed, _, why) = &world.probe().closed[0];
                assert_eq!(*closed, if own { world.id } else { second });
                match way {
                    "close" => assert!(matches!(why, Closed::Done), "{why:?}"),
                    "abort" => assert!(matches!(why, Closed::Aborted), "{why:?}"),
                    _ => assert!(matches!(why, Closed::Released), "{why:?}"),
                }
                let lines = world.probe().bytes(world.id);
                assert_eq!(lines, if own { &b"a"[..] } else { b"ab" }, "{way} own: {own}");
            }
        }
    });
}

#[test]
fn a_handler_may_add_a_stream_and_send_to_it_at_once() {
    for_each_engine(|engine| {
        let (ours, mut far) = tcp_pair();
        let mut ours = Some(ours);
        let probe = Probe::new(move |cx, _, seen| {
            if let Seen::Got(_) = seen {
                let socket = ours.take().expect("one line came");
                let new = cx.add(Stream::new(Bytes).on(socket)?)?;
                assert_eq!(cx.send(new, &b"welcome"[..]), Flow::Queued);
            }
            Ok(())
        });
        let mut world = World::new(engine.runtime(), probe, Stream::new(Bytes));
        world.peer.write_all(b"x").expect("room");
        assert_eq!(common::read(&mut world.runtime, &mut far, 7), b"welcome");
        assert_eq!(world.probe().count(&Seen::Open), 2);
    });
}

#[test]
fn a_handler_that_pauses_gets_the_rest_at_resume() {
    for_each_engine(|engine| {
        let probe = Probe::new(|cx, id, seen| {
            if let Seen::Got(_) = seen {
                cx.pause(id);
            }
            Ok(())
        });
        let mut world = World::new(engine.runtime(), probe, Stream::new(Lines::new()));
        world.peer.write_all(b"1\n2\n3\n").expect("room");
        for line in ["1", "2", "3"] {
            world.until_seen(Seen::got(line));
            let had = world.all().len();
            settle(&mut world.runtime);
            assert_eq!(world.all().len(), had, "it rests");
            world.with(|cx, id| cx.resume(id));
        }
    });
}

#[test]
fn a_paused_stream_tells_its_bytes_its_end_and_its_close_after_resume_in_order() {
    for_each_engine(|engine| {
        let mut world = World::new(engine.runtime(), Probe::quiet(), Stream::new(Bytes));
        world.until_seen(Seen::Open);
        world.with(|cx, id| cx.pause(id));
        settle(&mut world.runtime);
        world.peer.write_all(b"late").expect("room");
        world.peer.shutdown(std::net::Shutdown::Write).expect("a socket");
        settle(&mut world.runtime);
        // This one cannot tell an end while input is before it.
        let paused = if engine.0 == "polling" { vec![Seen::Open] } else { vec![Seen::Open, Seen::HungUp] };
        assert_eq!(world.all(), paused);
        world.with(|cx, id| cx.resume(id));
        world.until_closed();
        let rest = vec![Seen::got("late"), Seen::End, Seen::closed("End")];
        assert_eq!(world.all(), [paused, rest].concat());
    });
}

/// Takes each byte by itself, and has an item when a line or the input ends.
#[derive(Default)]
struct Whole(bool);

impl reactor::Codec for Whole {
    type In<'a> = &'a [u8];
    type Out<'a> = &'a [u8];
    fn decode<'a>(&mut self, input: &'a mut [u8]) -> reactor::Result<reactor::Decoded<&'a [u8]>> {
        self.0 = input[0] != b'\n';
        Ok(if self.0 { reactor::Decoded::Skip(1) } else { reactor::Decoded::Item(1, b"line") })
    }
    fn encode(&mut self, _: &[u8], _: &mut reactor::Outgoing) -> reactor::Result {
        Ok(())
    }
    fn end<'a>(&mut self, _: &'a mut [u8]) -> reactor::Result<Option<&'a [u8]>> {
        Ok(self.0.then_some(b"the rest"))
    }
}

#[test]
fn an_item_that_a_codec_keeps_for_the_end_is_not_told_while_the_stream_is_paused() {
    for_each_engine(|engine| {
        for (sent, is_kept) in [("a\n", false), ("a\nb", true)] {
            let mut world = World::new(engine.runtime(), Probe::quiet(), Stream::new(Whole::default()));
            world.peer.write_all(sent.as_bytes()).expect("room");
            world.until_seen(Seen::got("line"));
            settle(&mut world.runtime);
            world.with(|cx, id| cx.pause(id));
            settle(&mut world.runtime);
            world.peer.shutdown(std::net::Shutdown::Write).expect("a socket");
            let line = [Seen::Open, Seen::got("line")];
            if is_kept {
                world.until_seen(Seen::HungUp);
                settle(&mut world.runtime);
                world.with(|cx, id| cx.resume(id));
            }
            world.until_closed();
            let kept = if is_kept { vec![Seen::HungUp, Seen::got("the rest")] } else { vec![] };
            let end = vec![Seen::End, Seen::closed("End")];
            assert_eq!(world.all(), [line.to_vec(), kept, end].concat());
        }
    });
}

#[test]
fn an_error_in_each_event_closes_the_stream_once() {
    for_each_engine(|engine| {
        for at in [Seen::Open, Seen::got("x"), Seen::End] {
            let event = at.clone();
            let probe = Probe::new(move |_, _, seen| if *seen == event { Err("no".into()) } else { Ok(()) });
            let mut world = World::new(engine.runtime(), probe, Stream::new(Bytes));
            world.peer.write_all(b"x").expect("room");
            world.peer.shutdown(std::net::Shutdown::Write).expect("a socket");
            assert!(matches!(world.until_closed(), Closed::Refused(_)), "{at:?}");
            settle(&mut world.runtime);
            assert_eq!(world.probe().closed.len(), 1);
            assert_eq!(world.all().last(), Some(&Seen::closed("Refused")));
            until(&mut world.runtime, |_| true);
            assert!(is_ended(&mut world.peer));
        }
    });
}

#[test]
fn a_codec_that_cuts_an_item_out_of_nothing_is_refused_and_does_not_hang() {
    struct Nothing;
    impl reactor::Codec for Nothing {
        type In<'a> = &'a [u8];
        type Out<'a> = &'a [u8];
        fn decode<'a>(&mut self, input: &'a mut [u8]) -> reactor::Result<reactor::Decoded<&'a [u8]>> {
            Ok(reactor::Decoded::Item(0, &input[..0]))
        }
        fn encode(&mut self, _: &[u8], _: &mut reactor::Outgoing) -> reactor::Result {
            Ok(())
        }
    }
    for_each_engine(|engine| {
        let mut world = World::new(engine.runtime(), Probe::quiet(), Stream::new(Nothing));
        world.peer.write_all(b"x").expect("room");
        world.peer.shutdown(std::net::Shutdown::Write).expect("a socket");
        assert!(matches!(world.until_closed(), Closed::Refused(_)));
        assert!(!world.probe().saw(&Seen::got("")));
    });
}

#[test]
fn an_item_that_cannot_be_encoded_ends_its_stream_after_what_was_queued() {
    for_each_engine(|engine| {
        let mut world = World::new(engine.runtime(), Probe::quiet(), Stream::new(Lines::new()));
        world.until_seen(Seen::Open);
        world.with(|cx, id| {
            assert_eq!(cx.send(id, "good"), Flow::Queued);
            assert_eq!(cx.send(id, "two\nlines"), Flow::Gone);
            assert_eq!(cx.send(id, "more"), Flow::Gone);
        });
        assert_eq!(world.read(99), b"good\n");
        drop(std::mem::replace(&mut world.peer, tcp_pair().0));
        assert!(matches!(world.until_closed(), Closed::Refused(_)));
    });
}
