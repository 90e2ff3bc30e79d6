//! Sources, which an engine watches ([`Source`], borrowed), and transports, which it owns ([`Transport`]): a
//! descriptor or a virtual one.

#[cfg(unix)]
use std::os::fd::{AsFd as AsDescriptor, BorrowedFd as Borrowed, OwnedFd as Owned};
#[cfg(windows)]
use std::os::windows::io::{AsSocket as AsDescriptor, BorrowedSocket as Borrowed, OwnedSocket as Owned};
use std::{fmt, io};

use super::Medium;

/// A borrowed source of events: a descriptor (on Windows a socket), or a virtual source of a simulated
/// engine.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a>(SourceKind<'a>);

#[derive(Clone, Copy, Debug)]
enum SourceKind<'a> {
    Descriptor(Borrowed<'a>),
    Virtual(u64),
}

/// Wraps a borrowed descriptor, for the same lifetime.
impl<'a> From<Borrowed<'a>> for Source<'a> {
    fn from(descriptor: Borrowed<'a>) -> Source<'a> {
        Source(SourceKind::Descriptor(descriptor))
    }
}

impl<'a> Source<'a> {
    /// Borrows the descriptor of a file, a socket or another owner.
    #[cfg(unix)]
    pub fn of(owner: &'a impl AsDescriptor) -> Source<'a> {
        Source(SourceKind::Descriptor(owner.as_fd()))
    }

    /// Borrows the socket of its owner.
    #[cfg(windows)]
    pub fn of(owner: &'a impl AsDescriptor) -> Source<'a> {
        Source(SourceKind::Descriptor(owner.as_socket()))
    }

    /// Names a source that only a simulated engine knows, by its number there.
    pub fn hosted(number: u64) -> Source<'static> {
        Source(SourceKind::Virtual(number))
    }

    /// Returns the descriptor, unless the source is virtual.
    #[inline]
    pub fn descriptor(self) -> Option<Borrowed<'a>> {
        match self.0 {
            SourceKind::Descriptor(descriptor) => Some(descriptor),
            SourceKind::Virtual(_) => None,
        }
    }

    /// Returns the descriptor, for callers that cannot use a virtual source.
    ///
    /// # Errors
    /// `Unsupported` for a virtual source.
    pub(crate) fn real(self) -> io::Result<Borrowed<'a>> {
        self.descriptor().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn identity(self) -> Identity {
        match self.0 {
            #[cfg(unix)]
            SourceKind::Descriptor(descriptor) => {
                Identity::Descriptor(std::os::fd::AsRawFd::as_raw_fd(&descriptor))
            }
            #[cfg(windows)]
            SourceKind::Descriptor(socket) => {
                Identity::Descriptor(std::os::windows::io::AsRawSocket::as_raw_socket(&socket))
            }
            SourceKind::Virtual(number) => Identity::Virtual(number),
        }
    }

    /// Returns the number of a virtual source.
    #[inline]
    pub fn number(self) -> Option<u64> {
        match self.0 {
            SourceKind::Descriptor(_) => None,
            SourceKind::Virtual(number) => Some(number),
        }
    }
}

/// The identity of a source, as far as its number shows it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    Virtual(u64),
    #[cfg(unix)]
    Descriptor(std::os::fd::RawFd),
    #[cfg(windows)]
    Descriptor(std::os::windows::io::RawSocket),
}

/// An owned connection to the other side: a socket, an end of a pipe, or a virtual one of a simulated engine.
/// Closed on drop.
pub struct Transport(TransportBacking);

enum TransportBacking {
    Descriptor(Owned, Medium),
    Virtual { number: u64, medium: Medium, guard: Box<dyn TransportGuard> },
}

/// The guard of a simulated engine's transport. Its drop closes the end in the other world.
pub trait TransportGuard: Send + Sync + 'static {
    /// Makes the close a reset, if the world has resets: output that belongs to the transport is lost.
    ///
    /// Called at most once, right before the drop. The default leaves the close as it is.
    fn reset_at_drop(&mut self) {}
}

