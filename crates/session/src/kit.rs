//! Tests any layer in memory: every cut, flip and truncation of a dialogue between two ends. [`codec`] tests
//! codecs.
//!
//! There is no socket, no clock and no thread: two [`Peer`]s with a session each, and a link that carries
//! bytes between them and may cut them anywhere or flip a bit. The suites [`every_cut`], [`bulk`], [`flips`],
//! [`truncations`] and [`garbage`] take a function that makes both ends, and panic with a description of the
//! fault. Call each of them from your tests. They make both ends some thousand times, so this should be
//! cheap. [`Toy`] and [`Preamble`] are layers for tests, and examples to read.
//!
//! ```
//! use session::kit::{self, Toy};
//!
//! let make = || (Toy::client(1), Toy::server(2));
//! kit::every_cut(make);
//! kit::bulk(make);
//! assert_eq!(kit::flips(make).harmless, 0);
//! assert_eq!(kit::garbage(make).forged, 0);
//! assert_eq!(kit::truncations(make), 0);
//! ```

use std::fmt;

use crate::failure::{Failure, Result};
use crate::layer::{Layer, Next};
use crate::pool::Pool;
use crate::session::{Phase, Session};

mod bulk;
pub mod codec;
mod garbage;
mod preamble;
mod toy;

pub use bulk::bulk;
pub use garbage::{Garbage, garbage};
pub use preamble::{Preamble, PreambleError};
pub use toy::{Toy, ToyError};

/// One end of a connection in memory: a session, the received bytes, and the input that it could not use yet.
pub struct Peer<L> {
    session: Session<L>,
    pool: Pool,
    rest: Vec<u8>,
    received: Vec<u8>,
    error: Option<Failure>,
}

impl<L: Layer> Peer<L> {
    /// Creates an end and starts its handshake.
    pub fn new(layer: L) -> Self {
        let (session, pool) = (Session::new(layer), Pool::new());
        let mut peer = Peer { session, pool, rest: Vec::new(), received: Vec::new(), error: None };
        let started = peer.session.start(&mut peer.pool);
        peer.note(started);
        peer
    }

    /// Delivers bytes, as one read would. Ignores them after an error.
    ///
    /// # Panics
    /// If the layer asks for another step again and again without progress.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.error.is_some() {
            return;
        }
        self.rest.extend_from_slice(bytes);
        let mut at = 0;
        for _ in 0..STEPS_MAX {
            match self.session.step(&mut self.rest[at..], &mut self.received, &mut self.pool) {
                Ok(step) => {
                    at += step.used;
                    if step.next != Next::Again {
                        self.rest.drain(..at);
                        return;
                    }
                }
                Err(error) => {
                    self.rest.clear();
                    return self.note(Err(error));
                }
            }
        }
        panic!("the layer asked for {STEPS_MAX} steps in one read and never waited");
    }

    /// Queues clear bytes.
    pub fn send(&mut self, clear: &[u8]) {
        self.session.out(&mut self.pool).put(clear);
    }

    /// Ends this side after all queued bytes have been sent.
    pub fn close(&mut self) {
        self.session.close();
    }

    /// Takes all bytes that this end has for the wire.
    pub fn flight(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let filled = self.session.fill(&mut self.pool);
            self.note(filled);
            let Some(wire) = self.session.take_wire() else { return all };
            all.extend_from_slice(&wire.to_vec());
            self.pool.give_outgoing(wire);
        }
    }

    /// Ends the transport, and checks whether that end is authentic.
    ///
    /// # Errors
    /// The session's error for this end, most often [`Truncated`](crate::Truncated).
    pub fn end(&mut self) -> Result {
        self.session.end(&std::mem::take(&mut self.rest))
    }

    /// Returns the clear bytes that have arrived.
    pub fn received(&self) -> &[u8] {
        &self.received
    }

    /// Returns the first error. It ended this end.
    pub fn error(&self) -> Option<&Failure> {
        self.error.as_ref()
    }

    /// Returns the session.
    pub fn session(&self) -> &Session<L> {
        &self.session
    }

    /// Returns the session and its pool, for operations that this type does not offer.
    pub fn session_mut(&mut self) -> (&mut Session<L>, &mut Pool) {
        (&mut self.session, &mut self.pool)
    }

    fn note(&mut self, result: Result) {
        if let Err(error) = result {
            self.error.get_or_insert(error);
        }
    }
}

/// Shows lengths, and not the bytes.
impl<L: fmt::Debug> fmt::Debug for Peer<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("session", &self.session)
            .field("rest", &self.rest.len())
            .field("received", &self.received.len())
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

/// Carries bytes both ways until both ends are silent, and returns how many there were.
///
/// # Panics
/// If the ends never fall silent.
pub fn pump<A: Layer, B: Layer>(a: &mut Peer<A>, b: &mut Peer<B>) -> usize {
    let mut link = Link { how: How::Whole, carried: 0 };
    link.pump(a, b);
    link.carried
}

