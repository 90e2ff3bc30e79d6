//! A gossip service: nodes that agree on a set of facts, through partitions, crashes and slow links.
//!
//! A node passes a new fact at once to a few of its links, as a rumour. A comparison finds the facts that the
//! rumours missed: about once a second, the connecting side of each link sends the sum of its facts. Where
//! the sums differ, the two sides exchange sums of narrower ranges, until a range has so few facts that they
//! list them. Then each sends the facts that the other one lacks. So the cost depends on the differences, not
//! on the size of the sets. A link that is silent for too long is dead. The node connects it again, after
//! growing delays with jitter. So nodes that can reach each other, directly or not, learn the same facts.
//!
//! Time and chance come from the [`Context`] alone, and every collection is ordered. So the service runs
//! unchanged on sockets and in a simulated world, where one seed gives one run.

mod facts;
mod line;

use std::{cell::RefCell, fmt::Display, rc::Rc, sync::Arc, time::Duration};

use reactor::{
    Address, Closed, Context, Event, Flow, Handle, Id, IdMap, Lines, Receive, Result, Service, Stream,
    StreamOptions,
};

pub(crate) use self::facts::{Facts, Unfit};
use self::{
    facts::{FactId, Sum},
    line::{LINE_MAX, Line, PAGE_MAX},
};

/// Observes a node. By default it ignores all events.
pub(crate) trait Watch {
    /// Reports that the node listens.
    fn listening(&mut self, at: &Address) {
        let _ = at;
    }

    /// Reports that the node cannot listen for now. It tries again.
    fn not_listening(&mut self, why: &dyn Display) {
        let _ = why;
    }

    /// Reports that a link to a peer ended or failed to connect. The node tries again after this time.
    fn lost(&mut self, peer: &Address, why: &dyn Display, again: Duration) {
        let _ = (peer, why, again);
    }

    /// Reports that the node learned a fact, its own or a peer's.
    fn learned(&mut self, facts: &Facts) {
        let _ = facts;
    }
}

/// A connection to another node.
type Wire = Stream<Lines>;

/// One node.
pub(crate) struct Gossip {
    address: Address,
    listen_tries: u32,
    peers: Vec<Peer>,
    links: IdMap<Wire, Link>,
    /// Shared, so that the node's owner can keep the facts over a crash.
    facts: Rc<RefCell<Facts>>,
    watch: Box<dyn Watch>,
    options: Arc<StreamOptions>,
}

/// A node that this one connects to.
struct Peer {
    address: Address,
    /// How many tries in a row did not lead to an exchange.
    tries: u32,
}

/// The state of one connection.
#[derive(Default)]
struct Link {
    /// The peer that the node connected to, or none if the peer connected.
    peer: Option<usize>,
    is_open: bool,
}

/// Timer: try to listen again.
struct Listen;
/// Timer: connect to this peer again.
struct Connect(usize);
/// Timer: compare on this link.
struct Compare(Id<Wire>);

impl Gossip {
    /// Creates a node that listens at this address and connects to these peers.
    pub(crate) fn new(
        address: Address,
        peers: impl IntoIterator<Item = Address>,
        facts: Rc<RefCell<Facts>>,
        watch: impl Watch + 'static,
    ) -> Gossip {
        Gossip {
            address,
            listen_tries: 0,
            peers: peers.into_iter().map(|address| Peer { address, tries: 0 }).collect(),
            links: IdMap::new(),
            facts,
            watch: Box::new(watch),
            options: Arc::new(StreamOptions::with(|options| {
                options.cap = QUEUE_MAX;
                options.item = LINE_MAX + 1;
                options.unread = QUEUE_MAX;
                options.connect = SILENCE_MAX;
                options.write_stall = Some(SILENCE_MAX);
            })),
        }
    }

    /// Adds a fact of its own, and passes it on.
    ///
    /// # Errors
    /// The text is not a fact, or the set is full.
    pub(crate) fn publish(&mut self, cx: &mut Context<Self>, text: &str) -> Result<(), Unfit> {
        self.learn(cx, text, None)
    }

