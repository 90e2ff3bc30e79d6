//! A stream in its slot: the runtime's state of one connection, and how it enters and leaves.

use std::{any::Any, io, panic::resume_unwind, time::Duration};

use session::{Codec, Layer};

use super::{
    Carried, Stream, StreamOptions,
    attempt::Attempt,
    change, close,
    conn::{Conn, Entering},
    input, item,
    loose::Loose,
    output,
    pressure::{self, Pressure},
};
use crate::{
    address::Address,
    engine::{Ending, Medium, Role, Transport},
    error::{Closed, Error},
    guard,
    id::{Id, Key},
    options::ConnectOptions,
    resource::{Look, Vtable},
    runtime::{Context, Handle, LoopState, budget::ByteBudget, dispatch::service, pressure::Holding},
};

/// A stream and its state in the runtime. It is small, because programs have ten thousand idle ones.
pub(super) struct Link<C, L, R> {
    pub(super) stream: Stream<C, L, R>,
    /// Clear input that no handler has seen: the rest of an item, or everything while paused.
    pub(super) unread: Vec<u8>,
    pub(super) rare: Option<Box<Rare>>,
    /// Bytes in the engine's hands, and the memory of their queue.
    pub(super) flying: usize,
    pub(super) flight: usize,
    /// The bytes that the budget counts for this stream.
    pub(super) counted: usize,
    /// Queued bytes that the stream's own input caused. Bytes that leave are subtracted from it first. So it
    /// may be too low while others queue as well, but the stream never rests for bytes that have left.
    pub(super) caused: usize,
    /// The lowest bits of the number of the call in which the queue passed its high mark.
    pub(super) crossed: u32,
    /// The period of the budget in which it last made progress: output left, or an item was begun or
    /// completed.
    pub(super) moved: u16,
    pub(super) seen: Seen,
    pub(super) conn: Conn,
}

/// What the codec has seen since the last item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Seen {
    Nothing,
    /// It has skipped bytes, so it may keep a part of the next item.
    Skipped,
    /// It has seen all of `unread`, and needs more.
    All,
    /// Both.
    SkippedAndAll,
}

impl Seen {
    pub(super) fn is_partial(self) -> bool {
        matches!(self, Seen::All | Seen::SkippedAndAll)
    }

    pub(super) fn has_skipped(self) -> bool {
        matches!(self, Seen::Skipped | Seen::SkippedAndAll)
    }

    /// Returns the state after it has seen all of `unread` as well.
    pub(super) fn and_all(self) -> Seen {
        if self.has_skipped() { Seen::SkippedAndAll } else { Seen::All }
    }
}

/// State that few streams need.
#[derive(Default)]
pub(super) struct Rare {
    /// Sealed input that the layer has not used.
    pub(super) raw: Vec<u8>,
    pub(super) why: Option<Closed>,
    pub(super) error: Option<(&'static str, io::Error)>,
    /// The target of the connect, until it is connected.
    pub(super) target: Option<Address>,
    /// Bytes of accepted output that a failed layer left unsealed.
    pub(super) lost: usize,
    /// A part of the output is missing, because its layer failed, or its file or its partner was cut short.
    pub(super) is_cut: bool,
    /// The retries of the connect, while the system refuses it for now.
    pub(super) attempt: Option<Box<Attempt>>,
    pub(super) pressure: Pressure,
}

/// The default time within which the queue of a socket must make progress.
const WRITE_STALL: Duration = Duration::from_secs(60);
/// The capacity that a mostly unused input buffer keeps when bytes are short.
const UNREAD_KEPT: usize = 4 << 10;

impl<C: Codec, L: Layer, R: 'static> Link<C, L, R> {
    pub(super) fn new(mut stream: Stream<C, L, R>, role: Role, medium: Medium) -> Link<C, L, R> {
        let carried = stream.carried.take().map(|carried| *carried).unwrap_or_default();
        let entry = Entering {
            medium,
            is_connecting: role == Role::Connecting,
            // An end that an earlier life requested is still due.
            is_ending: stream.session.closing(),
            is_high: stream.session.queued() > stream.settings().high,
        };
        let raw = carried.raw;
        Link {
            unread: carried.unread,
            rare: (!raw.is_empty() || carried.error.is_some())
                .then(|| Box::new(Rare { raw, error: carried.error, ..Rare::default() })),
            flying: 0,
            flight: 0,
            counted: 0,
            caused: carried.caused,
            crossed: 0,
            moved: 0,
            seen: if carried.partial { Seen::All } else { Seen::Nothing },
            conn: carried.conn.enter(entry),
            stream,
        }
    }

