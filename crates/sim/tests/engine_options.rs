//! Engines with little of everything: each option does what it says, and a service notices none of them.

use std::time::Duration;

use reactor::{
    Address, Bytes, Context, Event as Told, Handle, Id, Key, ListenOptions, Outgoing, Result, Service,
    Stream,
    engine::{Ending, Engine, Event, Role},
};
use sim::{EngineOptions, Leaks, NodeId, SimEngine, World, WorldOptions};

/// Two ends of one connection of an engine, and the listener that accepted it.
struct Pair {
    engine: SimEngine,
    listener: Key,
    client: Key,
    server: Key,
}

fn key(slot: u32) -> Key {
    Key::new(slot, 0, 9)
}

fn world(engine: EngineOptions) -> World {
    let mut options = WorldOptions::default();
    options.engine = engine;
    World::with_options(1, options)
}

/// Waits once, and returns the events.
fn turn(engine: &mut SimEngine) -> Vec<(Key, Event)> {
    engine.wait(Some(Duration::from_millis(1))).expect("it does not break");
    std::iter::from_fn(|| engine.next()).collect()
}

fn listen(engine: &mut SimEngine, listener: Key) -> Address {
    let at = "127.0.0.1:7007".parse().map(Address::Ip).expect("an address");
    let transport = engine.listen(&at, &ListenOptions::default()).expect("it is free");
    engine.attach(listener, transport, Role::Listener).expect("it listens");
    at
}

fn connect(engine: &mut SimEngine, to: &Address, client: Key) {
    let transport = engine.connect(to, &reactor::ConnectOptions::default()).expect("it begins");
    engine.attach(client, transport, Role::Connecting).expect("it connects");
}

impl Pair {
    fn new(world: &mut World) -> Pair {
        let mut pair = Pair { engine: world.engine(), listener: key(0), client: key(1), server: key(2) };
        let at = listen(&mut pair.engine, pair.listener);
        connect(&mut pair.engine, &at, pair.client);
        let mut accepted = None;
        while accepted.is_none() {
            for (_, event) in turn(&mut pair.engine) {
                if let Event::Accepted(transport, _) = event {
                    accepted = Some(transport);
                }
            }
        }
        let transport = accepted.take().expect("it is accepted");
        pair.engine.attach(pair.server, transport, Role::Stream).expect("it is a stream");
        turn(&mut pair.engine);
        pair
    }

    fn send(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut queue = Box::new(Outgoing::new());
        queue.put(bytes);
        self.engine.send(self.client, queue).map(|sent| sent.result.expect("it is open"))
    }

    /// Returns the lengths of the chunks of the next waits, until one brings nothing. Keeps no chunk.
    fn chunks(&mut self) -> Vec<usize> {
        let mut lengths = Vec::new();
        loop {
            let before = lengths.len();
            for (_, event) in turn(&mut self.engine) {
                if let Event::Got(mut chunk) = event {
                    lengths.push(chunk.bytes().len());
                    self.engine.give(chunk);
                }
            }
            if lengths.len() == before {
                return lengths;
            }
        }
    }
}

#[test]
fn one_wait_returns_only_so_many_objects_and_the_others_wait_their_turn() {
    for (events_max, expected) in [(1, vec![1, 1, 1]), (2, vec![2, 1]), (3, vec![3]), (4, vec![3])] {
        let mut world = world(EngineOptions::with(|options| options.events_max = events_max));
        let mut engine = world.engine();
        let at = listen(&mut engine, key(0));
        (1..4).for_each(|slot| connect(&mut engine, &at, key(slot)));
        engine.reading(key(0), false);
        // All answers lie before the end of this long wait of another engine.
        world.run_for(Duration::from_millis(1));
        let counts: Vec<_> = expected.iter().map(|_| turn(&mut engine).len()).collect();
        assert_eq!(counts, expected, "{events_max}");
        assert_eq!(turn(&mut engine).len(), 0);
    }
}

#[test]
fn no_input_arrives_while_all_buffers_are_lent() {
    let mut world = world(EngineOptions::with(|options| (options.buffers, options.buffer_bytes) = (1, 4)));
    let mut pair = Pair::new(&mut world);
    assert_eq!(pair.send(b"abcdefgh"), Some(8));
    let mut got = turn(&mut pair.engine);
    let Some((_, Event::Got(mut chunk))) = got.pop() else { panic!("no input: {got:?}") };
    assert_eq!((chunk.bytes().to_vec(), got.len()), (b"abcd".to_vec(), 0));
    assert_eq!(turn(&mut pair.engine).len(), 0, "the only buffer is lent");
    assert_eq!(world.leaks().buffers, 1);
    pair.engine.give(chunk);
    assert_eq!(pair.chunks(), [4], "the rest arrives once it is back");
    assert_eq!(world.leaks().buffers, 0);
}

#[test]
fn a_buffer_that_never_comes_back_is_a_leak() {
    let mut world = world(EngineOptions::default());
    let mut pair = Pair::new(&mut world);
    assert_eq!(pair.send(b"a"), Some(1));
    let lost = turn(&mut pair.engine);
    drop(pair);
    assert_eq!((lost.len(), world.leaks()), (1, Leaks { buffers: 1, ..Leaks::default() }));
}

