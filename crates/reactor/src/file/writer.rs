//! Writing a file as a stream of bytes, with bounded write-behind.

use std::{any::Any, io, mem, time::Duration};

use super::{Action, Answer, File, pool::Landed};
use crate::{
    context::Context,
    core::Core,
    engine::{Ending, Interest, Outgoing, Ready, Source},
    error::{Closed, Error, Phase, Result},
    id::{Id, Key},
    resource::{CLOSING, Flow, Io, Output, Resource, Table, emit, release_refused, service, unwatched},
    runtime::pressure::Holding,
    service::Handle,
};

/// A file that is written from one place on: what is sent to it is queued, and written beside the loop.
///
/// As with streams, `send` never blocks and has no error; it answers [`Flow::High`] while more than 256 KiB wait, then
/// [`WriterEvent::Drained`] comes at 64 KiB, and above the [cap](FileWriter::cap), 4 MiB by default, the writer ends with
/// [`Closed::Overflow`]. A log that has to know what is safe asks for a [`sync`](FileWriter::sync) now and then. A graceful
/// [`close`](crate::Context::close) writes what is queued, syncs the file if [`synced`](FileWriter::synced) says so, and
/// ends with [`Closed::Done`]: then all of it is in the file. A disk that does not take it ends it with
/// [`Closed::Failed`], and [`unwritten`](FileWriter::unwritten) says how much is not known to be there.
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
#[derive(Debug)]
pub struct FileWriter {
    file: File,
    /// The next place, or the file's end, wherever that is.
    at: Option<u64>,
    synced: bool,
    cap: usize,
    /// A sync was asked for, and is not under way.
    wants_sync: bool,
    written: u64,
    unwritten: usize,
}

impl FileWriter {
    /// Writes from the file's beginning on.
    pub fn new(file: File) -> FileWriter {
        FileWriter { file, at: Some(0), synced: false, cap: CAP, wants_sync: false, written: 0, unwritten: 0 }
    }

    /// Writes from this place on.
    pub fn at(mut self, offset: u64) -> FileWriter {
        self.at = Some(offset);
        self
    }

    /// Writes at the file's end; it was opened with [`OpenOptions::append`](super::OpenOptions::append).
    pub fn append(mut self) -> FileWriter {
        self.at = None;
        self
    }

    /// Syncs the file before a graceful close is over.
    pub fn synced(mut self, synced: bool) -> FileWriter {
        self.synced = synced;
        self
    }

    /// Sets how many bytes may be queued or on their way, 4 MiB by default; more ends the writer with
    /// [`Closed::Overflow`].
    pub fn cap(mut self, bytes: usize) -> FileWriter {
        self.cap = bytes;
        self
    }

    /// Syncs what was sent so far, once it is written: [`WriterEvent::Synced`] says up to where all is safe from a power
    /// cut. Asked of a writer that is registered, by [`Context::get_mut`](crate::Context::get_mut):
    /// `cx.get_mut(id).map(FileWriter::sync)`. What is asked for while a sync is under way is answered by one more.
    pub fn sync(&mut self) {
        self.wants_sync = true;
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// How many bytes are in the file.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// How many bytes are queued, or on their way.
    pub fn unwritten(&self) -> usize {
        self.unwritten
    }
}

/// What happens to a [`FileWriter`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriterEvent {
    /// The queue was above its high mark, and is below its low mark again.
    Drained,
    /// So many bytes of this writer, from its first, are written and synced: the answer to [`FileWriter::sync`].
    Synced(u64),
}

/// A writer with what the runtime knows of it. Its `unwritten` is what waits and what is out together.
struct Writing {
    writer: FileWriter,
    queue: Option<Box<Outgoing>>,
    /// So many bytes are out; a sync has none.
    flying: usize,
    is_out: bool,
    is_paused: bool,
    is_high: bool,
    is_synced: bool,
    /// What is written up to here is what the next sync is for; it goes before what was sent later.
    sync_at: Option<u64>,
    closing: Option<Closed>,
    counted: usize,
}

impl Writing {
    /// The memory that the budget counts.
    fn holds(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.memory()) + self.flying
    }
}

fn find(core: &mut Core, key: Key) -> Option<&mut Writing> {
    core.registry.live(key)?.resource.as_mut()?.downcast_mut()
}

impl Resource for FileWriter {
    type Event<'a> = WriterEvent;