/// Runs a dialogue whole, byte by byte, and cut once at every byte: handshake, data both ways, half-close,
/// end.
///
/// Returns how many bytes the dialogue takes on the wire.
///
/// # Panics
/// If a run fails, loses or changes bytes, or does not end cleanly.
pub fn every_cut<A: Layer, B: Layer>(make: impl Fn() -> (A, B)) -> usize {
    let run = |how: How| {
        let mut dialogue = Dialogue::new(&make, how);
        dialogue.greet();
        dialogue.check_greeted();
        dialogue.part();
        dialogue.check_parted();
        dialogue.link.carried
    };
    let total = run(How::Whole);
    run(How::Bytes);
    for at in 1..total {
        run(How::Cut(at));
    }
    total
}

/// The counts of [`flips`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flips {
    /// Runs with one flipped bit each: one run for each byte of the dialogue.
    pub runs: usize,
    /// Runs in which an end rejected the flipped bit, or noticed it at the end of the transport.
    pub noticed: usize,
    /// Runs in which all bytes arrived and both ends were clean.
    pub harmless: usize,
}

/// Runs a dialogue once for each of its bytes, with one bit of that byte flipped on the wire.
///
/// The flip may be fatal or harmless, but the delivered bytes must always be a prefix of the sent ones. Only
/// for layers that authenticate their records.
///
/// # Panics
/// If wrong bytes are delivered, or if an end is clean although bytes are missing.
pub fn flips<A: Layer, B: Layer>(make: impl Fn() -> (A, B)) -> Flips {
    let mut whole = Dialogue::new(&make, How::Whole);
    whole.greet();
    whole.part();
    whole.check_parted();
    let total = whole.link.carried;
    let mut counted = Flips { runs: total, noticed: 0, harmless: 0 };
    for at in 0..total {
        let mut dialogue = Dialogue::new(&make, How::Flip(at));
        dialogue.greet();
        dialogue.part();
        let a_clean = clean(&mut dialogue.a, &sent_by_b(), &dialogue.link.how);
        let b_clean = clean(&mut dialogue.b, &sent_by_a(), &dialogue.link.how);
        if a_clean && b_clean { counted.harmless += 1 } else { counted.noticed += 1 }
    }
    counted
}

/// Cuts the flight of data and close after every byte. Only the authentic end may be clean, and no cut before
/// it.
///
/// Returns how many bytes at the end of that flight are not needed for a clean end. That is zero for a single
/// layer. In a [`Stack`](crate::Stack) it is the end of the outer layer, because the end of the inner one is
/// enough.
///
/// # Panics
/// If a cut before the end passes for an end, or the whole flight does not.
pub fn truncations<A: Layer, B: Layer>(make: impl Fn() -> (A, B)) -> usize {
    let closing = || {
        let (a, b) = make();
        let (mut a, mut b) = (Peer::new(a), Peer::new(b));
        pump(&mut a, &mut b);
        assert!(a.session.phase() == Phase::Open && b.session.phase() == Phase::Open, "the handshake failed");
        a.send(GREETING_A);
        a.close();
        let flight = a.flight();
        (flight, b)
    };
    let total = closing().0.len();
    let is_clean = |cut: &usize| {
        let (flight, mut b) = closing();
        b.feed(&flight[..*cut]);
        let clean = b.error.is_none() && b.end().is_ok();
        assert!(
            !clean || b.received == GREETING_A,
            "cut after {cut} of {total} bytes: clean, but bytes are missing"
        );
        assert!(
            !clean || *cut == total || b.session.ended(),
            "cut after {cut} of {total} bytes: taken for an end that nobody saw"
        );
        clean
    };
    let cleans: Vec<usize> = (0..=total).filter(is_clean).collect();
    let first = *cleans
        .first()
        .unwrap_or_else(|| panic!("the whole closing flight of {total} bytes is no clean end"));
    assert!(cleans.len() == total + 1 - first, "clean after {cleans:?} of {total} bytes, and not in between");
    total - first
}

/// Both ends, and the link between them.
struct Dialogue<A, B> {
    a: Peer<A>,
    b: Peer<B>,
    link: Link,
}

impl<A: Layer, B: Layer> Dialogue<A, B> {
    fn new(make: &impl Fn() -> (A, B), how: How) -> Self {
        let (a, b) = make();
        Dialogue { a: Peer::new(a), b: Peer::new(b), link: Link { how, carried: 0 } }
    }

    /// Queues greetings before the handshake, and lets them through as soon as possible.
    fn greet(&mut self) {
        self.a.send(GREETING_A);
        self.b.send(GREETING_B);
        self.link.pump(&mut self.a, &mut self.b);
    }

