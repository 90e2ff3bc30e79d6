//! The driver of user resources: watches level-triggered, calls `step`, and flushes the write queue.

use std::{any::Any, io, time::Duration};

use super::{
    CLOSING, Flow, Io, Pollable, Vtable, Writable, encode_whole, is_passing,
    pause::{Pause, is_passing_send},
    release_refused,
};
use crate::{
    clock::Time,
    engine::{self, Ending, Engine, Identity, Interest, Outgoing, Ready, Source},
    error::{Closed, Error, Phase},
    guard,
    id::{Id, Key},
    panics::{Blame, During},
    runtime::{
        Context, Handle, LoopState,
        dispatch::{emit, service},
        pressure::Holding,
    },
};

/// The most steps of one resource in one turn.
const STEPS_MAX: u32 = 64;
/// Above this queue length the service has to hold back.
pub(crate) const QUEUE_HIGH: usize = 64 << 10;
/// Above this queue length the resource ends.
const QUEUE_CAP: usize = 4 << 20;
/// How long a graceful close may go without progress.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// The time for a last write before stalled output ends its resource.
const LAST_TRY: Duration = Duration::from_millis(1);

const EXCHANGED: &str = "the source of a registered resource was exchanged";

/// A user's resource and its state in the runtime.
struct Custom<R> {
    resource: R,
    out: Option<Box<Outgoing>>,
    /// The identity at registration. Another one later is misuse.
    identity: Identity,
    watched: Option<Interest>,
    /// Whether to ask the engine again even with the same interest, because the engine may have stopped
    /// watching after a hang-up.
    again: bool,
    paused: bool,
    /// The input ended. Waiting for it would spin.
    ended: bool,
    closing: Option<Closed>,
    counted: usize,
    /// The period of the budget in which output last left.
    moved: u16,
    flush: Option<Flush<R>>,
    /// The system refuses for now to send or to connect. Nothing is tried before this time.
    rests: Option<Time>,
    pause: Pause,
    /// The resource has no connection yet, so it is not watched. It tries to connect until this time.
    connect_by: Option<Time>,
    reconnect: Option<Reconnect<R>>,
    close_by: Option<Time>,
    /// How long output may make no progress, as of the last sent item.
    stall: Option<Duration>,
    /// The time by which output has to make progress.
    stall_by: Option<Time>,
    /// `stall_by` has passed, and one more write is tried, because a busy loop may not have noticed that
    /// there is room.
    last_try: bool,
}

/// The function that writes a resource's queue. The first item sets it, because not every resource is
/// [`Writable`].
type Flush<R> = fn(&mut R, &mut Io<'_>, &mut Outgoing) -> io::Result<()>;

/// The function that tries again to connect.
pub(crate) type Reconnect<R> = fn(&mut R, &mut dyn Engine) -> io::Result<()>;

impl<R: Pollable> Custom<R> {
    fn queued(&self) -> usize {
        self.out.as_ref().map_or(0, |out| out.len())
    }

    /// Returns the memory that the budget counts.
    fn holds(&self) -> usize {
        self.out.as_ref().map_or(0, |out| out.memory())
    }

    /// Returns the present interest.
    fn wanted(&self) -> Option<Interest> {
        let own = self.resource.interest();
        let read =
            own.is_some_and(Interest::is_read) && !self.paused && !self.ended && self.closing.is_none();
        let write = own.is_some_and(Interest::is_write) && !self.paused && self.closing.is_none();
        Interest::from_parts(read, write || self.queued() > 0 && self.rests.is_none())
    }

    /// Returns the earliest of the runtime's internal deadlines.
    fn next_deadline(&self) -> Time {
        let all = [self.rests, self.connect_by, self.close_by, self.stall_by];
        all.into_iter().flatten().min().unwrap_or(Time::NEVER)
    }
}

pub(crate) fn view<R: Pollable>(slot: &dyn Any) -> Option<&R> {
    slot.downcast_ref::<Custom<R>>().map(|custom| &custom.resource)
}

pub(super) fn view_mut<R: Pollable>(slot: &mut dyn Any) -> Option<&mut R> {
    slot.downcast_mut::<Custom<R>>().map(|custom| &mut custom.resource)
}

fn find<R: Pollable>(core: &mut LoopState, key: Key) -> Option<&mut Custom<R>> {
    core.registry.get_mut(key)?.resource.as_mut()?.downcast_mut()
}

pub(super) fn table<S: Handle<R>, R: Pollable>() -> &'static Vtable {
    &Vtable {
        name: std::any::type_name::<R>,
        event: event::<S, R>,
        flush: flush::<R>,
        close: close::<R>,
        release: release::<R>,
        pause: pause::<R>,
        expired: expired::<R>,
        noted: |core, key, _| Closed::take_noted(&mut find::<R>(core, key)?.closing),
        holding: |core, key| {
            let of = |custom: &mut Custom<R>| Holding { bytes: custom.counted, moved: Some(custom.moved) };
            find::<R>(core, key).map(of).unwrap_or_default()
        },
        leave: leave::<R>,
        closed: closed::<S, R>,
        ..Vtable::NOTHING
    }
}

