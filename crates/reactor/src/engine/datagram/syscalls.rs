//! Datagrams by system calls, for engines that wait until a socket is ready.

use std::{cell::Cell, collections::HashMap, io};

use super::{Batch, DatagramQueue};
use crate::{
    address::Address,
    engine::DATAGRAM_MAX,
    id::Key,
    sys::{
        self,
        datagram::{Facts, PACKETS_MAX, is_report},
    },
};

/// Memory for batches, which the engine lends and takes back.
#[derive(Default)]
pub(crate) struct Batches {
    free: Vec<Batch>,
    /// Batches without memory of their own.
    shells: Vec<Batch>,
    /// The limit of each socket that receives longer datagrams than usual.
    longest: HashMap<Key, usize>,
}

impl Batches {
    /// Lets a socket receive datagrams of up to this many bytes whole.
    pub(crate) fn set_longest(&mut self, key: Key, bytes: usize) {
        self.longest.insert(key, bytes.clamp(USUAL_BYTES, DATAGRAM_MAX));
    }

    /// Forgets a socket.
    pub(crate) fn forget(&mut self, key: Key) {
        if !self.longest.is_empty() {
            self.longest.remove(&key);
        }
    }

    fn longest(&self, key: Key) -> usize {
        if self.longest.is_empty() { USUAL_BYTES } else { *self.longest.get(&key).unwrap_or(&USUAL_BYTES) }
    }

    fn take(&mut self) -> Batch {
        self.free.pop().unwrap_or_else(|| Batch::with_room(BATCH_BYTES))
    }

    /// Takes a batch for memory that somebody else owns.
    #[cfg(all(target_os = "linux", feature = "io-uring"))]
    pub(crate) fn shell(&mut self) -> Batch {
        self.shells.pop().unwrap_or_default()
    }

    pub(crate) fn give(&mut self, mut batch: Batch) {
        batch.clear();
        let list = if batch.room() == 0 { &mut self.shells } else { &mut self.free };
        if list.len() < BATCHES_MAX && matches!(batch.room(), 0 | BATCH_BYTES) {
            list.push(batch);
        }
    }
}

/// The result of a receive.
pub(crate) enum Arrival {
    /// Datagrams, and whether there may be more.
    Got(Batch, bool),
    Nothing,
    /// A report about a datagram that was sent.
    Undelivered(Option<Address>, io::Error),
    /// The socket is of no use any more.
    Broken(io::Error),
}

/// Receives once.
pub(crate) fn receive(
    (key, socket): (Key, sys::Borrowed<'_>),
    batches: &mut Batches,
    calls: &Cell<u64>,
) -> Arrival {
    let (mut batch, longest) = (batches.take(), batches.longest(key));
    count(calls);
    let error = match sys::datagram::receive(socket, &mut batch, longest) {
        Ok(has_more) if !batch.is_empty() => return Arrival::Got(batch, has_more),
        Ok(_) => return Arrival::Nothing,
        Err(error) => error,
    };
    batches.give(batch);
    match error {
        error if error.kind() == io::ErrorKind::WouldBlock => Arrival::Nothing,
        error if !is_report(&error) => Arrival::Broken(error),
        // The same report may be in the error queue, with the address.
        error => match undelivered(socket, calls) {
            Some((to, error)) => Arrival::Undelivered(to, error),
            None => Arrival::Undelivered(None, error),
        },
    }
}

/// Takes the next report about a datagram that was sent.
pub(crate) fn undelivered(
    socket: sys::Borrowed<'_>,
    calls: &Cell<u64>,
) -> Option<(Option<Address>, io::Error)> {
    count(calls);
    // A socket without an error queue reports the error when it is read.
    sys::datagram::undelivered(socket).ok().flatten()
}

/// The result of a send.
#[derive(Default)]
pub(crate) struct Departure {
    /// The number of datagrams that the system took.
    pub(crate) taken: usize,
    /// There was no room for the rest.
    pub(crate) is_blocked: bool,
    /// A report about an earlier datagram may wait.
    pub(crate) has_report: bool,
}

/// Sends until the queue is empty or there is no room. Calls `lost` for each datagram that cannot be sent.
pub(crate) fn send(
    socket: sys::Borrowed<'_>,
    facts: Facts,
    queue: &mut DatagramQueue,
    calls: &Cell<u64>,
    mut lost: impl FnMut(Option<Address>, io::Error),
) -> Departure {
    let mut departure = Departure::default();
    // An error that the datagram at the front has met already, and whether that one is sent by itself.
    let (mut met, mut is_apart) = (None, false);
    while !queue.is_empty() {
        count(calls);
        let together = facts.together && !is_apart;
        match sys::datagram::send(socket, queue, together) {
            Ok(gone) => {
                departure.taken += gone.datagrams;
                departure.has_report |= gone.is_stopped && facts.has_reports();
                is_apart = false;
                // Without an error queue, nobody else would report it.
                if let Some(error) = met.take().filter(|_| !facts.has_reports()) {
                    lost(None, error);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !is_peer_full(facts, queue) => {
                departure.is_blocked = true;
                return departure;
            }
            // The kernel may accept one by one what it refuses as one packet, for example because it is too
            // long for the path.
            Err(_) if together => (is_apart, departure.has_report) = (true, true),
            // A socket reports the fate of an earlier datagram at its next call, of any kind. So only the
            // second error certainly concerns this datagram.
            Err(error) if met.is_none() && is_report(&error) => {
                departure.has_report = true;
                met = Some(error);
            }
            Err(error) => {
                met = None;
                if let Some(to) = queue.pop() {
                    lost(to, error);
                }
            }
        }
    }
    departure
}

/// Returns whether the receiver is the one that has no room. Nothing reports when the receiver of an
/// unconnected Unix socket has room again, and the socket itself is always ready.
fn is_peer_full(facts: Facts, queue: &DatagramQueue) -> bool {
    facts.is_unix && queue.front().is_some_and(|front| front.to.is_some())
}

fn count(calls: &Cell<u64>) {
    calls.set(calls.get() + 1);
}

/// The memory of a batch: as many packets of the usual length as one call receives, or fewer longer ones. The
/// system provides no memory for pages that were never written to.
const BATCH_BYTES: usize = PACKETS_MAX * USUAL_BYTES;
/// The length up to which a socket receives a datagram whole by default. It covers every datagram of UDP.
const USUAL_BYTES: usize = 64 << 10;
const _: () = assert!(DATAGRAM_MAX <= BATCH_BYTES, "one of the longest fits");
/// The number of batches kept for the next receives. A runtime holds one at a time.
const BATCHES_MAX: usize = 2;
