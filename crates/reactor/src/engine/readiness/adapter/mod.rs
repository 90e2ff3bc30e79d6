//! The adapter: makes an engine from any poll, with ordinary system calls.
//!
//! **Readiness is a hint that holds until drained.** Each stream has a readable and a writable bit. An event
//! sets them, and an operation clears them when it finds the opposite: it would block, or it moved less than
//! it could. A hang-up is the exception, because after it a short read does not mean that nothing is left. So
//! a budget, a pause or a parked send never loses an edge.
//!
//! **Order.** A batch consists of the poll's reports, followed by the keys that were in `resume`, the resume
//! queue, when the wait ended. In a batch, each stream is read once and each listener accepts a few
//! connections. If a key has more to do, it goes to the end of `resume`, behind all others, and the next wait
//! does not block. A key in both parts is driven once.
//!
//! **Watching.** An edge-triggered poll watches a stream for input from attach to close, and also for room
//! from the first write that found none. The adapter makes no other changes to it. Closing the descriptor
//! ends the watching, and an event that is still in the batch finds no entry for its key. With a
//! level-triggered poll, the adapter updates the interest once a wait, and only for streams whose interest
//! changed. A stream that the engine does not read stays in the set only for its hang-up, and leaves the set
//! after that. Users' resources are always watched level-triggered. If one reports only a hang-up or an
//! error, the adapter reports that once and removes it from the set until it is watched again, because no
//! read would silence it.

mod accept;
mod attach;
mod datagram;
mod hangup;
mod interest;
mod stream;
mod table;

use std::{cell::Cell, collections::VecDeque, fmt, io, task::Waker, time::Duration};

use session::Outgoing;

use self::interest::set_interest;
use self::table::{
    AHEAD, BLOCKED, CHANGED, ENDED, Entry, FAILED, HANGUP, IS_UNIX, QUEUED, READABLE, READING, REPORTED_ALL,
    REPORTED_END, TOGETHER, Table, WRITABLE,
};
use super::{Poll, Trigger};
#[cfg(unix)]
use crate::engine::{Delivery, Descriptor};
use crate::{
    Credentials,
    address::Address,
    engine::{
        AttachError, Batch, Chunk, DatagramQueue, Ending, Engine, Event, Interest, Ready, Role, Sent, Source,
        Transport,
        datagram::Batches,
        entry::{EntryKind, Ownership, forget_queued},
    },
    host::{Host, Machine},
    id::Key,
    options::{BindOptions, ConnectOptions, Group, ListenOptions},
    sys,
};

/// An engine that waits with `P` and moves bytes with read(2), send(2), accept(2) and their kin.
///
/// ```
/// use reactor::engine::{Calls, Engine, PollCall};
/// let engine = Calls::new(PollCall::new()?);
/// assert_eq!(engine.name(), "poll");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Calls<P: Poll> {
    machine: Machine,
    // Dropped before the descriptors in the table, so that these need not leave the set one by one.
    poll: P,
    table: Table,
    /// A child of a fork shares the poll and the sockets, and must leave them alone.
    birthplace: sys::Birthplace,
    /// The poll's reports. Those before `cursor` have been driven.
    batch: Vec<(Key, Ready)>,
    cursor: usize,
    /// The key that is being driven.
    driven: Option<Driven>,
    /// The resume queue: keys that a budget stopped, each once.
    resume: VecDeque<Key>,
    /// The number of keys in `resume` that belong to this batch.
    resumes_left: usize,
    /// Events that are ready to be pulled.
    queued: VecDeque<(Key, Event)>,
    /// Level-triggered: the keys whose interest may have changed, each once.
    changed: Vec<Key>,
    /// Kept for the next read. A runtime borrows one buffer at a time.
    spare: Option<Box<[u8]>>,
    buffer_bytes: usize,
    batches: Batches,
    reserve: Option<sys::Reserve>,
    stale: u64,
    calls: Cell<u64>,
    /// Whether another loop waits for the poll's descriptor, and must be woken when `resume` has entries.
    is_driven_from_outside: Cell<bool>,
    is_woken: bool,
}

