//! Faults: their kinds, their rates in this world, and their counts.

pub(crate) mod chance;
pub(crate) mod chaos;
pub(crate) mod injector;

use std::{fmt, str::FromStr};

use crate::faults::chance::Chance;

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(usize)]
#[non_exhaustive]
pub enum Kind {
    /// A read returns fewer bytes than have arrived.
    TinyRead,
    /// A send takes fewer bytes than there is room for.
    PartialSend,
    /// The completion event of a send arrives late.
    LateSend,
    /// Input arrives after the engine switched reading off, because it was in flight.
    LateInput,
    /// A wait ends without an event.
    EarlyWake,
    /// A watched source is reported ready, but is not.
    SpuriousReady,
    /// Events of one moment arrive in another order than they occurred.
    Reorder,
    /// The process has no descriptor left: for a connection that a listener would accept (EMFILE), or for the
    /// descriptors that arrive over a Unix link, which are then closed.
    AcceptFails,
    /// A connection is gone before it was accepted (ECONNABORTED). The connecting side sees a reset.
    AcceptAborts,
    /// A connect is refused although a listener is there.
    Refuse,
    /// A connect's first packet is lost. TCP retransmits it a second later.
    LoseConnect,
    /// The network resets a connection for both ends.
    Reset,
    /// The engine refuses to attach a transport (ENOSPC).
    AttachFails,
    /// A packet takes ten times its latency.
    Spike,
    /// Offloaded work takes up to a second.
    SlowJob,
    /// Two groups of nodes do not reach each other.
    Partition,
    /// One group cannot reach another, which can reach it.
    OneWay,
    /// The network holds the packets between two nodes, and releases them later.
    Hold,
    /// A node's links take a multiple of their latency.
    Slow,
    /// A node ends at once. Its peers see resets.
    Crash,
    /// A node ends at once, and its peers get no notice.
    PowerOff,
    /// A node does not run for a while, as by SIGSTOP.
    Pause,
    /// A node's wall clock jumps.
    WallStep,
    /// A file operation takes up to a second.
    SlowFile,
    /// The syncs of a disk stall for half a second to five seconds: this one, and those that start meanwhile.
    StallSync,
    /// The completion event of a file operation arrives late. Concurrent operations overtake it.
    LateFile,
    /// A node's disk operations take a hundred times as long.
    SlowDisk,
}

/// All kinds, in the order of the table.
pub const KINDS: [Kind; 27] = [
    Kind::TinyRead,
    Kind::PartialSend,
    Kind::LateSend,
    Kind::LateInput,
    Kind::EarlyWake,
    Kind::SpuriousReady,
    Kind::Reorder,
    Kind::AcceptFails,
    Kind::AcceptAborts,
    Kind::Refuse,
    Kind::LoseConnect,
    Kind::Reset,
    Kind::AttachFails,
    Kind::Spike,
    Kind::SlowJob,
    Kind::Partition,
    Kind::OneWay,
    Kind::Hold,
    Kind::Slow,
    Kind::Crash,
    Kind::PowerOff,
    Kind::Pause,
    Kind::WallStep,
    Kind::SlowFile,
    Kind::StallSync,
    Kind::LateFile,
    Kind::SlowDisk,
];

impl Kind {
    /// Returns whether it affects whole nodes, links or disks at times of its own, rather than single
    /// operations.
    pub fn is_of_world(self) -> bool {
        matches!(
            self,
            Kind::Partition
                | Kind::OneWay
                | Kind::Hold
                | Kind::Slow
                | Kind::Crash
                | Kind::PowerOff
                | Kind::Pause
                | Kind::WallStep
                | Kind::SlowDisk
        )
    }
}

/// The rates of the kinds of fault.
///
/// For an operation's kind, the rate is the number of faults in a million operations. For a kind that affects
/// whole nodes, links or disks, it is the weight with which the chaos schedule draws it.
///
/// ```
/// use sim::{Faults, Kind};
/// let faults = Faults::none().with(Kind::TinyRead, 500_000);
/// assert_eq!(faults.of(Kind::TinyRead), 500_000);
/// assert_eq!(faults.to_string(), "TinyRead=500000");
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Faults {
    rates: [u32; KINDS.len()],
}

