//! Listeners accept connections, ask the service for a stream, and register it. They rest when descriptors run
//! out.

use std::{
    any::Any,
    fmt, io,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::Duration,
};

use super::{Connection, Driver, Resource, Served, Vtable, release_refused};
use crate::{
    address::Address,
    engine::{self, Ending, Role, Transport},
    error::{Closed, Error, Fault, Result},
    id::{Id, Key},
    runtime::{
        Context, Handle, LoopState,
        dispatch::{fault, service},
    },
    sys,
};

/// The longest rest of a listener that ran out of descriptors.
const REST: Duration = Duration::from_millis(100);

const NOT_GIVEN_BACK: &str =
    "nobody is given a listener back: pass a duplicate of its socket on, or close it";

/// Decides on a connection by its peer's address. `None` refuses it.
pub(crate) type AcceptFn<R> = Box<dyn FnMut(&Address) -> Option<R>>;

/// The answer of [`Handle::accept`], which decides on a connection.
///
/// [`Context::listen_asking`](crate::Context::listen_asking) has an example.
#[derive(Debug)]
#[non_exhaustive]
pub enum Accept<R> {
    /// Takes the connection. `Open` follows.
    Take(R),
    /// Takes the connection only to send last words. The runtime sends the items that the service
    /// [queued](super::Stream::queue) in the stream, and then closes it gracefully. The handler gets `closed`
    /// with [`Closed::Done`], and no event before.
    Dismiss(R),
    /// Closes the connection without sending anything. No event follows.
    Refuse,
}

/// A listening socket whose connections become streams of type `R`.
///
/// [`listen`](crate::Context::listen) makes it, and `close` closes it. It has no events of its own: the
/// service gets `Open` for each connection, and a [fault](crate::Fault) for each error.
///
/// [`Context::listen_asking`](crate::Context::listen_asking) has an example.
pub struct Listener<R> {
    of: PhantomData<fn() -> R>,
}

impl<R> fmt::Debug for Listener<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

pub(crate) struct Accepting<R> {
    view: Listener<R>,
    /// Decides on each connection. With `None` the runtime asks the service itself.
    make: Option<AcceptFn<R>>,
    reading: bool,
    paused: bool,
    /// Descriptors ran out, and the service has got the fault.
    starved: bool,
    turns_away: bool,
}

impl<R> Accepting<R> {
    pub(crate) fn new(make: Option<AcceptFn<R>>) -> Accepting<R> {
        let view = Listener { of: PhantomData };
        Accepting { view, make, reading: true, paused: false, starved: false, turns_away: false }
    }

    /// Sets whether the listener closes a connection whenever there is no descriptor for it.
    pub(crate) fn turning_away(self, turns_away: bool) -> Accepting<R> {
        Accepting { turns_away, ..self }
    }
}

impl<R: Connection> Resource for Listener<R> {
    type Event<'a> = std::convert::Infallible;
    type Driver = Served;
}

impl<R: Connection> Driver<Listener<R>> for Served {
    fn table<S: Handle<Listener<R>>>() -> &'static Vtable {
        // A listener has no events. The service that handles its connections has the other vtable.
        &ORPHAN
    }

    fn view(slot: &dyn Any) -> Option<&Listener<R>> {
        slot.downcast_ref::<Accepting<R>>().map(|accepting| &accepting.view)
    }

    fn view_mut(slot: &mut dyn Any) -> Option<&mut Listener<R>> {
        slot.downcast_mut::<Accepting<R>>().map(|accepting| &mut accepting.view)
    }

    fn enroll(
        listener: Listener<R>,
        _: &mut LoopState,
        _: u16,
        _: &'static Vtable,
    ) -> Result<Key, (Listener<R>, Error)> {
        Err((listener, Error::Misuse { operation: "add", why: "a listener is made by listen" }))
    }
}

fn find<R: 'static>(core: &mut LoopState, key: Key) -> Option<&mut Accepting<R>> {
    core.registry.get_mut(key)?.resource.as_mut()?.downcast_mut()
}

/// Returns the vtable for listeners whose connections this service handles.
pub(crate) fn table<S: Handle<R>, R: Connection>() -> &'static Vtable {
    &Vtable {
        name: std::any::type_name::<Listener<R>>,
        event: event::<S, R>,
        flush: flush::<R>,
        close: |core, key, why| core.end(key, why, Ending::Orderly),
        release: |_, _| Err(release_refused(NOT_GIVEN_BACK)),
        pause: pause::<R>,
        expired: |core, key| retry(core, key),
        leave: |core, key, how| core.engine.close(key, how),
        listener: true,
        ..Vtable::NOTHING
    }
}

/// The vtable of a listener whose service is restarting. Connections wait in its backlog.
static ORPHAN: Vtable = Vtable {
    name: || "a listener of an earlier life",
    close: |core, key, why| core.end(key, why, Ending::Orderly),
    release: |_, _| Err(release_refused(NOT_GIVEN_BACK)),
    leave: |core, key, how| core.engine.close(key, how),
    listener: true,
    ..Vtable::NOTHING
};

/// Keeps a listener open while no service accepts from it. Returns the state that its service gave for it.
pub(crate) fn orphan(core: &mut LoopState, key: Key) -> Option<Box<dyn Any>> {
    core.starved.retain(|starved| *starved != key);
    core.set_internal_deadline(key, None);
    core.engine.reading(key, false);
    let slot = core.registry.get_mut(key)?;
    slot.table = &ORPHAN;
    slot.resource.replace(Box::new(()))
}

