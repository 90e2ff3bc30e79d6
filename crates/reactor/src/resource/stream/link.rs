//! A stream in its slot: what the runtime knows of one connection, and how it enters and leaves.

use std::{any::Any, io, mem, time::Duration};

use session::{Codec, Layer};

use super::{
    Carried, Stream, StreamOptions,
    attempt::{self, Attempt},
    change, close, drive, item,
    loose::Loose,
    pressure::{self, Pressure},
    write,
};
use crate::{
    address::Address,
    context::Context,
    core::Core,
    engine::{Ending, Medium, Role, Transport},
    error::{Closed, Error},
    id::{Id, Key},
    options::ConnectOptions,
    resource::{Table, service},
    runtime::{budget::Bytes, pressure::Holding},
    service::Handle,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Connecting,
    /// The transport is up; the layers are not.
    Handshake,
    Open,
    /// All was sent and our end told; input is thrown away until the peer's end, so that the kernel does
    /// not answer late input with a reset which destroys our last bytes.
    Lingering,
}

/// Whether the peer is gone behind input that no handler has seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hangup {
    /// The runtime does not know of it.
    None,
    /// The engine has reported an end.
    Noted,
    /// The engine has reported a failure. The link has the error.
    Failed,
    /// The service has got `HungUp`.
    Told,
}

/// A stream and its state in the runtime. Small: ten thousand idle ones count.
pub(super) struct Link<C, L, R> {
    pub(super) stream: Stream<C, L, R>,
    /// Clear input that no handler has seen: the rest of an item, or all while paused.
    pub(super) unread: Vec<u8>,
    pub(super) rare: Option<Box<Rare>>,
    /// Bytes in the engine's hands, and the memory of the queue they are in.
    pub(super) flying: usize,
    pub(super) flight: usize,
    /// What the byte budget counts for this stream.
    pub(super) counted: usize,
    /// Bytes in the queue that were put there while its own input was handled. What leaves is taken off it first: while
    /// others queue as well it may be too low, and it never has a stream rest for what has left.
    pub(super) caused: usize,
    /// The call, by its lowest bits, in which the queue passed its high mark.
    pub(super) crossed: u32,
    pub(super) state: State,
    pub(super) paused: bool,
    /// The period of the budget in which it last made progress: output left, or an item was begun or completed.
    pub(super) moved: u16,
    /// What the engine was told last about reading.
    pub(super) reading: bool,
    pub(super) high: bool,
    /// It is not read: too much of the queue is what its own input caused.
    pub(super) rests: bool,
    /// It is not read: the queue of the stream that it is coupled to is high.
    pub(super) held: bool,
    /// All of `unread` was offered to the codec, which needs more.
    pub(super) partial: bool,
    /// The codec has skipped bytes since the last item: it may keep a part of the next one.
    pub(super) skipped: bool,
    pub(super) drained_due: bool,
    pub(super) open_due: bool,
    /// The engine delivered all input there will be.
    pub(super) ended: bool,
    pub(super) end_told: bool,
    /// Whether the engine has reported that the peer is gone behind input.
    pub(super) hangup: Hangup,
    pub(super) closing: bool,
    pub(super) finishing: bool,
    /// Our end was told to the peer.
    pub(super) shut: bool,
    pub(super) releasing: bool,
    /// The engine was asked to give it back, or has nothing of it: not yet, or no more.
    pub(super) detaching: bool,
    pub(super) detached: bool,
    pub(super) coupled: bool,
    /// What it sends comes from a transfer, which waits for its queue.
    pub(super) feeding: bool,
    /// The transfer waits for room in the socket.
    pub(super) awaits_room: bool,
    pub(super) write_failed: bool,
    /// A budget stopped the handing over: nothing more is read until the kept input was handed over.
    pub(super) backlog: bool,
    /// Its transport takes no output, or has no input.
    pub(super) mute: bool,
    pub(super) deaf: bool,
    /// Who is at the other end may be anywhere: it must not keep an item unfinished for ever.
    pub(super) remote: bool,
}