impl Faults {
    /// Returns faults whose rates are all 0.
    pub fn none() -> Faults {
        Faults { rates: [0; KINDS.len()] }
    }

    /// Returns the kinds of fault that conform to the engine contract, at this rate: an operation is late, or
    /// in pieces, or in another order, or an engine wakes for nothing. No connection ends by them.
    pub fn harmless(rate: u32) -> Faults {
        HARMLESS.into_iter().fold(Faults::none(), |faults, kind| faults.with(kind, rate))
    }

    /// Draws a mix from a seed: whether each kind is present, and its rate.
    pub fn draw(seed: u64) -> Faults {
        let mut chance = Chance::new(seed ^ 0x000f_a017_0000);
        let mut faults = Faults::none();
        for kind in KINDS {
            let is_there = chance.below(2) == 0;
            // The rates range from one in ten thousand to one in ten. Each order of magnitude is equally
            // probable.
            let rate = 100 * 10_u32.pow(chance.below(3) as u32) * chance.between(1, 10) as u32;
            if is_there {
                faults.rates[kind as usize] = rate / kind.rarity();
            }
        }
        faults
    }

    /// Sets this kind's rate.
    #[must_use]
    pub fn with(mut self, kind: Kind, rate: u32) -> Faults {
        self.rates[kind as usize] = rate;
        self
    }

    /// Returns a kind's rate.
    #[inline]
    pub fn of(&self, kind: Kind) -> u32 {
        self.rates[kind as usize]
    }

    /// Returns the kinds with a rate above 0.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        KINDS.into_iter().filter(|kind| self.of(*kind) > 0)
    }

    /// Draws one of the kinds of the chaos schedule by weight, or none if all weights are 0.
    pub(crate) fn draw_of_world(&self, chance: &mut Chance) -> Option<Kind> {
        let kinds = || KINDS.into_iter().filter(|kind| kind.is_of_world());
        let total: u64 = kinds().map(|kind| u64::from(self.of(kind))).sum();
        let mut at = chance.below(total);
        kinds().find(|kind| {
            let weight = u64::from(self.of(*kind));
            let is_it = at < weight;
            at = at.saturating_sub(weight);
            is_it
        })
    }
}

/// Parses the printed form of faults: kinds with their rates, separated by spaces or commas, or `none`. The
/// error names the wrong word.
impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Faults, String> {
        let words = text.split([' ', ',']).filter(|word| !word.is_empty() && *word != "none");
        words.into_iter().try_fold(Faults::none(), |faults, word| {
            let wrong = || format!("`{word}` is not a kind of fault and its rate, such as Reset=100");
            let (name, rate) = word.split_once('=').ok_or_else(wrong)?;
            let kind = KINDS.into_iter().find(|kind| format!("{kind:?}") == name).ok_or_else(wrong)?;
            Ok(faults.with(kind, rate.parse().map_err(|_| wrong())?))
        })
    }
}

impl Kind {
    /// Returns the highest rate that a mix draws for this kind.
    pub(crate) fn rate_max(self) -> u32 {
        RATE_MAX / self.rarity()
    }

    /// Returns the divisor of this kind's drawn rate. Without it, some kinds would leave nothing alive.
    fn rarity(self) -> u32 {
        match self {
            Kind::Reset | Kind::StallSync => 10,
            Kind::AcceptFails | Kind::AcceptAborts | Kind::AttachFails => 4,
            _ => 1,
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut is_first = true;
        for kind in self.kinds() {
            let gap = if std::mem::replace(&mut is_first, false) { "" } else { " " };
            write!(f, "{gap}{kind:?}={}", self.of(kind))?;
        }
        if is_first { f.write_str("none") } else { Ok(()) }
    }
}

/// The counts of injected faults, and of the effects that were seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tally {
    injected: [u64; KINDS.len()],
    observed: [u64; KINDS.len()],
}

