//! Datagrams: a socket whose messages have bounds, and no connection. This file says what a user sees of one.

mod calls;
mod drive;
mod link;
mod options;

use std::{any::Any, fmt, io, marker::PhantomData, sync::Arc, time::Duration};

use self::link::{Link, attach};
pub use self::options::{DatagramOptions, WhenFull};
use super::{Flow, Io, Output, Resource, Table};
use crate::{
    address::Address,
    core::Core,
    engine::{Datagram, DatagramQueue, Interest, Kept, Outbound, Outgoing, Ready, Source, Transport},
    error::{Error, Failure, Result},
    id::Key,
    service::Handle,
};

/// A socket for datagrams: UDP, a Unix socket of that type, or a simulated one; the transport is not in the
/// type. `Role` tells two uses apart, so that a service can handle them by two `Handle` impls.
///
/// It comes to life by [`bind`](crate::Context::bind), or with a socket of its own ([`Datagrams::on`]) by
/// [`add`](crate::Context::add). Its life is `(Received | Undelivered | Drained)*`, then `closed`: nothing a
/// peer or a network does ends it. One call of the handler is one datagram; what
/// [`send`](crate::Context::send) queues leaves at the end of the turn, many with one call where the system
/// has such calls.
///
/// Sending is not promised to arrive: the queue is bounded ([`DatagramOptions`]), and what finds no room is
/// dropped and counted ([`Datagrams::counts`]). A closing socket sends what is queued, and hands over no more:
/// what arrived before and was not handed over is dropped and counted, too. A paused one keeps it.
///
/// ```no_run
/// use reactor::{Context, DatagramEvent, Datagrams, Handle, Id, Result, Service};
///
/// struct Echo;
///
/// impl Service for Echo {
///     fn start(&mut self, cx: &mut Context<Self>) -> Result {
///         cx.bind("127.0.0.1:7007", Datagrams::new())?;
///         Ok(())
///     }
/// }
///
/// impl Handle<Datagrams> for Echo {
///     fn handle(&mut self, cx: &mut Context<Self>, id: Id<Datagrams>, event: DatagramEvent) -> Result {
///         if let DatagramEvent::Received(datagram) = event {
///             cx.send(id, datagram.answer(datagram.bytes));
///         }
///         Ok(())
///     }
/// }
/// # reactor::run(Echo).map(drop).expect("it runs");
/// ```
pub struct Datagrams<Role = ()> {
    options: Option<Arc<DatagramOptions>>,
    counts: DatagramCounts,
    /// What it owns outside of a runtime.
    carried: Option<Box<Carried>>,
    role: PhantomData<fn() -> Role>,
}

/// The transport of a socket outside of a runtime, and the datagrams that belong to it.
#[derive(Default)]
struct Carried {
    transport: Option<Transport>,
    queue: DatagramQueue,
    kept: Kept,
    paused: bool,
    /// The service was told to hold back, and not yet to go on.
    high: bool,
    /// How much of the service's deadline was left.
    deadline: Option<Duration>,
}

/// What happens to a socket for datagrams.
#[derive(Debug)]
pub enum DatagramEvent<'a> {
    /// A datagram arrived. It borrows the runtime's buffer for the call.
    Received(Datagram<'a>),
    /// A datagram of ours did not get to its receiver, as far as is known. It comes for the send that failed
    /// (EMSGSIZE: too long; ENETUNREACH; EAGAIN: the queue of a Unix socket that it was for is full), or later,
    /// by a report of the network (ECONNREFUSED: nobody is bound there). The socket goes on.
    Undelivered {
        /// To whom it was sent. `None`: to whom the socket is connected, or the system does not tell (all
        /// but Linux, of reports).
        to: Option<Address>,
        /// Why.
        error: io::Error,
    },
    /// The queue was above one of its high marks, or full, and at least three quarters of it are free again.
    Drained,
}

/// What became of the datagrams of one socket so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct DatagramCounts {
    /// Handed to the service.
    pub received: u64,
    /// Those of them that were truncated.
    pub truncated: u64,
    /// Arrived and were not handed over: the socket closed, or too much was kept while it was paused.
    pub unread: u64,
    /// Taken by the system.
    pub sent: u64,
    /// Found no room in the queue, or made room for a later one.
    pub dropped: u64,
    /// Reports that one was not delivered.
    pub undelivered: u64,
}

impl Datagrams {
    /// Creates one without a socket, with the options' defaults.
    pub fn new() -> Datagrams {
        Datagrams { options: None, counts: DatagramCounts::default(), carried: None, role: PhantomData }
    }
}

