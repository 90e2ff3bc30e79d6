//! Datagrams in the world: lost, duplicated, reordered, truncated, refused, and the same in each run of a
//! seed.

use std::{io::ErrorKind, net::Ipv4Addr, time::Duration};

use reactor::{
    Address, BindOptions, Closed, Context, DatagramEvent, Datagrams, Ecn, Group, Handle, Id, Outbound,
    Receive, Result, Service,
};
use sim::{DatagramSummary, Digest, Faults, Kind, Link, NodeId, World, WorldOptions};

/// Notes its events, and answers if asked to.
#[derive(Default)]
struct Post {
    id: Option<Id<Datagrams>>,
    got: Vec<(Address, Vec<u8>)>,
    refused: Vec<Address>,
    /// Other errors.
    failed: Vec<ErrorKind>,
    echoes: bool,
    group: Option<Group>,
    options: BindOptions,
}

impl Service for Post {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let id = cx.bind_with("0.0.0.0:7007", &self.options, Datagrams::new())?;
        if let Some(group) = &self.group {
            cx.join(id, group)?;
        }
        self.id = Some(id);
        Ok(())
    }
}

impl Handle<Datagrams> for Post {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Datagrams>, event: DatagramEvent) -> Result {
        match event {
            DatagramEvent::Received(datagram) => {
                self.got.push((datagram.from.clone(), datagram.bytes.to_vec()));
                if self.echoes {
                    cx.send(id, datagram.answer(datagram.bytes).ecn(Ecn::Capable0));
                }
            }
            DatagramEvent::Undelivered { to: Some(to), error }
                if error.kind() == ErrorKind::ConnectionRefused =>
            {
                self.refused.push(to);
            }
            DatagramEvent::Undelivered { error, .. } => self.failed.push(error.kind()),
            DatagramEvent::Drained => (),
        }
        Ok(())
    }
}

fn world(seed: u64, change: impl FnOnce(&mut WorldOptions)) -> World {
    let mut options = WorldOptions::default();
    change(&mut options);
    World::with_options(seed, options)
}

fn add(world: &mut World, echoes: bool) -> NodeId<Post> {
    world.add(move |runtime| runtime.add(Post { echoes, ..Post::default() }))
}

fn address(world: &World, node: NodeId<Post>, port: u16) -> Address {
    Address::Ip((world.ip(node), port).into())
}

fn send(world: &mut World, from: NodeId<Post>, to: &Address, bytes: &[u8]) {
    world.with(from, |post, cx| post.id.map(|id| cx.send(id, Outbound::to(to, bytes))));
}

fn numbers(world: &World, node: NodeId<Post>) -> Vec<u32> {
    let got = &world.service(node).expect("it lives").got;
    got.iter().map(|(_, bytes)| u32::from_be_bytes(bytes[..].try_into().expect("a number"))).collect()
}

/// Sends this many numbers, one each millisecond, and waits for their arrival.
fn stream(world: &mut World, from: NodeId<Post>, to: NodeId<Post>, count: u32) {
    let at = address(world, to, 7007);
    for number in 0..count {
        send(world, from, &at, &number.to_be_bytes());
        world.run_for(Duration::from_millis(1));
    }
    world.run_for(Duration::from_secs(1));
}

#[test]
fn over_a_fair_link_all_arrive_once_and_an_echo_returns_them() {
    let mut world = World::new(1);
    let (one, other) = (add(&mut world, false), add(&mut world, true));
    stream(&mut world, one, other, 100);
    assert_eq!(numbers(&world, one), (0..100).collect::<Vec<_>>());
    let at = address(&world, other, 7007);
    assert!(world.service(one).expect("it lives").got.iter().all(|(from, _)| *from == at));
    let expected = DatagramSummary::default();
    let datagrams = world.summary().datagrams;
    assert_eq!((datagrams.sent, datagrams.received), (200, 200));
    assert_eq!((datagrams.lost, datagrams.doubled, datagrams.dropped), (expected.lost, 0, 0));
}

#[test]
fn over_a_bad_link_they_are_lost_doubled_and_overtaken_and_counted() {
    let bad = |options: &mut WorldOptions| {
        options.link =
            Link { lost: 100_000, doubled: 100_000, latency_max: Duration::from_millis(9), ..Link::lan() };
    };
    let run = |seed| {
        let mut world = world(seed, bad);
        let (one, other) = (add(&mut world, false), add(&mut world, false));
        stream(&mut world, one, other, 1_000);
        (numbers(&world, other), world.summary().datagrams, world.digest())
    };
    let (numbers, counts, digest) = run(7);
    assert!(counts.lost > 50 && counts.doubled > 50 && counts.overtaken > 50, "{counts:?}");
    assert_eq!(counts.received, 1_000 - counts.lost + counts.doubled, "{counts:?}");
    assert_eq!(numbers.len() as u64, counts.received);
    assert_eq!(run(7), (numbers.clone(), counts, digest), "the same in each run");
    assert_ne!(run(8).0, numbers, "and another one for another seed");
}

