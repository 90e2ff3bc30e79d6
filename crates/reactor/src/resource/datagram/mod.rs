//! Datagrams: a socket whose messages have bounds, without a connection. This file holds the types that a
//! user sees.

mod drive;
mod socket;

use crate::options::with_changes;
use std::{any::Any, fmt, io, marker::PhantomData, sync::Arc, time::Duration};

use self::socket::DatagramSocket;
pub(crate) use self::socket::attach;
use super::{Driver, Flow, Output, OutputDriver, Resource, Served, Vtable};
use crate::{
    address::Address,
    engine::{Datagram, DatagramQueue, KeptDatagrams, Outbound, Transport},
    error::{Error, Result},
    id::Key,
    runtime::{Handle, LoopState},
};

/// A datagram socket: UDP, a Unix socket of that type, or a simulated one. Its type does not name the
/// transport. `Role` distinguishes two uses, so that a service can handle them by two `Handle` impls.
///
/// [`bind`](crate::Context::bind) brings it to life, or [`add`](crate::Context::add) does with a socket of
/// its own ([`Datagrams::on`]). Its life is `(Received | Undelivered | Drained)*`, then `closed`. No act of a
/// peer or of the network ends it. The handler gets one datagram a call. Datagrams that
/// [`send`](crate::Context::send) queues leave at the end of the turn, many with one system call where the
/// system has such calls.
///
/// Delivery is not promised. The queue is bounded ([`DatagramOptions`]), and the runtime drops and counts
/// datagrams that find no room ([`Datagrams::counts`]). A closing socket sends its queue and hands over no
/// more: it also drops and counts datagrams that arrived before and were not handed over. A paused socket
/// keeps them.
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
    /// The state of a socket outside of a runtime.
    carried: Option<Box<Carried>>,
    role: PhantomData<fn() -> Role>,
}

/// The transport of a socket outside of a runtime, and the datagrams that belong to it.
#[derive(Default)]
struct Carried {
    transport: Option<Transport>,
    queue: DatagramQueue,
    kept: KeptDatagrams,
    paused: bool,
    /// The service has to hold back, and has not got `Drained` yet.
    high: bool,
    /// The time that was left until the service's deadline.
    deadline: Option<Duration>,
}

/// An event of a datagram socket.
///
/// [`Datagrams`] has an example.
#[derive(Debug)]
pub enum DatagramEvent<'a> {
    /// A datagram arrived. It borrows the runtime's buffer for the call.
    Received(Datagram<'a>),
    /// A datagram of ours probably did not reach its receiver. The event comes for a send that failed, or
    /// later, for a report from the network. Examples of a failed send are EMSGSIZE (too long), ENETUNREACH,
    /// and EAGAIN (the queue of the receiving Unix socket is full). An example of a report is ECONNREFUSED
    /// (no socket is bound there). The socket continues.
    Undelivered {
        /// The receiver. `None` if it is the peer to which the socket is connected, or if the system does not
        /// name it in reports (all but Linux).
        to: Option<Address>,
        /// The reason.
        error: io::Error,
    },
    /// The queue was above one of its high marks, or full, and at least three quarters of it are free again.
    Drained,
}

/// Counts of the datagrams of one socket so far.
///
/// [`Datagrams::counts`] returns it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct DatagramCounts {
    /// Handed to the service.
    pub received: u64,
    /// Those of them that were truncated.
    pub truncated: u64,
    /// Arrived but not handed over, because the socket closed or too much was kept while it was paused.
    pub unread: u64,
    /// Taken by the system.
    pub sent: u64,
    /// Dropped because they found no room in the queue, or made room for a later one.
    pub dropped: u64,
    /// Reports that a datagram was not delivered.
    pub undelivered: u64,
}

impl Datagrams {
    /// Creates one without a socket, with the default options.
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
    /// Returns the same socket in another role.
    pub fn role<Other: 'static>(self) -> Datagrams<Other> {
        let Datagrams { options, counts, carried, .. } = self;
        Datagrams { options, counts, carried, role: PhantomData }
    }

    /// Sets bounds. All sockets may share one set.
    #[must_use]
    pub fn options(mut self, options: impl Into<Arc<DatagramOptions>>) -> Datagrams<R> {
        self.options = Some(options.into());
        self
    }

    /// Gives it a socket that other code opened, for [`add`](crate::Context::add).
    ///
    /// # Errors
    /// The socket cannot be made non-blocking.
    #[cfg(unix)]
    pub fn on(self, socket: impl Into<std::os::fd::OwnedFd>) -> io::Result<Datagrams<R>> {
        self.on_descriptor(socket.into())
    }

    /// Gives it a socket that other code opened, for [`add`](crate::Context::add).
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

    /// Returns the counts of its datagrams so far.
    pub fn counts(&self) -> DatagramCounts {
        self.counts
    }

    /// Returns how many datagrams were queued when it ended, and did not leave.
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
    type Driver = Served;
}

