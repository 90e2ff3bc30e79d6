//! Writes a file as a stream of bytes, with bounded write-behind.

use std::{any::Any, mem, time::Duration};

use super::{Action, Answer, File, in_flight::Landed};
use crate::{
    engine::{Ending, Outgoing},
    error::{Closed, Error, Phase, Result},
    id::{Id, Key},
    resource::{CLOSING, Driver, Flow, Output, OutputDriver, Resource, Served, Vtable, release_refused},
    runtime::{
        Context, Handle, LoopState,
        dispatch::{emit, service},
        pressure::Holding,
    },
};

/// A writer for a file, from one position on. Sent bytes are queued, and written outside the loop.
///
/// As with streams, `send` never blocks and returns no error. It drops the bytes and returns [`Flow::Gone`] if the
/// writer has ended, is closing or is being released. Otherwise it queues the bytes, and returns [`Flow::High`] while more than 256
/// KiB wait, and [`WriterEvent::Drained`] follows at 64 KiB. Above the [cap](FileWriter::cap), 4 MiB by
/// default, the writer ends with [`Closed::Overflow`]. A log that must know which bytes are safe calls
/// [`sync`](FileWriter::sync) from time to time.
///
/// A graceful [`close`](crate::Context::close) writes the queued bytes, syncs the file if
/// [`synced`](FileWriter::synced) is set, and ends with [`Closed::Done`]. Then all bytes that were sent before
/// `close` are in the file. A writer that is closing takes no more bytes, and reports no more events. If the disk fails, the writer ends with [`Closed::Failed`], and [`unwritten`](FileWriter::unwritten) returns
/// how many bytes may be missing.
///
/// ```
/// use reactor::{Closed, Context, Error, Handle, Id, Receive, Result, Service};
/// use reactor::file::{FileWriter, OpenOptions, Opened, Operation, WriterEvent};
///
/// struct Diary(std::path::PathBuf);
/// struct Open(Result<Opened, Error>);
///
/// impl Service for Diary {
///     fn start(&mut self, cx: &mut Context<Self>) -> Result {
///         cx.file(Operation::open(&self.0, OpenOptions::write()), Open)?;
///         Ok(())
///     }
/// }
///
/// impl Receive<Open> for Diary {
///     fn receive(&mut self, cx: &mut Context<Self>, Open(opened): Open) -> Result {
///         let id = cx.add(FileWriter::new(opened?.file).synced(true))?;
///         cx.send(id, b"dear diary");
///         cx.close(id);
///         Ok(())
///     }
/// }
///
/// impl Handle<FileWriter> for Diary {
///     fn handle(&mut self, _: &mut Context<Self>, _: Id<FileWriter>, _: WriterEvent) -> Result {
///         Ok(())
///     }
///
///     fn closed(&mut self, _: &mut Context<Self>, _: Id<FileWriter>, writer: FileWriter, why: Closed) {
///         assert!(why.is_clean() && writer.unwritten() == 0);
///     }
/// }
///
/// let path = std::env::temp_dir().join(format!("diary-{}", std::process::id()));
/// reactor::run(Diary(path.clone()))?;
/// assert_eq!(std::fs::read(&path)?, b"dear diary");
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # At a stop
///
/// By default [`Service::stop`](crate::Service::stop) closes everything at once. A log that acknowledges records would
/// then neither get the last [`Synced`](WriterEvent::Synced) nor be able to send the last acknowledgements. Such a
/// service leaves its writer and its clients open in `stop`, asks for one more sync, acknowledges when that sync is
/// done, and then closes:
///
/// ```
/// use reactor::{Closed, Context, Event, Handle, Id, Lines, Result, Service, Stream};
/// use reactor::file::{FileWriter, WriterEvent};
/// use std::collections::VecDeque;
///
/// /// Writes the lines of its clients to a file, and answers each when it is safe.
/// struct Log {
///     file: Id<FileWriter>,
///     sent: u64,
///     /// Up to where a line reaches in the file, and who waits for it.
///     waiting: VecDeque<(u64, Id<Stream<Lines>>)>,
///     is_stopping: bool,
/// }
///
/// impl Service for Log {
///     fn stop(&mut self, cx: &mut Context<Self>) {
///         self.is_stopping = true;
///         // `Synced` follows, even if no byte waits.
///         cx.get_mut(self.file).map(FileWriter::sync);
///     }
/// }
///
/// impl Handle<Stream<Lines>> for Log {
///     fn handle(&mut self, cx: &mut Context<Self>, client: Id<Stream<Lines>>, event: Event<Lines>) -> Result {
///         match event {
///             Event::Received(line) if !self.is_stopping => {
///                 let line = format!("{line}\n");
///                 cx.send(self.file, line.as_bytes());
///                 cx.get_mut(self.file).map(FileWriter::sync);
///                 self.sent += line.len() as u64;
///                 self.waiting.push_back((self.sent, client));
///             }
///             _ => (),
///         }
///         Ok(())
///     }
/// }
///
/// impl Handle<FileWriter> for Log {
///     fn handle(&mut self, cx: &mut Context<Self>, _: Id<FileWriter>, event: WriterEvent) -> Result {
///         if let WriterEvent::Synced(safe) = event {
///             let count = self.waiting.partition_point(|(end, _)| *end <= safe);
///             for (_, client) in self.waiting.drain(..count) {
///                 cx.send(client, "safe");
///             }
///         }
///         if self.is_stopping && self.waiting.is_empty() {
///             cx.close_all();
///         }
///         Ok(())
///     }
///
///     fn closed(&mut self, cx: &mut Context<Self>, _: Id<FileWriter>, _: FileWriter, _: Closed) {
///         // After an error of the disk nobody can be answered any more.
///         self.waiting.clear();
///         cx.close_all();
///     }
/// }
/// ```
///
/// The runtime waits for all this within the grace of the stop.
#[derive(Debug)]
pub struct FileWriter {
    file: File,
    /// The next position, or `None` to append.
    at: Option<u64>,
    synced: bool,
    cap: usize,
    /// A sync was requested, and has not begun.
    wants_sync: bool,
    written: u64,
    unwritten: usize,
}

