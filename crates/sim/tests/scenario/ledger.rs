//! The scenario's outside view: each connection as both of its ends see it, and each node.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use reactor::{Closed, Controller, Time};

use crate::scenario::peer::Peer;

/// The purpose of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// The server echoes everything, and the client ends first.
    Echo,
    /// The client sends and closes at once.
    Push,
    /// The server sends and closes at once.
    Pull,
    /// The client aborts in the middle.
    Abort,
    /// The client queues more than its cap.
    Overflow,
    /// The client sends nothing until its deadline.
    Mute,
    /// The client connects to a port without a listener.
    Refused,
}

/// All modes.
pub(crate) const MODES: [Mode; 7] =
    [Mode::Echo, Mode::Push, Mode::Pull, Mode::Abort, Mode::Overflow, Mode::Mute, Mode::Refused];

/// One end of a connection.
#[derive(Default, Debug)]
pub(crate) struct Side {
    pub(crate) is_open: bool,
    /// The bytes that it sent, and the bytes that it received.
    pub(crate) sent: u64,
    pub(crate) got: u64,
    pub(crate) got_end: bool,
    /// It has requested an end after its output.
    pub(crate) has_finished: bool,
    /// Its output may be lost, because it crashed or did not end gracefully.
    pub(crate) is_cut: bool,
    pub(crate) closed: Option<String>,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Talk {
    pub(crate) mode: Mode,
    pub(crate) target: SocketAddr,
    /// How much the sender of the mode sends.
    pub(crate) size: u64,
    /// Set if it began after the faults had ended, so it must succeed.
    pub(crate) is_strict: bool,
    /// Set if its first byte is changed.
    is_twisted: bool,
    pub(crate) client: Side,
    pub(crate) server: Side,
}

impl Talk {
    pub(crate) fn side(&mut self, is_client: bool) -> &mut Side {
        if is_client { &mut self.client } else { &mut self.server }
    }
}

/// A node, over its lives.
#[derive(Default)]
pub(crate) struct Book {
    /// The resources and timers that its service counts.
    pub(crate) resources: u64,
    pub(crate) timers: u64,
    pub(crate) controller: Option<Controller<Peer>>,
    /// `commands`: the sending times of the commands in flight. `commands_got`: the number of the next one to
    /// arrive.
    pub(crate) commands: VecDeque<Time>,
    pub(crate) commands_got: u64,
    pub(crate) commands_sent: u64,
    /// The file operations in flight, and the number of notes that are safe on the disk.
    pub(crate) operations: u32,
    pub(crate) notes: u64,
    /// The offloaded jobs in flight, by number.
    pub(crate) jobs: BTreeSet<u64>,
    /// The bytes of its virtual source.
    pub(crate) fed: u64,
    pub(crate) tapped: u64,
    /// The talks that it must still begin after the faults, and those that are not over.
    pub(crate) strict_left: u32,
    pub(crate) strict_open: u32,
}

/// All records of the scenario.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) violation: Option<String>,
    pub(crate) addresses: Vec<SocketAddr>,
    /// By the client's address.
    pub(crate) talks: BTreeMap<SocketAddr, Talk>,
    pub(crate) books: Vec<Book>,
    /// The peer of the last accept.
    pub(crate) accepting: Option<SocketAddr>,
    /// The end of the faults.
    pub(crate) strict_since: Option<Time>,
    /// Set while one byte is still to be changed.
    pub(crate) is_twisted: bool,
    /// How often rare branches were reached.
    pub(crate) reached: BTreeMap<&'static str, u64>,
}

impl Ledger {
    /// Notes a violation. Only the first one counts.
    pub(crate) fn violate(&mut self, what: impl FnOnce() -> String) {
        self.violation.get_or_insert_with(what);
    }

