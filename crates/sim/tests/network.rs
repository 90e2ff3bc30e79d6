//! The network of a world: the effect of faults on connections, and the limits of links.

mod common;

use std::time::Duration;

use common::{Caller, Server, pair, pair_with};
use reactor::{Bytes, Context, Event, Handle, Id, Result, Service, Stream};
use sim::{Faults, Kind, Link, World, WorldOptions};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_partition_keeps_bytes_and_a_repair_brings_them_in_order() {
    let (mut world, server, caller) = pair(1);
    world.partition(&[server.node()], &[caller.node()]);
    for byte in 0..10 {
        Caller::send(&mut world, caller, &[byte]);
        world.run_for(Duration::from_millis(10));
    }
    assert_eq!(Server::got(&world, server), b"");
    world.repair();
    world.run_for(SECOND);
    assert_eq!(Server::got(&world, server), (0..10).collect::<Vec<u8>>());
    assert_eq!(Caller::got(&world, caller), (0..10).collect::<Vec<u8>>(), "the echo came too");
    assert!(world.summary().faults.observed(Kind::Partition) > 0);
}

#[test]
fn a_one_way_partition_keeps_the_answers_only() {
    let (mut world, server, caller) = pair(2);
    world.partition_one_way(&[server.node()], &[caller.node()]);
    Caller::send(&mut world, caller, b"there");
    world.run_for(SECOND);
    assert_eq!((Server::got(&world, server), Caller::got(&world, caller)), (b"there".to_vec(), vec![]));
    world.repair();
    world.run_for(SECOND);
    assert_eq!(Caller::got(&world, caller), b"there");
    assert_eq!(world.summary().faults.injected(Kind::OneWay), 1);
}

#[test]
fn what_is_held_is_released_and_two_holds_need_two_releases() {
    let (mut world, server, caller) = pair(3);
    world.hold(server, caller);
    world.hold(server, caller);
    Caller::send(&mut world, caller, b"held");
    world.run_for(SECOND);
    world.release(server, caller);
    world.run_for(SECOND);
    assert_eq!(Server::got(&world, server), b"", "one hold is left");
    world.release(server, caller);
    world.run_for(SECOND);
    assert_eq!(Server::got(&world, server), b"held");
}

#[test]
fn a_slow_node_answers_late() {
    let took = |factor| {
        let (mut world, server, caller) = pair(4);
        world.slow(server, factor);
        let before = world.now();
        Caller::send(&mut world, caller, b"x");
        assert!(world.run_until(60 * SECOND, |world| Caller::got(world, caller) == b"x"));
        world.now() - before
    };
    let (fast, slow) = (took(1), took(1000));
    assert!(fast < Duration::from_millis(1), "{fast:?}");
    assert!(slow >= Duration::from_millis(200), "there and back, 100 ms each at least: {slow:?}");
}

#[test]
fn a_crash_is_told_to_the_peer_and_a_power_cut_is_not() {
    let (mut world, server, caller) = pair(5);
    world.crash(server);
    world.run_for(SECOND);
    assert_eq!(Caller::ends(&world, caller), 1, "its kernel closed what it had");

    let mut options = WorldOptions::default();
    options.give_up = 30 * SECOND;
    let (mut world, server, caller) = pair_with(5, options);
    world.power_off(server);
    Caller::send(&mut world, caller, b"anybody?");
    world.run_for(29 * SECOND);
    assert!(Caller::ended(&world, caller).is_empty(), "nobody told it");
    assert_eq!(Caller::ends(&world, caller), 0, "not even an end");
    world.run_for(2 * SECOND);
    assert_eq!(Caller::ended(&world, caller), ["TimedOut"], "after it gave up");
}

#[test]
fn an_idle_connection_to_a_node_without_power_stays_and_is_reset_when_that_is_back() {
    let (mut world, server, caller) = pair(6);
    world.power_off(server);
    world.run_for(1000 * SECOND);
    assert!(Caller::ended(&world, caller).is_empty(), "nobody sent anything");
    world.restart(server);
    world.run_for(SECOND);
    Caller::send(&mut world, caller, b"still there?");
    world.run_for(SECOND);
    assert_eq!(Caller::ended(&world, caller), ["ConnectionReset"]);
    assert_eq!(Server::got(&world, server), b"", "the new life knows nothing of the old one");
}

#[test]
fn a_restart_calls_the_builder_again_and_what_it_captured_stays() {
    let (mut world, server, caller) = pair(7);
    Caller::send(&mut world, caller, b"before");
    world.run_for(SECOND);
    assert_eq!((Server::lives(&world, server), Server::got(&world, server)), (1, b"before".to_vec()));
    world.crash(server);
    assert!(!world.is_up(server) && world.service(server).is_none());
    world.restart(server);
    assert_eq!((Server::lives(&world, server), Server::got(&world, server)), (2, vec![]));
    world.restart(server);
    assert_eq!(Server::lives(&world, server), 2, "it is up already");
    assert_eq!(world.summary().crashes, 1);
}

