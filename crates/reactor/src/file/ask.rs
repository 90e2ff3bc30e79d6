//! What a service asks of files through its context.

use std::ops::Range;

use super::{Answered, File, FileJob, FileTransfer, Operation, transfer};
use crate::{
    context::{Context, Rejected},
    error::Error,
    guard::Kept,
    id::Id,
    message::{Offloaded, Refused},
    resource::AnyStream,
    service::{Handled, Received},
};

impl<S> Context<'_, S> {
    /// Asks for an operation on files. `then` makes a message of its result, in the thread that has it, and the
    /// message comes in a later turn.
    ///
    /// Two operations that are out at once are done in any order. See [`file`](crate::file) for all that is promised.
    ///
    /// # Errors
    /// [`Refused::Full`] gives the operation back when too many are out, or too many bytes, and [`Refused::TooLarge`] when
    /// this one needs more bytes than [`Limits::file_bytes`](crate::Limits::file_bytes) allows at all.
    pub fn file<T: 'static, M: Received<S> + Send>(
        &mut self,
        operation: Operation<T>,
        then: impl FnOnce(Result<T, Error>) -> M + Send + 'static,
    ) -> Result<(), Refused<Operation<T>>> {
        let asked = operation.action.bytes();
        if let Some((what, limit)) = self.core.files.never_fits(asked) {
            return Err(Refused::TooLarge { message: operation, what, asked, limit });
        }
        let Some(claim) = self.core.files.claim(asked) else {
            return Err(Refused::Full(operation));
        };
        let (mailbox, service) = (self.core.mailbox.clone(), self.index);
        let Operation { action, take } = operation;
        let then = Kept::new(then);
        let tell = move |result: Result<_, Error>| {
            let result = result.and_then(|answer| {
                let mismatch =
                    Error::Misuse { operation: "file", why: "the engine gave another kind of answer" };
                take(answer).ok_or(mismatch)
            });
            let what = Offloaded::of(|| then.into_inner()(result));
            let answered = Answered { what, _claim: claim };
            if let Err(refused) = mailbox.send_reserved(service, answered, M::deliver_file()) {
                // A service that has gone wants no answer; whoever waits for its place does.
                drop(refused);
                mailbox.announce();
            }
        };
        self.core.start_file(FileJob::new(action, tell));
        Ok(())
    }

    /// Sends a part of a file to a stream, as it is: past its codec, through its layers. What was sent before leaves
    /// before it; the file is read no faster than the peer takes it.
    ///
    /// While the transfer lives nothing else is to be sent to that stream: it would leave somewhere among the file's
    /// bytes. [`closed`](crate::Handle::closed) of the transfer says that all is queued ([`Closed::Done`]), and from
    /// there on the stream is free again; or why it ended before:
    ///
    /// * [`Closed::Truncated`]: the file ended before its range did;
    /// * [`Closed::Failed`]: it could not be read;
    /// * [`Closed::Released`]: the stream was [released](Context::release), and leaves when the transfer has ended. What
    ///   was not sent is handed over as [`FileTransfer::rest`];
    /// * [`Closed::Aborted`]: the stream ended, or the service [aborted](Context::abort) the transfer.
    ///
    /// A transfer that ends while a thread moves a part of the file ends when the part has been moved: so nobody writes to
    /// the stream at the same time, and [`FileTransfer::sent`] is exact. If the disk takes longer than
    /// [`StreamOptions::close`](crate::StreamOptions::close), the stream ends, too, by a reset and as
    /// [`Closed::TimedOut`].
    ///
    /// In all these the stream lives, unless it was what ended, and its peer waits for bytes that do not come:
    /// closing it is what tells it. A peer that ends its own side does not end a stream with a transfer; when the
    /// transfer is over the stream then closes as it would have.
    ///
    /// A graceful end does not cut a transfer off: a stream that is [closed](Context::close) or
    /// [finished](Context::finish) meanwhile ends when the file has left, and a [close](Context::close) of the transfer
    /// itself changes nothing, but that a paused one goes on. So a stop waits for transfers as for all output, until its
    /// grace is over. A peer that reads nothing ends its stream by
    /// [`StreamOptions::write_stall`](crate::StreamOptions::write_stall), as ever.
    ///
    /// # Errors
    /// [`Rejected`]: the stream is gone, is closing, is coupled or has a transfer already; or a limit is reached.
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
        let transfer = FileTransfer::new(file, range);
        match transfer::begin::<R>(self.core, self.index, table, to.key(), transfer) {
            Ok(key) => Ok(Id::new(key)),
            Err((resource, error)) => Err(Rejected { resource, error }),
        }
    }
}
