//! Moves a part of a file to a stream, no faster than the stream's peer takes it.

use std::{any::Any, convert::Infallible, io, mem, ops::Range, time::Duration};

use super::{
    Action, Answer, File,
    in_flight::Landed,
    sendfile::{self, DirectSink, Moved, Next, Part},
};
use crate::{
    engine::Ending,
    error::{Closed, Error, Phase},
    id::{Id, Key},
    resource::{AnyStream, Driver, Flow, Resource, SendPath, Served, Vtable},
    runtime::{Context, Handle, LoopState, dispatch::service},
};

/// A part of a file on its way to a stream. [`Context::send_file`](crate::Context::send_file) makes it and
/// describes its fate. It has no events, so its handler is `match event {}`.
///
/// It holds at most one chunk of 64 KiB, and only while the stream's queue is below its low mark. If the
/// stream has no layer and the system has sendfile(2), most bytes are never copied into this process.
///
/// ```no_run
/// use reactor::{Bytes, Closed, Context, Event, Handle, Id, Receive, Result, Service, Stream};
/// use reactor::file::{FileTransfer, OpenOptions, Opened, Operation};
/// use std::convert::Infallible;
///
/// /// Sends the system's message of the day to each client.
/// struct Motd;
/// struct Open(Id<Stream>, Result<Opened, reactor::Error>);
///
/// impl Service for Motd {
///     fn start(&mut self, cx: &mut Context<Self>) -> Result {
///         cx.listen("127.0.0.1:7017", |_| Some(Stream::new(Bytes)))?;
///         Ok(())
///     }
/// }
///
/// impl Handle<Stream> for Motd {
///     fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
///         if let Event::Open = event {
///             cx.file(Operation::open("/etc/motd", OpenOptions::read()), move |opened| Open(id, opened))?;
///         }
///         Ok(())
///     }
/// }
///
/// impl Receive<Open> for Motd {
///     fn receive(&mut self, cx: &mut Context<Self>, Open(id, opened): Open) -> Result {
///         let Opened { file, metadata, .. } = opened?;
///         cx.send_file(id, file, 0..metadata.len)?;
///         Ok(())
///     }
/// }
///
/// impl Handle<FileTransfer> for Motd {
///     fn handle(&mut self, _: &mut Context<Self>, _: Id<FileTransfer>, event: Infallible) -> Result {
///         match event {}
///     }
///
///     fn closed(&mut self, _: &mut Context<Self>, _: Id<FileTransfer>, of: FileTransfer, why: Closed) {
///         println!("{} bytes of {:?}: {why}", of.sent(), of.file());
///     }
/// }
///
/// reactor::run(Motd)?;
/// # Ok::<(), reactor::Error>(())
/// ```
#[derive(Debug)]
pub struct FileTransfer {
    file: File,
    at: u64,
    end: u64,
    sent: u64,
}

impl FileTransfer {
    fn new(file: File, range: Range<u64>) -> FileTransfer {
        FileTransfer { file, at: range.start, end: range.end, sent: 0 }
    }

    /// Returns the file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Returns how many bytes were passed to the stream.
    ///
    /// In [`closed`](crate::Handle::closed) the number is exact, however the transfer ended. Only if the
    /// runtime stopped or a disk hung while a part was moved, a few more bytes may have been sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Returns the part of the file that was not passed to the stream.
    /// [`send_file`](crate::Context::send_file) needs it to go on, for example after the stream was released
    /// and added again.
    pub fn rest(&self) -> Range<u64> {
        self.at..self.end.max(self.at)
    }

    /// Returns how many bytes of the range were not passed to the stream.
    pub fn left(&self) -> u64 {
        self.end.saturating_sub(self.at)
    }
}

/// The functions of a transfer's stream, for any stream type.
struct To {
    key: Key,
    feed: fn(&mut LoopState, u16, Key, Vec<u8>) -> Flow,
    path: fn(&mut LoopState, Key) -> SendPath,
    await_low: fn(&mut LoopState, Key),
    await_room: fn(&mut LoopState, Key) -> bool,
    end: fn(&mut LoopState, Key, bool),
    fail: fn(&mut LoopState, Key, io::Error),
    /// How long a part that is being moved may delay the stream's release, or the transfer's end.
    patience: Duration,
}

/// An operation in flight for a transfer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TransferInFlight {
    /// A read of a chunk. If the transfer ends meanwhile, the answer is dropped.
    Chunk,
    /// A thread writes to the stream's socket. Nothing else may write until it has answered.
    Part {
        /// The stream's input has ended, and the stream reports that when the part has been moved.
        holds_end: bool,
    },
}

