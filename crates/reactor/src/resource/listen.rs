//! The calls by which a service opens listeners.

use super::{Connection, Listener, listener};
use crate::{
    address::{Address, ToAddress},
    engine::Transport,
    error::{Error, Result},
    id::Id,
    options::ListenOptions,
    runtime::{Context, Handled, context::to_address},
};

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
        self.listen_for(&address, options, listener::Accepting::new(Some(Box::new(accept))))
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
        let accepting = listener::Accepting::new(Some(Box::new(accept)));
        listener::enroll(self.core, self.index, R::listener_table(), listener, accepting).map(Id::new)
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
        self.listen_for(&address, options, listener::Accepting::<R>::new(None))
    }

    fn listen_for<R: Connection + Handled<S>>(
        &mut self,
        address: &impl ToAddress,
        options: &ListenOptions,
        accepting: listener::Accepting<R>,
    ) -> Result<Id<Listener<R>>, Error> {
        let address = to_address("listen", address)?;
        if self.core.stopping {
            return Err(Error::Misuse { operation: "listen", why: "the runtime is stopping" });
        }
        let accepting = accepting.turning_away(options.turn_away);
        // The service had this listener in an earlier life.
        if let Some(key) = self.core.orphan(self.index, &address) {
            listener::adopt(self.core, key, R::listener_table(), accepting);
            return Ok(Id::new(key));
        }
        let transport = self.core.engine.listen(&address, options);
        let transport = transport.map_err(|error| Error::os("listen", &address, error))?;
        let key = listener::enroll(self.core, self.index, R::listener_table(), transport, accepting)?;
        self.core.asked.insert(key, address);
        Ok(Id::new(key))
    }
}
