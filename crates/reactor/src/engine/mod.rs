//! Engines: what waits, and moves bytes.
//!
//! # The contract
//!
//! A runtime holds one [`Engine`] as a trait object. The trait is shaped by *completions* and is
//! *pulled*: the runtime asks for operations, calls [`wait`](Engine::wait) once a turn, then pulls
//! [`next`](Engine::next) until it is empty, one event at a time. So an engine that performs its
//! operations itself (io_uring, a simulator) fits, and so does one that only knows readiness: the
//! adapter [`Calls`] makes any [`Poll`] an engine, and reads a stream no sooner than the event is pulled.
//!
//! **Keys.** Whatever is registered has a [`Key`], chosen by the runtime, which is never used twice.
//! An event carries the key its operation was asked for with. After [`close`](Engine::close) or
//! [`unwatch`](Engine::unwatch) returned, or [`Event::Detached`] was pulled, no event comes for the key,
//! whatever the kernel still has in a batch, even when the descriptor's number is used again.
//!
//! **Streams and listeners are owned by the engine** from a successful [`attach`](Engine::attach) until
//! `close`, or until [`detach`](Engine::detach) gave them back: a kernel may refer to a descriptor after
//! the runtime lost interest, so only the engine knows when its number can be released. A user's
//! resource, in contrast, owns its descriptor itself and is only [`watch`](Engine::watch)ed.
//!
//! **Reading** is a wish. It is on from `attach`; after `reading(key, false)` a [`Event::Got`] that was
//! in flight may still follow, and the runtime keeps its bytes. One turn hands over at most 64 KiB of one stream,
//! unless the engine was made with larger buffers, so that back-pressure acts before more arrives; an engine whose
//! kernel receives more than that keeps the rest until a later turn, in memory that it [counts](Engine::memory).
//! While the wish is on, every byte is
//! delivered once and in order, then exactly one [`Event::End`] or [`Event::Broken`], then nothing of
//! the read side. Input that arrived before an end or an error is delivered before it.
//!
//! **While the wish is off**, an engine still reports that the peer is gone. If no input is before the end, the engine
//! reports [`Event::End`] or [`Event::Broken`] at once. If input is before it, the engine reports [`Event::HungUp`], and
//! the end itself in its order, once the wish is on again. For each time that the wish is off, it reports an end at most
//! once and a failure at most once. An engine whose system does not tell an end or a failure from input may leave
//! out what is behind input. While the peer is there, none of this costs a call.
//!
//! **Transports differ** in what they can do, and say so: [`Transport::medium`]. Of one without input
//! nothing is delivered but the [`Event::End`] when its reader has left, where that can be known; a send to
//! one without output fails with EBADF; `shutdown` of what is no socket fails, and ends nothing.
//!
//! **Sending.** At most one send is out for each stream. [`send`](Engine::send) hands the queue to the
//! engine and performs *one* operation: it takes what it can, and the queue comes back with the rest in
//! it, at once (`Some`) or later as [`Event::Sent`]. A stream that cannot take a byte keeps the queue
//! until it can: so there is never a reason to ask again before the queue came back. Zero bytes taken
//! with `Ok(0)` only happens together with a detach.
//!
//! **Datagrams.** A socket for datagrams is attached as [`Role::Datagrams`]. What arrived comes as an
//! [`Event::Datagrams`] with a batch, each datagram whole and by itself, also one of no bytes; it has no
//! end. [`send_datagrams`](Engine::send_datagrams) borrows a queue and takes from its front what there is
//! room for: a system copies a datagram in the call, so an engine owns none of them. If it left some, it
//! tells [`Event::Room`] once, when there is room. A datagram that could not be sent is taken off the queue,
//! and told as [`Event::Undelivered`]; so is what was reported later about one that was (ICMP): that is the
//! business of this one datagram, and never ends the socket. It may come while reading is off, and comes at
//! the latest when it is on again.
//!
//! **Fairness.** Accepted connections are told of before input, some in each turn, and streams take turns: none of them
//! waits for more than one turn of each other stream.
//!
//! **Waiting.** [`wait`](Engine::wait) makes progress with everything asked for before it, returns when
//! there is an event, when the waker was used since the last `wait` returned, or when the time is over;
//! never early without one of these more than now and then, and never in a tight loop: an engine does
//! not spin. An interrupted wait (EINTR) is no error. An `Err` is a broken engine.
//!
//! **The waker** may be used from any thread, any number of times, also before `wait` and after the
//! engine is gone. Wakes coalesce; none is lost.
//!
//! **Faults.** No call panics for what a kernel or a peer does. A call on an unknown key is ignored,
//! or answered with `NotFound` where it returns a result.
//!
//! **Forks.** In a child of fork(2) an engine leaves everything alone that it shares with its parent: `wait` fails, no
//! event comes, and its drop closes the child's copies of descriptors and nothing else.
//!
//! **Drop** cancels and reaps what is out, then answers the operations on files that it took, then closes each
//! descriptor the engine still owns, once. Answers run users' code, so an engine answers only when a panic could leave
//! no memory behind that a kernel still uses.

