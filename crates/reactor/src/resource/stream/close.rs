//! The ends of a stream: graceful close with lingering, half-close, release, deadlines.

use std::time::Duration;

use session::{Codec, Failure, Layer};

use super::{
    attempt,
    conn::{Expired, Next, Tail},
    input,
    link::find,
    loose::Loose,
    pressure,
};
use crate::{
    clock::Time,
    engine::{Ending, Transport},
    error::{Closed, Error, Phase},
    id::Key,
    resource::{CLOSING, release_refused},
    runtime::{LoopState, registry::Slot},
};

/// Begins a graceful close: the queued output leaves, then our end, and then the stream waits for the peer's
/// end. A running transfer was requested earlier, so all of its output leaves first, and the deadline of the
/// close starts after it.
pub(super) fn close<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key, why: Closed) {
    let Some(link) = find::<C, L, R>(core, key) else { return };
    let has_failed = why.is_clean() && link.has_error();
    match link.conn.close(has_failed) {
        Next::Note => return Closed::note_failure(&mut link.rare().why, why),
        Next::Fail => return input::fail_noted::<C, L, R>(core, key),
        Next::Conclude => (),
        _ => return,
    }
    let rare = link.rare();
    rare.is_cut |= matches!(why, Closed::Partner);
    rare.why = Some(why);
    // From here on there is one deadline: that of the close.
    core.set_deadline(key, None);
    conclude::<C, L, R>(core, key);
    core.mark(key);
}

/// Takes the reason that was noted before this end: the reason of the close, or a connection failure that the
/// service has not got yet.
pub(super) fn noted<C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    key: Key,
    end: &Closed,
) -> Option<Closed> {
    let rare = find::<C, L, R>(core, key)?.rare.as_mut()?;
    if let Some(why) = Closed::take_noted(&mut rare.why) {
        return Some(why);
    }
    if !end.is_cut() {
        return None;
    }
    let (operation, error) = rare.error.take()?;
    Some(Closed::Failed(Error::os(operation, core.name(key), error)))
}

/// Closes a stream whose layer has failed. The layer's alert still leaves. Unsealed output never will, so the
/// peer must not see an orderly end.
pub(super) fn layer_failed<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key, failure: Failure) {
    let LoopState { registry, pool, .. } = core;
    let link = registry.live(key).and_then(|s| s.resource.as_mut()?.downcast_mut::<super::Link<C, L, R>>());
    if let Some(link) = link {
        let lost = link.stream.session.discard(pool);
        if lost > 0 {
            let rare = link.rare();
            (rare.lost, rare.is_cut) = (rare.lost + lost, true);
        }
    }
    core.close(key, Closed::Refused(failure));
}

/// Continues a close or an end of the write side, unless a transfer still brings output.
pub(super) fn conclude<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) {
    let Some(link) = find::<C, L, R>(core, key).filter(|link| !link.conn.is_fed()) else { return };
    if link.conn.ends_output() && !link.is_marked_cut() {
        // The end of the transport is enough if the session is direct, because such a session has no end of
        // its own.
        link.stream.session.close();
    }
    if link.conn.is_closing() {
        let (bound, after) = (link.options().close, link.close_stall());
        if !attempt::bound::<C, L, R>(core, key, bound) {
            core.set_internal_deadline(key, after);
        }
    }
}

/// Moves the deadline of a close, because bytes have left. A deadline bounds only a standstill, and too low a
/// speed if `close_speed` is set.
pub(super) fn progress<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key, taken: usize) {
    let Some(link) = find::<C, L, R>(core, key) else { return };
    let (speed, after) = (link.options().close_speed, link.close_stall());
    let is_last = link.queued() == 0;
    let mut deadline = after.map_or(Time::NEVER, |after| core.now + after);
    // The peer's end gets the full time again.
    if speed > 0 && !is_last {
        let bought = Duration::from_secs_f64(taken as f64 / f64::from(speed));
        deadline =
            deadline.min(core.registry.live(key).map_or(Time::NEVER, |slot| slot.internal_deadline) + bought);
    }
    core.set_internal_deadline_at(key, deadline);
}

/// Ends the write side after the queued output. The stream continues to read.
pub(super) fn finish<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) {
    let Some(link) = find::<C, L, R>(core, key) else { return };
    match link.conn.finish() {
        Next::Close => core.close(key, Closed::Done),
        Next::Conclude => {
            conclude::<C, L, R>(core, key);
            core.mark(key);
        }
        _ => (),
    }
}