    fn learn(&mut self, cx: &mut Context<Self>, text: &str, from: Option<Id<Wire>>) -> Result<(), Unfit> {
        let Some(_) = self.facts.borrow_mut().add(text)? else { return Ok(()) };
        self.watch.learned(&self.facts.borrow());
        let others = self.links.iter().filter(|(id, link)| link.is_open && Some(*id) != from);
        let mut others: Vec<Id<Wire>> = others.map(|(id, _)| id).collect();
        for _ in 0..RUMOURS.min(others.len()) {
            let at = cx.random() % others.len() as u64;
            say(cx, others.swap_remove(at as usize), &Line::Fact(text));
        }
        Ok(())
    }

    fn listen(&mut self, cx: &mut Context<Self>) {
        let options = self.options.clone();
        let accept = move |_: &Address| Some(Stream::new(Lines::max(LINE_MAX)).options(options.clone()));
        let listening = cx.listen(&self.address, accept);
        match listening {
            Ok(id) => self.watch.listening(&cx.local(id).unwrap_or_else(|_| self.address.clone())),
            Err(error) => {
                self.watch.not_listening(&error);
                let after = backoff(cx, self.listen_tries);
                self.listen_tries += 1;
                cx.after(after, Listen);
            }
        }
    }

    fn connect(&mut self, cx: &mut Context<Self>, peer: usize) {
        let stream = Stream::new(Lines::max(LINE_MAX)).options(self.options.clone());
        match cx.connect(&self.peers[peer].address, stream) {
            Ok(id) => _ = self.links.insert(id, Link { peer: Some(peer), ..Link::default() }),
            Err(error) => self.connect_later(cx, peer, &error),
        }
    }

    fn connect_later(&mut self, cx: &mut Context<Self>, peer: usize, why: &dyn Display) {
        let Peer { address, tries } = &mut self.peers[peer];
        let after = backoff(cx, *tries);
        *tries = tries.saturating_add(1);
        self.watch.lost(address, why, after);
        cx.after(after, Connect(peer));
    }

    fn open(&mut self, cx: &mut Context<Self>, id: Id<Wire>) -> Result {
        if let Some(link) = self.links.get_mut(id) {
            link.is_open = true;
            self.compare(cx, id);
        } else if self.links.len() < LINKS_MAX {
            self.links.insert(id, Link { is_open: true, ..Link::default() });
        } else {
            return Err("too many links".into());
        }
        Ok(())
    }

    /// Sends the sum, now and about every second.
    fn compare(&mut self, cx: &mut Context<Self>, id: Id<Wire>) {
        if self.links.contains(id) {
            let ((first, last), sum) = (ALL, self.facts.borrow().sum());
            say(cx, id, &Line::Sum { first, last, sum });
            let after = jittered(cx, COMPARE_EVERY);
            cx.after(after, Compare(id));
        }
    }

    fn heard(&mut self, cx: &mut Context<Self>, id: Id<Wire>, line: Line<'_>) -> Result {
        match line {
            Line::Sum { first, last, sum } => self.narrow(cx, id, (first, last), sum),
            Line::Same => (),
            Line::Have { first, last, ids } => self.level(cx, id, first, last, ids),
            Line::Want(ids) => {
                let facts = self.facts.borrow();
                tell(cx, id, ids.into_iter().filter_map(|fact| facts.get(fact)));
            }
            Line::Fact(text) => match self.learn(cx, text, Some(id)) {
                // A full set is not the peer's fault.
                Ok(()) | Err(Unfit::Full) => (),
                Err(unfit) => return Err(unfit.into()),
            },
        }
        Ok(())
    }

    /// Answers the sum of a range: with its ids if they are few, with narrower sums otherwise.
    fn narrow(&mut self, cx: &mut Context<Self>, id: Id<Wire>, (first, last): (FactId, FactId), sum: Sum) {
        let facts = self.facts.borrow();
        let own = facts.sum_between(first, last);
        if own == sum {
            if (first, last) == ALL {
                say(cx, id, &Line::Same);
            }
        } else if own.count <= PAGE_MAX as u64 {
            let ids = facts.between(first, last).map(|(id, _)| id).collect();
            say(cx, id, &Line::Have { first, last, ids });
        } else {
            let (step, end, mut first) = ((last - first) / PARTS, last, first);
            loop {
                let last = first.saturating_add(step).min(end);
                say(cx, id, &Line::Sum { first, last, sum: facts.sum_between(first, last) });
                match last.checked_add(1) {
                    Some(next) if next <= end => first = next,
                    _ => return,
                }
            }
        }
    }

