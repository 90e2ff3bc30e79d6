//! The history of a run, kept when asked for: for pictures, and for people who look for a cause.

use reactor::Time;

use crate::fault::Kind;

/// A node's number, in the order they were added.
pub type NodeNumber = u32;

/// Something that happened, with its moment.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Happening {
    /// A packet with bytes got from one node to another.
    Message {
        /// When it was sent.
        sent: Time,
        /// When it arrived.
        arrived: Time,
        /// From here.
        from: NodeNumber,
        /// To here.
        to: NodeNumber,
        /// So many bytes.
        bytes: u32,
    },
    /// Nodes stopped reaching each other, or their way became slow: from those to these.
    Obstructed {
        /// Since then.
        at: Time,
        /// What it is.
        kind: Kind,
        /// Packets from these,
        from: Vec<NodeNumber>,
        /// to these.
        to: Vec<NodeNumber>,
    },
    /// That is over.
    Cleared {
        /// Since then.
        at: Time,
        /// What it was.
        kind: Kind,
        /// Packets from these,
        from: Vec<NodeNumber>,
        /// to these.
        to: Vec<NodeNumber>,
    },
    /// A node ended: with ([`Kind::Crash`]) or without ([`Kind::Vanish`]) its peers being told.
    Crashed {
        /// Then.
        at: Time,
        /// How.
        kind: Kind,
        /// Which.
        node: NodeNumber,
    },
    /// A node ended by itself.
    Ended {
        /// Then.
        at: Time,
        /// Which.
        node: NodeNumber,
        /// Why, if something failed.
        error: Option<String>,
    },
    /// A node began again.
    Restarted {
        /// Then.
        at: Time,
        /// Which.
        node: NodeNumber,
    },
    /// A node stood still (`true`), or went on.
    Paused {
        /// Then.
        at: Time,
        /// Which.
        node: NodeNumber,
        /// Whether it stands.
        on: bool,
    },
    /// A node's process was sent a signal.
    #[cfg(unix)]
    Signalled {
        /// Then.
        at: Time,
        /// Which.
        node: NodeNumber,
        /// The signal.
        signal: reactor::signals::Signal,
    },
    /// A node told its supervisor something.
    #[cfg(unix)]
    Notified {
        /// Then.
        at: Time,
        /// Which.
        node: NodeNumber,
        /// What.
        text: String,
    },
    /// An operation on files failed.
    FileFailed {
        /// Then.
        at: Time,
        /// Of which node.
        node: NodeNumber,
        /// What was asked for, and of which file.
        operation: String,
        /// Why.
        error: std::io::ErrorKind,
    },
    /// A node's disk became slower, or (1) as it was.
    DiskSlowed {
        /// Then.
        at: Time,
        /// Of which node.
        node: NodeNumber,
        /// So many times.
        factor: u32,
    },
    /// The syncs of a node's disk stood still.
    SyncStalled {
        /// Since then.
        at: Time,
        /// Of which node.
        node: NodeNumber,
        /// Until then.
        until: Time,
    },
    /// A power cut took what was not safe on a node's disk.
    PowerCut {
        /// Then.
        at: Time,
        /// Of which node.
        node: NodeNumber,
        /// Writes that are gone.
        writes_lost: u64,
        /// Writes of which a part is left.
        writes_torn: u64,
        /// Changes of names that are gone.
        names_lost: u64,
    },
    /// A node's wall clock jumped.
    WallStepped {
        /// Then.
        at: Time,
        /// Which.
        node: NodeNumber,
        /// So many nanoseconds.
        nanos: i64,
    },
}

/// What was counted, and what was kept.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) kept: Option<Vec<Happening>>,
    pub(crate) kept_max: usize,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) crashes: u64,
    pub(crate) turns: u64,
    /// Happenings that found no room.
    pub(crate) left_out: u64,
}

impl Record {
    /// Keeps something, when asked to and while there is room.
    #[inline]
    pub(crate) fn keep(&mut self, happening: impl FnOnce() -> Happening) {
        if let Some(kept) = &mut self.kept {
            if kept.len() < self.kept_max {
                kept.push(happening());
            } else {
                self.left_out += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_kept_up_to_its_limit_and_the_rest_is_counted() {
        let restarted = |node| Happening::Restarted { at: Time::ZERO, node };
        let mut record = Record::default();
        record.keep(|| restarted(0));
        assert_eq!(record.left_out, 0, "nobody asked for it");
        (record.kept, record.kept_max) = (Some(Vec::new()), 2);
        (0..3).for_each(|node| record.keep(|| restarted(node)));
        assert_eq!(record.kept.as_deref(), Some(&[restarted(0), restarted(1)][..]));
        assert_eq!(record.left_out, 1);
    }
}
