//! The objects that are attached to an engine or that it watches, by key, and their release.

use reactor::{
    Key,
    engine::{Ending, Transport},
};

use crate::{
    engine::SimEngine,
    ids::{EndId, ListenerId, SocketId, SourceId},
    world::state::State,
};

pub(crate) struct TableEntry {
    pub(crate) key: Key,
    pub(crate) attached: Attached,
}

pub(crate) enum Attached {
    End(EndId, Transport),
    Listener(ListenerId, Transport),
    Source(SourceId),
    Socket(SocketId, Transport),
    /// An end that a resource reads and writes itself.
    #[cfg(unix)]
    Watched(EndId),
}

impl SimEngine {
    pub(crate) fn attached(&self, key: Key) -> Option<&Attached> {
        let entry = self.table.get(key.slot())?.as_ref()?;
        (entry.key == key).then_some(&entry.attached)
    }

    pub(crate) fn end(&self, key: Key) -> Option<EndId> {
        match self.attached(key) {
            Some(Attached::End(end, _)) => Some(*end),
            _ => None,
        }
    }

    pub(crate) fn insert(&mut self, key: Key, attached: Attached) {
        if self.table.len() <= key.slot() {
            self.table.resize_with(key.slot() + 1, || None);
        }
        self.table[key.slot()] = Some(TableEntry { key, attached });
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<Attached> {
        self.attached(key)?;
        self.table[key.slot()].take().map(|entry| entry.attached)
    }
}

impl Drop for SimEngine {
    fn drop(&mut self) {
        let mut state = self.state.borrow_mut();
        for (attached, how) in self.closing.drain(..) {
            state.close_attached(attached, how);
        }
        for entry in self.table.drain(..).flatten() {
            state.close_attached(entry.attached, Ending::Orderly);
        }
        state.base.engines.remove(self.engine);
    }
}

impl State {
    /// Closes a transport, or releases an object that the engine only watched.
    pub(crate) fn close_attached(&mut self, attached: Attached, how: Ending) {
        match attached {
            Attached::End(at, _) => self.streams.close_end(&mut self.base, at, how),
            Attached::Listener(number, _) => self.streams.close_listener(&mut self.base, number),
            Attached::Socket(number, _) => self.datagrams.close_socket(number),
            attached => self.release(attached),
        }
    }

    /// Takes a transport from its engine, which gets no more events of it. Returns how it must be closed.
    pub(crate) fn disown(&mut self, attached: &Attached, how: Ending) -> Ending {
        match attached {
            Attached::End(at, _) => {
                let end = &mut self.streams.ends[*at];
                let is_part = end.has_unsent();
                (end.owner, end.parked, end.sent, end.detaching) = (None, None, None, false);
                return if is_part { Ending::Reset } else { how };
            }
            Attached::Listener(number, _) => {
                if let Some(listener) = self.streams.listener(*number) {
                    (listener.owner, listener.wants) = (None, false);
                }
            }
            Attached::Socket(number, _) => {
                if let Some(socket) = self.datagrams.socket(*number) {
                    socket.owner = None;
                }
            }
            _ => (),
        }
        how
    }

    /// Releases an object that the engine only watched.
    pub(crate) fn release(&mut self, attached: Attached) {
        match attached {
            Attached::Source(id) => self.sources.unwatch(id),
            #[cfg(unix)]
            Attached::Watched(at) => self.streams.unwatch_end(at),
            Attached::End(..) | Attached::Listener(..) | Attached::Socket(..) => (),
        }
    }
}
