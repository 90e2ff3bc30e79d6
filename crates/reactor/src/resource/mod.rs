//! Resources: the sources of a program's input and the targets of its output. Resources of users are first
//! class.

pub(crate) mod datagram;
pub(crate) mod driver;
mod exit;
mod fd;
mod io;
pub(crate) mod listener;
mod pause;
pub(crate) mod polled;
pub(crate) mod rest;
mod stream;

use std::{any::Any, fmt, io as std_io, mem, time::Duration};

use session::Mark;

pub(crate) use self::driver::{Driver, OutputDriver, Served};
#[cfg(all(unix, feature = "serial"))]
pub(crate) use self::polled::QUEUE_HIGH;
use self::rest::RestReasons;
#[cfg(unix)]
pub(crate) use self::stream::sealed::Connecting;
pub(crate) use self::stream::{Losses, SendPath, Undelivered, is_passing, map_codec, map_layer, with_layer};
pub use self::{
    datagram::{DatagramCounts, DatagramEvent, DatagramOptions, Datagrams, WhenFull},
    fd::Fd,
    io::Io,
    listener::{Accept, Listener},
    stream::{AnyStream, Connection, Event, Flow, Stream, StreamOptions},
};
use crate::{
    engine::{self, Ending, Interest, Outgoing, Ready, Sent, Source, Transport},
    error::{Closed, Error, Result},
    id::Key,
    runtime::{LoopState, pressure::Holding},
};

/// A thing outside of the program whose events a service handles: a connection, a listener, a file, a child,
/// a device.
///
/// It says only what a service gets of it. Everything else is its driver's: an engine moves the bytes of a
/// [`Stream`], and threads read the file of a [`FileReader`](crate::file::FileReader). For a resource of your
/// own, implement [`Pollable`]. It then is a `Resource` as well.
pub trait Resource: Sized + 'static {
    /// The event that a [`Handle`](crate::Handle) gets. It may borrow from the runtime, but never from the
    /// resource, so that the service can look at the resource while it holds the event.
    type Event<'a>;

    /// The part of the runtime that drives it. Only the library has drivers.
    type Driver: Driver<Self>;
}

/// A resource of your own: a source that the runtime watches, and one operation on it.
///
/// Implement it for sources that the library does not know, for example a timer descriptor, a device or
/// another socket family. A resource that also takes output implements [`Writable`].
///
/// # The contract
///
/// **Who calls, and when.** Only the runtime does, in its thread, and never while a handler runs. It watches
/// [`source`](Pollable::source) level-triggered for [`interest`](Pollable::interest). When an operation will
/// not block, it calls [`step`](Pollable::step), and then hands the event to the service. It asks for the
/// interest again after each call of the handler.
///
/// **The source stays the same** for the whole life. The runtime notes it when it adds the resource. A resource
/// that shows another source later ends as [`Closed::Misuse`], because the number may belong to a foreign
/// descriptor.
///
/// **Panics** cost the service, as a panic of its handler does.
///
/// **Not promised.** Readiness is a hint: `step` may find nothing, and then says `WouldBlock`. The number of
/// steps in a turn is not fixed. It is at most 64.
///
/// ```
/// use reactor::{Io, Pollable, Ready, Source};
/// use std::{io, net::UdpSocket};
///
/// /// Tells the length of each datagram. The socket is non-blocking.
/// struct Lengths(UdpSocket);
///
/// impl Pollable for Lengths {
///     type Event<'a> = usize;
///
///     fn source(&self) -> Source<'_> {
///         Source::of(&self.0)
///     }
///
///     fn step(&mut self, _: Ready, io: &mut Io<'_>, buffer: &mut [u8]) -> io::Result<Option<usize>> {
///         let length = self.0.recv(buffer)?;
///         io.may_have_more();
///         Ok(Some(length))
///     }
/// }
/// ```
pub trait Pollable: Sized + 'static {
    /// The result of `step`. It may borrow the lent buffer, but never the resource, so that the service can
    /// look at the resource while it holds the event.
    type Event<'a>;

    /// Returns the source to watch. It must be non-blocking, and stay the same for the whole life.
    fn source(&self) -> Source<'_>;

    /// Returns the readiness to watch for. `None` lets the resource rest. The runtime asks again after each
    /// call of the handler. While output is queued ([`Writable`]), the runtime watches for room as well.
    fn interest(&self) -> Option<Interest> {
        Some(Interest::Read)
    }

    /// Performs one operation, through [`Io::read`] or [`Io::write`], and returns its result.
    ///
    /// The runtime calls it again while it returns an event and its read filled the buffer, at most 64 times
    /// in a turn. Return `Ok(None)` if an operation found nothing worth an event. A loop in the step that
    /// returns a borrow of `buffer` early does not pass the borrow checker: read first, keep the count, and
    /// borrow in the last expression.
    ///
    /// # Errors
    /// `WouldBlock` ends the turn for this resource. Any other error ends the resource.
    fn step<'a>(
        &mut self,
        ready: Ready,
        io: &mut Io<'_>,
        buffer: &'a mut [u8],
    ) -> std_io::Result<Option<Self::Event<'a>>>;

    /// Prepares for a life in a runtime. [`Context::add`](crate::Context::add) calls it once, before the
    /// first [`source`](Pollable::source). The default has nothing to prepare.
    ///
    /// # Errors
    /// The resource cannot be added now, and comes back with this error.
    fn prepare(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

// Whoever lacks the one is rarely about to write the other.
#[diagnostic::do_not_recommend]
impl<R: Pollable> Resource for R {
    type Event<'a> = <R as Pollable>::Event<'a>;
    type Driver = driver::Polled;
}

/// A resource that takes output, which [`send`](crate::Context::send) queues. For a resource of your own,
/// implement [`Writable`]. It then is an `Output` as well.
#[diagnostic::on_unimplemented(
    message = "nothing can be sent to resources of type `{Self}`",
    label = "`{Self}` takes no output",
    note = "streams, sockets for datagrams and serial ports take output, and your own resources that implement `Writable`"
)]
pub trait Output: Resource<Driver: OutputDriver<Self>> {
    /// The type of an item to send.
    type Item<'a>;
}

