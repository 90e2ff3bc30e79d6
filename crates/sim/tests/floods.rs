//! Two peers that both send much, with small windows between them, directly and through proxies. Neither may
//! wait for ever, and neither connection may end early.

use std::time::Duration;

use reactor::{
    Bytes, Closed, Context, Delimited, Event, Handle, Id, IdMap, Receive, Result, Service, Stream,
    StreamOptions, session::U32,
};
use sim::{Link, NodeId, World, WorldOptions};

type Items = Stream<Delimited<U32>>;

/// The behaviour of one side as a sender and as a reader.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// How many items it queues at once when the stream opens, and their length.
    count: usize,
    item: usize,
    /// The length of its answer to each item of the other side. 0 means no answer.
    answer: usize,
    /// It does not read before all its own items have left.
    uploads_first: bool,
}

/// One end of the conversation.
struct Peer {
    plan: Plan,
    address: String,
    dials: bool,
    items: usize,
    answers: usize,
    closed: Vec<String>,
}

const FLOOD: u8 = 0;
const ANSWER: u8 = 1;

impl Peer {
    fn new(plan: Plan, dials: bool, address: String) -> Peer {
        Peer { plan, address, dials, items: 0, answers: 0, closed: Vec::new() }
    }

    fn stream() -> Items {
        Stream::new(Delimited::max(20 << 20))
    }
}

impl Service for Peer {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        if self.dials {
            cx.connect(&*self.address, Peer::stream())?;
            // A runtime with nothing left to do would end, and the test could not ask it for the reason.
            cx.after(1_000_000 * SECOND, ());
        } else {
            cx.listen(&*self.address, |_| Some(Peer::stream()))?;
        }
        Ok(())
    }
}

impl Receive<()> for Peer {
    fn receive(&mut self, _: &mut Context<Self>, (): ()) -> Result {
        Ok(())
    }
}

impl Handle<Items> for Peer {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Items>, event: Event<Delimited<U32>>) -> Result {
        match event {
            Event::Open => {
                if self.plan.uploads_first {
                    cx.pause(id);
                }
                let item = vec![FLOOD; self.plan.item];
                (0..self.plan.count).for_each(|_| _ = cx.send(id, &item));
            }
            Event::Received(item) if item[0] == FLOOD => {
                self.items += 1;
                if self.plan.answer > 0 {
                    cx.send(id, &vec![ANSWER; self.plan.answer]);
                }
            }
            Event::Received(_) => self.answers += 1,
            Event::Drained => cx.resume(id),
            Event::End | Event::HungUp => (),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Items>, _: Items, why: Closed) {
        self.closed.push(format!("{why:?}"));
    }
}

struct Inbound;
struct Outbound;
type Client = Stream<Bytes, (), Inbound>;
type Target = Stream<Bytes, (), Outbound>;

/// Joins each connection to another one, to the next hop.
struct Proxy {
    next: String,
    targets: IdMap<Client, Id<Target>>,
    clients: IdMap<Target, Id<Client>>,
    closed: Vec<String>,
}

impl Service for Proxy {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.listen("0.0.0.0:7000", |_| Some(Stream::new(Bytes).role::<Inbound>()))?;
        Ok(())
    }
}

impl Handle<Client> for Proxy {
    fn handle(&mut self, cx: &mut Context<Self>, client: Id<Client>, event: Event<Bytes>) -> Result {
        match event {
            Event::Open => {
                let target = cx.connect(&*self.next, Stream::new(Bytes).role::<Outbound>())?;
                cx.pair(client, target)?;
                self.targets.insert(client, target);
                self.clients.insert(target, client);
            }
            Event::Received(bytes) => {
                if let Some(target) = self.targets.get(client) {
                    cx.send(*target, bytes);
                }
            }
            Event::End | Event::Drained | Event::HungUp => (),
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Client>, _: Client, why: Closed) {
        self.closed.push(format!("{why:?}"));
    }
}

impl Handle<Target> for Proxy {
    fn handle(&mut self, cx: &mut Context<Self>, target: Id<Target>, event: Event<Bytes>) -> Result {
        if let Event::Received(bytes) = event
            && let Some(client) = self.clients.get(target)
        {
            cx.send(*client, bytes);
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Target>, _: Target, why: Closed) {
        self.closed.push(format!("{why:?}"));
    }
}

/// Two peers, and the proxies between them.
struct Line {
    world: World,
    near: NodeId<Peer>,
    proxies: Vec<NodeId<Proxy>>,
    far: NodeId<Peer>,
    plans: [Plan; 2],
}

impl Line {
    fn new(seed: u64, window_bytes: usize, hops: usize, plans: [Plan; 2]) -> Line {
        let mut options = WorldOptions::default();
        options.link = Link { window_bytes, ..Link::lan() };
        let mut world = World::with_options(seed, options);
        let far =
            world.add(move |runtime| runtime.add(Peer::new(plans[1], false, "0.0.0.0:7000".to_owned())));
        let mut next = format!("{}:7000", world.ip(far));
        let mut proxies = Vec::new();
        for _ in 0..hops {
            let to = next.clone();
            let proxy = world.add(move |runtime| {
                let (targets, clients) = (IdMap::new(), IdMap::new());
                runtime.add(Proxy { next: to.clone(), targets, clients, closed: Vec::new() })
            });
            next = format!("{}:7000", world.ip(proxy));
            proxies.push(proxy);
        }
        let near = world.add(move |runtime| runtime.add(Peer::new(plans[0], true, next.clone())));
        Line { world, near, proxies, far, plans }
    }

