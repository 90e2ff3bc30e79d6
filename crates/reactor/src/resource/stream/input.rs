//! Input of a stream: from the engine through the layers and the codec to the handler.

use std::{any::Any, mem};

use session::{Codec, CodecError, Decoded, Failure, Layer, LayerError, Next, Phase};

use super::{
    Event, Stream,
    change::Undelivered,
    close,
    conn::{AtEnd, Kept},
    feed, item,
    link::{Link, find},
    output,
};
use crate::{
    engine::{self, Ending},
    error::{Closed, Error},
    file,
    id::Key,
    resource::{breaking, rest::Rest},
    runtime::{
        Handle, LoopState,
        dispatch::{emit, service},
    },
};

/// The most items of one stream in one turn. Further items follow in the next turn.
const ITEMS_MAX: u32 = 1024;
/// The most input that a codec gets at once, unless an item needs more. So the runtime looks at the queues'
/// marks between two pieces, however much arrived while the stream rested.
const LENT_MAX: usize = 64 << 10;
/// From this length on, kept input grows by a quarter.
const GROWN_LATE: usize = 16 << 10;
/// The most steps in a row that a layer may request without using any input.
const IDLE_STEPS_MAX: u32 = 1024;

pub(super) fn got<S: Handle<Stream<C, L, R>>, C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    erased: &mut dyn Any,
    key: Key,
    bytes: &mut [u8],
) {
    core.counters.bytes_in += bytes.len() as u64;
    let Some(slot) = core.registry.live(key) else { return };
    let (index, again) = (slot.service, slot.again);
    let Some(link) = slot.resource.as_mut().and_then(|r| r.downcast_mut::<Link<C, L, R>>()) else { return };
    let to = service::<S>(erased);
    // The common case: all of the input is one item, or several that end with it.
    if link.stream.session.direct()
        && link.unread.is_empty()
        && link.conn.is_open()
        && !again
        && bytes.len() <= LENT_MAX
        && link.conn.takes_items()
    {
        let len = bytes.len();
        let used = match link.stream.codec.decode(bytes) {
            Ok(Decoded::Item(used, item)) if used > 0 && used <= len => {
                link.skipped = false;
                if !received::<S, C, L, R>(core, to, key, index, item) || used == len {
                    return;
                }
                used
            }
            Ok(Decoded::Skip(used)) if used > 0 && used <= len => {
                link.skipped = true;
                used
            }
            Ok(Decoded::More) => 0,
            other => return core.close(key, Closed::Refused(refusal::<C, _>(other, len))),
        };
        if used == 0 {
            keep::<C, L, R>(core, key, bytes);
            return item::watch::<C, L, R>(core, key, false);
        }
        let used = used + deliver::<S, C, L, R>(core, to, key, &mut bytes[used..], ITEMS_MAX - 1);
        if used < bytes.len() {
            keep::<C, L, R>(core, key, &bytes[used..]);
            item::watch::<C, L, R>(core, key, used > 0);
        }
        return;
    }
    open_if_due::<S, C, L, R>(core, to, key);
    let Some(link) = find::<C, L, R>(core, key) else { return hand_on(core, key, Undelivered::Wire(bytes)) };
    if link.conn.discards_input() {
        return;
    }
    if again {
        // Kept input comes first, later in this turn. This input goes behind it.
        return match link.stream.session.direct() {
            true => keep::<C, L, R>(core, key, bytes),
            false => {
                link.rare().raw.extend_from_slice(bytes);
                bound_input::<C, L, R>(core, key);
            }
        };
    }
    if !link.stream.session.direct() {
        open::<S, C, L, R>(core, to, key, bytes);
    } else {
        keep::<C, L, R>(core, key, bytes);
        unread::<S, C, L, R>(core, to, key);
    }
}

/// Hands the rest on to the stream's new type, because the handler has changed it.
#[cold]
fn hand_on(core: &mut LoopState, key: Key, rest: Undelivered<'_>) {
    if let Some(slot) = core.registry.live(key) {
        let table = slot.table;
        (table.keep)(core, key, rest);
    }
}

