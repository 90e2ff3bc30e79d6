//! Resources: what gives input to a program or takes output from it. Users' own are first class.

mod custom;
mod datagram;
#[cfg(unix)]
mod descriptors;
mod fd;
mod io;
mod listen;
pub(crate) mod listener;
mod pause;
#[cfg(all(unix, feature = "serial"))]
pub mod serial;
mod stream;
pub(crate) mod unwatched;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub mod watch;

use std::{any::Any, io as std_io, mem, time::Duration};

use session::Mark;

#[cfg(all(unix, feature = "serial"))]
use self::custom::QUEUE_HIGH;
#[cfg(unix)]
pub use self::descriptors::{Descriptors, Message, Passed};
pub(crate) use self::stream::{Losses, Rest, Way, is_passing, map_codec, map_layer, with_layer};
pub use self::{
    datagram::{DatagramCounts, DatagramEvent, DatagramOptions, Datagrams, WhenFull},
    fd::Fd,
    io::Io,
    listener::{Accept, Listener},
    stream::{AnyStream, Connection, Event, Flow, Stream, StreamOptions},
};
use crate::{
    context::Context,
    core::{Call, Core},
    engine::{self, Ending, Interest, Outgoing, Ready, Sent, Source, Transport},
    error::{Closed, Error, Result},
    id::{Id, Key},
    runtime::pressure::Holding,
    service::Handle,
};

/// Anything that can be waited for.
///
/// Implement it for what the library does not know: a timer descriptor, a device, a socket family of
/// your own. The runtime watches [`source`](Resource::source) level-triggered for
/// [`interest`](Resource::interest), calls [`step`](Resource::step) when an operation will not block, and
/// hands the event to the service.
///
/// The runtime notes the source when the resource is added; a resource that shows another one later ends
/// as [`Closed::Misuse`], since a foreign descriptor may be behind the number.
///
/// ```
/// use reactor::{Io, Ready, Resource, Source};
/// use std::{io, net::UdpSocket};
///
/// /// Tells the length of each datagram. The socket is non-blocking.
/// struct Lengths(UdpSocket);
///
/// impl Resource for Lengths {
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
pub trait Resource: Sized + 'static {
    /// What `step` learns. It may borrow the lent buffer, never the resource: so the service can look at
    /// the resource while it holds the event.
    type Event<'a>;

    /// What to watch: non-blocking, and the same for the whole life.
    fn source(&self) -> Source<'_>;

    /// What to watch it for; `None` lets it rest. Asked again after each call of its handler. While
    /// output is queued ([`Output`]) the runtime watches for room as well.
    fn interest(&self) -> Option<Interest> {
        Some(Interest::Read)
    }

    /// Performs one operation, through [`Io::read`] or [`Io::write`], and says what it learned.
    ///
    /// Called again while it returns an event and its read filled the buffer, at most 64 times in a turn.
    /// `Ok(None)` is for an operation that told nothing worth an event. A loop inside that returns a
    /// borrow of `buffer` early does not pass the borrow checker: read first, keep the count, and borrow
    /// in the last expression.
    ///
    /// # Errors
    /// `WouldBlock` ends the turn for this resource; any other error ends the resource.
    fn step<'a>(
        &mut self,
        ready: Ready,
        io: &mut Io<'_>,
        buffer: &'a mut [u8],
    ) -> std_io::Result<Option<Self::Event<'a>>>;

    #[doc(hidden)]
    fn table<S: Handle<Self>>() -> &'static Table {
        custom::table::<S, Self>()
    }

    /// Asks again for a connection that the system refused for now.
    #[doc(hidden)]
    fn reconnect(&mut self, _: &mut dyn engine::Engine) -> std_io::Result<()> {
        Ok(())
    }

    #[doc(hidden)]
    fn view(slot: &dyn Any) -> Option<&Self> {
        custom::view(slot)
    }

    #[doc(hidden)]
    fn view_mut(slot: &mut dyn Any) -> Option<&mut Self> {
        custom::view_mut(slot)
    }

    #[doc(hidden)]
    fn enroll(self, core: &mut Core, service: u16, table: &'static Table) -> Result<Key, (Self, Error)> {
        custom::enroll(self, core, service, table)
    }
}

