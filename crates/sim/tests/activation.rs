//! A supervisor that opens sockets before a service begins, holds them while the service is down, and stores
//! its descriptors.
#![cfg(unix)]

mod guest;

use std::{cell::RefCell, rc::Rc, time::Duration};

use guest::Guest;
use reactor::{
    Bytes, Closed, Context, Event, Handle, Id, Result, Runtime, Service, ServiceId, Stream,
    signals::{Graceful, Signal},
    systemd::{Activated, Notice, Supervised},
};
use sim::{Leaks, NodeId, World};

const SECOND: Duration = Duration::from_secs(1);

/// Echoes over the sockets from its supervisor, and over no others.
struct Web {
    supervised: ServiceId<Supervised>,
    /// The sockets that it got at its start, in each life.
    given: Rc<RefCell<Vec<Vec<String>>>>,
    open: Vec<Id<Stream>>,
}

impl Service for Web {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let all = cx.activated()?;
        self.given.borrow_mut().push(all.iter().map(|given| given.name().to_owned()).collect());
        for given in all {
            if given.name() == "web" {
                cx.listen_on(given.into_listener()?, |_| Some(Stream::new(Bytes)))?;
            } else {
                cx.add(Stream::new(Bytes).through(given.into_descriptor().into_transport()?))?;
            }
        }
        assert!(cx.activated()?.is_empty(), "they are given out once");
        cx.tell(self.supervised, Notice::ready())?;
        Ok(())
    }
}

impl Handle<Stream> for Web {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Stream>, event: Event<Bytes>) -> Result {
        match event {
            Event::Open => self.open.push(id),
            Event::Received(bytes) => _ = cx.send(id, bytes),
            Event::End | Event::Drained | Event::HungUp => (),
        }
        Ok(())
    }

    fn closed(&mut self, cx: &mut Context<Self>, id: Id<Stream>, stream: Stream, why: Closed) {
        self.open.retain(|open| *open != id);
        if let (Closed::Released, Some(transport)) = (why, stream.into_transport()) {
            cx.tell(self.supervised, Notice::store("client", transport)).expect("there is room");
        }
    }
}

struct Scene {
    world: World,
    web: NodeId<Web>,
    given: Rc<RefCell<Vec<Vec<String>>>>,
}

impl Scene {
    fn new(seed: u64) -> Scene {
        let mut world = World::new(seed);
        let given = Rc::<RefCell<Vec<Vec<String>>>>::default();
        let shared = given.clone();
        let web = world.add_activated(&[("web", "0.0.0.0:80")], move |runtime: &mut Runtime| {
            runtime.add(Graceful::within(SECOND))?;
            let supervised = runtime.add(Supervised::new())?;
            runtime.add(Web { supervised, given: shared.clone(), open: Vec::new() })
        });
        Scene { world, web: web.expect("the address is one"), given }
    }

    fn client(&mut self) -> NodeId<Guest> {
        Guest::add(&mut self.world, self.web, 80)
    }

    /// Sends a client's text. Returns whether the echo arrives within a second.
    fn has_echo(&mut self, client: NodeId<Guest>, text: &[u8]) -> bool {
        let before = Guest::heard(&self.world, client).len();
        Guest::say(&mut self.world, client, text);
        self.world.run_for(SECOND);
        Guest::heard(&self.world, client)[before..] == *text
    }
}

#[test]
fn who_connects_while_the_service_does_not_live_waits_and_is_served() {
    for seed in 0..5 {
        for ends in [true, false] {
            let mut scene = Scene::new(seed);
            let first = scene.client();
            scene.world.run_for(SECOND);
            assert!(scene.has_echo(first, b"one"), "seed {seed}");
            if ends {
                scene.world.signal(scene.web, Signal::TERM);
                scene.world.run_for(5 * SECOND);
            } else {
                scene.world.crash(scene.web);
            }
            assert!(!scene.world.is_up(scene.web));
            let second = scene.client();
            assert!(!scene.has_echo(second, b"two"), "nobody is there");
            assert!(!Guest::is_closed(&scene.world, second), "it is not refused");
            scene.world.restart(scene.web);
            scene.world.run_for(SECOND);
            assert_eq!(Guest::heard(&scene.world, second), b"two", "seed {seed}");
            assert_eq!(*scene.given.borrow(), [["web"], ["web"]]);
            assert_eq!(scene.world.end(), Leaks::default());
        }
    }
}