/// Appends clear input to the input that waits for the handler.
fn keep<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key, bytes: &[u8]) {
    let LoopState { registry, pool, budget, .. } = core;
    let Some(slot) = registry.live(key) else { return };
    let Some(link) = slot.resource.as_mut().and_then(|r| r.downcast_mut::<Link<C, L, R>>()) else {
        return hand_on(core, key, Undelivered::Clear(bytes));
    };
    if link.unread.capacity() == 0 {
        (link.unread, link.moved) = (pool.take(), budget.period());
    }
    let (room, len) = (link.unread.capacity() - link.unread.len(), link.unread.len());
    if room < bytes.len() && len >= GROWN_LATE {
        // Grow by a quarter and not to twice the size, because unused capacity is memory too.
        link.unread.reserve_exact(bytes.len().max(len / 4));
    }
    link.unread.extend_from_slice(bytes);
    bound_input::<C, L, R>(core, key);
}

/// Counts the waiting input, clear and sealed, and ends a stream that keeps more than it or the runtime may.
/// All code that adds to either calls this, because no other place bounds them.
pub(super) fn bound_input<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) {
    let LoopState { registry, budget, .. } = core;
    let Some(slot) = registry.live(key) else { return };
    let Some(link) = slot.resource.as_mut().and_then(|r| r.downcast_mut::<Link<C, L, R>>()) else { return };
    let within = link.recount(budget);
    let over = link.waiting() > link.options().unread;
    if (over || !within)
        && link.conn.salvages()
        && let Some((operation, error)) = link.take_error()
    {
        // The stream takes along as much input as there is room for.
        core.fail(key, operation, error);
    } else if over {
        core.end(key, Closed::Unread, Ending::Orderly);
    } else if !within && !core.make_room() {
        core.end(key, Closed::OverBudget, Ending::Orderly);
    } else if core.budget.is_tight() {
        core.mark(key);
    }
}

/// Delivers waiting input, as far as the codec cuts items from it.
fn unread<S: Handle<Stream<C, L, R>>, C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    to: &mut S,
    key: Key,
) {
    let Some(link) = find::<C, L, R>(core, key) else { return };
    if link.unread.is_empty() {
        return;
    }
    if !link.conn.takes_items() {
        return bound_input::<C, L, R>(core, key);
    }
    let mut input = mem::take(&mut link.unread);
    link.conn.rest(Rest::Backlog, false);
    let used = deliver::<S, C, L, R>(core, to, key, &mut input, ITEMS_MAX);
    let LoopState { registry, pool, budget, .. } = core;
    let link = registry.live(key).and_then(|s| s.resource.as_mut()?.downcast_mut::<Link<C, L, R>>());
    let Some(link) = link else {
        if used < input.len() {
            hand_on(core, key, Undelivered::Clear(&input[used..]));
        }
        return core.pool.give(input);
    };
    if used > 0 {
        link.moved = budget.period();
    }
    if used < input.len() {
        input.drain(..used);
        link.unread = input;
    } else {
        pool.give(input);
    }
    bound_input::<C, L, R>(core, key);
    item::watch::<C, L, R>(core, key, used > 0);
}

