//! What resources share that no engine watches: they are driven by answers that come as messages.

use std::{any::Any, collections::VecDeque};

use super::Table;
use crate::{core::Core, engine::Source};

/// The table of one that does nothing: the parts that such resources leave as they are.
pub(crate) const TABLE: Table = Table {
    name: || "a resource that is not watched",
    got: |_, _, _, _| (),
    event: |_, _, _, _| (),
    sent: |_, _, _| (),
    detached: |_, _, _| (),
    again: |_, _, _| (),
    flush: |_, _| (),
    close: |_, _, _| (),
    finish: |_, _| (),
    release: |_, _| (),
    pause: |_, _, _| (),
    expired: |_, _| (),
    leave: |_, _, _| (),
    closed: |_: &mut Core, _, _, _, _| (),
    listener: false,
};

/// A source for which no engine is ever asked.
pub(crate) fn source() -> Source<'static> {
    Source::hosted(u64::MAX)
}

/// Takes the next answer out of a lane's queue.
pub(crate) fn next_landed<T: 'static>(queue: &mut dyn Any) -> Option<T> {
    let queue: &mut VecDeque<T> = queue.downcast_mut().expect("a lane keeps the type it was made for");
    queue.pop_front()
}
