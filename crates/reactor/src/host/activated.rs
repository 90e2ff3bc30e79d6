//! A descriptor that a supervisor opened. [`crate::systemd`] shows it to users.

use crate::{
    engine::{Descriptor, Transport},
    error::Error,
};

/// A descriptor that a supervisor opened for this process.
///
/// [`Context::activated`](crate::Context::activated) has an example.
#[derive(Debug)]
pub struct Activated {
    name: String,
    descriptor: Descriptor,
}

impl Activated {
    /// Wraps a descriptor that the supervisor of a virtual world opened, for
    /// [`Host::activated`](crate::host::Host::activated).
    pub fn new(name: &str, descriptor: Descriptor) -> Activated {
        Activated { name: name.to_owned(), descriptor }
    }

    /// Returns the descriptor's name (`FileDescriptorName=` of the socket's unit), or `unknown` if the
    /// supervisor gave none.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the descriptor itself. Use this for a datagram socket, for a connection that the supervisor
    /// accepted (`Accept=yes`), and for a [stored](crate::systemd::Notice::store) descriptor.
    pub fn into_descriptor(self) -> Descriptor {
        self.descriptor
    }

    /// Converts it to a listener, for [`Context::listen_on`](crate::Context::listen_on).
    ///
    /// # Errors
    /// It is not a listening stream socket.
    pub fn into_listener(self) -> Result<Transport, Error> {
        self.descriptor.into_listener().map_err(|error| Error::os("listen", self.name, error))
    }
}
