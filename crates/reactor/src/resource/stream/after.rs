//! What a step leaves to the entry of the vtable, because it concerns other resources or ends the stream.

use std::io;

use crate::{address::Address, engine::Ending, error::Closed, id::Key, runtime::LoopState};

/// The rest of one or several steps. A step that finds the stream [over](After::is_over) does nothing.
#[derive(Default)]
#[must_use]
pub(super) struct After {
    end: Option<End>,
    /// Holds the partner while the stream's queue is high, or frees it.
    holds_partner: Option<bool>,
    /// The stream's memory has grown beyond the runtime's limit, and others may have to end for it.
    needs_room: bool,
    /// The deadline of the service is gone, and so is the message that belongs to it.
    drops_last_words: bool,
}

enum End {
    Now(Closed, Ending),
    Failed(&'static str, io::Error),
    /// Its connect took too long.
    LateConnect(Option<Address>),
}

impl After {
    /// Ends the stream now.
    pub(super) fn end(&mut self, why: Closed, how: Ending) {
        self.end.get_or_insert(End::Now(why, how));
    }

    /// Ends the stream now, because of a system error.
    pub(super) fn fail(&mut self, (operation, error): (&'static str, io::Error)) {
        self.end.get_or_insert(End::Failed(operation, error));
    }

    /// Ends the stream now, because its connect took too long.
    pub(super) fn end_late_connect(&mut self, target: Option<Address>) {
        self.end.get_or_insert(End::LateConnect(target));
    }

    /// Returns whether the stream ends now.
    pub(super) fn is_over(&self) -> bool {
        self.end.is_some()
    }

    pub(super) fn hold_partner(&mut self, held: bool) {
        self.holds_partner = Some(held);
    }

    pub(super) fn need_room(&mut self) {
        self.needs_room = true;
    }

    pub(super) fn drop_last_words(&mut self) {
        self.drops_last_words = true;
    }

    /// Does it. The stream has to be found again afterwards.
    #[inline]
    pub(super) fn apply(self, core: &mut LoopState, key: Key) {
        let After { end, holds_partner, needs_room, drops_last_words } = self;
        if drops_last_words {
            core.drop_last_words(key);
        }
        if let Some(held) = holds_partner {
            core.hold_partner(key, held);
        }
        match end {
            Some(End::Now(why, how)) => core.end(key, why, how),
            Some(End::Failed(operation, error)) => core.fail(key, operation, error),
            Some(End::LateConnect(target)) => core.end_late_connect(key, target.as_ref()),
            None if needs_room && !core.make_room() => core.end(key, Closed::OverBudget, Ending::Orderly),
            None => (),
        }
    }
}