impl Default for Datagrams {
    fn default() -> Datagrams {
        Datagrams::new()
    }
}

impl<R: 'static> Datagrams<R> {
    /// The same in another role.
    pub fn role<Other: 'static>(self) -> Datagrams<Other> {
        let Datagrams { options, counts, carried, .. } = self;
        Datagrams { options, counts, carried, role: PhantomData }
    }

    /// Sets bounds; one set may be shared by all sockets.
    pub fn options(mut self, options: impl Into<Arc<DatagramOptions>>) -> Datagrams<R> {
        self.options = Some(options.into());
        self
    }

    /// Gives it a socket that somebody else opened: `add` takes it then.
    ///
    /// # Errors
    /// The socket cannot be made non-blocking.
    #[cfg(unix)]
    pub fn on(self, socket: impl Into<std::os::fd::OwnedFd>) -> io::Result<Datagrams<R>> {
        self.on_descriptor(socket.into())
    }

    /// Gives it a socket that somebody else opened: `add` takes it then.
    ///
    /// # Errors
    /// The socket cannot be made non-blocking.
    #[cfg(windows)]
    pub fn on(self, socket: impl Into<std::os::windows::io::OwnedSocket>) -> io::Result<Datagrams<R>> {
        self.on_descriptor(socket.into())
    }

    fn on_descriptor(mut self, descriptor: crate::sys::Owned) -> io::Result<Datagrams<R>> {
        let transport = crate::sys::adopt(descriptor)?;
        self.carried.get_or_insert_default().transport = Some(transport);
        Ok(self)
    }

    /// What became of its datagrams so far.
    pub fn counts(&self) -> DatagramCounts {
        self.counts
    }

    /// How many datagrams were queued when it ended, and did not leave.
    pub fn unsent(&self) -> usize {
        self.carried.as_ref().map_or(0, |carried| carried.queue.len())
    }

    fn settings(&self) -> &DatagramOptions {
        self.options.as_deref().unwrap_or(&DatagramOptions::DEFAULT)
    }
}

impl<R> fmt::Debug for Datagrams<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagrams").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl<R: 'static> Resource for Datagrams<R> {
    type Event<'a> = DatagramEvent<'a>;

    fn source(&self) -> Source<'_> {
        // Only outside of a runtime it has its transport; the runtime never asks.
        match self.carried.as_ref().and_then(|carried| carried.transport.as_ref()) {
            Some(transport) => transport.source(),
            None => Source::hosted(u64::MAX),
        }
    }

    fn interest(&self) -> Option<Interest> {
        None
    }

    fn step<'a>(
        &mut self,
        _: Ready,
        _: &mut Io<'_>,
        _: &'a mut [u8],
    ) -> io::Result<Option<DatagramEvent<'a>>> {
        Ok(None)
    }

    fn table<S: Handle<Self>>() -> &'static Table {
        link::table::<S, R>()
    }

    fn view(slot: &dyn Any) -> Option<&Self> {
        slot.downcast_ref::<Link<R>>().map(|link| &link.datagrams)
    }

    fn view_mut(slot: &mut dyn Any) -> Option<&mut Self> {
        slot.downcast_mut::<Link<R>>().map(|link| &mut link.datagrams)
    }

    fn enroll(mut self, core: &mut Core, index: u16, table: &'static Table) -> Result<Key, (Self, Error)> {
        match self.carried.as_mut().and_then(|carried| carried.transport.take()) {
            Some(transport) => {
                let deadline = self.carried.as_ref().and_then(|carried| carried.deadline);
                attach(self, core, index, table, transport).map_err(|(mut back, error)| {
                    back.carried.get_or_insert_default().deadline = deadline;
                    (back, error)
                })
            }
            None => Err((self, Error::Misuse { operation: "add", why: "there is no socket yet: use bind" })),
        }
    }
}

impl<R: 'static> Output for Datagrams<R> {
    type Item<'a> = Outbound<'a>;

    /// Refuses: `send` goes past it. A queue of bytes would lose where a datagram ends and to whom it goes.
    fn encode(&mut self, _: Outbound<'_>, _: &mut Outgoing) -> Result {
        Err(Failure::from("a datagram does not fit into a queue of bytes: only `send` takes it"))
    }

    fn post(core: &mut Core, index: u16, key: Key, item: Outbound<'_>) -> Flow {
        drive::post::<R>(core, index, key, item)
    }
}