impl<P: Poll> fmt::Debug for Calls<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("poll", &self.poll.name()).finish_non_exhaustive()
    }
}

/// The key that is being driven, and its budget.
struct Driven {
    key: Key,
    /// The number of connections that a listener may still accept, or of reports that a socket for datagrams
    /// may still deliver.
    accepts_left: u32,
    /// Whether it has accepted one.
    accepted: bool,
}

impl<P: Poll> Calls<P> {
    /// Makes an engine from a poll.
    pub fn new(poll: P) -> Calls<P> {
        Calls {
            machine: Machine,
            poll,
            table: Table::default(),
            birthplace: sys::Birthplace::here(),
            batch: Vec::new(),
            cursor: 0,
            driven: None,
            resume: VecDeque::new(),
            resumes_left: 0,
            queued: VecDeque::new(),
            changed: Vec::new(),
            spare: None,
            buffer_bytes: BUFFER_BYTES,
            batches: Batches::default(),
            reserve: sys::Reserve::take(),
            stale: 0,
            calls: Cell::new(0),
            is_driven_from_outside: Cell::new(false),
            is_woken: false,
        }
    }

    /// Sets the most bytes that one read of a stream takes: 65,536 by default, at least one. Datagrams have
    /// memory of their own.
    #[must_use]
    pub fn with_buffer(mut self, bytes: usize) -> Calls<P> {
        self.buffer_bytes = bytes.max(1);
        self.spare = None;
        self
    }

    /// Returns the number of poll events for keys that were gone.
    pub fn stale(&self) -> u64 {
        self.stale
    }

    fn count_call(&self) {
        self.calls.set(self.calls.get() + 1);
    }

    /// Returns the descriptor of a transport for a system call, and counts the call.
    fn called(&self, key: Key) -> io::Result<sys::Borrowed<'_>> {
        let descriptor = self.table.get(key).and_then(Entry::owned).ok_or(io::ErrorKind::NotFound)?;
        self.count_call();
        Ok(sys::borrow(descriptor))
    }

    fn is_edge(&self) -> bool {
        self.poll.trigger() == Trigger::Edge
    }

    /// Puts the key into the resume queue, for the next batch.
    fn queue_again(&mut self, key: Key) {
        if let Some(entry) = self.table.get_mut(key).filter(|entry| !entry.has(QUEUED)) {
            entry.set(QUEUED, true);
            self.resume.push_back(key);
            self.wake_outside();
        }
    }

    fn post(&mut self, key: Key, event: Event) {
        self.queued.push_back((key, event));
        self.wake_outside();
    }

    /// Makes the poll's descriptor readable, because the next wait has something to do.
    fn wake_outside(&mut self) {
        if self.is_driven_from_outside.get() && !self.is_woken {
            self.is_woken = true;
            self.count_call();
            self.poll.waker().wake();
        }
    }

    /// Records a report of the poll and drives the key. For a user's resource it returns the report as an
    /// event.
    #[inline(always)]
    fn absorb(&mut self, key: Key, ready: Ready) -> Option<Event> {
        let Some(entry) = self.table.get_mut(key) else {
            self.stale += 1;
            return None;
        };
        if entry.kind == EntryKind::Watched {
            return self.report_ready(key, ready);
        }
        let failed = ready.hangup || ready.error;
        if ready.readable || failed {
            entry.set(READABLE, true);
        }
        if ready.writable || failed {
            entry.set(WRITABLE, true);
        }
        let entry = if failed {
            self.absorb_failure(key, ready);
            self.table.get_mut(key)?
        } else {
            entry
        };
        if entry.has(QUEUED) {
            return None;
        }
        if entry.kind == EntryKind::Stream && entry.parked.is_none() && !entry.has(BLOCKED) {
            return self.receive(key);
        }
        self.drive(key);
        None
    }

    /// Records that the poll has reported a hang-up or an error.
    #[cold]
    fn absorb_failure(&mut self, key: Key, ready: Ready) {
        let is_edge = self.is_edge();
        let Some(entry) = self.table.get_mut(key) else { return };
        entry.set(HANGUP, true);
        if ready.error {
            entry.set(FAILED, true);
        }
        // A level-triggered poll would report it forever.
        if entry.kind == EntryKind::Stream
            && !is_edge
            && !entry.has(READING)
            && entry.has(REPORTED_END)
            && !ready.error
        {
            entry.set(REPORTED_ALL, true);
            self.mark_changed(key);
        }
    }

    fn report_ready(&mut self, key: Key, ready: Ready) -> Option<Event> {
        let entry = self.table.get_mut(key)?;
        // A handler may have changed the interest after the poll reported.
        let ready = ready.masked(entry.in_poll()?);
        if !(ready.readable || ready.writable) {
            if !(ready.hangup || ready.error) {
                return None;
            }
            // A level-triggered poll would report it forever. This can only fail if the owner has closed the
            // descriptor, which is then in no set any more.
            let _ = set_interest(&mut self.poll, entry, None, Trigger::Level);
        }
        Some(Event::Ready(ready))
    }

    fn drive(&mut self, key: Key) {
        self.driven = Some(Driven { key, accepts_left: ACCEPTS_MAX, accepted: false });
    }

    /// Performs operations for the key until there is an event. `None` when it is done.
    #[inline(never)]
    fn step(&mut self, key: Key) -> Option<Event> {
        match self.table.get(key)?.kind {
            EntryKind::Listener => self.step_listener(key),
            EntryKind::Connecting => self.step_connecting(key),
            EntryKind::Stream => self.step_stream(key),
            EntryKind::Datagrams => self.step_datagrams(key),
            EntryKind::Watched | EntryKind::Refused => None,
        }
    }
}

