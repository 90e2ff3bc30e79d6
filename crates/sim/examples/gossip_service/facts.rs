//! The facts that a node knows: a set that only grows, ordered by id, with a sum that distinguishes two sets.

use std::{collections::BTreeMap, fmt};

/// A fact's name: a hash of its text.
pub(crate) type FactId = u64;

/// The number of facts, and their combined ids. Equal sets have equal sums.
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

/// A set of facts of bounded size, which survives a crash of its node.
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
    /// Adds a fact. Returns `None` if it is known already.
    ///
    /// Two texts with the same id cannot both be known. With 64 bits that does not happen by chance, but an
    /// attacker can cause it. Among untrusted peers the hash would have to be cryptographic.
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

    /// Returns the facts with an id from `first` to `last`, both included, in the order of the ids.
    pub(crate) fn between(&self, first: FactId, last: FactId) -> impl Iterator<Item = (FactId, &str)> {
        // The bounds come from a peer, so an empty range must not panic.
        let range = (first <= last).then(|| self.texts.range(first..=last));
        range.into_iter().flatten().map(|(id, text)| (*id, text.as_str()))
    }

    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.texts.values().map(String::as_str)
    }

    /// Returns the sum of all facts.
    pub(crate) fn sum(&self) -> Sum {
        self.sum
    }

    /// Returns the sum of the facts with an id from `first` to `last`, both included.
    pub(crate) fn sum_between(&self, first: FactId, last: FactId) -> Sum {
        if (first, last) == (FactId::MIN, FactId::MAX) {
            return self.sum;
        }
        self.between(first, last).fold(Sum::default(), |sum, (id, _)| sum.with(id))
    }
}

/// Hashes a text by FNV-1a, and mixes the bits once more, so that sums of similar texts differ.
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
/// The most facts of a node.
const FACTS_MAX: usize = 4096;
