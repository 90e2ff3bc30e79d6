//! A peer that speaks under a layer, but ends its transport as somebody on the path can.

use reactor::session::{
    Phase,
    kit::{Peer, Toy},
};

use super::prelude::*;

/// The peer's end of a connection. Its layer is outside of the runtime.
pub(super) struct Sealed {
    peer: Peer<Toy>,
    service: ServiceId<Probe>,
    id: Id<Stream>,
    /// The bytes that the layer has seen.
    fed: usize,
}

impl Sealed {
    /// Connects, and begins the handshake.
    pub(super) fn connect(
        rig: &mut Rig,
        service: ServiceId<Probe>,
        address: &Address,
    ) -> Result<Sealed, Stop> {
        let id = rig.connect(service, address, Stream::new(Bytes).half_open(true))?;
        let mut sealed = Sealed { peer: Peer::new(Toy::client(1)), service, id, fed: 0 };
        sealed.flush(rig);
        Ok(sealed)
    }

    pub(super) fn id(&self) -> Id<Stream> {
        self.id
    }

    pub(super) fn send(&mut self, rig: &mut Rig, bytes: &[u8]) {
        self.peer.send(bytes);
        self.flush(rig);
    }

    /// Sends a FIN, without the end of the layer.
    pub(super) fn forge_end(&mut self, rig: &mut Rig) {
        let id = self.id;
        rig.with(self.service, |_, cx| cx.finish(id));
    }

    /// Turns until `done`, and passes what arrives to the layer.
    pub(super) fn until(
        &mut self,
        rig: &mut Rig,
        what: &str,
        mut done: impl FnMut(&Rig, &Sealed) -> bool,
    ) -> Outcome {
        rig.until(what, |rig| {
            let bytes = rig.get(self.service).bytes(self.id);
            if self.fed < bytes.len() {
                self.peer.feed(&bytes[self.fed..]);
                self.fed = bytes.len();
                self.flush(rig);
            }
            done(rig, self)
        })
    }

    fn flush(&mut self, rig: &mut Rig) {
        let (id, flight) = (self.id, self.peer.flight());
        if !flight.is_empty() {
            rig.with(self.service, |_, cx| cx.send(id, &flight));
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.peer.session().phase() == Phase::Open
    }

    /// Returns the clear bytes that have arrived.
    pub(super) fn received(&self) -> &[u8] {
        self.peer.received()
    }

    /// Returns whether the layer saw the authentic end of the other side.
    pub(super) fn has_ended(&self) -> bool {
        self.peer.session().ended()
    }

    /// Returns why its stream has closed.
    pub(super) fn why<'a>(&self, rig: &'a Rig) -> Result<&'a Closed, Stop> {
        let ended = rig.get(self.service).closed.iter().find(|(id, ..)| *id == self.id);
        ended.map(|(.., why)| why).ok_or_else(|| "it has not closed".into())
    }
}
