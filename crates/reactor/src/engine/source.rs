//! What an engine watches ([`Source`], borrowed) and owns ([`Transport`]): a descriptor or a virtual one.

#[cfg(unix)]
use std::os::fd::{AsFd as AsDescriptor, BorrowedFd as Borrowed, OwnedFd as Owned};
#[cfg(windows)]
use std::os::windows::io::{AsSocket as AsDescriptor, BorrowedSocket as Borrowed, OwnedSocket as Owned};
use std::{fmt, io};

use super::Medium;

/// A borrowed thing to wait for: a descriptor (on Windows a socket), or a virtual source of a simulated
/// engine.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a>(Watched<'a>);

#[derive(Clone, Copy, Debug)]
enum Watched<'a> {
    Descriptor(Borrowed<'a>),
    Virtual(u64),
}

/// Of a descriptor that is borrowed already, for as long as it is.
impl<'a> From<Borrowed<'a>> for Source<'a> {
    fn from(descriptor: Borrowed<'a>) -> Source<'a> {
        Source(Watched::Descriptor(descriptor))
    }
}

impl<'a> Source<'a> {
    /// The descriptor of a file, socket, ..
    #[cfg(unix)]
    pub fn of(owner: &'a impl AsDescriptor) -> Source<'a> {
        Source(Watched::Descriptor(owner.as_fd()))
    }

    /// The socket of a socket's owner.
    #[cfg(windows)]
    pub fn of(owner: &'a impl AsDescriptor) -> Source<'a> {
        Source(Watched::Descriptor(owner.as_socket()))
    }

    /// A source that only a simulated engine knows, by its number there.
    pub fn hosted(number: u64) -> Source<'static> {
        Source(Watched::Virtual(number))
    }

    /// The descriptor, unless it is a virtual source.
    #[inline]
    pub fn descriptor(self) -> Option<Borrowed<'a>> {
        match self.0 {
            Watched::Descriptor(descriptor) => Some(descriptor),
            Watched::Virtual(_) => None,
        }
    }

    /// The descriptor, for whoever knows nothing else.
    ///
    /// # Errors
    /// `Unsupported` for a virtual source.
    pub(crate) fn real(self) -> io::Result<Borrowed<'a>> {
        self.descriptor().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn identity(self) -> Identity {
        match self.0 {
            #[cfg(unix)]
            Watched::Descriptor(descriptor) => {
                Identity::Descriptor(std::os::fd::AsRawFd::as_raw_fd(&descriptor))
            }
            #[cfg(windows)]
            Watched::Descriptor(socket) => {
                Identity::Descriptor(std::os::windows::io::AsRawSocket::as_raw_socket(&socket))
            }
            Watched::Virtual(number) => Identity::Virtual(number),
        }
    }

    /// The number of a virtual source.
    #[inline]
    pub fn number(self) -> Option<u64> {
        match self.0 {
            Watched::Descriptor(_) => None,
            Watched::Virtual(number) => Some(number),
        }
    }
}

/// Which source it is, as far as its number tells.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    Virtual(u64),
    #[cfg(unix)]
    Descriptor(std::os::fd::RawFd),
    #[cfg(windows)]
    Descriptor(std::os::windows::io::RawSocket),
}

/// What a process has and a resource is made of, and a virtual world may have in its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StandIn {
    /// These signals. Each read gives one pending kind, as [`Signals::record`](crate::signals::Signals::record)
    /// writes it.
    #[cfg(unix)]
    Signals(crate::signals::SignalSet),
    /// The supervisor that the environment names; `NotFound` without one. The first read gives the watchdog's
    /// interval: eight bytes of microseconds, the lowest first, 0 without one. What is [passed](super::Engine::pass)
    /// are notices, each whole, with what is to be stored.
    #[cfg(unix)]
    Supervisor,
    /// Standard input: a transport that is only read.
    #[cfg(unix)]
    Stdin,
    /// Standard output: a transport that is only written.
    #[cfg(unix)]
    Stdout,
    /// Standard error: the same.
    #[cfg(unix)]
    Stderr,
}

