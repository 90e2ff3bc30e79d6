//! The ends of a stream: graceful close with lingering, half-close, release, deadlines.

use std::time::Duration;

use session::{Codec, Failure, Layer, Phase};

use super::{
    attempt,
    link::{State, find},
    loose::Loose,
    pressure,
};
use crate::{
    clock::Time,
    engine::{Ending, Transport},
    error::{self, Closed, Error},
    id::Key,
    resource::{CLOSING, release_refused},
    runtime::Core,
};

/// Begins a graceful close: the queued output leaves, then our end, and then the stream waits for the peer's
/// end. A running transfer was requested earlier, so all of its output leaves first, and the deadline of the
/// close starts after it.
pub(super) fn close<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key, why: Closed) {
    let Some(link) = find::<C, L, R>(core, key) else { return };
    if link.closing {
        return Closed::note_failure(&mut link.rare().why, why);
    }
    if link.detaching {
        return;
    }
    // A stream that has already failed does not close in order, whatever the caller requested.
    if why.is_clean()
        && let Some((operation, error)) = link.take_error()
    {
        return core.fail(key, operation, error);
    }
    link.closing = true;
    link.releasing = false;
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
    core: &mut Core,
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
pub(super) fn layer_failed<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key, failure: Failure) {
    let Core { registry, pool, .. } = core;
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
pub(super) fn conclude<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) {
    let Some(link) = find::<C, L, R>(core, key).filter(|link| !link.feeding) else { return };
    if (link.closing || link.finishing) && !link.is_marked_cut() {
        // The end of the transport is enough if the session is direct, because such a session has no end of
        // its own.
        link.stream.session.close();
    }
    if link.closing {
        let (bound, after) = (link.options().close, link.close_stall());
        if !attempt::bound::<C, L, R>(core, key, bound) {
            core.set_guard(key, after);
        }
    }
}

/// Moves the deadline of a close, because bytes have left. A deadline bounds only a standstill, and too low a
/// speed if `close_speed` is set.
pub(super) fn progress<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key, taken: usize) {
    let Some(link) = find::<C, L, R>(core, key) else { return };
    let (speed, after) = (link.options().close_speed, link.close_stall());
    let is_last = link.queued() == 0;
    let mut guard = after.map_or(Time::NEVER, |after| core.now + after);
    // The peer's end gets the full time again.
    if speed > 0 && !is_last {
        let bought = Duration::from_secs_f64(taken as f64 / f64::from(speed));
        guard = guard.min(core.registry.live(key).map_or(Time::NEVER, |slot| slot.guard) + bought);
    }
    core.set_guard_at(key, guard);
}

/// Ends the write side after the queued output. The stream continues to read.
pub(super) fn finish<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) {
    let Some(link) = find::<C, L, R>(core, key) else { return };
    if link.deaf {
        // The stream has only one direction, so its end is the end of the stream.
        return core.close(key, Closed::Done);
    }
    if !link.finishing && !link.mute {
        link.finishing = true;
        conclude::<C, L, R>(core, key);
        core.mark(key);
    }
}

/// Begins to give the stream back. If a transfer feeds it, the transfer ends first, and the release waits for
/// a thread that still moves bytes for it, because only the stream's next owner may write to the socket. A
/// coupled stream leaves alone.
pub(super) fn release<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) -> Result<(), Error> {
    let Some(link) = find::<C, L, R>(core, key) else { return Ok(()) };
    if link.closing {
        return Err(release_refused(CLOSING));
    }
    link.releasing = true;
    let feeding = link.feeding;
    core.mark(key);
    let Some(other) = core.couples.get(&key).copied() else { return Ok(()) };
    if feeding {
        core.end(other, Closed::Released, Ending::Orderly);
        return Ok(());
    }
    core.couples.remove(&key);
    core.couples.remove(&other);
    uncouple::<C, L, R>(core, key);
    if let Some(slot) = core.registry.peek(other) {
        let table = slot.table;
        (table.uncouple)(core, other);
    }
    Ok(())
}

/// Separates the stream from its partner. If its peer has ended, the stream then closes as it would have
/// without the couple.
pub(super) fn uncouple<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) {
    let Some(link) = find::<C, L, R>(core, key) else { return };
    // After this, no partner would report that its queue has drained.
    (link.coupled, link.held) = (false, false);
    core.drive_again(key);
    core.mark(key);
}

