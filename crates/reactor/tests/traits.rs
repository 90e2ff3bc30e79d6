//! The types that other threads may hold or share. A change of one of these is a breaking change.

use std::error::Error as StdError;

use reactor::{
    Address, BindOptions, Bytes, Closed, ConnectOptions, Controller, Counters, Error, Fault, Hold, Id, Key,
    Limits, ListenOptions, Metrics, Pending, Reactor, Receipt, Refused, Reply, RuntimeOptions, Sender,
    Service, ServiceId, Stream, StreamOptions, TimerId, Unanswered,
    engine::{EngineError, Transport},
    file::{File, Metadata, OpenOptions, Operation},
    session::{Failure, Shared},
};

/// A service that may not leave its thread.
struct Bound(#[expect(dead_code, reason = "only its type matters")] std::rc::Rc<()>);

impl Service for Bound {}

fn moves<T: Send + 'static>() {}

fn is_shared<T: Send + Sync + 'static>() {}

fn is_error<T: StdError + Send + Sync + 'static>() {}

#[test]
fn handles_leave_the_thread_of_a_service_that_does_not() {
    is_shared::<Controller<Bound>>();
    is_shared::<Sender<String>>();
    is_shared::<Metrics>();
    is_shared::<Id<Stream>>();
    is_shared::<ServiceId<Bound>>();
    is_shared::<Key>();
    is_shared::<TimerId>();
    moves::<Reactor<Bound>>();
    moves::<Pending<String>>();
    moves::<Reply<String>>();
    moves::<Hold>();
}

#[test]
fn what_describes_a_runtime_moves_to_its_thread() {
    is_shared::<RuntimeOptions>();
    is_shared::<Limits>();
    is_shared::<StreamOptions>();
    is_shared::<ListenOptions>();
    is_shared::<ConnectOptions>();
    is_shared::<BindOptions>();
    is_shared::<OpenOptions>();
    is_shared::<Address>();
    is_shared::<Counters>();
    is_shared::<Receipt>();
    is_shared::<File>();
    is_shared::<Metadata>();
    is_shared::<Shared>();
    moves::<Operation<Vec<u8>>>();
    moves::<Transport>();
    moves::<Stream<Bytes>>();
}

#[test]
fn errors_fit_into_any_other_error() {
    is_error::<Error>();
    is_error::<Closed>();
    is_error::<Fault>();
    is_error::<EngineError>();
    is_error::<Refused<String>>();
    is_error::<Unanswered<String>>();
    is_shared::<Failure>();
}
