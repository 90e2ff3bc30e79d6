//! Concurrent I/O in plain synchronous Rust: the reactor pattern with pluggable poll engines.
//!
//! The *runtime* is an event loop. It blocks on all sockets, files, timers and messages at once, and calls
//! your *service* when an operation will not block. A service is plain business logic with `&mut self`: there
//! is no `async`, no `Send + 'static` and no lock in it. One thread serves ten thousand connections.
//!
//! # An echo server
//!
//! ```no_run
//! use reactor::{Bytes, Context, Event, Handle, Id, Result, Service, Stream};
//!
//! struct Echo;
//!
//! impl Service for Echo {
//!     fn start(&mut self, cx: &mut Context<Self>) -> Result {
//!         cx.listen("127.0.0.1:7007", |_peer| Some(Stream::new(Bytes)))?;
//!         Ok(())
//!     }
//! }
//!
//! impl Handle<Stream> for Echo {
//!     fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
//!         if let Event::Received(bytes) = event {
//!             cx.send(id, bytes);
//!         }
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> Result {
//!     reactor::run(Echo)?;
//!     Ok(())
//! }
//! ```
//!
//! [`run`] starts the service and calls [`start`](Service::start), which opens a listener. For each accepted
//! connection the closure makes a [`Stream`]. The runtime then calls [`handle`](Handle::handle) with each
//! [`Event`] of each stream, and [`closed`](Handle::closed) once at its end, whatever the reason. While a peer
//! does not read its echoes, the runtime stops reading from it.
//!
//! # The words
//!
//! | word | meaning |
//! |---|---|
//! | [`Service`] | your logic: plain `&mut self`, owns resources of several kinds, never called while it is being called |
//! | [`Context`] | the runtime, as a service sees it in one call: `cx.send`, `cx.connect`, `cx.after`, `cx.close`, .. |
//! | [`Resource`] | anything that gives input or takes output: a listener, a stream, a child process, a device, yours |
//! | [`Handle`] | a service's handler for one kind of resource: `impl Handle<Stream<Lines>> for Chat` |
//! | [`Receive`] | a service's receiver for one type of message: timers, commands of other threads, results of jobs |
//! | [`Runtime`] | the event loop over one engine: owns resources and buffers, blocks on all of them, calls services |
//! | [`Engine`](engine::Engine) | waits and moves bytes: `epoll`, `io_uring`, .., a simulated one, or yours. Chosen at run time |
//! | [`Reactor`] | a runtime in its own thread |
//! | [`Controller`] | a handle by which other threads reach a service: `send`, `ask`, `stop` |
//! | [`Codec`] | cuts a stream of bytes into items: [`Bytes`], [`Lines`], [`Delimited`], yours |
//! | [`Layer`] | lies between the codec and the wire (encryption, a proxy's handshake), without any I/O of its own |
//! | [`Datagrams`] | a resource whose messages have bounds: UDP, Unix, simulated |
//! | [`Descriptor`](struct.Descriptor.html) | a file or a socket (or a virtual one) that a process passes to another over a Unix socket |
//!
//! # Guides
//!
//! The [guide] is written as modules, so every program in it is compiled and run.
//!
//! | task | guide | reference |
//! |---|---|---|
//! | write a first service | [`first_service`](guide::first_service) | [`Context`]: the methods in the order in which people need them |
//! | know what the loop does, and in which order it calls | [`the_loop`](guide::the_loop) | [`Service`], [`Handle`], [`Receive`], [`Runtime`] |
//! | know when a stream ends; bound memory, time and the rate of a peer | [`ends_and_limits`](guide::ends_and_limits) | [`Event`], [`Closed`], [`StreamOptions`], [`Limits`] |
//! | write a codec, a layer | [`own_codec`](guide::own_codec), [`own_layer`](guide::own_layer) | [`Codec`], [`Layer`], [`session`] |
//! | write a resource, or watch a descriptor | [`own_resource`](guide::own_resource) | [`Pollable`], [`Fd`] |
//! | choose, tune or write an engine | [`own_engine`](guide::own_engine) | [below](#engines), [`engine`] |
//! | read, write and serve files; keep a log | [`files`](guide::files), [`write_ahead_log`](guide::write_ahead_log) | [`file`](mod@file) |
//! | test under faults, from a seed | [`testing`](guide::testing) | the crate `io-reactor-sim` |
//! | find what is slow; use more threads | [`what_is_slow`](guide::what_is_slow) | [`Metrics`], [`Counters`], [`Reactor`], [`Controller`] |
//! | take another library instead | [`alternatives`](guide::alternatives) | |
//! | move here from io-reactor 0.5, radicle, netservices, mio or tokio | [`migration`](guide::migration) | |
//! | run several services; survive panics | | [`Runtime`], [`Restart`], [`AfterPanic`] |
//! | run a daemon: signals, reload, a stop without loss | [`daemon`](guide::daemon) | [`systemd`](systemd/index.html), [`signals`](signals/index.html) |
//! | child processes, standard streams | | [`process`](process/index.html), [`stdio`](stdio/index.html) |
//! | watch directories, use serial ports | | [`watch`](watch/index.html), [`serial`](serial/index.html) |
//!
//! # Guarantees
//!
//! 1. After [`close`](Context::close) only [`closed`](Handle::closed) comes for that id; after `closed`
//!    nothing, on any engine, even when the descriptor's number is reused.
//! 2. Every byte accepted is delivered once and in order, or the resource ends with exactly one terminal
//!    event. None is lost or doubled.
//! 3. No system call's error ends the loop, out-of-memory at construction aside; nothing a peer does
//!    panics it.
//! 4. A wake after [`Controller::send`] returned is never lost; a command sent before the stop is executed
//!    or given back to its sender (a panicked service counts as stopped).
//! 5. Idle is zero turns a second; there is no state in which the loop spins without progress.
//! 6. Every buffer and queue has a finite default limit; memory is O(connections x limit).
//! 7. With N always-ready resources each is served in every round; a command waits at most one budget.
//! 8. A timer never fires early on the monotonic clock; jumps of the wall clock change nothing.
//! 9. Dropping or stopping closes every descriptor it owns exactly once.
//!
//! **A panic costs its service, and no other.** The runtime writes one line to standard error, closes the
//! listeners and connections of that service, and continues with the others. So a server may run on without
//! its main service: [`run`] returns only when all services have ended or nothing is left to do, and its
//! [`Receipt`] names the failed services. With [`Runtime::add_supervised`] the runtime starts such a service
//! again, while its listeners stay open. With [`Service::panicked`] a service lives on, and the panic costs
//! one connection.
//!
//! # Engines
//!
//! Every program obeys the environment variable `REACTOR_ENGINE`: `auto` (or nothing) takes the first engine
//! that opens, and a name takes that engine or ends with an error that lists the available ones. In code,
//! [`RuntimeOptions`] names an engine or takes [candidates](engine::Candidates) of your own, and
//! [`Runtime::with_engine`] takes one as it is, whatever the environment says.
//!
//! | name | feature | what it is |
//! |---|---|---|
//! | `epoll` | | epoll(7), edge-triggered. Linux, Android |
//! | `io_uring` | `io-uring` | the kernel performs the operations, one call for many. Linux 6.12; from 5.11 with less effect |
//! | `poll` | | poll(2). Every Unix |
//! | `mio` | `mio` | the system's best poll by way of the crate mio. Unix |
//! | `polling` | `polling` | the same by way of the crate polling, level-triggered. Unix and Windows |
//!
//! # Features
//!
//! Without features, the whole dependency tree is four crates: `io-reactor`, `io-reactor-session`, `socket2`
//! and `libc`. A feature adds and never changes. In the reference, an item that needs a feature or a system
//! has a badge that says so.
//!
//! | feature | adds | further crates |
//! |---|---|---|
//! | `io-uring` | the engine `io_uring` | io-uring, bitflags, cfg-if |
//! | `mio` | the engine `mio` | those of mio |
//! | `polling` | the engine `polling` | those of polling |
//! | `serial` | the resource `Serial`: serial ports, on Unix | serial2, cfg-if |
//! | `tracing` | events about the loop's rare moments: an engine opened, a fault, a panic, an end, the stop | those of tracing |
//!
//! # Platforms
//!
//! | platform | engines | state |
//! |---|---|---|
//! | Linux, x86-64 | `epoll`, `poll`; by features `io_uring`, `mio`, `polling` | developed and tested here, on all engines |
//! | Windows, 64 bits | `polling` (a feature; without it there is no engine, and the error says so) | tested under wine: 143 rows of the conformance suite pass, twelve are left out by name. Never run on real Windows. It watches only sockets |
//! | macOS (both), FreeBSD | `poll`; by features `mio`, `polling` | checked with clippy, including tests and examples; never run |
//! | Linux on other processors, Android, other Unix | as above | untested |
//!
//! Standard streams, terminals, child processes, signals and descriptors over sockets need Unix, and directory
//! watches Linux.
#![cfg_attr(docsrs, feature(doc_cfg))]

// In the order of the data: from the engine through the loop to the resources.
pub mod engine;
#[cfg(unix)]
mod waker;

pub mod host;

mod runtime;

pub mod file;
#[cfg(unix)]
mod os;
mod resource;

mod message;
mod threads;

mod address;
mod clock;
mod credentials;
mod error;
/// Opens private parsers to the fuzz targets in `fuzz/`.
#[cfg(fuzzing)]
pub mod fuzzing;
mod growth;
mod guard;
#[cfg(any(doc, doctest))]
pub mod guide;
mod id;
mod log;
mod metrics;
mod options;
mod panics;
mod sync;
mod sys;

pub use session::{
    self, Boxed, Bytes, Codec, CodecError, Decoded, Delimited, Either, Layer, Lines, Outgoing, Shared, Stack,
    Truncated, U16, U32, Varint,
};

#[cfg(all(unix, feature = "serial"))]
pub use self::os::serial;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use self::os::watch;
pub use self::{
    address::{Address, NotAnAddress, ToAddress},
    clock::Time,
    credentials::Credentials,
    engine::{Datagram, Ecn, Interest, Outbound, Ready, Source},
    error::{Closed, Error, Failure, Fault, Phase, Result},
    id::{Id, IdMap, Key},
    message::{Pending, Refused, Reply, Unanswered},
    metrics::{Counters, Metrics, TURN_BUCKETS},
    options::{BindOptions, ConnectOptions, Group, Keepalive, ListenOptions, SocketOptions},
    panics::{AfterPanic, During, Panic},
    resource::{
        Accept, AnyStream, Connection, DatagramCounts, DatagramEvent, DatagramOptions, Datagrams, Event, Fd,
        Flow, Io, Listener, Output, Pollable, Resource, Stream, StreamOptions, WhenFull, Writable,
    },
    runtime::{
        Call, Context, Controller, Handle, Handled, Hold, Limits, Reactor, Receipt, Receive, Received,
        Rejected, Restart, Runtime, RuntimeOptions, Sender, Service, ServiceId, ServiceReceipt, TimerId, run,
    },
};

#[cfg(unix)]
pub use self::{
    engine::Descriptor,
    os::{Descriptors, Message, Passed, process, signals, stdio, systemd, terminal},
};

/// Compiles the program in the project's README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct FrontPage;
