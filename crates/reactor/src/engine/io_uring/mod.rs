//! io_uring(7), on Linux: the kernel performs operations, and the engine pulls their completions.
//!
//! # How it fulfils the contract
//!
//! **One call a turn.** The engine queues all requests of a turn. They leave with the io_uring_enter(2) with
//! which it waits. One multishot receive per stream brings input, into buffers that all streams share. One
//! multishot accept per listener brings connections. So in the steady state this is the only call.
//!
//! **Wanted and armed are two states.** `reading` only records the wish. Once before each wait, the engine
//! arms operations that are wanted and not in flight, and cancels operations that are in flight and not
//! wanted. A wish that changes back and forth costs nothing. An operation that ends by itself, as a multishot
//! may at any time, is armed again there.
//!
//! **Names.** An operation carries its kind, the index of its entry, and the entry's life. By these its
//! completion finds the entry, and a cancel finds the operation. A key leads to an entry only until it is
//! closed. The entry, and with it the descriptor's number, stays until no operation is in flight for it.
//!
//! **Buffers.** A chunk borrows a shared buffer, or a piece of one, and gives it back on drop, so a stream
//! that is slow or paused holds none. A receive that found no buffer waits in a line, and the engine arms as
//! many of these as there are buffers. If the holders of chunks hold all buffers, the engine reads streams by
//! calls, into separate memory.
//!
//! **Greedy streams.** A multishot receive delivers all the input of a socket, as long as there are buffers.
//! If a stream delivers more than one turn may hand over, the engine waits for its input and reads it by
//! calls, until little comes at once. So input that nobody wants yet stays in its socket, and the shared
//! buffers stay free for the other streams. Greedy streams are read after the others, but at least one of
//! them in each turn. `late.rs` keeps input that came too early.
//!
//! **Files.** A file operation is a flight: a sequence of kernel operations, whose memory the flight owns.
//! Most finish when they are submitted. Those that wait for a disk do so in the kernel. After an open, the
//! engine examines the file by a call that accesses neither a disk nor a server, because the kernel hands
//! each statx to a thread.
//!
//! **Pipes** are read by multishot, too. Only for the first input the engine waits for readiness, because to
//! a read, a named pipe that has had no writer yet looks like one whose writers have left.
//!
//! **Unknown operations** of an old kernel, or of one in a sandbox, are replaced one by one: the ring waits
//! for readiness, and the engine makes the call. Without the ring itself, or without the operations that
//! everything depends on, the engine does not open, and [`Missing`] names them.
//!
//! **Order between input and end.** The kernel completes the operations of one stream in the order in which
//! they happened, and the engine pulls completions in order.
//!
//! **Threads and processes.** The ring is made in the thread that uses it, and no other may enter it. A fork
//! does not inherit its memory.

mod buffers;
mod datagram;
mod end;
mod files;
mod hangup;
mod input;
mod late;
mod operation;
mod options;
mod output;
mod probe;
mod recvmsg;
mod ring;
mod table;
mod turn;
mod wake;
mod watch;

use std::{
    cell::Cell,
    collections::{HashMap, VecDeque},
    fmt, io,
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
    buffers::SharedBuffers,
    files::FileOperations,
    late::{AT_ONCE, Late},
    output::Headers,
    recvmsg::RecvMsg,
    ring::{Completion, Ring},
    table::{EntryRef, HUNG_UP, READING, Table},
    turn::ACCEPTS_MAX,
    wake::RingWaker,
};
pub use self::{
    options::{IoUringOptions, Operations},
    probe::Missing,
};
use super::{
    AttachError, Batch, Chunk, DatagramQueue, Delivery, Descriptor, Ending, Engine, Event, Interest, Role,
    Sent, Source, Transport,
    datagram::Batches,
    entry::{EntryKind, Ownership, Taken},
};
use crate::{
    Credentials,
    address::Address,
    host::{Host, file::FileJob},
    id::Key,
    options::{BindOptions, ConnectOptions, Group, ListenOptions},
    sys,
    waker::WakeSignal,
};

