//! The calls by which a service opens datagram sockets.

use super::{Context, name_of, to_address};
use crate::{
    address::ToAddress,
    error::{Error, Result},
    id::Id,
    options::{BindOptions, Group},
    resource::{Datagrams, datagram::attach},
    runtime::Handled,
};

/// # Datagrams
///
/// [`send`](Context::send) sends a datagram, and everything else works as for a stream.
impl<S> Context<'_, S> {
    /// Opens a datagram socket, bound to an IP address and port, to a Unix path or name, or to
    /// [`Address::Unnamed`](crate::Address::Unnamed). The last is a Unix socket without a name, to which no
    /// peer can answer.
    ///
    /// # Errors
    /// The address is invalid, the system refuses it (for example EADDRINUSE), or the engine has no datagrams
    /// (`Unsupported`).
    pub fn bind<R: 'static>(
        &mut self,
        address: impl ToAddress,
        datagrams: Datagrams<R>,
    ) -> Result<Id<Datagrams<R>>, Error>
    where
        Datagrams<R>: Handled<S>,
    {
        self.bind_with(address, &BindOptions::default(), datagrams)
    }

    /// Opens a socket as [`bind`](Context::bind), with options, for example connected to a peer or for
    /// broadcast.
    ///
    /// # Errors
    /// As [`bind`](Context::bind).
    pub fn bind_with<R: 'static>(
        &mut self,
        address: impl ToAddress,
        options: &BindOptions,
        datagrams: Datagrams<R>,
    ) -> Result<Id<Datagrams<R>>, Error>
    where
        Datagrams<R>: Handled<S>,
    {
        let address = to_address("bind", &address)?;
        let transport = self.core.engine.bind(&address, options);
        let transport = transport.map_err(|error| Error::os("bind", &address, error))?;
        let table = <Datagrams<R> as Handled<S>>::table_for();
        let key = attach(datagrams, self.core, self.index, table, transport);
        key.map(Id::new).map_err(|(_, error)| error)
    }

    /// Joins a multicast group. From now on the socket receives datagrams sent to the group and the socket's
    /// port.
    ///
    /// # Errors
    /// [`Error::Os`] with the errors of setsockopt(2) for IP_ADD_MEMBERSHIP and IPV6_JOIN_GROUP. `NotFound`
    /// if the socket is gone.
    pub fn join<R: 'static>(&mut self, id: Id<Datagrams<R>>, group: &Group) -> Result<(), Error> {
        self.set_member("join", id, group, true)
    }

    /// Leaves a multicast group.
    ///
    /// # Errors
    /// As [`join`](Context::join). EADDRNOTAVAIL if the socket is not in the group.
    pub fn leave<R: 'static>(&mut self, id: Id<Datagrams<R>>, group: &Group) -> Result<(), Error> {
        self.set_member("leave", id, group, false)
    }

    fn set_member<R: 'static>(
        &mut self,
        operation: &'static str,
        id: Id<Datagrams<R>>,
        group: &Group,
        member: bool,
    ) -> Result<(), Error> {
        let answer = self.find(id.key()).and_then(|()| self.core.engine.set_member(id.key(), group, member));
        answer.map_err(|error| {
            Error::os(operation, format_args!("{} on {}", group.address(), name_of(id)), error)
        })
    }
}
