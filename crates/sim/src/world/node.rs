//! Nodes: a runtime with its services on its own host, which can end and restart.

use std::{cell::RefCell, fmt, marker::PhantomData, rc::Rc};

use reactor::{Call, Error, Limits, Receipt, Runtime, ServiceId};

use crate::{
    engine::SimEngine,
    ids::{HostId, Id as _},
    world::restarts::Ends,
    world::state::State,
};

/// The id of a node, with the type of the service that its builder returned.
pub struct NodeId<S> {
    pub(crate) number: HostId,
    of: PhantomData<fn(S)>,
}

impl<S> NodeId<S> {
    pub(crate) fn new(number: HostId) -> NodeId<S> {
        NodeId { number, of: PhantomData }
    }

    /// Returns the node without the type of its service.
    pub fn node(self) -> Node {
        Node(self.number)
    }
}

impl<S> Clone for NodeId<S> {
    fn clone(&self) -> NodeId<S> {
        *self
    }
}
impl<S> Copy for NodeId<S> {}
impl<S> fmt::Debug for NodeId<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.number.number())
    }
}

/// The id of a node, without the type of its service.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Node(pub(crate) HostId);

impl Node {
    /// Returns its number. Nodes are numbered in the order in which they were added.
    pub fn number(self) -> u32 {
        self.0.number()
    }
}

/// Its number.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.number(), f)
    }
}

impl<S> From<NodeId<S>> for Node {
    fn from(id: NodeId<S>) -> Node {
        id.node()
    }
}

/// The id of the service that a builder returned, without its type.
pub(crate) type Made = Box<dyn std::any::Any>;

/// The builder of a node's services, which runs each time the node begins.
pub(crate) type Build = Box<dyn FnMut(&mut Runtime) -> Result<Made, Error>>;

/// A node as the world drives it.
pub(crate) struct Driven {
    pub(crate) runtime: Option<Runtime>,
    pub(crate) made: Option<Made>,
    pub(crate) build: Build,
    /// How it last ended by itself.
    pub(crate) ended: Option<Result<Receipt, Error>>,
    pub(crate) ends: Ends,
}

impl Driven {
    pub(crate) fn new<S: 'static>(
        mut build: impl FnMut(&mut Runtime) -> Result<ServiceId<S>, Error> + 'static,
    ) -> Driven {
        let build: Build = Box::new(move |runtime| build(runtime).map(|id| Box::new(id) as Made));
        Driven { runtime: None, made: None, build, ended: None, ends: Ends::default() }
    }

    /// Makes the runtime and its services.
    pub(crate) fn begin(&mut self, state: &Rc<RefCell<State>>, number: HostId, limits: &Limits) {
        self.ends.begin();
        let engine = SimEngine::new(state, number, Some(number));
        let mut runtime = Runtime::assemble(Box::new(engine), limits.clone());
        let world = state.clone();
        runtime.observe(move |call| note_call(&mut world.borrow_mut(), number, call));
        match (self.build)(&mut runtime) {
            Ok(made) => (self.runtime, self.made) = (Some(runtime), Some(made)),
            Err(error) => {
                drop(runtime);
                self.ended = Some(Err(error));
            }
        }
    }
}

/// Adds a call of a handler to the digest.
fn note_call(state: &mut State, node: HostId, call: Call) {
    let (tag, service, slot) = match call {
        Call::Handle { service, resource } => (11, service, resource.slot() as u64),
        Call::Receive { service } => (12, service, 0),
        Call::Closed { service, resource } => (13, service, resource.slot() as u64),
        Call::EndOfTurn { service } => (15, service, 0),
        _ => (14, 0, 0),
    };
    let record = &mut state.base.record;
    record.digest.number(state.base.clock.now() ^ u64::from(node.number()) << 48);
    record.digest.number(slot << 24 | u64::from(service) << 8 | tag);
}
