//! The objects that an engine holds, by key, and their release.

use reactor::{
    Key,
    engine::{Ending, Transport},
};

use crate::{engine::SimEngine, world::state::State};

pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) held: Held,
}

pub(crate) enum Held {
    End(u32, Transport),
    Listener(u32, Transport),
    Feed(u32),
    Socket(u32, Transport),
    /// An end that a resource reads and writes itself.
    #[cfg(unix)]
    Watched(u32, u32),
}

impl SimEngine {
    pub(crate) fn held(&self, key: Key) -> Option<&Held> {
        let entry = self.table.get(key.slot())?.as_ref()?;
        (entry.key == key).then_some(&entry.held)
    }

    pub(crate) fn end(&self, key: Key) -> Option<u32> {
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
        for entry in self.table.drain(..).flatten() {
            match entry.held {
                Held::End(at, _) => state.close_end(at, Ending::Orderly),
                Held::Listener(number, _) => state.close_listener(number),
                Held::Socket(number, _) => state.close_socket(number),
                held => state.let_go(held),
            }
        }
        state.processes[self.process as usize] = None;
    }
}

impl State {
    /// Releases an object that the engine only watched.
    pub(crate) fn let_go(&mut self, held: Held) {
        match held {
            Held::Feed(number) => {
                if let Some(Some(fed)) = self.feeds.get_mut(number as usize) {
                    (fed.watcher, fed.interest) = (None, None);
                }
            }
            #[cfg(unix)]
            Held::Watched(at, generation) => self.unwatch_end(at, generation),
            Held::End(..) | Held::Listener(..) | Held::Socket(..) => (),
        }
    }
}
