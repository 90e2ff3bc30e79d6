//! Output of a stream: items into the queue, the queue into one write a turn, and the engine's interest.

use std::io;

use session::{Codec, Layer, Mark, Phase};

use super::{after::After, conn::NextStep, link::Link};
use crate::{
    clock::Time,
    engine::{Ending, Outgoing, Sent},
    error::Closed,
    id::Key,
    resource::{Flow, encode_whole, rest::RestReason},
    runtime::{LoopState, ports::Ports, registry::Slot},
};

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
    let Some(Slot { head, resource }) = registry.get_mut(key).filter(|slot| slot.service == index) else {
        return Flow::Gone;
    };
    let link = resource.as_mut().and_then(|resource| resource.downcast_mut::<Link<C, L, R>>());
    let Some(link) = link.filter(|link| takes(link)) else { return Flow::Gone };
    let stream = &mut link.stream;
    let out = stream.session.out(pool);
    let (encoded, mark) = encode_whole(out, broken, key, |out| encode(&mut stream.codec, out));
    let (more, len) = (out.count(), out.len());
    if *input == key {
        link.caused += out.since(mark);
    }
    if !std::mem::replace(&mut head.dirty, true) {
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
    let call = (core.counters.handled as u32, core.input != Key::NONE);
    let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) else { return Flow::Gone };
    let mut after = After::default();
    if let Err(failure) = encoded {
        link.close(&mut ports, Closed::Refused(failure), &mut after);
        after.apply(core, key);
        return Flow::Gone;
    }
    match link.has_posted(&mut ports, call, mark, &mut after) {
        Posted::Queued => Flow::Queued,
        Posted::High => {
            after.apply(core, key);
            Flow::High
        }
        Posted::Overflow => {
            core.end(key, Closed::Overflow, Ending::Orderly);
            Flow::Gone
        }
        // If others hold more, or made no progress for longer, they end instead, and this stream continues.
        Posted::OverBudget if core.make_room() => posted::<C, L, R>(core, key, Ok(()), mark),
        Posted::OverBudget => {
            core.end(key, Closed::OverBudget, Ending::Orderly);
            Flow::Gone
        }
    }
}

/// What becomes of an item that passed a mark or a limit.
enum Posted {
    Queued,
    High,
    /// The queue has no room for it.
    Overflow,
    /// The runtime has no room for it.
    OverBudget,
}

/// Writes the queue once, and handles the consequences.
pub(super) fn flush<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) {
    let LoopState { registry, engine, pool, counters, budget, .. } = core;
    let Some(slot) = registry.get_mut(key) else { return };
    let Some(link) = slot.resource.as_mut().and_then(|r| r.downcast_mut::<Link<C, L, R>>()) else { return };
    // The common case: an open stream without layers, whose queue the kernel takes whole. It needs no ports,
    // and to gather them would cost 30 instructions a message.
    if !link.is_plain() || budget.is_tight() {
        return flush_all::<C, L, R>(core, key);
    }
    let Some(queue) = link.stream.session.take_wire() else { return };
    let (len, memory) = (queue.len(), queue.memory());
    match engine.send(key, queue) {
        Some(Sent { queue, result: Ok(taken) }) if queue.is_empty() => {
            counters.bytes_out += taken as u64;
            pool.give_outgoing(queue);
            link.caused = 0;
            let kept = link.kept();
            budget.settle(&mut link.counted, kept);
        }
        sent => {
            (link.flying, link.flight) = (len, memory);
            left::<C, L, R>(core, key, sent);
        }
    }
}

/// Seals and writes the queue of a stream that is not plain.
#[inline(never)]
fn flush_all<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) {
    let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) else { return };
    let mut after = After::default();
    link.flush(&mut ports, &mut after);
    after.apply(core, key);
}