/// Cuts items and delivers them. Returns how many bytes are used up, which is all of them if the service
/// takes no more.
#[inline]
fn deliver<S: Handle<Stream<C, L, R>>, C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    to: &mut S,
    key: Key,
    input: &mut [u8],
    items_max: u32,
) -> usize {
    let len = input.len();
    let mut at = 0;
    for _ in 0..items_max {
        if at == input.len() {
            return at;
        }
        if core.handlers.is_spent() {
            break;
        }
        let Some(slot) = core.registry.live(key) else { return input.len() };
        let index = slot.service;
        let link = slot.resource.as_mut().and_then(|r| r.downcast_mut::<Link<C, L, R>>());
        // The handler has changed the stream's type. The caller hands the rest on.
        let Some(link) = link else { return at };
        if !link.conn.takes_items() {
            return if link.conn.is_closing() { input.len() } else { at };
        }
        let rest = len - at;
        // Bytes that the codec has already seen come again in full, together with new ones.
        let lent = if link.partial { rest } else { rest.min(LENT_MAX) };
        match link.stream.codec.decode(&mut input[at..at + lent]) {
            Ok(Decoded::Item(used, item)) if used > 0 && used <= lent => {
                (link.partial, link.skipped, at) = (false, false, at + used);
                if !received::<S, C, L, R>(core, to, key, index, item) {
                    return len;
                }
            }
            Ok(Decoded::Skip(used)) if used > 0 && used <= lent => {
                (link.partial, link.skipped, at) = (false, true, at + used);
            }
            Ok(Decoded::More) => {
                link.partial = true;
                if lent == rest {
                    return at;
                }
            }
            other => {
                core.close(key, Closed::Refused(refusal::<C, _>(other, lent)));
                return len;
            }
        }
    }
    if at < input.len() {
        // It has had its share of the turn, or the output of all must be written first. Stop reading
        // meanwhile, because a peer that is faster than its turn must not fill the memory.
        if let Some(link) = find::<C, L, R>(core, key) {
            link.conn.rest(Rest::Backlog, true);
        }
        core.drive_again(key);
        core.mark(key);
    }
    at
}

/// Returns why a codec's answer ends the stream: its own error, or a breach of its contract.
#[cold]
fn refusal<C, T>(answer: session::Result<Decoded<T>>, given: usize) -> Failure {
    let what = match answer {
        Err(failure) => return failure,
        Ok(Decoded::Item(used, _) | Decoded::Skip(used)) if used > given => "it used more than it was lent",
        Ok(_) => "it used nothing",
    };
    CodecError::Contract { codec: std::any::type_name::<C>(), what }.into()
}

/// Hands an item to the service. This stream's input causes the output that the service sends meanwhile.
#[inline(always)]
fn received<S: Handle<Stream<C, L, R>>, C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    to: &mut S,
    key: Key,
    index: u16,
    item: C::In<'_>,
) -> bool {
    core.input = key;
    let goes_on = emit::<S, Stream<C, L, R>>(core, to, key, index, Event::Received(item));
    core.input = Key::NONE;
    goes_on
}

/// Passes sealed input through the layer, and then to the handler.
fn open<S: Handle<Stream<C, L, R>>, C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    to: &mut S,
    key: Key,
    bytes: &mut [u8],
) {
    let Some(link) = find::<C, L, R>(core, key) else { return };
    let mut kept;
    let input: &mut [u8] = if link.raw_is_empty() {
        bytes
    } else {
        kept = mem::take(&mut link.rare().raw);
        kept.extend_from_slice(bytes);
        &mut kept
    };
    let mut at = 0;
    let mut ended = false;
    let mut idle = 0;
    loop {
        let LoopState { registry, pool, budget, .. } = core;
        let link = registry.live(key).and_then(|s| s.resource.as_mut()?.downcast_mut::<Link<C, L, R>>());
        let Some(link) = link else { break };
        if !link.conn.opens_input() {
            break;
        }
        if link.unread.capacity() == 0 {
            (link.unread, link.moved) = (pool.take(), budget.period());
        }
        let result = link.stream.session.step(&mut input[at..], &mut link.unread, pool);
        if link.unread.is_empty() {
            pool.give(mem::take(&mut link.unread));
        }
        let (used, next) = match result {
            Ok(step) => {
                at += step.used;
                (step.used, step.next)
            }
            Err(failure) => {
                // The alert still leaves. Input behind the bad record is worthless.
                at = input.len();
                close::layer_failed::<C, L, R>(core, key, failure);
                break;
            }
        };
        opened::<S, C, L, R>(core, to, key);
        unread::<S, C, L, R>(core, to, key);
        match next {
            Next::Again if used == 0 && idle == IDLE_STEPS_MAX => {
                at = input.len();
                let what = "it asks for step after step and uses nothing";
                let failure = LayerError::Contract { layer: std::any::type_name::<L>(), what };
                core.close(key, Closed::Refused(failure.into()));
                break;
            }
            Next::Again => idle = if used == 0 { idle + 1 } else { 0 },
            Next::Wait => break,
            Next::End => {
                (ended, at) = (true, input.len());
                break;
            }
        }
    }
    let left = input.len() - at;
    if let Some(link) = find::<C, L, R>(core, key) {
        if ended {
            link.conn.end_input();
        }
        if left > 0 {
            link.rare().raw.extend_from_slice(&input[at..]);
            bound_input::<C, L, R>(core, key);
        }
        item::watch::<C, L, R>(core, key, false);
        core.mark(key);
        end_if_due::<S, C, L, R>(core, to, key);
        return;
    }
    hand_on(core, key, Undelivered::Wire(&input[at..]));
    if ended {
        hand_on(core, key, Undelivered::End);
    }
}

