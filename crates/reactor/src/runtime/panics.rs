//! The consequences of a panic in a service's code.

use std::mem;

use super::Runtime;
use crate::{
    engine::Ending,
    error::{Closed, Fault},
    guard,
    id::Key,
    panics::{AfterPanic, Blame, During, Panic},
    runtime::LoopState,
};

impl Runtime {
    /// Handles a panic. Asks the service, and then ends the service, or only the resource to blame.
    #[cold]
    pub(super) fn panicked(&mut self, index: u16, message: String, mut blame: Blame) {
        // A connection that was just accepted has a key of its own.
        let opening = mem::replace(&mut self.core.opening, Key::NONE);
        if opening != Key::NONE {
            blame = Blame::on(During::Handle, opening);
        }
        self.core.input = Key::NONE;
        let is_handlers = mem::take(&mut self.core.has_handler_panicked);
        let panic = Panic::new(message, blame);
        self.count_panic(index, &panic.message, panic.resource);
        let is_alive = self.core.alive[index as usize];
        match self.ask_after(index, &panic) {
            AfterPanic::EndResource => self.core.end_blamed(index, panic),
            AfterPanic::EndService if is_alive => {
                // The peer of a resource whose own code panicked may have got only a part of its output.
                let is_its_own = matches!(panic.during, During::Handle | During::Output) && !is_handlers;
                self.core.broken.extend(panic.resource.filter(|_| is_its_own));
                self.end_or_restart(index, panic.message);
            }
            AfterPanic::EndService => (),
        }
    }

    /// Asks the service what to do after a panic. A service that cannot be asked ends.
    fn ask_after(&mut self, index: u16, panic: &Panic) -> AfterPanic {
        let Runtime { core, services, .. } = self;
        let entry = &mut services[index as usize];
        let (ask, Some(service)) = (entry.panicked, &mut entry.service) else {
            return AfterPanic::EndService;
        };
        // A service that did not start has no state to continue with.
        if panic.during == During::Start {
            return AfterPanic::EndService;
        }
        match guard::call(|| ask(core, &mut **service, index, panic)) {
            Ok(answer) => answer,
            Err(message) => {
                self.count_panic(index, &message, None);
                AfterPanic::EndService
            }
        }
    }

    /// Counts a panic, and reports it in a line that names the resource to blame.
    pub(super) fn count_panic(&mut self, index: u16, message: &str, resource: Option<Key>) {
        let place = resource.map_or(String::new(), |key| format!("{}: ", self.core.name(key)));
        self.core.complain(index, &format!("{place}panicked: {message}"));
        self.core.counters.panics += 1;
        self.core.record_panic(index, message);
    }

    /// Handles panics outside of a call of their service, for example while output was written or a resource
    /// ended.
    pub(super) fn end_panicked(&mut self) {
        for _ in 0..ROUNDS_MAX {
            if self.core.panics_due.is_empty() {
                break;
            }
            for (index, message, blame) in mem::take(&mut self.core.panics_due) {
                self.panicked(index, message, blame);
            }
        }
        if !self.core.broken.is_empty() {
            self.core.end_broken(&Panic::new(CAUGHT.to_owned(), Blame::none(During::Handle)));
        }
    }
}

impl LoopState {
    /// Notes that a service's code panicked outside of its own call. The runtime handles the panic soon.
    #[cold]
    pub(crate) fn note_panic(&mut self, service: u16, message: String, blame: Blame) {
        self.panics_due.push((service, message, blame));
    }

    /// Ends the resources that a panic leaves in an unknown state. If the panic cost something else, the
    /// service gets a fault.
    fn end_blamed(&mut self, service: u16, panic: Panic) {
        if let Some(key) = panic.resource {
            self.end(key, Closed::Panicked(panic.clone()), Ending::Reset);
        }
        self.end_broken(&panic);
        if panic.resource.is_none() && panic.lost().is_some() {
            self.faults_due.push(service, Fault::Panicked(panic));
        }
    }

    /// Ends the resources whose own code panicked while another resource's handler used it.
    fn end_broken(&mut self, panic: &Panic) {
        for key in mem::take(&mut self.broken) {
            let panic = Panic { resource: Some(key), ..panic.clone() };
            self.end(key, Closed::Panicked(panic), Ending::Reset);
        }
    }
}

/// A service's answer to a panic may cause further panics. After this many rounds, the next turn handles the
/// rest.
const ROUNDS_MAX: usize = 8;

const CAUGHT: &str = "a panic that the service caught itself";
