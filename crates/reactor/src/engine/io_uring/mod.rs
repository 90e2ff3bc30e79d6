//! io_uring(7): operations performed by the kernel, and completions pulled: Linux.
//!
//! # How it fulfils the contract
//!
//! **One call a turn.** Whatever a turn asks for is queued, and leaves with the one io_uring_enter(2) by which
//! the engine waits. Input comes by one multishot receive for each stream, into buffers that all streams
//! share; connections come by one multishot accept for each listener. So in the steady state there is no
//! call but this one.
//!
//! **Wanted and armed are two states.** `reading` only notes the wish. Before each wait, once, what is wanted
//! and not out is armed, and what is out and not wanted is cancelled; a wish that changed back and forth
//! costs nothing. What ends by itself (a multishot may, at any time) is armed again there.
//!
//! **Who names whom.** An operation carries its kind, the index of its entry and the entry's life; that is how
//! its completion finds the entry, and how a cancel finds the operation. A key leads to an entry only until
//! it is closed; the entry, and with it the descriptor's number, stays until nothing is out for it.
//!
//! **Buffers.** A chunk lends a shared buffer, or a piece of one, and gives it back by its drop, so a stream that
//! is slow or paused holds none. A receive that found no buffer waits in a line, and as many are armed as there
//! are buffers. When whoever holds chunks holds all of them, streams are read by a call into memory of their own.
//!
//! **Greedy streams.** A multishot receive brings all that is in a socket, as far as there are buffers. A stream that
//! brings more than one turn may hand over is waited for and read by calls until little comes at once. So what nobody
//! wants yet stays in its socket, the shared buffers are there for the other streams, and greedy streams are read behind
//! these, one of them in each turn at least. What came too early is kept in `late.rs`.
//!
//! **Files.** An operation on files is a flight: one operation of the kernel after the other, whose memory it owns. Most
//! are over when they are submitted; what waits for a disk does so in the kernel. After an opening the file is looked at
//! by a call that asks no disk and no server, since the kernel gives each statx to a thread.
//!
//! **Pipes** are read by multishot, too. Only the first input is waited for: to a read, a named pipe without a writer so
//! far looks like one whose writers have left.
//!
//! **What a kernel does not know** (an old one, or one in a sandbox) is waited for in the ring, and then done
//! by a call: for each operation by itself. Without the ring itself, or without the operations that everything
//! needs, the engine does not open, and [`Missing`] says what it was.
//!
//! **Order between input and end.** The kernel completes the operations of one stream in the order in which
//! they happened, and completions are pulled in their order.
//!
//! **Threads and processes.** The ring is made in the thread that uses it, and no other may enter it. Its memory
//! is not inherited by a fork.

mod buffers;
mod datagram;
mod end;
mod files;
mod hangup;
mod input;
mod late;
mod mail;
mod operation;
mod options;
mod output;
mod probe;
mod ring;
mod table;
mod turn;
mod wake;
mod watch;

use std::{
    cell::Cell,
    collections::{HashMap, VecDeque},
    io,
    os::fd::{BorrowedFd, OwnedFd, RawFd},
    rc::Rc,
    sync::Arc,
    task::{Wake as _, Waker},
    time::Duration,
};

use session::Outgoing;
use socket2::SockRef;

pub(super) use self::buffers::Provided;
use self::{
    buffers::Pool,
    files::Files,
    late::{AT_ONCE, Late},
    mail::Mail,
    output::Headers,
    ring::{Completion, Ring},
    table::{HUNG_UP, Place, READING, Table},
    turn::ACCEPTS_MAX,
    wake::Bell,
};
pub use self::{
    options::{IoUringOptions, Operations},
    probe::Missing,
};
use super::{
    Batch, Chunk, DatagramQueue, Ending, Engine, Event, Interest, Refused, Role, Sent, Source, Transport,
    held::{Held, Part, Taken},
    letters::Batches,
};
use crate::{
    address::Address,
    file::FileJob,
    id::Key,
    options::{BindOptions, ConnectOptions, Group, ListenOptions},
    sys,
    waker::Signal,
};

