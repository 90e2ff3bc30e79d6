//! A datagram socket in its slot: its state in the runtime, and how it enters and leaves.

use std::{any::Any, mem};

use super::{Carried, DatagramOptions, Datagrams, drive};
use crate::{
    engine::{Batch, DATAGRAM_MAX, DatagramQueue, Ending, Role, Transport},
    error::{Closed, Error, Phase},
    id::{Id, Key},
    resource::{CLOSING, Look, RestReasons, Vtable, exit::Exit, release_refused, rest::RestReason},
    runtime::{Context, Handle, LoopState, dispatch::service, pressure::Holding},
};

/// A socket and its state in the runtime.
pub(super) struct DatagramSocket<R> {
    pub(super) datagrams: Datagrams<R>,
    pub(super) queue: DatagramQueue,
    /// The datagrams that arrived while it was paused.
    pub(super) kept: Batch,
    /// The bytes that `kept` counts.
    pub(super) kept_bytes: usize,
    /// The bytes that the budget counts for it.
    pub(super) counted: usize,
    pub(super) paused: bool,
    /// Whether the engine reads it, as last requested.
    pub(super) reading: bool,
    /// The engine left some datagrams in the queue, and reports room.
    pub(super) blocked: bool,
    /// `send` answered that the queue is above a mark, and `Drained` is to follow.
    pub(super) high: bool,
    pub(super) drained_due: bool,
    pub(super) exit: Exit,
    /// The reason of its close.
    pub(super) why: Option<Closed>,
}

impl<R: 'static> DatagramSocket<R> {
    /// Returns the memory that the budget counts.
    pub(super) fn holds(&self) -> usize {
        self.queue.memory() + self.kept.memory()
    }

    /// Returns whether the service may get datagrams now.
    pub(super) fn takes_input(&self) -> bool {
        !self.paused && !self.exit.is_leaving()
    }
}

pub(super) fn cast<R: 'static>(resource: &mut Option<Box<dyn Any>>) -> Option<&mut DatagramSocket<R>> {
    resource.as_mut()?.downcast_mut()
}

/// Finds the live socket with this key.
pub(super) fn find<R: 'static>(core: &mut LoopState, key: Key) -> Option<&mut DatagramSocket<R>> {
    cast(&mut core.registry.get_mut(key)?.resource)
}

pub(super) fn table<S: Handle<Datagrams<R>>, R: 'static>() -> &'static Vtable {
    &Vtable {
        name: std::any::type_name::<Datagrams<R>>,
        event: drive::event::<S, R>,
        detached: detached::<R>,
        again: drive::again::<S, R>,
        flush: drive::flush::<R>,
        close: close::<R>,
        release: release::<R>,
        pause: pause::<R>,
        expired: |core, key| core.end(key, Closed::TimedOut(Phase::Close), Ending::Orderly),
        noted: |core, key, _| Closed::take_noted(&mut find::<R>(core, key)?.why),
        // It is never ended for its bytes, because its queues have limits of their own and there are few such
        // sockets.
        holding: |core, key| Holding {
            bytes: find::<R>(core, key).map_or(0, |link| link.counted),
            moved: None,
        },
        leave: leave::<R>,
        closed: closed::<S, R>,
        look: |resource| {
            let link = resource.downcast_ref::<DatagramSocket<R>>();
            link.map_or(Look::default(), |link| Look {
                is_high: link.high,
                rests: RestReasons::NONE.with(RestReason::Paused, link.paused),
            })
        },
        ..Vtable::NOTHING
    }
}

/// Registers a socket.
pub(crate) fn attach<R: 'static>(
    mut datagrams: Datagrams<R>,
    core: &mut LoopState,
    index: u16,
    table: &'static Vtable,
    transport: Transport,
) -> Result<Key, (Datagrams<R>, Error)> {
    let carried = datagrams.carried.take().map(|carried| *carried).unwrap_or_default();
    let longest = datagrams.settings().longest.min(DATAGRAM_MAX);
    let Carried { queue, kept, paused, high, deadline, .. } = carried;
    let kept = Batch::from(kept);
    let link = DatagramSocket {
        datagrams,
        kept_bytes: kept.room() + kept.len() * drive::KEPT_EACH,
        kept,
        queue,
        counted: 0,
        paused,
        reading: true,
        blocked: false,
        high,
        drained_due: false,
        exit: Exit::Stays,
        why: None,
    };
    let key = match core.registry.insert(index, table, Box::new(link)) {
        Ok(key) => key,
        Err(back) => return Err((unwrap::<R>(back, Some(transport)), core.full_of_resources())),
    };
    if let Err(refused) = core.engine.attach(key, transport, Role::Datagrams) {
        let back = core.registry.take_back(key).expect("it was inserted above");
        let datagrams = unwrap::<R>(back, Some(refused.transport));
        return Err((
            datagrams,
            Error::os("attach", crate::log::short(std::any::type_name::<Datagrams<R>>()), refused.error),
        ));
    }
    if longest > DatagramOptions::DEFAULT.longest {
        core.engine.set_longest(key, longest);
    }
    if deadline.is_some() {
        core.set_deadline(key, deadline);
    }
    // Continue with the rest of an earlier life.
    drive::recount::<R>(core, key);
    core.drive_again(key);
    core.mark(key);
    Ok(key)
}

