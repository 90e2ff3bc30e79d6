//! The digest of a run: one number that differs when any byte, answer or call does.

use std::fmt;

/// A running hash over all events. It is not for cryptography: it finds differences, not forgeries.
///
/// ```
/// use sim::Digest;
/// let (mut one, mut other) = (Digest::default(), Digest::default());
/// one.bytes(b"ab");
/// other.bytes(b"ac");
/// assert_ne!(one, other);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Digest {
        Digest(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    /// Adds a number.
    #[inline]
    pub fn number(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(23) ^ number).wrapping_mul(0x9fb2_1c65_1e98_df25);
        self.0 ^= self.0 >> 32;
    }

    /// Adds bytes and their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.number(u64::from_le_bytes(word.try_into().expect("a chunk of eight has eight bytes")));
        }
        let rest = words.remainder();
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.number(u64::from_le_bytes(word));
        }
    }

    /// Returns the number.
    pub fn value(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Digest {
        let mut digest = Digest::default();
        digest.bytes(bytes);
        digest
    }

    #[test]
    fn each_byte_and_each_length_counts() {
        let base: Vec<u8> = (0..27).collect();
        for at in 0..base.len() {
            let mut other = base.clone();
            other[at] ^= 1;
            assert_ne!(of(&base), of(&other), "byte {at}");
        }
        assert_ne!(of(&[0; 8]), of(&[0; 9]));
        assert_ne!(of(b""), of(&[0]));
        assert_eq!(of(&base), of(&base));
    }
}
