//! Output of resources.

use session::Shared;

use super::Context;
use crate::{
    id::Id,
    resource::{AnyStream, Flow, Output, OutputDriver},
};

/// # Send
///
/// Output of a turn leaves at its end. Nothing here blocks.
impl<S> Context<'_, S> {
    /// Queues an item. All items of a turn leave at its end in one write. Never blocks, never calls a
    /// handler, and returns no error. The runtime drops an item in two cases:
    ///
    /// * It finds no room, or the codec refuses it. The resource then ends, and its `closed` gives the reason.
    ///   ([`Datagrams`](crate::Datagrams) live on, and answer [`Flow::Full`].)
    /// * The resource is gone or closing already, for example because of [`close`](Context::close). The answer
    ///   is [`Flow::Gone`], and `closed` does not mention this item. So bytes that are sent to a closing
    ///   [`FileWriter`](crate::file::FileWriter) do not reach the file, and only the answer tells.
    #[inline]
    pub fn send<R: Output>(&mut self, id: Id<R>, item: R::Item<'_>) -> Flow {
        <R::Driver as OutputDriver<R>>::post(self.core, self.index, id.key(), item)
    }

    /// Queues bytes as they are, past the codec, and takes their memory: without a copy, unless they are
    /// fewer than 512.
    pub fn send_owned<R: AnyStream>(&mut self, id: Id<R>, bytes: Vec<u8>) -> Flow {
        R::give(self.core, self.index, id.key(), bytes)
    }

    /// Queues bytes that were encoded once for many streams ([`Shared::encode`]), or a [slice](Shared::slice)
    /// of those, without a copy.
    pub fn send_shared<R: AnyStream>(&mut self, id: Id<R>, bytes: &Shared) -> Flow {
        R::share(self.core, self.index, id.key(), bytes)
    }

    /// Ends the write side after queued output. Reading continues until the peer ends its side.
    pub fn finish<R: AnyStream>(&mut self, id: Id<R>) {
        if self.owns(id.key()) {
            self.core.finish(id.key());
        }
    }
}
