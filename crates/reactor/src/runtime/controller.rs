//! Handles by which other threads reach a service.

use std::{any::type_name, fmt, marker::PhantomData, time::Duration};

use crate::{
    clock::Time,
    guard::Kept,
    message::{Mailbox, Pending, Refused, RemoteSender, Reply},
    runtime::{Received, Service, dispatch::DeliverFn},
    sync::Arc,
};

/// Sends commands to a service from any thread. It is `Clone` and `Send`, even if the service is not.
///
/// Commands of one controller, of all types, arrive in the order sent. The runtime executes a command or
/// gives it back: after it begins to stop, it still executes queued commands, and then answers `Gone`. In a
/// child of fork(2), which does not have the loop, each command comes back as `Gone` at once, and a stop does
/// nothing.
pub struct Controller<S> {
    service: u16,
    remote: RemoteSender<DeliverFn>,
    of: PhantomData<fn(S)>,
}

impl<S> Clone for Controller<S> {
    fn clone(&self) -> Controller<S> {
        Controller { service: self.service, remote: self.remote.clone(), of: PhantomData }
    }
}

impl<S> fmt::Debug for Controller<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Controller of {}", type_name::<S>())
    }
}

impl<S: Service> Controller<S> {
    pub(crate) fn new(service: u16, mailbox: &Arc<Mailbox<DeliverFn>>) -> Controller<S> {
        Controller { service, remote: RemoteSender::new(mailbox), of: PhantomData }
    }

    /// Sends a command. Never blocks, and wakes the loop if it sleeps.
    ///
    /// A turn handles its input first, and then executes the commands that have arrived by then. So a command
    /// that arrives while the handlers of input run is executed in the same turn, before input that arrived
    /// meanwhile. Nothing else is promised between commands and input: a turn takes a bounded part of the
    /// input, so the service may also see a command before input that the peer sent earlier. If the order
    /// matters, send both the same way, or wait for an [answer](Controller::ask).
    ///
    /// # Errors
    /// [`Refused`] gives the command back: too many wait, or the service has stopped.
    pub fn send<M: Received<S> + Send>(&self, message: M) -> Result<(), Refused<M>> {
        send(&self.remote, self.service, message, M::deliver_command())
    }

    /// Sends a command. While the queue is full, blocks the calling thread up to this long.
    ///
    /// Threads that wait get room in no particular order, and a [`send`](Controller::send) may take the room
    /// before them. Call it from any thread but the loop's own, where it never waits. In the thread of
    /// another loop it blocks that loop, and two loops that wait for each other do so until the time is over.
    ///
    /// ```no_run
    /// # use reactor::*;
    /// # use std::time::Duration;
    /// # struct Log; struct Line(String);
    /// # impl Service for Log {}
    /// # impl Receive<Line> for Log {
    /// #     fn receive(&mut self, _: &mut Context<Self>, _: Line) -> Result { Ok(()) }
    /// # }
    /// # fn write(controller: Controller<Log>) {
    /// // A reader that is faster than the service is slowed down instead of refused.
    /// for line in std::io::stdin().lines().map_while(|line| line.ok()) {
    ///     if let Err(refused) = controller.send_timeout(Line(line), Duration::from_secs(5)) {
    ///         eprintln!("{refused}");
    ///         break;
    ///     }
    /// }
    /// # }
    /// ```
    /// # Errors
    /// [`Refused`] gives the command back: `Full` when the time is over, `Gone` when the service has stopped
    /// or stops during the wait, and at once `WouldDeadlock` when the queue is full and the calling thread is
    /// the loop's own.
    pub fn send_timeout<M: Received<S> + Send>(&self, message: M, up_to: Duration) -> Result<(), Refused<M>> {
        send_timeout(&self.remote, self.service, message, M::deliver_command(), up_to)
    }

    /// Returns a handle for commands of one type that does not name the service, for code that need not know
    /// the receiver.
    pub fn sender<M: Received<S> + Send>(&self) -> Sender<M> {
        let (service, remote) = (self.service, self.remote.clone());
        Sender { service, remote, deliver: M::deliver_command(), of: PhantomData }
    }