/// A transfer with the runtime's state for it.
struct Moving {
    transfer: FileTransfer,
    to: To,
    out: Option<TransferInFlight>,
    is_paused: bool,
    /// The stream's queue is above its low mark. The stream marks this resource when it no longer is.
    is_full: bool,
    /// It has already waited once for the queue to be sent.
    has_waited: bool,
    /// The stream's socket, once it was requested.
    direct_sink: Option<Option<DirectSink>>,
    /// The reason for which it ends, as soon as the current part has been moved.
    ending: Option<Closed>,
}

impl Moving {
    fn moves_part(&self) -> bool {
        matches!(self.out, Some(TransferInFlight::Part { .. }))
    }
}

fn find(core: &mut LoopState, key: Key) -> Option<&mut Moving> {
    core.registry.get_mut(key)?.resource.as_mut()?.downcast_mut()
}

/// Returns whether a stream must wait with the end of its input, because a thread writes to its socket. The thread may
/// have taken the failure of the connection, and then this is no end. The stream is driven when the thread has answered.
pub(crate) fn hold_end(core: &mut LoopState, stream: Key) -> bool {
    let Some(key) = core.partners.get(&stream).copied() else { return false };
    let moving = find(core, key).and_then(|moving| moving.out.as_mut());
    let Some(TransferInFlight::Part { holds_end }) = moving else { return false };
    *holds_end = true;
    true
}

/// Registers a transfer, and binds the stream to it.
pub(crate) fn begin<R: AnyStream>(
    core: &mut LoopState,
    index: u16,
    table: &'static Vtable,
    to: Key,
    file: File,
    range: Range<u64>,
) -> Result<Key, (FileTransfer, Error)> {
    let transfer = FileTransfer::new(file, range);
    let misuse = |why| Error::Misuse { operation: "send file", why };
    if transfer.at > transfer.end {
        return Err((transfer, misuse(super::BACKWARDS)));
    }
    if core.files.is_over() {
        return Err((transfer, misuse(super::OVER)));
    }
    if core.registry.get(to).is_none_or(|slot| slot.service != index) {
        return Err((transfer, misuse("the stream is gone")));
    }
    if core.partners.contains_key(&to) || !R::begin_feed(core, to) {
        return Err((transfer, misuse("the stream is closing, paired, or has a transfer")));
    }
    let to = To {
        key: to,
        feed: R::feed,
        path: R::send_path,
        await_low: R::await_low,
        await_room: R::await_room,
        end: R::end_feed,
        fail: R::fail_feed,
        patience: R::patience(core, to),
    };
    let (stream, end) = (to.key, to.end);
    let moving = Moving {
        transfer,
        to,
        out: None,
        is_paused: false,
        is_full: false,
        has_waited: false,
        direct_sink: None,
        ending: None,
    };
    match core.registry.insert(index, table, Box::new(moving)) {
        Ok(key) => {
            core.partners.insert(stream, key);
            core.partners.insert(key, stream);
            core.mark(key);
            Ok(key)
        }
        Err(back) => {
            end(core, stream, true);
            let moving = back.downcast::<Moving>().expect("the registry gives back what it was given");
            Err((moving.transfer, core.full_of_resources()))
        }
    }
}

impl Resource for FileTransfer {
    type Event<'a> = Infallible;
    type Driver = Served;
}

impl Driver<FileTransfer> for Served {
    fn table<S: Handle<FileTransfer>>() -> &'static Vtable {
        &Vtable {
            name: std::any::type_name::<FileTransfer>,
            flush,
            close,
            release: |core, key| {
                end(core, key, Closed::Released);
                Ok(())
            },
            pause: |core, key, paused| {
                if let Some(moving) = find(core, key) {
                    moving.is_paused = paused;
                    core.mark(key);
                }
            },
            expired,
            defer: Some(defer),
            leave,
            closed: closed::<S>,
            ..Vtable::NOTHING
        }
    }

    fn view(slot: &dyn Any) -> Option<&FileTransfer> {
        slot.downcast_ref::<Moving>().map(|moving| &moving.transfer)
    }

    fn view_mut(slot: &mut dyn Any) -> Option<&mut FileTransfer> {
        slot.downcast_mut::<Moving>().map(|moving| &mut moving.transfer)
    }

    fn enroll(
        transfer: FileTransfer,
        _: &mut LoopState,
        _: u16,
        _: &'static Vtable,
    ) -> Result<Key, (FileTransfer, Error)> {
        let why = "a transfer needs its stream: use send_file";
        Err((transfer, Error::Misuse { operation: "add", why }))
    }
}

/// Lets the transfer finish, as a stream's close does. Without its stream there is nothing to finish.
fn close(core: &mut LoopState, key: Key, _: Closed) {
    if !core.partners.contains_key(&key) {
        return end(core, key, Closed::Aborted);
    }
    if let Some(moving) = find(core, key)
        && mem::take(&mut moving.is_paused)
    {
        core.mark(key);
    }
}

