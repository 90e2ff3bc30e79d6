//! How other threads reach a service.

use std::{fmt, time::Duration};

use crate::{
    clock::Time,
    guard::Kept,
    message::{Deliver, Mailbox, Outside, Pending, Refused, Reply},
    service::{Received, Service},
    sync::Arc,
};

/// Sends commands to a service from any thread. `Clone` and `Send`, also where the service is not.
///
/// Commands of one controller come in the order sent, over all their types. A command is executed, or comes
/// back: after the runtime began to stop it still executes what was queued, then answers `Gone`.
pub struct Controller<S> {
    service: u16,
    outside: Outside<Deliver>,
    of: std::marker::PhantomData<fn(S)>,
}

impl<S> Clone for Controller<S> {
    fn clone(&self) -> Controller<S> {
        Controller { service: self.service, outside: self.outside.clone(), of: std::marker::PhantomData }
    }
}

impl<S> fmt::Debug for Controller<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Controller of {}", std::any::type_name::<S>())
    }
}

impl<S: Service> Controller<S> {
    pub(crate) fn new(service: u16, mailbox: &Arc<Mailbox<Deliver>>) -> Controller<S> {
        Controller { service, outside: Outside::new(mailbox), of: std::marker::PhantomData }
    }

    /// Sends a command. Never blocks; wakes the loop if it sleeps.
    ///
    /// # Errors
    /// [`Refused`] gives the command back: too many wait, or the service has stopped.
    pub fn send<M: Received<S> + Send>(&self, message: M) -> Result<(), Refused<M>> {
        let sent = self.outside.send(self.service, Kept::new(message), M::deliver_command());
        sent.map_err(|refused| refused.map(Kept::into_inner))
    }

    /// Sends a command that carries a [`Reply`], and returns what the answer will be: to wait for, or to
    /// await in any executor. When the command cannot be sent the answer is `Gone` at once.
    ///
    /// ```no_run
    /// # use reactor::*;
    /// # struct Counter; struct Count(Reply<u64>);
    /// # impl Service for Counter {}
    /// # impl Receive<Count> for Counter {
    /// #     fn receive(&mut self, _: &mut Context<Self>, ask: Count) -> Result { ask.0.send(1); Ok(()) }
    /// # }
    /// # fn ask(controller: Controller<Counter>) {
    /// let count = controller.ask(Count).wait();
    /// # }
    /// ```
    pub fn ask<T, M: Received<S> + Send>(&self, command: impl FnOnce(Reply<T>) -> M) -> Pending<T> {
        let (reply, pending) = Reply::channel(self.outside.loop_thread());
        // A refused command drops its reply, which is the answer.
        let _ = self.send(command(reply));
        pending
    }

    /// Begins a graceful stop of the whole runtime; what is left after `grace` is cut. The earliest of
    /// several deadlines wins. Always possible, however many commands wait.
    pub fn stop(&self, grace: Duration) {
        self.outside.stop((Time::ZERO + grace).as_nanos());
    }
}