/// A resource that takes output: what `send` can carry.
#[diagnostic::on_unimplemented(
    message = "nothing can be sent to resources of type `{Self}`",
    label = "`{Self}` takes no output",
    note = "streams, sockets for datagrams and serial ports take output, and your own resources that implement `Output`"
)]
pub trait Output: Resource {
    /// What is sent.
    type Item<'a>;

    /// Appends an item to the write queue, in the form in which it leaves.
    ///
    /// # Errors
    /// An item that has no such form (too long, ..) ends the resource; what it appended is undone.
    fn encode(&mut self, item: Self::Item<'_>, out: &mut Outgoing) -> Result;

    /// Writes from the queue, once, and advances it by what was taken. By default one vectored write;
    /// a datagram socket writes one item a call.
    ///
    /// # Errors
    /// `WouldBlock` waits for room; any other error ends the resource.
    fn flush(&mut self, io: &mut Io<'_>, out: &mut Outgoing) -> std_io::Result<()> {
        let taken = io.write(self.source(), out)?;
        out.advance(taken);
        Ok(())
    }

    /// Returns how long queued output may make no progress before the resource ends as
    /// [`Closed::Stalled`](crate::Closed::Stalled). The runtime asks with each item that is sent. By default there is no
    /// such limit, because a device or a pipe may rest for as long as its user likes; a peer should have one, because
    /// otherwise one that never reads keeps its queue for ever.
    fn write_stall(&self) -> Option<Duration> {
        None
    }

    #[doc(hidden)]
    fn post(core: &mut Core, index: u16, key: Key, item: Self::Item<'_>) -> Flow {
        custom::post::<Self>(core, index, key, item)
    }
}

/// Gives the reason of an end back, or keeps it for later.
pub(crate) type Defer = fn(&mut Core, Key, Closed) -> Option<Closed>;

/// What the runtime does with a kind of resource of a kind of service: the erased part of the loop.
#[doc(hidden)]
pub struct Table {
    pub(crate) name: fn() -> &'static str,
    /// Input of a stream. Apart from the other events, so that the chunk survives a panic of the handler.
    pub(crate) got: fn(&mut Core, &mut dyn Any, Key, &mut [u8]),
    pub(crate) event: fn(&mut Core, &mut dyn Any, Key, engine::Event),
    pub(crate) sent: fn(&mut Core, Key, Sent),
    pub(crate) detached: fn(&mut Core, Key, Transport),
    /// What was kept (unread input, a drained queue) goes on.
    pub(crate) again: fn(&mut Core, &mut dyn Any, Key),
    /// Writes what is queued, and tells the engine what is wanted.
    pub(crate) flush: fn(&mut Core, Key),
    /// Begins a graceful close.
    pub(crate) close: fn(&mut Core, Key, Closed),
    /// Ends the write side after what is queued.
    pub(crate) finish: fn(&mut Core, Key),
    /// Begins to give the resource back, or says why not.
    pub(crate) release: fn(&mut Core, Key) -> Result<(), Error>,
    /// What it was coupled with was released: it goes on alone.
    pub(crate) uncouple: fn(&mut Core, Key),
    pub(crate) pause: fn(&mut Core, Key, bool),
    /// Keeps input that the driver of another type has left: the type was changed in a handler.
    pub(crate) keep: fn(&mut Core, Key, Rest<'_>),
    /// The queue of its partner in a couple is high, or is not any more.
    pub(crate) hold: fn(&mut Core, Key, bool),
    /// The runtime's own deadline passed.
    pub(crate) expired: fn(&mut Core, Key),
    /// Asked before it ends: gives the reason back, or keeps it and ends the resource later, because something of it is
    /// under way that nobody can take back.
    pub(crate) defer: Option<Defer>,
    /// An item that the peer began may be unfinished for too long.
    pub(crate) item_due: fn(&mut Core, Key),
    /// Gives back memory that is not used, and says what the resource holds.
    pub(crate) holding: fn(&mut Core, Key) -> Holding,
    /// Takes it from the engine; the slot still lives.
    pub(crate) leave: fn(&mut Core, Key, Ending),
    pub(crate) closed: fn(&mut Core, &mut dyn Any, Key, Box<dyn Any>, Closed),
    pub(crate) listener: bool,
}

impl Table {
    /// Does nothing: the parts that a kind of resource leaves as they are.
    pub(crate) const NOTHING: Table = Table {
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
        uncouple: |_, _| (),
        pause: |_, _, _| (),
        keep: |_, _, _| (),
        hold: |_, _, _| (),
        expired: |_, _| (),
        defer: None,
        item_due: |_, _| (),
        holding: |_, _| Holding::default(),
        leave: |_, _, _| (),
        closed: |_, _, _, _, _| (),
        listener: false,
    };
}

/// What [`release`](Context::release) answers of a resource that is closing.
pub(crate) fn release_refused(why: &'static str) -> Error {
    Error::Misuse { operation: "release", why }
}

/// What refuses the release of a resource that is closing.
pub(crate) const CLOSING: &str = "the resource is closing: `closed` follows";

/// Appends an item to a queue, whole or not at all, and says where the queue was before.
///
/// If the encoder panics, nothing of the item stays in the queue, and the resource is noted as broken: what its encoder
/// did to itself is unknown.
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

/// An item that is being encoded: dropped only by a panic.
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

/// Calls users' code of a resource that another one's handler uses. A panic goes on, and breaks this resource as well.
pub(crate) fn breaking<T>(core: &mut Core, key: Key, users: impl FnOnce(&mut Core) -> T) -> T {
    let broken = Broken { core, key };
    let value = users(broken.core);
    mem::forget(broken);
    value
}

/// A resource whose code is called: dropped only by a panic.
struct Broken<'a> {
    core: &'a mut Core,
    key: Key,
}

impl Drop for Broken<'_> {
    #[cold]
    fn drop(&mut self) {
        self.core.broken.push(self.key);
    }
}