impl FileWriter {
    /// Makes a writer that starts at the file's beginning.
    pub fn new(file: File) -> FileWriter {
        FileWriter { file, at: Some(0), synced: false, cap: CAP, wants_sync: false, written: 0, unwritten: 0 }
    }

    /// Starts at this offset.
    #[must_use]
    pub fn at(mut self, offset: u64) -> FileWriter {
        self.at = Some(offset);
        self
    }

    /// Writes at the end of a file that was opened with [`OpenOptions::append`](super::OpenOptions::append).
    #[must_use]
    pub fn append(mut self) -> FileWriter {
        self.at = None;
        self
    }

    /// Sets whether a graceful close syncs the file.
    #[must_use]
    pub fn synced(mut self, synced: bool) -> FileWriter {
        self.synced = synced;
        self
    }

    /// Sets how many bytes may be queued or in flight, 4 MiB by default. More bytes end the writer with
    /// [`Closed::Overflow`].
    #[must_use]
    pub fn cap(mut self, bytes: usize) -> FileWriter {
        self.cap = bytes;
        self
    }

    /// Requests a sync of all bytes sent so far, once they are written. [`WriterEvent::Synced`] reports up to
    /// where they are safe from a power cut. Call it on a registered writer, by
    /// [`Context::get_mut`](crate::Context::get_mut): `cx.get_mut(id).map(FileWriter::sync)`. Requests during
    /// a sync are served by one more sync.
    pub fn sync(&mut self) {
        self.wants_sync = true;
    }

    /// Returns the file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Returns how many bytes are in the file.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Returns how many bytes are queued or in flight.
    pub fn unwritten(&self) -> usize {
        self.unwritten
    }
}

/// An event of a [`FileWriter`].
///
/// [`FileWriter`] has an example.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriterEvent {
    /// The queue was above its high mark, and is now below its low mark.
    Drained,
    /// This many bytes of this writer, counted from its first, are written and synced. Answers
    /// [`FileWriter::sync`].
    Synced(u64),
}

