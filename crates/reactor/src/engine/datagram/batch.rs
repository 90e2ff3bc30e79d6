//! Batches: datagrams that arrived together, in memory that an engine lends.

use std::{marker::PhantomData, net::IpAddr};

use super::queue::{Datagram, Ecn};
use crate::address::Address;

/// Datagrams that arrived together, in memory lent by the engine. It goes back with
/// [`Engine::give_batch`](crate::engine::Engine::give_batch), or on drop.
///
/// ```
/// use reactor::{Address, Ecn, engine::Batch};
/// let mut batch = Batch::default();
/// batch.put(b"", &Address::Unnamed, None, Ecn::NotCapable, false);
/// assert_eq!(batch.len(), 1);
/// assert!(batch.take().is_some_and(|datagram| datagram.bytes.is_empty()));
/// assert!(batch.take().is_none());
/// ```
/// It stays in the thread of its engine, because the memory may have to go back to a kernel.
#[derive(Default, Debug)]
pub struct Batch {
    buffer: Vec<u8>,
    /// Memory that the kernel chose. `buffer` is empty then.
    #[cfg(all(target_os = "linux", feature = "io-uring"))]
    provided: Option<crate::engine::io_uring::Provided>,
    packets: Vec<Packet>,
    /// The first packet that was not taken completely, and the number of its bytes that were taken.
    next: usize,
    taken: usize,
    stays: PhantomData<*const ()>,
}

/// Datagrams in memory of their own, for a socket that moves to another thread.
#[derive(Default, Debug)]
pub(crate) struct KeptDatagrams {
    buffer: Vec<u8>,
    packets: Vec<Packet>,
}

/// One packet from the system: a datagram, or several that the system has merged.
#[derive(Debug)]
pub(crate) struct Packet {
    /// The start of its bytes in the buffer, and their number.
    pub(crate) at: usize,
    pub(crate) len: usize,
    /// The length of each datagram in a merged packet; never zero.
    pub(crate) segment: Option<usize>,
    pub(crate) from: Address,
    pub(crate) to: Option<IpAddr>,
    pub(crate) ecn: Ecn,
    pub(crate) truncated: bool,
}

impl Batch {
    /// Allocates this many bytes, none of which is in use yet.
    pub(crate) fn with_room(bytes: usize) -> Batch {
        Batch { buffer: vec![0; bytes], ..Batch::default() }
    }

    /// Returns the memory, for the system to write to.
    pub(crate) fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// Records a packet whose bytes are in the buffer.
    pub(crate) fn note(&mut self, packet: Packet) {
        self.packets.push(packet);
    }

    /// Appends a datagram and copies its bytes, for engines that have them elsewhere.
    pub fn put(&mut self, bytes: &[u8], from: &Address, to: Option<IpAddr>, ecn: Ecn, truncated: bool) {
        let (at, len) = (self.buffer.len(), bytes.len());
        self.buffer.extend_from_slice(bytes);
        self.note(Packet { at, len, segment: None, from: from.clone(), to, ecn, truncated });
    }

    /// Returns the number of datagrams that were not taken.
    pub fn len(&self) -> usize {
        let left = self.packets[self.next..].iter().map(|packet| match packet.segment {
            Some(segment) => packet.len.div_ceil(segment).max(1),
            None => 1,
        });
        let taken = self.packets.get(self.next).and_then(|packet| packet.segment);
        left.sum::<usize>() - taken.map_or(0, |segment| self.taken / segment)
    }

    /// Returns whether all were taken.
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
        #[cfg(all(target_os = "linux", feature = "io-uring"))]
        let memory = self.provided.as_mut().map_or(&self.buffer[..], |provided| provided.bytes());
        #[cfg(not(all(target_os = "linux", feature = "io-uring")))]
        let memory = &self.buffer[..];
        Some(Datagram {
            from: &packet.from,
            to: packet.to,
            ecn: packet.ecn,
            truncated: packet.truncated && is_last,
            bytes: &memory[begin..begin + len],
        })
    }

    /// Returns the size of the memory that it keeps alive, without memory that a kernel lent.
    pub(crate) fn memory(&self) -> usize {
        self.buffer.capacity() + self.packets.capacity() * size_of::<Packet>()
    }

    /// Returns the number of packets from the system, taken or not.
    #[cfg(test)]
    pub(crate) fn packets(&self) -> usize {
        self.packets.len()
    }

    /// Returns the size of its buffer in bytes.
    pub(crate) fn room(&self) -> usize {
        self.buffer.len()
    }

    /// Forgets all packets. The buffer stays, but memory of the kernel goes back.
    pub(crate) fn clear(&mut self) {
        self.packets.clear();
        (self.next, self.taken) = (0, 0);
        #[cfg(all(target_os = "linux", feature = "io-uring"))]
        drop(self.provided.take());
    }

    /// Takes memory of the kernel's that holds one packet.
    #[cfg(all(target_os = "linux", feature = "io-uring"))]
    pub(in crate::engine) fn hold(&mut self, provided: crate::engine::io_uring::Provided, packet: Packet) {
        self.provided = Some(provided);
        self.note(packet);
    }

    /// Copies the datagrams that were not taken.
    pub(crate) fn into_kept(mut self) -> KeptDatagrams {
        let mut kept = Batch::default();
        while let Some(datagram) = self.take() {
            kept.put(datagram.bytes, datagram.from, datagram.to, datagram.ecn, datagram.truncated);
        }
        KeptDatagrams { buffer: kept.buffer, packets: kept.packets }
    }
}

impl From<KeptDatagrams> for Batch {
    fn from(kept: KeptDatagrams) -> Batch {
        Batch { buffer: kept.buffer, packets: kept.packets, ..Batch::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_of_several_comes_apart_and_only_its_last_is_truncated() {
        let mut batch = Batch::with_room(16);
        batch.buffer()[..10].copy_from_slice(b"aaabbbcccd");
        let packet = |at, len, segment, truncated| Packet {
            at,
            len,
            segment,
            from: Address::Unnamed,
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
    fn what_is_kept_may_change_its_thread() {
        fn is_send<T: Send>() {}
        is_send::<KeptDatagrams>();
        is_send::<crate::Datagrams>();
        let mut batch = Batch::default();
        for bytes in [b"one", b"two"] {
            batch.put(bytes, &Address::Unnamed, None, Ecn::Capable0, false);
        }
        assert!(batch.take().is_some());
        let mut again = Batch::from(batch.into_kept());
        let datagram = again.take().expect("the second");
        assert_eq!((datagram.bytes, datagram.ecn), (&b"two"[..], Ecn::Capable0));
        assert!(again.is_empty());
    }
}
