//! Reads a file as a stream of chunks, with bounded read-ahead.

use std::{any::Any, collections::VecDeque, mem, ops::Range};

use super::{Action, Answer, File, in_flight::Landed};
use crate::{
    engine::Ending,
    error::{Closed, Error},
    id::{Id, Key},
    resource::{Driver, Resource, Served, Vtable},
    runtime::{
        Context, Handle, LoopState,
        dispatch::{emit, service},
        pressure::Holding,
    },
};

/// A reader for a file or a part of it, chunk by chunk: a resource like a stream, which can be paused.
///
/// While the service handles one chunk, the next ones are read one after the other, at most
/// [`ahead`](FileReader::ahead) of them. Its life is `Chunk*, End`, then `closed` with [`Closed::Done`]. If
/// the file cannot be read ([`Closed::Failed`]) or ends before its range ([`Closed::Truncated`]), `closed`
/// follows without an `End`, after all chunks that were read.
///
/// ```
/// use reactor::{Closed, Context, Handle, Id, Receive, Result, Service, file};
/// use reactor::file::{FileEvent, FileReader, OpenOptions, Opened, Operation};
///
/// /// Counts the lines of its own source.
/// #[derive(Default)]
/// struct Count(usize);
/// struct Open(Result<Opened, reactor::Error>);
///
/// impl Service for Count {
///     fn start(&mut self, cx: &mut Context<Self>) -> Result {
///         let path = std::env::current_exe()?;
///         cx.file(Operation::open(path, OpenOptions::read()), Open)?;
///         Ok(())
///     }
/// }
///
/// impl Receive<Open> for Count {
///     fn receive(&mut self, cx: &mut Context<Self>, Open(opened): Open) -> Result {
///         cx.add(FileReader::new(opened?.file))?;
///         Ok(())
///     }
/// }
///
/// impl Handle<FileReader> for Count {
///     fn handle(&mut self, _: &mut Context<Self>, _: Id<FileReader>, event: FileEvent<'_>) -> Result {
///         if let FileEvent::Chunk(bytes) = event {
///             self.0 += bytes.iter().filter(|byte| **byte == b'\n').count();
///         }
///         Ok(())
///     }
///
///     fn closed(&mut self, _: &mut Context<Self>, _: Id<FileReader>, _: FileReader, why: Closed) {
///         assert!(why.is_clean() && self.0 > 0);
///     }
/// }
///
/// reactor::run(Count::default())?;
/// # Ok::<(), reactor::Error>(())
/// ```
#[derive(Debug)]
pub struct FileReader {
    file: File,
    at: u64,
    end: Option<u64>,
    chunk: usize,
    ahead: usize,
}

impl FileReader {
    /// Makes a reader for the whole file, up to its end at the time of reading: 64 KiB at a time, two chunks
    /// ahead.
    pub fn new(file: File) -> FileReader {
        FileReader { file, at: 0, end: None, chunk: 64 << 10, ahead: 2 }
    }

    /// Limits reading to this range. It is an error if the file ends before. A range that ends before it begins
    /// is refused when the reader is added.
    #[must_use]
    pub fn range(mut self, range: Range<u64>) -> FileReader {
        (self.at, self.end) = (range.start, Some(range.end));
        self
    }

    /// Sets how many bytes to read at a time, at least 1.
    #[must_use]
    pub fn chunk(mut self, bytes: usize) -> FileReader {
        self.chunk = bytes.max(1);
        self
    }

    /// Sets how many chunks to keep that the service has not seen, at least 1.
    #[must_use]
    pub fn ahead(mut self, chunks: usize) -> FileReader {
        self.ahead = chunks.max(1);
        self
    }

    /// Returns the file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Returns the position up to which the file was read, including chunks that the service has not seen.
    pub fn position(&self) -> u64 {
        self.at
    }
}

/// An event of a [`FileReader`].
///
/// [`FileReader`] has an example.
#[derive(Debug)]
pub enum FileEvent<'a> {
    /// The next bytes, at least one.
    Chunk(&'a [u8]),
    /// The end of the file, or of its range. Comes once, as the last event.
    End,
}