/// An operation in flight for a writer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WriteInFlight {
    Write,
    Sync,
}

/// A writer with the runtime's state for it. Its `unwritten` counts queued bytes and those in flight.
struct Writing {
    writer: FileWriter,
    queue: Option<Box<Outgoing>>,
    /// How many bytes are in flight.
    in_flight: usize,
    out: Option<WriteInFlight>,
    is_paused: bool,
    is_high: bool,
    is_synced: bool,
    /// The next sync covers the bytes up to here, and goes before bytes that were sent later.
    sync_at: Option<u64>,
    closing: Option<Closed>,
    counted: usize,
}

impl Writing {
    /// Returns the memory that the budget counts.
    fn holds(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.memory()) + self.in_flight
    }
}

fn find(core: &mut LoopState, key: Key) -> Option<&mut Writing> {
    core.registry.get_mut(key)?.resource.as_mut()?.downcast_mut()
}

impl Resource for FileWriter {
    type Event<'a> = WriterEvent;
    type Driver = Served;
}

impl Driver<FileWriter> for Served {
    fn table<S: Handle<FileWriter>>() -> &'static Vtable {
        &Vtable {
            name: std::any::type_name::<FileWriter>,
            flush: flush::<S>,
            close,
            release,
            pause: |core, key, paused| {
                if let Some(writing) = find(core, key) {
                    writing.is_paused = paused;
                    core.mark(key);
                }
            },
            expired: |core, key| core.end(key, Closed::TimedOut(Phase::Close), Ending::Orderly),
            noted: |core, key, _| Closed::take_noted(&mut find(core, key)?.closing),
            // The service waits for a file here, and no peer is involved. So this counts, but is never
            // evicted.
            holding: |core, key| Holding {
                bytes: find(core, key).map_or(0, |writing| writing.counted),
                moved: None,
            },
            leave,
            closed: closed::<S>,
            ..Vtable::NOTHING
        }
    }

    fn view(slot: &dyn Any) -> Option<&FileWriter> {
        slot.downcast_ref::<Writing>().map(|writing| &writing.writer)
    }

    fn view_mut(slot: &mut dyn Any) -> Option<&mut FileWriter> {
        slot.downcast_mut::<Writing>().map(|writing| &mut writing.writer)
    }

    fn enroll(
        writer: FileWriter,
        core: &mut LoopState,
        service: u16,
        table: &'static Vtable,
    ) -> Result<Key, (FileWriter, Error)> {
        if core.files.is_over() {
            return Err((writer, Error::Misuse { operation: "add", why: super::OVER }));
        }
        let writing = Writing {
            writer: FileWriter { unwritten: 0, ..writer },
            queue: None,
            in_flight: 0,
            out: None,
            is_paused: false,
            is_high: false,
            is_synced: false,
            sync_at: None,
            closing: None,
            counted: 0,
        };
        core.registry.insert(service, table, Box::new(writing)).map_err(|back| {
            let writing = back.downcast::<Writing>().expect("the registry gives back what it was given");
            (writing.writer, core.full_of_resources())
        })
    }
}

impl Output for FileWriter {
    type Item<'a> = &'a [u8];
}

impl OutputDriver<FileWriter> for Served {
    fn post(core: &mut LoopState, index: u16, key: Key, item: &[u8]) -> Flow {
        let LoopState { registry, pool, budget, .. } = core;
        let slot = registry.get_mut(key).filter(|slot| slot.service == index);
        let writing = slot.and_then(|slot| slot.resource.as_mut()?.downcast_mut::<Writing>());
        let Some(writing) = writing.filter(|writing| writing.closing.is_none()) else { return Flow::Gone };
        if item.is_empty() {
            return if writing.is_high { Flow::High } else { Flow::Queued };
        }
        writing.queue.get_or_insert_with(|| pool.take_outgoing()).put(item);
        writing.writer.unwritten += item.len();
        let (unwritten, cap) = (writing.writer.unwritten, writing.writer.cap);
        let holds = writing.holds();
        let fits = budget.recount(&mut writing.counted, holds);
        writing.is_high |= unwritten > HIGH;
        let is_high = writing.is_high;
        let within = fits || core.make_room();
        core.mark(key);
        if unwritten > cap || !within {
            let why = if within { Closed::Overflow } else { Closed::OverBudget };
            core.end(key, why, Ending::Orderly);
            return Flow::Gone;
        }
        if is_high { Flow::High } else { Flow::Queued }
    }
}

