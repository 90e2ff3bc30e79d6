//! The runtime as one service sees it during one call. Each file has the methods of one heading, in the order in which
//! people need them.

// In the order of the headings in the documentation, hence the empty lines.
mod connect;

mod send;

mod time;

mod lives;

mod messages;

mod datagrams;

mod files;

#[cfg(unix)]
mod system;

mod rare;

use std::{any::type_name, fmt, io, marker::PhantomData};

use crate::{
    address::{Address, ToAddress},
    error::{Closed, Error, Fault, Phase, Result},
    guard,
    id::{Id, Key},
    resource::{Resource, Vtable},
    runtime::LoopState,
};

/// The interface of a service to its runtime, lent for one call. No request made here calls a handler before
/// the present call has returned.
///
/// Time, wall clock, randomness, network and blocking work reach a service only through its context, so the
/// same service runs in a simulated world.
///
/// Every call treats a stale id, or one of another service or runtime, as gone, which is harmless.
///
/// The methods stand under these headings:
///
/// * [Listen, connect, add](#listen-connect-add)
/// * [Send](#send)
/// * [Set timers, read the time](#set-timers-read-the-time)
/// * [Look at a resource, pause it, bound its life, end it](#look-at-a-resource-pause-it-bound-its-life-end-it)
/// * [Talk to services and threads, run blocking work](#talk-to-services-and-threads-run-blocking-work)
/// * [Datagrams](#datagrams)
/// * [Files](#files)
/// * [Processes, signals, standard streams](#processes-signals-standard-streams)
/// * [Rarely needed](#rarely-needed)
pub struct Context<'a, S> {
    pub(crate) core: &'a mut LoopState,
    pub(crate) index: u16,
    of: PhantomData<fn(S)>,
}

impl<S> fmt::Debug for Context<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context of {}", crate::log::short(type_name::<S>()))
    }
}

/// The error of a resource that could not be added: the resource comes back with the cause.
///
/// `?` in a handler turns it into a [`Failure`](crate::Failure) of the cause, and drops the resource.
///
/// The resource needs no `Debug`: `Rejected` names its type.
///
/// ```
/// struct Secret;
/// fn must<T>(added: Result<T, reactor::Rejected<Secret>>) -> T {
///     added.expect("there is room")
/// }
/// assert_eq!(must(Ok(7)), 7);
/// ```
pub struct Rejected<R> {
    /// The resource, unchanged.
    pub resource: R,
    /// The cause.
    pub error: Error,
}

impl<R> fmt::Debug for Rejected<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = crate::log::short(type_name::<R>());
        f.debug_struct("Rejected")
            .field("resource", &format_args!("{name}"))
            .field("error", &self.error)
            .finish()
    }
}

impl<R> From<Rejected<R>> for Box<dyn std::error::Error + Send + Sync> {
    fn from(rejected: Rejected<R>) -> Self {
        rejected.error.into()
    }
}

impl<'a, S> Context<'a, S> {
    pub(crate) fn new(core: &'a mut LoopState, index: u16) -> Context<'a, S> {
        core.calling = index;
        Context { core, index, of: PhantomData }
    }

    /// Returns the machine that the service runs on.
    #[cfg(unix)]
    pub(crate) fn host(&mut self) -> &mut dyn crate::host::Host {
        self.core.engine.host_mut()
    }

    /// Records an error that the service did not take.
    pub(crate) fn note_error(&mut self, text: String) {
        self.core.note_error(self.index, text);
    }

    /// Records why a resource ended, if the reason is an error that the service did not take.
    pub(crate) fn ended_unheard(&mut self, key: Key, why: &Closed) {
        let is_connect = match why {
            Closed::Failed(Error::Os { operation, .. }) => *operation == "connect",
            Closed::TimedOut(phase) => *phase == Phase::Connect,
            _ => false,
        };
        if let Some(text) = self.core.refused.remove(&key) {
            self.note_error(text);
        } else if is_connect {
            self.note_error(guard::text(why));
        }
    }

    /// Returns whether the key names a live resource of this service.
    #[inline]
    pub(crate) fn owns(&self, key: Key) -> bool {
        self.core.registry.get(key).is_some_and(|slot| slot.service == self.index)
    }

    /// Checks that the key names a live resource of this service, for operations that need one.
    pub(crate) fn find(&self, key: Key) -> io::Result<()> {
        if self.owns(key) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Returns the number of the service's present life.
    pub(crate) fn life(&self) -> u32 {
        self.core.records.get(self.index as usize).map_or(0, |record| record.life)
    }

    fn table_of(&self, key: Key) -> Option<&'static Vtable> {
        self.core.registry.get(key).filter(|slot| slot.service == self.index).map(|slot| slot.table)
    }

    fn timers_are_full(&mut self) {
        let limit = self.core.limits.timers;
        self.core.faults_due.push(self.index, Fault::TimersFull(limit));
    }
}

pub(crate) fn to_address(operation: &'static str, address: &impl ToAddress) -> Result<Address, Error> {
    address.to_address().map_err(|error| Error::os(operation, "address", error))
}

/// Returns the name of a resource for errors.
pub(crate) fn name_of<R: Resource>(id: Id<R>) -> String {
    format!("{} {id:?}", crate::log::short(type_name::<R>()))
}
