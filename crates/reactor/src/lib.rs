//! Concurrent I/O in plain synchronous Rust: the reactor pattern with pluggable poll engines.
//!
//! *Resources* give input or take output. The *runtime* is the event loop: it blocks on all of them, and
//! calls a *service* when an operation will not block. A service is plain synchronous business logic, and
//! makes and ends its resources through its *context*. One thread serves ten thousand connections. There is
//! no `async`, no `Send + 'static` on business logic, and no lock in it.
//!
//! ```no_run
//! use reactor::{Bytes, Context, Event, Handle, Id, Result, Service, Stream};
//!
//! struct Echo;
//!
//! impl Service for Echo {
//!     fn start(&mut self, cx: &mut Context<Self>) -> Result {
//!         cx.listen("127.0.0.1:7007", |_| Some(Stream::new(Bytes)))?;
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
//! # Guarantees
//!
//! 1. After `close` only `closed` comes for that id; after `closed` nothing, on any engine, even when the
//!    descriptor's number is reused.
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

// In the order of the data: from the engine through the loop and the resources to the service.
pub mod engine;
#[cfg(unix)]
mod waker;

mod core;
mod runtime;

mod resource;
#[cfg(unix)]
pub mod signals;
#[cfg(unix)]
pub mod systemd;

#[cfg(unix)]
pub mod process;
#[cfg(unix)]
pub mod stdio;

pub mod file;

mod context;
mod message;
mod service;

mod controller;
mod reactor;

mod address;
mod clock;
mod credentials;
mod error;
mod growth;
mod guard;
mod hold;
mod id;
mod log;
mod metrics;
mod options;
mod panics;
mod sync;
mod sys;
#[cfg(unix)]
pub mod terminal;

pub use session::{
    self, Boxed, Bytes, Codec, CodecError, Decoded, Delimited, Either, Layer, Lines, Outgoing, Shared, Stack,
    Truncated, U16, U32, Varint,
};

#[cfg(all(unix, feature = "serial"))]
pub use self::resource::serial;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use self::resource::watch;
pub use self::{
    address::{Address, NotAnAddress, ToAddress},
    clock::Time,
    context::{Context, Rejected},
    controller::{Controller, Sender},
    core::Call,
    credentials::Credentials,
    engine::{Datagram, Ecn, Interest, Outbound, Ready, Source},
    error::{Closed, Error, Failure, Fault, Phase, Result},
    hold::Hold,
    id::{Id, IdMap, Key},
    message::{Pending, Refused, Reply, TimerId, Unanswered},
    metrics::{Counters, Metrics, TURN_BUCKETS},
    options::{BindOptions, ConnectOptions, Group, Keepalive, ListenOptions, SocketOptions},
    panics::{AfterPanic, During, Panic},
    reactor::Reactor,
    resource::{
        Accept, AnyStream, Connection, DatagramCounts, DatagramEvent, DatagramOptions, Datagrams, Event, Fd,
        Flow, Io, Listener, Output, Resource, Stream, StreamOptions, WhenFull,
    },
    runtime::{Limits, Receipt, Restart, Runtime, RuntimeOptions, ServiceReceipt, run},
    service::{Handle, Handled, Receive, Received, Service, ServiceId},
};

#[cfg(unix)]
pub use self::{
    engine::Descriptor,
    resource::{Descriptors, Message, Passed},
};

/// Compiles the program in the project's README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct FrontPage;