/// Starts the layers after the transport is up, and emits `Open` if they are ready at once.
pub(super) fn up<S: Handle<Stream<C, L, R>>, C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    to: &mut S,
    key: Key,
) {
    let LoopState { registry, pool, .. } = core;
    let link = registry.live(key).and_then(|s| s.resource.as_mut()?.downcast_mut::<Link<C, L, R>>());
    let Some(link) = link else { return };
    link.conn.start();
    if link.stream.session.phase() == Phase::Idle
        && let Err(failure) = link.stream.session.start(pool)
    {
        return close::layer_failed::<C, L, R>(core, key, failure);
    }
    if link.stream.session.direct() && !link.raw_is_empty() {
        // These bytes come from a layer that was replaced by none, so no layer will open them.
        let raw = mem::take(&mut link.rare().raw);
        link.unread.extend_from_slice(&raw);
        core.drive_again(key);
    }
    let Some(link) = find::<C, L, R>(core, key) else { return };
    // A closing stream already has its deadline.
    if !link.conn.is_concluding() {
        let handshake = (link.stream.session.phase() == Phase::Handshake).then(|| link.options().handshake);
        core.set_internal_deadline(key, handshake);
    }
    if find::<C, L, R>(core, key).is_some_and(Link::has_to_do) {
        core.mark(key);
    }
    opened::<S, C, L, R>(core, to, key);
}

/// Opens a stream that was added with a transport, before the service gets any input that had already
/// arrived.
fn open_if_due<S: Handle<Stream<C, L, R>>, C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    to: &mut S,
    key: Key,
) {
    if find::<C, L, R>(core, key).is_some_and(|link| link.conn.is_start_due()) {
        up::<S, C, L, R>(core, to, key);
    }
}

/// Emits `Open` once, when the layers are ready.
fn opened<S: Handle<Stream<C, L, R>>, C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    to: &mut S,
    key: Key,
) {
    let Some(slot) = core.registry.live(key) else { return };
    let index = slot.service;
    let link = slot.resource.as_mut().and_then(|r| r.downcast_mut::<Link<C, L, R>>());
    let Some(link) = link else { return };
    if matches!(link.stream.session.phase(), Phase::Idle | Phase::Handshake) || !link.conn.open() {
        return;
    }
    let (closing, concluding) = (link.conn.is_closing(), link.conn.is_concluding());
    if !concluding {
        core.set_internal_deadline(key, None);
    }
    if closing {
        return core.mark(key);
    }
    // Flush first, because the peer waits for the last flight of the handshake, and the handler may take long
    // or end the stream.
    if find::<C, L, R>(core, key).is_some_and(|link| link.stream.session.spoke()) {
        output::flush_now::<C, L, R>(core, key);
        if find::<C, L, R>(core, key).is_none_or(|link| link.conn.is_closing()) {
            return;
        }
    }
    emit::<S, Stream<C, L, R>>(core, to, key, index, Event::Open);
}

