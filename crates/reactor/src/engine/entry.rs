//! The entry of an engine's table: a descriptor, its owner, and how it is driven. Also the checks before an
//! attach.

use std::{cell::Cell, collections::VecDeque, io};

use super::{AttachError, Event, Medium, Role, Transport};
use crate::{
    id::Key,
    sys::{self, datagram::Facts},
};

/// The descriptor and its owner.
pub(super) enum Ownership {
    /// The engine's: closed with the entry.
    Owned(sys::Owned),
    /// A user's resource.
    Watched(sys::Watched),
}

/// How an entry is driven.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EntryKind {
    /// A user's resource, which the engine only reports.
    Watched,
    Listener,
    Connecting,
    Stream,
    /// A stream whose connect failed, and which waits to be closed.
    Refused,
    Datagrams,
}

impl From<Role> for EntryKind {
    fn from(role: Role) -> EntryKind {
        match role {
            Role::Listener => EntryKind::Listener,
            Role::Connecting => EntryKind::Connecting,
            Role::Stream => EntryKind::Stream,
            Role::Datagrams => EntryKind::Datagrams,
        }
    }
}

/// Drops the queued events of a key that closes. Returns whether the close must be a reset: because the
/// caller asked for one (`is_reset`), or because a send took a part of its queue and has not been reported. A
/// transport that was to be given back is reset then, too.
pub(super) fn forget_queued(queued: &mut VecDeque<(Key, Event)>, key: Key, mut is_reset: bool) -> bool {
    queued.retain(|(of, event)| {
        match event {
            _ if *of != key => return true,
            Event::Sent(sent) => is_reset |= !sent.queue.is_empty(),
            Event::Detached(transport) if is_reset => {
                if let Ok(descriptor) = transport.source().real() {
                    sys::reset_at_close(descriptor);
                }
            }
            _ => (),
        }
        false
    });
    is_reset
}

/// A transport that can be attached.
pub(super) struct Taken {
    pub(super) descriptor: sys::Owned,
    /// The abilities of the descriptor.
    pub(super) medium: Medium,
    /// The facts about a socket for datagrams.
    pub(super) facts: Option<Facts>,
}

impl Taken {
    /// Takes a transport for a key, and refuses it unless the slot of the key is vacant. Prepares a socket
    /// for datagrams, and learns its facts.
    pub(super) fn of(
        transport: Transport,
        role: Role,
        is_vacant: bool,
        calls: &Cell<u64>,
    ) -> Result<Taken, AttachError> {
        let medium = transport.medium();
        let descriptor = transport
            .into_descriptor()
            .map_err(|transport| AttachError { transport, error: io::ErrorKind::Unsupported.into() })?;
        let mut taken = Taken { descriptor, medium, facts: None };
        if !is_vacant {
            return Err(taken.refused(io::ErrorKind::AlreadyExists.into()));
        }
        if role == Role::Datagrams {
            calls.set(calls.get() + 1);
            match sys::datagram::prepare(sys::borrow(&taken.descriptor)) {
                Ok(facts) => taken.facts = Some(facts),
                Err(error) => return Err(taken.refused(error)),
            }
        }
        Ok(taken)
    }

    /// Gives the transport back as it was.
    pub(super) fn refused(self, error: io::Error) -> AttachError {
        AttachError { transport: Transport::of(self.descriptor, self.medium), error }
    }
}
