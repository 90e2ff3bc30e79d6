//! A desk that computes answers in a few places, and clients that ask it for ever. With a planted bug, it
//! loses a place whenever work takes too long, until no place is left.

use std::{
    cell::Cell,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    time::Duration,
};

use reactor::{Closed, Context, Event, Handle, Id, Lines, Receive, Result, Service, ServiceId, Stream};
use sim::{Leaks, NodeId, Plan, World};

/// Answers questions by offloaded work, a limited number at once.
pub(crate) struct Desk {
    /// The planted bug: abandoned work keeps its place.
    has_bug: bool,
    places: u32,
    next: u64,
    under_way: BTreeMap<u64, Id<Stream<Lines>>>,
    waiting: VecDeque<Id<Stream<Lines>>>,
}

struct Computed(u64);
struct TooLate(u64);

impl Desk {
    fn serve(&mut self, cx: &mut Context<Self>) -> Result {
        while self.places > 0 {
            let Some(id) = self.waiting.pop_front() else { break };
            let number = self.next;
            (self.next, self.places) = (number + 1, self.places - 1);
            self.under_way.insert(number, id);
            cx.offload(move || Computed(number)).map_err(|refused| refused.to_string())?;
            cx.after(PATIENCE, TooLate(number));
        }
        Ok(())
    }
}

impl Service for Desk {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.listen("0.0.0.0:7007", |_| Some(Stream::new(Lines::new())))?;
        Ok(())
    }
}

impl Handle<Stream<Lines>> for Desk {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream<Lines>>, event: Event<Lines>) -> Result {
        if let Event::Received(_) = event {
            self.waiting.push_back(id);
        }
        self.serve(cx)
    }
}

impl Receive<Computed> for Desk {
    fn receive(&mut self, cx: &mut Context<Self>, Computed(number): Computed) -> Result {
        match self.under_way.remove(&number) {
            Some(id) => {
                cx.send(id, "the answer");
            }
            None if self.has_bug => return Ok(()),
            None => (),
        }
        self.places += 1;
        self.serve(cx)
    }
}

impl Receive<TooLate> for Desk {
    fn receive(&mut self, cx: &mut Context<Self>, TooLate(number): TooLate) -> Result {
        if let Some(id) = self.under_way.remove(&number) {
            cx.send(id, "too late");
        }
        Ok(())
    }
}

/// Asks, waits for the answer, and asks again, whatever happens to its connection.
pub(crate) struct Client {
    address: String,
    answers: Rc<Cell<u64>>,
}

enum Next {
    Dial,
    Ask(Id<Stream<Lines>>),
}

impl Service for Client {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        self.receive(cx, Next::Dial)
    }
}

impl Receive<Next> for Client {
    fn receive(&mut self, cx: &mut Context<Self>, next: Next) -> Result {
        let id = match next {
            Next::Dial => cx.connect(&self.address, Stream::new(Lines::new()))?,
            Next::Ask(id) => id,
        };
        cx.send(id, "a question");
        cx.deadline(id, Duration::from_secs(2));
        Ok(())
    }
}

impl Handle<Stream<Lines>> for Client {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream<Lines>>, event: Event<Lines>) -> Result {
        if let Event::Received(_) = event {
            self.answers.set(self.answers.get() + 1);
            cx.after(Duration::from_millis(10), Next::Ask(id));
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: Id<Stream<Lines>>, _: Stream<Lines>, _: Closed) {
        cx.after(Duration::from_millis(50), Next::Dial);
    }
}

/// Plays a desk and its clients. After the faults, some client must get an answer again.
pub(crate) fn play(plan: &Plan, has_bug: bool) -> std::result::Result<(), String> {
    let mut world = plan.world();
    let desk: NodeId<Desk> = world.add(move |runtime| {
        let (under_way, waiting) = (BTreeMap::new(), VecDeque::new());
        runtime.add(Desk { has_bug, places: 2, next: 0, under_way, waiting })
    });
    let answers = Rc::new(Cell::new(0));
    for _ in 1..plan.nodes {
        let address = format!("{}:7007", world.ip(desk));
        let answers = answers.clone();
        world.add(move |runtime| -> std::result::Result<ServiceId<Client>, _> {
            runtime.add(Client { address: address.clone(), answers: answers.clone() })
        });
    }
    world.schedule_chaos(plan.time, plan.time / 10);
    world.run_for(plan.time);
    world.stop_faults();
    let before = answers.get();
    let is_alive = |_: &mut World| answers.get() >= before + 20;
    if !world.run_until(Duration::from_secs(60), is_alive) {
        return Err(format!("{} answers in a minute without faults", answers.get() - before));
    }
    match world.end() == Leaks::default() {
        true => Ok(()),
        false => Err("something is left".to_owned()),
    }
}

/// The desk abandons its work after this time.
const PATIENCE: Duration = Duration::from_millis(100);
