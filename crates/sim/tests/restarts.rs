//! Nodes that end by themselves, and that the world restarts: when, how often, with which disk, and the bugs
//! that this finds.

use std::{cell::Cell, rc::Rc, time::Duration};

use reactor::{
    Context, Error, Receive, Result, Service, ServiceId, Time,
    file::{File, OpenOptions, Opened, Operation},
};
use sim::{DiskOptions, Faults, Happening, Leaks, NodeId, Plan, Restarts, World, WorldOptions, hunt};

const SECOND: Duration = Duration::from_secs(1);

/// How a life ends, a second after it began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// Its service has nothing left to do.
    Idle,
    Panic,
    Error,
    /// The builder fails at once.
    Build,
}

struct Mortal(End);

impl Service for Mortal {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        cx.after(SECOND, ());
        Ok(())
    }
}

impl Receive<()> for Mortal {
    fn receive(&mut self, _: &mut Context<Self>, (): ()) -> Result {
        match self.0 {
            End::Panic => panic!("a planted panic"),
            End::Error => Err("a planted error".into()),
            End::Idle | End::Build => Ok(()),
        }
    }
}

/// Makes a world with one node whose lives end like this, and a counter of its lives.
fn mortal(end: End) -> (World, NodeId<Mortal>, Rc<Cell<usize>>) {
    let mut options = WorldOptions::default();
    options.history_max = 1_000;
    let mut world = World::with_options(1, options);
    let lives = Rc::new(Cell::new(0));
    let begun = lives.clone();
    let node = world.add(move |runtime| -> std::result::Result<ServiceId<Mortal>, Error> {
        begun.set(begun.get() + 1);
        match end {
            End::Build => Err(Error::Misuse { operation: "build", why: "a planted failure" }),
            end => runtime.add(Mortal(end)),
        }
    });
    (world, node, lives)
}

fn restarts(times_max: u32) -> Restarts {
    let mut restarts = Restarts::default();
    restarts.times_max = times_max;
    restarts
}

#[test]
fn without_being_asked_the_world_leaves_a_node_down() {
    let (mut world, node, lives) = mortal(End::Panic);
    world.run_for(60 * SECOND);
    assert!(!world.is_up(node) && lives.get() == 1);
    let ended = world.summary().ended;
    assert_eq!((ended.len(), ended[0].times, ended[0].restarts), (1, 1, 0));
}

#[test]
fn every_end_of_its_own_is_followed_by_so_many_lives() {
    for end in [End::Idle, End::Panic, End::Error, End::Build] {
        for times_max in [0, 1, 2] {
            let (mut world, node, lives) = mortal(end);
            world.restart_ended(node, restarts(times_max));
            world.run_for(60 * SECOND);
            assert_eq!(lives.get() as u32, times_max + 1, "{end:?}");
            let ended = world.summary().ended.remove(0);
            let counts = (ended.node, ended.times, ended.restarts);
            assert_eq!(counts, (node.node(), times_max + 1, times_max), "{end:?}");
            let says = match end {
                End::Idle => "in order",
                End::Panic => "a planted panic",
                End::Error => "a planted error",
                End::Build => "a planted failure",
            };
            assert!(ended.last.contains(says), "{end:?}: {}", ended.last);
            assert!(!world.is_up(node) && world.ended(node).is_some());
            // A second request counts anew, even for the end before it.
            world.restart_ended(node, restarts(1));
            world.run_for(60 * SECOND);
            assert_eq!(lives.get() as u32, times_max + 2, "{end:?}");
            assert_eq!(world.end(), Leaks::default());
        }
    }
}