/// Postpones the end while a thread moves a part, because the thread writes to the stream's socket. So the
/// stream is not free, and the number of sent bytes is unknown.
fn defer(core: &mut LoopState, key: Key, why: Closed) -> Option<Closed> {
    let index = core.registry.get(key)?.service;
    // A later end would reach nobody.
    let is_last =
        matches!(why, Closed::Stopped) || !core.alive.get(index as usize).is_some_and(|alive| *alive);
    let Some(moving) = find(core, key) else { return Some(why) };
    if is_last || !moving.moves_part() {
        return Some(moving.ending.take().unwrap_or(why));
    }
    moving.ending.get_or_insert(why);
    let patience = moving.to.patience;
    core.set_internal_deadline(key, Some(patience));
    None
}

/// Ends the stream, because moving the current part takes too long. The thread may still write when its disk
/// answers, so the socket is cut off from the peer first.
fn expired(core: &mut LoopState, key: Key) {
    let Some(moving) = find(core, key) else { return };
    if !moving.moves_part() {
        return;
    }
    moving.out = None;
    if let Some(Some(direct_sink)) = &moving.direct_sink {
        direct_sink.sever();
    }
    if let Some(stream) = core.partners.get(&key).copied() {
        core.end(stream, Closed::TimedOut(Phase::File), Ending::Reset);
    }
    end(core, key, Closed::Aborted);
}

/// Ends the transfer, but not its stream.
fn end(core: &mut LoopState, key: Key, why: Closed) {
    core.end(key, why, Ending::Orderly);
}

/// Sets the stream free, whatever ended the transfer.
fn leave(core: &mut LoopState, key: Key, _: Ending) {
    let Some(moving) = find(core, key) else { return };
    // Drop our descriptor, so that the socket closes when the stream does.
    moving.direct_sink = Some(None);
    let (stream, end_feed, is_whole) = (moving.to.key, moving.to.end, moving.transfer.left() == 0);
    if core.partners.remove(&key).is_some() {
        core.partners.remove(&stream);
        end_feed(core, stream, is_whole);
    }
}

/// Submits the next chunk, unless one is in flight or the stream has enough.
fn flush(core: &mut LoopState, key: Key) {
    let Some(moving) = find(core, key) else { return };
    let stream = moving.to.key;
    if moving.out.is_some() || moving.is_paused {
        return;
    }
    if mem::take(&mut moving.is_full) && core.registry.get(stream).is_some_and(|slot| slot.look().is_high) {
        if let Some(moving) = find(core, key) {
            moving.is_full = true;
        }
        return;
    }
    let Some(Moving { transfer, to: To { path, .. }, .. }) = find(core, key) else { return };
    let (left, path) = (transfer.left(), *path);
    if left == 0 {
        return end(core, key, Closed::Done);
    }
    let path = path(core, stream);
    if path == SendPath::Full {
        return;
    }
    let Some(moving) = find(core, key) else { return };
    let (file, offset) = (moving.transfer.file.clone(), moving.transfer.at);
    let chunk = core.files.fitting(CHUNK);
    if chunk == 0 {
        return core.fail(key, "read", io::Error::other(FORBIDDEN));
    }
    let is_direct = path != SendPath::Queue && file.system().is_some();
    if is_direct && ask_sendfile(core, key, (stream, path), (file.clone(), offset, left)) {
        return;
    }
    let bytes_max = chunk.min(usize::try_from(left).unwrap_or(usize::MAX));
    let Some(index) = core.registry.get(key).map(|slot| slot.service) else { return };
    let action = Action::Read { file, offset, bytes_max, buffer: Vec::new() };
    let is_out = core.ask_file::<FileTransfer>((index, key), action, landed).is_ok();
    if let Some(moving) = find(core, key) {
        moving.out = is_out.then_some(TransferInFlight::Chunk);
    }
}

/// Submits a part to be moved without a copy. Returns false if the engine or the transport does not allow
/// that.
fn ask_sendfile(
    core: &mut LoopState,
    key: Key,
    (stream, path): (Key, SendPath),
    part: (File, u64, u64),
) -> bool {
    let LoopState { registry, engine, .. } = core;
    let Some(slot) = registry.get_mut(key) else { return false };
    let index = slot.service;
    let moving = slot.resource.as_mut().and_then(|resource| resource.downcast_mut::<Moving>());
    let Some(moving) = moving else { return false };
    let direct_sink = moving.direct_sink.get_or_insert_with(|| DirectSink::of(engine.direct_sink(stream)));
    let Some(direct_sink) = direct_sink.clone() else { return false };
    let is_behind = path == SendPath::Behind;
    // Wait once until the queue has been sent, because then nothing need be copied. If the peer does not take
    // it, read ahead instead.
    if mem::replace(&mut moving.has_waited, is_behind) && is_behind {
        moving.has_waited = false;
        return false;
    }
    if is_behind {
        moving.is_full = true;
        let await_low = moving.to.await_low;
        await_low(core, stream);
        return true;
    }
    let is_out = direct_sink.ask(core, (index, key), part, moved);
    if let Some(moving) = find(core, key) {
        moving.out = is_out.then_some(TransferInFlight::Part { holds_end: false });
    }
    true
}

