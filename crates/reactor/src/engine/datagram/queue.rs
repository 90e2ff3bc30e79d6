//! Datagrams: a received one, one to send, and the queue of those to send.

use std::{collections::VecDeque, net::IpAddr};

use crate::address::Address;

/// Explicit congestion notification: the two bits of an IP header (RFC 3168, section 5).
///
/// ```
/// use reactor::Ecn;
/// assert_eq!(Ecn::from_bits(0b11), Ecn::Experienced);
/// assert_eq!(Ecn::default().bits(), 0);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Ecn {
    /// `00`: the sender does not take part.
    #[default]
    NotCapable,
    /// `01`: ECT(1).
    Capable1,
    /// `10`: ECT(0).
    Capable0,
    /// `11`: a router on the way was congested.
    Experienced,
}

impl Ecn {
    /// Decodes the lowest two bits of a traffic class, and ignores the others.
    pub fn from_bits(bits: u8) -> Ecn {
        match bits & 0b11 {
            0b00 => Ecn::NotCapable,
            0b01 => Ecn::Capable1,
            0b10 => Ecn::Capable0,
            _ => Ecn::Experienced,
        }
    }

    /// Returns the two bits.
    pub fn bits(self) -> u8 {
        self as u8
    }
}

/// A datagram that arrived, whole. It borrows the runtime's buffer.
///
/// ```
/// use reactor::{Datagram, Outbound};
///
/// fn answer<'a>(question: &Datagram<'a>) -> Outbound<'a> {
///     question.answer(question.bytes)
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram<'a> {
    /// The sender's address; [`Address::Unnamed`] if it has none to answer to.
    pub from: &'a Address,
    /// The local address from which an answer should leave, where the system reports it: for UDP on Linux and
    /// under simulation. It is the address to which the datagram was sent. For a broadcast or a multicast
    /// over IPv4 it is the receiving interface's own address, and for a multicast over IPv6 it is `None`.
    pub to: Option<IpAddr>,
    /// The mark of the routers on the way, where the system reports it; otherwise [`Ecn::NotCapable`].
    pub ecn: Ecn,
    /// The datagram was longer than the buffer: `bytes` is its beginning, and the rest is lost.
    pub truncated: bool,
    /// The bytes. A datagram of no bytes is a datagram, too, and not an end.
    pub bytes: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Makes an answer to its sender, from the address to which it was sent.
    pub fn answer<'b>(&self, bytes: &'b [u8]) -> Outbound<'b>
    where
        'a: 'b,
    {
        Outbound { from: self.to.filter(|to| !to.is_multicast()), ..Outbound::to(self.from, bytes) }
    }
}

/// A datagram to send, or several of one length to one address: the argument of `send` of
/// [`Datagrams`](crate::Datagrams).
///
/// ```
/// use reactor::{Address, Ecn, Outbound};
/// let peer: Address = "127.0.0.1:53".parse()?;
/// let question = Outbound::to(&peer, b"where?").ecn(Ecn::Capable0);
/// let three = Outbound::to(&peer, b"onetwosix").segments(3);
/// # let _ = (question, three);
/// # Ok::<(), reactor::NotAnAddress>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outbound<'a> {
    /// The receiver. `None`: the address that the socket is connected to.
    pub to: Option<&'a Address>,
    /// The local address to send from. `None`: the system chooses.
    pub from: Option<IpAddr>,
    /// The bits of the IP header.
    pub ecn: Ecn,
    /// The length of each datagram. 0: all of `bytes` are one datagram.
    pub segment: usize,
    /// The bytes.
    pub bytes: &'a [u8],
}

impl<'a> Outbound<'a> {
    /// Addresses bytes to the peer that the socket is connected to
    /// ([`BindOptions::peer`](crate::BindOptions::peer)).
    pub fn new(bytes: &'a [u8]) -> Outbound<'a> {
        Outbound { to: None, from: None, ecn: Ecn::NotCapable, segment: 0, bytes }
    }

    /// Addresses bytes to this address.
    pub fn to(address: &'a Address, bytes: &'a [u8]) -> Outbound<'a> {
        Outbound { to: Some(address), ..Outbound::new(bytes) }
    }