impl Default for Tally {
    fn default() -> Tally {
        Tally { injected: [0; KINDS.len()], observed: [0; KINDS.len()] }
    }
}

impl Tally {
    pub(crate) fn inject(&mut self, kind: Kind) {
        self.injected[kind as usize] += 1;
    }

    pub(crate) fn observe(&mut self, kind: Kind) {
        self.observed[kind as usize] += 1;
    }

    /// Returns how often the fault was injected.
    pub fn injected(&self, kind: Kind) -> u64 {
        self.injected[kind as usize]
    }

    /// Returns how often an effect was visible to a runtime: a byte, an answer, a delay.
    pub fn observed(&self, kind: Kind) -> u64 {
        self.observed[kind as usize]
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Tally) {
        for kind in KINDS {
            self.injected[kind as usize] += other.injected(kind);
            self.observed[kind as usize] += other.observed(kind);
        }
    }

    /// Returns the kinds that were never injected, or never observed.
    pub fn missing(&self) -> Vec<Kind> {
        KINDS.into_iter().filter(|kind| self.injected(*kind) == 0 || self.observed(*kind) == 0).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<14} {:>12} {:>12}", "fault", "injected", "observed")?;
        for kind in KINDS {
            let name = format!("{kind:?}");
            writeln!(f, "{name:<14} {:>12} {:>12}", self.injected(kind), self.observed(kind))?;
        }
        Ok(())
    }
}

/// The kinds that conform to the engine contract.
const HARMLESS: [Kind; 7] = [
    Kind::TinyRead,
    Kind::PartialSend,
    Kind::LateSend,
    Kind::LateInput,
    Kind::EarlyWake,
    Kind::SpuriousReady,
    Kind::Reorder,
];
/// The highest rate of a drawn mix: one in ten.
const RATE_MAX: u32 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_one_mix_and_seeds_draw_different_ones() {
        assert_eq!(Faults::draw(3), Faults::draw(3));
        let mixes: Vec<_> = (0..50).map(Faults::draw).collect();
        for kind in KINDS {
            assert!(mixes.iter().any(|mix| mix.of(kind) > 0), "{kind:?} is never there");
            assert!(mixes.iter().any(|mix| mix.of(kind) == 0), "{kind:?} is always there");
        }
    }

    #[test]
    fn no_kind_is_drawn_above_its_greatest_rate_and_each_order_of_magnitude_is() {
        let mixes: Vec<_> = (0..2_000).map(Faults::draw).collect();
        for kind in KINDS {
            let rates = || mixes.iter().map(|mix| mix.of(kind)).filter(|rate| *rate > 0);
            assert_eq!(rates().max(), Some(kind.rate_max()), "{kind:?}");
            assert!(rates().any(|rate| rate < kind.rate_max() / 100), "{kind:?}");
        }
    }

    #[test]
    fn faults_are_read_back_as_they_were_printed() {
        for faults in (0..50).map(Faults::draw).chain([Faults::none()]) {
            assert_eq!(faults.to_string().parse(), Ok(faults.clone()));
            assert_eq!(faults.to_string().replace(' ', ",").parse(), Ok(faults));
        }
        for wrong in ["Rain=3", "Reset", "Reset=", "Reset=-1", "Reset=4294967296", "=3"] {
            let error = wrong.parse::<Faults>().expect_err(wrong);
            assert!(error.contains(&format!("`{wrong}`")), "{error}");
        }
    }

    #[test]
    fn every_kind_stands_in_the_table_at_its_own_place() {
        for (at, kind) in KINDS.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
        }
    }

    #[test]
    fn only_kinds_with_weight_are_drawn() {
        let mut chance = Chance::new(1);
        assert_eq!(Faults::none().draw_of_world(&mut chance), None);
        let faults = Faults::none().with(Kind::Crash, 1).with(Kind::TinyRead, 1_000_000);
        assert!((0..50).all(|_| faults.draw_of_world(&mut chance) == Some(Kind::Crash)));
    }
}