/// Goes on after a write that has not taken the whole queue. `None` if the engine keeps it.
#[inline(never)]
fn left<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key, sent: Option<Sent>) {
    let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) else { return };
    let mut after = After::default();
    match sent {
        None => link.flies(&mut ports, link.flying, link.flight),
        Some(sent) => {
            if link.take_back(&mut ports, sent, &mut after) {
                link.write(&mut ports, &mut after);
            }
            link.settle(&mut ports, &mut after);
        }
    }
    after.apply(core, key);
}

/// Writes the queue in the middle of a turn, and lets a completion-based engine begin the write at once.
pub(super) fn flush_now<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) {
    flush::<C, L, R>(core, key);
    core.engine.submit();
}

/// Handles the end of a send that took a while.
pub(super) fn sent<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key, sent: Sent) {
    let Some((link, ports)) = core.enter::<Link<C, L, R>>(key) else {
        return core.pool.give_outgoing(sent.queue);
    };
    // The common case: an open stream without layers, all of whose output has left.
    if let (true, Ok(taken)) = (sent.queue.is_empty() && !ports.budget.is_tight(), &sent.result) {
        link.flying = 0;
        if link.is_plain() && link.stream.session.has_no_queue() {
            link.flight = 0;
            ports.head.internal_deadline = Time::NEVER;
            ports.counters.bytes_out += *taken as u64;
            link.caused = 0;
            ports.pool.give_outgoing(sent.queue);
            let kept = link.kept();
            return ports.budget.settle(&mut link.counted, kept);
        }
    }
    let (mut ports, mut after) = (ports, After::default());
    link.take_back(&mut ports, sent, &mut after);
    if link.conn.is_timed() && !link.conn.is_broken() {
        link.progressed();
        ports.set_internal_deadline(None);
    }
    ports.mark();
    after.apply(core, key);
}

/// Handles a write that a transfer has made past the queue, and that failed.
pub(super) fn write_failed<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key, error: io::Error) {
    let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) else { return };
    let mut after = After::default();
    link.write_failed(&mut ports, error, &mut after);
    after.apply(core, key);
}