    /// Sends from this local address, where the system allows the choice. By default the system chooses.
    #[must_use]
    pub fn from(self, address: IpAddr) -> Outbound<'a> {
        Outbound { from: Some(address), ..self }
    }

    /// Sets the ECN bits, where the system allows it.
    #[must_use]
    pub fn ecn(self, ecn: Ecn) -> Outbound<'a> {
        Outbound { ecn, ..self }
    }

    /// Splits the bytes into datagrams of this many bytes each; the last may be shorter. Zero, the default,
    /// means one datagram.
    ///
    /// This only saves calls of `send`. Equal datagrams that follow each other leave together even if they
    /// were sent one by one, where the system can do that (UDP_SEGMENT, udp(7)).
    #[must_use]
    pub fn segments(self, bytes: usize) -> Outbound<'a> {
        Outbound { segment: bytes, ..self }
    }

    /// Returns the number of datagrams.
    pub(crate) fn count(&self) -> usize {
        if self.segment == 0 { 1 } else { self.bytes.len().div_ceil(self.segment).max(1) }
    }

    /// Splits it into its datagrams, each as an item of its own.
    pub(crate) fn split(self) -> impl Iterator<Item = Outbound<'a>> {
        let step = if self.segment == 0 { self.bytes.len() } else { self.segment };
        (0..self.count()).map(move |n| {
            let (begin, end) = (n * step, ((n + 1) * step).min(self.bytes.len()));
            Outbound { bytes: &self.bytes[begin..end], segment: 0, ..self }
        })
    }
}

/// Datagrams to send, in order. [`Engine::send_datagrams`](crate::engine::Engine::send_datagrams) takes them from
/// here.
///
/// ```
/// use reactor::{Address, Outbound, engine::DatagramQueue};
/// let peer: Address = "127.0.0.1:53".parse()?;
/// let mut queue = DatagramQueue::default();
/// queue.push(Outbound::to(&peer, b"one"));
/// queue.push(Outbound::to(&peer, b""));
/// assert_eq!((queue.len(), queue.bytes()), (2, 3));
/// queue.pop();
/// assert_eq!(queue.front(), Some(Outbound::to(&peer, b"")));
/// # Ok::<(), reactor::NotAnAddress>(())
/// ```
#[derive(Default, Debug)]
pub struct DatagramQueue {
    /// The bytes of all datagrams, back to back. Those before `start` have left.
    memory: Vec<u8>,
    start: usize,
    heads: VecDeque<Head>,
}

/// A datagram of a queue, without its bytes.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Head {
    pub(crate) to: Option<Address>,
    pub(crate) from: Option<IpAddr>,
    pub(crate) ecn: Ecn,
    pub(crate) len: usize,
}

/// Datagrams at the front of a queue that may leave as one packet.
pub(crate) struct Run<'a> {
    pub(crate) head: &'a Head,
    pub(crate) bytes: &'a [u8],
    pub(crate) count: usize,
}

impl DatagramQueue {
    /// Appends a datagram, or each of its segments.
    pub fn push(&mut self, item: Outbound<'_>) {
        if self.start > self.memory.len() / 2 {
            self.memory.drain(..self.start);
            self.start = 0;
        }
        for Outbound { to, from, ecn, bytes, .. } in item.split() {
            self.memory.extend_from_slice(bytes);
            self.heads.push_back(Head { to: to.cloned(), from, ecn, len: bytes.len() });
        }
    }

    /// Returns the number of datagrams.
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Returns the number of their bytes.
    pub fn bytes(&self) -> usize {
        self.memory.len() - self.start
    }

    /// Returns the size of its memory. An empty queue keeps at most 256 KiB, which do not count.
    pub(crate) fn memory(&self) -> usize {
        if self.is_empty() { 0 } else { self.memory.capacity() + self.heads.capacity() * size_of::<Head>() }
    }

