//! A simulated world for services of `reactor`: the same service, unchanged, in a world of one seed.
//!
//! # The contract
//!
//! A [`World`] has nodes, each a runtime with its own services, over an engine that implements
//! [`reactor::engine::Engine`]. Time is virtual, and jumps to the next moment at which something happens.
//! Network, chance, offloaded work and faults are drawn from one seed: the same seed gives the same run,
//! event by event, in every process and build, and [`World::digest`] is a number that says so. It covers
//! each answer of each engine, each call of a handler, and each byte sent.
//!
//! Neither runtime nor service knows: there is no condition on simulation in either. What reaches a service
//! through its [`Context`](reactor::Context) is simulated; what it asks of the system by itself (a clock, a
//! thread, the order of a `HashMap`) is not, and makes two runs of one seed differ: [`replay()`] finds that.
//!
//! ```
//! use reactor::{Bytes, Context, Event, Handle, Id, Result, Service, Stream};
//! use sim::World;
//! use std::time::Duration;
//!
//! struct Echo;
//!
//! impl Service for Echo {
//!     fn start(&mut self, cx: &mut Context<Self>) -> Result {
//!         cx.listen("0.0.0.0:7007", |_| Some(Stream::new(Bytes)))?;
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
//! struct Hello(String, Vec<u8>);
//!
//! impl Service for Hello {
//!     fn start(&mut self, cx: &mut Context<Self>) -> Result {
//!         let id = cx.connect(&self.0, Stream::new(Bytes))?;
//!         cx.send(id, b"hello".as_slice());
//!         Ok(())
//!     }
//! }
//!
//! impl Handle<Stream> for Hello {
//!     fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, event: Event<Bytes>) -> Result {
//!         if let Event::Received(bytes) = event {
//!             self.1.extend_from_slice(bytes);
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let mut world = World::new(8154);
//! let server = world.add(|runtime| runtime.add(Echo));
//! let address = format!("{}:7007", world.ip(server));
//! let client = world.add(move |runtime| runtime.add(Hello(address.clone(), Vec::new())));
//! world.run_for(Duration::from_secs(1));
//! assert_eq!(world.service(client).expect("it lives").1, b"hello");
//! ```
//!
//! # What the model does not cover
//!
//! TCP is a pair of ordered pipes with latency, bandwidth, a window and an end: there is no slow start, no
//! congestion, and no packet that is seen twice; a lost packet shows as a delay. Datagrams are lost, doubled and
//! overtaken as their [`Link`] says, and refused where nobody is bound; they have no fragments, no speed of
//! the link, and no routers that mark them. Handlers take no virtual
//! time, a turn takes [`WorldOptions::turn_cost`]. A user's resource over a real descriptor has to be backed
//! by a [`Feed`]. Memory, real threads and the kernel's own bugs are not here: for these the same service
//! runs on the real engines.
#![forbid(unsafe_code)]

// The engine's modules name no service and no handler; only the bed, nodes and the world do.
// In the order of the data: chance and faults, what is between nodes, the engine, the world.
mod arrival;
mod bed;
mod bell;
mod buffer;
mod chance;
#[cfg(unix)]
mod child;
mod close;
mod connect;
#[cfg(unix)]
mod console;
mod digest;
mod disk;
mod drive;
mod engine;
mod error;
mod fault;
mod feed;
mod flight;
mod folder;
pub mod guide;
mod input;
mod isolate;
mod line;
mod link;
mod listener;
mod net;
mod node;
#[cfg(unix)]
mod passing;
#[cfg(unix)]
mod pipe;
mod plan;
#[cfg(unix)]
mod process;
mod queue;
mod record;
mod replay;
mod restarts;
mod socket;
mod sometimes;
mod state;
mod table;
mod trouble;
mod world;

#[cfg(unix)]
pub use self::child::{Hand, Program};
pub use self::{
    bed::{Bed, Peer},
    chance::Chance,
    digest::Digest,
    disk::{DiskCounts, DiskOptions},
    engine::SimEngine,
    fault::{Faults, KINDS, Kind, Tally},
    feed::Feed,
    flight::DatagramSummary,
    folder::Folder,
    isolate::{Isolated, RUNS, Tried, isolate},
    line::Line,
    link::Link,
    node::{Node, NodeId},
    plan::{Failure, ISOLATE, PLAN, Plan},
    record::{Happening, NodeNumber},
    replay::{hunt, replay, shrink},
    restarts::{Ended, Restarts},
    sometimes::Sometimes,
    world::{Leaks, Summary, World, WorldOptions},
};
