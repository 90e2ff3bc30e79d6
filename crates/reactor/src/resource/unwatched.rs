//! The shared parts of resources that no engine watches. Answers that arrive as messages drive them.

use std::{any::Any, collections::VecDeque};

use super::Table;
use crate::engine::Source;

/// The vtable's entries that such resources do not need.
pub(crate) const TABLE: Table = Table::NOTHING;

/// Returns a source that the runtime never gives to an engine.
pub(crate) fn source() -> Source<'static> {
    Source::hosted(u64::MAX)
}

/// Takes the next answer from a lane's queue.
pub(crate) fn next_landed<T: 'static>(queue: &mut dyn Any) -> Option<T> {
    let queue: &mut VecDeque<T> = queue.downcast_mut().expect("a lane keeps the type it was made for");
    queue.pop_front()
}
