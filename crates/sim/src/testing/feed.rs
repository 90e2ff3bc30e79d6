//! Virtual sources: the basis of a user's resource in a world without descriptors.

use std::{cell::RefCell, collections::VecDeque, io, rc::Rc};

use reactor::{
    Key,
    engine::{Interest, Outgoing, Ready, Source},
};

use crate::{
    error,
    ids::{EngineId, Id as _, ObjectId, SourceId},
    world::state::State,
};

/// The state of one virtual source.
#[derive(Default)]
pub(crate) struct Fed {
    input: VecDeque<u8>,
    /// The lengths of the input's records, if a read takes whole records.
    records: Option<VecDeque<usize>>,
    /// The source at the other end of a line. The output of one is the input of the other.
    pub(crate) peer: Option<SourceId>,
    ended: bool,
    failed: Option<i32>,
    output: Vec<u8>,
    room: usize,
    /// `watcher` and `interest`: the engine and key that watch it, and for which events. `queued`: the engine
    /// whose ready list has it, which may be gone.
    pub(crate) watcher: Option<(EngineId, Key)>,
    pub(crate) interest: Option<Interest>,
    pub(crate) queued: Option<EngineId>,
    /// Set if an injected fault reports it as ready although it is not.
    pub(crate) is_lie: bool,
    /// Set once a hang-up without other readiness was reported. It is not reported again.
    pub(crate) told: bool,
}

impl Fed {
    /// Returns the readiness to report, limited to the interest.
    pub(crate) fn ready(&self) -> Option<Ready> {
        let interest = self.interest?;
        let ready = Ready {
            readable: !self.input.is_empty() || self.ended,
            writable: self.room > 0,
            hangup: self.ended,
            error: self.failed.is_some(),
        };
        let ready = ready.masked(interest);
        let is_silent = !(ready.readable || ready.writable);
        (ready != Ready::default() && !(is_silent && self.told)).then_some(ready)
    }

    /// Returns the number of bytes for a read, which takes only whole records.
    fn take_count(&mut self, most: usize) -> io::Result<usize> {
        let Some(records) = &mut self.records else { return Ok(self.input.len().min(most)) };
        let mut count = 0;
        while let Some(length) = records.front().copied().filter(|length| count + length <= most) {
            count += length;
            records.pop_front();
        }
        if count == 0 && !records.is_empty() { Err(error::os(error::INVALID)) } else { Ok(count) }
    }

    /// Takes the output, for the source at the other end.
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Gives it unlimited room for output.
    #[cfg(unix)]
    pub(crate) fn is_roomy(&mut self) {
        self.room = usize::MAX;
    }

    /// Adds input.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.input.extend(bytes);
        self.told = false;
    }

    /// Makes room for the bytes that the source at the other end has read.
    pub(crate) fn make_room(&mut self, bytes: usize) {
        self.room += bytes;
    }

    /// Offers each record of the input to `merge`, and then `None` for a new record. Stores the first result
    /// that is `Some`, and stops.
    #[cfg(unix)]
    pub(crate) fn merge_record<const N: usize>(
        &mut self,
        merge: impl Fn(Option<[u8; N]>) -> Option<[u8; N]>,
    ) {
        let input = self.input.make_contiguous();
        for record in input.chunks_exact_mut(N) {
            let pending = <[u8; N]>::try_from(&*record).expect("a chunk is as long as asked for");
            if let Some(changed) = merge(Some(pending)) {
                record.copy_from_slice(&changed);
                return;
            }
        }
        if let Some(new) = merge(None) {
            self.put(&new);
        }
    }

    pub(crate) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.take_count(into.len())?;
        match (count, self.failed) {
            (0, Some(number)) => Err(error::os(number)),
            (0, None) if !self.ended && !into.is_empty() => Err(error::os(error::AGAIN)),
            _ => {
                for (to, byte) in into.iter_mut().zip(self.input.drain(..count)) {
                    *to = byte;
                }
                Ok(count)
            }
        }
    }

    /// Adds the last input, and ends it.
    #[cfg(unix)]
    pub(crate) fn finish(&mut self, last: &[u8]) {
        self.input.extend(last);
        (self.ended, self.told) = (true, false);
    }

    pub(crate) fn write(&mut self, from: &Outgoing) -> io::Result<usize> {
        let front = from.front();
        let count = self.room.min(front.len());
        match (count, self.failed) {
            (_, Some(number)) => Err(error::os(number)),
            (0, None) if !front.is_empty() => Err(error::os(error::AGAIN)),
            _ => {
                self.output.extend_from_slice(&front[..count]);
                self.room -= count;
                Ok(count)
            }
        }
    }
}

/// A virtual source that a test controls. It supplies the input, and takes the output.
///
/// The simulated twin of a user's [`Resource`](reactor::Resource) holds [`Feed::source`], and reads and
/// writes through its `Io` as usual. After the feed is dropped, operations on the source fail (EBADF).
///
/// ```
/// let mut world = sim::World::new(1);
/// let feed = world.feed();
/// feed.put(b"abc");
/// assert!(feed.source().number().is_some());
/// assert!(feed.taken().is_empty());
/// ```
pub struct Feed {
    state: Rc<RefCell<State>>,
    number: SourceId,
}

impl Feed {
    pub(crate) fn new(state: &Rc<RefCell<State>>) -> Feed {
        let number = state.borrow_mut().add_feed();
        Feed { state: state.clone(), number }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Fed) -> T) -> T {
        let mut state = self.state.borrow_mut();
        let fed = state.feeds.get_mut(self.number).expect("a feed lives as long as its handle");
        fed.told = false;
        let result = change(fed);
        state.look_at_feed(self.number);
        result
    }

    #[cfg(unix)]
    pub(crate) fn number(&self) -> SourceId {
        self.number
    }

    /// Returns the source, for a resource to watch.
    pub fn source(&self) -> Source<'static> {
        Source::hosted(ObjectId::Source(self.number).number())
    }

    /// Adds input.
    pub fn put(&self, bytes: &[u8]) {
        self.change(|fed| fed.input.extend(bytes));
    }

    /// Adds input that a read takes whole or not at all. A read into a shorter buffer fails (EINVAL). A feed
    /// has either records or bytes.
    pub fn put_record(&self, bytes: &[u8]) {
        self.change(|fed| {
            fed.input.extend(bytes);
            fed.records.get_or_insert_default().push_back(bytes.len());
        });
    }

    /// Joins two feeds, so that the output of each is the other's input, with this much room between them.
    pub(crate) fn join(one: &Feed, other: &Feed, room: usize) {
        one.change(|fed| (fed.peer, fed.room) = (Some(other.number), room));
        other.change(|fed| (fed.peer, fed.room) = (Some(one.number), room));
    }

    /// Ends the input after the bytes that were put.
    pub fn end(&self) {
        self.change(|fed| fed.ended = true);
    }

    /// Fails with EIO: writes at once, reads after the bytes that were put.
    pub fn fail(&self) {
        self.change(|fed| fed.failed = Some(error::IO));
    }

    /// Makes room for this many more bytes of output.
    pub fn allow(&self, bytes: usize) {
        self.change(|fed| fed.room = fed.room.saturating_add(bytes));
    }

    /// Takes the output.
    pub fn taken(&self) -> Vec<u8> {
        self.change(|fed| std::mem::take(&mut fed.output))
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // The world is not borrowed when a test drops its handles, except during a panic.
        if let Ok(mut state) = self.state.try_borrow_mut() {
            state.feeds.take(self.number);
        }
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Feed({})", self.number.number())
    }
}
