//! The ends of a stream: graceful close with lingering, half-close, release, deadlines.

use std::time::Duration;

use session::{Codec, Failure, Layer};

use super::{
    after::After,
    conn::{Expired, NextStep, Tail},
    link::{Link, find},
    loose::Loose,
};
use crate::{
    clock::Time,
    engine::{Ending, Transport},
    error::{Closed, Error, Phase},
    id::Key,
    resource::{CLOSING, release_refused},
    runtime::{LoopState, ports::Ports},
};

/// Begins a graceful close.
pub(super) fn close<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key, why: Closed) {
    let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) else { return };
    let mut after = After::default();
    link.close(&mut ports, why, &mut after);
    after.apply(core, key);
}

impl<C: Codec, L: Layer, R: 'static> Link<C, L, R> {
    /// Begins a graceful close: the queued output leaves, then our end, and then the stream waits for the
    /// peer's end. A running transfer was requested earlier, so all of its output leaves first, and the
    /// deadline of the close starts after it. If the reason cuts the output, there is no end of ours: the peer
    /// sees a reset behind the queue.
    pub(super) fn close(&mut self, ports: &mut Ports<'_>, why: Closed, after: &mut After) {
        let has_failed = why.is_clean() && self.has_error();
        let is_cut = self.conn.is_cut_by(&why);
        match self.conn.close(has_failed) {
            NextStep::Note => return Closed::note_failure(&mut self.rare().why, why),
            NextStep::Fail => return self.fail_noted(after),
            NextStep::Conclude => (),
            _ => return,
        }
        let rare = self.rare();
        rare.is_cut |= is_cut;
        rare.why = Some(why);
        // From here on there is one deadline: that of the close.
        ports.forget_deadline();
        after.drop_last_words();
        self.conclude(ports);
        ports.mark();
    }

    /// Ends the stream with the failure of its connection that it keeps.
    pub(super) fn fail_noted(&mut self, after: &mut After) {
        if let Some(error) = self.take_error() {
            after.fail(error);
        }
    }

    /// Closes a stream whose layer has failed. The layer's alert still leaves. Unsealed output never will, so
    /// the peer must not see an orderly end.
    pub(super) fn layer_failed(&mut self, ports: &mut Ports<'_>, failure: Failure, after: &mut After) {
        let lost = self.stream.session.discard(ports.pool);
        if lost > 0 {
            let rare = self.rare();
            (rare.lost, rare.is_cut) = (rare.lost + lost, true);
        }
        self.close(ports, Closed::Refused(failure), after);
    }

    /// Continues a close or an end of the write side, unless a transfer still brings output.
    pub(super) fn conclude(&mut self, ports: &mut Ports<'_>) {
        if self.conn.is_fed() {
            return;
        }
        if self.conn.ends_output() && !self.is_marked_cut() {
            // The end of the transport is enough if the session is direct, because such a session has no end
            // of its own.
            self.stream.session.close();
        }
        if self.conn.is_closing() {
            let (bound, after) = (self.options().close, self.close_stall());
            if !self.bound_attempt(ports.now + bound) {
                ports.set_internal_deadline(after);
            }
        }
    }

    /// Moves the deadline of a close, because bytes have left. A deadline bounds only a standstill, and too
    /// low a speed if `close_speed` is set.
    pub(super) fn close_progressed(&mut self, ports: &mut Ports<'_>, taken: usize) {
        let (speed, after) = (self.options().close_speed, self.close_stall());
        let is_last = self.queued() == 0;
        let mut guard = after.map_or(Time::NEVER, |after| ports.now + after);
        // The peer's end gets the full time again.
        if speed > 0 && !is_last {
            let bought = Duration::from_secs_f64(taken as f64 / f64::from(speed));
            guard = guard.min(ports.head.internal_deadline + bought);
        }
        ports.set_internal_deadline_at(guard);
    }

    /// Takes the next step of the close, the half-close or the release after a write.
    pub(super) fn proceed(&mut self, ports: &mut Ports<'_>, after: &mut After) {
        let tail = Tail {
            is_empty: self.queued() == 0,
            is_sealed: self.stream.session.queued() == 0,
            phase: self.stream.session.phase(),
            is_cut: self.is_marked_cut(),
        };
        let mut next = self.conn.proceed(tail);
        if next == NextStep::Shutdown {
            let is_sent = ports.engine.shutdown(ports.key).is_ok();
            next = self.conn.shut_down(is_sent);
        }
        match next {
            NextStep::Detach => ports.engine.detach(ports.key),
            NextStep::End => after.end(self.take_why(), Ending::Orderly),
            NextStep::EndBoth => after.end(Closed::End, Ending::Orderly),
            NextStep::Linger => ports.head.linger(),
            _ => (),
        }
    }
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

/// Ends the write side after the queued output. The stream continues to read.
pub(super) fn finish<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) {
    let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) else { return };
    let mut after = After::default();
    match link.conn.finish() {
        NextStep::Close => link.close(&mut ports, Closed::Done, &mut after),
        NextStep::Conclude => {
            link.conclude(&mut ports);
            ports.mark();
        }
        _ => (),
    }
    after.apply(core, key);
}

/// Begins to give the stream back. If a transfer feeds it, the transfer ends first, and the release waits for
/// a thread that still moves bytes for it, because only the stream's next owner may write to the socket. A
/// paired stream leaves alone.
pub(super) fn release<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) -> Result<(), Error> {
    let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) else { return Ok(()) };
    if !link.conn.release() {
        return Err(release_refused(CLOSING));
    }
    ports.mark();
    let feeding = link.conn.is_fed();
    let Some(other) = core.partners.get(&key).copied() else { return Ok(()) };
    if feeding {
        core.end(other, Closed::Released, Ending::Orderly);
        return Ok(());
    }
    core.partners.remove(&key);
    core.partners.remove(&other);
    unpair::<C, L, R>(core, key);
    if let Some(slot) = core.registry.get(other) {
        let table = slot.table;
        (table.unpair)(core, other);
    }
    Ok(())
}

/// Separates the stream from its partner. If its peer has ended, the stream then closes as it would have
/// without the pair.
pub(super) fn unpair<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) {
    let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) else { return };
    link.conn.unpair();
    ports.drive_again();
    ports.mark();
}

/// Ends the stream with its transport, which the engine gave back.
pub(super) fn detached<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key, transport: Transport) {
    let deadline = core.deadline_left(key);
    let Some(service) = core.registry.get(key).map(|slot| slot.service) else { return };
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
    let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) else { return };
    let mut after = After::default();
    if link.is_retrying() {
        link.try_again(&mut ports, &mut after);
    } else {
        link.expired(&mut ports, &mut after);
    }
    after.apply(core, key);
}

impl<C: Codec, L: Layer, R: 'static> Link<C, L, R> {
    fn expired(&mut self, ports: &mut Ports<'_>, after: &mut After) {
        let (why, how) = match self.conn.expired() {
            Expired::Stall if self.waited(ports) => return,
            Expired::Linger => (self.take_why(), Ending::Orderly),
            Expired::Broken => return self.fail_noted(after),
            Expired::Close => (Closed::TimedOut(Phase::Close), Ending::Orderly),
            Expired::Connect => return after.end_late_connect(self.take_target()),
            Expired::Handshake => (Closed::TimedOut(Phase::Handshake), Ending::Orderly),
            Expired::Stall => (Closed::Stalled, Ending::Reset),
        };
        after.end(why, how);
    }
}
