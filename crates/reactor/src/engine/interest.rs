//! What is waited for, and what an operation will find.

/// What a resource waits for; never nothing (that is `None` of an `Option<Interest>`).
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
    /// Whether input is waited for.
    pub fn is_read(self) -> bool {
        self != Interest::Write
    }

    /// Whether room for output is waited for.
    pub fn is_write(self) -> bool {
        self != Interest::Read
    }

    /// The interest with these two parts, if it is not empty.
    pub fn from_parts(read: bool, write: bool) -> Option<Interest> {
        match (read, write) {
            (true, true) => Some(Interest::Both),
            (true, false) => Some(Interest::Read),
            (false, true) => Some(Interest::Write),
            (false, false) => None,
        }
    }
}

/// What an operation will find: a hint, which holds until the operation says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Ready {
    /// There may be input, or its end.
    pub readable: bool,
    /// There may be room for output.
    pub writable: bool,
    /// The other side ended one or both directions. Input may still be there.
    pub hangup: bool,
    /// Something failed; an operation will tell what.
    pub error: bool,
}

impl Ready {
    /// Only readable.
    pub const READ: Ready = Ready { readable: true, writable: false, hangup: false, error: false };
    /// Only writable.
    pub const WRITE: Ready = Ready { readable: false, writable: true, hangup: false, error: false };

    /// What is left of it for an interest: input and room only as far as they are waited for. A hang-up and an error are
    /// told whatever the interest.
    ///
    /// ```
    /// use reactor::{Interest, Ready};
    /// let all = Ready { readable: true, writable: true, hangup: true, error: true };
    /// assert_eq!(all.masked(Interest::Read), Ready { writable: false, ..all });
    /// assert_eq!(all.masked(Interest::Write), Ready { readable: false, ..all });
    /// ```
    pub fn masked(self, interest: Interest) -> Ready {
        Ready {
            readable: self.readable && interest.is_read(),
            writable: self.writable && interest.is_write(),
            ..self
        }
    }

    /// Whether a read would not block: there is input, an end or an error to be told of.
    pub fn can_read(self) -> bool {
        self.readable || self.hangup || self.error
    }

    /// Whether a write would not block.
    pub fn can_write(self) -> bool {
        self.writable || self.error
    }
}