pub(super) fn event<S: Handle<Stream<C, L, R>>, C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    erased: &mut dyn Any,
    key: Key,
    event: engine::Event,
) {
    let to = service::<S>(erased);
    match event {
        engine::Event::Connected(result) => {
            let target = find::<C, L, R>(core, key).and_then(Link::take_target);
            match (result, target) {
                (Ok(()), _) => up::<S, C, L, R>(core, to, key),
                (Err(error), Some(target)) => {
                    let error = Error::os("connect", target, error);
                    core.end(key, Closed::Failed(error), Ending::Orderly);
                }
                (Err(error), None) => core.fail(key, "connect", error),
            }
        }
        engine::Event::End => {
            open_if_due::<S, C, L, R>(core, to, key);
            if let Some(link) = find::<C, L, R>(core, key) {
                link.conn.end_input();
                end_if_due::<S, C, L, R>(core, to, key);
            }
        }
        engine::Event::HungUp(error) => {
            open_if_due::<S, C, L, R>(core, to, key);
            if let Some(link) = find::<C, L, R>(core, key).filter(|link| !link.conn.has_ended()) {
                link.note_hangup(error);
                core.mark(key);
                end_if_due::<S, C, L, R>(core, to, key);
            }
        }
        engine::Event::Room => feed::room::<C, L, R>(core, key),
        engine::Event::Broken(error) => {
            open_if_due::<S, C, L, R>(core, to, key);
            if let Some(link) = find::<C, L, R>(core, key) {
                link.conn.end_input();
                if !link.conn.is_broken() {
                    link.rare().error = Some(("read", error));
                }
                end_if_due::<S, C, L, R>(core, to, key);
            }
        }
        _ => (),
    }
}

/// Resumes kept work: opens an added stream, emits a due `Drained`, and delivers unread input.
pub(super) fn again<S: Handle<Stream<C, L, R>>, C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    erased: &mut dyn Any,
    key: Key,
) {
    let to = service::<S>(erased);
    open_if_due::<S, C, L, R>(core, to, key);
    let Some(slot) = core.registry.live(key) else { return };
    let index = slot.service;
    let Some(link) = find::<C, L, R>(core, key) else { return };
    if link.conn.take_drained() {
        emit::<S, Stream<C, L, R>>(core, to, key, index, Event::Drained);
    }
    unread::<S, C, L, R>(core, to, key);
    if find::<C, L, R>(core, key).is_some_and(|link| !link.raw_is_empty()) {
        open::<S, C, L, R>(core, to, key, &mut []);
    }
    end_if_due::<S, C, L, R>(core, to, key);
    after_earlier_end::<C, L, R>(core, key);
    core.mark(key);
}

/// Continues with a stream whose peer had ended before: in an earlier life, or before or while the stream was
/// spliced. Passes the end on, and closes the stream if nothing keeps it open now.
fn after_earlier_end<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) {
    pass_end_on::<C, L, R>(core, key);
    let Some(link) = find::<C, L, R>(core, key) else { return };
    if link.conn.closes_after_earlier_end(link.stream.half_open) {
        core.close(key, Closed::End);
    }
}

/// Ends the write side of the spliced stream, if all input of this one was delivered and its end was
/// reported. An end that the service has refused does not count: the other stream is cut when this one has
/// closed.
fn pass_end_on<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) {
    let Some(link) = find::<C, L, R>(core, key) else { return };
    if link.conn.is_end_delivered()
        && link.conn.is_spliced()
        && link.is_in_order()
        && let Some(other) = core.partners.get(&key).copied()
    {
        core.finish(other);
    }
}

