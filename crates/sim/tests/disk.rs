//! The simulated disk: a write-ahead log that survives a thousand power cuts, and one that does not sync.

mod log_service;

use std::{cell::RefCell, rc::Rc, time::Duration};

use log_service::{Log, Outside};
use reactor::Runtime;
use sim::{Chance, DiskCounts, DiskOptions, Happening, World, WorldOptions};

/// The outcome of a log.
struct Played {
    outside: Rc<RefCell<Outside>>,
    disk: DiskCounts,
    digest: sim::Digest,
}

/// Runs a log through this many ends of its node at drawn moments. Most are power cuts, and some are crashes.
fn play(seed: u64, ends: u32, syncs: bool, options: &DiskOptions) -> Played {
    let mut world = World::new(seed);
    let outside = Rc::new(RefCell::new(Outside::default()));
    let kept = outside.clone();
    let node = world.add(move |runtime| runtime.add(Log::new(kept.clone(), "/".as_ref(), syncs)));
    world.set_disk(node, options.clone());
    let mut chance = Chance::new(seed ^ 0xd15c);
    for _ in 0..ends {
        world.run_for(Duration::from_micros(chance.between(0, 20_000)));
        match chance.below(5) {
            0 => world.crash(node),
            _ => world.power_off(node),
        }
        world.restart(node);
    }
    // The last life must have the time to read its log.
    let before = outside.borrow().recovered;
    world.run_until(Duration::from_secs(10), |_| outside.borrow().recovered > before);
    Played { outside, disk: world.disk(node), digest: world.digest() }
}

#[test]
fn a_log_that_syncs_loses_nothing_it_acknowledged_in_a_thousand_power_cuts() {
    let (mut cuts, mut torn, mut records, mut lost) = (0, 0, 0, DiskCounts::default());
    for seed in 0..25 {
        let played = play(seed, 52, true, &DiskOptions::default());
        let outside = played.outside.borrow();
        assert_eq!(outside.lost, 0, "seed {seed}");
        assert_eq!(outside.faults, Vec::<String>::new(), "seed {seed}");
        cuts += played.disk.cuts;
        torn += outside.torn;
        records += outside.acknowledged;
        lost.writes_lost += played.disk.writes_lost;
        lost.writes_torn += played.disk.writes_torn;
        lost.names_lost += played.disk.names_lost;
    }
    eprintln!("{cuts} power cuts, {torn} torn logs, {records} records, {lost:?}");
    assert!(cuts >= 1_000, "only {cuts} cuts");
    assert!(
        torn > 10 && records > 1_000 && lost.writes_lost > 10 && lost.writes_torn > 10 && lost.names_lost > 0
    );
}

/// The canary: if this log loses nothing, the test above proves nothing.
#[test]
fn the_same_log_without_syncs_loses_what_it_acknowledged() {
    let lost = |seed| play(seed, 52, false, &DiskOptions::default()).outside.borrow().lost;
    let losers = (0..25).filter(|seed| lost(*seed) > 0).count();
    assert_eq!(losers, 25, "with 52 ends each seed loses something");
}

#[test]
fn a_log_whose_disk_fails_loses_nothing_either() {
    let mut options = DiskOptions::default();
    (options.write_errors, options.sync_errors, options.slow) = (20_000, 50_000, 10_000);
    let (mut errors, mut slow) = (0, 0);
    for seed in 100..110 {
        let played = play(seed, 52, true, &options);
        let outside = played.outside.borrow();
        assert_eq!(outside.lost, 0, "seed {seed}");
        assert!(outside.faults.iter().all(|text| text.contains("log")), "{:?}", outside.faults);
        errors += played.disk.errors;
        slow += played.disk.slow;
    }
    assert!(errors > 10 && slow > 0, "{errors} {slow}");
}

#[test]
fn a_rotten_bit_is_noticed_by_the_checksum_and_stays_rotten() {
    let mut options = DiskOptions::default();
    options.rot = 200_000;
    // A log cannot restore the bytes that the disk has lost. It must end before them, and must not invent
    // any.
    let shrunk = (0..10).filter(|seed| {
        let played = play(*seed, 52, true, &options);
        let outside = played.outside.borrow();
        played.disk.rotten > 0 && outside.lost > 0
    });
    assert!(shrunk.count() > 0);
}

#[test]
fn a_full_disk_is_an_error_with_its_kind_in_the_history() {
    let mut options = WorldOptions::default();
    options.history_max = 1_000;
    let mut world = World::with_options(7, options);
    let outside = Rc::new(RefCell::new(Outside::default()));
    let kept = outside.clone();
    let node = world.add(move |runtime| runtime.add(Log::new(kept.clone(), "/".as_ref(), true)));
    let mut disk = DiskOptions::default();
    disk.capacity = 1_000;
    world.set_disk(node, disk);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.disk(node).full, 1);
    assert_eq!(world.file(node, "/log").expect("it is there").len(), 1_000, "what fits was written");
    let failed = world.history().iter().any(|happening| {
        matches!(happening, Happening::FileFailed { error: std::io::ErrorKind::StorageFull, .. })
    });
    assert!(failed, "{:?}", world.history());
    let faults = outside.borrow().faults.clone();
    assert!(faults.len() == 1 && faults[0].starts_with("write /log: "), "{faults:?}");
    // After a power cut, it restarts with the records that it acknowledged.
    world.power_off(node);
    world.restart(node);
    world.run_for(Duration::from_secs(1));
    assert_eq!((outside.borrow().lost, outside.borrow().recovered), (0, 2));
    let cut = world.history().iter().any(|happening| matches!(happening, Happening::PowerCut { .. }));
    assert!(cut, "{:?}", world.history());
}

/// Runs the same service on real files. It has no condition on the place where it runs.
#[test]
fn the_same_log_runs_on_the_systems_files() {
    let directory = std::env::temp_dir().join(format!("log-service-{}", std::process::id()));
    std::fs::create_dir(&directory).expect("the name is free");
    let outside = Rc::new(RefCell::new(Outside::default()));
    for life in 1..=3 {
        let mut runtime = Runtime::new().expect("an engine opens");
        runtime.add(Log::new(outside.clone(), &directory, true)).expect("it starts");
        outside.borrow_mut().enough = Some(20 * life);
        // The service ends by itself, because no operation is in flight once it has enough records.
        runtime.run().expect("it ends");
        let outside = outside.borrow();
        assert_eq!(outside.faults, Vec::<String>::new());
        assert_eq!((outside.recovered, outside.lost), (life, 0));
        assert!(outside.acknowledged >= 20 * life, "{}", outside.acknowledged);
    }
    std::fs::remove_dir_all(&directory).expect("it is ours");
}

#[test]
fn one_seed_is_one_run() {
    let mut options = DiskOptions::default();
    (options.write_errors, options.rot, options.slow) = (20_000, 20_000, 20_000);
    let digest = |seed| play(seed, 20, true, &options).digest;
    assert_eq!(digest(3), digest(3));
    assert_ne!(digest(3), digest(4));
}
