//! The submission of an operation by a service: its claim on the limits, and the way of its answer.

use super::{Answered, FileJob, Operation};
use crate::{
    error::Error,
    guard::Kept,
    message::{Offloaded, Refused},
    runtime::{Context, Received},
};

/// Submits an operation for [`Context::file`].
pub(crate) fn submit<S, T: 'static, M: Received<S> + Send>(
    cx: &mut Context<'_, S>,
    operation: Operation<T>,
    then: impl FnOnce(Result<T, Error>) -> M + Send + 'static,
) -> Result<(), Refused<Operation<T>>> {
    if cx.core.files.is_over() {
        return Err(Refused::Gone(operation));
    }
    let asked = operation.action.bytes();
    if let Some((what, limit)) = cx.core.files.never_fits(asked) {
        return Err(Refused::TooLarge { message: operation, what, asked, limit });
    }
    let Some(claim) = cx.core.files.claim(asked) else {
        return Err(Refused::Full(operation));
    };
    let (mailbox, service, life) = (cx.core.mailbox.clone(), cx.index, cx.life());
    let Operation { action, take } = operation;
    let then = Kept::new(then);
    let tell = move |result: Result<_, Error>| {
        let result = result.and_then(|answer| {
            let mismatch = Error::Misuse { operation: "file", why: "the engine gave another kind of answer" };
            take(answer).ok_or(mismatch)
        });
        let what = Offloaded::of(|| then.into_inner()(result));
        let answered = Answered { life, what, _claim: claim };
        if let Err(refused) = mailbox.send_reserved(service, answered, M::deliver_file()) {
            // A service that has ended needs no answer, but this place is free now, and others may wait
            // for it.
            drop(refused);
            mailbox.announce();
        }
    };
    cx.core.start_file(FileJob::new(action, tell));
    Ok(())
}
