//! The double against the text of the engine contract, sentence by sentence, over many seeds.

mod datagrams;
mod listeners;
mod runtime;
mod streams;
mod time;

use std::{io::ErrorKind, sync::mpsc, thread, time::Duration};

use conformance::double::{Double, Feed, Network, Peer, Tuning};
use reactor::{
    Address, ConnectOptions, Key, ListenOptions,
    engine::{Chunk, Ending, Engine, Event, Interest, Outgoing, Role, Sent, Transport},
};

const SEEDS: std::ops::Range<u64> = 0..40;
const LISTENER: Key = Key::new(0, 0, 1);
const FIRST: Key = Key::new(1, 0, 1);
const SECOND: Key = Key::new(2, 0, 1);

fn key(slot: u32) -> Key {
    Key::new(slot, 0, 1)
}

fn queue(bytes: &[u8]) -> Box<Outgoing> {
    let mut queue = Box::new(Outgoing::new());
    queue.put(bytes);
    queue
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 256) as u8).collect()
}

/// Makes a turn that does not wait, and returns all its events.
fn turn(engine: &mut Double) -> Vec<(Key, Event)> {
    engine.wait(Some(Duration::ZERO)).expect("the double does not break");
    std::iter::from_fn(|| engine.next()).collect()
}

fn listen(engine: &mut Double) -> Address {
    let any = "127.0.0.1:0".parse().expect("an address");
    let transport = engine.listen(&any, &ListenOptions::default()).expect("a free port");
    engine.attach(LISTENER, transport, Role::Listener).expect("a listener of this network");
    engine.local(LISTENER).expect("the listener has an address")
}

/// Turns until a connection is accepted.
fn accepted(engine: &mut Double) -> Transport {
    for _ in 0..TURNS_MAX {
        match turn(engine).into_iter().next() {
            None => {}
            Some((_, Event::Accepted(transport, _))) => return transport,
            Some((key, other)) => panic!("{key:?} told {other:?} before a connection was accepted"),
        }
    }
    panic!("nothing was accepted");
}

/// Makes an engine with one stream, attached as `FIRST`, and the stream's other end.
fn stream(tuning: Tuning) -> (Network, Double, Peer) {
    let network = Network::new(tuning);
    let mut engine = network.double();
    let address = listen(&mut engine);
    let peer = network.connect(address).expect("somebody listens");
    let transport = accepted(&mut engine);
    engine.close(LISTENER, Ending::Orderly);
    engine.attach(FIRST, transport, Role::Stream).expect("a stream of this network");
    (network, engine, peer)
}

fn read_available(peer: &mut Peer, into: &mut Vec<u8>) -> bool {
    let mut bytes = [0; 100];
    loop {
        match peer.read(&mut bytes) {
            Ok(0) => return true,
            Ok(count) => into.extend_from_slice(&bytes[..count]),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                return false;
            }
        }
    }
}

/// The events of a stream in short: its bytes, and the ends after them.
#[derive(Default, Debug, PartialEq, Eq)]
struct Told {
    bytes: Vec<u8>,
    ends: usize,
    broken: Vec<ErrorKind>,
}

impl Told {
    fn note(&mut self, engine: &mut Double, event: Event) {
        match event {
            Event::Got(mut chunk) => {
                assert_eq!((self.ends, self.broken.len()), (0, 0), "no input after the end");
                self.bytes.extend_from_slice(chunk.bytes());
                engine.give(chunk);
            }
            Event::End => self.ends += 1,
            Event::Broken(error) => self.broken.push(error.kind()),
            other => panic!("a stream that only reads told {other:?}"),
        }
    }

    fn turns(engine: &mut Double, count: usize) -> Told {
        let mut told = Told::default();
        for _ in 0..count {
            for (key, event) in turn(engine) {
                assert_eq!(key, FIRST);
                told.note(engine, event);
            }
        }
        told
    }
}

const TURNS_MAX: usize = 3_000;
