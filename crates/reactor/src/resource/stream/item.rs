//! The deadline of an item that the peer has begun. It counts while the codec waits for the rest, and begins again only
//! with an item that is complete: a peer that sends a byte now and then holds memory as much as one that sends nothing.

use session::{Codec, Layer};

use super::link::{Link, State, find};
use crate::{
    core::{Core, Due},
    engine::Ending,
    error::{Closed, Phase},
    id::Key,
    runtime::timers::TimerKey,
};

/// Whether the peer has begun an item, and nobody but the peer keeps it from being complete.
fn is_begun<C: Codec, L: Layer, R: 'static>(link: &Link<C, L, R>) -> bool {
    let waits = !link.unread.is_empty() || !link.raw_is_empty();
    waits && link.remote && link.state == State::Open && link.takes_items() && !link.backlog && !link.ended
}

/// Input was looked at: starts the deadline, lets it go on, or stops it.
pub(super) fn watch<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key, is_new: bool) {
    let now = core.now;
    let Some(link) = find::<C, L, R>(core, key) else { return };
    if !is_begun(link) {
        if let Some(rare) = &mut link.rare {
            rare.item_by = None;
        }
        return;
    }
    let by = now + link.options().unfinished;
    let rare = link.rare();
    if is_new || rare.item_by.is_none() {
        rare.item_by = Some(by);
    }
    if rare.item_timer == TimerKey::NONE {
        arm::<C, L, R>(core, key);
    }
}

fn arm<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) {
    let Core { registry, timers, .. } = core;
    let link = registry.live(key).and_then(|slot| slot.resource.as_mut()?.downcast_mut::<Link<C, L, R>>());
    if let Some(rare) = link.and_then(|link| link.rare.as_mut())
        && let Some(by) = rare.item_by
    {
        // The wheel has room for one of each resource.
        rare.item_timer = timers.set(by, Due::Item(key)).unwrap_or(TimerKey::NONE);
    }
}

/// The deadline was over when its timer was set; it may have moved since.
pub(super) fn due<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) {
    let now = core.now;
    let Some(link) = find::<C, L, R>(core, key) else { return };
    let begun = is_begun(link);
    let Some(rare) = &mut link.rare else { return };
    rare.item_timer = TimerKey::NONE;
    rare.item_by = rare.item_by.filter(|_| begun);
    if rare.item_by.is_some_and(|by| by <= now) {
        core.end(key, Closed::TimedOut(Phase::Item), Ending::Reset);
    } else {
        arm::<C, L, R>(core, key);
    }
}
