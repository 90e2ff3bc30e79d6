//! Engines: wait for events and move bytes.
//!
//! # The contract
//!
//! A runtime holds one [`Engine`] as a trait object. The trait is based on *completions*, and the runtime
//! *pulls* them: it requests operations, calls [`wait`](Engine::wait) once a turn, and then calls
//! [`next`](Engine::next) until it returns `None`, for one event at a time. This suits an engine that
//! performs its operations itself, as io_uring and a simulator do. It also suits a system that only reports
//! readiness: the adapter [`Calls`] makes an engine of any [`Poll`], and reads a stream only when the runtime
//! pulls the event.
//!
//! **Keys.** The runtime chooses a [`Key`] for everything that it registers, and never uses a key twice. An
//! event carries the key of the operation that it belongs to. After [`close`](Engine::close) or
//! [`unwatch`](Engine::unwatch) has returned, or the runtime has pulled [`Event::Detached`], the engine
//! reports no more events for the key. This holds even if the kernel still has some in a batch, and even if
//! the number of the descriptor is in use again.
//!
//! **The engine owns streams and listeners** from a successful [`attach`](Engine::attach) until `close`, or
//! until [`detach`](Engine::detach) has given them back. A kernel may refer to a descriptor after the runtime
//! has lost interest, so only the engine knows when it can release the number. A user's resource, in
//! contrast, owns its descriptor itself, and the engine only [watches](Engine::watch) it.
//!
//! **Reading** is a wish. It is on from `attach`. After `reading(key, false)`, an [`Event::Got`] that was in
//! flight may still follow, and the runtime keeps its bytes. In one turn the engine hands over at most 64 KiB
//! of one stream, unless it was made with larger buffers, so that back-pressure acts before more arrives. An
//! engine whose kernel receives more than that keeps the rest until a later turn, in memory that it
//! [counts](Engine::memory). While the wish is on, the engine delivers every byte once and in order, then
//! exactly one [`Event::End`] or [`Event::Broken`], and then nothing more of the read side. It delivers input
//! that arrived before an end or an error ahead of it.
//!
//! **While the wish is off**, an engine still reports that the peer is gone. If no input is before the end,
//! the engine reports [`Event::End`] or [`Event::Broken`] at once. If input is before it, the engine reports
//! [`Event::HungUp`], and the end itself in its order, once the wish is on again. For each time that the wish
//! is off, it reports an end at most once and a failure at most once. On a system that does not distinguish
//! an end or a failure from input, an engine may leave out an end or a failure behind input. While the peer
//! is connected, none of this costs a call.
//!
//! **Transports differ** in their abilities, which [`Transport::medium`] describes. If a transport has no
//! input, the engine delivers nothing but the [`Event::End`] when its reader has left, on systems that report
//! this. A send to a transport without output fails with EBADF. A `shutdown` of a transport that is not a
//! socket fails, and ends nothing.
//!
//! **Sending.** At most one send is in flight for each stream. [`send`](Engine::send) hands the queue to the
//! engine, which performs *one* operation: it takes as many bytes as it can, and returns the queue with the
//! rest, either at once (`Some`) or later as [`Event::Sent`]. If a stream cannot take a byte, the engine
//! keeps the queue until it can, so the runtime never has a reason to ask again before the queue is back. Of
//! a queue that is not empty, an engine takes zero bytes with `Ok(0)` only because of a detach.
//!
//! **Datagrams.** The runtime attaches a socket for datagrams as [`Role::Datagrams`]. The engine delivers
//! received datagrams in batches, as [`Event::Datagrams`]. Each datagram is whole and by itself, even one of
//! no bytes, and there is no end. [`send_datagrams`](Engine::send_datagrams) borrows a queue and takes
//! datagrams from its front while there is room. A system copies a datagram in the call, so an engine owns
//! none of them. If it left some in the queue, it reports [`Event::Room`] once, when there is room. If a
//! datagram could not be sent, the engine takes it off the queue and reports [`Event::Undelivered`]. It also
//! reports [`Event::Undelivered`] when the system learns later (by ICMP) that a sent datagram did not arrive.
//! Such a report concerns only that datagram, and never ends the socket. It may come while reading is off,
//! and comes at the latest when reading is on again.
//!
//! **Fairness.** An engine reports accepted connections before input, some in each turn, and streams take
//! turns: none of them waits for more than one turn of each other stream.
//!
//! **Waiting.** [`wait`](Engine::wait) makes progress with every operation requested before it. It returns
//! when there is an event, when the waker was used since the last `wait` returned, or when the timeout is
//! over. It may also return early without any of these reasons, but only rarely and never in a tight loop,
//! because an engine does not spin. An interrupted wait (EINTR) is not an error. An `Err` means that the
//! engine is broken.
//!
//! **The waker** may be used from any thread and any number of times, also before `wait` and after the engine
//! is gone. Wakes coalesce, and none is lost.
//!
//! **Faults.** No call panics because of a kernel or a peer. The engine ignores a call on an unknown key, or
//! answers `NotFound` if the call returns a result.
//!
//! **Forks.** In a child of fork(2), an engine leaves everything alone that it shares with its parent: `wait`
//! fails, `next` returns no event, and the drop closes the child's copies of descriptors and nothing else.
//!
//! **Drop** cancels and reaps the operations in flight, then answers the file operations that the engine
//! took, and then closes each descriptor that the engine still owns, once. Answers run users' code, which may
//! panic. So an engine answers only when a panic cannot leave memory behind that a kernel still uses.

