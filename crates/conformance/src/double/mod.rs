//! A completion engine in memory, for tests: the whole contract of [`reactor::engine`], at its worst.
//!
//! A [`Network`] holds listeners, connections, virtual sources and a virtual clock. Each [`Double`] made from
//! it is one engine, and runtimes over doubles of one network reach each other. Tests use a [`Peer`], which
//! is an end of a connection without a runtime, and a [`Feed`], which controls a virtual source.
//!
//! The double often does things that a readiness engine never does. It pushes accepts, even for a while after
//! reading was switched off. Input that was in flight follows `reading(false)`. The double acknowledges a
//! send in a later wait, and for a seeded part of its bytes. Connects, closes and detaches also take until a
//! later wait. Buffers are few and change hands: while all are lent, no input arrives. The path from one end
//! to the other holds a bounded number of bytes, so backpressure is real.
//!
//! Datagrams leave at once, in parts, and arrive in batches of any size. The double reports undelivered
//! datagrams and new room in a later wait.
//!
//! **Time** is virtual and belongs to the network. A wait without events jumps to its timeout. However, it
//! never jumps past another double of the network that still has work, nor past the timeout of one that waits
//! in another thread. Without a timeout, a wait blocks until a waker, a peer or a feed in another thread
//! moves something. [`Network::hold`] stops the clock while a test works in parallel with reactors. If one
//! thread drives two doubles, a wait of the first returns at once, and early, while the second has not yet
//! seen the latest changes.
//!
//! **Randomness** comes only from [`Tuning::seed`]. While one thread drives all doubles and peers of a
//! network, the same seed gives the same run, event by event.

mod collect;
mod datagrams;
mod engine;
mod fault;
mod feed;
mod network;
#[cfg(unix)]
mod passing;
mod peer;
mod rest;
mod state;
mod tuning;

pub use self::{
    engine::Double,
    feed::Feed,
    network::{Hold, Network, Report},
    peer::Peer,
    tuning::Tuning,
};