#[test]
fn when_the_machine_goes_who_waits_is_told_nothing_and_the_next_is_served() {
    let mut scene = Scene::new(7);
    scene.world.crash(scene.web);
    let waiting = scene.client();
    scene.world.run_for(SECOND);
    scene.world.power_off(scene.web);
    scene.world.restart(scene.web);
    scene.world.run_for(SECOND);
    assert!(scene.world.with(scene.web, |web, _| web.open.is_empty()).expect("it lives"));
    assert!(!scene.has_echo(waiting, b"lost"), "its connection went with the machine");
    let next = scene.client();
    scene.world.run_for(SECOND);
    assert!(scene.has_echo(next, b"next"));
    assert_eq!(scene.world.end(), Leaks::default());
}

#[test]
fn a_connection_that_is_stored_goes_on_in_the_next_life() {
    for crashes in [true, false] {
        let mut scene = Scene::new(9);
        let kept = scene.client();
        scene.world.run_for(SECOND);
        let lost = scene.client();
        scene.world.run_for(SECOND);
        assert!(scene.has_echo(kept, b"a") && scene.has_echo(lost, b"b"));
        scene
            .world
            .with(scene.web, |web, cx| cx.release(web.open[0]))
            .expect("it lives")
            .expect("it is not closing");
        scene.world.run_for(SECOND);
        // Sent between two lives, so the next one answers it.
        Guest::say(&mut scene.world, kept, b"meanwhile");
        if crashes {
            scene.world.crash(scene.web);
        } else {
            scene.world.signal(scene.web, Signal::TERM);
        }
        scene.world.run_for(5 * SECOND);
        scene.world.restart(scene.web);
        scene.world.run_for(SECOND);
        assert_eq!(*scene.given.borrow(), [vec!["web"], vec!["web", "client"]]);
        assert_eq!(Guest::heard(&scene.world, kept), b"ameanwhile");
        assert!(scene.has_echo(kept, b"c"));
        assert!(Guest::is_closed(&scene.world, lost));
        let told = scene.world.notices(scene.web);
        assert!(told.iter().any(|(_, text)| text == "FDSTORE=1\nFDNAME=client"), "{told:?}");
        assert_eq!(scene.world.end(), Leaks::default());
    }
}

#[test]
fn what_was_stored_is_closed_when_it_is_to_be_forgotten() {
    let mut scene = Scene::new(9);
    let client = scene.client();
    scene.world.run_for(SECOND);
    scene
        .world
        .with(scene.web, |web, cx| cx.release(web.open[0]))
        .expect("it lives")
        .expect("it is not closing");
    scene.world.run_for(SECOND);
    assert!(!Guest::is_closed(&scene.world, client));
    let forget = |web: &mut Web, cx: &mut Context<Web>| cx.tell(web.supervised, Notice::forget("client"));
    scene.world.with(scene.web, forget).expect("it lives").expect("there is room");
    scene.world.run_for(SECOND);
    assert!(Guest::is_closed(&scene.world, client));
}

#[test]
fn addresses_that_are_none_or_taken_are_refused() {
    let mut world = World::new(1);
    for sockets in [&[("web", "nonsense")][..], &[("web", "0.0.0.0:80"), ("admin", "0.0.0.0:80")]] {
        let refused = world.add_activated(sockets, |runtime| runtime.add(Asks::default()));
        assert!(refused.expect_err("it cannot be").to_string().starts_with("listen "));
    }
}

/// Requests its activated sockets.
#[derive(Default)]
struct Asks(Rc<RefCell<Option<Vec<Activated>>>>);

impl Service for Asks {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        *self.0.borrow_mut() = Some(cx.activated()?);
        Ok(())
    }
}

#[test]
fn a_node_without_sockets_is_given_none() {
    let given = Rc::<RefCell<Option<Vec<Activated>>>>::default();
    let shared = given.clone();
    World::new(1).add(move |runtime| runtime.add(Asks(shared.clone())));
    assert_eq!(given.borrow().as_ref().map(Vec::len), Some(0));
}