/// An owned way to the other side: a socket, an end of a pipe, or a virtual one of a simulated engine. Closed
/// on drop.
pub struct Transport(Held);

enum Held {
    Descriptor(Owned, Medium),
    Virtual { number: u64, medium: Medium, guard: Box<dyn TransportGuard> },
}

/// What a transport of a simulated engine keeps: its drop closes the other world's end.
pub trait TransportGuard: Send + Sync + 'static {
    /// Makes the close a reset, if the world knows resets: output that belongs to the transport is lost.
    ///
    /// Called at most once, and right before the drop. By default the close stays as it is.
    fn reset_at_drop(&mut self) {}
}

/// Closes nothing.
impl TransportGuard for () {}

impl Transport {
    /// Wraps a stream socket or a listener that is non-blocking and CLOEXEC.
    pub fn new(descriptor: impl Into<Owned>) -> Transport {
        Transport::of(descriptor, Medium::SOCKET)
    }

    /// Wraps a descriptor that is non-blocking and CLOEXEC, and of which it is known what it can do: how an
    /// engine gives back what it was given.
    pub fn of(descriptor: impl Into<Owned>, medium: Medium) -> Transport {
        Transport(Held::Descriptor(descriptor.into(), medium))
    }

    /// Takes a descriptor that somebody else opened, finds out what it can do, and makes it non-blocking and
    /// CLOEXEC: a connected socket, either end of a pipe, a device.
    ///
    /// Non-blocking is a property of the open file, which other processes may share: standard input and
    /// output come from [`stdio`](crate::stdio) instead, and stay as they are.
    ///
    /// # Errors
    /// `InvalidInput` for a regular file or a folder, which cannot be waited for; else as fcntl(2).
    pub fn adopt(descriptor: impl Into<Owned>) -> io::Result<Transport> {
        crate::sys::adopt(descriptor.into())
    }

    /// Makes the transport of a listener of a socket that somebody else opened, for
    /// [`Context::listen_on`](crate::Context::listen_on). It becomes non-blocking and CLOEXEC.
    ///
    /// # Errors
    /// `InvalidInput` for what is no stream socket that listens, as far as the system tells; as fcntl(2).
    pub fn listener(socket: impl Into<Owned>) -> io::Result<Transport> {
        crate::sys::listener(socket.into())
    }

    /// A transport that only a simulated engine knows, by its number there; dropping `guard` closes it.
    pub fn hosted(number: u64, guard: impl TransportGuard) -> Transport {
        Transport::hosted_as(number, Medium::SOCKET, guard)
    }

    /// The same, of something that cannot do all that a socket can.
    pub fn hosted_as(number: u64, medium: Medium, guard: impl TransportGuard) -> Transport {
        Transport(Held::Virtual { number, medium, guard: Box::new(guard) })
    }

    /// What it can do.
    #[inline]
    pub fn medium(&self) -> Medium {
        match &self.0 {
            Held::Descriptor(_, medium) | Held::Virtual { medium, .. } => *medium,
        }
    }

    /// What is to be watched.
    #[inline]
    pub fn source(&self) -> Source<'_> {
        match &self.0 {
            Held::Descriptor(descriptor, _) => Source::of(descriptor),
            Held::Virtual { number, .. } => Source::hosted(*number),
        }
    }

    /// Makes the drop that follows a reset, if the transport has resets.
    pub(crate) fn reset_at_drop(&mut self) {
        match &mut self.0 {
            Held::Descriptor(descriptor, _) => crate::sys::reset_at_close(crate::sys::borrow(descriptor)),
            Held::Virtual { guard, .. } => guard.reset_at_drop(),
        }
    }

    /// The descriptor itself.
    ///
    /// # Errors
    /// A virtual transport has none, and comes back.
    pub fn into_descriptor(self) -> Result<Owned, Transport> {
        match self.0 {
            Held::Descriptor(descriptor, _) => Ok(descriptor),
            held => Err(Transport(held)),
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Held::Descriptor(descriptor, _) => f.debug_tuple("Transport").field(descriptor).finish(),
            Held::Virtual { number, .. } => write!(f, "Transport(virtual {number})"),
        }
    }
}
