//! A simulated world for services of `reactor`: the same service, unchanged, in a world drawn from one seed.
//!
//! # The contract
//!
//! A [`World`] has nodes. Each node is a runtime with its own services, over an engine that implements
//! [`reactor::engine::Engine`]. Time is virtual, and jumps to the moment of the next event. The network,
//! chance, offloaded work and faults are drawn from one seed. The same seed gives the same run, event by
//! event, in every process and build. [`World::digest`] is a number that proves it: it covers each answer of
//! each engine, each call of a handler, and each byte sent.
//!
//! The runtime and the service do not know that they are simulated, and have no conditions on it. The world
//! simulates everything that a service does through its [`Context`](reactor::Context). It cannot simulate
//! direct use of the system, for example a clock, a thread, or the order of a `HashMap`. Such use makes two
//! runs of one seed differ, and [`replay()`] finds it.
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
//! TCP is a pair of ordered pipes with latency, bandwidth, a window and an end. There is no slow start, no
//! congestion, and no duplicate packet. A lost packet shows as a delay. Datagrams are lost, duplicated and
//! reordered as their [`Link`] defines, and refused where no socket is bound. They have no fragments, no
//! bandwidth limit, and no routers that mark them. Handlers take no virtual time, but a turn takes
//! [`WorldOptions::turn_cost`]. A user's resource over a real descriptor needs a [`VirtualSource`] instead.
//! The model has no memory limits, no real threads, and no bugs of the kernel. To test those, run the same
//! service on the real engines.
#![forbid(unsafe_code)]

// Only `testing::harness`, the nodes and the world name services and handlers. The order follows the data:
// the faults, the network between hosts, the hosts' systems, the engines, the world, and the tests' tools.
mod error;
mod faults;
mod ids;
mod net;
mod os;

mod engine;
mod world;

pub mod guide;
mod testing;

#[cfg(unix)]
pub use self::os::child::{Program, ProgramContext};
pub use self::{
    engine::{SimEngine, options::EngineOptions},
    faults::{Faults, KINDS, Kind, Tally, chance::Chance},
    net::{datagram::DatagramSummary, link::Link},
    os::disk::{DiskCounts, DiskOptions},
    testing::{
        coverage::Sometimes,
        folder::Folder,
        harness::{Harness, Peer},
        isolate::{Isolated, RUNS, Tried, isolate},
        line::Line,
        plan::{Failure, ISOLATE, PLAN, Plan},
        replay::{hunt, replay, shrink},
        source::VirtualSource,
    },
    world::{
        Leaks, Summary, World, WorldOptions,
        digest::Digest,
        node::{Node, NodeId},
        record::Happening,
        restarts::{Ended, Restarts},
    },
};
