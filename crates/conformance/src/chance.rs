//! Seeded chance: one small generator, so that a run can be repeated.

/// SplitMix64: passes the usual tests, and every seed is a good one.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 1 to `most`, or 0 when that is 0.
    pub(crate) fn up_to(&mut self, most: usize) -> usize {
        match most {
            0 => 0,
            most => (self.bits() % most as u64) as usize + 1,
        }
    }

    /// True `percent` times in a hundred.
    pub(crate) fn percent(&mut self, percent: u32) -> bool {
        self.bits() % 100 < u64::from(percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_stays_within_its_bounds_and_reaches_them() {
        let mut chance = Chance::new(1);
        let draws: Vec<_> = (0..200).map(|_| chance.up_to(3)).collect();
        assert!(draws.iter().all(|n| (1..=3).contains(n)));
        assert!((1..=3).all(|n| draws.contains(&n)));
        assert_eq!((chance.up_to(0), chance.up_to(1)), (0, 1));
        assert!(!(0..200).any(|_| chance.percent(0)));
        assert!((0..200).all(|_| chance.percent(100)));
    }
}
