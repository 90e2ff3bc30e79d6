//! A service that keeps the ledger and acts as its script defines.

use std::rc::Rc;

use reactor::{
    Bytes, Closed, Codec, Context, Event, Handle, Id, Layer, Receive, Reply, Result, Service, Stream,
};

use crate::stage::Ledger;

/// An event of a stream, as a player sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    Open,
    Got(Vec<u8>),
    End,
    Drained,
    HungUp,
}

type Act<C, L> = Box<dyn FnMut(&mut Context<Player<C, L>>, Id<Stream<C, L>>, Seen) -> Result>;
type OnClosed<C, L> = Box<dyn FnMut(&mut Context<Player<C, L>>, Id<Stream<C, L>>, Stream<C, L>, Closed)>;
type OnMessage<C, L> = Box<dyn FnMut(&mut Context<Player<C, L>>, u64) -> Result>;

/// A question, answered with twice the number.
pub struct Ask(pub u64, pub Reply<u64>);

pub struct Player<C: Codec = Bytes, L: Layer = ()> {
    ledger: Rc<Ledger>,
    act: Act<C, L>,
    on_closed: OnClosed<C, L>,
    on_message: OnMessage<C, L>,
}

impl<C: Codec, L: Layer> Player<C, L>
where
    for<'a> C::In<'a>: AsRef<[u8]>,
{
    pub fn new(
        ledger: &Rc<Ledger>,
        act: impl FnMut(&mut Context<Self>, Id<Stream<C, L>>, Seen) -> Result + 'static,
    ) -> Self {
        Player {
            ledger: ledger.clone(),
            act: Box::new(act),
            on_closed: Box::new(|_, _, _, _| ()),
            on_message: Box::new(|_, _| Ok(())),
        }
    }

    /// Makes a player without streams, or with streams that need no answer.
    pub fn silent(ledger: &Rc<Ledger>) -> Self {
        Player::new(ledger, |_, _, _| Ok(()))
    }

    pub fn closed(
        mut self,
        on_closed: impl FnMut(&mut Context<Self>, Id<Stream<C, L>>, Stream<C, L>, Closed) + 'static,
    ) -> Self {
        self.on_closed = Box::new(on_closed);
        self
    }

    pub fn messages(mut self, on_message: impl FnMut(&mut Context<Self>, u64) -> Result + 'static) -> Self {
        self.on_message = Box::new(on_message);
        self
    }
}

impl<C: Codec, L: Layer> Service for Player<C, L> {}

impl<C: Codec, L: Layer> Handle<Stream<C, L>> for Player<C, L>
where
    for<'a> C::In<'a>: AsRef<[u8]>,
{
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream<C, L>>, event: Event<'_, C>) -> Result {
        self.ledger.lives(id);
        let told = match event {
            Event::Open => Seen::Open,
            Event::Received(item) => Seen::Got(item.as_ref().to_vec()),
            Event::End => Seen::End,
            Event::Drained => Seen::Drained,
            Event::HungUp => Seen::HungUp,
        };
        (self.act)(cx, id, told)
    }

    fn closed(&mut self, cx: &mut Context<Self>, id: Id<Stream<C, L>>, stream: Stream<C, L>, why: Closed) {
        self.ledger.closed(id);
        (self.on_closed)(cx, id, stream, why);
    }
}

impl<C: Codec, L: Layer> Receive<u64> for Player<C, L> {
    fn receive(&mut self, cx: &mut Context<Self>, message: u64) -> Result {
        (self.on_message)(cx, message)
    }
}

impl<C: Codec, L: Layer> Receive<Ask> for Player<C, L> {
    fn receive(&mut self, _: &mut Context<Self>, Ask(number, reply): Ask) -> Result {
        reply.send(2 * number);
        Ok(())
    }
}
