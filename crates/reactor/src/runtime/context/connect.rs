//! Listening, connecting, and adding resources.

use super::{Context, name_of, to_address};
use crate::{
    address::{Address, ToAddress},
    engine::Transport,
    error::{Error, Result},
    id::Id,
    options::{ConnectOptions, ListenOptions},
    resource::{
        Connection, Driver, Listener, Resource, is_passing,
        listener::{Accepting, adopt, enroll},
    },
    runtime::{Handled, Rejected},
};

/// # Listen, connect, add
///
/// A listener makes a stream of each connection that it accepts, and `connect` begins one. The service makes
/// every other resource first, and then adds it.
impl<S> Context<'_, S> {
    /// Listens on an IP address and port or on a Unix socket. The runtime calls `accept` with the peer's
    /// address of each connection. `None` closes the connection.
    ///
    /// # Errors
    /// The address is invalid, or the system refuses it (for example EADDRINUSE).
    pub fn listen<R: Connection + Handled<S>>(
        &mut self,
        address: impl ToAddress,
        accept: impl FnMut(&Address) -> Option<R> + 'static,
    ) -> Result<Id<Listener<R>>, Error> {
        self.listen_with(address, &ListenOptions::default(), accept)
    }

    /// Listens as [`listen`](Context::listen), with options.
    ///
    /// # Errors
    /// As [`listen`](Context::listen).
    pub fn listen_with<R: Connection + Handled<S>>(
        &mut self,
        address: impl ToAddress,
        options: &ListenOptions,
        accept: impl FnMut(&Address) -> Option<R> + 'static,
    ) -> Result<Id<Listener<R>>, Error> {
        self.listen_for(&address, options, Accepting::new(Some(Box::new(accept))))
    }

    /// Listens as [`listen_with`](Context::listen_with), but asks [`Handle::accept`](crate::Handle::accept)
    /// for each connection. So the answer may depend on the service's state and use its context.
    ///
    /// ```
    /// use reactor::{Accept, Address, Bytes, Closed, Context, Event, Handle, Id, IdMap, Listener, ListenOptions};
    /// use reactor::{Result, Service, Stream};
    /// use std::{collections::HashMap, net::IpAddr};
    ///
    /// /// Takes at most ten connections of one address.
    /// #[derive(Default)]
    /// struct Server {
    ///     counts: HashMap<IpAddr, u32>,
    ///     /// `closed` cannot ask for the peer any more, so it looks here.
    ///     peers: IdMap<Stream, IpAddr>,
    ///     accepted: Option<IpAddr>,
    /// }
    ///
    /// impl Service for Server {
    ///     fn start(&mut self, cx: &mut Context<Self>) -> Result {
    ///         let listener = cx.listen_asking::<Stream>("127.0.0.1:0", &ListenOptions::default())?;
    ///         # let address = cx.local(listener)?;
    ///         # for _ in 0..11 {
    ///         #     cx.connect(&address, Stream::new(Bytes))?;
    ///         # }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// impl Handle<Stream> for Server {
    ///     fn accept(&mut self, _: &mut Context<Self>, _: Id<Listener<Stream>>, peer: &Address) -> Accept<Stream> {
    ///         self.accepted = peer.ip().map(|peer| peer.ip());
    ///         match self.accepted.and_then(|ip| self.counts.get(&ip)) {
    ///             Some(10..) => Accept::Refuse,
    ///             _ => Accept::Take(Stream::new(Bytes)),
    ///         }
    ///     }
    ///
    ///     fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
    ///         # if cx.get(id).is_some_and(Stream::is_outbound) {
    ///         #     return Ok(());
    ///         # }
    ///         // This is the connection that `accept` has just taken.
    ///         if let (Event::Open, Some(ip)) = (event, self.accepted.take()) {
    ///             *self.counts.entry(ip).or_default() += 1;
    ///             self.peers.insert(id, ip);
    ///         }
    ///         # let _ = cx;
    ///         Ok(())
    ///     }
    ///
    ///     fn closed(&mut self, cx: &mut Context<Self>, id: Id<Stream>, _: Stream, _: Closed) {
    ///         # if self.peers.len() == 10 {
    ///         #     cx.stop(std::time::Duration::ZERO);
    ///         # }
    ///         if let Some(ip) = self.peers.remove(id)
    ///             && let Some(count) = self.counts.get_mut(&ip)
    ///         {
    ///             *count -= 1;
    ///             if *count == 0 {
    ///                 self.counts.remove(&ip);
    ///             }
    ///         }
    ///         # let _ = cx;
    ///     }
    /// }
    /// # reactor::run(Server::default())?;
    /// # Ok::<(), reactor::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`listen`](Context::listen).
    pub fn listen_asking<R: Connection + Handled<S>>(
        &mut self,
        address: impl ToAddress,
        options: &ListenOptions,
    ) -> Result<Id<Listener<R>>, Error> {
        self.listen_for(&address, options, Accepting::<R>::new(None))
    }

    /// Listens on a socket that other code opened, which is a transport made by [`Transport::listener`].
    ///
    /// # Errors
    /// The engine cannot take the socket, a limit is reached, or the runtime is stopping.
    pub fn listen_on<R: Connection + Handled<S>>(
        &mut self,
        listener: Transport,
        accept: impl FnMut(&Address) -> Option<R> + 'static,
    ) -> Result<Id<Listener<R>>, Error> {
        if self.core.stopping {
            return Err(Error::Misuse { operation: "listen", why: "the runtime is stopping" });
        }
        let accepting = Accepting::new(Some(Box::new(accept)));
        enroll(self.core, self.index, R::listener_table(), listener, accepting).map(Id::new)
    }

    /// Begins to connect. `Open` or `closed` follows. Items may be sent at once, and wait.
    ///
    /// A transient refusal is not an error: while the accept queue of a Unix listener is full
    /// (Linux), the runtime tries again until the deadline of the connect (for `Descriptors`: 30 s). All
    /// other refusals are final, because the system does not distinguish those that pass.
    ///
    /// # Errors
    /// The address is invalid (names are not resolved), or the system refuses at once: for example ENETUNREACH
    /// while the machine is offline, or EMFILE. Other refusals arrive in [`closed`](crate::Handle::closed). A
    /// service that connects again should treat both alike.
    pub fn connect<R: Connection + Handled<S>>(
        &mut self,
        address: impl ToAddress,
        stream: R,
    ) -> Result<Id<R>, Error> {
        self.connect_with(address, &ConnectOptions::default(), stream)
    }

    /// Begins to connect with these options.
    ///
    /// # Errors
    /// As [`connect`](Context::connect).
    pub fn connect_with<R: Connection + Handled<S>>(
        &mut self,
        address: impl ToAddress,
        options: &ConnectOptions,
        stream: R,
    ) -> Result<Id<R>, Error> {
        let address = to_address("connect", &address)?;
        let key = match self.core.engine.connect(&address, options) {
            Ok(transport) => stream.attach(self.core, self.index, R::table_for(), transport, Some(&address)),
            Err(error) if is_passing(&error) => {
                stream.attempt(self.core, self.index, R::table_for(), &address, options)
            }
            Err(error) => return Err(Error::os("connect", &address, error)),
        };
        key.map(Id::new).map_err(|(_, error)| error)
    }

    /// Adds a resource.
    ///
    /// # Errors
    /// [`Rejected`] gives it back if the engine cannot watch it, if a limit is reached, or if it is a stream
    /// without a transport.
    pub fn add<R: Resource + Handled<S>>(&mut self, resource: R) -> Result<Id<R>, Rejected<R>> {
        match <R::Driver as Driver<R>>::enroll(resource, self.core, self.index, R::table_for()) {
            Ok(key) => Ok(Id::new(key)),
            Err((resource, error)) => Err(Rejected { resource, error }),
        }
    }

    /// Returns the local address of a stream or listener. A service learns its listener's port from it.
    ///
    /// # Errors
    /// [`Error::Os`], as getsockname(2); `NotFound` when it is gone.
    pub fn local<R: Resource>(&self, id: Id<R>) -> Result<Address, Error> {
        let answer = self.find(id.key()).and_then(|()| self.core.engine.local(id.key()));
        answer.map_err(|error| Error::os("local", name_of(id), error))
    }

    /// Returns the peer's address of a stream.
    ///
    /// # Errors
    /// [`Error::Os`], as getpeername(2); `NotFound` when it is gone.
    pub fn peer<R: Resource>(&self, id: Id<R>) -> Result<Address, Error> {
        let answer = self.find(id.key()).and_then(|()| self.core.engine.peer(id.key()));
        answer.map_err(|error| Error::os("peer", name_of(id), error))
    }

    /// Returns the credentials of the peer of a Unix socket, as the system recorded them at the connect.
    ///
    /// # Errors
    /// [`Error::Os`], as `Credentials::of_peer`; `NotFound` when it is gone.
    pub fn peer_credentials<R: Connection>(&self, id: Id<R>) -> Result<crate::Credentials, Error> {
        let answer = self.find(id.key()).and_then(|()| R::credentials(self.core, id.key()));
        answer.map_err(|error| Error::os("peer credentials", name_of(id), error))
    }

    fn listen_for<R: Connection + Handled<S>>(
        &mut self,
        address: &impl ToAddress,
        options: &ListenOptions,
        accepting: Accepting<R>,
    ) -> Result<Id<Listener<R>>, Error> {
        let address = to_address("listen", address)?;
        if self.core.stopping {
            return Err(Error::Misuse { operation: "listen", why: "the runtime is stopping" });
        }
        let accepting = accepting.turning_away(options.turn_away);
        // The service had this listener in an earlier life.
        if let Some(key) = self.core.orphan(self.index, &address) {
            adopt(self.core, key, R::listener_table(), accepting);
            return Ok(Id::new(key));
        }
        let transport = self.core.engine.listen(&address, options);
        let transport = transport.map_err(|error| Error::os("listen", &address, error))?;
        let key = enroll(self.core, self.index, R::listener_table(), transport, accepting)?;
        self.core.asked.insert(key, address);
        Ok(Id::new(key))
    }
}