impl<C: Codec, L: Layer, R: 'static> Link<C, L, R> {
    /// Handles an item that was queued in this call, and passed a mark or a limit.
    fn has_posted(
        &mut self,
        ports: &mut Ports<'_>,
        (call, is_input): (u32, bool),
        mark: Mark,
        after: &mut After,
    ) -> Posted {
        let queued = self.queued();
        let within = ports.budget.is_within();
        let is_alone = self.stream.session.out(ports.pool).since(mark) == queued;
        let passes = !self.conn.is_high() && queued > self.options().high;
        if passes {
            self.crossed = call;
        }
        let is_answer = is_input && self.crossed == call;
        if !self.has_room(is_alone, is_answer) {
            return Posted::Overflow;
        }
        if !within {
            return Posted::OverBudget;
        }
        if !self.conn.is_high() && !passes {
            return Posted::Queued;
        }
        self.conn.set_high(true);
        if passes && self.conn.is_paired() {
            after.hold_partner(true);
        }
        self.pressed(ports);
        Posted::High
    }

    /// Seals and writes the queue of a stream that is not plain.
    fn flush(&mut self, ports: &mut Ports<'_>, after: &mut After) {
        if self.conn.is_connecting() {
            if self.conn.is_concluding() && self.queued() == 0 {
                after.end(self.take_why(), Ending::Orderly);
            }
            return;
        }
        let session = &mut self.stream.session;
        // A direct session has nothing to seal, but its end must still be noted.
        if (session.closing() || !session.direct())
            && session.phase() != Phase::Idle
            && let Err(failure) = session.fill(ports.pool)
        {
            self.layer_failed(ports, failure, after);
        }
        self.write(ports, after);
        self.settle(ports, after);
    }

    /// Hands the queue to the engine, unless it already has one.
    fn write(&mut self, ports: &mut Ports<'_>, after: &mut After) {
        // Offer a partial write once more, so that the engine keeps the rest until there is room.
        for _ in 0..2 {
            if self.flying > 0 || !self.conn.may_write() || after.is_over() {
                return;
            }
            let Some(queue) = self.stream.session.take_wire() else { return };
            let (len, memory) = (queue.len(), queue.memory());
            self.flight = memory;
            match ports.engine.send(ports.key, queue) {
                None => return self.flies(ports, len, memory),
                Some(sent) => {
                    if !self.take_back(ports, sent, after) {
                        return;
                    }
                }
            }
        }
        ports.mark();
    }

    /// Notes that the engine keeps the queue until there is room. From now on it must make progress.
    fn flies(&mut self, ports: &mut Ports<'_>, len: usize, memory: usize) {
        (self.flying, self.flight) = (len, memory);
        if self.conn.is_timed()
            && let Some(patience) = self.patience()
        {
            ports.set_internal_deadline_later(patience);
        }
    }

    /// Ends a send, and puts the rest in front of the queue. Returns `true` if there is a rest.
    fn take_back(&mut self, ports: &mut Ports<'_>, sent: Sent, after: &mut After) -> bool {
        let (before, left) = (self.memory(), sent.queue.len());
        (self.flying, self.flight) = (0, 0);
        self.stream.session.restore(sent.queue, ports.pool);
        self.recount_less(ports.budget, before);
        match sent.result {
            Ok(taken) => {
                ports.counters.bytes_out += taken as u64;
                self.caused = self.caused.saturating_sub(taken);
                if taken > 0 {
                    self.moved = ports.budget.period();
                    if self.conn.is_concluding() {
                        self.close_progressed(ports, taken);
                    }
                }
                left > 0
            }
            Err(error) => {
                self.write_failed(ports, error, after);
                false
            }
        }
    }

    /// Handles a failed write side. Input that arrived before is delivered first. Then the stream ends.
    fn write_failed(&mut self, ports: &mut Ports<'_>, error: io::Error, after: &mut After) {
        match self.conn.write_failed() {
            NextStep::Fail => return after.fail(("write", error)),
            NextStep::Note => (),
            _ => return,
        }
        self.rare().error.get_or_insert(("write", error));
        if self.has_kept() {
            ports.drive_again();
        }
        if self.conn.has_partner() {
            after.hold_partner(false);
        }
        ports.set_internal_deadline(Some(self.options().close));
    }

    /// Handles the consequences of a write: marks, closing, releasing, reading.
    fn settle(&mut self, ports: &mut Ports<'_>, after: &mut After) {
        if after.is_over() {
            return;
        }
        self.recount(ports.budget);
        if self.queued() <= self.options().low && self.conn.drained() {
            ports.drive_again();
            if self.conn.has_partner() {
                after.hold_partner(false);
            }
        }
        if self.end_rest() {
            ports.drive_again();
        }
        if self.conn.is_ending() {
            self.proceed(ports, after);
            if after.is_over() {
                return;
            }
        }
        if self.has_more_to_write() {
            ports.mark(); // It is sealed in pieces: the next piece leaves in the next turn.
        }
        self.sync(ports);
    }

    /// Updates the engine's interest in input, if it has changed.
    #[inline]
    fn sync(&mut self, ports: &mut Ports<'_>) {
        let mut wanted = self.conn.wants_input();
        if wanted && self.conn.may_rest_for_bytes() {
            // A stream without output reads on, because a rest would not drain anything.
            let drains = self.queued() > 0 || self.conn.is_paired();
            if ports.budget.rests(ports.head.service) && drains && self.options().backpressure {
                wanted = false;
                if !std::mem::replace(&mut ports.head.resting, true) {
                    ports.budget.rest(ports.key);
                }
            }
        }
        if let Some(reads) = self.conn.sync(wanted) {
            let rests = self.conn.rests().with(RestReason::Shortage, ports.head.resting);
            crate::log::reading(ports.key, reads, rests);
            ports.engine.reading(ports.key, reads);
        }
    }
}
