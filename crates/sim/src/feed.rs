//! Virtual sources: what a user's resource is made of where there are no descriptors.

use std::{cell::RefCell, collections::VecDeque, io, rc::Rc};

use reactor::{
    Key,
    engine::{Interest, Outgoing, Ready, Source},
};

use crate::{error, state::State};

/// The state of one virtual source.
#[derive(Default)]
pub(crate) struct Fed {
    input: VecDeque<u8>,
    /// How long each record of the input is, if it is records that are read whole.
    records: Option<VecDeque<usize>>,
    /// The source at the other end of a line, where the output is input.
    pub(crate) peer: Option<u32>,
    ended: bool,
    failed: Option<i32>,
    output: Vec<u8>,
    room: usize,
    /// Who watches it, for what, and on whose list it is to be told: perhaps still on that of an engine
    /// which is gone.
    pub(crate) watcher: Option<(u32, Key)>,
    pub(crate) interest: Option<Interest>,
    pub(crate) queued: Option<u32>,
    /// That it is told was drawn, although nothing is ready.
    pub(crate) is_lie: bool,
    /// A hang-up without anything else was told; it is not again.
    pub(crate) told: bool,
}

impl Fed {
    /// What is to be told of it, as far as it is watched for that.
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

    /// How many bytes a read takes: of records only whole ones.
    fn take_count(&mut self, most: usize) -> io::Result<usize> {
        let Some(records) = &mut self.records else { return Ok(self.input.len().min(most)) };
        let mut count = 0;
        while let Some(length) = records.front().copied().filter(|length| count + length <= most) {
            count += length;
            records.pop_front();
        }
        if count == 0 && !records.is_empty() { Err(error::os(error::INVALID)) } else { Ok(count) }
    }

    /// Takes what was written, for the source at the other end.
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Gives it all the room there is.
    #[cfg(unix)]
    pub(crate) fn is_roomy(&mut self) {
        self.room = usize::MAX;
    }

    /// Adds input.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.input.extend(bytes);
        self.told = false;
    }

    /// The source at the other end read so much.
    pub(crate) fn make_room(&mut self, bytes: usize) {
        self.room += bytes;
    }

    /// Asks for each record of the input, and at last for a new one, what it is to be: the first that is to be
    /// something ends it.
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

    /// Gives it all there will ever be.
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

/// A virtual source in a test's hand: its input comes from here, and its output goes here.
///
/// The simulated twin of a user's [`Resource`](reactor::Resource) holds [`Feed::source`], and reads and
/// writes through its `Io` as ever. Dropping the feed makes the source a bad one (EBADF).
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
    number: u32,
}

impl Feed {
    pub(crate) fn new(state: &Rc<RefCell<State>>) -> Feed {
        let number = state.borrow_mut().add_feed();
        Feed { state: state.clone(), number }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Fed) -> T) -> T {
        let mut state = self.state.borrow_mut();
        let fed = state.feeds[self.number as usize].as_mut().expect("a feed lives as long as its handle");
        fed.told = false;
        let result = change(fed);
        state.look_at_feed(self.number);
        result
    }

    #[cfg(unix)]
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// What is to be watched.
    pub fn source(&self) -> Source<'static> {
        Source::hosted(FEED | u64::from(self.number))
    }

    /// Adds input.
    pub fn put(&self, bytes: &[u8]) {
        self.change(|fed| fed.input.extend(bytes));
    }

    /// Adds input that is read whole or not at all, and fails a read into less (EINVAL). A feed has either
    /// records or bytes.
    pub fn put_record(&self, bytes: &[u8]) {
        self.change(|fed| {
            fed.input.extend(bytes);
            fed.records.get_or_insert_default().push_back(bytes.len());
        });
    }

    /// Makes what is written to one the other's input, with so much room between.
    pub(crate) fn join(one: &Feed, other: &Feed, room: usize) {
        one.change(|fed| (fed.peer, fed.room) = (Some(other.number), room));
        other.change(|fed| (fed.peer, fed.room) = (Some(one.number), room));
    }

    /// Ends the input, after what was put.
    pub fn end(&self) {
        self.change(|fed| fed.ended = true);
    }

    /// Fails with EIO: writes at once, reads after what was put.
    pub fn fail(&self) {
        self.change(|fed| fed.failed = Some(error::IO));
    }

    /// Makes room for this many more bytes of output.
    pub fn allow(&self, bytes: usize) {
        self.change(|fed| fed.room = fed.room.saturating_add(bytes));
    }

    /// Takes what was written.
    pub fn taken(&self) -> Vec<u8> {
        self.change(|fed| std::mem::take(&mut fed.output))
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // Nobody borrows the world while a test's own handles are dropped, but a panic may.
        if let Ok(mut state) = self.state.try_borrow_mut() {
            state.feeds[self.number as usize] = None;
        }
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Feed({})", self.number)
    }
}

/// Marks a source's number as a feed's, and a transport's as one over a feed.
pub(crate) const FEED: u64 = 1 << 61;