    /// Returns the same link with another codec or layer in its stream.
    pub(super) fn with<D, M>(self, change: impl FnOnce(Stream<C, L, R>) -> Stream<D, M, R>) -> Link<D, M, R> {
        let Link { stream, unread, rare, flying, flight, counted, caused, crossed, moved, conn, .. } = self;
        let stream = change(stream);
        // The new codec has seen no bytes.
        let seen = Seen::Nothing;
        Link { stream, unread, rare, flying, flight, counted, caused, crossed, moved, seen, conn }
    }

    pub(super) fn options(&self) -> &StreamOptions {
        self.stream.settings()
    }

    /// Returns the bytes that wait to leave: clear, sealed and in the engine's hands.
    #[inline]
    pub(super) fn queued(&self) -> usize {
        self.stream.session.queued() + self.flying
    }

    /// Returns the bytes that arrived and wait.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        self.unread.len() + self.rare.as_ref().map_or(0, |rare| rare.raw.len())
    }

    /// Returns the memory of the waiting input.
    #[inline]
    pub(super) fn kept(&self) -> usize {
        self.unread.capacity() + self.rare.as_ref().map_or(0, |rare| rare.raw.capacity())
    }

    /// Counts all memory that it holds in queues and buffers, used or not. Returns `false` if the runtime's
    /// limit is passed.
    pub(super) fn recount(&mut self, budget: &mut ByteBudget) -> bool {
        let held = self.stream.session.layer().held();
        self.recount_with(budget, held)
    }

    /// Counts the same, with a layer that holds this much.
    fn recount_with(&mut self, budget: &mut ByteBudget, held: usize) -> bool {
        let holds = held + self.recount_queues();
        budget.recount(&mut self.counted, holds)
    }

    /// Returns the memory of its queues and buffers, without that of its layer.
    pub(super) fn memory(&self) -> usize {
        self.stream.session.queues() + self.kept() + self.flight
    }

    fn recount_queues(&mut self) -> usize {
        self.stream.session.count_queues();
        self.memory()
    }

    /// Counts the decrease since `before`, its earlier [`memory`](Link::memory). It asks no layer, because
    /// user code must not run after an engine's send or while the runtime looks at other streams.
    pub(super) fn recount_less(&mut self, budget: &mut ByteBudget, before: usize) {
        let less = before.saturating_sub(self.recount_queues());
        // A layer may hold memory that is not counted yet.
        let holds = self.counted.saturating_sub(less);
        budget.settle(&mut self.counted, holds);
    }

    /// Returns whether the stream only reads and writes, as most streams do at a flush.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.conn.is_plain() & (self.flying == 0) && self.stream.session.direct()
    }

    /// Returns whether it keeps input, or an end of input, that no handler has seen.
    pub(super) fn has_kept(&self) -> bool {
        let is_end_due = self.conn.has_ended() && !self.conn.is_end_delivered();
        !self.unread.is_empty() || !self.raw_is_empty() || is_end_due
    }

    /// Returns whether an orderly end now would make the peer take a part of the output for the whole. The
    /// engine judges the output that it has.
    pub(super) fn is_cut_short(&self) -> bool {
        self.conn.is_fed_partly() || self.stream.session.queued() > 0 || self.is_marked_cut()
    }

    /// Returns whether a part of its output is known to be missing, so that it must end with a reset.
    pub(super) fn is_marked_cut(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.is_cut)
    }

    /// Returns how long its queue may make no progress.
    pub(super) fn write_stall(&self) -> Option<Duration> {
        self.options().write_stall.or(self.conn.is_remote().then_some(WRITE_STALL))
    }

    /// Returns how long its close may make no progress. If its reader may pause as long as it likes, this is
    /// the limit of a queue.
    pub(super) fn close_stall(&self) -> Option<Duration> {
        if self.conn.is_remote() || self.queued() == 0 {
            Some(self.options().close)
        } else {
            self.write_stall()
        }
    }

    /// Returns the bytes of accepted output that have not left.
    pub(super) fn unsent(&self) -> usize {
        self.queued() + self.rare.as_ref().map_or(0, |rare| rare.lost)
    }

    /// Returns whether the engine would take more at once. The peer's input drives output that waits for a
    /// handshake, because another turn would find it unchanged.
    pub(super) fn has_more_to_write(&self) -> bool {
        self.flying == 0 && self.conn.may_write() && self.stream.session.has_output()
    }

    /// Returns whether a stream that has just come up has to write, to end or to leave.
    pub(super) fn has_to_do(&mut self) -> bool {
        self.queued() > 0 || self.conn.ends_output() || self.conn.is_releasing()
    }

    pub(super) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    pub(super) fn raw_is_empty(&self) -> bool {
        self.rare.as_ref().is_none_or(|rare| rare.raw.is_empty())
    }

    /// Notes that the peer is gone behind input, or that the connection has failed.
    pub(super) fn note_hangup(&mut self, error: Option<io::Error>) {
        // An earlier life may have noted a failure.
        let was_noted = !self.conn.is_broken() && self.has_error();
        self.conn.note_hangup(was_noted || error.is_some());
        if let Some(error) = error {
            self.rare().error.get_or_insert(("read", error));
        }
    }

    /// Ends the connect. Returns its target, and frees memory that only the connect needed.
    pub(super) fn take_target(&mut self) -> Option<Address> {
        let rare = self.rare.as_mut()?;
        let target = rare.target.take();
        if rare.raw.is_empty() && rare.why.is_none() && rare.error.is_none() {
            self.rare = None;
        }
        target
    }

    /// Returns whether it keeps a failure of the connection that the service has not got yet.
    pub(super) fn has_error(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.error.is_some())
    }

    /// Takes the noted failure, if the service has not got it yet.
    pub(super) fn take_error(&mut self) -> Option<(&'static str, io::Error)> {
        self.rare.as_mut()?.error.take()
    }

    /// Returns whether no reason is known yet for a disorderly end.
    pub(super) fn is_in_order(&self) -> bool {
        self.rare.as_ref().and_then(|rare| rare.why.as_ref()).is_none_or(Closed::is_clean)
    }

    pub(super) fn take_why(&mut self) -> Closed {
        self.rare.as_mut().and_then(|rare| rare.why.take()).unwrap_or(Closed::Done)
    }
}

