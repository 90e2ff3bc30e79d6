//! The deadline of an item that the peer has begun. It counts while the codec waits for the rest, and starts
//! again only with a complete item, because a peer that sends a byte now and then holds as much memory as a
//! silent one.

use session::{Codec, Layer};

use super::link::{Link, find};
use crate::{
    engine::Ending,
    error::{Closed, Phase},
    id::Key,
    runtime::{Due, LoopState, ports::Ports, timers::TimerKey},
};

impl<C: Codec, L: Layer, R: 'static> Link<C, L, R> {
    /// Returns whether the peer has begun an item, and only the peer delays its end.
    fn is_item_begun(&self) -> bool {
        let waits = !self.unread.is_empty() || !self.raw_is_empty();
        waits && self.conn.awaits_item()
    }

    /// Starts, keeps or stops the deadline of the peer's item after a look at the input.
    pub(super) fn watch_item(&mut self, ports: &mut Ports<'_>, is_new: bool) {
        if !self.is_item_begun() {
            // Most streams never begin an item.
            if !ports.items.is_empty()
                && let Some(item) = ports.items.get_mut(&ports.key)
            {
                item.by = None;
            }
            return;
        }
        let by = ports.now + self.options().unfinished;
        let item = ports.items.entry(ports.key).or_default();
        if is_new || item.by.is_none() {
            item.by = Some(by);
        }
        if item.timer == TimerKey::NONE {
            // The wheel has room for one timer of each resource.
            item.timer = ports.timers.set(by, Due::Item(ports.key)).unwrap_or(TimerKey::NONE);
        }
    }
}

/// Handles the timer. The deadline may have moved since the timer was set.
pub(super) fn due<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) {
    let begun = find::<C, L, R>(core, key).is_some_and(|link| link.is_item_begun());
    let Some(item) = core.items.get_mut(&key) else { return };
    match item.by.filter(|_| begun) {
        None => _ = core.items.remove(&key),
        Some(by) if by <= core.now => core.end(key, Closed::TimedOut(Phase::Item), Ending::Reset),
        Some(by) => item.timer = core.timers.set(by, Due::Item(key)).unwrap_or(TimerKey::NONE),
    }
}

/// Forgets a stream that ends.
pub(super) fn forget(core: &mut LoopState, key: Key) {
    if !core.items.is_empty()
        && let Some(item) = core.items.remove(&key)
    {
        core.timers.cancel(item.timer);
    }
}
