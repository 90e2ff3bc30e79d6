//! Chaos: the history has each obstacle between nodes, with its end, and drawn faults keep to the schedule.

use std::time::Duration;

use reactor::{Service, engine::Engine as _};
use sim::{Faults, Happening, Kind, World, WorldOptions};

struct Idle;
impl Service for Idle {}

#[test]
fn slowness_stands_in_the_history_with_its_end() {
    let mut options = WorldOptions::default();
    options.history_max = 10;
    let mut world = World::with_options(1, options);
    let nodes: Vec<_> = (0..3).map(|_| world.add(|runtime| runtime.add(Idle))).collect();
    world.slow(nodes[1], 10);
    world.slow(nodes[1], 1);
    let (at, kind, from, to) =
        (world.now(), Kind::Slow, vec![nodes[1].node()], vec![nodes[0].node(), nodes[2].node()]);
    let expected = [
        Happening::Obstructed { at, kind, from: from.clone(), to: to.clone() },
        Happening::Cleared { at, kind, from, to },
    ];
    assert_eq!(*world.history(), expected);
}

#[test]
fn walls_step_by_what_faults_last_and_not_by_the_age_of_the_world() {
    const EVERY: Duration = Duration::from_secs(1);
    let mut options = WorldOptions::default();
    options.history_max = 1000;
    options.faults = Faults::none().with(Kind::WallStep, 1);
    let mut world = World::with_options(1, options);
    world.add(|runtime| runtime.add(Idle));
    world.run_for(1000 * EVERY);
    world.schedule_chaos(100 * EVERY, EVERY);
    world.run_for(200 * EVERY);
    let steps: Vec<i64> = (world.history().iter())
        .filter_map(|happening| match happening {
            Happening::WallStepped { nanos, .. } => Some(*nanos),
            _ => None,
        })
        .collect();
    assert!(steps.len() > 50 && steps.iter().any(|step| *step < 0) && steps.iter().any(|step| *step > 0));
    let longest = steps.iter().map(|step| step.unsigned_abs()).max().map(Duration::from_nanos);
    assert!(longest <= Some(4 * EVERY), "{longest:?}");
}

#[test]
fn chaos_that_is_scheduled_again_is_as_far_apart_as_before() {
    const EVERY: Duration = Duration::from_secs(1);
    let mut options = WorldOptions::default();
    options.faults = Faults::none().with(Kind::WallStep, 1);
    let mut world = World::with_options(1, options);
    world.add(|runtime| runtime.add(Idle));
    for round in 0..5 {
        let before = world.summary().faults.injected(Kind::WallStep);
        world.schedule_chaos(100 * EVERY, EVERY);
        world.run_for(100 * EVERY);
        let count = world.summary().faults.injected(Kind::WallStep) - before;
        assert!((70..140).contains(&count), "round {round}: {count}");
    }
}

#[test]
fn chaos_that_falls_due_while_a_bare_engine_moves_the_world_is_not_lost() {
    const EVERY: Duration = Duration::from_secs(1);
    let mut options = WorldOptions::default();
    options.history_max = 1000;
    options.faults = Faults::none().with(Kind::Pause, 1);
    let mut world = World::with_options(7, options);
    world.add(|runtime| runtime.add(Idle));
    let mut engine = world.engine();
    world.schedule_chaos(100 * EVERY, EVERY);
    engine.wait(Some(10 * EVERY)).expect("a simulated engine does not break");
    let pauses = |world: &World| {
        let is_pause = |it: &&Happening| matches!(it, Happening::Paused { on: true, .. });
        world.history().iter().filter(is_pause).count()
    };
    assert_eq!(pauses(&world), 0, "only the world has the nodes");
    world.run_for(50 * EVERY);
    assert!(pauses(&world) > 10, "{} pauses", pauses(&world));
}
