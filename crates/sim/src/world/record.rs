//! The optional history of a run, for pictures and for debugging.

use reactor::Time;

use crate::{faults::Kind, world::node::Node};

/// An event of the history, with its time.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Happening {
    /// A packet with bytes arrived at another node.
    Message {
        /// When it was sent.
        sent: Time,
        /// When it arrived.
        arrived: Time,
        /// The sender.
        from: Node,
        /// The receiver.
        to: Node,
        /// The number of bytes.
        bytes: u32,
    },
    /// The links from some nodes to others were cut, held or slowed.
    Obstructed {
        /// The start.
        at: Time,
        /// The kind of obstacle.
        kind: Kind,
        /// The senders of the affected packets.
        from: Vec<Node>,
        /// Their receivers.
        to: Vec<Node>,
    },
    /// An obstacle ended.
    Cleared {
        /// The end.
        at: Time,
        /// The kind of obstacle.
        kind: Kind,
        /// The senders of the affected packets.
        from: Vec<Node>,
        /// Their receivers.
        to: Vec<Node>,
    },
    /// A node crashed ([`Kind::Crash`]), which its peers notice, or vanished ([`Kind::Vanish`]), which they
    /// do not.
    Crashed {
        /// The time.
        at: Time,
        /// The kind of end.
        kind: Kind,
        /// The node.
        node: Node,
    },
    /// A node ended by itself.
    Ended {
        /// The time.
        at: Time,
        /// The node.
        node: Node,
        /// The error, if one ended it.
        error: Option<String>,
    },
    /// A node restarted.
    Restarted {
        /// The time.
        at: Time,
        /// The node.
        node: Node,
    },
    /// A node was paused (`true`) or continued.
    Paused {
        /// The time.
        at: Time,
        /// The node.
        node: Node,
        /// Whether it is paused.
        on: bool,
    },
    /// A node's process got a signal.
    #[cfg(unix)]
    Signalled {
        /// The time.
        at: Time,
        /// The node.
        node: Node,
        /// The signal.
        signal: reactor::signals::Signal,
    },
    /// A node notified its supervisor.
    #[cfg(unix)]
    Notified {
        /// The time.
        at: Time,
        /// The node.
        node: Node,
        /// The notification.
        text: String,
    },
    /// A file operation failed.
    FileFailed {
        /// The time.
        at: Time,
        /// The node.
        node: Node,
        /// The operation and its file.
        operation: String,
        /// The kind of error.
        error: std::io::ErrorKind,
    },
    /// A node's disk became slower, or (1) normal again.
    DiskSlowed {
        /// The time.
        at: Time,
        /// The node.
        node: Node,
        /// The factor.
        factor: u32,
    },
    /// The syncs of a node's disk stalled.
    SyncStalled {
        /// The start.
        at: Time,
        /// The node.
        node: Node,
        /// The end.
        until: Time,
    },
    /// A power cut lost unsynced data of a node's disk.
    PowerCut {
        /// The time.
        at: Time,
        /// The node.
        node: Node,
        /// The lost writes.
        writes_lost: u64,
        /// The writes of which only a part is left.
        writes_torn: u64,
        /// The lost changes of names.
        names_lost: u64,
    },
    /// A node's wall clock jumped.
    WallStepped {
        /// The time.
        at: Time,
        /// The node.
        node: Node,
        /// The jump in nanoseconds.
        nanos: i64,
    },
}

/// The counts and the history.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) kept: Option<Vec<Happening>>,
    pub(crate) kept_max: usize,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) crashes: u64,
    pub(crate) turns: u64,
    /// How many events found no room in the history.
    pub(crate) left_out: u64,
}

impl Record {
    /// Records an event, if a history is wanted and has room.
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
    use crate::ids::{HostId, Id as _};

    #[test]
    fn a_history_is_kept_up_to_its_limit_and_the_rest_is_counted() {
        let restarted = |node| Happening::Restarted { at: Time::ZERO, node: Node(HostId::new(node)) };
        let mut record = Record::default();
        record.keep(|| restarted(0));
        assert_eq!(record.left_out, 0, "nobody asked for it");
        (record.kept, record.kept_max) = (Some(Vec::new()), 2);
        (0..3).for_each(|node| record.keep(|| restarted(node)));
        assert_eq!(record.kept.as_deref(), Some(&[restarted(0), restarted(1)][..]));
        assert_eq!(record.left_out, 1);
    }
}
