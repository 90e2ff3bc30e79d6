//! Listeners: accept, ask the service for a stream, register it; rest when descriptors run out.

use std::{
    any::Any,
    io,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::Duration,
};

use super::{Connection, Io, Resource, Table, release_refused, service};
use crate::{
    address::Address,
    context::Context,
    core::Core,
    engine::{self, Ending, Interest, Ready, Role, Source, Transport},
    error::{Closed, Error, Fault},
    id::{Id, Key},
    message::fault,
    service::Handle,
    sys,
};

/// How long a listener rests at most when descriptors ran out.
const REST: Duration = Duration::from_millis(100);

const NOT_GIVEN_BACK: &str =
    "nobody is given a listener back: pass a duplicate of its socket on, or close it";

/// Asks the service whether it wants a connection, and as what.
pub(crate) type Make<R> = Box<dyn FnMut(&Address) -> Option<R>>;

/// What becomes of a connection: the answer of [`Handle::accept`](crate::Handle::accept).
#[derive(Debug)]
pub enum Accept<R> {
    /// Takes it: `Open` follows.
    Take(R),
    /// Takes it for last words: what is [queued](super::Stream::queue) in it leaves, then it closes gracefully. The handler
    /// gets `closed` with [`Closed::Done`], and no event before.
    Dismiss(R),
    /// Closes it without a word. Nothing follows.
    Refuse,
}

/// A listening socket whose connections become streams of type `R`.
///
/// Made by [`listen`](crate::Context::listen), closed with `close`. It has no events of its own: its
/// connections tell `Open`, its errors are faults.
pub struct Listener<R> {
    of: PhantomData<fn() -> R>,
}

pub(crate) struct Accepting<R> {
    view: Listener<R>,
    /// `None` asks the service itself.
    make: Option<Make<R>>,
    reading: bool,
    paused: bool,
    /// It ran out of descriptors, and has told so.
    starved: bool,
    turns_away: bool,
}

impl<R> Accepting<R> {
    pub(crate) fn new(make: Option<Make<R>>) -> Accepting<R> {
        let view = Listener { of: PhantomData };
        Accepting { view, make, reading: true, paused: false, starved: false, turns_away: false }
    }

    /// Closes a connection each time there is no descriptor for it.
    pub(crate) fn turning_away(self, turns_away: bool) -> Accepting<R> {
        Accepting { turns_away, ..self }
    }
}

impl<R: Connection> Resource for Listener<R> {
    type Event<'a> = std::convert::Infallible;

    fn source(&self) -> Source<'_> {
        Source::hosted(u64::MAX)
    }

    fn interest(&self) -> Option<Interest> {
        None
    }

    fn step<'a>(&mut self, _: Ready, _: &mut Io<'_>, _: &'a mut [u8]) -> io::Result<Option<Self::Event<'a>>> {
        Ok(None)
    }

    fn view(slot: &dyn Any) -> Option<&Self> {
        slot.downcast_ref::<Accepting<R>>().map(|accepting| &accepting.view)
    }

    fn view_mut(slot: &mut dyn Any) -> Option<&mut Self> {
        slot.downcast_mut::<Accepting<R>>().map(|accepting| &mut accepting.view)
    }

    fn enroll(self, _: &mut Core, _: u16, _: &'static Table) -> Result<Key, (Self, Error)> {
        Err((self, Error::Misuse { operation: "add", why: "a listener is made by listen" }))
    }
}

fn find<R: 'static>(core: &mut Core, key: Key) -> Option<&mut Accepting<R>> {
    core.registry.live(key)?.resource.as_mut()?.downcast_mut()
}

/// What the runtime does with listeners whose connections this service handles.
pub(crate) fn table<S: Handle<R>, R: Connection>() -> &'static Table {
    &Table {
        name: std::any::type_name::<Listener<R>>,
        event: event::<S, R>,
        flush: flush::<R>,
        close: |core, key, why| core.end(key, why, Ending::Orderly),
        release: |_, _| Err(release_refused(NOT_GIVEN_BACK)),
        pause: pause::<R>,
        expired: |core, key| retry(core, key),
        leave: |core, key, how| core.engine.close(key, how),
        listener: true,
        ..Table::NOTHING
    }
}

/// What the runtime does with a listener whose service is made again: connections wait in its backlog.
static ORPHAN: Table = Table {
    name: || "a listener of an earlier life",
    close: |core, key, why| core.end(key, why, Ending::Orderly),
    release: |_, _| Err(release_refused(NOT_GIVEN_BACK)),
    leave: |core, key, how| core.engine.close(key, how),
    listener: true,
    ..Table::NOTHING
};

/// Keeps a listener open without anybody who accepts. What its service gave for it comes back.
pub(crate) fn orphan(core: &mut Core, key: Key) -> Option<Box<dyn Any>> {
    core.starved.retain(|starved| *starved != key);
    core.set_guard(key, None);
    core.engine.reading(key, false);
    let slot = core.registry.live(key)?;
    slot.table = &ORPHAN;
    slot.resource.replace(Box::new(()))
}

/// Whether it is a listener of an earlier life that nobody has asked for.
pub(crate) fn is_orphan(core: &Core, key: Key) -> bool {
    core.registry.peek(key).is_some_and(|slot| std::ptr::eq(slot.table, &ORPHAN))
}