#[test]
fn a_paused_node_stands_while_its_kernel_goes_on() {
    let (mut world, server, caller) = pair(8);
    world.pause(server);
    Caller::send(&mut world, caller, b"wait");
    Caller::dial(&mut world, caller);
    world.run_for(10 * SECOND);
    assert_eq!(Server::got(&world, server), b"");
    assert_eq!(Caller::opened(&world, caller), 2, "the kernel takes connects by itself");
    world.resume(server);
    world.run_for(SECOND);
    assert_eq!(Server::got(&world, server), b"wait");
    assert!(world.summary().faults.observed(Kind::Pause) > 0);
}

#[test]
fn a_step_of_the_wall_moves_no_timer() {
    let (mut world, _, caller) = pair(9);
    let before = Caller::wall(&mut world, caller);
    world.with(caller, |_, cx| cx.after(10 * SECOND, ())).expect("it is up");
    world.step_wall(caller, 3600 * SECOND, false);
    let ahead = Caller::wall(&mut world, caller).duration_since(before).expect("it went forward");
    assert!(ahead >= 3600 * SECOND && ahead < 3601 * SECOND, "{ahead:?}");
    world.step_wall(caller, 7200 * SECOND, true);
    let back = before.duration_since(Caller::wall(&mut world, caller)).expect("it went back");
    assert!(back > 3599 * SECOND && back <= 3600 * SECOND, "{back:?}");
    world.run_for(Duration::from_millis(9_990));
    assert_eq!(Caller::ticks(&world, caller), 0);
    world.run_for(Duration::from_millis(20));
    assert_eq!(Caller::ticks(&world, caller), 1);
}

#[test]
fn a_connect_is_refused_by_a_host_and_times_out_without_one() {
    let (mut world, server, caller) = pair(10);
    let nobody = format!("{}:9", world.ip(server));
    Caller::dial_to(&mut world, caller, nobody);
    world.run_for(SECOND);
    assert_eq!(Caller::ended(&world, caller), ["ConnectionRefused"]);
    Caller::dial_to(&mut world, caller, "192.0.2.1:9".to_owned());
    world.run_for(300 * SECOND);
    let ended = Caller::ended(&world, caller);
    assert!(ended.len() == 2 && ended[1].contains("TimedOut"), "{ended:?}");
}

#[test]
fn a_connect_in_a_partition_gets_through_when_that_is_over() {
    let (mut world, server, caller) = pair(11);
    world.partition(&[server.node()], &[caller.node()]);
    Caller::dial(&mut world, caller);
    world.run_for(2 * SECOND);
    assert_eq!(Caller::opened(&world, caller), 1, "only the first");
    world.repair();
    world.run_for(10 * SECOND);
    assert_eq!(Caller::opened(&world, caller), 2, "it was sent again");
}

#[test]
fn a_half_close_leaves_the_other_direction_open() {
    let (mut world, server, caller) = pair(12);
    Caller::send(&mut world, caller, b"last");
    Caller::finish(&mut world, caller);
    world.run_for(SECOND);
    assert_eq!((Server::ends(&world, server), Caller::got(&world, caller)), (1, b"last".to_vec()));
    Server::send_all(&mut world, server, b"after your end");
    world.run_for(SECOND);
    assert_eq!(Caller::got(&world, caller), b"lastafter your end");
    assert!(Caller::ended(&world, caller).is_empty() && Server::ended(&world, server).is_empty());
}

#[test]
fn an_abort_is_a_reset_at_the_peer() {
    let (mut world, server, caller) = pair(13);
    Caller::abort(&mut world, caller);
    world.run_for(SECOND);
    assert_eq!(Server::ended(&world, server), ["ConnectionReset"]);
}

#[test]
fn a_reset_takes_its_way_like_any_packet() {
    let mut options = WorldOptions::default();
    let way = Duration::from_millis(100);
    options.link = Link { latency_min: way, latency_max: way, ..Link::lan() };
    let (mut world, server, caller) = pair_with(20, options);
    Caller::send(&mut world, caller, b"lost on its way");
    world.run_for(Duration::from_millis(90));
    Caller::abort(&mut world, caller);
    let before = world.now();
    assert!(world.run_until(SECOND, |world| !Server::ended(world, server).is_empty()));
    let took = world.now() - before;
    assert!(took >= way, "{took:?}");
}

