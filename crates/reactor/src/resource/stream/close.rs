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
    core::Core,
    engine::{Ending, Transport},
    error::{self, Closed, Error},
    id::Key,
    resource::{CLOSING, release_refused},
};

/// Begins a graceful close: what is queued leaves, then our end is told, then the peer's is waited for. What a transfer
/// brings was asked for before: all of it comes first, and the close has its deadline from there on.
pub(super) fn close<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key, why: Closed) {
    let Some(link) = find::<C, L, R>(core, key) else { return };
    if link.closing {
        return Closed::note_failure(&mut link.rare().why, why);
    }
    if link.detaching {
        return;
    }
    // What has failed already is not closed in order, whoever asks for it.
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

/// Takes why the stream ends, if it was noted before this end: why it closes, or a failure of the connection that the
/// service has not been told.
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

/// Closes a stream whose layer has failed. Its alert leaves; what was not sealed never will, and so the peer must not see
/// an end in order.
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

/// Goes on with a close or an end of the write side, unless a transfer still brings output.
pub(super) fn conclude<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) {
    let Some(link) = find::<C, L, R>(core, key).filter(|link| !link.feeding) else { return };
    if (link.closing || link.finishing) && !link.is_marked_cut() {
        // A direct session has no end of its own: the transport's is enough.
        link.stream.session.close();
    }
    if link.closing {
        let (bound, after) = (link.options().close, link.close_stall());
        if !attempt::bound::<C, L, R>(core, key, bound) {
            core.set_guard(key, after);
        }
    }
}

/// Bytes of a stream that closes have left: only standing still is bounded by time, and too little speed if that is asked
/// for.
pub(super) fn progress<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key, taken: usize) {
    let Some(link) = find::<C, L, R>(core, key) else { return };
    let (speed, after) = (link.options().close_speed, link.close_stall());
    let is_last = link.queued() == 0;
    let mut guard = after.map_or(Time::NEVER, |after| core.now + after);
    // The end has the whole time again.
    if speed > 0 && !is_last {
        let bought = Duration::from_secs_f64(taken as f64 / f64::from(speed));
        guard = guard.min(core.registry.live(key).map_or(Time::NEVER, |slot| slot.guard) + bought);
    }
    core.set_guard_at(key, guard);
}

/// Ends the write side after what is queued; the stream goes on reading.
pub(super) fn finish<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) {
    let Some(link) = find::<C, L, R>(core, key) else { return };
    if link.deaf {
        // One of two directions cannot be ended alone where there is only one.
        return core.close(key, Closed::Done);
    }
    if !link.finishing && !link.mute {
        link.finishing = true;
        conclude::<C, L, R>(core, key);
        core.mark(key);
    }
}

/// Begins to give the stream back. A transfer ends first: what a thread moves for it is still waited for, because the
/// stream's next owner must be the only one that writes to the socket.
/// One of a couple leaves alone.
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

/// What it was coupled with does not concern it any more. One whose peer has ended closes then as it would have.
pub(super) fn uncouple<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) {
    let Some(link) = find::<C, L, R>(core, key) else { return };
    // Nobody would tell it any more that the other's queue has drained.
    (link.coupled, link.held) = (false, false);
    core.drive_again(key);
    core.mark(key);
}

/// After a write: whether the close, the half-close or the release has come a step further.
pub(super) fn proceed<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) {
    let Some(link) = find::<C, L, R>(core, key) else { return };
    if link.releasing {
        // A send that is out comes back before the transport does.
        if !link.detaching && !link.feeding && link.state != State::Connecting {
            link.detaching = true;
            core.engine.detach(key);
        }
        return;
    }
    if link.closing && link.is_marked_cut() && (link.queued() == 0 || link.write_failed) {
        // The layer's end would be as false as that of the transport.
        return end_with_why::<C, L, R>(core, key);
    }
    // A handshake is driven to its end for what is queued behind it, and for nothing else.
    let handshake = matches!(link.stream.session.phase(), Phase::Idle | Phase::Handshake);
    let waits = if handshake {
        link.stream.session.queued() > 0
    } else {
        link.stream.session.phase() != Phase::Finished
    };
    // The peer has ended inside the handshake: what is queued behind it can never leave.
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
    // A socket that is only read or only written here has another user, for whom it is not shut down.
    if (link.mute || link.deaf) && link.closing {
        return end_with_why::<C, L, R>(core, key);
    }
    if !link.shut {
        link.shut = true;
        let closing = link.closing;
        let told = core.engine.shutdown(key);
        match told {
            // The peer is gone: nothing is left to wait for.
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

/// The engine gave the transport back: the stream is whole, and leaves.
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

/// The runtime's own deadline of this stream passed: which one it was follows from the state.
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