#[test]
fn it_begins_after_its_delay_and_the_history_says_so() {
    let (mut world, node, _) = mortal(End::Panic);
    let mut asked = restarts(3);
    asked.delay = Duration::from_millis(250);
    world.restart_ended(node, asked);
    world.run_for(60 * SECOND);
    let (mut ends, mut begins): (Vec<Time>, Vec<Time>) = (Vec::new(), Vec::new());
    for happening in world.history().iter() {
        match happening {
            Happening::Ended { at, node: of, error: Some(error) } if *of == node.node() => {
                assert!(error.contains("panic"), "{error}");
                ends.push(*at);
            }
            Happening::Restarted { at, node: of } if *of == node.node() => begins.push(*at),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((ends.len(), begins.len()), (4, 3));
    assert!(ends.iter().zip(&begins).all(|(end, begin)| begin.since(*end) == Duration::from_millis(250)));
}

#[test]
fn if_asked_for_failures_only_an_end_in_order_stays_one() {
    for (end, lives_at_last) in [(End::Idle, 1), (End::Panic, 3), (End::Error, 3), (End::Build, 3)] {
        let (mut world, node, lives) = mortal(end);
        let mut asked = restarts(2);
        asked.only_failed = true;
        world.restart_ended(node, asked);
        world.run_for(60 * SECOND);
        assert_eq!(lives.get(), lives_at_last, "{end:?}");
    }
}

#[test]
fn what_befalls_a_node_from_outside_is_no_end_of_its_own() {
    let befall: [fn(&mut World, NodeId<Mortal>); 2] = [World::crash, World::power_off];
    for befall in befall {
        let (mut world, node, lives) = mortal(End::Panic);
        world.restart_ended(node, restarts(5));
        befall(&mut world, node);
        world.run_for(60 * SECOND);
        assert_eq!((lives.get(), world.summary().ended.len()), (1, 0));
    }
}

#[test]
fn a_restart_that_something_forestalled_does_not_happen() {
    // The test restarts the node first, and that life goes on.
    let (mut world, node, lives) = mortal(End::Panic);
    world.restart_ended(node, restarts(1));
    world.run_for(SECOND + Duration::from_millis(50));
    assert!(!world.is_up(node));
    world.restart(node);
    world.run_for(Duration::from_millis(500));
    assert!(world.is_up(node) && lives.get() == 2);
    world.run_for(60 * SECOND);
    assert_eq!((lives.get(), world.summary().ended[0].restarts), (3, 1), "the one it has is left");
    // The machine loses its power in the meantime, so the node stays down.
    let (mut world, node, lives) = mortal(End::Panic);
    world.restart_ended(node, restarts(5));
    world.run_for(SECOND + Duration::from_millis(50));
    world.power_off(node);
    world.run_for(60 * SECOND);
    assert!(!world.is_up(node) && lives.get() == 1);
    world.restart(node);
    world.run_for(60 * SECOND);
    assert_eq!(lives.get(), 7, "from then on it begins again as was asked");
}

/// Starts a write that takes long, and panics before it is done.
struct Hasty {
    is_first: bool,
}

struct Ready(Result<Opened, Error>);
struct Done;

impl Service for Hasty {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let how = OpenOptions::with(|options| options.write = true);
        if self.is_first {
            cx.file(Operation::open("/file", how), Ready)?;
        } else {
            cx.after(3_600 * SECOND, Done);
        }
        Ok(())
    }
}

impl Receive<Ready> for Hasty {
    fn receive(&mut self, cx: &mut Context<Self>, Ready(opened): Ready) -> Result {
        let file = opened?.file;
        cx.file(Operation::write_at(&file, 0, [b'x'; 100]), |_| Done)?;
        cx.after(Duration::from_micros(20), Done);
        Ok(())
    }
}

impl Receive<Done> for Hasty {
    fn receive(&mut self, _: &mut Context<Self>, _: Done) -> Result {
        panic!("a planted panic")
    }
}

#[test]
fn an_operation_of_a_former_life_is_never_done_in_the_next() {
    let mut lengths = Vec::new();
    for seed in 0..40 {
        let mut world = World::new(seed);
        let is_first = Cell::new(true);
        let node = world.add(move |runtime| runtime.add(Hasty { is_first: is_first.replace(false) }));
        world.put_file(node, "/file", b"");
        let mut slow = DiskOptions::default();
        slow.operation = Duration::from_millis(50);
        world.set_disk(node, slow);
        while world.is_up(node) {
            assert!(world.step(), "it ends");
        }
        world.restart(node);
        let length = |world: &World| world.file(node, "/file").expect("it is there").len();
        let before = length(&world);
        world.run_for(SECOND);
        assert!(world.is_up(node));
        assert_eq!(before, length(&world), "seed {seed}");
        lengths.push(before);
    }
    assert!(lengths.iter().any(|length| (1..100).contains(length)), "done in part: {lengths:?}");
}

/// Takes deposits, records each, and acknowledges it. Now and then one makes it panic.
struct Till {
    /// The planted bug: it acknowledges before its write completes.
    is_rash: bool,
    acknowledged: Rc<Cell<u64>>,
    lost: Rc<Cell<u64>>,
    file: Option<File>,
    taken: u64,
}

struct Counted(Result<Opened, Error>);
struct Deposit;
struct Kept(u64, Result<(), Error>);

impl Service for Till {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let how = OpenOptions::with(|options| options.append = true);
        cx.file(Operation::open("/till", how), Counted)?;
        Ok(())
    }
}