    fn source(&self) -> Source<'_> {
        unwatched::source()
    }

    fn interest(&self) -> Option<Interest> {
        None
    }

    fn step(&mut self, _: Ready, _: &mut Io<'_>, _: &mut [u8]) -> io::Result<Option<WriterEvent>> {
        Ok(None)
    }

    fn table<S: Handle<Self>>() -> &'static Table {
        &Table {
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
            // It is the service that waits for a file, and no peer: it is counted, and never goes.
            holding: |core, key| Holding {
                bytes: find(core, key).map_or(0, |writing| writing.counted),
                moved: None,
            },
            leave,
            closed: closed::<S>,
            ..unwatched::TABLE
        }
    }

    fn view(slot: &dyn Any) -> Option<&Self> {
        slot.downcast_ref::<Writing>().map(|writing| &writing.writer)
    }

    fn view_mut(slot: &mut dyn Any) -> Option<&mut Self> {
        slot.downcast_mut::<Writing>().map(|writing| &mut writing.writer)
    }

    fn enroll(self, core: &mut Core, service: u16, table: &'static Table) -> Result<Key, (Self, Error)> {
        let writing = Writing {
            writer: FileWriter { unwritten: 0, ..self },
            queue: None,
            flying: 0,
            is_out: false,
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

    fn encode(&mut self, item: &[u8], out: &mut Outgoing) -> Result {
        out.put(item);
        Ok(())
    }

    fn post(core: &mut Core, index: u16, key: Key, item: &[u8]) -> Flow {
        let Core { registry, pool, budget, .. } = core;
        let slot = registry.live(key).filter(|slot| slot.service == index);
        let writing = slot.and_then(|slot| slot.resource.as_mut()?.downcast_mut::<Writing>());
        let Some(writing) = writing.filter(|writing| writing.closing.is_none()) else { return Flow::Gone };
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

/// Asks for the next write, unless one is out; at the end for a sync, then for nothing more.
fn flush<S: Handle<FileWriter>>(core: &mut Core, key: Key) {
    let Core { registry, pool, files, budget, .. } = core;
    let chunk = files.fitting(CHUNK).max(1);
    let Some(slot) = registry.live(key) else { return };
    let index = slot.service;
    let writing = slot.resource.as_mut().and_then(|resource| resource.downcast_mut::<Writing>());
    let Some(writing) = writing.filter(|writing| !writing.is_out) else { return };
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
        writing.flying = bytes.len();
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
    writing.is_out = true;
    if let Err(action) = core.ask_file::<FileWriter>((index, key), action, landed::<S>) {
        put_back(core, key, action);
    }
}

/// There was no room for an action: what it was to write goes in front of what is queued.
fn put_back(core: &mut Core, key: Key, action: Action) {
    let Core { registry, pool, .. } = core;
    let writing = registry.live(key).and_then(|slot| slot.resource.as_mut()?.downcast_mut::<Writing>());
    let Some(writing) = writing else { return };
    (writing.is_out, writing.flying) = (false, 0);
    let (Action::Write { bytes, .. } | Action::Append { bytes, .. }) = action else { return };
    let mut queue = pool.take_outgoing();
    queue.put(&bytes);
    if let Some(mut rest) = writing.queue.take() {
        queue.append(&mut rest);
        pool.give_outgoing(rest);
    }
    writing.queue = Some(queue);
}

/// The front of a queue, as much as one write takes.
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

/// A write or a sync is over.
fn landed<S: Handle<FileWriter>>(queue: &mut dyn Any, to: Option<(&mut Core, &mut dyn Any)>, index: u16) {
    let Some(Landed::<FileWriter> { key, result, .. }) = unwatched::next_landed(queue) else { return };
    let Some((core, erased)) = to else { return };
    let Core { registry, budget, counters, .. } = core;
    let writing = registry.live(key).and_then(|slot| slot.resource.as_mut()?.downcast_mut::<Writing>());
    let Some(writing) = writing else { return };
    writing.is_out = false;
    let count = mem::take(&mut writing.flying);
    match result {
        Ok(Answer::Done) => (),
        Ok(_) => {
            let why = Closed::Misuse("the engine gave another kind of answer");
            return core.end(key, why, Ending::Orderly);
        }
        Err(error) => return core.end(key, Closed::Failed(error), Ending::Orderly),
    }
    // What is out without bytes is a sync.
    let synced = writing.sync_at.take_if(|_| count == 0);
    writing.is_synced = count == 0;
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
        // Only standing still is bounded by time.
        core.set_guard(key, Some(CLOSE_MAX));
    }
    let to = service(erased);
    if is_drained && is_told && !emit::<S, FileWriter>(core, to, key, index, WriterEvent::Drained) {
        return;
    }
    if let Some(synced) = synced.filter(|_| is_told) {
        emit::<S, FileWriter>(core, to, key, index, WriterEvent::Synced(synced));
    }
}

fn close(core: &mut Core, key: Key, why: Closed) {
    let Some(writing) = find(core, key).filter(|writing| writing.closing.is_none()) else { return };
    writing.closing = Some(why);
    core.set_guard(key, Some(CLOSE_MAX));
    core.mark(key);
}

/// Gives the writer back when what was sent to it is written.
fn release(core: &mut Core, key: Key) -> Result<(), Error> {
    let closing = find(core, key).and_then(|writing| writing.closing.as_ref());
    if closing.is_some_and(|why| !matches!(why, Closed::Released)) {
        return Err(release_refused(CLOSING));
    }
    close(core, key, Closed::Released);
    Ok(())
}

fn leave(core: &mut Core, key: Key, _: Ending) {
    let Core { registry, budget, pool, records, .. } = core;
    let Some(slot) = registry.live(key) else { return };
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
    core: &mut Core,
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

/// What is written at once.
const CHUNK: usize = 256 << 10;
/// Above this the service is told to hold back.
const HIGH: usize = 256 << 10;
/// At this it is told to go on.
const LOW: usize = 64 << 10;
/// Above this the writer ends.
const CAP: usize = 4 << 20;
/// How long a graceful close may write and sync.
const CLOSE_MAX: Duration = Duration::from_secs(30);
