//! The timing of disks, drawn with the world's faults. It stays within its bounds, and is off in a calm
//! world. It finds services that assume a fast disk, or completions in the order of the operations.

mod keeper;

use std::{cell::RefCell, rc::Rc, time::Duration};

use keeper::{Belief, Keeper, Outside};
use reactor::{
    Context, Error, Receive, Result, Service, Time,
    file::{OpenOptions, Opened, Operation},
};
use sim::{Chance, DiskOptions, Failure, Faults, Happening, Kind, Plan, World, WorldOptions, hunt, isolate};

/// Runs a keeper through power cuts. Fails if it lost an acknowledged record.
fn keep(plan: &Plan, belief: Belief) -> std::result::Result<(), String> {
    let mut world = plan.world();
    let outside = Rc::new(RefCell::new(Outside::default()));
    let shared = outside.clone();
    let node = world.add(move |runtime| runtime.add(Keeper::new(belief, shared.clone())));
    let mut chance = Chance::new(plan.seed ^ 0xd15c);
    world.schedule_chaos(plan.time, plan.time / 10);
    for _ in 0..8 {
        world.run_for(Duration::from_micros(chance.between(0, plan.time.as_micros() as u64 / 4)));
        world.power_off(node);
        world.restart(node);
    }
    world.stop_faults();
    let before = outside.borrow().lives;
    if !world.run_until(Duration::from_secs(20), |_| outside.borrow().lives > before) {
        return Err("it does not begin again".to_owned());
    }
    match outside.borrow().lost {
        0 => Ok(()),
        lost => Err(format!("{lost} acknowledged records are lost")),
    }
}

fn plans(count: u64) -> impl Iterator<Item = Plan> {
    (0..count).map(|seed| Plan::draw(seed, 1, Duration::from_secs(2)))
}

/// Finds a bug in some drawn mix. Returns the kinds of fault that alone suffice for it.
fn kinds_of(belief: Belief) -> Vec<Kind> {
    let failure: Box<Failure> = hunt(plans(100), |plan| keep(plan, belief)).expect_err("it is found");
    // Every kind gets its chance, not only those of the mix that failed first.
    let all = sim::KINDS.into_iter().fold(Faults::none(), |faults, kind| faults.with(kind, 1_000));
    let failure = Failure::new(Plan { faults: all, ..failure.plan }, failure.what);
    let found = isolate(&failure, 300, |plan| keep(plan, belief));
    assert_eq!(found.without_faults(), None, "{found}");
    found.kinds()
}

#[test]
fn a_keeper_that_waits_for_its_syncs_loses_nothing_whatever_the_timing() {
    hunt(plans(100), |plan| keep(plan, Belief::Sync)).expect("it is right");
}

#[test]
fn without_faults_no_bug_of_timing_shows() {
    let calm = |seed| Plan { seed, faults: Faults::none(), nodes: 1, time: Duration::from_secs(1) };
    for belief in [Belief::Time, Belief::Answer] {
        hunt((0..100).map(calm), |plan| keep(plan, belief)).expect("a calm disk is fast and in order");
    }
}

#[test]
fn one_that_trusts_in_speed_loses_records_on_a_slow_disk_only() {
    assert_eq!(kinds_of(Belief::Time), [Kind::SlowFile, Kind::StallSync, Kind::SlowDisk]);
}

#[test]
fn one_that_trusts_in_the_order_of_answers_loses_records_when_they_are_late_only() {
    assert_eq!(kinds_of(Belief::Answer), [Kind::LateFile]);
}