/// What few streams need.
#[derive(Default)]
pub(super) struct Rare {
    /// Sealed input that the layer has not used.
    pub(super) raw: Vec<u8>,
    pub(super) why: Option<Closed>,
    pub(super) error: Option<(&'static str, io::Error)>,
    /// Where it connects to, until it is connected.
    pub(super) target: Option<Address>,
    /// Bytes of accepted output that a failed layer left unsealed.
    pub(super) lost: usize,
    /// What was queued is not all that the peer was to get: its layer failed, its file or its partner was cut short.
    pub(super) is_cut: bool,
    /// How the connect is tried again, while the target refuses it for now.
    pub(super) attempt: Option<Box<Attempt>>,
    pub(super) pressure: Pressure,
}

/// How long the queue of a socket may make no progress by default.
const WRITE_STALL: Duration = Duration::from_secs(60);
/// What an input buffer that is hardly used keeps when bytes are short.
const UNREAD_KEPT: usize = 4 << 10;

impl<C: Codec, L: Layer, R: 'static> Link<C, L, R> {
    fn new(mut stream: Stream<C, L, R>, role: Role, medium: Medium) -> Link<C, L, R> {
        let carried = stream.carried.take().map(|carried| *carried).unwrap_or_default();
        let state = match role {
            Role::Connecting => State::Connecting,
            _ if carried.opened => State::Open,
            _ => State::Handshake,
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
            state,
            paused: carried.paused,
            moved: 0,
            reading: true,
            high: carried.high || stream.session.queued() > stream.settings().high,
            rests: false,
            held: false,
            partial: carried.partial,
            skipped: false,
            drained_due: false,
            open_due: false,
            ended: carried.ended,
            end_told: carried.end_told,
            hangup: if carried.hung_up { Hangup::Told } else { Hangup::None },
            closing: false,
            // An end that was asked for in an earlier life is still to be told.
            finishing: carried.shut || stream.session.closing(),
            shut: carried.shut,
            releasing: false,
            detaching: false,
            detached: false,
            coupled: false,
            feeding: false,
            awaits_room: false,
            write_failed: false,
            backlog: false,
            mute: !medium.has_output(),
            deaf: !medium.has_input(),
            remote: medium.is_socket(),
            stream,
        }
    }

    /// The same link with another codec or layer in its stream.
    pub(super) fn with<D, M>(self, change: impl FnOnce(Stream<C, L, R>) -> Stream<D, M, R>) -> Link<D, M, R> {
        let Link {
            stream,
            unread,
            rare,
            flying,
            flight,
            counted,
            caused,
            crossed,
            state,
            paused,
            moved,
            reading,
            high,
            rests,
            held,
            // The new codec has seen nothing.
            partial: _,
            skipped: _,
            drained_due,
            open_due,
            ended,
            end_told,
            hangup,
            closing,
            finishing,
            shut,
            releasing,
            detaching,
            detached,
            coupled,
            feeding,
            awaits_room,
            write_failed,
            backlog,
            mute,
            deaf,
            remote,
        } = self;
        let stream = change(stream);
        Link {
            stream,
            unread,
            rare,
            flying,
            flight,
            counted,
            caused,
            crossed,
            state,
            paused,
            moved,
            reading,
            high,
            rests,
            held,
            partial: false,
            skipped: false,
            drained_due,
            open_due,
            ended,
            end_told,
            hangup,
            closing,
            finishing,
            shut,
            releasing,
            detaching,
            detached,
            coupled,
            feeding,
            awaits_room,
            write_failed,
            backlog,
            mute,
            deaf,
            remote,
        }
    }

    pub(super) fn options(&self) -> &StreamOptions {
        self.stream.settings()
    }

    /// Bytes that wait to leave: clear, sealed and in the engine's hands.
    #[inline]
    pub(super) fn queued(&self) -> usize {
        self.stream.session.queued() + self.flying
    }

