//! What a service is told of its panics, and what it answers.

use std::fmt;

use crate::{
    id::{Id, Key},
    resource::Resource,
};

/// What becomes of a service after a panic: the answer of [`Service::panicked`](crate::Service::panicked).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum AfterPanic {
    /// The service ends with all of its resources, without `closed`. The peer of a stream sees a reset if output is dropped,
    /// or if the stream's own codec or layer panicked.
    EndService,
    /// The service lives on. The [resource](Panic::resource) to blame ends as
    /// [`Closed::Panicked`](crate::Closed::Panicked), and its peer sees a reset. So do resources whose codec, layer or
    /// `encode` panicked when another resource's handler sent to them: their state is unknown.
    EndResource,
}

/// A panic of a service's code: of the service itself, or of a codec, a layer or a resource that it uses.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Panic {
    /// What it said.
    pub message: String,
    /// In which call it happened.
    pub during: During,
    /// The resource for which the call was made. `None` when no single one is to blame: in a receiver, for example.
    pub resource: Option<Key>,
}

/// The call in which a panic happened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum During {
    /// [`Service::start`](crate::Service::start).
    Start,
    /// An event of a resource: [`Handle::handle`](crate::Handle::handle), and what cuts, opens or reads its input.
    Handle,
    /// The question whether a connection is wanted: [`Handle::accept`](crate::Handle::accept) or a listener's closure.
    Accept,
    /// The writing of a resource's output, between the calls of handlers.
    Output,
    /// [`Handle::closed`](crate::Handle::closed), or the drop of what it was given.
    Closed,
    /// [`Receive::receive`](crate::Receive::receive) with a timer's message, or with one for a resource's deadline.
    Timer,
    /// `receive` with what a service of this runtime told.
    Message,
    /// `receive` with what came from another thread: a command, the result of a job or of an operation on files.
    Command,
    /// [`Service::end_of_turn`](crate::Service::end_of_turn).
    EndOfTurn,
    /// [`Service::fault`](crate::Service::fault).
    Fault,
    /// [`Service::stop`](crate::Service::stop).
    Stop,
    /// A call from outside of the loop: [`Runtime::with`](crate::Runtime::with).
    With,
}

impl Panic {
    pub(crate) fn new(message: String, blame: Blame) -> Panic {
        let resource = Some(blame.resource).filter(|key| *key != Key::NONE);
        Panic { message, during: blame.during, resource }
    }

    /// Whether this resource is to blame.
    pub fn is_of<R: Resource>(&self, id: Id<R>) -> bool {
        self.resource == Some(id.key())
    }

    /// Whether the call was made with something that is lost now and of which nobody else is told.
    pub(crate) fn lost(&self) -> Option<&'static str> {
        match self.during {
            During::Accept => Some("a connection"),
            During::Timer => Some("the message of a timer"),
            During::Message => Some("a message"),
            During::Command => Some("a command or a result"),
            _ => None,
        }
    }
}

/// Writes the message of the panic.
impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// On whom a panic of a guarded call is blamed. Made before the call, looked at only after a panic.
#[derive(Clone, Copy)]
pub(crate) struct Blame {
    pub(crate) during: During,
    /// `Key::NONE`: on no resource.
    pub(crate) resource: Key,
}

impl Blame {
    pub(crate) fn on(during: During, resource: Key) -> Blame {
        Blame { during, resource }
    }

    pub(crate) fn none(during: During) -> Blame {
        Blame { during, resource: Key::NONE }
    }
}