pub(crate) fn enroll<R: Pollable>(
    resource: R,
    core: &mut LoopState,
    index: u16,
    table: &'static Vtable,
) -> Result<Key, (R, Error)> {
    let mut resource = resource;
    match guard::call(|| resource.prepare()) {
        Ok(Ok(())) => (),
        Ok(Err(error)) => return Err((resource, error)),
        Err(text) => return Err((resource, unshown::<R>(io::Error::other(text)))),
    }
    let key = insert(resource, core, index, table, None)?;
    let LoopState { registry, engine, .. } = core;
    let custom = registry.get_mut(key).and_then(|slot| slot.resource.as_mut()?.downcast_mut::<Custom<R>>());
    let custom = custom.expect("it was inserted above");
    let source = guard::call(|| custom.resource.source()).map_err(io::Error::other);
    match source.and_then(|source| engine.watch(key, source, custom.watched)) {
        Ok(()) => Ok(key),
        Err(cause) => {
            let back = core.registry.take_back(key).and_then(|back| back.downcast::<Custom<R>>().ok());
            let back = back.expect("it was inserted above").resource;
            Err((back, unshown::<R>(cause)))
        }
    }
}

/// Registers a resource without a connection, because the system refuses one for now. The runtime tries again
/// until this time is over.
#[cfg(unix)]
pub(crate) fn attempt<R: Pollable>(
    resource: R,
    core: &mut LoopState,
    index: u16,
    table: &'static Vtable,
    (within, reconnect): (Duration, Reconnect<R>),
) -> Result<Key, (R, Error)> {
    let connect_by = core.now + within;
    let key = insert(resource, core, index, table, Some((connect_by, reconnect)))?;
    rest::<R>(core, key);
    Ok(key)
}

/// Returns the error for a resource that cannot be watched.
fn unshown<R>(cause: io::Error) -> Error {
    Error::os("watch", crate::log::short(std::any::type_name::<R>()), cause)
}

fn insert<R: Pollable>(
    resource: R,
    core: &mut LoopState,
    index: u16,
    table: &'static Vtable,
    connect: Option<(Time, Reconnect<R>)>,
) -> Result<Key, (R, Error)> {
    // If a resource cannot show its source, it comes back, and nothing is half registered.
    let refused = |resource, error| Err((resource, unshown::<R>(error)));
    let (identity, watched) = match guard::call(|| (resource.source().identity(), resource.interest())) {
        Ok(shown) => shown,
        Err(text) => return refused(resource, io::Error::other(text)),
    };
    let custom = Custom {
        identity,
        watched,
        resource,
        out: None,
        again: false,
        paused: false,
        ended: false,
        closing: None,
        counted: 0,
        moved: core.budget.period(),
        flush: None,
        rests: None,
        pause: Pause::default(),
        connect_by: connect.map(|(by, _)| by),
        reconnect: connect.map(|(_, reconnect)| reconnect),
        close_by: None,
        stall: None,
        stall_by: None,
        last_try: false,
    };
    match core.registry.insert(index, table, Box::new(custom)) {
        Ok(key) => Ok(key),
        Err(back) => {
            let custom = back.downcast::<Custom<R>>().expect("the registry gives back what it was given");
            Err((custom.resource, core.full_of_resources()))
        }
    }
}