/// The engine `io_uring`: needs Linux 5.11, and uses more of the kernel up to 6.12 (see [`Operations`]).
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
    pool: Rc<SharedBuffers>,
    table: Table,
    operations: Operations,
    /// Completions that the engine has not handled yet.
    batch: VecDeque<Completion>,
    /// Accepts among the completions, which are handled first.
    accepts: Vec<Completion>,
    /// Readiness of greedy streams among the completions, which is handled last.
    greedy: VecDeque<Completion>,
    /// Whether this turn must still read one of these, whatever else there is.
    owes_greedy: bool,
    /// The number of the turn.
    turn: u16,
    late: Late,
    /// The number of chunks that this turn may still deliver, and of their bytes.
    chunks_left: usize,
    bytes_left: usize,
    /// Events that are ready to be pulled.
    queued: VecDeque<(Key, Event)>,
    /// Entries to bring in step before the next wait, each once.
    due: Vec<EntryRef>,
    /// Entries that found no buffer, in order.
    starved: VecDeque<EntryRef>,
    /// The number of entries at the front of that line that were armed in the last turn and again found no
    /// buffer.
    passed_over: usize,
    /// The index of the watched resource with each descriptor number.
    numbers: HashMap<RawFd, u32>,
    /// Accepted connections that have not been reported, and failures between them, in order, each with its
    /// listener.
    accepted: VecDeque<(EntryRef, io::Result<OwnedFd>)>,
    /// Listeners that rest because too many connections are held.
    crowded: Vec<EntryRef>,
    /// The number of connections that this batch may still report.
    accepts_left: u32,
    headers: Headers,
    /// Memory for receives by calls.
    spare: Vec<Box<[u8]>>,
    /// The most bytes that one call receives.
    call_bytes: usize,
    batches: Batches,
    /// Buffers for datagrams, once there is a socket that needs them.
    recvmsg: Option<RecvMsg>,
    /// The number of these buffers. Zero if the kernel does not receive by itself.
    recvmsg_buffers: u16,
    files: FileOperations,
    reserve: Option<sys::Reserve>,
    signal: Arc<RingWaker>,
    /// The kernel writes here how often the waker was used.
    counter: Box<[u8; 8]>,
    is_waker_read: bool,
    is_woken: bool,
    calls: Cell<u64>,
    is_stirred: bool,
}

impl fmt::Debug for IoUring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoUring").field("operations", &self.operations).finish_non_exhaustive()
    }
}

impl IoUring {
    /// Creates one of the default size.
    ///
    /// # Errors
    /// As [`IoUring::with_options`].
    pub fn new() -> io::Result<IoUring> {
        IoUring::with_options(IoUringOptions::default())
    }

    /// Creates one with these options.
    ///
    /// # Errors
    /// `Unsupported` with a [`Missing`] inside; otherwise as io_uring_setup(2), mmap(2), eventfd(2).
    pub fn with_options(options: IoUringOptions) -> io::Result<IoUring> {
        let (ring, mut operations, known) = probe::open(&options)?;
        let ring = Ring::new(ring);
        let pool = SharedBuffers::open(&ring, &options, &mut operations)?;
        let call_bytes = pool.bytes().min(AT_ONCE);
        let late = Late::new(pool.bytes() / COPIED_SHARE);
        let recvmsg_buffers = if operations.receive { recvmsg::rounded(options.datagram_buffers) } else { 0 };
        let signal = Arc::new(RingWaker::new()?);
        // On a non-blocking descriptor, a read would not wait in the ring either. A wake never blocks,
        // because that would need 2^64 wakes.
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
            queued: VecDeque::new(),
            due: Vec::new(),
            starved: VecDeque::new(),
            passed_over: 0,
            numbers: HashMap::new(),
            accepted: VecDeque::new(),
            crowded: Vec::new(),
            accepts_left: ACCEPTS_MAX,
            headers: Headers::default(),
            spare: Vec::new(),
            call_bytes,
            batches: Batches::default(),
            recvmsg: None,
            recvmsg_buffers,
            files: FileOperations::new(known),
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

    /// Returns the number of chunks in shared buffers that are lent.
    pub fn lent(&self) -> usize {
        self.pool.lent()
    }

    /// Returns the number of descriptors in the engine, including those that only wait for their operations
    /// to end.
    pub fn descriptors(&self) -> usize {
        self.table.len()
    }

    fn count_call(&self) {
        self.calls.set(self.calls.get() + 1);
    }

    /// Returns the descriptor of a transport for a system call, and counts the call.
    fn called(&self, key: Key) -> io::Result<sys::Borrowed<'_>> {
        let descriptor = self.table.of(key).and_then(|entry| entry.owned()).ok_or(io::ErrorKind::NotFound)?;
        self.count_call();
        Ok(sys::borrow(descriptor))
    }
}

