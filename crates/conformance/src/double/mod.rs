//! A completion engine in memory, for tests: the whole contract of [`reactor::engine`], at its worst.
//!
//! A [`Network`] holds listeners, connections, virtual sources and a virtual clock. Each [`Double`] made
//! from it is one engine; runtimes over doubles of one network reach each other. Tests talk to them
//! with a [`Peer`], which is an end of a connection without a runtime, and with a [`Feed`], which is the
//! test's hand on a virtual source.
//!
//! What a readiness engine never shows happens here all the time: accepts are pushed, also a while
//! after reading was switched off; input that was in flight follows `reading(false)`; a send is
//! acknowledged in a later wait, and for a seeded part of its bytes; connects, closes and detaches
//! take until a later wait too. Buffers are few and change hands: while all are lent, no input comes.
//! The way from one end to the other holds a bounded number of bytes, so backpressure is real.
//!
//! Datagrams leave at once, in parts, and arrive in batches of any size; what became of one that did not get there
//! is told in a later wait, as is that there is room again.
//!
//! **Time** is virtual and belongs to the network. A wait with nothing to tell jumps to its timeout; but
//! never past another double of the network that still has something to do, nor past the timeout of
//! one that waits in another thread. Without a timeout it blocks until a waker, a peer or a feed in
//! another thread moves something. [`Network::hold`] stops the clock while a test works beside reactors.
//! Of two doubles driven by one thread, a wait of the first returns at once, and early, when the second
//! has not yet looked at what has changed.
//!
//! **Chance** comes from [`Tuning::seed`] only. While all doubles and peers of a network are driven by one
//! thread, the same seed gives the same run, event by event.

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