/// Finds the live stream with this key.
#[inline]
pub(super) fn find<C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    key: Key,
) -> Option<&mut Link<C, L, R>> {
    core.registry.get_mut(key)?.resource.as_mut()?.downcast_mut()
}

pub(super) fn table<S: Handle<Stream<C, L, R>>, C: Codec, L: Layer, R: 'static>() -> &'static Vtable {
    &Vtable {
        name: std::any::type_name::<Stream<C, L, R>>,
        got: input::got::<S, C, L, R>,
        event: input::event::<S, C, L, R>,
        sent: output::sent::<C, L, R>,
        detached: close::detached::<C, L, R>,
        again: input::again::<S, C, L, R>,
        flush: output::flush::<C, L, R>,
        close: close::close::<C, L, R>,
        finish: close::finish::<C, L, R>,
        release: close::release::<C, L, R>,
        unpair: close::unpair::<C, L, R>,
        pause: input::pause::<C, L, R>,
        keep: change::keep_rest::<C, L, R>,
        hold: pressure::hold::<C, L, R>,
        expired: close::expired::<C, L, R>,
        defer: None,
        noted: close::noted::<C, L, R>,
        item_due: item::due::<C, L, R>,
        holding: holding::<C, L, R>,
        leave: leave::<C, L, R>,
        closed: closed::<S, C, L, R>,
        look: look::<C, L, R>,
        listener: false,
    }
}

/// Registers a stream with its transport, which is connected or connecting to `target`.
pub(super) fn attach<C: Codec, L: Layer, R: 'static>(
    mut stream: Stream<C, L, R>,
    core: &mut LoopState,
    index: u16,
    table: &'static Vtable,
    transport: Transport,
    target: Option<&Address>,
) -> Result<Key, (Stream<C, L, R>, Error)> {
    let role = if target.is_some() { Role::Connecting } else { Role::Stream };
    stream.outbound |= target.is_some();
    let mut link = Link::new(stream, role, transport.medium());
    link.begin_rest();
    // Ask the layer before the stream is registered. Nobody knows the stream's key yet, so nobody could be
    // blamed for a stream that a panic left behind.
    let held = match guard::call(|| link.stream.session.layer().held()) {
        Ok(held) => held,
        Err(text) => abandon(core, index, link, transport, text),
    };
    let key = match core.registry.insert(index, table, Box::new(link)) {
        Ok(key) => key,
        Err(back) => {
            let loose = Loose::of(core, index, transport);
            let stream = unwrap::<C, L, R>(back, Some(loose));
            return Err((stream, core.full_of_resources()));
        }
    };
    if let Err(refused) = core.engine.attach(key, transport, role) {
        let back = core.registry.take_back(key).expect("it was inserted above");
        let loose = Loose::of(core, index, refused.transport);
        let stream = unwrap::<C, L, R>(back, Some(loose));
        return Err((
            stream,
            Error::os("attach", crate::log::short(std::any::type_name::<Stream<C, L, R>>()), refused.error),
        ));
    }
    let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) else { return Ok(key) };
    link.moved = ports.budget.period();
    link.recount_with(ports.budget, held);
    if let Some(target) = target {
        link.rare().target = Some(target.clone());
        ports.set_internal_deadline(Some(link.options().connect));
        ports.counters.connects += 1;
    }
    Ok(key)
}

