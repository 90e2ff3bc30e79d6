//! Codecs, and layers over a link that spoils bytes.

use session::{
    Codec, Delimited, Layer, Lines, Phase, Prefix, Stack, U16, U32, Varint,
    kit::{Peer, Preamble, Toy, codec, pump},
};

use crate::bytes::Bytes;

/// Reads lines, cut everywhere, and reads the lines back that were found.
pub fn lines(data: &[u8]) {
    let mut bytes = Bytes(data);
    let max = bytes.below(64);
    let input = bytes.take(INPUT_MAX);
    let own = |line: &str| line.to_owned();
    let read = codec::every_cut(|| Lines::max(max), own, input);
    codec::ends(|| Lines::max(max), own, input);
    for line in &read.items {
        assert!(line.len() <= max && !line.contains('\n'), "{line:?} of at most {max}");
    }
    // A line that ends in a carriage return comes back without it.
    let whole: Vec<_> = read.items.into_iter().filter(|line| !line.ends_with('\r')).collect();
    codec::round_trip(|| Lines::max(max), own, &whole, |lines, item, out| lines.encode(item, out));
}

/// Reads items with a length prefix, cut everywhere, and reads the items back that were found.
pub fn delimited(data: &[u8]) {
    let mut bytes = Bytes(data);
    let (kind, max) = (bytes.byte() % 3, bytes.below(300));
    let input = bytes.take(INPUT_MAX);
    match kind {
        0 => items::<U16>(max, input),
        1 => items::<U32>(max, input),
        _ => items::<Varint>(max, input),
    }
}

fn items<P: Prefix>(max: usize, input: &[u8]) {
    let make = || Delimited::<P>::max(max);
    let read = codec::every_cut(make, <[u8]>::to_vec, input);
    assert!(read.items.iter().all(|item| item.len() <= max), "an item is longer than {max}");
    let wire =
        codec::round_trip(make, <[u8]>::to_vec, &read.items, |codec, item, out| codec.encode(item, out));
    // Each length has one form, so what was read is what would be written.
    assert!(input.starts_with(&wire), "{input:?} was read, and {wire:?} written");
}

/// Plays a dialogue of two ends over a link that drops, repeats and changes bytes as the input says.
pub fn link(data: &[u8]) {
    let mut bytes = Bytes(data);
    match bytes.byte() % 4 {
        0 => dialogue(Toy::client(1), Toy::server(2), bytes),
        1 => {
            let there = (Preamble::new("hello", "welcome"), Toy::client(1));
            dialogue(there, (Preamble::new("welcome", "hello"), Toy::server(2)), bytes);
        }
        2 => {
            let there = Stack::new(Toy::client(1), Toy::client(2));
            dialogue(there, Stack::new(Toy::server(3), Toy::server(4)), bytes);
        }
        _ => {
            // The inner layer speaks against the direction of the outer one.
            let there = Stack::new(Toy::client(1), Toy::server(2));
            dialogue(there, Stack::new(Toy::server(3), Toy::client(4)), bytes);
        }
    }
}

/// One end, and the clear bytes that it sent.
struct End<L> {
    peer: Peer<L>,
    sent: Vec<u8>,
    is_closed: bool,
}

impl<L: Layer> End<L> {
    fn new(layer: L) -> End<L> {
        End { peer: Peer::new(layer), sent: Vec::new(), is_closed: false }
    }

    fn send(&mut self, bytes: &[u8]) {
        if !self.is_closed {
            self.peer.send(bytes);
            self.sent.extend_from_slice(bytes);
        }
    }

    /// Ends this side. Returns whether that gives up a handshake.
    fn close(&mut self) -> bool {
        self.peer.close();
        self.is_closed = true;
        self.peer.session().phase() == Phase::Handshake
    }
}

fn dialogue<A: Layer, B: Layer>(a: A, b: B, mut bytes: Bytes<'_>) {
    let (mut a, mut b) = (End::new(a), End::new(b));
    let (mut is_spoilt, mut is_early) = (false, false);
    for _ in 0..STEPS_MAX {
        let count = usize::from(bytes.byte());
        match bytes.byte() % 8 {
            0 => a.send(bytes.take(count)),
            1 => b.send(bytes.take(count)),
            // More than a record of the layer.
            2 => a.send(&vec![count as u8; 8 * count]),
            3 => is_early |= a.close(),
            4 => is_early |= b.close(),
            5 => is_spoilt |= carry(&mut a.peer, &mut b.peer, &mut bytes),
            6 => is_spoilt |= carry(&mut b.peer, &mut a.peer, &mut bytes),
            _ => _ = pump(&mut a.peer, &mut b.peer),
        }
        check(&a, &b);
        check(&b, &a);
    }
    pump(&mut a.peer, &mut b.peer);
    check(&a, &b);
    check(&b, &a);
    if !is_spoilt && !is_early {
        let errors = (a.peer.error(), b.peer.error());
        assert!(errors.0.is_none() && errors.1.is_none(), "an honest dialogue failed: {errors:?}");
        assert!(b.is_closed || b.peer.received() == a.sent, "bytes are missing");
        assert!(a.is_closed || a.peer.received() == b.sent, "bytes are missing");
    }
}

/// Checks that the receiver got only what was sent, in its order, and that a clean end means all of it.
fn check<A: Layer, B: Layer>(from: &End<A>, to: &End<B>) {
    assert!(from.sent.starts_with(to.peer.received()), "an end received what nobody sent");
    if to.peer.session().ended() {
        assert!(from.is_closed && to.peer.received() == from.sent, "an end took a part for the whole");
    }
}

/// Carries one flight, perhaps spoilt. Returns whether it was.
fn carry<A: Layer, B: Layer>(from: &mut Peer<A>, to: &mut Peer<B>, bytes: &mut Bytes<'_>) -> bool {
    let said = from.flight();
    let mut flight = said.clone();
    let at = bytes.below(flight.len());
    match bytes.byte() % 6 {
        0 if !flight.is_empty() => flight[at] ^= bytes.byte(),
        1 => flight.truncate(at),
        2 => drop(flight.drain(..at)),
        3 => flight.extend_from_within(at..),
        4 => drop(flight.splice(at..at, bytes.take(8).iter().copied())),
        _ => (),
    }
    let (head, tail) = flight.split_at(at.min(flight.len()));
    to.feed(head);
    to.feed(tail);
    flight != said
}

/// Every cut of an input is tried, so more bytes would cost their square.
const INPUT_MAX: usize = 160;
/// The most steps of a dialogue.
const STEPS_MAX: usize = 32;
