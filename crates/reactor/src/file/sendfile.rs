//! Sends a file to a socket without a copy in this process: sendfile(2), in a thread for files.
//!
//! It does not run on the loop's thread, because it waits for pages that are not in memory. The socket does
//! not block. If it is full, the engine waits for room, as for any output.
//!
//! If nothing could be moved, the thread reads a piece of the file instead, and the stream queues that as its
//! own. This serves three purposes. The stream finds a closed write side, and knows how to handle it. A file that
//! sendfile(2) does not support is copied. And a system that reports room but has none is not asked for ever.
//!
//! The failure of a connection is a different case: the system reports it once. If sendfile(2) took it, the loop
//! would read an end of input where there was none. So the answer carries the failure to the stream, and the
//! stream reports no end while a part is being moved.

use std::{any::Any, fs, io};

use super::{File, in_flight::Claim, system};
use crate::{
    engine::Source,
    error::Error,
    id::Key,
    message::Mailbox,
    runtime::{LoopState, dispatch::DeliverFn},
    sync::Arc,
    sys,
};

/// A second descriptor of a stream's socket, beside the engine's.
#[derive(Clone)]
pub(super) struct DirectSink(Arc<sys::Owned>);

/// The result of an errand.
pub(super) struct Moved {
    pub(super) key: Key,
    pub(super) result: Result<Part, Error>,
    _claim: Claim,
}

/// How many bytes were moved to the socket, and how to go on.
pub(super) struct Part {
    pub(super) sent: u64,
    pub(super) next: Next,
    /// The failure of the connection, which nobody else learns.
    pub(super) failure: Option<io::Error>,
}

pub(super) enum Next {
    /// Submit the next part, if any bytes were moved. Otherwise the file has ended.
    More,
    /// Wait for room in the socket.
    Room,
    /// Queue these bytes. If there are none, the file has ended.
    Piece(Vec<u8>),
}

impl DirectSink {
    /// Duplicates the descriptor of a stream's socket, if there is sendfile(2) and a descriptor is left.
    pub(super) fn of(source: Option<Source<'_>>) -> Option<DirectSink> {
        if !sys::HAS_SENDFILE {
            return None;
        }
        source?.descriptor()?.try_clone_to_owned().ok().map(|owned| DirectSink(Arc::new(owned)))
    }

    /// Cuts the socket off from its peer, for every holder of a descriptor of it.
    pub(super) fn sever(&self) {
        sys::sever(sys::borrow(&self.0));
    }

    /// Moves a part of a file in a thread. Returns false if there is no room for another operation now.
    pub(super) fn ask(
        &self,
        core: &mut LoopState,
        (service, key): (u16, Key),
        (file, offset, bytes_max): (File, u64, u64),
        deliver: DeliverFn,
    ) -> bool {
        let rest_max = core.files.fitting(REST);
        let Some(claim) = core.claim_file(key, rest_max) else { return false };
        let place = InFlight { mailbox: core.mailbox.clone(), service, key, deliver, claim };
        let errand = Errand { file, offset, bytes_max, rest_max, to: self.clone(), place: Some(place) };
        core.run_file(Box::new(move || errand.perform()));
        true
    }
}

/// A part of a file to move. If no thread takes it, its drop answers it.
struct Errand {
    file: File,
    offset: u64,
    bytes_max: u64,
    rest_max: usize,
    to: DirectSink,
    place: Option<InFlight>,
}

/// The receiver of the answer, and the place among the operations in flight.
struct InFlight {
    mailbox: Arc<Mailbox<DeliverFn>>,
    service: u16,
    key: Key,
    deliver: DeliverFn,
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
        // Close this descriptor first, so that the answer does not keep the socket open longer than the
        // stream.
        drop(self);
        if let Some(place) = place {
            place.answer(&file, moved);
        }
    }
}

impl Drop for Errand {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            place.answer(&self.file, Err(io::Error::other(crate::host::file::NO_THREAD)));
        }
    }
}

