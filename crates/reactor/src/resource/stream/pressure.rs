//! Back-pressure: when a stream rests, which is to say that its input is not read, and what frees it.
//!
//! A stream rests for output that its own input causes, because only then does resting slow whoever causes it. What
//! others queue on it counts only once it takes up half of the cap. A coupled stream rests for its partner's queue
//! ([`Link::held`]) and for what its own input puts into its own queue, which is nothing in a proxy.
//!
//! Two peers that both rest would wait for each other. So the output of a stream at rest must make progress: after
//! [`StreamOptions::rest`] without any, the valve opens and the stream reads on until its input has caused some more
//! output; each further opening allows twice as much, and none allows more than half of the cap.
//!
//! [`StreamOptions::rest`]: super::StreamOptions::rest

use std::time::Duration;

use session::{Codec, Layer};

use super::link::{Link, find};
use crate::{clock::Time, core::Core, id::Key};

/// What is to be known of a stream whose queue was above its marks.
#[derive(Default)]
pub(super) struct Pressure {
    /// So much weight the valve allows; 0: it has not opened since the queue was low.
    level: usize,
    /// How often it has opened since then.
    openings: u32,
    /// How long the output has made no progress, as of the last look.
    waited: Duration,
    /// How long after that the next look comes; zero: only the stall's deadline is set.
    next: Duration,
    /// The length of a queue that passed the cap, and was allowed to. Behind it there is room as usual.
    large: usize,
}

impl<C: Codec, L: Layer, R: 'static> Link<C, L, R> {
    /// What weighs against reading: the output that its own input caused, and that of others as far as it takes up
    /// more than half of the cap.
    fn weight(&self) -> usize {
        let (queued, options) = (self.queued(), self.options());
        let free = if self.coupled { queued } else { (options.cap / 2).saturating_sub(options.high) };
        self.caused.min(queued).max(queued.saturating_sub(free))
    }

    /// Has the stream rest if it must; `true` if it begins to.
    pub(super) fn begin_rest(&mut self) -> bool {
        let level = self.rare.as_ref().map_or(0, |rare| rare.pressure.level).max(self.options().high);
        let begins = !self.rests && self.options().backpressure && self.weight() > level;
        self.rests |= begins;
        begins
    }

    /// Ends the rest at the low mark; `true` if it rested.
    pub(super) fn end_rest(&mut self) -> bool {
        let queued = self.queued();
        let (low, cap) = (self.options().low, self.options().cap);
        let is_low = self.weight() <= low;
        if let Some(rare) = &mut self.rare {
            let pressure = &mut rare.pressure;
            if queued <= cap {
                pressure.large = 0;
            }
            if is_low {
                (pressure.level, pressure.openings) = (0, 0);
            }
        }
        is_low && std::mem::take(&mut self.rests)
    }

    /// Whether what is queued may stay. Above the cap there is room for one item that is alone in the queue, and for what
    /// one call of a handler sends for its input; behind either there is room up to the cap as usual.
    pub(super) fn has_room(&mut self, is_alone: bool, is_answer: bool) -> bool {
        let (queued, options) = (self.queued(), self.options());
        if queued <= options.cap {
            return true;
        }
        let (cap, item) = (options.cap, options.item);
        if (is_alone || is_answer) && queued <= item {
            self.rare().pressure.large = queued;
            return true;
        }
        queued <= cap.saturating_add(self.rare.as_ref().map_or(0, |rare| rare.pressure.large))
    }

    /// How long output that is now in the engine's hands may make no progress before somebody looks; `None`: for ever.
    pub(super) fn patience(&mut self) -> Option<Duration> {
        if !self.rests {
            self.progressed();
            return self.write_stall();
        }
        let next = self.options().rest.max(SHORTEST).min(self.stall());
        let pressure = &mut self.rare().pressure;
        (pressure.waited, pressure.next) = (Duration::ZERO, next);
        Some(next)
    }

    fn stall(&self) -> Duration {
        self.write_stall().unwrap_or(Duration::MAX)
    }

    /// Output has left: what was waited does not count.
    pub(super) fn progressed(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.pressure.next = Duration::ZERO;
        }
    }

    /// No progress since the last look. Says how long to wait for the next one; `None`: the output is stalled.
    fn look(&mut self) -> Option<Duration> {
        let (rest, stall) = (self.options().rest, self.stall());
        let pressure = &mut self.rare.as_mut()?.pressure;
        pressure.waited = pressure.waited.saturating_add(pressure.next);
        if pressure.next.is_zero() || pressure.waited >= stall {
            return None;
        }
        pressure.next = rest.max(SHORTEST).min(stall - pressure.waited);
        Some(pressure.next)
    }

    /// Lets a stream at rest read on, for a bounded amount of further output; `true` if it does.
    fn open_valve(&mut self) -> bool {
        let room = (self.options().cap / 2).saturating_sub(self.caused);
        if !self.rests || room == 0 {
            return false;
        }
        let (weight, high) = (self.weight(), self.options().high.max(1));
        let pressure = &mut self.rare().pressure;
        let more = high.saturating_mul(1 << pressure.openings.min(20)).min(room);
        (pressure.level, pressure.openings) = (weight.saturating_add(more), pressure.openings + 1);
        self.rests = false;
        true
    }
}

/// Output was queued above the high mark: looks whether the stream is to rest from now on.
pub(super) fn pressed<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) {
    let now = core.now;
    let Some(slot) = core.registry.live(key) else { return };
    let guard = slot.guard;
    let link = slot.resource.as_mut().and_then(|resource| resource.downcast_mut::<Link<C, L, R>>());
    let Some(link) = link else { return };
    if !link.begin_rest() || link.flying == 0 || link.is_concluding() {
        return;
    }
    // The valve was open, and the next look is due as it was.
    if link.rare.as_ref().is_some_and(|rare| !rare.pressure.next.is_zero()) {
        return;
    }
    // What is in flight has the stall's deadline: the first look comes earlier, and counts what has passed.
    let (mut next, stall) = (link.patience(), link.write_stall());
    if let (Some(next), Some(stall)) = (&mut next, stall)
        && guard != Time::NEVER
    {
        let left = guard.since(now);
        *next = left.min(*next);
        let pressure = &mut link.rare().pressure;
        (pressure.waited, pressure.next) = (stall.saturating_sub(left), *next);
    }
    core.set_guard(key, next);
}

/// The output has made no progress for a while. `false`: for too long.
pub(super) fn waited<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) -> bool {
    let Some(link) = find::<C, L, R>(core, key) else { return true };
    let Some(next) = link.look() else { return false };
    let opened = link.open_valve();
    if !opened && link.write_stall().is_none() {
        // Nothing more is to be done, and no deadline counts: the next look comes when the stream rests again.
        link.progressed();
        core.set_guard(key, None);
        return true;
    }
    core.set_guard(key, Some(next));
    if opened {
        core.drive_again(key);
        core.mark(key);
    }
    true
}

/// Has a stream rest for its partner's queue, or go on.
pub(super) fn hold<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key, held: bool) {
    let Some(link) = find::<C, L, R>(core, key) else { return };
    let was_held = std::mem::replace(&mut link.held, held);
    if was_held && !held && link.has_kept() {
        core.drive_again(key);
    }
}

/// The shortest time between two looks: a rest of zero would look in every turn.
const SHORTEST: Duration = Duration::from_millis(1);
