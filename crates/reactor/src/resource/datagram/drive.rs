//! Datagrams from the engine to the handler, one by one, and from `send` through the queue to the engine.

use std::{any::Any, mem};

use super::{
    DatagramEvent, Datagrams, Flow, WhenFull,
    socket::{DatagramSocket, cast, find},
};
use crate::{
    engine::{self, Batch, Ending, Outbound},
    id::Key,
    runtime::{
        Handle, LoopState,
        dispatch::{emit, service},
    },
};

pub(super) fn event<S: Handle<Datagrams<R>>, R: 'static>(
    core: &mut LoopState,
    erased: &mut dyn Any,
    key: Key,
    event: engine::Event,
) {
    let to = service::<S>(erased);
    match event {
        engine::Event::Datagrams(mut batch) => {
            // Kept datagrams come first.
            if find::<R>(core, key).is_some_and(|link| link.kept.is_empty()) {
                deliver::<S, R>(core, to, key, &mut batch);
            }
            keep::<R>(core, key, &mut batch);
            core.engine.give_batch(batch);
        }
        engine::Event::Undelivered(address, error) => {
            let Some(slot) = core.registry.get_mut(key) else { return };
            let index = slot.service;
            let Some(link) = cast::<R>(&mut slot.resource) else { return };
            link.datagrams.counts.undelivered += 1;
            if !link.exit.is_closing() {
                let event = DatagramEvent::Undelivered { to: address, error };
                emit::<S, Datagrams<R>>(core, to, key, index, event);
            }
        }
        engine::Event::Room => {
            if let Some(link) = find::<R>(core, key) {
                link.blocked = false;
                core.mark(key);
            }
        }
        engine::Event::Broken(error) => core.fail(key, "receive", error),
        _ => (),
    }
}

/// Hands datagrams over, one by one, as long as the service takes them.
fn deliver<S: Handle<Datagrams<R>>, R: 'static>(
    core: &mut LoopState,
    to: &mut S,
    key: Key,
    batch: &mut Batch,
) {
    loop {
        let LoopState { registry, counters, .. } = &mut *core;
        let Some(slot) = registry.get_mut(key) else { return };
        let index = slot.service;
        let Some(link) = cast::<R>(&mut slot.resource).filter(|link| link.takes_input()) else { return };
        let Some(datagram) = batch.take() else { return };
        link.datagrams.counts.received += 1;
        link.datagrams.counts.truncated += u64::from(datagram.truncated);
        counters.bytes_in += datagram.bytes.len() as u64;
        emit::<S, Datagrams<R>>(core, to, key, index, DatagramEvent::Received(datagram));
    }
}

/// Keeps the remaining datagrams up to the limit. Drops and counts the rest.
fn keep<R: 'static>(core: &mut LoopState, key: Key, batch: &mut Batch) {
    if batch.is_empty() {
        return;
    }
    let LoopState { registry, budget, .. } = core;
    let Some(link) = registry.get_mut(key).and_then(|slot| cast::<R>(&mut slot.resource)) else { return };
    let may_keep = !link.exit.is_closing();
    while let Some(datagram) = batch.take() {
        let len = datagram.bytes.len() + KEPT_EACH;
        let fits = link.kept_bytes + len <= link.datagrams.settings().unread;
        let holds = link.holds() + len;
        if !(may_keep && fits && budget.recount(&mut link.counted, holds)) {
            let holds = link.holds();
            budget.recount(&mut link.counted, holds);
            link.datagrams.counts.unread += 1;
            continue;
        }
        link.kept.put(datagram.bytes, datagram.from, datagram.to, datagram.ecn, datagram.truncated);
        link.kept_bytes += len;
        let holds = link.holds();
        budget.recount(&mut link.counted, holds);
    }
    if link.takes_input() {
        core.drive_again(key);
    }
}

/// Resumes the socket: emits a due `Drained`, and hands over kept datagrams.
pub(super) fn again<S: Handle<Datagrams<R>>, R: 'static>(
    core: &mut LoopState,
    erased: &mut dyn Any,
    key: Key,
) {
    let to = service::<S>(erased);
    let Some(slot) = core.registry.get_mut(key) else { return };
    let index = slot.service;
    let Some(link) = cast::<R>(&mut slot.resource) else { return };
    if mem::take(&mut link.drained_due) && !link.exit.is_closing() && !link.high {
        emit::<S, Datagrams<R>>(core, to, key, index, DatagramEvent::Drained);
    }
    let Some(link) = find::<R>(core, key).filter(|link| !link.kept.is_empty()) else { return };
    let mut kept = mem::take(&mut link.kept);
    link.kept_bytes = 0;
    deliver::<S, R>(core, to, key, &mut kept);
    // Keep the rest if the service has paused the socket again.
    keep::<R>(core, key, &mut kept);
    recount::<R>(core, key);
}

