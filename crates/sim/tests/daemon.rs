//! The example `daemon` in a world, unchanged: its sockets, its notifications, its signals, and its next
//! life.
#![cfg(unix)]

#[path = "../../reactor/examples/daemon/service.rs"]
mod service;

use std::{cell::RefCell, rc::Rc, time::Duration};

use reactor::{
    Address, Context, Event, Handle, Id, Lines, Result, Service, Stream,
    signals::{Graceful, Signal},
    systemd::Supervised,
};
use service::Daemon;
use sim::{Faults, Kind, Leaks, NodeId, World, WorldOptions};

const SECOND: Duration = Duration::from_secs(1);

/// Sends a line each second, over one connection after the other, and notes the answers.
struct Talker {
    to: Address,
    got: Rc<RefCell<Vec<String>>>,
}

impl Service for Talker {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let id = cx.connect(&self.to, Stream::new(Lines::new()))?;
        cx.send(id, "hello");
        Ok(())
    }
}

impl Handle<Stream<Lines>> for Talker {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream<Lines>>, event: Event<Lines>) -> Result {
        if let Event::Received(line) = event {
            self.got.borrow_mut().push(line.to_owned());
            cx.close(id);
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, _: Id<Stream<Lines>>, _: Stream<Lines>, _: reactor::Closed) {
        cx.after(SECOND, ());
    }
}

impl reactor::Receive<()> for Talker {
    fn receive(&mut self, cx: &mut Context<Self>, (): ()) -> Result {
        self.start(cx)
    }
}

/// Makes a world with a daemon over its supervisor's socket, and a talker.
fn scene(seed: u64, faults: Faults) -> (World, NodeId<Daemon>, Rc<RefCell<Vec<String>>>) {
    let mut options = WorldOptions::default();
    (options.faults, options.watchdog) = (faults, Some(4 * SECOND));
    let mut world = World::with_options(seed, options);
    let nowhere: Address = "127.0.0.1:1".parse().expect("an address");
    let daemon = world.add_activated(&[("lines", "0.0.0.0:7007")], move |runtime| {
        runtime.add(Graceful::within(10 * SECOND))?;
        let supervised = runtime.add(Supervised::new())?;
        runtime.add(Daemon::new(nowhere.clone(), supervised))
    });
    let daemon = daemon.expect("the address is one");
    let to: Address = format!("{}:7007", world.ip(daemon)).parse().expect("an address");
    let got = Rc::<RefCell<Vec<String>>>::default();
    let shared = got.clone();
    world.add(move |runtime| runtime.add(Talker { to: to.clone(), got: shared.clone() }));
    (world, daemon, got)
}

fn told(world: &World, daemon: NodeId<Daemon>) -> Vec<String> {
    world.notices(daemon).into_iter().map(|(_, text)| text).collect()
}

#[test]
fn it_tells_that_it_is_ready_alive_reloading_and_about_to_stop() {
    let (mut world, daemon, got) = scene(1, Faults::none());
    world.run_for(10 * SECOND + SECOND / 2);
    assert!(got.borrow().len() >= 9 && got.borrow().iter().all(|line| line == "hello"), "{got:?}");
    world.signal(daemon, Signal::HUP);
    world.run_for(SECOND / 10);
    world.signal(daemon, Signal::TERM);
    world.run_for(20 * SECOND);
    assert!(world.ended(daemon).is_some_and(|ended| ended.as_ref().is_ok_and(|receipt| receipt.cut == 0)));
    let all = told(&world, daemon);
    let at = |beginning: &str| all.iter().position(|text| text.starts_with(beginning));
    let (ready, reloading, stopping) =
        (at("READY=1\n"), at("RELOADING=1\nMONOTONIC_USEC="), at("STOPPING=1"));
    assert!(ready.is_some() && ready < reloading && reloading < stopping, "{all:?}");
    assert_eq!(all.iter().filter(|text| *text == "WATCHDOG=1").count(), 6, "every two seconds: {all:?}");
    assert!(all.iter().any(|text| text == "STATUS=1 connected, 3 lines"), "{all:?}");
    assert_eq!(world.end(), Leaks::default());
}

#[test]
fn over_a_restart_nobody_is_refused() {
    for seed in 0..10 {
        let faults = Faults::none().with(Kind::TinyRead, 100_000).with(Kind::LateSend, 100_000);
        let (mut world, daemon, got) = scene(seed, faults);
        for life in 1..=5 {
            world.run_for(3 * SECOND);
            world.signal(daemon, Signal::TERM);
            // The daemon answers until it ends. After that, the supervisor listens until it is back.
            world.run_for(30 * SECOND);
            assert!(!world.is_up(daemon), "seed {seed}");
            let before = got.borrow().len();
            world.restart(daemon);
            world.run_for(SECOND / 10);
            assert_eq!(got.borrow().len(), before + 1, "seed {seed}, life {life}: who waited is served");
        }
        let all = told(&world, daemon);
        assert_eq!(all.iter().filter(|text| text.starts_with("READY=1\n")).count(), 6, "{all:?}");
        assert_eq!(world.end(), Leaks::default());
    }
}