/// Submits the next write, unless an operation is in flight. When all is written, submits a final sync or
/// ends the writer.
fn flush<S: Handle<FileWriter>>(core: &mut LoopState, key: Key) {
    let LoopState { registry, pool, files, budget, .. } = core;
    let chunk = files.fitting(CHUNK).max(1);
    let Some(slot) = registry.get_mut(key) else { return };
    let index = slot.service;
    let writing = slot.resource.as_mut().and_then(|resource| resource.downcast_mut::<Writing>());
    let Some(writing) = writing.filter(|writing| writing.out.is_none()) else { return };
    let (file, written) = (writing.writer.file.clone(), writing.writer.written);
    if writing.sync_at.is_none() && mem::take(&mut writing.writer.wants_sync) {
        writing.sync_at = Some(written + writing.writer.unwritten as u64);
    }
    let until_sync = writing.sync_at.map_or(u64::MAX, |at| at - written);
    let rests = writing.is_paused && writing.closing.is_none();
    let action = if until_sync == 0 {
        Action::Sync { file }
    } else if let Some(mut queue) = writing.queue.take() {
        if rests {
            writing.queue = Some(queue);
            return;
        }
        let most = chunk.min(usize::try_from(until_sync).unwrap_or(usize::MAX));
        let bytes = take(&mut queue, most);
        if queue.is_empty() {
            pool.give_outgoing(queue);
        } else {
            writing.queue = Some(queue);
        }
        writing.in_flight = bytes.len();
        let holds = writing.holds();
        budget.recount(&mut writing.counted, holds);
        match writing.writer.at {
            Some(offset) => Action::Write { file, offset, bytes },
            None => Action::Append { file, bytes },
        }
    } else if writing.closing.is_none() {
        return;
    } else if writing.writer.synced && !writing.is_synced {
        Action::Sync { file }
    } else {
        let why = writing.closing.take().unwrap_or(Closed::Done);
        return core.end(key, why, Ending::Orderly);
    };
    writing.out =
        Some(if matches!(action, Action::Sync { .. }) { WriteInFlight::Sync } else { WriteInFlight::Write });
    if let Err(action) = core.ask_file::<FileWriter>((index, key), action, landed::<S>) {
        put_back(core, key, action);
    }
}

/// Puts the bytes of an action that found no room back in front of the queue.
fn put_back(core: &mut LoopState, key: Key, action: Action) {
    let LoopState { registry, pool, .. } = core;
    let writing = registry.get_mut(key).and_then(|slot| slot.resource.as_mut()?.downcast_mut::<Writing>());
    let Some(writing) = writing else { return };
    (writing.out, writing.in_flight) = (None, 0);
    let (Action::Write { bytes, .. } | Action::Append { bytes, .. }) = action else { return };
    let mut queue = pool.take_outgoing();
    queue.put(&bytes);
    if let Some(mut rest) = writing.queue.take() {
        queue.append(&mut rest);
        pool.give_outgoing(rest);
    }
    writing.queue = Some(queue);
}

/// Takes the front of a queue, as much as fits in one write.
fn take(queue: &mut Outgoing, most: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(queue.len().min(most));
    while bytes.len() < most && !queue.is_empty() {
        let front = queue.front();
        let count = front.len().min(most - bytes.len());
        bytes.extend_from_slice(&front[..count]);
        queue.advance(count);
    }
    bytes
}