/// Gives a listener of an earlier life to the service, which asked for it again.
pub(crate) fn adopt<R: Connection>(
    core: &mut Core,
    key: Key,
    table: &'static Table,
    accepting: Accepting<R>,
) {
    if let Some(slot) = core.registry.live(key) {
        slot.table = table;
        slot.resource = Some(Box::new(Accepting { reading: false, ..accepting }));
    }
    core.mark(key);
}

/// Registers a listening transport.
pub(crate) fn enroll<R: Connection>(
    core: &mut Core,
    index: u16,
    table: &'static Table,
    transport: Transport,
    accepting: Accepting<R>,
) -> Result<Key, Error> {
    let key =
        core.registry.insert(index, table, Box::new(accepting)).map_err(|_| core.full_of_resources())?;
    if let Err(refused) = core.engine.attach(key, transport, Role::Listener) {
        core.registry.take_back(key);
        return Err(Error::os("attach", "listener", refused.error));
    }
    core.listeners.push(key);
    Ok(key)
}

fn event<S: Handle<R>, R: Connection>(core: &mut Core, erased: &mut dyn Any, key: Key, event: engine::Event) {
    let to = service::<S>(erased);
    match event {
        engine::Event::Accepted(transport, peer) => accepted::<S, R>(core, to, key, transport, &peer),
        engine::Event::NotAccepted(error) => starved::<S, R>(core, to, key, error),
        _ => (),
    }
}

fn accepted<S: Handle<R>, R: Connection>(
    core: &mut Core,
    to: &mut S,
    key: Key,
    transport: Transport,
    peer: &Address,
) {
    core.counters.accepts += 1;
    let Some(index) = core.registry.live(key).map(|slot| slot.service) else { return };
    let answer = match catch_unwind(AssertUnwindSafe(|| ask::<S, R>(core, to, key, peer))) {
        Ok(answer) => answer,
        Err(panic) => {
            // The peer takes it for accepted, and must not take this for an end in order.
            core.reset(index, transport);
            resume_unwind(panic);
        }
    };
    let (stream, is_dismissed) = match answer {
        Accept::Take(stream) => (stream, false),
        Accept::Dismiss(stream) => (stream, true),
        // Dropping the transport closes it.
        Accept::Refuse => return,
    };
    match stream.attach(core, index, R::table::<S>(), transport, None) {
        Ok(stream) => {
            if is_dismissed {
                core.close(stream, Closed::Done);
            }
            core.opening = stream;
            R::up::<S>(core, to, stream);
            core.opening = Key::NONE;
            if core.budget.is_tight() {
                core.mark(key);
            }
        }
        Err((_, error)) => fault(core, to, index, Fault::Register(error)),
    }
}

/// Asks whether a connection is wanted, and as what.
fn ask<S: Handle<R>, R: Connection>(core: &mut Core, to: &mut S, key: Key, peer: &Address) -> Accept<R> {
    let index = core.calling;
    let Some(accepting) = find::<R>(core, key) else { return Accept::Refuse };
    accepting.starved = false;
    match &mut accepting.make {
        Some(make) => make(peer).map_or(Accept::Refuse, Accept::Take),
        None => to.accept(&mut Context::new(core, index), Id::new(key), peer),
    }
}

/// Descriptors (or memory) ran out: the listener rests until one of ours is freed or a moment has passed. Who waits to be
/// accepted waits on, unless the listener is to turn them away. Told once an episode.
fn starved<S: Handle<R>, R: Connection>(core: &mut Core, to: &mut S, key: Key, error: io::Error) {
    let Some(slot) = core.registry.live(key) else { return };
    let index = slot.service;
    let Some(accepting) = slot.resource.as_mut().and_then(|r| r.downcast_mut::<Accepting<R>>()) else {
        return;
    };
    accepting.reading = false;
    let told = std::mem::replace(&mut accepting.starved, true);
    if accepting.turns_away && sys::is_out_of_descriptors(&error) {
        core.counters.turned_away += u64::from(core.engine.turn_away(key));
    }
    core.set_guard(key, Some(REST));
    // Streams that only wait for their peer's end give up their descriptors first.
    let lingering = core.registry.lingering();
    for key in &lingering {
        if let Some(slot) = core.registry.live(*key) {
            let table = slot.table;
            (table.expired)(core, *key);
        }
    }
    if lingering.is_empty() {
        core.starved.push(key);
    } else {
        core.mark(key);
    }
    if !told {
        let address =
            core.engine.local(key).map_or_else(|_| "listener".into(), |address| address.to_string());
        fault(core, to, index, Fault::Accept(Error::os("accept", address, error)));
    }
}

fn retry(core: &mut Core, key: Key) {
    core.starved.retain(|starved| *starved != key);
    core.mark(key);
}

/// Says whether connections are wanted.
fn flush<R: 'static>(core: &mut Core, key: Key) {
    let Some(slot) = core.registry.peek(key) else { return };
    let rests = core.budget.rests(slot.service) || core.starved.contains(&key);
    let Some(accepting) = find::<R>(core, key) else { return };
    let wanted = !accepting.paused && !rests;
    if std::mem::replace(&mut accepting.reading, wanted) != wanted {
        core.engine.reading(key, wanted);
    }
}

fn pause<R: 'static>(core: &mut Core, key: Key, paused: bool) {
    if let Some(accepting) = find::<R>(core, key) {
        accepting.paused = paused;
        // At once: a connection may be next in this very batch.
        flush::<R>(core, key);
    }
}