#[test]
fn a_partition_loses_them_and_a_hold_keeps_them() {
    let mut world = World::new(2);
    let (one, other) = (add(&mut world, false), add(&mut world, false));
    let at = address(&world, other, 7007);
    world.partition(&[one.into()], &[other.into()]);
    send(&mut world, one, &at, &1_u32.to_be_bytes());
    world.run_for(Duration::from_secs(1));
    world.stop_faults();
    send(&mut world, one, &at, &2_u32.to_be_bytes());
    world.run_for(Duration::from_secs(1));
    assert_eq!(numbers(&world, other), [2], "what a partition met is lost");
    world.hold(one, other);
    send(&mut world, one, &at, &3_u32.to_be_bytes());
    world.run_for(Duration::from_secs(1));
    assert_eq!(numbers(&world, other), [2]);
    world.stop_faults();
    world.run_for(Duration::from_secs(1));
    assert_eq!(numbers(&world, other), [2, 3], "what a hold met comes later");
    assert_eq!(world.summary().datagrams.lost, 1);
}

#[test]
fn nobody_at_the_port_is_a_report_and_no_machine_is_silence() {
    let mut world = World::new(3);
    let (one, other) = (add(&mut world, false), add(&mut world, false));
    let nobody = address(&world, other, 9);
    let nowhere: Address = "10.0.99.99:7007".parse().expect("an address");
    for to in [&nobody, &nowhere, &nobody] {
        send(&mut world, one, to, b"anyone?");
    }
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.service(one).expect("it lives").refused, [nobody.clone(), nobody.clone()]);
    // A machine without power does not answer. A machine whose program ended refuses.
    let at = address(&world, other, 7007);
    world.power_off(other);
    send(&mut world, one, &at, b"anyone?");
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.service(one).expect("it lives").refused.len(), 2);
    world.restart(other);
    world.crash(other);
    send(&mut world, one, &at, b"anyone?");
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.service(one).expect("it lives").refused, [nobody.clone(), nobody, at]);
    world.restart(other);
    stream(&mut world, one, other, 1);
    assert_eq!(numbers(&world, other), [0], "the socket lives");
    assert_eq!(world.end(), sim::Leaks::default());
}

#[test]
fn a_group_reaches_its_members_on_all_nodes_and_broadcast_everybody() {
    let mut world = World::new(4);
    let group = Group::V4 { group: [239, 1, 2, 3].into(), interface: [0, 0, 0, 0].into() };
    let member =
        move |runtime: &mut reactor::Runtime| runtime.add(Post { group: Some(group), ..Post::default() });
    let (one, two) = (world.add(member), world.add(member));
    let outside = add(&mut world, false);
    let mut options = BindOptions::default();
    options.broadcast = true;
    let sender = world.add(move |runtime| runtime.add(Post { options: options.clone(), ..Post::default() }));
    let to_group = Address::Ip(([239, 1, 2, 3], 7007).into());
    let to_all = Address::Ip(([255, 255, 255, 255], 7007).into());
    send(&mut world, outside, &to_group, &1_u32.to_be_bytes());
    world.run_for(Duration::from_secs(1));
    send(&mut world, sender, &to_all, &2_u32.to_be_bytes());
    world.run_for(Duration::from_secs(1));
    assert_eq!([one, two, outside].map(|node| numbers(&world, node)), [vec![1, 2], vec![1, 2], vec![2]]);
    assert_eq!(numbers(&world, sender), [2], "also itself");
    // Without the option, the send fails.
    send(&mut world, outside, &to_all, b"not allowed");
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.service(outside).expect("it lives").failed, [ErrorKind::PermissionDenied]);
    assert_eq!(world.summary().datagrams.sent, 6);
}

#[test]
fn a_receive_buffer_is_bounded() {
    for (count, room) in [(3, 4), (4, 4), (5, 4)] {
        let mut world = World::new(5);
        let mut options = BindOptions::default();
        options.receive_buffer = Some(room * 100);
        let one = add(&mut world, false);
        let other =
            world.add(move |runtime| runtime.add(Post { options: options.clone(), ..Post::default() }));
        let at = address(&world, other, 7007);
        // A paused node reads nothing.
        world.pause(other);
        for _ in 0..count {
            send(&mut world, one, &at, &[7; 100]);
        }
        world.run_for(Duration::from_secs(1));
        world.resume(other);
        world.run_for(Duration::from_secs(1));
        assert_eq!(world.service(other).expect("it lives").got.len(), count.min(room));
        assert_eq!(world.summary().datagrams.dropped as usize, count.saturating_sub(room));
    }
}

#[test]
fn only_so_many_are_under_way() {
    for (count, dropped) in [(UNDER_WAY_MAX - 1, 0), (UNDER_WAY_MAX, 0), (UNDER_WAY_MAX + 1, 1)] {
        let far = Duration::from_secs(10);
        let mut world =
            world(6, |options| options.link = Link { latency_min: far, latency_max: far, ..Link::lan() });
        let (one, other) = (add(&mut world, false), add(&mut world, false));
        let at = address(&world, other, 7007);
        let mut left = count;
        while left > 0 {
            let some = left.min(4_000);
            (0..some).for_each(|_| send(&mut world, one, &at, b"x"));
            world.run_for(Duration::from_millis(1));
            left -= some;
        }
        assert_eq!(world.summary().datagrams.dropped, dropped, "of {count}");
    }
}