/// Takes the result of moving a part. Then continues, waits for room in the socket, or queues a piece.
fn moved(queue: &mut dyn Any, to: Option<(&mut LoopState, &mut dyn Any)>, index: u16) {
    let Some(Moved { key, result, .. }) = sendfile::next_moved(queue) else { return };
    let Some((core, erased)) = to else { return };
    let Some(moving) = find(core, key) else { return };
    let holds_end = matches!(moving.out.take(), Some(TransferInFlight::Part { holds_end: true }));
    let (stream, fail) = (moving.to.key, moving.to.fail);
    let sent = result.as_ref().map_or(0, |part| part.sent);
    moving.transfer.at += sent;
    moving.transfer.sent += sent;
    let ending = moving.ending.take();
    core.counters.bytes_out += sent;
    let next = match result {
        Ok(Part { failure: Some(error), .. }) => {
            fail(core, stream, error);
            Err(Closed::Aborted)
        }
        Ok(Part { next, .. }) => Ok(next),
        Err(error) => Err(Closed::Failed(error)),
    };
    if holds_end && let Some(slot) = core.registry.get(stream) {
        let again = slot.table.again;
        again(core, erased, stream);
    }
    let next = match (ending, next) {
        (Some(why), _) | (None, Err(why)) => return end(core, key, why),
        (None, Ok(next)) => next,
    };
    match next {
        Next::More if sent > 0 => core.mark(key),
        Next::More => end(core, key, Closed::Truncated(SHORT.into())),
        Next::Room => wait_for_room(core, key),
        Next::Piece(bytes) if bytes.is_empty() => end(core, key, Closed::Truncated(SHORT.into())),
        Next::Piece(bytes) => feed(core, key, index, bytes),
    }
}

/// Waits until the stream marks this resource because it has room. If the stream cannot report that, uses its
/// queue from now on.
fn wait_for_room(core: &mut LoopState, key: Key) {
    let Some(Moving { to: To { key: stream, await_room, .. }, .. }) = find(core, key) else { return };
    let (stream, await_room) = (*stream, *await_room);
    if !await_room(core, stream) {
        if let Some(moving) = find(core, key) {
            moving.direct_sink = Some(None);
        }
        core.mark(key);
    }
}

/// Takes the result of reading a chunk.
fn landed(queue: &mut dyn Any, to: Option<(&mut LoopState, &mut dyn Any)>, index: u16) {
    let Some(Landed::<FileTransfer> { key, result, .. }) = super::next_landed(queue) else { return };
    let Some((core, _)) = to else { return };
    let Some(moving) = find(core, key) else { return };
    moving.out = None;
    let bytes = match result {
        Ok(Answer::Bytes(bytes)) => bytes,
        Ok(_) => return end(core, key, Closed::Misuse("the engine gave another kind of answer")),
        Err(error) => return end(core, key, Closed::Failed(error)),
    };
    if bytes.is_empty() {
        return end(core, key, Closed::Truncated(SHORT.into()));
    }
    core.counters.bytes_in += bytes.len() as u64;
    feed(core, key, index, bytes);
}

/// Queues bytes on the stream, which reports when it has room for more.
fn feed(core: &mut LoopState, key: Key, index: u16, bytes: Vec<u8>) {
    let Some(moving) = find(core, key) else { return };
    let (stream, feed) = (moving.to.key, moving.to.feed);
    moving.transfer.at += bytes.len() as u64;
    moving.transfer.sent += bytes.len() as u64;
    moving.is_full = true;
    match feed(core, index, stream, bytes) {
        // The end of the stream ends this transfer, too. This call only makes sure of it. (`Full` never comes
        // from a stream, because a full stream ends.)
        Flow::Gone | Flow::Full => end(core, key, Closed::Aborted),
        Flow::Queued | Flow::High => core.mark(key),
    }
}

fn closed<S: Handle<FileTransfer>>(
    core: &mut LoopState,
    erased: &mut dyn Any,
    key: Key,
    resource: Box<dyn Any>,
    why: Closed,
) {
    let moving =
        resource.downcast::<Moving>().expect("a table is only used with the resource it was made for");
    let index = core.calling;
    service::<S>(erased).closed(&mut Context::new(core, index), Id::new(key), moving.transfer, why);
}

/// The most bytes of one read.
const CHUNK: usize = 64 << 10;

const FORBIDDEN: &str = "the runtime's limits allow no operation on files";
const SHORT: &str = "the file ended before its range";
