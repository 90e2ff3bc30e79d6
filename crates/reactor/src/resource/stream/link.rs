//! A stream in its slot: the runtime's state of one connection, and how it enters and leaves.

use std::{any::Any, io, mem, time::Duration};

use session::{Codec, Layer};

use super::{
    Carried, Stream, StreamOptions,
    attempt::{self, Attempt},
    change, close, input, item,
    loose::Loose,
    output,
    pressure::{self, Pressure},
};
use crate::{
    address::Address,
    engine::{Ending, Medium, Role, Transport},
    error::{Closed, Error},
    id::{Id, Key},
    options::ConnectOptions,
    resource::Table,
    runtime::{Context, Core, Handle, budget::Bytes, dispatch::service, pressure::Holding},
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Connecting,
    /// The transport is up, but the layers are not.
    Handshake,
    Open,
    /// All output and our FIN were sent. The runtime discards input until the peer's FIN, because the kernel
    /// would answer late input with a reset that destroys our last bytes.
    Lingering,
}

/// The knowledge of a peer that is gone behind input that no handler has seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hangup {
    /// The engine has reported nothing.
    None,
    /// The engine has reported an end.
    Noted,
    /// The engine has reported a failure. The link keeps the error.
    Failed,
    /// The service has got `HungUp`.
    Told,
}

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
    pub(super) state: State,
    pub(super) paused: bool,
    /// The period of the budget in which it last made progress: output left, or an item was begun or
    /// completed.
    pub(super) moved: u16,
    /// Whether the engine reads it, as last requested.
    pub(super) reading: bool,
    pub(super) high: bool,
    /// It is not read, because its own input caused too much of the queue.
    pub(super) rests: bool,
    /// It is not read, because the queue of its coupled stream is high.
    pub(super) held: bool,
    /// The codec has seen all of `unread`, and needs more.
    pub(super) partial: bool,
    /// The codec has skipped bytes since the last item, so it may keep a part of the next one.
    pub(super) skipped: bool,
    pub(super) drained_due: bool,
    pub(super) open_due: bool,
    /// The engine has delivered all input.
    pub(super) ended: bool,
    pub(super) end_told: bool,
    /// Whether the engine has reported that the peer is gone behind input.
    pub(super) hangup: Hangup,
    pub(super) closing: bool,
    pub(super) finishing: bool,
    /// We have sent FIN.
    pub(super) shut: bool,
    pub(super) releasing: bool,
    /// The engine has to give it back, or does not have it.
    pub(super) detaching: bool,
    pub(super) detached: bool,
    pub(super) coupled: bool,
    /// A transfer sends through it, and waits for its queue.
    pub(super) feeding: bool,
    /// The transfer waits for room in the socket.
    pub(super) awaits_room: bool,
    pub(super) write_failed: bool,
    /// A budget stopped the delivery. The runtime reads no more until the kept input was delivered.
    pub(super) backlog: bool,
    /// Whether its transport takes no output, or has no input.
    pub(super) mute: bool,
    pub(super) deaf: bool,
    /// The peer may be on another host, so it must not keep an item unfinished for ever.
    pub(super) remote: bool,
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
            // An end that an earlier life requested is still due.
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

    /// Returns the same link with another codec or layer in its stream.
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
            // The new codec has seen no bytes.
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
    pub(super) fn recount(&mut self, budget: &mut Bytes) -> bool {
        let holds = self.stream.session.layer().held() + self.recount_queues();
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
    pub(super) fn recount_less(&mut self, budget: &mut Bytes, before: usize) {
        let less = before.saturating_sub(self.recount_queues());
        // A layer may hold memory that is not counted yet.
        let holds = self.counted.saturating_sub(less);
        budget.settle(&mut self.counted, holds);
    }

    /// Returns whether the stream only reads and writes, as most streams do at a flush. One branch tests all
    /// flags together.
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

    /// Returns whether its queue takes more items. Items sent to a stream that is being released go with it.
    #[inline]
    pub(super) fn takes_output(&self) -> bool {
        !(self.closing | self.finishing | self.write_failed | self.mute)
    }

    /// Returns whether the service may get items now.
    #[inline]
    pub(super) fn takes_items(&self) -> bool {
        !(self.paused | self.closing | self.releasing | self.rests | self.held)
    }

    /// Returns whether it keeps input, or an end of input, that no handler has seen.
    pub(super) fn has_kept(&self) -> bool {
        !self.unread.is_empty() || !self.raw_is_empty() || self.ended && !self.end_told
    }

    /// Returns whether an orderly end now would make the peer take a part of the output for the whole. The
    /// engine judges the output that it has.
    pub(super) fn is_cut_short(&self) -> bool {
        let is_fed = self.feeding || self.coupled && !self.closing && !self.finishing;
        is_fed || self.stream.session.queued() > 0 || self.is_marked_cut()
    }

    /// Returns whether a part of its output is known to be missing, so that it must end with a reset.
    pub(super) fn is_marked_cut(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.is_cut)
    }

    /// Returns how long its queue may make no progress.
    pub(super) fn write_stall(&self) -> Option<Duration> {
        self.options().write_stall.or(self.remote.then_some(WRITE_STALL))
    }

    /// Returns how long its close may make no progress. If its reader may pause as long as it likes, this is
    /// the limit of a queue.
    pub(super) fn close_stall(&self) -> Option<Duration> {
        if self.remote || self.queued() == 0 { Some(self.options().close) } else { self.write_stall() }
    }

    /// Returns the bytes of accepted output that have not left.
    pub(super) fn unsent(&self) -> usize {
        self.queued() + self.rare.as_ref().map_or(0, |rare| rare.lost)
    }

    /// Returns whether it closes, and no transfer brings more output. Then it has the deadline of the close.
    #[inline]
    pub(super) fn is_concluding(&self) -> bool {
        self.closing && !self.feeding
    }

    /// Returns whether the engine should read, as far as this stream alone decides.
    #[inline]
    pub(super) fn wants_input(&self) -> bool {
        !self.ended
            && match self.state {
                State::Connecting | State::Handshake | State::Lingering => !self.releasing,
                State::Open => self.closing || self.takes_items() && !self.backlog || self.salvages(),
            }
    }

    /// Returns whether the engine reads it although it is paused. It does so if the connection has failed,
    /// because the runtime hands over the input that had arrived together with the stream.
    #[inline]
    pub(super) fn salvages(&self) -> bool {
        self.hangup == Hangup::Failed && self.paused && !self.releasing
    }

    /// Returns whether the peer is gone, and the service has not got the end.
    pub(super) fn has_gone(&self) -> bool {
        (self.ended || self.hangup != Hangup::None) && !self.end_told
    }

    /// Returns whether the engine would take more at once. The peer's input drives output that waits for a
    /// handshake, because another turn would find it unchanged.
    pub(super) fn has_more_to_write(&self) -> bool {
        self.flying == 0 && !self.write_failed && !self.detaching && self.stream.session.has_output()
    }

    /// Returns whether a stream that has just come up has to write, to end or to leave.
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
        // An earlier life may have noted a failure.
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

    /// Ends the connect. Returns its target, and frees memory that only the connect needed.
    pub(super) fn take_target(&mut self) -> Option<Address> {
        let rare = self.rare.as_mut()?;
        let target = rare.target.take();
        if rare.raw.is_empty() && rare.why.is_none() && rare.error.is_none() {
            self.rare = None;
        }
        target
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
pub(super) fn find<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key) -> Option<&mut Link<C, L, R>> {
    core.registry.live(key)?.resource.as_mut()?.downcast_mut()
}

