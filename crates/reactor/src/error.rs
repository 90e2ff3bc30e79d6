//! Errors, sorted by culprit: the system or the caller. (A peer's faults end its resource: [`Closed`].)

use std::{fmt, io};

pub use session::{Failure, Result};

use crate::{address::Address, engine::EngineError, log::short, panics::Panic, runtime::Receipt};

/// The error of the library's own calls. A handler returns it by `?`, as any other error.
///
/// ```
/// use reactor::{Error, Runtime, RuntimeOptions};
///
/// let options = RuntimeOptions::with(|options| options.engine = Some("abacus".to_owned()));
/// match Runtime::with_options(options) {
///     Err(Error::Engine(error)) => assert!(error.to_string().contains("abacus")),
///     other => panic!("there is no such engine: {other:?}"),
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The system refused an operation.
    Os {
        /// The requested operation, for example `listen`, `connect` or `wait`.
        operation: &'static str,
        /// The resource of the operation.
        resource: String,
        /// The system's error, with its errno.
        source: io::Error,
    },
    /// No engine could be opened.
    Engine(EngineError),
    /// The caller requested something impossible.
    Misuse {
        /// The requested operation.
        operation: &'static str,
        /// The reason why it is impossible.
        why: &'static str,
    },
    /// A limit of the runtime is reached.
    Full {
        /// The name of the limit, for example `resources`.
        what: &'static str,
        /// The largest allowed number.
        limit: usize,
    },
    /// A service ended because of a panic. The others continued.
    Panicked {
        /// The type of the service.
        service: &'static str,
        /// The panic's message.
        message: String,
    },
    /// A service could not start.
    Start {
        /// The type of the service.
        service: &'static str,
        /// Its error.
        failure: Failure,
    },
    /// The runtime has ended, and some of its services failed: they panicked, could not start, or had an
    /// error that no code took. The receipt describes the end of all services.
    Failed(Box<Receipt>),
}

impl Error {
    pub(crate) fn os(operation: &'static str, resource: impl fmt::Display, source: io::Error) -> Error {
        Error::Os { operation, resource: resource.to_string(), source }
    }

    /// Returns the system's error, if the system is the culprit.
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Error::Os { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Os { operation, resource, source } => write!(f, "{operation} {resource}: {source}"),
            Error::Engine(error) => error.fmt(f),
            Error::Misuse { operation, why } => write!(f, "{operation}: {why}"),
            Error::Full { what, limit } => write!(f, "the runtime's limit of {limit} {what} is reached"),
            Error::Panicked { service, message } => {
                write!(f, "service {} panicked: {message}", short(service))
            }
            Error::Start { service, failure } => {
                write!(f, "service {} could not start: {failure}", short(service))
            }
            Error::Failed(receipt) => fmt_failed(f, receipt),
        }
    }
}

/// Lists the failed services, each with its first message.
fn fmt_failed(f: &mut fmt::Formatter<'_>, receipt: &Receipt) -> fmt::Result {
    let failed = receipt.services.iter().filter(|service| service.is_failed());
    for (at, service) in failed.enumerate() {
        write!(f, "{}service {}", if at > 0 { "; " } else { "" }, short(service.name))?;
        if let Some(message) = &service.panicked {
            write!(f, " panicked: {message}")?;
        }
        if let Some(first) = service.first_errors.first() {
            let and = if service.panicked.is_some() { ", and" } else { "" };
            match service.errors {
                1 => write!(f, "{and} had an unhandled error: {first}")?,
                count => write!(f, "{and} had {count} unhandled errors, the first: {first}")?,
            }
        }
    }
    Ok(())
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Os { source, .. } => Some(source),
            Error::Engine(error) => Some(error),
            Error::Start { failure, .. } => Some(failure.as_error()),
            _ => None,
        }
    }
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Error {
        Error::Engine(error)
    }
}