    /// Returns the first datagram.
    pub fn front(&self) -> Option<Outbound<'_>> {
        let Head { to, from, ecn, len } = self.heads.front()?;
        let bytes = &self.memory[self.start..self.start + len];
        Some(Outbound { to: to.as_ref(), from: *from, ecn: *ecn, segment: 0, bytes })
    }

    /// Drops the first datagram, and returns its receiver.
    pub fn pop(&mut self) -> Option<Option<Address>> {
        let head = self.heads.pop_front()?;
        self.start += head.len;
        if self.heads.is_empty() {
            self.start = 0;
            self.memory.clear();
            self.memory.shrink_to(KEPT_MAX);
        }
        Some(head.to)
    }

    /// Groups the datagrams that can leave together. Each run is one datagram, or up to `together` of one
    /// length (the last may be shorter) to one address.
    pub(crate) fn runs(&self, together: usize) -> impl Iterator<Item = Run<'_>> {
        let (mut next, mut at) = (0, self.start);
        std::iter::from_fn(move || {
            let head = self.heads.get(next)?;
            let (mut count, mut len) = (1, head.len);
            let is_like =
                |other: &Head| (&other.to, other.from, other.ecn) == (&head.to, head.from, head.ecn);
            while count < together
                && head.len > 0
                && len == count * head.len
                && let Some(more) = self.heads.get(next + count)
                && (1..=head.len).contains(&more.len)
                && len + more.len <= RUN_MAX
                && is_like(more)
            {
                count += 1;
                len += more.len;
            }
            let run = Run { head, bytes: &self.memory[at..at + len], count };
            next += count;
            at += len;
            Some(run)
        })
    }
}

/// The most bytes of a run: the payload of one packet over IPv6, and a little less than over IPv4.
const RUN_MAX: usize = 65_487;
/// The memory in bytes that an empty queue keeps at most.
const KEPT_MAX: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Address {
        text.parse().expect("an address")
    }

    #[test]
    fn runs_are_of_one_length_and_address_and_end_with_a_shorter_one() {
        let (a, b) = (ip("127.0.0.1:1"), ip("127.0.0.1:2"));
        let mut queue = DatagramQueue::default();
        let items: [(&Address, &[u8]); 9] = [
            (&a, b"11"),
            (&a, b"22"),
            (&a, b"3"),
            (&a, b"44"),
            (&b, b"55"),
            (&b, b"666"),
            (&b, b""),
            (&b, b""),
            (&b, b"7"),
        ];
        items.iter().for_each(|(to, bytes)| queue.push(Outbound::to(to, bytes)));
        let runs =
            |together| queue.runs(together).map(|run| (run.count, run.bytes.len())).collect::<Vec<_>>();
        assert_eq!(runs(64), [(3, 5), (1, 2), (1, 2), (1, 3), (1, 0), (1, 0), (1, 1)]);
        assert_eq!(runs(2), [(2, 4), (1, 1), (1, 2), (1, 2), (1, 3), (1, 0), (1, 0), (1, 1)]);
        assert_eq!(runs(1).len(), 9);
    }

    #[test]
    fn a_run_is_bounded_by_count_and_bytes_at_their_limits() {
        for (items, together, expected) in [(63, 64, 1), (64, 64, 1), (65, 64, 2)] {
            let mut queue = DatagramQueue::default();
            (0..items).for_each(|_| queue.push(Outbound::new(b"x")));
            assert_eq!(queue.runs(together).count(), expected, "{items} items");
        }
        for (last, expected) in [(RUN_MAX - 60_001, 1), (RUN_MAX - 60_000, 1), (RUN_MAX - 59_999, 2)] {
            let mut queue = DatagramQueue::default();
            (0..2).for_each(|_| queue.push(Outbound::new(&[0; 30_000])));
            queue.push(Outbound::new(&vec![0; last]));
            assert_eq!(queue.runs(64).count(), expected, "the last has {last} bytes");
        }
    }

    #[test]
    fn segments_are_cut_and_memory_that_left_is_used_again() {
        let mut queue = DatagramQueue::default();
        queue.push(Outbound::new(b"onetwosi").segments(3));
        queue.push(Outbound::new(b"").segments(3));
        let mut lengths = Vec::new();
        while let Some(front) = queue.front() {
            lengths.push(front.bytes.len());
            queue.pop();
        }
        assert_eq!(lengths, [3, 3, 2, 0]);
        for _ in 0..1000 {
            queue.push(Outbound::new(&[7; 100]));
            queue.push(Outbound::new(&[7; 100]));
            queue.pop();
            queue.push(Outbound::new(&[7; 100]));
            queue.pop();
            queue.pop();
        }
        assert!(queue.memory.capacity() < 2000, "{}", queue.memory.capacity());
    }
}