    /// Bytes that arrived and wait.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        self.unread.len() + self.rare.as_ref().map_or(0, |rare| rare.raw.len())
    }

    /// The memory of the input that waits.
    #[inline]
    pub(super) fn kept(&self) -> usize {
        self.unread.capacity() + self.rare.as_ref().map_or(0, |rare| rare.raw.capacity())
    }

    /// Counts all memory that it holds: whatever is in queues and buffers, used or not. `false` when the runtime's
    /// limit is passed.
    pub(super) fn recount(&mut self, budget: &mut Bytes) -> bool {
        let holds = self.stream.session.layer().held() + self.recount_queues();
        budget.recount(&mut self.counted, holds)
    }

    /// The memory of its queues and buffers: all that it holds, but for what is in its layer.
    pub(super) fn memory(&self) -> usize {
        self.stream.session.queues() + self.kept() + self.flight
    }

    fn recount_queues(&mut self) -> usize {
        self.stream.session.count_queues();
        self.memory()
    }

    /// Counts what it holds less than `before`, its [`memory`](Link::memory) then. Asks no layer: a user's code is not
    /// called where an engine has sent, or while others are looked at.
    pub(super) fn recount_less(&mut self, budget: &mut Bytes, before: usize) {
        let less = before.saturating_sub(self.recount_queues());
        // A layer may have added what is not counted yet.
        let holds = self.counted.saturating_sub(less);
        budget.settle(&mut self.counted, holds);
    }

    /// Whether nothing but reading and writing goes on: what a flush of most streams finds. The flags are looked
    /// at together, in one branch.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        let is_special = self.paused
            | self.high
            | self.rests
            | self.held
            | self.ended
            | self.closing
            | self.finishing
            | self.releasing
            | self.write_failed
            | self.backlog;
        !is_special
            && self.state == State::Open
            && self.reading
            && self.flying == 0
            && self.stream.session.direct()
    }

    /// Whether items may still be appended to its queue. What is sent to a stream that is being released is handed over
    /// with it.
    #[inline]
    pub(super) fn takes_output(&self) -> bool {
        !(self.closing | self.finishing | self.write_failed | self.mute)
    }

    /// Whether items may be handed to the service now.
    #[inline]
    pub(super) fn takes_items(&self) -> bool {
        !(self.paused | self.closing | self.releasing | self.rests | self.held)
    }

    /// Whether it keeps input, or the end of it, that no handler has seen.
    pub(super) fn has_kept(&self) -> bool {
        !self.unread.is_empty() || !self.raw_is_empty() || self.ended && !self.end_told
    }

    /// Whether the peer would take a part of the output for the whole if the stream ended in order now. What the engine
    /// has is the engine's to judge.
    pub(super) fn is_cut_short(&self) -> bool {
        let is_fed = self.feeding || self.coupled && !self.closing && !self.finishing;
        is_fed || self.stream.session.queued() > 0 || self.is_marked_cut()
    }

    /// Whether a part of its output is known to be missing, so that its end is to be a reset.
    pub(super) fn is_marked_cut(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.is_cut)
    }

    /// How long its queue may make no progress.
    pub(super) fn write_stall(&self) -> Option<Duration> {
        self.options().write_stall.or(self.remote.then_some(WRITE_STALL))
    }

    /// How long its close may stand still: as long as a queue may, where a reader may pause as long as it likes.
    pub(super) fn close_stall(&self) -> Option<Duration> {
        if self.remote || self.queued() == 0 { Some(self.options().close) } else { self.write_stall() }
    }

    /// Bytes of accepted output that have not left.
    pub(super) fn unsent(&self) -> usize {
        self.queued() + self.rare.as_ref().map_or(0, |rare| rare.lost)
    }

    /// Whether it closes, and no transfer brings output any more: then it has the deadline of the close.
    #[inline]
    pub(super) fn is_concluding(&self) -> bool {
        self.closing && !self.feeding
    }

    /// Whether the engine should read, as far as this stream alone says.
    #[inline]
    pub(super) fn wants_input(&self) -> bool {
        !self.ended
            && match self.state {
                State::Connecting | State::Handshake | State::Lingering => !self.releasing,
                State::Open => self.closing || self.takes_items() && !self.backlog || self.salvages(),
            }
    }

    /// Whether the engine reads it although it is paused: the connection has failed, and the runtime hands over the input
    /// that had arrived with the stream.
    #[inline]
    pub(super) fn salvages(&self) -> bool {
        self.hangup == Hangup::Failed && self.paused && !self.releasing
    }

    /// Whether the peer is gone, and the service has not got the end.
    pub(super) fn has_gone(&self) -> bool {
        (self.ended || self.hangup != Hangup::None) && !self.end_told
    }

    /// Whether the engine would take more at once. What waits for a handshake is driven by the peer's input instead:
    /// another turn would find it as it is.
    pub(super) fn has_more_to_write(&self) -> bool {
        self.flying == 0 && !self.write_failed && !self.detaching && self.stream.session.has_output()
    }

    /// Whether a stream that has just come up has something to write, to end or to give back.
    pub(super) fn has_to_do(&mut self) -> bool {
        self.queued() > 0 || self.closing || self.finishing || self.releasing
    }

    pub(super) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    pub(super) fn raw_is_empty(&self) -> bool {
        self.rare.as_ref().is_none_or(|rare| rare.raw.is_empty())
    }

    /// Notes that the peer is gone behind input, or that the connection has failed.
    pub(super) fn note_hangup(&mut self, error: Option<io::Error>) {
        // A failure may have been noted in an earlier life.
        let was_noted = !self.write_failed && self.rare.as_ref().is_some_and(|rare| rare.error.is_some());
        if was_noted || error.is_some() {
            self.hangup = Hangup::Failed;
        } else if self.hangup == Hangup::None {
            self.hangup = Hangup::Noted;
        }
        if let Some(error) = error {
            self.rare().error.get_or_insert(("read", error));
        }
    }

    /// The connect is over: says where it went, and gives back memory that only it needed.
    pub(super) fn take_target(&mut self) -> Option<Address> {
        let rare = self.rare.as_mut()?;
        let target = rare.target.take();
        if rare.raw.is_empty() && rare.why.is_none() && rare.error.is_none() {
            self.rare = None;
        }
        target
    }

    /// The failure that was noted and not told yet.
    pub(super) fn take_error(&mut self) -> Option<(&'static str, io::Error)> {
        self.rare.as_mut()?.error.take()
    }

    /// Whether nothing is known yet for which it will not end in order.
    pub(super) fn is_in_order(&self) -> bool {
        self.rare.as_ref().and_then(|rare| rare.why.as_ref()).is_none_or(Closed::is_clean)
    }

    pub(super) fn take_why(&mut self) -> Closed {
        self.rare.as_mut().and_then(|rare| rare.why.take()).unwrap_or(Closed::Done)
    }
}

