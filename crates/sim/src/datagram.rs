//! A model of datagram sockets: sent whole or not at all, lost, doubled, overtaken, cut off.
//!
//! It is self-contained: it has its own chance and its own clock, which its user moves. **No engine operation
//! reaches it yet**: it is here for datagram resources to come, and only its tests use it.
//!
//! As with UDP (RFC 768, udp(7)): a datagram arrives whole, or not at all; a full receive buffer drops it
//! without a word; a buffer that is too small cuts it off, and the rest is gone.

use std::collections::{BTreeMap, VecDeque};

use crate::chance::Chance;

/// How the ways between sockets are. Rates are of a million.
///
/// ```
/// use sim::datagram::{Datagrams, Weather};
/// let mut net = Datagrams::new(7, Weather { lost: 1_000_000, ..Weather::fair() });
/// let (one, other) = (net.open(), net.open());
/// net.send(one, other, b"gone")?;
/// net.pass(1_000_000_000);
/// assert_eq!(net.receive(other, &mut [0; 16]), None);
/// assert_eq!(net.counts().lost, 1);
/// # Ok::<(), sim::datagram::TooLong>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weather {
    /// How many are lost.
    pub lost: u32,
    /// How many come twice.
    pub doubled: u32,
    /// The least nanoseconds on the way.
    pub nanos_min: u64,
    /// The most; drawn evenly, each for itself: so one overtakes another.
    pub nanos_max: u64,
    /// How many bytes a socket keeps that nobody received.
    pub buffer_bytes: usize,
    /// How many datagrams are under way at most, of all sockets; more are dropped.
    pub flying_max: usize,
}

impl Weather {
    /// Nothing is lost, doubled or overtaken: a tenth of a millisecond, and the buffer that Linux gives
    /// (208 KiB).
    pub const fn fair() -> Weather {
        Weather {
            lost: 0,
            doubled: 0,
            nanos_min: 100_000,
            nanos_max: 100_000,
            buffer_bytes: 208 << 10,
            flying_max: 1 << 16,
        }
    }
}

/// What became of datagrams so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Sent.
    pub sent: u64,
    /// Lost on the way.
    pub lost: u64,
    /// Sent once and arriving twice.
    pub doubled: u64,
    /// Arrived after one that was sent later to the same socket.
    pub overtaken: u64,
    /// Found too many under way, a full buffer, or no socket.
    pub dropped: u64,
    /// Received into a buffer that was too small.
    pub cut: u64,
    /// Received.
    pub received: u64,
}

/// A datagram longer than [`LENGTH_MAX`] bytes (EMSGSIZE).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLong;

impl std::fmt::Display for TooLong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a datagram has at most {LENGTH_MAX} bytes")
    }
}

impl std::error::Error for TooLong {}

/// Names a socket of [`Datagrams`]; numbers are never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Socket(u64);

/// What was received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Got {
    /// So many bytes are in the buffer.
    pub bytes: usize,
    /// So many it had: more, if it was cut off (`MSG_TRUNC`).
    pub full: usize,
    /// Who sent it.
    pub from: Socket,
}

struct Datagram {
    from: Socket,
    order: u64,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct Inbox {
    waiting: VecDeque<Datagram>,
    bytes: usize,
    /// The latest sent of those that arrived.
    latest: u64,
}

/// Sockets, and the datagrams between them. See [`Weather`] for an example.
pub struct Datagrams {
    chance: Chance,
    weather: Weather,
    now: u64,
    sent: u64,
    sockets: BTreeMap<Socket, Inbox>,
    opened: u64,
    /// By the moment of arrival, and then in the order sent.
    flying: BTreeMap<(u64, u64), (Socket, Datagram)>,
    flown: u64,
    counts: Counts,
}

impl Datagrams {
    /// Begins without sockets, at moment 0.
    pub fn new(seed: u64, weather: Weather) -> Datagrams {
        Datagrams {
            chance: Chance::new(seed),
            weather,
            now: 0,
            sent: 0,
            sockets: BTreeMap::new(),
            opened: 0,
            flying: BTreeMap::new(),
            flown: 0,
            counts: Counts::default(),
        }
    }

    /// Opens a socket.
    pub fn open(&mut self) -> Socket {
        self.opened += 1;
        self.sockets.insert(Socket(self.opened), Inbox::default());
        Socket(self.opened)
    }

    /// Closes a socket; what is on its way to it is dropped when it arrives.
    pub fn close(&mut self, socket: Socket) {
        self.sockets.remove(&socket);
    }

    /// Sends a datagram. Nobody learns whether it arrives.
    ///
    /// # Errors
    /// [`TooLong`]; nothing was sent.
    pub fn send(&mut self, from: Socket, to: Socket, bytes: &[u8]) -> Result<(), TooLong> {
        if bytes.len() > LENGTH_MAX {
            return Err(TooLong);
        }
        self.sent += 1;
        self.counts.sent += 1;
        if self.chance.per_million(self.weather.lost) {
            self.counts.lost += 1;
            return Ok(());
        }
        let is_doubled = self.chance.per_million(self.weather.doubled);
        self.counts.doubled += u64::from(is_doubled);
        for _ in 0..1 + usize::from(is_doubled) {
            if self.flying.len() >= self.weather.flying_max {
                self.counts.dropped += 1;
                continue;
            }
            let at = self.now + self.chance.between(self.weather.nanos_min, self.weather.nanos_max);
            self.flown += 1;
            let datagram = Datagram { from, order: self.sent, bytes: bytes.to_vec() };
            self.flying.insert((at, self.flown), (to, datagram));
        }
        Ok(())
    }

    /// Lets so many nanoseconds pass: what is due arrives, the earliest first.
    pub fn pass(&mut self, nanos: u64) {
        self.now = self.now.saturating_add(nanos);
        while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (to, datagram) = entry.remove();
            self.arrive(to, datagram);
        }
    }