mod candidates;
mod chunk;
pub(crate) mod datagram;
#[cfg(unix)]
mod descriptor;
mod entry;
mod interest;
#[cfg(all(target_os = "linux", feature = "io-uring"))]
mod io_uring;
mod medium;
mod readiness;
mod source;
#[cfg(unix)]
mod timeout;

use std::{io, time::Duration};

pub use session::Outgoing;

pub use self::{
    chunk::Chunk,
    datagram::{Batch, Datagram, DatagramQueue, Ecn, Outbound},
    interest::{Interest, Ready},
};
/// The length in bytes of the longest datagram that a socket can receive whole: see [`Engine::set_longest`].
pub const DATAGRAM_MAX: usize = 2 << 20;

pub(crate) use self::{
    datagram::{KeptDatagrams, Packet},
    source::Identity,
};

#[cfg(unix)]
pub(crate) use self::descriptor::virtual_one;
#[cfg(unix)]
pub use self::descriptor::{Delivery, Descriptor};
#[cfg(all(target_os = "linux", feature = "io-uring"))]
pub use self::io_uring::{IoUring, IoUringOptions, Missing, Operations};
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use self::readiness::Epoll;
#[cfg(all(unix, feature = "mio", target_pointer_width = "64"))]
pub use self::readiness::Mio;
#[cfg(unix)]
pub use self::readiness::PollCall;
#[cfg(all(feature = "polling", target_pointer_width = "64"))]
pub use self::readiness::Polling;
pub use self::{
    candidates::{Candidates, ENGINE_VARIABLE, EngineError},
    medium::Medium,
    readiness::{Calls, Poll, Rest, Trigger},
    source::{Source, Transport, TransportGuard},
};
use crate::{
    address::Address,
    host::Host,
    id::Key,
    options::{BindOptions, ConnectOptions, Group, ListenOptions},
};

/// The role in which the runtime attaches a transport.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Accepts connections.
    Listener,
    /// A stream whose connect is in progress. It becomes a stream with [`Event::Connected`].
    Connecting,
    /// A connected byte stream.
    Stream,
    /// A socket for datagrams.
    Datagrams,
}