    /// Sends a command that carries a [`Reply`], and returns the pending answer, to wait for or to await in
    /// any executor. If the command cannot be sent, the answer is `Gone` at once.
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
        ask(&self.remote, |reply| self.send(command(reply)))
    }

    /// Begins a graceful stop of the whole runtime. Resources that remain after `grace` are cut off. The
    /// earliest of several deadlines wins. A full queue of commands does not delay it.
    pub fn stop(&self, grace: Duration) {
        self.remote.stop((Time::ZERO + grace).as_nanos());
    }
}

/// Sends commands of one type from any thread to a service whose type it does not name.
///
/// It is `Clone`, `Send` and `Sync`, even if the service is not. Like the [`Controller`] that made it, it
/// keeps [`run`](crate::run) from ending by itself. Commands that one thread sends through both arrive in the
/// order sent.
///
/// ```
/// use reactor::{Context, Reactor, Receive, Result, Sender, Service};
/// use std::time::Duration;
///
/// struct Celsius(f32);
///
/// /// Knows no service.
/// fn measure(to: Sender<Celsius>) {
///     to.send(Celsius(21.5)).expect("there is room");
/// }
///
/// struct Hottest(f32);
/// impl Service for Hottest {}
/// impl Receive<Celsius> for Hottest {
///     fn receive(&mut self, cx: &mut Context<Self>, Celsius(value): Celsius) -> Result {
///         self.0 = self.0.max(value);
///         cx.stop(Duration::ZERO);
///         Ok(())
///     }
/// }
///
/// let reactor = Reactor::spawn(|runtime| runtime.add(Hottest(f32::MIN)))?;
/// let sender = reactor.controller().sender::<Celsius>();
/// std::thread::spawn(move || measure(sender)).join().expect("it measures");
/// reactor.join()?;
/// # Ok::<(), reactor::Error>(())
/// ```
pub struct Sender<M> {
    service: u16,
    remote: RemoteSender<DeliverFn>,
    deliver: DeliverFn,
    of: PhantomData<fn(M)>,
}

impl<M: Send + 'static> Sender<M> {
    /// Sends a command, as [`Controller::send`] does.
    ///
    /// # Errors
    /// As for [`Controller::send`].
    pub fn send(&self, message: M) -> Result<(), Refused<M>> {
        send(&self.remote, self.service, message, self.deliver)
    }

    /// Sends a command, and blocks while the queue is full, as [`Controller::send_timeout`] does.
    ///
    /// # Errors
    /// As for [`Controller::send_timeout`].
    pub fn send_timeout(&self, message: M, up_to: Duration) -> Result<(), Refused<M>> {
        send_timeout(&self.remote, self.service, message, self.deliver, up_to)
    }

    /// Sends a command that carries a [`Reply`], as [`Controller::ask`] does.
    pub fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> M) -> Pending<T> {
        ask(&self.remote, |reply| self.send(command(reply)))
    }
}

impl<M> Clone for Sender<M> {
    fn clone(&self) -> Sender<M> {
        let Sender { service, deliver, of, .. } = *self;
        Sender { service, remote: self.remote.clone(), deliver, of }
    }
}

impl<M> fmt::Debug for Sender<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sender of {}", type_name::<M>())
    }
}

fn send<M: Send + 'static>(
    remote: &RemoteSender<DeliverFn>,
    service: u16,
    message: M,
    deliver: DeliverFn,
) -> Result<(), Refused<M>> {
    let sent = remote.send(service, Kept::new(message), deliver);
    sent.map_err(|refused| refused.map(Kept::into_inner))
}

fn send_timeout<M: Send + 'static>(
    remote: &RemoteSender<DeliverFn>,
    service: u16,
    message: M,
    deliver: DeliverFn,
    up_to: Duration,
) -> Result<(), Refused<M>> {
    let sent = remote.send_timeout(up_to, service, Kept::new(message), deliver);
    sent.map_err(|refused| refused.map(Kept::into_inner))
}

fn ask<T, M>(
    remote: &RemoteSender<DeliverFn>,
    send: impl FnOnce(Reply<T>) -> Result<(), Refused<M>>,
) -> Pending<T> {
    let (reply, pending) = Reply::channel(remote.loop_thread());
    // A refused command drops its reply, which is the answer.
    let _ = send(reply);
    pending
}
