//! The facts a node knows: a set that only grows, ordered by id, with a sum that tells two sets apart.

use std::{collections::BTreeMap, fmt};

/// A fact's name: a hash of its text.
pub(crate) type FactId = u64;

/// How many facts, and their ids combined: equal sets have equal sums.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Sum {
    pub(crate) count: u64,
    pub(crate) ids: u64,
}

impl Sum {
    fn with(self, id: FactId) -> Sum {
        Sum { count: self.count + 1, ids: self.ids.wrapping_add(id) }
    }
}

/// A set of facts, of bounded size. A node keeps it over a crash.
#[derive(Default)]
pub(crate) struct Facts {
    texts: BTreeMap<FactId, String>,
    sum: Sum,
}

/// A text that cannot be added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unfit {
    Empty,
    TooLong,
    Newline,
    /// The set is full.
    Full,
}

impl Facts {
    /// Adds a fact; `None` when it is known already.
    ///
    /// Two texts of one id cannot both be known. With 64 bits this does not happen by chance, but whoever
    /// wants it can make it happen: among peers that are not trusted the hash would be a cryptographic one.
    pub(crate) fn add(&mut self, text: &str) -> Result<Option<FactId>, Unfit> {
        match text {
            "" => return Err(Unfit::Empty),
            _ if text.len() > TEXT_MAX => return Err(Unfit::TooLong),
            _ if text.contains(['\n', '\r']) => return Err(Unfit::Newline),
            _ => (),
        }
        let id = id_of(text);
        if self.texts.contains_key(&id) {
            return Ok(None);
        }
        if self.texts.len() >= FACTS_MAX {
            return Err(Unfit::Full);
        }
        self.texts.insert(id, text.to_owned());
        self.sum = self.sum.with(id);
        Ok(Some(id))
    }

    pub(crate) fn get(&self, id: FactId) -> Option<&str> {
        self.texts.get(&id).map(String::as_str)
    }

    /// Those with an id from `first` to `last`, both included, in the order of the ids.
    pub(crate) fn between(&self, first: FactId, last: FactId) -> impl Iterator<Item = (FactId, &str)> {
        // An empty range is an answer, not a panic: the bounds come from a peer.
        let range = (first <= last).then(|| self.texts.range(first..=last));
        range.into_iter().flatten().map(|(id, text)| (*id, text.as_str()))
    }

    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.texts.values().map(String::as_str)
    }

    /// The sum of all.
    pub(crate) fn sum(&self) -> Sum {
        self.sum
    }

    /// The sum of those with an id from `first` to `last`, both included.
    pub(crate) fn sum_between(&self, first: FactId, last: FactId) -> Sum {
        if (first, last) == (FactId::MIN, FactId::MAX) {
            return self.sum;
        }
        self.between(first, last).fold(Sum::default(), |sum, (id, _)| sum.with(id))
    }
}

/// FNV-1a, with its bits mixed once more so that sums of similar texts differ.
fn id_of(text: &str) -> FactId {
    let fnv = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (fnv ^ (fnv >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::Empty => f.write_str("a fact is not empty"),
            Unfit::TooLong => write!(f, "a fact has at most {TEXT_MAX} bytes"),
            Unfit::Newline => f.write_str("a fact is one line"),
            Unfit::Full => write!(f, "a node knows at most {FACTS_MAX} facts"),
        }
    }
}

impl std::error::Error for Unfit {}

/// The longest fact, in bytes.
pub(crate) const TEXT_MAX: usize = 512;
/// How many facts a node takes.
const FACTS_MAX: usize = 4096;