/// Reports the end of the input, when all of it was delivered.
fn end_if_due<S: Handle<Stream<C, L, R>>, C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    to: &mut S,
    key: Key,
) {
    let Some(slot) = core.registry.live(key) else { return };
    let (index, again) = (slot.service, slot.again);
    let link = slot.resource.as_mut().and_then(|r| r.downcast_mut::<Link<C, L, R>>());
    let Some(link) = link else { return };
    let kept = Kept {
        is_resuming: again,
        has_input: !link.unread.is_empty() || !link.raw_is_empty(),
        has_skipped: link.skipped,
        has_error: link.has_error(),
    };
    match link.conn.at_end(kept) {
        AtEnd::DeliverFn => deliver_end::<S, C, L, R>(core, to, key, index),
        AtEnd::Wait => (),
        AtEnd::HungUp if link.conn.tell_hangup() => {
            emit::<S, Stream<C, L, R>>(core, to, key, index, Event::HungUp);
        }
        AtEnd::HungUp => (),
        AtEnd::Flush => core.mark(key),
        AtEnd::Fail => fail_noted::<C, L, R>(core, key),
        AtEnd::Ask => {
            if !file::hold_end(core, key) {
                deliver_end::<S, C, L, R>(core, to, key, index);
            }
        }
    }
}

/// Ends the stream with the failure of its connection that it keeps.
pub(super) fn fail_noted<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) {
    if let Some((operation, error)) = find::<C, L, R>(core, key).and_then(Link::take_error) {
        core.fail(key, operation, error);
    }
}

/// Hands the end of the input on, behind the rest that the layers and the codec keep.
fn deliver_end<S: Handle<Stream<C, L, R>>, C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    to: &mut S,
    key: Key,
    index: u16,
) {
    let Some(link) = find::<C, L, R>(core, key) else { return };
    link.conn.deliver_end();
    // Input that arrived before the failure of a paused stream leaves with the stream.
    if let Some((operation, error)) = link.take_error() {
        return core.fail(key, operation, error);
    }
    if let Err(failure) = end_of_layers(link) {
        return core.close(key, Closed::Truncated(failure));
    }
    let mut input = mem::take(&mut link.unread);
    let more = match link.stream.codec.end(&mut input) {
        Ok(Some(item)) => received::<S, C, L, R>(core, to, key, index, item),
        Ok(None) => true,
        Err(failure) => {
            core.close(key, Closed::Truncated(failure));
            false
        }
    };
    core.pool.give(input);
    if more && find::<C, L, R>(core, key).is_some_and(|link| !link.conn.is_closing()) {
        emit::<S, Stream<C, L, R>>(core, to, key, index, Event::End);
        after_end::<C, L, R>(core, key);
    }
}

fn end_of_layers<C: Codec, L: Layer, R: 'static>(link: &mut Link<C, L, R>) -> session::Result {
    let raw = link.rare.as_mut().map(|rare| mem::take(&mut rare.raw)).unwrap_or_default();
    if link.stream.session.ended() { Ok(()) } else { link.stream.session.end(&raw) }
}

/// Closes the stream after the peer's end, unless it is half open. A spliced stream passes the end on.
fn after_end<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) {
    pass_end_on::<C, L, R>(core, key);
    let Some(link) = find::<C, L, R>(core, key) else { return };
    if link.conn.closes_after_end(link.stream.half_open) {
        core.close(key, Closed::End);
    }
}

pub(super) fn pause<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key, paused: bool) {
    if let Some(link) = find::<C, L, R>(core, key) {
        let has_kept = link.has_kept();
        if link.conn.pause(paused, has_kept) {
            core.drive_again(key);
        }
        core.mark(key);
    }
}

/// Lends a layer its buffers for a request of the service.
pub(crate) fn with_layer<C: Codec, L: Layer, R: 'static, T>(
    core: &mut LoopState,
    key: Key,
    ask: impl FnOnce(&mut L, &mut session::Io<'_>) -> session::Result<T>,
) -> Option<session::Result<T>> {
    let result = breaking(core, key, |core| {
        let LoopState { registry, pool, .. } = core;
        let link = registry.live(key).and_then(|s| s.resource.as_mut()?.downcast_mut::<Link<C, L, R>>())?;
        Some(link.stream.session.with_layer(pool, ask))
    })?;
    core.mark(key);
    Some(result)
}