/// Finds the live stream of this name.
#[inline]
pub(super) fn find<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) -> Option<&mut Link<C, L, R>> {
    core.registry.live(key)?.resource.as_mut()?.downcast_mut()
}

pub(super) fn table<S: Handle<Stream<C, L, R>>, C: Codec, L: Layer, R: 'static>() -> &'static Table {
    &Table {
        name: std::any::type_name::<Stream<C, L, R>>,
        got: drive::got::<S, C, L, R>,
        event: drive::event::<S, C, L, R>,
        sent: write::sent::<C, L, R>,
        detached: close::detached::<C, L, R>,
        again: drive::again::<S, C, L, R>,
        flush: write::flush::<C, L, R>,
        close: close::close::<C, L, R>,
        finish: close::finish::<C, L, R>,
        release: close::release::<C, L, R>,
        uncouple: close::uncouple::<C, L, R>,
        pause: drive::pause::<C, L, R>,
        keep: change::keep_rest::<C, L, R>,
        hold: pressure::hold::<C, L, R>,
        expired: close::expired::<C, L, R>,
        defer: None,
        noted: close::noted::<C, L, R>,
        item_due: item::due::<C, L, R>,
        holding: holding::<C, L, R>,
        leave: leave::<C, L, R>,
        closed: closed::<S, C, L, R>,
        listener: false,
    }
}

/// Registers a stream with its transport: connected, or on its way to `target`.
pub(super) fn attach<C: Codec, L: Layer, R: 'static>(
    mut stream: Stream<C, L, R>,
    core: &mut Core,
    index: u16,
    table: &'static Table,
    transport: Transport,
    target: Option<&Address>,
) -> Result<Key, (Stream<C, L, R>, Error)> {
    let role = if target.is_some() { Role::Connecting } else { Role::Stream };
    stream.outbound |= target.is_some();
    let mut link = Link::new(stream, role, transport.medium());
    link.begin_rest();
    let high = link.high;
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
    let Core { registry, budget, .. } = core;
    if let Some(slot) = registry.live(key) {
        slot.high = high;
        if let Some(link) = slot.resource.as_mut().and_then(|r| r.downcast_mut::<Link<C, L, R>>()) {
            link.moved = budget.period();
            link.recount(budget);
        }
    }
    if let Some(link) = find::<C, L, R>(core, key)
        && let Some(target) = target
    {
        link.rare().target = Some(target.clone());
        let after = link.options().connect;
        core.counters.connects += 1;
        core.set_guard(key, Some(after));
    }
    Ok(key)
}

