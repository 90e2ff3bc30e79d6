//! Input of a stream: from the engine through the layers and the codec to the handler.

use std::{any::Any, io, mem};

use session::{Codec, CodecError, Decoded, Failure, Layer, LayerError, Next, Phase};

use super::{
    Event, Stream,
    after::After,
    change::Undelivered,
    conn::{AtEnd, KeptInput},
    feed,
    link::{Link, Seen, find},
    output,
};
use crate::{
    engine::{self, Ending},
    error::{Closed, Error},
    file,
    id::Key,
    resource::{breaking, rest::RestReason},
    runtime::{
        Handle, LoopState,
        dispatch::{emit, service},
        ports::Ports,
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
    let Some((link, ports)) = core.enter::<Link<C, L, R>>(key) else { return };
    let (index, again) = (ports.head.service, ports.head.again);
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
        let used = {
            let decoded = link.stream.codec.decode(bytes);
            if matches!(decoded, Ok(Decoded::More)) {
                drop(decoded);
                let (mut ports, mut after) = (ports, After::default());
                link.keep(&mut ports, bytes, &mut after);
                link.watch_item(&mut ports, false);
                return after.apply(core, key);
            }
            match decoded {
                Ok(Decoded::Item(used, item)) if used > 0 && used <= len => {
                    link.seen = Seen::Nothing;
                    if !received::<S, C, L, R>(core, to, key, index, item) || used == len {
                        return;
                    }
                    used
                }
                Ok(Decoded::Skip(used)) if used > 0 && used <= len => {
                    link.seen = Seen::Skipped;
                    used
                }
                other => return core.close(key, Closed::Refused(refusal::<C, _>(other, len))),
            }
        };
        let used = used + deliver::<S, C, L, R>(core, to, key, &mut bytes[used..], ITEMS_MAX - 1);
        if used < bytes.len() {
            keep_rest::<C, L, R>(core, key, &bytes[used..]);
        }
        return;
    }
    let (mut ports, mut after) = (ports, After::default());
    let next = if link.conn.is_start_due() {
        up::<S, C, L, R>(core, to, key);
        let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) else {
            return hand_on(core, key, Undelivered::Wire(bytes));
        };
        link.take_in(&mut ports, bytes, &mut after)
    } else {
        link.take_in(&mut ports, bytes, &mut after)
    };
    after.apply(core, key);
    match next {
        Taken::Kept => (),
        Taken::Sealed => open::<S, C, L, R>(core, to, key, bytes),
        Taken::Clear => unread::<S, C, L, R>(core, to, key),
    }
}

/// Where input goes that is not delivered at once.
enum Taken {
    /// It is kept, or dropped.
    Kept,
    /// It goes through the layers.
    Sealed,
    /// It is behind the unread input, which may be delivered.
    Clear,
}

impl<C: Codec, L: Layer, R: 'static> Link<C, L, R> {
    /// Takes input that is not delivered at once.
    fn take_in(&mut self, ports: &mut Ports<'_>, bytes: &[u8], after: &mut After) -> Taken {
        if self.conn.discards_input() {
            return Taken::Kept;
        }
        let is_clear = self.stream.session.direct();
        if is_clear {
            self.keep(ports, bytes, after);
        }
        // Kept input comes first, later in this turn. This input goes behind it.
        match (ports.head.again, is_clear) {
            (true, true) => Taken::Kept,
            (true, false) => {
                self.rare().raw.extend_from_slice(bytes);
                self.bound_input(ports, after);
                Taken::Kept
            }
            (false, true) => Taken::Clear,
            (false, false) => Taken::Sealed,
        }
    }

    /// Appends clear input to the input that waits for the handler.
    fn keep(&mut self, ports: &mut Ports<'_>, bytes: &[u8], after: &mut After) {
        if self.unread.capacity() == 0 {
            (self.unread, self.moved) = (ports.pool.take(), ports.budget.period());
        }
        let (room, len) = (self.unread.capacity() - self.unread.len(), self.unread.len());
        if room < bytes.len() && len >= GROWN_LATE {
            // Grow by a quarter and not to twice the size, because unused capacity is memory too.
            self.unread.reserve_exact(bytes.len().max(len / 4));
        }
        self.unread.extend_from_slice(bytes);
        self.bound_input(ports, after);
    }

    /// Counts the waiting input, clear and sealed, and ends a stream that keeps more than it or the runtime
    /// may. All code that adds to either calls this, because no other place bounds them.
    pub(super) fn bound_input(&mut self, ports: &mut Ports<'_>, after: &mut After) {
        let within = self.recount(ports.budget);
        let over = self.waiting() > self.options().unread;
        if (over || !within) && self.conn.salvages() && self.has_error() {
            // The stream takes along as much input as there is room for.
            self.fail_noted(after);
        } else if over {
            after.end(Closed::Unread, Ending::Orderly);
        } else if !within {
            after.need_room();
        } else if ports.budget.is_tight() {
            ports.mark();
        }
    }

    /// Takes the unread input, to deliver it. `None` if there is none, or the service takes none now.
    fn take_unread(&mut self, ports: &mut Ports<'_>, after: &mut After) -> Option<Vec<u8>> {
        if self.unread.is_empty() {
            return None;
        }
        if !self.conn.takes_items() {
            self.bound_input(ports, after);
            return None;
        }
        self.conn.rest(RestReason::Backlog, false);
        Some(mem::take(&mut self.unread))
    }
}