/// The engine `io_uring`: Linux 6.0, and with less effect 5.11.
///
/// ```no_run
/// use reactor::{Runtime, engine::IoUring};
///
/// let runtime = Runtime::with_engine(IoUring::new()?);
/// assert_eq!(runtime.engine_name(), "io_uring");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct IoUring {
    ring: Ring,
    birthplace: sys::Birthplace,
    pool: Rc<Pool>,
    table: Table,
    operations: Operations,
    /// What came back and was not looked at.
    batch: VecDeque<Completion>,
    /// Accepts among it, which are looked at first.
    accepts: Vec<Completion>,
    /// Greedy streams among it that are to be read, which are looked at last.
    greedy: VecDeque<Completion>,
    /// Whether one of these is read in this turn whatever else there is.
    owes_greedy: bool,
    /// Counts turns.
    turn: u16,
    late: Late,
    /// How many chunks of it this turn may tell of, and how many bytes in them.
    chunks_left: usize,
    bytes_left: usize,
    /// Events which are there already.
    told: VecDeque<(Key, Event)>,
    /// What is brought in step before the next wait, each entry once.
    due: Vec<Place>,
    /// What found no buffer, in the order in which it did.
    starved: VecDeque<Place>,
    /// How many at the front of that line were armed in the last turn, and found no buffer again.
    passed_over: usize,
    /// Which resource is watched, by the number of its descriptor.
    numbers: HashMap<RawFd, u32>,
    /// Connections that were accepted and not told of, and failures between them, in the order in which they
    /// came; each with its listener.
    held: VecDeque<(Place, io::Result<OwnedFd>)>,
    /// Listeners that rest because of them.
    crowded: Vec<Place>,
    /// How many more connections are told of in this batch.
    accepts_left: u32,
    headers: Headers,
    /// Memory for what is received by a call.
    spare: Vec<Box<[u8]>>,
    /// How many bytes one call receives at most.
    call_bytes: usize,
    batches: Batches,
    /// Buffers for datagrams, once there is a socket for them.
    mail: Option<Mail>,
    /// How many; none where the kernel does not receive by itself.
    mail_buffers: u16,
    files: Files,
    reserve: Option<sys::Reserve>,
    signal: Arc<Bell>,
    /// Where the kernel writes how often the waker was used.
    counter: Box<[u8; 8]>,
    is_waker_read: bool,
    is_woken: bool,
    calls: Cell<u64>,
    is_stirred: bool,
}

impl IoUring {
    /// Creates one of the usual size.
    ///
    /// # Errors
    /// As [`IoUring::with_options`].
    pub fn new() -> io::Result<IoUring> {
        IoUring::with_options(IoUringOptions::default())
    }

    /// Creates one with these options.
    ///
    /// # Errors
    /// `Unsupported` with a [`Missing`] inside; else as io_uring_setup(2), mmap(2), eventfd(2).
    pub fn with_options(options: IoUringOptions) -> io::Result<IoUring> {
        let (ring, mut operations, known) = probe::open(&options)?;
        let ring = Ring::new(ring);
        let pool = Pool::open(&ring, &options, &mut operations)?;
        let call_bytes = pool.bytes().min(AT_ONCE);
        let late = Late::new(pool.bytes() / COPIED_SHARE);
        let mail_buffers = if operations.receive { mail::rounded(options.datagram_buffers) } else { 0 };
        let signal = Arc::new(Bell::new()?);
        // A read of one that does not block would not wait in the ring either. A wake never blocks: that
        // needs 2^64 of them.
        SockRef::from(&signal.fd()).set_nonblocking(false)?;
        let mut this = IoUring {
            ring,
            birthplace: sys::Birthplace::here(),
            pool,
            table: Table::default(),
            operations,
            batch: VecDeque::new(),
            accepts: Vec::new(),
            greedy: VecDeque::new(),
            owes_greedy: false,
            turn: 0,
            late,
            chunks_left: 0,
            bytes_left: 0,
            told: VecDeque::new(),
            due: Vec::new(),
            starved: VecDeque::new(),
            passed_over: 0,
            numbers: HashMap::new(),
            held: VecDeque::new(),
            crowded: Vec::new(),
            accepts_left: ACCEPTS_MAX,
            headers: Headers::default(),
            spare: Vec::new(),
            call_bytes,
            batches: Batches::default(),
            mail: None,
            mail_buffers,
            files: Files::new(known),
            reserve: sys::Reserve::take(),
            signal,
            counter: Box::default(),
            is_waker_read: false,
            is_woken: false,
            calls: Cell::new(0),
            is_stirred: false,
        };
        this.read_waker();
        this.ring.submit();
        Ok(this)
    }

