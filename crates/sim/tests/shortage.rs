//! A shortage of bytes that peers cause with half items. It does not last, and polite peers are served.

use std::{cell::RefCell, rc::Rc, time::Duration};

use reactor::{
    Bytes, Closed, Context, Delimited, Event, Fault, Handle, Id, Receive, Result, Service, Stream, Time,
    session::U32,
};
use sim::{Faults, Kind, Leaks, NodeId, World, WorldOptions};

type Items = Stream<Delimited<U32>>;

/// The outcome for all peers.
#[derive(Default)]
struct Seen {
    shortages: u32,
    /// How many of the hoarders' streams the server ended for their budget.
    over_budget: u32,
    hoards: u32,
    answers: u32,
    /// The longest time that a polite peer waited for its answer.
    longest: Duration,
    /// How polite peers ended, unless it was by their own close.
    cut: Vec<String>,
}

/// Answers each item.
struct Server {
    port: u16,
    seen: Rc<RefCell<Seen>>,
}

impl Service for Server {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.listen(format!("0.0.0.0:{}", self.port), |_| Some(Stream::new(Delimited::max(16 << 20))))?;
        Ok(())
    }

    fn fault(&mut self, _: &mut Context<Self>, fault: Fault) {
        self.seen.borrow_mut().shortages += u32::from(matches!(fault, Fault::BytesShort { .. }));
    }
}

impl Handle<Items> for Server {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Items>, event: Event<Delimited<U32>>) -> Result {
        if let Event::Received(_) = event {
            cx.send(id, b"an answer");
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Items>, _: Items, why: Closed) {
        self.seen.borrow_mut().over_budget += u32::from(matches!(why, Closed::OverBudget));
    }
}

/// Sends the most of an item, and no more. When it is cut off, it starts again.
struct Hoarder {
    address: String,
    seen: Rc<RefCell<Seen>>,
}

impl Service for Hoarder {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        self.receive(cx, ())
    }
}

impl Receive<()> for Hoarder {
    fn receive(&mut self, cx: &mut Context<Self>, (): ()) -> Result {
        let id = cx.connect(&self.address, Stream::new(Bytes))?;
        cx.send(id, &(HALF as u32 * 2).to_be_bytes());
        cx.send(id, &vec![7; HALF]);
        self.seen.borrow_mut().hoards += 1;
        Ok(())
    }
}

impl Handle<Stream> for Hoarder {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Event<Bytes>) -> Result {
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: Id<Stream>, _: Stream, _: Closed) {
        cx.after(Duration::from_millis(500), ());
    }
}

/// Asks over a new connection each time.
struct Polite {
    address: String,
    asked: Time,
    seen: Rc<RefCell<Seen>>,
}

impl Service for Polite {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        self.receive(cx, ())
    }
}

impl Receive<()> for Polite {
    fn receive(&mut self, cx: &mut Context<Self>, (): ()) -> Result {
        let id = cx.connect(&self.address, Stream::new(Delimited::max(1_000)))?;
        cx.send(id, b"a question");
        self.asked = cx.now();
        Ok(())
    }
}

impl Handle<Items> for Polite {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Items>, event: Event<Delimited<U32>>) -> Result {
        if let Event::Received(_) = event {
            let mut seen = self.seen.borrow_mut();
            seen.answers += 1;
            seen.longest = seen.longest.max(cx.now().since(self.asked));
            cx.close(id);
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: Id<Items>, _: Items, why: Closed) {
        if !matches!(why, Closed::Done) {
            self.seen.borrow_mut().cut.push(why.to_string());
        }
        cx.after(Duration::from_millis(50), ());
    }
}

/// Draws faults that change only the timing and the chunking, and that break nothing.
fn harmless(seed: u64) -> Faults {
    let breaks = |kind: Kind| {
        let cuts = [Kind::AcceptFails, Kind::AcceptAborts, Kind::Refuse, Kind::Reset, Kind::AttachFails];
        kind.is_of_world() || cuts.contains(&kind) || kind == Kind::LoseConnect
    };
    let drawn = Faults::draw(seed);
    drawn.kinds().filter(|kind| breaks(*kind)).fold(drawn.clone(), |faults, kind| faults.with(kind, 0))
}

/// Plays hoarders and polite peers against a server. If it `parts` them, each group has its own service.
fn play(seed: u64, parts: bool) -> Seen {
    let mut options = WorldOptions::default();
    options.faults = harmless(seed);
    options.limits.bytes = 8 << 20;
    let mut world = World::with_options(seed, options);
    let seen = Rc::<RefCell<Seen>>::default();
    let of = seen.clone();
    let server: NodeId<Server> = world.add(move |runtime| {
        runtime.add(Server { port: 7001, seen: of.clone() })?;
        runtime.add(Server { port: 7000, seen: of.clone() })
    });
    let address = |port: u16| format!("{}:{port}", world.ip(server));
    let (bad, good) = (address(7000), address(if parts { 7001 } else { 7000 }));
    for _ in 0..HOARDERS {
        let (address, seen) = (bad.clone(), seen.clone());
        world.add(move |runtime| runtime.add(Hoarder { address: address.clone(), seen: seen.clone() }));
    }
    for _ in 0..POLITE {
        let (address, seen) = (good.clone(), seen.clone());
        world.add(move |runtime| {
            let (address, seen) = (address.clone(), seen.clone());
            runtime.add(Polite { address, asked: Time::ZERO, seen })
        });
    }
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.end(), Leaks::default(), "seed {seed}");
    seen.take()
}

fn check(seed: u64, parts: bool, least: u32, longest: Duration) {
    let seen = play(seed, parts);
    let text = format!(
        "seed {seed}: {} shortages, {} of {} hoards over budget, {} answers, {:?} at most",
        seen.shortages, seen.over_budget, seen.hoards, seen.answers, seen.longest
    );
    println!("{text}");
    assert!(seen.over_budget >= HOARDERS as u32 && seen.hoards > HOARDERS as u32, "{text}: none had to go");
    assert_eq!(seen.cut, Vec::<String>::new(), "{text}: a polite peer was cut");
    assert!(seen.answers >= least && seen.longest <= longest, "{text}");
}

#[test]
fn peers_of_another_service_never_wait_for_a_shortage() {
    (0..5).for_each(|seed| check(seed, true, 1_000, Duration::from_secs(1)));
}

#[test]
fn peers_of_the_same_service_wait_for_one_of_its_periods_at_most() {
    (0..5).for_each(|seed| check(seed, false, 30, Duration::from_secs(6)));
}

const HOARDERS: usize = 8;
const POLITE: usize = 6;
const HALF: usize = 1 << 20;