    /// Closes one side after a longer item. The other side still answers, and then closes.
    fn part(&mut self) {
        self.a.send(&long_item());
        self.a.close();
        self.link.pump(&mut self.a, &mut self.b);
        self.b.send(FAREWELL_B);
        self.b.close();
        self.link.pump(&mut self.a, &mut self.b);
    }

    fn check_greeted(&self) {
        let how = &self.link.how;
        check_no_error(&self.a, "a", how);
        check_no_error(&self.b, "b", how);
        let phases = (self.a.session.phase(), self.b.session.phase());
        assert!(
            phases == (Phase::Open, Phase::Open),
            "{how:?}: after the handshake the phases are {phases:?}"
        );
        assert!(self.b.received == GREETING_A, "{how:?}: b received {:?}", self.b.received);
        assert!(self.a.received == GREETING_B, "{how:?}: a received {:?}", self.a.received);
    }

    fn check_parted(&mut self) {
        let how = &self.link.how;
        check_no_error(&self.a, "a", how);
        check_no_error(&self.b, "b", how);
        let phases = (self.a.session.phase(), self.b.session.phase());
        assert!(
            phases == (Phase::Finished, Phase::Finished),
            "{how:?}: at the end the phases are {phases:?}"
        );
        assert!(clean(&mut self.b, &sent_by_a(), how), "{how:?}: the end that b saw is not clean");
        assert!(clean(&mut self.a, &sent_by_b(), how), "{how:?}: the end that a saw is not clean");
    }
}

fn check_no_error<L>(peer: &Peer<L>, name: &str, how: &How) {
    if let Some(error) = &peer.error {
        panic!("{how:?}: {name} failed: {error:?}");
    }
}

/// Ends the transport of `peer`, and returns whether that was clean. Panics if wrong or missing bytes pass
/// for a clean end.
fn clean<L: Layer>(peer: &mut Peer<L>, expected: &[u8], how: &How) -> bool {
    assert!(
        expected.starts_with(&peer.received),
        "{how:?}: delivered what was not sent: {:?}",
        peer.received
    );
    let clean = peer.error.is_none() && peer.end().is_ok();
    assert!(
        !clean || peer.received.len() == expected.len(),
        "{how:?}: a clean end after {} of {} bytes",
        peer.received.len(),
        expected.len()
    );
    clean
}

/// The link's treatment of the bytes it carries. Positions count all bytes of the dialogue, both ways.
#[derive(Debug, Clone, Copy)]
enum How {
    Whole,
    Bytes,
    /// In pieces of this many bytes, and the rest of a flight.
    Pieces(usize),
    Cut(usize),
    Flip(usize),
}

struct Link {
    how: How,
    carried: usize,
}

impl Link {
    fn pump<A: Layer, B: Layer>(&mut self, a: &mut Peer<A>, b: &mut Peer<B>) {
        for _ in 0..FLIGHTS_MAX {
            let there = a.flight();
            self.carry(&there, b);
            let back = b.flight();
            self.carry(&back, a);
            if there.is_empty() && back.is_empty() {
                return;
            }
        }
        panic!("{:?}: the ends did not fall silent in {FLIGHTS_MAX} flights", self.how);
    }

    fn carry<L: Layer>(&mut self, flight: &[u8], to: &mut Peer<L>) {
        let (from, until) = (self.carried, self.carried + flight.len());
        self.carried = until;
        if flight.is_empty() {
            return;
        }
        match self.how {
            How::Bytes => flight.iter().for_each(|byte| to.feed(&[*byte])),
            How::Pieces(bytes) => flight.chunks(bytes).for_each(|piece| to.feed(piece)),
            How::Cut(at) if from < at && at < until => {
                to.feed(&flight[..at - from]);
                to.feed(&flight[at - from..]);
            }
            How::Flip(at) if from <= at && at < until => {
                let mut flight = flight.to_vec();
                flight[at - from] ^= 1 << (at % 8);
                to.feed(&flight);
            }
            How::Whole | How::Cut(_) | How::Flip(_) => to.feed(flight),
        }
    }
}

fn sent_by_a() -> Vec<u8> {
    [GREETING_A, &long_item()].concat()
}

fn sent_by_b() -> Vec<u8> {
    [GREETING_B, FAREWELL_B].concat()
}

/// Longer than a record of the toy layer, and without a period in which a lost record could hide.
fn long_item() -> Vec<u8> {
    (0..LONG_ITEM).map(|at| (at ^ (at >> 8)) as u8).collect()
}

const GREETING_A: &[u8] = b"hello from a";
const GREETING_B: &[u8] = b"hello from b";
const FAREWELL_B: &[u8] = b"bye";
const LONG_ITEM: usize = 1_500;
/// The most flights of a dialogue of this size between correct layers.
const FLIGHTS_MAX: usize = 1_000;
/// The most steps of a correct layer for one read of this size.
const STEPS_MAX: usize = 1_000_000;