/// A resource of your own that takes output. The runtime keeps its write queue.
///
/// # The contract
///
/// **Who calls, and when.** [`Context::send`](crate::Context::send) calls [`encode`](Writable::encode) within
/// the handler. The runtime calls [`flush`](Writable::flush) after the handlers of the turn, and again
/// whenever the source has room and the queue is not empty. Neither is called after the resource has ended.
///
/// **The queue is the runtime's.** It is bounded at 4 MiB, counts against
/// [`Limits::bytes`](crate::Limits::bytes), and its bytes leave in the order of the sends.
///
/// **Not promised.** One flush need not take a whole item, one item need not leave in one write, and several
/// items may leave in one write. A source that takes one message for each write needs its own `flush`.
pub trait Writable: Pollable {
    /// The type of an item to send.
    type Item<'a>;

    /// Appends an item to the write queue, in its form on the wire.
    ///
    /// # Errors
    /// An item that cannot be encoded, for example because it is too long, ends the resource. The runtime
    /// removes the part that it appended.
    fn encode(&mut self, item: Self::Item<'_>, out: &mut Outgoing) -> Result;

    /// Writes once from the queue, and advances the queue by the count of written bytes. The default makes
    /// one vectored write. A datagram socket writes one item a call.
    ///
    /// # Errors
    /// After `WouldBlock` the runtime waits for room. Any other error ends the resource.
    fn flush(&mut self, io: &mut Io<'_>, out: &mut Outgoing) -> std_io::Result<()> {
        let taken = io.write(self.source(), out)?;
        out.advance(taken);
        Ok(())
    }

    /// Returns how long queued output may make no progress before the resource ends as
    /// [`Closed::Stalled`]. The runtime asks with each item that the service sends.
    /// By default there is no limit, because a device or a pipe may rest for as long as its user likes. Set a
    /// limit for a peer, because otherwise a peer that never reads keeps its queue for ever.
    fn write_stall(&self) -> Option<Duration> {
        None
    }
}

#[diagnostic::do_not_recommend]
impl<R: Writable> Output for R {
    type Item<'a> = <R as Writable>::Item<'a>;
}

/// Returns the reason of an end, or keeps it for later.
pub(crate) type Defer = fn(&mut LoopState, Key, Closed) -> Option<Closed>;
/// Returns the reason that was noted before this end, if it says more.
pub(crate) type Noted = fn(&mut LoopState, Key, &Closed) -> Option<Closed>;

/// The vtable for a kind of resource of a kind of service: the erased part of the loop.
// Hidden and public, because hidden methods of public traits name it. No path leads to it.
#[doc(hidden)]
pub struct Vtable {
    pub(crate) name: fn() -> &'static str,
    /// Handles input of a stream. It is separate from the other events, so that the chunk survives a panic of
    /// the handler.
    pub(crate) got: fn(&mut LoopState, &mut dyn Any, Key, &mut [u8]),
    pub(crate) event: fn(&mut LoopState, &mut dyn Any, Key, engine::Event),
    pub(crate) sent: fn(&mut LoopState, Key, Sent),
    pub(crate) detached: fn(&mut LoopState, Key, Transport),
    /// Continues with kept work: unread input or a drained queue.
    pub(crate) again: fn(&mut LoopState, &mut dyn Any, Key),
    /// Writes queued output, and updates the engine's interest.
    pub(crate) flush: fn(&mut LoopState, Key),
    /// Begins a graceful close.
    pub(crate) close: fn(&mut LoopState, Key, Closed),
    /// Ends the write side after the queued output.
    pub(crate) finish: fn(&mut LoopState, Key),
    /// Begins to give the resource back, or returns an error.
    pub(crate) release: fn(&mut LoopState, Key) -> Result<(), Error>,
    /// Continues alone after the paired partner was released.
    pub(crate) unpair: fn(&mut LoopState, Key),
    pub(crate) pause: fn(&mut LoopState, Key, bool),
    /// Keeps input that the driver of another type has left, because a handler changed the type.
    pub(crate) keep: fn(&mut LoopState, Key, Undelivered<'_>),
    /// Notes that the queue of the paired partner is high, or no longer high.
    pub(crate) hold: fn(&mut LoopState, Key, bool),
    /// Handles the end of the runtime's internal deadline.
    pub(crate) expired: fn(&mut LoopState, Key),
    /// Called before the resource ends. Returns the reason, or keeps it and ends the resource later, because
    /// an operation of it is under way that cannot be cancelled.
    pub(crate) defer: Option<Defer>,
    /// Called when the resource ends. Returns the reason that was noted before, so that no kind of end loses
    /// a failure.
    pub(crate) noted: Noted,
    /// Handles the deadline of an item that the peer began.
    pub(crate) item_due: fn(&mut LoopState, Key),
    /// Frees unused memory, and returns the resource's holding.
    pub(crate) holding: fn(&mut LoopState, Key) -> Holding,
    /// Removes the resource from the engine, while its slot still lives.
    pub(crate) leave: fn(&mut LoopState, Key, Ending),
    pub(crate) closed: fn(&mut LoopState, &mut dyn Any, Key, Box<dyn Any>, Closed),
    /// Returns what can be seen of the resource without its type.
    pub(crate) look: fn(&dyn Any) -> Look,
    pub(crate) listener: bool,
}

impl fmt::Debug for Vtable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vtable").field("name", &(self.name)()).finish_non_exhaustive()
    }
}

