//! Datagrams by calls: what an engine that waits for readiness does with a socket that is ready.

use std::{cell::Cell, collections::HashMap, io};

use super::{Batch, DATAGRAM_MAX, DatagramQueue};
use crate::{
    address::Address,
    id::Key,
    sys::{
        self,
        datagram::{Facts, PACKETS_MAX, is_report},
    },
};

/// Memory for batches, lent and taken back.
#[derive(Default)]
pub(crate) struct Batches {
    free: Vec<Batch>,
    /// Without memory of their own.
    shells: Vec<Batch>,
    /// The sockets that receive longer datagrams than usual, and how long ones.
    longest: HashMap<Key, usize>,
}

impl Batches {
    /// Has a socket receive datagrams of so many bytes whole.
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

    /// A batch for memory of somebody else.
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

/// What a receive found.
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
        // The same report may wait with the address.
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
    // What cannot even be asked for this tells so when it is read.
    sys::datagram::undelivered(socket).ok().flatten()
}

/// How far a send came.
#[derive(Default)]
pub(crate) struct Departure {
    /// So many datagrams were taken by the system.
    pub(crate) taken: usize,
    /// There was no room for the rest.
    pub(crate) is_blocked: bool,
    /// A report about an earlier datagram may wait.
    pub(crate) has_report: bool,
}

/// Sends until the queue is empty or there is no room; tells `lost` of each datagram that cannot be sent.
pub(crate) fn send(
    socket: sys::Borrowed<'_>,
    facts: Facts,
    queue: &mut DatagramQueue,
    calls: &Cell<u64>,
    mut lost: impl FnMut(Option<Address>, io::Error),
) -> Departure {
    let mut departure = Departure::default();
    // An error that was met at the front already, and whether the front was sent by itself.
    let (mut met, mut is_apart) = (None, false);
    while !queue.is_empty() {
        count(calls);
        let together = facts.together && !is_apart;
        match sys::datagram::send(socket, queue, together) {
            Ok(gone) => {
                departure.taken += gone.datagrams;
                departure.has_report |= gone.is_stopped && facts.has_reports();
                is_apart = false;
                // Where no queue of errors keeps it, it would be lost.
                if let Some(error) = met.take().filter(|_| !facts.has_reports()) {
                    lost(None, error);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !is_peer_full(facts, queue) => {
                departure.is_blocked = true;
                return departure;
            }
            // What the kernel does not take as one packet (longer than the way allows, say) it may take apart.
            Err(_) if together => (is_apart, departure.has_report) = (true, true),
            // A socket tells what it learned of an earlier datagram at the next call, whatever that is: only
            // the second error is surely of this one.
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

/// Whether it is the receiver that has no room: of a Unix socket which is not connected nobody tells when it
/// has, and the socket itself is always ready.
fn is_peer_full(facts: Facts, queue: &DatagramQueue) -> bool {
    facts.is_unix && queue.front().is_some_and(|front| front.to.is_some())
}

fn count(calls: &Cell<u64>) {
    calls.set(calls.get() + 1);
}

/// The memory of a batch: as many packets of the usual length as one call receives, or fewer longer ones. The system gives
/// no memory to what was never written to.
const BATCH_BYTES: usize = PACKETS_MAX * USUAL_BYTES;
/// How long a datagram is received whole without being asked to: every one of UDP.
const USUAL_BYTES: usize = 64 << 10;
const _: () = assert!(DATAGRAM_MAX <= BATCH_BYTES, "one of the longest fits");
/// How many batches are kept for the next receives; a runtime holds one at a time.
const BATCHES_MAX: usize = 2;