/// A service that handles an event: dropped only by its panic.
struct Called<'a>(&'a mut Core);

impl Drop for Called<'_> {
    #[cold]
    fn drop(&mut self) {
        self.0.has_handler_panicked = true;
    }
}

/// Hands an event to the service. `false`: the handler refused, and the resource is closing.
#[inline(always)]
pub(crate) fn emit<S: Handle<R>, R: Resource>(
    core: &mut Core,
    service: &mut S,
    key: Key,
    index: u16,
    event: R::Event<'_>,
) -> bool {
    core.spend();
    core.observe(Call::Handle { service: index, resource: key });
    let called = Called(&mut *core);
    let result = service.handle(&mut Context::new(called.0, index), Id::new(key), event);
    mem::forget(called);
    match result {
        Ok(()) => true,
        Err(failure) => {
            core.refuse(key, failure);
            false
        }
    }
}

/// Finds the service behind the erasure.
#[inline]
pub(crate) fn service<S: 'static>(service: &mut dyn Any) -> &mut S {
    service.downcast_mut().expect("a table is only used with the service it was made for")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A table for tests of the registry, which never call through it.
    pub(crate) fn table() -> &'static Table {
        struct Nobody;
        impl crate::Service for Nobody {}
        impl Handle<Fd<std::net::TcpStream>> for Nobody {
            fn handle(&mut self, _: &mut Context<Self>, _: Id<Fd<std::net::TcpStream>>, _: Ready) -> Result {
                Ok(())
            }
        }
        Fd::<std::net::TcpStream>::table::<Nobody>()
    }
}