/// Takes the next step of the close, the half-close or the release after a write.
pub(super) fn proceed<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) {
    let Some(link) = find::<C, L, R>(core, key) else { return };
    if link.releasing {
        // A send in flight comes back before the transport does.
        if !link.detaching && !link.feeding && link.state != State::Connecting {
            link.detaching = true;
            core.engine.detach(key);
        }
        return;
    }
    if link.closing && link.is_marked_cut() && (link.queued() == 0 || link.write_failed) {
        // An orderly end of the layer would be as false as one of the transport.
        return end_with_why::<C, L, R>(core, key);
    }
    // A handshake continues only for output that is queued behind it.
    let handshake = matches!(link.stream.session.phase(), Phase::Idle | Phase::Handshake);
    let waits = if handshake {
        link.stream.session.queued() > 0
    } else {
        link.stream.session.phase() != Phase::Finished
    };
    // The peer has ended inside the handshake, so output queued behind it can never leave.
    let is_hopeless = link.ended && link.stream.session.phase() == Phase::Handshake;
    if !is_hopeless && (link.queued() > 0 && !link.write_failed || waits && !link.write_failed && !link.shut)
    {
        return;
    }
    let gone = link.ended || link.write_failed;
    if link.closing && gone || link.finishing && link.end_told && link.shut {
        let why = if link.closing { link.take_why() } else { Closed::End };
        return core.end(key, why, Ending::Orderly);
    }
    // A read-only or write-only socket may have another user, so do not shut it down.
    if (link.mute || link.deaf) && link.closing {
        return end_with_why::<C, L, R>(core, key);
    }
    if !link.shut {
        link.shut = true;
        let closing = link.closing;
        let told = core.engine.shutdown(key);
        match told {
            // The peer is gone, so there is nothing left to wait for.
            Err(_) if closing => return end_with_why::<C, L, R>(core, key),
            Err(_) => (),
            Ok(()) if find::<C, L, R>(core, key).is_some_and(|link| link.end_told && !link.closing) => {
                return core.end(key, Closed::End, Ending::Orderly);
            }
            Ok(()) => (),
        }
    }
    linger::<C, L, R>(core, key);
}

fn linger<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) {
    let Some(slot) = core.registry.live(key) else { return };
    let link = slot.resource.as_mut().and_then(|r| r.downcast_mut::<super::Link<C, L, R>>());
    if let Some(link) = link
        && link.closing
    {
        link.state = State::Lingering;
        slot.linger();
    }
}

fn end_with_why<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) {
    if let Some(link) = find::<C, L, R>(core, key) {
        let why = link.take_why();
        core.end(key, why, Ending::Orderly);
    }
}

/// Ends the stream with its transport, which the engine gave back.
pub(super) fn detached<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key, transport: Transport) {
    let deadline = core.deadline_left(key);
    let Some(service) = core.registry.peek(key).map(|slot| slot.service) else { return };
    let loose = Loose::of(core, service, transport);
    let Some(link) = find::<C, L, R>(core, key) else { return };
    link.detached = true;
    let loose = loose.with(link.unsent(), link.is_marked_cut());
    let carried = link.stream.carried.get_or_insert_default();
    (carried.loose, carried.deadline) = (Some(loose), deadline);
    core.end(key, Closed::Released, Ending::Orderly);
}

/// Handles the internal deadline. The state shows which deadline it was.
pub(super) fn expired<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) {
    let Some(link) = find::<C, L, R>(core, key) else { return };
    if link.rare.as_ref().is_some_and(|rare| rare.attempt.is_some()) {
        return attempt::again::<C, L, R>(core, key);
    }
    let is_in_flight = link.state == State::Open && !link.is_concluding() && !link.write_failed;
    if is_in_flight && pressure::waited::<C, L, R>(core, key) {
        return;
    }
    let Some(link) = find::<C, L, R>(core, key) else { return };
    let (why, how) = match link.state {
        State::Lingering => return end_with_why::<C, L, R>(core, key),
        _ if link.is_concluding() => (Closed::TimedOut(error::Phase::Close), Ending::Orderly),
        State::Connecting => (Closed::TimedOut(error::Phase::Connect), Ending::Orderly),
        State::Handshake => (Closed::TimedOut(error::Phase::Handshake), Ending::Orderly),
        State::Open if link.write_failed => match link.take_error() {
            Some((operation, error)) => return core.fail(key, operation, error),
            None => (Closed::Stalled, Ending::Reset),
        },
        State::Open => (Closed::Stalled, Ending::Reset),
    };
    core.end(key, why, how);
}