impl<P: Poll> Engine for Calls<P> {
    fn name(&self) -> &'static str {
        self.poll.name()
    }

    fn host(&self) -> &dyn Host {
        &self.machine
    }

    fn host_mut(&mut self) -> &mut dyn Host {
        &mut self.machine
    }

    fn waker(&self) -> Waker {
        self.poll.waker()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.birthplace.check()?;
        self.is_woken = false;
        // Events that were reported and not pulled come first. Waiting for more would let them pile up.
        if self.driven.is_some() || self.cursor < self.batch.len() || self.resumes_left > 0 {
            return Ok(());
        }
        self.batch.clear();
        self.cursor = 0;
        self.sync();
        let is_idle = self.resume.is_empty() && self.queued.is_empty();
        self.poll.wait(&mut self.batch, if is_idle { timeout } else { Some(Duration::ZERO) })?;
        self.resumes_left = self.resume.len();
        Ok(())
    }

    // Each request is performed at once, a close included.
    fn submit(&mut self) {}

    fn finish_closes(&mut self) {}

    fn next(&mut self) -> Option<(Key, Event)> {
        if !self.birthplace.is_here() {
            return None;
        }
        loop {
            if let Some(queued) = self.queued.pop_front() {
                return Some(queued);
            }
            if let Some(key) = self.driven.as_ref().map(|driven| driven.key) {
                if let Some(event) = self.step(key) {
                    return Some((key, event));
                }
                self.driven = None;
                continue;
            }
            if let Some(&(key, ready)) = self.batch.get(self.cursor) {
                self.cursor += 1;
                if let Some(event) = self.absorb(key, ready) {
                    return Some((key, event));
                }
            } else if self.resumes_left > 0 {
                self.resumes_left -= 1;
                let Some(key) = self.resume.pop_front() else { continue };
                if let Some(entry) = self.table.get_mut(key) {
                    entry.set(QUEUED, false);
                    self.drive(key);
                }
            } else {
                return None;
            }
        }
    }

    fn give(&mut self, chunk: Chunk) {
        let buffer = chunk.into_buffer();
        if buffer.len() == self.buffer_bytes {
            self.spare = Some(buffer);
        }
    }

    fn watch(&mut self, key: Key, source: Source<'_>, interest: Option<Interest>) -> io::Result<()> {
        self.birthplace.check()?;
        let watched = sys::Watched::new(source).ok_or(io::ErrorKind::Unsupported)?;
        if self.table.is_vacant(key) {
            self.table.insert(Entry::new(key, Ownership::Watched(watched), EntryKind::Watched));
        }
        let entry = self.table.get_mut(key).filter(|entry| entry.kind == EntryKind::Watched);
        let entry = entry.ok_or(io::ErrorKind::AlreadyExists)?;
        entry.descriptor = Ownership::Watched(watched);
        let result = set_interest(&mut self.poll, entry, interest, Trigger::Level);
        if result.is_err() && entry.in_poll().is_none() {
            self.table.remove(key);
        }
        result
    }

    fn unwatch(&mut self, key: Key, source: Source<'_>) {
        let Some(entry) = self.table.get(key).filter(|entry| entry.kind == EntryKind::Watched) else {
            return;
        };
        if entry.in_poll().is_some() && self.birthplace.is_here() {
            // Fails only if the owner closed it first. The system has then forgotten it already.
            let _ = match entry.is_exchanged(source) {
                false => self.poll.unwatch(key, source),
                // The owner has put another source in its place. The watched one may live on elsewhere and
                // must leave the set, unless its number now belongs to another entry of ours.
                true if self.table.is_shared(entry) => Ok(()),
                true => entry.with_source(|watched| self.poll.unwatch(key, watched)),
            };
        }
        self.table.remove(key);
    }

    fn read(&mut self, source: Source<'_>, into: &mut [u8]) -> io::Result<usize> {
        self.count_call();
        sys::read(source, into)
    }

    fn write(&mut self, source: Source<'_>, from: &Outgoing) -> io::Result<usize> {
        self.count_call();
        sys::write(source, from)
    }

    #[cfg(unix)]
    fn pass(
        &mut self,
        to: Source<'_>,
        bytes: &[io::IoSlice<'_>],
        with: &mut Vec<Descriptor>,
    ) -> io::Result<usize> {
        self.count_call();
        sys::rights::pass(to, bytes, with)
    }

    #[cfg(unix)]
    fn receive(&mut self, from: Source<'_>, into: &mut [u8]) -> io::Result<Delivery> {
        self.count_call();
        sys::rights::receive(from, into)
    }

    fn listen(&mut self, address: &Address, options: &ListenOptions) -> io::Result<Transport> {
        // socket, bind and listen. Options are too rare to count.
        self.calls.set(self.calls.get() + 3);
        sys::listen(address, options).map(Transport::new)
    }

    fn connect(&mut self, address: &Address, options: &ConnectOptions) -> io::Result<Transport> {
        self.calls.set(self.calls.get() + 2);
        sys::connect(address, options).map(Transport::new)
    }

    fn attach(&mut self, key: Key, transport: Transport, role: Role) -> Result<(), AttachError> {
        if let Err(error) = self.birthplace.check() {
            return Err(AttachError { transport, error });
        }
        self.take_in(key, transport, role)
    }

    fn reading(&mut self, key: Key, on: bool) {
        let Some(entry) = self.table.get_mut(key).filter(|entry| entry.kind != EntryKind::Watched) else {
            return;
        };
        if entry.has(READING) == on {
            return;
        }
        entry.set(READING, on);
        // The next time that reading is off, the adapter reports the hang-up again.
        [AHEAD, REPORTED_END, REPORTED_ALL].into_iter().for_each(|bit| entry.set(bit, false));
        let is_gone = entry.kind == EntryKind::Stream && entry.has(HANGUP) && !entry.has(ENDED);
        let is_listener = entry.kind == EntryKind::Listener;
        let may_have_input = entry.has(READABLE) && !entry.has(ENDED);
        if on && is_listener && self.reserve.is_none() {
            self.reserve = sys::Reserve::take();
        }
        if on && may_have_input || !on && is_gone {
            self.queue_again(key);
        }
        self.mark_changed(key);
    }

    fn turn_away(&mut self, key: Key) -> bool {
        self.close_one(key)
    }

    fn send(&mut self, key: Key, queue: Box<Outgoing>) -> Option<Sent> {
        if let Err(error) = self.birthplace.check() {
            return Some(Sent { queue, result: Err(error) });
        }
        self.send_or_park(key, queue)
    }

    fn bind(&mut self, address: &Address, options: &BindOptions) -> io::Result<Transport> {
        self.calls.set(self.calls.get() + 2);
        sys::datagram::bind(address, options).map(Transport::new)
    }

    fn send_datagrams(&mut self, key: Key, queue: &mut DatagramQueue) -> usize {
        if self.birthplace.is_here() { self.depart(key, queue) } else { 0 }
    }

    fn give_batch(&mut self, batch: Batch) {
        self.batches.give(batch);
    }

    fn set_longest(&mut self, key: Key, bytes: usize) {
        self.batches.set_longest(key, bytes);
    }

    fn set_member(&mut self, key: Key, group: &Group, member: bool) -> io::Result<()> {
        self.birthplace.check()?;
        sys::datagram::set_member(self.called(key)?, group, member)
    }

    fn shutdown(&mut self, key: Key) -> io::Result<()> {
        self.birthplace.check()?;
        sys::shutdown_write(self.called(key)?)
    }

    fn detach(&mut self, key: Key) {
        self.batches.forget(key);
        if self.birthplace.is_here() {
            self.give_out(key);
        }
    }

    fn close(&mut self, key: Key, how: Ending) {
        self.batches.forget(key);
        if !self.birthplace.is_here() {
            // Close its descriptor, and do nothing else.
            return drop(self.table.remove(key));
        }
        let is_reset = forget_queued(&mut self.queued, key, how == Ending::Reset);
        let Some(mut entry) = self.table.remove(key) else { return };
        // Removes listeners even from an edge-triggered set, because they are shared more often than streams,
        // and closed seldom.
        if !self.is_edge() || matches!(entry.kind, EntryKind::Listener | EntryKind::Watched) {
            let _ = set_interest(&mut self.poll, &mut entry, None, Trigger::Level);
        }
        let Ownership::Owned(descriptor) = entry.descriptor else { return };
        if is_reset || entry.parked.is_some() {
            self.count_call();
            sys::reset_at_close(sys::borrow(&descriptor));
        }
        self.count_call();
    }

    fn probe(&mut self, key: Key) {
        let is_read = |entry: &&mut Entry| {
            matches!(entry.kind, EntryKind::Stream | EntryKind::Datagrams | EntryKind::Listener)
        };
        if let Some(entry) = self.table.get_mut(key).filter(is_read) {
            entry.set(READABLE, true);
            self.queue_again(key);
        }
    }

    fn direct_sink(&self, key: Key) -> Option<Source<'_>> {
        let entry = self.table.get(key).filter(|entry| entry.kind == EntryKind::Stream)?;
        entry.owned().map(Source::of)
    }

    fn await_room(&mut self, key: Key) -> bool {
        let is_free = |entry: &Entry| entry.kind == EntryKind::Stream && entry.parked.is_none();
        let is_awaited = self.birthplace.is_here() && self.table.get(key).is_some_and(is_free);
        if is_awaited {
            self.block(key);
        }
        is_awaited
    }

    fn local(&self, key: Key) -> io::Result<Address> {
        sys::local(self.called(key)?)
    }

    fn peer(&self, key: Key) -> io::Result<Address> {
        sys::peer(self.called(key)?)
    }

    #[cfg(unix)]
    fn peer_credentials(&self, key: Key) -> io::Result<Credentials> {
        Credentials::of_peer(self.called(key)?)
    }

    #[cfg(not(unix))]
    fn peer_credentials(&self, _: Key) -> io::Result<Credentials> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn calls(&self) -> u64 {
        self.calls.get() + self.poll.calls()
    }

    fn memory(&self) -> usize {
        // One buffer, and memory that follows the load.
        0
    }

    #[cfg(unix)]
    fn fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        let fd = self.poll.fd();
        self.is_driven_from_outside.set(fd.is_some());
        fd
    }
}

/// The default for the most bytes that one read takes.
const BUFFER_BYTES: usize = 64 * 1024;
/// The number of connections that a listener accepts in one batch.
const ACCEPTS_MAX: u32 = 16;
