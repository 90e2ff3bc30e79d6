//! Interest, for which a resource waits, and readiness, which hints at the result of an operation.

/// The interest of a resource. Never empty: that is `None` of an `Option<Interest>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Interest {
    /// Input, or its end.
    Read,
    /// Room for output.
    Write,
    /// Either.
    Both,
}

impl Interest {
    /// Returns whether it includes input.
    pub fn is_read(self) -> bool {
        self != Interest::Write
    }

    /// Returns whether it includes room for output.
    pub fn is_write(self) -> bool {
        self != Interest::Read
    }

    /// Returns the interest with these two parts, if it is not empty.
    pub fn from_parts(read: bool, write: bool) -> Option<Interest> {
        match (read, write) {
            (true, true) => Some(Interest::Both),
            (true, false) => Some(Interest::Read),
            (false, true) => Some(Interest::Write),
            (false, false) => None,
        }
    }
}

/// A hint at the result of an operation. It holds until an operation shows otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Ready {
    /// There may be input, or its end.
    pub readable: bool,
    /// There may be room for output.
    pub writable: bool,
    /// The other side ended one or both directions. Input may still be there.
    pub hangup: bool,
    /// Something failed. An operation will return the error.
    pub error: bool,
}

impl Ready {
    /// Only readable.
    pub const READ: Ready = Ready { readable: true, writable: false, hangup: false, error: false };
    /// Only writable.
    pub const WRITE: Ready = Ready { readable: false, writable: true, hangup: false, error: false };

    /// Returns the part that is of use for an interest: input and room only if the interest includes them. A
    /// hang-up and an error remain whatever the interest is.
    ///
    /// ```
    /// use reactor::{Interest, Ready};
    /// let all = Ready { readable: true, writable: true, hangup: true, error: true };
    /// assert_eq!(all.masked(Interest::Read), Ready { writable: false, ..all });
    /// assert_eq!(all.masked(Interest::Write), Ready { readable: false, ..all });
    /// ```
    #[must_use]
    pub fn masked(self, interest: Interest) -> Ready {
        Ready {
            readable: self.readable && interest.is_read(),
            writable: self.writable && interest.is_write(),
            ..self
        }
    }

    /// Returns whether a read would not block, because there is input, an end or an error.
    pub fn can_read(self) -> bool {
        self.readable || self.hangup || self.error
    }

    /// Returns whether a write would not block.
    pub fn can_write(self) -> bool {
        self.writable || self.error
    }
}
