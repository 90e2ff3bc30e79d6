//! The movement of the world by a bare engine, and the order of the events in an engine's batch.

use std::time::Duration;

use crate::{
    engine::SimEngine,
    faults::Kind,
    net::link::nanos,
    world::state::{Process, State, Task},
};

impl SimEngine {
    /// Moves the world until this engine has an event, or its timeout is over.
    pub(crate) fn drive(&mut self, timeout: Option<Duration>) {
        let (deadline, at_least) = {
            let state = self.state.borrow();
            let from_now = |time: u64| state.now.saturating_add(time);
            // A poll takes time, too, so an engine that polls in a loop eventually gets an event.
            let cost = state.turn_cost;
            (timeout.map(|timeout| from_now(nanos(timeout).max(cost))), from_now(cost))
        };
        let mut is_done = false;
        loop {
            let mut state = self.state.borrow_mut();
            state.hear();
            let me = state.processes.get(self.process);
            let is_ready = me.is_some_and(|me| !me.ready.is_empty());
            is_done = is_done || is_ready || self.bell.answer() || self.gives_way(&mut state);
            // Events of the same moment, or within the cost of this poll, belong to one batch.
            let end = if is_done { Some(at_least.max(state.now)) } else { deadline };
            if state.queue.next_at().is_some_and(|at| end.is_none_or(|end| at <= end)) {
                let task = state.advance();
                match task {
                    Some(Task::Job(job)) => {
                        drop(state);
                        job();
                    }
                    #[cfg(unix)]
                    Some(Task::Child(child, happening)) => {
                        drop(state);
                        crate::os::child::happen(&self.state, child, happening);
                    }
                    Some(Task::File(due)) => {
                        drop(state);
                        due.tell(&self.state);
                    }
                    // Only the world makes a node's turn, when it moves the next time.
                    Some(Task::Run(node)) => state.make_runnable(node),
                    Some(Task::Trouble { .. } | Task::Relief(_) | Task::Restart { .. }) | None => (),
                }
            } else if is_done {
                state.now = state.now.max(at_least);
                return;
            } else if let Some(deadline) = deadline {
                state.now = state.now.max(deadline);
                return;
            } else {
                drop(state);
                self.bell.sleep();
            }
        }
    }

    /// Returns whether another engine of this thread has work to do first. It does so once for each version.
    fn gives_way(&self, state: &mut State) -> bool {
        let version = state.version;
        let busy = |other: &Process| other.node.is_none() && !other.ready.is_empty();
        let others = state.processes.iter().filter(|(id, _)| *id != self.process);
        if !others.map(|(_, other)| other).any(busy) {
            return false;
        }
        let Some(me) = state.processes.get_mut(self.process) else { return false };
        std::mem::replace(&mut me.gave_way, version) != version
    }

    /// Draws the order of the events in this batch.
    pub(crate) fn begin_batch(&mut self) {
        let state = &mut *self.state.borrow_mut();
        let Some(me) = state.processes.get_mut(self.process) else { return };
        self.batch = me.ready.len().min(state.engine_options.events_max);
        if self.batch > 1 && state.faults.of(Kind::Reorder) > 0 {
            let by = state.chance.below(self.batch as u64) as usize;
            if by > 0 && state.strikes(Kind::Reorder) {
                state.tally.observe(Kind::Reorder);
                if let Some(me) = state.processes.get_mut(self.process) {
                    me.ready.rotate_left(by);
                }
            }
        }
    }
}