/// The reason why a resource ended, given to [`Handle::closed`](crate::Handle::closed).
///
/// The resource itself knows how many bytes did not reach the kernel
/// ([`Stream::unsent`](crate::Stream::unsent)).
///
/// ```
/// use reactor::{Bytes, Closed, Context, Event, Handle, Id, Phase, Result, Service, Stream};
///
/// struct Client;
///
/// impl Service for Client {}
///
/// impl Handle<Stream> for Client {
///     fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Event<Bytes>) -> Result {
///         Ok(())
///     }
///
///     fn closed(&mut self, _: &mut Context<Self>, _: Id<Stream>, stream: Stream, why: Closed) {
///         match why {
///             why if why.is_clean() => (),
///             Closed::TimedOut(Phase::Connect) => eprintln!("the server does not answer"),
///             Closed::Failed(error) => eprintln!("{error}"),
///             why => eprintln!("{why}; {} bytes did not leave", stream.unsent()),
///         }
///     }
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Closed {
    /// The service closed it, and all queued output has left.
    Done,
    /// The peer ended its side. The stream then closed, after all queued output had left. A stream closes in this
    /// way, too, when the stream that it is [paired](crate::Context::pair) to has ended like this.
    End,
    /// The service aborted it.
    Aborted,
    /// The service took it back with `release`. The resource is whole.
    Released,
    /// An operation failed. The source has the errno.
    Failed(Error),
    /// A handler, codec or layer returned an error. Queued output left before, unless a layer failed. If the
    /// stream was [paired](crate::Context::pair) and the other one could still send, the peer saw a reset.
    Refused(Failure),
    /// The write queue passed its limit, or an item its largest size.
    Overflow,
    /// Input that no handler took passed [`StreamOptions::unread`](crate::StreamOptions::unread), because the
    /// stream was paused, or an item was larger than that.
    Unread,
    /// The runtime ran short of bytes. This stream held most of those that made no progress, or requested
    /// more when nothing could be freed. See [`Limits::shortage`](crate::Limits::shortage).
    OverBudget,
    /// The write queue made no progress for `write_stall`.
    Stalled,
    /// The deadline that the service set has passed.
    Deadline,
    /// Connecting, the handshake of a layer, an item of the peer, or the graceful close took too long.
    TimedOut(Phase),
    /// The transport ended where the layer or the codec allows no end. Queued output left before. Unless the
    /// service had ended its output, the layer sent no end of ours, and the peer saw a reset: anybody on the
    /// path can send such an end while the answer is incomplete.
    Truncated(Failure),
    /// The stream that it was paired to did not end in order. All queued output left. The peer saw a reset,
    /// because that output may not be the whole.
    Partner,
    /// The runtime stopped, and the grace ended before the resource had closed.
    Stopped,
    /// The service broke a rule: it exchanged the source of a registered resource.
    Misuse(&'static str),
    /// A call for this resource panicked, and the service lives on:
    /// [`Service::panicked`](crate::Service::panicked).
    Panicked(Panic),
}

/// The phase of a stream whose time was over.
///
/// [`Closed`] has an example.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Phase {
    /// Connecting the transport.
    Connect,
    /// The handshake of a layer.
    Handshake,
    /// Receiving the rest of an item that the peer has begun.
    Item,
    /// Flushing and lingering of a graceful close.
    Close,
    /// Waiting for a part of a file that a thread was moving to the stream when its transfer was to end.
    File,
}

impl Closed {
    /// Returns the system's error, if that is the reason.
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Closed::Failed(error) => error.io(),
            _ => None,
        }
    }

    /// Returns whether it ended as intended: closed by the service, by the peer's orderly end, or released.
    pub fn is_clean(&self) -> bool {
        matches!(self, Closed::Done | Closed::End | Closed::Released)
    }

    /// Whether it only says that the runtime, a deadline or the partner did not let the resource go on.
    pub(crate) fn is_cut(&self) -> bool {
        matches!(
            self,
            Closed::Stopped | Closed::Deadline | Closed::TimedOut(_) | Closed::Stalled | Closed::Partner
        )
    }

    /// Takes the noted reason of a close, if it is a failure. A noted cut says that all that was queued has left, and so it
    /// gives way to the end that left something.
    pub(crate) fn take_noted(noted: &mut Option<Closed>) -> Option<Closed> {
        noted.take_if(|noted| !noted.is_clean() && !noted.is_cut())
    }

    /// Notes why a closing resource has failed, unless a failure is noted already.
    pub(crate) fn note_failure(noted: &mut Option<Closed>, why: Closed) {
        let is_failure = matches!(why, Closed::Refused(_) | Closed::Truncated(_));
        if is_failure && noted.as_ref().is_none_or(Closed::is_clean) {
            *noted = Some(why);
        }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Closed::Done => f.write_str("closed"),
            Closed::End => f.write_str("ended by the peer"),
            Closed::Aborted => f.write_str("aborted"),
            Closed::Released => f.write_str("released"),
            Closed::Failed(error) => error.fmt(f),
            Closed::Refused(failure) => failure.fmt(f),
            Closed::Overflow => f.write_str("more was sent than could leave: the queue of output is full"),
            Closed::Unread => {
                f.write_str("more arrived than was handled: the limit of unread input is reached")
            }
            Closed::OverBudget => f.write_str("the runtime's bytes ran short, and this held many of them"),
            Closed::Stalled => f.write_str("no output could leave for too long"),
            Closed::Deadline => f.write_str("the deadline passed"),
            Closed::TimedOut(Phase::Connect) => f.write_str("connecting took too long"),
            Closed::TimedOut(Phase::Handshake) => f.write_str("the handshake took too long"),
            Closed::TimedOut(Phase::Item) => f.write_str("the peer did not complete an item in time"),
            Closed::TimedOut(Phase::Close) => f.write_str("the graceful close stood still for too long"),
            Closed::TimedOut(Phase::File) => f.write_str("moving a part of a file took too long"),
            Closed::Truncated(failure) => write!(f, "cut off: {failure}"),
            Closed::Partner => f.write_str("the stream it was paired to was cut off"),
            Closed::Stopped => f.write_str("the runtime stopped"),
            Closed::Misuse(why) => write!(f, "misuse: {why}"),
            Closed::Panicked(panic) => write!(f, "panicked: {panic}"),
        }
    }
}