impl InFlight {
    fn answer(self, file: &File, moved: io::Result<Part>) {
        let InFlight { mailbox, service, key, deliver, claim } = self;
        let result = moved.map_err(|error| Error::os("send", file.path().display(), error));
        if let Err(refused) = mailbox.send_reserved(service, Moved { key, result, _claim: claim }, deliver) {
            // A service that has ended needs no answer, but this place is free now, and others may wait for
            // it.
            drop(refused);
            mailbox.announce();
        }
    }
}

/// Takes the next answer out of a typed queue.
pub(super) fn next_moved(queue: &mut dyn Any) -> Option<Moved> {
    super::next_landed(queue)
}

fn move_some(
    to: &DirectSink,
    from: &fs::File,
    (offset, bytes_max): (u64, u64),
    rest_max: usize,
) -> io::Result<Part> {
    let most = bytes_max.min(JOB_MAX);
    let moved = sys::send_file(sys::borrow(&to.0), from, offset, most);
    let failure = failure(to, &moved, most);
    match moved {
        Ok(sent) if sent == 0 || sent == most => Ok(Part { sent, next: Next::More, failure }),
        // Do not try again at once. The kernel reports room when a good part of the socket is free, and
        // filling each small gap would hinder its reader. If the file has ended, the next attempt reports
        // that.
        Ok(sent) => Ok(Part { sent, next: Next::Room, failure }),
        Err(_) if failure.is_some() => Ok(Part { sent: 0, next: Next::Room, failure }),
        Err(_) => {
            let left = usize::try_from(bytes_max).unwrap_or(usize::MAX);
            let piece = system::read_at(from, offset, rest_max.min(left), Vec::new())?;
            Ok(Part { sent: 0, next: Next::Piece(piece), failure })
        }
    }
}

/// Returns the failure of the connection, if this attempt has found it.
fn failure(to: &DirectSink, moved: &io::Result<u64>, most: u64) -> Option<io::Error> {
    let is_cut_off = || sys::is_cut_off(sys::borrow(&to.0));
    match moved {
        Ok(sent) if *sent == most => None,
        // The system does not say which error ended an attempt that has moved something.
        Ok(_) => is_cut_off().then(|| io::ErrorKind::ConnectionReset.into()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => None,
        // Another error may be the file's, unless the connection is gone. A local socket has only this one.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset || is_cut_off() => {
            Some(error.raw_os_error().map_or(error.kind().into(), io::Error::from_raw_os_error))
        }
        Err(_) => None,
    }
}

/// The most bytes of one operation, so that transfers take turns on the threads.
const JOB_MAX: u64 = 4 << 20;
/// The most bytes to queue at a time if they cannot be moved without a copy.
const REST: usize = 64 << 10;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn an_attempt_that_moved_a_part_says_that_the_connection_failed_in_it() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let ours = TcpStream::connect(listener.local_addr().expect("it has one")).expect("it listens");
        let (theirs, _) = listener.accept().expect("it was connected");
        let to = DirectSink::of(Some(Source::of(&ours))).expect("a descriptor is left");
        assert!(failure(&to, &Ok(5), 10).is_none(), "there is no room");
        // The system has told the reset to whoever moved the part.
        sys::sever(sys::borrow(&sys::Owned::from(theirs)));
        let mut one = [0];
        let reset = io::Read::read(&mut &ours, &mut one).expect_err("it was reset");
        assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
        assert!(failure(&to, &Ok(10), 10).is_none(), "it moved all");
        for moved in [Ok(5), Err(io::ErrorKind::ConnectionReset.into()), Err(io::ErrorKind::TimedOut.into())]
        {
            let expected = moved.as_ref().err().map_or(io::ErrorKind::ConnectionReset, io::Error::kind);
            assert_eq!(failure(&to, &moved, 10).map(|error| error.kind()), Some(expected));
        }
        assert!(
            failure(&to, &Err(io::ErrorKind::BrokenPipe.into()), 10).is_none(),
            "the stream meets it, too"
        );
    }
}
