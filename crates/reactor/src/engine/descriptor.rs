//! A descriptor on its way to another process, and the result of one receive.

use std::{
    fmt, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use super::{Source, Transport};

/// A descriptor to pass: any descriptor of the system, or its counterpart in a virtual world. Closed on drop.
///
/// ```
/// use reactor::{Bytes, Descriptor, Stream};
/// use std::os::unix::net::UnixStream;
///
/// let (ours, _theirs) = UnixStream::pair()?;
/// let descriptor = Descriptor::new(ours);
/// // Whoever gets it goes on with it as what it is, in either world.
/// let stream = Stream::new(Bytes).through(descriptor.into_transport()?);
/// # drop(stream);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Descriptor(DescriptorBacking);

enum DescriptorBacking {
    System(OwnedFd),
    Virtual(Transport),
}

impl Descriptor {
    /// Wraps a file, a socket, an end of a pipe or another descriptor, and leaves it as it is.
    pub fn new(descriptor: impl Into<OwnedFd>) -> Descriptor {
        Descriptor(DescriptorBacking::System(descriptor.into()))
    }

    /// Returns the descriptor itself, for direct system calls.
    ///
    /// # Errors
    /// `Unsupported` for a descriptor of a virtual world, which is closed.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        match self.0 {
            DescriptorBacking::System(descriptor) => Ok(descriptor),
            DescriptorBacking::Virtual(_) => Err(virtual_one()),
        }
    }

    /// Makes a transport from it, for [`Stream::through`](crate::Stream::through).
    ///
    /// # Errors
    /// As [`Transport::adopt`]. The descriptor is closed then.
    pub fn into_transport(self) -> io::Result<Transport> {
        match self.0 {
            DescriptorBacking::System(descriptor) => Transport::adopt(descriptor),
            DescriptorBacking::Virtual(transport) => Ok(transport),
        }
    }

    /// Makes a listener's transport from it, for [`Context::listen_on`](crate::Context::listen_on).
    ///
    /// # Errors
    /// As [`Transport::listener`]. The descriptor is closed then.
    pub fn into_listener(self) -> io::Result<Transport> {
        match self.0 {
            DescriptorBacking::System(descriptor) => Transport::listener(descriptor),
            DescriptorBacking::Virtual(transport) => Ok(transport),
        }
    }

    /// Returns the descriptor, unless it belongs to a virtual world.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.0 {
            DescriptorBacking::System(descriptor) => Some(descriptor.as_fd()),
            DescriptorBacking::Virtual(_) => None,
        }
    }

    /// Returns the source to watch.
    pub fn source(&self) -> Source<'_> {
        match &self.0 {
            DescriptorBacking::System(descriptor) => Source::of(descriptor),
            DescriptorBacking::Virtual(transport) => transport.source(),
        }
    }
}

impl From<OwnedFd> for Descriptor {
    fn from(descriptor: OwnedFd) -> Descriptor {
        Descriptor::new(descriptor)
    }
}

impl From<Transport> for Descriptor {
    fn from(transport: Transport) -> Descriptor {
        match transport.into_descriptor() {
            Ok(descriptor) => Descriptor::new(descriptor),
            Err(transport) => Descriptor(DescriptorBacking::Virtual(transport)),
        }
    }
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            DescriptorBacking::System(descriptor) => f.debug_tuple("Descriptor").field(descriptor).finish(),
            DescriptorBacking::Virtual(transport) => f.debug_tuple("Descriptor").field(transport).finish(),
        }
    }
}

/// The result of one receive from a Unix socket.
#[derive(Debug)]
pub struct Delivery {
    /// The number of bytes.
    pub bytes: usize,
    /// In the order sent, with CLOEXEC. There may be more than the caller uses; it should close the rest.
    pub descriptors: Vec<Descriptor>,
    /// More descriptors came than could be opened here, and those are closed.
    pub is_cut: bool,
    /// The packet was longer than the buffer, and the rest is lost. Never set for a stream.
    pub truncated: bool,
}

pub(crate) fn virtual_one() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "it is no descriptor of this system")
}
