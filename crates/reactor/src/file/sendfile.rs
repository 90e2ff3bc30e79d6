//! A file to a socket without a copy in this process: sendfile(2), in a thread for files.
//!
//! Not in the loop's thread, because a page that is not in memory is waited for. The socket does not block: when it
//! is full the thread reads a piece of the file instead, which the stream queues as its own. So it is the engine that
//! waits for room, as for any output, and an error of the socket is found by the stream, which knows what to do.

use std::{any::Any, fs, io};

use super::{File, pool::Claim, system};
use crate::{
    core::Core,
    engine::Source,
    error::Error,
    id::Key,
    message::{Deliver, Mailbox},
    resource::unwatched,
    sync::Arc,
    sys,
};

/// A stream's socket, beside the engine's.
#[derive(Clone)]
pub(super) struct Outlet(Arc<sys::Owned>);

/// What was moved, and what is to be queued.
pub(super) struct Moved {
    pub(super) key: Key,
    pub(super) result: Result<Part, Error>,
    _claim: Claim,
}

/// Bytes that are in the socket, and those that come next and found no room there.
pub(super) struct Part {
    pub(super) sent: u64,
    pub(super) rest: Vec<u8>,
}

impl Outlet {
    /// Opens a stream's socket a second time, where there is sendfile(2) and a descriptor left.
    pub(super) fn of(source: Option<Source<'_>>) -> Option<Outlet> {
        if !sys::HAS_SENDFILE {
            return None;
        }
        source?.descriptor()?.try_clone_to_owned().ok().map(|owned| Outlet(Arc::new(owned)))
    }

    /// Moves a part of a file, in a thread; `false` if there is no room for another operation now.
    pub(super) fn ask(
        &self,
        core: &mut Core,
        (service, key): (u16, Key),
        (file, offset, bytes_max): (File, u64, u64),
        deliver: Deliver,
    ) -> bool {
        let rest_max = core.files.fitting(REST_WHOLE);
        let Some(claim) = core.claim_file(key, rest_max) else { return false };
        let place = Place { mailbox: core.mailbox.clone(), service, key, deliver, claim };
        let errand = Errand { file, offset, bytes_max, rest_max, to: self.clone(), place: Some(place) };
        core.run_file(Box::new(move || errand.perform()));
        true
    }
}

/// A part that is to be moved. One that no thread takes is answered by its drop.
struct Errand {
    file: File,
    offset: u64,
    bytes_max: u64,
    rest_max: usize,
    to: Outlet,
    place: Option<Place>,
}

/// Where the answer goes, and its place among what is out.
struct Place {
    mailbox: Arc<Mailbox<Deliver>>,
    service: u16,
    key: Key,
    deliver: Deliver,
    claim: Claim,
}

impl Errand {
    fn perform(mut self) {
        let moved = match self.file.system() {
            Some(from) => move_some(&self.to, from, (self.offset, self.bytes_max), self.rest_max),
            None => Err(io::ErrorKind::Unsupported.into()),
        };
        let place = self.place.take();
        let file = self.file.clone();
        // The socket is not to stay open longer than the stream for the sake of an answer.
        drop(self);
        if let Some(place) = place {
            place.answer(&file, moved);
        }
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            place.answer(&self.file, Err(io::Error::other(super::job::NO_THREAD)));
        }
    }
}

impl Place {
    fn answer(self, file: &File, moved: io::Result<Part>) {
        let Place { mailbox, service, key, deliver, claim } = self;
        let result = moved.map_err(|error| Error::os("send", file.path().display(), error));
        if let Err(refused) = mailbox.send_reserved(service, Moved { key, result, _claim: claim }, deliver) {
            // A service that has gone wants no answer; whoever waits for its place does.
            drop(refused);
            mailbox.announce();
        }
    }
}

/// Takes the next answer out of a lane's queue.
pub(super) fn next_moved(queue: &mut dyn Any) -> Option<Moved> {
    unwatched::next_landed(queue)
}

fn move_some(
    to: &Outlet,
    from: &fs::File,
    (offset, bytes_max): (u64, u64),
    rest_max: usize,
) -> io::Result<Part> {
    let most = bytes_max.min(JOB_MAX);
    let (sent, end) = sys::send_file(sys::borrow(&to.0), from, offset, most);
    let Some(error) = end else { return Ok(Part { sent, rest: Vec::new() }) };
    let piece = if error.kind() == io::ErrorKind::WouldBlock { REST.min(rest_max) } else { rest_max };
    let left = usize::try_from(bytes_max - sent).unwrap_or(usize::MAX);
    let rest = system::read_at(from, offset + sent, piece.min(left), Vec::new())?;
    Ok(Part { sent, rest })
}

/// The most bytes of one operation, so that transfers take turns on the threads.
const JOB_MAX: u64 = 4 << 20;
/// What is queued to be told of room.
const REST: usize = 16 << 10;
/// What is queued when it cannot be moved without a copy at all.
const REST_WHOLE: usize = 64 << 10;