/// A guard that closes nothing.
impl TransportGuard for () {}

impl Transport {
    /// Wraps a stream socket or a listener that is non-blocking and CLOEXEC.
    pub fn new(descriptor: impl Into<Owned>) -> Transport {
        Transport::of(descriptor, Medium::SOCKET)
    }

    /// Wraps a descriptor that is non-blocking and CLOEXEC, and whose abilities are known. An engine uses it
    /// to give a transport back.
    pub fn of(descriptor: impl Into<Owned>, medium: Medium) -> Transport {
        Transport(TransportBacking::Descriptor(descriptor.into(), medium))
    }

    /// Takes a descriptor that somebody else opened, for example a connected socket, either end of a pipe, or
    /// a device. Detects its abilities, and makes it non-blocking and CLOEXEC.
    ///
    /// Non-blocking is a property of the open file description, which other processes may share. So use
    /// [`stdio`](crate::stdio) for standard input and output instead; they stay as they are.
    ///
    /// # Errors
    /// `InvalidInput` for a regular file or a folder, because nothing can wait for those; otherwise as
    /// fcntl(2).
    pub fn adopt(descriptor: impl Into<Owned>) -> io::Result<Transport> {
        crate::sys::adopt(descriptor.into())
    }

    /// Takes a listening socket that somebody else opened, for
    /// [`Context::listen_on`](crate::Context::listen_on). Makes it non-blocking and CLOEXEC.
    ///
    /// # Errors
    /// `InvalidInput` unless it is a listening stream socket, as far as the system shows that; otherwise as
    /// fcntl(2).
    pub fn listener(socket: impl Into<Owned>) -> io::Result<Transport> {
        crate::sys::listener(socket.into())
    }

    /// Makes a transport that only a simulated engine knows, by its number there. Dropping `guard` closes it.
    pub fn hosted(number: u64, guard: impl TransportGuard) -> Transport {
        Transport::hosted_as(number, Medium::SOCKET, guard)
    }

    /// Makes such a transport with fewer abilities than a socket.
    pub fn hosted_as(number: u64, medium: Medium, guard: impl TransportGuard) -> Transport {
        Transport(TransportBacking::Virtual { number, medium, guard: Box::new(guard) })
    }

    /// Returns the abilities of the transport.
    #[inline]
    pub fn medium(&self) -> Medium {
        match &self.0 {
            TransportBacking::Descriptor(_, medium) | TransportBacking::Virtual { medium, .. } => *medium,
        }
    }

    /// Returns the source to watch.
    #[inline]
    pub fn source(&self) -> Source<'_> {
        match &self.0 {
            TransportBacking::Descriptor(descriptor, _) => Source::of(descriptor),
            TransportBacking::Virtual { number, .. } => Source::hosted(*number),
        }
    }

    /// Makes the close by drop a reset, if the transport has resets.
    pub(crate) fn reset_at_drop(&mut self) {
        match &mut self.0 {
            TransportBacking::Descriptor(descriptor, _) => {
                crate::sys::reset_at_close(crate::sys::borrow(descriptor))
            }
            TransportBacking::Virtual { guard, .. } => guard.reset_at_drop(),
        }
    }

    /// Returns the descriptor itself.
    ///
    /// # Errors
    /// A virtual transport has none, and comes back.
    pub fn into_descriptor(self) -> Result<Owned, Transport> {
        match self.0 {
            TransportBacking::Descriptor(descriptor, _) => Ok(descriptor),
            held => Err(Transport(held)),
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            TransportBacking::Descriptor(descriptor, _) => {
                f.debug_tuple("Transport").field(descriptor).finish()
            }
            TransportBacking::Virtual { number, .. } => write!(f, "Transport(virtual {number})"),
        }
    }
}
