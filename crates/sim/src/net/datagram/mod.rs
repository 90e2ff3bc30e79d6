//! Datagrams: the sockets, and what is in flight between them.

mod flight;
mod socket;

use std::collections::{BTreeMap, HashMap};

use reactor::Address;

use self::{flight::Flight, socket::Socket};
use crate::ids::{FlightId, HostId, Slots, SocketId};

pub use self::flight::DatagramSummary;

/// All datagrams of a world. Every one that was sent is in flight, is held, waits at a socket, or is counted
/// in the summary.
#[derive(Default)]
pub(crate) struct Datagrams {
    sockets: Slots<SocketId, Socket>,
    names: HashMap<(HostId, Address), SocketId>,
    /// The datagrams in flight. A hold keeps its datagrams in `held`.
    flights: BTreeMap<FlightId, Flight>,
    next_flight: FlightId,
    held: Vec<Flight>,
    pub(crate) summary: DatagramSummary,
}

impl Datagrams {
    /// Panics if an invariant does not hold.
    pub(crate) fn check(&self) {
        let is_open = |id: &SocketId| self.sockets.get(*id).is_some();
        assert!(self.names.values().all(is_open), "a name without its socket");
        for (id, socket) in self.sockets.iter() {
            assert!(socket.counts_its_bytes(), "{id:?}");
        }
    }

    /// Returns the number of open sockets.
    pub(crate) fn sockets(&self) -> usize {
        self.sockets.iter().count()
    }
}