/// Keeps the rest of an input of which items were delivered.
fn keep_rest<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key, bytes: &[u8]) {
    let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) else {
        return hand_on(core, key, Undelivered::Clear(bytes));
    };
    let mut after = After::default();
    link.keep(&mut ports, bytes, &mut after);
    link.watch_item(&mut ports, true);
    after.apply(core, key);
}

/// Hands the rest on to the stream's new type, because the handler has changed it.
#[cold]
fn hand_on(core: &mut LoopState, key: Key, rest: Undelivered<'_>) {
    if let Some(slot) = core.registry.get_mut(key) {
        let table = slot.table;
        (table.keep)(core, key, rest);
    }
}

/// Delivers waiting input, as far as the codec cuts items from it.
fn unread<S: Handle<Stream<C, L, R>>, C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    to: &mut S,
    key: Key,
) {
    let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) else { return };
    let mut after = After::default();
    let input = link.take_unread(&mut ports, &mut after);
    after.apply(core, key);
    if let Some(input) = input {
        deliver_unread::<S, C, L, R>(core, to, key, input);
    }
}

/// Delivers input that was taken as unread, and keeps the rest.
fn deliver_unread<S: Handle<Stream<C, L, R>>, C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    to: &mut S,
    key: Key,
    mut input: Vec<u8>,
) {
    let used = deliver::<S, C, L, R>(core, to, key, &mut input, ITEMS_MAX);
    let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) else {
        if used < input.len() {
            hand_on(core, key, Undelivered::Clear(&input[used..]));
        }
        return core.pool.give(input);
    };
    if used > 0 {
        link.moved = ports.budget.period();
    }
    if used < input.len() {
        input.drain(..used);
        link.unread = input;
    } else {
        ports.pool.give(input);
    }
    let mut after = After::default();
    link.bound_input(&mut ports, &mut after);
    link.watch_item(&mut ports, used > 0);
    after.apply(core, key);
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
        let Some((link, ports)) = core.enter::<Link<C, L, R>>(key) else {
            // If it lives, the handler has changed its type, and the caller hands the rest on.
            return if core.registry.get(key).is_some() { at } else { input.len() };
        };
        let index = ports.head.service;
        if !link.conn.takes_items() {
            return if link.conn.is_closing() { input.len() } else { at };
        }
        let rest = len - at;
        // Bytes that the codec has already seen come again in full, together with new ones.
        let lent = if link.seen.is_partial() { rest } else { rest.min(LENT_MAX) };
        match link.stream.codec.decode(&mut input[at..at + lent]) {
            Ok(Decoded::Item(used, item)) if used > 0 && used <= lent => {
                (link.seen, at) = (Seen::Nothing, at + used);
                if !received::<S, C, L, R>(core, to, key, index, item) {
                    return len;
                }
            }
            Ok(Decoded::Skip(used)) if used > 0 && used <= lent => {
                (link.seen, at) = (Seen::Skipped, at + used);
            }
            Ok(Decoded::More) => {
                link.seen = link.seen.and_all();
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
        if let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) {
            link.conn.rest(RestReason::Backlog, true);
            ports.drive_again();
            ports.mark();
        }
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
    while let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) {
        if !link.conn.opens_input() {
            break;
        }
        let mut after = After::default();
        let index = ports.head.service;
        let Some((used, next)) = link.open_step(&mut ports, &mut input[at..], &mut after) else {
            // The alert still leaves. Input behind the bad record is worthless.
            at = input.len();
            after.apply(core, key);
            break;
        };
        at += used;
        match link.come_up(&mut ports) {
            Up::Not => {
                let unread = link.take_unread(&mut ports, &mut after);
                after.apply(core, key);
                if let Some(unread) = unread {
                    deliver_unread::<S, C, L, R>(core, to, key, unread);
                }
            }
            up => {
                after.apply(core, key);
                emit_open::<S, C, L, R>(core, to, key, index, up);
                unread::<S, C, L, R>(core, to, key);
            }
        }
        match next {
            Next::Again if used == 0 && idle == IDLE_STEPS_MAX => {
                at = input.len();
                let what = "it asks for step after step and uses nothing";
                let failure = LayerError::Contract { layer: std::any::type_name::<L>(), what };
                core.end(key, Closed::Refused(failure.into()), Ending::Orderly);
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
    end_open::<S, C, L, R>(core, to, key, &input[at..], ended);
}

/// Keeps the input that the layer has not used, and notes its end.
fn end_open<S: Handle<Stream<C, L, R>>, C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    to: &mut S,
    key: Key,
    left: &[u8],
    ended: bool,
) {
    let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) else {
        hand_on(core, key, Undelivered::Wire(left));
        if ended {
            hand_on(core, key, Undelivered::End);
        }
        return;
    };
    let mut after = After::default();
    if ended {
        link.conn.end_input();
    }
    if !left.is_empty() {
        link.rare().raw.extend_from_slice(left);
        link.bound_input(&mut ports, &mut after);
    }
    link.watch_item(&mut ports, false);
    ports.mark();
    let (index, at) = (ports.head.service, link.at_end(&mut ports, &mut after));
    after.apply(core, key);
    go_on_at_end::<S, C, L, R>(core, to, key, index, at);
}