mod adapter;
mod batch;
mod candidates;
mod chunk;
pub(crate) mod datagram;
#[cfg(unix)]
mod descriptor;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod epoll;
mod held;
mod interest;
#[cfg(all(target_os = "linux", feature = "io-uring"))]
mod io_uring;
pub(crate) mod letters;
mod medium;
#[cfg(all(unix, feature = "mio", target_pointer_width = "64"))]
mod mio;
#[cfg(unix)]
mod poll;
#[cfg(all(feature = "polling", target_pointer_width = "64"))]
mod polling;
mod readiness;
mod source;
#[cfg(unix)]
mod timeout;

use std::{io, time::Duration};

pub use session::Outgoing;

pub use self::{
    batch::Batch,
    chunk::Chunk,
    datagram::{Datagram, DatagramQueue, Ecn, Outbound},
    interest::{Interest, Ready},
};
/// The longest datagram that a socket receives whole, in bytes: see [`Engine::set_longest`].
pub const DATAGRAM_MAX: usize = 2 << 20;

pub(crate) use self::{
    batch::{Kept, Packet},
    source::Identity,
};

#[cfg(unix)]
pub(crate) use self::descriptor::virtual_one;
#[cfg(unix)]
pub use self::descriptor::{Delivery, Descriptor};
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use self::epoll::Epoll;
#[cfg(all(target_os = "linux", feature = "io-uring"))]
pub use self::io_uring::{IoUring, IoUringOptions, Missing, Operations};
#[cfg(all(unix, feature = "mio", target_pointer_width = "64"))]
pub use self::mio::Mio;
#[cfg(unix)]
pub use self::poll::PollCall;
#[cfg(all(feature = "polling", target_pointer_width = "64"))]
pub use self::polling::Polling;
pub use self::{
    adapter::Calls,
    candidates::{Candidates, ENGINE_VARIABLE, EngineError},
    medium::Medium,
    readiness::{Poll, Rest, Trigger},
    source::{Source, StandIn, Transport, TransportGuard},
};
use crate::{
    address::Address,
    clock::Time,
    file::FileJob,
    id::Key,
    options::{BindOptions, ConnectOptions, Group, ListenOptions},
};

/// What an attached transport is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Accepts connections.
    Listener,
    /// A stream whose connect is under way; becomes a stream with [`Event::Connected`].
    Connecting,
    /// A connected byte stream.
    Stream,
    /// A socket for datagrams.
    Datagrams,
}

/// How a transport is closed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ending {
    /// By close(2): what the kernel has taken still leaves. While a send is out of which the kernel has not taken all, it
    /// is a reset instead: the peer must not take a part for the whole.
    Orderly,
    /// With a reset where the transport knows one, and TCP alone does: what the kernel has taken is dropped. The peer of
    /// a Unix socket or of a pipe sees an end like any other, so it can tell a part from the whole only by what the bytes
    /// themselves say: a length, a mark at the end, a layer with an end of its own.
    Reset,
}

/// A send that is over: the queue with what was not taken, and how much was.
#[derive(Debug)]
pub struct Sent {
    /// The queue as it was handed over, less the bytes that were taken.
    pub queue: Box<Outgoing>,
    /// How many bytes were taken. After an error the stream takes no more.
    pub result: io::Result<usize>,
}

/// A transport that could not be attached comes back with the cause.
#[derive(Debug)]
pub struct Refused {
    /// As it was given.
    pub transport: Transport,
    /// Why: ENOSPC, ENOMEM, ..
    pub error: io::Error,
}