/// Takes the result of a write or a sync.
fn landed<S: Handle<FileWriter>>(
    queue: &mut dyn Any,
    to: Option<(&mut LoopState, &mut dyn Any)>,
    index: u16,
) {
    let Some(Landed::<FileWriter> { key, result, .. }) = super::next_landed(queue) else { return };
    let Some((core, erased)) = to else { return };
    let LoopState { registry, budget, counters, .. } = core;
    let writing = registry.get_mut(key).and_then(|slot| slot.resource.as_mut()?.downcast_mut::<Writing>());
    let Some(writing) = writing else { return };
    let is_sync = writing.out.take() == Some(WriteInFlight::Sync);
    let count = mem::take(&mut writing.in_flight);
    match result {
        Ok(Answer::Done) => (),
        Ok(_) => {
            let why = Closed::Misuse("the engine gave another kind of answer");
            return core.end(key, why, Ending::Orderly);
        }
        Err(error) => return core.end(key, Closed::Failed(error), Ending::Orderly),
    }
    let synced = writing.sync_at.take_if(|_| is_sync);
    writing.is_synced = is_sync;
    writing.writer.written += count as u64;
    writing.writer.unwritten -= count;
    writing.writer.at = writing.writer.at.map(|at| at + count as u64);
    counters.bytes_out += count as u64;
    let (unwritten, holds) = (writing.writer.unwritten, writing.holds());
    budget.recount(&mut writing.counted, holds);
    let is_drained = writing.is_high && unwritten <= LOW;
    writing.is_high &= !is_drained;
    let is_told = writing.closing.is_none();
    core.mark(key);
    if !is_told {
        // Restart the deadline, because it bounds only a lack of progress.
        core.set_internal_deadline(key, Some(CLOSE_MAX));
    }
    let to = service(erased);
    if is_drained && is_told && !emit::<S, FileWriter>(core, to, key, index, WriterEvent::Drained) {
        return;
    }
    if let Some(synced) = synced.filter(|_| is_told) {
        emit::<S, FileWriter>(core, to, key, index, WriterEvent::Synced(synced));
    }
}

fn close(core: &mut LoopState, key: Key, why: Closed) {
    let Some(writing) = find(core, key) else { return };
    if writing.closing.is_some() {
        return Closed::note_failure(&mut writing.closing, why);
    }
    writing.closing = Some(why);
    core.set_internal_deadline(key, Some(CLOSE_MAX));
    core.mark(key);
}

/// Returns the writer once all sent bytes are written.
fn release(core: &mut LoopState, key: Key) -> Result<(), Error> {
    let closing = find(core, key).and_then(|writing| writing.closing.as_ref());
    if closing.is_some_and(|why| !matches!(why, Closed::Released)) {
        return Err(release_refused(CLOSING));
    }
    close(core, key, Closed::Released);
    Ok(())
}

fn leave(core: &mut LoopState, key: Key, _: Ending) {
    let LoopState { registry, budget, pool, records, .. } = core;
    let Some(slot) = registry.get_mut(key) else { return };
    let record = records.get_mut(slot.service as usize);
    let writing = slot.resource.as_mut().and_then(|resource| resource.downcast_mut::<Writing>());
    let Some(writing) = writing else { return };
    if let Some(record) = record {
        record.bytes_dropped += writing.writer.unwritten as u64;
    }
    budget.recount(&mut writing.counted, 0);
    if let Some(queue) = writing.queue.take() {
        pool.give_outgoing(queue);
    }
}

fn closed<S: Handle<FileWriter>>(
    core: &mut LoopState,
    erased: &mut dyn Any,
    key: Key,
    resource: Box<dyn Any>,
    why: Closed,
) {
    let writing =
        resource.downcast::<Writing>().expect("a table is only used with the resource it was made for");
    let index = core.calling;
    service::<S>(erased).closed(&mut Context::new(core, index), Id::new(key), writing.writer, why);
}

/// The most bytes of one write.
const CHUNK: usize = 256 << 10;
/// Above this, the service should pause.
const HIGH: usize = 256 << 10;
/// At this, the service may go on.
const LOW: usize = 64 << 10;
/// Above this, the writer ends.
const CAP: usize = 4 << 20;
/// How long a graceful close may go without progress.
const CLOSE_MAX: Duration = Duration::from_secs(30);