/// Starts the layers after the transport is up, and emits `Open` if they are ready at once.
pub(super) fn up<S: Handle<Stream<C, L, R>>, C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    to: &mut S,
    key: Key,
) {
    let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) else { return };
    let mut after = After::default();
    let (index, up) = (ports.head.service, link.start(&mut ports, &mut after));
    after.apply(core, key);
    emit_open::<S, C, L, R>(core, to, key, index, up);
}

/// Whether a stream has just come up.
enum Up {
    Not,
    /// Its service gets `Open`.
    Now,
    /// Its service gets `Open` behind the last flight of the handshake.
    Flushed,
}

impl<C: Codec, L: Layer, R: 'static> Link<C, L, R> {
    /// Starts the layers.
    fn start(&mut self, ports: &mut Ports<'_>, after: &mut After) -> Up {
        self.conn.start();
        if self.stream.session.phase() == Phase::Idle
            && let Err(failure) = self.stream.session.start(ports.pool)
        {
            self.layer_failed(ports, failure, after);
            return Up::Not;
        }
        if self.stream.session.direct() && !self.raw_is_empty() {
            // These bytes come from a layer that was replaced by none, so no layer will open them.
            let raw = mem::take(&mut self.rare().raw);
            self.unread.extend_from_slice(&raw);
            ports.drive_again();
        }
        // A closing stream already has its deadline.
        if !self.conn.is_concluding() {
            let shakes = self.stream.session.phase() == Phase::Handshake;
            ports.set_internal_deadline(shakes.then(|| self.options().handshake));
        }
        if self.has_to_do() {
            ports.mark();
        }
        self.come_up(ports)
    }

    /// Notes that the layers are ready, if they are.
    fn come_up(&mut self, ports: &mut Ports<'_>) -> Up {
        if matches!(self.stream.session.phase(), Phase::Idle | Phase::Handshake) || !self.conn.open() {
            return Up::Not;
        }
        if !self.conn.is_concluding() {
            ports.set_internal_deadline(None);
        }
        if self.conn.is_closing() {
            ports.mark();
            return Up::Not;
        }
        if self.stream.session.spoke() { Up::Flushed } else { Up::Now }
    }

    /// Passes input through the layer once. `None` if the layer has failed.
    fn open_step(
        &mut self,
        ports: &mut Ports<'_>,
        input: &mut [u8],
        after: &mut After,
    ) -> Option<(usize, Next)> {
        if self.unread.capacity() == 0 {
            (self.unread, self.moved) = (ports.pool.take(), ports.budget.period());
        }
        let result = self.stream.session.step(input, &mut self.unread, ports.pool);
        if self.unread.is_empty() {
            ports.pool.give(mem::take(&mut self.unread));
        }
        match result {
            Ok(step) => Some((step.used, step.next)),
            Err(failure) => {
                self.layer_failed(ports, failure, after);
                None
            }
        }
    }
}

