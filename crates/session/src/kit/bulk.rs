//! Large items through a layer: longer than any record, and both ways at once.

use super::{Dialogue, How, Link, Peer, check_no_error, clean};
use crate::layer::Layer;
use crate::session::Phase;

/// Sends items from one byte to some hundred KiB both ways at once: whole, in pieces, and byte by byte.
///
/// The sizes lie on both sides of common record sizes: 1, 4, 16 and 64 KiB. Each item must arrive whole
/// before the next one is sent, so this finds a layer that holds the last bytes back. Some items are queued
/// before the handshake.
///
/// # Panics
/// If bytes are lost, changed or held back. If a layer takes more bytes than it seals, or rejects a record of
/// the other side because [`Layer::input_max`] is less than a record. If the end is not clean.
pub fn bulk<A: Layer, B: Layer>(make: impl Fn() -> (A, B)) {
    for how in [How::Whole, How::Pieces(1_447), How::Pieces(65_536)] {
        run(&make, how, &SIZES);
    }
    // Byte by byte, all of a record but its last byte is left. The layer may ask for no more than that.
    run(&make, How::Bytes, &[LONGEST_RECORD]);
}

fn run<A: Layer, B: Layer>(make: &impl Fn() -> (A, B), how: How, sizes: &[usize]) {
    let (a, b) = make();
    let mut dialogue = Dialogue { a: Peer::new(a), b: Peer::new(b), link: Link { how, carried: 0 } };
    let (mut by_a, mut by_b) = (Sent::new(1), Sent::new(2));
    for size in sizes {
        by_a.send(&mut dialogue.a, *size);
        by_b.send(&mut dialogue.b, size / 2 + 1);
        dialogue.link.pump(&mut dialogue.a, &mut dialogue.b);
        by_a.check("b", &dialogue.b, how, *size);
        by_b.check("a", &dialogue.a, how, *size);
    }
    let phases = (dialogue.a.session.phase(), dialogue.b.session.phase());
    assert!(phases == (Phase::Open, Phase::Open), "{how:?}: behind the items the phases are {phases:?}");
    dialogue.a.close();
    dialogue.b.close();
    dialogue.link.pump(&mut dialogue.a, &mut dialogue.b);
    assert!(clean(&mut dialogue.b, &by_a.all, &how), "{how:?}: the end that b saw is not clean");
    assert!(clean(&mut dialogue.a, &by_b.all, &how), "{how:?}: the end that a saw is not clean");
}

/// The bytes that one side has sent so far.
struct Sent {
    all: Vec<u8>,
    state: u64,
}

impl Sent {
    fn new(seed: u64) -> Self {
        Sent { all: Vec::new(), state: seed }
    }

    fn send<L: Layer>(&mut self, peer: &mut Peer<L>, size: usize) {
        let from = self.all.len();
        let state = &mut self.state;
        self.all.extend((0..size).map(|_| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (*state >> 56) as u8
        }));
        peer.send(&self.all[from..]);
    }

    fn check<L: Layer>(&self, name: &str, peer: &Peer<L>, how: How, size: usize) {
        check_no_error(peer, name, &how);
        let (received, sent) = (peer.received.len(), self.all.len());
        assert!(
            received == sent,
            "{how:?}: {name} received {received} of {sent} bytes, behind an item of {size}"
        );
        let wrong = self.all.iter().zip(&peer.received).position(|(sent, received)| sent != received);
        assert!(wrong.is_none(), "{how:?}: {name} received another byte at {wrong:?}");
    }
}

/// No record of a common protocol is longer, because a Noise message has a length of two bytes.
const LONGEST_RECORD: usize = (64 << 10) + 1_000;
const SIZES: [usize; 14] =
    [1, 2, 1_023, 1_024, 1_025, 4_095, 4_097, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 300_000];
