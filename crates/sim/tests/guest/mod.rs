//! A guest: a node that connects to another one, keeps its input, and stays up as long as the world.

use std::time::Duration;

use reactor::{Bytes, Closed, Context, Event, Handle, Id, Receive, Result, Service, Stream};
use sim::{Node, NodeId, World};

pub(crate) struct Guest {
    to: String,
    id: Option<Id<Stream>>,
    heard: Vec<u8>,
    is_closed: bool,
}

impl Service for Guest {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        self.id = Some(cx.connect(&self.to, Stream::new(Bytes))?);
        // A runtime with nothing left to do would end.
        cx.after(FOREVER, ());
        Ok(())
    }
}

impl Handle<Stream> for Guest {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, event: Event<Bytes>) -> Result {
        if let Event::Received(bytes) = event {
            self.heard.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Stream, _: Closed) {
        self.is_closed = true;
    }
}

impl Receive<()> for Guest {
    fn receive(&mut self, _: &mut Context<Self>, (): ()) -> Result {
        Ok(())
    }
}

impl Guest {
    /// Adds a guest, which connects to this port of a host.
    pub(crate) fn add(world: &mut World, host: impl Into<Node>, port: u16) -> NodeId<Guest> {
        let to = format!("{}:{port}", world.ip(host));
        world.add(move |runtime| {
            runtime.add(Guest { to: to.clone(), id: None, heard: Vec::new(), is_closed: false })
        })
    }

    pub(crate) fn say(world: &mut World, guest: NodeId<Guest>, text: &[u8]) {
        let say = |guest: &mut Guest, cx: &mut Context<Guest>| cx.send(guest.id.expect("it has begun"), text);
        world.with(guest, say).expect("it lives");
    }

    pub(crate) fn heard(world: &World, guest: NodeId<Guest>) -> &[u8] {
        &world.service(guest).expect("it lives").heard
    }

    pub(crate) fn is_closed(world: &World, guest: NodeId<Guest>) -> bool {
        world.service(guest).expect("it lives").is_closed
    }
}

const FOREVER: Duration = Duration::from_secs(1 << 20);
