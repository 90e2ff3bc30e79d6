//! A service that records all its calls, and then acts as the row defines.

use std::collections::HashMap;

use reactor::{
    Bytes, Closed, Codec, Context, Event, Fault, Handle, Id, Key, Layer, Lines, Receive, Result, Service,
    Stream,
};

/// A codec whose items a probe can note.
pub(super) trait Items: Codec {
    fn note(item: Self::In<'_>) -> Vec<u8>;
}

impl Items for Bytes {
    fn note(item: &[u8]) -> Vec<u8> {
        item.to_vec()
    }
}

impl Items for Lines {
    fn note(item: &str) -> Vec<u8> {
        item.as_bytes().to_vec()
    }
}

/// One call of a handler.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum What {
    Open,
    Got(Vec<u8>),
    End,
    Drained,
    HungUp,
    /// With the name of the reason.
    Closed(String),
    Message(u64),
    Fault(String),
    EndOfTurn,
    Stop,
}

impl What {
    pub(super) fn got(bytes: &[u8]) -> What {
        What::Got(bytes.to_vec())
    }

    pub(super) fn closed(name: &str) -> What {
        What::Closed(name.to_owned())
    }
}

type Of<C, L> = Id<Stream<C, L>>;
/// A stream that has closed, and the reason.
pub(super) type Ended<C, L> = (Of<C, L>, Stream<C, L>, Closed);
type Act<C, L> = Box<dyn FnMut(&mut Context<'_, Probe<C, L>>, Option<Of<C, L>>, &What) -> Result>;

/// The service. Calls that concern no stream have no id in the log.
pub(super) struct Probe<C: Codec = Bytes, L: Layer = ()> {
    pub(super) log: Vec<(Option<Of<C, L>>, What)>,
    pub(super) open: Vec<Of<C, L>>,
    pub(super) closed: Vec<Ended<C, L>>,
    pub(super) messages: Vec<u64>,
    bytes: HashMap<Key, usize>,
    act: Act<C, L>,
    /// Record the calls in the log. Otherwise the probe counts bytes, but keeps none.
    keeps: bool,
}

impl<C: Items, L: Layer> Probe<C, L> {
    /// Makes a probe that only records.
    pub(super) fn quiet() -> Probe<C, L> {
        Probe {
            log: Vec::new(),
            open: Vec::new(),
            closed: Vec::new(),
            messages: Vec::new(),
            bytes: HashMap::new(),
            act: Box::new(|_, _, _| Ok(())),
            keeps: true,
        }
    }

    /// Makes a probe that acts and records.
    pub(super) fn acting(
        act: impl FnMut(&mut Context<'_, Probe<C, L>>, Option<Of<C, L>>, &What) -> Result + 'static,
    ) -> Probe<C, L> {
        Probe { act: Box::new(act), ..Probe::quiet() }
    }

    /// Makes a probe that returns what it gets.
    pub(super) fn echo() -> Probe<C, L>
    where
        C: for<'a> Codec<Out<'a> = &'a [u8]>,
    {
        Probe::acting(returns)
    }

    /// Replaces the action.
    pub(super) fn act(
        &mut self,
        act: impl FnMut(&mut Context<'_, Probe<C, L>>, Option<Of<C, L>>, &What) -> Result + 'static,
    ) {
        self.act = Box::new(act);
    }

    /// Stops the log, and with it the record of bytes.
    pub(super) fn forget(&mut self) {
        self.keeps = false;
    }

    /// Returns how many bytes have arrived on one stream.
    pub(super) fn received(&self, id: Of<C, L>) -> usize {
        self.bytes.get(&id.key()).copied().unwrap_or(0)
    }

    /// Joins the bytes that have arrived on one stream.
    pub(super) fn bytes(&self, id: Of<C, L>) -> Vec<u8> {
        let mut all = Vec::new();
        for (_, what) in self.log.iter().filter(|(of, _)| *of == Some(id)) {
            if let What::Got(bytes) = what {
                all.extend_from_slice(bytes);
            }
        }
        all
    }

    /// Returns the calls for one stream, with adjacent bytes joined.
    pub(super) fn of(&self, id: Of<C, L>) -> Vec<What> {
        let mut all: Vec<What> = Vec::new();
        for (_, what) in self.log.iter().filter(|(of, _)| *of == Some(id)) {
            match (all.last_mut(), what) {
                (Some(What::Got(before)), What::Got(bytes)) => before.extend_from_slice(bytes),
                _ => all.push(what.clone()),
            }
        }
        all
    }

    /// Counts the calls equal to this one.
    pub(super) fn count(&self, what: &What) -> usize {
        self.log.iter().filter(|(_, told)| told == what).count()
    }

    /// Returns the texts of all faults.
    pub(super) fn faults(&self) -> Vec<&str> {
        self.log
            .iter()
            .filter_map(|(_, what)| if let What::Fault(text) = what { Some(&**text) } else { None })
            .collect()
    }

    fn tell(&mut self, cx: &mut Context<'_, Self>, id: Option<Of<C, L>>, what: What) -> Result {
        let result = (self.act)(cx, id, &what);
        if self.keeps {
            self.log.push((id, what));
        }
        result
    }
}

impl<C: Items, L: Layer> Service for Probe<C, L> {
    fn stop(&mut self, cx: &mut Context<'_, Self>) {
        self.tell(cx, None, What::Stop).expect("nobody takes an error of stop");
        cx.close_all();
    }

    fn end_of_turn(&mut self, cx: &mut Context<'_, Self>) {
        self.tell(cx, None, What::EndOfTurn).expect("nobody takes an error of end_of_turn");
    }

    fn fault(&mut self, cx: &mut Context<'_, Self>, fault: Fault) {
        let what = What::Fault(format!("{}: {fault}", name(&fault)));
        self.tell(cx, None, what).expect("nobody takes an error of fault");
    }
}

impl<C: Items, L: Layer> Handle<Stream<C, L>> for Probe<C, L> {
    fn handle(&mut self, cx: &mut Context<'_, Self>, id: Of<C, L>, event: Event<'_, C>) -> Result {
        let what = match event {
            Event::Open => {
                self.open.push(id);
                What::Open
            }
            Event::Received(item) => {
                let bytes = C::note(item);
                *self.bytes.entry(id.key()).or_default() += bytes.len();
                What::Got(bytes)
            }
            Event::End => What::End,
            Event::Drained => What::Drained,
            Event::HungUp => What::HungUp,
        };
        self.tell(cx, Some(id), what)
    }

    fn closed(&mut self, cx: &mut Context<'_, Self>, id: Of<C, L>, stream: Stream<C, L>, why: Closed) {
        let what = What::Closed(name(&why));
        self.closed.push((id, stream, why));
        self.tell(cx, Some(id), what).expect("nobody takes an error of closed");
    }
}

impl<C: Items, L: Layer> Receive<u64> for Probe<C, L> {
    fn receive(&mut self, cx: &mut Context<'_, Self>, message: u64) -> Result {
        self.messages.push(message);
        self.tell(cx, None, What::Message(message))
    }
}

/// Returns the name of an enum's variant.
fn name(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.split([' ', '(']).next().unwrap_or_default().to_owned()
}

/// Echoes bytes, and counts.
#[derive(Default)]
pub(super) struct Echo {
    pub(super) opened: usize,
    pub(super) bytes: usize,
    pub(super) closed: usize,
}

impl Service for Echo {}

impl Handle<Stream> for Echo {
    fn handle(&mut self, cx: &mut Context<'_, Self>, id: Id<Stream>, event: Event<'_, Bytes>) -> Result {
        match event {
            Event::Open => self.opened += 1,
            Event::Received(bytes) => {
                self.bytes += bytes.len();
                cx.send(id, bytes);
            }
            Event::End | Event::Drained | Event::HungUp => (),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Self>, _: Id<Stream>, _: Stream, _: Closed) {
        self.closed += 1;
    }
}

/// Sends back what arrived.
pub(super) fn returns<C, L: Layer>(
    cx: &mut Context<'_, Probe<C, L>>,
    id: Option<Of<C, L>>,
    what: &What,
) -> Result
where
    C: Items + for<'a> Codec<Out<'a> = &'a [u8]>,
{
    if let (Some(id), What::Got(bytes)) = (id, what) {
        cx.send(id, bytes);
    }
    Ok(())
}