/// Begins to give the stream back. If a transfer feeds it, the transfer ends first, and the release waits for
/// a thread that still moves bytes for it, because only the stream's next owner may write to the socket. A
/// spliced stream leaves alone.
pub(super) fn release<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) -> Result<(), Error> {
    let Some(link) = find::<C, L, R>(core, key) else { return Ok(()) };
    if !link.conn.release() {
        return Err(release_refused(CLOSING));
    }
    let feeding = link.conn.is_fed();
    core.mark(key);
    let Some(other) = core.partners.get(&key).copied() else { return Ok(()) };
    if feeding {
        core.end(other, Closed::Released, Ending::Orderly);
        return Ok(());
    }
    core.partners.remove(&key);
    core.partners.remove(&other);
    unsplice::<C, L, R>(core, key);
    if let Some(slot) = core.registry.peek(other) {
        let table = slot.table;
        (table.unsplice)(core, other);
    }
    Ok(())
}

/// Separates the stream from its partner. If its peer has ended, the stream then closes as it would have
/// without the splice.
pub(super) fn unsplice<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) {
    let Some(link) = find::<C, L, R>(core, key) else { return };
    link.conn.unsplice();
    core.drive_again(key);
    core.mark(key);
}

/// Takes the next step of the close, the half-close or the release after a write.
pub(super) fn proceed<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) {
    let Some(link) = find::<C, L, R>(core, key) else { return };
    let tail = Tail {
        is_empty: link.queued() == 0,
        is_sealed: link.stream.session.queued() == 0,
        phase: link.stream.session.phase(),
        is_cut: link.is_marked_cut(),
    };
    let mut next = link.conn.proceed(tail);
    if next == Next::Shutdown {
        let is_sent = core.engine.shutdown(key).is_ok();
        let Some(link) = find::<C, L, R>(core, key) else { return };
        next = link.conn.shut_down(is_sent);
    }
    match next {
        Next::Detach => core.engine.detach(key),
        Next::End => end_with_why::<C, L, R>(core, key),
        Next::EndBoth => core.end(key, Closed::End, Ending::Orderly),
        Next::Linger => core.registry.live(key).map(Slot::linger).unwrap_or_default(),
        _ => (),
    }
}

fn end_with_why<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) {
    if let Some(link) = find::<C, L, R>(core, key) {
        let why = link.take_why();
        core.end(key, why, Ending::Orderly);
    }
}

/// Ends the stream with its transport, which the engine gave back.
pub(super) fn detached<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key, transport: Transport) {
    let deadline = core.deadline_left(key);
    let Some(service) = core.registry.peek(key).map(|slot| slot.service) else { return };
    let loose = Loose::of(core, service, transport);
    let Some(link) = find::<C, L, R>(core, key) else { return };
    link.conn.detached();
    let loose = loose.with(link.unsent(), link.is_marked_cut());
    let carried = link.stream.carried.get_or_insert_default();
    (carried.loose, carried.deadline) = (Some(loose), deadline);
    core.end(key, Closed::Released, Ending::Orderly);
}

/// Handles the internal deadline. The state shows which deadline it was.
pub(super) fn expired<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) {
    let Some(link) = find::<C, L, R>(core, key) else { return };
    if link.rare.as_ref().is_some_and(|rare| rare.attempt.is_some()) {
        return attempt::again::<C, L, R>(core, key);
    }
    let expired = link.conn.expired();
    if expired == Expired::Stall && pressure::waited::<C, L, R>(core, key) {
        return;
    }
    let (why, how) = match expired {
        Expired::Linger => return end_with_why::<C, L, R>(core, key),
        Expired::Broken => return input::fail_noted::<C, L, R>(core, key),
        Expired::Connect => {
            let target = find::<C, L, R>(core, key).and_then(|link| link.take_target());
            return core.end_late_connect(key, target.as_ref());
        }
        Expired::Close => (Closed::TimedOut(Phase::Close), Ending::Orderly),
        Expired::Handshake => (Closed::TimedOut(Phase::Handshake), Ending::Orderly),
        Expired::Stall => (Closed::Stalled, Ending::Reset),
    };
    core.end(key, why, how);
}
