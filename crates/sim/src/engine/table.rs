//! The objects that an engine holds, by key, and their release.

use reactor::{
    Key,
    engine::{Ending, Transport},
};

use crate::{
    engine::SimEngine,
    ids::{EndId, ListenerId, SocketId, SourceId},
    world::state::State,
};

pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) held: Held,
}

pub(crate) enum Held {
    End(EndId, Transport),
    Listener(ListenerId, Transport),
    Source(SourceId),
    Socket(SocketId, Transport),
    /// An end that a resource reads and writes itself.
    #[cfg(unix)]
    Watched(EndId),
}

impl SimEngine {
    pub(crate) fn held(&self, key: Key) -> Option<&Held> {
        let entry = self.table.get(key.slot())?.as_ref()?;
        (entry.key == key).then_some(&entry.held)
    }

    pub(crate) fn end(&self, key: Key) -> Option<EndId> {
        match self.held(key) {
            Some(Held::End(end, _)) => Some(*end),
            _ => None,
        }
    }

    pub(crate) fn insert(&mut self, key: Key, held: Held) {
        if self.table.len() <= key.slot() {
            self.table.resize_with(key.slot() + 1, || None);
        }
        self.table[key.slot()] = Some(Entry { key, held });
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<Held> {
        self.held(key)?;
        self.table[key.slot()].take().map(|entry| entry.held)
    }
}

impl Drop for SimEngine {
    fn drop(&mut self) {
        let mut state = self.state.borrow_mut();
        for (held, how) in self.closing.drain(..) {
            state.close_held(held, how);
        }
        for entry in self.table.drain(..).flatten() {
            state.close_held(entry.held, Ending::Orderly);
        }
        state.base.engines.remove(self.engine);
    }
}

impl State {
    /// Closes a transport, or releases an object that the engine only watched.
    pub(crate) fn close_held(&mut self, held: Held, how: Ending) {
        match held {
            Held::End(at, _) => self.streams.close_end(&mut self.base, at, how),
            Held::Listener(number, _) => self.streams.close_listener(&mut self.base, number),
            Held::Socket(number, _) => self.datagrams.close_socket(number),
            held => self.let_go(held),
        }
    }

    /// Takes a transport from its engine, which gets no more events of it. Returns how it must be closed.
    pub(crate) fn disown(&mut self, held: &Held, how: Ending) -> Ending {
        match held {
            Held::End(at, _) => {
                let end = &mut self.streams.ends[*at];
                let is_part = end.has_unsent();
                (end.owner, end.parked, end.sent, end.detaching) = (None, None, None, false);
                return if is_part { Ending::Reset } else { how };
            }
            Held::Listener(number, _) => {
                if let Some(listener) = self.streams.listener(*number) {
                    (listener.owner, listener.wants) = (None, false);
                }
            }
            Held::Socket(number, _) => {
                if let Some(socket) = self.datagrams.socket(*number) {
                    socket.owner = None;
                }
            }
            _ => (),
        }
        how
    }

    /// Releases an object that the engine only watched.
    pub(crate) fn let_go(&mut self, held: Held) {
        match held {
            Held::Source(id) => self.sources.unwatch(id),
            #[cfg(unix)]
            Held::Watched(at) => self.streams.unwatch_end(at),
            Held::End(..) | Held::Listener(..) | Held::Socket(..) => (),
        }
    }
}
