//! Ends of resources: graceful closes, ends at once, and the freeing of slots. Also the resources in the
//! background, which alone do not keep the runtime running.

use crate::{
    address::Address,
    engine::Ending,
    error::{Closed, Error, Failure, Phase},
    guard,
    id::Key,
    log::short,
    runtime::LoopState,
};

impl LoopState {
    /// Holds or resumes the stream that is paired to this one, and marks it, so that its wishes are checked.
    pub(crate) fn hold_partner(&mut self, key: Key, held: bool) {
        let Some(partner) = self.partners.get(&key).copied() else { return };
        let Some(slot) = self.registry.get_mut(partner) else { return };
        let table = slot.table;
        (table.hold)(self, partner, held);
        self.mark(partner);
    }

    /// Ends the write side of a stream after what is queued.
    pub(crate) fn finish(&mut self, key: Key) {
        if let Some(slot) = self.registry.get_mut(key) {
            let table = slot.table;
            (table.finish)(self, key);
        }
    }

    /// Begins a graceful close of a resource.
    pub(crate) fn close(&mut self, key: Key, why: Closed) {
        self.drop_last_words(key);
        if let Some(slot) = self.registry.get_mut(key) {
            let table = slot.table;
            (table.close)(self, key, why);
        }
    }

    /// Ends a resource now; `closed` follows at the end of the turn.
    pub(crate) fn end(&mut self, key: Key, why: Closed, how: Ending) {
        let Some(slot) = self.registry.get_mut(key) else { return };
        let (table, service) = (slot.table, slot.service);
        let why = match table.defer {
            None => why,
            Some(defer) => match defer(self, key, why) {
                Some(why) => why,
                None => return,
            },
        };
        let is_cut = matches!(why, Closed::Stopped);
        let why = match (table.noted)(self, key, &why) {
            Some(noted) => noted,
            None => why,
        };
        let Some(timer) = self.registry.get_mut(key).map(|slot| slot.timer) else { return };
        self.timers.cancel(timer);
        (table.leave)(self, key, how);
        self.files.forget(key);
        self.registry.end(key);
        self.count_end(service, &why, is_cut);
        if table.listener {
            self.listeners.retain(|listener| *listener != key);
            self.asked.remove(&key);
        }
        if let Some(other) = self.partners.remove(&key) {
            self.partners.remove(&other);
            let passed = match why {
                Closed::End => Closed::End,
                _ if why.is_clean() => Closed::Done,
                _ => Closed::Partner,
            };
            self.close(other, passed);
        }
        self.background.remove(&key);
        self.drop_last_words(key);
        self.ended.push((key, why));
        self.feed_listeners();
    }

    /// Ends a resource because of a system error.
    pub(crate) fn fail(&mut self, key: Key, operation: &'static str, error: std::io::Error) {
        let error = Error::os(operation, self.name(key), error);
        self.end(key, Closed::Failed(error), Ending::Orderly);
    }

    /// Ends a stream whose connect took too long. Keeps a text that names the target, in case the service does
    /// not handle the end in `closed`.
    #[cold]
    pub(crate) fn end_late_connect(&mut self, key: Key, target: Option<&Address>) {
        let why = Closed::TimedOut(Phase::Connect);
        if let Some(target) = target {
            self.refused.insert(key, format!("connect {target}: {why}"));
        }
        self.end(key, why, Ending::Orderly);
    }

    /// Closes a resource because its handler returned an error. Keeps the text of the error, in case the
    /// service does not handle it in `closed` either.
    #[cold]
    pub(crate) fn refuse(&mut self, key: Key, failure: Failure) {
        let text = format!("{}: {}", self.name(key), guard::text(&failure));
        self.refused.insert(key, text);
        self.close(key, Closed::Refused(failure));
    }

    /// Returns the name of a live resource: its peer's address, a listener's own address, or else its type.
    pub(crate) fn name(&self, key: Key) -> String {
        let Some(slot) = self.registry.get(key) else { return format!("{key:?}") };
        let address = if slot.table.listener { self.engine.local(key) } else { self.engine.peer(key) };
        match address {
            Ok(address) if address != Address::Unnamed => address.to_string(),
            _ => format!("{} {key:?}", short((slot.table.name)())),
        }
    }

    /// Frees the slot of a resource that has ended, after its `closed`.
    pub(crate) fn forget(&mut self, key: Key) {
        self.registry.free(key);
        if !self.refused.is_empty() {
            self.refused.remove(&key);
        }
    }

    /// Lets listeners that ran out of descriptors try again, because one was freed.
    fn feed_listeners(&mut self) {
        for key in std::mem::take(&mut self.starved) {
            self.mark(key);
        }
    }

    pub(crate) fn full_of_resources(&self) -> Error {
        Error::Full { what: "resources", limit: self.registry.limit() }
    }

    /// Lets the runtime end without waiting for this resource.
    pub(crate) fn keep_in_background(&mut self, key: Key) {
        self.background.insert(key);
    }

    /// Returns whether all resources are in the background.
    pub(crate) fn is_without_resources(&self) -> bool {
        self.registry.occupied() == self.background.len()
    }

    /// Returns whether a service waits for the outcome of running work: jobs, operations on files, messages
    /// between services, and the work behind a [`Hold`](crate::Hold).
    pub(crate) fn is_at_work(&self) -> bool {
        self.typed_queues.messages() > 0 || self.is_awaited()
    }

    /// Returns the same, but without messages between services. Other threads or the kernel have to finish
    /// this work.
    pub(crate) fn is_awaited(&self) -> bool {
        self.files.out() > 0 || self.mailbox.holds() > 0 || self.records.iter().any(|record| record.jobs > 0)
    }

    /// Ends the resources in the background, because nothing else is left.
    pub(crate) fn end_background(&mut self) {
        for key in self.background.clone() {
            self.end(key, Closed::Done, Ending::Orderly);
        }
    }
}