/// Registers a stream without a transport: `target` refuses it for now.
pub(super) fn attempt<C: Codec, L: Layer, R: 'static>(
    mut stream: Stream<C, L, R>,
    core: &mut Core,
    index: u16,
    table: &'static Table,
    target: &Address,
    options: &ConnectOptions,
) -> Result<Key, (Stream<C, L, R>, Error)> {
    stream.outbound = true;
    let mut link = Link::new(stream, Role::Connecting, Medium::SOCKET);
    link.rare().target = Some(target.clone());
    match core.registry.insert(index, table, Box::new(link)) {
        Ok(key) => {
            core.counters.connects += 1;
            attempt::begin::<C, L, R>(core, key, options);
            Ok(key)
        }
        Err(back) => Err((unwrap::<C, L, R>(back, None), core.full_of_resources())),
    }
}

/// Takes the stream out of its link, with what belongs to it.
fn unwrap<C: Codec, L: Layer, R: 'static>(link: Box<dyn Any>, loose: Option<Loose>) -> Stream<C, L, R> {
    let link =
        *link.downcast::<Link<C, L, R>>().expect("a table is only used with the resource it was made for");
    let opened = link.state == State::Open;
    // `Drained` that was not told yet is told in the next life.
    let high = link.high || link.drained_due;
    let hung_up = link.hangup == Hangup::Told;
    let Link { mut stream, unread, rare, flying, ended, end_told, shut, paused, partial, caused, .. } = link;
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
            partial,
            caused,
            lost,
            opened,
            paused,
            high,
            ended,
            end_told,
            hung_up,
            shut,
            error,
            deadline,
            target: None,
        }));
    }
    stream
}

/// What it holds, after what it does not need was given back.
fn holding<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) -> Holding {
    let Core { registry, budget, .. } = core;
    let link = registry.live(key).and_then(|slot| slot.resource.as_mut()?.downcast_mut::<Link<C, L, R>>());
    let Some(link) = link else { return Holding::default() };
    let before = link.memory();
    if link.unread.len() < link.unread.capacity() / 4 {
        link.unread.shrink_to(UNREAD_KEPT);
    }
    link.stream.session.trim();
    link.recount_less(budget, before);
    // One that is on its way out of the runtime is as good as gone.
    Holding { bytes: link.counted, moved: (!link.detaching).then_some(link.moved) }
}

/// Takes the stream from the engine. Whoever ends it and why: if output is dropped, it is counted here, and the peer sees
/// a reset.
fn leave<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key, how: Ending) {
    let Core { registry, engine, budget, records, .. } = core;
    let Some(slot) = registry.live(key) else { return };
    let record = records.get_mut(slot.service as usize);
    let link = slot.resource.as_mut().and_then(|resource| resource.downcast_mut::<Link<C, L, R>>());
    let Some(link) = link else { return };
    budget.recount(&mut link.counted, 0);
    // What was released is not dropped. A connect that is tried again has nothing in the engine, and loses its output.
    let is_released = link.stream.carried.is_some();
    if let (false, Some(record)) = (is_released, record) {
        record.bytes_dropped += link.unsent() as u64;
    }
    if !mem::replace(&mut link.detached, true) {
        engine.close(key, if link.is_cut_short() { Ending::Reset } else { how });
    }
    item::forget(core, key);
}

fn closed<S: Handle<Stream<C, L, R>>, C: Codec, L: Layer, R: 'static>(
    core: &mut Core,
    erased: &mut dyn Any,
    key: Key,
    resource: Box<dyn Any>,
    why: Closed,
) {
    let stream = unwrap::<C, L, R>(resource, None);
    let index = core.calling;
    service::<S>(erased).closed(&mut Context::new(core, index), Id::new(key), stream, why);
}