/// The real machine, but the kernel performs file operations in the ring.
impl Host for IoUring {
    fn run_file(&mut self, job: FileJob) -> Option<FileJob> {
        self.take_file(job)
    }

    fn left_file(&mut self) -> Option<FileJob> {
        self.files.next_left()
    }
}

impl Engine for IoUring {
    fn name(&self) -> &'static str {
        "io_uring"
    }

    fn host(&self) -> &dyn Host {
        self
    }

    fn host_mut(&mut self) -> &mut dyn Host {
        self
    }

    fn waker(&self) -> Waker {
        Arc::clone(&self.signal).into()
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
        // A shared buffer goes back when it is dropped.
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

    fn pass(
        &mut self,
        to: Source<'_>,
        bytes: &[io::IoSlice<'_>],
        with: &mut Vec<Descriptor>,
    ) -> io::Result<usize> {
        self.count_call();
        sys::rights::pass(to, bytes, with)
    }

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
        let Taken { descriptor, medium, facts } =
            Taken::of(transport, role, self.table.is_vacant(key), &self.calls)?;
        if role == Role::Datagrams {
            self.make_mail();
        }
        let is_read = self.is_read(role, &descriptor, medium);
        let index = self.table.insert(key, Ownership::Owned(descriptor), role.into());
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
        let Some(entry) = self.table.get_mut(index).filter(|entry| entry.kind != EntryKind::Watched) else {
            return;
        };
        if entry.has(READING) == on {
            return;
        }
        entry.set(READING, on);
        if entry.kind == EntryKind::Stream {
            // The next time that reading is off, the engine reports the hang-up again.
            entry.set(HUNG_UP, false);
        }
        if on && entry.kind == EntryKind::Listener && self.reserve.is_none() {
            self.reserve = sys::Reserve::take();
        }
        self.list(index);
    }

    fn turn_away(&mut self, key: Key) -> bool {
        self.close_one(key)
    }

    // An operation is always in flight.
    fn probe(&mut self, _: Key) {}

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

    fn direct_sink(&self, key: Key) -> Option<Source<'_>> {
        let entry = self.table.of(key).filter(|entry| entry.kind == EntryKind::Stream)?;
        entry.owned().map(Source::of)
    }

    fn await_room(&mut self, key: Key) -> bool {
        self.birthplace.is_here() && self.begin_room(key)
    }

    fn shutdown(&mut self, key: Key) -> io::Result<()> {
        self.birthplace.check()?;
        // As an operation, the kernel would hand it to a thread.
        sys::shutdown_write(self.called(key)?)
    }

    fn detach(&mut self, key: Key) {
        if self.birthplace.is_here() {
            self.detach_key(key);
        }
    }

    fn close(&mut self, key: Key, how: Ending) {
        // In a child of a fork, the drop of the engine closes the child's copy of the descriptor.
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

    fn peer_credentials(&self, key: Key) -> io::Result<Credentials> {
        Credentials::of_peer(self.called(key)?)
    }

    fn calls(&self) -> u64 {
        self.calls.get() + self.ring.calls()
    }

    fn memory(&self) -> usize {
        // The first socket for datagrams makes their buffers. It may come at any time, so they count from the
        // start.
        self.ring.memory()
            + self.pool.memory()
            + recvmsg::memory(self.recvmsg_buffers)
            + SPARE_MAX * self.call_bytes
            + self.late.copied_max()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        // The ring's own descriptor would not do, because work that the kernel has put off for this thread
        // does not make it readable.
        let Some(outside) = self.signal.outside() else {
            let outside = Arc::new(WakeSignal::new().ok()?);
            self.ring.register_counter(outside.fd()).ok()?;
            // The eventfd does not report earlier completions.
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

/// The number of buffers kept for the next calls. A runtime borrows one at a time.
const SPARE_MAX: usize = 2;
/// The limit of copied late input, as a share of the shared buffers.
const COPIED_SHARE: usize = 4;