/// Plays a run with every kind of fault that affects datagrams.
fn rough(seed: u64) -> (Digest, DatagramSummary, u64) {
    let mut world = world(seed, |options| {
        options.link = Link { lost: 20_000, doubled: 20_000, ..Link::wan() };
        let kinds =
            [Kind::TinyRead, Kind::LateSend, Kind::LateInput, Kind::EarlyWake, Kind::Reorder, Kind::Spike];
        options.faults = kinds.into_iter().fold(Faults::none(), |faults, kind| faults.with(kind, 100_000));
        options.history_max = 10_000;
    });
    let nodes: Vec<_> = (0..5).map(|_| add(&mut world, false)).collect();
    let echo = add(&mut world, true);
    for round in 0..100_u32 {
        for node in &nodes {
            let at = address(&world, echo, 7007);
            send(&mut world, *node, &at, &round.to_be_bytes());
        }
        if round % 20 == 10 {
            world.crash(nodes[0]);
            world.restart(nodes[0]);
        }
        world.run_for(Duration::from_millis(7));
    }
    world.run_for(Duration::from_secs(5));
    let history = world.history().len() as u64;
    (world.digest(), world.summary().datagrams, history)
}

#[test]
fn one_seed_is_one_run_with_faults_too() {
    for seed in 0..5 {
        let run = rough(seed);
        assert_eq!(run, rough(seed), "seed {seed}");
        assert!(run.1.received > 500 && run.2 > 500, "seed {seed}: {run:?}");
    }
    assert_ne!(rough(0).0, rough(1).0);
}

/// The most datagrams in flight in the world.
const UNDER_WAY_MAX: usize = 65_536;

/// Releases its socket, and adds it again.
#[derive(Default)]
struct Passing {
    id: Option<Id<Datagrams>>,
    closed: Vec<String>,
    got: usize,
    last_words: usize,
}

struct LastWords;

impl Service for Passing {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        self.id = Some(cx.bind("0.0.0.0:7007", Datagrams::new())?);
        Ok(())
    }
}

impl Handle<Datagrams> for Passing {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Datagrams>, event: DatagramEvent) -> Result {
        self.got += usize::from(matches!(event, DatagramEvent::Received(_)));
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: Id<Datagrams>, socket: Datagrams, why: Closed) {
        if let Closed::Released = why {
            self.id = Some(cx.add(socket).map_err(|rejected| rejected.error).expect("there is room"));
        }
        // The service keeps its node up.
        cx.after(Duration::from_secs(60), LastWords);
        self.closed.push(why.to_string());
    }
}

impl Receive<LastWords> for Passing {
    fn receive(&mut self, _: &mut Context<Self>, _: LastWords) -> Result {
        self.last_words += 1;
        Ok(())
    }
}

#[test]
fn a_released_socket_keeps_its_deadline_and_its_pause_and_not_its_last_words() {
    let mut world = World::new(12);
    let receiver = world.add(|runtime| runtime.add(Passing::default()));
    let sender = add(&mut world, false);
    world.run_for(Duration::from_millis(1));
    world.with(receiver, |passing, cx| {
        let id = passing.id.take().expect("it is bound");
        cx.deadline_with(id, Duration::from_secs(5), LastWords);
        cx.pause(id);
        cx.release(id)
    });
    world.run_for(Duration::from_millis(1));
    let to = Address::Ip((world.ip(receiver), 7007).into());
    send(&mut world, sender, &to, b"hello");
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.service(receiver).expect("it lives").got, 0, "it is paused");
    world.with(receiver, |passing, cx| passing.id.map(|id| cx.resume(id)));
    world.run_for(Duration::from_secs(1));
    let passing = world.service(receiver).expect("it lives");
    assert_eq!((passing.got, &passing.closed[..]), (1, &["released".to_owned()][..]));
    world.run_for(Duration::from_secs(10));
    let passing = world.service(receiver).expect("it lives");
    assert_eq!((passing.last_words, &passing.closed[1..]), (0, &["the deadline passed".to_owned()][..]));
}

#[test]
fn a_group_that_was_not_joined_cannot_be_left() {
    let mut world = World::new(13);
    let post = add(&mut world, false);
    world.run_for(Duration::from_millis(1));
    let group = Group::V4 { group: Ipv4Addr::new(239, 1, 2, 3), interface: Ipv4Addr::UNSPECIFIED };
    let left = world.with(post, |post, cx| post.id.map(|id| cx.leave(id, &group))).flatten();
    let error = left.expect("it is bound").expect_err("it is no member");
    assert_eq!(error.io().map(std::io::Error::kind), Some(ErrorKind::AddrNotAvailable));
    assert!(error.to_string().starts_with("leave 239.1.2.3 on Datagrams "), "{error}");
}
