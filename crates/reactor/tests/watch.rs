//! Directory watch on each engine: it reports changes of real directories, in order and within limits.
#![cfg(target_os = "linux")]

mod common;
mod scratch;

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use common::{Engine, SHORT, for_each_engine, settle, until};
use reactor::{
    Context, Error, Handle, Id, Result, Runtime, Service, ServiceId,
    watch::{Change, Changes, Subject, Watch, WatchFor, WatchId, WatchLimits},
};
use scratch::Scratch;

/// Records each change as a line, and the size of each batch.
#[derive(Default)]
struct Noting {
    told: Vec<String>,
    batches: Vec<usize>,
}

impl Service for Noting {}

impl Handle<Watch> for Noting {
    fn handle(&mut self, _: &mut Context<Self>, _: Id<Watch>, changes: Changes<'_>) -> Result {
        self.batches.push(changes.clone().count());
        self.told.extend(changes.map(line));
        Ok(())
    }
}

fn line(change: Change<'_>) -> String {
    let name = |entry: Subject<'_>| {
        let mark = if entry.is_dir { "/" } else { "" };
        format!("{}{mark}", entry.name.to_str().expect("names of a test"))
    };
    match change {
        Change::Created(entry) => format!("created {}", name(entry)),
        Change::Modified(entry) => format!("modified {}", name(entry)),
        Change::Written(entry) => format!("written {}", name(entry)),
        Change::Attributes(entry) => format!("attributes {}", name(entry)),
        Change::Deleted(entry) => format!("deleted {}", name(entry)),
        Change::Moved { from, to } => format!("moved {} to {}", name(from), name(to)),
        Change::MovedOut(entry) => format!("moved out {}", name(entry)),
        Change::MovedIn(entry) => format!("moved in {}", name(entry)),
        Change::Relocated(_) => "relocated".to_owned(),
        Change::Overflow => "overflow".to_owned(),
        Change::Ended { why, .. } => format!("ended {why:?}"),
        other => panic!("{other:?}"),
    }
}

/// A runtime with a watch.
struct Rig {
    runtime: Runtime,
    service: ServiceId<Noting>,
    id: Id<Watch>,
}

impl Rig {
    fn new(engine: Engine, limits: WatchLimits) -> Rig {
        let mut runtime = engine.runtime();
        let service = runtime.add(Noting::default()).expect("it starts");
        let watch = Watch::with_limits(limits).expect("there is room for one");
        let id = runtime.with(service, |_, cx| cx.add(watch).map_err(|rejected| rejected.error));
        Rig { id: id.expect("it lives").expect("the engine takes it"), runtime, service }
    }

    fn change<T>(&mut self, change: impl FnOnce(&mut Watch) -> T) -> T {
        let id = self.id;
        let change = |_: &mut Noting, cx: &mut Context<Noting>| change(cx.get_mut(id).expect("it lives"));
        self.runtime.with(self.service, change).expect("it lives")
    }

    fn watch(&mut self, path: &Path) -> WatchId {
        self.change(|watch| watch.add(path)).expect("the directory is there")
    }

    fn told(&self) -> &[String] {
        &self.runtime.service(self.service).expect("it lives").told
    }

    /// Waits for this many changes, checks that no more come, and takes them.
    fn take(&mut self, count: usize) -> Vec<String> {
        let service = self.service;
        until(&mut self.runtime, |runtime| runtime.service(service).expect("it lives").told.len() >= count);
        settle(&mut self.runtime);
        std::mem::take(&mut self.runtime.service_mut(service).expect("it lives").told)
    }

    fn rests(&mut self) {
        let turns = self.runtime.metrics().read().turns;
        self.runtime.turn(Some(SHORT)).expect("whole");
        self.runtime.turn(Some(SHORT)).expect("whole");
        assert_eq!(self.runtime.metrics().read().turns, turns + 2);
    }
}

fn rig(engine: Engine) -> Rig {
    Rig::new(engine, WatchLimits::DEFAULT)
}

