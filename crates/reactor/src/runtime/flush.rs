//! The flush: which resources it visits, and how it writes each of them once.

use crate::{
    guard,
    id::Key,
    panics::{Blame, During},
    runtime::LoopState,
};

impl LoopState {
    /// Puts a resource on the list to flush, once.
    #[inline]
    pub(crate) fn mark(&mut self, key: Key) {
        if let Some(slot) = self.registry.get_mut(key)
            && !std::mem::replace(&mut slot.dirty, true)
        {
            self.dirty.push(key);
        }
    }

    /// Puts a resource on the list to drive again in the next turn, once.
    pub(crate) fn drive_again(&mut self, key: Key) {
        if let Some(slot) = self.registry.get_mut(key)
            && !std::mem::replace(&mut slot.again, true)
        {
            self.again.push(key);
        }
    }

    /// Writes every stream with queued output, once, and begins the requested file operations.
    pub(crate) fn flush(&mut self) {
        if self.budget.has_begun() {
            self.begin_shortage();
        }
        // Resources that this flush marks belong to the next one.
        let mut dirty = std::mem::replace(&mut self.dirty, std::mem::take(&mut self.flushing));
        let mut at = 0;
        while at < dirty.len() {
            // A panic of a layer or a resource costs only its service. The other streams are still written.
            let written = guard::call(|| {
                while let Some(key) = dirty.get(at) {
                    at += 1;
                    self.flush_one(*key);
                }
            });
            if let Err(text) = written
                && let key = dirty[at - 1]
                && let Some(service) = self.registry.service_of(key)
            {
                self.note_panic(service, text, Blame::on(During::Output, key));
            }
        }
        dirty.clear();
        self.flushing = dirty;
        self.give_files();
        // Layers may have made more bytes than the budget admitted.
        self.make_room();
        if self.budget.is_relieved() {
            self.wake_resting();
        }
    }

    /// Wakes resources that rest for want of bytes, so that they check again.
    pub(crate) fn wake_resting(&mut self) {
        for key in self.budget.take_resting() {
            if let Some(slot) = self.registry.get_mut(key) {
                slot.resting = false;
            }
            self.mark(key);
        }
        self.mark_listeners();
    }

    pub(crate) fn mark_listeners(&mut self) {
        for index in 0..self.listeners.len() {
            self.mark(self.listeners[index]);
        }
    }

    #[inline]
    fn flush_one(&mut self, key: Key) {
        if let Some(slot) = self.registry.get_mut(key) {
            slot.dirty = false;
            let table = slot.table;
            (table.flush)(self, key);
        }
    }
}
