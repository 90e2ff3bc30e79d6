//! A gossip service: nodes that come to agree on a set of facts, through partitions, crashes and slow links.
//!
//! A fact that is new to a node is passed on at once to a few of its links, as a rumour. What rumours missed
//! is found by comparing: about once a second the connecting side of each link tells the sum of its facts.
//! Where sums differ, the sums of narrower ranges are told, to and fro, until a range has so few facts that
//! they are listed; then each tells what the other lacks. So it costs what differs, not what is known. A link that is silent for too long is dead, and a dead link is made again, later and later, with
//! jitter. So nodes that can reach each other, directly or not, come to know the same facts.
//!
//! Time and chance come from the [`Context`] alone, and everything kept is ordered: so the service runs
//! unchanged on sockets and in a simulated world, and there one seed gives one run.

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

/// Is told what becomes of a node; by default it does not care.
pub(crate) trait Watch {
    /// The node listens here.
    fn listening(&mut self, at: &Address) {
        let _ = at;
    }

    /// The node cannot listen, for now: it tries again.
    fn not_listening(&mut self, why: &dyn Display) {
        let _ = why;
    }

    /// A link to a peer ended, or did not come about: it is tried again after this time.
    fn lost(&mut self, peer: &Address, why: &dyn Display, again: Duration) {
        let _ = (peer, why, again);
    }

    /// The node learned a fact, its own or a peer's.
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
    /// Shared, so that whoever made the node can keep them when it crashes.
    facts: Rc<RefCell<Facts>>,
    watch: Box<dyn Watch>,
    options: Arc<StreamOptions>,
}

/// A node that this one connects to.
struct Peer {
    address: Address,
    /// How often in a row that did not end in a talk.
    tries: u32,
}

/// What is known of one connection.
#[derive(Default)]
struct Link {
    /// The peer that was connected to; none when the other side connected.
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
    /// Creates a node that listens here and connects to these.
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
            options: Arc::new(StreamOptions {
                cap: QUEUE_MAX,
                item: LINE_MAX + 1,
                unread: QUEUE_MAX,
                connect: SILENCE_MAX,
                write_stall: Some(SILENCE_MAX),
                ..StreamOptions::DEFAULT
            }),
        }
    }

    /// Adds a fact of one's own, and passes it on.
    ///
    /// # Errors
    /// The text is no fact, or no more fit in.
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

    /// Tells the sum, now and about every second.
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
                // A full set is no fault of the peer's.
                Ok(()) | Err(Unfit::Full) => (),
                Err(unfit) => return Err(unfit.into()),
            },
        }
        Ok(())
    }

    /// Answers the sum of a range: with what there is if that is little, with narrower sums otherwise.
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

    /// Tells what the peer lacks of a range, and asks for what it alone has.
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

/// Tells facts as far as the link takes them at once; the next comparison finds the rest.
fn tell<'a>(cx: &mut Context<Gossip>, id: Id<Wire>, mut texts: impl Iterator<Item = &'a str>) {
    _ = texts.find(|text| say(cx, id, &Line::Fact(text)) != Flow::Queued);
}

/// How long to wait after so many failures: twice as long each time, up to a limit, with jitter.
fn backoff(cx: &mut Context<Gossip>, tries: u32) -> Duration {
    let longest = BACKOFF_MIN.saturating_mul(2_u32.saturating_pow(tries));
    jittered(cx, longest.min(BACKOFF_MAX))
}

/// From a half to one and a half of this time: so nodes that failed together do not come again together.
fn jittered(cx: &mut Context<Gossip>, time: Duration) -> Duration {
    let nanos = time.as_nanos() as u64;
    Duration::from_nanos(nanos / 2 + cx.random() % nanos.max(1))
}

/// The range of all ids.
const ALL: (FactId, FactId) = (FactId::MIN, FactId::MAX);
/// Into how many parts a range is cut.
const PARTS: u64 = 16;
/// To how many links a new fact is passed on at once.
const RUMOURS: usize = 2;
/// How many connections a node has, in both directions.
const LINKS_MAX: usize = 256;
/// How many bytes of a link wait to be sent, or to be looked at.
const QUEUE_MAX: usize = 256 << 10;
/// How often the sums of a link are compared.
const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// After how long without a word a link is dead; each side has more than one comparison in this time.
const SILENCE_MAX: Duration = Duration::from_secs(4);
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(3);