    /// How many chunks in shared buffers are lent.
    pub fn lent(&self) -> usize {
        self.pool.lent()
    }

    /// How many descriptors the engine knows, those included that only wait for the end of their operations.
    pub fn descriptors(&self) -> usize {
        self.table.len()
    }

    fn count_call(&self) {
        self.calls.set(self.calls.get() + 1);
    }

    /// The descriptor of a transport, for a call, which is counted.
    fn called(&self, key: Key) -> io::Result<sys::Borrowed<'_>> {
        let descriptor = self.table.of(key).and_then(|entry| entry.owned()).ok_or(io::ErrorKind::NotFound)?;
        self.count_call();
        Ok(sys::borrow(descriptor))
    }
}

impl Engine for IoUring {
    fn name(&self) -> &'static str {
        "io_uring"
    }

    fn waker(&self) -> Waker {
        Arc::clone(&self.signal).into()
    }

    fn run_file(&mut self, job: FileJob) -> Option<FileJob> {
        self.take_file(job)
    }

    fn left_file(&mut self) -> Option<FileJob> {
        self.files.next_left()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.birthplace.check()?;
        self.wait_for(timeout)
    }

    fn submit(&mut self) {
        if !self.ring.is_taken() {
            self.ring.submit();
        }
    }

    fn finish_closes(&mut self) {
        if self.birthplace.is_here() {
            self.reap_closing();
        }
    }

    fn next(&mut self) -> Option<(Key, Event)> {
        if !self.birthplace.is_here() {
            return None;
        }
        let next = self.pull();
        if next.is_none() && self.files.has_answers() {
            self.answer_files();
        }
        if next.is_none() {
            self.stir_for_rest();
        }
        next
    }

    fn give(&mut self, chunk: Chunk) {
        // A shared buffer goes back by its drop.
        let buffer = chunk.into_buffer();
        if self.spare.len() < SPARE_MAX && buffer.len() == self.call_bytes {
            self.spare.push(buffer);
        }
    }

    fn watch(&mut self, key: Key, source: Source<'_>, interest: Option<Interest>) -> io::Result<()> {
        self.birthplace.check()?;
        self.set_watched(key, source, interest)
    }

    fn unwatch(&mut self, key: Key, _: Source<'_>) {
        self.forget_watched(key);
    }

    fn read(&mut self, source: Source<'_>, into: &mut [u8]) -> io::Result<usize> {
        self.count_call();
        sys::read(source, into)
    }

    fn write(&mut self, source: Source<'_>, from: &Outgoing) -> io::Result<usize> {
        self.count_call();
        sys::write(source, from)
    }

    fn listen(&mut self, address: &Address, options: &ListenOptions) -> io::Result<Transport> {
        // socket, bind and listen; options are rare enough not to be counted.
        self.calls.set(self.calls.get() + 3);
        sys::listen(address, options).map(Transport::new)
    }

    fn connect(&mut self, address: &Address, options: &ConnectOptions) -> io::Result<Transport> {
        self.calls.set(self.calls.get() + 2);
        sys::connect(address, options).map(Transport::new)
    }

    fn attach(&mut self, key: Key, transport: Transport, role: Role) -> Result<(), Refused> {
        if let Err(error) = self.birthplace.check() {
            return Err(Refused { transport, error });
        }
        let Taken { descriptor, medium, facts } =
            Taken::of(transport, role, self.table.is_vacant(key), &self.calls)?;
        if role == Role::Datagrams {
            self.make_mail();
        }
        let is_read = self.is_read(role, &descriptor, medium);
        let index = self.table.insert(key, Held::Owned(descriptor), role.into());
        if let Some(entry) = self.table.get_mut(index) {
            entry.set(READING, true);
            if let Some(facts) = facts {
                entry.set_facts(facts);
            }
            entry.set_medium(medium);
            if is_read {
                entry.read_by_kernel();
            }
        }
        self.list(index);
        Ok(())
    }

    fn reading(&mut self, key: Key, on: bool) {
        let Some(index) = self.table.find(key) else { return };
        let Some(entry) = self.table.get_mut(index).filter(|entry| entry.part != Part::Watched) else {
            return;
        };
        if entry.has(READING) == on {
            return;
        }
        entry.set(READING, on);
        if entry.part == Part::Stream {
            // A new rest reports the hang-up again.
            entry.set(HUNG_UP, false);
        }
        if on && entry.part == Part::Listener && self.reserve.is_none() {
            self.reserve = sys::Reserve::take();
        }
        self.list(index);
    }

    fn turn_away(&mut self, key: Key) -> bool {
        self.close_one(key)
    }

    fn send(&mut self, key: Key, queue: Box<Outgoing>) -> Option<Sent> {
        if let Err(error) = self.birthplace.check() {
            return Some(Sent { queue, result: Err(error) });
        }
        self.begin_send(key, queue)
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
        self.receive_long(key, bytes);
    }

    fn set_member(&mut self, key: Key, group: &Group, member: bool) -> io::Result<()> {
        self.birthplace.check()?;
        sys::datagram::set_member(self.called(key)?, group, member)
    }

    fn outlet(&self, key: Key) -> Option<Source<'_>> {
        let entry = self.table.of(key).filter(|entry| entry.part == Part::Stream)?;
        entry.owned().map(Source::of)
    }

    fn await_room(&mut self, key: Key) -> bool {
        self.birthplace.is_here() && self.begin_room(key)
    }

    fn shutdown(&mut self, key: Key) -> io::Result<()> {
        self.birthplace.check()?;
        // As an operation it would go to a thread of the kernel.
        sys::shutdown_write(self.called(key)?)
    }

    fn detach(&mut self, key: Key) {
        if self.birthplace.is_here() {
            self.detach_key(key);
        }
    }

    fn close(&mut self, key: Key, how: Ending) {
        // In a child of a fork its copy of the descriptor is closed by the engine's drop.
        if self.birthplace.is_here() {
            self.close_key(key, how);
        }
    }

    fn local(&self, key: Key) -> io::Result<Address> {
        sys::local(self.called(key)?)
    }

    fn peer(&self, key: Key) -> io::Result<Address> {
        sys::peer(self.called(key)?)
    }

    fn peer_credentials(&self, key: Key) -> io::Result<crate::Credentials> {
        crate::Credentials::of_peer(self.called(key)?)
    }

    fn calls(&self) -> u64 {
        self.calls.get() + self.ring.calls()
    }

    fn memory(&self) -> usize {
        // The buffers for datagrams are made with the first socket for these, and may be at any time.
        self.ring.memory()
            + self.pool.memory()
            + mail::memory(self.mail_buffers)
            + SPARE_MAX * self.call_bytes
            + self.late.copied_max()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        // The ring's own descriptor would not do: work that the kernel has put off for this thread does not make it
        // readable.
        let Some(outside) = self.signal.outside() else {
            let outside = Arc::new(Signal::new().ok()?);
            self.ring.tell(outside.fd()).ok()?;
            // What came before is not told.
            outside.wake_by_ref();
            self.calls.set(self.calls.get() + 3);
            return Some(self.signal.add_outside(outside).fd());
        };
        if !self.due.is_empty() || !self.is_waker_read {
            outside.wake_by_ref();
        }
        Some(outside.fd())
    }
}

/// How many buffers are kept for the next calls; a runtime holds one at a time.
const SPARE_MAX: usize = 2;
/// How much is copied of late input at most, as a share of the shared buffers.
const COPIED_SHARE: usize = 4;