    /// Runs until each side has all items of the other. Returns the time that took.
    fn run(mut self, limit: Duration, what: &str) -> Duration {
        let (near, far, plans) = (self.near, self.far, self.plans);
        let begin = self.world.now();
        let is_done = |world: &mut World| {
            let [near, far] = [near, far].map(|node| world.service(node).expect("it is up"));
            let has_all = |peer: &Peer, own: &Plan, other: &Plan| {
                peer.items == other.count && peer.answers == if other.answer > 0 { own.count } else { 0 }
            };
            has_all(near, &plans[0], &plans[1]) && has_all(far, &plans[1], &plans[0])
        };
        let done = self.world.run_until(limit, is_done);
        let told = [near, far].map(|node| {
            let peer = self.world.service(node).expect("it is up");
            assert!(peer.closed.is_empty(), "{what}: {:?} of {plans:?}", peer.closed);
            (peer.items, peer.answers)
        });
        for proxy in &self.proxies {
            let closed = &self.world.service(*proxy).expect("it is up").closed;
            assert!(closed.is_empty(), "{what}: a proxy's stream is {closed:?}");
        }
        assert!(done, "{what}: after {limit:?} they have (items, answers) {told:?} of {plans:?}");
        self.world.now() - begin
    }
}

/// A small generator: SplitMix64.
struct Draw(u64);

impl Draw {
    fn up_to(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        1 + ((z ^ (z >> 31)) % most as u64) as usize
    }

    fn one_of(&mut self, all: &[usize]) -> usize {
        all[self.up_to(all.len()) - 1]
    }

    /// Draws a size. Each order of magnitude is equally probable.
    fn size(&mut self, most: usize) -> usize {
        let bits = self.up_to(most.ilog2() as usize + 1);
        self.up_to((1 << bits).min(most))
    }
}

const CAP: usize = StreamOptions::DEFAULT.cap;
const SECOND: Duration = Duration::from_secs(1);

fn seeds() -> std::ops::Range<u64> {
    match std::env::var("FLOODS_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("FLOODS_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..60,
    }
}

#[test]
fn floods_of_any_size_in_both_directions_arrive_without_a_rest() {
    for seed in seeds() {
        let mut draw = Draw(seed);
        let (hops, window) = (draw.up_to(4) - 1, draw.one_of(&[1 << 10, 8 << 10, 64 << 10]));
        let plans = [(); 2].map(|()| {
            let total = draw.size(CAP / 2 - (64 << 10));
            let item = draw.size(total.min(64 << 10));
            let count = (total / item).clamp(1, 3_000);
            // An acknowledgement is small, but it is still caused by input.
            let answer = draw.one_of(&[0, 1, 10]);
            Plan { count, item, answer, uploads_first: false }
        });
        let what = format!("seed {seed}, {hops} proxies, window {window}");
        let took = Line::new(seed, window, hops, plans).run(60 * SECOND, &what);
        // The slowest correct way: one window for each round trip, with the proxies' windows in sequence.
        let bytes = plans.iter().map(|plan| plan.count * (plan.item + 18)).sum::<usize>();
        let ideal = Duration::from_micros(1_000) * (bytes / window + 10 * (hops + 1)) as u32;
        assert!(took < ideal + SECOND / 2, "{what}: {took:?}, where {ideal:?} is plenty: {plans:?}");
    }
}

#[test]
fn one_item_above_the_cap_in_each_direction_arrives() {
    for hops in 0..4 {
        let plan = Plan { count: 1, item: 16 << 20, answer: 100, uploads_first: false };
        let plans = [Plan { item: (16 << 20) - 4, ..plan }, Plan { item: CAP + 1, ..plan }];
        Line::new(7, 64 << 10, hops, plans).run(60 * SECOND, &format!("{hops} proxies"));
    }
}

#[test]
fn peers_that_both_pipeline_requests_and_both_answer_free_each_other() {
    for seed in seeds() {
        let mut draw = Draw(seed ^ 0x5eed);
        let (hops, window) = (draw.up_to(4) - 1, draw.one_of(&[1 << 10, 8 << 10, 64 << 10]));
        let plans = [(); 2].map(|()| {
            let count = draw.size(2_000);
            let (item, answer) = (draw.size(100), draw.size((CAP / 2 / count).min(CAP / 8)));
            Plan { count, item, answer, uploads_first: false }
        });
        let what = format!("seed {seed}, {hops} proxies, window {window}");
        Line::new(seed, window, hops, plans).run(300 * SECOND, &what);
    }
}

#[test]
fn a_side_that_uploads_before_it_reads_gets_all_through_any_number_of_proxies() {
    for seed in seeds() {
        let mut draw = Draw(seed ^ 0xf00d);
        let (hops, window) = (draw.up_to(4) - 1, draw.one_of(&[1 << 10, 8 << 10, 64 << 10]));
        let near = Plan { count: 100 + draw.up_to(1_900), item: 1 << 10, answer: 0, uploads_first: true };
        // Its queue has room for its own items and its answers, even all at once.
        let far = Plan { count: draw.up_to(1_500), item: 1 << 10, answer: 0, uploads_first: false };
        let far = Plan { answer: draw.one_of(&[0, 1, 100, CAP / 2 / near.count]), ..far };
        let what = format!("seed {seed}, {hops} proxies, window {window}");
        Line::new(seed, window, hops, [near, far]).run(300 * SECOND, &what);
    }
}