/// A reader with the runtime's state for it.
struct Reading {
    reader: FileReader,
    /// Chunks that the service has not seen.
    ready: VecDeque<Vec<u8>>,
    /// A used buffer, to be used again.
    spare: Vec<u8>,
    is_out: bool,
    is_paused: bool,
    /// The reason why the input ended. Reported after all ready chunks.
    end: Option<Closed>,
    counted: usize,
}

impl Reading {
    /// Returns the memory that the budget counts.
    fn holds(&self) -> usize {
        self.ready.iter().map(Vec::capacity).sum::<usize>() + self.spare.capacity()
    }

    /// Returns how many bytes were read that the service has not seen.
    fn unseen(&self) -> u64 {
        self.ready.iter().map(|chunk| chunk.len() as u64).sum()
    }
}

fn find(core: &mut LoopState, key: Key) -> Option<&mut Reading> {
    core.registry.get_mut(key)?.resource.as_mut()?.downcast_mut()
}

impl Resource for FileReader {
    type Event<'a> = FileEvent<'a>;
    type Driver = Served;
}

impl Driver<FileReader> for Served {
    fn table<S: Handle<FileReader>>() -> &'static Vtable {
        &Vtable {
            name: std::any::type_name::<FileReader>,
            again: again::<S>,
            flush: flush::<S>,
            close: |core, key, why| core.end(key, why, Ending::Orderly),
            release,
            pause,
            // The service may not have seen yet that the file cannot be read.
            noted: |core, key, end| match end.is_cut() {
                true => Closed::take_noted(&mut find(core, key)?.end),
                false => None,
            },
            // The service waits for a file here, and no peer is involved. So this counts, but is never
            // evicted.
            holding: |core, key| Holding {
                bytes: find(core, key).map_or(0, |reading| reading.counted),
                moved: None,
            },
            leave,
            closed: closed::<S>,
            ..Vtable::NOTHING
        }
    }

    fn view(slot: &dyn Any) -> Option<&FileReader> {
        slot.downcast_ref::<Reading>().map(|reading| &reading.reader)
    }

    fn view_mut(slot: &mut dyn Any) -> Option<&mut FileReader> {
        slot.downcast_mut::<Reading>().map(|reading| &mut reading.reader)
    }

    fn enroll(
        reader: FileReader,
        core: &mut LoopState,
        service: u16,
        table: &'static Vtable,
    ) -> Result<Key, (FileReader, Error)> {
        if reader.end.is_some_and(|end| end < reader.at) {
            return Err((reader, Error::Misuse { operation: "add", why: super::BACKWARDS }));
        }
        if core.files.is_over() {
            return Err((reader, Error::Misuse { operation: "add", why: super::OVER }));
        }
        let reading = Reading {
            reader,
            ready: VecDeque::new(),
            spare: Vec::new(),
            is_out: false,
            is_paused: false,
            end: None,
            counted: 0,
        };
        match core.registry.insert(service, table, Box::new(reading)) {
            Ok(key) => {
                core.mark(key);
                Ok(key)
            }
            Err(back) => {
                let reading = back.downcast::<Reading>().expect("the registry gives back what it was given");
                Err((reading.reader, core.full_of_resources()))
            }
        }
    }
}

/// Submits a read of the next chunk, unless one is in flight, enough are ready, or the input has ended.
fn flush<S: Handle<FileReader>>(core: &mut LoopState, key: Key) {
    let Some(reading) = find(core, key) else { return };
    if reading.is_out || reading.end.is_some() || reading.ready.len() >= reading.reader.ahead {
        return;
    }
    let reader = &reading.reader;
    let left = reader.end.map_or(u64::MAX, |end| end.saturating_sub(reader.at));
    let bytes_max = reader.chunk.min(usize::try_from(left).unwrap_or(usize::MAX));
    if bytes_max == 0 {
        reading.end = Some(Closed::Done);
        return core.drive_again(key);
    }
    let (file, offset) = (reader.file.clone(), reader.at);
    let buffer = mem::take(&mut reading.spare);
    reading.is_out = true;
    let Some(index) = core.registry.get(key).map(|slot| slot.service) else { return };
    let action = Action::Read { file, offset, bytes_max, buffer };
    if let Err(Action::Read { buffer, .. }) = core.ask_file::<FileReader>((index, key), action, landed::<S>)
        && let Some(reading) = find(core, key)
    {
        (reading.is_out, reading.spare) = (false, buffer);
    }
}

