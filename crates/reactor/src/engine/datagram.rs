//! Datagrams between a runtime and an engine: what arrived, in a lent batch, and what is to leave, in a queue.

use std::{collections::VecDeque, net::IpAddr};

use crate::address::Address;

/// Explicit congestion notification: what the two bits of an IP header say (RFC 3168, section 5).
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
    /// Of the lowest two bits of a traffic class; the others are not looked at.
    pub fn from_bits(bits: u8) -> Ecn {
        match bits & 0b11 {
            0b00 => Ecn::NotCapable,
            0b01 => Ecn::Capable1,
            0b10 => Ecn::Capable0,
            _ => Ecn::Experienced,
        }
    }

    /// As two bits.
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
    /// Who sent it; [`Address::Unnamed`] if that cannot be answered.
    pub from: &'a Address,
    /// The address at this end to which it was sent, where the system tells: of UDP on Linux and under
    /// simulation. On a machine with several addresses an answer should come from the same one.
    pub to: Option<IpAddr>,
    /// What routers on the way said, where the system tells; as [`Ecn::NotCapable`] otherwise.
    pub ecn: Ecn,
    /// It was longer than the buffer: `bytes` is its beginning, and the rest is gone.
    pub truncated: bool,
    /// The bytes. None of them is a datagram, too, and no end.
    pub bytes: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// An answer to its sender, from the address to which it was sent.
    pub fn answer<'b>(&self, bytes: &'b [u8]) -> Outbound<'b>
    where
        'a: 'b,
    {
        Outbound { from: self.to.filter(|to| !to.is_multicast()), ..Outbound::to(self.from, bytes) }
    }
}

/// A datagram to be sent, or several of one length to one address: what `send` of
/// [`Datagrams`](crate::Datagrams) takes.
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
    /// To whom; `None`: to whom the socket is connected.
    pub to: Option<&'a Address>,
    /// From which address of the machine; `None`: the system's choice.
    pub from: Option<IpAddr>,
    /// The bits of the IP header.
    pub ecn: Ecn,
    /// How long each datagram is; 0: all of `bytes` are one.
    pub segment: usize,
    /// The bytes.
    pub bytes: &'a [u8],
}

impl<'a> Outbound<'a> {
    /// To the address that the socket is connected to ([`BindOptions::peer`](crate::BindOptions::peer)).
    pub fn new(bytes: &'a [u8]) -> Outbound<'a> {
        Outbound { to: None, from: None, ecn: Ecn::NotCapable, segment: 0, bytes }
    }

    /// To an address.
    pub fn to(address: &'a Address, bytes: &'a [u8]) -> Outbound<'a> {
        Outbound { to: Some(address), ..Outbound::new(bytes) }
    }

    /// From this address of the machine, where the system lets it be chosen; the system's choice by default.
    pub fn from(self, address: IpAddr) -> Outbound<'a> {
        Outbound { from: Some(address), ..self }
    }

    /// With these bits, where the system lets them be set.
    pub fn ecn(self, ecn: Ecn) -> Outbound<'a> {
        Outbound { ecn, ..self }
    }

    /// Cuts the bytes into datagrams of this many bytes each, the last one perhaps shorter. Zero, the default,
    /// is one datagram of all.
    ///
    /// It spares the calls of `send`, and not more: equal datagrams that follow each other leave together also
    /// if they were sent one by one, where the system can do that (UDP_SEGMENT, udp(7)).
    pub fn segments(self, bytes: usize) -> Outbound<'a> {
        Outbound { segment: bytes, ..self }
    }

    /// How many datagrams it is.
    pub(crate) fn count(&self) -> usize {
        if self.segment == 0 { 1 } else { self.bytes.len().div_ceil(self.segment).max(1) }
    }

    /// Its datagrams, each as an item of its own.
    pub(crate) fn split(self) -> impl Iterator<Item = Outbound<'a>> {
        let step = if self.segment == 0 { self.bytes.len() } else { self.segment };
        (0..self.count()).map(move |n| {
            let (begin, end) = (n * step, ((n + 1) * step).min(self.bytes.len()));
            Outbound { bytes: &self.bytes[begin..end], segment: 0, ..self }
        })
    }
}

/// Datagrams that arrived together, in memory lent by the engine. Goes back with
/// [`Engine::give_batch`](super::Engine::give_batch), or by its drop.
///
/// ```
/// use reactor::{Address, Ecn, engine::Batch};
/// let mut batch = Batch::default();
/// batch.put(b"", &Address::Unnamed, None, Ecn::NotCapable, false);
/// assert_eq!(batch.len(), 1);
/// assert!(batch.take().is_some_and(|datagram| datagram.bytes.is_empty()));
/// assert!(batch.take().is_none());
/// ```
#[derive(Default, Debug)]
pub struct Batch {
    buffer: Vec<u8>,
    packets: Vec<Packet>,
    /// The first packet that was not taken, and how many bytes of it were.
    next: usize,
    taken: usize,
}

