//! Resources in the background. They alone do not keep the runtime running.

use crate::{engine::Ending, error::Closed, id::Key, runtime::Core};

impl Core {
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
        self.lanes.told() > 0 || self.is_awaited()
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