/// What an engine tells, together with a key.
#[derive(Debug)]
pub enum Event {
    /// A watched resource may make progress. Level-triggered: told again in each turn while it holds.
    Ready(Ready),
    /// A listener accepted: the connection, and who it is.
    Accepted(Transport, Address),
    /// A listener failed and rests (EMFILE and its kin); `reading(key, true)` lets it try again.
    NotAccepted(io::Error),
    /// The connect is over. `Ok`: the stream is up, `Err`: it will never be, and only `close` is left.
    Connected(io::Result<()>),
    /// Input of a stream.
    Got(Chunk),
    /// The peer sends no more.
    End,
    /// The read side failed; nothing more comes of it.
    Broken(io::Error),
    /// Reading is off, and behind input that the engine has not delivered the peer has ended its side (`None`), or the
    /// connection has failed with this error. The engine keeps the input. Behind it, [`Event::End`] or [`Event::Broken`]
    /// follows as usual.
    HungUp(Option<io::Error>),
    /// A send is over which was not at once.
    Sent(Sent),
    /// A detach is over: the transport with nothing of it in flight.
    Detached(Transport),
    /// Datagrams arrived: at least one.
    Datagrams(Batch),
    /// A datagram that was to be sent, or was, did not get there, as far as is known; to whom it was, if
    /// that is known.
    Undelivered(Option<Address>, io::Error),
    /// There is room for output: again for datagrams, after `send_datagrams` left some; of a stream, after
    /// [`await_room`](Engine::await_room).
    Room,
}

/// A piece of blocking work to be run somewhere else.
pub type Job = Box<dyn FnOnce() + Send>;

/// What a runtime asks of the system. The module's documentation is the contract.
///
/// Methods added in later versions have defaults, so that an engine written today goes on compiling.
pub trait Engine {
    /// The name by which it is chosen: `epoll`, `poll`, ..
    fn name(&self) -> &'static str;

    /// Monotonic time. Virtual under simulation.
    fn now(&self) -> Time {
        crate::clock::monotonic()
    }

    /// Wall-clock time. Virtual under simulation.
    fn wall(&self) -> std::time::SystemTime {
        crate::clock::wall()
    }

    /// A seed for the runtime's random numbers; asked for once. Not for cryptography.
    fn entropy(&mut self) -> u64 {
        use std::hash::{BuildHasher, Hasher};
        std::collections::hash_map::RandomState::new().build_hasher().finish()
    }

    /// Takes a job that the engine wants to run itself (a simulator does, at a seeded moment); gives it
    /// back for the runtime's own threads otherwise.
    fn run_blocking(&mut self, job: Job) -> Option<Job> {
        Some(job)
    }

    /// Takes an operation on files that the engine wants to perform itself; gives it back for the runtime's own
    /// threads otherwise. See [`file`](crate::file).
    fn run_file(&mut self, job: FileJob) -> Option<FileJob> {
        Some(job)
    }

    /// Gives back an operation on files that the engine took, and that turned out to be one for the runtime's threads.
    /// Called at the end of each turn while operations are out, until there is none.
    fn left_file(&mut self) -> Option<FileJob> {
        None
    }

    /// How another thread ends a [`wait`](Engine::wait).
    fn waker(&self) -> std::task::Waker;

    /// Writes one line to standard error, if there is room for it: it never waits. Whether it was written. By default
    /// the process's own; a virtual world has one of its own.
    fn print_error(&mut self, line: &str) -> bool {
        crate::sys::print_error(line.as_bytes())
    }

    /// Waits for events: as long as it takes, or at most `timeout`, rounded up to what the system knows.
    ///
    /// # Errors
    /// The engine is broken. The runtime retries a few times, then ends with this error.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()>;

    /// Hands over what was asked for and is only queued, without waiting: called where the next
    /// [`wait`](Engine::wait) may be far. An engine that performs what it is asked for at once has nothing to do.
    fn submit(&mut self) {}

    /// Completes the closes that were asked for, without waiting for any peer: called where no [`wait`](Engine::wait)
    /// may follow, so that peers hear of the ends and addresses are free. What is told meanwhile is kept for
    /// [`next`](Engine::next). An engine that closes at once has nothing to do.
    fn finish_closes(&mut self) {}

    /// Takes the next event of this turn; `None` ends the turn's events.
    fn next(&mut self) -> Option<(Key, Event)>;

    /// Takes a chunk's buffer back.
    fn give(&mut self, chunk: Chunk);

