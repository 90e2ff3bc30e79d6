//! What a process has besides sockets and files: children, signals, standard streams, a supervisor's sockets.

use std::{io, process::Command};

use super::Context;
use crate::{
    engine::Transport,
    error::Error,
    host::StandIn,
    id::Id,
    os::{
        process::{Child, SpawnOptions, program},
        signals::{self, Signal, Signals},
        stdio,
        systemd::{self, Activated},
    },
    runtime::Handled,
};

/// # Processes, signals, standard streams
///
/// On Unix. In a simulated world, all of them belong to the node.
impl<S> Context<'_, S> {
    /// Starts a program; see [`process`](crate::process). The service then adds the parts of the [`Child`].
    ///
    /// # Errors
    /// The program cannot be executed (ENOENT, EACCES and others), or the system has run out of processes or
    /// descriptors. No child is left then.
    pub fn spawn(&mut self, command: &mut Command, options: &SpawnOptions) -> Result<Child, Error> {
        let child = self.host().spawn(command, options);
        child.map_err(|error| Error::os("spawn", program(command), error))
    }

    /// Receives the process's signals. They no longer end the process, and the service gets them as events
    /// instead.
    ///
    /// # Errors
    /// As [`Signals::of_process`], and as [`add`](Context::add).
    pub fn signals(&mut self, signals: impl IntoIterator<Item = Signal>) -> Result<Id<Signals>, Error>
    where
        Signals: Handled<S>,
    {
        let signals = signals::open(self.host(), signals)?;
        self.add(signals).map_err(|rejected| rejected.error)
    }

    /// Returns standard input, for a read-only stream; see [`stdio`](crate::stdio). In a simulated world, it
    /// carries the simulated keyboard's input.
    ///
    /// # Errors
    /// As [`stdio::stdin`](crate::stdio::stdin).
    pub fn stdin(&mut self) -> Result<Transport, Error> {
        self.standard(StandIn::Stdin, "stdin", stdio::stdin)
    }

    /// Returns standard output, for a write-only stream.
    ///
    /// # Errors
    /// As [`stdio::stdout`](crate::stdio::stdout).
    pub fn stdout(&mut self) -> Result<Transport, Error> {
        self.standard(StandIn::Stdout, "stdout", stdio::stdout)
    }

    /// Returns standard error, for a write-only stream.
    ///
    /// # Errors
    /// As [`stdio::stderr`](crate::stdio::stderr).
    pub fn stderr(&mut self) -> Result<Transport, Error> {
        self.standard(StandIn::Stderr, "stderr", stdio::stderr)
    }

    /// Takes the descriptors that a supervisor opened for this process, in the supervisor's order, as
    /// [`systemd::activated`] does. In a simulated world, it takes those that the world's supervisor opened for the
    /// node.
    ///
    /// # Errors
    /// As [`systemd::activated`].
    ///
    /// ```no_run
    /// use reactor::{Bytes, Context, Event, Handle, Id, Result, Service, Stream};
    ///
    /// struct Echo;
    ///
    /// impl Service for Echo {
    ///     fn start(&mut self, cx: &mut Context<Self>) -> Result {
    ///         let sockets = cx.activated()?;
    ///         // An empty list means that a person started the program by hand.
    ///         if sockets.is_empty() {
    ///             cx.listen("127.0.0.1:7007", |_| Some(Stream::new(Bytes)))?;
    ///         }
    ///         for socket in sockets {
    ///             cx.listen_on(socket.into_listener()?, |_| Some(Stream::new(Bytes)))?;
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// impl Handle<Stream> for Echo {
    ///     fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
    ///         if let Event::Received(bytes) = event {
    ///             cx.send(id, bytes);
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// fn main() -> Result {
    ///     reactor::run(Echo)?;
    ///     Ok(())
    /// }
    /// ```
    pub fn activated(&mut self) -> Result<Vec<Activated>, Error> {
        self.host().activated().map_or_else(systemd::activated, Ok)
    }

    fn standard(
        &mut self,
        of: StandIn,
        name: &'static str,
        own: impl FnOnce() -> io::Result<Transport>,
    ) -> Result<Transport, Error> {
        let result = self.host().stand_in(of).unwrap_or_else(own);
        result.map_err(|error| Error::os("open", name, error))
    }
}