impl<R: 'static> Driver<Datagrams<R>> for Served {
    fn table<S: Handle<Datagrams<R>>>() -> &'static Vtable {
        socket::table::<S, R>()
    }

    fn view(slot: &dyn Any) -> Option<&Datagrams<R>> {
        slot.downcast_ref::<DatagramSocket<R>>().map(|link| &link.datagrams)
    }

    fn view_mut(slot: &mut dyn Any) -> Option<&mut Datagrams<R>> {
        slot.downcast_mut::<DatagramSocket<R>>().map(|link| &mut link.datagrams)
    }

    fn enroll(
        mut datagrams: Datagrams<R>,
        core: &mut LoopState,
        index: u16,
        table: &'static Vtable,
    ) -> Result<Key, (Datagrams<R>, Error)> {
        match datagrams.carried.as_mut().and_then(|carried| carried.transport.take()) {
            Some(transport) => {
                let deadline = datagrams.carried.as_ref().and_then(|carried| carried.deadline);
                attach(datagrams, core, index, table, transport).map_err(|(mut back, error)| {
                    back.carried.get_or_insert_default().deadline = deadline;
                    (back, error)
                })
            }
            None => {
                Err((datagrams, Error::Misuse { operation: "add", why: "there is no socket yet: use bind" }))
            }
        }
    }
}

impl<R: 'static> Output for Datagrams<R> {
    type Item<'a> = Outbound<'a>;
}

impl<R: 'static> OutputDriver<Datagrams<R>> for Served {
    fn post(core: &mut LoopState, index: u16, key: Key, item: Outbound<'_>) -> Flow {
        drive::post::<R>(core, index, key, item)
    }
}

/// The most datagrams that a socket holds, and the choice of the dropped one.
///
/// ```
/// use reactor::{DatagramOptions, Datagrams, WhenFull};
///
/// let newest = DatagramOptions::with(|options| {
///     options.when_full = WhenFull::DropOldest;
///     options.queue = 16;
/// });
/// let video = Datagrams::new().options(newest);
/// # let _ = video;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatagramOptions {
    /// The most datagrams that may wait to leave; 4,096. Above half of it `send` answers `High`.
    pub queue: usize,
    /// The most bytes that they may have together; 4 MiB. Above half of it `send` answers `High`.
    pub queue_bytes: usize,
    /// The datagram to drop when the queue is full.
    pub when_full: WhenFull,
    /// The most bytes of a datagram that the socket receives whole; 64 KiB, which no UDP datagram reaches. Of
    /// a longer datagram only the beginning arrives, and [`Datagram::truncated`](crate::Datagram::truncated)
    /// is set. A value below 64 KiB means 64 KiB, and a value above 2 MiB means 2 MiB.
    /// [`send_buffer`](crate::BindOptions::send_buffer) bounds the datagrams that a Unix socket sends.
    pub longest: usize,
    /// The most bytes that a paused socket keeps, where each datagram counts 128 more; 4 MiB. The runtime
    /// drops later datagrams. SO_RCVBUF bounds the kernel's own queue.
    pub unread: usize,
    /// How long a graceful close may take to send the queue; 5 s.
    pub close: Duration,
}

with_changes!(DatagramOptions);

/// The datagram to drop when the queue is full.
///
/// [`DatagramOptions`] has an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// The new datagram. `send` answers [`Flow::Full`], so that the caller can keep it.
    RefuseNewest,
    /// The oldest datagrams, until there is room for the new one. Use it for data that is soon out of date. A
    /// datagram that would not fit into an empty queue is still refused.
    DropOldest,
}

impl DatagramOptions {
    /// The defaults.
    pub const DEFAULT: DatagramOptions = DatagramOptions {
        queue: 4096,
        queue_bytes: 4 << 20,
        when_full: WhenFull::RefuseNewest,
        longest: 64 << 10,
        unread: 4 << 20,
        close: Duration::from_secs(5),
    };
}

impl Default for DatagramOptions {
    fn default() -> DatagramOptions {
        DatagramOptions::DEFAULT
    }
}
