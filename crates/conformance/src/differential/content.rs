//! The sent bytes, and the digest of the received ones. Each direction of each connection has its own
//! pattern.

use std::fmt;

use super::script::Side;

/// The number and the digest of received bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Got {
    /// How many bytes were received.
    pub bytes: usize,
    /// The digest of all of them, in order (FNV-1a of 64 bits).
    pub digest: u64,
}

impl Got {
    /// No bytes yet.
    pub(super) const NOTHING: Got = Got { bytes: 0, digest: 0xcbf2_9ce4_8422_2325 };

    pub(super) fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.bytes += bytes.len();
    }
}

impl fmt::Display for Got {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes ({:016x})", self.bytes, self.digest)
    }
}

/// One direction of a connection: the bytes that one of its ends sends.
pub(super) struct Content {
    mixed: u64,
}

impl Content {
    pub(super) fn of(link: usize, from: Side) -> Content {
        Content { mixed: (link as u64 * 2 + from as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) }
    }

    /// Returns the bytes from one position to another.
    pub(super) fn bytes(&self, from: usize, to: usize) -> Vec<u8> {
        (from..to).map(|at| self.byte(at)).collect()
    }

    /// Returns the first position at which these bytes, received at `from`, differ from the sent ones.
    pub(super) fn first_wrong(&self, from: usize, bytes: &[u8]) -> Option<usize> {
        bytes.iter().enumerate().find_map(|(at, byte)| (self.byte(from + at) != *byte).then_some(from + at))
    }

    fn byte(&self, at: usize) -> u8 {
        let mut mixed = self.mixed ^ (at as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^= mixed >> 31;
        (mixed.wrapping_mul(0x94d0_49bb_1331_11eb) >> 56) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_depends_on_every_byte_and_not_on_the_pieces() {
        let bytes = Content::of(3, Side::Near).bytes(0, 1_000);
        let digest = |pieces: &[&[u8]]| {
            let mut got = Got::NOTHING;
            pieces.iter().for_each(|piece| got.take(piece));
            got
        };
        let whole = digest(&[&bytes]);
        assert_eq!(digest(&[&bytes[..1], &bytes[1..700], &[], &bytes[700..]]), whole);
        for at in [0, 1, 499, 999] {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_ne!(digest(&[&other]), whole, "the byte at {at}");
            assert_eq!(Content::of(3, Side::Near).first_wrong(0, &other), Some(at));
        }
        assert_ne!(digest(&[&bytes[..999]]), whole);
    }

    #[test]
    fn each_direction_has_its_own_bytes_whatever_the_pieces() {
        let (near, far) = (Content::of(3, Side::Near), Content::of(3, Side::Far));
        assert_ne!(near.bytes(0, 64), far.bytes(0, 64));
        assert_ne!(near.bytes(0, 64), Content::of(4, Side::Near).bytes(0, 64));
        assert_eq!([near.bytes(0, 10), near.bytes(10, 64)].concat(), near.bytes(0, 64));
        assert_eq!(near.first_wrong(10, &near.bytes(10, 64)), None);
    }
}
