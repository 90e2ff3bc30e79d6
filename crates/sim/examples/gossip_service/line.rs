//! The protocol of two nodes. Each message is one line of text.
//!
//! ```text
//! sum 0 ffffffffffffffff 3 9f86d0818  I know three ids in this range, with this sum
//! same                                so do I (only for the range of all ids)
//! have 0 ffffffffffffffff ..          I know exactly these ids in this range (at most 64)
//! want ..                             send me these (at most 64)
//! fact the sky is blue                a fact
//! ```

use std::fmt;

use super::facts::{FactId, Sum, TEXT_MAX};

/// A line, in either direction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Line<'a> {
    Sum { first: FactId, last: FactId, sum: Sum },
    Same,
    Have { first: FactId, last: FactId, ids: Vec<FactId> },
    Want(Vec<FactId>),
    Fact(&'a str),
}

/// A line that is none of these.
#[derive(Debug)]
pub(crate) struct Malformed;

impl Line<'_> {
    pub(crate) fn parse(text: &str) -> Result<Line<'_>, Malformed> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "sum" => {
                let mut words = rest.split(' ');
                let mut next = || words.next().ok_or(Malformed).and_then(number);
                let (first, last, count, ids) = (next()?, next()?, next()?, next()?);
                Ok(Line::Sum { first, last, sum: Sum { count, ids } })
            }
            "same" if rest.is_empty() => Ok(Line::Same),
            "have" => {
                let mut words = rest.split(' ');
                let mut bound = || words.next().ok_or(Malformed).and_then(number);
                Ok(Line::Have { first: bound()?, last: bound()?, ids: numbers(words)? })
            }
            "want" => Ok(Line::Want(numbers(rest.split(' '))?)),
            "fact" => Ok(Line::Fact(rest)),
            _ => Err(Malformed),
        }
    }
}

fn number(word: &str) -> Result<u64, Malformed> {
    u64::from_str_radix(word, 16).map_err(|_| Malformed)
}

fn numbers<'a>(words: impl Iterator<Item = &'a str>) -> Result<Vec<u64>, Malformed> {
    let ids: Vec<u64> = words.map(number).collect::<Result<_, _>>()?;
    if ids.len() <= PAGE_MAX { Ok(ids) } else { Err(Malformed) }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Sum { first, last, sum: Sum { count, ids } } => {
                write!(f, "sum {first:x} {last:x} {count:x} {ids:x}")
            }
            Line::Same => f.write_str("same"),
            Line::Have { first, last, ids } => {
                write!(f, "have {first:x} {last:x}")?;
                ids.iter().try_for_each(|id| write!(f, " {id:x}"))
            }
            Line::Want(ids) => {
                f.write_str("want")?;
                ids.iter().try_for_each(|id| write!(f, " {id:x}"))
            }
            Line::Fact(text) => write!(f, "fact {text}"),
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the peer does not speak gossip")
    }
}

impl std::error::Error for Malformed {}

/// The most ids in one line.
pub(crate) const PAGE_MAX: usize = 64;
/// The longest line, in bytes: a page with its range, or a fact.
pub(crate) const LINE_MAX: usize = "have ".len() + 17 * (PAGE_MAX + 2) + TEXT_MAX;
