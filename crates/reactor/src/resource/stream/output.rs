//! Output of a stream: items into the queue, the queue into one write a turn, and the engine's interest.

use std::{any::Any, io};

use session::{Codec, Layer, Mark, Phase};

use super::{
    close,
    conn::Next,
    link::{Link, find},
    pressure,
};
use crate::{
    clock::Time,
    engine::{Ending, Outgoing, Sent},
    error::Closed,
    id::Key,
    resource::{Flow, encode_whole, rest::Rest},
    runtime::LoopState,
};

/// Borrows a stream's link out of a slot's erased resource.
#[inline]
fn cast<C: Codec, L: Layer, R: 'static>(resource: &mut Option<Box<dyn Any>>) -> Option<&mut Link<C, L, R>> {
    resource.as_mut()?.downcast_mut()
}

/// Appends one item by calling `encode`, and returns the result of the send.
#[inline]
pub(super) fn post<C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    index: u16,
    key: Key,
    encode: impl FnOnce(&mut C, &mut Outgoing) -> session::Result,
) -> Flow {
    post_if::<C, L, R>(core, (index, key), |link| link.conn.takes_output(), encode)
}

/// Appends one item as [`post`] does, if `takes` holds for the stream.
#[inline]
pub(super) fn post_if<C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    (index, key): (u16, Key),
    takes: impl FnOnce(&Link<C, L, R>) -> bool,
    encode: impl FnOnce(&mut C, &mut Outgoing) -> session::Result,
) -> Flow {
    let LoopState { registry, pool, budget, dirty, input, broken, .. } = core;
    let Some(slot) = registry.live(key).filter(|slot| slot.service == index) else { return Flow::Gone };
    let Some(link) = cast::<C, L, R>(&mut slot.resource) else { return Flow::Gone };
    if !takes(link) {
        return Flow::Gone;
    }
    let stream = &mut link.stream;
    let out = stream.session.out(pool);
    let (encoded, mark) = encode_whole(out, broken, key, |out| encode(&mut stream.codec, out));
    let (more, len) = (out.count(), out.len());
    if *input == key {
        link.caused += out.since(mark);
    }
    if !std::mem::replace(&mut slot.dirty, true) {
        dirty.push(key);
    }
    let plenty = budget.add(&mut link.counted, more);
    // Without a layer, this queue and the output in flight are all of the queued output.
    let high = link.stream.settings().high;
    let is_low = link.stream.session.direct() && len + link.flying <= high || link.queued() <= high;
    if plenty && encoded.is_ok() && !link.conn.is_high() && is_low {
        return Flow::Queued;
    }
    posted::<C, L, R>(core, key, encoded, mark)
}

/// Handles an item that passed a mark or a limit, or that could not be encoded.
#[cold]
fn posted<C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    key: Key,
    encoded: session::Result,
    mark: Mark,
) -> Flow {
    let (call, is_input) = (core.counters.handled as u32, core.input != Key::NONE);
    let LoopState { registry, pool, budget, .. } = &mut *core;
    let Some(slot) = registry.live(key) else { return Flow::Gone };
    let Some(link) = cast::<C, L, R>(&mut slot.resource) else { return Flow::Gone };
    let queued = link.queued();
    let within = budget.is_within();
    let is_alone = link.stream.session.out(pool).since(mark) == queued;
    let passes = !link.conn.is_high() && queued > link.options().high;
    if passes {
        link.crossed = call;
    }
    let is_answer = is_input && link.crossed == call;
    let end = match encoded {
        Err(failure) => {
            core.close(key, Closed::Refused(failure));
            return Flow::Gone;
        }
        Ok(()) if !link.has_room(is_alone, is_answer) => Closed::Overflow,
        Ok(()) if !within => {
            // If others hold more, or made no progress for longer, they end instead, and this stream
            // continues.
            if core.make_room() {
                return posted::<C, L, R>(core, key, Ok(()), mark);
            }
            Closed::OverBudget
        }
        Ok(()) if !link.conn.is_high() && !passes => return Flow::Queued,
        Ok(()) => {
            link.conn.set_high(true);
            if passes && link.conn.is_spliced() {
                core.hold_partner(key, true);
            }
            pressure::pressed::<C, L, R>(core, key);
            return Flow::High;
        }
    };
    core.end(key, end, Ending::Orderly);
    Flow::Gone
}