/// Drops a stream whose layer panicked before it was registered, and continues the panic. The peer may
/// consider it connected, and may have got a part of its output, so it sees a reset.
#[cold]
fn abandon<C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    index: u16,
    link: Link<C, L, R>,
    transport: Transport,
    panic: String,
) -> ! {
    drop(Loose::of(core, index, transport).with(link.unsent(), true));
    // A drop that panics as well must not meet the first panic.
    guard::discard(link, std::any::type_name::<Stream<C, L, R>>());
    resume_unwind(Box::new(panic));
}

/// Registers a stream without a transport, because the system refuses the connect to `target` for now.
pub(super) fn attempt<C: Codec, L: Layer, R: 'static>(
    mut stream: Stream<C, L, R>,
    core: &mut LoopState,
    index: u16,
    table: &'static Vtable,
    target: &Address,
    options: &ConnectOptions,
) -> Result<Key, (Stream<C, L, R>, Error)> {
    stream.outbound = true;
    let mut link = Link::new(stream, Role::Connecting, Medium::SOCKET);
    link.rare().target = Some(target.clone());
    match core.registry.insert(index, table, Box::new(link)) {
        Ok(key) => {
            core.counters.connects += 1;
            if let Some((link, mut ports)) = core.enter::<Link<C, L, R>>(key) {
                link.begin_attempt(&mut ports, options);
            }
            Ok(key)
        }
        Err(back) => Err((unwrap::<C, L, R>(back, None), core.full_of_resources())),
    }
}

/// Takes the stream and its belongings out of its link.
fn unwrap<C: Codec, L: Layer, R: 'static>(link: Box<dyn Any>, loose: Option<Loose>) -> Stream<C, L, R> {
    let link =
        *link.downcast::<Link<C, L, R>>().expect("a table is only used with the resource it was made for");
    let Link { mut stream, unread, rare, flying, seen, caused, conn, .. } = link;
    let Rare { raw, error, lost, .. } = rare.map(|rare| *rare).unwrap_or_default();
    let lost = lost + flying;
    let refused = loose.map(|loose| loose.with(stream.session.queued(), false));
    let loose = refused.or_else(|| stream.carried.as_mut().and_then(|carried| carried.loose.take()));
    if loose.is_some() || lost > 0 || !unread.is_empty() {
        let deadline = stream.carried.as_ref().and_then(|carried| carried.deadline);
        stream.carried = Some(Box::new(Carried {
            loose,
            unread,
            raw,
            partial: seen.is_partial(),
            caused,
            lost,
            conn,
            error,
            deadline,
            target: None,
        }));
    }
    stream
}

fn look<C: Codec, L: Layer, R: 'static>(resource: &dyn Any) -> Look {
    let conn = resource.downcast_ref::<Link<C, L, R>>().map(|link| link.conn).unwrap_or_default();
    Look { is_high: conn.is_high(), rests: conn.rests() }
}

/// Frees unused memory, and returns the rest.
fn holding<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) -> Holding {
    let Some((link, ports)) = core.enter::<Link<C, L, R>>(key) else { return Holding::default() };
    let before = link.memory();
    if link.unread.len() < link.unread.capacity() / 4 {
        link.unread.shrink_to(UNREAD_KEPT);
    }
    link.stream.session.trim();
    link.recount_less(ports.budget, before);
    // A stream on its way out of the runtime is never ended for its memory.
    Holding { bytes: link.counted, moved: (!link.conn.is_detaching()).then_some(link.moved) }
}

/// Removes the stream from the engine. Whatever the reason of the end, this counts dropped output, and then
/// the peer sees a reset.
fn leave<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key, how: Ending) {
    let LoopState { registry, engine, budget, records, .. } = core;
    let Some(slot) = registry.get_mut(key) else { return };
    let record = records.get_mut(slot.service as usize);
    let link = slot.resource.as_mut().and_then(|resource| resource.downcast_mut::<Link<C, L, R>>());
    let Some(link) = link else { return };
    budget.recount(&mut link.counted, 0);
    // Output of a released stream is not dropped. A connect under retry has nothing in the engine, and loses
    // its output.
    let is_released = link.stream.carried.is_some();
    if let (false, Some(record)) = (is_released, record) {
        record.bytes_dropped += link.unsent() as u64;
    }
    if link.conn.is_attached() {
        engine.close(key, if link.is_cut_short() { Ending::Reset } else { how });
    }
    item::forget(core, key);
}

fn closed<S: Handle<Stream<C, L, R>>, C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    erased: &mut dyn Any,
    key: Key,
    resource: Box<dyn Any>,
    why: Closed,
) {
    let stream = unwrap::<C, L, R>(resource, None);
    let index = core.calling;
    service::<S>(erased).closed(&mut Context::new(core, index), Id::new(key), stream, why);
}
