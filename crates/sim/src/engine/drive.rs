//! The movement of the world by a bare engine, and the order of the events in an engine's batch.

use std::time::Duration;

use crate::{engine::SimEngine, faults::Kind};

impl SimEngine {
    /// Moves the world until this engine has an event, or its timeout is over.
    pub(crate) fn drive(&mut self, timeout: Option<Duration>) {
        let (deadline, at_least) = {
            let clock = &self.state.borrow().base.clock;
            // A poll takes time, too, so an engine that polls in a loop eventually gets an event.
            let cost = Duration::from_nanos(clock.turn_cost);
            (timeout.map(|timeout| clock.after(timeout.max(cost))), clock.after(cost))
        };
        let mut is_done = false;
        loop {
            let mut state = self.state.borrow_mut();
            state.take_messages();
            let engines = &mut state.base.engines;
            is_done = is_done
                || engines.is_ready(self.engine)
                || self.wake_flag.take()
                || engines.gives_way(self.engine);
            let clock = &mut state.base.clock;
            // Events of the same moment, or within the cost of this poll, belong to one batch.
            let end = if is_done { Some(at_least.max(clock.now())) } else { deadline };
            if clock.is_due(end.unwrap_or(u64::MAX)) {
                let task = state.advance();
                drop(state);
                // Only the world has the nodes, so it does their work when it moves the next time.
                if let Some(task) = task.and_then(|task| task.perform(&self.state)) {
                    self.state.borrow_mut().defer(task);
                }
            } else if is_done {
                return clock.move_to(at_least);
            } else if let Some(deadline) = deadline {
                return clock.move_to(deadline);
            } else {
                drop(state);
                self.wake_flag.sleep();
            }
        }
    }

    /// Draws the order of the events in this batch.
    pub(crate) fn begin_batch(&mut self) {
        let base = &mut self.state.borrow_mut().base;
        let Some(me) = base.engines.get_mut(self.engine) else { return };
        let ready = me.ready.len();
        self.batch = ready.min(base.engines.options.events_max);
        if self.batch > 1 && base.faults.has(Kind::Reorder) {
            let by = base.faults.chance.below(self.batch as u64) as usize;
            if by > 0
                && base.faults.draw_visible(Kind::Reorder)
                && let Some(me) = base.engines.get_mut(self.engine)
            {
                me.ready.rotate_left(by);
            }
        }
    }
}