/// Requests an operation and a sync each time the test asks, and notes their durations.
struct Clock {
    took: Rc<RefCell<Vec<(&'static str, Duration)>>>,
    file: Option<reactor::file::File>,
}

struct Ask;
struct Ready(Result<Opened, Error>);
struct Done(&'static str, Time, Result<(), Error>);

impl Service for Clock {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        let how = OpenOptions::with(|options| {
            options.write = true;
            options.create = true;
        });
        cx.file(Operation::open("/file", how), Ready)?;
        Ok(())
    }
}

impl Receive<Ready> for Clock {
    fn receive(&mut self, cx: &mut Context<Self>, Ready(opened): Ready) -> Result {
        self.file = Some(opened?.file);
        self.receive(cx, Ask)
    }
}

impl Receive<Ask> for Clock {
    fn receive(&mut self, cx: &mut Context<Self>, _: Ask) -> Result {
        let file = self.file.as_ref().ok_or("it is open")?;
        let now = cx.now();
        cx.file(Operation::write_at(file, 0, *b"x"), move |result| Done("write", now, result))?;
        cx.file(Operation::sync(file), move |result| Done("sync", now, result))?;
        cx.after(Duration::from_millis(20), Ask);
        Ok(())
    }
}

impl Receive<Done> for Clock {
    fn receive(&mut self, cx: &mut Context<Self>, Done(what, since, result): Done) -> Result {
        result?;
        self.took.borrow_mut().push((what, cx.now().since(since)));
        Ok(())
    }
}

/// Measures writes and syncs under these faults. Returns the two longest times, all of them, and the world.
fn timed(faults: Faults, is_slow: bool) -> ([Duration; 2], Vec<(&'static str, Duration)>, World) {
    let mut options = WorldOptions::default();
    (options.faults, options.history_max) = (faults, 100_000);
    let mut world = World::with_options(3, options);
    let took = Rc::new(RefCell::new(Vec::new()));
    let shared = took.clone();
    let node = world.add(move |runtime| runtime.add(Clock { took: shared.clone(), file: None }));
    if is_slow {
        world.slow_disk(node, 100);
    }
    world.run_for(Duration::from_secs(60));
    let took = std::mem::take(&mut *took.borrow_mut());
    let most = |of| took.iter().filter(|(what, _)| *what == of).map(|(_, took)| *took).max();
    ([most("write"), most("sync")].map(Option::unwrap_or_default), took, world)
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A turn and its flush, before and after an operation.
const TURNS: Duration = Duration::from_micros(20);

#[test]
fn every_kind_keeps_within_its_bounds() {
    let calm = [Duration::from_micros(500), ms(4)];
    let only = |kind| Faults::none().with(kind, 100_000);
    let bounds = [
        (Faults::none(), false, calm, [calm[0] / 2, calm[1] / 2]),
        (only(Kind::SlowFile), false, [ms(1_000); 2], [ms(500); 2]),
        (only(Kind::LateFile), false, [ms(5) + calm[0], ms(5) + calm[1]], [ms(4), ms(6)]),
        (only(Kind::StallSync), false, [calm[0], ms(5_000) + ms(4)], [calm[0] / 2, ms(3_000)]),
        (Faults::none(), true, [ms(50), ms(400)], [ms(40), ms(300)]),
    ];
    for (faults, is_slow, most, least) in bounds {
        let text = faults.to_string();
        let (longest, _, world) = timed(faults.clone(), is_slow);
        for at in 0..2 {
            let range = least[at]..=most[at] + TURNS;
            assert!(range.contains(&longest[at]), "{text} {is_slow}: {longest:?}");
        }
        let tally = world.summary().faults;
        for kind in faults.kinds() {
            assert!(tally.injected(kind) > 10 && tally.observed(kind) > 10, "{tally}");
        }
    }
}

#[test]
fn while_syncs_stand_still_no_sync_is_done_and_every_write_is() {
    let (_, took, world) = timed(Faults::none().with(Kind::StallSync, 10_000), false);
    let stalls = world.history().iter().filter(|it| matches!(it, Happening::SyncStalled { .. })).count();
    assert!(stalls > 0 && stalls as u64 == world.disk(world.nodes().next().expect("one")).stalls);
    // One stall of seconds delays all the syncs that start every 20 ms meanwhile.
    let held = took.iter().filter(|(what, took)| *what == "sync" && *took > ms(100)).count();
    assert!(held > 10 * stalls, "{held} syncs by {stalls} stalls");
    assert!(took.iter().all(|(what, took)| *what == "sync" || *took <= ms(1)));
}

#[test]
fn a_spell_ends_with_a_repair_and_with_the_faults() {
    for ends in [World::repair, World::stop_faults] {
        let mut options = WorldOptions::default();
        options.history_max = 100;
        let mut world = World::with_options(1, options);
        let took = Rc::new(RefCell::new(Vec::new()));
        let shared = took.clone();
        let node = world.add(move |runtime| runtime.add(Clock { took: shared.clone(), file: None }));
        world.slow_disk(node, 100);
        world.run_for(ms(500));
        ends(&mut world);
        world.run_for(ms(500));
        took.borrow_mut().clear();
        world.run_for(ms(500));
        assert!(!took.borrow().is_empty() && took.borrow().iter().all(|(_, took)| *took <= ms(4) + TURNS));
        let factors: Vec<u32> = world
            .history()
            .iter()
            .filter_map(|it| match it {
                Happening::DiskSlowed { factor, .. } => Some(*factor),
                _ => None,
            })
            .collect();
        assert_eq!(factors, [100, 1]);
    }
}

#[test]
fn the_disk_s_own_options_and_the_faults_add_up() {
    let faults = Faults::none().with(Kind::SlowFile, 1_000_000);
    let mut options = WorldOptions::default();
    options.faults = faults;
    let mut world = World::with_options(1, options);
    let took = Rc::new(RefCell::new(Vec::new()));
    let shared = took.clone();
    let node = world.add(move |runtime| runtime.add(Clock { took: shared.clone(), file: None }));
    let mut disk = DiskOptions::default();
    disk.sync = Duration::from_secs(3);
    world.set_disk(node, disk);
    world.run_for(Duration::from_secs(60));
    let longest = took.borrow().iter().map(|(_, took)| *took).max();
    // A slow operation takes no less time than its disk needs anyway.
    assert!(
        longest.is_some_and(|longest| longest > ms(2_000) && longest <= ms(3_000) + TURNS),
        "{longest:?}"
    );
}

#[test]
fn one_seed_is_one_run_with_all_of_it() {
    let digest = |seed| {
        let mut plan = Plan::draw(seed, 1, Duration::from_secs(2));
        for kind in [Kind::SlowFile, Kind::StallSync, Kind::LateFile, Kind::SlowDisk] {
            plan.faults = plan.faults.with(kind, 50_000);
        }
        let mut world = plan.world();
        let outside = Rc::new(RefCell::new(Outside::default()));
        let node = world.add(move |runtime| runtime.add(Keeper::new(Belief::Sync, outside.clone())));
        world.schedule_chaos(plan.time, plan.time / 10);
        world.run_for(plan.time);
        world.power_off(node);
        world.digest()
    };
    assert_eq!(digest(3), digest(3));
    assert_ne!(digest(3), digest(4));
}
