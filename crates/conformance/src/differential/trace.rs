//! Traces: the events of each resource as a service received them, and the first event in which two traces
//! differ.

use std::{collections::BTreeMap, error::Error, fmt};

use super::content::Got;

/// An event, without the parts that may differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A stream is open. Occurs once for each of its lives.
    Open,
    /// All effects of a step have arrived, and this is the input so far.
    Step(usize, Got),
    /// The peer sends no more, and this was the input before.
    End(Got),
    /// The resource ended for this reason. The input is `None` if bytes may have been lost.
    Closed(String, Option<Got>),
    /// A timer fired. The number is its position in its group.
    Fired(u64),
    /// A message arrived.
    Told(u64),
    /// The ended stream is gone: orders to its id do nothing.
    Gone,
    /// The runtime is over, and cut this many resources.
    Over(u64),
    /// A failure on any engine. It equals no entry in a comparison.
    Wrong(String),
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Entry::Open => f.write_str("Open"),
            Entry::Step(step, got) => write!(f, "all of step {step}, with {got} so far"),
            Entry::End(got) => write!(f, "End after {got}"),
            Entry::Closed(why, Some(got)) => write!(f, "closed, {why}, after {got}"),
            Entry::Closed(why, None) => write!(f, "closed, {why}"),
            Entry::Fired(number) => write!(f, "timer {number}"),
            Entry::Told(number) => write!(f, "message {number}"),
            Entry::Gone => f.write_str("Gone"),
            Entry::Over(cut) => write!(f, "over, with {cut} resources cut"),
            Entry::Wrong(how) => write!(f, "WRONG: {how}"),
        }
    }
}

/// The events of one service while it played a script on one engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trace {
    pub(super) engine: String,
    pub(super) seed: u64,
    /// The entries of each resource in order, each with its position in the whole trace.
    pub(super) told: BTreeMap<String, Vec<(usize, Entry)>>,
    pub(super) len: usize,
    pub(super) pieces: usize,
}

impl Trace {
    pub(super) fn new(engine: &str, seed: u64) -> Trace {
        Trace { engine: engine.to_owned(), seed, told: BTreeMap::new(), len: 0, pieces: 0 }
    }

    pub(super) fn note(&mut self, resource: &str, entry: Entry) {
        let place = self.len;
        self.len += 1;
        match self.told.get_mut(resource) {
            Some(entries) => entries.push((place, entry)),
            None => _ = self.told.insert(resource.to_owned(), vec![(place, entry)]),
        }
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Reports whether the trace has no entries.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the number of pieces of input, which may differ between engines.
    pub fn pieces(&self) -> usize {
        self.pieces
    }

    /// Returns the entries of one resource, in order.
    pub fn of(&self, resource: &str) -> impl Iterator<Item = &Entry> {
        self.entries(resource).iter().map(|(_, entry)| entry)
    }

    /// Compares with the trace of another engine, which played the same script.
    ///
    /// # Errors
    /// The first event that differs: the earliest in this trace, or, if this trace has none, the earliest in
    /// the other one. An [`Entry::Wrong`] differs from everything.
    pub fn compare(&self, other: &Trace) -> Result<(), Box<Difference>> {
        let mut first: Option<(usize, Box<Difference>)> = None;
        let resources =
            self.told.keys().chain(other.told.keys().filter(|name| !self.told.contains_key(*name)));
        for resource in resources {
            let (ours, theirs) = (self.entries(resource), other.entries(resource));
            for at in 0..ours.len().max(theirs.len()) {
                let (our, their) = (ours.get(at), theirs.get(at));
                if let (Some((_, our)), Some((_, their))) = (our, their)
                    && our == their
                    && !matches!(our, Entry::Wrong(_))
                {
                    continue;
                }
                let place = our.or(their).map_or(usize::MAX, |(place, _)| *place);
                if first.as_ref().is_none_or(|(earliest, _)| place < *earliest) {
                    let difference = Difference {
                        seed: self.seed,
                        resource: resource.clone(),
                        at,
                        told: [(self, our), (other, their)].map(|(trace, entry)| {
                            (trace.engine.clone(), entry.map(|(_, entry)| entry.clone()))
                        }),
                    };
                    first = Some((place, Box::new(difference)));
                }
                break;
            }
        }
        first.map_or(Ok(()), |(_, difference)| Err(difference))
    }

    fn entries(&self, resource: &str) -> &[(usize, Entry)] {
        self.told.get(resource).map_or(&[], Vec::as_slice)
    }
}

/// The first event in which two engines differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The script's seed.
    pub seed: u64,
    /// The resource of the event.
    pub resource: String,
    /// The position of the event among those of the resource, counted from 0.
    pub at: usize,
    /// The engines, each with its entry. `None` means that the engine reported no more events.
    pub told: [(String, Option<Entry>); 2],
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { seed, resource, at, told } = self;
        write!(f, "seed {seed}: {resource}, event {at}:")?;
        for (place, (engine, entry)) in told.iter().enumerate() {
            let separator = if place == 0 { "" } else { ";" };
            match entry {
                Some(entry) => write!(f, "{separator} {engine} told {entry}")?,
                None => write!(f, "{separator} {engine} told nothing more")?,
            }
        }
        Ok(())
    }
}

impl Error for Difference {}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(engine: &str, entries: &[(&str, Entry)]) -> Trace {
        let mut trace = Trace::new(engine, 9);
        entries.iter().for_each(|(resource, entry)| trace.note(resource, entry.clone()));
        trace
    }

    #[test]
    fn resources_may_be_told_of_in_any_order() {
        let one = trace("one", &[("a", Entry::Open), ("b", Entry::Open), ("a", Entry::Gone)]);
        let two = trace("two", &[("b", Entry::Open), ("a", Entry::Open), ("a", Entry::Gone)]);
        assert_eq!(one.compare(&two), Ok(()));
    }

    #[test]
    fn the_first_difference_is_the_earliest_of_the_reference() {
        let one = trace("one", &[("z", Entry::Told(1)), ("a", Entry::Open), ("z", Entry::Told(2))]);
        let two = trace("two", &[("a", Entry::Gone), ("z", Entry::Told(1)), ("z", Entry::Told(3))]);
        let difference = one.compare(&two).expect_err("they differ");
        assert_eq!(difference.to_string(), "seed 9: a, event 0: one told Open; two told Gone");
    }

    #[test]
    fn what_is_missing_or_too_much_is_a_difference() {
        let (less, more) = (trace("less", &[]), trace("more", &[("a", Entry::Open)]));
        let difference = less.compare(&more).expect_err("one has more");
        assert_eq!(difference.to_string(), "seed 9: a, event 0: less told nothing more; more told Open");
        assert!(more.compare(&less).is_err());
    }

    #[test]
    fn what_is_wrong_on_both_is_wrong() {
        let wrong = trace("one", &[("a", Entry::Wrong("early".to_owned()))]);
        assert!(wrong.compare(&wrong.clone()).is_err());
    }

    #[test]
    fn bytes_are_compared_by_number_and_digest() {
        let with = |bytes, digest| trace("any", &[("a", Entry::End(Got { bytes, digest }))]);
        assert!(with(3, 5).compare(&with(3, 5)).is_ok());
        assert!(with(3, 5).compare(&with(4, 5)).is_err());
        assert!(with(3, 5).compare(&with(3, 6)).is_err());
    }
}