    /// Sets what a user's resource is watched for: adds it, changes it, or lets it rest (`None`).
    ///
    /// # Errors
    /// The system refused: EPERM for a regular file, ENOSPC, EBADF, ..; the resource is then not watched.
    fn watch(&mut self, key: Key, source: Source<'_>, interest: Option<Interest>) -> io::Result<()>;

    /// Forgets a watched resource; its owner closes it. A source that was never watched (a virtual one of no number, say)
    /// stands for one that its owner cannot show any more: the key alone says what is forgotten.
    fn unwatch(&mut self, key: Key, source: Source<'_>);

    /// Reads from a watched resource's source. EINTR is not seen.
    ///
    /// # Errors
    /// As read(2).
    fn read(&mut self, source: Source<'_>, into: &mut [u8]) -> io::Result<usize> {
        crate::sys::read(source, into)
    }

    /// Writes the front of a queue to a watched resource's source; the caller advances the queue.
    ///
    /// # Errors
    /// As writev(2); a broken pipe is an error, never a signal.
    fn write(&mut self, source: Source<'_>, from: &Outgoing) -> io::Result<usize> {
        crate::sys::write(source, from)
    }

    /// Sends the bytes through a watched Unix socket, as many as there is room for, and the descriptors with the first
    /// of them. They are taken out of `with` once a byte was taken.
    ///
    /// # Errors
    /// As sendmsg(2); a broken pipe is an error, never a signal.
    #[cfg(unix)]
    fn pass(
        &mut self,
        to: Source<'_>,
        bytes: &[io::IoSlice<'_>],
        with: &mut Vec<Descriptor>,
    ) -> io::Result<usize> {
        let taken = crate::sys::rights::send(to, bytes, with)?;
        if taken > 0 {
            with.clear();
        }
        Ok(taken)
    }

    /// Receives from a watched Unix socket: bytes, and the descriptors that came with them.
    ///
    /// # Errors
    /// As recvmsg(2).
    #[cfg(unix)]
    fn receive(&mut self, from: Source<'_>, into: &mut [u8]) -> io::Result<Delivery> {
        crate::sys::rights::receive(from, into)
    }

    /// Gives what the supervisor of a virtual world opened for a program before it started. By default none: the
    /// process's own are taken.
    #[cfg(unix)]
    fn activated(&mut self) -> Option<Vec<crate::systemd::Activated>> {
        None
    }

    /// Starts a child process, with its pipes.
    ///
    /// # Errors
    /// As fork(2) and execve(2): ENOENT, EACCES, ..; no child is left then.
    #[cfg(unix)]
    fn spawn(
        &mut self,
        command: &mut std::process::Command,
        options: &crate::process::SpawnOptions,
    ) -> io::Result<crate::process::Child> {
        crate::sys::process::spawn(command, options)
    }

    /// Opens what a virtual world has in place of something of the process's; its source is watched, read
    /// and written. By default none: the process's own is taken.
    ///
    /// # Errors
    /// The world has something in its place, and no more of it.
    fn stand_in(&mut self, of: StandIn) -> Option<io::Result<Transport>> {
        let _ = of;
        None
    }

    /// Opens a listening transport, bound to `address`. It accepts once it is attached.
    ///
    /// # Errors
    /// As socket(2), bind(2), listen(2).
    fn listen(&mut self, address: &Address, options: &ListenOptions) -> io::Result<Transport>;

    /// Begins to connect a stream. The result comes as [`Event::Connected`], once it is attached.
    ///
    /// # Errors
    /// What connect(2) refuses at once.
    fn connect(&mut self, address: &Address, options: &ConnectOptions) -> io::Result<Transport>;

    /// Opens a socket for datagrams, bound to `address`; [`Address::Unnamed`] is one without a name.
    ///
    /// # Errors
    /// As socket(2), bind(2), connect(2); `Unsupported` by an engine without datagrams.
    fn bind(&mut self, address: &Address, options: &BindOptions) -> io::Result<Transport> {
        let _ = (address, options);
        let error = format!("the engine `{}` has no datagrams", self.name());
        Err(io::Error::new(io::ErrorKind::Unsupported, error))
    }

    /// Takes a transport, to perform its operations; reading is on.
    ///
    /// # Errors
    /// [`Refused`] gives the transport back.
    fn attach(&mut self, key: Key, transport: Transport, role: Role) -> Result<(), Refused>;

    /// Says whether input (of a listener: connections) is wanted.
    fn reading(&mut self, key: Key, on: bool);

    /// Accepts one connection of a listener with a descriptor held in reserve, and closes it, so that its peer learns at
    /// once that nobody serves it. Asked after a listener failed for want of descriptors. Returns whether it closed one;
    /// without an override it does nothing, and the connection waits.
    fn turn_away(&mut self, key: Key) -> bool {
        let _ = key;
        false
    }

    /// Tries a read of a stream although nothing was reported, of a listener an accept: asked before a deadline ends the
    /// stream, and before a stop closes the listener. An engine whose operations are always out needs to do nothing.
    fn probe(&mut self, key: Key) {
        let _ = key;
    }

    /// Performs one send of the queue's front. See the module's contract.
    fn send(&mut self, key: Key, queue: Box<Outgoing>) -> Option<Sent>;

    /// Sends datagrams from the front of the queue, as many as there is room for; says how many were taken.
    /// See the module's contract.
    fn send_datagrams(&mut self, key: Key, queue: &mut DatagramQueue) -> usize {
        let _ = (key, queue);
        0
    }

    /// Sets how long a datagram is that a socket receives whole. Called right after the socket was attached, and only for
    /// more than the usual 64 KiB; at most [`DATAGRAM_MAX`].
    fn set_longest(&mut self, key: Key, bytes: usize) {
        let _ = (key, bytes);
    }

    /// Takes a batch's memory back.
    fn give_batch(&mut self, batch: Batch) {
        drop(batch);
    }

    /// Enters a multicast group with a socket for datagrams, or leaves it.
    ///
    /// # Errors
    /// As setsockopt(2) of IP_ADD_MEMBERSHIP and its kin; `NotFound` for an unknown key, `Unsupported` by an
    /// engine without groups.
    fn set_member(&mut self, key: Key, group: &Group, member: bool) -> io::Result<()> {
        let _ = (key, group, member);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The source of a stream, for who writes to it directly while nothing is queued here, as sendfile(2) does. `None`
    /// if nobody else may, as by default.
    fn outlet(&self, key: Key) -> Option<Source<'_>> {
        let _ = key;
        None
    }

    /// Has [`Event::Room`] told once there is room in a stream, from now on: asked by who found none in its
    /// [`outlet`](Engine::outlet), while no send is out. `false` if that cannot be told, as by default; then what waits
    /// is sent instead.
    fn await_room(&mut self, key: Key) -> bool {
        let _ = key;
        false
    }

    /// Ends the write side: the peer sees the end after what was sent. Not while a send is out.
    ///
    /// # Errors
    /// As shutdown(2): ENOTCONN when the peer has reset the connection.
    fn shutdown(&mut self, key: Key) -> io::Result<()>;

    /// Gives the transport back with [`Event::Detached`], before it a send that was out with
    /// [`Event::Sent`], and input that was in flight with [`Event::Got`].
    fn detach(&mut self, key: Key);

    /// Closes the transport, in any state; what was out is dropped, and the peer then sees a reset ([`Ending`]).
    fn close(&mut self, key: Key, how: Ending);

    /// The address at this end.
    ///
    /// # Errors
    /// As getsockname(2), `NotFound` for an unknown key.
    fn local(&self, key: Key) -> io::Result<Address>;

    /// The address at the other end.
    ///
    /// # Errors
    /// As getpeername(2), `NotFound` for an unknown key.
    fn peer(&self, key: Key) -> io::Result<Address>;

    /// Who is at the other end of a Unix stream; of what is watched a virtual world is asked only.
    ///
    /// # Errors
    /// As `Credentials::of_peer`, `NotFound` for an unknown key.
    fn peer_credentials(&self, key: Key) -> io::Result<crate::Credentials> {
        let _ = key;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// How many system calls (or operations that stand for them) were made so far.
    fn calls(&self) -> u64 {
        0
    }

    /// How many bytes the engine holds at most for itself, whatever it is asked for: rings, shared buffers. They
    /// count against [`Limits::bytes`](crate::Limits::bytes), and what they leave is for streams. Asked once.
    fn memory(&self) -> usize {
        0
    }

    /// A descriptor that is readable when [`wait`](Engine::wait) would return: for driving the runtime
    /// from another loop.
    #[cfg(unix)]
    fn fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }
}