#[test]
fn the_life_of_a_file_and_of_a_directory_is_told_in_order() {
    for_each_engine(|engine| {
        let (folder, mut rig) = (Scratch::new(), rig(engine));
        rig.watch(folder.dir());
        let path = folder.path("file");
        let mut file = File::create(&path).expect("it is ours");
        assert_eq!(rig.take(1), ["created file"]);
        file.write_all(b"x").expect("room");
        assert_eq!(rig.take(1), ["modified file"]);
        file.set_len(0).expect("it is ours");
        assert_eq!(rig.take(1), ["modified file"]);
        drop(file);
        assert_eq!(rig.take(1), ["written file"]);
        let mut permissions = fs::metadata(&path).expect("it is there").permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&path, permissions).expect("it is ours");
        assert_eq!(rig.take(1), ["attributes file"]);
        fs::rename(&path, folder.path("renamed")).expect("it is ours");
        assert_eq!(rig.take(1), ["moved file to renamed"]);
        fs::remove_file(folder.path("renamed")).expect("it is ours");
        assert_eq!(rig.take(1), ["deleted renamed"]);
        fs::create_dir(folder.path("inner")).expect("it is ours");
        fs::remove_dir(folder.path("inner")).expect("it is ours");
        assert_eq!(rig.take(2), ["created inner/", "deleted inner/"]);
        rig.rests();
    });
}

#[test]
fn renames_are_paired_over_directories_and_those_of_one_side_are_told_as_such() {
    for_each_engine(|engine| {
        let (folder, mut rig) = (Scratch::new(), rig(engine));
        for name in ["a", "b", "elsewhere"] {
            fs::create_dir(folder.path(name)).expect("it is ours");
        }
        let (a, b) = (rig.watch(&folder.path("a")), rig.watch(&folder.path("b")));
        assert_ne!(a, b);
        let elsewhere = folder.path("elsewhere/x");
        File::create(&elsewhere).expect("it is ours");
        fs::rename(&elsewhere, folder.path("a/in")).expect("it is ours");
        fs::rename(folder.path("a/in"), folder.path("b/out")).expect("it is ours");
        fs::rename(folder.path("b/out"), &elsewhere).expect("it is ours");
        assert_eq!(rig.take(3), ["moved in in", "moved in to out", "moved out out"]);
        rig.rests();
    });
}

#[test]
fn a_rename_over_another_file_is_one_move() {
    for_each_engine(|engine| {
        let (folder, mut rig) = (Scratch::new(), rig(engine));
        fs::write(folder.path("old"), "old").expect("it is ours");
        fs::write(folder.path("new"), "new").expect("it is ours");
        rig.watch(folder.dir());
        fs::rename(folder.path("new"), folder.path("old")).expect("it is ours");
        assert_eq!(rig.take(1), ["moved new to old"]);
    });
}

#[test]
fn the_watched_directory_itself_may_move_and_its_end_is_the_last_word() {
    for_each_engine(|engine| {
        let (folder, mut rig) = (Scratch::new(), rig(engine));
        fs::create_dir(folder.path("inner")).expect("it is ours");
        let id = rig.watch(&folder.path("inner"));
        fs::rename(folder.path("inner"), folder.path("other")).expect("it is ours");
        File::create(folder.path("other/file")).expect("it is ours");
        // The file is closed at once, hence the event for the write.
        assert_eq!(rig.take(3), ["relocated", "created file", "written file"]);
        assert_eq!(rig.change(|watch| watch.path(id).map(PathBuf::from)), Some(folder.path("inner")));
        fs::remove_dir_all(folder.path("other")).expect("it is ours");
        assert_eq!(rig.take(2), ["deleted file", "ended Deleted"]);
        assert!(rig.change(|watch| watch.is_empty() && watch.path(id).is_none() && !watch.remove(id)));
        rig.rests();
    });
}

#[test]
fn a_single_file_is_watched_without_a_name_and_until_it_is_gone() {
    for_each_engine(|engine| {
        let (folder, mut rig) = (Scratch::new(), rig(engine));
        let path = folder.path("file");
        let mut file = File::create(&path).expect("it is ours");
        rig.watch(&path);
        file.write_all(b"x").expect("room");
        assert_eq!(rig.take(1), ["modified "]);
        fs::remove_file(&path).expect("it is ours");
        assert_eq!(rig.take(1), ["attributes "], "its number of links");
        drop(file);
        assert_eq!(rig.take(2), ["written ", "ended Deleted"]);
    });
}

#[test]
fn only_what_was_asked_for_is_told_and_the_last_wish_holds() {
    for_each_engine(|engine| {
        let (folder, mut rig) = (Scratch::new(), rig(engine));
        let names = WatchFor { entries: true, ..WatchFor::NOTHING };
        let id = rig.change(|watch| watch.add_for(folder.dir(), names)).expect("it is there");
        fs::write(folder.path("file"), "x").expect("it is ours");
        assert_eq!(rig.take(1), ["created file"]);
        let writes = WatchFor { written: true, ..WatchFor::NOTHING };
        let again = rig.change(|watch| watch.add_for(folder.dir(), writes)).expect("it is there");
        assert_eq!((again, rig.change(|watch| watch.len())), (id, 1), "the same directory is watched once");
        fs::write(folder.path("other"), "x").expect("it is ours");
        assert_eq!(rig.take(1), ["written other"]);
    });
}