/// An error without a live resource, or of a resource that goes on. [`Service::fault`](crate::Service::fault)
/// gets it. It is counted, and in the receipt.
///
/// ```
/// use reactor::{Context, Fault, Service};
///
/// struct Server;
///
/// impl Service for Server {
///     fn fault(&mut self, _: &mut Context<Self>, fault: Fault) {
///         match fault {
///             // The runtime closed one connection. The peer may try again.
///             Fault::Register { peer, error } => eprintln!("{peer}: {error}"),
///             fault => eprintln!("{fault}"),
///         }
///     }
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Fault {
    /// A listener could not accept, for example because of EMFILE. It rests, and tries again. Reported once
    /// per episode.
    Accept(Error),
    /// An accepted connection could not be registered, and was closed.
    Register {
        /// The peer of the connection.
        peer: Address,
        /// The reason.
        error: Error,
    },
    /// An offloaded job panicked with this message, or could not run.
    Job(String),
    /// A `receive` returned an error.
    Receive(Failure),
    /// A timer could not be set: the limit of timers is reached.
    TimersFull(usize),
    /// This many further faults of this service happened in the same turn. They are counted, but not
    /// described, because one turn keeps at most 1,024 faults.
    More(u64),
    /// A call panicked, and the service lives on ([`Service::panicked`](crate::Service::panicked)). The
    /// call's argument is lost: a message, or a connection to accept.
    Panicked(Panic),
    /// Bytes are short, and this service holds more than its share. It accepts no connections, and does not
    /// read streams that have output, until others or its own peers release some. Reported once per shortage.
    /// See [`Limits::shortage`](crate::Limits::shortage).
    BytesShort {
        /// The number of bytes in use by all services.
        used: usize,
        /// The limit, without the engine's own bytes.
        limit: usize,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Accept(error) => error.fmt(f),
            Fault::Register { peer, error } => write!(f, "the connection of {peer} was closed: {error}"),
            Fault::Job(message) => write!(f, "an offloaded job failed: {message}"),
            Fault::Receive(failure) => failure.fmt(f),
            Fault::BytesShort { used, limit } => {
                write!(
                    f,
                    "bytes are short: {used} of {limit} are held, and this service has more than its share"
                )
            }
            Fault::Panicked(panic) => {
                write!(f, "{} is lost: its call panicked: {panic}", panic.lost().unwrap_or("nothing"))
            }
            Fault::More(count) => write!(f, "{count} further faults in the same turn"),
            Fault::TimersFull(limit) => write!(f, "the limit of {limit} timers is reached"),
        }
    }
}

impl std::error::Error for Closed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Closed::Failed(error) => Some(error),
            Closed::Refused(failure) | Closed::Truncated(failure) => Some(failure.as_error()),
            _ => None,
        }
    }
}

impl std::error::Error for Fault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Fault::Accept(error) | Fault::Register { error, .. } => Some(error),
            Fault::Receive(failure) => Some(failure.as_error()),
            _ => None,
        }
    }
}

/// Keeps the kind of the system's error. The new error contains the `Closed` itself.
impl From<Closed> for io::Error {
    fn from(closed: Closed) -> io::Error {
        let kind = match &closed {
            Closed::Failed(error) => error.io().map_or(io::ErrorKind::Other, io::Error::kind),
            Closed::Stalled | Closed::Deadline | Closed::TimedOut(_) => io::ErrorKind::TimedOut,
            Closed::Truncated(_) => io::ErrorKind::UnexpectedEof,
            Closed::Aborted => io::ErrorKind::ConnectionAborted,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, closed)
    }
}

/// Keeps the kind of the system's error. The new error contains the `Fault` itself.
impl From<Fault> for io::Error {
    fn from(fault: Fault) -> io::Error {
        let system = match &fault {
            Fault::Accept(error) | Fault::Register { error, .. } => error.io(),
            _ => None,
        };
        io::Error::new(system.map_or(io::ErrorKind::Other, io::Error::kind), fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn an_end_and_a_fault_are_errors_that_keep_cause_and_kind() {
        let reset = || Error::os("read", "192.0.2.7:80", io::ErrorKind::ConnectionReset.into());
        assert!(Closed::Failed(reset()).source().is_some_and(|source| source.is::<Error>()));
        assert!(Closed::Refused("no".into()).source().is_some_and(|source| source.to_string() == "no"));
        assert!(Closed::Done.source().is_none());
        assert!(Fault::Accept(reset()).source().is_some_and(|source| source.is::<Error>()));
        for error in [io::Error::from(Closed::Failed(reset())), io::Error::from(Fault::Accept(reset()))] {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            assert!(error.to_string().contains("192.0.2.7:80"), "{error}");
        }
        assert_eq!(io::Error::from(Closed::Deadline).kind(), io::ErrorKind::TimedOut);
        assert_eq!(io::Error::from(Closed::Truncated("cut".into())).kind(), io::ErrorKind::UnexpectedEof);
    }
}
