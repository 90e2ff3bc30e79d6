//! Taking transports in, and giving them back.

use super::{Calls, ENDED, READING, WRITABLE, interest::set_interest, table::Entry};
use crate::{
    engine::{
        AttachError, Event, Interest, Poll, Role, Sent, Source, Transport, Trigger,
        entry::{Ownership, Taken},
    },
    id::Key,
};

impl<P: Poll> Calls<P> {
    /// Stores the transport, and begins to watch it.
    pub(super) fn take_in(&mut self, key: Key, transport: Transport, role: Role) -> Result<(), AttachError> {
        let taken = Taken::of(transport, role, self.table.is_vacant(key), &self.calls)?;
        let trigger = self.poll.trigger();
        let interest = match (trigger, role) {
            (_, Role::Listener | Role::Stream | Role::Datagrams) => Interest::Read,
            (Trigger::Level, Role::Connecting) => Interest::Write,
            (Trigger::Edge, Role::Connecting) => Interest::Both,
        };
        let interest = Some(interest).filter(|_| !taken.medium.is_unwaited());
        if let Some(interest) = interest
            && let Err(error) = self.poll.watch(key, Source::of(&taken.descriptor), interest, trigger)
        {
            return Err(taken.refused(error));
        }
        let Taken { descriptor, medium, facts } = taken;
        let entry = self.table.insert(Entry::new(key, Ownership::Owned(descriptor), role.into()));
        entry.medium = medium;
        entry.set_watching(interest.into());
        entry.set(ENDED, medium.is_unwaited());
        entry.set(READING, true);
        // A stream begins with an empty send buffer.
        entry.set(WRITABLE, role == Role::Stream);
        if let Some(facts) = facts {
            entry.set_facts(facts);
        }
        Ok(())
    }

    /// Reports a parked send, stops watching the transport, and reports it as detached.
    pub(super) fn give_out(&mut self, key: Key) {
        if self.table.get(key).and_then(Entry::owned).is_none() {
            return;
        }
        let Some(mut entry) = self.table.remove(key) else { return };
        let _ = set_interest(&mut self.poll, &mut entry, None, Trigger::Level);
        if let Some(queue) = entry.parked.take() {
            self.post(key, Event::Sent(Sent { queue, result: Ok(0) }));
        }
        if let Ownership::Owned(descriptor) = entry.descriptor {
            self.post(key, Event::Detached(Transport::of(descriptor, entry.medium)));
        }
    }
}
