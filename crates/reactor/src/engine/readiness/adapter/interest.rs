//! Interest: keeps the poll in step with the wishes of the runtime.

use std::io;

use super::{
    BLOCKED, CHANGED, Calls, ENDED, EntryKind, READING, WRITABLE,
    table::{Entry, Watching},
};
use crate::{
    engine::{Event, Interest, Poll, Sent, Trigger},
    id::Key,
};

impl<P: Poll> Calls<P> {
    /// Marks the key, so that its interest is updated before the next wait.
    pub(super) fn mark_changed(&mut self, key: Key) {
        if self.is_edge() {
            return;
        }
        if let Some(entry) = self.table.get_mut(key).filter(|entry| !entry.has(CHANGED)) {
            entry.set(CHANGED, true);
            self.changed.push(key);
            self.wake_outside();
        }
    }

    /// Updates the interest of all marked keys in a level-triggered poll.
    pub(super) fn sync(&mut self) {
        for at in 0..self.changed.len() {
            let key = self.changed[at];
            let Some(entry) = self.table.get_mut(key) else { continue };
            entry.set(CHANGED, false);
            let wanted = entry.wanted(self.poll.reports_ends());
            if let Err(error) = set_watching(&mut self.poll, entry, wanted, Trigger::Level) {
                self.lose(key, error);
            }
        }
        self.changed.clear();
    }

    /// Watches for room from now on, for datagrams or for a caller that writes past the engine.
    pub(super) fn block(&mut self, key: Key) {
        let Some(entry) = self.table.get_mut(key) else { return };
        entry.set(WRITABLE, false);
        entry.set(BLOCKED, true);
        if self.poll.trigger() == Trigger::Edge {
            // Requests it again even if it is watched already, because the poll then repeats an edge that
            // came after the failed write.
            entry.set_watching(Watching::For(Interest::Read));
            if let Err(error) = set_interest(&mut self.poll, entry, Some(Interest::Both), Trigger::Edge) {
                return self.lose(key, error);
            }
        }
        self.mark_changed(key);
    }

    /// Reports room to the caller that waits for it.
    pub(super) fn report_room(&mut self, key: Key) -> Option<Event> {
        let entry = self.table.get_mut(key)?;
        entry.set(BLOCKED, false);
        // Every datagram that leaves the machine causes an edge of room, and nobody wants those.
        if self.poll.trigger() == Trigger::Edge
            && let Err(error) = set_interest(&mut self.poll, entry, Some(Interest::Read), Trigger::Edge)
        {
            self.lose(key, error);
            return None;
        }
        self.mark_changed(key);
        Some(Event::Room)
    }

    /// Reports that the poll can no longer watch a transport.
    pub(super) fn lose(&mut self, key: Key, error: io::Error) {
        let Some(entry) = self.table.get_mut(key) else { return };
        let parked = entry.parked.take();
        let event = match entry.kind {
            EntryKind::Listener => {
                entry.set(READING, false);
                Event::NotAccepted(copy(&error))
            }
            EntryKind::Connecting => {
                entry.kind = EntryKind::Refused;
                Event::Connected(Err(copy(&error)))
            }
            _ => {
                entry.set(ENDED, true);
                Event::Broken(copy(&error))
            }
        };
        if let Some(queue) = parked {
            self.post(key, Event::Sent(Sent { queue, result: Err(error) }));
        }
        self.post(key, event);
    }
}

/// Watches the entry for `interest`. Without a change it costs nothing.
///
/// After an error the entry is not watched.
pub(super) fn set_interest(
    poll: &mut impl Poll,
    entry: &mut Entry,
    interest: Option<Interest>,
    trigger: Trigger,
) -> io::Result<()> {
    set_watching(poll, entry, interest.into(), trigger)
}

/// Changes the way in which the poll watches the entry, as [`set_interest`] does.
fn set_watching(
    poll: &mut impl Poll,
    entry: &mut Entry,
    wanted: Watching,
    trigger: Trigger,
) -> io::Result<()> {
    let (key, before) = (entry.key, entry.watching());
    if before == wanted {
        return Ok(());
    }
    let is_new = before == Watching::Nothing;
    let result = entry.with_source(|source| match wanted {
        Watching::For(interest) if is_new => poll.watch(key, source, interest, trigger).map(|()| true),
        Watching::For(interest) => poll.rewatch(key, source, interest, trigger).map(|()| true),
        Watching::Rest(rest) => {
            if is_new {
                poll.watch(key, source, Interest::Read, trigger)?;
            }
            poll.rest(key, source, rest)
        }
        Watching::Nothing => poll.unwatch(key, source).map(|()| false),
    });
    entry.set_watching(if matches!(result, Ok(true)) { wanted } else { Watching::Nothing });
    result.map(|_| ())
}

/// Copies an error, because two events must carry it.
fn copy(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}