pub(super) fn table<S: Handle<Stream<C, L, R>>, C: Codec, L: Layer, R: 'static>() -> &'static Table {
    &Table {
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
        uncouple: close::uncouple::<C, L, R>,
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
        listener: false,
    }
}

/// Registers a stream with its transport, which is connected or connecting to `target`.
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

/// Registers a stream without a transport, because the system refuses the connect to `target` for now.
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

/// Takes the stream and its belongings out of its link.
fn unwrap<C: Codec, L: Layer, R: 'static>(link: Box<dyn Any>, loose: Option<Loose>) -> Stream<C, L, R> {
    let link =
        *link.downcast::<Link<C, L, R>>().expect("a table is only used with the resource it was made for");
    let opened = link.state == State::Open;
    // The next life emits a `Drained` that is still due.
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

/// Frees unused memory, and returns the rest.
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
    // A stream on its way out of the runtime is never ended for its memory.
    Holding { bytes: link.counted, moved: (!link.detaching).then_some(link.moved) }
}

/// Removes the stream from the engine. Whatever the reason of the end, this counts dropped output, and then
/// the peer sees a reset.
fn leave<C: Codec, L: Layer, R: 'static>(core: &mut Core, key: Key, how: Ending) {
    let Core { registry, engine, budget, records, .. } = core;
    let Some(slot) = registry.live(key) else { return };
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
