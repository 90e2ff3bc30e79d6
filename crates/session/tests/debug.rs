//! `Debug` shows lengths of buffers, and never their bytes: they may be clear text.

use std::fmt::Debug;

use session::kit::{Peer, Toy};
use session::{Io, Layer, Outgoing, Pool, Result, Session, Shared, Stack, Step};

const SECRET: &[u8] = b"correct horse";

/// Panics if `value` shows the secret, as text or as a list of numbers.
fn assert_hides(value: &impl Debug) {
    let text = String::from_utf8_lossy(SECRET);
    let numbers = |bytes: &[u8]| format!("{bytes:?}").trim_matches(['[', ']']).to_owned();
    for shown in [format!("{value:?}"), format!("{value:#?}").replace(['\n', ' '], "").replace(',', ", ")] {
        // A part of the secret is a secret, too.
        assert!(!shown.contains(&*text) && !shown.contains(&numbers(&SECRET[..4])), "{shown}");
    }
}

/// A queue with the secret in each kind of place: its front, a part of its own, and a shared part.
fn queue() -> Outgoing {
    let mut queue = Outgoing::new();
    queue.put(SECRET);
    queue.share(Shared::from([SECRET, &[0; 600]].concat()));
    queue.put(&[SECRET, &[0; 70_000]].concat());
    queue
}

#[test]
fn queues_shared_bytes_and_pools_show_lengths() {
    let queue = queue();
    assert_hides(&queue);
    assert!(format!("{queue:?}").contains(&format!("len: {}", queue.len())), "{queue:?}");
    let shared = Shared::from(SECRET);
    assert_hides(&shared);
    assert_eq!(format!("{shared:?}"), "Shared { len: 13, .. }");
    let mut pool = Pool::new();
    pool.give_outgoing(Box::new(queue));
    pool.give(SECRET.to_vec());
    assert_hides(&pool);
    assert!(format!("{pool:?}").starts_with("Pool { buffers: 1, queues: 1, kept: "), "{pool:?}");
}

#[test]
fn sessions_show_lengths() {
    let (mut session, mut pool) = (Session::new(Toy::client(7)), Pool::new());
    session.out(&mut pool).put(SECRET);
    assert_hides(&session);
    assert!(format!("{session:?}").contains("len: 13"), "{session:?}");
    let mut direct = Session::new(());
    direct.start(&mut pool).expect("a start without layers");
    direct.out(&mut pool).put(SECRET);
    direct.fill(&mut pool).expect("the same bytes");
    assert_hides(&direct);
}

/// Shows its buffers to the test, and leaves the bytes where they are.
#[derive(Debug)]
struct Looks;

impl Layer for Looks {
    const INPUT_MAX: usize = 64;

    fn ready(&self) -> bool {
        true
    }

    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        io.up.extend_from_slice(input);
        io.down.put(input);
        assert_hides(io);
        assert!(format!("{io:?}").starts_with("Io { up: 13, down: 13, pool: "), "{io:?}");
        Ok(Step { used: input.len(), next: session::Next::Wait })
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        io.down.put(clear);
        Ok(clear.len())
    }
}

#[test]
fn the_buffers_of_a_layer_and_the_ends_of_a_kit_show_lengths() {
    let mut peer = Peer::new(Looks);
    peer.feed(SECRET);
    assert_eq!(peer.received(), SECRET);
    assert_hides(&peer);
    assert!(format!("{peer:?}").contains("received: 13"), "{peer:?}");
}

/// Waits for more input, whatever has come.
#[derive(Debug)]
struct Waits;

impl Layer for Waits {
    const INPUT_MAX: usize = 64;

    fn ready(&self) -> bool {
        true
    }

    fn open(&mut self, _: &mut [u8], _: &mut Io<'_>) -> Result<Step> {
        Ok(Step { used: 0, next: session::Next::Wait })
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        io.down.put(clear);
        Ok(clear.len())
    }
}

#[test]
fn a_stack_hides_the_bytes_between_its_layers() {
    let mut peer = Peer::new(Stack::new(Looks, Waits));
    peer.feed(SECRET);
    assert!(peer.error().is_none() && peer.received().is_empty());
    assert_hides(&peer);
    assert!(format!("{peer:?}").contains("mid: 13"), "{peer:?}");
}
