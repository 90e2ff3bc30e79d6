//! Datagrams: how many a socket keeps, when it has room again, and which sockets are open.

use reactor::{BindOptions, Outbound, engine::DatagramQueue};

use super::*;

/// How many datagrams a socket of the double keeps.
const KEPT: usize = 256;

fn bind(engine: &mut Double, key: Key, address: &Address, peer: Option<&Address>) -> Address {
    let mut options = BindOptions::default();
    options.peer = peer.cloned();
    let transport = engine.bind(address, &options).expect("it is free");
    engine.attach(key, transport, Role::Datagrams).expect("a socket of this network");
    engine.local(key).expect("it has a name")
}

/// Sends this many numbered datagrams whenever there is room, within a limited number of turns.
fn send(engine: &mut Double, to: Option<&Address>, count: usize) -> DatagramQueue {
    let mut queue = DatagramQueue::default();
    for number in 0..count {
        queue.push(Outbound { to, ..Outbound::new(&number.to_be_bytes()) });
    }
    engine.send_datagrams(FIRST, &mut queue);
    for _ in 0..1_000 {
        for (key, event) in turn(engine) {
            match event {
                Event::Room => {
                    assert!(!queue.is_empty(), "room is told to whom it is of use");
                    engine.send_datagrams(FIRST, &mut queue);
                }
                other => panic!("{key:?} told {other:?}"),
            }
        }
    }
    queue
}

/// Returns the numbers of the datagrams that reach the second socket.
fn received(engine: &mut Double) -> Vec<usize> {
    let mut numbers = Vec::new();
    for _ in 0..1_000 {
        for (_, event) in turn(engine) {
            if let Event::Datagrams(mut batch) = event {
                while let Some(datagram) = batch.take() {
                    numbers.push(usize::from_be_bytes(datagram.bytes.try_into().expect("a number")));
                }
            }
        }
    }
    numbers
}

#[test]
fn over_ip_what_finds_no_room_is_lost() {
    for seed in SEEDS {
        for count in [KEPT - 1, KEPT, KEPT + 1] {
            let mut engine = Network::new(Tuning::tight(seed)).double();
            let any: Address = "127.0.0.1:0".parse().expect("an address");
            bind(&mut engine, FIRST, &any, None);
            let to = bind(&mut engine, SECOND, &any, None);
            engine.reading(SECOND, false);
            assert!(send(&mut engine, Some(&to), count).is_empty(), "it leaves all the same");
            engine.reading(SECOND, true);
            assert!(received(&mut engine).into_iter().eq(0..count.min(KEPT)), "seed {seed}, {count} sent");
        }
    }
}

#[test]
fn over_a_connected_unix_socket_what_finds_no_room_waits() {
    for seed in SEEDS {
        for count in [KEPT - 1, KEPT, KEPT + 1] {
            let mut engine = Network::new(Tuning::tight(seed)).double();
            let to = bind(&mut engine, SECOND, &Address::Abstract(b"there".to_vec()), None);
            bind(&mut engine, FIRST, &Address::Unnamed, Some(&to));
            engine.reading(SECOND, false);
            let mut queue = send(&mut engine, None, count);
            assert_eq!(queue.len(), count.saturating_sub(KEPT), "seed {seed}");
            engine.reading(SECOND, true);
            let mut numbers = received(&mut engine);
            engine.send_datagrams(FIRST, &mut queue);
            numbers.extend(received(&mut engine));
            assert!(numbers.into_iter().eq(0..count), "seed {seed}, {count} sent");
        }
    }
}

#[test]
fn a_socket_is_open_until_it_is_closed_and_counts() {
    let network = Network::new(Tuning::roomy(1));
    network.limit_transports(Some(2));
    let mut engine = network.double();
    let any: Address = "127.0.0.1:0".parse().expect("an address");
    let address = bind(&mut engine, FIRST, &any, None);
    let other = engine.bind(&any, &BindOptions::default()).expect("there is room for two");
    let refused = engine.bind(&any, &BindOptions::default()).expect_err("and for no third");
    assert_eq!(refused.raw_os_error(), Some(libc::EMFILE));
    drop(other);
    assert_eq!(network.leaks().transports, [format!("socket at {address}")]);
    let taken = engine.bind(&address, &BindOptions::default()).expect_err("somebody has it");
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    engine.close(FIRST, Ending::Orderly);
    turn(&mut engine);
    assert!(network.leaks().is_clean());
}
