//! A connect that the system refuses for now. The runtime retries it until it succeeds or the connect's
//! deadline ends it.

use std::{io, time::Duration};

use session::{Codec, Layer};

use super::link::find;
use crate::{
    address::Address,
    clock::Time,
    engine::{Ending, Role},
    error::{Closed, Error, Phase},
    id::Key,
    options::ConnectOptions,
    resource::pause::Pause,
    runtime::LoopState,
};

/// The state of the retries of a connect.
pub(super) struct Attempt {
    options: ConnectOptions,
    /// No try follows after this time.
    until: Time,
    /// The time from the last try to the next.
    pause: Pause,
}

/// Returns whether a refusal to connect is temporary, because the queue of a Unix listener is full. This is
/// so on Linux; elsewhere such a listener refuses like an absent one.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Starts to wait for the first retry.
pub(super) fn begin<C: Codec, L: Layer, R: 'static>(
    core: &mut LoopState,
    key: Key,
    options: &ConnectOptions,
) {
    let now = core.now;
    let Some(link) = find::<C, L, R>(core, key) else { return };
    let until = now + link.options().connect;
    let mut pause = Pause::default();
    let first = pause.next();
    let attempt = Attempt { options: options.clone(), until, pause };
    // The engine does not have it yet.
    link.conn.retry();
    link.rare().attempt = Some(Box::new(attempt));
    core.set_internal_deadline(key, Some(until.since(now).min(first)));
}

/// Sets a new deadline for the retries, because a close has a deadline of its own. Returns whether there are
/// any.
pub(super) fn bound<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key, after: Duration) -> bool {
    let until = core.now + after;
    let Some(link) = find::<C, L, R>(core, key) else { return false };
    let attempt = link.rare.as_mut().and_then(|rare| rare.attempt.as_mut());
    attempt.map(|attempt| attempt.until = until).is_some()
}

/// Makes the next try, or ends the stream.
pub(super) fn again<C: Codec, L: Layer, R: 'static>(core: &mut LoopState, key: Key) {
    let now = core.now;
    let Some(link) = find::<C, L, R>(core, key) else { return };
    let closing = link.conn.is_concluding();
    let rare = link.rare();
    let (Some(target), Some(mut attempt)) = (rare.target.clone(), rare.attempt.take()) else { return };
    let left = attempt.until.since(now);
    if left == Duration::ZERO {
        return match closing {
            true => core.end(key, Closed::TimedOut(Phase::Close), Ending::Orderly),
            false => core.end_late_connect(key, Some(&target)),
        };
    }
    match connect(core, key, &target, &attempt.options) {
        Ok(()) => {
            let Some(link) = find::<C, L, R>(core, key) else { return };
            link.conn.retried();
            core.set_internal_deadline(key, Some(left));
        }
        Err(error) if is_passing(&error) => {
            let pause = attempt.pause.next();
            if let Some(link) = find::<C, L, R>(core, key) {
                link.rare().attempt = Some(attempt);
            }
            core.set_internal_deadline(key, Some(pause.min(left)));
        }
        Err(error) => {
            let error = Error::os("connect", target, error);
            core.end(key, Closed::Failed(error), Ending::Orderly);
        }
    }
}

fn connect(core: &mut LoopState, key: Key, target: &Address, options: &ConnectOptions) -> io::Result<()> {
    let transport = core.engine.connect(target, options)?;
    core.engine.attach(key, transport, Role::Connecting).map_err(|refused| refused.error)
}
