//! The service: passes each client's bytes to all others, and slows the input down for slow clients.

use reactor::{
    Address, Bytes, Closed, Context, Event, Flow, Handle, Id, IdMap, Result, Service, Shared, Stream,
    StreamOptions,
};
use std::{sync::Arc, time::Duration};

/// Distinguish the two standard streams from the clients by type.
struct Input;
struct Output;
type In = Stream<Bytes, (), Input>;
type Out = Stream<Bytes, (), Output>;

pub(crate) struct Broadcast {
    address: Address,
    /// Each client, and whether its queue is full.
    clients: IdMap<Stream, bool>,
    input: Option<Id<In>>,
    output: Option<Id<Out>>,
    full: usize,
}

impl Broadcast {
    pub(crate) fn new(address: Address) -> Broadcast {
        Broadcast { address, clients: IdMap::new(), input: None, output: None, full: 0 }
    }

    /// Sends to all clients but one, and pauses the input while a queue is full.
    fn tell(&mut self, cx: &mut Context<Self>, bytes: &[u8], but: Option<Id<Stream>>) {
        let bytes = Shared::from(bytes.to_vec());
        let ids: Vec<_> = self.clients.ids().filter(|id| Some(*id) != but).collect();
        for id in ids {
            let flow = cx.send_shared(id, &bytes);
            if let Some(full) = self.clients.get_mut(id).filter(|full| flow == Flow::High && !**full) {
                *full = true;
                self.full += 1;
            }
        }
        if let Some(input) = self.input.filter(|_| self.full > 0) {
            cx.pause(input);
        }
    }

    fn has_room(&mut self, cx: &mut Context<Self>, was_full: bool) {
        self.full -= usize::from(was_full);
        if let Some(input) = self.input.filter(|_| self.full == 0) {
            cx.resume(input);
        }
    }
}

impl Service for Broadcast {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let options = StreamOptions::with(|options| options.write_stall = Some(Duration::from_secs(10)));
        let options = Arc::new(options);
        let listener =
            cx.listen(&self.address, move |_| Some(Stream::new(Bytes).options(options.clone())))?;
        // Standard output is reserved for the clients' bytes.
        eprintln!("listening on {}", cx.local(listener)?);
        let output = Stream::new(Bytes).role().through(cx.stdout()?);
        self.output = Some(cx.add(output)?);
        let input = Stream::new(Bytes).role().through(cx.stdin()?);
        self.input = Some(cx.add(input)?);
        Ok(())
    }
}

impl Handle<In> for Broadcast {
    fn handle(&mut self, cx: &mut Context<Self>, _: Id<In>, event: Event<Bytes>) -> Result {
        if let Event::Received(bytes) = event {
            self.tell(cx, bytes, None);
        }
        Ok(())
    }
    fn closed(&mut self, cx: &mut Context<Self>, _: Id<In>, _: In, why: Closed) {
        if !why.is_clean() {
            eprintln!("broadcast: standard input: {why}");
        }
        cx.stop(Duration::from_secs(10));
    }
}

impl Handle<Out> for Broadcast {
    fn handle(&mut self, cx: &mut Context<Self>, _: Id<Out>, event: Event<Bytes>) -> Result {
        if let Event::Drained = event {
            self.clients.ids().for_each(|id| cx.resume(id));
        }
        Ok(())
    }
    fn closed(&mut self, cx: &mut Context<Self>, _: Id<Out>, _: Out, _: Closed) {
        // The reader of our output has gone, which is not an error.
        cx.stop(Duration::from_secs(1));
    }
}

impl Handle<Stream> for Broadcast {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        match event {
            Event::Open => _ = self.clients.insert(id, false),
            Event::Received(bytes) => {
                self.tell(cx, bytes, Some(id));
                if self.output.is_some_and(|output| cx.send(output, bytes) == Flow::High) {
                    cx.pause(id);
                }
            }
            Event::Drained => {
                let was_full = self.clients.insert(id, false).unwrap_or_default();
                self.has_room(cx, was_full);
            }
            Event::End | Event::HungUp => (),
        }
        Ok(())
    }
    fn closed(&mut self, cx: &mut Context<Self>, id: Id<Stream>, _: Stream, _: Closed) {
        let was_full = self.clients.remove(id).unwrap_or_default();
        self.has_room(cx, was_full);
    }
}