/// Emits `Open`, if the stream has come up.
fn emit_open<S: Handle<Stream<C, L, R>>, C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    to: &mut S,
    key: Key,
    index: u16,
    up: Up,
) {
    match up {
        Up::Not => return,
        Up::Now => (),
        Up::Flushed => {
            // Flush first, because the peer waits for the last flight of the handshake, and the handler may
            // take long or end the stream.
            output::flush_now::<C, L, R>(core, key);
            if find::<C, L, R>(core, key).is_none_or(|link| link.conn.is_closing()) {
                return;
            }
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
    let gone = match event {
        engine::Event::Connected(result) => return connected::<S, C, L, R>(core, to, key, result),
        engine::Event::Room => return feed::room::<C, L, R>(core, key),
        engine::Event::End => Gone::Ended,
        engine::Event::HungUp(error) => Gone::HungUp(error),
        engine::Event::Broken(error) => Gone::Broken(error),
        _ => return,
    };
    let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) else { return };
    let index = ports.head.service;
    let mut after = After::default();
    let at = if link.conn.is_start_due() {
        // It was added with its transport, so its service gets `Open` first.
        up::<S, C, L, R>(core, to, key);
        let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) else { return };
        link.note_gone(&mut ports, gone, &mut after)
    } else {
        link.note_gone(&mut ports, gone, &mut after)
    };
    after.apply(core, key);
    go_on_at_end::<S, C, L, R>(core, to, key, index, at);
}

/// What the engine has reported about the peer's side.
enum Gone {
    Ended,
    /// The peer is gone, or the connection has failed, behind input that is still to be read.
    HungUp(Option<io::Error>),
    Broken(io::Error),
}

/// Goes on after a connect.
fn connected<S: Handle<Stream<C, L, R>>, C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    to: &mut S,
    key: Key,
    result: io::Result<()>,
) {
    let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) else { return };
    let target = link.take_target();
    match (result, target) {
        (Ok(()), _) => {
            let mut after = After::default();
            let (index, up) = (ports.head.service, link.start(&mut ports, &mut after));
            after.apply(core, key);
            emit_open::<S, C, L, R>(core, to, key, index, up);
        }
        (Err(error), Some(target)) => {
            let error = Error::os("connect", target, error);
            core.end(key, Closed::Failed(error), Ending::Orderly);
        }
        (Err(error), None) => core.fail(key, "connect", error),
    }
}

/// Resumes kept work: opens an added stream, emits a due `Drained`, and delivers unread input.
pub(super) fn again<S: Handle<Stream<C, L, R>>, C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    erased: &mut dyn Any,
    key: Key,
) {
    let to = service::<S>(erased);
    if find::<C, L, R>(core, key).is_some_and(|link| link.conn.is_start_due()) {
        up::<S, C, L, R>(core, to, key);
    }
    let Some((link, ports)) = core.enter::<Link<C, L, R>>(key) else { return };
    let index = ports.head.service;
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
/// paired. Passes the end on, and closes the stream if nothing keeps it open now.
fn after_earlier_end<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) {
    let Some(link) = find::<C, L, R>(core, key) else { return };
    let (passes, closes) = (link.passes_end_on(), link.conn.closes_after_earlier_end(link.stream.half_open));
    go_on_after_end(core, key, passes, closes);
}

