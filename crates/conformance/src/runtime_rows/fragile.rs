//! Code that panics on purpose: a codec, a layer, and the places where they do.

use reactor::{
    Codec, Outgoing,
    session::{Io, Next, Step},
};

use super::prelude::*;

/// The place of a panic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Nowhere,
    Start,
    Accept,
    Open,
    Decode,
    Received,
    Encode,
    Drained,
    CodecEnd,
    End,
    Closed,
    Timer,
    Message,
    Command,
    Fault,
    Stop,
    LayerStart,
    LayerReady,
    LayerOpen,
    LayerSeal,
    LayerFinish,
    LayerEnd,
    LayerHeld,
    LayerTransparent,
}

/// All places but [`Place::Nowhere`].
pub(super) const PLACES: [Place; 23] = [
    Place::Start,
    Place::Accept,
    Place::Open,
    Place::Decode,
    Place::Received,
    Place::Encode,
    Place::Drained,
    Place::CodecEnd,
    Place::End,
    Place::Closed,
    Place::Timer,
    Place::Message,
    Place::Command,
    Place::Fault,
    Place::Stop,
    Place::LayerStart,
    Place::LayerReady,
    Place::LayerOpen,
    Place::LayerSeal,
    Place::LayerFinish,
    Place::LayerEnd,
    Place::LayerHeld,
    Place::LayerTransparent,
];

/// A panic at the armed place, once or each time.
#[derive(Clone)]
pub(super) struct Armed {
    pub(super) place: Rc<Cell<Place>>,
    is_once: bool,
}

impl Armed {
    /// Makes a panic that occurs once, at a place to arm.
    pub(super) fn once() -> Armed {
        Armed { place: Rc::new(Cell::new(Place::Nowhere)), is_once: true }
    }

    /// Makes a panic that occurs each time at this place.
    pub(super) fn always(place: Place) -> Armed {
        Armed { place: Rc::new(Cell::new(place)), is_once: false }
    }

    pub(super) fn pass(&self, here: Place) {
        if self.place.get() == here {
            if self.is_once {
                self.place.set(Place::Nowhere);
            }
            panic!("{SAYING}");
        }
    }
}

/// The text of the panics.
pub(super) const SAYING: &str = "a panic of the suite";

/// A codec for bytes that can panic. A panic in `encode` leaves half an item in the queue.
pub(super) struct FragileBytes(pub(super) Armed);

impl Codec for FragileBytes {
    type In<'a> = &'a [u8];
    type Out<'a> = &'a [u8];

    fn decode<'a>(&mut self, input: &'a mut [u8]) -> Result<reactor::Decoded<&'a [u8]>> {
        self.0.pass(Place::Decode);
        Ok(reactor::Decoded::Item(input.len(), input))
    }

    fn encode(&mut self, item: &[u8], out: &mut Outgoing) -> Result {
        let half = item.len() / 2;
        out.put(&item[..half]);
        self.0.pass(Place::Encode);
        out.put(&item[half..]);
        Ok(())
    }

    fn end<'a>(&mut self, _: &'a mut [u8]) -> Result<Option<&'a [u8]>> {
        self.0.pass(Place::CodecEnd);
        Ok(None)
    }
}

/// A layer that passes bytes through, and can panic.
pub(super) struct FragileLayer(pub(super) Armed);

impl Layer for FragileLayer {
    const INPUT_MAX: usize = 0;

    fn transparent(&self) -> bool {
        self.0.pass(Place::LayerTransparent);
        false
    }

    fn start(&mut self, _: &mut Io<'_>) -> Result {
        self.0.pass(Place::LayerStart);
        Ok(())
    }

    fn ready(&self) -> bool {
        self.0.pass(Place::LayerReady);
        true
    }

    fn open(&mut self, input: &mut [u8], io: &mut Io<'_>) -> Result<Step> {
        self.0.pass(Place::LayerOpen);
        io.up.extend_from_slice(input);
        Ok(Step { used: input.len(), next: Next::Wait })
    }

    fn seal(&mut self, clear: &[u8], io: &mut Io<'_>) -> Result<usize> {
        self.0.pass(Place::LayerSeal);
        io.down.put(clear);
        Ok(clear.len())
    }

    fn finish(&mut self, _: &mut Io<'_>) -> Result {
        self.0.pass(Place::LayerFinish);
        Ok(())
    }

    fn end(&mut self, _: &[u8]) -> Result {
        self.0.pass(Place::LayerEnd);
        Ok(())
    }

    fn held(&self) -> usize {
        self.0.pass(Place::LayerHeld);
        0
    }
}

pub(super) type Brittle = Stream<FragileBytes, FragileLayer>;