/// Writes the queue once, and handles the consequences.
pub(super) fn flush<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) {
    let LoopState { registry, engine, pool, counters, budget, .. } = core;
    let Some(link) = registry.live(key).and_then(|slot| cast::<C, L, R>(&mut slot.resource)) else { return };
    // The common case, with one table look-up: an open stream without layers, whose queue the kernel takes
    // whole.
    if link.is_plain() && !budget.is_tight() {
        let Some(queue) = link.stream.session.take_wire() else { return };
        let (len, memory) = (queue.len(), queue.memory());
        return match engine.send(key, queue) {
            Some(Sent { queue, result: Ok(taken) }) if queue.is_empty() => {
                counters.bytes_out += taken as u64;
                pool.give_outgoing(queue);
                link.caused = 0;
                let kept = link.kept();
                budget.settle(&mut link.counted, kept);
            }
            Some(sent) => {
                (link.flying, link.flight) = (len, memory);
                if take_back::<C, L, R>(core, key, sent) {
                    write::<C, L, R>(core, key);
                }
                settle::<C, L, R>(core, key);
            }
            None => flies::<C, L, R>(core, key, len, memory),
        };
    }
    if link.conn.is_connecting() {
        if link.conn.is_concluding() && link.queued() == 0 {
            let why = link.take_why();
            core.end(key, why, Ending::Orderly);
        }
        return;
    }
    let session = &mut link.stream.session;
    // A direct session has nothing to seal, but its end must still be noted.
    if (session.closing() || !session.direct())
        && session.phase() != Phase::Idle
        && let Err(failure) = session.fill(pool)
    {
        close::layer_failed::<C, L, R>(core, key, failure);
    }
    write::<C, L, R>(core, key);
    settle::<C, L, R>(core, key);
}

/// Writes the queue in the middle of a turn, and lets a completion-based engine begin the write at once.
pub(super) fn flush_now<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) {
    flush::<C, L, R>(core, key);
    core.engine.submit();
}

/// Hands the queue to the engine, unless it already has one.
fn write<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) {
    // Offer a partial write once more, so that the engine keeps the rest until there is room.
    for _ in 0..2 {
        let LoopState { registry, engine, .. } = core;
        let Some(link) = registry.live(key).and_then(|slot| cast::<C, L, R>(&mut slot.resource)) else {
            return;
        };
        if link.flying > 0 || !link.conn.may_write() {
            return;
        }
        let Some(queue) = link.stream.session.take_wire() else { return };
        let (len, memory) = (queue.len(), queue.memory());
        link.flight = memory;
        match engine.send(key, queue) {
            None => return flies::<C, L, R>(core, key, len, memory),
            Some(sent) => {
                if !take_back::<C, L, R>(core, key, sent) {
                    return;
                }
            }
        }
    }
    core.mark(key);
}

/// Notes that the engine keeps the queue until there is room. From now on it must make progress.
fn flies<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key, len: usize, memory: usize) {
    let Some(link) = find::<C, L, R>(core, key) else { return };
    (link.flying, link.flight) = (len, memory);
    if link.conn.is_timed()
        && let Some(patience) = link.patience()
    {
        core.set_internal_deadline_later(key, patience);
    }
}

/// Ends a send, and puts the rest in front of the queue. Returns `true` if there is a rest.
fn take_back<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key, sent: Sent) -> bool {
    let LoopState { registry, pool, counters, budget, .. } = core;
    let Some(link) = registry.live(key).and_then(|slot| cast::<C, L, R>(&mut slot.resource)) else {
        pool.give_outgoing(sent.queue);
        return false;
    };
    let (before, left) = (link.memory(), sent.queue.len());
    (link.flying, link.flight) = (0, 0);
    link.stream.session.restore(sent.queue, pool);
    link.recount_less(budget, before);
    match sent.result {
        Ok(taken) => {
            counters.bytes_out += taken as u64;
            link.caused = link.caused.saturating_sub(taken);
            if taken > 0 {
                link.moved = budget.period();
                if link.conn.is_concluding() {
                    close::progress::<C, L, R>(core, key, taken);
                }
            }
            left > 0
        }
        Err(error) => {
            write_failed::<C, L, R>(core, key, error);
            false
        }
    }
}

