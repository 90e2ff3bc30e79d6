//! Events that an engine has found and must not report any more, and events that it must report eventually.
#![cfg(unix)]

use std::{io::Write as _, net::UdpSocket, os::unix::net::UnixStream, time::Duration};

use reactor::{
    BindOptions, Interest, Key, Source,
    engine::{Candidates, Engine, Event, Role},
};

fn for_each_engine(run: impl Fn(&str, Box<dyn Engine>)) {
    let candidates = Candidates::default();
    for name in candidates.names() {
        run(name, candidates.open(Some(name)).expect("it opens"));
    }
}

const KEY: Key = Key::new(3, 0, 1);

/// Watches a source that has input, and lets the engine find that in a wait without reporting it.
fn found(engine: &mut dyn Engine) -> (UnixStream, UnixStream) {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    theirs.write_all(b"input").expect("there is room");
    engine.watch(KEY, Source::of(&ours), Some(Interest::Read)).expect("it is watched");
    engine.wait(None).expect("the engine is whole");
    (ours, theirs)
}

#[test]
fn what_was_found_of_a_source_that_is_unwatched_is_not_told() {
    for_each_engine(|name, mut engine| {
        let (ours, _theirs) = found(&mut *engine);
        engine.unwatch(KEY, Source::of(&ours));
        let told = engine.next();
        assert!(told.is_none(), "{name}: {told:?}");
    });
}

#[test]
fn what_was_found_of_a_source_that_is_to_rest_is_not_told() {
    for_each_engine(|name, mut engine| {
        let (ours, _theirs) = found(&mut *engine);
        engine.watch(KEY, Source::of(&ours), None).expect("it rests");
        let told = engine.next();
        assert!(told.is_none(), "{name}: {told:?}");
        engine.watch(KEY, Source::of(&ours), Some(Interest::Read)).expect("it is watched again");
        engine.wait(None).expect("the engine is whole");
        assert!(matches!(engine.next(), Some((KEY, Event::Ready(ready))) if ready.readable), "{name}");
    });
}

#[test]
fn a_listener_whose_accepts_all_fail_for_a_reason_that_passes_fails_in_the_end() {
    for_each_engine(|name, mut engine| {
        let any = "127.0.0.1:0".parse().expect("an address");
        // A datagram socket cannot accept, and each attempt fails with an error that a listener survives.
        let socket = engine.bind(&any, &BindOptions::default()).expect("a port");
        engine.attach(KEY, socket, Role::Listener).expect("the key is free");
        let address = engine.local(KEY).expect("bound").ip().expect("an IP address");
        let peer = UdpSocket::bind("127.0.0.1:0").expect("a port");
        peer.send_to(b"no connection", address).expect("there is room");
        let told = (0..100).find_map(|_| {
            engine.wait(Some(Duration::from_millis(100))).expect("the engine is whole");
            engine.next()
        });
        assert!(matches!(told, Some((KEY, Event::NotAccepted(_)))), "{name}: {told:?}");
    });
}