fn event<S: Handle<R>, R: Pollable>(
    core: &mut LoopState,
    erased: &mut dyn Any,
    key: Key,
    event: engine::Event,
) {
    let engine::Event::Ready(ready) = event else { return };
    // The runtime handles writability for its queue. The resource handles everything else.
    if ready.can_write() && find::<R>(core, key).is_some_and(|custom| custom.queued() > 0) {
        core.mark(key);
    }
    let own = find::<R>(core, key).and_then(|custom| custom.resource.interest());
    let wanted = own.is_some_and(Interest::is_read) && ready.can_read()
        || own.is_some_and(Interest::is_write) && ready.can_write();
    if wanted && find::<R>(core, key).is_some_and(|custom| custom.closing.is_none() && !custom.paused) {
        let mut scratch = core.take_scratch();
        step_on::<S, R>(core, service(erased), key, ready, &mut scratch);
        core.scratch = Some(scratch);
    }
    sync::<R>(core, key, ready);
}

fn step_on<S: Handle<R>, R: Pollable>(
    core: &mut LoopState,
    to: &mut S,
    key: Key,
    ready: Ready,
    scratch: &mut [u8],
) {
    for step in 0..STEPS_MAX {
        let LoopState { registry, engine, counters, .. } = core;
        let Some(slot) = registry.get_mut(key) else { return };
        let index = slot.service;
        let Some(custom) = slot.resource.as_mut().and_then(|r| r.downcast_mut::<Custom<R>>()) else { return };
        if custom.closing.is_some() || custom.paused {
            return;
        }
        if custom.resource.source().identity() != custom.identity {
            return core.end(key, Closed::Misuse(EXCHANGED), Ending::Orderly);
        }
        let mut io = Io::new(&mut **engine, step == 0);
        let result = custom.resource.step(ready, &mut io, scratch);
        let outcome = io.outcome();
        counters.bytes_in += outcome.bytes_in;
        counters.bytes_out += outcome.bytes_out;
        custom.ended |= outcome.ended;
        match result {
            Ok(Some(event)) => {
                let goes_on = emit::<S, R>(core, to, key, index, event);
                if outcome.over {
                    return core.close(key, Closed::End);
                }
                if !goes_on || outcome.drained {
                    return;
                }
            }
            Ok(None) if outcome.over => return core.close(key, Closed::End),
            Ok(None) if !outcome.drained => (),
            Ok(None) => return,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return;
            }
            Err(error) => return core.fail(key, "step", error),
        }
    }
}

/// Updates the engine's interest.
fn sync<R: Pollable>(core: &mut LoopState, key: Key, ready: Ready) {
    let LoopState { registry, engine, .. } = core;
    let Some(custom) = registry.get_mut(key).and_then(|s| s.resource.as_mut()?.downcast_mut::<Custom<R>>())
    else {
        return;
    };
    let wanted = custom.wanted();
    // After a hang-up or error alone the engine has stopped watching. Only a change of interest resumes it.
    if custom.connect_by.is_some()
        || wanted == custom.watched && !custom.again
        || (ready.hangup || ready.error) && !ready.readable && !ready.writable
    {
        custom.watched = wanted;
        return;
    }
    (custom.watched, custom.again) = (wanted, false);
    if let Err(error) = engine.watch(key, custom.resource.source(), wanted) {
        core.fail(key, "watch", error);
    }
}

pub(super) fn post<R: Writable>(core: &mut LoopState, index: u16, key: Key, item: R::Item<'_>) -> Flow {
    let LoopState { registry, pool, budget, broken, .. } = core;
    let slot = registry.get_mut(key).filter(|slot| slot.service == index);
    let Some(custom) = slot.and_then(|s| s.resource.as_mut()?.downcast_mut::<Custom<R>>()) else {
        return Flow::Gone;
    };
    if custom.closing.is_some() {
        return Flow::Gone;
    }
    custom.flush = Some(R::flush);
    custom.stall = custom.resource.write_stall();
    let out = custom.out.get_or_insert_with(|| pool.take_outgoing());
    let resource = &mut custom.resource;
    let (encoded, _) = encode_whole(out, broken, key, |out| resource.encode(item, out));
    let (queued, holds) = (custom.queued(), custom.holds());
    let within = budget.recount(&mut custom.counted, holds) || core.make_room();
    core.mark(key);
    let end = match encoded {
        Err(failure) => Closed::Refused(failure),
        Ok(()) if queued > QUEUE_CAP => Closed::Overflow,
        Ok(()) if !within => Closed::OverBudget,
        Ok(()) if core.registry.get_mut(key).is_none() => return Flow::Gone,
        Ok(()) => return if queued > QUEUE_HIGH { Flow::High } else { Flow::Queued },
    };
    match end {
        Closed::Refused(_) => core.close(key, end),
        _ => core.end(key, end, Ending::Orderly),
    }
    Flow::Gone
}

