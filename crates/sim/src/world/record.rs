//! The optional history of a run, for pictures and for debugging.

use reactor::{Key, Time, engine::Event};

use crate::{
    faults::Kind,
    ids::{EngineId, Id as _},
    world::{digest::Digest, node::Node},
};

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
    /// A node crashed ([`Kind::Crash`]), which its peers notice, or was powered off ([`Kind::PowerOff`]),
    /// which they do not.
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

/// The past of a world: its digest, its counts and its history.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) digest: Digest,
    kept: Option<Vec<Happening>>,
    kept_max: usize,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) crashes: u64,
    pub(crate) turns: u64,
    /// How many events found no room in the history.
    pub(crate) left_out: u64,
}

impl Record {
    /// Makes an empty record, with a history of this many events.
    pub(crate) fn new(history_max: usize) -> Record {
        let kept = (history_max > 0).then(Vec::new);
        Record { kept, kept_max: history_max, ..Record::default() }
    }

    /// Adds an engine's event to the digest.
    pub(crate) fn note_event(&mut self, now: u64, engine: EngineId, key: Key, event: &mut Event) {
        let (tag, more) = match event {
            Event::Got(chunk) => (1, chunk.bytes().len() as u64),
            Event::End => (2, 0),
            Event::Broken(error) => (3, number_of(error)),
            Event::Connected(result) => (4, result.as_ref().err().map_or(0, number_of)),
            Event::Accepted(..) => (5, 0),
            Event::NotAccepted(error) => (6, number_of(error)),
            Event::Sent(sent) => (7, sent.queue.len() as u64),
            Event::Detached(_) => (8, 0),
            Event::Datagrams(batch) => (10, batch.len() as u64),
            Event::Undelivered(_, error) => (11, number_of(error)),
            Event::Room => (12, 0),
            Event::HungUp(error) => (13, error.as_ref().map_or(0, number_of)),
            Event::Ready(ready) => (9, u64::from(ready.readable) | u64::from(ready.writable) << 1),
        };
        let slot = key.slot() as u64 | u64::from(key.generation()) << 24;
        self.digest.number(now ^ u64::from(engine.number()) << 48);
        self.digest.number(slot << 8 | tag);
        self.digest.number(more);
        if let Event::Got(chunk) = event {
            self.digest.bytes(chunk.bytes());
        }
    }

    /// Returns the recorded events.
    pub(crate) fn history(&self) -> &[Happening] {
        self.kept.as_deref().unwrap_or_default()
    }

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

fn number_of(error: &std::io::Error) -> u64 {
    error.raw_os_error().map_or(u64::MAX, |number| number as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::HostId;

    #[test]
    fn a_history_is_kept_up_to_its_limit_and_the_rest_is_counted() {
        let restarted = |node| Happening::Restarted { at: Time::ZERO, node: Node(HostId::new(node)) };
        let mut record = Record::default();
        record.keep(|| restarted(0));
        assert_eq!(record.left_out, 0, "nobody asked for it");
        let mut record = Record::new(2);
        (0..3).for_each(|node| record.keep(|| restarted(node)));
        assert_eq!(record.kept.as_deref(), Some(&[restarted(0), restarted(1)][..]));
        assert_eq!(record.left_out, 1);
    }
}
