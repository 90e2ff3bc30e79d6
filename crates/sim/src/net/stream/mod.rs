//! Streams: connections and pipes as pairs of ends, and the listeners that accept connections.

mod arrival;
mod close;
mod connect;
pub(crate) mod end;
mod input;
mod listener;
#[cfg(unix)]
pub(crate) mod passing;
#[cfg(unix)]
mod pipe;

use std::collections::HashMap;
#[cfg(unix)]
use std::collections::VecDeque;

use reactor::Address;

use self::{end::Ends, listener::Listener};
use crate::{
    ids::{HostId, ListenerId, Slots},
    net::buffer::Buffers,
};

#[cfg(unix)]
pub(crate) use self::pipe::Mover;

/// All streams of a world.
///
/// - Each name names an open listener, and each listener has a name.
/// - Two ends that know each other keep their slots until neither has a holder.
/// - The bytes that one end has sent and the other has not read are at most the link's window.
pub(crate) struct Streams {
    pub(crate) ends: Ends,
    pub(crate) listeners: Slots<ListenerId, Listener>,
    names: HashMap<(HostId, Address), ListenerId>,
    buffers: Buffers,
    /// A sender without an answer gives up after this time.
    give_up: u64,
    /// Ends without an engine that have an event. Their movers serve them after each step.
    #[cfg(unix)]
    to_serve: VecDeque<(crate::ids::EndId, Mover)>,
}

impl Streams {
    pub(crate) fn new(give_up: u64) -> Streams {
        Streams {
            ends: Ends::default(),
            listeners: Slots::new(),
            names: HashMap::new(),
            buffers: Buffers::default(),
            give_up,
            #[cfg(unix)]
            to_serve: VecDeque::new(),
        }
    }
    /// Panics if an invariant does not hold.
    pub(crate) fn check(&self) {
        self.ends.check();
        let is_named = |(name, id): (&(HostId, Address), &ListenerId)| {
            self.listeners
                .get(*id)
                .is_some_and(|listener| (listener.host, &listener.address) == (name.0, &name.1))
        };
        assert!(self.names.iter().all(is_named), "a name without its listener");
        assert_eq!(self.names.len(), self.listeners.iter().count(), "a listener without a name");
    }
}