#[test]
fn a_window_bounds_what_is_under_way_and_all_arrives_when_it_is_read() {
    let mut options = WorldOptions::default();
    options.link = Link { window_bytes: 1000, ..Link::lan() };
    let (mut world, server, caller) = pair_with(14, options);
    Server::set_reading(&mut world, server, false);
    world.run_for(SECOND);
    let sent: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    let before = world.summary().bytes;
    Caller::send(&mut world, caller, &sent);
    world.run_for(SECOND);
    assert_eq!(world.summary().bytes - before, 1000, "a window, and no byte more");
    Server::set_reading(&mut world, server, true);
    assert!(world.run_until(60 * SECOND, |world| Caller::got(world, caller).len() == sent.len()));
    assert!(Caller::got(&world, caller) == sent && Server::got(&world, server) == sent);
}

#[test]
fn bandwidth_takes_its_time() {
    let mut options = WorldOptions::default();
    options.link = Link { bytes_per_second: 10_000, ..Link::lan() };
    let (mut world, server, caller) = pair_with(15, options);
    let before = world.now();
    Caller::send(&mut world, caller, &[7; 20_000]);
    assert!(world.run_until(60 * SECOND, |world| Server::got(world, server).len() == 20_000));
    let took = world.now() - before;
    assert!(took >= 2 * SECOND && took < Duration::from_millis(2_100), "{took:?}");
}

#[test]
fn unix_sockets_lie_within_a_host() {
    let mut world = World::new(16);
    let server = world.add(|runtime| runtime.add(Server::at("/run/server")));
    world.run_for(SECOND);
    let id = world.with(server, |service, cx| service.dial(cx, "/run/server")).expect("it is up");
    assert!(id.is_ok());
    world.run_for(SECOND);
    assert_eq!(Server::opened(&world, server), 2, "both ends are its own");
    let stranger = world.add(|runtime| runtime.add(Server::at("/run/other")));
    let refused = world.with(stranger, |service, cx| service.dial(cx, "/run/server")).expect("it is up");
    let kind = refused.expect_err("the path is on another host").io().map(std::io::Error::kind);
    assert_eq!(kind, Some(std::io::ErrorKind::NotFound));
}

#[test]
fn partial_reads_and_writes_lose_nothing_and_cut_differently_by_seed() {
    let cuts = |seed| {
        let mut options = WorldOptions::default();
        options.faults = Faults::none().with(Kind::TinyRead, 500_000).with(Kind::PartialSend, 500_000);
        let (mut world, server, caller) = pair_with(seed, options);
        let sent: Vec<u8> = (0..10_000_u32).map(|n| (n % 249) as u8).collect();
        Caller::send(&mut world, caller, &sent);
        world.run_for(60 * SECOND);
        assert!(Server::got(&world, server) == sent && Caller::got(&world, caller) == sent, "seed {seed}");
        (Server::pieces(&world, server), world.digest())
    };
    assert_eq!(cuts(17), cuts(17));
    assert_ne!(cuts(17), cuts(18));
}

#[test]
fn a_machine_without_power_answers_nobody_also_when_its_services_had_ended() {
    let (mut world, server, caller) = pair(20);
    world.crash(server);
    world.run_for(SECOND);
    Caller::dial(&mut world, caller);
    world.run_for(SECOND);
    assert_eq!(Caller::ended(&world, caller), ["ConnectionRefused"], "the host is there");
    world.power_off(server);
    Caller::dial(&mut world, caller);
    world.run_for(10 * SECOND);
    assert_eq!(Caller::ended(&world, caller).len(), 1, "nothing refuses it");
    world.restart(server);
    world.run_for(20 * SECOND);
    assert_eq!(Caller::opened(&world, caller), 2, "it was sent again");
}

#[test]
fn a_world_at_its_end_holds_nothing() {
    let (mut world, ..) = pair(19);
    assert_ne!(world.leaks(), sim::Leaks::default());
    assert_eq!(world.end(), sim::Leaks::default());
}

/// Connects once, and takes no end of its connection.
struct Careless(String);

impl Service for Careless {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.connect(&self.0, Stream::new(Bytes))?;
        Ok(())
    }
}

impl Handle<Stream> for Careless {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Stream>, _: Event<Bytes>) -> Result {
        Ok(())
    }
}

#[test]
fn a_connect_that_takes_too_long_names_its_target() {
    let mut world = World::new(9);
    let server = world.add(|runtime| runtime.add(Server::default()));
    let address = format!("{}:7", world.ip(server));
    let target = address.clone();
    world.crash(server);
    let caller = world.add(move |runtime| runtime.add(Careless(target.clone())));
    world.partition(&[server.node()], &[caller.node()]);
    world.run_for(60 * SECOND);
    let ended = world.ended(caller).and_then(|ended| ended.as_ref().ok()).expect("it had nothing left to do");
    assert_eq!(ended.services[0].first_errors, [format!("connect {address}: connecting took too long")]);
}
