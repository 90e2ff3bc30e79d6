//! A directory watch, unchanged, over a real directory and over its twin. Both give the same trace.
#![cfg(target_os = "linux")]

use std::{fs, time::Duration};

use reactor::{
    Context, Error, Handle, Id, Result, Runtime, Service,
    watch::{Change, Changes, Watch, WatchLimits},
};
use sim::{Folder, World};

/// Takes files from its directory, as a spooler does: whole files only, and all again after an overflow.
#[derive(Default)]
struct Spool {
    watch: Option<Watch>,
    trace: Vec<String>,
}

impl Service for Spool {
    fn start(&mut self, cx: &mut Context<Self>) -> Result {
        if let Some(watch) = self.watch.take() {
            cx.add(watch)?;
        }
        Ok(())
    }
}

impl Handle<Watch> for Spool {
    fn handle(&mut self, cx: &mut Context<Self>, id: Id<Watch>, changes: Changes<'_>) -> Result {
        for change in changes {
            match change {
                Change::Written(entry) | Change::MovedIn(entry) => {
                    self.trace.push(format!("take {}", entry.name.display()));
                }
                Change::Moved { from, to } => {
                    self.trace.push(format!("{} is {} now", from.name.display(), to.name.display()));
                }
                Change::Deleted(entry) | Change::MovedOut(entry) => {
                    self.trace.push(format!("forget {}", entry.name.display()));
                }
                Change::Overflow => self.trace.push("look at all".to_owned()),
                Change::Ended { watch, .. } => {
                    let is_known = cx.get(id).is_some_and(|of| of.path(watch).is_some());
                    self.trace.push(format!("the end, known: {is_known}"));
                }
                _ => (),
            }
        }
        Ok(())
    }
}

/// A change to the directory.
enum Act {
    Write(&'static str),
    Rename(&'static str, &'static str),
    Remove(&'static str),
    End,
}

const ACTS: [Act; 6] = [
    Act::Write("one"),
    Act::Write("a name that is longer than sixteen bytes"),
    Act::Rename("one", "two"),
    Act::Remove("two"),
    Act::Remove("a name that is longer than sixteen bytes"),
    Act::End,
];

fn real() -> Vec<String> {
    let folder = std::env::temp_dir().join(format!("reactor-sim-watch-{}", std::process::id()));
    fs::create_dir(&folder).expect("nobody else has this name");
    let mut watch = Watch::new().expect("there is room for one");
    watch.add(&folder).expect("it is there");
    let mut runtime = Runtime::new().expect("an engine opens");
    let spool = runtime.add(Spool { watch: Some(watch), trace: Vec::new() }).expect("it starts");
    for act in ACTS {
        match act {
            Act::Write(name) => fs::write(folder.join(name), "x"),
            Act::Rename(from, to) => fs::rename(folder.join(from), folder.join(to)),
            Act::Remove(name) => fs::remove_file(folder.join(name)),
            Act::End => fs::remove_dir(&folder),
        }
        .expect("it is ours");
        // The kernel has queued the events of these changes.
        (0..4).for_each(|_| _ = runtime.turn(Some(Duration::ZERO)).expect("whole"));
    }
    runtime.service(spool).expect("it lives").trace.clone()
}

fn simulated() -> Vec<String> {
    let mut world = World::new(8154);
    let folder = Folder::new(&mut world);
    let source = folder.source();
    let node = world.add(move |runtime| {
        let mut watch = Watch::hosted(source, WatchLimits::DEFAULT);
        watch.add("/any/path").expect("there is room");
        runtime.add(Spool { watch: Some(watch), trace: Vec::new() })
    });
    for act in ACTS {
        match act {
            Act::Write(name) => {
                folder.created(1, name);
                folder.modified(1, name);
                folder.written(1, name);
            }
            Act::Rename(from, to) => folder.moved((1, from), (1, to)),
            Act::Remove(name) => folder.deleted(1, name),
            Act::End => folder.ended(1),
        }
        world.run_for(Duration::from_millis(1));
    }
    world.service(node).expect("it is up").trace.clone()
}

#[test]
fn a_folders_life_has_one_trace_on_both() {
    let long = "a name that is longer than sixteen bytes";
    let expected = [
        "take one".to_owned(),
        format!("take {long}"),
        "one is two now".to_owned(),
        "forget two".to_owned(),
        format!("forget {long}"),
        "the end, known: false".to_owned(),
    ];
    assert_eq!(simulated(), expected);
    assert_eq!(real(), expected);
}

#[test]
fn a_path_that_is_watched_already_is_taken_at_the_limit_too_and_a_refused_one_gets_no_number() {
    let mut world = World::new(8154);
    let folder = Folder::new(&mut world);
    let source = folder.source();
    let node = world.add(move |runtime| {
        let mut watch = Watch::hosted(source, WatchLimits::with(|options| options.watches = 2));
        let one = watch.add("/one").expect("one below the limit");
        assert_eq!(watch.add("/one").ok(), Some(one));
        let two = watch.add("/two").expect("at the limit");
        for _ in 0..2 {
            let error = watch.add("/three").expect_err("two is the limit");
            assert!(matches!(error, Error::Full { what: "watches", limit: 2 }), "{error}");
            assert_eq!((watch.add("/one").ok(), watch.add("/two").ok()), (Some(one), Some(two)));
        }
        assert_eq!(watch.len(), 2);
        assert!(watch.remove(one));
        watch.add("/three").expect("there is room again");
        runtime.add(Spool { watch: Some(watch), trace: Vec::new() })
    });
    (1..=5).for_each(|number| folder.written(number, &number.to_string()));
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.service(node).expect("it is up").trace, ["take 2", "take 3"]);
}

#[test]
fn records_are_read_whole_whatever_a_batch_holds_and_an_overflow_comes_in_its_place() {
    for batch_bytes in [272, 300, 4096] {
        let mut world = World::new(8154);
        let folder = Folder::new(&mut world);
        let source = folder.source();
        let node = world.add(move |runtime| {
            let mut watch =
                Watch::hosted(source, WatchLimits::with(|options| options.batch_bytes = batch_bytes));
            assert!(watch.add("/one").is_ok() && watch.add("/two").is_ok());
            runtime.add(Spool { watch: Some(watch), trace: Vec::new() })
        });
        (0..100).for_each(|number| {
            folder.written(1 + number % 2, &format!("{number:0width$}", width = 1 + number as usize))
        });
        folder.overflow();
        folder.moved_in(2, &"x".repeat(255));
        folder.written(3, "of no watch");
        world.run_for(Duration::from_secs(1));
        let trace = &world.service(node).expect("it is up").trace;
        assert_eq!(trace.len(), 102, "{batch_bytes}");
        assert!((0..100).all(|at| trace[at].ends_with(&at.to_string())), "in order");
        assert_eq!(trace[100..], ["look at all".to_owned(), format!("take {}", "x".repeat(255))]);
    }
}

#[test]
#[should_panic = "a name has at most 255 bytes"]
fn a_name_that_no_disk_has_is_refused() {
    Folder::new(&mut World::new(8154)).created(1, &"x".repeat(256));
}
