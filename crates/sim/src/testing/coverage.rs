//! Sometimes (Antithesis' term): branches that some run out of many must reach, but not every run.

use std::{collections::BTreeMap, fmt};

/// Counts of named branches, over any number of runs.
///
/// The name is Antithesis' term: a "sometimes assertion" holds if some run out of many reaches it.
///
/// A run without rare events proves little. So a scenario names the branches that must be reached now and
/// then, and after all seeds the test asks for those that never were.
///
/// ```
/// use sim::{Chance, Sometimes};
/// let mut sometimes = Sometimes::of(["heads", "tails"]);
/// for seed in 0..50 {
///     let name = if Chance::new(seed).bits() & 1 == 0 { "heads" } else { "tails" };
///     sometimes.reached(name);
/// }
/// assert_eq!(sometimes.missing(), Vec::<&str>::new());
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sometimes {
    counts: BTreeMap<&'static str, u64>,
}

impl Sometimes {
    /// Names all branches that must be reached.
    pub fn of(names: impl IntoIterator<Item = &'static str>) -> Sometimes {
        Sometimes { counts: names.into_iter().map(|name| (name, 0)).collect() }
    }

    /// Counts a visit of a branch.
    ///
    /// # Panics
    /// The branch was not named. Without the panic, the count of a misspelled name would be missing.
    pub fn reached(&mut self, name: &'static str) {
        let Some(count) = self.counts.get_mut(name) else { panic!("no branch is named {name}") };
        *count += 1;
    }

    /// Returns how often a branch was reached, or 0 for an unnamed branch.
    pub fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    /// Lists the branches that were never reached, by name.
    pub fn missing(&self) -> Vec<&'static str> {
        self.counts.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect()
    }
}

/// A table with a line for each branch.
impl fmt::Display for Sometimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.counts.iter().try_for_each(|(name, count)| writeln!(f, "{name:<32} {count:>12}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_reached_is_missing_until_it_is() {
        let mut sometimes = Sometimes::of(["retry", "give up"]);
        assert_eq!(sometimes.missing(), ["give up", "retry"]);
        sometimes.reached("retry");
        sometimes.reached("retry");
        assert_eq!((sometimes.count("retry"), sometimes.missing()), (2, vec!["give up"]));
        sometimes.reached("give up");
        assert!(sometimes.missing().is_empty());
        assert_eq!(sometimes.to_string().lines().count(), 2);
    }

    #[test]
    #[should_panic(expected = "no branch is named retyr")]
    fn a_slip_in_a_name_is_found() {
        Sometimes::of(["retry"]).reached("retyr");
    }
}