/// Handles a failed write side. Input that arrived before is delivered first. Then the stream ends.
pub(super) fn write_failed<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key, error: io::Error) {
    let Some(slot) = core.registry.live(key) else { return };
    let Some(link) = cast::<C, L, R>(&mut slot.resource) else { return };
    match link.conn.write_failed() {
        Next::Fail => return core.fail(key, "write", error),
        Next::Note => (),
        _ => return,
    }
    let close = link.options().close;
    let (bound, goes_on) = (link.conn.has_partner(), link.has_kept());
    link.rare().error.get_or_insert(("write", error));
    if goes_on {
        core.drive_again(key);
    }
    if bound {
        core.hold_partner(key, false);
    }
    core.set_internal_deadline(key, Some(close));
}

/// Handles the end of a send that took a while.
pub(super) fn sent<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key, sent: Sent) {
    let LoopState { registry, pool, counters, budget, .. } = core;
    // The common case, with one table look-up: an open stream without layers, all of whose output has left.
    if let (true, Ok(taken)) = (sent.queue.is_empty() && !budget.is_tight(), &sent.result)
        && let Some(slot) = registry.live(key)
        && let Some(link) = cast::<C, L, R>(&mut slot.resource)
    {
        link.flying = 0;
        if link.is_plain() && link.stream.session.has_no_queue() {
            link.flight = 0;
            slot.internal_deadline = Time::NEVER;
            counters.bytes_out += *taken as u64;
            link.caused = 0;
            pool.give_outgoing(sent.queue);
            let kept = link.kept();
            return budget.settle(&mut link.counted, kept);
        }
    }
    take_back::<C, L, R>(core, key, sent);
    if let Some(link) = find::<C, L, R>(core, key)
        && link.conn.is_timed()
        && !link.conn.is_broken()
    {
        link.progressed();
        core.set_internal_deadline(key, None);
    }
    core.mark(key);
}

/// Handles the consequences of a write: marks, closing, releasing, reading.
fn settle<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) {
    let LoopState { registry, budget, .. } = core;
    let Some(slot) = registry.live(key) else { return };
    let Some(link) = cast::<C, L, R>(&mut slot.resource) else { return };
    link.recount(budget);
    let queued = link.queued();
    if queued <= link.options().low && link.conn.drained() {
        let bound = link.conn.has_partner();
        core.drive_again(key);
        if bound {
            core.hold_partner(key, false);
        }
    }
    if find::<C, L, R>(core, key).is_some_and(Link::end_rest) {
        core.drive_again(key);
    }
    let Some(link) = find::<C, L, R>(core, key) else { return };
    if link.conn.is_ending() {
        close::proceed::<C, L, R>(core, key);
    }
    if find::<C, L, R>(core, key).is_some_and(|link| link.has_more_to_write()) {
        core.mark(key); // It is sealed in pieces: the next piece leaves in the next turn.
    }
    sync::<C, L, R>(core, key);
}

/// Updates the engine's interest in input, if it has changed.
#[inline]
pub(super) fn sync<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) {
    let LoopState { registry, engine, budget, .. } = core;
    let Some(slot) = registry.live(key) else { return };
    let Some(link) = cast::<C, L, R>(&mut slot.resource) else { return };
    let mut wanted = link.conn.wants_input();
    if wanted && link.conn.may_rest_for_bytes() {
        // A stream without output reads on, because a rest would not drain anything.
        let drains = link.queued() > 0 || link.conn.is_spliced();
        if budget.rests(slot.service) && drains && link.options().backpressure {
            wanted = false;
            if !std::mem::replace(&mut slot.resting, true) {
                budget.rest(key);
            }
        }
    }
    if let Some(reads) = link.conn.sync(wanted) {
        crate::log::reading(key, reads, link.conn.rests().with(Rest::Shortage, slot.resting));
        engine.reading(key, reads);
    }
}