/// One packet of the system: a datagram, or several that it put together.
#[derive(Debug)]
pub(crate) struct Packet {
    /// Where its bytes begin in the buffer, and how many there are.
    pub(crate) at: usize,
    pub(crate) len: usize,
    /// How long each of its datagrams is, if it is several; never zero.
    pub(crate) segment: Option<usize>,
    pub(crate) from: Address,
    pub(crate) to: Option<IpAddr>,
    pub(crate) ecn: Ecn,
    pub(crate) truncated: bool,
}

impl Batch {
    /// Memory for so many bytes, of which none is used yet.
    pub(crate) fn with_room(bytes: usize) -> Batch {
        Batch { buffer: vec![0; bytes], ..Batch::default() }
    }

    /// The memory, for the system to write to.
    pub(crate) fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// Notes a packet whose bytes are in the buffer.
    pub(crate) fn note(&mut self, packet: Packet) {
        self.packets.push(packet);
    }

    /// Appends a datagram, by a copy of its bytes: for engines that have them elsewhere.
    pub fn put(&mut self, bytes: &[u8], from: &Address, to: Option<IpAddr>, ecn: Ecn, truncated: bool) {
        let (at, len) = (self.buffer.len(), bytes.len());
        self.buffer.extend_from_slice(bytes);
        self.note(Packet { at, len, segment: None, from: from.clone(), to, ecn, truncated });
    }

    /// How many datagrams were not taken.
    pub fn len(&self) -> usize {
        let left = self.packets[self.next..].iter().map(|packet| match packet.segment {
            Some(segment) => packet.len.div_ceil(segment).max(1),
            None => 1,
        });
        let taken = self.packets.get(self.next).and_then(|packet| packet.segment);
        left.sum::<usize>() - taken.map_or(0, |segment| self.taken / segment)
    }

    /// Whether all were taken.
    pub fn is_empty(&self) -> bool {
        self.next == self.packets.len()
    }

    /// Takes the next datagram.
    pub fn take(&mut self) -> Option<Datagram<'_>> {
        let packet = self.packets.get(self.next)?;
        let left = packet.len - self.taken;
        let len = packet.segment.map_or(left, |segment| segment.min(left));
        let (begin, is_last) = (packet.at + self.taken, len == left);
        if is_last {
            self.next += 1;
            self.taken = 0;
        } else {
            self.taken += len;
        }
        Some(Datagram {
            from: &packet.from,
            to: packet.to,
            ecn: packet.ecn,
            truncated: packet.truncated && is_last,
            bytes: &self.buffer[begin..begin + len],
        })
    }

    /// How many packets of the system there are, taken or not.
    #[cfg(test)]
    pub(crate) fn packets(&self) -> usize {
        self.packets.len()
    }

    /// How many bytes of memory it has.
    pub(crate) fn room(&self) -> usize {
        self.buffer.len()
    }

    /// Forgets all packets; the memory stays.
    pub(crate) fn clear(&mut self) {
        self.packets.clear();
        (self.next, self.taken) = (0, 0);
    }
}

/// Datagrams that are to leave, in their order: what [`Engine::send_datagrams`](super::Engine::send_datagrams)
/// takes from.
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
    /// The bytes of all, one behind the other; those before `start` have left.
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
    /// Appends one, or each of its segments.
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

    /// How many there are.
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// How many bytes they have.
    pub fn bytes(&self) -> usize {
        self.memory.len() - self.start
    }

    /// The first.
    pub fn front(&self) -> Option<Outbound<'_>> {
        let Head { to, from, ecn, len } = self.heads.front()?;
        let bytes = &self.memory[self.start..self.start + len];
        Some(Outbound { to: to.as_ref(), from: *from, ecn: *ecn, segment: 0, bytes })
    }

    /// Drops the first; says to whom it was.
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

    /// What leaves together: each run is one datagram, or up to `together` of one length (the last perhaps
    /// shorter) to one address.
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

/// The most bytes of a run: what one packet carries over IPv6, and a little less than over IPv4.
const RUN_MAX: usize = 65_487;
/// How much memory an empty queue keeps, in bytes.
const KEPT_MAX: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Address {
        text.parse().expect("an address")
    }

    #[test]
    fn a_packet_of_several_comes_apart_and_only_its_last_is_truncated() {
        let mut batch = Batch::with_room(16);
        batch.buffer()[..10].copy_from_slice(b"aaabbbcccd");
        let packet = |at, len, segment, truncated| Packet {
            at,
            len,
            segment,
            from: ip("127.0.0.1:1"),
            to: None,
            ecn: Ecn::NotCapable,
            truncated,
        };
        batch.note(packet(0, 8, Some(3), true));
        batch.note(packet(8, 0, None, false));
        batch.note(packet(8, 2, None, false));
        assert_eq!((batch.len(), batch.packets()), (5, 3));
        let take = |batch: &mut Batch| batch.take().map(|d| (d.bytes.to_vec(), d.truncated));
        assert_eq!(take(&mut batch), Some((b"aaa".to_vec(), false)));
        assert_eq!(batch.len(), 4);
        for expected in [(&b"bbb"[..], false), (b"cc", true), (b"", false), (b"cd", false)] {
            assert_eq!(take(&mut batch), Some((expected.0.to_vec(), expected.1)));
        }
        assert!(batch.is_empty() && batch.take().is_none());
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
