//! The services that requested a call at the end of a turn.

use std::mem;

use super::Runtime;
use crate::panics::{Blame, During};

/// The services that get a call at the end of a turn.
#[derive(Default)]
pub(crate) struct TurnEnds {
    /// The services in the order of their requests. Each is on the list at most once.
    asked: Vec<u16>,
    /// An emptied list, kept for its memory.
    spare: Vec<u16>,
    /// For each service, whether it is on the list.
    is_asked: Vec<bool>,
    /// Whether a service made a request outside of such a call, so that a turn must follow.
    is_due: bool,
    /// Whether such a call runs now.
    is_calling: bool,
}

impl TurnEnds {
    /// Puts a service on the list, once.
    pub(crate) fn ask(&mut self, service: u16) {
        let index = usize::from(service);
        if self.is_asked.len() <= index {
            self.is_asked.resize(index + 1, false);
        }
        self.is_due |= !self.is_calling;
        if !mem::replace(&mut self.is_asked[index], true) {
            self.asked.push(service);
        }
    }

    /// Returns whether a turn must follow at once.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.is_due
    }

    /// Takes an ending service off the list.
    pub(crate) fn forget(&mut self, service: u16) {
        if let Some(is_asked) = self.is_asked.get_mut(usize::from(service)) {
            *is_asked = false;
            self.asked.retain(|asked| *asked != service);
            self.is_due &= !self.asked.is_empty();
        }
    }

    /// Takes the list, and clears the due flag.
    fn take(&mut self) -> Vec<u16> {
        let asked = mem::replace(&mut self.asked, mem::take(&mut self.spare));
        for service in &asked {
            self.is_asked[usize::from(*service)] = false;
        }
        (self.is_due, self.is_calling) = (false, true);
        asked
    }

    /// Notes that all calls were made.
    fn end(&mut self, mut called: Vec<u16>) {
        called.clear();
        self.spare = called;
        self.is_calling = false;
    }
}

impl Runtime {
    /// Calls each service that requested it, once. A service that requests it again meanwhile gets its call
    /// in a later turn.
    #[inline]
    pub(super) fn turn_ends(&mut self) {
        if !self.core.turn_ends.asked.is_empty() {
            self.call_turn_ends();
        }
    }

    fn call_turn_ends(&mut self) {
        let asked = self.core.turn_ends.take();
        for index in &asked {
            let call = self.services[usize::from(*index)].end_of_turn;
            let blame = Blame::none(During::EndOfTurn);
            self.call(*index, blame, |core, erased| call(core, erased, *index));
            self.flush_if_spent();
        }
        self.core.turn_ends.end(asked);
    }
}