/// The way in which an engine closes a transport.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ending {
    /// By close(2): the kernel still sends the bytes that it has taken. If the kernel has not taken all of a
    /// send in flight, the close is a reset instead, so that the peer cannot mistake a part for the whole.
    Orderly,
    /// With a reset if the transport has one, as only TCP does: the kernel drops the bytes that it has taken.
    /// The peer of a Unix socket or of a pipe sees an ordinary end. It can tell a part from the whole only by
    /// the bytes themselves: by a length, a mark at the end, or a layer with an end of its own.
    Reset,
}

/// A finished send: the queue with the bytes that were not taken, and the number of bytes that were.
#[derive(Debug)]
pub struct Sent {
    /// The queue that the runtime handed over, less the bytes that were taken.
    pub queue: Box<Outgoing>,
    /// The number of bytes taken. After an error the stream takes no more.
    pub result: io::Result<usize>,
}

/// The answer to a failed attach: the transport comes back with the cause.
#[derive(Debug)]
pub struct AttachError {
    /// The transport, unchanged.
    pub transport: Transport,
    /// The cause, for example ENOSPC or ENOMEM.
    pub error: io::Error,
}

/// An event that an engine reports together with a key.
#[derive(Debug)]
pub enum Event {
    /// A watched resource may make progress. Level-triggered: the engine reports it in each turn while it
    /// holds.
    Ready(Ready),
    /// A listener accepted a connection: its transport, and the peer's address.
    Accepted(Transport, Address),
    /// A listener failed and rests, for example because of EMFILE. `reading(key, true)` lets it try again.
    NotAccepted(io::Error),
    /// The connect is over. After `Ok` the stream is connected. After `Err` it never will be, and the runtime
    /// can only `close` it.
    Connected(io::Result<()>),
    /// Input of a stream.
    Got(Chunk),
    /// The peer has ended its side, and sends no more.
    End,
    /// The read side failed, and delivers nothing more.
    Broken(io::Error),
    /// The peer has ended its side (`None`), or the connection has failed with this error, while reading is
    /// off and behind input that the engine has not delivered. The engine keeps the input. After it,
    /// [`Event::End`] or [`Event::Broken`] follows as usual.
    HungUp(Option<io::Error>),
    /// A send has finished that did not finish at once.
    Sent(Sent),
    /// A detach has finished: the transport, with no operation in flight.
    Detached(Transport),
    /// Datagrams arrived, at least one.
    Datagrams(Batch),
    /// A datagram could not be sent, or was sent but did not arrive as far as the system knows. The address
    /// is that of its receiver, if the engine knows it.
    Undelivered(Option<Address>, io::Error),
    /// There is room for output. For datagrams, the engine reports it after `send_datagrams` left some in the
    /// queue; for a stream, after [`await_room`](Engine::await_room).
    Room,
}

/// Waits for events and moves bytes. The module's documentation is the contract.
///
/// No method has a default, so neither an engine nor a wrapper of one can forget a method. Time, files,
/// processes and all else that is neither waiting nor bytes is in the [`Host`].
pub trait Engine {
    /// Returns the name that selects this engine, for example `epoll` or `poll`.
    fn name(&self) -> &'static str;

    /// Returns the machine around the engine. An engine of the real machine returns
    /// [`Machine`](crate::host::Machine), and a wrapper returns that of the engine within.
    fn host(&self) -> &dyn Host;

    /// Returns the same machine for requests.
    fn host_mut(&mut self) -> &mut dyn Host;

    /// Returns the waker with which another thread ends a [`wait`](Engine::wait).
    fn waker(&self) -> std::task::Waker;

    /// Waits for events: without a limit, or at most for `timeout`, rounded up to the system's resolution.
    ///
    /// # Errors
    /// The engine is broken. The runtime retries a few times, and then ends with this error.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()>;

    /// Hands queued requests over to the kernel without waiting. The runtime calls it when the next
    /// [`wait`](Engine::wait) may be far away. An engine that performs each request at once has nothing to
    /// do.
    fn submit(&mut self);