/// Takes the result of a read.
fn landed<S: Handle<FileReader>>(queue: &mut dyn Any, to: Option<(&mut LoopState, &mut dyn Any)>, _: u16) {
    let Some(Landed::<FileReader> { key, result, .. }) = super::next_landed(queue) else { return };
    let Some((core, erased)) = to else { return };
    let Some(reading) = find(core, key) else { return };
    reading.is_out = false;
    match result {
        Ok(Answer::Bytes(bytes)) if bytes.is_empty() => {
            reading.spare = bytes;
            let whole = reading.reader.end.is_none_or(|end| reading.reader.at >= end);
            reading.end = Some(if whole { Closed::Done } else { Closed::Truncated(SHORT.into()) });
        }
        Ok(Answer::Bytes(bytes)) => {
            let len = bytes.len() as u64;
            reading.reader.at += len;
            reading.ready.push_back(bytes);
            core.counters.bytes_in += len;
        }
        Ok(_) => reading.end = Some(Closed::Misuse("the engine gave another kind of answer")),
        Err(error) => reading.end = Some(Closed::Failed(error)),
    }
    again::<S>(core, erased, key);
}

/// Delivers the ready chunks, then the end.
fn again<S: Handle<FileReader>>(core: &mut LoopState, erased: &mut dyn Any, key: Key) {
    let Some(index) = core.registry.get(key).map(|slot| slot.service) else { return };
    loop {
        let Some(reading) = find(core, key) else { return };
        if reading.is_paused {
            break;
        }
        let Some(chunk) = reading.ready.pop_front() else { break };
        let goes_on = emit::<S, FileReader>(core, service(erased), key, index, FileEvent::Chunk(&chunk));
        if let Some(reading) = find(core, key) {
            reading.spare = chunk;
        }
        if !goes_on {
            return;
        }
    }
    let LoopState { registry, budget, .. } = core;
    let Some(reading) =
        registry.get_mut(key).and_then(|slot| slot.resource.as_mut()?.downcast_mut::<Reading>())
    else {
        return;
    };
    let holds = reading.holds();
    budget.recount(&mut reading.counted, holds);
    if reading.is_paused || !reading.ready.is_empty() {
        return core.mark(key);
    }
    match reading.end.take() {
        None => core.mark(key),
        Some(Closed::Done) => {
            if emit::<S, FileReader>(core, service(erased), key, index, FileEvent::End) {
                core.end(key, Closed::Done, Ending::Orderly);
            }
        }
        Some(why) => core.end(key, why, Ending::Orderly),
    }
}

/// Returns the reader at the position that the service has seen. Chunks that were read ahead will be read
/// again.
fn release(core: &mut LoopState, key: Key) -> Result<(), Error> {
    if let Some(reading) = find(core, key) {
        reading.reader.at -= reading.unseen();
        core.end(key, Closed::Released, Ending::Orderly);
    }
    Ok(())
}

fn pause(core: &mut LoopState, key: Key, paused: bool) {
    let Some(reading) = find(core, key) else { return };
    reading.is_paused = paused;
    if !paused {
        core.drive_again(key);
    }
}

fn leave(core: &mut LoopState, key: Key, _: Ending) {
    let LoopState { registry, budget, .. } = core;
    let reading = registry.get_mut(key).and_then(|slot| slot.resource.as_mut()?.downcast_mut::<Reading>());
    if let Some(reading) = reading {
        budget.recount(&mut reading.counted, 0);
    }
}

fn closed<S: Handle<FileReader>>(
    core: &mut LoopState,
    erased: &mut dyn Any,
    key: Key,
    resource: Box<dyn Any>,
    why: Closed,
) {
    let reading =
        resource.downcast::<Reading>().expect("a table is only used with the resource it was made for");
    let index = core.calling;
    service::<S>(erased).closed(&mut Context::new(core, index), Id::new(key), reading.reader, why);
}

const SHORT: &str = "the file ended before its range";