    /// Sends the facts that the peer lacks in a range, and requests those that only the peer has.
    fn level(&mut self, cx: &mut Context<Self>, id: Id<Wire>, first: FactId, last: FactId, has: Vec<FactId>) {
        let facts = self.facts.borrow();
        let wanted: Vec<FactId> = has.iter().copied().filter(|fact| facts.get(*fact).is_none()).collect();
        if !wanted.is_empty() {
            say(cx, id, &Line::Want(wanted));
        }
        let lacks = facts.between(first, last).filter(|(fact, _)| !has.contains(fact));
        tell(cx, id, lacks.map(|(_, text)| text));
    }
}

impl Service for Gossip {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        self.listen(cx);
        (0..self.peers.len()).for_each(|peer| self.connect(cx, peer));
        Ok(())
    }
}

impl Handle<Wire> for Gossip {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Wire>, event: Event<Lines>) -> Result {
        cx.deadline(id, SILENCE_MAX);
        match event {
            Event::Open => self.open(cx, id),
            Event::Received(text) => {
                let line = Line::parse(text)?;
                if let Some(peer) = self.links.get(id).and_then(|link| link.peer) {
                    self.peers[peer].tries = 0;
                }
                self.heard(cx, id, line)
            }
            Event::End | Event::Drained | Event::HungUp => Ok(()),
        }
    }

    fn closed(&mut self, cx: &mut Context<Self>, id: Id<Wire>, _: Wire, why: Closed) {
        if let Some(peer) = self.links.remove(id).and_then(|link| link.peer)
            && !matches!(why, Closed::Done | Closed::Stopped)
        {
            self.connect_later(cx, peer, &why);
        }
    }
}

impl Receive<Listen> for Gossip {
    fn receive(&mut self, cx: &mut Context<Self>, _: Listen) -> Result {
        self.listen(cx);
        Ok(())
    }
}

impl Receive<Connect> for Gossip {
    fn receive(&mut self, cx: &mut Context<Self>, Connect(peer): Connect) -> Result {
        self.connect(cx, peer);
        Ok(())
    }
}

impl Receive<Compare> for Gossip {
    fn receive(&mut self, cx: &mut Context<Self>, Compare(id): Compare) -> Result {
        self.compare(cx, id);
        Ok(())
    }
}

fn say(cx: &mut Context<Gossip>, id: Id<Wire>, line: &Line<'_>) -> Flow {
    cx.send(id, &line.to_string())
}

/// Sends facts as long as the link takes them at once. The next comparison finds the rest.
fn tell<'a>(cx: &mut Context<Gossip>, id: Id<Wire>, mut texts: impl Iterator<Item = &'a str>) {
    _ = texts.find(|text| say(cx, id, &Line::Fact(text)) != Flow::Queued);
}

/// Returns the delay after this many failures. It doubles each time up to a limit, and has jitter.
fn backoff(cx: &mut Context<Gossip>, tries: u32) -> Duration {
    let longest = BACKOFF_MIN.saturating_mul(2_u32.saturating_pow(tries));
    jittered(cx, longest.min(BACKOFF_MAX))
}

/// Draws from half of this time to one and a half of it, so that nodes that failed together do not return
/// together.
fn jittered(cx: &mut Context<Gossip>, time: Duration) -> Duration {
    let nanos = time.as_nanos() as u64;
    Duration::from_nanos(nanos / 2 + cx.random() % nanos.max(1))
}

/// The range of all ids.
const ALL: (FactId, FactId) = (FactId::MIN, FactId::MAX);
/// The number of parts into which a range is split.
const PARTS: u64 = 16;
/// The number of links to which a node passes a new fact at once.
const RUMOURS: usize = 2;
/// The most connections of a node, in both directions.
const LINKS_MAX: usize = 256;
/// The most bytes of a link that wait to be sent or handled.
const QUEUE_MAX: usize = 256 << 10;
/// The interval between two comparisons on a link.
const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// A link is dead after this long without a line. Each side compares more than once in this time.
const SILENCE_MAX: Duration = Duration::from_secs(4);
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(3);
