//! Why a resource is not read, and by whom.

use std::fmt;

/// A reason not to read a resource.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub(crate) enum RestReason {
    /// The service has paused it.
    Paused = 1,
    /// Its own input has caused too much of its write queue.
    Output = 2,
    /// The queue of the stream that gets its input is high.
    Partner = 4,
    /// Input that was read before is still to be delivered.
    Backlog = 8,
    /// Bytes are short, and its service holds more than its share.
    Shortage = 16,
}

impl fmt::Display for RestReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RestReason::Paused => "its service has paused it",
            RestReason::Output => "its peer does not read the answers to its own input",
            RestReason::Partner => "the peer of its partner does not read",
            RestReason::Backlog => "the runtime has yet to deliver its earlier input",
            RestReason::Shortage => {
                "the runtime is short of bytes, and its service holds more than its share"
            }
        })
    }
}

/// The reasons not to read a resource. They do not exclude each other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct RestReasons(u8);

impl RestReasons {
    pub(crate) const NONE: RestReasons = RestReasons(0);
    const ALL: [RestReason; 5] = [
        RestReason::Paused,
        RestReason::Output,
        RestReason::Partner,
        RestReason::Backlog,
        RestReason::Shortage,
    ];
    /// The reasons that also keep input that was read already from the service.
    const HOLD: u8 = RestReason::Paused as u8 | RestReason::Output as u8 | RestReason::Partner as u8;

    #[inline]
    pub(crate) fn is_none(self) -> bool {
        self.0 == 0
    }

    #[inline]
    pub(crate) fn has(self, rest: RestReason) -> bool {
        self.0 & rest as u8 != 0
    }

    /// Returns whether the service gets no items now.
    #[inline]
    pub(crate) fn hold_items(self) -> bool {
        self.0 & RestReasons::HOLD != 0
    }

    /// Returns the same reasons with this one or without it.
    #[inline]
    #[must_use]
    pub(crate) const fn with(self, rest: RestReason, rests: bool) -> RestReasons {
        RestReasons(if rests { self.0 | rest as u8 } else { self.0 & !(rest as u8) })
    }

    fn iter(self) -> impl Iterator<Item = RestReason> {
        RestReasons::ALL.into_iter().filter(move |rest| self.has(*rest))
    }
}

/// Says in words why the resource is not read, and by whom. The text is empty if nothing hinders it.
impl fmt::Display for RestReasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, rest) in self.iter().enumerate() {
            write!(f, "{}{rest}", if at == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl fmt::Debug for RestReasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_comes_and_goes_by_itself_and_says_who_is_the_cause() {
        for (at, rest) in RestReasons::ALL.into_iter().enumerate() {
            let one = RestReasons::NONE.with(rest, true);
            assert!(one.has(rest) && !one.is_none());
            assert_eq!(one.hold_items(), at < 3, "{rest:?}");
            assert_eq!(one.with(rest, true), one);
            assert_eq!(one.with(rest, false), RestReasons::NONE);
            assert_eq!(one.to_string(), rest.to_string());
            for other in RestReasons::ALL.into_iter().filter(|other| *other != rest) {
                assert!(!one.has(other));
                let both = one.with(other, true);
                assert!(
                    both.has(rest)
                        && both.has(other)
                        && both.with(rest, false) == RestReasons::NONE.with(other, true)
                );
            }
        }
        let both = RestReasons::NONE.with(RestReason::Backlog, true).with(RestReason::Paused, true);
        assert_eq!(
            both.to_string(),
            "its service has paused it; the runtime has yet to deliver its earlier input"
        );
        assert_eq!(format!("{both:?}"), "{Paused, Backlog}");
        assert!(RestReasons::NONE.to_string().is_empty() && RestReasons::NONE.is_none());
    }
}