/// Takes the socket and its belongings out of its link.
fn unwrap<R: 'static>(link: Box<dyn Any>, transport: Option<Transport>) -> Datagrams<R> {
    let link = *link
        .downcast::<DatagramSocket<R>>()
        .expect("a table is only used with the resource it was made for");
    let DatagramSocket { mut datagrams, queue, kept, paused, .. } = link;
    // The next life emits a `Drained` that is still due.
    let high = link.high || link.drained_due;
    let before = datagrams.carried.take().map(|carried| *carried).unwrap_or_default();
    let (transport, deadline) = (transport.or(before.transport), before.deadline);
    let kept = kept.into_kept();
    datagrams.carried = Some(Box::new(Carried { transport, queue, kept, paused, high, deadline }));
    datagrams
}

fn close<R: 'static>(core: &mut LoopState, key: Key, why: Closed) {
    let Some(link) = find::<R>(core, key) else { return };
    match link.exit {
        Exit::Closing => return Closed::note_failure(&mut link.why, why),
        Exit::Detaching | Exit::Detached => return,
        Exit::Stays | Exit::Releasing => (link.exit, link.why) = (Exit::Closing, Some(why)),
    }
    let (after, waits) = (link.datagrams.settings().close, !link.queue.is_empty());
    core.set_deadline(key, None);
    if waits {
        core.set_internal_deadline(key, Some(after));
    }
    core.mark(key);
}

fn release<R: 'static>(core: &mut LoopState, key: Key) -> Result<(), Error> {
    let Some(link) = find::<R>(core, key) else { return Ok(()) };
    if !link.exit.release() {
        return Err(release_refused(CLOSING));
    }
    core.mark(key);
    Ok(())
}

fn detached<R: 'static>(core: &mut LoopState, key: Key, transport: Transport) {
    let deadline = core.deadline_left(key);
    let Some(link) = find::<R>(core, key) else { return };
    link.exit = Exit::Detached;
    let carried = link.datagrams.carried.get_or_insert_default();
    (carried.transport, carried.deadline) = (Some(transport), deadline);
    core.end(key, Closed::Released, Ending::Orderly);
}

fn pause<R: 'static>(core: &mut LoopState, key: Key, paused: bool) {
    let Some(link) = find::<R>(core, key) else { return };
    link.paused = paused;
    if !paused && !link.kept.is_empty() {
        core.drive_again(key);
    }
    core.mark(key);
}

fn leave<R: 'static>(core: &mut LoopState, key: Key, how: Ending) {
    let LoopState { registry, engine, budget, records, .. } = core;
    let Some(slot) = registry.get_mut(key) else { return };
    let record = records.get_mut(slot.service as usize);
    let Some(link) = cast::<R>(&mut slot.resource) else { return };
    budget.recount(&mut link.counted, 0);
    if link.exit != Exit::Detached {
        if let Some(record) = record {
            record.bytes_dropped += link.queue.bytes() as u64;
        }
        engine.close(key, how);
    }
}

fn closed<S: Handle<Datagrams<R>>, R: 'static>(
    core: &mut LoopState,
    erased: &mut dyn Any,
    key: Key,
    resource: Box<dyn Any>,
    why: Closed,
) {
    let mut datagrams = unwrap::<R>(resource, None);
    let index = core.calling;
    if let Some(carried) = &mut datagrams.carried
        && !matches!(why, Closed::Released)
    {
        datagrams.counts.unread += Batch::from(mem::take(&mut carried.kept)).len() as u64;
    }
    service::<S>(erased).closed(&mut Context::new(core, index), Id::new(key), datagrams, why);
}