/// What can be seen of a resource without its type.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Look {
    /// Its write queue is above the high mark.
    pub(crate) is_high: bool,
    /// Why it is not read, and by whom.
    pub(crate) rests: RestReasons,
}

impl Vtable {
    /// Does nothing. A kind of resource takes from it the entries that it does not need.
    pub(crate) const NOTHING: Vtable = Vtable {
        name: || "a resource",
        got: |_, _, _, _| (),
        event: |_, _, _, _| (),
        sent: |_, _, _| (),
        detached: |_, _, _| (),
        again: |_, _, _| (),
        flush: |_, _| (),
        close: |_, _, _| (),
        finish: |_, _| (),
        release: |_, _| Ok(()),
        unpair: |_, _| (),
        pause: |_, _, _| (),
        keep: |_, _, _| (),
        hold: |_, _, _| (),
        expired: |_, _| (),
        defer: None,
        noted: |_, _, _| None,
        item_due: |_, _| (),
        holding: |_, _| Holding::default(),
        leave: |_, _, _| (),
        closed: |_, _, _, _, _| (),
        look: |_| Look::default(),
        listener: false,
    };
}

/// Returns the error of a [`release`](crate::Context::release) that the resource refuses.
pub(crate) fn release_refused(why: &'static str) -> Error {
    Error::Misuse { operation: "release", why }
}

/// The reason for which a closing resource refuses its release.
pub(crate) const CLOSING: &str = "the resource is closing: `closed` follows";

/// Appends an item to a queue, whole or not at all, and returns the queue's earlier position.
///
/// If the encoder panics, no part of the item stays in the queue. The resource is noted as broken, because
/// the state of its encoder is unknown.
#[inline]
pub(crate) fn encode_whole(
    out: &mut Outgoing,
    broken: &mut Vec<Key>,
    key: Key,
    encode: impl FnOnce(&mut Outgoing) -> Result,
) -> (Result, Mark) {
    let mark = out.mark();
    let half = Half { out, mark, broken, key };
    let encoded = encode(half.out);
    if encoded.is_err() {
        half.out.rollback(mark);
    }
    mem::forget(half);
    (encoded, mark)
}

/// An item that is being encoded. Only a panic drops it.
struct Half<'a> {
    out: &'a mut Outgoing,
    mark: Mark,
    broken: &'a mut Vec<Key>,
    key: Key,
}

impl Drop for Half<'_> {
    #[cold]
    fn drop(&mut self) {
        self.out.rollback(self.mark);
        self.broken.push(self.key);
    }
}

/// Calls user code of a resource that another resource's handler uses. A panic continues, and breaks this
/// resource as well.
pub(crate) fn breaking<T>(core: &mut LoopState, key: Key, users: impl FnOnce(&mut LoopState) -> T) -> T {
    let broken = Broken { core, key };
    let value = users(broken.core);
    mem::forget(broken);
    value
}

/// A resource whose user code runs. Only a panic drops it.
struct Broken<'a> {
    core: &'a mut LoopState,
    key: Key,
}

impl Drop for Broken<'_> {
    #[cold]
    fn drop(&mut self) {
        self.core.broken.push(self.key);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        id::Id,
        runtime::{Context, Handle},
    };

    /// Returns a vtable for tests of the registry, which never call through it.
    pub(crate) fn table() -> &'static Vtable {
        struct Nobody;
        impl crate::Service for Nobody {}
        impl Handle<Fd<std::net::TcpStream>> for Nobody {
            fn handle(&mut self, _: &mut Context<Self>, _: Id<Fd<std::net::TcpStream>>, _: Ready) -> Result {
                Ok(())
            }
        }
        <driver::Polled as Driver<Fd<std::net::TcpStream>>>::table::<Nobody>()
    }
}
