//! The gossip service of the examples at its limits: large sets, few differences, malformed input from peers.

#[path = "../examples/gossip_service/mod.rs"]
mod gossip_service;

use std::{cell::RefCell, fmt::Display, rc::Rc, time::Duration};

use reactor::{Address, Closed, Context, Event, Handle, Id, Lines, Result, Service, Stream};
use sim::{NodeId, World};

use self::gossip_service::{Facts, Gossip, Unfit, Watch};

#[derive(Clone)]
struct Nobody;
impl Watch for Nobody {}

type Disk = Rc<RefCell<Facts>>;

fn facts(texts: impl IntoIterator<Item = String>) -> Disk {
    let mut facts = Facts::default();
    for text in texts {
        facts.add(&text).expect("a short line, and few of them");
    }
    Rc::new(RefCell::new(facts))
}

fn numbered(name: &str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |number| format!("{name} {number}"))
}

/// Makes a node that begins with these facts.
fn node(world: &mut World, peers: &[NodeId<Gossip>], disk: &Disk) -> NodeId<Gossip> {
    watched_node(world, peers, disk, Nobody)
}

fn watched_node(
    world: &mut World,
    peers: &[NodeId<Gossip>],
    disk: &Disk,
    watch: impl Watch + Clone + 'static,
) -> NodeId<Gossip> {
    let address = |ip: std::net::Ipv4Addr| Address::Ip((ip, 7946).into());
    let peers: Vec<Address> = peers.iter().map(|peer| address(world.ip(*peer))).collect();
    let disk = disk.clone();
    let listen = address(std::net::Ipv4Addr::UNSPECIFIED);
    world.add(move |runtime| {
        runtime.add(Gossip::new(listen.clone(), peers.clone(), disk.clone(), watch.clone()))
    })
}

/// Runs until both have this number of facts, and checks that the facts are the same.
#[track_caller]
fn assert_agree(world: &mut World, one: &Disk, other: &Disk, count: u64) {
    let agreed = |_: &mut World| [one, other].iter().all(|disk| disk.borrow().sum().count == count);
    assert!(
        world.run_until(Duration::from_secs(60), agreed),
        "{:?} and {:?}, not {count}",
        one.borrow().sum(),
        other.borrow().sum()
    );
    assert!(one.borrow().texts().eq(other.borrow().texts()));
}

#[test]
fn two_large_sets_become_one() {
    let mut world = World::new(1);
    let one = facts(numbered("both", 500).chain(numbered("left", 1500)));
    let other = facts(numbered("both", 500).chain(numbered("right", 1500)));
    let first = node(&mut world, &[], &one);
    node(&mut world, &[first], &other);
    assert_agree(&mut world, &one, &other, 3500);
}

#[test]
fn one_difference_among_thousands_costs_little() {
    for holder in 0..2 {
        let mut world = World::new(2);
        let disks = [facts(numbered("both", 4000)), facts(numbered("both", 4000))];
        disks[holder].borrow_mut().add("only here").expect("there is room");
        let first = node(&mut world, &[], &disks[0]);
        node(&mut world, &[first], &disks[1]);
        assert_agree(&mut world, &disks[0], &disks[1], 4001);
        let bytes = world.summary().bytes;
        assert!(bytes < 8 << 10, "{bytes} bytes, where the ids alone are 32,000");
    }
}

#[test]
fn a_set_is_full_at_its_limit_and_a_peer_with_more_does_no_harm() {
    let full = facts(numbered("full", 4095));
    assert!(full.borrow_mut().add("the last").expect("one more fits").is_some());
    assert_eq!(full.borrow_mut().add("one too many"), Err(Unfit::Full));
    assert_eq!(full.borrow_mut().add("the last"), Ok(None), "what is known needs no room");

    let mut world = World::new(3);
    let other = facts(["one too many".to_owned()]);
    let first = node(&mut world, &[], &full);
    node(&mut world, &[first], &other);
    world.run_for(Duration::from_secs(10));
    assert_eq!((full.borrow().sum().count, other.borrow().sum().count), (4096, 4096));
}

#[test]
fn a_fact_is_one_line_of_at_most_512_bytes() {
    let mut facts = Facts::default();
    assert!(matches!(facts.add(&"x".repeat(511)), Ok(Some(_))));
    assert!(matches!(facts.add(&"x".repeat(512)), Ok(Some(_))));
    assert_eq!(facts.add(&"x".repeat(513)), Err(Unfit::TooLong));
    assert_eq!(facts.add(""), Err(Unfit::Empty));
    assert_eq!(facts.add("a\rb"), Err(Unfit::Newline));
    assert_eq!(facts.sum().count, 2);
}

/// Connects this many times, sends one line each time, and notes the answers and the number of ended
/// connections.
struct Talker {
    to: String,
    times: usize,
    line: String,
    notes: Rc<RefCell<Notes>>,
}

