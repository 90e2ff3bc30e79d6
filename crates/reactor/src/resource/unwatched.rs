//! What resources share that no engine watches: they are driven by answers that come as messages.

use std::{any::Any, collections::VecDeque};

use super::Table;
use crate::engine::Source;

/// The parts of a table that such resources leave as they are.
pub(crate) const TABLE: Table = Table::NOTHING;

/// A source for which no engine is ever asked.
pub(crate) fn source() -> Source<'static> {
    Source::hosted(u64::MAX)
}

/// Takes the next answer out of a lane's queue.
pub(crate) fn next_landed<T: 'static>(queue: &mut dyn Any) -> Option<T> {
    let queue: &mut VecDeque<T> = queue.downcast_mut().expect("a lane keeps the type it was made for");
    queue.pop_front()
}
