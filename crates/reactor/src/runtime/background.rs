//! Resources in the background: the runtime does not go on for them alone.

use crate::{core::Core, engine::Ending, error::Closed, id::Key};

impl Core {
    /// Lets the runtime end without waiting for this one.
    pub(crate) fn keep_in_background(&mut self, key: Key) {
        self.background.insert(key);
    }

    /// Whether there is no resource but in the background.
    pub(crate) fn is_without_resources(&self) -> bool {
        self.registry.occupied() == self.background.len()
    }

    /// Whether something is under way whose outcome a service waits for: jobs, operations on files, what services told
    /// each other, and what a [`Hold`](crate::Hold) stands for.
    pub(crate) fn is_at_work(&self) -> bool {
        self.lanes.told() > 0 || self.is_awaited()
    }

    /// The same without what services told each other: what somebody else has to finish.
    pub(crate) fn is_awaited(&self) -> bool {
        self.files.out() > 0 || self.mailbox.holds() > 0 || self.records.iter().any(|record| record.jobs > 0)
    }

    /// Ends what is in the background: nothing else is left.
    pub(crate) fn end_background(&mut self) {
        for key in self.background.clone() {
            self.end(key, Closed::Done, Ending::Orderly);
        }
    }
}
