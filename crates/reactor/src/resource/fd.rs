//! The pure reactor: reports that a descriptor is ready, and the service does the I/O itself.

use std::{
    fmt, io,
    ops::{Deref, DerefMut},
};

use super::{Io, Pollable};
use crate::engine::{Interest, Ready, Source};

#[cfg(unix)]
use std::os::fd::AsFd as AsDescriptor;
#[cfg(windows)]
use std::os::windows::io::AsSocket as AsDescriptor;

/// Any owner of a descriptor as a resource whose event is [`Ready`].
///
/// It is level-triggered: the service gets an event in each turn in which the descriptor is ready, so it may
/// read as little as it likes. It reaches the owner through [`Context::get_mut`](crate::Context::get_mut).
/// The descriptor must be non-blocking. The runtime reports a hang-up or error without other readiness once.
/// Then the descriptor rests until [`resume`](crate::Context::resume) or until its interest changes. The
/// service has to close it.
///
/// ```
/// use reactor::{Context, Fd, Handle, Id, Interest, Ready, Result, Service};
/// use std::{io::Read, net::TcpStream};
///
/// struct Reader(Option<TcpStream>);
///
/// impl Service for Reader {
///     fn start(&mut self, cx: &mut Context<Self>) -> Result {
///         if let Some(socket) = self.0.take() {
///             socket.set_nonblocking(true)?;
///             cx.add(Fd::new(socket, Interest::Read))?;
///         }
///         Ok(())
///     }
/// }
///
/// impl Handle<Fd<TcpStream>> for Reader {
///     fn handle(&mut self, cx: &mut Context<Self>, id: Id<Fd<TcpStream>>, _: Ready) -> Result {
///         let Some(socket) = cx.get_mut(id) else { return Ok(()) };
///         if socket.read(&mut [0; 512])? == 0 {
///             cx.close(id);
///         }
///         Ok(())
///     }
/// }
/// ```
pub struct Fd<T> {
    owner: T,
    interest: Option<Interest>,
}

impl<T: AsDescriptor> Fd<T> {
    /// Wraps an owner, to be watched for `interest`.
    pub fn new(owner: T, interest: Interest) -> Fd<T> {
        Fd { owner, interest: Some(interest) }
    }

    /// Changes the interest, from the end of this turn on.
    pub fn set_interest(&mut self, interest: Option<Interest>) {
        self.interest = interest;
    }

    /// Gives the owner back.
    pub fn into_inner(self) -> T {
        self.owner
    }
}

impl<T> Deref for Fd<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.owner
    }
}

impl<T> DerefMut for Fd<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.owner
    }
}

impl<T: fmt::Debug> fmt::Debug for Fd<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fd").field("owner", &self.owner).field("interest", &self.interest).finish()
    }
}

impl<T: AsDescriptor + 'static> Pollable for Fd<T> {
    type Event<'a> = Ready;

    fn source(&self) -> Source<'_> {
        Source::of(&self.owner)
    }

    fn interest(&self) -> Option<Interest> {
        self.interest
    }

    fn step(&mut self, ready: Ready, io: &mut Io<'_>, _: &mut [u8]) -> io::Result<Option<Ready>> {
        Ok(io.is_first().then_some(ready))
    }
}
