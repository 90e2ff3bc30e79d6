//! The test's side of a virtual source.

use std::{cell::RefCell, rc::Rc};

use reactor::engine::Source;

use crate::{
    engine::sources::SourceState,
    error,
    ids::{Id as _, ObjectId, SourceId},
    world::state::State,
};

/// A virtual source that a test controls. It supplies the input, and takes the output.
///
/// The simulated twin of a user's [`Resource`](reactor::Resource) holds [`VirtualSource::source`], and reads
/// and writes through its `Io` as usual. After it is dropped, operations on the source fail (EBADF).
///
/// ```
/// let mut world = sim::World::new(1);
/// let meter = world.virtual_source();
/// meter.put(b"abc");
/// assert!(meter.source().number().is_some());
/// assert!(meter.taken().is_empty());
/// ```
pub struct VirtualSource {
    state: Rc<RefCell<State>>,
    id: SourceId,
}

impl VirtualSource {
    pub(crate) fn new(state: &Rc<RefCell<State>>) -> VirtualSource {
        let id = state.borrow_mut().sources.add();
        VirtualSource { state: state.clone(), id }
    }

    fn change<T>(&self, change: impl FnOnce(&mut SourceState) -> T) -> T {
        let state = &mut *self.state.borrow_mut();
        let changed = state.sources.change(&mut state.base, self.id, |source| {
            source.hangup_delivered = false;
            change(source)
        });
        changed.expect("a virtual source lives as long as its handle")
    }

    #[cfg(unix)]
    pub(crate) fn id(&self) -> SourceId {
        self.id
    }

    /// Returns the source, for a resource to watch.
    pub fn source(&self) -> Source<'static> {
        Source::hosted(ObjectId::Source(self.id).number())
    }

    /// Adds input.
    pub fn put(&self, bytes: &[u8]) {
        self.change(|source| source.input.extend(bytes));
    }

    /// Adds input that a read takes whole or not at all. A read into a shorter buffer fails (EINVAL). A
    /// source has either records or bytes.
    pub fn put_record(&self, bytes: &[u8]) {
        self.change(|source| {
            source.input.extend(bytes);
            source.records.get_or_insert_default().push_back(bytes.len());
        });
    }

    /// Joins two sources, so that the output of each is the other's input, with this much room between them.
    pub(crate) fn join(one: &VirtualSource, other: &VirtualSource, room: usize) {
        one.change(|source| (source.peer, source.room) = (Some(other.id), room));
        other.change(|source| (source.peer, source.room) = (Some(one.id), room));
    }

    /// Ends the input after the bytes that were put.
    pub fn end(&self) {
        self.change(|source| source.ended = true);
    }

    /// Fails with EIO: writes at once, reads after the bytes that were put.
    pub fn fail(&self) {
        self.change(|source| source.failed = Some(error::IO));
    }

    /// Makes room for this many more bytes of output.
    pub fn allow(&self, bytes: usize) {
        self.change(|source| source.room = source.room.saturating_add(bytes));
    }

    /// Takes the output.
    pub fn taken(&self) -> Vec<u8> {
        self.change(|source| std::mem::take(&mut source.output))
    }
}

impl Drop for VirtualSource {
    fn drop(&mut self) {
        // The world is not borrowed when a test drops its handles, except during a panic.
        if let Ok(mut state) = self.state.try_borrow_mut() {
            state.sources.remove(self.id);
        }
    }
}

impl std::fmt::Debug for VirtualSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VirtualSource({})", self.id.number())
    }
}
