//! Faults: which kinds there are, how probable each is in this world, and how often each was seen.

use std::{fmt, str::FromStr};

use crate::chance::Chance;

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(usize)]
pub enum Kind {
    /// A read gives fewer bytes than are there.
    TinyRead,
    /// A send takes fewer bytes than there is room for.
    PartialSend,
    /// A send is told to be over a while after it was asked for.
    LateSend,
    /// Input comes although reading was switched off meanwhile: it was in flight.
    LateInput,
    /// A wait ends with nothing to tell.
    EarlyWake,
    /// A watched source is told to be ready, and is not.
    SpuriousReady,
    /// What is ready at one moment is told in another order than it became so.
    Reorder,
    /// There is no descriptor left: for a connection that a listener would accept (EMFILE), or for those that come over
    /// a Unix link, which are closed.
    AcceptFails,
    /// A connection is gone before it was accepted (ECONNABORTED): the connecting side sees a reset.
    AcceptAborts,
    /// A connect is refused although somebody listens.
    Refuse,
    /// A connect's first packet is lost: it is sent again a second later.
    LoseConnect,
    /// A connection is reset from the middle.
    Reset,
    /// The engine refuses to take a transport (ENOSPC).
    AttachFails,
    /// A packet takes ten times as long.
    Spike,
    /// Offloaded work takes up to a second.
    SlowJob,
    /// Two groups of nodes do not reach each other.
    Partition,
    /// One group does not reach another, which reaches it.
    OneWay,
    /// Packets between two nodes are kept, and released later.
    Hold,
    /// A node's links take a multiple of their time.
    Slow,
    /// A node ends at once; its peers are told by resets.
    Crash,
    /// A node ends at once, and nobody is told.
    Vanish,
    /// A node stands still for a while, as by SIGSTOP.
    Pause,
    /// A node's wall clock jumps.
    WallStep,
    /// An operation on files takes up to a second.
    SlowFile,
    /// The syncs of a disk stand still for half a second to five: this one, and those that are asked for meanwhile.
    StallSync,
    /// An operation on files is told to be over a while after it was done; others that are out at once overtake it.
    LateFile,
    /// A node's disk takes a hundred times as long.
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
    Kind::Vanish,
    Kind::Pause,
    Kind::WallStep,
    Kind::SlowFile,
    Kind::StallSync,
    Kind::LateFile,
    Kind::SlowDisk,
];

impl Kind {
    /// Whether it befalls nodes from outside, at moments of its own, rather than single operations.
    pub fn is_of_world(self) -> bool {
        matches!(
            self,
            Kind::Partition
                | Kind::OneWay
                | Kind::Hold
                | Kind::Slow
                | Kind::Crash
                | Kind::Vanish
                | Kind::Pause
                | Kind::WallStep
                | Kind::SlowDisk
        )
    }
}

/// How probable each kind of fault is.
///
/// For operations: how many of a million meet it. For the world's own kinds: the weight with which it is
/// drawn when something is to happen.
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
    /// No fault ever.
    pub fn none() -> Faults {
        Faults { rates: [0; KINDS.len()] }
    }

    /// A mix drawn from a seed: each kind is there or not, and how often is drawn, too.
    pub fn draw(seed: u64) -> Faults {
        let mut chance = Chance::new(seed ^ 0x000f_a017_0000);
        let mut faults = Faults::none();
        for kind in KINDS {
            let is_there = chance.below(2) == 0;
            // From once in ten thousand to one in ten, each order of magnitude as probable as another.
            let rate = 100 * 10_u32.pow(chance.below(3) as u32) * chance.between(1, 10) as u32;
            if is_there {
                faults.rates[kind as usize] = rate / kind.rarity();
            }
        }
        faults
    }

    /// The same with this kind's rate.
    pub fn with(mut self, kind: Kind, rate: u32) -> Faults {
        self.rates[kind as usize] = rate;
        self
    }

    /// A kind's rate.
    #[inline]
    pub fn of(&self, kind: Kind) -> u32 {
        self.rates[kind as usize]
    }

    /// The kinds that there are.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        KINDS.into_iter().filter(|kind| self.of(*kind) > 0)
    }

    /// Draws one of the world's own kinds by weight; none when there is none.
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

/// Reads what faults print: kinds with their rates, with spaces or commas between, or `none`. The error names the word
/// that is wrong.
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
    /// The greatest rate that a mix draws for it.
    pub(crate) fn rate_max(self) -> u32 {
        RATE_MAX / self.rarity()
    }

    /// By how much it is rarer than what is drawn: some would otherwise leave nothing alive.
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

/// How often each kind of fault was injected, and how often its effect was seen.
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

    /// How often it was injected.
    pub fn injected(&self, kind: Kind) -> u64 {
        self.injected[kind as usize]
    }

    /// How often its effect reached somebody: a byte, an answer, a delay that a runtime saw.
    pub fn observed(&self, kind: Kind) -> u64 {
        self.observed[kind as usize]
    }

    /// Adds what another run counted.
    pub fn add(&mut self, other: &Tally) {
        for kind in KINDS {
            self.injected[kind as usize] += other.injected(kind);
            self.observed[kind as usize] += other.observed(kind);
        }
    }

    /// The kinds that were never injected, or never observed.
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

/// The greatest rate of a drawn mix: one in ten.
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
