//! A connect that the system refuses for now. The runtime retries it until it succeeds or the connect's
//! deadline ends it.

use std::{io, time::Duration};

use session::{Codec, Layer};

use super::{after::After, link::Link};
use crate::{
    address::Address,
    clock::Time,
    engine::{Ending, Role},
    error::{Closed, Error, Phase},
    options::ConnectOptions,
    resource::pause::Pause,
    runtime::ports::Ports,
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

impl<C: Codec, L: Layer, R: 'static> Link<C, L, R> {
    /// Starts to wait for the first retry.
    pub(super) fn begin_attempt(&mut self, ports: &mut Ports<'_>, options: &ConnectOptions) {
        let until = ports.now + self.options().connect;
        let mut pause = Pause::default();
        let first = pause.next();
        // The engine does not have it yet.
        self.conn.retry();
        self.rare().attempt = Some(Box::new(Attempt { options: options.clone(), until, pause }));
        ports.set_internal_deadline(Some(until.since(ports.now).min(first)));
    }

    pub(super) fn is_retrying(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.attempt.is_some())
    }

    /// Sets a new deadline for the retries, because a close has a deadline of its own. Returns whether there
    /// are any.
    pub(super) fn bound_attempt(&mut self, until: Time) -> bool {
        let attempt = self.rare.as_mut().and_then(|rare| rare.attempt.as_mut());
        attempt.map(|attempt| attempt.until = until).is_some()
    }

    /// Makes the next try, or ends the stream.
    pub(super) fn try_again(&mut self, ports: &mut Ports<'_>, after: &mut After) {
        let closing = self.conn.is_concluding();
        let rare = self.rare();
        let (Some(target), Some(mut attempt)) = (rare.target.clone(), rare.attempt.take()) else { return };
        let left = attempt.until.since(ports.now);
        if left == Duration::ZERO {
            return match closing {
                true => after.end(Closed::TimedOut(Phase::Close), Ending::Orderly),
                false => after.end_late_connect(Some(target)),
            };
        }
        match connect(ports, &target, &attempt.options) {
            Ok(()) => {
                self.conn.retried();
                ports.set_internal_deadline(Some(left));
            }
            Err(error) if is_passing(&error) => {
                let pause = attempt.pause.next();
                self.rare().attempt = Some(attempt);
                ports.set_internal_deadline(Some(pause.min(left)));
            }
            Err(error) => {
                let error = Error::os("connect", target, error);
                after.end(Closed::Failed(error), Ending::Orderly);
            }
        }
    }
}

fn connect(ports: &mut Ports<'_>, target: &Address, options: &ConnectOptions) -> io::Result<()> {
    let transport = ports.engine.connect(target, options)?;
    ports.engine.attach(ports.key, transport, Role::Connecting).map_err(|refused| refused.error)
}
