//! Operations on files, and files that move to a stream.

use std::ops::Range;

use super::Context;
use crate::{
    error::Error,
    file::{File, FileTransfer, Operation, begin_transfer, submit},
    id::Id,
    message::Refused,
    resource::AnyStream,
    runtime::{Handled, Received, Rejected},
};

/// # Files
///
/// A file is never ready or unready, so a service submits operations, and gets the answers as messages.
impl<S> Context<'_, S> {
    /// Submits an operation on files. `then` turns its result into a message, on the thread that has the
    /// result. The message arrives in a later turn.
    ///
    /// Two operations in flight may be performed in any order. See [`file`](crate::file) for the whole
    /// contract.
    ///
    /// # Errors
    /// [`Refused::Gone`] returns the operation if the runtime has [run](crate::Runtime::run) to its end before.
    /// [`Refused::Full`] returns it if too many operations or bytes are in flight.
    /// [`Refused::TooLarge`] returns it if it needs more bytes than
    /// [`Limits::file_bytes`](crate::Limits::file_bytes) ever allows.
    pub fn file<T: 'static, M: Received<S> + Send>(
        &mut self,
        operation: Operation<T>,
        then: impl FnOnce(Result<T, Error>) -> M + Send + 'static,
    ) -> Result<(), Refused<Operation<T>>> {
        submit(self, operation, then)
    }

    /// Sends a part of a file to a stream, unchanged: it bypasses the codec and passes the layers. Earlier
    /// output is sent before it. The file is read no faster than the peer takes it.
    ///
    /// While the transfer lives, send nothing else to that stream, because it would land somewhere among the
    /// file's bytes. [`closed`](crate::Handle::closed) of the transfer reports its end. With [`Closed::Done`]
    /// all bytes are queued, and the stream is free again. Otherwise the reason is:
    ///
    /// * [`Closed::Truncated`]: the file ended before its range did;
    /// * [`Closed::Failed`]: it could not be read;
    /// * [`Closed::Released`]: the stream was [released](Context::release), and leaves when the transfer has
    ///   ended. [`FileTransfer::rest`] returns the part that was not sent;
    /// * [`Closed::Aborted`]: the stream ended, or the service [aborted](Context::abort) the transfer.
    ///
    /// If a transfer ends while a thread moves a part of the file, it waits until the part has been moved. So
    /// nothing else writes to the stream at the same time, and [`FileTransfer::sent`] is exact. If the disk
    /// takes longer than [`StreamOptions::close`](crate::StreamOptions::close), the stream ends as well, by a
    /// reset and as [`Closed::TimedOut`].
    ///
    /// In all these cases the stream lives on, unless its own end was the reason. Its peer then waits for
    /// bytes that will not come, so close the stream to let the peer know. A peer that ends its own side does
    /// not end a stream with a transfer. After the transfer the stream then closes as it would have done.
    ///
    /// A graceful end does not interrupt a transfer. A stream that is [closed](Context::close) or
    /// [finished](Context::finish) in the meantime ends once the file has been sent. A
    /// [close](Context::close) of the transfer itself only resumes a paused one. So a stop waits for
    /// transfers as for all output, until its grace is over. A peer that reads nothing ends its stream by
    /// [`StreamOptions::write_stall`](crate::StreamOptions::write_stall), as always.
    ///
    /// # Errors
    /// [`Rejected`]: the range ends before it begins; the stream is gone, closing or paired, or already has a
    /// transfer; or a limit is reached.
    ///
    /// [`Closed::Done`]: crate::Closed::Done
    /// [`Closed::Truncated`]: crate::Closed::Truncated
    /// [`Closed::Failed`]: crate::Closed::Failed
    /// [`Closed::Aborted`]: crate::Closed::Aborted
    /// [`Closed::Released`]: crate::Closed::Released
    /// [`Closed::TimedOut`]: crate::Closed::TimedOut
    pub fn send_file<R: AnyStream>(
        &mut self,
        to: Id<R>,
        file: File,
        range: Range<u64>,
    ) -> Result<Id<FileTransfer>, Rejected<FileTransfer>>
    where
        FileTransfer: Handled<S>,
    {
        let table = <FileTransfer as Handled<S>>::table_for();
        let begun = begin_transfer::<R>(self.core, self.index, table, to.key(), file, range);
        begun.map(Id::new).map_err(|(resource, error)| Rejected { resource, error })
    }
}