/// Returns whether this is a listener of an earlier life that the service has not requested again.
pub(crate) fn is_orphan(core: &LoopState, key: Key) -> bool {
    core.registry.get(key).is_some_and(|slot| std::ptr::eq(slot.table, &ORPHAN))
}

/// Gives a listener of an earlier life to the service, which has requested it again.
pub(crate) fn adopt<R: Connection>(
    core: &mut LoopState,
    key: Key,
    table: &'static Vtable,
    accepting: Accepting<R>,
) {
    if let Some(slot) = core.registry.get_mut(key) {
        slot.table = table;
        slot.resource = Some(Box::new(Accepting { reading: false, ..accepting }));
    }
    core.mark(key);
}

/// Registers a listening transport.
pub(crate) fn enroll<R: Connection>(
    core: &mut LoopState,
    index: u16,
    table: &'static Vtable,
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

fn event<S: Handle<R>, R: Connection>(
    core: &mut LoopState,
    erased: &mut dyn Any,
    key: Key,
    event: engine::Event,
) {
    let to = service::<S>(erased);
    match event {
        engine::Event::Accepted(transport, peer) => accepted::<S, R>(core, to, key, transport, &peer),
        engine::Event::NotAccepted(error) => starved::<S, R>(core, to, key, error),
        _ => (),
    }
}

fn accepted<S: Handle<R>, R: Connection>(
    core: &mut LoopState,
    to: &mut S,
    key: Key,
    mut transport: Transport,
    peer: &Address,
) {
    core.counters.accepts += 1;
    let Some(index) = core.registry.get_mut(key).map(|slot| slot.service) else { return };
    let answer = match catch_unwind(AssertUnwindSafe(|| ask::<S, R>(core, to, key, peer))) {
        Ok(answer) => answer,
        Err(panic) => {
            // The peer considers the connection accepted. It must see a reset, because an orderly end would
            // look like an answer.
            transport.reset_at_drop();
            drop(transport);
            resume_unwind(panic);
        }
    };
    let (stream, is_dismissed) = match answer {
        Accept::Take(stream) => (stream, false),
        Accept::Dismiss(stream) => (stream, true),
        // Dropping the transport closes it.
        Accept::Refuse => return,
    };
    match stream.attach(core, index, <R::Driver as Driver<R>>::table::<S>(), transport, None) {
        Ok(stream) => {
            // From here on a panic is the stream's.
            core.opening = stream;
            if is_dismissed {
                core.close(stream, Closed::Done);
            }
            R::up::<S>(core, to, stream);
            core.opening = Key::NONE;
            if core.budget.is_tight() {
                core.mark(key);
            }
        }
        Err((_, error)) => fault(core, to, index, Fault::Register { peer: peer.clone(), error }),
    }
}

/// Asks the closure or the service whether it wants a connection, and with which stream.
fn ask<S: Handle<R>, R: Connection>(core: &mut LoopState, to: &mut S, key: Key, peer: &Address) -> Accept<R> {
    let index = core.calling;
    let Some(accepting) = find::<R>(core, key) else { return Accept::Refuse };
    accepting.starved = false;
    match &mut accepting.make {
        Some(make) => make(peer).map_or(Accept::Refuse, Accept::Take),
        None => to.accept(&mut Context::new(core, index), Id::new(key), peer),
    }
}

/// Handles a lack of descriptors or memory. The listener rests until one of our descriptors is freed or a
/// moment has passed. Waiting connections stay in the backlog, unless the listener is to turn them away. The
/// service gets one fault for each episode.
fn starved<S: Handle<R>, R: Connection>(core: &mut LoopState, to: &mut S, key: Key, error: io::Error) {
    let Some(slot) = core.registry.get_mut(key) else { return };
    let index = slot.service;
    let Some(accepting) = slot.resource.as_mut().and_then(|r| r.downcast_mut::<Accepting<R>>()) else {
        return;
    };
    accepting.reading = false;
    let told = std::mem::replace(&mut accepting.starved, true);
    if accepting.turns_away && sys::is_out_of_descriptors(&error) {
        core.counters.turned_away += u64::from(core.engine.turn_away(key));
    }
    core.set_internal_deadline(key, Some(REST));
    // Streams that only wait for the peer's FIN give up their descriptors first.
    let lingering = core.registry.lingering();
    for key in &lingering {
        if let Some(slot) = core.registry.get_mut(*key) {
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

fn retry(core: &mut LoopState, key: Key) {
    core.starved.retain(|starved| *starved != key);
    core.mark(key);
}

/// Starts or stops accepting in the engine when the listener's wish has changed.
fn flush<R: 'static>(core: &mut LoopState, key: Key) {
    let Some(slot) = core.registry.get(key) else { return };
    let rests = core.budget.rests(slot.service) || core.starved.contains(&key);
    let Some(accepting) = find::<R>(core, key) else { return };
    let wanted = !accepting.paused && !rests;
    if std::mem::replace(&mut accepting.reading, wanted) != wanted {
        core.engine.reading(key, wanted);
    }
}

fn pause<R: 'static>(core: &mut LoopState, key: Key, paused: bool) {
    if let Some(accepting) = find::<R>(core, key) {
        accepting.paused = paused;
        // Flush at once, because the next event of this batch may be a connection.
        flush::<R>(core, key);
    }
}