fn flush<R: Pollable>(core: &mut LoopState, key: Key) {
    let LoopState { registry, engine, pool, counters, budget, .. } = core;
    let Some(custom) = registry.get_mut(key).and_then(|s| s.resource.as_mut()?.downcast_mut::<Custom<R>>())
    else {
        return;
    };
    if custom.resource.source().identity() != custom.identity {
        return core.end(key, Closed::Misuse(EXCHANGED), Ending::Orderly);
    }
    // The queue stays in its place, so that a panic loses none of it.
    if let (false, Some(out), Some(write)) = (custom.rests.is_some(), &mut custom.out, custom.flush) {
        let mut io = Io::new(&mut **engine, true);
        let result = if out.is_empty() { Ok(()) } else { write(&mut custom.resource, &mut io, out) };
        let taken = io.outcome().bytes_out;
        counters.bytes_out += taken;
        if let Some(empty) = custom.out.take_if(|out| out.is_empty()) {
            pool.give_outgoing(empty);
        }
        let holds = custom.holds();
        if holds < custom.counted {
            custom.moved = budget.period();
        }
        budget.recount(&mut custom.counted, holds);
        if taken > 0 {
            custom.pause = Pause::default();
            if custom.closing.is_some() && custom.queued() > 0 {
                custom.close_by = Some(core.now + CLOSE_MAX);
            }
        }
        if taken > 0 || custom.stall_by.is_none() || custom.queued() == 0 {
            custom.last_try = false;
            custom.stall_by = custom.stall.filter(|_| custom.queued() > 0).map(|stall| core.now + stall);
        }
        let deadline = custom.next_deadline();
        core.set_internal_deadline_at(key, deadline);
        match result {
            Err(error) if is_passing_send(&error) => rest::<R>(core, key),
            Err(error) if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return core.fail(key, "write", error);
            }
            _ => (),
        }
    }
    let Some(custom) = find::<R>(core, key) else { return };
    match custom.queued() {
        0 if custom.closing.is_some() => {
            let why = custom.closing.take().unwrap_or(Closed::Done);
            core.end(key, why, Ending::Orderly);
        }
        _ => sync::<R>(core, key, Ready::default()),
    }
}

fn close<R: Pollable>(core: &mut LoopState, key: Key, why: Closed) {
    let by = core.now + CLOSE_MAX;
    let Some(custom) = find::<R>(core, key) else { return };
    if custom.closing.is_some() {
        return Closed::note_failure(&mut custom.closing, why);
    }
    custom.closing = Some(why);
    if custom.queued() > 0 {
        custom.close_by = Some(by);
        let deadline = custom.next_deadline();
        core.set_internal_deadline_at(key, deadline);
    }
    core.mark(key);
}

/// Lets the resource rest until the next try.
fn rest<R: Pollable>(core: &mut LoopState, key: Key) {
    let now = core.now;
    let Some(custom) = find::<R>(core, key) else { return };
    custom.rests = Some(now + custom.pause.next());
    let deadline = custom.next_deadline();
    core.set_internal_deadline_at(key, deadline);
}

/// Handles the internal deadline: of a close, of a connect, of stalled output, or the end of a pause.
fn expired<R: Pollable>(core: &mut LoopState, key: Key) {
    let now = core.now;
    let Some(custom) = find::<R>(core, key) else { return };
    let is_over = |by: Option<Time>| by.is_some_and(|by| by <= now);
    if is_over(custom.close_by) {
        return core.end(key, Closed::TimedOut(Phase::Close), Ending::Orderly);
    }
    if is_over(custom.connect_by) {
        return core.end(key, Closed::TimedOut(Phase::Connect), Ending::Orderly);
    }
    if is_over(custom.stall_by) && custom.last_try {
        return core.end(key, Closed::Stalled, Ending::Reset);
    }
    if custom.connect_by.is_some() && !has_connected::<R>(core, key) {
        return;
    }
    let Some(custom) = find::<R>(core, key) else { return };
    custom.rests = None;
    if is_over(custom.stall_by) {
        custom.last_try = true;
        custom.stall_by = Some(now + LAST_TRY);
    }
    let deadline = custom.next_deadline();
    core.set_internal_deadline_at(key, deadline);
    core.mark(key);
}