    /// Checks a condition, and notes a violation if it does not hold.
    pub(crate) fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violate(what);
        }
    }

    /// Notes that a rare branch was reached.
    pub(crate) fn sometimes(&mut self, what: &'static str) {
        *self.reached.entry(what).or_default() += 1;
    }

    pub(crate) fn is_strict(&self) -> bool {
        self.strict_since.is_some()
    }

    /// Returns how late an event is. Delays by faults do not count.
    pub(crate) fn late(&self, due: Time, now: Time) -> Duration {
        self.strict_since.map_or(Duration::ZERO, |since| now.since(due.max(since)))
    }

    pub(crate) fn begin_talk(&mut self, client: SocketAddr, mode: Mode, target: SocketAddr, size: u64) {
        let is_strict = self.is_strict();
        // The first talk whose bytes all arrive.
        let sends = is_strict && size > 0 && matches!(mode, Mode::Echo | Mode::Push | Mode::Pull);
        let is_twisted = sends && std::mem::take(&mut self.is_twisted);
        let (one, other) = (Side::default(), Side::default());
        let talk = Talk { mode, target, size, is_strict, is_twisted, client: one, server: other };
        self.talks.insert(client, talk);
    }

    /// Fills a buffer with a side's next bytes, which follow from the position in the stream.
    pub(crate) fn bytes(&self, client: SocketAddr, by_client: bool, from: u64, into: &mut [u8]) {
        let is_twisted = self.talks.get(&client).is_some_and(|talk| talk.is_twisted);
        for (at, byte) in (from..).zip(into.iter_mut()) {
            *byte = byte_at(client, by_client, at) ^ u8::from(is_twisted && at == 0);
        }
    }

    /// Checks a side's input, and notes it.
    pub(crate) fn received(&mut self, client: SocketAddr, by_client: bool, bytes: &[u8]) {
        let Some(talk) = self.talks.get_mut(&client) else {
            return self.violate(|| format!("received from {client}, which never connected"));
        };
        let (got, sent) = (talk.side(by_client).got, talk.side(!by_client).sent);
        let is_twisted = talk.is_twisted;
        talk.side(by_client).got += bytes.len() as u64;
        let is_right = (got..)
            .zip(bytes)
            .all(|(at, byte)| *byte == byte_at(client, !by_client, at) ^ u8::from(is_twisted && at == 0));
        let len = bytes.len() as u64;
        self.must(is_right, || format!("stream {client}: other bytes than were sent, at {got}, {len} long"));
        self.must(got + len <= sent, || {
            format!("stream {client}: received {got} + {len} bytes of {sent} sent")
        });
    }

    /// Checks that an end arrives after all bytes, and only from a peer that has ended.
    pub(crate) fn ended(&mut self, client: SocketAddr, by_client: bool) {
        let Some(talk) = self.talks.get_mut(&client) else { return };
        talk.side(by_client).got_end = true;
        let (mode, got, other) = (talk.mode, talk.side(by_client).got, talk.side(!by_client));
        let (sent, has_finished) = (other.sent, other.has_finished);
        if other.is_cut || !other.is_open {
            return self.sometimes("an end after a cut");
        }
        self.must(has_finished, || format!("{mode:?} {client}: an end that the peer did not ask for"));
        self.must(got == sent, || {
            format!("{mode:?} {client}: the end after {got} of {sent} bytes: a lost tail")
        });
    }

    /// Checks how a side of a connection ended.
    pub(crate) fn closed(&mut self, client: SocketAddr, by_client: bool, why: &Closed) {
        let Some(talk) = self.talks.get_mut(&client) else { return };
        let side = talk.side(by_client);
        let is_first = side.closed.is_none();
        side.closed = Some(why.to_string());
        side.is_cut |= !why.is_clean();
        let (mode, is_strict, size) = (talk.mode, talk.is_strict, talk.size);
        let (own, other) = (&talk.client, &talk.server);
        let (own, other) = if by_client { (own, other) } else { (other, own) };
        let (got, got_end, sent) = (own.got, own.got_end, other.sent);
        self.must(is_first, || format!("{mode:?} {client}: closed twice"));
        if !is_strict {
            return;
        }
        let is_right = match (mode, by_client) {
            (Mode::Echo, true) => matches!(why, Closed::End) && got == size,
            (Mode::Echo, false) => matches!(why, Closed::Done) && got == size && got_end,
            (Mode::Push, true) => matches!(why, Closed::Done),
            (Mode::Push, false) => matches!(why, Closed::Done) && got == size && got_end,
            (Mode::Pull, true) => matches!(why, Closed::End) && got == size && got_end,
            (Mode::Pull, false) => matches!(why, Closed::Done),
            (Mode::Abort, true) => matches!(why, Closed::Aborted),
            (Mode::Abort, false) => matches!(why, Closed::Failed(_)),
            (Mode::Overflow, true) => matches!(why, Closed::Overflow),
            (Mode::Overflow, false) => true,
            (Mode::Mute, true) => matches!(why, Closed::Deadline),
            (Mode::Mute, false) => matches!(why, Closed::Done) && got_end,
            (Mode::Refused, _) => {
                why.io().is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
            }
        };
        let role = if by_client { "client" } else { "server" };
        self.must(is_right, || {
            format!(
                "{mode:?} {client}: without faults the {role} closed as '{why}' after {got} of {sent} bytes \
                 of {size}, end told: {got_end}"
            )
        });
    }

    /// Checks a command at its arrival.
    pub(crate) fn command(&mut self, node: usize, number: u64, now: Time) {
        let book = &mut self.books[node];
        let (due, sent) = (book.commands_got, book.commands.pop_front());
        book.commands_got += 1;
        self.must(number == due, || format!("node {node}: command {number} came instead of {due}"));
        let Some(sent) = sent else {
            return self.violate(|| format!("node {node}: command {number} came twice"));
        };
        let late = self.late(sent, now);
        self.must(late <= WAKE_MAX, || {
            format!("node {node}: command {number} waited {late:?} for an idle node: a lost wake")
        });
    }
}

/// Returns the byte at a position of a stream.
fn byte_at(client: SocketAddr, by_client: bool, at: u64) -> u8 {
    let std::net::IpAddr::V4(ip) = client.ip() else { return 0 };
    let salt = u64::from(u32::from(ip)) << 17 | u64::from(client.port()) << 1 | u64::from(by_client);
    let mixed = (salt ^ at.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed >> 56) as u8
}

/// The longest that a command may wait for an idle node.
const WAKE_MAX: Duration = Duration::from_millis(1);
