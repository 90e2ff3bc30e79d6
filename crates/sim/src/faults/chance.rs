//! Seeded chance: one small generator, so that a run can be repeated.

/// A seeded source of numbers: SplitMix64 (Steele, Lea, Flood 2014). Every seed is a good one.
///
/// ```
/// use sim::Chance;
/// let (mut one, mut other) = (Chance::new(7), Chance::new(7));
/// assert_eq!(one.bits(), other.bits());
/// assert!((1..=3).contains(&one.up_to(3)));
/// ```
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// Starts at a seed.
    pub const fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    /// Draws 64 random bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Draws a number below `end`, or 0 if `end` is 0.
    #[inline]
    pub fn below(&mut self, end: u64) -> u64 {
        // The high half of the product is even enough, and needs no division.
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u64
    }

    /// Draws a number from 1 to `most`, or 0 if `most` is 0.
    pub fn up_to(&mut self, most: usize) -> usize {
        match most {
            0 => 0,
            most => self.below(most as u64) as usize + 1,
        }
    }

    /// Draws a number from `low` to `high`, both included, or `low` if the range is empty.
    #[inline]
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// Draws `true` this many times in a million.
    #[inline]
    pub fn per_million(&mut self, times: u32) -> bool {
        times > 0 && self.below(1_000_000) < u64::from(times)
    }

    /// Draws `true` this many times in a hundred.
    #[inline]
    pub fn percent(&mut self, times: u32) -> bool {
        self.per_million(times.saturating_mul(10_000))
    }

    /// Splits off an independent generator.
    #[must_use]
    pub fn fork(&mut self) -> Chance {
        Chance(self.bits() ^ 0x5851_f42d_4c95_7f2d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_stays_within_its_bounds_and_reaches_them() {
        let mut chance = Chance::new(1);
        let draws: Vec<_> = (0..200).map(|_| chance.between(4, 6)).collect();
        assert!(draws.iter().all(|n| (4..=6).contains(n)));
        assert!((4..=6).all(|n| draws.contains(&n)));
        assert_eq!((chance.up_to(0), chance.up_to(1), chance.below(0)), (0, 1, 0));
        assert_eq!(chance.between(9, 9), 9);
        assert!(!(0..200).any(|_| chance.per_million(0)));
        assert!((0..200).all(|_| chance.per_million(1_000_000)));
        assert!(!(0..200).any(|_| chance.percent(0)) && (0..200).all(|_| chance.percent(100)));
    }
}