/// Tries again to connect. Returns whether there is a connection now. Otherwise the resource rests on or has
/// ended.
fn has_connected<R: Pollable>(core: &mut LoopState, key: Key) -> bool {
    let LoopState { registry, engine, counters, .. } = core;
    let Some(custom) = registry.get_mut(key).and_then(|s| s.resource.as_mut()?.downcast_mut::<Custom<R>>())
    else {
        return false;
    };
    let reconnect = custom.reconnect.unwrap_or(|_, _| Ok(()));
    if let Err(error) = reconnect(&mut custom.resource, &mut **engine) {
        match is_passing(&error) {
            true => rest::<R>(core, key),
            false => core.fail(key, "connect", error),
        }
        return false;
    }
    counters.connects += 1;
    (custom.connect_by, custom.pause) = (None, Pause::default());
    (custom.identity, custom.watched) = (custom.resource.source().identity(), custom.wanted());
    match engine.watch(key, custom.resource.source(), custom.watched) {
        Ok(()) => true,
        Err(error) => {
            core.fail(key, "watch", error);
            false
        }
    }
}

fn release<R: Pollable>(core: &mut LoopState, key: Key) -> Result<(), Error> {
    let closing = find::<R>(core, key).and_then(|custom| custom.closing.as_ref());
    if closing.is_some_and(|why| !matches!(why, Closed::Released)) {
        return Err(release_refused(CLOSING));
    }
    close::<R>(core, key, Closed::Released);
    Ok(())
}

fn pause<R: Pollable>(core: &mut LoopState, key: Key, paused: bool) {
    if let Some(custom) = find::<R>(core, key) {
        custom.paused = paused;
        if !paused {
            // Watch again, because the engine stopped after an end or a hang-up.
            custom.ended = false;
            custom.again = true;
        }
        core.mark(key);
    }
}

/// Forgets the resource. Counts dropped output, and then a TCP peer sees a reset once the socket is closed.
/// The owner may prevent the reset by SO_LINGER.
fn leave<R: Pollable>(core: &mut LoopState, key: Key, how: Ending) {
    let LoopState { registry, engine, budget, records, .. } = core;
    let Some(slot) = registry.get_mut(key) else { return };
    let service = slot.service;
    let custom = slot.resource.as_mut().and_then(|resource| resource.downcast_mut::<Custom<R>>());
    let Some(custom) = custom else { return };
    budget.recount(&mut custom.counted, 0);
    let dropped = custom.queued();
    if let Some(record) = records.get_mut(service as usize) {
        record.bytes_dropped += dropped as u64;
    }
    // A resource may end from anywhere, even at the end of the runtime. If it cannot show its source any
    // more, the engine forgets it by its key.
    match guard::call(|| custom.resource.source()) {
        Ok(source) => {
            if (dropped > 0 || how == Ending::Reset)
                && let Ok(descriptor) = source.real()
            {
                crate::sys::reset_at_close(descriptor);
            }
            engine.unwatch(key, source);
        }
        Err(text) => {
            engine.unwatch(key, Source::hosted(u64::MAX));
            core.note_panic(service, text, Blame::on(During::Closed, key));
        }
    }
}

fn closed<S: Handle<R>, R: Pollable>(
    core: &mut LoopState,
    erased: &mut dyn Any,
    key: Key,
    resource: Box<dyn Any>,
    why: Closed,
) {
    let custom =
        resource.downcast::<Custom<R>>().expect("a table is only used with the resource it was made for");
    let Custom { resource, out, .. } = *custom;
    let index = core.calling;
    if let Some(out) = out {
        core.pool.give_outgoing(out);
    }
    service::<S>(erased).closed(&mut Context::new(core, index), Id::new(key), resource, why);
}