#[test]
fn a_chunk_is_no_longer_than_a_buffer_and_a_send_takes_no_more_than_its_limit() {
    for (limit, expected) in [(9, vec![9, 1]), (10, vec![10]), (11, vec![10])] {
        let buffers = EngineOptions::with(|options| options.buffer_bytes = limit);
        let mut world_of_buffers = world(buffers);
        let mut pair = Pair::new(&mut world_of_buffers);
        assert_eq!(pair.send(&[7; 10]), Some(10));
        assert_eq!(pair.chunks(), expected, "{limit}");
        let sends = EngineOptions::with(|options| options.send_bytes_max = limit);
        let mut world_of_sends = world(sends);
        assert_eq!(Pair::new(&mut world_of_sends).send(&[7; 10]), Some(limit.min(10)), "{limit}");
    }
}

#[test]
fn a_send_is_acknowledged_in_a_later_wait_and_its_bytes_do_not_wait_for_that() {
    let mut world = world(EngineOptions::with(|options| options.acknowledges_late = true));
    let mut pair = Pair::new(&mut world);
    assert_eq!(pair.send(b"abc"), None, "it is in flight");
    pair.engine.reading(pair.server, false);
    let told = turn(&mut pair.engine);
    assert!(
        matches!(&told[..], [(of, Event::Sent(sent))] if *of == pair.client && sent.queue.is_empty()
            && matches!(sent.result, Ok(3))),
        "{told:?}"
    );
    assert_eq!(pair.send(b"d"), None);
    let refused = pair.engine.send(pair.client, Box::new(Outgoing::new()));
    assert!(refused.is_some_and(|sent| sent.result.is_err()), "one send at a time");
}

#[test]
fn a_listener_that_rests_may_deliver_one_more_connection() {
    for (accepts_late, expected) in [(false, 0), (true, 1)] {
        let mut world = world(EngineOptions::with(|options| {
            (options.accepts_late, options.events_max) = (accepts_late, 1)
        }));
        let mut engine = world.engine();
        let at = listen(&mut engine, key(0));
        (1..4).for_each(|slot| connect(&mut engine, &at, key(slot)));
        world.run_for(Duration::from_millis(1));
        engine.reading(key(0), false);
        let told: Vec<_> = (0..9).flat_map(|_| turn(&mut engine)).collect();
        let accepted = told.iter().filter(|(_, event)| matches!(event, Event::Accepted(..))).count();
        assert_eq!(accepted, expected, "late: {accepts_late}");
    }
}

#[test]
fn a_close_waits_for_the_next_wait_unless_it_is_to_finish_now() {
    for (closes_late, finishes, in_use) in [(false, false, false), (true, false, true), (true, true, false)] {
        let mut world = world(EngineOptions::with(|options| options.closes_late = closes_late));
        let mut pair = Pair::new(&mut world);
        let at = pair.engine.local(pair.listener).expect("it listens");
        for key in [pair.listener, pair.server, pair.client] {
            pair.engine.close(key, Ending::Orderly);
        }
        if finishes {
            pair.engine.finish_closes();
        }
        assert_eq!(pair.engine.listen(&at, &ListenOptions::default()).is_err(), in_use);
        assert_eq!(turn(&mut pair.engine).len(), 0, "nothing is told of what is closed");
        assert!(pair.engine.listen(&at, &ListenOptions::default()).is_ok());
        drop(pair);
        assert_eq!(world.leaks(), Leaks::default());
    }
}

struct Echo;

impl Service for Echo {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.listen("0.0.0.0:7007", |_| Some(Stream::new(Bytes)))?;
        Ok(())
    }
}

impl Handle<Stream> for Echo {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Told<Bytes>) -> Result {
        if let Told::Received(bytes) = event {
            cx.send(id, bytes);
        }
        Ok(())
    }
}

/// Sends bytes, and keeps what returns.
struct Talk {
    to: String,
    said: Vec<u8>,
    heard: Vec<u8>,
}

impl Service for Talk {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let id = cx.connect(&self.to, Stream::new(Bytes))?;
        cx.send(id, &self.said);
        Ok(())
    }
}

impl Handle<Stream> for Talk {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, event: Told<Bytes>) -> Result {
        if let Told::Received(bytes) = event {
            self.heard.extend_from_slice(bytes);
        }
        Ok(())
    }
}

/// Plays an echo of 5,000 bytes in a harsh world, and returns the world with the node that talks.
fn play(seed: u64) -> (World, NodeId<Talk>) {
    let said: Vec<u8> = (0..5_000_u32).map(|at| (at % 251) as u8).collect();
    let mut world = World::with_options(seed, WorldOptions::harsh());
    let server = world.add(|runtime| runtime.add(Echo));
    let to = format!("{}:7007", world.ip(server));
    let talk =
        world.add(move |runtime| runtime.add(Talk { to: to.clone(), said: said.clone(), heard: Vec::new() }));
    let is_over = |world: &mut World| world.service(talk).is_some_and(|talk| talk.heard.len() == 5_000);
    assert!(world.run_until(Duration::from_secs(60), is_over), "seed {seed}: not all bytes returned");
    (world, talk)
}

#[test]
fn in_a_harsh_world_every_byte_returns_in_order_and_a_seed_is_one_run() {
    for seed in 0..10 {
        let (mut world, talk) = play(seed);
        let service = world.service(talk).expect("it lives");
        assert!(service.heard == service.said, "seed {seed}");
        assert_eq!(world.digest(), play(seed).0.digest(), "seed {seed}");
        assert_eq!(world.end(), Leaks::default(), "seed {seed}");
    }
}