impl Receive<Counted> for Till {
    fn receive(&mut self, cx: &mut Context<Self>, Counted(opened): Counted) -> Result {
        let opened = opened?;
        self.taken = opened.metadata.len;
        self.lost.set(self.lost.get() + self.acknowledged.get().saturating_sub(self.taken));
        self.acknowledged.set(self.acknowledged.get().min(self.taken));
        self.file = Some(opened.file);
        self.receive(cx, Deposit)
    }
}

impl Receive<Deposit> for Till {
    fn receive(&mut self, cx: &mut Context<Self>, _: Deposit) -> Result {
        assert!(!cx.random().is_multiple_of(50), "a deposit that it cannot bear");
        self.taken += 1;
        let taken = self.taken;
        let file = self.file.as_ref().ok_or("it is open")?;
        cx.file(Operation::append(file, *b"x"), move |result| Kept(taken, result))?;
        if self.is_rash {
            self.acknowledged.set(taken);
        }
        let after = Duration::from_micros(cx.random() % 500);
        cx.after(after, Deposit);
        Ok(())
    }
}

impl Receive<Kept> for Till {
    fn receive(&mut self, _: &mut Context<Self>, Kept(taken, result): Kept) -> Result {
        result?;
        // Concurrent appends run in any order, so only their number counts.
        self.acknowledged.set(self.acknowledged.get().max(taken.min(self.acknowledged.get() + 1)));
        Ok(())
    }
}

/// Lets a till work for a while. Only its next life shows the lost deposits.
fn till(plan: &Plan, is_rash: bool, begins_again: bool) -> std::result::Result<(), String> {
    let mut world = plan.world();
    let (acknowledged, lost) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (seen, missed) = (acknowledged.clone(), lost.clone());
    let node = world.add(move |runtime| {
        let (acknowledged, lost) = (seen.clone(), missed.clone());
        runtime.add(Till { is_rash, acknowledged, lost, file: None, taken: 0 })
    });
    world.put_file(node, "/till", b"");
    if begins_again {
        world.restart_ended(node, restarts(20));
    }
    world.run_for(plan.time);
    match lost.get() {
        0 => Ok(()),
        lost => Err(format!("{lost} of its deposits are lost, after {:?}", world.summary().ended)),
    }
}

#[test]
fn a_bug_that_only_the_next_life_sees_is_found_without_any_fault() {
    let plans = || {
        let calm = |seed| Plan { seed, faults: Faults::none(), nodes: 1, time: 5 * SECOND };
        (0..20).map(calm)
    };
    hunt(plans(), |plan| till(plan, true, false)).expect("nobody looks again");
    let failure = hunt(plans(), |plan| till(plan, true, true)).expect_err("the next life misses them");
    assert!(failure.what.contains("a deposit that it cannot bear"), "the report names the end: {failure}");
    hunt(plans(), |plan| till(plan, false, true)).expect("without the bug nothing is lost");
}

#[test]
fn one_seed_is_one_run_with_its_restarts() {
    let digest = |seed| {
        let mut world = World::new(seed);
        let (acknowledged, lost) = (Rc::<Cell<u64>>::default(), Rc::<Cell<u64>>::default());
        let node = world.add(move |runtime| {
            let (acknowledged, lost) = (acknowledged.clone(), lost.clone());
            runtime.add(Till { is_rash: false, acknowledged, lost, file: None, taken: 0 })
        });
        world.put_file(node, "/till", b"");
        world.restart_ended(node, restarts(20));
        world.run_for(5 * SECOND);
        assert!(world.summary().ended[0].restarts > 1);
        world.digest()
    };
    assert_eq!(digest(3), digest(3));
    assert_ne!(digest(3), digest(4));
}