    /// Completes the requested closes without waiting for any peer, so that peers learn of the ends and
    /// addresses are free. The runtime calls it when no [`wait`](Engine::wait) may follow. The engine keeps
    /// events that occur meanwhile for [`next`](Engine::next). An engine that closes at once has nothing to
    /// do.
    fn finish_closes(&mut self);

    /// Takes the next event of this turn. `None` ends the turn's events.
    fn next(&mut self) -> Option<(Key, Event)>;

    /// Takes a chunk's buffer back.
    fn give(&mut self, chunk: Chunk);

    /// Sets the interest in a user's resource: the engine begins to watch the resource, changes the interest,
    /// or lets the resource rest (`None`).
    ///
    /// # Errors
    /// The system refused, for example with EPERM for a regular file, ENOSPC or EBADF. The engine then does
    /// not watch the resource.
    fn watch(&mut self, key: Key, source: Source<'_>, interest: Option<Interest>) -> io::Result<()>;

    /// Forgets a watched resource, which its owner closes. If the owner can no longer show the watched
    /// source, the runtime passes one that was never watched, for example a virtual source. The key alone
    /// then identifies the resource.
    fn unwatch(&mut self, key: Key, source: Source<'_>);

    /// Reads from the source of a watched resource. The caller never sees EINTR.
    ///
    /// # Errors
    /// As read(2).
    fn read(&mut self, source: Source<'_>, into: &mut [u8]) -> io::Result<usize>;

    /// Writes the front of a queue to the source of a watched resource. The caller advances the queue.
    ///
    /// # Errors
    /// As writev(2). A broken pipe is an error, never a signal.
    fn write(&mut self, source: Source<'_>, from: &Outgoing) -> io::Result<usize>;

    /// Sends as many of the bytes as there is room for through a watched Unix socket, and the descriptors
    /// with the first byte. Takes the descriptors out of `with` once the system has taken a byte.
    ///
    /// # Errors
    /// As sendmsg(2). A broken pipe is an error, never a signal.
    #[cfg(unix)]
    fn pass(
        &mut self,
        to: Source<'_>,
        bytes: &[io::IoSlice<'_>],
        with: &mut Vec<Descriptor>,
    ) -> io::Result<usize>;

    /// Receives bytes from a watched Unix socket, and the descriptors that came with them.
    ///
    /// # Errors
    /// As recvmsg(2).
    #[cfg(unix)]
    fn receive(&mut self, from: Source<'_>, into: &mut [u8]) -> io::Result<Delivery>;

    /// Opens a listening transport, bound to `address`. It accepts connections once it is attached.
    ///
    /// # Errors
    /// As socket(2), bind(2), listen(2).
    fn listen(&mut self, address: &Address, options: &ListenOptions) -> io::Result<Transport>;

    /// Begins to connect a stream. Once it is attached, the engine reports the result as
    /// [`Event::Connected`].
    ///
    /// # Errors
    /// An error that connect(2) returns at once.
    fn connect(&mut self, address: &Address, options: &ConnectOptions) -> io::Result<Transport>;

    /// Opens a socket for datagrams, bound to `address`. With [`Address::Unnamed`] the socket has no name.
    ///
    /// # Errors
    /// As socket(2), bind(2), connect(2). `Unsupported` from an engine without datagrams.
    fn bind(&mut self, address: &Address, options: &BindOptions) -> io::Result<Transport>;

    /// Takes ownership of a transport, to perform its operations. Reading is on.
    ///
    /// # Errors
    /// [`AttachError`] gives the transport back.
    fn attach(&mut self, key: Key, transport: Transport, role: Role) -> Result<(), AttachError>;

    /// Sets whether the runtime wants input, or connections if the transport is a listener.
    fn reading(&mut self, key: Key, on: bool);

    /// Accepts one connection of a listener with a descriptor held in reserve, and closes it, so that its
    /// peer learns at once that nobody serves it. The runtime calls it after a listener has run out of
    /// descriptors. Returns whether it closed a connection. If the engine holds no descriptor in reserve, the
    /// connection waits.
    fn turn_away(&mut self, key: Key) -> bool;

    /// Tries to read from a stream, or to accept on a listener, although the system has reported nothing. The
    /// runtime calls it before a deadline ends the stream, and before a stop closes the listener. An engine
    /// whose operations are always in flight need not do anything.
    fn probe(&mut self, key: Key);

    /// Performs one send of the queue's front. See the module's contract.
    fn send(&mut self, key: Key, queue: Box<Outgoing>) -> Option<Sent>;

    /// Sends datagrams from the front of the queue, as many as there is room for. Returns how many the system
    /// took. See the module's contract.
    fn send_datagrams(&mut self, key: Key, queue: &mut DatagramQueue) -> usize;

    /// Sets the length of the longest datagram that a socket receives whole. The runtime calls it right after
    /// it attached the socket, and only for more than the usual 64 KiB. The limit is [`DATAGRAM_MAX`].
    fn set_longest(&mut self, key: Key, bytes: usize);

    /// Takes a batch's memory back.
    fn give_batch(&mut self, batch: Batch);

    /// Joins a multicast group with a socket for datagrams, or leaves it.
    ///
    /// # Errors
    /// As setsockopt(2) of IP_ADD_MEMBERSHIP and similar options. `NotFound` for an unknown key,
    /// `Unsupported` from an engine without groups.
    fn set_member(&mut self, key: Key, group: &Group, member: bool) -> io::Result<()>;

    /// Returns the source of a stream, for callers that write to it directly, as sendfile(2) does, while the
    /// engine has nothing queued for it. `None` if only the engine may write.
    fn direct_sink(&self, key: Key) -> Option<Source<'_>>;

    /// Requests one [`Event::Room`] once the stream has room. A caller that found no room in its
    /// [`direct_sink`](Engine::direct_sink) calls this, while no send is in flight. Returns `false` if the engine
    /// cannot report it; the caller then sends its bytes instead.
    fn await_room(&mut self, key: Key) -> bool;

    /// Ends the write side: the peer sees the end after the bytes already sent. The runtime never calls it
    /// while a send is in flight.
    ///
    /// # Errors
    /// As shutdown(2), for example ENOTCONN if the peer has reset the connection.
    fn shutdown(&mut self, key: Key) -> io::Result<()>;

    /// Gives the transport back with [`Event::Detached`]. Before that, the engine reports a send in flight
    /// with [`Event::Sent`], and input in flight with [`Event::Got`].
    fn detach(&mut self, key: Key);

    /// Closes the transport, in any state. The engine drops a send in flight, and the peer then sees a reset
    /// ([`Ending`]).
    fn close(&mut self, key: Key, how: Ending);

    /// Returns the local address.
    ///
    /// # Errors
    /// As getsockname(2). `NotFound` for an unknown key.
    fn local(&self, key: Key) -> io::Result<Address>;

    /// Returns the peer's address.
    ///
    /// # Errors
    /// As getpeername(2). `NotFound` for an unknown key.
    fn peer(&self, key: Key) -> io::Result<Address>;

    /// Returns the credentials of the peer of a Unix stream. For a watched resource, the runtime asks only
    /// the engine of a virtual world.
    ///
    /// # Errors
    /// As `Credentials::of_peer`. `NotFound` for an unknown key.
    fn peer_credentials(&self, key: Key) -> io::Result<crate::Credentials>;

    /// Returns the number of system calls (or of operations in their place) so far.
    fn calls(&self) -> u64;

    /// Returns the largest number of bytes that the engine holds for itself under any load: rings and shared
    /// buffers. They count against [`Limits::bytes`](crate::Limits::bytes), and the rest is for streams. The
    /// runtime asks once.
    fn memory(&self) -> usize;

    /// Returns a descriptor that is readable when [`wait`](Engine::wait) would return, so that another loop
    /// can drive the runtime.
    #[cfg(unix)]
    fn fd(&self) -> Option<std::os::fd::BorrowedFd<'_>>;
}