/// Closes the stream after the peer's end, unless it is half open. A paired stream passes the end on.
fn after_end<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) {
    let Some(link) = find::<C, L, R>(core, key) else { return };
    let (passes, closes) = (link.passes_end_on(), link.conn.closes_after_end(link.stream.half_open));
    go_on_after_end(core, key, passes, closes);
}

fn go_on_after_end(core: &mut LoopState, key: Key, passes: bool, closes: bool) {
    if passes && let Some(other) = core.partners.get(&key).copied() {
        core.finish(other);
    }
    if closes {
        core.close(key, Closed::End);
    }
}

/// Reports the end of the input, when all of it was delivered.
fn end_if_due<S: Handle<Stream<C, L, R>>, C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    to: &mut S,
    key: Key,
) {
    let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) else { return };
    let mut after = After::default();
    let (index, at) = (ports.head.service, link.at_end(&mut ports, &mut after));
    after.apply(core, key);
    go_on_at_end::<S, C, L, R>(core, to, key, index, at);
}

impl<C: Codec, L: Layer, R: 'static> Link<C, L, R> {
    /// Notes what the engine has reported about the peer's side.
    fn note_gone(&mut self, ports: &mut Ports<'_>, gone: Gone, after: &mut After) -> AtEnd {
        match gone {
            Gone::Ended => self.conn.end_input(),
            Gone::HungUp(_) if self.conn.has_ended() => return AtEnd::Wait,
            Gone::HungUp(error) => {
                self.note_hangup(error);
                ports.mark();
            }
            Gone::Broken(error) => {
                self.conn.end_input();
                if !self.conn.is_broken() {
                    self.rare().error = Some(("read", error));
                }
            }
        }
        self.at_end(ports, after)
    }

    /// Decides what follows if the input may have ended, and does what concerns this stream alone.
    fn at_end(&mut self, ports: &mut Ports<'_>, after: &mut After) -> AtEnd {
        if after.is_over() {
            return AtEnd::Wait;
        }
        let kept = KeptInput {
            is_resuming: ports.head.again,
            has_input: !self.unread.is_empty() || !self.raw_is_empty(),
            has_skipped: self.seen.has_skipped(),
            has_error: self.has_error(),
        };
        match self.conn.at_end(kept) {
            AtEnd::HungUp if !self.conn.tell_hangup() => AtEnd::Wait,
            AtEnd::Flush => {
                ports.mark();
                AtEnd::Wait
            }
            AtEnd::Fail => {
                self.fail_noted(after);
                AtEnd::Wait
            }
            at => at,
        }
    }

    /// Returns whether the write side of the paired stream ends now, because all input of this one was
    /// delivered and its end was reported. An end that the service has refused does not count: the other
    /// stream is cut when this one has closed.
    fn passes_end_on(&self) -> bool {
        self.conn.is_end_delivered() && self.conn.is_paired() && self.is_in_order()
    }
}

/// Does what an end of the input asks for and [`Link::at_end`] has not done.
fn go_on_at_end<S: Handle<Stream<C, L, R>>, C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    to: &mut S,
    key: Key,
    index: u16,
    at: AtEnd,
) {
    match at {
        // Room may have been made for other streams meanwhile, at the cost of this one.
        AtEnd::HungUp if core.registry.get(key).is_some() => {
            emit::<S, Stream<C, L, R>>(core, to, key, index, Event::HungUp);
        }
        AtEnd::Ask if file::hold_end(core, key) => (),
        AtEnd::Ask | AtEnd::Deliver => deliver_end::<S, C, L, R>(core, to, key, index),
        _ => (),
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

pub(super) fn pause<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key, paused: bool) {
    let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) else { return };
    let has_kept = link.has_kept();
    if link.conn.pause(paused, has_kept) {
        ports.drive_again();
    }
    ports.mark();
}

/// Lends a layer its buffers for a request of the service.
pub(crate) fn with_layer<C: Codec, L: Layer, R: 'static, T>(
    core: &mut LoopState,
    key: Key,
    ask: impl FnOnce(&mut L, &mut session::Io<'_>) -> session::Result<T>,
) -> Option<session::Result<T>> {
    let result = breaking(core, key, |core| {
        let (link, ports) = core.enter::<Link<C, L, R>>(key)?;
        Some(link.stream.session.with_layer(ports.pool, ask))
    })?;
    core.mark(key);
    Some(result)
}