#[test]
fn after_a_watch_was_removed_nothing_of_it_is_told_not_even_what_was_queued() {
    for_each_engine(|engine| {
        let (folder, mut rig) = (Scratch::new(), rig(engine));
        let id = rig.watch(folder.dir());
        File::create(folder.path("before")).expect("it is ours");
        assert!(rig.change(|watch| watch.remove(id)));
        File::create(folder.path("after")).expect("it is ours");
        settle(&mut rig.runtime);
        assert!(rig.told().is_empty(), "{:?}", rig.told());
        assert!(!rig.change(|watch| watch.remove(id)));
        rig.watch(folder.dir());
        fs::remove_file(folder.path("after")).expect("it is ours");
        assert_eq!(rig.take(1), ["deleted after"]);
        rig.rests();
    });
}

#[test]
fn what_happens_during_a_pause_is_told_after_it() {
    for_each_engine(|engine| {
        let (folder, mut rig) = (Scratch::new(), rig(engine));
        rig.watch(folder.dir());
        let id = rig.id;
        rig.runtime.with(rig.service, |_, cx| cx.pause(id));
        fs::create_dir(folder.path("one")).expect("it is ours");
        fs::rename(folder.path("one"), folder.path("two")).expect("it is ours");
        settle(&mut rig.runtime);
        assert!(rig.told().is_empty(), "{:?}", rig.told());
        rig.runtime.with(rig.service, |_, cx| cx.resume(id));
        assert_eq!(rig.take(2), ["created one/", "moved one/ to two/"]);
    });
}

#[test]
fn watches_are_added_up_to_their_limit_and_an_ended_one_makes_room() {
    for_each_engine(|engine| {
        let folder = Scratch::new();
        let mut rig = Rig::new(engine, WatchLimits::with(|options| options.watches = 3));
        for name in ["1", "2", "3", "4"] {
            fs::create_dir(folder.path(name)).expect("it is ours");
        }
        for (name, count) in [("1", 1), ("2", 2), ("3", 3)] {
            rig.watch(&folder.path(name));
            assert_eq!(rig.change(|watch| watch.len()), count);
        }
        let error = rig.change(|watch| watch.add(folder.path("4"))).expect_err("three is the limit");
        assert!(matches!(error, Error::Full { what: "watches", limit: 3 }), "{error}");
        fs::remove_dir(folder.path("2")).expect("it is ours");
        assert_eq!(rig.take(1), ["ended Deleted"]);
        rig.watch(&folder.path("4"));
    });
}

#[test]
fn a_file_that_is_watched_already_is_taken_at_the_limit_too_by_whatever_path() {
    for_each_engine(|engine| {
        let folder = Scratch::new();
        let mut rig = Rig::new(engine, WatchLimits::with(|options| options.watches = 2));
        for name in ["1", "2", "3"] {
            fs::create_dir(folder.path(name)).expect("it is ours");
        }
        let one = rig.watch(&folder.path("1"));
        assert_eq!(rig.watch(&folder.path("1")), one, "one below the limit");
        rig.watch(&folder.path("2"));
        let error = rig.change(|watch| watch.add(folder.path("3"))).expect_err("two is the limit");
        assert!(matches!(error, Error::Full { what: "watches", limit: 2 }), "{error}");
        assert_eq!(rig.watch(&folder.path("1")), one, "at the limit");
        // By another path, and with other interests than before.
        let writes = WatchFor { written: true, ..WatchFor::NOTHING };
        let again = rig.change(|watch| watch.add_for(folder.path("2/../1"), writes));
        assert_eq!((again.expect("it is known"), rig.change(|watch| watch.len())), (one, 2));
        // The refused directory is not watched. The accepted one is, with the last interests.
        fs::write(folder.path("3/file"), "x").expect("it is ours");
        fs::write(folder.path("1/file"), "x").expect("it is ours");
        assert_eq!(rig.take(1), ["written file"]);
        rig.rests();
    });
}

