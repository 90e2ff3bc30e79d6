//! The part of a world that draws: chance, and the faults by their rates.

use std::time::Duration;

use crate::{
    faults::{Faults, Kind, Tally, chance::Chance},
    net::link::nanos,
};

/// The source of all chance of a world, with the rates and the counts of the faults.
///
/// Each draw moves the one generator, so the order of the draws is a part of a run. A fault with a rate of 0
/// draws nothing.
pub(crate) struct Injector {
    pub(crate) chance: Chance,
    rates: Faults,
    pub(crate) tally: Tally,
    /// The longest delay of a late event.
    late_max: u64,
}

impl Injector {
    pub(crate) fn new(seed: u64, rates: Faults, late_max: Duration) -> Injector {
        let late_max = nanos(late_max).max(1);
        Injector { chance: Chance::new(seed), rates, tally: Tally::default(), late_max }
    }

    /// Draws whether an operation meets a fault, and counts it if so.
    #[inline]
    pub(crate) fn draw_fault(&mut self, kind: Kind) -> bool {
        let rate = self.rates.of(kind);
        let is_met = rate > 0 && self.chance.per_million(rate);
        if is_met {
            self.tally.inject(kind);
        }
        is_met
    }

    /// Draws a fault whose effect is visible at once.
    pub(crate) fn draw_visible(&mut self, kind: Kind) -> bool {
        let is_met = self.draw_fault(kind);
        if is_met {
            self.tally.observe(kind);
        }
        is_met
    }

    /// Returns whether a kind of fault occurs in this world.
    #[inline]
    pub(crate) fn has(&self, kind: Kind) -> bool {
        self.rates.of(kind) > 0
    }

    /// Draws the delay of a late event.
    pub(crate) fn draw_lateness(&mut self) -> u64 {
        self.chance.between(1, self.late_max)
    }

    /// Draws the kind of the next chaos, by weight.
    pub(crate) fn draw_chaos(&mut self) -> Option<Kind> {
        self.rates.draw_of_world(&mut self.chance)
    }

    /// Sets all rates to 0.
    pub(crate) fn stop(&mut self) {
        self.rates = Faults::none();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_without_a_rate_draws_nothing_and_counts_nothing() {
        let rates = Faults::none().with(Kind::TinyRead, 1_000_000);
        let mut faults = Injector::new(1, rates, Duration::ZERO);
        assert!(!faults.draw_fault(Kind::Reset) && !faults.has(Kind::Reset));
        assert_eq!(faults.chance.clone().bits(), Chance::new(1).bits(), "nothing was drawn");
        assert!(faults.draw_fault(Kind::TinyRead) && faults.draw_visible(Kind::TinyRead));
        let count = |tally: &Tally| (tally.injected(Kind::TinyRead), tally.observed(Kind::TinyRead));
        assert_eq!((count(&faults.tally), faults.tally.injected(Kind::Reset)), ((2, 1), 0));
        assert_eq!(faults.draw_lateness(), 1, "the least lateness");
        faults.stop();
        assert!(!faults.draw_fault(Kind::TinyRead));
    }
}