    fn arrive(&mut self, to: Socket, datagram: Datagram) {
        let room = self.weather.buffer_bytes;
        let Some(inbox) = self.sockets.get_mut(&to) else {
            self.counts.dropped += 1;
            return;
        };
        if inbox.bytes + datagram.bytes.len() > room {
            self.counts.dropped += 1;
            return;
        }
        self.counts.overtaken += u64::from(datagram.order < inbox.latest);
        inbox.latest = inbox.latest.max(datagram.order);
        inbox.bytes += datagram.bytes.len();
        inbox.waiting.push_back(datagram);
    }

    /// Receives the next datagram, as far as the buffer has room: the rest of it is gone. `None`: there is
    /// none.
    pub fn receive(&mut self, socket: Socket, into: &mut [u8]) -> Option<Got> {
        let inbox = self.sockets.get_mut(&socket)?;
        let Datagram { from, bytes, .. } = inbox.waiting.pop_front()?;
        inbox.bytes -= bytes.len();
        let count = bytes.len().min(into.len());
        into[..count].copy_from_slice(&bytes[..count]);
        self.counts.received += 1;
        self.counts.cut += u64::from(count < bytes.len());
        Some(Got { bytes: count, full: bytes.len(), from })
    }

    /// What became of datagrams so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

impl std::fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Datagrams").field("counts", &self.counts).finish_non_exhaustive()
    }
}

/// The most bytes of one datagram: what UDP over IPv4 carries.
pub const LENGTH_MAX: usize = 65_507;

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(seed: u64, weather: Weather, count: u32) -> (Datagrams, Vec<u32>) {
        let mut net = Datagrams::new(seed, weather);
        let (one, other) = (net.open(), net.open());
        for number in 0..count {
            net.send(one, other, &number.to_be_bytes()).expect("it is short");
        }
        net.pass(u64::MAX / 2);
        let (mut buffer, mut numbers) = ([0; 4], Vec::new());
        while let Some(got) = net.receive(other, &mut buffer) {
            assert_eq!(got, Got { bytes: 4, full: 4, from: one });
            numbers.push(u32::from_be_bytes(buffer));
        }
        (net, numbers)
    }

    #[test]
    fn in_fair_weather_all_arrive_once_and_in_order() {
        let (net, numbers) = sent(1, Weather::fair(), 100);
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
        assert_eq!(net.counts(), Counts { sent: 100, received: 100, ..Counts::default() });
    }

    #[test]
    fn bad_weather_is_of_its_seed_and_counted() {
        let bad = Weather { lost: 200_000, doubled: 200_000, nanos_max: 9_000_000, ..Weather::fair() };
        let (net, numbers) = sent(2, bad, 1000);
        let counts = net.counts();
        assert!(counts.lost > 100 && counts.doubled > 100 && counts.overtaken > 100, "{counts:?}");
        assert_eq!(counts.received, 1000 - counts.lost + counts.doubled);
        assert_eq!(numbers.len() as u64, counts.received);
        assert_eq!(sent(2, bad, 1000).1, numbers);
        assert_ne!(sent(3, bad, 1000).1, numbers);
    }

    #[test]
    fn one_that_is_longer_than_the_buffer_is_cut_off() {
        let mut net = Datagrams::new(4, Weather::fair());
        let (one, other) = (net.open(), net.open());
        net.send(one, other, b"12345").expect("it is short");
        net.send(one, other, b"").expect("an empty one is one, too");
        net.pass(99_999);
        assert_eq!(net.receive(other, &mut [0; 8]), None, "not yet");
        net.pass(1);
        let mut buffer = [0; 4];
        assert_eq!(net.receive(other, &mut buffer), Some(Got { bytes: 4, full: 5, from: one }));
        assert_eq!((&buffer, net.counts().cut), (b"1234", 1));
        assert_eq!(net.receive(other, &mut buffer), Some(Got { bytes: 0, full: 0, from: one }));
        assert_eq!(net.receive(other, &mut buffer), None);
    }

    #[test]
    fn a_length_and_a_buffer_are_bounded_at_their_limits() {
        let mut net = Datagrams::new(5, Weather { buffer_bytes: 10, ..Weather::fair() });
        let (one, other) = (net.open(), net.open());
        for length in [4, 5, 2, 1, 1] {
            net.send(one, other, &vec![0; length]).expect("it is short");
        }
        net.pass(100_000);
        // 4 and 5 leave room for 1: so the 2 and the second 1 are dropped.
        assert_eq!(net.counts().dropped, 2);
        assert_eq!(net.send(one, other, &vec![0; LENGTH_MAX]), Ok(()));
        assert_eq!(net.send(one, other, &vec![0; LENGTH_MAX + 1]), Err(TooLong));
        assert_eq!(net.counts().sent, 6, "what is too long was not sent");
    }

    #[test]
    fn only_so_many_are_under_way() {
        for (count, dropped) in [(2, 0), (3, 0), (4, 1)] {
            let (net, numbers) = sent(7, Weather { flying_max: 3, ..Weather::fair() }, count);
            assert_eq!((net.counts().dropped, numbers.len()), (dropped, count.min(3) as usize));
        }
    }

    #[test]
    fn what_comes_to_a_closed_socket_is_dropped() {
        let mut net = Datagrams::new(6, Weather::fair());
        let (one, other) = (net.open(), net.open());
        net.send(one, other, b"x").expect("it is short");
        net.close(other);
        assert_ne!(net.open(), other, "a number is not used again");
        net.pass(1_000_000);
        assert_eq!((net.counts().dropped, net.receive(other, &mut [0; 1])), (1, None));
    }
}