#[test]
fn a_batch_holds_so_many_changes_and_what_is_more_comes_in_the_next_turn() {
    for_each_engine(|engine| {
        // A record with a short name takes 32 bytes, so ten of them fit.
        let limits = WatchLimits::with(|options| options.batch_bytes = 320);
        for (count, batches) in [(9, vec![9]), (10, vec![10]), (11, vec![10, 1])] {
            let (folder, mut rig) = (Scratch::new(), Rig::new(engine, limits));
            rig.watch(folder.dir());
            (0..count).for_each(|at| fs::create_dir(folder.path(at.to_string())).expect("it is ours"));
            let told = rig.take(count);
            let expected: Vec<String> = (0..count).map(|at| format!("created {at}/")).collect();
            assert_eq!(told, expected);
            assert_eq!(rig.runtime.service(rig.service).expect("it lives").batches, batches);
        }
    });
}

#[test]
fn a_rename_on_the_border_of_two_reads_is_paired() {
    for_each_engine(|engine| {
        let limits = WatchLimits::with(|options| options.batch_bytes = 320);
        for before in [8, 9, 10] {
            let (folder, mut rig) = (Scratch::new(), Rig::new(engine, limits));
            fs::write(folder.path("a"), "x").expect("it is ours");
            rig.watch(folder.dir());
            (0..before).for_each(|at| fs::create_dir(folder.path(at.to_string())).expect("it is ours"));
            fs::rename(folder.path("a"), folder.path("b")).expect("it is ours");
            let told = rig.take(before + 1);
            assert_eq!((told.len(), told.last().map(String::as_str)), (before + 1, Some("moved a to b")));
        }
    });
}

#[test]
fn an_overflow_is_told_and_the_watch_goes_on() {
    let queued = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("Linux has it");
    let queued: usize = queued.trim().parse().expect("a number");
    for_each_engine(|engine| {
        let (folder, mut rig) = (Scratch::new(), rig(engine));
        rig.watch(folder.dir());
        let link = folder.path("link");
        for _ in 0..=queued / 2 {
            std::os::unix::fs::symlink("nowhere", &link).expect("it is ours");
            fs::remove_file(&link).expect("it is ours");
        }
        let service = rig.service;
        let ends = |told: &[String]| told.last().is_some_and(|last| last == "overflow");
        until(&mut rig.runtime, |runtime| ends(&runtime.service(service).expect("it lives").told));
        assert_eq!(rig.take(0).iter().filter(|told| *told == "overflow").count(), 1);
        fs::create_dir(folder.path("after")).expect("it is ours");
        assert_eq!(rig.take(1), ["created after/"]);
        rig.rests();
    });
}

#[test]
fn a_flood_in_one_directory_delays_no_other_resource() {
    for_each_engine(|engine| {
        let (folder, mut rig) = (Scratch::new(), rig(engine));
        rig.watch(folder.dir());
        let other = Scratch::new();
        let second = rig.runtime.with(rig.service, |_, cx| -> Result<Id<Watch>> {
            let mut watch = Watch::new()?;
            watch.add(other.dir())?;
            Ok(cx.add(watch)?)
        });
        second.expect("it lives").expect("there is room");
        settle(&mut rig.runtime);
        (0..1000).for_each(|at| fs::create_dir(folder.path(at.to_string())).expect("it is ours"));
        fs::create_dir(other.path("other")).expect("it is ours");
        rig.runtime.turn(Some(SHORT)).expect("whole");
        rig.runtime.turn(Some(SHORT)).expect("whole");
        assert!(rig.told().contains(&"created other/".to_owned()), "{} changes", rig.told().len());
        assert!(rig.told().len() < 1000, "each had its batch, and no more");
        assert_eq!(rig.take(1001).len(), 1001);
    });
}

#[test]
fn what_cannot_be_watched_is_refused_with_its_path() {
    let mut watch = Watch::new().expect("there is room for one");
    let error = watch.add("/nowhere/at/all").expect_err("it is not there");
    assert_eq!(error.io().map(std::io::Error::kind), Some(std::io::ErrorKind::NotFound));
    assert!(error.to_string().starts_with("watch /nowhere/at/all: "), "{error}");
    let error = watch.add("with\0nul").expect_err("no path");
    assert_eq!(error.io().map(std::io::Error::kind), Some(std::io::ErrorKind::InvalidInput));
    assert!(watch.is_empty());
}

#[test]
fn a_write_by_another_open_file_is_seen() {
    for_each_engine(|engine| {
        let (folder, mut rig) = (Scratch::new(), rig(engine));
        fs::write(folder.path("log"), "").expect("it is ours");
        rig.watch(folder.dir());
        let mut log = OpenOptions::new().append(true).open(folder.path("log")).expect("it is ours");
        log.write_all(b"line\n").expect("room");
        assert_eq!(rig.take(1), ["modified log"]);
    });
}