#[derive(Default)]
struct Notes {
    heard: Vec<String>,
    ended: usize,
}

impl Service for Talker {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        for _ in 0..self.times {
            let id = cx.connect(&self.to, Stream::new(Lines::new()))?;
            if !self.line.is_empty() {
                cx.send(id, &self.line);
            }
        }
        Ok(())
    }
}

impl Handle<Stream<Lines>> for Talker {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream<Lines>>, event: Event<Lines>) -> Result {
        if let Event::Received(line) = event {
            self.notes.borrow_mut().heard.push(line.to_owned());
        }
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<Self>, _: Id<Stream<Lines>>, _: Stream<Lines>, _: Closed) {
        self.notes.borrow_mut().ended += 1;
    }
}

/// Returns a node's answers to a line within a second, and the number of connections that it ended.
fn talk(times: usize, line: &str) -> (Vec<String>, usize) {
    let mut world = World::new(4);
    let node = node(&mut world, &[], &facts(["the sky is blue".to_owned()]));
    let (to, line) = (format!("{}:7946", world.ip(node)), line.to_owned());
    // Outside of the node, because the node ends with its last connection.
    let notes: Rc<RefCell<Notes>> = Rc::default();
    let kept = notes.clone();
    world.add(move |runtime| {
        let (to, line, notes) = (to.clone(), line.clone(), kept.clone());
        runtime.add(Talker { to, times, line, notes })
    });
    world.run_for(Duration::from_secs(1));
    let Notes { heard, ended } = notes.take();
    (heard, ended)
}

#[test]
fn a_peer_that_talks_nonsense_is_refused_and_nothing_else_is() {
    let ids = |count| " 7".repeat(count);
    for line in ["hello", "sum", "sum 0 1 2", "sum 0 1 x 2", "have 0", "want", "want x", "fact", "same same"]
    {
        assert_eq!(talk(1, line), (vec![], 1), "{line}");
    }
    for (count, ended) in [(63, 0), (64, 0), (65, 1)] {
        assert_eq!(talk(1, &format!("want{}", ids(count))), (vec![], ended), "{count} wanted");
        // An empty range has no facts to send, but the ids that the peer listed are still requested.
        let (heard, ends) = talk(1, &format!("have 1 0{}", ids(count)));
        assert_eq!((heard.len(), ends), (1 - ended, ended), "{count} had");
    }
    let (heard, ends) = talk(1, "have 0 ffffffffffffffff");
    assert_eq!((heard, ends), (vec!["fact the sky is blue".to_owned()], 0));
    assert_eq!(talk(1, "sum 9 3 1 1").0, ["have 9 3"], "a range that ends before it begins is empty");
}

#[test]
fn a_node_has_at_most_256_links() {
    assert_eq!(talk(255, "").1, 0);
    assert_eq!(talk(256, "").1, 0);
    assert_eq!(talk(257, "").1, 1);
}

/// Notes the reasons of lost links, and the times of the next tries.
#[derive(Clone, Default)]
struct Losses(Rc<RefCell<Vec<(String, Duration)>>>);

impl Watch for Losses {
    fn lost(&mut self, _: &Address, why: &dyn Display, again: Duration) {
        self.0.borrow_mut().push((why.to_string(), again));
    }
}

#[test]
fn a_silent_link_is_ended_and_made_again_later_and_later_until_the_way_is_free() {
    let mut world = World::new(5);
    let (losses, disks) = (Losses::default(), [facts(["a".to_owned()]), facts(["b".to_owned()])]);
    let first = node(&mut world, &[], &disks[0]);
    let second = watched_node(&mut world, &[first], &disks[1], losses.clone());
    assert_agree(&mut world, &disks[0], &disks[1], 2);
    assert!(losses.0.borrow().is_empty());
    world.partition(&[first.node()], &[second.node()]);
    let published = world.with(first, |gossip, cx| gossip.publish(cx, "c")).expect("it is up");
    assert_eq!(published, Ok(()));
    world.run_for(Duration::from_secs(60));
    assert_eq!(disks[1].borrow().sum().count, 2, "nothing gets through");

    let lost = losses.0.take();
    assert_eq!(lost[0].0, "the deadline passed");
    assert!(lost[1..].iter().all(|(why, _)| why == "connecting took too long"), "{lost:?}");
    assert!(lost.len() > 6, "{lost:?}");
    // The delay starts at a tenth of a second and doubles up to three. Jitter takes it from half to one and a
    // half of that.
    for (try_number, (_, again)) in lost.iter().enumerate() {
        let middle = Duration::from_millis((100 << try_number.min(10)).min(3000));
        assert!((middle / 2..=middle * 3 / 2).contains(again), "try {try_number}: {again:?}");
    }
    world.repair();
    assert_agree(&mut world, &disks[0], &disks[1], 3);
}
