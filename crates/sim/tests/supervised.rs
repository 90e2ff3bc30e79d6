//! A supervised service panics at drawn moments while clients ask it. It refuses none of them, and none waits
//! for ever.

use std::{cell::Cell, panic::resume_unwind, rc::Rc, time::Duration};

use reactor::{Bytes, Closed, Context, Event, Handle, Id, Receive, Restart, Result as Done, Service, Stream};
use sim::{Digest, Leaks, NodeId, World};

/// Answers, and panics where the world's chance decides so.
struct Server {
    /// How many lives there were, whether they could start or not.
    lives: Rc<Cell<u32>>,
}

struct Tick;

impl Server {
    /// Panics in one of `of` cases. It resumes a panic, so that no message is printed.
    fn chance(cx: &mut Context<Self>, of: u64) {
        if cx.random().is_multiple_of(of) {
            resume_unwind(Box::new("a drawn panic"));
        }
    }
}

impl Service for Server {
    fn start(&mut self, cx: &mut Context<Self>) -> Done {
        cx.listen("0.0.0.0:80", |_| Some(Stream::new(Bytes)))?;
        // The first life starts well. Otherwise the supervisor would not take it.
        if self.lives.replace(self.lives.get() + 1) > 0 {
            Server::chance(cx, 5);
        }
        cx.after(Duration::from_millis(1), Tick);
        Ok(())
    }
}

impl Receive<Tick> for Server {
    fn receive(&mut self, cx: &mut Context<Self>, _: Tick) -> Done {
        Server::chance(cx, 50);
        cx.after(Duration::from_millis(1), Tick);
        Ok(())
    }
}

impl Handle<Stream> for Server {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Done {
        match event {
            Event::Open => Server::chance(cx, 20),
            Event::Received(bytes) => {
                Server::chance(cx, 20);
                cx.send(id, bytes);
                Server::chance(cx, 20);
            }
            Event::End | Event::HungUp | Event::Drained => (),
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: Id<Stream>, _: Stream, _: Closed) {
        Server::chance(cx, 20);
    }
}

/// Asks one thing after the other, and again if it got no answer.
struct Client {
    to: String,
    stream: Option<Id<Stream>>,
    answered: u32,
    /// The bytes of the answer that have arrived.
    got: usize,
    /// Ends other than a reset or an end.
    refused: Vec<String>,
}

const REQUEST: &[u8] = b"request!";
const REQUESTS: u32 = 30;

impl Client {
    fn ask(&mut self, cx: &mut Context<Self>) -> Done {
        self.got = 0;
        let id = cx.connect(self.to.as_str(), Stream::new(Bytes))?;
        cx.send(id, REQUEST);
        self.stream = Some(id);
        Ok(())
    }
}

impl Service for Client {
    fn start(&mut self, cx: &mut Context<Self>) -> Done {
        // A runtime with nothing left to do would end, so this timer keeps it up.
        cx.after(Duration::from_secs(1 << 30), ());
        self.ask(cx)
    }
}

impl Receive<()> for Client {
    fn receive(&mut self, _: &mut Context<Self>, (): ()) -> Done {
        Ok(())
    }
}

impl Handle<Stream> for Client {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Done {
        if let Event::Received(bytes) = event {
            self.got += bytes.len();
            if self.got == REQUEST.len() {
                (self.answered, self.got) = (self.answered + 1, 0);
                // Sometimes over the same connection.
                if cx.random().is_multiple_of(2) {
                    cx.close(id);
                } else if self.answered < REQUESTS {
                    cx.send(id, REQUEST);
                }
            }
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: Id<Stream>, _: Stream, why: Closed) {
        let kind = why.io().map(std::io::Error::kind);
        let is_end = matches!(why, Closed::Done | Closed::End);
        if !is_end && kind != Some(std::io::ErrorKind::ConnectionReset) {
            self.refused.push(format!("{why:?}"));
        }
        if self.answered < REQUESTS {
            self.ask(cx).expect("there is room for one stream");
        }
    }
}

/// The outcome of one world.
struct Outcome {
    digest: Digest,
    lives: u32,
}

fn play(seed: u64) -> Outcome {
    let mut world = World::new(seed);
    let lives = Rc::new(Cell::new(0));
    let count = lives.clone();
    // Without a delay, with a short one, and with one that grows.
    let mut restart = Restart::default();
    restart.max = u32::MAX;
    restart.delay = Duration::from_millis([0, 2, 1][(seed % 3) as usize]);
    restart.delay_max = Duration::from_millis([0, 2, 50][(seed % 3) as usize]);
    restart.within = Duration::from_millis(200);
    let server = world.add(move |runtime| {
        let lives = count.clone();
        runtime.add_supervised(move || Server { lives: lives.clone() }, restart)
    });
    let to = format!("{}:80", world.ip(server));
    let clients: Vec<NodeId<Client>> = (0..3)
        .map(|_| {
            let to = to.clone();
            world.add(move |runtime| {
                let to = to.clone();
                runtime.add(Client { to, stream: None, answered: 0, got: 0, refused: Vec::new() })
            })
        })
        .collect();
    let is_done = |world: &World, client: &NodeId<Client>| {
        world.service(*client).is_some_and(|client| client.answered >= REQUESTS)
    };
    let all = world
        .run_until(Duration::from_secs(600), |world| clients.iter().all(|client| is_done(world, client)));
    for client in &clients {
        let client = world.service(*client).expect("it is up");
        assert!(client.refused.is_empty(), "seed {seed}: {:?}", client.refused);
        assert!(all, "seed {seed}: one waits after {} answers, as {:?}", client.answered, client.stream);
    }
    let digest = world.digest();
    let leaks = world.end();
    assert_eq!(leaks, Leaks::default(), "seed {seed}");
    Outcome { digest, lives: lives.get() }
}

#[test]
fn no_client_of_a_service_that_panics_at_drawn_moments_is_refused_or_waits_for_ever() {
    let seeds = match std::env::var("SUPERVISED_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("SUPERVISED_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..60,
    };
    let mut lives = 0;
    for seed in seeds.clone() {
        println!("SUPERVISED_SEED={seed}");
        let outcome = play(seed);
        lives += outcome.lives;
        if seed % 10 == 0 {
            assert_eq!(play(seed).digest, outcome.digest, "seed {seed} plays the same");
        }
    }
    let count = seeds.end - seeds.start;
    assert!(u64::from(lives) > 5 * count, "only {lives} lives in {count} worlds");
}