/// Counts the socket's memory again.
pub(super) fn recount<R: 'static>(core: &mut LoopState, key: Key) {
    let LoopState { registry, budget, .. } = core;
    if let Some(link) = registry.get_mut(key).and_then(|slot| cast::<R>(&mut slot.resource)) {
        let holds = link.holds();
        budget.recount(&mut link.counted, holds);
    }
}

pub(super) fn post<R: 'static>(core: &mut LoopState, index: u16, key: Key, item: Outbound<'_>) -> Flow {
    let LoopState { registry, budget, .. } = core;
    let slot = registry.get_mut(key).filter(|slot| slot.service == index);
    let Some(link) = slot.and_then(|slot| cast::<R>(&mut slot.resource)) else { return Flow::Gone };
    if link.exit.is_closing() {
        return Flow::Gone;
    }
    if !make_room(link, &item) {
        return refuse(link, &item);
    }
    let holds = link.holds() + item.bytes.len();
    if !budget.recount(&mut link.counted, holds) {
        let holds = link.holds();
        budget.recount(&mut link.counted, holds);
        return refuse(link, &item);
    }
    link.queue.push(item);
    let holds = link.holds();
    budget.recount(&mut link.counted, holds);
    let options = link.datagrams.settings();
    let is_high = link.queue.len() > options.queue / 2 || link.queue.bytes() > options.queue_bytes / 2;
    link.high |= is_high;
    core.mark(key);
    if is_high { Flow::High } else { Flow::Queued }
}

/// Returns whether there is room for the item. May drop older items first.
fn make_room<R: 'static>(link: &mut DatagramSocket<R>, item: &Outbound<'_>) -> bool {
    let options = link.datagrams.settings();
    let (queue, bytes, when_full) = (options.queue, options.queue_bytes, options.when_full);
    let (count, len) = (item.count(), item.bytes.len());
    let fits = |count: usize, len: usize| count <= queue && len <= bytes;
    if when_full == WhenFull::DropOldest && fits(count, len) {
        while !fits(link.queue.len() + count, link.queue.bytes() + len) {
            link.queue.pop();
            link.datagrams.counts.dropped += 1;
        }
    }
    fits(link.queue.len() + count, link.queue.bytes() + len)
}

fn refuse<R: 'static>(link: &mut DatagramSocket<R>, item: &Outbound<'_>) -> Flow {
    link.datagrams.counts.dropped += item.count() as u64;
    link.high = true;
    Flow::Full
}

/// Sends the queue, updates the engine's interest, and ends a socket that is due to end.
pub(super) fn flush<R: 'static>(core: &mut LoopState, key: Key) {
    let LoopState { registry, engine, counters, budget, .. } = core;
    let Some(link) = registry.get_mut(key).and_then(|slot| cast::<R>(&mut slot.resource)) else { return };
    if !link.queue.is_empty() && !link.blocked && !link.exit.is_detaching() {
        let before = link.queue.bytes();
        link.datagrams.counts.sent += engine.send_datagrams(key, &mut link.queue) as u64;
        counters.bytes_out += (before - link.queue.bytes()) as u64;
        link.blocked = !link.queue.is_empty();
        let holds = link.holds();
        budget.recount(&mut link.counted, holds);
    }
    let options = link.datagrams.settings();
    let is_low = link.queue.len() <= options.queue / 4 && link.queue.bytes() <= options.queue_bytes / 4;
    if link.high && is_low {
        (link.high, link.drained_due) = (false, true);
        core.drive_again(key);
    }
    let LoopState { registry, engine, .. } = core;
    let Some(link) = registry.get_mut(key).and_then(|slot| cast::<R>(&mut slot.resource)) else { return };
    let wanted = link.takes_input();
    if link.reading != wanted && !link.exit.is_detaching() {
        link.reading = wanted;
        engine.reading(key, wanted);
    }
    if link.exit.detach() {
        engine.detach(key);
    } else if link.queue.is_empty()
        && let Some(why) = link.why.take()
    {
        core.end(key, why, Ending::Orderly);
    }
}

/// The bytes that a kept datagram counts in addition to its own, for its address and other metadata.
pub(super) const KEPT_EACH: usize = 128;
