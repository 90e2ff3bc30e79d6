//! A runtime in a separate thread.

use std::{io, mem, sync::mpsc, thread, time::Duration};

use crate::{
    error::Error,
    guard,
    runtime::{Controller, Receipt, Runtime, Service, ServiceId},
    sys::Birthplace,
};

/// A runtime in a separate thread, reached by the controller of one of its services.
///
/// Dropping it stops the runtime without grace, and joins the thread. [`join`](Reactor::join) waits until the
/// runtime ends by itself.
///
/// A child of fork(2) does not have the thread. There the drop does nothing, and any other use is an error,
/// as with its controllers. The parent's runtime continues. A child must make its own reactor.
#[derive(Debug)]
pub struct Reactor<S: Service> {
    controller: Option<Controller<S>>,
    thread: Option<thread::JoinHandle<Result<Receipt, Error>>>,
    birthplace: Birthplace,
}

impl<S: Service> Reactor<S> {
    /// Starts a thread, makes a runtime in it, and lets `build` add the services there, so they need not be
    /// `Send`. Returns when they have started.
    ///
    /// ```
    /// use reactor::{Reactor, Service};
    /// struct Idle;
    /// impl Service for Idle {}
    /// let reactor = Reactor::spawn(|runtime| runtime.add(Idle))?;
    /// reactor.controller().stop(std::time::Duration::ZERO);
    /// reactor.join()?;
    /// # Ok::<(), reactor::Error>(())
    /// ```
    ///
    /// # Errors
    /// The error of the thread, of the engine, or of `build`. Nothing is left behind.
    pub fn spawn(
        build: impl FnOnce(&mut Runtime) -> Result<ServiceId<S>, Error> + Send + 'static,
    ) -> Result<Reactor<S>, Error> {
        Reactor::spawn_with(Runtime::new, build)
    }

    /// Starts a runtime that `make` makes in the new thread.
    ///
    /// # Errors
    /// As [`spawn`](Reactor::spawn).
    pub fn spawn_with(
        make: impl FnOnce() -> Result<Runtime, Error> + Send + 'static,
        build: impl FnOnce(&mut Runtime) -> Result<ServiceId<S>, Error> + Send + 'static,
    ) -> Result<Reactor<S>, Error> {
        Reactor::spawn_on(thread::Builder::new().name("reactor".to_owned()), make, build)
    }

    /// Starts such a runtime in a thread with this name and stack size.
    ///
    /// ```
    /// use reactor::{Reactor, Runtime, Service};
    /// struct Idle;
    /// impl Service for Idle {}
    /// let thread = std::thread::Builder::new().name("acceptor".to_owned()).stack_size(256 << 10);
    /// let reactor = Reactor::spawn_on(thread, Runtime::new, |runtime| runtime.add(Idle))?;
    /// # reactor.controller().stop(std::time::Duration::ZERO);
    /// # reactor.join()?;
    /// # Ok::<(), reactor::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`spawn`](Reactor::spawn).
    pub fn spawn_on(
        thread: thread::Builder,
        make: impl FnOnce() -> Result<Runtime, Error> + Send + 'static,
        build: impl FnOnce(&mut Runtime) -> Result<ServiceId<S>, Error> + Send + 'static,
    ) -> Result<Reactor<S>, Error> {
        let (started, start) = mpsc::sync_channel(1);
        let body = move || {
            let mut runtime = make()?;
            let service = build(&mut runtime)?;
            // The receiver waits below, so it cannot be gone.
            let _ = started.send(runtime.controller(service));
            drop(started);
            runtime.run()
        };
        let thread = thread.spawn(body).map_err(|error| Error::os("spawn", "reactor thread", error))?;
        match start.recv() {
            Ok(controller) => Ok(Reactor {
                controller: Some(controller),
                thread: Some(thread),
                birthplace: Birthplace::here(),
            }),
            Err(_) => match joined(thread) {
                Err(error) => Err(error),
                Ok(_) => {
                    Err(Error::Misuse { operation: "spawn", why: "the runtime ended before it started" })
                }
            },
        }
    }

    /// Returns a controller of the service that `build` returned.
    pub fn controller(&self) -> Controller<S> {
        self.controller.clone().expect("only join and drop take the controller")
    }

    /// Waits until the runtime has ended: after a stop, or when nothing is left to do. The reactor's own
    /// controller does not keep it alive, but its clones do.
    ///
    /// # Errors
    /// The error of a broken engine. [`Error::Misuse`] on the reactor's own thread, because it would wait for
    /// itself. In a child of fork(2), [`Error::Os`] at once.
    pub fn join(mut self) -> Result<Receipt, Error> {
        self.birthplace.check().map_err(|error| Error::os("join", "reactor thread", error))?;
        self.controller = None;
        match self.thread.take() {
            Some(thread) if thread.thread().id() != thread::current().id() => joined(thread),
            _ => Err(Error::Misuse { operation: "join", why: "a reactor cannot wait for itself" }),
        }
    }
}

impl<S: Service> Drop for Reactor<S> {
    fn drop(&mut self) {
        if !self.birthplace.is_here() {
            // The thread does not exist in this process, so not even detaching its handle is safe.
            return mem::forget(self.thread.take());
        }
        if let Some(controller) = self.controller.take() {
            controller.stop(Duration::ZERO);
        }
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            // A drop cannot return the result. Callers that need it use `join`.
            let _ = joined(thread);
        }
    }
}

fn joined(thread: thread::JoinHandle<Result<Receipt, Error>>) -> Result<Receipt, Error> {
    thread.join().unwrap_or_else(|payload| {
        Err(Error::os("join", "reactor thread", io::Error::other(guard::said(payload))))
    })
}
